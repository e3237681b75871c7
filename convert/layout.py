"""How a layer, its neurons and its spikes lie in memory for the compiled loops of the event engine."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .geometry import Shape3
from .kernels import dense_kernel
from .types import Edge, SpikingLayer

Floats = NDArray[np.float32]
Int64s = NDArray[np.int64]
Uint64s = NDArray[np.uint64]

STEP = 32
"""First bit of the step in the word of a spike; the bits below are its neuron."""

ROW, GROUP = 21, 42
"""First bits of row and group in the word of a unit; the bits below are its column."""

LANES, BLOCK = 16, 64
"""Weights that are added at once; neurons that are looked at together for spikes."""

_LINE = 64  # bytes


class Layout(NamedTuple):
    """A layer as the compiled loops want it.

    Neurons lie as ``[group][y][x][feature of the group]``, input cells as ``[y][x][channel]``. A unit is the cells of
    one pixel and one group: what arrives there together goes to the same neurons.
    Shapes: ``weight`` is flat: runs, each of one kind of input column, one channel and one kernel row. Columns that
    reach the same taps are of one kind; its runs end in zeros, up to a multiple of 16. ``units`` holds group, row and
    column of each unit in one word. ``rows`` ``[H, 3]`` holds for each input row how many output rows it reaches, where
    the first begins among the neurons of a group, and the kernel row that leads there; ``columns`` ``[W, 4]`` for each
    input column where its targets begin in an output row, how many there are, how long its runs are, and where the
    first one of its kind begins. ``bias`` has an entry for each neuron, none without a bias. ``size`` is the number of
    neurons, filled up to whole blocks; ``n_group`` of them, not filled up, are a group's. A unit has ``n_channels``, a
    channel ``n_kernel_rows``; ``kernel_step`` of those lie between one output row and the next, and ``state_step``
    neurons.
    """

    weight: Floats
    units: Uint64s
    rows: Uint64s
    columns: Uint64s
    bias: Floats
    size: int
    n_group: int
    n_channels: int
    n_kernel_rows: int
    kernel_step: int
    state_step: int
    threshold: np.float32
    low: np.float32


def lay_out(layer: SpikingLayer) -> Layout:
    """Return ``layer`` in the memory layout of the compiled loops."""
    features, height, width = layer.out_shape
    n_own = features // layer.groups
    kernel = dense_kernel(layer.weight, dilation=layer.dilation)
    n_channels, ky, kx = kernel.shape[1:]
    taps = kernel.reshape(layer.groups, n_own, n_channels, ky, kx).transpose(0, 2, 3, 4, 1)
    taps = taps.reshape(layer.in_shape[0], ky, kx, n_own)
    rows, columns = (_targets(layer, axis) for axis in (0, 1))
    weight, kinds = _runs(taps, columns, layer.stride[1])
    rows = np.column_stack([rows[:, 1], rows[:, 0] * width * n_own, rows[:, 2]])
    y, x, group = np.indices((*layer.in_shape[1:], layer.groups)).reshape(3, -1)
    bias = np.zeros(0, np.float32)
    if layer.bias is not None:
        bias = _filled_up(np.broadcast_to(layer.bias[:, None, None], layer.out_shape).reshape(-1)[order_of(layer)])
    return Layout(
        weight=aligned(weight),
        units=(group << GROUP | y << ROW | x).astype(np.uint64),
        rows=rows.astype(np.uint64),
        columns=np.column_stack([columns[:, 0] * n_own, columns[:, 1] * n_own, kinds]).astype(np.uint64),
        bias=aligned(bias),
        size=-(-features * height * width // BLOCK) * BLOCK,
        n_group=height * width * n_own,
        n_channels=n_channels,
        n_kernel_rows=ky,
        kernel_step=layer.stride[0],
        state_step=width * n_own,
        threshold=np.float32(layer.threshold),
        low=np.float32(-np.inf if layer.v_min is None else layer.v_min),
    )


def order_of(layer: SpikingLayer) -> Int64s:
    """Return the flat index in ``out_shape`` of each neuron, in the order of ``Layout``."""
    features, height, width = layer.out_shape
    index = np.arange(features * height * width).reshape(layer.groups, features // layer.groups, height, width)
    return index.transpose(0, 2, 3, 1).reshape(-1)


def to_neurons(values: NDArray[Any], layer: SpikingLayer) -> NDArray[Any]:
    """Return maps ``[B, *out_shape]`` in the order of ``Layout``, each filled up to whole blocks with zeros."""
    return _filled_up(values.reshape(len(values), -1)[:, order_of(layer)])


def to_maps(values: NDArray[Any], layer: SpikingLayer) -> NDArray[Any]:
    """Return values of neurons ``[B, size]`` as maps ``[B, *out_shape]``."""
    order = order_of(layer)
    maps = np.empty((len(values), order.size), values.dtype)
    maps[:, order] = values[:, : order.size]
    return maps.reshape(len(values), *layer.out_shape)


def cells_behind(edge: Edge, source_shape: Shape3, target_shape: Shape3) -> Int64s:
    """Return the cell of the target's map that each cell of the source's map leads to, both flat.

    Those that no window of the pool holds lead to the number of cells, which is none of them.
    """
    f, y, x = np.indices(source_shape).reshape(3, -1)
    row, column = y // edge.pool[0], x // edge.pool[1]
    n_channels, height, width = target_shape
    is_inside = (row < height) & (column < width)
    cell = ((f + edge.feature_shift) * height + row) * width + column
    return np.where(is_inside, cell, n_channels * height * width)


def order_cells(shape: Shape3) -> Int64s:
    """Return where each cell of an input map of ``shape``, flat, lies in the order of ``Layout``; none stays none."""
    n_channels, height, width = shape
    places = np.arange(n_channels * height * width).reshape(height, width, n_channels).transpose(2, 0, 1)
    return np.append(places.reshape(-1), places.size)


def aligned(values: NDArray[Any], n_spare: int = 0) -> NDArray[Any]:
    """Return a flat copy that starts on a line of the cache, with ``n_spare`` zeros behind.

    Vectors that begin anywhere else touch two lines. Measured 2026-11-22, emulator, gesture net: 7 % slower.
    """
    n_bytes = (values.size + n_spare) * values.itemsize
    memory = np.zeros(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    copy = memory[start : start + n_bytes].view(values.dtype)
    copy[: values.size] = values.reshape(-1)
    return copy


def _targets(layer: SpikingLayer, axis: int) -> Int64s:
    """Return per input row (column): the first output row that it reaches, how many, and the tap that leads there."""
    stride, padding, upsample = layer.stride[axis], layer.padding[axis], layer.upsample[axis]
    reach = (layer.window.kernel[axis] - 1) * layer.dilation[axis]
    position = np.arange(layer.in_shape[axis + 1], dtype=np.int64) * upsample + padding
    first = np.maximum(0, -((reach - position) // stride))
    last = np.minimum(layer.out_shape[axis + 1] - 1, position // stride)
    n_targets = np.maximum(0, last - first + 1)
    return np.where(n_targets[:, None] > 0, np.stack([first, n_targets, position - first * stride], axis=1), 0)


def _runs(taps: Floats, columns: Int64s, stride: int) -> tuple[Floats, Int64s]:
    """Return the runs of weights, flat, and per input column how long its runs are and where its kind begins.

    Shapes: ``taps`` is ``[C, ky, kx, own features]``.
    """
    n_channels, ky, _, n_own = taps.shape
    kinds: dict[tuple[int, int], tuple[int, int]] = {}
    parts: list[Floats] = []
    n_filled = 0
    for _, n_targets, first in columns.tolist():
        if (n_targets, first) in kinds:
            continue
        n, length = n_targets * n_own, -(-n_targets * n_own // LANES) * LANES
        part = np.zeros((n_channels, ky, length), np.float32)
        part[:, :, :n] = taps[:, :, [first - i * stride for i in range(n_targets)]].reshape(n_channels, ky, n)
        kinds[n_targets, first] = length, n_filled
        parts.append(part.reshape(-1))
        n_filled += part.size
    return np.concatenate(parts), np.array([kinds[n, first] for _, n, first in columns.tolist()], np.int64)


def _filled_up(values: NDArray[Any]) -> NDArray[Any]:
    """Return values ``[..., n]`` with zeros up to whole blocks."""
    n_missing = -values.shape[-1] % BLOCK
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, n_missing)])
