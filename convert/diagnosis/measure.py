"""What each layer of a spiking net makes of the spikes that reach it, and what the CNN's layer would."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.errors import InputError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.graph import Conv, Graph, Relu
from spikeport.convert.grid import STATE_BITS, WEIGHT_BITS, layer_scale, to_integers
from spikeport.convert.rasters import arriving
from spikeport.convert.simulate import simulate
from spikeport.convert.types import INPUT, Conversion, Edge, SpikingLayer, SpikingNet, Trace
from spikeport.models.arrays import ArrayRecord, frozen

_CELLS = 10_000_000
"""Neuron steps of all layers held at once; more recordings are measured in parts."""

Counts = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerCounts(ArrayRecord):
    """What one layer did, and what it would have done otherwise with the same spikes arriving at the same times.

    ``activations`` are those of the CNN, ``asked`` what the CNN's layer makes of the spikes that arrived (its upper
    bound included), ``spikes`` what the layer sent. The others are reruns of this layer alone: ``unbounded`` without
    lower bound, ``intended`` also with the weights and bias of the scaled CNN, ``gridded`` on the chip's 8-bit grid,
    ``unbiased`` without its bias. ``hit`` says where the lower bound took away potential; ``visits`` counts updates:
    the chip's neurons fire at most once in each. ``bias_gain`` is the bias that was added in all steps as a multiple of
    the CNN's, None where the CNN's layer has none.
    Shapes: ``[B, F, H, W]``. Law: ``asked`` differs from ``activations`` only by what earlier layers did.
    Units: spikes in the whole recording.
    """

    layer: SpikingLayer
    node: Conv
    pool_area: int
    bias_gain: float | None
    n_steps: int
    ceiling: Counts | None
    activations: Counts
    asked: Counts
    spikes: Counts
    unbounded: Counts
    intended: Counts
    gridded: Counts
    unbiased: Counts
    visits: Counts
    hit: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, field.name, frozen(value))

    @property
    def rounded(self) -> Counts:
        """What ``asked`` is in whole spikes, from the potential that each neuron starts at."""
        start = 0.0 if self.layer.v_init is None else self.layer.v_init / self.layer.threshold
        return np.asarray(np.maximum(np.floor(self.asked + start + 1e-4), 0.0), np.float32)


def measure_layers(conversion: Conversion, raster: NDArray[Any]) -> tuple[LayerCounts, ...]:
    """Return the counts of each layer of ``conversion.net``, in its order.

    Shapes: ``raster`` is ``[T, B, C, H, W]``.
    Raises: InputError where a layer of the net has no convolution of its name and shape in ``conversion.scaled``.
    """
    _check_layers(conversion)
    net, n_steps = conversion.net, len(raster)
    cells = n_steps * sum(int(np.prod(layer.out_shape)) for layer in net.layers)
    n_part = max(1, _CELLS // cells)
    parts = [_measure_part(conversion, raster[:, i : i + n_part]) for i in range(0, raster.shape[1], n_part)]
    return tuple(_joined(column) for column in zip(*parts, strict=True))


def _check_layers(conversion: Conversion) -> None:
    problems = []
    for layer in conversion.net.layers:
        node = conversion.scaled[layer.name] if layer.name in conversion.scaled else None  # noqa: SIM401  # no dict
        if not isinstance(node, Conv) or node.weight.shape != layer.weight.shape:
            found = list(node.weight.shape) if isinstance(node, Conv) else "none"
            problems.append(
                f"layer '{layer.name}': expected a convolution of that name with weights {list(layer.weight.shape)} in "
                f"the scaled CNN, found {found}."
            )
    if problems:
        raise InputError(" ".join([*problems, "Try the Conversion that the net was made in."]))


def _measure_part(conversion: Conversion, raster: NDArray[Any]) -> tuple[LayerCounts, ...]:
    import torch

    net, scaled = conversion.net, conversion.scaled
    trace = simulate(net, raster, record="all")
    frames = torch.from_numpy(raster.sum(axis=0, dtype=np.float32))
    neurons = {layer.name: _neurons(scaled, layer.name) for layer in net.layers}
    sent = {
        relu.name: torch.from_numpy(counts.astype(np.float32))
        for relu, counts in zip(neurons.values(), trace.counts, strict=True)
        if relu is not None
    }
    clean = evaluate(scaled, frames)
    asked = evaluate(scaled, frames, known=sent)
    sources = {INPUT: raster, **dict(enumerate(trace.spikes or ()))}
    found = []
    for index, layer in enumerate(net.layers):
        relu = neurons[layer.name]
        ceiling = _ceiling(relu, layer)
        found.append(
            _measure_layer(
                layer,
                node=_conv(scaled, layer.name),
                ceiling=ceiling,
                values=(_rectified(clean[layer.name], ceiling), _rectified(asked[layer.name], ceiling)),
                arriving=arriving(net, index, sources),
                own=(trace, index, _pool_area(net, index)),
            )
        )
    return tuple(found)


def _measure_layer(
    layer: SpikingLayer,
    *,
    node: Conv,
    ceiling: Counts | None,
    values: tuple[Counts, Counts],
    arriving: Counts,
    own: tuple[Trace, int, int],
) -> LayerCounts:
    trace, index, pool_area = own
    n_steps = len(arriving)
    spikes = trace.counts[index].astype(np.float32)
    free = layer if layer.v_min is None else dataclasses.replace(layer, v_min=None)
    unbounded, state = (spikes, trace.states[index]) if free is layer else _rerun(free, arriving)
    # All potential that ever arrived, less what the bound took away: equal where it took nothing.
    gap = trace.states[index] + layer.threshold * spikes - state - layer.threshold * unbounded
    as_meant = intended_layer(layer, node, n_steps)
    intended = unbounded if _is_as_intended(layer, as_meant) else _rerun(as_meant, arriving)[0]
    unbiased = spikes
    if layer.bias is not None and layer.bias.any():
        unbiased = _rerun(dataclasses.replace(layer, bias=None), arriving)[0]
    return LayerCounts(
        layer=layer,
        node=node,
        pool_area=pool_area,
        bias_gain=_bias_gain(layer, node, n_steps),
        n_steps=n_steps,
        ceiling=ceiling,
        activations=values[0],
        asked=values[1],
        spikes=spikes,
        unbounded=unbounded,
        intended=intended,
        gridded=_rerun(on_grid(layer), arriving)[0],
        unbiased=unbiased,
        visits=_visits(layer, arriving),
        hit=gap > 1e-3 * layer.threshold,
    )


def _rerun(layer: SpikingLayer, arriving: Counts) -> tuple[Counts, NDArray[np.float32]]:
    """Return spike counts and last potentials of a layer alone, for the spikes that arrive at it."""
    alone = SpikingNet((layer,), (Edge(INPUT, 0), Edge(0, None)), layer.in_shape)
    trace = simulate(alone, arriving)
    return trace.counts[0].astype(np.float32), trace.states[0]


def _visits(layer: SpikingLayer, arriving: Counts) -> Counts:
    """Return how often each neuron is updated: once for each spike within its window, whatever the weight.

    Where a constant stands in for events there is no such number: infinity.
    """
    if np.any(arriving != np.rint(arriving)):
        return np.full((arriving.shape[1], *layer.out_shape), np.inf, np.float32)
    ones = dataclasses.replace(layer, weight=np.ones_like(layer.weight), bias=None, v_init=None, threshold=1.0)
    return _rerun(ones, arriving.sum(axis=0, keepdims=True))[0]


def intended_layer(layer: SpikingLayer, node: Conv, n_steps: int) -> SpikingLayer:
    """Return the layer that the scaled CNN asks for: its weights and bias, threshold 1, no lower bound."""
    bias = None if node.bias is None else (node.bias / n_steps).astype(np.float32)
    start = None if layer.v_init is None else (layer.v_init / layer.threshold).astype(np.float32)
    return dataclasses.replace(layer, weight=node.weight, bias=bias, threshold=1.0, v_min=None, v_init=start)


def _is_as_intended(layer: SpikingLayer, intended: SpikingLayer) -> bool:
    def close(given: Any, wanted: Any) -> bool:
        given, wanted = (np.zeros(1) if one is None else np.asarray(one, np.float64) for one in (given, wanted))
        return bool(np.allclose(given / layer.threshold, wanted, rtol=1e-5, atol=1e-7))

    return close(layer.weight, intended.weight) and close(layer.bias, intended.bias)


def on_grid(layer: SpikingLayer) -> SpikingLayer:
    """Return the layer with its values rounded to the chip's integers, as floats again; see ``grid``."""
    scale = layer_scale(layer.weight, layer.bias, threshold=layer.threshold, v_min=layer.v_min)

    def rounded(values: Any, bits: int) -> NDArray[np.float32]:
        return (to_integers(values, scale, bits) / scale).astype(np.float32)

    low = layer.v_min
    return dataclasses.replace(
        layer,
        weight=rounded(layer.weight, WEIGHT_BITS),
        bias=None if layer.bias is None else rounded(layer.bias, STATE_BITS),
        threshold=max(float(rounded(layer.threshold, 32)), 1 / scale),
        v_min=None if low is None else min(float(rounded(low, STATE_BITS)), -1 / scale),
        v_init=None if layer.v_init is None else rounded(layer.v_init, STATE_BITS),
    )


def _pool_area(net: SpikingNet, index: int) -> int:
    return max(edge.pool[0] * edge.pool[1] for edge in net.incoming(index))


def _bias_gain(layer: SpikingLayer, node: Conv, n_steps: int) -> float | None:
    if node.bias is None or not node.bias.any():
        return None
    added = np.zeros(len(node.bias)) if layer.bias is None else layer.bias * (n_steps / layer.threshold)
    return float(added @ node.bias / (node.bias @ node.bias))


def _conv(graph: Graph, name: str) -> Conv:
    node = graph[name]
    if not isinstance(node, Conv):
        raise InputError(f"layer '{name}': expected a convolution in the scaled CNN, found {node.label}.")
    return node


def _neurons(scaled: Graph, name: str) -> Relu | None:
    """Return the rectifier whose value the spikes of a layer are; None behind the last layer of a CNN without one."""
    return next((reader for reader in scaled.consumers(name) if isinstance(reader, Relu)), None)


def _ceiling(relu: Relu | None, layer: SpikingLayer) -> Counts | None:
    if relu is None or relu.ceiling is None:
        return None
    bounds = np.broadcast_to(np.asarray(relu.ceiling, np.float32), layer.out_shape[:1])
    return np.asarray(bounds.reshape(-1, 1, 1), np.float32)


def _rectified(value: Any, ceiling: Counts | None) -> Counts:
    positive = np.asarray(np.maximum(value.numpy(), 0.0), np.float32)
    return positive if ceiling is None else np.minimum(positive, ceiling)


def _joined(parts: Sequence[LayerCounts]) -> LayerCounts:
    first = parts[0]
    changes = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _batched(first)}
    return dataclasses.replace(first, **changes)  # type: ignore[arg-type]


def _batched(counts: LayerCounts) -> Iterator[str]:
    for field in dataclasses.fields(counts):
        value = getattr(counts, field.name)
        if isinstance(value, np.ndarray) and value.ndim == 4:
            yield field.name
