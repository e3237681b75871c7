"""A bounded queue of events between what reads them and what works on them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Literal

from .events import Events

Overflow = Literal["block", "drop"]


class EventQueue:
    """Pieces with the moment each arrived, at most ``n_most`` events of them.

    Where they do not fit, ``"block"`` makes the reader wait, and ``"drop"`` leaves out what is too much.
    Law: ``n_in`` events were put; each was taken, is in the queue, or is counted in ``n_dropped``.
    """

    def __init__(self, n_most: int, overflow: Overflow) -> None:
        self.n_in = self.n_dropped = self.n_peak = 0
        self._n_most, self._overflow = n_most, overflow
        self._pieces: deque[tuple[Events, float]] = deque()
        self._n_held = 0
        self._is_closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, events: Events) -> bool:
        """Put a piece; return whether anybody still takes them."""
        arrived = time.perf_counter()
        with self._changed:
            self.n_in += len(events)
            for start in range(0, len(events), self._n_most):
                self._put_part(events.part(start, start + self._n_most), arrived)
            return not self._is_closed

    def _put_part(self, events: Events, arrived: float) -> None:
        if self._overflow == "block":
            self._changed.wait_for(lambda: self._is_closed or self._n_held + len(events) <= self._n_most)
        room = 0 if self._is_closed else self._n_most - self._n_held
        if room < len(events):
            self.n_dropped += len(events) - room
            events = events.part(0, room)
        if len(events):
            self._pieces.append((events, arrived))
            self._n_held += len(events)
            self.n_peak = max(self.n_peak, self._n_held)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Say that no more pieces come; an ``error`` is raised where they are taken."""
        with self._changed:
            self._is_closed, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Say that nobody takes pieces any more: a waiting reader goes on, and what comes is dropped."""
        with self._changed:
            self._is_closed = True
            self.n_dropped += self._n_held
            self._pieces.clear()
            self._n_held = 0
            self._changed.notify_all()

    def take(self) -> tuple[Events, float] | None:
        """Return the next piece and when it arrived, None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._pieces) or self._is_closed)
            if not self._pieces:
                if self._error is not None:
                    raise self._error
                return None
            events, arrived = self._pieces.popleft()
            self._n_held -= len(events)
            self._changed.notify_all()
            return events, arrived

    def take_waiting(self) -> list[tuple[Events, float]] | None:
        """Return all pieces that are there and when each arrived, without waiting for any; None after the last."""
        with self._changed:
            if not self._pieces and self._is_closed:
                if self._error is not None:
                    raise self._error
                return None
            pieces = list(self._pieces)
            self._pieces.clear()
            self._n_held = 0
            self._changed.notify_all()
            return pieces
