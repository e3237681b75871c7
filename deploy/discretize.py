"""SpikingNet to the chip's integers, by the formula of the vendor library."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.convert.types import SpikingLayer, SpikingNet

from .chips import NUMBERS
from .types import IntegerLayer, IntegerNet


def discretize(net: SpikingNet) -> IntegerNet:
    """Return the net in integers: each layer scaled by one factor, then rounded.

    The factor is the largest that keeps weights and biases within 8 bits and both thresholds within 16. A ``v_min`` of
    None becomes the lowest number after scaling (the vendor library puts that in before, which leaves no bits for the
    weights); one that rounds to 0 becomes -1, because the register cannot hold 0.

    Law: the integers equal those of the same formula computed by torch in float32, bit for bit. Where a threshold is
    so far from the other values that it leaves the chip's range, the result says so and ``plan`` refuses it.
    Source: discretization of sinabs 3.1.3.
    """
    return IntegerNet(tuple(map(discretize_layer, net.layers)), net.edges, net.input_shape)


def discretize_layer(layer: SpikingLayer) -> IntegerLayer:
    """Return one layer in integers; see ``discretize``."""
    thresholds = [layer.threshold] if layer.v_min is None else [layer.v_min, layer.threshold]
    factors = [find_scale(layer.weight, NUMBERS.weight_bits), find_scale(thresholds, NUMBERS.state_bits)]
    if layer.bias is not None:
        factors.append(find_scale(layer.bias, NUMBERS.bias_bits))
    scale = min(factors)
    if not (math.isfinite(scale) and scale > 0):
        scale = 1.0  # a threshold outside float32: no factor helps, and the range check of the plan refuses it
    bias = None if layer.bias is None else to_integers(layer.bias, scale, NUMBERS.bias_bits).astype(np.int16)
    lowest, highest = NUMBERS.threshold_low
    return IntegerLayer(
        name=layer.name,
        weight=to_integers(layer.weight, scale, NUMBERS.weight_bits).astype(np.int8),
        bias=bias,
        threshold_high=int(to_integers(layer.threshold, scale)),
        threshold_low=lowest if layer.v_min is None else min(highest, int(to_integers(layer.v_min, scale))),
        reset="subtract",
        initial_state=_zeros(layer.out_shape),
        in_shape=layer.in_shape,
        out_shape=layer.out_shape,
        stride=layer.stride,
        padding=layer.padding,
        scale=scale,
    )


def find_scale(values: ArrayLike, bits: int) -> float:
    """Return the largest factor that keeps ``values`` within signed integers of ``bits`` bits; infinity for zeros.

    Source: sinabs 3.1.3. Quotients are a reciprocal times a number, as torch divides a number by a tensor.
    """
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        tensor = np.asarray(values, np.float32)
        smallest, largest = np.abs(tensor.min()), np.abs(tensor.max())
        if smallest <= largest * np.float32(-lowest / highest):
            return float(np.float32(1) / largest * np.float32(highest))
        return float(np.float32(1) / smallest * np.float32(-lowest))


def to_integers(values: ArrayLike, scale: float, bits: int = 32) -> NDArray[np.int64]:
    """Return ``values * scale`` in float32, rounded half to even, clipped to signed integers of ``bits`` bits."""
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.rint(np.asarray(values, np.float32) * np.float32(scale))
    clipped = np.clip(scaled.astype(np.float64), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return np.asarray(clipped, np.int64)


def _zeros(shape: tuple[int, ...]) -> NDArray[np.int16]:
    zeros = np.zeros(shape, np.int16)
    zeros.flags.writeable = False  # so that the record keeps it without touching pages of a map too large for any core
    return zeros
