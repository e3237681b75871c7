"""A show whose engine, listeners or reels fail or are slow, and one that is closed: nothing is lost or waits on."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import pytest

from spikeport.deploy.errors import DeviceError, RecordingError, SettingError
from spikeport.deploy.view.emulated import EmulatedEngine
from spikeport.deploy.view.reels import CameraReel, RecordingReel
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from spikeport.deploy.view.types import Stretch
from spikeport.models.events import Events

from .played import WAIT_S, Log, check_played, classed_case, end_of, expected_of, open_show, play_out


class SlowEngine(EmulatedEngine):
    """An emulator that needs a while for every stretch."""

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:
        time.sleep(0.004)
        return super().advance(events, stop_us, speed=speed)


def test_a_slow_engine_falls_behind_and_loses_nothing() -> None:
    case = classed_case(11)
    lag: list[float] = []

    class Watcher(Log):
        def on_stretch(self, stretch: Stretch) -> None:
            super().on_stretch(stretch)
            lag.append(show.position().behind_s)

    wished = ViewSettings(interval_ms=1.0, speed=1000.0)
    show, log = open_show(case, wished, engine=SlowEngine(case.program, case.slow_clock_hz or 0))
    show.add_listener(Watcher())
    play_out(show)
    check_played(log, show.totals(), expected_of(case), 1000, end_of(show))
    assert max(lag) > 0
    show.close()


class FailingEngine(EmulatedEngine):
    """An emulator whose device is lost at some stretches, after it has worked on their events."""

    def __init__(self, program: Any, slow_clock_hz: float | None, *, fails_at: tuple[int, ...], seeks: bool) -> None:
        self._fails_at, self._n = fails_at, 0
        super().__init__(program, slow_clock_hz)
        self.can_seek = seeks

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:
        stretch = super().advance(events, stop_us, speed=speed)
        self._n += 1
        if self._n in self._fails_at:
            raise DeviceError("device lost: expected an answer, found none. Try again.")
        return stretch


@pytest.mark.parametrize("has_thread", [True, False])
def test_a_failing_engine_pauses_and_playing_on_counts_each_event_once(has_thread: bool) -> None:
    case = classed_case(12)
    engine = FailingEngine(case.program, case.slow_clock_hz or 0, fails_at=(3, 5), seeks=True)
    show, log = open_show(case, ViewSettings(interval_ms=1.0, speed=None), engine=engine)
    if has_thread:
        play_out(show)
        found = show.position()
        assert found.problem == "device lost: expected an answer, found none. Try again."
        assert not found.is_playing
        assert found.t_us == 2000
    else:
        with pytest.raises(DeviceError, match="device lost"):
            show.step(100_000)
    with pytest.raises(DeviceError, match="device lost"):
        show.step()  # the first stretch of the run to there fails again
    assert "device lost" in (show.position().problem or "")
    play_out(show)
    assert show.position().problem is None
    check_played(log, show.totals(), expected_of(case), 1000, end_of(show))
    assert show.position().final == expected_of(case).final
    show.close()


def test_a_failing_engine_that_cannot_go_back_begins_the_reel_again() -> None:
    case = classed_case(12)
    engine = FailingEngine(case.program, case.slow_clock_hz or 0, fails_at=(3,), seeks=False)
    show, log = open_show(case, ViewSettings(interval_ms=1.0, speed=None), engine=engine)
    play_out(show)
    assert show.position().t_us == 2000
    before = show.totals()
    assert not show.can_seek
    with pytest.raises(SettingError, match="seek: expected a recording"):
        show.seek(0)
    log.windows.clear()
    log.stretches.clear()
    show.play()
    assert show.wait(WAIT_S)
    assert [one.t_us for one in log.resets] == [0]
    assert show.totals().n_events == before.n_events + len(case.events)
    assert show.so_far().tolist() == expected_of(case).counts(0, end_of(show))
    show.close()


def test_a_failing_listener_pauses_and_the_others_are_told_all_the_same() -> None:
    case = classed_case(25)

    class Broken(Log):
        def on_window(self, window: object) -> None:
            raise KeyError("a slip")

    broken = Broken()
    show, log = open_show(case, ViewSettings(interval_ms=2.0, speed=None))
    show.add_listener(broken)
    play_out(show)
    assert show.position().problem == "KeyError: 'a slip'"
    assert len(log.windows) == 1
    show.remove_listener(broken)
    play_out(show)
    check_played(log, show.totals(), expected_of(case), 2000, end_of(show))
    show.close()


def test_a_readout_that_fails_pauses_and_no_event_is_lost() -> None:
    case = classed_case(26)
    show, log = open_show(case, ViewSettings(interval_ms=2.0, speed=None), readout=lambda counts: "?")
    n = 0
    show.start()
    while not show.position().has_ended:
        show.play()
        assert show.wait(WAIT_S)
        assert "readout" in (show.position().problem or "readout")
        n += 1
        assert n < 100
    assert show.totals().n_events == len(case.events)
    assert not log.windows
    show.close()


def test_a_recorder_that_fails_is_put_away() -> None:
    case = classed_case(28)

    class Full(Log):
        def on_stretch(self, stretch: Stretch) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    show, log = open_show(case, ViewSettings(interval_ms=2.0, speed=None), recorder=lambda path: Full())
    show.record("any")
    play_out(show)
    assert "No space left" in (show.position().problem or "")
    assert not show.position().is_recording
    play_out(show)
    check_played(log, show.totals(), expected_of(case), 2000, end_of(show))
    show.close()


class StuckEngine(EmulatedEngine):
    """An emulator that waits for ever, until it is closed."""

    def __init__(self, program: Any) -> None:
        super().__init__(program)
        self.is_closed = threading.Event()

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:
        self.is_closed.wait(WAIT_S)
        raise DeviceError("device closed: expected an answer, found none. Try again.")

    def close(self) -> None:
        self.is_closed.set()


class HungEngine(StuckEngine):
    """An emulator that waits until it is interrupted, or not even then."""

    def __init__(self, program: Any, *, ends: bool) -> None:
        super().__init__(program)
        self.waits, self.ends = threading.Event(), ends

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:
        self.waits.set()
        return super().advance(events, stop_us, speed=speed)

    def interrupt(self) -> None:
        if self.ends:
            self.is_closed.set()

    def close(self) -> None:
        pass


class Notes(Log):
    """A recorder that notes whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.n_closed = 0

    def close(self) -> None:
        self.n_closed += 1


@pytest.mark.parametrize("ends", [True, False])
def test_what_the_end_cuts_short_is_no_problem_and_what_was_recorded_is_kept(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikeport.deploy.view.performing._CLOSE_S", WAIT_S if ends else 0.02)
    case, notes = classed_case(29), Notes()
    engine = HungEngine(case.program, ends=ends)
    reels = [RecordingReel(case.events)]
    show = Show(engine, reels, settings=ViewSettings(speed=None), recorder=lambda _: notes)
    show.record("session.npz")
    show.start()
    show.play()
    assert engine.waits.wait(WAIT_S)
    show.close()
    assert notes.n_closed == 1
    assert not show.position().is_recording
    engine.is_closed.set()
    assert show.wait(WAIT_S)
    assert (show.fault, notes.n_closed) == (None, 1)


@pytest.mark.parametrize("how", ["paused", "playing", "slow", "stepping", "seeking"])
def test_close_ends_the_thread_and_whatever_waits_for_it(how: str) -> None:
    case = classed_case(29)
    late = dataclasses.replace(case.events.from_zero(), t_us=case.events.t_us * 10_000)
    engine = StuckEngine(case.program) if how == "stepping" else None
    speed = 0.001 if how == "slow" else 1.0
    show, _ = open_show(case, ViewSettings(speed=speed, interval_ms=1.0), engine=engine, reels=[RecordingReel(late)])
    show.start()
    show.start()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            show.step(10**9) if how == "stepping" else show.seek(10**9)
        except (DeviceError, SettingError) as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    if how in ("stepping", "seeking"):
        asking.start()
        time.sleep(0.02)
    elif how != "paused":
        show.play()
    show.close()
    show.close()
    assert show.wait(WAIT_S)
    if how in ("stepping", "seeking"):
        asking.join(WAIT_S)
        assert not asking.is_alive()
        assert raised or how == "seeking"  # it may have been there already
    assert not [one for one in threading.enumerate() if one.name == "spikeport show" and one.is_alive()]
    with pytest.raises(SettingError, match="show: it was closed"):
        show.play()
    show.start()


def test_a_show_that_was_never_begun_does_what_it_is_asked_and_closes() -> None:
    case = classed_case(30)
    show, log = open_show(case, ViewSettings(interval_ms=2.0, speed=1.0))
    show.seek(3000)
    show.step(10**6)
    assert show.position().has_ended
    assert log.windows[0].stop_us == 4000
    show.close()
    with pytest.raises(SettingError, match="closed"):
        show.step()


def test_what_makes_no_sense_is_refused_before_anything_plays() -> None:
    case = classed_case(31)
    engine = EmulatedEngine(case.program)
    wrong = dataclasses.replace(case.events, sensor_size=(99, 98))
    with pytest.raises(RecordingError, match=r"found 99x98\. Try rescale"):
        open_show(case, engine=engine, reels=[RecordingReel(wrong)])
    with pytest.raises(SettingError, match="at least one recording"):
        Show(engine, [], settings=ViewSettings())
    with pytest.raises(SettingError, match="default_class"):
        open_show(case, ViewSettings(default_class=10**6))
    with pytest.raises(DeviceError, match="camera: expected a board with a camera, found emulator"):
        open_show(case, reels=[CameraReel(case.events.sensor_size)])
    show, _ = open_show(case, reels=[RecordingReel(case.events, "right"), RecordingReel(wrong, "wrong")])
    with pytest.raises(RecordingError, match="wrong: expected a sensor"):
        show.open(1)
    assert (show.position().name, show.position().problem) == ("right", None)
    play_out(show)
    assert "wrong: expected a sensor" in (show.position().problem or "")
    assert show.position().has_ended
    for n in (0, -1, True, 1.5):
        with pytest.raises(SettingError, match="step: expected 1 step or more"):
            show.step(n)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="speed"):
        show.set_speed(-1.0)
    show.close()
