"""The camera of a virtual board: a recording that its sensor looks at, over and over, in real time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from spikeport.models import read_events
from spikeport.models.events import Events

from .clock import GRACE_US
from .configuration import SENSOR_EDGE
from .errors import VirtualBoardError

CAMERA_VARIABLE = "SPIKEPORT_CAMERA"
"""Environment variable with the recording that virtual cameras look at, where ``install`` names none."""

Seen = tuple[int, int, int, int]
"""Polarity, row, column, and the wall time of an event, in microseconds."""


class Scene:
    """What a camera looks at: a recording, a file of one, or nothing; a file is read when it is first looked at."""

    def __init__(self, source: Events | Path | str | None) -> None:
        self._source = source
        self._events: Events | None = None

    def check(self, board: str) -> None:
        """Raise VirtualBoardError where there is nothing to look at; errors of the readers where a file is none."""
        if self._source is None:
            raise VirtualBoardError(
                f"device '{board}': the camera of a virtual board looks at a recording, and none is set. Try "
                f"{CAMERA_VARIABLE}=RECORDING in the environment, or "
                "spikeport.deploy.virtual.install(camera=RECORDING) in Python."
            )
        self.events()

    def events(self) -> Events | None:
        """Return the recording; None where there is nothing to look at.

        Raises: VirtualBoardError for an empty recording, or one of a larger sensor; errors of the readers.
        """
        if self._events is None and self._source is not None:
            events = self._source if isinstance(self._source, Events) else read_events(self._source)
            height, width = events.sensor_size
            if not len(events) or max(height, width) > SENSOR_EDGE:
                raise VirtualBoardError(
                    f"virtual camera: expected a recording with events, of a sensor of at most {SENSOR_EDGE}x"
                    f"{SENSOR_EDGE}, found {len(events)} events of {height}x{width}. Try another one, or rescale it."
                )
            self._events = events
        return self._events


_installed = Scene(None)


def install_scene(source: Events | Path | str | None) -> None:
    """Let virtual boards that are opened from now on look at a recording; None: at nothing but what is in the
    environment.
    """
    global _installed
    _installed = Scene(source)


def find_scene() -> Scene:
    """Return what was installed, or else what the environment names."""
    if _installed._source is not None:
        return _installed
    return Scene(os.environ.get(CAMERA_VARIABLE) or None)


class Camera:
    """A sensor at work from ``start`` to ``stop``: the recording begins when it starts, and begins again at its end.

    A smaller recording lies in the upper left of the sensor. A chip that cannot keep up sees it slower than it was: no
    event is left out.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._events: Events | None = None
        self._t_us = np.zeros(0, np.int64)
        self._period_us = 1
        self._start_us = self._index = self._turn = 0

    @property
    def next_us(self) -> int | None:
        """Wall time of the next event; None where it sees nothing."""
        if self._events is None:
            return None
        return self._start_us + self._turn * self._period_us + int(self._t_us[self._index])

    def start(self, wall_us: int) -> None:
        """See the first event of the recording at ``wall_us``.

        Raises: as ``Scene.events``.
        """
        events = self._scene.events()
        if events is not None:
            self._t_us = events.from_zero().t_us.astype(np.int64)
            # From the last event to the first one again passes as much as between any two.
            self._period_us = int(self._t_us[-1]) + max(1, int(self._t_us[-1]) // len(events))
        self._events = events
        self._start_us, self._index, self._turn = wall_us, 0, 0

    def stop(self) -> None:
        """See nothing."""
        self._events = None

    def take(self, until_us: int, n_most: int) -> list[Seen]:
        """Return the next events until a wall time, at most ``n_most``."""
        seen: list[Seen] = []
        while self._events is not None and len(seen) < n_most:
            late_us = until_us - (self.next_us or 0)
            if late_us < 0:
                break
            if late_us > GRACE_US:
                self._start_us += late_us
            begin_us = self._start_us + self._turn * self._period_us
            stop = int(np.searchsorted(self._t_us, until_us - begin_us, side="right"))
            stop = min(stop, self._index + n_most - len(seen))
            part = self._events.part(self._index, stop)
            times = (self._t_us[self._index : stop] + begin_us).tolist()
            seen += zip(part.p.tolist(), part.y.tolist(), part.x.tolist(), times, strict=True)
            self._index = stop
            if stop == self._t_us.size:
                self._index, self._turn = 0, self._turn + 1
        return seen
