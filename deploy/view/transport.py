"""Where a show should be, and where it can go back to: its clock, and the states kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_BEHIND_S = 0.25
"""A show that is further behind goes on from where it is, in place of racing after the wall clock."""

KEEP_US = 1_000_000
MAX_KEPT = 64
"""States are kept for each second of a reel at first, then for every second one of them, and so on."""


class Clock:
    """The time that a reel should have reached: that of an anchor, and ``speed`` times the wall's since.

    ``now`` tells the wall's time in seconds.
    """

    def __init__(self, speed: float | None, now: Callable[[], float] = time.perf_counter) -> None:
        self.speed, self._now = speed, now
        self._lost_s = 0.0
        self._behind_s = 0.0
        self._anchor = (0, now())

    def start(self, t_us: int) -> None:
        """Have the reel be at ``t_us`` now, and forget how far it was behind."""
        self._lost_s = self._behind_s = 0.0
        self._anchor = (t_us, self._now())

    def due_s(self, t_us: int) -> float:
        """Return the wall's time at which the reel should be at ``t_us``; now, without a speed."""
        if self.speed is None:
            return self._now()
        return self._anchor[1] + (t_us - self._anchor[0]) * 1e-6 / self.speed

    def wait_s(self, t_us: int) -> float:
        """Return how long it is until the reel should be at ``t_us``, 0 where it should have been there."""
        return 0.0 if self.speed is None else max(0.0, self.due_s(t_us) - self._now())

    def arrive(self, t_us: int) -> None:
        """Say that the reel is at ``t_us``; where that is too late, it is taken as it is."""
        if self.speed is None:
            return
        self._behind_s = max(0.0, self._now() - self.due_s(t_us))
        if self._behind_s > MAX_BEHIND_S:
            self._lost_s += self._behind_s
            self._behind_s = 0.0
            self._anchor = (t_us, self._now())

    @property
    def behind_s(self) -> float:
        """How far the reel is behind its speed since the start, in wall time."""
        return self._lost_s + self._behind_s


class KeptState(NamedTuple):
    """Everything that a show needs to go on from ``t_us``; ``so_far`` are the counts of each class up to there."""

    t_us: int
    engine: Any
    so_far: NDArray[np.int64]
    nodes: Any


class KeptStates:
    """Some states of a reel, evenly over the time that was played; ``MAX_KEPT`` at most."""

    def __init__(self) -> None:
        self._spacing_us = KEEP_US
        self._states: dict[int, KeptState] = {}

    def clear(self) -> None:
        """Keep nothing."""
        self._spacing_us = KEEP_US
        self._states = {}

    def wants(self, t_us: int) -> bool:
        """Return whether a state of this time is to be kept."""
        place = t_us // self._spacing_us
        return place > 0 and place not in self._states

    def add(self, state: KeptState) -> None:
        """Keep a state; where there are too many, they are kept for longer spans."""
        self._states[state.t_us // self._spacing_us] = state
        while len(self._states) > MAX_KEPT:
            self._spacing_us *= 2
            states, self._states = sorted(self._states.values(), key=lambda one: one.t_us), {}
            for one in states:
                if one.t_us >= self._spacing_us:
                    self._states.setdefault(one.t_us // self._spacing_us, one)

    def before(self, t_us: int) -> KeptState | None:
        """Return the last state that is not behind ``t_us``."""
        return max((one for one in self._states.values() if one.t_us <= t_us), key=lambda one: one.t_us, default=None)

    def __len__(self) -> int:
        return len(self._states)
