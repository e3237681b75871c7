"""Gauges: power is that of the estimate, and a sum is known where all of it is."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert.power import estimate_power, rail_power
from spikeport.convert.profiles import PowerProfile
from spikeport.convert.published import PROFILES
from spikeport.deploy.compare import count_traffic
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import SettingError
from spikeport.deploy.types import Recording
from spikeport.deploy.view.gauges import power_of, sum_told
from spikeport.deploy.view.types import CoreCounts
from tests.deploy.programs import random_case


def counts_of(recording: Recording) -> dict[int, CoreCounts]:
    return {
        core: CoreCounts(
            recording.n_events[core], recording.n_spikes[core], recording.synops[core], recording.n_dropped[core]
        )
        for core in recording.synops
    }


def charging_for_everything() -> PowerProfile:
    """Return speck2f with a different energy for each kind of event."""
    speck = PROFILES["speck2f"]
    terms = (
        dataclasses.replace(term, energy=dataclasses.replace(term.energy, low=i * 1e-9, mid=i * 2e-9, high=i * 3e-9))
        for i, term in enumerate(speck.terms, 1)
    )
    return dataclasses.replace(speck, terms=tuple(terms))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 10**7), st.sampled_from([None, 50.0]), st.booleans())
def test_power_of_a_whole_recording_is_the_estimate(
    seed: int, span_us: int, slow_clock_hz: float | None, everything: bool
) -> None:
    program = dataclasses.replace(random_case(seed).program, slow_clock_hz=slow_clock_hz)
    recording = Emulator(program).run(random_case(seed).events)
    report = count_traffic(program, [recording], window_s=span_us * 1e-6)
    profile = charging_for_everything() if everything else PROFILES["speck2f"]
    expected = estimate_power(report, profile, slow_clock_hz=slow_clock_hz or 0.0)
    figures: tuple[Literal["low", "mid", "high"], ...] = ("low", "mid", "high")
    for figure in figures:
        found = power_of(counts_of(recording), program, span_us=span_us, profile=profile, figure=figure)
        assert found is not None
        assert list(found) == [rail.name for rail in expected.rails]
        for rail in expected.rails:
            assert found[rail.name] == pytest.approx(getattr(rail, f"{figure}_w"))


def test_silent_stretches_and_those_of_no_length_draw_what_rests() -> None:
    program = random_case(1).program
    rest = {rail.name: rail.rest.mid for rail in PROFILES["speck2f"].rails}
    silent = {core.core: CoreCounts(0, 0, 0, 0) for core in program.cores}
    busy = {core.core: CoreCounts(9, 9, 9, 0) for core in program.cores}
    assert power_of(silent, program, span_us=1000) == rest
    assert power_of(busy, program, span_us=0) == rest
    with pytest.raises(SettingError, match="0 us or more, found -1"):
        power_of(silent, program, span_us=-1)


def test_power_is_not_known_where_a_core_does_not_tell_what_is_charged_for() -> None:
    program = random_case(1).program
    silent = {core.core: CoreCounts(None, None, 0, None) for core in program.cores}
    assert power_of(silent, program, span_us=10) is not None  # spikes are in the energy of a synop
    assert power_of(silent, program, span_us=10, profile=charging_for_everything()) is None
    assert power_of(silent | {program.cores[0].core: CoreCounts(0, 0, None, 0)}, program, span_us=10) is None
    assert power_of({}, program, span_us=10) is None


def test_another_slow_clock_than_the_program_s_is_charged_for() -> None:
    case = next(random_case(seed) for seed in range(20) if random_case(seed).program.cores[0].bias is not None)
    silent = {core.core: CoreCounts(0, 0, 0, 0) for core in case.program.cores}
    still, ticking = (power_of(silent, case.program, span_us=10, slow_clock_hz=hz) for hz in (0.0, 1000.0))
    assert still is not None
    assert ticking is not None
    assert ticking["logic"] > still["logic"]


def test_kinds_left_out_are_those_not_counted() -> None:
    rails = rail_power({"synops": 1e6, "leak": 0.0}, PROFILES["speck2f"])
    assert rails == rail_power({"synops": 1e6, "routed": None, "input": 5.0, "leak": 0.0}, PROFILES["speck2f"])


def test_a_sum_is_known_where_all_parts_are() -> None:
    assert (sum_told(()), sum_told((1, 2)), sum_told((1, None))) == (0, 3, None)
