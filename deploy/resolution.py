"""The emulator's event loop in 64-bit integers: what a net does, event by event, before its weights are rounded."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import sum_pooled
from spikeport.convert.kernels import dense_kernel
from spikeport.convert.types import INPUT, SpikingLayer, SpikingNet
from spikeport.models.events import Events

from .types import IntegerLayer, IntegerNet

_RESOLUTION = 2.0**22
"""Integers per largest weight of a layer; the chip has 127."""

Int64s = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class FineLayer:
    """A layer in integers of any size, weights as ``[C, ky, kx, F]``, states as ``[H, W, F]``."""

    weight: Int64s
    bias: Int64s
    threshold: int
    lowest: int
    start: Int64s
    steps: Int64s


@dataclasses.dataclass(frozen=True, eq=False)
class FineNet:
    """Layers that run without saturation, and the edges between them."""

    net: SpikingNet | IntegerNet
    layers: tuple[FineLayer, ...]


class Entering(NamedTuple):
    """The events of one recording: columns causing event, channel, row, column; and leak ticks due before each."""

    events: Int64s
    ticks: Int64s


def fine(net: SpikingNet) -> FineNet:
    """Return ``net`` in integers so fine that their rounding changes nothing that matters."""
    return FineNet(net, tuple(map(_fine_layer, net.layers)))


def as_fine(net: IntegerNet) -> FineNet:
    """Return a net in the chip's integers as it is, to run in the same loop."""
    return FineNet(net, tuple(map(_integer_layer, net.layers)))


def enter_events(events: Events, channels: int, *, slow_clock_hz: float | None = None) -> Entering:
    """Return a recording as it enters a net of so many channels; one channel merges polarities."""
    period = None if slow_clock_hz is None else max(1, round(1e6 / slow_clock_hz))
    ticks = np.zeros(len(events), np.int64) if period is None else events.t_us.astype(np.int64) // period
    feature = np.zeros(len(events), np.int64) if channels == 1 else events.p.astype(np.int64)
    columns = np.stack([np.arange(len(events)), feature, events.y, events.x], axis=1)
    return Entering(columns.astype(np.int64), ticks)


def enter_raster(raster: NDArray[Any], *, seed: int = 0) -> Entering:
    """Return event counts ``[T, C, H, W]`` as events, those of a step in random order; a tick at each step's start."""
    places = np.stack(np.nonzero(raster), axis=1)
    repeated = np.repeat(places, raster[raster != 0].astype(np.int64), axis=0)
    order = np.lexsort((np.random.default_rng(seed).random(len(repeated)), repeated[:, 0]))
    columns = repeated[order].astype(np.int64)
    ticks = columns[:, 0] + 1
    columns[:, 0] = np.arange(len(columns))
    return Entering(columns, np.ascontiguousarray(ticks))


def run_fine(net: FineNet, entering: Entering) -> tuple[Int64s, ...]:
    """Return the spike counts of each layer ``[F, H, W]``, by the integer specification without saturation.

    Law: for a program that never saturates they are the counts of the emulator.
    """
    loop = _loop()
    spikes: dict[int, Int64s] = {INPUT: entering.events}
    counts = []
    for index, layer in enumerate(net.layers):
        found, spikes[index] = loop(_arriving(net.net, index, spikes), layer, entering.ticks)
        counts.append(found)
    return tuple(counts)


def count_changes(net: FineNet, variants: Sequence[FineNet], entering: Entering) -> Int64s:
    """Return how many spikes of each layer the variants change when it alone is replaced, and how many there are.

    A layer of a variant reads what it reads in ``net``, so what it changes is its own doing: in a whole net a single
    spike that comes an event earlier or later changes the order of others, and small changes grow with each layer.
    Shapes: ``[layers, variants + 1]``: for each variant the sum of absolute differences over the neurons, then the
    spikes of ``net``.
    """
    loop = _loop()
    spikes: dict[int, Int64s] = {INPUT: entering.events}
    found = np.zeros((len(net.layers), len(variants) + 1), np.int64)
    for index, layer in enumerate(net.layers):
        arriving = _arriving(net.net, index, spikes)
        counts, spikes[index] = loop(arriving, layer, entering.ticks)
        for place, variant in enumerate(variants):
            found[index, place] = np.abs(loop(arriving, variant.layers[index], entering.ticks)[0] - counts).sum()
        found[index, -1] = counts.sum()
    return found


def class_counts(net: FineNet, counts: tuple[Int64s, ...]) -> Int64s:
    """Return the output spikes of each class, flattened as torch does: the counts behind the output edges."""
    ends = [edge for edge in net.net.edges if edge.target is None]
    shaped = [(edge.feature_shift, sum_pooled(counts[edge.source], edge.pool)) for edge in ends]
    total = np.zeros((max(shift + len(maps) for shift, maps in shaped), *shaped[0][1].shape[1:]), np.int64)
    for shift, maps in shaped:
        total[shift : shift + len(maps)] += maps
    return total.reshape(-1)


def _fine_layer(layer: SpikingLayer) -> FineLayer:
    biases = 0.0 if layer.bias is None else float(np.abs(layer.bias).max())
    largest = max(float(np.abs(layer.weight).max()), biases, 1e-9 * layer.threshold)
    scale = _RESOLUTION / largest
    return _made(
        layer,
        weight=np.rint(layer.weight.astype(np.float64) * scale),
        bias=None if layer.bias is None else np.rint(layer.bias.astype(np.float64) * scale),
        bounds=(round(layer.threshold * scale), None if layer.v_min is None else round(layer.v_min * scale)),
        start=None if layer.v_init is None else np.rint(layer.v_init.astype(np.float64) * scale),
    )


def _integer_layer(layer: IntegerLayer) -> FineLayer:
    return _made(
        layer,
        weight=layer.weight,
        bias=layer.bias,
        bounds=(layer.threshold_high, layer.threshold_low),
        start=layer.initial_state,
    )


def _made(layer: Any, *, weight: Any, bias: Any, bounds: tuple[int, int | None], start: Any) -> FineLayer:
    high, low = bounds
    dense = dense_kernel(np.asarray(weight, np.int64), dilation=layer.dilation, groups=layer.groups)
    features, height, width = layer.out_shape
    lowest = -(2**62) if low is None else low
    begin = np.zeros((height, width, features), np.int64)
    if start is not None:
        begin += np.clip(np.asarray(start, np.int64), lowest, high - 1).transpose(1, 2, 0)
    return FineLayer(
        weight=np.array(dense.transpose(1, 2, 3, 0), np.int64, order="C"),
        bias=np.zeros(features, np.int64) if bias is None else np.array(bias, np.int64),
        threshold=high,
        lowest=lowest,
        start=begin,
        steps=np.array([*layer.stride, *layer.padding, *layer.in_shape], np.int64),
    )


def _arriving(net: SpikingNet | IntegerNet, index: int, spikes: dict[int, Int64s]) -> Int64s:
    """Return the events of a layer in order of the causing event, a spike's destinations one behind the other."""
    edges = [edge for edge in net.edges if edge.target == index]
    parts = []
    for source in dict.fromkeys(edge.source for edge in edges):
        taken = [edge for edge in edges if edge.source == source]
        moved = np.repeat(spikes[source][:, None], len(taken), axis=1)
        for place, edge in enumerate(taken):
            moved[:, place, 1] += edge.feature_shift
            moved[:, place, 2] //= edge.pool[0]
            moved[:, place, 3] //= edge.pool[1]
        parts.append(moved.reshape(-1, 4))
    joined = np.concatenate(parts)
    return joined if len(parts) == 1 else joined[np.argsort(joined[:, 0], kind="stable")]


@functools.cache
def _loop() -> Callable[[Int64s, FineLayer, Int64s], tuple[Int64s, Int64s]]:
    import numba

    def plain(arriving, weight, bias, bounds, state, steps, ticks, counts, out, first):  # type: ignore[no-untyped-def]
        stride_y, stride_x, pad_y, pad_x, channels, in_height, in_width = steps
        height, width, n_features = state.shape
        ky, kx = weight.shape[1], weight.shape[2]
        high, low = bounds
        k, done, n = first[0], first[1], 0
        room = out.shape[0] - ky * kx * n_features
        while k < arriving.shape[0] and n <= room:
            event, c, y, x = arriving[k]
            k += 1
            while done < ticks[event]:
                done += 1
                for v in range(height):
                    for u in range(width):
                        for f in range(n_features):
                            state[v, u, f] = max(state[v, u, f] + bias[f], low)
            if c >= channels or y >= in_height or x >= in_width:
                continue
            for v in range(height):
                b = y + pad_y - v * stride_y
                if b < 0 or b >= ky:
                    continue
                for u in range(width):
                    a = x + pad_x - u * stride_x
                    if a < 0 or a >= kx:
                        continue
                    pixel, row = state[v, u], weight[c, b, a]
                    for f in range(n_features):
                        value = max(pixel[f] + row[f], low)
                        if value >= high:
                            value -= high
                            counts[v, u, f] += 1
                            out[n, 0], out[n, 1], out[n, 2], out[n, 3] = event, f, v, u
                            n += 1
                        pixel[f] = value
        first[0], first[1] = k, done
        return n

    try:
        integrate = numba.njit(cache=True, nogil=True, error_model="numpy")(plain)
    except RuntimeError:  # numba finds no folder that it may write its cache to: compile once per process
        integrate = numba.njit(nogil=True, error_model="numpy")(plain)

    def loop(arriving: Int64s, layer: FineLayer, ticks: Int64s) -> tuple[Int64s, Int64s]:
        state, counts = layer.start.copy(), np.zeros(layer.start.shape, np.int64)
        first = np.zeros(2, np.int64)
        parts: list[Int64s] = []
        size = 2 * int(np.prod(layer.weight.shape[1:])) + 65536
        bounds = np.array([layer.threshold, layer.lowest], np.int64)
        while not parts or first[0] < len(arriving):
            out = np.empty((size, 4), np.int64)
            n = integrate(arriving, layer.weight, layer.bias, bounds, state, layer.steps, ticks, counts, out, first)
            parts.append(out[:n].copy())
        return counts.transpose(2, 0, 1), np.concatenate(parts)

    return loop
