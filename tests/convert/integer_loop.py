"""A slow loop over integers that any simulation in time steps must equal, for nets whose values are whole eighths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spikeport.convert.types import INPUT, SpikingLayer, SpikingNet, Trace

from .nets import EIGHTHS

Integers = NDArray[np.int64]


def synapses(layer: SpikingLayer) -> Integers:
    """Return the weight from every input to every neuron, in eighths: the law of ``Window``, place by place."""
    window, (channels, height, width), (features, rows, columns) = layer.window, layer.in_shape, layer.out_shape
    weight = np.rint(layer.weight * EIGHTHS).astype(np.int64)
    table = np.zeros((*layer.out_shape, *layer.in_shape), np.int64)
    for v, u, i, j in np.ndindex(rows, columns, *window.kernel):
        y, y_rest = divmod(v * window.stride[0] + i * window.dilation[0] - window.padding[0], window.upsample[0])
        x, x_rest = divmod(u * window.stride[1] + j * window.dilation[1] - window.padding[1], window.upsample[1])
        if y_rest or x_rest or not (0 <= y < height and 0 <= x < width):
            continue
        for f in range(features):
            first = f // (features // layer.groups) * weight.shape[1]
            table[f, v, u, first : first + weight.shape[1], y, x] += weight[f, :, i, j]
    return table.reshape(features * rows * columns, channels * height * width)


def reference(net: SpikingNet, raster: NDArray[Any]) -> list[tuple[Integers, Integers]]:
    """Return spikes ``[T, F, H, W]`` and last potentials (in eighths) of each layer for one recording."""
    tables = [synapses(layer) for layer in net.layers]
    states = [np.zeros(layer.out_shape, np.int64) for layer in net.layers]
    for index, layer in enumerate(net.layers):
        if layer.v_init is not None:
            states[index] = np.rint(layer.v_init * EIGHTHS).astype(np.int64)
    spikes: list[list[Integers]] = [[] for _ in net.layers]
    for frame in raster.astype(np.int64):
        maps = {INPUT: frame}
        for index, layer in enumerate(net.layers):
            arriving = np.zeros(layer.in_shape, np.int64)
            for edge in net.incoming(index):
                for c, y, x in np.argwhere(maps[edge.source]):
                    row, column = y // edge.pool[0], x // edge.pool[1]
                    if row < layer.in_shape[1] and column < layer.in_shape[2]:
                        arriving[c + edge.feature_shift, row, column] += maps[edge.source][c, y, x]
            state = states[index] + (tables[index] @ arriving.reshape(-1)).reshape(layer.out_shape)
            if layer.bias is not None:
                state += np.rint(layer.bias * EIGHTHS).astype(np.int64)[:, None, None]
            threshold = round(layer.threshold * EIGHTHS)
            fired = np.where(state >= threshold, state // threshold, 0)
            state = state - fired * threshold
            states[index] = state if layer.v_min is None else np.maximum(state, round(layer.v_min * EIGHTHS))
            maps[index] = fired
            spikes[index].append(fired)
    return [(np.stack(fired), state) for fired, state in zip(spikes, states, strict=True)]


def assert_equals_reference(net: SpikingNet, raster: NDArray[Any], trace: Trace) -> None:
    assert trace.spikes is not None
    for sample in range(raster.shape[1]):
        for index, (spikes, state) in enumerate(reference(net, raster[:, sample])):
            np.testing.assert_array_equal(trace.spikes[index][:, sample], spikes)
            np.testing.assert_array_equal(trace.states[index][sample] * EIGHTHS, state)
            np.testing.assert_array_equal(trace.counts[index][sample], spikes.sum(axis=0))


def random_raster(rng: Generator, net: SpikingNet, n_samples: int) -> NDArray[np.int64]:
    return rng.poisson(0.3, (int(rng.integers(1, 6)), n_samples, *net.input_shape))
