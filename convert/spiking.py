"""Scaled graph to SpikingNet: each convolution with its rectifier becomes a layer of integrate-and-fire neurons."""

from __future__ import annotations

import dataclasses

import numpy as np

from .errors import InvalidNetError
from .geometry import Pair
from .graph import Add, Concat, Conv, Graph, Input, Node, Relu, SumPool
from .types import INPUT, Edge, SpikingLayer, SpikingNet


@dataclasses.dataclass(frozen=True)
class _Arrival:
    """Spikes of one layer (or the input) that are part of a value: where they come from, pooled and moved how."""

    source: int
    pool: Pair = (1, 1)
    shift: int = 0

    def to(self, target: int | None) -> Edge:
        return Edge(self.source, target, self.pool, self.shift)


def to_spiking(graph: Graph, *, v_min: float | None = -1.0, n_steps: int = 1) -> SpikingNet:
    """Return the spiking net of a scaled graph: threshold 1, reset by subtraction, biases spread over ``n_steps``.

    A rectifier's upper bound is left out: neurons have none.
    Law: where no neuron falls below ``v_min`` and inputs come evenly, spike counts follow the graph's activations.
    """
    layers: list[SpikingLayer] = []
    edges: list[Edge] = []
    values: dict[str, tuple[_Arrival, ...]] = {}
    for node in graph:
        before = [values[name] for name in node.inputs]
        if isinstance(node, Conv):
            edges += [arrival.to(len(layers)) for arrival in before[0]]
            values[node.name] = (_Arrival(len(layers)),)
            layers.append(_layer(node, graph, v_min, n_steps))
        else:
            values[node.name] = _value(node, before, graph)
    edges += [arrival.to(None) for arrival in values[graph.output]]
    return SpikingNet(tuple(layers), tuple(edges), graph.input_shape)


def _layer(node: Conv, graph: Graph, v_min: float | None, n_steps: int) -> SpikingLayer:
    features, height, width = node.out_shape
    channels, rows, columns = graph[node.inputs[0]].out_shape
    return SpikingLayer(
        name=node.name,
        weight=node.weight,
        bias=None if node.bias is None else (node.bias / n_steps).astype(np.float32),
        stride=node.stride,
        padding=node.padding,
        threshold=1.0,
        v_min=v_min,
        in_shape=(channels, rows, columns),
        out_shape=(features, height, width),
        dilation=node.dilation,
        upsample=node.upsample,
        groups=node.groups,
    )


def _value(node: Node, before: list[tuple[_Arrival, ...]], graph: Graph) -> tuple[_Arrival, ...]:
    match node:
        case Input():
            return (_Arrival(INPUT),)
        case Relu():
            return before[0]
        case SumPool():
            ky, kx = node.kernel
            return tuple(
                dataclasses.replace(arrival, pool=(arrival.pool[0] * ky, arrival.pool[1] * kx)) for arrival in before[0]
            )
        case Add():
            return tuple(arrival for value in before for arrival in value)
        case Concat():
            shifted, first = [], 0
            for name, value in zip(node.inputs, before, strict=True):
                shifted += [dataclasses.replace(arrival, shift=arrival.shift + first) for arrival in value]
                first += graph[name].out_shape[0]
            return tuple(shifted)
    raise InvalidNetError(f"node '{node.name}' ({node.label}) has no spikes. Try fold() first.")
