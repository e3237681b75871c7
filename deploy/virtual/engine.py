"""The engine of a virtual board: a bounded queue of events in, a thread that runs the chip, events out in real time.

Law: events are processed in the order in which they were written. An event whose stamp lies ahead of the running
stop-watch is held until then, and so is all that was written behind it. A stamp of the past is sent at once: as if it
had come in time where it is at most ``GRACE_US`` late, so that the host's delays change no result, else with the time
of its sending (counted). What the camera sees comes in between them, at the time at which it was seen. What comes out
carries the time at which its cause was processed. A full queue makes the writer wait; nothing is lost.
"""

from __future__ import annotations

import operator
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .camera import Camera
from .chip import Chip, Timed
from .clock import GRACE_US, WRAP, Clock, StopWatch, wall_us
from .configuration import SpeckConfiguration
from .counts import Counts
from .errors import VirtualBoardError

QUEUE_EVENTS = 65_536
"""Events that wait in a board at most, before whoever writes has to wait."""

_BATCH = 8192
_POLL_S = 0.05
"""Longest wait of the thread before it looks around again."""

_GLANCE_S = 0.001
"""Shortest wait for what is due later: events come in batches, which keep their times."""


class Engine:
    """The inside of a virtual board called ``name``; ``emit`` is called with the events that come out."""

    def __init__(
        self, name: str, kinds: Any, emit: Callable[[list[Any]], None], *, n_queue: int, camera: Camera
    ) -> None:
        self.name, self.counts = name, Counts()
        self.watch = StopWatch(self._switch_watch)
        self._kinds, self._emit, self._n_queue, self._camera = kinds, emit, n_queue, camera
        self._queue: deque[tuple[Any, int, int]] = deque()
        self._arrived = threading.Condition()
        self._lock = threading.RLock()
        self._chip: Chip | None = None
        self._clock, self._clocked_us = Clock(), 0
        self._last_us = 0
        self._zero_us = wall_us()
        self._is_hung = self.is_over = False
        self._gone = ""
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"virtual {name}", daemon=True)
        self._thread.start()

    # what the board does

    def configure(self, configuration: SpeckConfiguration) -> None:
        """Put a valid configuration to work; neurons start from its initial states."""
        chip = Chip(configuration, self._kinds, self.counts)
        with self._lock:
            self._chip = chip
            now_us = self._settle()
            chip.set_clock(self._clock, until_us=now_us, from_us=now_us)
            self._camera.stop()
            if configuration.dvs_layer.pass_sensor_events:
                self._camera.start(wall_us())

    def reset(self) -> None:
        """Forget configuration, clocks and events on their way; a hung board works again."""
        with self._lock, self._arrived:
            self.counts.n_discarded += len(self._queue)
            self._queue.clear()
            self._chip, self._clock, self._is_hung, self._fault = None, Clock(), False, None
            self._last_us = 0
            self._camera.stop()
            self.watch.set_enable_value(False)
            self._arrived.notify_all()

    def clear_states(self) -> None:
        """Set all neurons to 0."""
        with self._lock:
            if self._chip is not None:
                self._chip.memory.clear_states()
                self._chip.flush(self._settle())

    def set_clock(self, clock: Clock) -> None:
        """Set the slow clock."""
        with self._lock:
            self.check()
            now_us = self._settle()
            self._clocked_us = max(self._clocked_us, now_us) if self._clock.enabled else now_us
            self._clock = clock
            if self._chip is not None:
                self._chip.set_clock(clock, until_us=now_us, from_us=now_us)

    def n_synops(self) -> int:
        """Return the targets visited since the configuration."""
        with self._lock:
            silicon = None if self._chip is None else self._chip.silicon
            return 0 if silicon is None else silicon.n_synops()

    def n_dropped(self) -> int:
        """Return the spikes since the configuration that reached a core outside of its maps."""
        with self._lock:
            silicon = None if self._chip is None else self._chip.silicon
            return 0 if silicon is None else silicon.n_dropped()

    def leaks_per_s(self) -> float:
        """Return the neurons that the slow clock updates per second."""
        with self._lock:
            silicon = None if self._chip is None else self._chip.silicon
            if silicon is None or not self._clock.enabled:
                return 0.0
            return self._clock.rate_hz * sum(
                core.initial_state.size for core in silicon.program.cores if core.bias is not None
            )

    def submit(self, events: Sequence[Any], is_wanted: Callable[[], bool]) -> Sequence[Any]:
        """Take events into the queue, waiting for room; return those that are left when ``is_wanted`` says no more."""
        taken = 0
        while taken < len(events) and is_wanted() and not self.is_over:
            with self._arrived:
                room = self._n_queue - len(self._queue)
                if room <= 0:
                    self._arrived.wait(_POLL_S)
                    continue
                run, now_us = self.watch.n_resets, self.watch.now_us()
                part = events[taken : taken + room]
                self._queue.extend((event, run, now_us) for event in part)
                self.counts.n_in += len(part)
                taken += len(part)
                self._arrived.notify_all()
        return events[taken:]

    @property
    def n_waiting(self) -> int:
        """Events in the queue."""
        return len(self._queue)

    @property
    def is_hung(self) -> bool:
        """Whether the board was made to hang."""
        return self._is_hung

    @property
    def is_gone(self) -> bool:
        """Whether the board was closed or unplugged."""
        return bool(self._gone)

    def hang(self) -> None:
        """Stop processing until a reset, as a board that hangs does."""
        self._is_hung = True

    def end(self, why: str) -> None:
        """End the thread; events that still wait are counted as discarded; ``check`` says why from now on."""
        with self._arrived:
            self._gone = self._gone or why
            self.is_over = True
            self.counts.n_discarded += len(self._queue)
            self._queue.clear()
            self._arrived.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    # time

    def _now_us(self) -> int:
        """Return the time on the time line: of the stop-watch while it runs, else since the board was opened."""
        return self.watch.now_us() if self.watch.is_running else wall_us() - self._zero_us

    @property
    def _line_us(self) -> int:
        """Wall time at which the time line began."""
        return self.watch.zero_us if self.watch.is_running else self._zero_us

    def _settle(self) -> int:
        """Return when a command takes effect: now, or at the last processed event where that is within ``GRACE_US``.

        No event is processed at an earlier time from then on.
        """
        now_us = max(self._last_us, self._now_us())
        if not self.watch.is_running or now_us - self._last_us > GRACE_US:
            self._last_us = now_us
        return self._last_us

    def _switch_watch(self, change: Callable[[], int]) -> None:
        """Take the time line to its end, and begin the one that the change of the stop-watch leads to."""
        with self._lock:
            self.check()
            ended_us = max(self._last_us, self._now_us())
            start_us = change()
            if not self.watch.is_running:
                start_us = self._now_us()
            if self._chip is not None:
                self._chip.set_clock(self._clock, until_us=ended_us, from_us=start_us)
            self._last_us = self._clocked_us = start_us
            with self._arrived:
                self._arrived.notify_all()

    # the thread

    def _work(self) -> None:
        while not self.is_over:
            with self._arrived:
                wait_s = self._wait_s()
                if wait_s > 0:
                    self._arrived.wait(wait_s)
                if self.is_over:
                    return
            try:
                with self._lock:
                    out = self._step()
                if out:
                    self.counts.n_out += len(out)
                    self._emit(out)
            except Exception as fault:  # noqa: BLE001 - told to whoever uses the board next, instead of a silent end
                self._fault = fault
                self._is_hung = True

    def check(self) -> None:
        """Raise VirtualBoardError where the board is gone, or stopped by an error."""
        if self._gone:
            raise VirtualBoardError(f"virtual board {self.name}: {self._gone}.")
        if self._fault is not None:
            raise VirtualBoardError(
                f"virtual board {self.name}: stopped by an internal error: {type(self._fault).__name__}: "
                f"{self._fault}. Try reset_board_soft(True), and report it."
            ) from self._fault

    def _wait_s(self) -> float:
        """Return how long there is nothing to do, at most ``_POLL_S``."""
        if self._is_hung:
            return _POLL_S
        waits = [_POLL_S]
        seen_us = self._camera.next_us
        if seen_us is not None:
            waits.append(max((seen_us - wall_us()) / 1e6, _GLANCE_S))
        if self._queue:
            event, run, arrived_us = self._queue[0]
            due_us, _ = self._due_us(event, run, arrived_us)
            early_s = 0.0 if due_us is None else (due_us - self.watch.now_us()) / 1e6
            waits.append(max(early_s, _GLANCE_S) if early_s > 0 else 0.0)
        if self._reads and self._chip is not None:
            waits.append((self._next_tick_us() - self._now_us()) / 1e6)
        return min(waits)

    def _due_us(self, event: Any, run: int, arrived_us: int) -> tuple[int | None, bool]:
        """Return when an event is due on the stop-watch (None: now, nothing is timed), and whether it came too late."""
        stamp = getattr(event, "timestamp", None)
        if stamp is None or not self.watch.is_running:
            return None, False
        if run != self.watch.n_resets:
            arrived_us = 0  # it came before the stop-watch was set to 0
        ahead_us = (stamp - arrived_us + WRAP // 2) % WRAP - WRAP // 2
        is_late = ahead_us < -GRACE_US
        return arrived_us if is_late else arrived_us + ahead_us, is_late

    def _step(self) -> list[Any]:
        """Process what is due, and return what comes out."""
        if self._is_hung:
            return []
        now_us, first_us = self._now_us(), self._last_us
        batch = self._take(now_us)
        if self._camera.next_us is not None:
            batch = self._look(batch, now_us, first_us)
        chip = self._chip
        if chip is None:
            self.counts.n_ignored += len(batch)
            return []
        out: list[Any] = []
        until_us = self._last_us if len(batch) >= _BATCH else now_us
        start = 0
        while self._reads and (tick_us := self._next_tick_us()) <= until_us:
            stop = start + sum(t_us < tick_us for _, t_us in batch[start:])
            out += self._stamped(chip.process(batch[start:stop]))
            out += self._stamped(self._read(chip, tick_us))
            start, self._clocked_us = stop, tick_us
        return out + self._stamped(chip.process(batch[start:]))

    def _take(self, now_us: int) -> list[Timed]:
        """Return the events that are due, with the times at which they are processed."""
        batch: list[Timed] = []
        with self._arrived:
            while self._queue and len(batch) < _BATCH:
                due_us, is_late = self._due_us(*self._queue[0])
                if due_us is not None and due_us > now_us:
                    break
                event, _, _ = self._queue.popleft()
                self.counts.n_late += is_late
                at_us = max(self._last_us, now_us if due_us is None else due_us)
                if "timestamp" in event._fields or (self._clock.enabled and "layer" in event._fields):
                    self._last_us = at_us  # a read takes time only where states tick on
                batch.append((event, at_us))
            self._arrived.notify_all()
        return batch

    def _look(self, batch: list[Timed], now_us: int, first_us: int) -> list[Timed]:
        """Return events with those that the camera has seen until now between them, none before ``first_us``."""
        line_us, made = self._line_us, self._kinds.DvsEvent.made
        seen = self._camera.take(now_us + line_us, _BATCH)
        if not seen:
            return batch
        self.counts.n_in += len(seen)
        found = [(made([p, y, x, 0]), max(first_us, t_us - line_us)) for p, y, x, t_us in seen]
        self._last_us = max(self._last_us, found[-1][1])
        return sorted(batch + found, key=operator.itemgetter(1))

    def _stamped(self, found: Iterable[Timed]) -> list[Any]:
        """Return events with their time stamps, which are 0 while the stop-watch does not run."""
        is_timed = self.watch.is_running
        out = []
        for event, t_us in found:
            if is_timed and "timestamp" in event._fields:
                event._values[event._fields["timestamp"].place] = t_us % WRAP
            out.append(event)
        return out

    # the readout block

    @property
    def _reads(self) -> bool:
        return self._clock.enabled and self._chip is not None and self._chip.readout is not None

    def _next_tick_us(self) -> int:
        return (self._clocked_us // self._clock.period_us + 1) * self._clock.period_us

    def _read(self, chip: Chip, t_us: int) -> list[Timed]:
        """Return what the readout block says at a tick."""
        if chip.readout is None:
            return []
        word, settings = chip.readout.tick(), chip.configuration.readout
        out: list[Timed] = []
        if settings.monitor_enable:
            out.append((self._kinds.ReadoutValue(word.value), t_us))
        if settings.readout_pin_monitor_enable and word.is_valid:
            out.append((self._kinds.ReadoutPinValue(word.index), t_us))
        return out
