"""Fitted integers: exact nets stay exact, errors fall, registers hold, and the statistics are those of a slow count."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from spikeport.convert.simulate import simulate
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, chain
from spikeport.convert.unroll import from_grid, parameters_of
from spikeport.deploy.activity import (
    Activity,
    assumed_charge,
    assumed_moments,
    layer_moments,
    measure_activity,
)
from spikeport.deploy.chips import chip
from spikeport.deploy.discretize import (
    FittedNet,
    discretize,
    discretize_layer,
    fit_layer,
    fitted,
    fitted_like,
    in_thresholds,
)
from spikeport.deploy.errors import SettingError
from spikeport.deploy.plan import plan
from spikeport.deploy.relay import with_relays
from spikeport.deploy.rounding import Fitted, Grid, descend, fit, squared_charge
from spikeport.deploy.types import IntegerLayer

from .nets import digits_net, make_layer, random_graph, single, stack

WORDS = Grid(np.full(8, -128.0), np.full(8, 127.0), 32_640)


def correlated(rng: np.random.Generator, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    read = rng.poisson(rng.random(size) * 2 + 0.05, (4 * size, size)) + rng.poisson(0.5, (4 * size, 1))
    return np.asarray(read.T @ read / len(read), np.float64)


def charge_error(layer: SpikingLayer, integer: IntegerLayer, moments: Any) -> float:
    bias = np.zeros(len(integer.weight)) if integer.bias is None else integer.bias
    rounded = np.concatenate([integer.weight.reshape(len(bias), -1), bias[:, None]], axis=1)
    return squared_charge(rounded / integer.threshold_high - in_thresholds(layer), moments)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_columns_go_up_or_down_so_that_together_they_err_less_than_the_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scaled, moments = rng.normal(size=(3, 8)) * 60, correlated(rng, 8)
    nearest = np.clip(np.rint(scaled), -128, 127)
    found = descend(scaled, nearest, moments, WORDS, n_sweeps=8)
    assert_array_equal(found, np.rint(found))
    assert (np.abs(found - np.clip(scaled, -128, 127)) < 1).all()
    floor = np.clip(np.floor(scaled), -128, 127)
    for feature, row in enumerate(scaled):
        choices = [floor[feature] + up for up in itertools.product((0, 1), repeat=8)]
        choices = [choice for choice in choices if choice.max() <= 127]
        best = min(squared_charge((choice - row)[None], moments[None]) for choice in choices)
        ours = squared_charge((found[feature] - row)[None], moments[None])
        plain = squared_charge((nearest[feature] - row)[None], moments[None])
        assert best - 1e-9 <= ours <= plain + 1e-9


def test_the_descent_finds_most_of_what_trying_all_finds() -> None:
    ours, best, plain = 0.0, 0.0, 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        row, moments = rng.normal(size=(1, 8)) * 40, correlated(rng, 8)[None]
        nearest = np.rint(row)
        ours += squared_charge(descend(row, nearest, moments[0], WORDS, n_sweeps=4) - row, moments)
        plain += squared_charge(nearest - row, moments)
        best += min(
            squared_charge(np.floor(row) + np.array(up) - row, moments) for up in itertools.product((0, 1), repeat=8)
        )
    assert best <= ours <= best + 0.2 * (plain - best)


@pytest.mark.parametrize("seed", range(6))
def test_a_net_in_whole_numbers_keeps_them(seed: int) -> None:
    net = random_graph(np.random.default_rng(seed))
    assert discretize(fitted(net)).same(discretize(net))


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_fine_tuned_net_keeps_its_integers(seed: int, has_bias: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = [{"features": 3, "kernel": 3, "bias": has_bias or None, "threshold": float(rng.uniform(0.3, 9))}] * 2
    given_net = stack((2, 8, 8), rows)
    net = from_grid(given_net, parameters_of(given_net))
    activity = measure_activity(net, rng.poisson(0.3, (4, 2, 2, 8, 8)))
    assert discretize(fitted(net)).same(discretize(net, method="vendor"))
    assert discretize(fitted(net, activity)).same(discretize(net, method="vendor"))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 100), st.integers(120, 900))
def test_a_layer_exact_on_a_grid_that_the_vendor_misses_is_exact(seed: int, largest: int, threshold: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-largest, largest + 1, (2, 3, 3, 3))
    unit = float(rng.uniform(0.001, 10))
    layer = make_layer((3, 3, 3), 2, weight=weight * unit, threshold=threshold * unit)
    found = fit_layer(layer)
    assert_allclose(found.weight * (threshold / found.threshold_high), weight, atol=2e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1, 2]))
def test_the_expected_error_is_never_above_the_vendors(seed: int, has_bias: bool, groups: int) -> None:
    rng = np.random.default_rng(seed)
    layer = make_layer(
        (4, 6, 6), 4, seed=seed % 1000, groups=groups, bias=has_bias or None, threshold=rng.uniform(0.1, 5)
    )
    net = chain((layer,), ((1, 1), (1, 1)), (4, 6, 6))
    measured = measure_activity(net, rng.poisson(rng.random((1, 1, 4, 1, 1)), (5, 2, 4, 6, 6))).moments["conv"]
    for moments in (None, measured):
        expected = layer_moments(layer, moments)
        ours = charge_error(layer, fit_layer(layer, moments), expected)
        assert ours <= charge_error(layer, discretize_layer(layer), expected) * (1 + 1e-9)


def test_outliers_are_clipped_where_the_rest_gains_more_than_they_lose() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 40)) * 0.05
    weight[0, 0] = 1.0
    read = rng.poisson(2.0, (500, 40)).astype(float)
    read[:, 0] = rng.random(500) < 0.001  # the outlier hardly ever counts
    moments = (read.T @ read / len(read))[None]
    grid = Grid(np.full(40, -128.0), np.full(40, 127.0), 32_640)
    vendor = Fitted(np.rint(weight * 127), 127, 0.0)
    found = fit(weight, moments, grid, given=vendor)
    assert found.integers[0, 0] == 127
    assert found.threshold > 1.2 * 127
    assert found.error == pytest.approx(squared_charge(found.integers / found.threshold - weight, moments))
    assert found.error < 0.25 * squared_charge(vendor.integers / 127 - weight, moments)


def test_a_bias_has_16_bits_and_no_longer_limits_the_weights() -> None:
    layer = make_layer((2, 4, 4), 3, bias=np.array([4.0, -9.0, 0.5]), threshold=2.0)
    vendor, found = discretize_layer(layer), fit_layer(layer)
    assert vendor.bias is not None
    assert found.bias is not None
    assert layer.bias is not None
    assert np.abs(vendor.weight).max() < 64
    assert np.abs(found.weight).max() > 100
    assert np.abs(found.bias).max() > 127
    assert np.abs(found.bias / found.scale - layer.bias).max() <= 1 / found.scale


@settings(deadline=None, max_examples=40)
@given(st.floats(-6, 3), st.sampled_from([None, 0.0, -0.5, -1.0, -300.0]), st.sampled_from([None, 0.001, 30.0]))
def test_no_state_can_overflow(log_size: float, v_min: float | None, bias: float | None) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 2, 3, 3)) * 10.0**log_size
    given_bias = None if bias is None else np.array([bias, -bias])
    layer = make_layer((2, 3, 3), 2, weight=weight, v_min=v_min, bias=given_bias)
    vendor, found = discretize_layer(layer), fit_layer(layer)
    if vendor.threshold_high < 1:
        assert found.same(vendor)
        return
    largest = 0 if found.bias is None else int(np.abs(found.bias.astype(int)).max())
    if not found.same(vendor):
        assert found.threshold_high - 1 + max(127, largest) <= 32_767
        assert v_min is None or found.threshold_low - 128 >= -32_768
    assert found.threshold_low <= -1
    assert found.threshold_low == (-32_768 if v_min is None else min(-1, round(v_min * found.scale)))


def test_the_moments_are_those_of_a_count_one_place_after_the_other() -> None:
    layers = (
        make_layer((2, 7, 6), 4, 3, name="a", padding=1, stride=2, bias=True),
        make_layer((4, 4, 3), 2, (2, 1), name="b", dilation=2, groups=2, seed=1),
    )
    net = chain(layers, ((1, 1),) * 3, (2, 7, 6))
    raster = np.random.default_rng(1).poisson(0.4, (5, 3, 2, 7, 6))
    found = measure_activity(net, raster).moments
    trace = simulate(net, raster, record="all")
    assert trace.spikes is not None
    seen: tuple[Any, ...] = (raster, trace.spikes[0])
    for layer, maps in zip(layers, seen, strict=True):
        _, per_group, ky, kx = layer.weight.shape
        total, n = np.zeros((layer.groups, per_group * ky * kx + 1, per_group * ky * kx + 1)), 0
        for one in np.reshape(maps, (-1, *layer.in_shape)):
            for v, u in itertools.product(range(layer.out_shape[1]), range(layer.out_shape[2])):
                n += 1
                for group in range(layer.groups):
                    read = []
                    for c, b, a in itertools.product(range(per_group), range(ky), range(kx)):
                        y = v * layer.stride[0] + b * layer.dilation[0] - layer.padding[0]
                        x = u * layer.stride[1] + a * layer.dilation[1] - layer.padding[1]
                        inside = 0 <= y < layer.in_shape[1] and 0 <= x < layer.in_shape[2]
                        read.append(float(one[group * per_group + c, y, x]) if inside else 0.0)
                    total[group] += np.outer([*read, 1.0], [*read, 1.0])
        assert_allclose(found[layer.name], total / n)


def test_moments_of_several_steps_are_those_of_their_sums_per_step() -> None:
    net = single((2, 5, 5), 3, bias=True)
    raster = np.random.default_rng(2).poisson(0.4, (7, 3, 2, 5, 5))
    pairs = raster[:6].reshape(3, 2, 3, 2, 5, 5).sum(axis=1)
    expected = 0.5 * measure_activity(net, pairs).moments["conv"]
    expected[:, -1] *= 2  # two ticks in two steps
    expected[:, :, -1] *= 2
    assert_allclose(measure_activity(net, raster, n_together=2).moments["conv"], expected)
    whole = measure_activity(net, raster, n_together=99).moments["conv"]
    assert_allclose(whole, measure_activity(net, raster, n_together=7).moments["conv"])


def test_the_short_form_of_the_assumed_charge_is_that_of_the_moments() -> None:
    layer = make_layer((5, 4, 4), 3, (2, 3), bias=True)
    weight = in_thresholds(layer)
    assert_allclose(assumed_charge(weight, 6), squared_charge(weight, assumed_moments(layer)))


def test_a_layer_that_never_reads_anything_is_fitted_to_what_can_be_assumed() -> None:
    net = single((2, 5, 5), 3)
    silent = measure_activity(net, np.zeros((4, 1, 2, 5, 5)))
    found = discretize(fitted(net, silent)).layers[0]
    assert charge_error(net.layers[0], found, assumed_moments(net.layers[0])) > 0


def test_a_layer_with_too_many_inputs_for_moments_is_rounded_to_nearest_on_an_exact_threshold() -> None:
    layer = make_layer((200, 4, 4), 2, 4)
    assert assumed_moments(layer) is None
    found = fit_layer(layer)
    exact = layer.weight.astype(float) * found.threshold_high / layer.threshold
    assert_array_equal(found.weight, np.clip(np.rint(exact), -128, 127))
    assert "conv" not in measure_activity(single((200, 4, 4), 2, 4), np.zeros((1, 200, 4, 4))).moments


def test_a_fit_leaves_everything_but_numbers_alone() -> None:
    net = digits_net()
    ours, theirs = discretize(fitted(net)), discretize(net)
    assert not ours.same(theirs)
    assert ours.edges == theirs.edges
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        numbers = {"weight", "bias", "threshold_high", "threshold_low", "scale"}
        fields = {field.name for field in dataclasses.fields(one)} - numbers - {"initial_state"}
        assert all(getattr(one, name) == getattr(other, name) for name in fields)
        assert one.scale * net.layers[0].threshold == pytest.approx(one.threshold_high)


def test_a_threshold_outside_the_chip_is_refused_by_name_and_number_fitted_or_not() -> None:
    net = single((2, 5, 5), 3, weight=np.full((3, 2, 3, 3), 1e6), threshold=1.0)
    for one in (net, fitted(net)):
        (violation,) = [found for found in plan(one).violations if found.rule == "threshold"]
        assert violation.layer == "conv"
        assert "expected 1..32767 as integer, found 0." in violation.message


def test_a_layer_whose_channels_change_places_is_not_fitted_to_what_it_read_before() -> None:
    stem, both = make_layer((2, 6, 6), 2, 1, name="stem"), make_layer((4, 6, 6), 3, 1, name="both")
    edges = (Edge(INPUT, 0), Edge(0, 1), Edge(INPUT, 1, (1, 1), 2), Edge(1, None))
    net = SpikingNet((stem, both), edges, (2, 6, 6))
    given = fitted(net, measure_activity(net, np.random.default_rng(0).poisson(0.5, (6, 1, 2, 6, 6))))
    moved, _ = with_relays(given, chip("speck2fdevkit").limits)
    assert not np.array_equal(moved.layers[1].weight, both.weight)
    found = fitted_like(moved, given)
    assert isinstance(found, FittedNet)
    assert found.activity is not None
    assert set(found.activity.moments) == {"stem"}


def test_settings_that_contradict_each_other_are_refused() -> None:
    net = digits_net()
    other = Activity({"layer0": np.eye(4)[None]})
    with pytest.raises(SettingError, match="does not look at it"):
        discretize(net, method="vendor", activity=other)
    with pytest.raises(SettingError, match="expected 'vendor' or 'fitted', found 'best'"):
        discretize(net, method="best")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"layer 'layer0': expected moments of \(1, 10, 10\), found \(1, 4, 4\)"):
        fitted(net, other)
