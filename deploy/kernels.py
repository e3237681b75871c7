"""The compiled loop of the emulator: one core and all the events that reach it. Imported only where a program runs.

A core's neurons lie as ``[y][x][feature]``, so the targets of one event in one output row are one contiguous run. With
the weights stored in the order of that run (``layout.lay_out``) an event is, for every stride, one addition of two
contiguous runs per row, which the compiler turns into SIMD instructions. Three things keep it so: runs are sliced first
and then indexed from zero (an index with an offset must be checked for being negative), arithmetic is cast back to
int16 at each step, and a run is searched for spikes only where its highest state reaches the threshold.

Saturation is always on: it is one instruction, and leaving it out was within a few percent in time (measured on a
gesture net, 140 M synops).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from .layout import ACCEPTED, DROPPED, NEXT, SYNOPS, TICKS, Int64s, Layout, SpikeBuffer, Stream

_LOWEST, _HIGHEST = -32768, 32767
_ENOUGH_TICKS = 65_536  # of any bias but 0 take a state from one end of int16 to the other


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba finds no folder that it may write its cache to: compile once per process
        return numba.njit(nogil=True, error_model="numpy")(function)


@_compiled
def _add(state: NDArray[np.int16], weight: NDArray[np.int8], low: np.int16) -> np.int16:
    """Add a run of weights to a run of states and return the highest state."""
    highest = np.int16(_LOWEST)
    for i in range(state.size):
        v = np.int16(min(max(state[i] + weight[i], _LOWEST), _HIGHEST))
        v = max(v, low)
        state[i] = v
        highest = max(highest, v)
    return highest


@_compiled
def leak(state: NDArray[np.int16], bias: NDArray[np.int16], low: int, n_ticks: int) -> None:
    """Apply ``n_ticks`` leak ticks to ``state`` in place.

    Shapes: ``state`` is ``[H, W * F]`` with the feature fastest, ``bias`` is ``[F]``.
    Law: equals ``n_ticks`` single ticks: after the first one a state lies in ``low..32767`` and moves one way only, so
    the others are one addition, clamped.
    """
    n_features = bias.size
    n_more = min(n_ticks, _ENOUGH_TICKS) - 1
    if n_more < 0:
        return
    for row in range(state.shape[0]):
        for start in range(0, state.shape[1], n_features):
            pixel = state[row, start : start + n_features]
            for f in range(n_features):
                step = np.int64(bias[f])
                first = max(min(max(pixel[f] + step, _LOWEST), _HIGHEST), low)
                pixel[f] = np.int16(min(max(first + n_more * step, low), _HIGHEST))


@_compiled
def integrate(
    layout: Layout,
    arriving: Stream,
    spikes: SpikeBuffer,
    neurons: tuple[NDArray[np.int16], Int64s],
    ticks_due: Int64s,
    progress: Int64s,
) -> int:
    """Process arriving events from ``progress[NEXT]`` on, and return the number of spikes written to ``spikes``.

    Stops before an event whose spikes might not fit any more; the caller takes the spikes and calls again. ``neurons``
    holds the states and the spike counts, both ``[H, W * F]``; they and ``progress`` are updated in place.
    ``ticks_due`` holds, for each input event of the recording, the leak ticks due before it; it is empty where ticks
    change nothing.
    """
    state, counts = neurons
    n_features = layout.n_features
    high, low = np.int16(layout.threshold_high), np.int16(layout.threshold_low)
    capacity = spikes.event.size
    n_spikes = n_accepted = n_dropped = n_visited = 0
    k = progress[NEXT]
    while k < arriving.event.size and capacity - n_spikes >= layout.n_targets_max:
        event, channel, y, x = arriving.event[k], arriving.feature[k], arriving.y[k], arriving.x[k]
        k += 1
        if ticks_due.size > 0 and ticks_due[event] > progress[TICKS]:
            leak(state, layout.bias, layout.threshold_low, ticks_due[event] - progress[TICKS])
            progress[TICKS] = ticks_due[event]
        if channel >= layout.weight.shape[0] or y >= layout.rows.shape[0] or x >= layout.columns.shape[0]:
            n_dropped += 1
            continue
        n_accepted += 1
        v_first, n_rows, kernel_row = layout.rows[y, 0], layout.rows[y, 1], layout.rows[y, 2]
        u_first, n_columns, tap = layout.columns[x, 0], layout.columns[x, 1], layout.columns[x, 2]
        start, length, weight_start = u_first * n_features, n_columns * n_features, tap * n_features
        n_visited += n_rows * length
        for v in range(v_first, v_first + n_rows):
            run = state[v, start : start + length]
            weight = layout.weight[channel, kernel_row, weight_start : weight_start + length]
            kernel_row -= layout.row_step
            if _add(run, weight, low) < high:
                continue
            for u in range(n_columns):
                pixel = run[u * n_features : (u + 1) * n_features]
                for f in range(n_features):
                    if pixel[f] >= high:
                        pixel[f] = np.int16(0) if layout.resets_to_zero else np.int16(pixel[f] - high)
                        counts[v, start + u * n_features + f] += 1
                        spikes.event[n_spikes] = event
                        spikes.feature[n_spikes] = f
                        spikes.y[n_spikes] = v
                        spikes.x[n_spikes] = u_first + u
                        n_spikes += 1
    progress[NEXT] = k
    progress[ACCEPTED] += n_accepted
    progress[DROPPED] += n_dropped
    progress[SYNOPS] += n_visited
    return n_spikes
