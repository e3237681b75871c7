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
from spikeport.deploy.view.facts import first_watched
from spikeport.deploy.view.follow import first_settings, settings_at
from spikeport.deploy.view.recorder import SessionRecorder
from spikeport.deploy.view.reels import RecordingReel
from spikeport.deploy.view.replay import ReplayEngine, compare_marks, open_session, replay_windows
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from spikeport.deploy.view.tally import Tally
from spikeport.deploy.view.types import Position, Stretch, Totals, Window
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
            assert first_settings(reel, ViewSettings()) == ViewSettings().changed(**reel.knobs[0][1])
            for t_us in range(take.start_us, take.stop_us, 100):
                expected = [knobs for at, knobs in take.knobs if at <= t_us][-1]
                assert tape.knobs_of(settings_at(reel, ViewSettings(), t_us)) == tape.knobs_of(expected)
        other = ViewSettings(interval_ms=9.0)
        free = ReplayEngine(session, follows_knobs=False).reels
        assert all(settings_at(reel, other, 10**6) == first_settings(reel, other) == other for reel in free)


def test_an_engine_of_a_session_says_what_it_is(tmp_path: Path) -> None:
    record(tmp_path / "a.npz", 1)
    engine = ReplayEngine(open_session(tmp_path / "a.npz"))
    assert (engine.name, engine.power_source) == ("session of a device", "measured")
    assert engine.program.same(PROGRAM)
    assert engine.can_seek
    assert not engine.is_timed
    assert not engine.has_camera
    assert first_watched(engine) is None  # it holds no maps
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


@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 40), marks=pytest.mark.slow)])
def test_a_session_of_any_show_plays_as_it_was_shown(seeds: range, tmp_path: Path) -> None:
    """Recordings that begin anywhere, seeks and knobs at any time: as they were shown, counted again and played."""
    n_takes = n_within = 0
    for seed in seeds:
        rng, path = np.random.default_rng(seed), tmp_path / f"{seed}.npz"
        totals = wild_show(rng, path)
        with open_session(path) as session:
            assert compare_marks(session, replay_windows(session)) is None, seed
            engine, tally = ReplayEngine(session), Tally()
            again = Show(
                engine, engine.reels, settings=session.facts.settings.changed(step_ms=float(rng.integers(1, 40)))
            )
            again.add_listener(tally)
            windows, _ = played(again)
            assert compare_marks(session, windows) is None, seed
            again.close()
            without = {"n_windows": 0, "n_decided": 0}  # a seek leaves out the rest of a window
            assert dataclasses.replace(tally.totals, **without) == dataclasses.replace(totals, **without), seed
            n_takes += len(session.takes)
            n_within += sum(len(take.knobs) > 1 and take.knobs[1][0] == take.start_us for take in session.takes)
    assert n_takes > 2 * len(seeds)
    assert n_within > len(seeds) // 4  # knobs that were changed in the window in which a take begins


def wild_show(rng: np.random.Generator, path: Path) -> Totals:
    """Record a show of two recordings that is stepped, sought in and has its knobs changed; return what it counted."""
    reels = [RecordingReel(random_events(rng, (2, *SENSOR), 120), name) for name in ("one", "two")]
    wished = FACTS.settings.changed(interval_ms=5.0, step_ms=3.3)

    def change_knobs() -> None:
        show.set_knobs(interval_ms=float(rng.integers(1, 9)), threshold=int(rng.integers(1, 4)))

    def recorder(path: Path) -> SessionRecorder:
        return SessionRecorder(path, PROGRAM, dataclasses.replace(FACTS, settings=show.settings))

    show, tally = Show(EmulatedEngine(PROGRAM), reels, settings=wished, recorder=recorder), Tally()
    for _ in range(int(rng.integers(0, 3))):
        show.step()
    if rng.random() < 0.5:
        change_knobs()
    show.record(path)
    show.add_listener(tally)
    while not (show.position().has_ended and show.position().reel == 1):
        show.step()
        if rng.random() < 0.1:
            show.seek(int(rng.integers(0, show.position().duration_us or 0)))
        if rng.random() < 0.1:
            change_knobs()
    show.close()
    return tally.totals


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
