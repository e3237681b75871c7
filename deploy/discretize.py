"""SpikingNet to the chip's integers, by the formula of the vendor library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair
from spikeport.convert.grid import BIAS_BITS, STATE_BITS, WEIGHT_BITS, layer_scale, to_integers
from spikeport.convert.types import SpikingLayer, SpikingNet

from .chips import NUMBERS
from .types import IntegerLayer, IntegerNet


def discretize(net: SpikingNet) -> IntegerNet:
    """Return the net in integers: each layer scaled by one factor, then rounded.

    The factor is the largest that keeps weights and biases within 8 bits and both thresholds within 16. A ``v_min`` of
    None becomes the lowest number after scaling (the vendor library puts that in before, which leaves no bits for the
    weights); one that rounds to 0 becomes -1, because the register cannot hold 0. Potentials before the first event
    are clipped to the lower threshold and to one below the upper; ``plan`` warns where that changes them.

    Law: the integers equal those of the same formula computed by torch in float32, bit for bit. Where a threshold is
    so far from the other values that it leaves the chip's range, the result says so and ``plan`` refuses it.
    Source: discretization of sinabs 3.1.3.
    """
    return IntegerNet(tuple(map(discretize_layer, net.layers)), net.edges, net.input_shape)


def discretize_layer(layer: SpikingLayer) -> IntegerLayer:
    """Return one layer in integers; see ``discretize``."""
    scale = layer_scale(layer.weight, layer.bias, threshold=layer.threshold, v_min=layer.v_min)
    bias = None if layer.bias is None else to_integers(layer.bias, scale, BIAS_BITS).astype(np.int16)
    lowest, highest = NUMBERS.threshold_low
    high = int(to_integers(layer.threshold, scale))
    low = lowest if layer.v_min is None else min(highest, int(to_integers(layer.v_min, scale)))
    return IntegerLayer(
        name=layer.name,
        weight=to_integers(layer.weight, scale, WEIGHT_BITS).astype(np.int8),
        bias=bias,
        threshold_high=high,
        threshold_low=low,
        reset="subtract",
        initial_state=_initial_state(layer, scale, (low, high)),
        in_shape=layer.in_shape,
        out_shape=layer.out_shape,
        stride=layer.stride,
        padding=layer.padding,
        scale=scale,
        dilation=layer.dilation,
        upsample=_gaps(layer),
        groups=layer.groups,
    )


def _gaps(layer: SpikingLayer) -> Pair:
    """Return the upsampling that is left on the map of the layer: an axis of one pixel has no room for zeros."""
    y, x = (1 if edge == 1 else up for edge, up in zip(layer.in_shape[1:], layer.upsample, strict=True))
    return y, x


def _initial_state(layer: SpikingLayer, scale: float, thresholds: tuple[int, int]) -> NDArray[np.int16]:
    if layer.v_init is None:
        state = np.zeros(layer.out_shape, np.int16)
    else:
        low, high = thresholds
        state = np.clip(to_integers(layer.v_init, scale, STATE_BITS), low, high - 1).astype(np.int16)
    state.flags.writeable = False  # so that the record keeps it without touching pages of a map too large for any core
    return state
