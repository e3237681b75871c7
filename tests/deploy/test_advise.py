"""Warnings: one for each thing that the chip does differently, and none where it does not."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from spikeport.deploy.chips import chip
from spikeport.deploy.plan import Plan, plan

from .nets import digits_net, single, stack


def warned(planned: Plan) -> list[tuple[str | None, str]]:
    return [(warning.layer, warning.rule) for warning in planned.warnings]


def test_odd_maps_in_front_of_pools_are_warned_of() -> None:
    assert ("layer2", "odd map") in warned(plan(digits_net(34)))
    assert ("layer0", "odd map") not in warned(plan(digits_net(34)))
    assert (None, "odd map") in warned(plan(stack((2, 17, 16), [{"features": 1, "kernel": 1}], input_pool=(2, 2))))


def test_weights_above_the_threshold_are_warned_of() -> None:
    weight = np.full((1, 1, 1, 1), 3.0)
    assert ("conv", "weight above threshold") in warned(plan(single((1, 2, 2), 1, 1, weight=weight)))
    assert ("conv", "weight above threshold") not in warned(plan(single((1, 2, 2), 1, 1, weight=weight, threshold=3.0)))


def test_weights_that_became_zero_are_counted() -> None:
    weight = np.array([1, 0.001, -0.002, 0, 0.5, 0.003]).reshape(6, 1, 1, 1)
    (warning,) = (
        each for each in plan(single((1, 2, 2), 6, 1, weight=weight)).warnings if each.rule == "zeroed weights"
    )
    assert warning.found == "3 of 5 in 'conv'"


def test_biases_are_warned_of_where_they_are_not_zero() -> None:
    planned = plan(single((1, 4, 4), 2, bias=np.array([0.5, 0.0])))
    (warning,) = (each for each in planned.warnings if each.rule == "bias without slow clock")
    assert (warning.layer, warning.found) == ("conv", "1 of 2")
    assert ("conv", "bias without slow clock") not in warned(plan(single((1, 4, 4), 2, bias=np.zeros(2))))


def test_a_bias_on_a_core_with_the_leak_erratum_is_warned_of() -> None:
    net = single((1, 4, 4), 2, bias=True)
    unsafe = {core.core for core in chip("speck2fdevkit").cores if not core.leak_safe}
    for core in range(9):
        assert (("conv", "leak erratum") in warned(plan(net, layer_order=[core]))) == (core in unsafe)
        assert (("conv", "spike order") in warned(plan(net, layer_order=[core]))) == (core in unsafe)


@pytest.mark.parametrize(("v_min", "expected"), [(0.0, True), (-1e-4, True), (-1.0, False), (None, False)])
def test_a_lower_bound_that_rounds_to_zero_is_warned_of(v_min: float | None, expected: bool) -> None:
    planned = plan(single((1, 4, 4), 2, v_min=v_min))
    assert (("conv", "v_min") in warned(planned)) == expected
    assert planned.net.layers[0].threshold_low <= -1


def test_initial_potentials_that_are_clipped_are_counted() -> None:
    weight, start = np.full((1, 1, 1, 1), 1.0), np.array([[[-1.5, -1.0], [0.999, 1.0]]])
    planned = plan(single((1, 2, 2), 1, 1, weight=weight, v_init=start))
    (warning,) = (each for each in planned.warnings if each.rule == "initial state")
    assert (warning.found, warning.limit) == ("2 of 4 potentials outside", "-1 or more and less than the threshold, 1")
    assert planned.net.layers[0].initial_state.tolist() == [[[-127, -127], [126, 126]]]
    free = plan(single((1, 2, 2), 1, 1, weight=weight, v_init=np.full((1, 2, 2), -300.0), v_min=None))
    assert [each.found for each in free.warnings if each.rule == "initial state"] == ["4 of 4 potentials outside"]
    inside = plan(single((1, 2, 2), 1, 1, weight=weight, v_init=start.clip(-1, 0.5)))
    assert ("conv", "initial state") not in warned(inside)


def test_pools_in_front_of_the_output_and_channels_no_camera_has_are_warned_of() -> None:
    planned = plan(stack((3, 8, 8), [{"features": 2, "kernel": 1, "pool": 2}]))
    assert {("layer0", "output pool"), (None, "input channels")} <= set(warned(planned))


def output_of(n_classes: int, **options: Any) -> Plan:
    return plan(single((4, 2, 2), n_classes, 2, **options))


def test_classes_are_warned_of_where_the_readout_block_does_not_look_for_them() -> None:
    (warning,) = (each for each in output_of(10).warnings if each.rule == "readout")
    assert (warning.layer, warning.found) == ("conv", "class i at feature i, 10 classes")
    assert warning.limit == "class i at feature 4 i for the readout block"
    (n_features, n_words) = map(int, re.findall(r"to (\d+) features and (\d+) kernel words", warning.message)[0])
    widened = np.zeros((n_features, 4, 2, 2), np.float32)
    widened[::4] = 0.5
    spread = output_of(n_features, weight=widened)
    assert ("conv", "readout") not in warned(spread)
    assert (n_features, n_words) == (37, spread.cores[0].used.kernel_words)


def test_more_classes_than_the_readout_block_has_are_warned_of() -> None:
    assert [each.found for each in output_of(16).warnings if each.rule == "readout"][1:] == ["16 classes"]
    assert [each.found for each in output_of(15).warnings if each.rule == "readout"][1:] == []
    widened = np.zeros((61, 4, 2, 2), np.float32)
    widened[::4] = 0.5
    spread = output_of(61, weight=widened)
    assert [each.limit for each in spread.warnings if each.rule == "readout"] == ["at most 15 for the readout block"]


def test_maps_and_single_outputs_are_no_classes() -> None:
    assert ("conv", "readout") not in warned(plan(single((4, 3, 3), 10, 2)))
    assert ("conv", "readout") not in warned(output_of(1))


def test_a_net_without_anything_special_has_no_warning() -> None:
    weight = np.full((2, 1, 1, 1), 0.5)
    assert plan(single((1, 4, 4), 2, 1, weight=weight)).warnings == ()
