"""Rules over activations: which one becomes the wanted number of spikes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .evaluate import evaluate
from .graph import Conv, Graph, Relu

if TYPE_CHECKING:
    import torch

_CAP = 1_000_000
"""Activations kept of one layer; of more, the same random places of every frame."""

_BATCH = 64
_GRID = np.geomspace(1.0, 0.02, 96)
"""Scales that ``mse_scales`` tries, as shares of the largest activation."""

_QUANTILES = 20_000
"""Activations of one feature that the searches look at; of more, as many evenly from the sorted ones."""

_TOLERANCE = 1e-6
_MAX_ROUNDS = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Activations:
    """What a layer's rectifier gives on all frames.

    Shapes: ``values`` ``[F, n]``, never negative: all of them where they are few, else those of a fixed random choice
    of places; ``highest`` ``[F]`` over everything.
    """

    values: NDArray[np.float32]
    highest: NDArray[np.float32]
    n_frames: int

    @property
    def is_silent(self) -> bool:
        """Whether the layer never gave anything."""
        return not self.highest.any()

    def merged(self) -> Activations:
        """Return the same activations as those of one feature."""
        return Activations(self.values.reshape(1, -1), self.highest.max(keepdims=True), self.n_frames)


def observe(graph: Graph, frames: NDArray[np.float32]) -> Mapping[str, Activations]:
    """Return the activations of each convolution of a folded graph, bounded in memory whatever the number of frames.

    Law: exact where a layer gives at most a million activations; of more, an even share of each frame.
    """
    import torch

    convs = [node for node in graph if isinstance(node, Conv)]
    places = {node.name: _places(node, len(frames)) for node in convs}
    kept: dict[str, list[NDArray[np.float32]]] = {node.name: [] for node in convs}
    highest = {node.name: np.zeros(node.out_shape[0], np.float32) for node in convs}
    for first in range(0, len(frames), _BATCH):
        values = evaluate(graph, torch.from_numpy(frames[first : first + _BATCH].copy()))
        for node in convs:
            maps = _rectified(node, graph, values)
            highest[node.name] = np.maximum(highest[node.name], maps.max(axis=(0, 2)))
            chosen = maps if places[node.name] is None else maps[:, :, places[node.name]]
            kept[node.name].append(chosen.transpose(1, 0, 2).reshape(node.out_shape[0], -1))
    return {
        name: Activations(np.concatenate(chunks, axis=1), highest[name], len(frames)) for name, chunks in kept.items()
    }


def _places(node: Conv, n_frames: int) -> NDArray[np.int64] | None:
    """Return the places of a map that are kept, None for all."""
    features, size = node.out_shape[0], int(np.prod(node.out_shape[1:]))
    n = _CAP // max(1, features * n_frames)
    return None if n >= size else np.sort(np.random.default_rng(0).permutation(size)[: max(1, n)])


def _rectified(node: Conv, graph: Graph, values: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
    """Return a layer's activations ``[N, F, H * W]``, below the rectifier's upper bound where it has one."""
    readers = [reader for reader in graph.consumers(node.name) if isinstance(reader, Relu)]
    value = values[readers[0].name] if readers else values[node.name].clamp(min=0)
    return np.asarray(value.flatten(2).numpy(), np.float32)


def percentile_scales(found: Activations, percentile: float, *, positive: bool) -> NDArray[np.float64]:
    """Return the percentile of each feature's activations, 0 where there are none.

    Shapes: ``[F]``. ``positive`` leaves zeros out. Law: percentile 100 is the largest activation of all.
    """
    if percentile == 100:
        return found.highest.astype(np.float64)
    scales = np.zeros(len(found.values))
    for feature, values in enumerate(found.values):
        chosen = values[values > 0] if positive else values
        scales[feature] = np.percentile(chosen, percentile) if chosen.size else 0.0
    return scales


def mse_scales(found: Activations, spikes: float, *, start: float) -> NDArray[np.float64]:
    """Return the scale of each feature that costs least when activations are rounded down to spikes and clipped at it.

    Shapes: ``[F]``, 0 for silent features. ``start`` is the potential before the first event, in thresholds: a count is
    ``floor(spikes * a / scale + start)``, at most ``spikes``.
    Law: no other scale of the grid, shares of the largest activation, has a smaller mean squared error.
    Source: Li et al., ICML 2021.
    """
    scales = np.zeros(len(found.values))
    for feature, values in enumerate(map(_quantiles, found.values)):
        grid = float(found.highest[feature]) * _GRID
        errors = [squared_error(values, scale, spikes=spikes, start=start) for scale in grid] if values.size else [0.0]
        scales[feature] = grid[int(np.argmin(errors))]
    return scales


def squared_error(values: NDArray[np.floating[Any]], scale: float, *, spikes: float, start: float) -> float:
    """Return the mean squared difference of activations from what their spike counts stand for."""
    counts = np.clip(np.floor(values * (spikes / scale) + start), 0, max(1.0, np.floor(spikes)))
    return float(np.square(values - counts * (scale / spikes)).mean())


def balanced_scales(found: Activations, spikes: float) -> NDArray[np.float64]:
    """Return the scale of each feature at which clipping and rounding are in balance.

    Starts at 0 and adds ``2 * mean(relu(a - scale))``, what is clipped, less what a finer scale rounds better,
    ``scale * share / (6 * spikes ** 2)`` with the share of activations that are rounded, until it moves no more. The
    first term alone would end at the largest activation.
    Shapes: ``[F]``, 0 for silent features.
    Law: there the derivative of the expected squared error is 0: that of the clipped part, and ``step ** 2 / 12`` for
    each rounded one.
    Source: local threshold balancing as in SpikingJelly's recipe; the second term is ours.
    """
    scales = np.zeros(len(found.values))
    for feature, values in enumerate(map(_quantiles, found.values)):
        scale = 0.0
        for _ in range(_MAX_ROUNDS if values.size else 0):
            above = values > scale
            clipped = float((values[above] - scale).sum()) / values.size
            rounded = 1.0 - float(above.mean())
            step = 2.0 * clipped - scale * rounded / (6.0 * spikes**2)
            scale += step
            if abs(step) <= _TOLERANCE * scale:
                break
        scales[feature] = scale
    return scales


def _quantiles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the positive activations, or evenly chosen ones of them in order of size."""
    positive = np.sort(values[values > 0]).astype(np.float64)
    if positive.size <= _QUANTILES:
        return positive
    return positive[np.linspace(0, positive.size - 1, _QUANTILES).round().astype(np.int64)]
