"""Where a show begins, what it does between two reels, and what it says of its device on the way."""

from __future__ import annotations

import threading

import pytest

from spikeport.deploy.errors import RecordingError, SettingError
from spikeport.deploy.view.emulated import EmulatedEngine
from spikeport.deploy.view.facts import facts_of
from spikeport.deploy.view.reels import RecordingReel
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from spikeport.deploy.view.types import Position
from spikeport.models.events import Events

from .clients import wait_for
from .played import WAIT_S, Log, classed_case, end_of, expected_of, open_show, play_out


def test_a_show_waits_for_its_viewer_until_something_else_is_asked_for() -> None:
    case = classed_case(26)
    for ask in (Show.play, Show.step, Show.pause):
        show, log = open_show(case)
        show.start()
        show.await_viewer()
        assert not show.wait(0.02)
        assert not log.stretches
        ask(show)
        assert show.wait(WAIT_S)
        before = show.position()
        show.begin()
        assert show.wait(WAIT_S)
        assert show.position() == before
        show.close()
    show, log = open_show(case)
    show.start()
    show.await_viewer()
    show.seek(1000)
    show.begin()
    assert show.wait(WAIT_S)
    assert (show.position().has_ended, log.stretches[0].start_us) == (True, 1000)
    show.await_viewer()
    show.close()
    assert show.wait(0)


def test_recordings_of_another_size_are_scaled_where_that_is_wished_for() -> None:
    case = classed_case(28)
    height, width = case.events.sensor_size
    large = Events(
        *(case.events.x * 2 + 1, case.events.y * 3, case.events.p, case.events.t_us), (3 * height, 2 * width)
    )
    show, log = open_show(case, ViewSettings(speed=None, rescale=True), reels=[RecordingReel(large)])
    play_out(show)
    assert show.position().final == expected_of(case).final
    assert all(one.events.sensor_size == (height, width) for one in log.stretches)
    n_before = len(log.stretches)
    show.set_roi((0, height, 0, 1))
    show.play()
    assert show.wait(WAIT_S)
    fed = log.stretches[n_before:]
    assert sum(len(one.events) for one in fed) == int((case.events.x == 0).sum())
    assert sum(one.n_left_out for one in fed) == int((case.events.x > 0).sum())
    with pytest.raises(SettingError, match="crop: expected"):
        show.set_roi((0, 3 * height, 0, 1))
    show.close()
    with pytest.raises(RecordingError, match="Try rescale"):
        open_show(case, reels=[RecordingReel(large)])


class SlowStart(EmulatedEngine):
    """An emulator that starts over only when a test lets it, after the first time."""

    def __init__(self, *given: object) -> None:
        self.may_start, self.is_starting = threading.Event(), threading.Event()
        self.may_start.set()
        super().__init__(*given)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.is_starting.set()
        self.may_start.wait(WAIT_S)
        super().restart()


def test_what_plays_has_not_ended_and_the_next_reel_is_told_while_a_device_starts_over() -> None:
    case = classed_case(29)
    engine = SlowStart(case.program, case.slow_clock_hz or 0)
    reels = [RecordingReel(case.events, name) for name in ("first", "second")]
    show, log = open_show(case, engine=engine, reels=reels)
    seen: list[Position] = []

    class Watcher(Log):
        def on_end(self, final: int | None) -> None:
            engine.may_start.clear()
            engine.is_starting.clear()

        def on_reset(self, position: Position) -> None:
            seen.append(position)

    show.add_listener(Watcher())
    engine.is_starting.clear()
    show.start()
    show.play()
    assert engine.is_starting.wait(WAIT_S)
    between = show.position()
    assert (between.reel, between.name, between.t_us, between.final) == (1, "second", 0, None)
    assert (between.is_playing, between.has_ended, between.behind_s) == (True, False, 0.0)
    pausing = threading.Thread(target=show.pause)
    pausing.start()
    wait_for(lambda: not show._on._wishes.empty())
    engine.may_start.set()
    pausing.join(WAIT_S)
    paused = show.position()
    assert (paused.reel, paused.t_us, paused.is_playing) == (1, 0, False)  # where it stood when it was asked for
    engine.may_start.set()
    show.play()
    assert show.wait(WAIT_S)
    assert show.position().has_ended
    assert not any(one.is_playing and one.has_ended for one in seen)
    assert log.finals == [expected_of(case).final] * 2
    show.close()


def test_a_pause_at_the_end_of_a_reel_stays_there() -> None:
    case = classed_case(30)
    reels = [RecordingReel(case.events, name) for name in ("first", "second")]
    show, _ = open_show(case, reels=reels)

    class Pauser(Log):
        def on_end(self, final: int | None) -> None:
            show.pause()

    pauser = Pauser()
    show.add_listener(pauser)
    play_out(show)
    found = show.position()
    assert (found.name, found.t_us, found.is_playing, found.has_ended) == ("first", end_of(show), False, True)
    assert found.final == expected_of(case).final
    show.remove_listener(pauser)
    show.play()
    assert show.wait(WAIT_S)
    assert (show.position().name, show.position().has_ended) == ("second", True)
    assert show.totals().n_events == 2 * len(case.events)
    show.close()


def test_what_a_device_complains_about_is_told_and_nothing_stops() -> None:
    case = classed_case(31)
    engine = EmulatedEngine(case.program, case.slow_clock_hz or 0)
    engine.problem = "device: 3 events came while the buffer was full. Try less."  # type: ignore[attr-defined]
    show, _ = open_show(case, engine=engine)
    play_out(show)
    assert show.position().problem == engine.problem  # type: ignore[attr-defined]
    assert (show.position().has_ended, show.fault) == (True, None)
    show.close()


def test_a_recording_that_ends_by_itself_is_told_and_nothing_stops() -> None:
    case = classed_case(31)
    recorder = Log()
    show, _ = open_show(case, recorder=lambda path: recorder)
    show.record("any")
    assert show.position().problem is None
    recorder.problem = "any: No space left on device"  # type: ignore[attr-defined]
    play_out(show)
    assert show.position().problem == recorder.problem  # type: ignore[attr-defined]
    assert (show.position().has_ended, show.fault) == (True, None)
    show.record(None)
    assert show.position().problem is None
    show.close()


def test_the_page_is_told_which_cores_a_device_monitors() -> None:
    case = classed_case(31)
    engine = EmulatedEngine(case.program, case.slow_clock_hz or 0)
    last = case.program.cores[-1].core

    def told() -> list[int]:
        facts = facts_of(engine, [RecordingReel(case.events)], name="p", settings=ViewSettings(), urls=[])
        return [core["core"] for core in facts["cores"] if core["monitored"]]

    assert told() == [core.core for core in case.program.cores]
    engine.monitored = frozenset({last})  # type: ignore[attr-defined]
    assert told() == [last]
