"""Folded graph to SpikingNet: each convolution with its rectifier becomes a layer of integrate-and-fire neurons."""

from __future__ import annotations

import numpy as np

from .geometry import Pair, Shape3
from .graph import Conv, Graph, SumPool
from .types import SpikingLayer, SpikingNet, chain


def to_spiking(graph: Graph, *, v_min: float | None = -1.0, n_steps: int = 1) -> SpikingNet:
    """Return the spiking net of a folded graph: threshold 1, reset by subtraction, biases spread over ``n_steps``.

    Law: where no neuron falls below ``v_min`` and inputs come evenly, spike counts follow the graph's activations.
    """
    layers: list[SpikingLayer] = []
    pools: list[Pair] = [(1, 1)]
    for node in graph:
        if isinstance(node, Conv):
            features, height, width = node.out_shape
            layers.append(
                SpikingLayer(
                    name=node.name,
                    weight=node.weight,
                    bias=None if node.bias is None else (node.bias / n_steps).astype(np.float32),
                    stride=node.stride,
                    padding=node.padding,
                    threshold=1.0,
                    v_min=v_min,
                    in_shape=_in_shape(node, graph),
                    out_shape=(features, height, width),
                )
            )
            pools.append((1, 1))
        elif isinstance(node, SumPool):
            pools[-1] = (pools[-1][0] * node.kernel[0], pools[-1][1] * node.kernel[1])
    return chain(tuple(layers), tuple(pools), graph.input_shape)


def _in_shape(node: Conv, graph: Graph) -> Shape3:
    shape = graph[node.inputs[0]].out_shape
    channels, height, width = shape if len(shape) == 3 else (*shape, 1, 1)
    return channels, height, width
