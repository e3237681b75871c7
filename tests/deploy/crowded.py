"""Nets in which a layer or the input feeds more others than a chip has ways for, with pools and shifts of their own."""

from __future__ import annotations

import dataclasses

import numpy as np

from spikeport.convert.geometry import Pair, Shape3, Window, pooled
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet

from .nets import make_layer


@dataclasses.dataclass(frozen=True)
class End:
    """What a layer may read: a source behind a pool, and the shape of it."""

    source: int
    pool: Pair
    shape: Shape3


def crowded_net(rng: np.random.Generator, *, n_layers: int) -> SpikingNet:
    """Return a net whose layers read one to three earlier maps each, the input among them, some of them twice.

    Values are whole numbers that integers stand for exactly, no layer has groups, and any order of edges occurs.
    """
    input_shape = (int(rng.integers(1, 3)), int(rng.integers(8, 13)), int(rng.integers(8, 13)))
    layers: list[SpikingLayer] = []
    edges: list[Edge] = []
    favorite = int(rng.integers(INPUT, 1))
    for target in range(n_layers):
        source = favorite if favorite < target and rng.random() < 0.7 else int(rng.integers(INPUT, target))
        first = _choice(rng, [end for end in _ends(layers, input_shape) if end.source == source])
        taken, channels = [Edge(first.source, target, first.pool)], first.shape[0]
        for _ in range(int(rng.integers(0, 3))):
            mates = [end for end in _ends(layers, input_shape) if end.shape[1:] == first.shape[1:]]
            full = {edge.source for edge in taken if [other.source for other in taken].count(edge.source) == 2}
            mates = [end for end in mates if end.source not in full]
            if not mates:
                break
            mate = _choice(rng, mates)
            shift = int(rng.choice([0, 1, channels]))
            taken.append(Edge(mate.source, target, mate.pool, shift))
            channels = max(channels, mate.shape[0] + shift)
        edges += [taken[int(i)] for i in rng.permutation(len(taken))]
        layers.append(_layer(rng, f"layer{target}", (channels, *first.shape[1:])))
    edges += [Edge(i, None) for i in range(n_layers) if i + 1 == n_layers or all(edge.source != i for edge in edges)]
    if rng.random() < 0.1:
        edges.append(Edge(INPUT, None))
    return SpikingNet(tuple(layers), tuple(edges), input_shape)


def fan(n_branches: int, pools: tuple[int, ...] = (1,), *, features: int = 3) -> SpikingNet:
    """Return a stem that feeds branches, each behind the next one of ``pools``."""
    stem = make_layer((2, 8, 8), features, 1, name="stem")
    edges, branches = [Edge(INPUT, 0)], []
    for index in range(n_branches):
        pool = pools[index % len(pools)]
        branches.append(make_layer((features, 8 // pool, 8 // pool), 2, 1, name=f"branch{index}"))
        edges += [Edge(0, index + 1, (pool, pool)), Edge(index + 1, None)]
    return SpikingNet((stem, *branches), tuple(edges), (2, 8, 8))


def _choice(rng: np.random.Generator, ends: list[End]) -> End:
    return ends[int(rng.integers(len(ends)))]


def _ends(layers: list[SpikingLayer], input_shape: Shape3) -> list[End]:
    shapes = {INPUT: input_shape} | {index: layer.out_shape for index, layer in enumerate(layers)}
    ends = [End(i, (pool, pool), pooled(shape, (pool, pool))) for i, shape in shapes.items() for pool in (1, 2, 4)]
    return [end for end in ends if min(end.shape) >= 1]


def _layer(rng: np.random.Generator, name: str, in_shape: Shape3) -> SpikingLayer:
    features, kernel = int(rng.integers(1, 4)), int(rng.choice([1, 2, 3]))
    padding, stride = kernel // 2, int(rng.choice([1, 1, 2]))
    weight = rng.integers(-60, 127, (features, in_shape[0], kernel, kernel))
    weight.flat[int(rng.integers(weight.size))] = 127
    size = Window((kernel,) * 2, (stride,) * 2, (padding,) * 2).out_size(in_shape[1:])
    threshold = int(rng.integers(127, 200))
    return make_layer(
        in_shape,
        features,
        kernel,
        name=name,
        weight=weight,
        stride=stride,
        padding=padding,
        threshold=float(threshold),
        v_min=-300.0,
        v_init=rng.integers(-300, threshold, (features, *size)) if rng.random() < 0.5 else None,
    )
