"""What a client has not seen yet, added up: a slow one gets fewer frames, and still every count."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import ArrayRecord, frozen
from spikeport.models.events import Events

from .gauges import sum_told
from .recent import Past, Recent
from .types import CoreCounts, Position, Stretch, Totals, Window

MAX_WINDOWS = 512
"""Windows that a frame lists; older ones are added up."""

MAX_SHOWN = 255
"""Most events of one pixel and polarity that an image tells."""

_ONE = np.int32(1)
_FEW_ENOUGH = 1 << 30
"""Events that are added to an image before its cells are cut to ``MAX_SHOWN``, far below what int32 holds."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Frame(ArrayRecord):
    """Everything that happened since the frame before, and where the show stands.

    Shapes: ``points`` is 1-D, a cell ``(y * width + x) * 2 + p`` for each event; ``image`` is uint8 ``[2, H, W]``,
    events of each polarity and pixel, up to ``MAX_SHOWN``; one of them is None, both where nobody knows the sensor yet.
    ``maps`` holds int64 ``[H, W]`` for each watched core.
    Units: ``made_ms`` and ``data_ms``, when the newest stretch came, since 1970; ``power_w`` is the mean over
    ``span_us``. ``skipped_counts`` are the spikes of the windows that are not listed, None where all are.
    The first frame of a client ``is_past``: it lists windows from before the client came, its image is that of
    ``Past``, and nothing of it is counted.
    """

    made_ms: float
    data_ms: float
    t_us: int
    span_us: int
    n_events: int
    position: Position
    totals: Totals
    so_far: NDArray[np.int64]
    cores: Mapping[int, CoreCounts]
    power_w: Mapping[str, float] | None
    windows: tuple[Window, ...]
    n_skipped_windows: int
    skipped_counts: NDArray[np.int64] | None
    was_reset: bool
    points: NDArray[np.uint16 | np.uint32] | None
    image: NDArray[np.uint8] | None
    maps: Mapping[int, NDArray[np.int64]]
    is_past: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "so_far", frozen(self.so_far, np.int64))


class Backlog:
    """A listener that adds up what a show tells until ``take`` asks for it; for one client, in any thread.

    ``wake`` is called in the show's thread when there is something to take again. With a ``past``, that is what the
    first frame shows.
    Law: whatever is taken when, the sums of all frames are those of all stretches, and each window is listed once or
    counted as skipped. Memory does not grow, however long nobody takes anything.
    """

    def __init__(self, wake: Callable[[], None] | None = None, *, past: Past | None = None) -> None:
        self._lock = threading.Lock()
        self._wake = wake
        self._past = past
        self._sums = _Sums(was_reset=past is None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come since the last frame."""
        return self._past is None and self._sums.is_empty

    def on_stretch(self, stretch: Stretch) -> None:
        """Add a stretch."""
        self.add(stretch, cells_of(stretch.events))

    def on_window(self, window: Window) -> None:
        """Add a window; the oldest makes room where there are too many."""
        with self._lock:
            self._sums.add_window(window)
        self._call()

    def on_reset(self, position: Position) -> None:  # noqa: ARG002 - what a listener is told
        """Forget what is drawn, keep what is counted: the show stands somewhere else."""
        with self._lock:
            self._sums.forget_picture()
            self._past = None if self._past is None else Past()
        self._call()

    def add(self, stretch: Stretch, cells: NDArray[np.int32]) -> None:
        """Add a stretch whose cells are known, as several clients share them."""
        with self._lock:
            self._sums.add(stretch, cells)
        self._call()

    def take(self, position: Position, totals: Totals, so_far: NDArray[np.int64]) -> Frame:
        """Return what came since the frame before, with what the show says of itself; start again from nothing."""
        with self._lock:
            past, self._past = self._past, None
            if past is None:
                sums, self._sums = self._sums, _Sums(self._sums.sensor_size)
        return sums.frame(position, totals, so_far) if past is None else _past_frame(past, position, totals, so_far)

    def _call(self) -> None:
        if self._wake is not None:
            self._wake()


class Audience:
    """A listener that tells every backlog of the moment, and keeps what is ``recent`` for those that come late.

    Law: a window is in the past that a backlog begins with, or it is told later, never both.
    """

    def __init__(self, recent: Recent | None = None) -> None:
        self.recent = Recent() if recent is None else recent
        self._lock = threading.Lock()
        self._backlogs: tuple[Backlog, ...] = ()

    def join(self, wake: Callable[[], None] | None = None) -> Backlog:
        """Return a backlog that begins with the past and is told everything from now on."""
        with self._lock:
            backlog = Backlog(wake, past=self.recent.past())
            self._backlogs = (*self._backlogs, backlog)
        return backlog

    def leave(self, backlog: Backlog) -> None:
        """Tell a backlog nothing any more."""
        with self._lock:
            self._backlogs = tuple(one for one in self._backlogs if one is not backlog)

    def on_stretch(self, stretch: Stretch) -> None:
        """Add a stretch to every backlog."""
        with self._lock:
            self.recent.on_stretch(stretch)
            backlogs = self._backlogs
        cells = cells_of(stretch.events) if backlogs else None
        for backlog in backlogs:
            if cells is not None:
                backlog.add(stretch, cells)

    def on_window(self, window: Window) -> None:
        """Add a window to every backlog."""
        with self._lock:
            self.recent.on_window(window)
            backlogs = self._backlogs
        for backlog in backlogs:
            backlog.on_window(window)

    def on_reset(self, position: Position) -> None:
        """Tell every backlog that the show stands somewhere else."""
        with self._lock:
            self.recent.on_reset(position)
            backlogs = self._backlogs
        for backlog in backlogs:
            backlog.on_reset(position)


def cells_of(events: Events) -> NDArray[np.int32]:
    """Return the cell ``(y * width + x) * 2 + p`` of each event."""
    cells = events.y.astype(np.int32)
    cells *= events.sensor_size[1]
    cells += events.x
    cells *= 2
    cells += events.p
    return cells


class _Sums:
    """What came since a frame; not safe for threads by itself."""

    def __init__(self, sensor_size: tuple[int, int] | None = None, *, was_reset: bool = False) -> None:
        self.sensor_size = sensor_size
        self.was_reset = was_reset
        self.is_empty = True
        self._data_ms = 0.0
        self._t_us: int | None = None
        self._span_us = 0
        self._n_events = 0
        self._points: list[NDArray[np.int32]] = []
        self._n_points = 0
        self._image: NDArray[np.int32] | None = None
        self._n_in_image = 0
        self._cores: dict[int, CoreCounts] = {}
        self._maps: dict[int, NDArray[np.int64]] = {}
        self._joules: dict[str, float] = {}
        self._powered_us = 0
        self._windows: collections.deque[Window] = collections.deque()
        self._n_skipped = 0
        self._skipped: NDArray[np.int64] | None = None

    def add(self, stretch: Stretch, cells: NDArray[np.int32]) -> None:
        self.is_empty = False
        self._data_ms = time.time() * 1e3
        self._t_us = stretch.stop_us
        span_us = stretch.stop_us - stretch.start_us
        self._span_us += span_us
        self._n_events += cells.size
        self.draw(cells, stretch.events.sensor_size)
        for core, counts in stretch.cores.items():
            before = self._cores.get(core)
            self._cores[core] = counts if before is None else _added(before, counts)
        for core, spikes in stretch.maps.items():
            known = self._maps.get(core)
            self._maps[core] = spikes + known if known is not None and known.shape == spikes.shape else spikes
        if stretch.power_w is not None:
            self._powered_us += span_us
            for rail, watts in stretch.power_w.items():
                self._joules[rail] = self._joules.get(rail, 0.0) + watts * span_us

    def add_window(self, window: Window) -> None:
        self.is_empty = False
        self._windows.append(window)
        if len(self._windows) > MAX_WINDOWS:
            self._skip(self._windows.popleft())

    def forget_picture(self) -> None:
        self.is_empty = False
        self.was_reset = True
        self._points, self._n_points, self._image, self._n_in_image = [], 0, None, 0
        self._maps = {}
        while self._windows:
            self._skip(self._windows.popleft())

    def frame(self, position: Position, totals: Totals, so_far: NDArray[np.int64]) -> Frame:
        made_ms = time.time() * 1e3
        points, image = self._picture()
        return Frame(
            made_ms=made_ms,
            data_ms=made_ms if self._t_us is None else self._data_ms,
            t_us=position.t_us if self._t_us is None else self._t_us,
            span_us=self._span_us,
            n_events=self._n_events,
            position=position,
            totals=totals,
            so_far=so_far,
            cores=MappingProxyType(self._cores),
            power_w={rail: sum_ / self._powered_us for rail, sum_ in self._joules.items()}
            if self._powered_us
            else None,
            windows=tuple(self._windows),
            n_skipped_windows=self._n_skipped,
            skipped_counts=self._skipped,
            was_reset=self.was_reset,
            points=points,
            image=image,
            maps=MappingProxyType(self._maps),
        )

    def draw(self, cells: NDArray[np.int32], sensor_size: tuple[int, int]) -> None:
        if sensor_size != self.sensor_size:
            self.sensor_size = sensor_size
            self._points, self._n_points, self._image, self._n_in_image = [], 0, None, 0
        if self._image is None:
            if not cells.size:
                return
            self._points.append(cells)
            self._n_points += cells.size
            if self._n_points * point_type(sensor_size).itemsize < n_cells(sensor_size):
                return
            cells, self._points = np.concatenate(self._points), []
            self._image = np.zeros(n_cells(sensor_size), np.int32)
        if self._n_in_image + cells.size > _FEW_ENOUGH:
            np.minimum(self._image, MAX_SHOWN, out=self._image)
            self._n_in_image = 0
        self._n_in_image += cells.size
        # Of just these types numpy adds forty times as fast (measured: 2026-11-22, numpy 2.4).
        np.add.at(self._image, cells.astype(np.intp), _ONE)

    def _picture(self) -> tuple[NDArray[np.uint16 | np.uint32] | None, NDArray[np.uint8] | None]:
        if self.sensor_size is None:
            return None, None
        height, width = self.sensor_size
        if self._image is not None:
            image = np.minimum(self._image, MAX_SHOWN).astype(np.uint8).reshape(height, width, 2)
            return None, frozen(image.transpose(2, 0, 1))
        points = np.concatenate(self._points) if self._points else np.zeros(0, np.int32)
        return frozen(points.astype(point_type(self.sensor_size))), None

    def _skip(self, window: Window) -> None:
        self._n_skipped += 1
        known = self._skipped
        # The number of classes is a program's own, so it is the same throughout a show.
        self._skipped = window.counts if known is None else known + window.counts


def _past_frame(past: Past, position: Position, totals: Totals, so_far: NDArray[np.int64]) -> Frame:
    """Return the first frame of a client: what it has missed, shown, and counted nowhere."""
    frame = _Sums(was_reset=True).frame(position, totals, so_far)
    return dataclasses.replace(frame, windows=past.windows, image=past.image, is_past=True)


def n_cells(sensor_size: tuple[int, int]) -> int:
    """Return the number of cells of a sensor, two for each pixel: the bytes of an image."""
    return 2 * sensor_size[0] * sensor_size[1]


def point_type(sensor_size: tuple[int, int]) -> np.dtype[np.uint16 | np.uint32]:
    """Return the smallest type that holds a cell of a sensor."""
    return np.dtype(np.uint16 if n_cells(sensor_size) <= 1 << 16 else np.uint32)


def _added(a: CoreCounts, b: CoreCounts) -> CoreCounts:
    return CoreCounts(
        n_events=sum_told((a.n_events, b.n_events)),
        n_spikes=sum_told((a.n_spikes, b.n_spikes)),
        synops=sum_told((a.synops, b.synops)),
        n_dropped=sum_told((a.n_dropped, b.n_dropped)),
    )
