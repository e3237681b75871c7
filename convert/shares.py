"""How the layers of a net share its spikes: where one causes few synops, more of them cost little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .gains import Gains
from .geometry import Shape3, fan_out
from .graph import Conv, Graph
from .thresholds import Activations

_MAX_SHARE = 4.0
"""Times the spikes of the most expensive layer: weights grow with the ratio from one layer to the next."""


def cost_shares(graph: Graph, gains: Gains, found: Mapping[str, Activations]) -> dict[str, float]:
    """Return by how much the spikes of each layer are multiplied so that they cost little where they count as much.

    1 for the layer whose spikes cause most synops, more for the others, at most 4.
    Law: among all shares with these synops, those not cut off at 4 have the least sum of squared rounding errors,
    ``1 / share ** 2`` for each layer: the cube root of the ratio of synops.
    """
    synops = {}
    for name, gain in gains.items():
        per_spike = sum(_mean_fan_out(reader, graph) for reader in _readers(graph, name))
        map_size = int(np.prod(graph[name].out_shape[1:]))
        synops[name] = float(gain @ found[name].values.mean(axis=1)) * map_size * per_spike
    most = max(synops.values(), default=0.0)
    return {
        name: min(_MAX_SHARE, (most / one) ** (1 / 3)) if one > 0 else _MAX_SHARE if most > 0 else 1.0
        for name, one in synops.items()
    }


def _mean_fan_out(node: Conv, graph: Graph) -> float:
    """Return the synops of a spike at any place of a convolution's input, on average."""
    channels, height, width = graph[node.inputs[0]].out_shape
    in_shape: Shape3 = (channels, height, width)
    return float(fan_out(in_shape, node.weight.shape, node.window, groups=node.groups).mean())


def _readers(graph: Graph, name: str) -> Iterator[Conv]:
    """Yield the convolutions that read the spikes of a layer, through pools, sums and concatenations."""
    for node in graph.consumers(name):
        if isinstance(node, Conv):
            yield node
        else:
            yield from _readers(graph, node.name)
