"""What looks on while an evaluation runs: recorders, early exit, checkpoints, and callbacks of the user's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InferenceError
from .nearest import unknown
from .predictor import Predictor, Response, Run
from .seen import Seen

SampleFilter = Callable[[int], bool] | Iterable[int] | None
"""Which samples: a function of the index, indices, or None for all."""

NeuronFilter = Any
"""Which neurons of a layer: an index expression for its map ``[F, H, W]``, or None for all."""


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """An evaluation between two pieces of a batch.

    Shapes: ``values[output]`` ``[B, *shape]`` is read so far, ``done`` ``[B]`` says which samples have ended early.
    ``indices`` are the numbers of the samples.
    Units: ``time_us`` is how far the batch has come.
    """

    run: Run
    predictor: Predictor
    indices: tuple[int, ...]
    time_us: int
    values: Mapping[str, NDArray[np.float64]]
    done: NDArray[np.bool_]


class Callback:
    """What a callback may have; an object of any class with some of these methods is one too.

    The object that is given is used, not a copy. ``chunk_steps`` asks for ``after_chunk`` every so many steps (None:
    once a batch), ``record`` for the spikes of layers over time.
    """

    chunk_steps: int | None = None
    record: tuple[str, ...] = ()

    def begin(self, predictor: Predictor, n_samples: int | None) -> None:
        """Begin, before the first sample; ``n_samples`` where it is known."""

    def before_batch(self, run: Run, indices: tuple[int, ...]) -> None:
        """See a batch begin; the run may be reset or restored."""

    def after_chunk(self, view: View) -> NDArray[np.bool_] | None:
        """See a piece of a batch end; return which samples end here, or None."""

    def after_batch(self, seen: Mapping[str, Seen], response: Response) -> None:
        """See a batch end, as the metrics see each output."""

    def end(self) -> None:
        """End, after the last sample."""

    def data(self) -> tuple[str, Any] | None:
        """Return a key and what the evaluation keeps under it, or None."""


class SpikeRecorder(Callback):
    """Keeps the spikes of a layer: times and neurons of each sample, or only their ``counts``.

    ``data`` holds one entry for each recorded sample, by its index: ``times_us`` (end of the step), ``neurons`` (flat
    index within the chosen ones) and ``n`` (how many at once); with ``counts`` the number for each chosen neuron.
    """

    def __init__(
        self,
        layer: str,
        *,
        samples: SampleFilter = None,
        neurons: NeuronFilter = None,
        counts: bool = False,
        key: str | None = None,
    ) -> None:
        self.record = (layer,)
        self._layer, self._samples, self._neurons, self._counts = layer, _sample_filter(samples), neurons, counts
        self._key = key or f"spikes {layer}"
        self._kept: dict[int, Any] = {}

    def begin(self, predictor: Predictor, n_samples: int | None) -> None:  # noqa: ARG002
        """Forget earlier samples; refuse a layer that there is not."""
        self._kept = {}
        if self._layer not in predictor.layers:
            raise InferenceError(
                unknown(f"callback: layer of {predictor.name}", self._layer, predictor.layers or ("",))
            )

    def after_batch(self, seen: Mapping[str, Seen], response: Response) -> None:
        """Keep the spikes of this batch."""
        first = next(iter(seen.values()))
        maps = response.recorded[self._layer]
        for row, index in enumerate(first.indices):
            if not self._samples(index):
                continue
            live = first.live[:, row]
            chosen = _neurons(maps[live, row], self._neurons)
            if self._counts:
                self._kept[index] = chosen.sum(axis=0)
                continue
            flat = chosen.reshape(len(chosen), -1)
            step, neuron = np.nonzero(flat)
            times = response.ends_us[live, row][step]
            self._kept[index] = {"times_us": times, "neurons": neuron, "n": flat[step, neuron]}

    def data(self) -> tuple[str, Any] | None:
        """Return the spikes by sample."""
        return self._key, self._kept


class StateRecorder(Callback):
    """Keeps a state of the run, such as a layer's potentials, every ``every_steps`` steps.

    ``name`` is one of the names in ``Run.state()``. ``data`` holds an array ``[T, *chosen neurons]`` for each recorded
    sample, by its index.
    """

    def __init__(
        self,
        name: str,
        *,
        every_steps: int = 1,
        samples: SampleFilter = None,
        neurons: NeuronFilter = None,
        key: str | None = None,
    ) -> None:
        if every_steps < 1:
            raise InferenceError(f"callback: every_steps: expected 1 or more, found {every_steps}. Try 1.")
        self.chunk_steps = every_steps
        self._name, self._samples, self._neurons = name, _sample_filter(samples), neurons
        self._key = key or f"state {name}"
        self._kept: dict[int, list[NDArray[Any]]] = {}

    def begin(self, predictor: Predictor, n_samples: int | None) -> None:  # noqa: ARG002
        """Forget earlier samples."""
        self._kept = {}

    def after_chunk(self, view: View) -> None:
        """Keep the state of this moment."""
        states = view.run.state()
        if self._name not in states:
            raise InferenceError(unknown(f"callback: state of {view.predictor.name}", self._name, states or ("",)))
        for row, index in enumerate(view.indices):
            if self._samples(index) and not view.done[row]:
                self._kept.setdefault(index, []).append(
                    _neurons(states[self._name][row][None], self._neurons)[0].copy()
                )

    def data(self) -> tuple[str, Any] | None:
        """Return the states by sample."""
        return self._key, {index: np.stack(states) for index, states in self._kept.items()}


class EarlyExit(Callback):
    """Ends a sample where the largest value leads the second by ``margin``; looks every ``every_steps`` steps.

    What the readout holds then is the sample's answer, and it gets no more input. ``data`` holds the time at which each
    sample ended, in microseconds.
    """

    def __init__(self, margin: float, *, every_steps: int = 1, output: str | None = None) -> None:
        if not margin > 0 or every_steps < 1:
            raise InferenceError(
                f"early exit: expected a margin above 0 and every_steps of 1 or more, found {margin} and "
                f"{every_steps}. Try EarlyExit(5)."
            )
        self.chunk_steps = every_steps
        self._margin, self._output = margin, output
        self._ended: dict[int, int] = {}

    def begin(self, predictor: Predictor, n_samples: int | None) -> None:  # noqa: ARG002
        """Forget earlier samples; refuse an output that there is not."""
        self._ended = {}
        if self._output is not None and self._output not in predictor.outputs:
            raise InferenceError(unknown(f"early exit: output of {predictor.name}", self._output, predictor.outputs))

    def after_chunk(self, view: View) -> NDArray[np.bool_] | None:
        """Return which samples lead by the margin."""
        values = view.values[self._output or next(iter(view.values))]
        top = np.sort(values.reshape(len(values), -1), axis=1)
        lead = np.full(len(values), np.inf) if top.shape[1] < 2 else _difference(top[:, -1], top[:, -2])
        found = np.asarray(lead >= self._margin, np.bool_)
        for row in np.flatnonzero(found & ~view.done):
            self._ended[view.indices[row]] = view.time_us
        return found

    def data(self) -> tuple[str, Any] | None:
        """Return the times by sample."""
        return "early_exit_us", dict(self._ended)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Finished shards of ``shard_size`` samples go to a folder; the same evaluation goes on from there.

    Law: an evaluation that was interrupted and started again has the result of one that was not.
    """

    folder: Path
    shard_size: int = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if self.shard_size < 1:
            raise InferenceError(f"checkpoint: expected a shard size of 1 or more, found {self.shard_size}. Try 1000.")


CALLBACKS: Mapping[str, Callable[[], Any]] = MappingProxyType({"early_exit": lambda: EarlyExit(5.0)})
"""Callbacks by name, as they are without arguments; the progress bar is always there, on a terminal."""


def find_callback(callback: Any) -> Any:
    """Return the callback of that name, or the one that is given.

    Raises: InferenceError for an unknown name, with the nearest one, or an object with no method of a callback.
    """
    if isinstance(callback, str):
        if callback not in CALLBACKS:
            raise InferenceError(unknown("callback", callback, CALLBACKS))
        return CALLBACKS[callback]()
    methods = ("begin", "before_batch", "after_chunk", "after_batch", "end", "data")
    if isinstance(callback, Checkpoint) or any(callable(getattr(callback, name, None)) for name in methods):
        return callback
    raise InferenceError(
        f"callback: expected an object with some of {', '.join(methods)}, found {type(callback).__name__}. "
        "Try a subclass of Callback."
    )


class Callbacks:
    """Several callbacks as one: calls those methods that each has."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._all = tuple(callbacks)
        steps = [n for one in self._all if (n := getattr(one, "chunk_steps", None)) is not None]
        self.chunk_steps: int | None = math.gcd(*steps) if steps else None
        self.record = tuple(dict.fromkeys(name for one in self._all for name in getattr(one, "record", ())))

    def begin(self, predictor: Predictor, n_samples: int | None) -> None:
        """Call ``begin`` of all."""
        for call in self._methods("begin"):
            call(predictor, n_samples)

    def before_batch(self, run: Run, indices: tuple[int, ...]) -> None:
        """Call ``before_batch`` of all."""
        for call in self._methods("before_batch"):
            call(run, indices)

    def after_chunk(self, view: View, n_chunk: int) -> NDArray[np.bool_]:
        """Call ``after_chunk`` of those that are due after ``n_chunk`` pieces; return which samples end."""
        ends = np.zeros(len(view.indices), np.bool_)
        for one in self._all:
            wanted = getattr(one, "chunk_steps", None)
            every = 1 if wanted is None or self.chunk_steps is None else max(1, wanted // self.chunk_steps)
            call = getattr(one, "after_chunk", None)
            if callable(call) and n_chunk % every == 0:
                found = call(view)
                ends |= False if found is None else np.asarray(found, np.bool_)
        return ends

    def after_batch(self, seen: Mapping[str, Seen], response: Response) -> None:
        """Call ``after_batch`` of all."""
        for call in self._methods("after_batch"):
            call(seen, response)

    def end(self) -> dict[str, Any]:
        """Call ``end`` of all and return what they have kept, by key."""
        for call in self._methods("end"):
            call()
        kept = [found for call in self._methods("data") if (found := call()) is not None]
        doubled = [key for key, _ in kept if sum(key == other for other, _ in kept) > 1]
        if doubled:
            raise InferenceError(
                f"callbacks: expected a key of its own for each, found {doubled[0]!r} twice. Try key='...'."
            )
        return dict(kept)

    def _methods(self, name: str) -> list[Callable[..., Any]]:
        return [call for one in self._all if callable(call := getattr(one, name, None))]


def _sample_filter(samples: SampleFilter) -> Callable[[int], bool]:
    if samples is None:
        return lambda _: True
    if callable(samples):
        return samples
    given = list(samples)
    if given and all(isinstance(one, (bool, np.bool_)) for one in given):
        return lambda index: index < len(given) and bool(given[index])
    wanted = frozenset(int(one) for one in given)
    return lambda index: index in wanted


def _neurons(maps: NDArray[Any], chosen: NeuronFilter) -> NDArray[Any]:
    """Return the chosen neurons of maps ``[T, F, H, W]``."""
    if chosen is None:
        return maps
    index = chosen if isinstance(chosen, tuple) else (chosen,)
    try:
        return np.asarray(maps[(slice(None), *index)])
    except IndexError as cause:
        raise InferenceError(
            f"callback: neurons: expected an index into a map of {list(maps.shape[1:])}, found {chosen!r:.80}. "
            "Try (0, slice(None), slice(None)) for the first feature."
        ) from cause


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the first lead; 0 where both are minus infinity."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(first - second, nan=0.0, posinf=np.inf)
