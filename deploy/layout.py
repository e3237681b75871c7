"""How a core program and its events lie in memory for the compiled loops of the emulator."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair
from spikeport.convert.layout import aligned

from .types import CoreProgram

Int64s = NDArray[np.int64]

NEXT, ACCEPTED, DROPPED, SYNOPS, TICKS = range(5)
"""Places in ``progress``: next event to process, events accepted and dropped, targets visited, leak ticks applied."""

PIECE = 1 << 17
"""Input events whose spikes can be told apart in one go."""

ROW, FEATURE, EVENT = 15, 30, 46
"""First bits of the fields of a word: column, row (15 bits each), feature (16 bits), causing input event (17 bits)."""

LANES = 64
"""States that one mask of spikes is about; so many spare ones lie behind those of a core."""

MASK = 3
"""Words of one mask: one array with all three is 12 % faster than three arrays (measured 2026-11-22, gesture net)."""

_MASKS = 512  # masks that are looked at together: they and their spikes stay in the first-level cache


class Layout(NamedTuple):
    """A core program as the compiled loop wants it.

    Shapes: ``weight`` int8, flat ``[C, ky, kx * F]``, taps of a kernel row in the order in which an event meets its
    targets, feature fastest, spare zeros behind. For each input row, ``rows`` int64 ``[H, 4]`` holds how many output
    rows it reaches, where the first lies in the state and its kernel row in the weights of a channel, and which it is;
    for each input column, ``columns`` int64 ``[W, 4]`` holds how many targets in a row it reaches, where they begin
    within a state row and within a kernel row, and the output column of the first. ``place`` says what the ``i``-th
    target of a run adds to the word of its spike. ``channel_step`` weights lie between channels, ``kernel_step``
    between the kernel rows of two output rows that follow each other, ``state_step`` states between these rows.
    ``n_masks_max``: masks of one event at most.
    """

    weight: NDArray[np.int8]
    rows: Int64s
    columns: Int64s
    place: Int64s
    bias: NDArray[np.int16]
    n_channels: int
    channel_step: int
    kernel_step: int
    state_step: int
    n_neurons: int
    threshold_high: int
    threshold_low: int
    resets_to_zero: bool
    n_masks_max: int


class Fields(NamedTuple):
    """Events on their way into a core, or spikes out of it, columns of equal length; ``event`` is the causing one."""

    event: Int64s
    feature: Int64s
    y: Int64s
    x: Int64s


def pack(fields: Fields) -> Int64s:
    """Return events as one word each, in order of the causing event where that does not decrease."""
    event, feature, y, x = (np.asarray(column, np.int64) for column in fields)
    return event << EVENT | feature << FEATURE | y << ROW | x


def unpack(words: Int64s) -> Fields:
    """Return the fields of words."""
    edge = (1 << ROW) - 1
    return Fields(words >> EVENT, words >> FEATURE & (1 << EVENT - FEATURE) - 1, words >> ROW & edge, words & edge)


def lay_out(core: CoreProgram) -> Layout:
    """Return ``core`` in the memory layout of the compiled loop.

    Taps of a kernel row that one event uses lie ``stride`` apart and come in falling order as the output column rises,
    so they are stored grouped by their remainder, falling in each group: then the taps of an event are neighbors.
    """
    features, channels, ky, kx = core.weight.shape
    v_first, n_rows, kernel_row = _targets(core.in_shape[1], core.out_shape[1], ky, (core.stride[0], core.padding[0]))
    u_first, n_columns, tap = _targets(core.in_shape[2], core.out_shape[2], kx, (core.stride[1], core.padding[1]))
    order = np.concatenate([np.arange(kx)[remainder :: core.stride[1]][::-1] for remainder in range(core.stride[1])])
    weight = core.weight.transpose(1, 2, 3, 0)[:, :, order]
    state_step, row_size = core.out_shape[2] * features, kx * features
    run = np.arange(int(n_columns.max()) * features)
    return Layout(
        weight=aligned(weight, LANES),
        rows=np.stack([n_rows, v_first * state_step, kernel_row * row_size, v_first], axis=1),
        columns=np.stack(
            [n_columns * features, u_first * features, np.argsort(order)[tap] * features, u_first], axis=1
        ),
        place=np.concatenate([run % features << FEATURE | run // features, np.zeros(LANES, np.int64)]),
        bias=np.zeros(features, np.int16) if core.bias is None else core.bias.copy(),
        n_channels=channels,
        channel_step=ky * row_size,
        kernel_step=core.stride[0] * row_size,
        state_step=state_step,
        n_neurons=core.out_shape[1] * state_step,
        threshold_high=int(core.threshold_high),
        threshold_low=int(core.threshold_low),
        resets_to_zero=core.reset == "zero",
        n_masks_max=int(n_rows.max()) * max(1, -(-run.size // LANES)),
    )


def masks_of(layout: Layout) -> NDArray[np.uint64]:
    """Return room for spikes that were seen but not yet written down, of a few events at least.

    Shapes: flat ``[n, MASK]``. For each part of a run, up to ``LANES`` states: which of them spike, the word of the
    run's first target without feature, and where the part begins, in the state (upper 32 bits) and in the run (lower).
    """
    return np.zeros((max(_MASKS, 2 * layout.n_masks_max) + 1) * MASK, np.uint64)


def _targets(size: int, out_size: int, kernel: int, steps: Pair) -> tuple[Int64s, Int64s, Int64s]:
    """Return, per input position: first output position, number of them, kernel position that leads to the first."""
    stride, padding = steps
    position = np.arange(size, dtype=np.int64) + padding
    first = np.maximum(0, -((kernel - 1 - position) // stride))
    last = np.minimum(out_size - 1, position // stride)
    n_targets = np.maximum(0, last - first + 1)
    reaches = n_targets > 0
    return np.where(reaches, first, 0), n_targets, np.where(reaches, position - first * stride, 0)
