"""Changes that need training: smaller maps and kernels, legal strides, pools and paddings.

The weights of such a net only have the right shape, so that it can be planned.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from spikeport.convert.geometry import Pair, Window
from spikeport.convert.types import INPUT, Edge
from spikeport.deploy.budget import power_of_two

from .draft import Draft, Form, redraw, scaled_pool
from .problems import CROWDED, MEMORY, Problem
from .step import Step, listed, names, size, trained

FACTORS = (2, 4)


def smaller_map(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which a layer's map is smaller: by a stride, or by a pool in front of it.

    What the layer's own pool behind it did before is done earlier where that is possible, so that the layers behind it
    stay as they are.
    """
    choices: list[tuple[int, ...]] = [(index,) for index in problem.layers]
    if len(problem.layers) > 1 and not problem.cores:
        choices.append(problem.layers)
    entries = tuple(sorted({edge.target for edge in draft.outgoing(INPUT) if edge.target is not None}))
    if not problem.layers or (len(entries) > 1 and set(entries) & set(problem.layers)):
        choices.append(entries)
    for layers, factor in itertools.product(choices, FACTORS):
        yield from _made(draft, _stride(draft, layers, factor), _pool_before(draft, layers, factor))


def _made(draft: Draft, *plans: Iterator[tuple[str, str, Draft | None]]) -> Iterator[Step]:
    for kind, clause, after in itertools.chain(*plans):
        if after is not None:
            yield trained(kind, clause, draft, after)


def _stride(draft: Draft, layers: Sequence[int], factor: int) -> Iterator[tuple[str, str, Draft | None]]:
    changes, strides = {}, []
    for index in layers:
        window = draft.layers[index].window
        if draft.layers[index].covers_input or draft.layers[index].is_rebuilt:
            return
        stride = scaled_pool(window.stride, factor)
        changes[index] = draft.layers[index].features, dataclasses.replace(window, stride=stride)
        strides.append(f"layer '{draft.layers[index].name}' a stride of {size(stride)} (now {size(window.stride)})")
    what = f"give {listed(strides)}"
    edges = _smaller_pools(draft, layers, factor)
    if edges is not None:
        yield "stride", f"{what} and pool {factor} times less behind", redraw(draft, changes, edges=edges)
    yield "stride", what, redraw(draft, changes)


def _pool_before(draft: Draft, layers: Sequence[int], factor: int) -> Iterator[tuple[str, str, Draft | None]]:
    for earlier, is_moved in ((_smaller_pools(draft, layers, factor), True), (draft.edges, False)):
        if earlier is None:
            continue
        edges = [
            dataclasses.replace(edge, pool=scaled_pool(edge.pool, factor)) if edge.target in layers else edge
            for edge in earlier
        ]
        fed = {edge.source for index in layers for edge in draft.incoming(index)}
        pools = dict.fromkeys(size(edge.pool) for edge in edges if edge.target in layers)
        instead = " in place of the pool behind" if is_moved else ""
        if fed == {INPUT}:
            kind, clause = "DVS pooling", f"pool the input {listed(list(pools))} in the DVS block{instead}"
        else:
            kind = "earlier pool" if is_moved else "larger pool"
            clause = f"pool {listed(list(pools))} in front of {names(draft, layers)}{instead}"
        yield kind, clause, redraw(draft, {}, edges=edges)


def _smaller_pools(draft: Draft, layers: Sequence[int], factor: int) -> tuple[Edge, ...] | None:
    """Return the edges with the pools behind ``layers`` divided by ``factor``, or None where one cannot be."""
    edges = []
    for edge in draft.edges:
        if edge.source not in layers:
            edges.append(edge)
        elif edge.pool[0] % factor or edge.pool[1] % factor:
            return None
        else:
            edges.append(dataclasses.replace(edge, pool=(edge.pool[0] // factor, edge.pool[1] // factor)))
    return tuple(edges)


def smaller_input(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft for recordings of a half, a quarter or an eighth of the resolution, or of fewer channels."""
    channels, height, width = draft.input_shape
    if problem.rule == "input channels":
        if channels > draft.chip.limits.features:
            after = redraw(draft, {}, input_shape=(draft.chip.limits.features, height, width))
            clause = f"feed it recordings of {draft.chip.limits.features} channels (now {channels})"
            yield from _made(draft, iter([("smaller input", clause, after)]))
        return
    for factor in (2, 4, 8):
        shape = channels, height // factor, width // factor
        if min(shape) >= 1 and max(shape[1:]) <= draft.chip.limits.in_edge:
            after = redraw(draft, {}, input_shape=shape)
            clause = f"scale the recordings down from {size((height, width))} to {size(shape[1:])}"
            yield from _made(draft, iter([("smaller input", clause, after)]))


def smaller_kernel(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which convolutions have smaller or square kernels, with the padding that keeps the map."""
    for layers in problem.choices:
        for edge in range(draft.chip.limits.kernel_edge, 0, -1):
            changes, kernels = {}, []
            for index in layers:
                form = draft.layers[index]
                window = _with_kernel(form.window, edge)
                is_fixed = form.covers_input or form.is_rebuilt or window == form.window
                if is_fixed or not _is_wanted(form, edge, problem.rule):
                    continue
                changes[index] = form.features, window
                kernels.append(f"layer '{form.name}' a kernel of {edge}x{edge} (now {_taps(form.window)})")
            after = redraw(draft, changes) if changes else None
            if after is not None:
                yield trained("smaller kernel", f"give {listed(kernels)}", draft, after)


def smaller_dilation(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft in which dilated kernels reach as far as a kernel may."""
    changes, clauses = {}, []
    for index in problem.layers:
        window = draft.layers[index].window
        if draft.layers[index].is_rebuilt:
            return
        far = [(draft.chip.limits.kernel_edge - 1) // max(1, kernel - 1) for kernel in window.kernel]
        dilation = min(window.dilation[0], far[0]), min(window.dilation[1], far[1])
        if dilation == window.dilation or min(dilation) < 1:
            return
        moved = [
            max(0, pad - (old - new) * (kernel - 1) // 2)
            for pad, old, new, kernel in zip(window.padding, window.dilation, dilation, window.kernel, strict=True)
        ]
        smaller = dataclasses.replace(window, dilation=dilation, padding=(moved[0], moved[1]))
        changes[index] = draft.layers[index].features, smaller
        clauses.append(
            f"layer '{draft.layers[index].name}' a dilation of {size(dilation)} (now {size(window.dilation)})"
        )
    after = redraw(draft, changes)
    if after is not None:
        yield trained("dilation", f"give {listed(clauses)}", draft, after)


def _is_wanted(form: Form, edge: int, rule: str) -> bool:
    """Return whether a square kernel helps against a rule: less memory, or the nearest of the sizes it has."""
    window, largest = form.window, form.chip.limits.kernel_edge
    if rule in (MEMORY, CROWDED):
        dense_y, dense_x = ((k - 1) * step + 1 for k, step in zip(window.kernel, window.dilation, strict=True))
        return edge < max(dense_y, dense_x) and power_of_two(edge * edge) < power_of_two(dense_y * dense_x)
    return edge in (min(max(window.kernel), largest), min(window.kernel))


def _taps(window: Window) -> str:
    return size(window.kernel) + (f" with a dilation of {size(window.dilation)}" if window.dilation != (1, 1) else "")


def _with_kernel(window: Window, edge: int) -> Window:
    """Return the window with a square kernel, no dilation, and the padding that comes nearest to the same map."""
    old = [(kernel - 1) * step + 1 for kernel, step in zip(window.kernel, window.dilation, strict=True)]
    padding = [max(0, pad - (dense - edge) // 2) for pad, dense in zip(window.padding, old, strict=True)]
    return dataclasses.replace(window, kernel=(edge, edge), dilation=(1, 1), padding=(padding[0], padding[1]))


def legal_window(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which strides and paddings are the nearest legal ones and nothing is upsampled."""
    limits = draft.chip.limits
    for is_larger in (False, True):
        changes, clauses = {}, []
        for index in problem.layers:
            form = draft.layers[index]
            window = form.window
            if problem.rule == "stride":
                stride = (
                    _nearest(window.stride[0], limits.strides, is_larger),
                    _nearest(window.stride[1], limits.strides, is_larger),
                )
                window = dataclasses.replace(window, stride=stride)
                clauses.append(f"layer '{form.name}' a stride of {size(stride)} (now {size(form.window.stride)})")
            elif problem.rule == "padding":
                padding = min(window.padding[0], limits.padding), min(window.padding[1], limits.padding)
                window = dataclasses.replace(window, padding=padding)
                clauses.append(f"layer '{form.name}' a padding of {size(padding)} (now {size(form.window.padding)})")
            else:
                padding = window.kernel[0] // 2, window.kernel[1] // 2
                window = dataclasses.replace(window, upsample=(1, 1), stride=(1, 1), padding=padding)
                clauses.append(f"layer '{form.name}' a Conv2d in place of the ConvTranspose2d, without upsampling")
            changes[index] = form.features, window
        after = redraw(draft, changes)
        if after is not None:
            yield trained(problem.rule, f"give {listed(clauses)}", draft, after)


def _nearest(value: int, legal: Sequence[int], is_larger: bool) -> int:
    beyond = [one for one in legal if (one >= value if is_larger else one <= value)]
    return min(beyond or legal, key=lambda one: abs(one - value))


def legal_pool(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which pools are the nearest legal ones, and those of the input alike."""
    for is_larger in (False, True):
        edges, pools = [], []
        for edge in draft.edges:
            is_input = edge.source == INPUT
            legal = draft.chip.limits.input_pools if is_input else draft.chip.limits.pools
            pool: Pair = _nearest(edge.pool[0], legal, is_larger), _nearest(edge.pool[1], legal, is_larger)
            if not is_input and pool[0] != pool[1]:
                pool = (max(pool),) * 2 if is_larger else (min(pool),) * 2
            if is_input and problem.rule == "input pools":
                pick = max if is_larger else min
                given = [one.pool for one in draft.outgoing(INPUT)]
                pool = pick(one[0] for one in given), pick(one[1] for one in given)
            if pool != edge.pool:
                whence = "the input" if is_input else f"layer '{draft.layers[edge.source].name}'"
                pools.append(f"a pool of {size(pool)} behind {whence} (now {size(edge.pool)})")
            edges.append(dataclasses.replace(edge, pool=pool))
        after = redraw(draft, {}, edges=edges)
        if after is not None and pools:
            yield trained("pool", f"take {listed(list(dict.fromkeys(pools)))}", draft, after)
