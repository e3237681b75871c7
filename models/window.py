"""Events of several streams counted into steps of fixed length, those of the open step kept until it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InferenceError
from .events import Events

_MAX_CELLS = 1 << 28


class OpenSteps:
    """The clock of a run in steps, and the events that wait for the end of theirs.

    ``n_done`` steps have ended; step ``k`` holds the events from ``k * step_us`` on.
    Law: whatever pieces the events come in, each is in exactly one step, and in the same one.
    """

    def __init__(self, step_us: int, *, who: str) -> None:
        self.step_us, self._who = step_us, who
        self.n_done = 0
        self._waiting: tuple[Events, ...] = ()

    def take(self, recordings: Sequence[Events], until_us: int) -> tuple[list[Events], int]:
        """Return the events of the steps that end at or before ``until_us``, and how many steps these are.

        Times are those of the clock; the others wait. Raises: InferenceError where events lie in a step that is over.
        """
        start_us = self.n_done * self.step_us
        for events in recordings:
            if len(events) and int(events.t_us[0]) < start_us:
                raise InferenceError(
                    f"{self._who}: expected events from {start_us} us on, where the last step ended, found one at "
                    f"{int(events.t_us[0])} us. Try pieces of one recording in their order."
                )
        n_steps = max(0, until_us // self.step_us - self.n_done)
        stop_us = start_us + n_steps * self.step_us
        waiting = (
            self._waiting if self._waiting and len(self._waiting) == len(recordings) else (None,) * len(recordings)
        )
        taken, left = [], []
        for before, events in zip(waiting, recordings, strict=True):
            both = events if before is None or not len(before) else _behind(before, events, self._who)
            taken.append(both.window(0, stop_us))
            left.append(both.part(len(taken[-1]), len(both)))
        self.n_done += n_steps
        self._waiting = tuple(left)
        return taken, n_steps

    def skip(self, n_steps: int) -> None:
        """Count steps whose input was no events."""
        self.n_done += n_steps

    @property
    def n_waiting(self) -> int:
        """Number of streams that were fed."""
        return len(self._waiting)

    @property
    def is_waiting(self) -> bool:
        """Whether events wait for the end of their step."""
        return any(len(events) for events in self._waiting)

    def ends_us(self, n_steps: int, n_samples: int) -> NDArray[np.int64]:
        """Return the ends of the last ``n_steps`` steps, ``[T, B]``."""
        ends = (np.arange(self.n_done - n_steps, self.n_done) + 1) * self.step_us
        return np.repeat(ends[:, None], n_samples, axis=1).astype(np.int64)

    def reset(self, *, time: bool, pending: bool) -> None:
        """Set the clock to 0, and drop what waits, as asked; what waits and stays goes to the first step."""
        if pending:
            self._waiting = ()
        if time:
            self._waiting = tuple(dataclasses.replace(one, t_us=np.zeros_like(one.t_us)) for one in self._waiting)
            self.n_done = 0

    def state(self) -> dict[str, NDArray[Any]]:
        """Return clock and waiting events as arrays."""
        arrays: dict[str, NDArray[Any]] = {"n_done": np.array([self.n_done], np.int64)}
        for row, one in enumerate(self._waiting):
            columns = {"x": one.x, "y": one.y, "p": one.p, "t_us": one.t_us, "size": np.array(one.sensor_size)}
            arrays |= {f"waiting/{row}/{name}": np.asarray(column, np.int64) for name, column in columns.items()}
        return arrays

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned."""
        self.n_done = int(state["n_done"][0])
        rows = sorted({int(key.split("/")[1]) for key in state if key.startswith("waiting/")})
        self._waiting = tuple(_restored(state, row) for row in rows)


def count_steps(
    taken: Sequence[Events], n_steps: int, *, first: int, step_us: int, channels: int
) -> NDArray[np.float32]:
    """Return the events of ``n_steps`` steps from step ``first`` on as counts, ``[T, B, C, H, W]``.

    Raises: InferenceError where that is too large, which a pause in the stream can make it.
    """
    height, width = taken[0].sensor_size
    if n_steps * len(taken) * channels * height * width > _MAX_CELLS:
        raise InferenceError(
            f"steps: expected at most {_MAX_CELLS} cells at once, found {n_steps} steps of {len(taken)} x {channels}x"
            f"{height}x{width}. Try longer steps, or smaller pieces."
        )
    rasters = []
    for events in taken:
        moved = Events(events.x, events.y, events.p, events.t_us - first * step_us, events.sensor_size)
        rasters.append(moved.to_raster(step_us, n_bins=n_steps, merge_polarity=channels == 1))
    return np.stack(rasters, axis=1)


def _restored(state: Mapping[str, NDArray[Any]], row: int) -> Events:
    x, y, p, t_us, size = (state[f"waiting/{row}/{name}"] for name in ("x", "y", "p", "t_us", "size"))
    return Events(x, y, p, t_us, (int(size[0]), int(size[1])))


def no_events(sensor_size: Sequence[int]) -> Events:
    """Return a recording without events."""
    height, width = sensor_size
    none = np.zeros(0, np.int64)
    return Events(none, none, none, none, (height, width))


def one_behind_other(parts: Sequence[Events]) -> Events:
    """Return pieces of one recording as one, with their times."""
    if len(parts) == 1:
        return parts[0]
    x, y, p, t_us = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "p", "t_us"))
    return Events(x, y, p, t_us, parts[0].sensor_size)


def _behind(before: Events, after: Events, who: str) -> Events:
    if len(after) and int(after.t_us[0]) < int(before.t_us[-1]):
        raise InferenceError(
            f"{who}: expected events from {int(before.t_us[-1])} us on, found one at {int(after.t_us[0])} us. "
            "Try pieces of one recording in their order."
        )
    return one_behind_other([before, after])
