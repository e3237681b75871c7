"""How a core program and its events lie in memory for the compiled loop of the emulator."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair

from .types import CoreProgram

Int64s = NDArray[np.int64]

NEXT, ACCEPTED, DROPPED, SYNOPS, TICKS = range(5)
"""Places in ``progress``: next event to process, events accepted and dropped, targets visited, leak ticks applied."""


class Layout(NamedTuple):
    """A core program as the compiled loop wants it.

    Shapes: ``weight`` int8 ``[C, ky, kx * F]``, taps of a kernel row in the order in which an event meets its targets,
    feature fastest; ``rows`` and ``columns`` int64 ``[size, 3]``: for each input row (column) the first output row
    (column) that it reaches, how many it reaches, and the kernel row (the place of the tap) that leads to the first.
    ``row_step`` kernel rows lie between one output row and the next. ``n_targets_max``: targets of one event at most.
    """

    weight: NDArray[np.int8]
    rows: Int64s
    columns: Int64s
    bias: NDArray[np.int16]
    n_features: int
    row_step: int
    threshold_high: int
    threshold_low: int
    resets_to_zero: bool
    n_targets_max: int


class Stream(NamedTuple):
    """Events on their way into a core, columns of equal length, none negative.

    ``event`` is the index of the causing input event.
    """

    event: Int64s
    feature: Int64s
    y: Int64s
    x: Int64s


class SpikeBuffer(NamedTuple):
    """Spikes that left a core, columns of equal length, addresses before pooling."""

    event: Int64s
    feature: NDArray[np.int16]
    y: NDArray[np.int16]
    x: NDArray[np.int16]


def lay_out(core: CoreProgram) -> Layout:
    """Return ``core`` in the memory layout of the compiled loop.

    Taps of a kernel row that one event uses lie ``stride`` apart and come in falling order as the output column rises,
    so they are stored grouped by their remainder, falling in each group: then the taps of an event are neighbors.
    Every array is a fresh one, because the loop would be compiled anew for read-only ones.
    """
    features, channels, ky, kx = core.weight.shape
    rows = _targets(core.in_shape[1], core.out_shape[1], ky, (core.stride[0], core.padding[0]))
    columns = _targets(core.in_shape[2], core.out_shape[2], kx, (core.stride[1], core.padding[1]))
    order = np.concatenate([np.arange(kx)[remainder :: core.stride[1]][::-1] for remainder in range(core.stride[1])])
    place = np.argsort(order)
    columns[:, 2] = place[columns[:, 2]]
    weight = core.weight.transpose(1, 2, 3, 0)[:, :, order].reshape(channels, ky, kx * features)
    return Layout(
        weight=np.array(weight, order="C"),
        rows=rows,
        columns=columns,
        bias=np.zeros(features, np.int16) if core.bias is None else core.bias.copy(),
        n_features=features,
        row_step=core.stride[0],
        threshold_high=core.threshold_high,
        threshold_low=core.threshold_low,
        resets_to_zero=core.reset == "zero",
        n_targets_max=int(rows[:, 1].max() * columns[:, 1].max()) * features,
    )


def _targets(size: int, out_size: int, kernel: int, steps: Pair) -> Int64s:
    """Return, per input position: first output position, number of them, kernel position that leads to the first."""
    stride, padding = steps
    position = np.arange(size, dtype=np.int64) + padding
    first = np.maximum(0, -((kernel - 1 - position) // stride))
    last = np.minimum(out_size - 1, position // stride)
    n_targets = np.maximum(0, last - first + 1)
    return np.stack([first, n_targets, np.where(n_targets > 0, position - first * stride, 0)], axis=1)
