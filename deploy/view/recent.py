"""What was shown lately, kept for exports."""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence
from typing import NamedTuple

from spikeport.deploy.errors import SettingError
from spikeport.models.events import Events
from spikeport.models.window import one_behind_other

from .export import draw_gif, write_windows_csv
from .types import Position, Stretch, Window

MAX_WINDOWS = 1 << 15
MAX_EVENTS = 1 << 20
"""Most events that are kept, 14 MB; of a busy camera these are few seconds."""

MAX_SPAN_US = 60_000_000


class _Part(NamedTuple):
    start_us: int
    stop_us: int
    events: Events


class Recent:
    """A listener that keeps the last windows, and the events since the last seek or reel as far as there is room."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._lock = threading.Lock()
        self._windows: collections.deque[Window] = collections.deque(maxlen=MAX_WINDOWS)
        self._parts: collections.deque[_Part] = collections.deque()
        self._n_events = 0

    def on_stretch(self, stretch: Stretch) -> None:
        """Keep a stretch, and as many before it as there is room for."""
        with self._lock:
            self._parts.append(_Part(stretch.start_us, stretch.stop_us, stretch.events))
            self._n_events += len(stretch.events)
            while len(self._parts) > 1 and (
                self._n_events > MAX_EVENTS or stretch.stop_us - self._parts[0].stop_us > MAX_SPAN_US
            ):
                self._n_events -= len(self._parts.popleft().events)

    def on_window(self, window: Window) -> None:
        """Keep a window."""
        with self._lock:
            self._windows.append(window)

    def on_reset(self, position: Position) -> None:  # noqa: ARG002 - a listener's method
        """Forget the events: time starts again somewhere else."""
        with self._lock:
            self._parts.clear()
            self._n_events = 0

    def windows_csv(self) -> bytes:
        """Return a table of the windows."""
        with self._lock:
            windows = tuple(self._windows)
        return write_windows_csv(windows, self._classes)

    def activity_gif(self, start_us: int, stop_us: int) -> bytes:
        """Return the events of a span of time, as far as they are kept, as an animation.

        Raises: SettingError where none of it is.
        """
        with self._lock:
            kept = [one for one in self._parts if one.start_us < stop_us and one.stop_us > start_us]
            windows = tuple(window for window in self._windows if start_us <= window.start_us < stop_us)
        if not kept:
            raise SettingError("nothing of this time was shown. Try playing it first.")
        span_us = max(start_us, kept[0].start_us), min(stop_us, kept[-1].stop_us)
        events: Events = one_behind_other([one.events for one in kept])
        return draw_gif(events.window(*span_us), span_us, windows=windows, classes=self._classes)
