"""Windows: stretches cut anywhere give the same ones, knobs wait for the next one, nothing is counted twice or lost."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.deploy.errors import RecordingError, SettingError
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.types import CoreCounts, OutputSpikes, Stretch, Window
from spikeport.deploy.view.windows import Windows
from spikeport.models.events import Events

N = 4
KNOBS = ViewSettings(interval_ms=1.0)
CUTS = st.lists(st.integers(0, 9_000), max_size=6)


def take(seed: int, start_us: int, stop_us: int, *, power_w: float | None = 1.0, synops: int | None = 5) -> Stretch:
    """Return what a stretch of a random reel of 9 ms holds: the same events and spikes however it is cut."""
    rng = np.random.default_rng(seed)
    times, due = (np.sort(rng.integers(0, 9_000, n)) for n in (40, 25))
    x, y, p, label = (rng.integers(low, high, n) for low, high, n in ((0, 5, 40), (0, 5, 40), (0, 2, 40), (-1, N, 25)))
    given_ = (times >= start_us) & (times < stop_us)
    sent = (due >= start_us) & (due < stop_us)
    return Stretch(
        start_us,
        stop_us,
        Events(x[given_], y[given_], p[given_], times[given_], (5, 5)),
        OutputSpikes(due[sent], label[sent].astype(np.int16)),
        {2: CoreCounts(None, None, synops if stop_us > start_us else 0, None)},
        {},
        None if power_w is None else {"io": power_w},
    )


def one_spike(t_us: int) -> OutputSpikes:
    return OutputSpikes(np.array([t_us]), np.array([2], np.int16))


def stretches(seed: int, cuts: Sequence[int], *, start_us: int = 0, stop_us: int = 9_000) -> list[Stretch]:
    bounds = [start_us, *sorted(cut for cut in cuts if start_us <= cut <= stop_us), stop_us]
    return [take(seed, start, stop) for start, stop in itertools.pairwise(bounds)]


def run(windows: Windows, parts: Sequence[Stretch]) -> list[Window]:
    return [*itertools.chain(*map(windows.add, parts)), *windows.finish()]


def told(window: Window) -> tuple[object, ...]:
    """Return what does not depend on how stretches are cut."""
    return (
        window.index, window.start_us, window.stop_us, window.counts.tolist(), window.winner, window.label,
        window.n_events, window.is_open,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), CUTS, CUTS, st.integers(1, 9_000), st.integers(1_000, 4_000))
def test_stretches_cut_anywhere_give_the_same_windows_and_counts_add_up(
    seed: int, cuts: list[int], others: list[int], stop_us: int, interval_us: int
) -> None:
    knobs = ViewSettings(interval_ms=interval_us / 1e3, threshold=2, low=0, high=6, default_class=1)
    one, other = Windows(N, knobs), Windows(N, knobs)
    found = run(one, stretches(seed, cuts, stop_us=stop_us))
    assert [told(window) for window in found] == [told(w) for w in run(other, stretches(seed, others, stop_us=stop_us))]
    whole = take(seed, 0, stop_us)
    assert sum(window.n_events for window in found) == len(whole.events)
    assert np.array_equal(np.sum([window.counts for window in found], axis=0), one.so_far)
    assert np.array_equal(one.so_far, np.bincount(whole.spikes.label[whole.spikes.label >= 0], minlength=N))
    assert [window.stop_us for window in found if not window.is_open] == list(
        range(interval_us, stop_us + 1, interval_us)
    )
    assert sum(window.is_open for window in found) == (stop_us % interval_us > 0)
    assert (
        sum(window.synops or 0 for window in found)
        == 5 * len({0, stop_us, *(cut for cut in cuts if cut < stop_us)}) - 5
    )
    assert all(dict(window.power_w or {}) == pytest.approx({"io": 1.0}) for window in found)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500), st.sets(st.integers(1, 8_999), max_size=6))
def test_synops_of_stretches_that_end_with_windows_are_those_of_their_window(seed: int, cuts: set[int]) -> None:
    ends = sorted(cuts | set(range(1_000, 9_000, 1_000)))
    for window in run(Windows(N, KNOBS), stretches(seed, ends)):
        assert window.synops == 5 * sum(window.start_us <= start < window.stop_us for start in (0, *ends))


def test_a_long_silence_gives_every_window_once() -> None:
    windows = Windows(N, KNOBS)
    silent = dataclasses.replace(take(0, 0, 0), stop_us=5_500)
    found = windows.add(silent)
    assert [window.stop_us for window in found] == [1000, 2000, 3000, 4000, 5000]
    assert all((window.winner, window.label, window.n_events) == (None, None, 0) for window in found)
    assert windows.next_end_us == 6_000
    skipped = windows.add(dataclasses.replace(take(0, 0, 0), start_us=7_200, stop_us=7_300))
    assert [(window.stop_us, window.synops) for window in skipped] == [(6000, 0), (7000, 0)]
    assert [(window.stop_us, window.synops, window.is_open) for window in windows.finish()] == [(7300, 0, True)]
    assert windows.finish() == ()


@given(CUTS)
@settings(max_examples=20, deadline=None)
def test_power_is_equal_to_the_last_bit_however_stretches_are_cut(cuts: list[int]) -> None:
    def powers(at: list[int]) -> list[object]:
        windows = Windows(N, ViewSettings(interval_ms=9.0))
        ends = sorted({0, 9_000, *at})
        pieces = [take(1, *span, power_w=0.1 / 3) for span in itertools.pairwise(ends)]
        return [window.power_w for piece in pieces for window in windows.add(piece)]

    assert powers(cuts) == powers([]) == [{"io": 0.033333333}]


def test_power_is_the_mean_over_the_time_that_has_any_and_unknown_synops_stay_unknown() -> None:
    windows = Windows(N, KNOBS)
    windows.add(take(0, 0, 100, power_w=2.0))
    windows.add(take(0, 100, 700, power_w=None, synops=None))
    (first,) = windows.add(take(0, 700, 1_000, power_w=6.0))
    assert dict(first.power_w or {}) == pytest.approx({"io": 5.0})
    assert first.synops is None
    (second,) = windows.add(take(0, 1_000, 2_000, power_w=None))
    assert (second.power_w, second.synops) == (None, 5)


# knobs


def test_knobs_wait_for_the_next_window() -> None:
    windows = Windows(N, ViewSettings(interval_ms=10.0, default_class=0))
    windows.add(dataclasses.replace(take(0, 0, 0), stop_us=4_000, spikes=one_spike(10)))
    knobs = ViewSettings(interval_ms=3.0, threshold=2, default_class=1)
    windows.set(knobs)
    assert windows.knobs == knobs
    assert windows.next_end_us == 10_000
    found = windows.add(dataclasses.replace(take(0, 0, 0), start_us=4_000, stop_us=13_000, spikes=one_spike(12_500)))
    assert [(one.index, one.start_us, one.stop_us, one.winner, one.label) for one in found] == [
        (0, 0, 10_000, 2, 2),
        (3, 10_000, 12_000, None, 1),
    ]
    assert [(one.start_us, one.winner, one.label) for one in windows.finish()] == [(12_000, None, 1)]


def test_knobs_hold_at_once_where_the_window_has_not_begun() -> None:
    windows = Windows(N, ViewSettings(interval_ms=10.0))
    windows.set(ViewSettings(interval_ms=5.0, default_class=3))
    assert windows.next_end_us == 5_000
    (window,) = windows.add(dataclasses.replace(take(0, 0, 0), stop_us=5_000))
    assert window.label == 3


def test_a_default_class_that_there_is_not_is_refused_and_changes_nothing() -> None:
    knobs = ViewSettings(default_class=N)
    with pytest.raises(SettingError, match=r"default_class: expected one of the 4 classes.*found 4"):
        Windows(N, knobs)
    windows = Windows(N, KNOBS)
    with pytest.raises(SettingError, match="default_class"):
        windows.set(knobs)
    assert windows.knobs == KNOBS


# seeking


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500), st.integers(0, 8_999), CUTS)
def test_windows_after_a_seek_are_those_of_a_run_from_the_start(seed: int, t_us: int, cuts: list[int]) -> None:
    whole, windows = Windows(N, KNOBS), Windows(N, KNOBS)
    expected = run(whole, stretches(seed, cuts))
    run(windows, stretches(seed, cuts, stop_us=4_700))
    start_us = t_us - t_us % 1_000
    before = take(seed, 0, start_us).spikes.label
    windows.reset(t_us, so_far=np.bincount(before[before >= 0], minlength=N))
    assert windows.next_end_us == start_us + 1_000
    found = run(windows, stretches(seed, cuts, start_us=start_us))
    assert [told(window) for window in found] == [told(window) for window in expected[start_us // 1_000 :]]
    assert np.array_equal(windows.so_far, whole.so_far)
    windows.reset()
    assert windows.so_far.tolist() == [0] * N
    assert [told(window) for window in run(windows, stretches(seed, cuts))] == [told(window) for window in expected]


def test_stretches_that_go_back_without_a_reset_are_refused() -> None:
    windows = Windows(N, KNOBS)
    windows.add(take(0, 0, 500))
    with pytest.raises(RecordingError, match="from 500 us on"):
        windows.add(take(0, 200, 600))


def test_so_far_is_a_copy_that_cannot_be_written() -> None:
    windows = Windows(N, KNOBS)
    before = windows.so_far
    windows.add(take(0, 0, 9_000))
    assert before.sum() == 0
    with pytest.raises(ValueError, match="read-only"):
        windows.so_far[0] = 1


# time and readouts of one's own


def test_latency_counts_from_when_the_window_was_due() -> None:
    windows = Windows(N, KNOBS)
    before = time.perf_counter()
    (window,) = windows.add(take(0, 0, 1_000), due_s=before - 5.0)
    assert 5.0 <= window.latency_s <= time.perf_counter() - before + 5.0
    (now,) = windows.add(take(0, 1_000, 2_000))
    (early,) = windows.add(take(0, 2_000, 3_000), due_s=time.perf_counter() + 100.0)
    assert 0.0 <= now.latency_s <= time.perf_counter() - before
    assert early.latency_s == 0.0


def test_an_own_readout_takes_the_place_of_the_majority() -> None:
    seen = []

    def second(counts: NDArray[np.int64]) -> int | None:
        seen.append(counts.tolist())
        return int(np.argsort(counts, kind="stable")[-2]) if counts.sum() > 1 else None

    windows = Windows(N, ViewSettings(interval_ms=1.0, threshold=1000, default_class=3), second)
    found = run(windows, stretches(3, []))
    assert [window.counts.tolist() for window in found] == seen
    assert [window.winner for window in found] == [
        int(np.argsort(counts, kind="stable")[-2]) if sum(counts) > 1 else None for counts in seen
    ]
    assert all(window.label == (3 if window.winner is None else window.winner) for window in found)
    numpy_int = Windows(N, KNOBS, lambda counts: counts.argmax())
    (window,) = numpy_int.add(take(3, 0, 1_000))
    assert type(window.winner) is int


@pytest.mark.parametrize(
    ("said", "found"), [(4, "found 4 of type int"), (-1, "found -1"), (True, "type bool"), ("2", "'2'"), (1.0, "float")]
)
def test_a_readout_that_gives_no_class_is_named(said: object, found: str) -> None:
    def broken(counts: NDArray[np.int64]) -> object:
        return said

    windows = Windows(N, KNOBS, broken)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=rf"readout 'broken': expected one of the 4 classes.*{found}.*Try"):
        windows.add(take(0, 0, 1_000))


def test_after_a_readout_that_raises_the_next_window_is_whole() -> None:
    asked = []

    def fragile(counts: NDArray[np.int64]) -> int:
        asked.append(counts)
        return 1 // (len(asked) - 1)

    windows, plain = Windows(N, KNOBS, fragile), Windows(N, KNOBS)
    with pytest.raises(SettingError, match=r"readout 'fragile'.*ZeroDivisionError.*Try it on numpy.zeros\(4, int\)"):
        windows.add(take(0, 0, 1_500))
    plain.add(take(0, 0, 1_500))
    (found,), (expected,) = (one.add(take(0, 1_500, 2_000)) for one in (windows, plain))
    assert (found.counts.tolist(), found.n_events, found.synops) == (
        expected.counts.tolist(),
        expected.n_events,
        expected.synops,
    )
    assert np.array_equal(windows.so_far, plain.so_far)


def test_a_readout_that_is_no_function_is_refused() -> None:
    with pytest.raises(SettingError, match="readout: expected a function of the counts, found 3"):
        Windows(N, KNOBS, 3)  # type: ignore[arg-type]


def test_a_program_without_classes_has_windows_that_decide_nothing() -> None:
    windows = Windows(0, KNOBS)
    found = run(windows, stretches(0, []))
    assert len(found) == 9
    assert all(window.winner is None and len(window.counts) == 0 for window in found)
