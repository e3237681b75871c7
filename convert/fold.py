"""Rewrites that keep the function: what remains is a chain of convolutions, rectifiers and sum pools."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from .errors import UnsupportedLayerError
from .geometry import Shape3
from .graph import AvgPool, BatchNorm, Conv, Finding, Flatten, Graph, Input, Linear, Node, Relu, Skip, SumPool, Unknown


@dataclasses.dataclass(frozen=True)
class Folded:
    """A folded graph, ``gain`` by which its output exceeds the original's, and a note for each node that vanished."""

    graph: Graph
    gain: float
    notes: Mapping[str, str]


def fold(graph: Graph) -> Folded:
    """Return the graph as input, convolutions, rectifiers and sum pools only.

    Law: the output is ``gain`` times the output of ``graph`` for every input.
    Raises: UnsupportedLayerError that lists every node without spiking counterpart, with a fix each.
    """
    refuse(graph)
    notes: dict[str, str] = {}
    for step in (_drop_skips, _fold_batchnorms, _linears_to_convs, _drop_flattens):
        graph = step(graph, notes)
    graph, gain = _averages_to_sums(graph, notes)
    return Folded(graph, gain, notes)


def refuse(graph: Graph) -> None:
    """Raise UnsupportedLayerError that lists all nodes of ``graph`` which cannot become spiking; else do nothing."""
    findings = refusals(graph)
    if findings:
        lines = [f"layer '{found.node}' ({found.op}): {found.detail}" for found in findings]
        more = f"\n{len(lines)} layers refused in all." if len(lines) > 1 else ""
        raise UnsupportedLayerError("\n".join(lines) + more, findings)


def refusals(graph: Graph) -> tuple[Finding, ...]:
    """Return one finding for each node of a captured graph that has no spiking counterpart."""
    found = []
    for node in graph:
        problem = f"{node.reason}. {node.fix}" if isinstance(node, Unknown) else _misplaced(node, graph)
        if problem:
            found.append(Finding(node.name, node.label, "refused", problem))
    return tuple(found)


def _misplaced(node: Node, graph: Graph) -> str | None:
    """Return why a node that is known by itself cannot stand where it stands."""
    if isinstance(node, (Input, Skip, Flatten)):
        return None
    if len(graph.consumers(node.inputs[0])) > 1:
        return f"shares its input '{node.inputs[0]}' with another layer. Try a plain chain of layers."
    source = _source(node, graph)
    weighted = isinstance(source, (Conv, Linear, BatchNorm))
    if isinstance(node, BatchNorm) and not isinstance(source, (Conv, Linear)):
        return f"stands behind {_article(source)}, where it cannot be folded. Try it right behind a Conv2d or Linear."
    if isinstance(node, (Conv, Linear)) and weighted:
        return f"follows '{source.name}' without a ReLU between them. Try nn.ReLU() between the two, and train again."
    if isinstance(node, (AvgPool, SumPool)) and weighted:
        return f"pools '{source.name}' before a ReLU. Try the ReLU first: spikes are pooled, not potentials."
    if isinstance(node, Relu) and isinstance(source, Input):
        return "stands behind the input, which has no neurons. Try to leave it out: event counts are never negative."
    return None


def _source(node: Node, graph: Graph) -> Node:
    """Return what ``node`` reads, looking through nodes that do nothing."""
    source = graph[node.inputs[0]]
    while isinstance(source, (Skip, Flatten)):
        source = graph[source.inputs[0]]
    return source


def _article(node: Node) -> str:
    return "the input" if isinstance(node, Input) else f"'{node.name}' ({node.label})"


def _drop_skips(graph: Graph, notes: dict[str, str]) -> Graph:
    for node in graph:
        if isinstance(node, Skip):
            notes[node.name] = "does nothing in evaluation"
            graph = graph.without(node.name)
    for node in graph:
        if isinstance(node, Relu) and not isinstance(_source(node, graph), (Conv, Linear, BatchNorm)):
            notes[node.name] = "does nothing: what it reads is never negative"
            graph = graph.without(node.name)
    return graph


def _fold_batchnorms(graph: Graph, notes: dict[str, str]) -> Graph:
    for node in graph:
        if isinstance(node, BatchNorm):
            source = graph[node.inputs[0]]
            if not isinstance(source, (Conv, Linear)):  # a Flatten between them: BatchNorm1d over a flat convolution
                raise UnsupportedLayerError(f"layer '{node.name}' ({node.label}): {_BEHIND_FLATTEN}")
            axes = (-1,) + (1,) * (source.weight.ndim - 1)
            weight = (source.weight * node.scale.reshape(axes)).astype(np.float32)
            bias = (0.0 if source.bias is None else source.bias * node.scale) + node.shift
            graph = graph.replaced(source.name, weight=weight, bias=bias.astype(np.float32)).without(node.name)
            notes[node.name] = f"into the weights and bias of '{source.name}'"
    return graph


_BEHIND_FLATTEN = "stands behind a Flatten. Try BatchNorm2d in front of the Flatten, right behind the Conv2d."


def _linears_to_convs(graph: Graph, notes: dict[str, str]) -> Graph:
    for node in graph:
        if isinstance(node, Linear):
            channels, height, width = _map_before(node, graph)
            features = node.weight.shape[0]
            weight = node.weight.reshape(features, channels, height, width)
            conv = Conv(node.name, node.label, node.inputs, (features, 1, 1), weight, node.bias, (1, 1), (0, 0))
            notes[node.name] = f"as a {height}x{width} convolution that covers its whole input"
            graph = Graph(tuple(conv if other.name == node.name else other for other in graph), graph.output)
    return graph


def _map_before(node: Node, graph: Graph) -> Shape3:
    """Return the map that a Linear reads, seen through flattens and rectifiers; a vector is a map of 1x1."""
    source = graph[node.inputs[0]]
    while isinstance(source, (Flatten, Relu)) and len(source.out_shape) != 3:
        source = graph[source.inputs[0]]
    shape = source.out_shape
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def _drop_flattens(graph: Graph, notes: dict[str, str]) -> Graph:
    for node in graph:
        if isinstance(node, Flatten):
            notes[node.name] = "keeps every value; the next layer reads them by channel, row, column"
            graph = graph.without(node.name)
        elif isinstance(node, Relu):  # behind a dropped Flatten it has the shape of what it reads
            graph = graph.replaced(node.name, out_shape=graph[graph[node.name].inputs[0]].out_shape)
    return graph


def _averages_to_sums(graph: Graph, notes: dict[str, str]) -> tuple[Graph, float]:
    """Turn average pools to sum pools; the factor goes into the next weights, or into the gain where there are none."""
    gain = 1.0
    for node in graph:
        if not isinstance(node, AvgPool):
            continue
        area = node.kernel[0] * node.kernel[1]
        conv = _next_conv(node, graph)
        summed = SumPool(node.name, node.label, node.inputs, node.out_shape, node.kernel)
        graph = Graph(tuple(summed if other.name == node.name else other for other in graph), graph.output)
        if conv is None:
            gain *= area
            notes[node.name] = f"to a sum pool at the output, {area} times the average"
        else:
            graph = graph.replaced(conv.name, weight=(conv.weight / area).astype(np.float32))
            notes[node.name] = f"to a sum pool; 1/{area} into the weights of '{conv.name}'"
    return graph, gain


def _next_conv(node: Node, graph: Graph) -> Conv | None:
    following: Node | None = node
    while following is not None and not isinstance(following, Conv):
        readers = graph.consumers(following.name)
        following = readers[0] if readers else None
    return following
