"""The configuration of a program: every attribute, in the chip's order of axes, on the virtual driver's classes."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy import compile_program, with_dvs
from spikeport.deploy.chips import chip
from spikeport.deploy.errors import InvalidProgramError
from spikeport.deploy.rules import check_program
from spikeport.deploy.samna_config import READOUT_LAYER, configure, configure_for, feeds_cores, with_monitors
from spikeport.deploy.samna_events import (
    RAW_SPIKE,
    attribute,
    count_spikes,
    decode_stretch,
    fill_states,
    neuron_addresses,
)
from spikeport.deploy.types import Destination, DvsConfig, Program
from spikeport.deploy.virtual import configuration as tree
from spikeport.deploy.virtual.events import event_module
from spikeport.models.events import Events

from .nets import branch_net, digits_net, random_chain, single
from .programs import make_core, random_case

DRIVER = SimpleNamespace(configuration=tree)


def plain(program: Program, **options: Any) -> dict[str, Any]:
    """Return the configuration as nested dictionaries."""
    return dict(json.loads(configure(program, DRIVER, **options).to_json()))


def fits(program: Program) -> bool:
    return not check_program(program, chip(program.chip))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_every_number_of_a_core_stands_where_the_chip_looks_for_it(seed: int) -> None:
    program = compile_program(random_chain(np.random.default_rng(seed)))
    configuration = configure(program, DRIVER)
    for core in program.cores:
        layer = configuration.cnn_layers[core.core]
        size = layer.dimensions
        assert (size.input_shape.feature_count, size.input_shape.size.y, size.input_shape.size.x) == core.in_shape
        assert (size.output_shape.feature_count, size.output_shape.size.y, size.output_shape.size.x) == core.out_shape
        assert (size.stride.y, size.stride.x, size.padding.y, size.padding.x) == core.stride + core.padding
        assert size.kernel_size == core.weight.shape[2]
        for (f, c, y, x), weight in np.ndenumerate(core.weight):
            assert layer.weights[f][c][x][y] == weight
        for (f, y, x), state in np.ndenumerate(core.initial_state):
            assert layer.neurons_initial_value[f][x][y] == state
        assert list(layer.biases) == [0] * len(core.weight) if core.bias is None else core.bias.tolist()
        assert layer.leak_enable is (core.bias is not None and bool(core.bias.any()))
        assert (layer.threshold_high, layer.threshold_low) == (core.threshold_high, core.threshold_low)
        assert layer.return_to_zero is (core.reset == "zero")
        assert layer.monitor_enable is core.monitor


def test_states_and_kernels_of_unequal_axes_are_turned() -> None:
    weight, state = np.arange(4).reshape(1, 1, 2, 2), np.arange(6).reshape(1, 2, 3)
    core = make_core(3, weight=weight, in_shape=(1, 3, 4), initial_state=state)
    layer = configure(Program("speck2e", (core,), (3,), DvsConfig((1, 3, 4), merge=True)), DRIVER).cnn_layers[3]
    assert [list(map(list, layer.weights[0][0]))] == [[[0, 2], [1, 3]]]
    assert list(map(list, layer.neurons_initial_value[0])) == [[0, 3], [1, 4], [2, 5]]


def test_routes_take_the_registers_in_order_and_the_way_out_takes_none() -> None:
    configuration = configure(compile_program(branch_net()), DRIVER)
    program = compile_program(branch_net())
    for core in program.cores:
        expected = [(True, end.core, end.pool, end.feature_shift) for end in core.destinations if end.core is not None]
        registers = configuration.cnn_layers[core.core].destinations
        found = [(one.enable, one.layer, one.pooling, one.feature_shift) for one in registers]
        assert found[: len(expected)] == expected
        assert all(one == (False, 0, 1, 0) for one in found[len(expected) :])


def test_what_a_program_does_not_use_stays_as_the_driver_made_it() -> None:
    program = compile_program(digits_net())
    used, fresh = plain(program), json.loads(tree.SpeckConfiguration().to_json())
    cores = {core.core for core in program.cores}
    assert used.pop("cnn_layers")[-1] is not None
    unused = [core for core in range(9) if core not in cores]
    whole = json.loads(configure(program, DRIVER).to_json())["cnn_layers"]
    assert [whole[core] for core in unused] == [fresh["cnn_layers"][core] for core in unused]
    fresh.pop("cnn_layers")
    assert used == fresh


@given(st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_a_program_is_configured_or_refused_with_all_that_is_wrong(seed: int) -> None:
    program = random_case(seed).program
    if fits(program):
        assert tree.SpeckConfiguration().to_json() != configure(program, DRIVER).to_json()
        return
    with pytest.raises(InvalidProgramError) as caught:
        configure(program, DRIVER)
    for violation in check_program(program, chip(program.chip)):
        assert violation.message in str(caught.value)


def test_the_input_stage_is_written_where_there_is_one() -> None:
    net = single((1, 16, 8), 2)
    plain_one = compile_program(net)
    assert feeds_cores(plain_one.dvs)
    assert not any(one.enable for one in configure(plain_one, DRIVER).dvs_layer.destinations)
    dvs = DvsConfig((2, 128, 128), True, (2, 4), ((3, 11), (5, 21)), (True, False), swap=True)
    program = with_dvs(plain_one, dvs)
    assert not feeds_cores(program.dvs)
    stage = configure(program, DRIVER).dvs_layer
    assert (stage.merge, stage.mirror.x, stage.mirror.y, stage.mirror_diagonal) == (True, False, True, True)
    assert (stage.pooling.x, stage.pooling.y, stage.origin.x, stage.origin.y) == (4, 2, 5, 3)
    assert (stage.cut.x, stage.cut.y) == (20, 10)  # the last ones that go on
    assert [(one.enable, one.layer) for one in stage.destinations] == [(True, program.entry[0]), (False, 0)]
    assert stage.pass_sensor_events is False


def test_the_camera_feeds_the_net_only_where_it_is_asked_to() -> None:
    program = compile_program(single((2, 128, 128), 2, stride=2))
    assert configure(program, DRIVER).dvs_layer.pass_sensor_events is False
    # The driver turns the camera on with the monitor of the input stage.
    watched = configure(program, DRIVER, monitor_input=True).dvs_layer
    assert watched.monitor_enable is True
    assert watched.pass_sensor_events is False
    with_camera = configure(program, DRIVER, sensor=True).dvs_layer
    assert with_camera.pass_sensor_events is True
    assert [one.enable for one in with_camera.destinations] == [True, False]
    # Its events can be seen without feeding the net, and are not seen unless asked for.
    assert (with_camera.raw_monitor_enable, with_camera.monitor_enable) == (False, False)
    table = chip(program.chip)
    for feeds in (False, True):
        seen = configure_for(table, program, DRIVER, sensor=feeds, monitor_sensor=True).dvs_layer
        assert (seen.raw_monitor_enable, seen.monitor_enable, seen.pass_sensor_events) == (True, False, feeds)


def test_what_a_board_says_is_told_apart() -> None:
    kinds = event_module("speck2f")
    said = [
        kinds.Spike(4, 1, 2, 3, 50),
        kinds.DvsEvent(1, 7, 9, 60),
        kinds.NeuronValue(4, 0, -3),
        kinds.Spike(13, 0, 2, 3, 70),
        kinds.RegisterValue(4, 0),
        kinds.ReadoutValue(3),
    ]
    spikes, seen, n_states = decode_stretch(said, [4])
    assert (spikes.tolist(), seen.tolist(), n_states) == ([(4, 50, 1, 2, 3)], [(60, 1, 7, 9)], 1)


def test_the_readout_block_is_fed_by_the_output_core() -> None:
    program = compile_program(single((1, 4, 4), 3, 4), monitor="readout")
    configuration = configure(program, DRIVER)
    (core,) = program.cores
    first = configuration.cnn_layers[core.core].destinations[0]
    assert (first.enable, first.layer) == (True, READOUT_LAYER)
    assert configuration.readout.enable is True
    assert configuration.readout.output_neuron_num == 3
    assert configuration.readout.monitor_enable is True
    # A monitored core would be silenced by the monitor of the block.
    heard = configure(with_monitors(program, [core.core]), DRIVER)
    assert heard.readout.monitor_enable is False
    assert heard.cnn_layers[core.core].monitor_enable is True


def test_monitors_are_exactly_those_asked_for() -> None:
    program = compile_program(branch_net())
    first, *_, last = (core.core for core in program.cores)
    assert {core.core for core in with_monitors(program, [first, last]).cores if core.monitor} == {first, last}
    assert not any(core.monitor for core in with_monitors(program, []).cores)


def test_the_driver_of_another_chip_makes_its_own_configuration() -> None:
    program = compile_program(digits_net())
    driver = SimpleNamespace(configuration=SimpleNamespace(SpeckConfiguration=tree.Speck2eConfiguration))
    found = configure_for(chip("speck2edevkit"), program, driver)
    assert type(found) is tree.Speck2eConfiguration
    assert json.loads(found.to_json()) == plain(program)


def test_every_misfit_is_told_at_once() -> None:
    core = make_core(1, weight=np.ones((1, 1, 3, 2), np.int8), in_shape=(1, 9, 9), stride=(3, 1), padding=(9, 0))
    core = dataclasses.replace(core, destinations=(Destination(None, 3),))
    with pytest.raises(InvalidProgramError) as caught:
        configure(Program("speck2fdevkit", (core,), (1,), DvsConfig((1, 9, 9), merge=True)), DRIVER)
    for rule in ("kernel", "stride", "padding", "pool"):
        assert f"layer 'conv1': {rule}: expected" in str(caught.value)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_addresses_are_bit_fields_that_never_meet(shape: tuple[int, int, int]) -> None:
    addresses = neuron_addresses(shape)
    assert len(np.unique(addresses)) == addresses.size
    for (f, y, x), address in np.ndenumerate(addresses):
        below, column = _n_bits(shape[0]), _n_bits(shape[2])
        assert address == (y << (below + column)) | (x << below) | f
    states = {int(address): int(n) for n, address in enumerate(addresses.ravel())}
    core = make_core(weight=np.ones((shape[0], 1, 1, 1), np.int8), in_shape=(1, *shape[1:]))
    filled = fill_states(core, states)
    assert filled is not None
    assert filled.ravel().tolist() == list(range(addresses.size))
    del states[int(addresses[0, 0, 0])]
    assert fill_states(core, states) is None


def _n_bits(n: int) -> int:
    bits = 0
    while 1 << bits < n:
        bits += 1
    return bits


def test_a_spike_belongs_to_the_last_event_that_was_not_later() -> None:
    place = np.zeros(3, np.int64)
    events = Events(place, place, place, np.array([5, 5, 9]), (1, 1))
    raw = np.array([(0, 99, 0, 0, 0), (0, 105, 0, 0, 0), (0, 108, 1, 0, 0), (0, 109, 0, 0, 0)], RAW_SPIKE)
    spikes = attribute(raw, events, np.array([105, 105, 109]))
    assert spikes["event"].tolist() == [0, 1, 1, 2]
    assert spikes["t_us"].tolist() == [5, 5, 5, 9]
    assert count_spikes(spikes, (2, 1, 1)).ravel().tolist() == [3, 1]
