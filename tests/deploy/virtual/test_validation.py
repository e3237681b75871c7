"""What a chip takes and what not, with the layer in each message; and the program of a configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.types import Destination, ReadoutConfig
from spikeport.deploy.virtual import VirtualBoardError, chip_module, program_of, validate_configuration
from spikeport.deploy.virtual.configuration import SpeckConfiguration
from spikeport.deploy.virtual.validation import find_unsupported

from .writer import configured, one_neuron, program_of_one, random_program, read_by_readout, write_core


def valid() -> SpeckConfiguration:
    return configured(program_of_one(one_neuron()), with_input=False)


def change(configuration: SpeckConfiguration, path: str, value: Any) -> SpeckConfiguration:
    *parents, name = path.split(".")
    holder: Any = configuration
    for parent in parents:
        holder = holder[int(parent)] if parent.isdecimal() else getattr(holder, parent)
    setattr(holder, name, value)
    return configuration


def test_the_default_and_a_neuron_are_valid() -> None:
    assert validate_configuration(SpeckConfiguration()) == (True, "")
    assert validate_configuration(valid()) == (True, "")
    assert chip_module("speck2e").validate_configuration(chip_module("speck2e").configuration.SpeckConfiguration())[0]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("cnn_layers.3.dimensions.kernel_size", 17, "cnn_layers[3]: dimensions.kernel_size: expected one of 1..16"),
        ("cnn_layers.3.dimensions.kernel_size", 0, "cnn_layers[3]: dimensions.kernel_size"),
        ("cnn_layers.3.dimensions.stride.x", 3, "dimensions.stride.x: expected one of 1, 2, 4, 8, found 3"),
        ("cnn_layers.3.dimensions.stride.y", 0, "dimensions.stride.y"),
        ("cnn_layers.3.dimensions.padding.y", 8, "dimensions.padding.y: expected one of 0..7, found 8. Try 7."),
        ("cnn_layers.3.dimensions.output_shape.size.x", 65, "output_shape.size.x: expected one of 1..64"),
        ("cnn_layers.3.dimensions.input_shape.size.y", 129, "input_shape.size.y: expected one of 1..128"),
        (
            "cnn_layers.3.dimensions.input_shape.feature_count",
            1025,
            "input_shape.feature_count: expected one of 1..1024",
        ),
        ("cnn_layers.3.dimensions.output_shape.size.y", 2, "output_shape.size.y: expected 1, from an input of 1"),
        ("cnn_layers.3.threshold_high", 0, "cnn_layers[3]: threshold_high: expected one of 1..32767"),
        ("cnn_layers.4.threshold_high", -1, "cnn_layers[4]: threshold_high"),
        ("cnn_layers.3.threshold_low", 0, "cnn_layers[3]: threshold_low: expected one of -32768..-1"),
        ("cnn_layers.3.weights", [[[[1]], [[1]]]], "cnn_layers[3]: weights: expected the shape [1, 1, 1, 1]"),
        ("cnn_layers.3.biases", [1, 2], "cnn_layers[3]: biases: expected the shape [1]"),
        ("cnn_layers.3.neurons_initial_value", [[[1, 2]]], "cnn_layers[3]: neurons_initial_value"),
        ("cnn_layers.3.output_decimator_interval", 8, "output_decimator_interval"),
        ("cnn_layers.3.destinations.0.pooling", 3, "cnn_layers[3]: destinations[0].pooling: expected one of 1, 2, 4"),
        ("dvs_layer.pooling.x", 3, "dvs_layer.pooling.x"),
        ("dvs_layer.origin.x", 128, "dvs_layer.origin.x"),
        ("dvs_layer.cut.y", -1, "dvs_layer.cut.y"),
        ("dvs_filter", {"enable": True, "low_pass_mode_enable": True}, "exclude each other"),
        ("factory_config.internal_slow_clk_divider", 13, "internal_slow_clk_divider: expected one of 14..17"),
        ("readout.output_mode_sel", 4, "readout.output_mode_sel"),
        ("readout.readout_configuration_sel", 4, "readout.readout_configuration_sel"),
        ("readout.output_neuron_num", 16, "readout.output_neuron_num"),
    ],
)
def test_each_rule_is_told_with_its_place(path: str, value: Any, said: str) -> None:
    is_valid, message = validate_configuration(change(valid(), path, value))
    assert not is_valid
    assert said in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"enable": True, "layer": 9}, "cnn_layers[3]: destinations[1].layer: expected one of"),
        ({"enable": True, "layer": 3}, "cannot feed itself"),
        ({"enable": True, "layer": 5}, "cnn_layers[5] has no weights"),
        ({"enable": True, "layer": 12, "feature_shift": 1024}, "feature_shift: expected one of -1023..1023"),
    ],
)
def test_destinations_are_checked(changes: dict[str, Any], said: str) -> None:
    configuration = valid()
    configuration.cnn_layers[3].destinations[1] = changes
    is_valid, message = validate_configuration(configuration)
    assert not is_valid
    assert said in message


def test_an_input_stage_that_leads_nowhere_is_refused() -> None:
    configuration = valid()
    configuration.dvs_layer.destinations[1] = {"enable": True, "layer": 2}
    assert "dvs_layer: destinations[1].layer: cnn_layers[2] has no weights" in validate_configuration(configuration)[1]


def test_maps_that_do_not_meet_are_refused() -> None:
    program = random_program(1)
    configuration = configured(program)
    source = next(core for core in program.cores if core.destinations[0].core is not None)
    target = configuration.cnn_layers[source.destinations[0].core or 0]
    target.dimensions.input_shape.size.x += 7
    assert f"cnn_layers[{source.core}]: destinations[0]: expected a map of" in validate_configuration(configuration)[1]


def test_memory_is_checked_for_each_core_and_all_problems_are_told_at_once() -> None:
    configuration = SpeckConfiguration()
    layer = configuration.cnn_layers[7]
    layer.dimensions = {
        "input_shape": {"feature_count": 64, "size": {"x": 64, "y": 64}},
        "output_shape": {"feature_count": 32, "size": {"x": 64, "y": 64}},
        "kernel_size": 3,
        "padding": {"x": 1, "y": 1},
    }
    layer.threshold_high, layer.weights = 1, [[[[1] * 3] * 3] * 64] * 32
    is_valid, message = validate_configuration(configuration)
    assert not is_valid
    assert (
        "cnn_layers[7]: kernel memory: expected at most 16384 words, what core 7 has, found 64 x P(3 x 3) x P(32)"
        in message
    )
    assert "cnn_layers[7]: neuron memory: expected at most 16384 words" in message


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500))
def test_the_program_of_a_configuration_is_the_program_it_was_written_from(seed: int) -> None:
    program = random_program(seed)
    configuration = configured(program)
    assert validate_configuration(configuration) == (True, "")
    found = program_of(configuration)
    assert {core.core for core in found.cores} == {core.core for core in program.cores}
    for core in program.cores:
        assert found.core(core.core).same(core)
    assert (found.chip, found.entry) == ("speck2fmodule", program.entry)
    assert (found.dvs.box, found.dvs.out_shape) == (program.dvs.box, program.dvs.out_shape)
    assert dataclasses.replace(found.dvs, crop=program.dvs.crop) == program.dvs


def test_without_an_input_stage_the_first_cores_are_the_entry() -> None:
    program = program_of(valid(), "speck2fdevkit")
    assert (program.entry, program.dvs.input_shape, program.dvs.merge) == ((3,), (1, 1, 1), True)
    assert program.same(program_of_one(one_neuron()))


def test_the_readout_block_becomes_part_of_the_program_where_its_classes_fit() -> None:
    configuration = valid()
    configuration.readout.enable = True
    read_by_readout(configuration.cnn_layers[3])
    assert program_of(configuration).readout == ReadoutConfig(4)
    configuration.cnn_layers[3].destinations[0].feature_shift = 1
    assert program_of(configuration).readout is None


def test_what_only_the_virtual_board_cannot_do_is_valid_and_told() -> None:
    configuration = valid()
    configuration.cnn_layers[3].output_decimator_enable = True
    read_by_readout(configuration.cnn_layers[3])
    configuration.cnn_layers[3].destinations[0].feature_shift = -1
    assert validate_configuration(configuration) == (True, "")
    decimator, shift = find_unsupported(configuration)
    assert "cnn_layers[3]: output_decimator_enable" in decimator
    assert "cnn_layers[3]: destinations[0].feature_shift: expected 0 or more" in shift
    with pytest.raises(VirtualBoardError, match="decimator"):
        program_of(configuration)


def test_a_loop_is_told_with_its_way() -> None:
    configuration = valid()
    for core, target in ((2, 4), (4, 2)):
        write_core(configuration.cnn_layers[core], one_neuron(core=core, destinations=(Destination(target),)))
    assert validate_configuration(configuration) == (True, "")
    (loop,) = find_unsupported(configuration)
    assert loop.startswith("cnn_layers[2] -> cnn_layers[4] -> cnn_layers[2]: a loop")


def test_a_configuration_without_cores_has_no_program() -> None:
    with pytest.raises(VirtualBoardError, match="at least one core"):
        program_of(SpeckConfiguration())
    with pytest.raises(VirtualBoardError, match=r"cnn_layers\[3\]"):
        program_of(change(valid(), "cnn_layers.3.dimensions.kernel_size", 20))
