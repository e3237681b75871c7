"""The event-driven simulator in plain Python: loops over all neurons, one event after the other."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.random import Generator

Spike = tuple[int, int, int, int]
"""Feature, row, column, time stamp."""


@dataclasses.dataclass
class Layer:
    """A convolution, neurons and a pool, of random sizes."""

    weight: Any
    in_shape: tuple[int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    threshold: float
    v_min: float
    pool: tuple[int, int]

    @property
    def out_size(self) -> tuple[int, int]:
        """Rows and columns of the neurons."""
        rows, columns = (
            (self.in_shape[1 + axis] + 2 * self.padding[axis] - self.weight.shape[2 + axis]) // self.stride[axis] + 1
            for axis in (0, 1)
        )
        return rows, columns


def random_layer(seed: int) -> tuple[Layer, list[Spike]]:
    """Return a layer with weights that 32-bit floats add exactly, and spikes for it, some outside of it."""
    rng = np.random.default_rng(seed)
    channels, features = (int(value) for value in rng.integers(1, 5, 2))
    kernel = tuple(int(value) for value in rng.integers(1, 5, 2))
    size = tuple(int(edge + extra) for edge, extra in zip(kernel, rng.integers(0, 8, 2), strict=True))
    layer = Layer(
        weight=rng.integers(-20, 40, (features, channels, *kernel)) / 32,
        in_shape=(channels, size[0], size[1]),
        stride=_pair(rng, 1, 4),
        padding=_pair(rng, 0, 3),
        threshold=float(rng.integers(8, 64)) / 32,
        v_min=-float(rng.integers(0, 64)) / 32,
        pool=_pair(rng, 1, 3),
    )
    n_events = int(rng.integers(1, 40))
    place = [rng.integers(0, edge + (rng.random() < 0.1), n_events).tolist() for edge in layer.in_shape]
    return layer, list(zip(*place, np.sort(rng.integers(0, 1000, n_events)).tolist(), strict=True))


def _pair(rng: Generator, low: int, high: int) -> tuple[int, int]:
    first, second = (int(value) for value in rng.integers(low, high, 2))
    return first, second


def simulate(layer: Layer, events: list[Spike]) -> tuple[list[Spike], list[Spike], Any]:
    """Return the spikes of the neurons, those behind the pool, and the states."""
    height, width = layer.out_size
    features, _, ky, kx = layer.weight.shape
    state = [[[0.0] * width for _ in range(height)] for _ in range(features)]
    spikes: list[Spike] = []
    for channel, y, x, stamp in events:
        if channel >= layer.in_shape[0] or y >= layer.in_shape[1] or x >= layer.in_shape[2]:
            continue
        for v in range(height):
            for u in range(width):
                b, a = y + layer.padding[0] - v * layer.stride[0], x + layer.padding[1] - u * layer.stride[1]
                if not (0 <= b < ky and 0 <= a < kx):
                    continue
                for f in range(features):
                    value = max(state[f][v][u] + float(layer.weight[f, channel, b, a]), layer.v_min)
                    if value >= layer.threshold:
                        value -= layer.threshold
                        spikes.append((f, v, u, stamp))
                    state[f][v][u] = value
    rows, columns = height // layer.pool[0], width // layer.pool[1]
    pooled = [(f, v // layer.pool[0], u // layer.pool[1], stamp) for f, v, u, stamp in spikes]
    return spikes, [one for one in pooled if one[1] < rows and one[2] < columns], state
