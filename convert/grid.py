"""The number grid of the chip: how a layer's values become integers, for deployment and for training that rounds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

WEIGHT_BITS = 8
"""Signed. Source: documentation of samna 0.48; Speck2e/2et/2f datasheet v1.02."""

BIAS_BITS = 8
"""Of the 16 that the chip has. Source: the discretization of sinabs 3.1.3 fits biases into 8."""

STATE_BITS = 16
"""Of thresholds and membrane potentials, signed. Source: as the weights."""


def layer_scale(weight: ArrayLike, bias: ArrayLike | None, *, threshold: float, v_min: float | None) -> float:
    """Return the one factor that takes the values of a layer to integers: the largest that every register can hold.

    A ``v_min`` of None does not count: it becomes the lowest number after scaling. A threshold outside float32, which
    no factor helps, gives 1.
    Law: ``to_integers(weight, scale, WEIGHT_BITS)`` clips nothing, and neither do bias, threshold and ``v_min``.
    Source: discretization of sinabs 3.1.3.
    """
    thresholds = [threshold] if v_min is None else [v_min, threshold]
    factors = [find_scale(weight, WEIGHT_BITS), find_scale(thresholds, STATE_BITS)]
    if bias is not None:
        factors.append(find_scale(bias, BIAS_BITS))
    scale = min(factors)
    return scale if math.isfinite(scale) and scale > 0 else 1.0


def find_scale(values: ArrayLike, bits: int) -> float:
    """Return the largest factor that keeps ``values`` within signed integers of ``bits`` bits; infinity for zeros.

    Where all values are negative it may be smaller by one step of the range, as in the source.
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
    exact = scaled if bits <= 24 else scaled.astype(np.float64)  # float32 holds whole numbers of up to 24 bits
    return np.asarray(np.clip(exact, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1), np.int64)
