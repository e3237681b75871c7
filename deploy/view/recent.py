"""What was shown lately, kept for exports and for pages that come late."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.errors import SettingError
from spikeport.models.arrays import frozen
from spikeport.models.events import Events
from spikeport.models.window import one_behind_other

from .export import draw_gif, write_windows_csv
from .types import Position, Stretch, Window

MAX_WINDOWS = 1 << 15
MAX_EVENTS = 1 << 20
"""Most events that are kept, 14 MB; of a busy camera these are few seconds."""

MAX_SPAN_US = 60_000_000

PAST_WINDOWS = 512
PAST_EVENTS = 1 << 15
"""Most windows and events that a page is told of when it comes late."""

PAST_LEVELS = 16
"""What an event that has not faded adds to the past image: a page tells no finer steps apart."""

_SEEN_FADES = 4  # fading times after which nothing of an event is seen


@dataclasses.dataclass(frozen=True, eq=False)
class Past:
    """What a page shows that has looked on since the reel or the last seek began: the newest windows, and the image.

    Shapes: ``image`` is uint8 ``[2, H, W]``, the events of each polarity and pixel as far as they have not faded, in
    parts of ``1 / PAST_LEVELS``; None where nobody knows the sensor yet.
    """

    windows: tuple[Window, ...] = ()
    image: NDArray[np.uint8] | None = None


class _Part(NamedTuple):
    start_us: int
    stop_us: int
    events: Events


class Recent:
    """A listener that keeps the last windows, and the events since the last seek or reel as far as there is room."""

    def __init__(self, classes: Sequence[str] = (), *, fade_ms: float = 50.0, recording: str = "") -> None:
        self._classes = tuple(classes)
        self._recording = recording
        self._fade_us = fade_ms * 1000
        self._seen_us = _SEEN_FADES * self._fade_us
        self._n_since_reset = 0
        self._lock = threading.Lock()
        self._windows: collections.deque[Window] = collections.deque(maxlen=MAX_WINDOWS)
        self._recordings: collections.deque[str] = collections.deque(maxlen=MAX_WINDOWS)
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
            self._recordings.append(self._recording)
            self._n_since_reset += 1

    def on_reset(self, position: Position) -> None:
        """Forget the events: time starts again somewhere else."""
        with self._lock:
            self._recording = position.name
            self._parts.clear()
            self._n_events = self._n_since_reset = 0

    def past(self) -> Past:
        """Return what a page that comes late has missed of what is still to be seen."""
        with self._lock:
            windows = self._since_reset(PAST_WINDOWS)
            kept: list[_Part] = []
            n_events = 0
            for part in reversed(self._parts):
                if kept and (n_events >= PAST_EVENTS or part.stop_us <= self._parts[-1].stop_us - self._seen_us):
                    break
                kept.append(part)
                n_events += len(part.events)
        if not kept:
            return Past(windows)
        events = one_behind_other([part.events for part in kept[::-1]])
        newest_events = events.part(max(0, len(events) - PAST_EVENTS), len(events))
        return Past(windows, _faded(newest_events, kept[0].stop_us, self._fade_us))

    def windows_csv(self) -> bytes:
        """Return a table of the windows."""
        with self._lock:
            windows, recordings = tuple(self._windows), tuple(self._recordings)
        return write_windows_csv(windows, self._classes, recordings=recordings)

    def activity_gif(self, start_us: int, stop_us: int) -> bytes:
        """Return the events of a span of time, as far as they are kept, as an animation.

        Raises: SettingError where none of it is.
        """
        with self._lock:
            kept = [one for one in self._parts if one.start_us < stop_us and one.stop_us > start_us]
            windows = tuple(one for one in self._since_reset(MAX_WINDOWS) if start_us <= one.start_us < stop_us)
        if not kept:
            raise SettingError("nothing of this time was shown. Try playing it first.")
        span_us = max(start_us, kept[0].start_us), min(stop_us, kept[-1].stop_us)
        events: Events = one_behind_other([one.events for one in kept])
        return draw_gif(events.window(*span_us), span_us, windows=windows, classes=self._classes)

    def _since_reset(self, n_most: int) -> tuple[Window, ...]:
        newest = itertools.islice(reversed(self._windows), min(self._n_since_reset, n_most))
        return tuple(newest)[::-1]


def _faded(events: Events, t_us: int, fade_us: float) -> NDArray[np.uint8]:
    """Return the image of events as they have faded at a time."""
    height, width = events.sensor_size
    left = PAST_LEVELS * np.exp((events.t_us - t_us) / fade_us)
    cells = (events.p.astype(np.intp) * height + events.y) * width + events.x
    levels = np.bincount(cells, left, minlength=2 * height * width).reshape(2, height, width)
    return frozen(np.minimum(np.rint(levels), 255).astype(np.uint8))
