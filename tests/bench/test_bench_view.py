"""The benchmark of the live view: its source counts exactly, its page of figures says what was found."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeport.deploy.bench.browser import find_missing
from spikeport.deploy.bench.view import Exact, Shown, Slow, ViewBenchmark, _checks
from spikeport.deploy.bench.viewed import SteadyReel
from spikeport.deploy.bench.viewpage import view_markdown

from ..invoke import spikeport  # noqa: TID252

REEL = SteadyReel((8, 8), 1000)


@given(st.lists(st.integers(0, 3_500_000), min_size=1, max_size=8))
def test_the_source_gives_each_event_once_and_counts_them(cuts: list[int]) -> None:
    times = [0, *sorted(cuts)]
    pieces = [REEL.take(first, last) for first, last in itertools.pairwise(times)]
    assert sum(map(len, pieces)) == REEL.count(times[-1]) == len(REEL.take(0, times[-1]))
    joined = np.concatenate([piece.t_us for piece in pieces])
    assert np.array_equal(joined, REEL.take(0, times[-1]).t_us)
    assert np.all(np.diff(joined) >= 0)


def made(*, fps: float = 30.0, p95_ms: float = 50.0, n_events: int = 7, largest_ms: float = 500.0) -> ViewBenchmark:
    shown = Shown(120_000, 60.0, 1800, fps, 20.0, p95_ms, 0.3, None)
    exact = Exact(1_000_000, 1_000_000, n_events, 7, 30.0)
    slow = Slow(0.4, 70, 400.0, largest_ms, 1 << 28, 1 << 28)
    setting = {"command": "spikeport bench view", "date": "today", "machine": "a machine", "versions": {"numpy": "2"}}
    return ViewBenchmark(setting, shown, exact, slow, tuple(_checks(shown, exact, slow)), ())


def test_each_aim_can_be_missed() -> None:
    assert [check.is_met for check in made().checks] == [True] * 4
    assert [check.is_met for check in made(fps=24.9).checks] == [False, True, True, True]
    assert [check.is_met for check in made(p95_ms=150.0).checks] == [False, True, True, True]
    assert [check.is_met for check in made(n_events=6).checks] == [True, False, True, True]
    assert [check.is_met for check in made(largest_ms=1000.0).checks] == [True, True, False, True]


def test_its_section_has_a_row_for_each_part() -> None:
    text = view_markdown(made())
    assert text.startswith("# Live view")
    assert text.count("- PASS") == 4
    assert "| 120,000 | 30 | 20 | 50 | 0.3 |  |" in text


def test_repeats_are_those_of_other_benchmarks(tmp_path: Path) -> None:
    done = spikeport("bench", "view", "--repeats", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert "bench view: expected no --repeats" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_quick_run_as_a_user_would_start_it(tmp_path: Path) -> None:
    done = spikeport("bench", "view", "--quick", "--json", "--out", "page.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["slow"]["n_frames"] > 1
    if find_missing() is None:
        assert found["shown"]["n_frames"] > 1
        assert found["exact"]["n_events"] == found["exact"]["n_source"] > 0
    else:
        assert found["absent"] == [find_missing()]
    assert "`spikeport bench view --quick`" in (tmp_path / "page.md").read_text()
