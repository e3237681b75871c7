"""What an evaluation measures: metrics whose states are whole numbers, or exact sums, and merge without rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import InferenceError
from .exact import exact_sum, merged, rounded
from .nearest import unknown
from .seen import Metric, Seen, State


class _Counting:
    """Metrics whose states are whole numbers by name, which add up."""

    def merge(self, a: State, b: State) -> State:
        """Return the sums."""
        return {key: a.get(key, 0) + b.get(key, 0) for key in (*a, *(key for key in b if key not in a))}


@dataclasses.dataclass(frozen=True)
class Accuracy(_Counting):
    """The share of samples whose decision is their label; equal outputs go to the tie-break, then the lower index."""

    name: str = "accuracy"

    def empty(self) -> State:
        """Return zeros."""
        return {"n": 0, "right": 0}

    def update(self, state: State, seen: Seen) -> State:
        """Return the counts with this batch."""
        labels = seen.labels(self.name)
        return self.merge(state, {"n": len(labels), "right": int((seen.classes == labels).sum())})

    def result(self, state: State) -> Any:
        """Return the share."""
        return state["right"] / state["n"] if state["n"] else None


@dataclasses.dataclass(frozen=True)
class TopK(_Counting):
    """The share of samples whose label is among the ``k`` largest outputs, ties as in ``Accuracy``."""

    k: int = 5
    name: str = "top_k"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InferenceError(f"metric top_k: expected k of 1 or more, found {self.k}. Try 5.")

    def empty(self) -> State:
        """Return zeros."""
        return {"n": 0, "right": 0}

    def update(self, state: State, seen: Seen) -> State:
        """Return the counts with this batch."""
        labels = seen.labels(self.name)
        flat = seen.values.reshape(len(labels), -1)
        ties = np.zeros_like(flat) if seen.tie_breaks is None else seen.tie_breaks.reshape(len(labels), -1)
        rows = np.arange(len(labels))[:, None]
        own, own_tie = flat[rows, labels[:, None]], ties[rows, labels[:, None]]
        before = np.arange(flat.shape[1]) < labels[:, None]
        ahead = (flat > own) | ((flat == own) & ((ties > own_tie) | ((ties == own_tie) & before)))
        return self.merge(state, {"n": len(labels), "right": int((ahead.sum(axis=1) < self.k).sum())})

    def result(self, state: State) -> Any:
        """Return the share."""
        return state["right"] / state["n"] if state["n"] else None


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """How many samples of each label (row) were decided to be each class (column)."""

    name: str = "confusion_matrix"

    def empty(self) -> State:
        """Return no rows."""
        return {"counts": []}

    def update(self, state: State, seen: Seen) -> State:
        """Return the counts with this batch."""
        labels, n = seen.labels(self.name), int(np.prod(seen.values.shape[1:]))
        counts = np.bincount(labels * n + seen.classes, minlength=n * n).reshape(n, n)
        return self.merge(state, {"counts": counts.tolist()})

    def merge(self, a: State, b: State) -> State:
        """Return the sum."""
        if not a["counts"] or not b["counts"]:
            return a if a["counts"] else b
        return {"counts": (np.asarray(a["counts"], np.int64) + np.asarray(b["counts"], np.int64)).tolist()}

    def result(self, state: State) -> Any:
        """Return the rows."""
        return state["counts"] or None


@dataclasses.dataclass(frozen=True)
class MeanSquareError:
    """The mean over samples of each sample's mean squared error, rounded once.

    Targets have the shape of the output, or of the output in every step: then the error is that of the whole curve.
    """

    name: str = "mean_square_error"

    def empty(self) -> State:
        """Return zeros."""
        return {"n": 0, "sum": "0"}

    def update(self, state: State, seen: Seen) -> State:
        """Return the sums with this batch."""
        if seen.targets is None:
            raise InferenceError(
                "metric mean_square_error: expected a target for each sample, found none. Try data with targets."
            )
        errors = [self._error(seen, row, np.asarray(target)) for row, target in enumerate(seen.targets)]
        return {"n": state["n"] + len(errors), "sum": exact_sum(errors, state["sum"])}

    def _error(self, seen: Seen, row: int, target: NDArray[Any]) -> float:
        steps = seen.curve[seen.live[:, row], row]
        found = steps if target.shape == steps.shape and target.shape != seen.values.shape[1:] else seen.values[row]
        if target.shape != found.shape or target.dtype.kind not in "biuf":
            raise InferenceError(
                f"metric mean_square_error: sample {seen.indices[row]}: expected numbers of shape "
                f"{list(seen.values.shape[1:])}, or {list(steps.shape)} for every step, found {target.dtype} of shape "
                f"{list(target.shape)}. Try accuracy for labels."
            )
        error = float(np.mean(np.square(found.astype(np.float64) - target)))
        if not np.isfinite(error):
            raise InferenceError(
                f"metric mean_square_error: sample {seen.indices[row]}: expected finite outputs and targets, found "
                f"an error of {error}. Try another readout."
            )
        return error

    def merge(self, a: State, b: State) -> State:
        """Return the exact sums."""
        return {"n": a["n"] + b["n"], "sum": merged(a["sum"], b["sum"])}

    def result(self, state: State) -> Any:
        """Return the mean."""
        return rounded(state["sum"], state["n"]) if state["n"] else None


@dataclasses.dataclass(frozen=True)
class Latency(_Counting):
    """How long the decision took: the end of the step from which on it stayed what it is at the end.

    Units: milliseconds from the start of the recording; samples whose outputs were all alike to the end count as
    undecided. The state counts each time that occurs, so percentiles are exact.
    """

    name: str = "latency"
    needs_decisions: ClassVar[bool] = True

    def empty(self) -> State:
        """Return no times."""
        return {}

    def update(self, state: State, seen: Seen) -> State:
        """Return the counts with this batch."""
        if seen.decided_us is None:
            return state
        times, counts = np.unique(seen.decided_us, return_counts=True)
        found = {str(time): count for time, count in zip(times.tolist(), counts.tolist(), strict=True)}
        return self.merge(state, found)

    def result(self, state: State) -> Any:
        """Return mean, percentiles and largest, and how many there are."""
        if not state:
            return None
        times = np.array(sorted(int(key) for key in state if key != "-1"), np.int64)
        counts = np.array([state[str(time)] for time in times.tolist()], np.int64)
        n = int(counts.sum())
        known: State = {"n_decided": n, "n_undecided": state.get("-1", 0)}
        if not n:
            return {**known, "mean_ms": None, "p50_ms": None, "p90_ms": None, "p99_ms": None, "max_ms": None}
        reached = np.cumsum(counts)
        ranks = {
            f"p{share}_ms": int(times[np.searchsorted(reached, -(-share * n // 100))]) / 1e3 for share in (50, 90, 99)
        }
        mean = sum(int(time) * int(count) for time, count in zip(times, counts, strict=True)) / n / 1e3
        return {**known, "mean_ms": mean, **ranks, "max_ms": int(times[-1]) / 1e3}


@dataclasses.dataclass(frozen=True)
class Spikes(_Counting):
    """Spikes of each layer, and of all, per sample."""

    name: str = "spikes"

    def empty(self) -> State:
        """Return no counts."""
        return {"n": 0}

    def update(self, state: State, seen: Seen) -> State:
        """Return the counts with this batch."""
        counted = seen.response.spikes
        if not counted:
            raise _uncounted(self.name, "spikes", seen)
        return self.merge(state, {"n": len(seen.values), **_totals(counted)})

    def result(self, state: State) -> Any:
        """Return means per sample, by layer and together."""
        return _per_sample(state)


@dataclasses.dataclass(frozen=True)
class Synops(_Counting):
    """Synaptic operations of each layer, and of all, per sample: exact counts, pools and borders included."""

    name: str = "synops"

    def empty(self) -> State:
        """Return no counts."""
        return {"n": 0}

    def update(self, state: State, seen: Seen) -> State:
        """Return the counts with this batch."""
        counted = seen.response.synops
        if not counted:
            raise _uncounted(self.name, "synops", seen)
        return self.merge(state, {"n": len(seen.values), **_totals(counted)})

    def result(self, state: State) -> Any:
        """Return means per sample, by layer and together."""
        return _per_sample(state)


@dataclasses.dataclass(frozen=True)
class Energy:
    """Energy per sample by the predictor's power profile, in joules: lowest, middle and highest estimate.

    The predictor has a method ``energy_j(response, lengths_us)`` that returns ``[B, 3]``; it is an estimate.
    """

    name: str = "energy"

    def empty(self) -> State:
        """Return zeros."""
        return {"n": 0, "low": "0", "mid": "0", "high": "0"}

    def update(self, state: State, seen: Seen) -> State:
        """Return the sums with this batch."""
        estimate = getattr(seen.predictor, "energy_j", None)
        if estimate is None or not seen.response.synops:
            raise _uncounted(self.name, "energy", seen)
        bands = np.asarray(estimate(seen.response, seen.lengths_us), np.float64)
        sums = {key: exact_sum(bands[:, column], state[key]) for column, key in enumerate(("low", "mid", "high"))}
        return {"n": state["n"] + len(bands), **sums}

    def merge(self, a: State, b: State) -> State:
        """Return the exact sums."""
        return {"n": a["n"] + b["n"], **{key: merged(a[key], b[key]) for key in ("low", "mid", "high")}}

    def result(self, state: State) -> Any:
        """Return the means."""
        return {f"{key}_j": rounded(state[key], state["n"]) for key in ("low", "mid", "high")} if state["n"] else None


METRICS: Mapping[str, Callable[[], Metric]] = MappingProxyType(
    {
        "accuracy": Accuracy,
        "sparse_categorical_accuracy": lambda: Accuracy("sparse_categorical_accuracy"),
        "top_k": TopK,
        "confusion_matrix": ConfusionMatrix,
        "mean_square_error": MeanSquareError,
        "latency": Latency,
        "spikes": Spikes,
        "synops": Synops,
        "energy": Energy,
    }
)
"""Metrics by name, as they are without arguments; ``top_5`` is ``TopK(5)``."""


def find_metric(metric: str | Metric) -> Metric:
    """Return the metric of that name, or the one that is given.

    Raises: InferenceError for an unknown name, with the nearest one.
    """
    if not isinstance(metric, str):
        return metric
    stem, _, k = metric.rpartition("_")
    if stem == "top" and k.isdecimal() and len(k) < 7:
        return TopK(int(k), metric)
    if metric not in METRICS:
        raise InferenceError(unknown("metric", metric, METRICS))
    return METRICS[metric]()


def _totals(counted: Mapping[str, NDArray[np.int64]]) -> State:
    return {f"layer {name}": int(counts.sum()) for name, counts in counted.items()}


def _per_sample(state: State) -> Any:
    if not state["n"]:
        return None
    layers = {key.removeprefix("layer "): count / state["n"] for key, count in state.items() if key != "n"}
    total = sum(count for key, count in state.items() if key != "n")
    return {"per_sample": total / state["n"], "layers": layers}


def _uncounted(name: str, what: str, seen: Seen) -> InferenceError:
    return InferenceError(
        f"metric {name}: expected a predictor that counts {what}, found {seen.predictor.name}, or input that is no "
        "events. Try a spiking net or a chip program on recordings of events."
    )
