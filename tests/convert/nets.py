"""Random spiking nets of every kind of layer and edge, with values that float32 holds exactly."""

from __future__ import annotations

from numpy.random import Generator

from spikeport.convert.geometry import Pair, Shape3, Window, pooled
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, chain

EIGHTHS = 8
"""Every value is a multiple of 1/8 and small, so that sums of them are exact."""


def random_layer(rng: Generator, name: str, in_shape: Shape3) -> SpikingLayer:
    """Return a layer of every kind there is, for inputs of ``in_shape``."""
    groups = int(rng.choice([n for n in range(1, in_shape[0] + 1) if in_shape[0] % n == 0]))
    features = groups * int(rng.integers(1, 4))
    while True:
        kernel, stride, padding, dilation = (_pair(rng, low, high) for low, high in ((1, 3), (1, 2), (0, 2), (1, 3)))
        upsample = _pair(rng, 1, 3) if rng.random() < 0.4 else (1, 1)
        size = Window(kernel, stride, padding, dilation, upsample).out_size(in_shape[1:])
        if min(size) >= 1 and max(size) <= 14:
            break
    threshold = int(rng.integers(4, 20))
    return SpikingLayer(
        name=name,
        weight=rng.integers(-8, 14, (features, in_shape[0] // groups, *kernel)) / EIGHTHS,
        bias=rng.integers(-4, 5, features) / EIGHTHS if rng.random() < 0.5 else None,
        stride=stride,
        padding=padding,
        threshold=threshold / EIGHTHS,
        v_min=None if rng.random() < 0.3 else -int(rng.integers(0, 20)) / EIGHTHS,
        in_shape=in_shape,
        out_shape=(features, *size),
        dilation=dilation,
        upsample=upsample,
        groups=groups,
        v_init=rng.integers(-20, 30, (features, *size)) / EIGHTHS if rng.random() < 0.5 else None,
    )


def random_chain(rng: Generator) -> SpikingNet:
    shape = input_shape = (int(rng.integers(1, 4)), *_pair(rng, 3, 7))
    layers: list[SpikingLayer] = []
    pools: list[Pair] = [(1, 1)]
    for index in range(int(rng.integers(1, 4))):
        layers.append(random_layer(rng, f"layer{index}", shape))
        pools.append(_pool(rng, layers[-1].out_shape))
        shape = pooled(layers[-1].out_shape, pools[-1])
    return chain(tuple(layers), tuple(pools), input_shape)


def random_graph(rng: Generator) -> SpikingNet:
    """Return a net whose layers read one or two earlier maps, pooled as they need: added, or one behind the other."""
    input_shape = (int(rng.integers(1, 4)), *_pair(rng, 3, 7))
    layers: list[SpikingLayer] = []
    edges: list[Edge] = []
    for target in range(int(rng.integers(2, 5))):
        maps = {INPUT: input_shape} | {index: layer.out_shape for index, layer in enumerate(layers)}
        source = int(rng.choice(list(maps)))
        pool = _pool(rng, maps[source])
        channels, *size = pooled(maps[source], pool)
        edges.append(Edge(source, target, pool))
        others = [
            (other, (y, x))
            for other, shape in maps.items()
            for y in (1, 2, 3)
            for x in (1, 2, 3)
            if (shape[1] // y, shape[2] // x) == tuple(size)
        ]
        if rng.random() < 0.7:
            other, pool = others[int(rng.integers(len(others)))]
            shift = int(rng.choice([0, channels]))
            edges.append(Edge(other, target, pool, shift))
            channels = max(channels, maps[other][0] + shift)
        layers.append(random_layer(rng, f"layer{target}", (channels, size[0], size[1])))
    read = {edge.source for edge in edges}
    edges += [Edge(i, None, _pool(rng, layers[i].out_shape)) for i in range(len(layers)) if i not in read or i == 0]
    return SpikingNet(tuple(layers), tuple(edges), input_shape)


def _pair(rng: Generator, low: int, high: int) -> Pair:
    y, x = rng.integers(low, high + 1, 2)
    return int(y), int(x)


def _pool(rng: Generator, shape: Shape3) -> Pair:
    y, x = (int(rng.integers(1, min(3, edge) + 1)) if rng.random() < 0.4 else 1 for edge in shape[1:])
    return y, x
