"""More destinations than a chip has: layers that repeat spikes, put in where a layer or the input feeds too many.

A relay is a 1x1 kernel whose one weight equals the threshold: each spike that arrives sends exactly one on, in order of
arrival. With a kernel and a stride of ``n`` it pools by ``n`` as well, because the windows do not overlap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from spikeport.convert.geometry import Pair, Shape3, pooled
from spikeport.convert.kernels import dense_kernel
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet

from .budget import count_words
from .chips import Limits
from .rules import report
from .types import Violation

Group = list[int]
"""Edges (positions) of one source that lead to one layer: one relay serves them all, so that their order stays."""


def with_relays(net: SpikingNet, limits: Limits) -> tuple[SpikingNet, tuple[Violation, ...]]:
    """Return the net with relays where a chip has too few destinations, and one note for each relay.

    They stand for the third and further layers that a layer or the input feeds, for different pools behind the input,
    and for what the input stage cannot do: a feature shift, a second edge to the same layer, an edge to the output. A
    feature shift behind the input needs none where the input's channels can be the first ones of that layer. A relay
    stands right behind its source, behind the smallest pool of what it serves. A net that needs none is returned as it
    is, and so is every source that relays do not help: ``check_routes`` names those.
    Law: each layer of the net emits the same spikes, in the same order, as it would with any number of destinations.
    """
    net = _input_first(net)
    tree = _Tree(net, limits)
    tree.serve_input()
    for source in range(len(net.layers)):
        tree.serve_layer(source)
    if not tree.relays:
        return net, ()
    return tree.grown(), tuple(tree.notes())


@dataclasses.dataclass(frozen=True)
class _Relay:
    """A relay behind ``parent`` (a layer of the net, the input, or an earlier relay as -2 - index)."""

    source: int
    parent: int
    layer: SpikingLayer
    pool: Pair  # of the edge that feeds it
    edges: tuple[int, ...]  # of the net, that lead on from it


@dataclasses.dataclass
class _Tree:
    """The relays so far, and the new edges in place of those of the net."""

    net: SpikingNet
    limits: Limits
    relays: list[_Relay] = dataclasses.field(default_factory=list)
    moved: dict[int, tuple[int, Pair]] = dataclasses.field(default_factory=dict)

    def serve_layer(self, source: int) -> None:
        """Put relays behind a layer that feeds too many."""
        groups = self._groups(source)
        legal = all(self._is_pool(self.net.edges[edge].pool) for group in groups for edge in group)
        if sum(map(len, groups)) <= self.limits.destinations or not legal or not self._is_servable(groups):
            return
        groups.sort(key=lambda group: min(self.net.edges[edge].pool for edge in group))
        self._serve(source, source, groups, (1, 1))

    def serve_input(self) -> None:
        """Put relays behind the input, one of its destinations for them and the others for what needs none."""
        positions = [position for position, edge in enumerate(self.net.edges) if edge.source == INPUT]
        pools_y, pools_x = zip(*(self.net.edges[position].pool for position in positions), strict=True)
        shared = math.gcd(*pools_y), math.gcd(*pools_x)  # what the input stage can do for all of them
        first_of: dict[int | None, int] = {}
        for position in positions:
            first_of.setdefault(self.net.edges[position].target, position)
        plain = [p for p in positions if self._is_plain(p, shared) and first_of[self.net.edges[p].target] == p]
        rest = [p for p in positions if p not in plain]
        if not rest and len(plain) <= self.limits.entries:
            return
        n_direct = self.limits.entries - 1
        groups = self._grouped(sorted(plain[n_direct:] + rest))
        pools = {p: _over(self.net.edges[p].pool, shared) for group in groups for p in group}
        step = math.gcd(*(edge for pool in pools.values() for edge in pool))
        size = pooled(self.net.input_shape, (shared[0] * step, shared[1] * step))
        fits = step in self.limits.strides and min(size) >= 1 and max(size[1:]) <= self.limits.out_edge
        legal = all(self._is_pool(_over(pool, (step, step))) for pool in pools.values())
        if not (fits and legal and self._is_servable(groups)):
            return
        groups.sort(key=lambda group: min(pools[p] for p in group))
        node = self._add(INPUT, INPUT, groups, (shared, (step, step)))
        self._serve(INPUT, node, groups, (shared[0] * step, shared[1] * step))

    def grown(self) -> SpikingNet:
        """Return the net with the relays, each behind its source."""
        order: list[int] = []
        for source in range(INPUT, len(self.net.layers)):
            order += [] if source == INPUT else [source]
            order += [-2 - index for index, relay in enumerate(self.relays) if relay.source == source]
        place = {key: position for position, key in enumerate(order)} | {INPUT: INPUT}
        layers = tuple(self.net.layers[key] if key >= 0 else self.relays[-2 - key].layer for key in order)
        edges = [Edge(place[relay.parent], place[-2 - i], relay.pool) for i, relay in enumerate(self.relays)]
        for position, edge in enumerate(self.net.edges):
            source, pool = self.moved.get(position, (edge.source, edge.pool))
            target = None if edge.target is None else place[edge.target]
            edges.append(Edge(place[source], target, pool, edge.feature_shift))
        return SpikingNet(layers, tuple(edges), self.net.input_shape)

    def notes(self) -> Iterator[Violation]:
        """Yield what each relay does and costs."""
        for relay in self.relays:
            source = "the input" if relay.source == INPUT else f"'{self.net.layers[relay.source].name}'"
            fed = dict.fromkeys(self.net.edges[position].target for position in relay.edges)
            names = ", ".join("the output" if to is None else f"'{self.net.layers[to].name}'" for to in fed)
            words = count_words(relay.layer)
            yield report(
                relay.layer.name,
                "relay",
                found=f"one more core that repeats the spikes of {source} for {names}",
                limit=self._wanted(relay.source),
                why=f"It takes {words.kernel_words} kernel and {words.neuron_words} neuron words, and changes no spike",
                fix="a net that needs fewer ways out of there, to save the core",
            )

    def _wanted(self, source: int) -> str:
        if source == INPUT:
            return f"at most {self.limits.entries} layers fed by the input, all behind one pool and without a shift"
        return f"at most {self.limits.destinations} layers fed by a layer"

    def _serve(self, source: int, node: int, groups: list[Group], done: Pair) -> None:
        """Let ``node``, behind pools of ``done`` in all, feed ``groups``, by relays where they are too many."""
        ways = self._needing(groups)
        is_enough = sum(map(len, ways)) <= self.limits.destinations
        for position in (position for group in groups if is_enough or group not in ways for position in group):
            self.moved[position] = (node, _over(self.net.edges[position].pool, done))
        if is_enough:
            return
        first, rest = ways[:1], ways[1:]
        for part in (first, rest):
            if sum(map(len, part)) == 1:
                self._serve(source, node, part, done)
                continue
            pools = [_over(self.net.edges[position].pool, done) for group in part for position in group]
            shared = min(pools)
            inner = self._add(source, node, part, (shared, (1, 1)))
            self._serve(source, inner, part, (done[0] * shared[0], done[1] * shared[1]))

    def _add(self, source: int, parent: int, groups: list[Group], pools: tuple[Pair, Pair]) -> int:
        """Take in a relay behind a pool, with a window of its own, and return what stands for it."""
        pool, window = pools
        if parent <= -2:
            shape = self.relays[-2 - parent].layer.out_shape
        else:
            shape = self.net.input_shape if parent == INPUT else self.net.layers[parent].out_shape
        wanted = "input.relay" if source == INPUT else f"{self.net.layers[source].name}.relay"
        taken = {layer.name for layer in (*self.net.layers, *(relay.layer for relay in self.relays))}
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}{number}", number + 1
        edges = tuple(position for group in groups for position in group)
        self.relays.append(_Relay(source, parent, repeater(name, pooled(shape, pool), window), pool, edges))
        return -1 - len(self.relays)

    def _groups(self, source: int) -> list[Group]:
        """Return the edges of a layer that need a destination."""
        positions = [position for position, edge in enumerate(self.net.edges) if edge.source == source]
        return self._needing(self._grouped(positions))

    def _grouped(self, positions: Sequence[int]) -> list[Group]:
        groups: dict[int | None, Group] = {}
        for position in positions:
            groups.setdefault(self.net.edges[position].target, []).append(position)
        return list(groups.values())

    def _is_servable(self, groups: list[Group]) -> bool:
        return max(map(len, self._needing(groups)), default=0) <= self.limits.destinations

    def _needing(self, groups: list[Group]) -> list[Group]:
        """Return the groups that need destinations: all but the one that leads to the output."""
        return [group for group in groups if self.net.edges[group[0]].target is not None]

    def _is_pool(self, pool: Pair) -> bool:
        return pool[0] == pool[1] and pool[0] in self.limits.pools

    def _is_plain(self, position: int, shared: Pair) -> bool:
        edge = self.net.edges[position]
        return edge.pool == shared and edge.feature_shift == 0 and edge.target is not None


def repeater(name: str, in_shape: Shape3, window: Pair) -> SpikingLayer:
    """Return a layer that sends one spike for each that arrives in a window; the windows do not overlap."""
    channels, height, width = in_shape
    weight = np.zeros((channels, channels, *window), np.float32)
    weight[np.arange(channels), np.arange(channels)] = 1.0
    out_shape = (channels, height // window[0], width // window[1])
    return SpikingLayer(name, weight, None, window, (0, 0), 1.0, -1.0, in_shape, out_shape)


def _over(pool: Pair, done: Pair) -> Pair:
    return pool[0] // done[0], pool[1] // done[1]


def _input_first(net: SpikingNet) -> SpikingNet:
    """Return the net in which the input's channels are the first ones of each layer where they can be.

    Law: the same weights for the same spikes, so the same net; only the numbers of a layer's input channels change.
    """
    layers, edges = list(net.layers), list(net.edges)
    for index, layer in enumerate(net.layers):
        given = [edge for edge in net.incoming(index) if edge.source == INPUT]
        if len(given) != 1 or given[0].feature_shift == 0:
            continue
        start, stop = given[0].feature_shift, given[0].feature_shift + net.input_shape[0]
        spans = {edge: _span(edge, net) for edge in net.incoming(index)}
        if any(low < start < high or low < stop < high for low, high in spans.values()):
            continue  # a bank that lies across an end of the input's would be torn apart
        order = [*range(start, stop), *range(start), *range(stop, layer.in_shape[0])]
        place = {channel: position for position, channel in enumerate(order)}
        weight = dense_kernel(layer.weight, groups=layer.groups)[:, order]
        layers[index] = dataclasses.replace(layer, weight=weight, groups=1)
        moved = {edge: dataclasses.replace(edge, feature_shift=place[edge.feature_shift]) for edge in spans}
        edges = [moved.get(edge, edge) for edge in edges]
    return SpikingNet(tuple(layers), tuple(edges), net.input_shape) if edges != list(net.edges) else net


def _span(edge: Edge, net: SpikingNet) -> Pair:
    return edge.feature_shift, edge.feature_shift + net.source_shape(edge)[0]
