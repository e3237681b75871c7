"""How good a spiking net is on labelled samples, and at what cost: the objective of a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.models.arrays import ArrayRecord, frozen
from spikeport.models.events import Events

from .errors import CalibrationError
from .rasters import stack_rasters
from .simulate import STEP_US, simulate
from .synops import count_synops
from .types import SpikingNet

_FACTORS = np.geomspace(0.01, 30.0, 50)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LabelledSamples(ArrayRecord):
    """What a net is judged by: rasters with one label each.

    ``recordings`` are the events behind the rasters where there are any: a chip sees those, else the events of the
    raster.
    Shapes: ``raster`` holds event counts ``[T, N, C, H, W]``, ``labels`` is int64 ``[N]``.
    Units: ``dt_us`` is the length of a step.
    Raises: CalibrationError for other shapes, labels below 0, or a raster without events.
    """

    raster: NDArray[Any]
    labels: NDArray[np.int64]
    recordings: tuple[Events, ...] | None = None
    dt_us: int = STEP_US

    def __post_init__(self) -> None:
        object.__setattr__(self, "raster", frozen(self.raster))
        object.__setattr__(self, "labels", frozen(self.labels, np.int64))
        problem = self._problem()
        if problem:
            raise CalibrationError(f"labelled samples: {problem}")

    def _problem(self) -> str | None:
        shape, n = self.raster.shape, len(self.labels)
        if len(shape) != 5 or 0 in shape or self.labels.shape != shape[1:2]:
            return (
                f"expected a raster [T, N, C, H, W] with N labels, found {list(shape)} and labels "
                f"{list(self.labels.shape)}. Try one label per sample."
            )
        if self.recordings is not None and len(self.recordings) != n:
            return f"expected a recording for each of {n} labels, found {len(self.recordings)}. Try None."
        if self.labels.min() < 0:
            return f"expected labels of 0 or more, found {self.labels.min()}. Try recordings whose class is known."
        if not np.isfinite(self.raster).all() or self.raster.min() < 0 or not self.raster.any():
            return "expected event counts of 0 or more, some of them above, found others. Try Events.to_raster(dt_us)."
        return None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_steps(self) -> int:
        """Number of time steps."""
        return int(self.raster.shape[0])

    @property
    def frames(self) -> NDArray[np.float32]:
        """The sum of each sample over its steps, ``[N, C, H, W]``."""
        return np.asarray(self.raster.sum(axis=0, dtype=np.float64), np.float32)

    def subset(self, indices: ArrayLike) -> LabelledSamples:
        """Return the samples at ``indices``, in that order."""
        chosen = np.asarray(indices, np.int64)
        kept = None if self.recordings is None else tuple(self.recordings[index] for index in chosen)
        return dataclasses.replace(self, raster=self.raster[:, chosen], labels=self.labels[chosen], recordings=kept)


def label_recordings(
    recordings: Sequence[Events], labels: ArrayLike, *, dt_us: int = STEP_US, merge_polarity: bool = False
) -> LabelledSamples:
    """Return recordings with one label each, cut into steps of ``dt_us``, short ones filled up with empty steps.

    Raises: CalibrationError where there is none, or not one label each, or sensors differ.
    """
    sizes = {recording.sensor_size for recording in recordings}
    if len(sizes) != 1:
        raise CalibrationError(
            f"labelled samples: expected recordings of one sensor size, found {sorted(sizes)}. Try one data set."
        )
    raster = stack_rasters(recordings, dt_us, merge_polarity=merge_polarity)
    started = tuple(recording.from_zero() for recording in recordings)
    return LabelledSamples(raster, np.asarray(labels), started, dt_us)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Verdict(ArrayRecord):
    """What a net made of labelled samples.

    Shapes: ``is_correct`` bool ``[N]``; ``losses`` float64 ``[N]``; ``bits`` float64 ``[N, classes]``: minus the binary
    logarithm of the probability that the net gives each class, see ``judge_scores``.
    Units: losses are in bits, ``synops_per_sample`` is a mean.
    """

    is_correct: NDArray[np.bool_]
    losses: NDArray[np.float64]
    bits: NDArray[np.float64]
    synops_per_sample: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_correct", frozen(self.is_correct, np.bool_))
        object.__setattr__(self, "losses", frozen(self.losses, np.float64))
        object.__setattr__(self, "bits", frozen(self.bits, np.float64))

    @property
    def accuracy(self) -> float:
        """The share of samples classified right."""
        return float(self.is_correct.mean())

    @property
    def loss(self) -> float:
        """The mean loss: it tells nets apart that classify the same samples right, by how far ahead the class is."""
        return float(self.losses.mean())


class Judge(Protocol):
    """An objective: what a net makes of labelled samples."""

    def __call__(self, net: SpikingNet, samples: LabelledSamples) -> Verdict:
        """Return the verdict on all samples."""


def judge_spiking(net: SpikingNet, samples: LabelledSamples) -> Verdict:
    """Return the verdict on the net as it is simulated in time steps, with exact synops of that simulation."""
    trace = simulate(net, samples.raster, dt_us=samples.dt_us)
    scores = class_scores(trace.output.sum(axis=0), trace.output_states)
    return judge_scores(scores, trace.predictions(), samples.labels, n_synops=count_synops(net, trace).total)


def class_scores(counts: NDArray[np.integer[Any]], states: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return one number per class from its output spikes and the last potential behind them.

    Law: its order is that of predictions: more spikes first, then the higher potential.
    """
    return np.asarray(counts + 0.5 * states / (1.0 + np.abs(states)), np.float64)


def judge_scores(
    scores: NDArray[np.floating[Any]],
    predictions: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    n_synops: int,
) -> Verdict:
    """Return the verdict on output scores (``class_scores``).

    A loss is minus the binary logarithm of the probability of the right class, at most 1: the few samples that are far
    off would hide all others. Probabilities are the softmax of a multiple of the scores, the most likely one: how many
    spikes the output emits counts for nothing, how far the right class is ahead does.
    Shapes: ``scores`` is ``[N, classes]``, ``predictions`` and ``labels`` are ``[N]``.
    Raises: CalibrationError for a label that is no class.
    """
    if labels.max() >= scores.shape[1]:
        raise CalibrationError(
            f"labelled samples: expected labels below {scores.shape[1]}, the classes of the net, found {labels.max()}. "
            "Try the data set that the CNN was trained on."
        )
    centered = scores - scores.max(axis=1, keepdims=True)
    likely, least = centered, np.inf
    for factor in _FACTORS:
        logarithms = factor * centered - np.logaddexp.reduce(factor * centered, axis=1, keepdims=True)
        loss = -float(logarithms[np.arange(len(labels)), labels].mean())
        if loss < least:
            likely, least = logarithms, loss
    bits = -likely / np.log(2.0)
    losses = np.minimum(bits[np.arange(len(labels)), labels], 1.0)
    return Verdict(predictions == labels, losses, bits, n_synops / len(labels))
