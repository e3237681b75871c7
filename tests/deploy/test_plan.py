"""Plans: every violation at once, each with a fix that is true."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest

from spikeport.convert.types import INPUT, Edge, SpikingNet, chain
from spikeport.deploy.chips import CHIPS
from spikeport.deploy.errors import ChipNameError, LayerOrderError
from spikeport.deploy.plan import Plan, plan

from .nets import branch_net, digits_net, gesture_net, make_layer, single, stack

ORDER = (0, 1, 2, 7, 4, 5, 6, 3, 8)
BROAD = {"features": 16, "kernel": 3, "padding": 1}  # fills a core of 64 Ki neurons on a map of 64 x 64


def rules(planned: Plan) -> list[tuple[str | None, str]]:
    return [(violation.layer, violation.rule) for violation in planned.violations]


def crowd(n_layers: int) -> SpikingNet:
    return stack((2, 128, 128), [{"features": 16, "kernel": 2, "stride": 2}, *[BROAD] * (n_layers - 1)])


# nets that fit


@pytest.mark.parametrize("name", [entry.name for entry in CHIPS])
@pytest.mark.parametrize("net", [digits_net(34), digits_net(64), gesture_net(), branch_net()])
def test_the_nets_of_the_tutorials_fit(net: SpikingNet, name: str) -> None:
    planned = plan(net, name)
    assert planned.fits
    assert planned.fixes == ()
    assert len({use.core for use in planned.cores}) == len(net.layers)
    for use in planned.cores:
        assert use.core is not None
        assert use.used.kernel_words <= use.core.kernel_words
        assert use.used.neuron_words <= use.core.neuron_words


def test_the_gesture_net_fits_in_the_order_of_the_vendor_too() -> None:
    planned = plan(gesture_net(), layer_order=ORDER)
    assert planned.fits
    assert tuple(use.core.core for use in planned.cores if use.core) == ORDER


@pytest.mark.parametrize(
    ("net", "cores"),
    [
        (single((2, 128, 128), 16, 3, stride=2, padding=1), [0, 1, 2]),
        (single((2, 128, 128), 17, 3, stride=2, padding=1), []),
        (single((32, 32, 32), 32, 3, padding=1), [0, 1, 2, 3, 4]),
        (single((16, 4, 4), 10, 4), list(range(9))),
    ],
)
def test_a_layer_fits_exactly_the_cores_that_are_large_enough(net: SpikingNet, cores: list[int]) -> None:
    assert [core for core in range(9) if plan(net, layer_order=[core]).fits] == cores
    assert plan(net).fits == bool(cores)


# nets that do not


CASES: list[tuple[SpikingNet, str, str, str]] = [
    (single((2, 20, 20), 4, (3, 5)), "kernel", "3x5", "a square kernel"),
    (single((2, 40, 40), 4, 17), "kernel size", "17x17", "at most 16x16"),
    (single((2, 40, 40), 4, stride=3), "stride", "3x3", "1, 2, 4 or 8 in each direction"),
    (single((2, 40, 40), 4, stride=(1, 16)), "stride", "1x16", "1, 2, 4 or 8 in each direction"),
    (single((2, 20, 20), 4, padding=(0, 8)), "padding", "0x8", "at most 7"),
    (single((2, 67, 67), 2), "output map", "65x65", "at most 64x64"),
    (single((2, 3, 3), 1025), "output channels", "1025", "at most 1024"),
    (single((1025, 1, 1), 4, 1), "input channels", "1025", "at most 1024"),
    (stack((2, 20, 20), [{"features": 4, "pool": 3}]), "pool", "3x3", "1, 2 or 4"),
    (stack((2, 20, 20), [{"features": 4, "pool": 8}]), "pool", "8x8", "1, 2 or 4"),
    (stack((2, 20, 20), [{"features": 4, "pool": (2, 4)}]), "pool", "2x4", "a square pool"),
    (single((2, 9, 9), 4, weight=np.full((4, 2, 3, 3), 9e5)), "threshold", "0", "1..32767 as integer"),
    (single((2, 9, 9), 4, threshold=1e300), "threshold", "2147483647", "1..32767 as integer"),
    (single((2, 9, 9), 4, upsample=(1, 2)), "upsample", "1x2", "1x1, because the chip cannot upsample"),
    (single((2, 20, 20), 4, dilation=8), "kernel size", "17x17 (3x3 with a dilation of 8x8)", "at most 16x16"),
    (single((2, 20, 20), 4, dilation=(1, 2)), "kernel", "3x5 (3x3 with a dilation of 1x2)", "a square kernel"),
    (single((2, 20, 20), 4, (3, 1), dilation=(1, 2)), "kernel", "3x1 (3x1 with a dilation of 1x2)", "a square kernel"),
    (single((2, 9, 9), 4, 3, dilation=10**6, padding=10**6), "padding", "1000000x1000000", "at most 7"),
]


@pytest.mark.parametrize(("net", "rule", "found", "limit"), CASES, ids=[f"{case[1]} {case[2]}" for case in CASES])
def test_what_a_core_cannot_do_is_named_with_what_was_found_and_the_limit(
    net: SpikingNet, rule: str, found: str, limit: str
) -> None:
    (name,) = (layer.name for layer in net.layers)
    (violation,) = (each for each in plan(net).violations if each.rule == rule)
    assert (violation.layer, violation.found, violation.limit) == (name, found, limit)
    assert violation.message.startswith(f"layer '{name}': {rule}: expected {limit}, found {found}. Try ")


def input_edges(*edges: Edge, input_shape: tuple[int, int, int] = (2, 16, 16)) -> SpikingNet:
    targets = sorted({edge.target for edge in edges if edge.target is not None})
    layers = []
    for target in targets:
        pool = next(edge.pool for edge in edges if edge.target == target)
        shape = (3, input_shape[1] // pool[0], input_shape[2] // pool[1])
        layers.append(make_layer(shape, 2, name=f"layer{target}"))
    outputs = (Edge(index, None) for index in range(len(layers)))
    return SpikingNet(tuple(layers), (*edges, *outputs), input_shape)


WHOLE = (2, 128, 128)  # too large a map for a relay to repeat

INPUTS: list[tuple[SpikingNet, str, str]] = [
    (input_edges(Edge(INPUT, 0), input_shape=(2, 129, 129)), "input map", "129x129"),
    (input_edges(Edge(INPUT, 0, (8, 8)), input_shape=(2, 64, 64)), "input pool", "8x8"),
    (input_edges(Edge(INPUT, 0), Edge(INPUT, 1), Edge(INPUT, 2), input_shape=WHOLE), "entry", "3"),
    (input_edges(Edge(INPUT, 0, (1, 2)), Edge(INPUT, 1, (2, 1))), "input pools", "1x2 and 2x1"),
    (input_edges(Edge(INPUT, 0), Edge(INPUT, 0), input_shape=WHOLE), "entry", "2 to 'layer0'"),
    (input_edges(Edge(INPUT, 0), Edge(INPUT, 0, (1, 1), 1), input_shape=WHOLE), "feature shift", "1"),
    (
        input_edges(Edge(INPUT, 0), Edge(INPUT, None), input_shape=WHOLE),
        "output",
        "an edge from the input to the output",
    ),
]


@pytest.mark.parametrize(("net", "rule", "found"), INPUTS, ids=[f"{case[1]} {case[2]}" for case in INPUTS])
def test_what_the_input_stage_cannot_do_is_named(net: SpikingNet, rule: str, found: str) -> None:
    (violation,) = (each for each in plan(net).violations if each.rule == rule)
    assert violation.layer is None
    assert violation.found == found
    assert violation.message.startswith(f"net: {rule}: expected {violation.limit}, found {found}. Try ")


def test_the_input_stage_pools_each_axis_by_its_own_number() -> None:
    assert plan(input_edges(Edge(INPUT, 0, (2, 4)))).fits


def test_a_layer_feeds_two_others_at_most_and_the_output_is_not_counted() -> None:
    first = make_layer((2, 9, 9), 3, 1, name="first")
    others = [make_layer((3, 3, 3), 2, 1, name=f"branch{index}") for index in range(3)]
    ends = tuple(Edge(index, None) for index in range(4))
    edges = (Edge(INPUT, 0), *(Edge(0, index, (3, 3)) for index in (1, 2, 3)), *ends)  # no relay pools by 3
    three = SpikingNet((first, *others), edges, (2, 9, 9))
    _, violation = plan(three).violations
    assert (violation.layer, violation.rule, violation.found) == ("first", "destinations", "3")
    two = SpikingNet((first, *others[:2]), (*edges[:3], *ends[:3]), (2, 9, 9))
    assert rules(plan(two)) == [("first", "pool")]


def test_a_pool_on_two_routes_of_a_layer_is_one_violation() -> None:
    first = make_layer((2, 9, 9), 3, 1, name="first")
    others = [make_layer((3, 3, 3), 2, 1, name=f"branch{index}") for index in range(2)]
    edges = (Edge(INPUT, 0), Edge(0, 1, (3, 3)), Edge(0, 2, (3, 3)), Edge(1, None), Edge(2, None))
    assert rules(plan(SpikingNet((first, *others), edges, (2, 9, 9)))) == [("first", "pool")]


def test_a_map_between_layers_is_limited_too() -> None:
    net = stack((1, 140, 140), [{"features": 1, "kernel": 1}, {"features": 1, "kernel": 4, "stride": 4}])
    assert ("layer1", "input map") in rules(plan(net))
    assert (None, "input map") in rules(plan(net))
    assert ("layer0", "input map") not in rules(plan(net))


def test_all_violations_come_at_once() -> None:
    first = {"features": 20, "kernel": 17, "stride": 3, "padding": 8, "pool": 3}
    net = stack((2, 130, 130), [first, {"features": 2000, "kernel": (3, 1), "threshold": 1e-9}])
    assert set(rules(plan(net))) == {
        (None, "input map"),
        ("layer0", "kernel size"),
        ("layer0", "stride"),
        ("layer0", "padding"),
        ("layer0", "pool"),
        ("layer0", "memory"),
        ("layer1", "kernel"),
        ("layer1", "output channels"),
        ("layer1", "threshold"),
        ("layer1", "memory"),
    }


def test_ten_layers_are_one_too_many() -> None:
    net = stack((1, 4, 4), [{"features": 1, "kernel": 1}] * 10)
    (violation,) = plan(net).violations
    assert violation.message == (
        "net: layers: expected at most 9, one per core of speck2fdevkit, found 10. "
        "Try leaving out or merging one of the layers."
    )
    assert [use.core for use in plan(net).cores] == [None] * 10
    assert plan(net, layer_order=range(10)).violations == plan(net).violations
    assert "leaving out or merging 2 of" in plan(stack((1, 4, 4), [{"features": 1, "kernel": 1}] * 11)).fixes[0]


def test_a_layer_too_large_for_every_core_is_named_with_the_formula_and_the_largest_core() -> None:
    (violation,) = plan(single((256, 4, 4), 1024, 4)).violations
    assert violation.message == (
        "layer 'conv' does not fit any core of speck2fdevkit: kernel memory 4194304 words "
        "(256 x P(4 x 4) x P(1024) = 4194304), largest core 65536. "
        "Try at most 16 output channels (now 1024), then it fits core 5 or 6."
    )


def test_a_layer_too_large_only_for_kernel_and_neurons_together_says_so() -> None:
    (violation,) = plan(single((600, 20, 20), 64, 1)).violations
    assert violation.found == "kernel memory 38400 words and neuron memory 65536 words"
    assert violation.limit == "cores with that much kernel memory hold 16384 neuron words"


@pytest.mark.parametrize(
    ("net", "fix"),
    [
        (single((1024, 16, 16), 2, 16), "fewer input channels or a smaller kernel"),
        (single((1, 300, 300), 1, 1), "a smaller output map, by a larger stride or pooling before it"),
    ],
)
def test_where_fewer_channels_do_not_help_the_fix_is_another_one(net: SpikingNet, fix: str) -> None:
    (violation,) = (each for each in plan(net).violations if each.rule == "memory")
    assert violation.message.endswith(f"Try {fix}.")


def test_layers_that_need_the_same_cores_are_named_together() -> None:
    (violation,) = plan(crowd(4)).violations
    assert violation.layer is None
    assert violation.message.startswith("layers 'layer0', 'layer1', 'layer2', 'layer3' do not fit together: ")
    assert "for cores 0, 1, 2 of speck2fdevkit only." in violation.message
    assert "'layer3' 4096 kernel and 65536 neuron words" in violation.message
    assert plan(crowd(3)).fits


def test_more_layers_for_the_same_cores_are_added_to_the_same_message() -> None:
    (violation,) = plan(crowd(6)).violations
    assert "'layer4', 'layer5' fit on no other cores either." in violation.message
    assert rules(plan(crowd(10))) == [(None, "layers"), (None, "memory")]


# layer orders


def test_a_layer_on_a_core_too_small_is_named_with_an_order_that_fits() -> None:
    wrong = (0, 1, 7, 2, 4, 5, 6, 3, 8)
    planned = plan(gesture_net(), layer_order=wrong)
    (violation,) = planned.violations
    assert (violation.layer, violation.rule) == ("layer2", "layer order")
    assert "core 7 of speck2fdevkit: neuron memory 32768 words, the core has neuron memory 16384" in violation.message
    assert [use.core.core for use in planned.cores if use.core] == list(wrong)
    (order,) = re.findall(r"Try the layer order ([\d,]+), which fits", violation.message)
    assert plan(gesture_net(), layer_order=list(map(int, order.split(",")))).fits


def test_a_layer_order_for_a_net_that_fits_in_no_order_names_both() -> None:
    planned = plan(crowd(4), layer_order=[0, 1, 2, 3])
    assert rules(planned) == [("layer3", "layer order"), (None, "memory")]
    assert planned.violations[0].message.endswith("Try core 0, 1 or 2 for it.")
    planned = plan(single((256, 4, 4), 1024, 4), layer_order=[4])
    assert rules(planned) == [("conv", "layer order"), ("conv", "memory")]
    assert planned.violations[0].message.endswith("then it fits core 5 or 6.")


def test_names_and_orders_that_are_none_are_refused() -> None:
    with pytest.raises(ChipNameError, match="speck2fdevkit"):
        plan(digits_net(), "speck2fdevki")
    with pytest.raises(LayerOrderError, match="expected 5 distinct cores"):
        plan(digits_net(), layer_order=[0, 1])


# fixes are true


def changed(net: SpikingNet, **options: Any) -> Plan:
    layer = net.layers[0]
    given: dict[str, Any] = {
        "stride": layer.stride,
        "padding": layer.padding,
        "threshold": layer.threshold,
        "weight": layer.weight,
    }
    given |= options
    _, _, ky, kx = given["weight"].shape
    return plan(single(layer.in_shape, given["weight"].shape[0], (ky, kx), **given))


@pytest.mark.parametrize(
    ("in_shape", "features", "options"),
    [
        ((2, 128, 128), 17, {"stride": 2, "padding": 1}),
        ((256, 4, 4), 1024, {"kernel": 4}),
        ((600, 20, 20), 64, {"kernel": 1}),
        ((2, 64, 64), 1024, {"kernel": 1}),
        ((1000, 3, 3), 900, {}),
        ((1, 8, 8), 70_000, {"kernel": 8}),
    ],
)
def test_a_number_of_channels_that_is_said_to_fit_does_and_one_more_does_not(
    in_shape: tuple[int, int, int], features: int, options: dict[str, Any]
) -> None:
    (violation,) = (each for each in plan(single(in_shape, features, **options)).violations if each.rule == "memory")
    (fewer,) = map(int, re.findall(r"at most (\d+) output channels", violation.message))
    (named,) = re.findall(r"fits core ([\d, or]+)\.$", violation.message)
    fits_on = [core for core in range(9) if plan(single(in_shape, fewer, **options), layer_order=[core]).fits]
    assert fits_on == [int(core) for core in re.findall(r"\d", named)]
    assert not plan(single(in_shape, fewer + 1, **options)).fits


def test_a_stride_that_is_said_to_shrink_the_map_does() -> None:
    net = single((2, 128, 128), 2, padding=1)
    (violation,) = plan(net).violations
    stride, height, width = map(int, re.findall(r"stride of (\d+), which makes it (\d+)x(\d+)", violation.message)[0])
    shrunk = changed(net, stride=stride)
    assert shrunk.fits
    assert shrunk.net.layers[0].out_shape[1:] == (height, width)
    assert "Layer 'conv': try pooling before it." in plan(single((1, 700, 700), 1)).fixes


@pytest.mark.parametrize("scale", [1e3, 4e5, 7e8])
def test_a_threshold_that_is_said_to_be_enough_is(scale: float) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 2, 3, 3)) * scale
    net = single((2, 9, 9), 4, weight=weight)
    (violation,) = plan(net).violations
    (least,) = map(float, re.findall(r"threshold of at least (\S+),", violation.message))
    assert changed(net, threshold=least).fits


def test_legal_strides_and_pools_that_are_proposed_are_the_nearest() -> None:
    assert "Try a stride of 2x2." in plan(single((2, 40, 40), 4, stride=3)).violations[0].message
    assert "Try a stride of 1x8." in plan(single((2, 40, 40), 4, stride=(1, 11))).violations[0].message
    assert "Try a pool of 2x2." in plan(stack((2, 20, 20), [{"features": 4, "pool": 3}])).violations[0].message
    assert "Try a pool of 4x4." in plan(stack((2, 20, 20), [{"features": 4, "pool": 8}])).violations[0].message


@pytest.mark.parametrize("net", [*(case[0] for case in CASES), *(case[0] for case in INPUTS), crowd(4)])
def test_every_message_is_one_problem_with_one_thing_to_try(net: SpikingNet) -> None:
    planned = plan(net)
    assert not planned.fits
    for violation in (*planned.violations, *planned.warnings):
        assert violation.message.count(" Try ") == 1
        assert violation.message.endswith(".")
        assert ".." not in violation.message.replace("1..32767", "")
    assert 0 < len(planned.fixes) <= len(planned.violations)
    for fix in planned.fixes:
        assert re.match(r"(Layer '.*': try|Try) .*\.$", fix)


# as text and values


@pytest.mark.parametrize("net", [digits_net(), gesture_net(), crowd(10), single((256, 4, 4), 1024, 4)])
def test_a_plan_says_the_same_as_text_and_as_json(net: SpikingNet) -> None:
    planned = plan(net)
    told = json.loads(json.dumps(planned.to_dict()))
    assert told["fits"] == planned.fits
    assert [each["message"] for each in told["violations"]] == [each.message for each in planned.violations]
    assert told["fixes"] == list(planned.fixes)
    text = str(planned)
    assert text.startswith("fits" if planned.fits else "does not fit speck2fdevkit")
    for row, use in zip(told["cores"], planned.cores, strict=True):
        assert row["layer"] == use.layer
        assert row["core"] == (None if use.core is None else use.core.core)
        assert row["neuron_words"]["used"] == use.used.neuron_words
        assert use.used.kernel_formula in text
    assert all(violation.message in text for violation in planned.violations)


def test_a_map_far_too_large_is_planned_without_filling_memory() -> None:
    layer = make_layer((1, 8_000, 8_000), 8, 1)
    assert ("conv", "output map") in rules(plan(chain((layer,), ((1, 1), (1, 1)), layer.in_shape)))


def test_violations_are_frozen() -> None:
    violation = plan(crowd(10)).violations[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        violation.rule = ""  # type: ignore[misc]
