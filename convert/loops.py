"""The compiled loops of the event engine: one layer and all the spikes that reach it. Imported only where they run.

Neurons lie in the order of ``layout``: the targets of a spike in one output row are one contiguous run, of 16 at a
time: a run that is no multiple of 16 ends in weights of zero, which leave the neurons behind it as they are. Blocks of
64 neurons that a spike touched are marked in a bit map, so that the end of a step visits them and no others. Spikes are
found as masks of 64 bits and written one per turn of a loop without branches on data: at usual rates such a branch is
guessed wrong every second time, which costs more than the arithmetic. Indices are unsigned, so that numba does not
guard them against being negative.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spikeport.models.compiled import compiled
from spikeport.models.lanes import lowest_bit

from .floats import gather_16, gather_32, gather_48, gather_64, gather_96, gather_128, nonzero, settle, visit_run
from .layout import BLOCK, GROUP, LANES, ROW, STEP, Floats, Int64s, Layout, Uint64s

NEXT, DONE, N_SPIKES, N_STEPS, N_ALL = range(5)
"""Places in ``progress``: the next spike to process, steps that are done, spikes written by the last call; steps of a
recording, and of all recordings one after the other."""

_STEP, _NEURON, _NONE, _ONE = np.uint64(STEP), np.uint64((1 << STEP) - 1), np.uint64(0), np.uint64(1)
_ROW, _GROUP, _PLACE = np.uint64(ROW), np.uint64(GROUP), np.uint64((1 << ROW) - 1)
_L32, _L48, _L64, _L96, _L128 = np.uint64(32), np.uint64(48), np.uint64(64), np.uint64(96), np.uint64(128)
_LANES, _BLOCK, _WORD, _IN_WORD = np.uint64(LANES), np.uint64(BLOCK), np.uint64(6), np.uint64(63)


class Arriving(NamedTuple):
    """Spikes on their way into a layer, in order of their steps.

    Shapes: ``words`` ``[n]`` hold step and place in the source, ``amounts`` ``[n]`` how many spikes that are, ``cells``
    the input cell that each place of the source leads to.
    """

    words: Uint64s
    amounts: Floats
    cells: Uint64s


class Cells(NamedTuple):
    """The input cells of a layer within one step.

    Shapes: ``amounts`` (with 16 spare entries behind) is what arrived at each cell; ``touched`` has a bit for each
    unit. ``runs`` and ``factors`` have room for the channels of a unit.
    """

    amounts: Floats
    touched: Uint64s
    runs: Uint64s
    factors: Floats


class Neurons(NamedTuple):
    """What changes in a layer, for each recording of a batch.

    Shapes: ``state`` (with 64 spare entries behind) and ``totals``, spikes so far, are flat ``[B * size]``;
    ``touched`` has a bit for each block of one recording, ``unasked`` one for each that fires in the first step even
    where nothing arrives. ``masks`` and ``blocks`` have room for all blocks of a recording, and one more.
    """

    state: Floats
    totals: Int64s
    touched: Uint64s
    unasked: Uint64s
    masks: Uint64s
    blocks: Uint64s


class Emitted(NamedTuple):
    """Room for spikes that leave a layer: ``words`` of step and neuron, ``amounts`` of spikes."""

    words: Uint64s
    amounts: Floats


@compiled
def _deliver(layout: Layout, cells: Cells, neurons: Neurons, base: np.uint64) -> None:
    """Add what arrived in a step to the states from ``base`` on, mark the blocks that it reached, clear the cells."""
    weight, units, rows, columns = layout.weight, layout.units, layout.rows, layout.columns
    amounts, waiting, runs, factors = cells.amounts, cells.touched, cells.runs, cells.factors
    state, touched = neurons.state, neurons.touched
    n_group, n_channels, n_units = np.uint64(layout.n_group), np.uint64(layout.n_channels), np.uint64(units.size)
    n_kernel_rows, kernel_step = np.uint64(layout.n_kernel_rows), np.uint64(layout.kernel_step)
    state_step = np.uint64(layout.state_step)
    for w in range(np.uint64(waiting.size)):
        mark = waiting[w]
        if mark == 0:
            continue
        waiting[w] = 0
        while mark != 0:
            unit = (w << _WORD) + lowest_bit(mark)
            mark &= mark - _ONE
            if unit >= n_units:
                break
            group, y, x = units[unit] >> _GROUP, (units[unit] >> _ROW) & _PLACE, units[unit] & _PLACE
            length, n_targets = columns[x, 2], columns[x, 1]
            channel_step = n_kernel_rows * length
            n, part, first = np.uint64(0), np.uint64(0), unit * n_channels
            while part < n_channels:
                mask = nonzero(amounts, first + part) & ((_ONE << min(n_channels - part, _LANES)) - _ONE)
                while mask != 0:
                    channel = part + lowest_bit(mask)
                    mask &= mask - _ONE
                    runs[n] = channel * channel_step
                    factors[n] = amounts[first + channel]
                    amounts[first + channel] = np.float32(0)
                    n += _ONE
                part += _LANES
            begin = group * n_group + rows[y, 1] + columns[x, 0]
            run = columns[x, 3] + group * n_channels * channel_step + rows[y, 2] * length
            for _ in range(rows[y, 0] if length > 0 else _NONE):
                low, high = begin >> _WORD, (begin + n_targets - _ONE) >> _WORD
                if low >> _WORD == high >> _WORD:
                    touched[low >> _WORD] |= ((np.uint64(2) << (high - low)) - _ONE) << (low & _IN_WORD)
                else:
                    for block in range(low, high + _ONE):
                        touched[block >> _WORD] |= _ONE << (block & _IN_WORD)
                i, j, end = base + begin, run, run + length
                while j < end:
                    left = end - j
                    if left >= _L128:
                        gather_128(state, i, weight, j, runs, factors, n)
                        left = _L128
                    elif left >= _L96:
                        gather_96(state, i, weight, j, runs, factors, n)
                        left = _L96
                    elif left >= _L64:
                        gather_64(state, i, weight, j, runs, factors, n)
                        left = _L64
                    elif left >= _L48:
                        gather_48(state, i, weight, j, runs, factors, n)
                        left = _L48
                    elif left >= _L32:
                        gather_32(state, i, weight, j, runs, factors, n)
                        left = _L32
                    else:
                        gather_16(state, i, weight, j, runs, factors, n)
                    i += left
                    j += left
                begin += state_step
                run -= kernel_step * length


@compiled
def _add_bias(bias: Floats, state: Floats, base: np.uint64) -> None:
    neurons = state[base : base + bias.size]
    for i in range(bias.size):
        neurons[i] += bias[i]


@compiled
def _fire(
    layout: Layout,
    neurons: Neurons,
    n_masks: np.uint64,
    place: tuple[np.uint64, np.uint64],
    spikes: Emitted,
    n: np.uint64,
) -> tuple[np.uint64, np.uint64]:
    """Write the spikes of the neurons in the first masks behind the ``n`` written, and return how many there are then.

    ``place`` is where the states of the recording begin, and the step. Also returned is how many of the neurons are
    at their threshold again, which rounding can do.
    """
    state, totals, masks, blocks = neurons.state, neurons.totals, neurons.masks, neurons.blocks
    words, amounts = spikes.words, spikes.amounts
    threshold, low = layout.threshold, layout.low
    base, step = place[0], place[1] << _STEP
    n_again = _NONE
    masks[n_masks] = _ONE
    k, mask = np.uint64(0), masks[0]
    while k < n_masks:
        neuron = blocks[k] + lowest_bit(mask)
        i = base + neuron
        v = state[i]
        amount = np.float32(np.trunc(v / threshold))
        v = np.float32(v - np.float32(amount * threshold))
        v = low if v < low else v
        n_again += np.uint64(v >= threshold)
        state[i] = v
        totals[i] += np.int64(amount)
        words[n] = step | neuron
        amounts[n] = amount
        n += _ONE
        mask &= mask - _ONE
        is_done = mask == 0
        k += np.uint64(is_done)
        mask = masks[k] if is_done else mask
    return n, n_again


@compiled
def _collect(layout: Layout, neurons: Neurons, base: np.uint64) -> np.uint64:
    """Clear the marks, bound the states of marked blocks from below; return how many of the blocks spike.

    Their masks of spikes are written to ``neurons.masks``.
    """
    state, touched, masks, blocks = neurons.state, neurons.touched, neurons.masks, neurons.blocks
    size, n_masks = np.uint64(layout.size), np.uint64(0)
    for w in range(np.uint64(touched.size)):
        mark = touched[w]
        if mark == 0:
            continue
        touched[w] = 0
        while mark != 0:
            block = ((w << _WORD) + lowest_bit(mark)) * _BLOCK
            mark &= mark - _ONE
            if block >= size:
                break
            mask = settle(state, base + block, layout.threshold, layout.low)
            masks[n_masks] = mask
            blocks[n_masks] = block
            n_masks += np.uint64(mask != 0)
    return n_masks


@compiled
def integrate(
    layout: Layout, arriving: Arriving, cells: Cells, neurons: Neurons, spikes: Emitted, progress: Uint64s
) -> None:
    """Process steps until all are done or the spikes of one more might not fit into ``spikes``.

    In each step the weighted spikes are added, then the bias, and then every neuron that they touched emits as many
    spikes as whole thresholds fit. Steps in which nothing can happen are passed over. ``neurons`` and ``progress`` are
    updated in place.
    """
    words, heights, reached = arriving.words, arriving.amounts, arriving.cells
    amounts, waiting, touched, unasked = cells.amounts, cells.touched, neurons.touched, neurons.unasked
    n_steps, n_all, size = progress[N_STEPS], progress[N_ALL], np.uint64(layout.size)
    n_arriving, room, n_channels = np.uint64(words.size), np.uint64(spikes.words.size), np.uint64(layout.n_channels)
    is_biased, is_eager, n_again = layout.bias.size > 0, unasked.any(), np.uint64(touched.any())
    k, done, n = progress[NEXT], progress[DONE], np.uint64(0)
    while done < n_all and room - n >= size:
        now = done
        if not (is_biased or n_again > 0):
            now = words[k] >> _STEP if k < n_arriving else n_all
            if is_eager:
                now = min(now, (done + n_steps - _ONE) // n_steps * n_steps)
            if now >= n_all:
                done = n_all
                break
        recording = now // n_steps
        base = recording * size
        if now == recording * n_steps:
            touched[:] = unasked
        while k < n_arriving and words[k] >> _STEP == now:
            cell = reached[words[k] & _NEURON]
            amounts[cell] += heights[k]
            unit = cell // n_channels
            waiting[unit >> _WORD] |= _ONE << (unit & _IN_WORD)
            k += _ONE
        _deliver(layout, cells, neurons, base)
        if is_biased:
            _add_bias(layout.bias, neurons.state, base)
            touched[:] = ~np.uint64(0)
        n_masks = _collect(layout, neurons, base)
        n_again = _NONE
        if n_masks > 0:
            n, n_again = _fire(layout, neurons, n_masks, (base, now), spikes, n)
        if n_again > 0:
            for m in range(n_masks):
                block = neurons.blocks[m] >> _WORD
                touched[block >> _WORD] |= _ONE << (block & _IN_WORD)
        done = now + _ONE
    progress[NEXT], progress[DONE], progress[N_SPIKES] = k, done, n


@compiled
def visit(
    layout: Layout, words: Uint64s, reached: Uint64s, neurons: Neurons, spikes: Emitted, progress: Uint64s
) -> None:
    """Process single spikes, one after the other, until all are done or those of one more might not fit.

    Each adds its weights, bounds the neurons that it visits from below, and makes each of them spike once where it
    reaches the threshold. The words of their spikes carry its step.
    """
    state, totals, out = neurons.state, neurons.totals, spikes.words
    weight, units, rows, columns = layout.weight, layout.units, layout.rows, layout.columns
    n_group, n_channels, n_cells = np.uint64(layout.n_group), np.uint64(layout.n_channels), np.uint64(units.size)
    n_kernel_rows, kernel_step = np.uint64(layout.n_kernel_rows), np.uint64(layout.kernel_step)
    state_step, room, n = np.uint64(layout.state_step), np.uint64(out.size), np.uint64(0)
    n_cells *= n_channels
    most = rows[:, 0].max() * columns[:, 2].max()
    k = progress[NEXT]
    while k < words.size and room - n >= most:
        word = words[k]
        k += _ONE
        cell = reached[word & _NEURON]
        if cell >= n_cells:
            continue
        unit = units[cell // n_channels]
        group, y, x = unit >> _GROUP, (unit >> _ROW) & _PLACE, unit & _PLACE
        length, n_targets = columns[x, 2], columns[x, 1]
        begin = group * n_group + rows[y, 1] + columns[x, 0]
        channel = group * n_channels + cell % n_channels
        run = columns[x, 3] + (channel * n_kernel_rows + rows[y, 2]) * length
        for _ in range(rows[y, 0]):
            i = np.uint64(0)
            while i < n_targets:
                left = np.int64(n_targets - i)
                mask = visit_run(state, begin + i, weight, run + i, left, layout.threshold, layout.low)
                while mask != 0:
                    neuron = begin + i + lowest_bit(mask)
                    mask &= mask - _ONE
                    totals[neuron] += 1
                    out[n] = word & ~_NEURON | neuron
                    n += _ONE
                i += _LANES
            begin += state_step
            run -= kernel_step * length
    progress[NEXT], progress[N_SPIKES] = k, n
