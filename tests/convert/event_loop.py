"""Spiking nets of every supported kind, and a brute-force loop over their single events."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spikeport.convert import convert
from spikeport.convert.geometry import Shape3, Window, pooled
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, Trace


def random_layer(rng: np.random.Generator, name: str, in_shape: Shape3) -> SpikingLayer:
    """Return a layer of any supported geometry whose output is at least one pixel."""
    channels, size = in_shape[0], in_shape[1:]
    groups = int(rng.choice([n for n in range(1, channels + 1) if channels % n == 0]))
    features = groups * int(rng.integers(1, 3))
    window = Window(size)  # a Linear layer
    if rng.random() > 0.15:
        while True:
            kernel, stride, padding, dilation, upsample = (
                (int(rng.integers(low, high)), int(rng.integers(low, high)))
                for low, high in ((1, 5), (1, 4), (0, 3), (1, 3), (1, 3))
            )
            window = Window(kernel, stride, padding, dilation, upsample)
            if min(window.out_size(size)) >= 1 and max(window.out_size(size)) <= 10:
                break
    weight = rng.normal(size=(features, channels // groups, *window.kernel)).astype(np.float32)
    out_shape = (features, *window.out_size(size))
    return SpikingLayer(
        *(name, weight, None, window.stride, window.padding, 1.0, -1.0, in_shape, out_shape),
        *(window.dilation, window.upsample, groups),
    )


def random_net(rng: np.random.Generator) -> SpikingNet:
    """Return two layers behind the input, in a row or side by side, and one that joins what fits together."""
    side = rng.integers(4, 9, 2)
    input_shape = (int(rng.integers(1, 4)), int(side[0]), int(side[1]))
    layers: list[SpikingLayer] = []
    edges: list[Edge] = []
    shapes: dict[int, Shape3] = {INPUT: input_shape}
    for name in ("first", "second", "join"):
        choices = [
            (source, (py, px)) for source, shape in shapes.items() for py in (1, 2, 3) for px in (1, 2, 3)
            if py <= shape[1] and px <= shape[2]
        ]  # fmt: skip
        source, pool = choices[int(rng.integers(len(choices)))]
        size = pooled(shapes[source], pool)[1:]
        chosen = [(source, pool)]
        others = [(s, p) for s, p in choices if s != source and pooled(shapes[s], p)[1:] == size]
        if name == "join" and others:
            chosen += [others[int(i)] for i in rng.permutation(len(others))[: int(rng.integers(1, 3))]]
        channels = 0
        for one, factor in chosen:
            shift = int(rng.integers(0, channels + 2))  # beside, on top of, or apart from the maps before
            edges.append(Edge(one, len(layers), factor, shift))
            channels = max(channels, shift + shapes[one][0])
        layers.append(random_layer(rng, name, (channels, *size)))
        shapes[len(layers) - 1] = layers[-1].out_shape
    sources = {edge.source for edge in edges}
    edges += [Edge(i, None, (1 + i % 2, 1)) for i in range(len(layers)) if i not in sources and shapes[i][1] > i % 2]
    edges += [Edge(i, None) for i in range(len(layers)) if i not in {edge.source for edge in edges}]
    return SpikingNet(tuple(layers), tuple(edges), input_shape)


def random_trace(rng: np.random.Generator, net: SpikingNet) -> Trace:
    """Return a trace with any whole counts, several spikes of one neuron among them."""

    def counts(shape: Shape3) -> NDArray[np.int64]:
        return rng.integers(1, 5, (2, *shape)) * (rng.random((2, *shape)) < 0.03)

    maps = [counts(layer.out_shape) for layer in net.layers]
    return Trace(
        input_counts=counts(net.input_shape).astype(np.float64),
        counts=tuple(maps),
        output=np.zeros((1, 2, 1), np.int64),
        output_states=np.zeros((2, 1), np.float32),
        states=tuple(np.zeros(count.shape, np.float32) for count in maps),
        spikes=None,
        dt_us=1000,
    )


def visits(layer: SpikingLayer, c: int, y: int, x: int) -> int:
    """Count the neurons that one event updates, target by target and tap by tap."""
    features, height, width = layer.out_shape
    group = c // (layer.in_shape[0] // layer.groups)
    n = 0
    for v in range(height):
        for i in range(layer.weight.shape[2]):
            if y * layer.upsample[0] + layer.padding[0] == v * layer.stride[0] + i * layer.dilation[0]:
                for u in range(width):
                    for j in range(layer.weight.shape[3]):
                        if x * layer.upsample[1] + layer.padding[1] == u * layer.stride[1] + j * layer.dilation[1]:
                            for f in range(features):
                                n += f // (features // layer.groups) == group
    return n


@dataclasses.dataclass
class Tally:
    """What a loop over single events saw on one edge."""

    n_routed: int = 0
    n_arrived: int = 0
    synops: int = 0


def run_loop(net: SpikingNet, trace: Trace) -> list[Tally]:
    """Send every spike by itself along every edge of its source."""
    tallies = [Tally() for _ in net.edges]
    for source, counts in enumerate((trace.input_counts, *trace.counts), start=INPUT):
        for (_, f, y, x), count in np.ndenumerate(counts):
            for _ in range(int(count)):
                for edge, tally in zip(net.edges, tallies, strict=True):
                    if edge.source == source:
                        send(net, edge, tally, (f, y, x))
    return tallies


def send(net: SpikingNet, edge: Edge, tally: Tally, at: tuple[int, int, int]) -> None:
    tally.n_routed += 1
    row, column = at[1] // edge.pool[0], at[2] // edge.pool[1]
    size = net.source_shape(edge)[1:]
    if row >= size[0] // edge.pool[0] or column >= size[1] // edge.pool[1]:
        return
    tally.n_arrived += 1
    if edge.target is not None:
        tally.synops += visits(net.layers[edge.target], at[0] + edge.feature_shift, row, column)


@functools.cache
def digits_like() -> SpikingNet:
    """Return a small chain like the digits CNN: convolutions, pools, linear layers, no biases."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(36, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False), nn.ReLU()),
    )
    frames = np.random.default_rng(0).poisson(0.5, (8, 1, 20, 20))
    return convert(module, (1, 20, 20), data=frames).net
