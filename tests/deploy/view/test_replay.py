"""A recorded session plays as what it was recorded from, however it is cut, and no other windows pass for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.errors import RecordingError
from spikeport.deploy.readout import count_labels
from spikeport.deploy.view import tape
from spikeport.deploy.view.emulated import EmulatedEngine
from spikeport.deploy.view.reels import RecordingReel
from spikeport.deploy.view.replay import ReplayEngine, compare_marks, open_session, replay_windows
from spikeport.deploy.view.session import SessionRecorder
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from spikeport.deploy.view.tally import Tally
from spikeport.deploy.view.types import Position, Stretch, Window
from spikeport.deploy.view.windows import Windows

from ..programs import random_events  # noqa: TID252
from .taped import FACTS, N_CLASSES, PROGRAM, SENSOR, play, position, random_stretch, record
from .test_session import kept

SEEDS = st.integers(0, 10_000)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_windows_counted_again_are_the_recorded_ones(seed: int) -> None:
    with kept(seed) as (session, show):
        windows = replay_windows(session)
        assert compare_marks(session, windows) is None
        for recorded, again, take in zip(show.windows, windows, session.takes, strict=True):
            ended = [one for one in again if not (one.is_open and not take.has_final)]
            mine = [one for one in recorded if one.start_us >= take.start_us]
            theirs = [one for one in ended if one.start_us >= take.start_us]
            assert [one.counts.tolist() for one in mine] == [one.counts.tolist() for one in theirs]
            assert [one.label for one in mine] == [one.label for one in theirs]


@given(SEEDS, st.lists(st.integers(0, 20_000), max_size=12))
@settings(max_examples=10, deadline=None)
def test_totals_do_not_depend_on_the_cuts(seed: int, cuts: list[int]) -> None:
    with kept(seed) as (session, show):
        engine, tally = ReplayEngine(session), Tally()
        for reel in engine.reels:
            engine.restart()
            t_us = 0
            for stop_us in [*sorted(cut for cut in cuts if cut < reel.duration_us), reel.duration_us]:
                stretch = engine.advance(reel.take(t_us, stop_us), stop_us)
                assert (stretch.start_us, stretch.stop_us) == (t_us, stop_us)
                assert np.all(np.diff(stretch.spikes.t_us) >= 0)
                tally.on_stretch(stretch)
                t_us = stop_us
        without = {"n_windows": 0, "n_decided": 0}
        assert dataclasses.replace(tally.totals, **without) == dataclasses.replace(show.totals, **without)


@given(SEEDS)
@settings(max_examples=6, deadline=None)
def test_stretches_cut_as_they_were_recorded_are_the_recorded_ones(seed: int) -> None:
    with kept(seed) as (session, show):
        engine = ReplayEngine(session)
        for stretches, reel in zip(show.stretches, engine.reels, strict=True):
            engine.restart()
            engine.advance(reel.take(0, reel.start_us), reel.start_us)
            if any(one.start_us == one.stop_us for one in stretches):
                continue  # such a one is told with the next
            for stretch in stretches:
                found = engine.advance(reel.take(stretch.start_us, stretch.stop_us), stretch.stop_us)
                assert found.same(stretch)


@given(SEEDS, st.integers(1, 7))
@settings(max_examples=6, deadline=None)
def test_another_interval_counts_the_recorded_spikes(seed: int, interval_ms: int) -> None:
    with kept(seed) as (session, show):
        knobs = ViewSettings(interval_ms=float(interval_ms))
        for stretches, found in zip(show.stretches, replay_windows(session, knobs), strict=True):
            labels = np.concatenate([one.spikes.label for one in stretches])
            assert sum(one.counts for one in found).tolist() == count_labels(labels, N_CLASSES).tolist()  # type: ignore[union-attr]
            assert all(one.stop_us % (interval_ms * 1000) == 0 for one in found if not one.is_open)
            assert sum(one.n_events for one in found) == sum(len(one.events) for one in stretches)


@given(SEEDS, st.integers(0, 4000), st.integers(0, 4000))
@settings(max_examples=6, deadline=None)
def test_a_kept_state_goes_on_as_before(seed: int, first: int, second: int) -> None:
    with kept(seed) as (session, _):
        engine = ReplayEngine(session)
        reel = engine.reels[-1]
        middle, end = sorted((first, second))
        engine.advance(reel.take(0, middle), middle)
        state = engine.keep()
        once = engine.advance(reel.take(middle, end), end)
        final = engine.final_class()
        engine.reels[0].take(0, 10)
        engine.restart()
        engine.take_up(state)
        assert engine.advance(reel.take(middle, end), end).same(once)
        assert engine.final_class() == final


def test_the_class_at_the_end_is_the_one_that_was_shown() -> None:
    seen = set()
    for seed in range(12):
        with kept(seed) as (session, _):
            engine = ReplayEngine(session)
            for reel, take in zip(engine.reels, session.takes, strict=True):
                engine.restart()
                engine.advance(reel.take(0, take.stop_us), take.stop_us)
                counts = count_labels(session.spikes(take.first, take.last).label, N_CLASSES)
                expected = take.final if take.has_final else int(counts.argmax()) if counts.any() else None
                assert engine.final_class() == expected
                seen.add((take.has_final, take.final is None))
    assert {(True, True), (True, False)} < seen  # shown to its end without a class and with one, and not to its end


def test_knobs_are_told_at_their_times_unless_they_are_not_to_be_followed(tmp_path: Path) -> None:
    record(tmp_path / "a.npz", 3)
    with open_session(tmp_path / "a.npz") as session:
        takes = [(take, reel) for take, reel in zip(session.takes, ReplayEngine(session).reels, strict=True)]
        assert any(len(take.knobs) > 1 for take, _ in takes)
        for take, reel in takes:
            found: dict[int, Any] = {}
            t_us: int | None = reel.start_us
            while t_us is not None:
                found |= {t_us: reel.changed_at(t_us)} if reel.changed_at(t_us) else {}
                t_us = reel.next_cut_us(t_us)
            assert found == {at: tape.knobs_of(knobs) for at, knobs in take.knobs[1:]}
            assert reel.knobs_at(0) == reel.knobs_at(take.start_us) == tape.knobs_of(take.knobs[0][1])
            assert reel.knobs_at(take.stop_us) == tape.knobs_of(take.knobs[-1][1])
        free = ReplayEngine(session, follows_knobs=False).reels
        assert all(reel.knobs_at(9) is None and reel.changed_at(reel.start_us) is None for reel in free)


def test_an_engine_of_a_session_says_what_it_is(tmp_path: Path) -> None:
    record(tmp_path / "a.npz", 1)
    engine = ReplayEngine(open_session(tmp_path / "a.npz"))
    assert (engine.name, engine.power_source) == ("session of a device", "measured")
    assert engine.program.same(PROGRAM)
    assert engine.can_seek
    assert not engine.is_timed
    assert not engine.has_camera
    engine.watch([2])
    stretch = engine.advance(engine.reels[0].take(0, 500), 500, speed=2.0)
    assert stretch.maps == {}
    with pytest.raises(RecordingError, match="expected an end from 500 us on, found 400"):
        engine.advance(engine.reels[0].take(0, 0), 400)
    engine.close()
    engine.close()


def test_the_first_difference_is_told(tmp_path: Path) -> None:
    record(tmp_path / "a.npz", 3)
    with open_session(tmp_path / "a.npz") as session:
        windows = [list(take) for take in replay_windows(session)]
        assert compare_marks(session, windows[:1]) == "expected windows of 2 takes, found those of 1."
        assert "windows, found" in str(compare_marks(session, [windows[0][:-2], windows[1]]))
        at = next(i for i, one in enumerate(windows[0]) if one.counts.any())
        one = windows[0][at]
        changes: dict[str, dict[str, Any]] = {
            "counts": {"counts": one.counts + 1},
            "winner": {"winner": 2 if one.winner != 2 else 1},
            "synops": {"synops": 10**6},
            "n_events": {"n_events": one.n_events + 1},
            "power_w": {"power_w": {"io": 7.0}},
        }
        for name, change in changes.items():
            other = [*windows[0][:at], dataclasses.replace(one, **change), *windows[0][at + 1 :]]
            told = str(compare_marks(session, [other, windows[1]]))
            assert told.startswith(f"take 0 ('reel 0'), window of {one.start_us} us: {name}: expected ")


def test_windows_of_an_own_readout_are_compared_without_their_winners(tmp_path: Path) -> None:
    facts = dataclasses.replace(FACTS, has_own_readout=True)
    with SessionRecorder(tmp_path / "own.npz", PROGRAM, facts) as recorder:
        show = play(4, recorder, n_takes=1)
    with open_session(tmp_path / "own.npz") as session:
        turned = [dataclasses.replace(one, winner=None, label=0) for one in show.windows[0]]
        assert compare_marks(session, [turned]) is None


def test_a_recording_that_begins_and_ends_within_a_window_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    windows = Windows(N_CLASSES, FACTS.settings)
    with SessionRecorder(tmp_path / "part.npz", PROGRAM, FACTS) as recorder:
        for number, start_us in enumerate(range(0, 9500, 250)):
            stretch = random_stretch(rng, start_us, start_us + 250, {2: [True] * 4, 5: [True] * 4})
            found = windows.add(stretch)
            if number == 6:
                recorder.on_reset(position(0, start_us))
            if number >= 6:
                recorder.on_stretch(stretch)
                for window in found:
                    recorder.on_window(window)
    with open_session(tmp_path / "part.npz") as session:
        assert (session.takes[0].start_us, session.takes[0].stop_us) == (1500, 9500)
        assert compare_marks(session, replay_windows(session)) is None
        assert ReplayEngine(session).reels[0].name == "reel 0 from 0.002 s"


@pytest.mark.parametrize("step_ms", [0.9, 50.0])
def test_a_session_of_the_emulator_plays_through_a_show_as_it_was_shown(step_ms: float, tmp_path: Path) -> None:
    reels = [RecordingReel(random_events(np.random.default_rng(seed), (2, *SENSOR), 300), f"{seed}") for seed in (1, 2)]
    knobs = FACTS.settings.changed(interval_ms=5.0, step_ms=3.3, decimate=(2, 3))
    facts = dataclasses.replace(FACTS, settings=knobs)

    def recorder(path: Path) -> SessionRecorder:
        return SessionRecorder(path, PROGRAM, facts)

    first = Show(EmulatedEngine(PROGRAM), reels, settings=knobs, recorder=recorder)
    first.record(tmp_path / "a.npz")
    _, finals = played(first)
    first.close()
    with open_session(tmp_path / "a.npz") as session:
        engine = ReplayEngine(session)
        again = Show(engine, engine.reels, settings=session.facts.settings.changed(step_ms=step_ms))
        windows, replayed = played(again)
        assert replayed == finals
        assert len(finals) == 2
        assert compare_marks(session, windows) is None
        assert again.totals() == first.totals()
        assert first.totals().n_left_out > 0 < first.totals().n_output_spikes
        assert sum(map(len, windows)) == first.totals().n_windows
        again.close()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_seeks_and_knobs_of_a_show_are_taken_up_again(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    knobs = FACTS.settings.changed(interval_ms=5.0, step_ms=3.3)
    show: Show

    def recorder(path: Path) -> SessionRecorder:
        return SessionRecorder(path, PROGRAM, dataclasses.replace(FACTS, settings=show.settings))

    reel = RecordingReel(random_events(rng, (2, *SENSOR), 300), "one")
    show, tally = Show(EmulatedEngine(PROGRAM), [reel], settings=knobs, recorder=recorder), Tally()
    for _ in range(seed):
        show.step()
    show.record(tmp_path / "a.npz")
    show.add_listener(tally)
    for number in range(40):
        show.step()
        if number % 7 == 3:
            show.seek(int(rng.integers(0, 100_000)))
        if number % 4 == 3:
            show.set_knobs(interval_ms=float(rng.integers(1, 9)), threshold=int(rng.integers(1, 4)))
    show.record(None)
    show.close()
    with open_session(tmp_path / "a.npz") as session:
        assert len(session.takes) >= 6
        windows = replay_windows(session)
        assert compare_marks(session, windows) is None
        engine, again = ReplayEngine(session), Tally()
        for reel_again in engine.reels:
            engine.restart()
            again.on_stretch(engine.advance(reel_again.take(0, reel_again.duration_us), reel_again.duration_us))
        without = {"n_windows": 0, "n_decided": 0}
        assert again.totals == dataclasses.replace(tally.totals, **without)


class Seen:
    """A listener that keeps the windows of each reel, and the class of it."""

    def __init__(self) -> None:
        self.windows: list[list[Window]] = [[]]
        self.finals: list[int | None] = []

    def on_stretch(self, stretch: Stretch) -> None:
        """Take a stretch."""

    def on_window(self, window: Window) -> None:
        """Keep a window."""
        self.windows[-1].append(window)

    def on_reset(self, position: Position) -> None:
        """Begin a reel."""
        self.windows.append([])

    def on_end(self, final: int | None) -> None:
        """Keep the class of a reel."""
        self.finals.append(final)


def played(show: Show) -> tuple[list[list[Window]], list[int | None]]:
    """Play every reel of a show, step by step, and return what was seen."""
    seen = Seen()
    show.add_listener(seen)
    while not (show.position().has_ended and show.position().reel == show.position().n_reels - 1):
        show.step()
    return seen.windows, seen.finals
