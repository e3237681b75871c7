"""A show: whatever its speed and pieces, and whatever is asked of it on the way, what it counts is one whole run."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.bench.workloads import Scope, nmnist_workload, recordings_workload
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import SettingError
from spikeport.deploy.readout import classify, count_classes, n_classes
from spikeport.deploy.view import playing as playing_module
from spikeport.deploy.view.emulated import EmulatedEngine
from spikeport.deploy.view.reels import RecordingReel
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from spikeport.deploy.view.types import Stretch
from spikeport.models.events import Events
from tests.shared import needs

from .played import WAIT_S, Log, check_played, classed_case, end_of, expected_of, open_show, play_out, same_windows

INTERVALS = st.sampled_from([1.0, 2.5, 7.0, 100.0])


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 100_000),
    INTERVALS,
    st.sampled_from([None, 30.0, 1000.0]),
    st.sampled_from([1.0, 30.0, 60.0]),
    st.integers(1, 40),
)
def test_any_speed_and_pieces_count_and_decide_alike(
    seed: int, interval_ms: float, speed: float | None, fps: float, n_most: int
) -> None:
    case = classed_case(seed)
    wished = ViewSettings(interval_ms=interval_ms, speed=speed, fps=fps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playing_module, "MAX_EVENTS", n_most)
        patch.setattr(playing_module, "_FEW_EVENTS", min(n_most, 3))
        show, log = open_show(case, wished)
        play_out(show)
    expected = expected_of(case)
    position = show.position()
    check_played(log, show.totals(), expected, wished.interval_us, end_of(show))
    assert position.has_ended
    assert not position.is_playing
    assert position.problem is None
    assert position.t_us == end_of(show)
    assert position.final == expected.final
    assert log.finals == [expected.final]
    assert show.finals() == {0: expected.final}
    assert show.so_far().tolist() == expected.counts(0, end_of(show))
    crowd = max(np.unique(case.events.t_us, return_counts=True)[1])
    assert all(len(stretch.events) <= max(n_most, 3, crowd) for stretch in log.stretches)
    show.close()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100_000), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans())
def test_steps_are_exact(seed: int, steps: list[int], has_thread: bool) -> None:
    case = classed_case(seed)
    wished = ViewSettings(interval_ms=4.0, step_ms=1.5, speed=1.0)
    show, log = open_show(case, wished)
    events, expected = case.events.from_zero(), expected_of(case)
    if has_thread:
        show.start()
    t_us = 0
    for n in steps:
        show.step(n)
        t_us = min(t_us + n * 1500, end_of(show))
        position = show.position()
        assert (position.t_us, position.is_playing, position.has_ended) == (t_us, False, t_us == end_of(show))
        assert show.totals().n_events == len(events.window(0, t_us))
        assert show.so_far().tolist() == expected.counts(0, t_us)
        if position.has_ended:
            break
    show.set_speed(None)
    if not show.position().has_ended:
        play_out(show)
    check_played(log, show.totals(), expected, 4000, end_of(show))
    show.close()


def counted(log: Log, until_us: int, n_classes: int) -> list[int]:
    """Return the spikes of each class before a time, one by one."""
    found = [0] * n_classes
    for stretch in log.stretches:
        for t_us, label in zip(stretch.spikes.t_us.tolist(), stretch.spikes.label.tolist(), strict=True):
            if t_us < until_us and label >= 0:
                found[label] += 1
    return found


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 100_000),
    INTERVALS,
    st.lists(st.integers(0, 60_000), min_size=1, max_size=6),
    st.sampled_from([(1, 1), (2, 3)]),
    st.integers(700, 9000),
)
def test_going_to_a_time_is_playing_to_there(
    seed: int, interval_ms: float, targets: list[int], kept: tuple[int, int], keep_us: int
) -> None:
    case = classed_case(seed)
    wished = ViewSettings(interval_ms=interval_ms, speed=None, decimate=kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikeport.deploy.view.transport.KEEP_US", keep_us)
        patch.setattr("spikeport.deploy.view.transport.MAX_KEPT", 3)
        patch.setattr(playing_module, "_SILENT_US", 1100)
        played, all_of_it = open_show(case, wished)
        played.step(10_000)
        show, log = open_show(case, wished)
        show.step(2)
        before = show.totals()
        for target in targets:
            show.seek(target)
            t_us = min(target, end_of(show))
            position = show.position()
            assert (position.t_us, position.has_ended, position.final) == (t_us, False, None)
            assert log.resets[-1].t_us == t_us
            assert show.so_far().tolist() == counted(all_of_it, t_us, len(show.so_far()))
        assert show.totals() == before
        last_us = show.position().t_us
        log.windows.clear()
        log.stretches.clear()
        show.step(10_000)
    assert same_windows(log.windows, [one for one in all_of_it.windows if one.stop_us > last_us or one.is_open])
    assert show.position().final == played.position().final
    assert show.so_far().tolist() == played.so_far().tolist()
    assert sum(len(one.events) for one in log.stretches) == sum(
        int((one.events.t_us >= last_us).sum()) for one in all_of_it.stretches
    )
    show.close()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100_000), st.tuples(*[st.floats(0, 1)] * 4))
def test_a_region_is_the_run_of_what_lies_in_it(seed: int, shares: tuple[float, ...]) -> None:
    case = classed_case(seed)
    events = case.events.from_zero()
    height, width = events.sensor_size
    top, left = int(shares[0] * (height - 1)), int(shares[1] * (width - 1))
    box = (top, top + 1 + int(shares[2] * (height - top - 1)), left, left + 1 + int(shares[3] * (width - left - 1)))
    inside = (events.y >= box[0]) & (events.y < box[1]) & (events.x >= box[2]) & (events.x < box[3])
    within = Events(events.x[inside], events.y[inside], events.p[inside], events.t_us[inside], events.sensor_size)
    show, log = open_show(case)
    show.set_roi(box)
    play_out(show)
    assert show.position().roi == box
    totals = show.totals()
    assert (totals.n_offered, totals.n_events) == (len(events), len(within))
    assert totals.n_left_out == len(events) - len(within)
    if len(within):
        check_played(log, totals, expected_of(case, within), 3000, end_of(show))
        assert show.position().final == expected_of(case, within).final
    show.close()


def test_a_region_changes_at_the_next_cut_and_going_back_plays_by_the_new_one() -> None:
    case = classed_case(5)
    show, _ = open_show(case, ViewSettings(interval_ms=3.0, step_ms=3.0, speed=None))
    show.step(2)
    offered = show.totals().n_offered
    show.set_roi((0, 1, 0, 1))
    show.step(2)
    events = case.events.from_zero()
    later = events.window(6000, 12_000)
    assert show.totals().n_left_out == int(((later.x > 0) | (later.y > 0)).sum())
    assert show.totals().n_offered == offered + len(later)
    show.seek(0)
    show.set_roi(None)
    assert show.position().roi is None
    show.seek(9000)
    assert show.so_far().tolist() == expected_of(case).counts(0, 9000)
    for box, found in (((0, 99, 0, 1), "within the sensor"), ((3, 3, 0, 1), "0 <= top < bottom"), ((1, 2), "roi: ")):
        with pytest.raises(SettingError, match=found):
            show.set_roi(box)  # type: ignore[arg-type]
    show.close()


def test_several_reels_follow_each_other_and_go_round() -> None:
    cases = [classed_case(20)]
    events = cases[0].events
    reels = [RecordingReel(events, "one", 0), RecordingReel(events.part(0, 9), "two", 10**6), RecordingReel(events)]
    ends = [reel.duration_us for reel in reels]
    show, log = open_show(cases[0], reels=reels)
    assert show.position().label == (0 if n_classes(cases[0].program) > 0 else None)
    play_out(show)
    assert [one.name for one in log.resets] == ["two", "recording"]
    assert log.resets[0].label is None  # no class of this program
    assert show.totals().n_events == sum(len(one) for one in (events, events, events.part(0, 9)))
    assert show.finals().keys() == {0, 1, 2}
    assert show.finals()[0] == show.finals()[2] == expected_of(cases[0]).final
    show.open(1)
    assert (show.position().name, show.position().t_us, show.position().n_reels) == ("two", 0, 3)
    show.step(10**6)
    assert (show.position().t_us, show.position().has_ended) == (ends[1], True)
    show.step(1)
    assert (show.position().reel, show.position().has_ended) == (2, ends[2] is not None and ends[2] <= 10_000)
    with pytest.raises(SettingError, match="open: expected a reel from 0 to 2, found 3"):
        show.open(3)
    show.close()
    show, log = open_show(cases[0], ViewSettings(interval_ms=3.0, speed=None, loop=True), reels=reels[:1])
    show.start()
    show.play()
    until = time.monotonic() + WAIT_S
    while len(log.resets) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    show.pause()
    assert len(log.resets) >= 3
    assert [one.is_open for one in log.windows if one.start_us == 0][:2] == [False, False]
    show.close()


def test_at_the_end_playing_on_begins_again() -> None:
    case = classed_case(21)
    show, log = open_show(case)
    play_out(show)
    first = list(log.windows)
    log.windows.clear()
    show.play()
    assert show.wait(WAIT_S)
    assert same_windows(log.windows, first)
    assert show.totals().n_windows == 2 * len(first)
    show.close()


def test_knobs_hold_from_the_next_window_on() -> None:
    case = classed_case(22)
    show, log = open_show(case, ViewSettings(interval_ms=2.0, step_ms=1.0, speed=None))
    show.step(3)
    show.set_knobs(interval_ms=5.0, default_class=0, threshold=10**6)
    show.step(10**6)
    assert [one.stop_us for one in log.windows][:3] == [2000, 4000, 5000]
    assert all(one.winner is None and one.label == 0 for one in log.windows[2:])
    assert show.settings.interval_ms == 5.0
    with pytest.raises(SettingError, match="knobs: expected some of"):
        show.set_knobs(fps=3)
    with pytest.raises(SettingError, match="interval_ms"):
        show.set_knobs(interval_ms=0)
    with pytest.raises(SettingError, match="default_class"):
        show.set_knobs(default_class=999)
    assert show.settings.threshold == 10**6
    show.close()


def test_the_map_of_a_core_is_that_of_its_spikes() -> None:
    case = classed_case(23)
    core = case.program.cores[0].core
    show, log = open_show(case)
    show.watch(core)
    play_out(show)
    counts = expected_of(case).recording.counts[core].sum(axis=0)
    assert np.array_equal(np.sum([one.maps[core] for one in log.stretches], axis=0), counts)
    show.watch(None)
    show.seek(0)
    show.step()
    assert not log.stretches[-1].maps
    with pytest.raises(SettingError, match="watch: expected cores"):
        show.watch(77)
    show.close()


def test_a_listener_may_ask_and_is_answered_after_it_returned() -> None:
    case = classed_case(24)

    class Pauser(Log):
        def on_stretch(self, stretch: Stretch) -> None:
            super().on_stretch(stretch)
            show.pause()

    show, log = open_show(case, ViewSettings(interval_ms=2.0, speed=None))
    pauser = Pauser()
    show.add_listener(pauser)
    play_out(show)
    assert len(pauser.stretches) == 1
    show.remove_listener(pauser)
    show.play()
    assert show.wait(WAIT_S)
    assert show.position().has_ended
    assert len(pauser.stretches) == 1 < len(log.stretches)
    show.close()


def test_recording_begins_with_where_it_is_and_ends_when_asked_or_closed(tmp_path: Path) -> None:
    case = classed_case(27)
    made: list[Log] = []

    def make(path: Path) -> Log:
        if path.name == "no":
            raise SettingError("record: no such place.")
        made.append(Log())
        return made[-1]

    show, _ = open_show(case, ViewSettings(interval_ms=2.0, step_ms=2.0, speed=None), recorder=make)
    show.step()
    show.record(tmp_path / "one")
    assert show.position().is_recording
    show.step()
    show.record(str(tmp_path / "two"))
    assert made[0].is_closed
    assert ([one.t_us for one in made[0].resets], len(made[0].windows)) == ([2000], 1)
    show.step()
    assert len(made[0].windows) == 1
    with pytest.raises(SettingError, match="no such place"):
        show.record(tmp_path / "no")
    assert made[1].is_closed
    assert not show.position().is_recording
    show.record(tmp_path / "three")
    show.close()
    assert made[2].is_closed
    plain, _ = open_show(case)
    with pytest.raises(SettingError, match="record: expected a show with a recorder"):
        plain.record(tmp_path / "four")
    plain.record(None)
    plain.close()


def test_events_of_one_time_are_in_one_stretch_only() -> None:
    case = classed_case(32)
    n = 500
    zeros = np.zeros(n, np.int64)
    times = np.repeat([0, 10, 11, 5000], [100, 300, 50, 50])
    reel = RecordingReel(Events(zeros, zeros, zeros, times, case.events.sensor_size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playing_module, "MAX_EVENTS", 64)
        patch.setattr(playing_module, "_FEW_EVENTS", 64)
        show, log = open_show(case, reels=[reel])
        play_out(show)
    assert [len(one.events) for one in log.stretches if len(one.events)] == [100, 300, 50, 50]
    assert all(a.stop_us == b.start_us for a, b in itertools.pairwise(log.stretches))
    show.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@needs("nmnist", "dvs128_gesture", "weights")
def test_real_recordings_get_the_class_of_a_run() -> None:
    scope = Scope(n_digits=5, n_gestures=2)
    for workload in (*nmnist_workload(scope), *recordings_workload(scope)):
        program = workload.program
        reels = [RecordingReel(events) for events in workload.recordings]
        show = Show(EmulatedEngine(program), reels, settings=ViewSettings(speed=None))
        play_out(show)
        runs = [Emulator(program).run(events.from_zero()) for events in workload.recordings]
        finals = [classify(run, program) if count_classes(run, program).any() else None for run in runs]
        assert show.finals() == dict(enumerate(finals))
        assert show.totals().n_events == sum(map(len, workload.recordings))
        assert show.totals().synops == sum(sum(run.synops.values()) for run in runs)
        show.close()
