"""Spiking nets for the tests of the compiler: single layers, the nets of the tutorials, random chains, branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spikeport.convert.geometry import Pair, Shape3, out_shape, pooled
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, chain


def make_layer(in_shape: Shape3, features: int, kernel: int | Pair = 3, **options: Any) -> SpikingLayer:
    """Return a layer of random weights; ``options`` are its fields, ``seed``, and ``bias=True`` for a random one."""
    ky, kx = (kernel, kernel) if isinstance(kernel, int) else kernel
    rng = np.random.default_rng(options.pop("seed", 0))
    weight = options.pop("weight", None)
    if weight is None:
        weight = (rng.normal(size=(features, in_shape[0], ky, kx)) * 0.3).astype(np.float32)
    bias = options.pop("bias", None)
    stride, padding = _pair(options.pop("stride", 1)), _pair(options.pop("padding", 0))
    return SpikingLayer(
        name=options.pop("name", "conv"),
        weight=weight,
        bias=(rng.normal(size=features) * 0.1).astype(np.float32) if bias is True else bias,
        stride=stride,
        padding=padding,
        threshold=options.pop("threshold", 1.0),
        v_min=options.pop("v_min", -1.0),
        in_shape=in_shape,
        out_shape=out_shape(in_shape, (features, in_shape[0], ky, kx), stride, padding),
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
