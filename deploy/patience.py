"""Waiting for a board that may never answer: calls with a time-out, and a reader with a bounded buffer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import DeviceError

T = TypeVar("T")

UNPLUGGED = "Try plugging the board in again, or its reset button; `spikeport devices` tells what is there."


def within(timeout_s: float, what: str, call: Callable[[], T]) -> T:
    """Return what ``call`` returns, which is made in a thread of its own.

    ``what`` names the device and the call, for the message. A call that never ends keeps its thread, which does not
    keep the process.
    Raises: DeviceError where it takes longer than ``timeout_s`` seconds, or the driver raises anything.
    """
    outcome: list[T] = []
    problem: list[Exception] = []

    def work() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told to the caller
            problem.append(error)

    thread = threading.Thread(target=work, name=f"spikeport {what}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if problem:
        cause = problem[0]
        raise DeviceError(f"{what}: expected an answer, found {_told(cause)}. {UNPLUGGED}") from cause
    if not outcome:
        raise DeviceError(f"{what}: expected an answer within {timeout_s:g} s, found none. {UNPLUGGED}")
    return outcome[0]


class Reader:
    """What a node of the driver gives, taken by a thread as it comes, in a buffer of ``capacity`` events.

    ``n_received`` counts all events, ``n_dropped`` those that came while the buffer was full: the newest ones.
    ``last_s`` is when the last one came, of ``time.monotonic()``.
    """

    def __init__(self, node: Any, *, capacity: int, name: str, poll_s: float = 0.001) -> None:
        self.n_received = self.n_dropped = 0
        self.last_s = time.monotonic()
        self._node, self._capacity, self._name, self._poll_s = node, capacity, name, poll_s
        self._events: deque[Any] = deque()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=f"spikeport reader of {name}", daemon=True)
        self._thread.start()

    def take(self) -> list[Any]:
        """Return the events in the buffer, oldest first, and empty it.

        Raises: DeviceError where the driver has raised anything since.
        """
        with self._lock:
            events = list(self._events)
            self._events.clear()
        if self._problem is not None:
            what = f"device '{self._name}': reading: expected events, found {_told(self._problem)}"
            raise DeviceError(f"{what}. {UNPLUGGED}") from self._problem
        return events

    def forget(self) -> None:
        """Empty the buffer and set the counts to 0."""
        self.take()
        with self._lock:
            self.n_received = self.n_dropped = 0
            self.last_s = time.monotonic()

    def close(self, timeout_s: float) -> None:
        """End the thread; one that hangs in the driver is left behind."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                events = self._node.get_events()
                if not events:
                    self._stop.wait(self._poll_s)
                    continue
                with self._lock:
                    n_fitting = max(0, self._capacity - len(self._events))
                    self._events.extend(events[:n_fitting])
                    self.n_received += len(events)
                    self.n_dropped += max(0, len(events) - n_fitting)
                    self.last_s = time.monotonic()
        except Exception as error:  # noqa: BLE001 - told by the next take
            self._problem = error


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
