"""A spiking net unrolled in time on the integer grid of the chip, with gradients for its weights."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, InvalidNetError
from .evaluate import spread
from .geometry import Pair, Shape3, fan_out
from .grid import BIAS_BITS, STATE_BITS, WEIGHT_BITS, layer_scale, to_integers
from .types import INPUT, SpikingLayer, SpikingNet

if TYPE_CHECKING:
    import torch

_WIDTH = 0.5
"""Thresholds below the threshold over which the gradient of a silent neuron falls by a factor of e."""


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What is trained: the weights and biases of each layer before they are rounded, as torch tensors."""

    weights: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor | None, ...]

    def tensors(self) -> list[torch.Tensor]:
        """Return all of them, layer by layer."""
        pairs = zip(self.weights, self.biases, strict=True)
        return [tensor for pair in pairs for tensor in pair if tensor is not None]


@dataclasses.dataclass(frozen=True)
class Unfolding:
    """What the net did with a batch of rasters.

    Shapes: ``counts`` ``[B, classes]`` are output spikes, ``potentials`` ``[B, classes]`` the last potentials behind
    the classes in thresholds, ``synops`` the mean over the batch of the updates in all layers; all with gradients.
    ``input_synops`` are those in layers that read nothing but the input.
    """

    counts: torch.Tensor
    potentials: torch.Tensor
    synops: torch.Tensor
    input_synops: torch.Tensor

    def predictions(self) -> torch.Tensor:
        """Return the class of each raster: most spikes, then the higher potential, then the lower index.

        Law: equal to ``Trace.predictions`` of ``simulate`` where output layers share a threshold.
        """
        best = self.counts == self.counts.amax(1, keepdim=True)
        return self.potentials.masked_fill(~best, -math.inf).argmax(1)


@dataclasses.dataclass(frozen=True)
class GridLayer:
    """A layer in integers, kept as floating-point numbers: sums of them are exact below 2**24."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    threshold: float
    v_min: float | None
    v_init: torch.Tensor | None
    scale: float


def parameters_of(net: SpikingNet) -> Parameters:
    """Return the weights and biases of ``net`` as tensors that want gradients."""
    import torch

    weights = tuple(torch.from_numpy(layer.weight.copy()).requires_grad_() for layer in net.layers)
    biases = tuple(
        None if layer.bias is None else torch.from_numpy(layer.bias.copy()).requires_grad_() for layer in net.layers
    )
    return Parameters(weights, biases)


def on_grid(layer: SpikingLayer, weight: torch.Tensor, bias: torch.Tensor | None) -> GridLayer:
    """Return a layer with new weights in the integers that deployment gives it; the gradient passes the rounding.

    Law: the integers are those of ``deploy.discretize`` for the same layer with these weights.
    Raises: InvalidNetError where the threshold rounds to 0.
    """
    import torch

    given = None if bias is None else bias.detach().numpy()
    scale = layer_scale(weight.detach().numpy(), given, threshold=layer.threshold, v_min=layer.v_min)
    threshold = float(to_integers(layer.threshold, scale))
    if not threshold > 0:
        raise InvalidNetError(
            f"layer '{layer.name}': its threshold ({layer.threshold:g}) rounds to 0 on the chip's grid, where one step "
            f"is {1 / scale:g}: weights are too large beside it. Try a lower learning rate, or fewer spikes."
        )
    v_min = None if layer.v_min is None else min(-1.0, float(to_integers(layer.v_min, scale)))
    v_init = None
    if layer.v_init is not None:
        lowest = -(2.0 ** (STATE_BITS - 1)) if v_min is None else v_min
        state = np.clip(to_integers(layer.v_init, scale, STATE_BITS), lowest, threshold - 1)
        v_init = torch.from_numpy(state.astype(np.float32))
    return GridLayer(
        weight=_rounded(weight, scale, WEIGHT_BITS),
        bias=None if bias is None else _rounded(bias, scale, BIAS_BITS),
        threshold=threshold,
        v_min=v_min,
        v_init=v_init,
        scale=scale,
    )


def _rounded(values: torch.Tensor, scale: float, bits: int) -> torch.Tensor:
    """Return ``values * scale`` rounded to integers, with the gradient of ``values * scale``."""
    import torch

    scaled = values * scale
    integers = torch.from_numpy(to_integers(values.detach().numpy(), scale, bits).astype(np.float32))
    return scaled + (integers - scaled).detach()


def from_grid(net: SpikingNet, parameters: Parameters) -> SpikingNet:
    """Return ``net`` with the trained weights as they were rounded, thresholds and lower bounds likewise.

    The unit of each layer is the power of two nearest to its scale, so that every value is exact.
    Law: ``simulate`` of the result gives the spikes of ``unroll``, and deployment finds the very same integers.
    """
    layers = []
    for layer, weight, bias in zip(net.layers, parameters.weights, parameters.biases, strict=True):
        grid = on_grid(layer, weight, bias)
        unit = 2.0 ** -round(math.log2(grid.scale))
        layers.append(
            dataclasses.replace(
                layer,
                weight=np.rint(grid.weight.detach().numpy()) * unit,
                bias=None if grid.bias is None else np.rint(grid.bias.detach().numpy()) * unit,
                threshold=grid.threshold * unit,
                v_min=None if grid.v_min is None else grid.v_min * unit,
                v_init=None if grid.v_init is None else grid.v_init.numpy() * unit,
            )
        )
    return dataclasses.replace(net, layers=tuple(layers))


def class_shape(net: SpikingNet) -> Shape3:
    """Return the shape whose places are the classes.

    Raises: InputError where the net has no ``output_shape``.
    """
    if net.output_shape is None:
        raise InputError(
            "fine-tuning: expected outputs of one map size, found several: no classes. Try a net with one output layer."
        )
    return net.output_shape


def unroll(net: SpikingNet, parameters: Parameters, raster: torch.Tensor, *, n_ticks: int = 1) -> Unfolding:
    """Return what ``net`` with the weights of ``parameters`` does with a batch of rasters, with gradients.

    Each layer convolves all steps at once; only its neurons go step by step. The gradient of a spike count is 1 per
    threshold of potential from the first threshold on, and falls exponentially below it.
    Shapes: ``raster`` is ``[T, B, C, H, W]``, float32. ``n_ticks`` is how often a step adds the bias.
    Law: spikes, potentials and synops equal those of ``simulate`` for ``from_grid(net, parameters)``.
    Raises: InputError where the net has no ``output_shape``.
    """
    shape = class_shape(net)
    steps, n_samples = raster.shape[:2]
    live: dict[int, torch.Tensor] = {INPUT: _channels_last(raster.flatten(0, 1))}
    ends: dict[int, torch.Tensor] = {}
    synops, input_synops = raster.new_zeros(()), raster.new_zeros(())
    for index, layer in enumerate(net.layers):
        arriving = _arriving(net, index, live)
        reach = fan_out(layer.in_shape, layer.weight.shape, layer.window, groups=layer.groups)
        visits = (arriving.sum((0, 1)) * raster.new_tensor(reach)).sum() / n_samples
        synops = synops + visits
        if all(edge.source == INPUT for edge in net.incoming(index)):
            input_synops = input_synops + visits
        grid = on_grid(layer, parameters.weights[index], parameters.biases[index])
        current = _current(layer, grid, arriving, n_ticks).permute(0, 2, 3, 1).contiguous()
        spikes, state = _fire(grid, current.reshape(steps, n_samples, *current.shape[1:]))
        live[index] = spikes.flatten(0, 1).permute(0, 3, 1, 2)
        ends[index] = state.permute(0, 3, 1, 2) / grid.threshold
    counts, potentials = raster.new_zeros(n_samples, *shape), raster.new_zeros(n_samples, *shape)
    for edge in net.edges:
        if edge.target is None:
            summed = live[edge.source].reshape(steps, n_samples, *net.source_shape(edge)).sum(0)
            counts = counts + _placed(sum_pooled(summed, edge.pool), shape[0], edge.feature_shift)
            if edge.source != INPUT:
                state = sum_pooled(ends[edge.source], edge.pool)
                potentials = potentials + _placed(state, shape[0], edge.feature_shift)
    return Unfolding(counts.flatten(1), potentials.flatten(1), synops, input_synops)


def _fire(grid: GridLayer, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the spikes of each step and the last potentials, for currents ``[T, B, H, W, F]``."""
    start = current.new_zeros(current.shape[1:])
    if grid.v_init is not None:
        start = start + grid.v_init.permute(1, 2, 0)
    spikes, state = _neurons().apply(current, start, grid.threshold, grid.v_min)
    return spikes, state


@functools.cache
def _neurons() -> Any:
    """Return the integrate-and-fire recursion as one differentiable function.

    sinabs' own layer builds a graph of a dozen small operations per step, and keeps all their values. Source: measured
    2026-11-21, tutorial's CNN, 8 steps, batch of 32, convolutions and gradients included, one core: 0.07 s, with
    sinabs' layer 0.12 s.
    """
    import torch

    class Neurons(torch.autograd.Function):
        @staticmethod
        def forward(
            context: Any, current: torch.Tensor, start: torch.Tensor, threshold: float, v_min: float | None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            before, spikes, v = torch.empty_like(current), torch.empty_like(current), start.clone()
            for step in range(len(current)):
                torch.add(v, current[step], out=before[step])
                torch.div(before[step], threshold, out=spikes[step]).floor_().clamp_(min=0)
                torch.sub(before[step], spikes[step], alpha=threshold, out=v)
                if v_min is not None:
                    v.clamp_(min=v_min)
            context.save_for_backward(before)
            context.threshold, context.v_min = threshold, v_min
            return spikes, v

        @staticmethod
        def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            (before,) = context.saved_tensors
            threshold, v_min = context.threshold, context.v_min
            of_spikes, carried = gradients
            result = torch.empty_like(before)
            for step in reversed(range(len(before))):
                # g: the gradient of a count times the threshold. With r for what is left after spikes:
                # dL/dv = g / threshold * (dL/dn - threshold * dL/dr) + dL/dr, and dL/dr is 0 at the lower bound.
                slope = torch.sub(before[step], threshold).mul_(1 / (threshold * _WIDTH)).clamp_(max=0).exp_()
                kept = torch.rsub(slope, 1)
                if v_min is not None:
                    kept.mul_(before[step] > v_min)
                torch.mul(slope, of_spikes[step], out=result[step]).mul_(1 / threshold).addcmul_(kept, carried)
                carried = result[step]
            return result, None, None, None

    return Neurons


def _arriving(net: SpikingNet, index: int, live: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return the input of a layer ``[T * B, C, H, W]``: the sum of its edges, pooled and moved to their features."""
    channels = net.layers[index].in_shape[0]
    parts = [_placed(sum_pooled(live[e.source], e.pool), channels, e.feature_shift) for e in net.incoming(index)]
    return functools.reduce(lambda total, part: total + part, parts)


def _placed(maps: torch.Tensor, channels: int, shift: int) -> torch.Tensor:
    """Return maps ``[N, C, H, W]`` as a part of ``channels``, from feature ``shift`` on."""
    import torch.nn.functional as F

    rest = channels - shift - maps.shape[1]
    return F.pad(maps, (0, 0, 0, 0, shift, rest)) if shift or rest else maps


def _current(layer: SpikingLayer, grid: GridLayer, arriving: torch.Tensor, n_ticks: int) -> torch.Tensor:
    import torch.nn.functional as F

    maps, weight = _channels_last(spread(arriving, layer.upsample)), _channels_last(grid.weight)
    bias = None if grid.bias is None else grid.bias * n_ticks
    return F.conv2d(maps, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def sum_pooled(maps: torch.Tensor, pool: Pair) -> torch.Tensor:
    """Return the sums over windows of ``[N, C, H, W]``; rows and columns that fill no window are left out."""
    if pool == (1, 1):
        return maps
    pooled: torch.Tensor = _pool().apply(maps, pool)
    return pooled


@functools.cache
def _pool() -> Any:
    """Return sum pooling by strided slices: in this memory layout twice as fast as torch's average pool."""
    import torch

    class Pool(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, maps: torch.Tensor, pool: Pair) -> torch.Tensor:
            context.shape, context.pool = maps.shape, pool
            parts = [maps[window] for window in _windows(maps.shape, pool)]
            total = parts[0].clone(memory_format=torch.preserve_format)
            for part in parts[1:]:
                total.add_(part)
            return total

        @staticmethod
        def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            (given,) = gradients
            result = given.new_zeros(context.shape).contiguous(memory_format=torch.channels_last)
            for window in _windows(context.shape, context.pool):
                result[window] = given
            return result, None

    return Pool


def _windows(shape: torch.Size, pool: Pair) -> list[tuple[Any, ...]]:
    """Return one slice for each place in a pooling window."""
    height, width = shape[-2] // pool[0] * pool[0], shape[-1] // pool[1] * pool[1]
    return [
        (..., slice(row, height, pool[0]), slice(column, width, pool[1]))
        for row in range(pool[0])
        for column in range(pool[1])
    ]


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    import torch

    return maps.contiguous(memory_format=torch.channels_last)
