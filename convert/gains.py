"""How many spikes stand for 1 in each feature, and what follows for weights, biases and pools."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidNetError
from .graph import Add, AvgPool, Concat, Conv, Graph, Input, Node, Relu, SumPool

Gains = Mapping[str, NDArray[np.float64]]


def apply_gains(graph: Graph, gains: Gains) -> tuple[Graph, float]:
    """Return the folded graph in which activations are multiplied by ``gains``, and the gain of its output.

    Average pools become sum pools, whose sums are spikes too. Layers whose spikes are added must agree, and so must the
    features of the output: there the smallest gain holds for all (``agreed_gains``).
    Shapes: ``gains`` holds ``[F]`` for each convolution.
    Law: the value of each node is its gain times its value in ``graph``, for every input.
    Source: W[o, i] * gain[o] / gain_before[i] and b[o] * gain[o]: conversion keeps the function because a rectifier of
    a multiple is the multiple of the rectifier.
    """
    gains = agreed_gains(graph, gains)
    found: dict[str, NDArray[np.float64]] = {}
    nodes = []
    for node in graph:
        before = [found[name] for name in node.inputs]
        nodes.append(_scaled(node, before, gains))
        found[node.name] = _gain(node, before, gains)
    at_output = found[graph.output]
    return Graph(tuple(nodes), graph.output), float(at_output[0])


def trained_gains(graph: Graph) -> dict[str, NDArray[np.float64]]:
    """Return a gain of 1 for every feature: the weights stay as they were trained."""
    return {node.name: np.ones(len(node.weight)) for node in graph if isinstance(node, Conv)}


def agreed_gains(graph: Graph, gains: Gains) -> dict[str, NDArray[np.float64]]:
    """Return ``gains`` lowered where layers must agree: those whose spikes are added, and those of the output.

    An average pool between a layer and a sum counts: the sum of its window stands for the average.
    Raises: InvalidNetError where sums ask for what contradicts itself.
    """
    agreed = {name: np.asarray(gain, np.float64) for name, gain in gains.items()}
    for group in _groups(graph):
        features = {len(agreed[name]) for name in group}
        if len(features) == 1:
            lowest = np.min([agreed[name] * area for name, area in group.items()], axis=0)
            agreed |= {name: lowest / area for name, area in group.items()}
    ends = dict(_neurons_behind(graph.output, graph, 1.0))
    if ends:
        lowest = min(float(agreed[name].min()) * area for name, area in ends.items())
        for name, area in ends.items():
            agreed[name] = np.full_like(agreed[name], lowest / area)
        for group in _groups(graph):  # what is added to an output layer elsewhere follows it
            tied = [name for name in group if name in ends]
            if tied:
                common = agreed[tied[0]] * group[tied[0]]
                agreed |= {name: common / area for name, area in group.items()}
    return agreed


def _groups(graph: Graph) -> list[dict[str, float]]:
    """Return the layers whose spikes are added somewhere, with the area of the pools between; groups share none."""
    links: dict[str, list[tuple[str, float]]] = collections.defaultdict(list)
    for node in graph:
        if isinstance(node, Add):
            members = list(_neurons_behind(node.name, graph, 1.0))
            for (a, area_a), (b, area_b) in itertools.pairwise(members):
                links[a].append((b, area_b / area_a))
                links[b].append((a, area_a / area_b))
    groups = []
    seen: set[str] = set()
    for start in links:
        if start in seen:
            continue
        group, waiting = {start: 1.0}, [start]
        while waiting:
            name = waiting.pop()
            for other, ratio in links[name]:
                area = group[name] * ratio
                if other not in group:
                    group[other] = area
                    waiting.append(other)
                elif group[other] != area:
                    raise InvalidNetError(
                        f"layers '{name}' and '{other}': their spikes are added twice, behind different pools. "
                        "Try a convolution in front of one of the sums."
                    )
        seen |= group.keys()
        groups.append(group)
    return groups


def _neurons_behind(name: str, graph: Graph, area: float) -> Iterator[tuple[str, float]]:
    """Yield the layers whose spikes arrive at a node without further weights, with the area of the pools between."""
    node = graph[name]
    if isinstance(node, Conv):
        yield name, area
    elif not isinstance(node, Input):
        more = node.kernel[0] * node.kernel[1] if isinstance(node, AvgPool) else 1
        for source in node.inputs:
            yield from _neurons_behind(source, graph, area * more)


def _gain(node: Node, before: list[NDArray[np.float64]], gains: Gains) -> NDArray[np.float64]:
    match node:
        case Input():
            return np.ones(node.out_shape[0])
        case Conv():
            return gains[node.name]
        case AvgPool():
            return before[0] * (node.kernel[0] * node.kernel[1])
        case Concat():
            return np.concatenate(before)
        case Add() | Relu() | SumPool():
            return before[0]
    raise InvalidNetError(f"node '{node.name}' ({node.label}): no gain is known for it. Try fold() first.")


def _scaled(node: Node, before: list[NDArray[np.float64]], gains: Gains) -> Node:
    match node:
        case Conv():
            own = gains[node.name]
            features, per_group = node.weight.shape[:2]
            group = np.arange(features) // (features // node.groups)
            channel = group[:, None] * per_group + np.arange(per_group)[None, :]  # behind weight [f, c]
            factor = own[:, None] / before[0][channel]
            weight = (node.weight * factor[:, :, None, None]).astype(np.float32)
            bias = None if node.bias is None else (node.bias * own).astype(np.float32)
            return dataclasses.replace(node, weight=weight, bias=bias)
        case Relu() if node.ceiling is not None:
            bounds = np.broadcast_to(np.asarray(node.ceiling), before[0].shape) * before[0]
            return dataclasses.replace(node, ceiling=tuple(map(float, bounds)))
        case AvgPool():
            return SumPool(node.name, node.label, node.inputs, node.out_shape, node.kernel)
    return node
