"""A board at work: spikes and states equal the emulator's; memories, slow clock, monitors, counts."""

from __future__ import annotations

import dataclasses
import time
import types

import numpy as np
import pytest

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.virtual import VirtualBoardError
from spikeport.deploy.virtual.configuration import DVS_LAYER, SpeckConfiguration
from spikeport.models.events import Events

from .bench import Bench, address
from .writer import configured, one_neuron, program_of_one, random_events, random_program


def test_weight_and_threshold_of_127_give_one_spike(samna: types.ModuleType) -> None:
    bench = Bench(samna)
    bench.apply(configured(program_of_one(one_neuron()), with_input=False))
    assert bench.ask(bench.events.Spike(3, 0, 0, 0)) == [bench.events.Spike(3, 0, 0, 0, 0)]
    assert bench.state(3, (1, 1, 1)).tolist() == [[[0]]]


def test_a_surplus_stays_until_the_next_event(samna: types.ModuleType) -> None:
    bench = Bench(samna)
    bench.apply(configured(program_of_one(one_neuron(threshold_high=40)), with_input=False))
    assert len(bench.ask(bench.events.Spike(3, 0, 0, 0))) == 1
    assert bench.state(3, (1, 1, 1)).tolist() == [[[87]]]


@pytest.mark.parametrize("seed", range(12))
def test_events_of_the_sensor_do_what_the_emulator_says(samna: types.ModuleType, seed: int) -> None:
    program = random_program(seed)
    events = random_events(seed, program.dvs)
    expected = Emulator(program).run(events)
    bench = Bench(samna)
    bench.apply(configured(program))
    bench.board.get_stop_watch().start()
    columns = zip(events.p.tolist(), events.y.tolist(), events.x.tolist(), events.t_us.tolist(), strict=True)
    found = bench.ask(*(bench.events.DvsEvent(*column) for column in columns))
    times = events.t_us.tolist()
    assert sum(array.size for array in expected.spikes.values()) > 0
    for core, spikes in expected.spikes.items():
        assert np.array_equal(bench.spikes(found, core, times), spikes)
    behind = sum(expected.n_dropped[core.core] for core in program.cores if core.core not in program.entry)
    assert bench.board.engine.n_dropped() == behind
    assert bench.board.engine.n_synops() == sum(expected.synops.values())
    last = program.cores[-1]
    assert np.array_equal(bench.state(last.core, last.out_shape), expected.states[last.core])


@pytest.mark.parametrize("seed", range(6))
def test_spikes_go_into_any_core_with_any_feature(samna: types.ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    core = random_program(seed).cores[-1]
    core = dataclasses.replace(core, monitor=True)
    shape = core.in_shape
    program = program_of_one(core)
    bench = Bench(samna)
    bench.apply(configured(program, with_input=False))
    feature, y, x = (rng.integers(0, size, 60) for size in shape)
    found = bench.ask(
        *(bench.events.Spike(core.core, *place) for place in zip(*(c.tolist() for c in (feature, y, x)), strict=True))
    )
    state, spikes = core.initial_state.astype(int), []
    for c, row, column in zip(feature, y, x, strict=True):  # the specification, for one core
        for v in range(core.out_shape[1]):
            for u in range(core.out_shape[2]):
                b, a = row + core.padding[0] - v * core.stride[0], column + core.padding[1] - u * core.stride[1]
                if not (0 <= b < core.weight.shape[2] and 0 <= a < core.weight.shape[3]):
                    continue
                for f in range(core.out_shape[0]):
                    state[f, v, u] = max(state[f, v, u] + core.weight[f, c, b, a], core.threshold_low)
                    if state[f, v, u] >= core.threshold_high:
                        state[f, v, u] = 0 if core.reset == "zero" else state[f, v, u] - core.threshold_high
                        spikes.append((f, v, u))
    assert [(one.feature, one.y, one.x) for one in found] == spikes
    assert np.array_equal(bench.state(core.core, core.out_shape), state)


def test_a_slow_clock_set_behind_the_start_ticks_as_the_emulators(samna: types.ModuleType) -> None:
    core = one_neuron(bias=np.array([-13], np.int16), weight=np.full((1, 1, 1, 1), 100, np.int8))
    program = dataclasses.replace(program_of_one(core), slow_clock_hz=1000.0)
    nothing = np.zeros(40, np.int64)
    events = Events(nothing, nothing, nothing, np.arange(40) * 730 + 11, (1, 1))
    expected = Emulator(program).run(events)
    bench = Bench(samna)
    bench.apply(configured(program, with_input=False))
    io = bench.board.get_io_module()
    io.set_slow_clk_rate(1000)
    bench.board.get_stop_watch().start()
    io.set_slow_clk(True)
    found = bench.ask(*(bench.events.Spike(3, 0, 0, 0, t_us) for t_us in events.t_us.tolist()))
    io.set_slow_clk(False)
    assert [one.timestamp for one in found] == expected.spikes[3]["t_us"].tolist()
    assert bench.state(3, (1, 1, 1)).tolist() == expected.states[3].tolist()


@pytest.mark.parametrize("waited_us", [0, 3_000_000])
def test_commands_between_start_and_first_event_change_no_time(samna: types.ModuleType, waited_us: int) -> None:
    bench, kinds = Bench(samna), samna.speck2f.event
    configuration = configured(program_of_one(one_neuron(bias=np.zeros(1, np.int16))), with_input=False)
    watch, io = bench.board.get_stop_watch(), bench.board.get_io_module()
    watch.start()
    watch._zero_us -= waited_us
    bench.apply(configuration)
    io.set_slow_clk_rate(1000)
    io.set_slow_clk(True)
    bench.board.get_model().reset()
    bench.source.write([kinds.WriteNeuronValue(3, 0, 0), kinds.WriteWeightValue(3, 0, 127)])
    now_us = watch.now_us()
    stamps = [max(0, now_us - 900_000 + step) for step in (0, 10, 900_000)]
    found = bench.ask(*(kinds.Spike(3, 0, 0, 0, stamp) for stamp in stamps))
    assert len(found) == 3
    assert found[2].timestamp >= found[1].timestamp >= found[0].timestamp >= stamps[0]
    assert bench.board.engine.counts.n_late == 0


def test_without_the_stop_watch_leak_goes_on_in_real_time(samna: types.ModuleType) -> None:
    core = one_neuron(bias=np.array([-13], np.int16), initial_state=np.full((1, 1, 1), 127, np.int16))
    bench = Bench(samna)
    bench.apply(configured(program_of_one(core), with_input=False))
    io = bench.board.get_io_module()
    io.set_slow_clk_rate(100)
    io.set_slow_clk(True)
    seen = [127]
    while seen[-1] > -127:
        seen.append(int(bench.state(3, (1, 1, 1))[0, 0, 0]))
        assert seen[-1] == -127 or (127 - seen[-1]) % 13 == 0
        assert seen[-1] <= seen[-2]
        time.sleep(0.004)
    assert len(set(seen)) > 3
    assert bench.state(3, (1, 1, 1)).tolist() == [[[-127]]]


def test_memories_are_written_and_read_word_by_word(samna: types.ModuleType) -> None:
    program = random_program(3)
    core = program.cores[-1]
    bench, kinds = Bench(samna), samna.speck2f.event
    bench.apply(configured(program, with_input=False))
    f, v, u = (edge - 1 for edge in core.out_shape)
    place = address(core.out_shape, f, v, u)
    assert bench.ask(kinds.WriteNeuronValue(core.core, place, -7), kinds.ReadNeuronValue(core.core, place)) == [
        kinds.NeuronValue(core.core, place, -7)
    ]
    state = core.initial_state.copy()
    state[f, v, u] = -7
    assert np.array_equal(bench.state(core.core, core.out_shape), state)
    bits_c, bits_f = ((edge - 1).bit_length() for edge in (core.weight.shape[1], core.weight.shape[0]))
    word = 0 << (bits_c + bits_f) | f << bits_c | 1 if core.weight.shape[1] > 1 else f << bits_c
    channel = 1 if core.weight.shape[1] > 1 else 0
    assert bench.ask(kinds.ReadWeightValue(core.core, word)) == [
        kinds.WeightValue(core.core, word, int(core.weight[f, channel, 0, 0]))
    ]
    assert bench.ask(kinds.WriteWeightValue(core.core, word, 5), kinds.ReadWeightValue(core.core, word)) == [
        kinds.WeightValue(core.core, word, 5)
    ]
    assert np.array_equal(bench.state(core.core, core.out_shape), state)
    assert bench.ask(kinds.ReadNeuronValue(8, 0), kinds.ReadBiasValue(core.core, 5000)) == [
        kinds.NeuronValue(8, 0, 0),
        kinds.BiasValue(core.core, 5000, 0),
    ]
    assert bench.board.engine.counts.n_unmapped == 2


def test_a_bias_is_read_and_written(samna: types.ModuleType) -> None:
    bench, kinds = Bench(samna), samna.speck2f.event
    bench.apply(configured(program_of_one(one_neuron(bias=np.array([-13], np.int16))), with_input=False))
    found = bench.ask(kinds.ReadBiasValue(3, 0), kinds.WriteBiasValue(3, 0, 900), kinds.ReadBiasValue(3, 0))
    assert found == [kinds.BiasValue(3, 0, -13), kinds.BiasValue(3, 0, 900)]


def test_registers_hold_what_is_written(samna: types.ModuleType) -> None:
    bench, kinds = Bench(samna), samna.speck2f.event
    bench.apply(SpeckConfiguration())
    found = bench.ask(kinds.WriteRegisterValue(5, 99), kinds.ReadRegisterValue(5), kinds.ReadRegisterValue(6))
    assert found == [kinds.RegisterValue(5, 99), kinds.RegisterValue(6, 0)]


def test_monitors_of_the_input_stage_show_events_before_and_behind_it(samna: types.ModuleType) -> None:
    configuration = SpeckConfiguration()
    stage = configuration.dvs_layer
    stage.monitor_enable = stage.raw_monitor_enable = True
    stage.pooling = {"x": 2, "y": 4}
    stage.origin, stage.cut = {"x": 10, "y": 5}, {"x": 20, "y": 9}
    stage.mirror.x = True
    stage.off_channel = False
    bench, kinds = Bench(samna), samna.speck2f.event
    bench.apply(configuration)
    bench.board.get_stop_watch().start()
    shown, off, outside = (
        kinds.DvsEvent(1, 20, 22, 1000),
        kinds.DvsEvent(0, 20, 22, 2000),
        kinds.DvsEvent(1, 0, 0, 3000),
    )
    spike = kinds.Spike(DVS_LAYER, 1, 20 // 4 - 5, 20 - 22 // 2, 1000)
    assert bench.ask(shown, off, outside) == [shown, spike, off, outside]


def test_every_event_that_reaches_nothing_is_counted(samna: types.ModuleType) -> None:
    bench, kinds = Bench(samna), samna.speck2f.event
    configuration = configured(program_of_one(one_neuron()))
    configuration.dvs_layer.merge = False  # so that polarity 1 is a feature that the core does not have
    bench.apply(configuration)
    lost = [
        kinds.Spike(8, 0, 0, 0),
        kinds.Spike(3, 1, 0, 0),
        kinds.Spike(3, 0, 1, 0),
        kinds.Spike(12, 0, 0, 0),
        kinds.Spike(13, 0, 0, 0),
        kinds.DvsEvent(0, 128, 0),
        kinds.DvsEvent(1, 0, 0),
    ]
    assert bench.ask(*lost, kinds.KillSensorPixel(1, 1)) == []
    counts = bench.board.engine.counts
    assert (counts.n_outside, counts.n_ignored, counts.n_in) == (len(lost), 1, len(lost) + 2)


def test_a_model_gives_its_configuration_back_and_sets_neurons_to_zero(samna: types.ModuleType) -> None:
    bench = Bench(samna)
    model = bench.board.get_model()
    assert model.get_configuration() == SpeckConfiguration()
    configuration = configured(program_of_one(one_neuron(initial_state=np.full((1, 1, 1), 9, np.int16))))
    bench.apply(configuration)
    configuration.cnn_layers[3].threshold_high = 1
    assert model.get_configuration().cnn_layers[3].threshold_high == 127
    assert bench.state(3, (1, 1, 1)).tolist() == [[[9]]]
    model.reset()
    assert bench.state(3, (1, 1, 1)).tolist() == [[[0]]]


def test_configurations_that_are_refused_say_why_and_change_nothing(samna: types.ModuleType) -> None:
    bench = Bench(samna)
    bench.apply(configured(program_of_one(one_neuron()), with_input=False))
    wrong = configured(program_of_one(one_neuron()), with_input=False)
    wrong.cnn_layers[3].dimensions.kernel_size = 17
    with pytest.raises(VirtualBoardError, match=r"cnn_layers\[3\]: dimensions.kernel_size"):
        bench.apply(wrong)
    wrong = configured(program_of_one(one_neuron()), with_input=False)
    wrong.cnn_layers[3].output_decimator_enable = True
    with pytest.raises(RuntimeError, match="decimator"):
        bench.apply(wrong)
    with pytest.raises(
        TypeError, match=r"speck2f\.configuration\.SpeckConfiguration, found SpeckConfiguration of speck2e"
    ):
        bench.apply(samna.speck2e.configuration.SpeckConfiguration())
    with pytest.raises(TypeError):
        bench.apply({})  # type: ignore[arg-type]
    assert len(bench.ask(bench.events.Spike(3, 0, 0, 0))) == 1


def test_a_2e_has_events_and_configurations_of_its_own(samna: types.ModuleType) -> None:
    bench = Bench(samna, "Speck2eDevKit")
    configuration = samna.speck2e.configuration.SpeckConfiguration()
    configuration.from_json(configured(program_of_one(one_neuron()), with_input=False).to_json())
    bench.apply(configuration)
    (spike,) = bench.ask(samna.speck2e.event.Spike(3, 0, 0, 0))
    assert isinstance(spike, samna.speck2e.event.Spike)
    assert not isinstance(spike, samna.speck2f.event.Spike)
    with pytest.raises(TypeError, match="Try an event of the same chip"):
        bench.source.write([samna.speck2f.event.Spike(3, 0, 0, 0)])
