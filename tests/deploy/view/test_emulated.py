"""The emulator in stretches: whatever they are, all of them together are one run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import InvalidProgramError, RecordingError, SettingError
from spikeport.deploy.types import DvsConfig, Program
from spikeport.deploy.view.emulated import EmulatedEngine
from spikeport.deploy.view.types import Stretch
from spikeport.models.events import Events
from tests.deploy.programs import make_core, random_case

from .played import classed_case, expected_of


def stretches_of(engine: EmulatedEngine, events: Events, ends: list[int]) -> list[Stretch]:
    start, found = 0, []
    for end in ends:
        found.append(engine.advance(events.window(start, end), end))
        start = end
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100_000), st.lists(st.integers(1, 50_000), max_size=6))
def test_any_stretches_are_one_run(seed: int, cuts: list[int]) -> None:
    case = classed_case(seed)
    events = case.events.from_zero()
    expected = expected_of(case)
    engine = EmulatedEngine(case.program, case.slow_clock_hz or 0)
    cores = [core.core for core in case.program.cores]
    engine.watch(cores)
    found = stretches_of(engine, events, [*sorted(cuts), int(events.t_us[-1]) + 50_001])
    assert np.concatenate([one.spikes.t_us for one in found]).tolist() == sorted(expected.t_us.tolist())
    labels = np.concatenate([one.spikes.label for one in found])
    assert np.array_equal(np.sort(labels), np.sort(expected.labels))
    for core in cores:
        counts = expected.recording.counts[core]
        assert np.array_equal(np.sum([one.maps[core] for one in found], axis=0), counts.sum(axis=0))
        told = [one.cores[core] for one in found]
        assert sum(one.n_spikes or 0 for one in told) == counts.sum()
        assert sum(one.synops or 0 for one in told) == expected.recording.synops[core]
        assert sum(one.n_events or 0 for one in told) == expected.recording.n_events[core]
        assert sum(one.n_dropped or 0 for one in told) == expected.recording.n_dropped[core]
    assert engine.final_class() == expected.final
    assert all(one.power_w for one in found if one.stop_us > one.start_us)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100_000), st.floats(0, 1))
def test_a_state_can_be_taken_up_as_often_as_wished(seed: int, share: float) -> None:
    case = classed_case(seed)
    events = case.events.from_zero()
    end_us = int(events.t_us[-1]) + 1
    cut_us = int(share * end_us)
    engine = EmulatedEngine(case.program, case.slow_clock_hz or 0)
    engine.watch(case.program.outputs)
    engine.advance(events.window(0, cut_us), cut_us)
    state = engine.keep()
    first = engine.advance(events.window(cut_us, end_us), end_us)
    final = engine.final_class()
    for _ in range(2):
        engine.take_up(state)
        assert engine.advance(events.window(cut_us, end_us), end_us).same(first)
        assert engine.final_class() == final
    engine.restart()
    assert engine.final_class() is None
    engine.advance(events, end_us)
    assert engine.final_class() == final == expected_of(case).final
    engine.close()


def test_leak_ticks_of_silent_stretches_are_due_before_the_next_event() -> None:
    core = make_core(3, bias=np.array([5]), weight=[[[[1]]]], threshold_high=20)
    program = Program("speck2fdevkit", (core,), (3,), DvsConfig(core.in_shape), slow_clock_hz=1000.0)
    at = np.zeros(1, np.int64)
    event = Events(at, at, at, np.array([4_500]), (1, 1))
    whole = Emulator(program).run(event)
    engine = EmulatedEngine(program)
    for end in (1_000, 2_500, 4_400):
        assert engine.advance(event.part(0, 0), end).cores[3].n_spikes == 0
    stretch = engine.advance(event, 5_000)
    assert stretch.cores[3].n_spikes == whole.n_spikes[3] == 1
    assert stretch.spikes.t_us.tolist() == [4_500]


def test_what_makes_no_sense_is_refused() -> None:
    case = random_case(3)
    events = case.events.from_zero()
    engine = EmulatedEngine(case.program)
    with pytest.raises(RecordingError, match="expected events from 0 us on and before its end"):
        engine.advance(events, int(events.t_us[-1]))
    engine.advance(events, int(events.t_us[-1]) + 1)
    with pytest.raises(RecordingError, match="Try pieces of one recording in their order"):
        engine.advance(events, 10**6)
    with pytest.raises(RecordingError, match="Try pieces of one recording in their order"):
        engine.advance(events.part(0, 0), 5)
    later = dataclasses.replace(events, t_us=events.t_us + 10**6, sensor_size=(999, 998))
    with pytest.raises(RecordingError, match="found 999x998"):
        engine.advance(later, 10**7)
    with pytest.raises(SettingError, match="watch: expected cores of the program"):
        engine.watch([99])
    with pytest.raises(SettingError, match="positive number"):
        EmulatedEngine(case.program, -1.0)


def test_a_program_of_more_classes_than_labels_can_tell_is_refused() -> None:
    core = make_core(0, weight=np.ones((1, 1, 1, 1), int), in_shape=(1, 190, 180))
    program = Program("speck2fdevkit", (core,), (0,), DvsConfig(core.in_shape))
    with pytest.raises(InvalidProgramError, match="at most 32767 classes to look at, found 34200"):
        EmulatedEngine(program)
