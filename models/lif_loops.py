"""The compiled loops of the recurrent LIF classifier: forward, and backward through time. Imported only where they run.

A row of weights is what one input event, or one spike, adds to all neurons: contiguous, so that the compiler adds it in
whole vectors. Spikes are found without branches on data. Each row of input and each sample is worked on alone and in a
fixed order, so that results depend neither on the batch nor on the pieces that a stream comes in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

Floats = NDArray[np.float32]
Int64s = NDArray[np.int64]

_BLOCK = 16
"""Values of a raster that are passed over at once where all are 0."""


class Factors(NamedTuple):
    """Shares of a step, ``mem`` and ``syn`` of neurons, ``out_mem`` and ``out_syn`` of the readout; the threshold."""

    mem: np.float32
    syn: np.float32
    out_mem: np.float32
    out_syn: np.float32
    threshold: np.float32


class Carried(NamedTuple):
    """The state between steps, changed in place: neurons ``[B, H]``, readout ``[B, C]``."""

    v: Floats
    i: Floats
    z: Floats
    out_v: Floats
    out_i: Floats


class Kept(NamedTuple):
    """What is written down of each step, ``[T, B, H]``, or of the last one only, ``[1, B, H]``.

    ``v`` is the potential before the reset.
    """

    v: Floats
    i: Floats
    z: Floats


@compiled
def place_events(rows: Int64s, cells: Int64s, starts: Int64s, placed: Int64s) -> None:
    """Fill ``starts`` ``[R + 1]``, of zeros, and ``placed`` with the cells by row, in each row in their order."""
    for k in range(rows.size):
        starts[rows[k] + 1] += 1
    for r in range(1, starts.size):
        starts[r] += starts[r - 1]
    for k in range(rows.size):
        placed[starts[rows[k]]] = cells[k]
        starts[rows[k]] += 1
    for r in range(starts.size - 1, 0, -1):
        starts[r] = starts[r - 1]
    starts[0] = 0


@compiled
def find_amounts(raster: Floats, starts: Int64s, cells: Int64s, amounts: Floats) -> int:
    """Fill in the values of ``raster`` ``[R, N]`` that are not 0, and return how many there are, also beyond the room.

    ``cells`` and ``amounts`` have 16 spare entries behind their room.
    """
    n_rows, n_cells = raster.shape
    room = cells.size - _BLOCK
    bits = raster.view(np.int32)
    whole = n_cells - n_cells % _BLOCK
    n = 0
    for r in range(n_rows):
        for first in range(0, whole, _BLOCK):
            hit = np.int32(0)
            for j in range(_BLOCK):
                hit |= bits[r, first + j]
            if hit != 0:
                at = min(n, room)  # beyond the room the last entries are written over
                found = 0
                for k in range(first, first + _BLOCK):
                    value = raster[r, k]
                    cells[at + found] = k
                    amounts[at + found] = value
                    found += int(value != 0)
                n += found
        for k in range(whole, n_cells):
            if raster[r, k] != 0:
                at = min(n, room)
                cells[at] = k
                amounts[at] = raster[r, k]
                n += 1
        starts[r + 1] = n
    return n


@compiled
def sum_columns(weight: Floats, starts: Int64s, cells: Int64s, amounts: Floats, out: Floats) -> None:
    """Fill ``out`` ``[R, H]`` with the sum of the rows of ``weight`` ``[N, H]`` that the events of each row lead to."""
    width = weight.shape[1]
    for r in range(starts.size - 1):
        for h in range(width):
            out[r, h] = np.float32(0)
        k, end = starts[r], starts[r + 1]
        while k + 4 <= end:
            c0, c1, c2, c3 = cells[k], cells[k + 1], cells[k + 2], cells[k + 3]
            a0, a1, a2, a3 = amounts[k], amounts[k + 1], amounts[k + 2], amounts[k + 3]
            for h in range(width):
                first = a0 * weight[c0, h] + a1 * weight[c1, h]
                second = a2 * weight[c2, h] + a3 * weight[c3, h]
                out[r, h] += first + second
            k += 4
        while k < end:
            cell, amount = cells[k], amounts[k]
            for h in range(width):
                out[r, h] += amount * weight[cell, h]
            k += 1


@compiled
def add_columns(gradient: Floats, starts: Int64s, cells: Int64s, amounts: Floats, out: Floats) -> None:
    """Add to ``out`` ``[N, H]``, for each event of each row, the gradient of that row, ``[R, H]``."""
    width = out.shape[1]
    for r in range(starts.size - 1):
        for k in range(starts[r], starts[r + 1]):
            cell, amount = cells[k], amounts[k]
            for h in range(width):
                out[cell, h] += amount * gradient[r, h]


@compiled
def step_through(
    currents: Floats, recurrent: Floats, readout: Floats, factors: Factors, carried: Carried, out: tuple[Floats, Any]
) -> None:
    """Run all steps of ``currents`` ``[T, B, H]``, the weighted input of each, from the state that is carried.

    Shapes: ``recurrent`` is ``[from, to]`` with a diagonal of zeros, ``readout`` ``[H, C]``; ``out`` holds the
    potentials of the readout, to be filled, ``[T, B, C]``, and ``Kept``.
    Law: j = i + input + R z;  v' = v + mem (j - v);  i = j - syn j;  z = v' > threshold;  v = v' (1 - z).
    """
    traces, kept = out
    n_steps, n_samples, width = currents.shape
    n_classes = readout.shape[1]
    last = kept.v.shape[0] - 1
    jump, drive = np.empty(width, np.float32), np.empty(n_classes, np.float32)
    fired = np.empty(width + 1, np.int64)
    mem, syn, threshold = factors.mem, factors.syn, factors.threshold
    for b in range(n_samples):
        v, i, z = carried.v[b], carried.i[b], carried.z[b]
        out_v, out_i = carried.out_v[b], carried.out_i[b]
        n_fired = 0
        for h in range(width):
            fired[n_fired] = h
            n_fired += int(z[h] != 0)
        for t in range(n_steps):
            row = currents[t, b]
            for h in range(width):
                jump[h] = i[h] + row[h]
            for s in range(n_fired):
                to = recurrent[fired[s]]
                for h in range(width):
                    jump[h] += to[h]
            at = min(t, last)
            kept_v, kept_i, kept_z = kept.v[at, b], kept.i[at, b], kept.z[at, b]
            for h in range(width):
                before = v[h] + mem * (jump[h] - v[h])
                spike = np.float32(1) if before > threshold else np.float32(0)
                i[h] = jump[h] - syn * jump[h]
                v[h] = np.float32(0) if before > threshold else before
                z[h] = spike
                kept_v[h] = before
                kept_i[h] = i[h]
                kept_z[h] = spike
            n_fired = 0
            for h in range(width):
                fired[n_fired] = h
                n_fired += int(z[h] != 0)
            for c in range(n_classes):
                drive[c] = np.float32(0)
            for s in range(n_fired):
                to = readout[fired[s]]
                for c in range(n_classes):
                    drive[c] += to[c]
            for c in range(n_classes):
                into = out_i[c] + drive[c]
                out_v[c] += factors.out_mem * (into - out_v[c])
                out_i[c] = into - factors.out_syn * into
                traces[t, b, c] = out_v[c]


@compiled
def step_back(
    gradient: Floats, kept: Kept, first: Floats, weights: tuple[Floats, Floats], factors: tuple[Factors, np.float32]
) -> tuple[Floats, Floats, Floats]:
    """Return the gradients of currents, recurrent weights ``[from, to]`` and readout weights ``[H, C]``.

    Shapes: ``gradient`` is that of the readout's potentials, ``[T, B, C]``; ``first`` the spikes before the first step,
    ``[B, H]``; ``weights`` as they lie in the module, recurrent ``[to, from]`` and readout ``[C, H]``; ``factors`` come
    with alpha.
    Law: the spike of a reset is a constant; the slope of a spike at x over the threshold is 1 / (alpha |x| + 1)^2.
    """
    shares, alpha = factors
    recurrent, readout = weights
    n_steps, n_samples, width = kept.v.shape
    n_classes = readout.shape[0]
    one = np.float32(1)
    stay, out_stay = one - shares.mem, one - shares.out_mem
    decay, out_decay = one - shares.syn, one - shares.out_syn
    into = np.empty((n_steps, n_samples, width), np.float32)
    of_recurrent = np.zeros((width, width), np.float32)
    of_readout = np.zeros((width, n_classes), np.float32)
    g_v, g_i, g_z = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    g_out_v, g_out_i = np.empty(n_classes, np.float32), np.empty(n_classes, np.float32)
    fired = np.empty(width + 1, np.int64)
    for b in range(n_samples):
        g_v[:] = 0
        g_i[:] = 0
        g_z[:] = 0
        g_out_v[:] = 0
        g_out_i[:] = 0
        for t in range(n_steps - 1, -1, -1):
            v, z, g_j = kept.v[t, b], kept.z[t, b], into[t, b]
            for c in range(n_classes):
                total = gradient[t, b, c] + g_out_v[c]
                g_out_i[c] = shares.out_mem * total + out_decay * g_out_i[c]
                g_out_v[c] = out_stay * total
                for h in range(width):
                    g_z[h] += g_out_i[c] * readout[c, h]
            for h in range(width):
                over = alpha * abs(v[h] - shares.threshold) + one
                of_v = g_v[h] * (one - z[h]) + g_z[h] / (over * over)
                g_j[h] = shares.mem * of_v + decay * g_i[h]
                g_v[h] = stay * of_v
                g_i[h] = g_j[h]
                g_z[h] = np.float32(0)
            n_fired = 0
            for h in range(width):
                fired[n_fired] = h
                n_fired += int(z[h] != 0)
            for s in range(n_fired):
                for c in range(n_classes):
                    of_readout[fired[s], c] += g_out_i[c]
            before = kept.z[t - 1, b] if t > 0 else first[b]
            n_fired = 0
            for h in range(width):
                fired[n_fired] = h
                n_fired += int(before[h] != 0)
            for s in range(n_fired):
                of_one = of_recurrent[fired[s]]
                for h in range(width):
                    of_one[h] += g_j[h]
            if t > 0:
                for to in range(width):
                    amount, row = g_j[to], recurrent[to]
                    for h in range(width):
                        g_z[h] += amount * row[h]
    return into, of_recurrent, of_readout
