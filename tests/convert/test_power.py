"""Power estimates: bands in order, every number with its source, published measurements inside their intervals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert import convert, count_synops, estimate_power, simulate
from spikeport.convert.errors import InputError
from spikeport.convert.power import compare_platforms, event_rates, find_profile
from spikeport.convert.profiles import Coefficient, PowerProfile, save_profile
from spikeport.convert.published import (
    LARGEST_FAN_OUT,
    MEASUREMENTS,
    PLATFORMS,
    PROFILES,
    SMALLEST_FAN_OUT,
    WARNING,
    Measurement,
)
from spikeport.convert.synops import EdgeTraffic, LayerSynops, SynopReport

from .event_loop import random_net, random_trace


def report_of(
    synops: int, *, routed: int = 0, n_input: int = 0, n_leaking: int = 0, window_s: float = 1.0
) -> SynopReport:
    layer = LayerSynops("all", 0, 0, synops, routed, 1, n_leaking)
    edge = EdgeTraffic("all", None, (1, 1), 0, routed, routed, 0)
    return SynopReport((layer,), 1, window_s, (edge,), n_input)


def charging(**mids: float) -> PowerProfile:
    """Return speck2f with other energies: of each kind ``mid`` joules, half and twice of it as its band."""
    speck = PROFILES["speck2f"]
    terms = []
    for term in speck.terms:
        mid = mids[term.kind]
        energy = dataclasses.replace(term.energy, low=mid / 2, mid=mid, high=2 * mid, source="test")
        terms.append(dataclasses.replace(term, energy=energy))
    return dataclasses.replace(speck, name="charging", terms=tuple(terms))


@pytest.mark.parametrize("hz", [-1.0, float("nan"), float("inf")])
def test_power_refuses_a_slow_clock_that_cannot_be(hz: float) -> None:
    with pytest.raises(InputError, match="slow clock of 0 ticks per second or more"):
        estimate_power(SynopReport((), 1, 1.0), slow_clock_hz=hz)


def test_power_refuses_unknown_profiles_and_empty_windows() -> None:
    with pytest.raises(InputError, match=r"power profile 'loihi': expected one of speck2f, planning.*or a \.json file"):
        estimate_power(SynopReport((), 1, 1.0), "loihi")
    with pytest.raises(InputError, match="window of 0 s"):
        estimate_power(SynopReport((), 1, 0.0))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(PROFILES)), st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1e4))
def test_bands_are_ordered_grow_with_synops_and_every_number_has_a_source(
    name: str, synops: int, more: int, hz: float
) -> None:
    low = estimate_power(report_of(synops, n_leaking=5), name, slow_clock_hz=hz)
    high = estimate_power(report_of(synops + more, n_leaking=5), name, slow_clock_hz=hz)
    for estimate in (low, high):
        assert 0 < estimate.low_w <= estimate.mid_w <= estimate.high_w
        assert 0 <= estimate.dynamic_low_w <= estimate.dynamic_mid_w <= estimate.dynamic_high_w
        assert sum(rail.mid_w for rail in estimate.rails) == pytest.approx(estimate.mid_w)
        assert sum(rail.low_w for rail in estimate.rails) <= estimate.low_w * (1 + 1e-12)
        assert sum(rail.high_w for rail in estimate.rails) >= estimate.high_w * (1 - 1e-12)
        assert all(rail.low_w <= rail.mid_w <= rail.high_w for rail in estimate.rails)
        assert all(coefficient.source and coefficient.date for coefficient in estimate.coefficients)
        assert json.loads(json.dumps(estimate.to_dict()))["profile"] == name
    assert high.mid_w >= low.mid_w


@settings(max_examples=50, deadline=None)
@given(
    *(st.floats(0, 1e-9) for _ in range(4)),
    *(st.integers(0, 10**7) for _ in range(3)),
    st.floats(0, 1e4),
    st.integers(0, 1000),
)
def test_power_is_rest_plus_energy_times_rate_of_each_kind(
    synop_j: float, routed_j: float, input_j: float, leak_j: float, synops: int, routed: int, n_input: int, hz: float,
    n_leaking: int,
) -> None:  # fmt: skip
    profile = charging(synops=synop_j, routed=routed_j, input=input_j, leak=leak_j)
    report = report_of(synops, routed=routed, n_input=n_input, n_leaking=n_leaking, window_s=0.5)
    estimate = estimate_power(report, profile, slow_clock_hz=hz)
    dynamic = 2 * (synops * synop_j + routed * routed_j + n_input * input_j) + hz * n_leaking * leak_j
    rest = sum(rail.rest.mid for rail in profile.rails)
    assert estimate.mid_w == pytest.approx(rest + dynamic)
    assert estimate.dynamic_mid_w == pytest.approx(dynamic)
    assert estimate.dynamic_low_w == pytest.approx(dynamic / 2)
    assert estimate.dynamic_high_w == pytest.approx(dynamic * 2)
    assert event_rates(report, slow_clock_hz=hz)["leak"] == hz * n_leaking


def test_a_profile_that_charges_for_what_a_report_does_not_count_is_refused() -> None:
    counted_by_layer = SynopReport(report_of(1000).layers, 1, 1.0)
    estimate_power(counted_by_layer)  # charges for synops and leak updates alone
    for kind in ("routed", "input"):
        profile = charging(**{"synops": 0.0, "routed": 0.0, "input": 0.0, "leak": 0.0, kind: 1e-12})
        with pytest.raises(InputError, match=r"charging.*which the report does not count. Try count_synops"):
            estimate_power(counted_by_layer, profile)
        estimate_power(report_of(1000), profile)


def test_leak_ticks_cost_as_much_as_synops() -> None:
    torch.manual_seed(0)
    net = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8)).net
    report = count_synops(net, simulate(net, np.ones((2, 1, 8, 8), int)))
    assert report.layers[0].n_leaking == 2 * 36
    ticking = estimate_power(report, slow_clock_hz=1000.0)
    still = estimate_power(report)
    synop = next(c for c in still.coefficients if c.unit == "J")
    assert ticking.dynamic_mid_w - still.dynamic_mid_w == pytest.approx(72 * 1000 * synop.mid)


@pytest.mark.parametrize("row", MEASUREMENTS, ids=lambda row: f"{row.task}-{row.network}")
@pytest.mark.parametrize("fan_out", [SMALLEST_FAN_OUT, LARGEST_FAN_OUT])
def test_a_published_measurement_lies_in_the_interval_of_every_profile_derived_from_it(
    row: Measurement, fan_out: int
) -> None:
    synops = SynopReport((LayerSynops("all", 0, 0, round(row.n_spikes * fan_out), 0, 1),), 1, row.window_s)
    for name in ("speck2f", f"speck-{row.task.lower()}"):
        processor = [rail for rail in estimate_power(synops, name).rails if rail.group == "processor"]
        estimate = estimate_power(synops, name)
        others_low = sum(rail.low_w for rail in estimate.rails if rail.group != "processor")
        others_high = sum(rail.high_w for rail in estimate.rails if rail.group != "processor")
        assert sum(rail.low_w for rail in processor) <= row.total_w <= sum(rail.high_w for rail in processor)
        assert estimate.low_w - others_low <= row.total_w <= estimate.high_w - others_high


def test_profiles_name_their_sources_and_what_is_not_known_apart() -> None:
    assert list(PROFILES) == ["speck2f", "planning", "speck-dvs-gesture", "speck-gait-day", "speck-gait-night"]
    for profile in PROFILES.values():
        energy = {term.kind: term.energy for term in profile.terms}
        for kind in ("routed", "input"):
            assert (energy[kind].low, energy[kind].high) == (0.0, 0.0)
            assert "contained in the energy of a synop" in energy[kind].source
        assert profile.core_limit.synops_per_s is None
        assert "no figure" in profile.core_limit.source
        assert energy["synops"].low < energy["synops"].high
    assert PROFILES["planning"].terms[0].energy.mid == 10e-12
    assert "planning value" in PROFILES["planning"].terms[0].energy.source
    assert PROFILES["speck2f"].terms[0].energy.mid == pytest.approx(17e-12, rel=0.01)


def test_a_profile_is_found_by_name_or_file(tmp_path: Path) -> None:
    save_profile(charging(synops=1e-12, routed=0, input=0, leak=0), tmp_path / "mine.json")
    assert find_profile("planning") is PROFILES["planning"]
    for path in (tmp_path / "mine.json", str(tmp_path / "mine.json")):
        assert estimate_power(report_of(10**9), find_profile(path)).dynamic_mid_w == pytest.approx(1e-3)


def test_other_platforms_come_with_source_and_warning() -> None:
    net = random_net(np.random.default_rng(1))
    report = count_synops(net, random_trace(np.random.default_rng(1), net))
    assert (report.n_samples, report.total > 0) == (2, True)
    rows = compare_platforms(report)
    assert [(row.platform, row.operation) for row in rows] == [(one.name, one.operation) for one in PLATFORMS]
    by_name = {(row.platform, row.operation): row for row in rows}
    loihi, mac = by_name["Loihi", "synop"], by_name["45 nm float32", "MAC"]
    assert loihi.mid_j == pytest.approx(23.6e-12 * report.total / 2)
    assert mac.mid_j == pytest.approx(4.6e-12 * sum(layer.n_macs or 0 for layer in report.layers))
    for row in rows:
        assert row.low_j <= row.mid_j <= row.high_j
        assert "a single figure, no band is published" in row.source
        assert row.warning == WARNING
    assert {row.operation for row in compare_platforms(report_of(5))} == {"synop", "AC"}


@pytest.mark.parametrize(("low", "mid", "high"), [(2, 1, 3), (1, 3, 2), (-1, 0, 1), (0, 0, np.inf), (np.nan, 1, 2)])
def test_a_band_is_in_order_finite_and_not_negative(low: float, mid: float, high: float) -> None:
    with pytest.raises(InputError, match="expected 0 <= low <= mid <= high"):
        Coefficient("energy", low, mid, high, "J", "test", "today")


def test_a_number_without_source_is_refused() -> None:
    with pytest.raises(InputError, match="expected a source, found none"):
        Coefficient("energy", 0, 1, 2, "J", " ", "today")
