"""Recordings and frames as the rasters that a spiking net is simulated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.events import Events

from .errors import InputError
from .geometry import sum_pooled
from .types import SpikingNet


def stack_rasters(recordings: Sequence[Events], dt_us: int, *, merge_polarity: bool) -> NDArray[np.uint16]:
    """Return the rasters of recordings side by side, short ones filled up with empty bins.

    Shapes: ``[T, B, C, H, W]``; time starts at the first event of each.
    """
    n_bins = max((events.duration_us // dt_us + 1 for events in recordings), default=1)
    started = (events.from_zero() for events in recordings)
    rasters = [
        events.to_raster(dt_us, n_bins=n_bins, merge_polarity=merge_polarity, dtype=np.uint16) for events in started
    ]
    return np.stack(rasters, axis=1)


def spread(frames: NDArray[Any], n_steps: int) -> NDArray[np.float32]:
    """Return frames as rasters of ``n_steps``: whole numbers as evenly spaced events, others as a constant input.

    Shapes: ``[N, C, H, W]`` to ``[T, N, C, H, W]``.
    Law: the raster sums to the frames.
    Raises: InputError for less than one step.
    """
    if n_steps < 1:
        raise InputError(f"n_steps: expected at least 1, found {n_steps}. Try 16.")
    if np.any(frames < 0) or np.any(frames != np.rint(frames)):
        return np.repeat((frames / n_steps).astype(np.float32)[None], n_steps, axis=0)
    steps = np.arange(n_steps + 1).reshape(-1, 1, 1, 1, 1)
    # Half an event ahead: a single one falls into the middle, not to the end with all others.
    return np.diff(np.floor(frames.astype(np.float64) * steps / n_steps + 0.5), axis=0).astype(np.float32)


def arriving(net: SpikingNet, index: int, sources: Mapping[int, NDArray[Any]]) -> NDArray[np.float32]:
    """Return what reaches layer ``index``: the sum of its edges, pooled and moved to their features.

    Shapes: ``sources`` holds ``[..., F, H, W]`` for each layer and ``INPUT``; the result is ``[..., *in_shape]``.
    """
    layer = net.layers[index]
    total = np.zeros((*next(iter(sources.values())).shape[:-3], *layer.in_shape), np.float32)
    for edge in net.incoming(index):
        spikes = sum_pooled(sources[edge.source], edge.pool)
        total[..., edge.feature_shift : edge.feature_shift + spikes.shape[-3], :, :] += spikes
    return total
