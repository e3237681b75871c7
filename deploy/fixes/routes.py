"""Changes to routes that keep the function: layers that pass spikes on, one entry per layer, equal layers merged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from spikeport.convert.geometry import Pair, Window, pooled
from spikeport.convert.types import INPUT, Edge
from spikeport.deploy.relay import repeater

from .draft import Draft, Form, Values, dense, lazy, values_of
from .problems import Problem
from .step import Step, listed, names, size


def relay(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft in which layers with a 1x1 kernel pass spikes on, each spike as one spike.

    They serve sources that feed too many layers, pools that are a product of two legal ones, and an input that is an
    output.
    Law: the same spikes, one for one: weight and threshold are equal.
    """
    after, clauses = draft, []
    sources = sorted(problem.layers, reverse=True)
    if problem.rule in ("entry", "output"):
        sources = [INPUT]
    for node in sources:
        for _ in range(len(draft.chip.cores)):
            edges = _to_relay(after, node, problem.rule)
            if not edges:
                break
            pools = [pool for pool in _inner_pools(after, edges) if _leads_on(after, edges, pool)]
            if not pools:
                return
            before = after
            after, name = passed_on(before, edges, pools[0])
            ends = dict.fromkeys(
                "the output" if edge.target is None else f"'{before.layers[edge.target].name}'" for edge in edges
            )
            whence = "the input" if node == INPUT else f"'{before.layers[node].name}'"
            pool = "" if pools[0] == (1, 1) else f", behind a pool of {size(pools[0])}"
            clauses.append(f"add relay '{name}', which passes the spikes of {whence} on to {listed(list(ends))}{pool}")
            if problem.rule in ("entry", "destinations"):
                node += 1  # the relay, which may feed too many in its turn
    if clauses:
        yield Step("relay", listed(clauses), after)


def _to_relay(draft: Draft, source: int, rule: str) -> list[Edge]:
    """Return the edges that leave ``source`` and have to take the way through one more layer."""
    leaving = draft.outgoing(source)
    if rule == "output":
        return [edge for edge in leaving if edge.target is None]
    if rule == "pool":
        broken = [
            edge for edge in leaving if edge.pool[0] != edge.pool[1] or edge.pool[0] not in draft.chip.limits.pools
        ]
        return [edge for edge in broken if edge.pool == broken[0].pool]
    limit = draft.chip.limits.entries if source == INPUT else draft.chip.limits.destinations
    feeding = sorted((edge for edge in leaving if edge.target is not None), key=lambda edge: edge.pool)
    return feeding[limit - 1 :] if len(feeding) > limit else []


def _inner_pools(draft: Draft, edges: Sequence[Edge]) -> list[Pair]:
    """Return the pools that may stand in front of the new layer, the largest first: it needs the fewest neurons."""
    sizes = draft.chip.limits.input_pools if edges[0].source == INPUT else draft.chip.limits.pools
    return [
        (pool, pool)
        for pool in sorted(sizes, reverse=True)
        if all(edge.pool[0] % pool == 0 and edge.pool[1] % pool == 0 for edge in edges)
    ]


def _leads_on(draft: Draft, edges: Sequence[Edge], inner: Pair) -> bool:
    rests = [(edge.pool[0] // inner[0], edge.pool[1] // inner[1]) for edge in edges]
    is_seen = min(pooled(draft.source_shape(edges[0]), inner)) >= 1
    return is_seen and all(y == x and y in draft.chip.limits.pools for y, x in rests)


def passed_on(draft: Draft, edges: Sequence[Edge], pool: Pair) -> tuple[Draft, str]:
    """Return the draft in which ``edges``, all of one source, go through a layer behind ``pool``, and its name."""
    source = edges[0].source
    shape = pooled(draft.source_shape(edges[0]), pool)
    whence = "input" if source == INPUT else draft.layers[source].name
    name = draft.free_name(f"{whence.partition('.relay')[0]}.relay")

    def values() -> Values:
        return values_of(repeater(name, shape, (1, 1)))

    form = Form(name, Window((1, 1)), shape, shape, 1, False, draft.chip, lazy(values), is_relay=True, is_rebuilt=True)
    place, relayed = source + 1, set(edges)
    moved = []
    for edge in draft.edges:
        target = edge.target if edge.target is None or edge.target < place else edge.target + 1
        if edge in relayed:
            rest = edge.pool[0] // pool[0], edge.pool[1] // pool[1]
            moved.append(Edge(place, target, rest, edge.feature_shift))
        else:
            start = edge.source if edge.source < place else edge.source + 1
            moved.append(dataclasses.replace(edge, source=start, target=target))
    moved.append(Edge(source, place, pool))
    layers = (*draft.layers[:place], form, *draft.layers[place:])
    return dataclasses.replace(draft, layers=layers, edges=tuple(moved)), name


def one_entry(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft in which each layer has one edge from the input, to its first channels.

    Law: weights of channels that carry the same events are added; the others are moved behind them.
    """
    after, fed = draft, []
    for target in range(len(draft.layers)):
        edges = [edge for edge in draft.incoming(target) if edge.source == INPUT]
        if len(edges) < 2 and not any(edge.feature_shift for edge in edges):
            continue
        if len({edge.pool for edge in edges}) > 1:
            return
        after = _gathered(after, target, edges)
        fed.append(f"'{draft.layers[target].name}'")
    if fed:
        what = "added up" if problem.rule == "entry" else "moved to the first channels"
        yield Step("one entry", f"feed {listed(fed)} by one edge each, the weights of its channels {what}", after)


def _gathered(draft: Draft, target: int, edges: Sequence[Edge]) -> Draft:
    form = dense(draft.layers[target])
    n_inputs = draft.input_shape[0]
    others = [edge for edge in draft.incoming(target) if edge.source != INPUT]
    kept = _used(draft, others)

    def values() -> Values:
        given = form.values()
        banks = [given.weight[:, edge.feature_shift : edge.feature_shift + n_inputs] for edge in edges]
        weight = np.concatenate([np.sum(banks, axis=0, dtype=np.float32), given.weight[:, kept]], axis=1)
        return dataclasses.replace(given, weight=weight)

    in_shape = n_inputs + len(kept), *form.in_shape[1:]
    places = {channel: n_inputs + place for place, channel in enumerate(kept)}
    moved = {edge: dataclasses.replace(edge, feature_shift=places[edge.feature_shift]) for edge in others}
    rest = [moved.get(edge, edge) for edge in draft.edges if edge not in edges]
    entry = Edge(INPUT, target, edges[0].pool)
    after = draft.put(target, dataclasses.replace(form, in_shape=in_shape, values=lazy(values)))
    return dataclasses.replace(after, edges=(entry, *rest))


def _used(draft: Draft, edges: Iterable[Edge]) -> list[int]:
    """Return the channels of a target that some of its edges reach, in order."""
    reached: set[int] = set()
    for edge in edges:
        reached |= set(range(edge.feature_shift, edge.feature_shift + draft.source_shape(edge)[0]))
    return sorted(reached)


def merge(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which layers that read the same maps in the same way are one layer with all their features.

    Law: the same function: smaller kernels are padded with zeros, and each reader has zeros for features it did not
    read.
    """
    del problem
    readers: dict[tuple[object, ...], list[int]] = {}
    for index, form in enumerate(draft.layers):
        reads = tuple((edge.source, edge.pool, edge.feature_shift) for edge in draft.incoming(index))
        plain = form.window.upsample == (1, 1)
        readers.setdefault((reads, form.window.stride, form.out_shape[1:], plain, form.has_bias), []).append(index)
    groups = [tuple(layers) for layers in readers.values() if len(layers) > 1]
    choices = {group for layers in groups for group in (layers, layers[-2:], layers[:2])}
    for layers in sorted(choices, key=lambda layers: (-len(layers), layers)):
        after = _merged(draft, layers)
        if after is not None:
            yield Step("merge", f"merge {names(draft, layers)}, which read the same maps, into one layer", after)


def _merged(draft: Draft, layers: Sequence[int]) -> Draft | None:
    forms = [dense(draft.layers[index]) for index in layers]
    first, last = forms[0], max(layers)
    if forms[0].window.upsample != (1, 1) or any(edge.source in layers for i in layers for edge in draft.incoming(i)):
        return None
    if any(edge.target is None for index in layers for edge in draft.outgoing(index)):
        return None  # the features of one output would appear at places of the others
    if any(edge.target is not None and edge.target < last for index in layers for edge in draft.outgoing(index)):
        return None
    padding = max(f.window.padding[0] for f in forms), max(f.window.padding[1] for f in forms)
    above = [(padding[0] - f.window.padding[0], padding[1] - f.window.padding[1]) for f in forms]
    kernel = (
        max(y + form.window.kernel[0] for (y, _), form in zip(above, forms, strict=True)),
        max(x + form.window.kernel[1] for (_, x), form in zip(above, forms, strict=True)),
    )
    window = Window(kernel, first.window.stride, padding)
    given = [form.values() for form in forms]
    lowest = {None if values.v_min is None else values.v_min / values.threshold for values in given}
    is_binary = all(math.frexp(given[0].threshold / values.threshold)[0] == 0.5 for values in given)
    if window.out_size(first.in_shape[1:]) != first.out_shape[1:] or len(lowest) > 1 or not is_binary:
        return None  # another ratio of thresholds than a power of two would round the weights

    def values() -> Values:
        return _joined(forms, above, kernel)

    features = sum(form.features for form in forms)
    whole = dataclasses.replace(
        first,
        name=draft.free_name("+".join(form.name for form in forms)),
        window=window,
        out_shape=(features, *first.out_shape[1:]),
        values=lazy(values),
        is_rounded_well=all(form.is_rounded_well for form in forms),
        is_relay=False,
        is_rebuilt=True,
    )
    starts = {index: sum(form.features for form in forms[:place]) for place, index in enumerate(layers)}
    return _without(_read_merged(draft, whole, layers, starts), layers)


def _joined(forms: Sequence[Form], above: Sequence[Pair], kernel: Pair) -> Values:
    """Return the numbers of all forms in the unit of the first, kernels padded with zeros."""
    parts = [form.values() for form in forms]
    units = [parts[0].threshold / part.threshold for part in parts]
    weights = [
        np.pad(
            part.weight * np.float32(unit),
            ((0, 0), (0, 0), (y, kernel[0] - y - part.weight.shape[2]), (x, kernel[1] - x - part.weight.shape[3])),
        )
        for part, unit, (y, x) in zip(parts, units, above, strict=True)
    ]
    biases = [part.bias * np.float32(unit) for part, unit in zip(parts, units, strict=True) if part.bias is not None]
    starts = [
        np.zeros(form.out_shape, np.float32) if part.v_init is None else part.v_init * np.float32(unit)
        for form, part, unit in zip(forms, parts, units, strict=True)
    ]
    return Values(
        np.concatenate(weights),
        np.concatenate(biases) if biases else None,
        parts[0].threshold,
        parts[0].v_min,
        np.concatenate(starts) if any(part.v_init is not None for part in parts) else None,
    )


def _read_merged(draft: Draft, whole: Form, layers: Sequence[int], starts: dict[int, int]) -> Draft:
    """Return the draft with ``whole`` in place of the last of ``layers``, read by all that read any of them."""
    place = max(layers)
    after = draft.put(place, whole)
    edges = [edge for edge in draft.edges if edge.source not in layers and edge.target not in layers]
    edges += [edge for edge in draft.edges if edge.target == place]
    for target in sorted({e.target for i in layers for e in draft.outgoing(i) if e.target is not None}):
        others = [edge for edge in draft.incoming(target) if edge.source not in layers]
        mine = [edge for edge in draft.incoming(target) if edge.source in layers]
        pools = list(dict.fromkeys(edge.pool for edge in mine))
        kept, form = _used(draft, others), dense(draft.layers[target])
        banks = [[edge for edge in mine if edge.pool == pool] for pool in pools]
        channels = len(kept) + len(pools) * whole.features
        places = {channel: new for new, channel in enumerate(kept)}
        edges = [edge for edge in edges if edge.target != target]
        edges += [dataclasses.replace(edge, feature_shift=places[edge.feature_shift]) for edge in others]
        edges += [Edge(place, target, p, len(kept) + n * whole.features) for n, p in enumerate(pools)]
        read = _Reader(form, tuple(kept), tuple(map(tuple, banks)), starts, whole.features, draft)
        wider = dataclasses.replace(form, in_shape=(channels, *form.in_shape[1:]), values=lazy(read.values))
        after = after.put(target, wider)
    return dataclasses.replace(after, edges=tuple(edges))


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """A layer that reads merged features: its old channels, then one bank per pool, zeros where it read nothing."""

    form: Form
    kept: tuple[int, ...]
    banks: tuple[tuple[Edge, ...], ...]
    starts: dict[int, int]
    n_features: int
    draft: Draft

    def values(self) -> Values:
        given = self.form.values()
        parts = [given.weight[:, list(self.kept)]]
        for bank in self.banks:
            weight = np.zeros((given.weight.shape[0], self.n_features, *given.weight.shape[2:]), np.float32)
            for edge in bank:
                n_features, start = self.draft.layers[edge.source].features, self.starts[edge.source]
                weight[:, start : start + n_features] += given.weight[
                    :, edge.feature_shift : edge.feature_shift + n_features
                ]
            parts.append(weight)
        return dataclasses.replace(given, weight=np.concatenate(parts, axis=1))


def _without(draft: Draft, layers: Sequence[int]) -> Draft:
    """Return the draft without ``layers``, but for the last of them, which has taken their place."""
    gone = set(layers) - {max(layers)}
    left = [index for index in range(len(draft.layers)) if index not in gone]
    new = {INPUT: INPUT, **{index: place for place, index in enumerate(left)}}
    edges = tuple(
        dataclasses.replace(edge, source=new[edge.source], target=None if edge.target is None else new[edge.target])
        for edge in draft.edges
        if edge.target not in gone
    )
    return dataclasses.replace(draft, layers=tuple(draft.layers[index] for index in left), edges=edges)
