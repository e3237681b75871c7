"""Recordings at other times: the emulator does the same with them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.retime import GAP_US, spread

from .programs import random_case


@given(st.integers(0, 2000), st.integers(1, 50_000) | st.none())
@settings(max_examples=40, deadline=None)
def test_events_are_apart_and_cause_what_they_caused(seed: int, period_us: int | None) -> None:
    case = random_case(seed)
    tempo = spread(case.events, period_us)
    assert (np.diff(tempo.events.t_us) >= GAP_US).all()
    assert (tempo.period_us is None) == (period_us is None)
    runs = []
    for events, period in ((case.events, period_us), (tempo.events, tempo.period_us)):
        hz = 0 if period is None else 1e6 / period
        runs.append(Emulator(case.program, slow_clock_hz=hz).run(events, "all"))
    expected, found = runs
    for core in expected.spikes:
        for name in ("event", "feature", "y", "x"):
            assert (expected.spikes[core][name] == found.spikes[core][name]).all()
        assert (expected.states[core] == found.states[core]).all()


def test_ticks_keep_clear_of_the_events() -> None:
    events = random_case(1).events
    tempo = spread(events, 1000)
    assert tempo.period_us is not None
    from_tick = tempo.events.t_us % tempo.period_us
    assert from_tick.min() >= GAP_US // 2
    assert (tempo.period_us - from_tick).min() >= GAP_US // 2
    assert (tempo.events.t_us // tempo.period_us == events.t_us // 1000).all()


@given(st.integers(0, 2000), st.integers(1, 900_000))
@settings(max_examples=40, deadline=None)
def test_the_longer_period_is_one_that_a_board_can_make(seed: int, period_us: int) -> None:
    longer = spread(random_case(seed).events, period_us).period_us
    assert longer is not None
    assert longer >= period_us
    assert round(1e6 / round(1e6 / longer)) == longer


def test_no_events_stay_none() -> None:
    nothing = random_case(1).events.part(0, 0)
    assert len(spread(nothing, None).events) == len(spread(nothing, 10).events) == 0
