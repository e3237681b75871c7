"""Spiking nets for the tests of the compiler: single layers, the nets of the tutorials, random chains, branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spikeport.convert.geometry import Pair, Shape3, Window, pooled
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, chain

STEPS = {"stride": 1, "padding": 0, "dilation": 1, "upsample": 1}


def make_layer(in_shape: Shape3, features: int, kernel: int | Pair = 3, **options: Any) -> SpikingLayer:
    """Return a layer of random weights; ``options`` are its fields, ``seed``, and ``bias=True`` for a random one."""
    ky, kx = (kernel, kernel) if isinstance(kernel, int) else kernel
    rng = np.random.default_rng(options.pop("seed", 0))
    weight, groups = options.pop("weight", None), options.pop("groups", 1)
    if weight is None:
        weight = (rng.normal(size=(features, in_shape[0] // groups, ky, kx)) * 0.3).astype(np.float32)
    bias = options.pop("bias", None)
    steps: dict[str, Any] = {name: _pair(options.pop(name, first)) for name, first in STEPS.items()}
    return SpikingLayer(
        name=options.pop("name", "conv"),
        weight=weight,
        bias=(rng.normal(size=features) * 0.1).astype(np.float32) if bias is True else bias,
        **steps,
        groups=groups,
        threshold=options.pop("threshold", 1.0),
        v_min=options.pop("v_min", -1.0),
        in_shape=in_shape,
        out_shape=(features, *Window((ky, kx), **steps).out_size(in_shape[1:])),
        **options,
    )


def single(in_shape: Shape3, features: int, kernel: int | Pair = 3, **options: Any) -> SpikingNet:
    """Return the net of one layer."""
    return chain((make_layer(in_shape, features, kernel, **options),), ((1, 1), (1, 1)), in_shape)


def stack(input_shape: Shape3, rows: Sequence[dict[str, Any]], *, input_pool: Pair = (1, 1)) -> SpikingNet:
    """Return a chain; each row holds the arguments of a layer and ``pool`` behind it; kernel 0 is a Linear layer."""
    shape = pooled(input_shape, input_pool)
    layers: list[SpikingLayer] = []
    pools = [input_pool]
    for index, given in enumerate(rows):
        row = dict(given)
        pool, kernel = _pair(row.pop("pool", 1)), row.pop("kernel", 3)
        name = row.pop("name", f"layer{index}")
        layers.append(make_layer(shape, row.pop("features"), kernel or shape[1:], name=name, seed=index, **row))
        pools.append(pool)
        shape = pooled(layers[-1].out_shape, pool)
    return chain(tuple(layers), tuple(pools), input_shape)


def digits_net(edge: int = 34) -> SpikingNet:
    """Return a net of the shape of the tutorial's digits CNN, for merged polarities."""
    convolutions = [{"features": f, "kernel": 3, "pool": 2} for f in (8, 32, 16)]
    return stack((1, edge, edge), [*convolutions, {"features": 32, "kernel": 0}, {"features": 10, "kernel": 0}])


def gesture_net() -> SpikingNet:
    """Return a net of the shape of the DVS-gesture CNN: nine layers on 2 x 128 x 128."""
    middle = [{"features": f, "kernel": 3, "padding": 1, "pool": 2} for f in (16, 32, 32, 64, 64)]
    last = [{"features": 256, "kernel": 2}, {"features": 128, "kernel": 0}, {"features": 11, "kernel": 0}]
    return stack((2, 128, 128), [{"features": 16, "kernel": 2, "stride": 2}, *middle, *last])


def random_chain(rng: np.random.Generator) -> SpikingNet:
    """Return a chain of one to four small layers that the chip can hold."""
    rows = []
    edge = 16
    for _ in range(int(rng.integers(1, 5))):
        kernel, padding, pool = int(rng.integers(1, 4)), int(rng.integers(0, 3)), int(rng.choice([1, 1, 2]))
        stride = int(rng.choice([1, 1, 2])) if edge > 6 else 1
        kernel = min(kernel, edge)
        edge = (edge + 2 * padding - kernel) // stride + 1
        pool = pool if edge > 3 else 1
        edge //= pool
        features, bias = int(rng.integers(1, 6)), bool(rng.random() < 0.5)
        row = {"kernel": kernel, "padding": padding, "pool": pool, "stride": stride, "features": features}
        rows.append({**row, "bias": bias or None})
    return stack((int(rng.integers(1, 3)), 16, 16), rows)


def random_graph(rng: np.random.Generator, *, n_layers: int = 5) -> SpikingNet:
    """Return a net on which simulation and chip agree exactly, of all that both can do but biases.

    Layers are grouped and dilated, start anywhere below their threshold, and read one or two earlier maps, each pooled
    by its own number, added or one behind the other. Values are whole numbers and the largest weight of a layer is 127,
    so that integers stand for themselves. No weight is above the threshold and weights behind the first layers are not
    negative, so that the order of the spikes of one event does not matter.
    """
    input_shape = (int(rng.integers(1, 3)), *_edges(rng, 8, 13))
    layers: list[SpikingLayer] = []
    edges: list[Edge] = []
    for target in range(n_layers):
        ends = [_open_ends(source, layers, edges, input_shape) for source in range(INPUT, target)]
        choices = [end for some in ends for end in some]
        source, pool, shape = choices[int(rng.integers(len(choices)))]
        taken = [Edge(source, target, pool)]
        channels, size = shape[0], shape[1:]
        mates = [end for end in choices if end[0] not in (INPUT, source) and end[2][1:] == size]
        if mates and rng.random() < 0.7:
            source, pool, shape = mates[int(rng.integers(len(mates)))]
            shift = int(rng.choice([0, channels]))
            taken.append(Edge(source, target, pool, shift))
            channels = max(channels, shape[0] + shift)
        lowest = -127 if [edge.source for edge in taken] == [INPUT] else 0
        layers.append(_whole_layer(rng, f"layer{target}", (channels, *size), lowest))
        edges += taken
    edges += [Edge(i, None) for i in range(n_layers) if i + 1 == n_layers or all(edge.source != i for edge in edges)]
    return SpikingNet(tuple(layers), tuple(edges), input_shape)


def _open_ends(
    source: int, layers: Sequence[SpikingLayer], edges: Sequence[Edge], input_shape: Shape3
) -> list[tuple[int, Pair, Shape3]]:
    """Return what another layer may read of a source, which feeds two at most: the source, a pool, and the shape."""
    if sum(edge.source == source for edge in edges) == 2:
        return []
    shape = input_shape if source == INPUT else layers[source].out_shape
    pools = (1, 2, 4) if source != INPUT else (1,)
    ends = ((source, (pool, pool), pooled(shape, (pool, pool))) for pool in pools)
    return [end for end in ends if min(end[2]) >= 1]


def _whole_layer(rng: np.random.Generator, name: str, in_shape: Shape3, lowest: int) -> SpikingLayer:
    groups = int(rng.choice([n for n in range(1, in_shape[0] + 1) if in_shape[0] % n == 0]))
    features = groups * int(rng.integers(1, 3))
    kernel, dilation, padding = (int(rng.integers(low, 4)) for low in (1, 1, 0))
    stride = int(rng.choice([1, 1, 2]))
    if rng.random() < 0.6:  # a map of the same size, which others can join
        kernel, stride = int(rng.choice([1, 3])), 1
        padding = dilation * (kernel // 2)
    if (kernel - 1) * dilation + 1 > min(in_shape[1:]) + 2 * padding:
        dilation, padding = 1, 3
    weight = rng.integers(lowest, 127, (features, in_shape[0] // groups, kernel, kernel))
    weight.flat[int(rng.integers(weight.size))] = 127
    threshold = int(rng.integers(127, 300))
    size = Window((kernel,) * 2, (stride,) * 2, (padding,) * 2, (dilation,) * 2).out_size(in_shape[1:])
    v_min = None if rng.random() < 0.3 else -int(rng.integers(1, 400))
    return make_layer(
        in_shape,
        features,
        kernel,
        name=name,
        weight=weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        threshold=float(threshold),
        v_min=v_min,
        v_init=rng.integers(v_min or -400, threshold, (features, *size)) if rng.random() < 0.5 else None,
    )


def _edges(rng: np.random.Generator, low: int, high: int) -> Pair:
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def branch_net() -> SpikingNet:
    """Return a net with two entries, a concatenation by feature shifts, an addition, and two outputs."""
    left = make_layer((2, 16, 16), 4, name="left", padding=1, seed=1)
    right = make_layer((2, 16, 16), 6, name="right", padding=1, seed=2)
    both = make_layer((10, 8, 8), 5, name="both", padding=1, seed=3)
    last = make_layer((5, 8, 8), 3, name="last", seed=4)
    edges = (
        Edge(INPUT, 0, (2, 2)),
        Edge(INPUT, 1, (2, 2)),
        Edge(0, 2, (2, 2)),
        Edge(1, 2, (2, 2), feature_shift=4),
        Edge(2, 3),
        Edge(2, None),
        Edge(3, None, (2, 2)),
    )
    return SpikingNet((left, right, both, last), edges, (2, 32, 32))


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value
