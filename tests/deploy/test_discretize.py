"""Discretization, bit for bit against the same formula in torch, and where it departs from it on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.discretize import discretize, discretize_layer

from .nets import branch_net, make_layer, random_graph


def torch_scale(tensor: torch.Tensor, n_bits: int) -> torch.Tensor:
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    smallest, largest = torch.min(tensor), torch.max(tensor)
    largest_decides = abs(smallest) <= abs(largest) * abs(low / high)
    scale: torch.Tensor = abs(high / largest) if largest_decides else abs(low / smallest)
    return scale


def torch_integers(tensor: torch.Tensor, scale: torch.Tensor) -> list[int]:
    rounded: list[int] = torch.round(tensor * scale).int().flatten().tolist()
    return rounded


@st.composite
def layers(draw: st.DrawFn) -> Any:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(int(n) for n in rng.integers(1, 5, 4))
    weight = rng.normal(size=shape) * 10.0 ** draw(st.integers(-7, 5))
    kind = draw(st.sampled_from(["any", "positive", "negative", "zero", "ties"]))
    weight = {
        "any": weight,
        "positive": np.abs(weight),
        "negative": -np.abs(weight),
        "zero": weight * 0,
        "ties": np.append(rng.integers(-252, 253, weight.size - 1) / 2, 127).reshape(shape),
    }[kind]
    bias = rng.normal(size=shape[0]) * 10.0 ** draw(st.integers(-6, 4)) if draw(st.booleans()) else None
    return make_layer(
        (shape[1], shape[2], shape[3]),
        shape[0],
        (shape[2], shape[3]),
        weight=weight,
        bias=bias,
        threshold=draw(st.floats(1e-4, 1e4)),
        v_min=-draw(st.just(0.0) | st.floats(1e-4, 1e4)),
    )


@settings(deadline=None)
@given(layers())
def test_integers_equal_the_formula_in_torch(layer: Any) -> None:
    found = discretize_layer(layer)
    weight = torch.tensor(layer.weight)
    bias = torch.zeros(layer.weight.shape[0]) if layer.bias is None else torch.tensor(layer.bias)
    thresholds = torch.tensor((layer.v_min, layer.threshold))
    scale = min(torch_scale(weight, 8), torch_scale(bias, 8), torch_scale(thresholds, 16))
    assert found.scale == float(scale)
    assert found.weight.flatten().tolist() == torch_integers(weight, scale)
    assert (np.zeros_like(bias) if found.bias is None else found.bias).tolist() == torch_integers(bias, scale)
    low, high = torch_integers(thresholds, scale)
    assert found.threshold_high == high
    assert found.threshold_low == min(low, -1)  # the register has no 0


@settings(deadline=None)
@given(layers())
def test_every_value_is_within_its_register(layer: Any) -> None:
    found = discretize_layer(layer)
    assert 0 <= found.threshold_high <= 32_767
    assert -32_768 <= found.threshold_low <= -1
    assert found.bias is None or (found.bias.dtype == np.int16 and -128 <= found.bias.min() <= found.bias.max() <= 127)
    exact = np.rint(layer.weight.astype(np.float64) * found.scale)
    assert np.abs(found.weight - exact).max() <= 1


def test_no_bound_leaves_the_scale_alone_and_becomes_the_lowest_number() -> None:
    bounded, free = (discretize_layer(make_layer((1, 3, 3), 2, v_min=v_min)) for v_min in (-1.0, None))
    assert free.threshold_low == -32_768
    assert free.scale == bounded.scale
    assert np.array_equal(free.weight, bounded.weight)


def test_weights_of_zero_leave_the_thresholds_to_decide() -> None:
    found = discretize_layer(make_layer((1, 1, 1), 1, 1, weight=np.zeros((1, 1, 1, 1)), threshold=2.0))
    assert found.threshold_high == 32_767
    assert not found.weight.any()


@pytest.mark.parametrize(("threshold", "found"), [(1e-50, 0), (1e-42, 0), (1e-5, 0), (1e300, 2**31 - 1)])
def test_thresholds_out_of_reach_of_the_weights_leave_the_range_instead_of_raising(
    threshold: float, found: int
) -> None:
    weight = np.full((1, 1, 1, 1), 0.0 if threshold == 1e-42 else 1.0)
    assert discretize_layer(make_layer((1, 1, 1), 1, 1, weight=weight, threshold=threshold)).threshold_high == found


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5.0), st.none() | st.floats(-4.0, 0.0))
def test_initial_potentials_are_rounded_and_stay_between_the_thresholds(
    seed: int, threshold: float, v_min: float | None
) -> None:
    start = np.random.default_rng(seed).uniform(-6, 6, (2, 3, 3)).astype(np.float32)
    layer = make_layer((1, 3, 3), 2, 1, threshold=threshold, v_min=v_min, v_init=start)
    found = discretize_layer(layer)
    state = found.initial_state.astype(int)
    assert found.initial_state.dtype == np.int16
    assert found.threshold_low <= state.min() <= state.max() < found.threshold_high
    exact = start.astype(np.float64) * found.scale
    inside = (exact > found.threshold_low) & (exact < found.threshold_high - 1)
    assert np.abs(state - exact)[inside].max(initial=0) <= 0.5 + 1e-3
    assert (state[exact <= found.threshold_low] == found.threshold_low).all()
    assert (state[exact >= found.threshold_high] == found.threshold_high - 1).all()
    assert found.scale == discretize_layer(make_layer((1, 3, 3), 2, 1, threshold=threshold, v_min=v_min)).scale


@pytest.mark.parametrize("name", ["branches", "groups, dilation and initial potentials"])
def test_a_net_keeps_its_shapes_and_edges(name: str) -> None:
    net = branch_net() if name == "branches" else random_graph(np.random.default_rng(0))
    integers = discretize(net)
    assert integers.edges == net.edges
    assert integers.input_shape == net.input_shape
    for layer, integer in zip(net.layers, integers.layers, strict=True):
        for field in ("name", "in_shape", "out_shape", "stride", "padding", "dilation", "upsample", "groups"):
            assert getattr(integer, field) == getattr(layer, field)
        assert integer.initial_state.shape == layer.out_shape
        assert integer.initial_state.any() == (layer.v_init is not None)
        assert integer.reset == "subtract"
