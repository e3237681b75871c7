"""The event recording: a frozen record of address events, and its way to rasters and back."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .arrays import ArrayRecord, frozen
from .errors import EventsError

MAX_RASTER_CELLS = 1 << 31
"""Most cells of a raster. More are a slip, such as times since 1970, rather than a wish."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Events(ArrayRecord):
    """Address events of one recording, in order of time.

    Shapes: ``x, y, p, t_us`` are 1-D and of equal length, kept as int16, int16, int8 and int64; ``sensor_size`` is
    ``(height, width)``.
    Units: ``t_us`` in microseconds, not decreasing; ``p`` is 0 (off) or 1 (on).
    Raises: EventsError where lengths differ, a coordinate lies outside the sensor, a polarity is not 0 or 1,
    or a time is negative or earlier than the one before.
    """

    x: NDArray[np.integer[Any]]
    y: NDArray[np.integer[Any]]
    p: NDArray[np.integer[Any]]
    t_us: NDArray[np.integer[Any]]
    sensor_size: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = _checked_size(self.sensor_size)
        object.__setattr__(self, "sensor_size", (height, width))
        raw = {name: np.asarray(getattr(self, name)) for name in ("x", "y", "p", "t_us")}
        _check_columns(raw)
        _check_range("x", raw["x"], width, "column of the sensor")
        _check_range("y", raw["y"], height, "row of the sensor")
        _check_range("p", raw["p"], 2, "polarity (0 off, 1 on)")
        _check_times(raw["t_us"])
        for name, dtype in (("x", np.int16), ("y", np.int16), ("p", np.int8), ("t_us", np.int64)):
            given = getattr(self, name)
            object.__setattr__(self, name, frozen(given if isinstance(given, np.ndarray) else raw[name], dtype))

    def __len__(self) -> int:
        return int(self.t_us.size)

    def __repr__(self) -> str:
        height, width = self.sensor_size
        return f"Events({len(self)} events, {self.duration_us / 1e3:.1f} ms, sensor {height}x{width})"

    @property
    def duration_us(self) -> int:
        """Time from the first to the last event, in microseconds; 0 for fewer than two events."""
        return int(self.t_us[-1] - self.t_us[0]) if len(self) else 0

    def window(self, start_us: int, stop_us: int) -> Events:
        """Return the events with ``start_us <= t_us < stop_us``; times stay as they are."""
        first, last = np.searchsorted(self.t_us, [start_us, stop_us])
        return self.part(int(first), int(last))

    def part(self, start: int, stop: int) -> Events:
        """Return the events with indices ``start`` to below ``stop``, with their times."""
        kept = slice(start, stop)
        return dataclasses.replace(self, x=self.x[kept], y=self.y[kept], p=self.p[kept], t_us=self.t_us[kept])

    def from_zero(self) -> Events:
        """Return the same events with the first one at time 0."""
        return dataclasses.replace(self, t_us=self.t_us - self.t_us[0]) if len(self) else self

    def to_raster(
        self,
        dt_us: int,
        *,
        n_bins: int | None = None,
        merge_polarity: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return event counts per time bin, polarity and pixel.

        Shapes: ``[T, 2, H, W]``, or ``[T, 1, H, W]`` with ``merge_polarity``.
        Units: bin ``k`` holds the events with ``k * dt_us <= t_us < (k + 1) * dt_us``: time starts at 0, not at the
        first event. Without ``n_bins`` there are as many bins as reach the last event; events behind the last bin
        are left out.
        Law: without ``n_bins`` the raster sums to the number of events.
        Raises: EventsError where ``dt_us`` or ``n_bins`` makes no raster that fits, or ``dtype`` cannot hold a count.
        """
        _check_bin(dt_us)
        height, width = self.sensor_size
        bins = self.t_us // dt_us
        if n_bins is None:
            n_bins = int(bins[-1]) + 1 if len(self) else 0
        channels = 1 if merge_polarity else 2
        if not 0 <= n_bins * channels * height * width <= MAX_RASTER_CELLS:
            raise EventsError(
                f"n_bins: expected 0 or more bins with at most {MAX_RASTER_CELLS} cells together, found {n_bins} bins "
                f"of {channels}x{height}x{width}. Try from_zero() first, a longer dt_us, or n_bins."
            )
        keep = bins < n_bins
        channel = np.zeros(len(self), np.int64) if merge_polarity else self.p.astype(np.int64)
        index = ((bins * channels + channel) * height + self.y) * width + self.x
        counts = np.bincount(index[keep], minlength=n_bins * channels * height * width)
        _check_counts(counts, np.dtype(dtype))
        return counts.astype(dtype).reshape(n_bins, channels, height, width)

    @classmethod
    def from_raster(cls, raster: ArrayLike, dt_us: int) -> Events:
        """Return the events of a raster of counts, each at the start of its bin.

        The order within a bin is row, column, polarity.

        Shapes: ``raster`` is ``[T, C, H, W]`` with C of 1 (polarity 0) or 2, whole and not negative.
        Law: ``Events.from_raster(r, dt).to_raster(dt, n_bins=len(r))`` equals ``r`` (2 channels).
        """
        _check_bin(dt_us)
        counts = np.asarray(raster)
        if counts.ndim != 4 or counts.shape[1] not in (1, 2):
            raise EventsError(
                f"raster: expected shape [T, 1 or 2, H, W], found {list(counts.shape)}. "
                "Try raster[:, None] for a raster without a polarity axis."
            )
        is_number = counts.dtype.kind in "biu" or (counts.dtype.kind == "f" and bool(np.isfinite(counts).all()))
        whole = counts.astype(np.int64) if is_number else np.full(1, -1)
        if np.any(whole < 0) or np.any(whole != counts):
            raise EventsError("raster: expected whole event counts of 0 or more, found others. Try numpy.rint first.")
        ordered = whole.transpose(0, 2, 3, 1)
        t, y, x, p = np.nonzero(ordered)
        repeat = ordered[t, y, x, p]
        t, y, x, p = (np.repeat(axis, repeat) for axis in (t, y, x, p))
        return cls(x, y, p, t * dt_us, (counts.shape[2], counts.shape[3]))


def concatenate(recordings: Sequence[Events], gap_us: int = 0) -> Events:
    """Return the recordings one after the other, each shifted to start ``gap_us`` after the end of the one before.

    Raises: EventsError where there is none, or sensor sizes differ.
    """
    if not recordings:
        raise EventsError("concatenate: expected at least one recording, found none. Try [events].")
    sizes = {recording.sensor_size for recording in recordings}
    if len(sizes) > 1:
        raise EventsError(f"concatenate: expected one sensor size, found {sorted(sizes)}. Try one call per sensor.")
    times, start = [], 0
    for recording in recordings:
        shifted = recording.from_zero().t_us + start
        times.append(shifted)
        start = int(shifted[-1]) + gap_us if len(shifted) else start
    x, y, p = (np.concatenate([getattr(recording, name) for recording in recordings]) for name in ("x", "y", "p"))
    return Events(x, y, p, np.concatenate(times), sizes.pop())


def _checked_size(size: object) -> tuple[int, int]:
    try:
        height, width = (operator.index(edge) for edge in size)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise EventsError(f"sensor_size: expected (height, width), found {size!r}. Try (34, 34).") from None
    if not (1 <= height <= 32767 and 1 <= width <= 32767):
        raise EventsError(f"sensor_size: expected edges of 1 to 32767, found {height}x{width}. Try 34x34.")
    return height, width


def _check_bin(dt_us: int) -> None:
    if dt_us < 1:
        raise EventsError(f"dt_us: expected at least 1 microsecond, found {dt_us}. Try 10000 for bins of 10 ms.")


def _check_counts(counts: NDArray[np.int64], dtype: np.dtype[Any]) -> None:
    """Refuse a dtype that would wrap or round a count."""
    most = int(counts.max(initial=0))
    if dtype.kind == "f":
        limit = int(2 ** (np.finfo(dtype).nmant + 1))
    else:
        limit = int(np.iinfo(dtype).max) if dtype.kind in "iu" else int(dtype.kind == "b")
    if most > limit:
        raise EventsError(f"dtype: expected one that holds a count of {most}, found {dtype}. Try numpy.int32.")


def _check_columns(columns: dict[str, NDArray[Any]]) -> None:
    if any(column.ndim != 1 for column in columns.values()) or len({column.size for column in columns.values()}) > 1:
        shapes = ", ".join(f"{name} {list(column.shape)}" for name, column in columns.items())
        raise EventsError(
            f"events: expected four 1-D arrays of equal length, found {shapes}. Try one column per field."
        )
    for name, column in columns.items():
        if column.size and not np.issubdtype(column.dtype, np.integer) and column.dtype != np.bool_:
            raise EventsError(f"events: {name}: expected integers, found {column.dtype}. Try {name}.astype(int).")


def _check_range(name: str, values: NDArray[Any], limit: int, meaning: str) -> None:
    outside = (values < 0) | (values >= limit)
    if outside.any():
        first = int(np.argmax(outside))
        raise EventsError(
            f"events: {name}[{first}] is {int(values[first])}, expected a {meaning} in 0..{limit - 1} "
            f"({int(outside.sum())} of {values.size} events are outside). "
            "Try the sensor's true size, or crop the recording first."
        )


def _check_times(times: NDArray[Any]) -> None:
    if times.size and int(times[0]) < 0:
        raise EventsError(f"events: t_us[0] is {int(times[0])}, expected 0 or more. Try t_us - t_us.min().")
    if times.size and int(times.max()) > np.iinfo(np.int64).max:
        raise EventsError(
            f"events: t_us holds {int(times.max())}, expected times of 63 bits. Try times in microseconds."
        )
    backwards = np.diff(times.astype(np.int64)) < 0
    if backwards.any():
        at = int(np.argmax(backwards)) + 1
        raise EventsError(
            f"events: t_us[{at}] is {int(times[at])}, earlier than {int(times[at - 1])} before it; expected times that "
            "never decrease. Try sorting by time: order = numpy.argsort(t_us, kind='stable')."
        )
