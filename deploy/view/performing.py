"""The thread of a show: its clock, and what it is asked for, between the stretches of what plays."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from spikeport.deploy.errors import DeployError, SettingError
from spikeport.models.errors import ModelsError

from .listeners import Listener, Recorder
from .playing import Pace, Playing
from .reels import CameraReel
from .transport import Clock
from .types import Position

_POLL_S = 0.005
_CLOSE_S = 0.5

T = TypeVar("T")


class Goal:
    """Where a step ends; ``error`` says why it ended before."""

    def __init__(self, t_us: int) -> None:
        self.t_us = t_us
        self.reached = threading.Event()
        self.error: Exception | None = None


class _Wish:
    """Something to be done in the thread of a show, and what came of it."""

    def __init__(self, wish: Callable[[], Any]) -> None:
        self._wish = wish
        self.done = threading.Event()
        self.result: Any = None
        self.error: Exception | None = None

    def fulfil(self) -> None:
        try:
            self.result = self._wish()
        except Exception as error:  # noqa: BLE001 - raised again where it was asked for
            self.error = error


class Performance:
    """What plays, in a thread of its own; ``position`` says where it stood at the last cut.

    Every method without ``ask``, ``start``, ``close`` and the listeners is for the thread itself, or for wishes.
    """

    def __init__(
        self, make: Callable[[Callable[[], Position], Callable[[], bool]], Playing], make_recorder: Any = None
    ) -> None:
        self._make_recorder: Callable[[Path], Recorder] | None = make_recorder
        self._recorder: Recorder | None = None
        self.fault: Exception | None = None
        self._is_playing = self._is_awaiting = self._is_closing = self._is_done = False
        self._goal: Goal | None = None
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self.stands = threading.Event()
        self.playing = make(self._seat, lambda: self._is_closing)
        self._clock = Clock(1.0 if self.playing.is_live else self.playing.settings.speed)
        self._publish()

    def start(self) -> None:
        """Begin the thread; a second time does nothing."""
        with self._lock:
            if self._thread is None and not self._is_done:
                self._thread = threading.Thread(target=self._work, daemon=True, name="spikeport show")
                self._thread.start()

    def close(self) -> None:
        """End the thread and close what was opened; a second time does nothing."""
        with self._lock:
            self._is_closing = True
            thread = self._thread
            if thread is None and not self._is_done:
                self._leave()
        if thread is not None and thread is not threading.current_thread():
            self._wishes.put(None)
            interrupt = getattr(self.playing.engine, "interrupt", None)
            if interrupt is not None:
                interrupt()
            thread.join(_CLOSE_S)
            if thread.is_alive():  # it waits for a device, which may stop waiting when it is closed
                self.playing.engine.close()
                thread.join(_CLOSE_S)
            if thread.is_alive():  # what was recorded until then is kept
                self._end_recording()

    def ask(self, wish: Callable[[], T]) -> T | None:
        """Have something done in the thread, or here where there is none yet, and return what comes of it.

        Returns None at once where the thread itself asks. Raises: what the wish raises; SettingError once closed.
        """
        asked = _Wish(wish)
        with self._lock:
            if self._is_closing:
                raise SettingError("show: it was closed. Try another one.")
            if self._thread is None:
                self._fulfil(asked)
            else:
                self._wishes.put(asked)
        if threading.current_thread() is self._thread:
            return None
        asked.done.wait()
        if asked.error is not None:
            raise asked.error
        result: T | None = asked.result
        return result

    def add_listener(self, listener: Listener) -> None:
        """Tell another listener from the next stretch on."""
        with self._lock:
            self.playing.listeners = (*self.playing.listeners, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Tell a listener no more."""
        with self._lock:
            self.playing.listeners = tuple(one for one in self.playing.listeners if one is not listener)

    # wishes

    def await_viewer(self) -> None:
        """Stand ready to play, which is no standing still: ``begin`` plays, and so does what is asked for before."""
        self._is_awaiting = True

    def begin(self) -> None:
        """Play, where that has been waited for."""
        if self._is_awaiting:
            self.play()

    def play(self) -> None:
        """Play on; at the end of a reel the next one, or the first."""
        self._settle()
        self._begin()
        self._is_playing, self._is_awaiting = True, False

    def rest(self) -> None:
        """Stand still."""
        self._is_playing = self._is_awaiting = False
        self._settle()

    def aim(self, n_steps: int) -> Goal:
        """Play to the end of a step; without a thread it is reached on return."""
        self.rest()
        self._begin()
        step_us = self.playing.settings.step_us
        self._goal = goal = Goal((self.playing.t_us // step_us + n_steps) * step_us)
        while self._thread is None and not goal.reached.is_set():
            self._go()
        return goal

    def jump(self, jump: Callable[[], None]) -> None:
        """Go elsewhere; what plays plays on from there, and what is to begin begins there."""
        self._settle()
        try:
            jump()
        except Exception as fault:
            if self.playing.needs_mending:
                self._fail(fault)
            raise
        self.fault = None
        self._clock.start(self.playing.t_us)

    def change_speed(self, speed: float | None) -> None:
        """Play at another speed."""
        settings = self.playing.settings.changed(speed=speed)
        if self.playing.is_live:
            raise SettingError("speed: expected a recording, found a stream or a camera, which go at their own.")
        self.playing.settings = settings
        self._clock = Clock(speed)
        self._clock.start(self.playing.t_us)

    def change_recorder(self, path: Path | None) -> None:
        """Finish the file that is written, and begin another one, or none."""
        before, self._recorder = self._recorder, None
        if before is not None:
            self.remove_listener(before)
            before.close()
        if path is None:
            return
        if self._make_recorder is None:
            raise SettingError("record: expected a show with a recorder, found one without. Try Show(..., recorder=).")
        self._recorder = self._make_recorder(path)
        self.playing.introduce(self._recorder, self._seat())
        self.add_listener(self._recorder)

    # the thread

    def _work(self) -> None:
        try:
            while not self._is_closing:
                wish = self._next_wish(self._wait_s())
                if wish is not None:
                    self._fulfil(wish)
                elif self._is_going and not self._is_closing:
                    self._go()
                    self._publish()
        finally:
            with self._lock:
                self._leave()

    def _leave(self) -> None:
        """End all that waits, and close what was opened."""
        self._is_done = self._is_closing = True
        closed = SettingError("show: it was closed. Try another one.")
        self._settle(closed)
        while not self._wishes.empty():
            wish = self._wishes.get()
            if wish is not None:
                wish.error = closed
                wish.done.set()
        reels = [reel for reel in self.playing.reels if hasattr(reel, "close")]
        self._end_recording()
        for close in (self.playing.engine.close, *(reel.close for reel in reels)):
            try:
                close()
            except (DeployError, ModelsError, OSError) as fault:
                self.fault = fault
        self._publish()

    def _end_recording(self) -> None:
        try:
            self.change_recorder(None)
        except (DeployError, ModelsError, OSError) as fault:
            self.fault = fault
        self._publish()

    @property
    def _is_going(self) -> bool:
        return self._is_playing or self._goal is not None

    def _fulfil(self, wish: _Wish) -> None:
        wish.fulfil()
        self._publish()
        wish.done.set()

    def _next_wish(self, wait_s: float | None) -> _Wish | None:
        try:
            return self._wishes.get(timeout=wait_s) if wait_s is None or wait_s > 0 else self._wishes.get_nowait()
        except queue.Empty:
            return None

    def _wait_s(self) -> float | None:
        """Return how long nothing is due: None until somebody asks for something."""
        if not self._is_going:
            return None
        playing = self.playing
        if playing.has_ended:  # the next reel follows, unless something else was asked for
            return 0.0
        try:
            stop_us = self._cut_us()
        except Exception:  # noqa: BLE001 - a stream that fails: going on finds it again, and tells
            return 0.0
        if stop_us == playing.t_us and not playing.is_at_end:
            return _POLL_S
        if self._is_unpaced:
            return 0.0
        return self._clock.wait_s(playing.t_us if playing.engine.is_timed else stop_us)

    @property
    def _is_unpaced(self) -> bool:
        playing = self.playing
        has_camera = playing.engine.has_camera or isinstance(playing.reel, CameraReel)
        return self._goal is not None or self._clock.speed is None or (playing.is_live and not has_camera)

    def _cut_us(self) -> int:
        settings, speed = self.playing.settings, self._clock.speed
        is_free = self._is_unpaced and not self.playing.engine.is_timed
        span_us = settings.interval_us if is_free else int((speed or 1.0) * 1e6 / settings.fps)
        return self.playing.cut_us(span_us, None if self._goal is None else self._goal.t_us)

    def _go(self) -> None:
        """Play one stretch and see what follows from where it ends, or begin the reel that follows."""
        playing = self.playing
        try:
            if playing.has_ended:
                self._begin_next()
                return
            stop_us = self._cut_us()
            if stop_us > playing.t_us:
                if self._is_unpaced:
                    playing.go(Pace(stop_us, None, time.perf_counter()))
                else:
                    playing.go(Pace(stop_us, self._clock.speed, self._clock.due_s(stop_us)))
                    self._clock.arrive(playing.t_us)
            if playing.is_at_end:
                self._end_reel()
            elif self._goal is not None and playing.t_us >= self._goal.t_us:
                self._settle()
        except Exception as fault:  # noqa: BLE001 - the thread lives on, and the position tells
            self._fail(fault)

    def _end_reel(self) -> None:
        self.playing.end()
        if self._goal is not None or self.playing.next_index() is None:
            self.rest()

    def _begin_next(self) -> None:
        """Begin the reel that follows; while a device starts over, this is where the show stands already."""
        playing = self.playing
        index = playing.next_index() or 0
        reel = playing.reels[index]
        self.position = dataclasses.replace(
            self._seat(), reel=index, name=reel.name, t_us=0, duration_us=reel.duration_us, label=None, final=None
        )
        playing.open(index)
        self._clock.start(playing.t_us)

    def _begin(self) -> None:
        """Get ready to play on from where it stands."""
        self.fault = None
        try:
            if self.playing.has_ended:
                self.playing.open(self.playing.next_index() or 0)
            self.playing.mend()
        except Exception as fault:
            self._fail(fault)
            raise
        self._clock.start(self.playing.t_us)

    def _fail(self, fault: Exception) -> None:
        if not self._is_closing:  # what the end cuts short is no problem
            self.fault = fault
        self._is_playing = self._is_awaiting = False
        if self._recorder is not None and self.playing.faulty is self._recorder:
            try:
                self.change_recorder(None)
            except (DeployError, ModelsError, OSError):
                self._recorder = None  # it could not write before, and cannot now
        self.playing.faulty = None
        self._settle(fault)

    def _settle(self, error: Exception | None = None) -> None:
        """End a step, where there is one."""
        goal, self._goal = self._goal, None
        if goal is not None:
            goal.error = error
            goal.reached.set()

    def _seat(self) -> Position:
        playing = self.playing
        return Position(
            reel=playing.index,
            n_reels=len(playing.reels),
            name=playing.reel.name,
            t_us=playing.t_us,
            duration_us=playing.reel.duration_us,
            label=playing.label,
            is_playing=self._is_playing,
            has_ended=playing.has_ended and not self._is_playing,
            speed=self._clock.speed,
            behind_s=self._clock.behind_s if self._is_playing and not playing.has_ended else 0.0,
            roi=playing.roi,
            is_recording=self._recorder is not None,
            final=playing.final,
            problem=self._problem(),
        )

    def _problem(self) -> str | None:
        if self.fault is not None:
            return _told(self.fault)
        told = (getattr(one, "problem", None) for one in (self._recorder, self.playing.engine))
        return next((problem for problem in told if problem is not None), None)

    def _publish(self) -> None:
        self.position = self._seat()
        if (self._is_going or self._is_awaiting) and not self._is_closing:
            self.stands.clear()
        else:
            self.stands.set()


def _told(fault: Exception) -> str:
    return str(fault) if isinstance(fault, (DeployError, ModelsError)) else f"{type(fault).__name__}: {fault}"
