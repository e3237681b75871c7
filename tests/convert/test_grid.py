"""The chip's number grid: one factor for a layer, and what the registers then hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert.grid import BIAS_BITS, STATE_BITS, WEIGHT_BITS, find_scale, layer_scale, to_integers

VALUES = st.floats(-1e6, 1e6, width=32).map(lambda value: 0.0 if abs(value) < 1e-6 else value)
ARRAYS = st.lists(VALUES, min_size=1, max_size=20).map(np.array)


@settings(deadline=None)
@given(ARRAYS, st.sampled_from([8, 16]))
def test_the_largest_factor_takes_the_outermost_value_to_the_end_of_the_range(values: np.ndarray, bits: int) -> None:
    scale = find_scale(values, bits)
    if not values.any():
        assert scale == np.inf
        return
    integers = to_integers(values, scale)  # unclipped
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert low <= integers.min() <= integers.max() <= high
    assert integers.min() <= low + 1 or integers.max() == high
    larger = values * (scale * (1 + 3 / high))
    assert larger.min() < low or larger.max() > high


@settings(deadline=None)
@given(ARRAYS, st.none() | ARRAYS, st.floats(1e-4, 1e4), st.none() | st.floats(-1e4, 0.0))
def test_one_factor_keeps_every_value_of_a_layer_in_its_register(
    weight: np.ndarray, bias: np.ndarray | None, threshold: float, v_min: float | None
) -> None:
    scale = layer_scale(weight, bias, threshold=threshold, v_min=v_min)
    registers = [(weight, WEIGHT_BITS), (np.array([threshold, v_min or 0.0]), STATE_BITS)]
    registers += [] if bias is None else [(bias, BIAS_BITS)]
    at_the_end = False
    for values, bits in registers:
        integers = to_integers(values, scale)
        np.testing.assert_array_equal(integers, to_integers(values, scale, bits))
        at_the_end |= bool((integers == 2 ** (bits - 1) - 1).any() or (integers <= 1 - 2 ** (bits - 1)).any())
    assert at_the_end


def test_no_bound_leaves_the_factor_alone() -> None:
    weight = np.array([1.0, -0.3])
    assert layer_scale(weight, None, threshold=1.0, v_min=None) == layer_scale(weight, None, threshold=1.0, v_min=-1.0)
    assert layer_scale(weight, None, threshold=1.0, v_min=-1000.0) < layer_scale(
        weight, None, threshold=1.0, v_min=-1.0
    )


@pytest.mark.parametrize("threshold", [1e-50, 1e300])
def test_a_threshold_outside_float32_gives_a_factor_of_one(threshold: float) -> None:
    assert layer_scale(np.zeros(3), None, threshold=threshold, v_min=None) == 1.0


def test_ties_round_to_even() -> None:
    assert to_integers([0.5, 1.5, 2.5, -0.5, -1.5], 1.0).tolist() == [0, 2, 2, 0, -2]
