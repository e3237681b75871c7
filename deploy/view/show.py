"""A show: reels that play through an engine at a speed, and may be paused, stepped, sought in and recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.errors import SettingError

from .listeners import Listener, Recorder
from .performing import Performance
from .playing import Playing
from .settings import KNOBS, ViewSettings
from .tally import Tally
from .types import Box, Engine, Position, Reel, Totals
from .windows import Readout


class Show:
    """Reels that play through an engine, for listeners.

    A show begins paused, at the start of the first reel; ``start`` begins its thread. What it is asked for, from any
    thread, has been done between two stretches when the call returns; a listener's own wish is done after it returned.
    A problem pauses the show and is kept in its position; playing on begins where it was, by a new run to there if need
    be. At the end of a reel the next one follows; the last one is left standing at its end, unless the settings say
    ``loop``, and playing on begins the first. Streams and cameras go at their own speed. ``recorder`` makes the
    listener that ``record`` needs, from a path.
    Law: every event of a reel goes to the engine or is counted as left out, however slow the engine is; counters,
    windows and classes do not depend on the wall clock.
    Raises: SettingError, RecordingError, DeviceError, errors of the readers, where the first reel does not fit.
    """

    def __init__(
        self,
        engine: Engine,
        reels: Sequence[Reel],
        *,
        settings: ViewSettings,
        readout: Readout | None = None,
        listeners: Sequence[Listener] = (),
        recorder: Callable[[Path], Recorder] | None = None,
    ) -> None:
        def make(seat: Callable[[], Position], is_over: Callable[[], bool]) -> Playing:
            return Playing(engine, reels, settings, readout=readout, seat=seat, is_over=is_over)

        self._tally = Tally()
        self._on = Performance(make, recorder)
        self._playing = self._on.playing
        self._playing.listeners = (self._tally, *listeners)

    def start(self) -> None:
        """Begin the thread; a second time does nothing."""
        self._on.start()

    def close(self) -> None:
        """End the thread, finish a recorded file, and give the device back; a second time does nothing."""
        self._on.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether the show stands still, having waited for that: the end, a pause, a problem, or its close."""
        return self._on.stands.wait(timeout_s)

    def await_viewer(self) -> None:
        """Wait with playing until ``begin`` is called, or something else is asked for; ``wait`` waits for that too."""
        self._on.ask(self._on.await_viewer)

    def begin(self) -> None:
        """Play, if the show waits for that, and do nothing otherwise. Raises: as ``play``."""
        self._on.ask(self._on.begin)

    def play(self) -> None:
        """Play on; at the end of a reel the next one, or the first. Raises: what beginning a reel raises."""
        self._on.ask(self._on.play)

    def pause(self) -> None:
        """Stand still."""
        self._on.ask(self._on.rest)

    def step(self, n: int = 1) -> None:
        """Play to the end of the next ``n`` steps of ``step_ms``, as fast as it can, and stand still.

        It has come there on return; the end of the reel, a problem, or another wish ends it before.
        Raises: SettingError for less than one step; the problem.
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise SettingError(f"step: expected 1 step or more, found {n!r:.40}. Try 1.")
        goal = self._on.ask(lambda: self._on.aim(n))
        if goal is None:  # a listener's wish
            return
        goal.reached.wait()
        if goal.error is not None:
            raise goal.error

    def set_speed(self, speed: float | None) -> None:
        """Play at a multiple of the reel's own speed; None: as fast as it can. Raises: SettingError."""
        self._on.ask(lambda: self._on.change_speed(speed))

    def seek(self, t_us: int) -> None:
        """Go to a time of the reel, forward or back; it is silent, and counted nowhere.

        Law: states, windows and counts so far are those of playing to there.
        Raises: SettingError where there is no going.
        """
        self._on.ask(lambda: self._on.jump(lambda: self._playing.seek(t_us)))

    def open(self, index: int) -> None:
        """Begin another reel, playing on if it was. Raises: SettingError; errors of the readers."""
        self._on.ask(lambda: self._on.jump(lambda: self._playing.open(index)))

    def set_roi(self, box: Box | None) -> None:
        """Leave out what is outside of a box, from the next cut on. Raises: SettingError."""
        self._on.ask(lambda: self._playing.set_roi(box))

    def set_knobs(self, **knobs: Any) -> None:
        """Collect and decide by other values of ``KNOBS``, from the next window on. Raises: SettingError."""
        unknown = [name for name in knobs if name not in KNOBS]
        if unknown:
            raise SettingError(f"knobs: expected some of {', '.join(KNOBS)}, found '{unknown[0]}'. Try interval_ms.")
        self._on.ask(lambda: self._playing.set_knobs(self.settings.changed(**knobs)))

    def watch(self, core: int | None) -> None:
        """Have the spike map of a core, or none. Raises: SettingError for a core that is not there."""
        self._on.ask(lambda: self._playing.watch(core))

    def record(self, path: str | Path | None) -> None:
        """Write all that follows to a file; None finishes it. Raises: SettingError, and what the recorder raises."""
        self._on.ask(lambda: self._on.change_recorder(None if path is None else Path(path)))

    def add_listener(self, listener: Listener) -> None:
        """Tell another listener from the next stretch on."""
        self._on.add_listener(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Tell a listener no more."""
        self._on.remove_listener(listener)

    @property
    def settings(self) -> ViewSettings:
        """The settings of now."""
        return self._playing.settings

    @property
    def engine(self) -> Engine:
        """What runs the program."""
        return self._playing.engine

    @property
    def reels(self) -> tuple[Reel, ...]:
        """What is played."""
        return self._playing.reels

    @property
    def can_seek(self) -> bool:
        """Whether ``seek`` goes anywhere."""
        return self._playing.can_seek

    def position(self) -> Position:
        """Return where the show stood at the last cut."""
        return self._on.position

    def totals(self) -> Totals:
        """Return everything counted since the show was made."""
        return self._tally.totals

    def so_far(self) -> NDArray[np.int64]:
        """Return the spikes of each class since the start of the reel."""
        return self._playing.windows.so_far

    @property
    def fault(self) -> Exception | None:
        """What paused the show, whose sentence is the problem of its position; None where all is well."""
        return self._on.fault

    def finals(self) -> dict[int, int | None]:
        """Return the class of each reel that has ended, by its index, as it ended last."""
        return dict(self._playing.finals)
