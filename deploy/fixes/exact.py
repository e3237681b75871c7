"""Changes to one layer that keep the function: split by features, a square kernel, a pool moved into the kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from spikeport.convert.geometry import Pair, Window
from spikeport.convert.types import INPUT, Edge
from spikeport.deploy.budget import power_of_two
from spikeport.deploy.chips import Limits

from .draft import Draft, Form, Values, dense, lazy
from .problems import Problem
from .step import Step, listed, names, size


def split(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which the layers that are too large are two or more, each with a part of the features."""
    n_free = len(draft.chip.cores) - len(draft.layers)
    for layers in problem.choices:
        for n_parts in range(2, n_free // len(layers) + 2):
            for is_even in (True, False):
                step = _split_all(draft, layers, n_parts, is_even)
                if step is not None:
                    yield step


def _split_all(draft: Draft, layers: tuple[int, ...], n_parts: int, is_even: bool) -> Step | None:
    clauses, limit, after = [], draft.chip.limits.features, draft
    for index in reversed(layers):
        name = draft.layers[index].name
        parts = _parts(draft.layers[index].features, n_parts, is_even)
        if not parts or max(parts) > limit:
            return None
        after = split_layer(after, index, parts)
        if not all(form.cores for form in after.layers[index : index + len(parts)]):
            return None
        widths = listed([str(part) for part in parts]) if len(set(parts)) > 1 else f"{parts[0]} each"
        clauses.append(f"split layer '{name}' into {len(parts)} cores by its output features ({widths})")
    return Step("split", listed(clauses[::-1]), after)


def _parts(features: int, n_parts: int, is_even: bool) -> tuple[int, ...]:
    """Return numbers of features that add up; the uneven ones are powers of two, which waste no memory, and a rest."""
    if features < n_parts:
        return ()
    if is_even:
        return tuple(features // n_parts + (part < features % n_parts) for part in range(n_parts))
    first = power_of_two(-(-features // n_parts))
    parts = tuple(min(first, features - first * part) for part in range(n_parts))
    return parts if parts[-1] > 0 and len(set(parts)) > 1 else ()


def split_layer(draft: Draft, index: int, parts: tuple[int, ...]) -> Draft:
    """Return the draft in which a layer is several, side by side, each with so many of its features in order.

    Law: the same function; every part reads what the layer read, and feature shifts put the parts behind one another.
    """
    whole = dense(draft.layers[index])
    starts = [sum(parts[:part]) for part in range(len(parts))]
    pieces = []
    for part, (start, features) in enumerate(zip(starts, parts, strict=True)):
        own = slice(start, start + features)
        name = draft.free_name(f"{whole.name}.{part + 1}")
        pieces.append(
            dataclasses.replace(
                whole,
                name=name,
                out_shape=(features, *whole.out_shape[1:]),
                is_relay=False,
                is_rebuilt=True,
                values=lazy(lambda own=own: _sliced(whole.values(), own)),  # type: ignore[misc]
            )
        )
    more = len(parts) - 1
    edges = []
    for edge in draft.edges:
        source = edge.source + more if edge.source > index else edge.source
        target = edge.target + more if edge.target is not None and edge.target > index else edge.target
        moved = dataclasses.replace(edge, source=source, target=target)
        if edge.target == index:
            edges += [dataclasses.replace(moved, target=index + part) for part in range(len(parts))]
        elif edge.source == index:
            edges += [
                dataclasses.replace(moved, source=index + part, feature_shift=edge.feature_shift + start)
                for part, start in enumerate(starts)
            ]
        else:
            edges.append(moved)
    layers = (*draft.layers[:index], *pieces, *draft.layers[index + 1 :])
    return dataclasses.replace(draft, layers=layers, edges=tuple(edges))


def _sliced(values: Values, own: slice) -> Values:
    bias = None if values.bias is None else values.bias[own]
    v_init = None if values.v_init is None else values.v_init[own]
    return dataclasses.replace(values, weight=values.weight[own], bias=bias, v_init=v_init)


def square_kernel(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft in which kernels are padded with zeros to squares, where the map keeps its size."""
    after, clauses = draft, []
    for index in problem.layers:
        form = draft.layers[index]
        wider = squared(form, draft.chip.limits)
        if wider is None:
            return
        after = after.put(index, wider)
        clauses.append(
            f"pad the {size(dense(form).window.kernel)} kernel of layer '{form.name}' with zeros to "
            f"{size(wider.window.kernel)} (padding {size(wider.window.padding)})"
        )
    yield Step("square kernel", listed(clauses), after)


def squared(form: Form, limits: Limits) -> Form | None:
    """Return the form with a square kernel of the same function, or None where there is none."""
    given = dense(form)
    for edge in range(max(given.window.kernel), limits.kernel_edge + 1):
        ways = [_widened(given, axis, edge, limits) for axis in (0, 1)]
        if ways[0] is None or ways[1] is None:
            continue
        (above, pad_y, stride_y), (left, pad_x, stride_x) = ways[0], ways[1]
        ky, kx = given.window.kernel
        sides = ((0, 0), (0, 0), (above, edge - ky - above), (left, edge - kx - left))
        window = dataclasses.replace(
            given.window, kernel=(edge, edge), padding=(pad_y, pad_x), stride=(stride_y, stride_x)
        )
        return dataclasses.replace(given, window=window, values=lazy(lambda sides=sides: _padded(given, sides)))  # type: ignore[misc]
    return None


def _widened(form: Form, axis: int, edge: int, limits: Limits) -> tuple[int, int, int] | None:
    """Return how many zeros go before the kernel along an axis, the new padding and the stride, or None."""
    window, out = form.window, form.out_shape[1 + axis]
    strides = [window.stride[axis]]
    if out == 1:  # then the stride moves nothing
        strides += [stride for stride in limits.strides if stride != strides[0]]
    for stride in strides:
        for before in range(edge - window.kernel[axis] + 1):
            padding = window.padding[axis] + before
            wider = Window((edge, edge), (stride, stride), (padding, padding), upsample=(window.upsample[axis],) * 2)
            if padding <= limits.padding and wider.out_size((form.in_shape[1 + axis],) * 2)[0] == out:
                return before, padding, stride
    return None


def _padded(form: Form, sides: tuple[Pair, Pair, Pair, Pair]) -> Values:
    values = form.values()
    return dataclasses.replace(values, weight=np.pad(values.weight, sides))


def free_stride(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft in which strides that move nothing, because the map has one row or column, become legal."""
    after, strides = draft, []
    for index in problem.layers:
        form = draft.layers[index]
        window = form.window
        pairs = []
        for axis in (0, 1):
            choices = [window.stride[axis]] if window.stride[axis] in draft.chip.limits.strides else []
            if not choices and form.out_shape[1 + axis] == 1:
                choices = [
                    stride
                    for stride in draft.chip.limits.strides
                    if dataclasses.replace(window, stride=(stride, stride)).out_size(form.in_shape[1:])[axis] == 1
                ]
            if not choices:
                return
            pairs.append(choices[0])
        stride = pairs[0], pairs[1]
        after = after.put(index, dataclasses.replace(form, window=dataclasses.replace(window, stride=stride)))
        strides.append(f"{size(stride)} (now {size(window.stride)})")
    where = names(draft, problem.layers)
    yield Step("stride", f"give {where} a stride of {listed(strides)}, which moves nothing", after)


def pool_in_kernel(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft in which a layer reads unpooled spikes with a kernel that repeats its weights.

    Law: a sum pool in front of a convolution is a convolution whose weights are repeated ``pool`` times along each
    axis, with stride and padding as many times as large.
    """
    wanted = [(edge.source, edge.pool) for edge in draft.edges if edge.target is not None]
    targets = []
    for source, pool in wanted:
        broken = (
            not _is_legal(pool, source, draft.chip.limits)
            if problem.rule != "input pools"
            else source == INPUT and pool != _least_input_pool(draft)
        )
        if broken and (source in problem.layers or (source == INPUT and not problem.layers)):
            targets += [edge.target for edge in draft.edges if (edge.source, edge.pool) == (source, pool)]
    after, clauses = draft, []
    for target in sorted({target for target in targets if target is not None}):
        found = _absorbed(after, target, draft.chip.limits)
        if found is None:
            return
        after, clause = found
        clauses.append(clause)
    if clauses:
        yield Step("pool in kernel", listed(clauses), after)


def _least_input_pool(draft: Draft) -> Pair:
    pools = [edge.pool for edge in draft.edges if edge.source == INPUT]
    return min(pool[0] for pool in pools), min(pool[1] for pool in pools)


def _is_legal(pool: Pair, source: int, limits: Limits) -> bool:
    if source == INPUT:
        return set(pool) <= set(limits.input_pools)
    return pool[0] == pool[1] and pool[0] in limits.pools


def _absorbed(draft: Draft, target: int, limits: Limits) -> tuple[Draft, str] | None:
    """Return the draft in which the kernel of ``target`` takes over the smallest part of the pools that helps."""
    incoming = draft.incoming(target)
    form = dense(draft.layers[target])
    window, least = form.window, _least_input_pool(draft) if any(e.source == INPUT for e in incoming) else (1, 1)
    is_mixed = len({edge.pool for edge in draft.edges if edge.source == INPUT}) > 1
    largest = max(edge.pool[0] for edge in incoming), max(edge.pool[1] for edge in incoming)
    factors = [(y, x) for y in range(1, largest[0] + 1) for x in range(1, largest[1] + 1) if (y, x) != (1, 1)]
    for ry, rx in sorted(factors, key=lambda pair: (pair[0] * pair[1], pair)):
        if any(edge.pool[0] % ry or edge.pool[1] % rx for edge in incoming) or window.upsample != (1, 1):
            continue
        edges = tuple(dataclasses.replace(e, pool=(e.pool[0] // ry, e.pool[1] // rx)) for e in incoming)
        if not all(_is_legal(edge.pool, edge.source, limits) for edge in edges):
            continue
        if is_mixed and any(edge.source == INPUT and edge.pool != least for edge in edges):
            continue
        wide = _repeated(draft, form, edges, (ry, rx), limits)
        if wide is None:
            continue
        swapped = dict(zip(incoming, edges, strict=True))
        after = dataclasses.replace(draft, edges=tuple(swapped.get(edge, edge) for edge in draft.edges))
        kernel = size(wide.window.kernel)
        clause = (
            f"let layer '{form.name}' read a pool of {size(edges[0].pool)} (now {size(incoming[0].pool)}) with each "
            f"weight repeated {size((ry, rx))} times: a kernel of {kernel}, stride {size(wide.window.stride)}"
        )
        return after.put(target, wide), clause
    return None


def _repeated(draft: Draft, form: Form, edges: tuple[Edge, ...], times: Pair, limits: Limits) -> Form | None:
    window = form.window
    sizes = {
        (draft.source_shape(edge)[1] // edge.pool[0], draft.source_shape(edge)[2] // edge.pool[1]) for edge in edges
    }
    if len(sizes) != 1:
        return None
    in_map = sizes.pop()
    kernel, padding = _times(window.kernel, times), _times(window.padding, times)
    strides = []
    for axis, factor in enumerate(times):
        if window.padding[axis] and in_map[axis] != form.in_shape[1 + axis] * factor:
            return None  # the rows that the pool leaves out would be read in place of padding
        steps = [window.stride[axis] * factor]
        if form.out_shape[1 + axis] == 1:  # then the stride moves nothing
            steps += limits.strides
        fitting = (
            step
            for step in steps
            if step in limits.strides
            and Window(kernel, (step, step), padding).out_size(in_map)[axis] == form.out_shape[1 + axis]
        )
        strides.append(next(fitting, 0))
    if not all(strides):
        return None
    wide = Window(kernel, (strides[0], strides[1]), padding)

    def values() -> Values:
        given = form.values()
        return dataclasses.replace(given, weight=given.weight.repeat(times[0], axis=2).repeat(times[1], axis=3))

    in_shape = form.in_shape[0], *in_map
    return dataclasses.replace(form, window=wide, in_shape=in_shape, values=lazy(values), is_rebuilt=True)


def _times(pair: Pair, factors: Pair) -> Pair:
    return pair[0] * factors[0], pair[1] * factors[1]
