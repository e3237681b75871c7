"""Runs in pieces and in threads: never a bit different from one run of everything."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy import dvs as dvs_module
from spikeport.deploy import session as session_module
from spikeport.deploy.dvs import entering
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import RecordingError, SettingError
from spikeport.deploy.layout import Fields
from spikeport.deploy.types import DvsConfig, Program, Recording
from spikeport.models.events import Events

from .programs import make_core, random_case, wide_case
from .reference import run_reference


def same_but_for_time(one: Recording, other: Recording) -> bool:
    return all(
        one.spikes[core].tobytes() == other.spikes[core].tobytes()
        and np.array_equal(one.states[core], other.states[core])
        and np.array_equal(one.counts[core], other.counts[core])
        and one.synops[core] == other.synops[core]
        and one.n_events[core] == other.n_events[core]
        and one.n_dropped[core] == other.n_dropped[core]
        for core in one.states
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.lists(st.floats(0, 1), max_size=6), st.sampled_from([None, 500.0, 20_000.0]))
def test_pieces_of_any_size_change_no_bit(seed: int, cuts: list[float], rate_hz: float | None) -> None:
    case = random_case(seed)
    events, emulator = case.events, Emulator(case.program, slow_clock_hz=rate_hz)
    whole = emulator.run(events, "all")
    session = emulator.stream("all")
    ends = [0, *sorted(int(cut * len(events)) for cut in cuts), len(events)]
    parts = [session.feed(events.part(first, last)) for first, last in itertools.pairwise(ends)]
    spikes = {core: np.concatenate([part[core] for part in parts]) for core in parts[0]}
    assert session.n_events == len(events)
    assert same_but_for_time(session.recording(spikes), whole)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 4), st.integers(1, 40), st.sampled_from([None, 500.0, 20_000.0]))
def test_cores_in_several_threads_change_no_bit(seed: int, workers: int, size: int, rate_hz: float | None) -> None:
    case = random_case(seed)
    emulator = Emulator(case.program, slow_clock_hz=rate_hz)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "part_size", lambda _: size)
        found = emulator.run(case.events, "all", workers=workers)
    assert same_but_for_time(found, emulator.run(case.events, "all"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_a_thousand_programs_whole_in_pieces_and_in_threads(first: int) -> None:
    for seed in range(first, first + 100):
        case = wide_case(seed) if seed % 5 == 0 else random_case(seed)
        emulator = Emulator(case.program, slow_clock_hz=case.slow_clock_hz)
        whole = emulator.run(case.events, "all")
        for core_id, core in run_reference(case.program, case.events, case.slow_clock_hz).items():
            assert whole.spikes[core_id].tolist() == core.spikes
            assert whole.states[core_id].tolist() == core.state
            assert whole.synops[core_id] == core.synops
        session = emulator.stream("all")
        parts = [session.feed(case.events.part(start, start + 7)) for start in range(0, len(case.events), 7)]
        spikes = {core: np.concatenate([part[core] for part in parts]) for core in parts[0]}
        assert same_but_for_time(session.recording(spikes), whole)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session_module, "part_size", lambda _: 5)
            assert same_but_for_time(emulator.run(case.events, "all", workers=3), whole)


def test_an_error_in_one_thread_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("as if the memory were full")

    monkeypatch.setattr(session_module, "_stamped", fail)
    with pytest.raises(RuntimeError, match="as if"):
        Emulator(case.program).run(case.events, "all", workers=3)


def test_a_long_recording_runs_in_pieces_that_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3)
    program, events = case.program, case.events
    whole = Emulator(program).run(events, "all")
    monkeypatch.setattr(session_module, "_PIECE", 7)
    monkeypatch.setattr(dvs_module, "PIECE", 7)
    assert same_but_for_time(Emulator(program).run(events, "all"), whole)


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_threads_change_no_bit(workers: int | None) -> None:
    case = random_case(4)
    n, emulator = len(case.events), Emulator(case.program)
    recordings = [case.events.part(first, n) for first in range(min(9, n))]
    found = emulator.run_many(recordings, "all", workers=workers)
    assert len(found) == len(recordings)
    for one, events in zip(found, recordings, strict=True):
        assert same_but_for_time(one, emulator.run(events, "all"))
    assert emulator.run_many([], workers=workers) == ()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([None, 500.0, 20_000.0]))
def test_events_that_are_put_into_the_entry_cores_are_those_of_the_recording(seed: int, rate_hz: float | None) -> None:
    case = random_case(seed)
    emulator = Emulator(case.program, slow_clock_hz=rate_hz)
    session = emulator.stream("all")
    places = dict.fromkeys(case.program.entry, entering(case.events, case.program.dvs))
    spikes = session.inject(places, np.asarray(case.events.t_us, np.int64))
    assert same_but_for_time(session.recording(spikes), emulator.run(case.events, "all"))


def test_time_passes_where_an_event_arrives_nowhere() -> None:
    core = make_core(3, bias=np.array([5]))
    program = Program("speck2fdevkit", (core,), (3,), DvsConfig(core.in_shape))
    session = Emulator(program, slow_clock_hz=1000.0).stream("all")
    assert session.inject({}, np.array([4_500]))[3].size == 0
    assert int(session.recording().states[3][0, 0, 0]) == 20
    (spike,) = session.inject({3: Fields(*(np.array([value]) for value in (1, 0, 0, 0)))}, np.array([5_000, 6_000]))[3]
    assert spike.tolist() == (2, 6_000, 0, 0, 0)
    with pytest.raises(RecordingError, match="expected times from 6000 us on"):
        session.inject({}, np.array([5_999]))
    with pytest.raises(RecordingError, match="expected at most 131072, found 131073"):
        session.inject({}, np.full(131_073, 7_000))


def test_a_recording_of_a_session_is_not_changed_by_later_events() -> None:
    case = random_case(5)
    program, events = case.program, case.events
    session = Emulator(program).stream()
    session.feed(events)
    before = session.recording()
    copies = {core: state.copy() for core, state in before.states.items()}
    session.feed(Events(events.x, events.y, events.p, events.t_us + events.t_us[-1], events.sensor_size))
    assert all(np.array_equal(copies[core], state) for core, state in before.states.items())
    assert session.n_events == 2 * len(events)


def test_what_makes_no_sense_is_refused() -> None:
    case = random_case(6)
    program, events = case.program, case.events
    session = Emulator(program).stream()
    session.feed(events)
    late = int(events.t_us[-1])
    if late > int(events.t_us[0]):
        with pytest.raises(RecordingError, match=f"expected times from {late} us on"):
            session.feed(events)
    with pytest.raises(RecordingError, match="found 999x998"):
        session.feed(dataclasses.replace(events, sensor_size=(999, 998)).part(0, 0))
    with pytest.raises(SettingError, match="record: expected"):
        Emulator(program).stream("some")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="workers: expected 1 or more, found 0"):
        Emulator(program).run_many([events], workers=0)
    with pytest.raises(SettingError, match="workers: expected 1 or more, found 0"):
        Emulator(program).run(events, workers=0)


def test_a_run_of_a_program_needs_a_rate_that_is_a_number() -> None:
    case = random_case(7)
    rate: Any = np.int64(1000)
    assert Emulator(case.program, slow_clock_hz=rate).rate_hz == 1000
    with pytest.raises(SettingError, match="positive number"):
        Emulator(case.program, slow_clock_hz=10**400)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000), st.floats(0, 1), st.sampled_from([None, 500.0, 20_000.0]))
def test_a_copy_goes_on_as_the_run_itself_does_and_alone(seed: int, share: float, rate_hz: float | None) -> None:
    case = random_case(seed)
    events, emulator = case.events, Emulator(case.program, slow_clock_hz=rate_hz)
    cut = int(share * len(events))
    session = emulator.stream("all")
    session.feed(events.part(0, cut))
    other, idle = session.copy(), session.copy()
    before = idle.recording({})
    first, second = (one.recording(one.feed(events.part(cut, len(events)))) for one in (session, other))
    assert same_but_for_time(first, second)
    whole = emulator.run(events, "all")
    assert same_but_for_time(dataclasses.replace(first, spikes=whole.spikes), whole)
    assert dataclasses.replace(idle.recording({}), wall_s=0.0).same(dataclasses.replace(before, wall_s=0.0))
    numbers = (whole.n_events, whole.n_spikes, whole.synops, whole.n_dropped)
    for row, core in zip(session.progress().tolist(), case.program.cores, strict=True):
        assert row == [one[core.core] for one in numbers]
        assert np.array_equal(session.spike_map(core.core), whole.counts[core.core].sum(axis=0))
