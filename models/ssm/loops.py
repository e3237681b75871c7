"""The compiled loops of the online engine: events in, rows of the output summed up. Imported only where they run.

Every sum goes over its terms in the order of the events or of the columns, so that neither the size of a chunk nor what
is worked on beside a row shows in any bit of it.
"""

from __future__ import annotations

import numpy as np

from spikeport.models.compiled import compiled

from .memory import (
    BIAS,
    BITS,
    BY_TIME,
    DECAY,
    EPS_MS,
    FIRST_MODE,
    FLOAT_PARTS,
    GAIN,
    GATE,
    GATE_BIAS,
    IN,
    IN_TRUE,
    LAST,
    LAYER_NORM,
    N_BYTES,
    N_FIELDS,
    N_MODES,
    N_ROWS,
    NORM_EPS,
    OUT,
    OUT_TRUE,
    RATE,
    RUN,
    SCALE,
    SKIP,
    SKIP_BIAS,
    STATE,
    STATES,
    STRIDE,
    TABLE_ROWS,
    ZERO,
    B,
    C,
    Carried,
    D,
    Floats,
    Int64s,
    Model,
    Packed,
    Work,
)
from .vectors import (
    PANEL,
    add_product,
    add_weighted,
    compound,
    copy,
    decay,
    gate,
    gelu,
    normalize,
    prefetch,
    scale,
    tile_1,
    tile_2,
    tile_4,
    tile_8,
    total,
    total_square,
    triple,
)


@compiled
def feed(tokens: Int64s, gaps_us: Int64s, packed: Packed, carried: Carried) -> int:
    """Take in events, and return -1; or nothing at all, and the place of the first token or interval out of range."""
    n_tokens, longest_us = packed.ints[FIRST_MODE + N_MODES], packed.ints[FIRST_MODE + N_MODES + 1]
    for k in range(tokens.size):
        if tokens[k] < 0 or tokens[k] >= n_tokens or gaps_us[k] < 0 or gaps_us[k] > longest_us:
            return k
    model, work = _unpack(packed)
    _feed(tokens, gaps_us, model, carried, work)
    return -1


@compiled
def _unpack(packed: Packed) -> tuple[Model, Work]:
    """Return views of the arrays."""
    ints, floats = packed.ints, packed.floats
    ends = ints[: FLOAT_PARTS + 1]
    n_layers = ints[FIRST_MODE + N_MODES + 2]
    modes = ints[FIRST_MODE : FIRST_MODE + N_MODES]
    start = FIRST_MODE + N_MODES + 3
    plan = ints[start : start + n_layers * N_FIELDS].reshape(n_layers, N_FIELDS)
    start += n_layers * N_FIELDS
    gaps, last = ints[start : start + N_ROWS], ints[start + N_ROWS : start + N_ROWS + n_layers]
    weights, decays = floats[ends[0] : ends[1]], floats[ends[1] : ends[2]]
    work = Work(
        floats[ends[2] : ends[3]],
        floats[ends[3] : ends[4]],
        floats[ends[4] : ends[5]],
        floats[ends[5] : ends[6]],
        floats[ends[6] : ends[7]],
        floats[ends[7] : ends[8]],
        floats[ends[8] : ends[9]],
        floats[ends[9] : ends[10]],
        gaps,
        last,
    )
    return Model(weights, plan, modes, packed.table, decays, packed.rates), work


@compiled
def _feed(tokens: Int64s, gaps_us: Int64s, model: Model, carried: Carried, work: Work) -> None:
    """Take in events."""
    n_layers = model.plan.shape[0]
    block = RUN * 4 * model.plan[0, STRIDE]
    for first in range(0, tokens.size, block):
        stop = min(first + block, tokens.size)
        n_rows = _take_tokens(tokens[first:stop], gaps_us[first:stop], model, carried, work)
        for layer in range(n_layers):
            if layer:
                n_rows = _take_rows(n_rows, layer, model, carried, work)
            if not n_rows:
                break
            _put_out(n_rows, layer, model, work)
        if n_rows:
            _sum_up(n_rows, model, carried, work)


@compiled
def _take_tokens(tokens: Int64s, gaps_us: Int64s, model: Model, carried: Carried, work: Work) -> int:
    """Run the states of the first layer, whose inputs lie in the table; return the number of groups that ended."""
    own = model.plan[0]
    width = 2 * own[STATES]
    row = width + own[IN] + RUN
    table = model.table
    n_groups = 0
    for k in range(tokens.size):
        if k + 2 < tokens.size:
            soon = tokens[k + 2] * row
            for line in range(0, row, RUN):
                prefetch(table, soon + line)
        at = tokens[k] * row
        x_at = at + width
        mean, inverse = table[x_at + own[IN]], table[x_at + own[IN] + 1]
        _advance(gaps_us[k], 0, model, carried, work, table, at)
        n_groups += _gather(gaps_us[k], 0, n_groups, model, carried, work, table, x_at, mean, inverse)
    return n_groups


@compiled
def _take_rows(n_rows: int, layer: int, model: Model, carried: Carried, work: Work) -> int:
    """Run the states of a layer on the rows that the one before put out; return the number of groups that ended."""
    own = model.plan[layer]
    width, states = own[IN], 2 * own[STATES]
    for k in range(n_rows):
        mean, inverse = _moments(work.x, k * width, own[IN_TRUE], model, True)
        work.moments[2 * k], work.moments[2 * k + 1] = mean, inverse
        normalize(
            work.u,
            k * width,
            work.x,
            k * width,
            model.weights,
            own[SCALE],
            model.weights,
            own[BIAS],
            mean,
            inverse,
            width,
        )
    _multiply(work.u, width, n_rows, model.weights, own[B], own[ZERO], work.bu, states)
    n_groups = 0
    for k in range(n_rows):
        gap_us = work.gaps[k]
        _advance(gap_us, layer, model, carried, work, work.bu, k * states)
        mean, inverse = work.moments[2 * k], work.moments[2 * k + 1]
        n_groups += _gather(gap_us, layer, n_groups, model, carried, work, work.x, k * width, mean, inverse)
    return n_groups


@compiled
def _advance(gap_us: int, layer: int, model: Model, carried: Carried, work: Work, bu: Floats, at: int) -> None:
    """Let the states decay, add an input, and keep them where it is the first of a group."""
    own = model.plan[layer]
    n = own[STATES]
    h = own[STATE]
    a = _decay_of(gap_us, layer, model, work)
    if own[GAIN] >= 0:
        g = own[GAIN]
        there = own[DECAY] + (TABLE_ROWS + 1) * 2 * n
        triple(model.decays, there, there + n, model.decays, a, a + n, model.weights, g, g + n, bu, at, at + n, n)
        decay(carried.states, h, h + n, model.decays, a, a + n, model.decays, there, there + n, n)
    else:
        decay(carried.states, h, h + n, model.decays, a, a + n, bu, at, at + n, n)
    if own[STRIDE] > 1 and carried.counters[layer, 0] == 0:
        copy(carried.states, h + 2 * n, carried.states, h, 2 * n)


@compiled
def _decay_of(gap_us: int, layer: int, model: Model, work: Work) -> int:
    """Return where ``exp(lambda tau d) - 1`` of each state lies."""
    own = model.plan[layer]
    n = own[STATES]
    low: int = own[DECAY] + (gap_us & 255) * 2 * n
    if gap_us < 1 << BITS:
        return low
    found: int = own[DECAY] + TABLE_ROWS * 2 * n
    if work.last[layer] == gap_us:
        return found
    work.last[layer] = gap_us
    decays = model.decays
    if gap_us >> (BITS * N_BYTES):
        gap_ms = gap_us * 1e-3
        for i in range(n):
            size = np.exp(model.rates[own[RATE] + i] * gap_ms)
            angle = model.rates[own[RATE] + n + i] * gap_ms
            decays[found + i] = np.float32(size * np.cos(angle) - 1.0)
            decays[found + n + i] = np.float32(size * np.sin(angle))
        return found
    copy(decays, found, decays, low, 2 * n)
    for byte in range(1, N_BYTES):
        value = (gap_us >> (BITS * byte)) & 255
        if value:
            at = own[DECAY] + ((byte << BITS) + value) * 2 * n
            compound(decays, found, found + n, decays, at, at + n, n)
    return found


@compiled
def _gather(
    gap_us: int,
    layer: int,
    group: int,
    model: Model,
    carried: Carried,
    work: Work,
    x: Floats,
    at: int,
    mean: np.float32,
    inverse: np.float32,
) -> int:
    """Add an input to the open group; where that ends it, write the group's row, and return 1."""
    own = model.plan[layer]
    width, n = own[IN], 2 * own[STATES]
    depth = n + width if own[D] < 0 else n
    h = own[STATE]
    s1 = h + 2 * n
    s2 = s1 + width
    states, counters = carried.states, carried.counters
    first = counters[layer, 0] == 0
    mode = model.modes[0]
    if own[STRIDE] > 1:
        weight = np.float32(1.0)
        if mode == BY_TIME:
            weight = np.float32(gap_us * 1e-3 + EPS_MS)
        if mode != LAST or first:
            own_weight = np.float32(weight * inverse)
            add_weighted(states, s1, s2, x, at, weight, own_weight, width)
            states[s2 + width] += weight
            states[s2 + width + 1] += np.float32(own_weight * mean)
        counters[layer, 0] += 1
        counters[layer, 1] += gap_us
        if counters[layer, 0] < own[STRIDE]:
            return 0
    into, u_at = (work.kept, group * depth + n) if own[D] < 0 else (work.u, group * width)
    if own[STRIDE] > 1:
        share = np.float32(1.0) / states[s2 + width]
        scale(work.skip, group * width, states, s1, share, width)
        normalize(
            into,
            u_at,
            states,
            s2,
            model.weights,
            own[SCALE],
            model.weights,
            own[BIAS],
            states[s2 + width + 1],
            share,
            width,
        )
        copy(work.kept, group * depth, states, h + n, n)
        for i in range(2 * width + 2):
            states[s1 + i] = 0.0
        work.gaps[group] = counters[layer, 1]
        counters[layer, 0] = 0
        counters[layer, 1] = 0
    else:
        scale(work.skip, group * width, x, at, np.float32(1.0), width)
        normalize(into, u_at, x, at, model.weights, own[SCALE], model.weights, own[BIAS], mean, inverse, width)
        copy(work.kept, group * depth, states, h, n)
        work.gaps[group] = gap_us
    return 1


@compiled
def _put_out(n_rows: int, layer: int, model: Model, work: Work) -> None:
    """Work out the output of each group: state to output, through-part, gate, skip, norm."""
    own = model.plan[layer]
    weights = model.weights
    width, out, n = own[IN], own[OUT], 2 * own[STATES]
    depth = n + width if own[D] < 0 else n
    _multiply(work.kept, depth, n_rows, weights, own[C], own[ZERO], work.y, out)
    if own[D] >= 0:
        for k in range(n_rows):
            add_product(work.y, k * out, weights, own[D], work.u, k * width, out)
    gelu(work.x, 0, work.y, 0, n_rows * out)
    _multiply(work.x, out, n_rows, weights, own[GATE], own[GATE_BIAS], work.z, out)
    if own[SKIP] >= 0:
        _multiply(work.skip, width, n_rows, weights, own[SKIP], own[SKIP_BIAS], work.u, out)
        gate(work.x, 0, work.y, 0, work.z, 0, work.u, 0, n_rows * out)
    else:
        gate(work.x, 0, work.y, 0, work.z, 0, work.skip, 0, n_rows * out)
    if not model.modes[3]:
        # Behind the layer: a scale and a bias of its own, which lie behind those of the inputs.
        for k in range(n_rows):
            mean, inverse = _moments(work.x, k * out, own[OUT_TRUE], model, False)
            at = own[BIAS] + width
            normalize(work.x, k * out, work.x, k * out, weights, at, weights, at + out, mean, inverse, out)


@compiled
def _sum_up(n_rows: int, model: Model, carried: Carried, work: Work) -> None:
    """Add rows of the output to what the head reads."""
    n_layers = model.plan.shape[0]
    width = model.plan[n_layers - 1, OUT]
    head, mode = carried.head, model.modes[1]
    for k in range(n_rows):
        weight = work.gaps[k] * 1e-3 + EPS_MS if mode == BY_TIME else 1.0
        kept = 0.0 if mode == LAST else 1.0
        for i in range(width):
            head[i] = kept * head[i] + weight * np.float64(work.x[k * width + i])
        head[width] = kept * head[width] + weight
    carried.counters[n_layers, 0] += n_rows


@compiled
def _moments(x: Floats, at: int, n: int, model: Model, is_before: bool) -> tuple[np.float32, np.float32]:
    """Return mean and one over the deviation of a row, 0 and 1 where no norm of the row itself stands here."""
    if model.modes[2] != LAYER_NORM or is_before != (model.modes[3] == 1):
        return np.float32(0.0), np.float32(1.0)
    full = n // RUN * RUN
    whole = total(x, at, np.float32(0.0), full)
    for i in range(full, n):
        whole += x[at + i]
    mean = np.float32(whole / np.float32(n))
    square = total_square(x, at, mean, full)
    for i in range(full, n):
        square += (x[at + i] - mean) ** 2
    return mean, np.float32(np.float32(1.0) / np.sqrt(square / np.float32(n) + NORM_EPS))


@compiled
def _multiply(
    rows: Floats, depth: int, n_rows: int, weights: Floats, at: int, bias: int, out: Floats, width: int
) -> None:
    """Write ``rows @ matrix + bias``."""
    for first in range(0, width, PANEL):
        panel = at + first * depth
        k = 0
        while k + 8 <= n_rows:
            tile_8(rows, k * depth, depth, weights, panel, depth, weights, bias + first, out, k * width + first, width)
            k += 8
        if k + 4 <= n_rows:
            tile_4(rows, k * depth, depth, weights, panel, depth, weights, bias + first, out, k * width + first, width)
            k += 4
        if k + 2 <= n_rows:
            tile_2(rows, k * depth, depth, weights, panel, depth, weights, bias + first, out, k * width + first, width)
            k += 2
        if k < n_rows:
            tile_1(rows, k * depth, depth, weights, panel, depth, weights, bias + first, out, k * width + first, width)
