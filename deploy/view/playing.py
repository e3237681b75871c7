"""A reel going through an engine, stretch by stretch: what a show does, without its clock and its thread."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.errors import DeviceError, SettingError
from spikeport.deploy.readout import count_labels, n_classes
from spikeport.models.events import Events
from spikeport.models.window import no_events, one_behind_other

from .follow import SessionReel, begin_within, first_settings, settings_at, start_of
from .listeners import Listener, Recorder
from .nodes import Decimate, chain, crop, decimate, rescale
from .reels import CameraReel, LiveReel, check_sensor
from .settings import ViewSettings
from .transport import KeptState, KeptStates
from .types import Box, Engine, Position, Reel, Stretch
from .windows import Readout, Windows

MAX_EVENTS = 1 << 16
"""Events of a stretch, unless more of them come at one time."""

_FEW_EVENTS = 1 << 10
_SILENT_US = 500_000  # of a stretch that nobody sees: states are kept on the way


class Pace(NamedTuple):
    """How the next stretch goes: until ``stop_us`` or before, at a speed, due at ``due_s`` of the wall's time."""

    stop_us: int
    speed: float | None = None
    due_s: float | None = None


class Playing:
    """The reel that plays and how far it is; every method is called from one thread.

    ``seat`` says where the show stands, for the listeners; ``is_over`` ends a long seek.
    Law: counters and windows depend on the reel, the settings and what was asked at which of the reel's times, and on
    no wall clock: windows end at multiples of the interval, and no stretch crosses their ends.
    """

    def __init__(
        self,
        engine: Engine,
        reels: Sequence[Reel],
        settings: ViewSettings,
        *,
        readout: Readout | None,
        seat: Callable[[], Position],
        is_over: Callable[[], bool],
    ) -> None:
        if not reels:
            raise SettingError("show: expected at least one recording to play, found none. Try another folder.")
        self.engine, self.reels, self.settings = engine, tuple(reels), settings
        self.index, self.t_us = 0, 0
        self.has_ended = False
        self.final: int | None = None
        self.finals: dict[int, int | None] = {}
        self.roi: Box | None = None
        self.listeners: tuple[Listener, ...] = ()
        self.faulty: Listener | None = None
        self._fault: Exception | None = None
        self._is_broken = self._is_adrift = False
        self._seat, self._is_over = seat, is_over
        self._size = (engine.program.dvs.input_shape[1], engine.program.dvs.input_shape[2])
        self._n_classes = n_classes(engine.program) if settings.n_classes is None else settings.n_classes
        self.windows = Windows(self._n_classes, settings, readout)
        self._n_most = _FEW_EVENTS
        self._follows = True
        self._thin = decimate(*settings.decimate)
        self._kept = KeptStates()
        self._n_missed = 0
        self.watch(settings.watch if settings.watch is not None else next(iter(engine.program.outputs[-1:]), None))
        self.open(0)

    @property
    def reel(self) -> Reel:
        """The reel that plays."""
        return self.reels[self.index]

    @property
    def is_live(self) -> bool:
        """Whether events come when they come, and never again."""
        return isinstance(self.reel, (LiveReel, CameraReel)) or self.engine.has_camera

    @property
    def can_seek(self) -> bool:
        """Whether the show can go to another time of the reel."""
        return self.engine.can_seek and not self.is_live

    @property
    def label(self) -> int | None:
        """The true class, where it is known and one of the program's."""
        label = self.reel.label
        return label if label is not None and 0 <= label < self._n_classes else None

    @property
    def needs_mending(self) -> bool:
        """Whether a problem left the run in the middle of something."""
        return self._is_broken or self._is_adrift

    def open(self, index: int) -> None:
        """Begin a reel from the initial states.

        Raises: SettingError for a number that is none; errors of the readers, and then all stays as it was;
        DeviceError.
        """
        if not 0 <= index < len(self.reels):
            raise SettingError(f"open: expected a reel from 0 to {len(self.reels) - 1}, found {index}. Try 0.")
        if isinstance(self.reels[index], CameraReel) and not self.engine.has_camera:
            raise DeviceError(f"camera: expected a board with a camera, found {self.engine.name}. Try a recording.")
        check_sensor(self.reels[index], self._size, rescale=self.settings.rescale)
        is_live = isinstance(self.reels[index], LiveReel) and index == self.index
        start_us = self.t_us if is_live else start_of(self.reels[index])
        self._is_broken = True
        self.engine.restart()
        if start_us:
            before = no_events(self._size) if is_live else self.reels[index].take(0, start_us)
            self.engine.advance(before, start_us)
        self._is_broken = self._is_adrift = False
        self.index, self.t_us = index, start_us
        self.has_ended, self.final = False, None
        self._thin.reset()
        self._kept.clear()
        self._n_missed = getattr(self.reel, "n_missed", 0)
        if self._follows:
            self._set_knobs(first_settings(self.reel, self.settings))
        begin_within(self.windows, start_us)
        try:
            self.tell_reset()
        finally:
            self._follow(start_us)

    def next_index(self) -> int | None:
        """Return which reel follows; None after the last one, unless it goes round."""
        following = self.index + 1
        return following if following < len(self.reels) else 0 if self.settings.loop else None

    def cut_us(self, span_us: int, goal_us: int | None) -> int:
        """Return where the next stretch has to end: a window's end, a goal, the reel's end, or ``span_us`` from now.

        It is where the show is already where nothing can be played: at the end, or while no events come.
        """
        reel = self.reel
        ends = [self.windows.next_end_us]
        if isinstance(reel, LiveReel):
            ends.append(max(self.t_us, reel.reached_us))
        else:
            ends.append(self.t_us + max(1, span_us))
        if isinstance(reel, SessionReel):
            goal_us = min((end for end in (goal_us, reel.next_cut_us(self.t_us)) if end is not None), default=None)
        ends += [end for end in (goal_us, reel.duration_us) if end is not None]
        return min(ends)

    @property
    def is_at_end(self) -> bool:
        """Whether the reel has nothing more."""
        return self.reel.duration_us is not None and self.t_us >= self.reel.duration_us

    def go(self, pace: Pace) -> None:
        """Play one stretch, and tell the listeners.

        Raises: what engine, readers, own readout and listeners raise, when all listeners have been told.
        """
        stretch = self._advance(pace)
        self.tell("on_stretch", stretch)
        try:
            windows = self.windows.add(stretch, pace.due_s)
        finally:
            self._keep()
            self._follow(self.t_us)
        for window in windows:
            self.tell("on_window", window)
        self._complain()

    def end(self) -> None:
        """Close the window that is open, and decide on the whole reel."""
        self.has_ended = True
        for window in self.windows.finish():
            self.tell("on_window", window)
        self.final = self.finals[self.index] = self.engine.final_class()
        self.tell("on_end", self.final)
        self._complain()

    def mend(self) -> None:
        """Take up a run that a problem interrupted in the middle of a stretch, as exactly as the engine can."""
        if not self.needs_mending:
            return
        if self.can_seek:
            self.seek(self.t_us)
        else:
            self.open(self.index)

    def seek(self, t_us: int) -> None:
        """Go to a time of the reel without telling anybody of what lies between.

        Law: states and counts so far are those of playing to there.
        Raises: SettingError where that cannot be; as ``go``.
        """
        if not self.can_seek:
            raise SettingError(f"seek: expected a recording, found {self._who()}, which cannot go to another time.")
        t_us = max(start_of(self.reel), min(int(t_us), self.reel.duration_us or 0))
        self._follow(t_us)
        start_us = t_us - t_us % self.windows.knobs.interval_us
        kept = self._kept.before(start_us)
        is_lost = self.needs_mending
        self._is_adrift = True
        if is_lost or self.t_us > start_us or (kept is not None and kept.t_us > self.t_us):
            self._take_up(kept)
            so_far = np.zeros(self._n_classes, np.int64) if kept is None else kept.so_far
        else:
            so_far = self.windows.so_far
        while self.t_us < start_us:
            labels = self._advance(Pace(min(start_us, self.t_us + _SILENT_US))).spikes.label
            so_far = so_far + count_labels(labels, self._n_classes)
            self._keep(so_far)
        self.windows.reset(t_us, so_far=so_far)
        while self.t_us < t_us:
            self.windows.add(self._advance(Pace(min(t_us, self.t_us + _SILENT_US))))
        self._is_adrift = False
        self.has_ended, self.final = False, None
        self.tell_reset()

    def set_roi(self, box: Box | None) -> None:
        """Leave out events outside of a box from now on; going back from here plays by the new box from the start.

        Raises: SettingError for a box that does not lie in the sensor, a camera, or a recorded session.
        """
        if box is not None:
            if self.engine.has_camera or isinstance(self.reel, SessionReel):
                raise SettingError(f"roi: expected a recording or a stream, found {self._who()}. Try None.")
            if len(box) != 4:
                raise SettingError(f"roi: expected (top, bottom, left, right), found {box!r:.60}. Try None.")
            list(crop(box)(no_events(self._size)))
        if box != self.roi:
            self._kept.clear()
        self.roi = box

    def set_knobs(self, settings: ViewSettings) -> None:
        """Collect and decide by other settings, from the next window on, and no more by those of a recorded session."""
        self._set_knobs(settings)
        self._follows = False
        self._complain()

    def watch(self, core: int | None) -> None:
        """Have the spike map of a core, or none."""
        self.engine.watch(() if core is None else (core,))

    def _set_knobs(self, settings: ViewSettings) -> None:
        if settings != self.settings:
            self.windows.set(settings)
            self.settings = settings
            self.tell("on_knobs", settings)

    def _follow(self, t_us: int) -> None:
        """Take the settings that a recorded session had at a time."""
        if self._follows:
            self._set_knobs(settings_at(self.reel, self.settings, t_us))

    def tell(self, what: str, told: Any) -> None:
        """Tell all listeners; one that fails is remembered, and complained of when all are done."""
        for listener in self.listeners:
            try:
                if (method := getattr(listener, what, None)) is not None:
                    method(told)
            except Exception as fault:  # noqa: BLE001 - whatever it is, the others are told first
                self.faulty, self._fault = listener, fault

    def tell_reset(self) -> None:
        """Tell all listeners where the show stands now."""
        if self.listeners:
            self.tell("on_reset", self._seat())
            self._complain()

    def introduce(self, recorder: Recorder, position: Position) -> None:
        """Tell a recorder where its first stretch begins, within a window that may have knobs of its own."""
        is_changing = self.windows.open_knobs != self.windows.knobs
        if is_changing:
            recorder.on_knobs(self.windows.open_knobs)
        recorder.on_reset(position)
        if is_changing:
            recorder.on_knobs(self.windows.knobs)

    def _complain(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _who(self) -> str:
        return "a recorded or timed device" if not self.is_live else f"'{self.reel.name}'"

    def _advance(self, pace: Pace) -> Stretch:
        if self._is_over():
            raise DeviceError("show: closed while it was on its way. Try another one.")
        started = time.perf_counter()
        raw = self.reel.take(self.t_us, pace.stop_us)
        stop_us = _cut(raw, self._n_most, pace.stop_us)
        if stop_us < pace.stop_us:
            raw = raw.window(self.t_us, stop_us)
        self._is_broken = True
        passed = self._pass(raw)
        stretch = self.engine.advance(passed, stop_us, speed=pace.speed)
        self._is_broken = False
        self.t_us = stretch.stop_us
        self._learn(len(raw), time.perf_counter() - started)
        missed = getattr(self.reel, "n_missed", 0)
        n_left_out = len(raw) - len(passed) + missed - self._n_missed
        self._n_missed = missed
        return dataclasses.replace(stretch, n_left_out=stretch.n_left_out + n_left_out) if n_left_out else stretch

    def _learn(self, n_events: int, work_s: float) -> None:
        """Have the next stretch hold about as many events as can be done in a tick."""
        if self.engine.is_timed:
            return
        tick_s = 1.0 / self.settings.fps
        if work_s > tick_s or 2 * n_events > self._n_most:
            fitting = n_events * tick_s / max(work_s, 1e-9)
            self._n_most = int(min(max(fitting, self._n_most / 4, _FEW_EVENTS), 4 * self._n_most, MAX_EVENTS))

    def _pass(self, events: Events) -> Events:
        """Return what the nodes let through; a session holds what they did."""
        if isinstance(self.reel, SessionReel):
            return events
        size = events.sensor_size
        fitting = (rescale(size, self._size),) if self.settings.rescale and size != self._size else ()
        nodes = chain(*fitting, *(() if self.roi is None else (crop(self.roi),)), self._thin)
        parts = nodes(events)
        return one_behind_other(parts) if parts else no_events(self._size)

    def _keep(self, so_far: NDArray[np.int64] | None = None) -> None:
        if not self.can_seek or not self._kept.wants(self.t_us):
            return
        counts = self.windows.so_far if so_far is None else so_far
        self._kept.add(KeptState(self.t_us, self.engine.keep(), counts, copy.copy(self._thin)))

    def _take_up(self, kept: KeptState | None) -> None:
        self._is_broken = True
        if kept is None:
            self.engine.restart()
            self._thin.reset()
            self.t_us = 0
        else:
            self.engine.take_up(kept.engine)
            thin: Decimate = copy.copy(kept.nodes)
            self._thin, self.t_us = thin, kept.t_us
        self._is_broken = False


def _cut(events: Events, n_most: int, stop_us: int) -> int:
    """Return where a stretch of these events ends: before there are too many, between two distinct times."""
    if len(events) <= n_most:
        return stop_us
    first, next_one = int(events.t_us[0]), int(events.t_us[n_most])
    return next_one if next_one > first else first + 1
