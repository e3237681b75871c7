"""Events that arrive: checked one by one, refused or left out and counted, in order of time to the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StreamError
from .events import Events

MAX_GAP_US = 3_600_000_000
"""A longer pause between two events, an hour, is taken for a slip of units."""


class Intake:
    """The check of a stream: what leaves it are recordings that follow each other in time.

    With ``repairs`` events that are none are left out, and ``counts`` says how many of each kind: ``backward`` in time,
    ``polarity`` other than 0 and 1, ``outside`` the sensor, ``pause`` of more than ``max_gap_us``.
    Law: every event that comes in leaves, or is counted once.
    """

    def __init__(self, *, repairs: bool = False, max_gap_us: int = MAX_GAP_US, who: str = "stream") -> None:
        self.counts: Counter[str] = Counter()
        self.n_events = 0
        self._repairs, self._max_gap_us, self._who = repairs, max_gap_us, who
        self._last_us: int | None = None
        self._size: tuple[int, int] | None = None

    def take(self, events: Events) -> Events:
        """Return a recording that fits behind what came before."""
        return self.take_columns(events.x, events.y, events.p, t_us=events.t_us, sensor_size=events.sensor_size)

    def take_columns(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        p: NDArray[Any],
        *,
        t_us: NDArray[Any],
        sensor_size: tuple[int, int],
    ) -> Events:
        """Return the events of raw columns that are events.

        Raises: StreamError for the first that is none, with its number in the stream, unless these are left out; for
        another sensor than before in any case.
        """
        if self._size not in (None, sensor_size):
            raise StreamError(
                f"{self._who}: expected events of one sensor, {self._size}, found {sensor_size}. Try one stream for "
                "each sensor."
            )
        self._size = sensor_size
        first = self.n_events
        self.n_events += t_us.size
        t_us = t_us.astype(np.int64, copy=False)
        bad = self._find(x, y, p, t_us, sensor_size)
        if not any(mask.any() for mask in bad.values()):
            if t_us.size:
                self._last_us = int(t_us[-1])
            return Events(x, y, p, t_us, sensor_size)
        if not self._repairs:
            kind, at = min(((kind, int(np.argmax(mask))) for kind, mask in bad.items() if mask.any()), key=_by_place)
            values = f"x={int(x[at])} y={int(y[at])} p={int(p[at])} t_us={int(t_us[at])}"
            raise StreamError(
                f"{self._who}: event {first + at} ({values}): {self._said(kind, sensor_size)}. "
                "Try --repair to leave such events out and count them."
            )
        kept = np.ones(t_us.size, np.bool_)
        for kind in ("outside", "polarity"):
            if n_bad := int((bad[kind] & kept).sum()):
                self.counts[kind] += n_bad
            kept &= ~bad[kind]
        in_order = self._in_order(t_us[kept])
        x, y, p, t_us = (column[kept][in_order] for column in (x, y, p, t_us))
        return Events(x, y, p, t_us, sensor_size)

    def _find(
        self, x: NDArray[Any], y: NDArray[Any], p: NDArray[Any], t_us: NDArray[np.int64], size: tuple[int, int]
    ) -> dict[str, NDArray[np.bool_]]:
        steps = np.diff(t_us, prepend=t_us[:1] if self._last_us is None else self._last_us)
        if self._last_us is None and t_us.size and int(t_us[0]) < 0:
            steps[0] = -1
        return {
            "outside": (x < 0) | (x >= size[1]) | (y < 0) | (y >= size[0]),
            "polarity": (p != 0) & (p != 1),
            "backward": steps < 0,
            "pause": steps > self._max_gap_us,
        }

    def _in_order(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which events to keep so that time neither steps back nor leaps."""
        kept = []
        last = self._last_us
        for at, time in enumerate(times.tolist()):
            if time < 0 or (last is not None and time < last):
                self.counts["backward"] += 1
            elif last is not None and time - last > self._max_gap_us:
                self.counts["pause"] += 1
            else:
                kept.append(at)
                last = time
        self._last_us = last
        return np.array(kept, np.int64)

    def _said(self, kind: str, size: tuple[int, int]) -> str:
        last = "0" if self._last_us is None else str(self._last_us)
        return {
            "outside": f"expected a pixel of the sensor of {size[0]}x{size[1]}",
            "polarity": "expected a polarity of 0 or 1",
            "backward": f"expected a time that does not step back (before this piece: {last} us)",
            "pause": f"expected a pause of at most {self._max_gap_us / 1e6:g} s, as in one unit of time (before this "
            f"piece: {last} us)",
        }[kind]


def _by_place(found: tuple[str, int]) -> int:
    return found[1]
