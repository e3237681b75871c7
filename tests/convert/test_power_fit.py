"""Fitted profiles: known coefficients come back, least squares obeys its conditions, bad logs are named."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.convert import estimate_power
from spikeport.convert.errors import InputError, PowerFileError
from spikeport.convert.powerfit import (
    RAIL_COLUMNS,
    RATE_COLUMNS,
    RailLog,
    fit_profile,
    read_rail_log,
    solve_nonnegative,
)
from spikeport.convert.profiles import KINDS, Kind, PowerProfile

from .test_power import report_of

RAILS = {rail: index for index, (rail, _) in enumerate(RAIL_COLUMNS.values())}
REST_W = np.array([61.7e-6, 51.7e-6, 367e-6, 78.9e-6, 610.9e-6])
ENERGY_J = {  # per rail: io, ram, logic, pixel digital, pixel analog
    "synops": np.array([0.0, 9e-12, 8e-12, 0.0, 0.0]),
    "routed": np.array([0.0, 0.0, 150e-12, 0.0, 0.0]),
    "input": np.array([300e-12, 0.0, 80e-12, 500e-12, 200e-12]),
    "leak": np.array([0.0, 12e-12, 3e-12, 0.0, 0.0]),
}
HIGHEST_PER_S: dict[Kind, float] = {"synops": 5e8, "routed": 5e6, "input": 1e6, "leak": 1e8}


def simulated_log(
    seed: int, n: int = 60, *, noise_w: float = 0.0, unused: tuple[Kind, ...] = (), source: str = "simulated"
) -> RailLog:
    """Return a log that follows the model with ``ENERGY_J``, and Gaussian noise on each rail."""
    rng = np.random.default_rng(seed)
    rates = {kind: rng.uniform(0, top, n) * (kind not in unused) for kind, top in HIGHEST_PER_S.items()}
    power = REST_W[:, None] + sum(ENERGY_J[kind][:, None] * rates[kind] for kind in KINDS)
    power = np.maximum(power + rng.normal(0, noise_w, power.shape), 0)
    return RailLog(rates, {rail: power[index] for rail, index in RAILS.items()}, source)


def energies(profile: PowerProfile, rail: str) -> dict[Kind, tuple[float, float, float]]:
    return {
        term.kind: (term.energy.low, term.energy.mid, term.energy.high)
        for term in profile.terms
        if term.shares[0].rail == rail
    }


def test_logs_without_noise_give_the_coefficients_back() -> None:
    profile = fit_profile([simulated_log(0, 20), simulated_log(1, 20)], name="mine", date="today", offset_w=0.0)
    for rail, index in RAILS.items():
        assert profile.rails[index].rest.mid == pytest.approx(REST_W[index], rel=1e-9)
        for kind, (_, mid, _) in energies(profile, rail).items():
            assert mid == pytest.approx(ENERGY_J[kind][index], rel=1e-9, abs=1e-21)


def test_noisy_logs_give_bands_around_the_coefficients() -> None:
    """Two standard errors hold about 95 % of the coefficients; the seeds are fixed."""
    n_inside, n_all = 0, 0
    for seed in range(40):
        profile = fit_profile(simulated_log(seed, noise_w=10e-6), name="mine", date="today", offset_w=0.0)
        for rail, index in RAILS.items():
            rest = profile.rails[index].rest
            bands = [(REST_W[index], (rest.low, rest.mid, rest.high))]
            bands += [(ENERGY_J[kind][index], band) for kind, band in energies(profile, rail).items()]
            for truth, (low, mid, high) in bands:
                assert 0 <= low <= mid < high
                n_inside += low <= truth <= high
                n_all += 1
    assert n_all == 40 * 5 * 5
    assert 0.93 <= n_inside / n_all < 1


def test_bands_shrink_with_longer_logs_and_every_coefficient_names_its_log() -> None:
    short, long = (
        fit_profile(simulated_log(3, n, noise_w=20e-6, source="day1.csv"), name="mine", date="2026-03-01")
        for n in (20, 2000)
    )
    for profile, n in ((short, 20), (long, 2000)):
        coefficients = estimate_power(report_of(1, routed=1, n_input=1), profile).coefficients
        assert len(coefficients) == 5 + 5 * 4
        assert all(one.source.startswith(f"fitted: {n} intervals, 2026-03-01, day1.csv") for one in coefficients)
        assert all("two standard errors" in one.source for one in coefficients)

    def width(profile: PowerProfile) -> float:
        low, _, high = energies(profile, "logic")["synops"]
        return high - low

    assert width(long) < width(short) / 5


def test_a_fitted_profile_predicts_the_power_of_a_load_it_has_not_seen() -> None:
    profile = fit_profile(simulated_log(5, 200, noise_w=10e-6), name="mine", date="today")
    estimate = estimate_power(
        report_of(100_000_000, routed=1_000_000, n_input=200_000, n_leaking=1000), profile, slow_clock_hz=5000.0
    )
    rates = {"synops": 1e8, "routed": 1e6, "input": 2e5, "leak": 5e6}
    truth = REST_W.sum() + sum(ENERGY_J[kind].sum() * rate for kind, rate in rates.items())
    assert estimate.low_w <= truth <= estimate.high_w
    assert estimate.mid_w == pytest.approx(truth, rel=0.01)
    for rail in estimate.rails:
        expected = sum(ENERGY_J[kind][RAILS[rail.name]] * rate for kind, rate in rates.items())
        assert rail.low_w <= REST_W[RAILS[rail.name]] + expected <= rail.high_w


def test_the_offset_of_the_meter_widens_the_rest_alone() -> None:
    log = simulated_log(0, 30)
    without, with_offset = (fit_profile(log, name="mine", date="today", offset_w=w) for w in (0.0, 50e-6))
    for before, after in zip(without.rails, with_offset.rails, strict=True):
        assert after.rest.high - before.rest.high == pytest.approx(50e-6)
        assert after.rest.low == pytest.approx(max(before.rest.low - 50e-6, 0.0))
    assert without.terms == with_offset.terms


def test_what_never_happens_in_the_logs_stays_unknown() -> None:
    profile = fit_profile(simulated_log(0, unused=("leak", "input")), name="mine", date="today")
    for term in profile.terms:
        if term.kind in ("leak", "input"):
            assert (term.energy.low, term.energy.high) == (0.0, 0.0)
            assert term.energy.source.startswith(f"unknown: no {RATE_COLUMNS[term.kind]} above 0")
    assert energies(profile, "ram")["synops"][1] == pytest.approx(9e-12)


def brute_force(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Return the smallest residual over every choice of the columns that may be above 0."""
    best = float(np.linalg.norm(target))
    n = matrix.shape[1]
    matrix = matrix / np.linalg.norm(matrix, axis=0)  # lstsq would take a small column for rounding
    for size in range(1, n + 1):
        for chosen in itertools.combinations(range(n), size):
            part = matrix[:, list(chosen)]
            x = np.linalg.lstsq(part, target, rcond=None)[0]
            if (x >= 0).all():
                best = min(best, float(np.linalg.norm(part @ x - target)))
    return best


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from(["any", "twins", "scales"]))
def test_least_squares_obey_the_optimality_conditions_and_brute_force(n: int, m: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(m, n))
    if kind == "twins":
        matrix[:, -1] = matrix[:, 0]
    if kind == "scales":
        matrix *= 10.0 ** rng.integers(-8, 9, n)
    target = rng.normal(size=m)
    x = solve_nonnegative(matrix, target)
    norms = np.linalg.norm(matrix, axis=0)
    gradient = matrix.T @ (matrix @ x - target) / norms
    assert (x >= 0).all()
    assert (gradient >= -1e-9).all()
    np.testing.assert_allclose(gradient * x * norms, 0, atol=1e-8 * max(1.0, float((x * norms).max())))
    assert float(np.linalg.norm(matrix @ x - target)) == pytest.approx(brute_force(matrix, target), abs=1e-9)


def test_least_squares_of_nothing_is_nothing() -> None:
    np.testing.assert_array_equal(solve_nonnegative(np.ones((3, 2)), np.zeros(3)), 0)
    np.testing.assert_array_equal(solve_nonnegative(np.zeros((3, 2)), np.ones(3)), 0)
    np.testing.assert_array_equal(solve_nonnegative(np.ones((3, 1)), -np.ones(3)), 0)


HEADER = "synops_per_s,routed_per_s,input_per_s,leak_per_s,ram_w,logic_w"


def write_log(path: Path, log: RailLog) -> None:
    columns = {column: log.rates[kind] for kind, column in RATE_COLUMNS.items()}
    columns |= {column: log.power_w[rail] for column, (rail, _) in RAIL_COLUMNS.items()}
    lines = [",".join(repr(float(value)) for value in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(["# a comment", ",".join(columns), "", *lines]) + "\n", encoding="utf-8-sig")


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = simulated_log(0, noise_w=1e-5, source="rails.csv")
    write_log(tmp_path / "rails.csv", log)
    found = read_rail_log(tmp_path / "rails.csv")
    assert len(found) == 60
    assert found.source == "rails.csv"
    for kind in KINDS:
        np.testing.assert_array_equal(found.rates[kind], log.rates[kind])
    for rail in RAILS:
        np.testing.assert_array_equal(found.power_w[rail], log.power_w[rail])
    assert fit_profile(found, name="a", date="b") == fit_profile(log, name="a", date="b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line of column names, found no line"),
        ("# only a comment\n", "found no line"),
        (HEADER.replace("routed", "rooted"), "no column routed_per_s; unknown columns 'rooted_per_s'"),
        (HEADER.replace(",ram_w,logic_w", ""), "no column of a rail"),
        (HEADER.replace("ram_w", "logic_w"), "columns twice: logic_w"),
        (f"{HEADER}\n1,2,3,4,5e-3", "line 2: expected 6 cells, found 5"),
        (f"{HEADER}\n1,2,3,4,5e-3,1e-3\n1,2,3,x,5e-3,1e-3", "line 3, leak_per_s: expected a number .* found 'x'"),
        (f"{HEADER}\n1,nan,3,4,5e-3,1e-3", "line 2, routed_per_s: expected a number of 0 or more, found 'nan'"),
        (f"{HEADER}\n1,2,3,4,-5e-3,1e-3", "line 2, ram_w: expected a number of 0 or more, found '-5e-3'"),
        (f"{HEADER}\n1,2,inf,4,5e-3,", "line 2, input_per_s: .*; line 2, logic_w: .* found ''"),
        (f"{HEADER}\n" + "a,b,c,d,e,f\n" * 3, "line 2, logic_w|13 further"),
    ],
)
def test_every_bad_place_of_a_log_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rails.csv").write_text(text)
    with pytest.raises(PowerFileError, match=message) as raised:
        read_rail_log(tmp_path / "rails.csv")
    assert str(raised.value).startswith("rails.csv: ")
    assert "Try " in str(raised.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rails.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "rails.csv", tmp_path / "missing.csv", tmp_path):
        with pytest.raises(PowerFileError, match="expected a rail log in CSV, found"):
            read_rail_log(path)


def test_too_few_intervals_and_columns_that_vary_together_are_refused() -> None:
    with pytest.raises(PowerFileError, match=r"expected at least 15 intervals for 5 unknowns .* found 14"):
        fit_profile(simulated_log(0, 14), name="mine", date="today")
    with pytest.raises(PowerFileError, match="expected at least 9 intervals for 3 unknowns"):
        fit_profile(simulated_log(0, 8, unused=("input", "leak")), name="mine", date="today")
    log = simulated_log(0)
    twins = RailLog({**log.rates, "routed": log.rates["synops"] / 100}, log.power_w, "rails.csv")
    with pytest.raises(PowerFileError, match=r"rails\.csv: .*collinear ones: synops_per_s, routed_per_s\. Try"):
        fit_profile(twins, name="mine", date="today")
    steady = RailLog({**log.rates, "leak": np.full(60, 100.0)}, log.power_w, "rails.csv")
    with pytest.raises(PowerFileError, match=r"collinear ones: power at rest, leak_per_s\. Try"):
        fit_profile(steady, name="mine", date="today")


def test_logs_that_do_not_belong_together_are_refused() -> None:
    log = simulated_log(0)
    fewer = RailLog(log.rates, {"ram": log.power_w["ram"]}, "other")
    with pytest.raises(InputError, match="one or more logs of the same rails"):
        fit_profile([log, fewer], name="mine", date="today")
    with pytest.raises(InputError, match="one or more logs"):
        fit_profile([], name="mine", date="today")
    with pytest.raises(InputError, match="offset of 0 W or more"):
        fit_profile(log, name="mine", date="today", offset_w=-1.0)


def test_a_log_record_checks_itself() -> None:
    log = simulated_log(0, 5)
    with pytest.raises(InputError, match="expected rates of synops, routed, input, leak, found none"):
        RailLog({}, log.power_w, "x")
    with pytest.raises(InputError, match="expected rails out of io"):
        RailLog(log.rates, {"sun": np.ones(5)}, "x")
    with pytest.raises(InputError, match="one value per interval"):
        RailLog(log.rates, {"ram": np.ones(4)}, "x")
    with pytest.raises(InputError, match="'ram': expected finite numbers of 0 or more"):
        RailLog(log.rates, {"ram": np.full(5, np.nan)}, "x")
