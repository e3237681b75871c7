"""The readout block: classes, windows, thresholds, words; and what a board says of it."""

from __future__ import annotations

import time
import types

import pytest

from spikeport.deploy.virtual.configuration import ReadoutConfig
from spikeport.deploy.virtual.readout import Readout

from .bench import Bench
from .writer import configured, one_neuron, program_of_one, read_by_readout


def block(**settings: object) -> Readout:
    return Readout(ReadoutConfig(**{"readout_configuration_sel": 3, **settings}))


def test_feature_0_is_class_1_and_feature_4_class_2_as_the_erratum_says() -> None:
    readout = block()
    for feature in (0, 4, 4, 56, 5, 60):
        readout.add(feature, 0, 0)
    readout.add(0, 0, 1)
    word = readout.tick()
    assert (word.index, word.is_valid, word.value) == (2, True, 1 << 20 | 2 << 16)
    assert readout.n_dropped == 3


@pytest.mark.parametrize(("mode", "place", "index"), [(0, (1, 1, 0), 7), (1, (0, 3, 1), 8), (2, (0, 1, 2), 7)])
def test_other_modes_number_features_rows_columns(mode: int, place: tuple[int, int, int], index: int) -> None:
    readout = block(readout_configuration_sel=mode)
    readout.add(*place)
    assert readout.tick().index == index
    readout.add(4, 0, 0)
    readout.add(0, 4, 0)
    assert readout.n_dropped == 2


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({}, 16),
        ({"low_pass_filter32_not16": True}, 32),
        ({"low_pass_filter_disable": True, "low_pass_filter32_not16": True}, 1),
    ],
)
def test_spikes_count_as_long_as_the_window(settings: dict[str, bool], length: int) -> None:
    readout = block(**settings)
    readout.add(0, 0, 0)
    indices = [readout.tick().index for _ in range(length + 2)]
    assert indices == [1] * length + [0, 0]


def test_more_spikes_than_the_threshold_are_needed() -> None:
    readout = block(threshold=2, low_pass_filter_disable=True)
    for n_spikes, is_valid in ((2, False), (3, True), (0, False)):
        for _ in range(n_spikes):
            readout.add(0, 0, 0)
        assert readout.tick().is_valid is is_valid
    assert block(threshold=2, override_threshold_max=True).tick().is_valid


@pytest.mark.parametrize(("mode", "payload", "valid"), [(0, 0, 1), (1, 0b100, 1), (2, 2, 1), (3, 3, 1)])
def test_the_mode_selects_the_payload(mode: int, payload: int, valid: int) -> None:
    readout = block(output_mode_sel=mode, output_neuron_num=1, threshold=2)
    for feature in (0, 0, 4, 4, 4):
        readout.add(feature, 0, 0)
    assert readout.tick().value == valid << 20 | 2 << 16 | payload


def test_a_board_reads_out_at_the_ticks_of_the_slow_clock_and_says_nothing_else(samna: types.ModuleType) -> None:
    configuration = configured(program_of_one(one_neuron()), with_input=False)
    read_by_readout(configuration.cnn_layers[3])
    configuration.readout = {
        "enable": True,
        "monitor_enable": True,
        "readout_pin_monitor_enable": True,
        "readout_configuration_sel": 3,
        "low_pass_filter_disable": True,
        "output_mode_sel": 3,
    }
    bench, kinds = Bench(samna), samna.speck2f.event
    bench.apply(configuration)
    io = bench.board.get_io_module()
    io.set_slow_clk_rate(100)
    bench.board.get_stop_watch().start()
    io.set_slow_clk(True)
    lead_us = 400_000  # so that the events are there before their ticks
    stamps = [lead_us + late_us for late_us in (1000, 2000, 11_000, 35_000)]
    found = bench.ask(*(kinds.Spike(3, 0, 0, 0, stamp) for stamp in stamps), kinds.Spike(12, 4, 0, 0, stamps[-1] + 9))
    end = time.monotonic() + 5
    while sum(isinstance(one, kinds.ReadoutValue) for one in found) < 44 and time.monotonic() < end:
        found += bench.sink.get_events_blocking(1000)
    words = [one.value for one in found if isinstance(one, kinds.ReadoutValue)]
    assert words[:44] == [0] * 40 + [1 << 20 | 1 << 16 | 2, 1 << 20 | 1 << 16 | 1, 0, 1 << 20 | 1 << 16 | 1]
    pins = [(one.index, one.timestamp - lead_us) for one in found if isinstance(one, kinds.ReadoutPinValue)]
    assert pins[:3] == [(1, 10_000), (1, 20_000), (1, 40_000)]
    assert not any(isinstance(one, kinds.Spike) for one in found)
