"""The compiled loops of the emulator: one core and all the events that reach it. Imported only where a program runs.

A core's neurons lie as ``[y][x][feature]``, so the targets of one event in one output row are one contiguous run. With
the weights stored in the order of that run (``layout.lay_out``) an event is, for every stride, a map of 1x1 and a
kernel as large as its map alike, one addition of two contiguous runs per row. What makes that fast:

- 16, 32 or 64 states go through addition, saturation, bound, comparison and reset together, in vectors written in
  LLVM's own terms (``_visit``). The end of a run that fills no vector is worked on with the rest of the vector kept.
- Which of them spike is one mask. Masks are collected without asking whether they hold a spike, and written down as
  spikes later (``_write_down``), one spike a turn: spikes are irregular, and each branch on them that the processor
  guesses wrong costs more than a row of additions.
- Events and spikes are one word each (``layout.pack``).

Measured 2026-11-22 on a real gesture recording with real weights, one thread, against a loop that searched each row in
which the highest state reached the threshold: 8.4 instead of 2.5 G synops/s; the layer with the most spikes 4.4 instead
of 2.1 G by the masks alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from spikeport.models.compiled import compiled
from spikeport.models.lanes import call, intrinsic, lowest_bit, mask_of, pointer_to, splat

from .layout import ACCEPTED, DROPPED, EVENT, FEATURE, LANES, MASK, NEXT, ROW, SYNOPS, TICKS, Int64s, Layout

_LOWEST, _HIGHEST = -32768, 32767
_ENOUGH_TICKS = 65_535  # of any bias but 0 take a state from one end of int16 to the other
Uint64s = NDArray[np.uint64]

_EDGE = (1 << ROW) - 1
_NONE, _ONE, _TWO, _MASK = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(MASK)
_HALF, _LOWER = np.uint64(32), np.uint64((1 << 32) - 1)
_CHANNEL = (1 << (EVENT - FEATURE)) - 1


def _visit(lanes: int) -> Callable[..., np.uint64]:
    """Return the visit of ``lanes`` states, in compiled code, by the synops of one event.

    It takes state, first place, weights, first place, how many of the lanes count, and the thresholds; it changes the
    state, with a reset by subtraction, and returns the mask of spikes.
    """

    @intrinsic
    def visit(_typing: Any, state: Any, _i: Any, weight: Any, _j: Any, _n: Any, _high: Any, _low: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            states, i, weights, j, n, high, low = arguments
            wide, narrow = ir.VectorType(ir.IntType(16), lanes), ir.VectorType(ir.IntType(8), lanes)
            place = pointer_to((context, builder), (signature.args[0], states), i, wide)
            row = pointer_to((context, builder), (signature.args[2], weights), j, narrow)
            before = builder.load(place, align=2)
            change = builder.sext(builder.load(row, align=1), wide)
            v = call(builder, f"llvm.sadd.sat.v{lanes}i16", [before, change], wide)
            v = call(builder, f"llvm.smax.v{lanes}i16", [v, splat(builder, low, wide)], wide)
            limit = splat(builder, high, wide)
            counts = builder.icmp_signed(
                "<", ir.Constant(wide, list(range(lanes))), splat(builder, builder.trunc(n, ir.IntType(16)), wide)
            )
            hit = builder.and_(builder.icmp_signed(">=", v, limit), counts)
            rest = builder.select(hit, builder.sub(v, limit), v)
            builder.store(builder.select(counts, rest, before), place, align=2)
            return mask_of(builder, hit)

        return types.uint64(state, types.intp, weight, types.intp, types.intp, types.int16, types.int16), generate

    return cast(Callable[..., np.uint64], visit)


_visit_16, _visit_32, _visit_64 = map(_visit, (16, 32, 64))


@compiled
def leak(state: NDArray[np.int16], bias: NDArray[np.int16], low: int, n_ticks: int) -> None:
    """Apply ``n_ticks`` leak ticks to ``state`` in place.

    Shapes: ``state`` is flat ``[H, W, F]``, ``bias`` is ``[F]``.
    Law: equals ``n_ticks`` single ticks: after the first one a state lies in ``low..32767`` and moves one way only, so
    the others are one addition, clamped.
    """
    n_features = bias.size
    n_more = min(n_ticks, _ENOUGH_TICKS) - 1
    if n_more < 0:
        return
    for start in range(0, state.size, n_features):
        pixel = state[start : start + n_features]
        for f in range(n_features):
            pixel[f] = np.int16(max(min(max(np.int32(pixel[f]) + bias[f], _LOWEST), _HIGHEST), low))
        if n_more > 0:
            for f in range(n_features):
                pixel[f] = np.int16(min(max(pixel[f] + np.int64(n_more) * bias[f], low), _HIGHEST))


@compiled
def _clear(state: NDArray[np.int16], start: int, hits: np.uint64) -> None:
    """Set the states that spiked to 0."""
    while hits != 0:
        state[np.uint64(start) + lowest_bit(hits)] = 0
        hits &= hits - _ONE


@compiled
def _write_down(
    masks: Uint64s, n_masks: np.uint64, place: Int64s, counts: Int64s, spikes: Int64s, n_spikes: int
) -> int:
    """Append the spikes of the first ``n_masks`` masks to ``spikes``, count them per neuron, return how many there are.

    One spike a turn, and no branch that depends on where they are. None of the masks is 0.
    """
    k = _NONE
    hits = masks[0]
    masks[n_masks] = _ONE
    while k < n_masks:
        lane = lowest_bit(hits)
        where = masks[k + _TWO]
        spikes[n_spikes] = np.int64(masks[k + _ONE]) + place[(where & _LOWER) + lane]
        counts[(where >> _HALF) + lane] += 1
        n_spikes += 1
        hits &= hits - _ONE
        following = masks[k + _MASK]
        is_done = hits == 0
        hits = following if is_done else hits
        k += _MASK if is_done else _NONE
    return n_spikes


@compiled
def integrate(
    layout: Layout,
    arriving: Int64s,
    spikes: Int64s,
    neurons: tuple[NDArray[np.int16], Int64s, Uint64s],
    ticks_due: Int64s,
    progress: Int64s,
) -> int:
    """Process arriving events from ``progress[NEXT]`` on, and return the number of spikes written to ``spikes``.

    Stops where more spikes might not fit any more; the caller takes the spikes and calls again. ``spikes`` has room for
    the spikes of all masks at once, at least. ``neurons`` holds the states, flat ``[H, W, F]`` and ``LANES`` more, the
    spike counts and room for masks; they and ``progress`` are updated in place. ``ticks_due`` holds, for each input
    event of the recording, the leak ticks due before it; it is empty where ticks change nothing.
    """
    state, counts, masks = neurons
    weight = layout.weight
    high, low = np.int16(layout.threshold_high), np.int16(layout.threshold_low)
    n_masks_room = np.uint64(masks.size - MASK - MASK * layout.n_masks_max)
    n_masks = _NONE
    n_spikes = n_accepted = n_dropped = n_visited = 0
    k = progress[NEXT]
    while k < arriving.size:
        if n_masks > n_masks_room:
            n_spikes = _write_down(masks, n_masks, layout.place, counts, spikes, n_spikes)
            n_masks = _NONE
            if spikes.size - n_spikes < masks.size // MASK * LANES:
                break
        word = arriving[k]
        k += 1
        if ticks_due.size > 0 and ticks_due[word >> EVENT] > progress[TICKS]:
            due = ticks_due[word >> EVENT]
            leak(state[: layout.n_neurons], layout.bias, layout.threshold_low, due - progress[TICKS])
            progress[TICKS] = due
        channel, y, x = word >> FEATURE & _CHANNEL, np.uint64(word >> ROW & _EDGE), np.uint64(word & _EDGE)
        if channel >= layout.n_channels or y >= layout.rows.shape[0] or x >= layout.columns.shape[0]:
            n_dropped += 1
            continue
        n_accepted += 1
        n_rows, length = layout.rows[y, 0], layout.columns[x, 0]
        start = layout.rows[y, 1] + layout.columns[x, 1]
        tap = channel * layout.channel_step + layout.rows[y, 2] + layout.columns[x, 2]
        base = word >> EVENT << EVENT | layout.rows[y, 3] << ROW | layout.columns[x, 3]
        n_visited += n_rows * length
        for _ in range(n_rows):
            for i in range(0, length, LANES):
                # Spelled out here: as a function of its own, inlined or not, it is 2 to 4 times slower.
                s, w, n_left = start + i, tap + i, length - i
                if n_left >= 64:
                    hits = _visit_64(state, s, weight, w, 64, high, low)
                else:
                    hits = np.uint64(0)
                    shift = np.uint64(0)
                    if n_left >= 32:
                        hits = _visit_32(state, s, weight, w, 32, high, low)
                        shift = np.uint64(32)
                        s, w, n_left = s + 32, w + 32, n_left - 32
                    if n_left >= 16:
                        hits |= _visit_16(state, s, weight, w, 16, high, low) << shift
                        shift += np.uint64(16)
                        s, w, n_left = s + 16, w + 16, n_left - 16
                    if n_left > 0:
                        hits |= _visit_16(state, s, weight, w, n_left, high, low) << shift
                if layout.resets_to_zero:
                    _clear(state, start + i, hits)
                masks[n_masks] = hits
                masks[n_masks + _ONE] = base
                masks[n_masks + _TWO] = np.uint64(start + i << 32 | i)
                n_masks += _MASK if hits != 0 else _NONE
            start += layout.state_step
            tap -= layout.kernel_step
            base += 1 << ROW
    if n_masks > 0:
        n_spikes = _write_down(masks, n_masks, layout.place, counts, spikes, n_spikes)
    progress[NEXT] = k
    progress[ACCEPTED] += n_accepted
    progress[DROPPED] += n_dropped
    progress[SYNOPS] += n_visited
    return n_spikes


@compiled
def send(spikes: Int64s, destinations: Int64s, sent: Int64s) -> None:
    """Write each spike to ``sent`` once for each destination, as the events that arrive there.

    Shapes: ``destinations`` is ``[n, 2]``, pool and feature shift; ``sent`` has ``n`` words for each spike.
    """
    n = destinations.shape[0]
    for j in range(n):
        pool, shift = destinations[j, 0], destinations[j, 1] << FEATURE
        bits = 0
        while 1 << bits < pool:
            bits += 1
        is_power = 1 << bits == pool
        for k in range(spikes.size):
            word = spikes[k]
            y, x = word >> ROW & _EDGE, word & _EDGE
            if is_power:
                y, x = y >> bits, x >> bits
            else:
                y, x = y // pool, x // pool
            sent[k * n + j] = (word >> FEATURE << FEATURE | y << ROW | x) + shift


@compiled
def merge_two(first: Int64s, second: Int64s, merged: Int64s) -> None:
    """Write two streams to ``merged`` in order of the causing event, the first one first within one event."""
    i = j = 0
    for k in range(merged.size):
        is_first = i < first.size and (j >= second.size or first[i] >> EVENT <= second[j] >> EVENT)
        if is_first:
            merged[k] = first[i]
            i += 1
        else:
            merged[k] = second[j]
            j += 1
