"""Online inference: events as they arrive, a decision every so many milliseconds or events."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayRecord, frozen
from .errors import InferenceError
from .events import Events
from .predictor import Predictor, Response, Run, RunOptions, check_predictor, decide, shares
from .queues import EventQueue, Overflow
from .readouts import Last, Leaky, Reading, Readout, find_readout
from .sources import EventSource
from .tally import Tally
from .window import no_events

_SLICE_S = 0.002
"""Events of a file are let go in slices of this length where they are paced."""


@dataclasses.dataclass(frozen=True)
class StreamSettings:
    """How a stream is run and read.

    A decision comes every ``every_us`` of the events' time, or every ``every_events`` events; windows without events
    have none. ``pace`` lets events go at that multiple of their own speed (1: real time), None as fast as they are
    worked on. At most ``queue_events`` wait; ``overflow`` says what happens to more: ``"block"`` makes the source wait,
    ``"drop"`` leaves them out, counted. ``readout`` reads the outputs of the whole stream, with ``per_window`` those of
    each window alone; None is ``Leaky()``, or for frames the value of the window.
    """

    every_us: int | None = 10_000
    every_events: int | None = None
    pace: float | None = None
    queue_events: int = 1 << 17
    overflow: Overflow = "block"
    readout: str | Readout | None = None
    per_window: bool = False

    def __post_init__(self) -> None:
        wrong = []
        if (self.every_us is None) == (self.every_events is None):
            wrong.append("expected either every_us or every_events")
        if any(value is not None and value < 1 for value in (self.every_us, self.every_events, self.queue_events)):
            wrong.append("expected every_us, every_events and queue_events of 1 or more")
        if self.pace is not None and not (math.isfinite(self.pace) and self.pace > 0):
            wrong.append("expected a pace above 0")
        if self.overflow not in ("block", "drop"):
            wrong.append("expected an overflow of 'block' or 'drop'")
        if wrong:
            raise InferenceError(f"stream: {'; '.join(wrong)}, found {self}. Try StreamSettings().")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Decision(ArrayRecord):
    """What was decided at ``t_us`` of the stream, from ``n_events`` events since the decision before.

    Shapes: ``confidence`` is ``[classes]`` and sums to 1; ``margin`` is how far the first leads the second.
    Units: ``t_us`` in the events' own microseconds; ``latency_s`` in seconds, from the arrival of the last of these
    events to the decision.
    """

    index: int
    t_us: int
    winner: int
    confidence: NDArray[np.float64]
    margin: float
    n_events: int
    latency_s: float = dataclasses.field(compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "confidence", frozen(self.confidence, np.float64))


@dataclasses.dataclass(frozen=True)
class StreamReport:
    """What a stream came to.

    Law: ``n_in`` events came from the source; each went through the predictor (``n_events``) or was dropped by the
    queue (``n_dropped``). ``left_out`` counts those that never came that far, by kind.
    Units: seconds, and milliseconds for latencies; ``duration_us`` of the events' own time.
    """

    n_in: int
    n_events: int
    n_dropped: int
    left_out: Mapping[str, int]
    n_decisions: int
    n_silent: int
    duration_us: int
    wall_s: float
    queue_peak: int
    latency_ms: Mapping[str, float | None]
    is_interrupted: bool = False

    @property
    def events_per_s(self) -> float:
        """Events through the predictor per second of wall time."""
        return self.n_events / self.wall_s if self.wall_s > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON."""
        return {**dataclasses.asdict(self), "events_per_s": self.events_per_s}


def stream(
    predictor: Predictor,
    source: EventSource,
    *,
    settings: StreamSettings | None = None,
    on_decision: Callable[[Decision], None] = lambda _: None,
) -> StreamReport:
    """Run a predictor on events as they come, and return what it came to; ``on_decision`` gets each decision.

    An interrupt (Ctrl-C) ends the stream as its own end does, without a last decision.
    Law: decisions are the same for any pieces that the events come in, as long as none is dropped; memory does not grow
    with the stream.
    Raises: InferenceError where source and predictor do not fit; StreamError for events that are none.
    """
    settings = settings or StreamSettings()
    worker = _Worker(check_predictor(predictor), settings, on_decision)
    queue = EventQueue(settings.queue_events, settings.overflow)
    reader = threading.Thread(target=_read, args=(source, queue, settings.pace), daemon=True, name="spikeport source")
    started = time.perf_counter()
    reader.start()
    is_interrupted = False
    try:
        while (taken := queue.take()) is not None:
            worker.take(*taken)
        worker.end()
    except KeyboardInterrupt:  # how a stream without an end is ended
        is_interrupted = True
    finally:
        queue.close()
    reader.join(timeout=5.0)
    latencies = {f"p{share}": worker.tally.percentile_s(share) for share in (50, 90, 99)}
    found = {**latencies, "mean": worker.tally.mean_s, "max": worker.tally.max_s if worker.tally.n else None}
    return StreamReport(
        n_in=queue.n_in,
        n_events=worker.n_events,
        n_dropped=queue.n_dropped,
        left_out={kind: n for kind, n in source.counts.items() if n},
        n_decisions=worker.tally.n,
        n_silent=worker.n_silent,
        duration_us=worker.duration_us,
        wall_s=time.perf_counter() - started,
        queue_peak=queue.n_peak,
        latency_ms={name: None if value is None else value * 1e3 for name, value in found.items()},
        is_interrupted=is_interrupted,
    )


def _read(source: EventSource, queue: EventQueue, pace: float | None) -> None:
    """Put what comes from the source into the queue, at its own speed where it is paced."""
    try:
        clock: tuple[int, float] | None = None
        for events in source:
            if not len(events):
                if not queue.put(events):
                    break
                continue
            if pace is None:
                if not queue.put(events):
                    break
                continue
            clock = clock or (int(events.t_us[0]), time.perf_counter())
            if not _put_paced(events, queue, pace, clock):
                break
    except BaseException as error:  # noqa: BLE001 - it is raised again where the events are taken
        queue.end(error)
        return
    queue.end()


def _put_paced(events: Events, queue: EventQueue, pace: float, clock: tuple[int, float]) -> bool:
    first_us, started = clock
    start = 0
    while start < len(events):
        due_s = (int(events.t_us[start]) - first_us) * 1e-6 / pace
        wait_s = due_s - (time.perf_counter() - started)
        if wait_s > 0:
            time.sleep(wait_s)
        until_us = first_us + int((max(time.perf_counter() - started, due_s) + _SLICE_S) * 1e6 * pace)
        stop = max(start + 1, int(np.searchsorted(events.t_us, until_us)))
        last_wait_s = (int(events.t_us[stop - 1]) - first_us) * 1e-6 / pace - (time.perf_counter() - started)
        if last_wait_s > 0:  # no event leaves before its time
            time.sleep(last_wait_s)
        if not queue.put(events.part(start, stop)):
            return False
        start = stop
    return True


class _Worker:
    """Cuts the stream into windows, feeds them, and decides at the end of each."""

    def __init__(self, predictor: Predictor, settings: StreamSettings, on_decision: Callable[[Decision], None]) -> None:
        self._predictor, self._settings, self._on_decision = predictor, settings, on_decision
        self._run: Run = predictor.start(RunOptions())
        if settings.every_us is not None and predictor.step_us is not None and settings.every_us < predictor.step_us:
            raise InferenceError(
                f"stream: expected decisions no more often than the predictor's step of {predictor.step_us} us, found "
                f"every {settings.every_us} us. Try a shorter step, or every_us={predictor.step_us}."
            )
        self._output = next(iter(predictor.outputs))
        self._shape = (1, *predictor.outputs[self._output])
        own: Readout = Last() if predictor.step_us is None else Leaky()
        self._readout = own if settings.readout is None else find_readout(settings.readout)
        self._reading = self._fresh()
        self._ties: NDArray[Any] | None = None
        self.n_events = self.n_silent = 0
        self.tally = Tally()
        self._start_us: int | None = None
        self._end_us = settings.every_us or 0
        self._last_us = 0
        self._n_window = 0
        self._arrived = 0.0
        self._warm_up()

    def _warm_up(self) -> None:
        """Run one event and forget it: loading compiled code would count as the latency of the first decision."""
        zero = np.zeros(1, np.int64)
        height, width = self._predictor.input_shape[-2:]
        self._run.feed([Events(zero, zero, zero, zero, (height, width))], self._predictor.step_us or 1)
        self._run.finish()
        self._run.reset()

    @property
    def duration_us(self) -> int:
        """Time from the first to the last event."""
        return self._last_us

    def take(self, events: Events, arrived: float) -> None:
        """Take in a piece."""
        if not len(events):
            return
        if self._start_us is None:
            self._start_us = int(events.t_us[0])
        moved = dataclasses.replace(events, t_us=events.t_us - self._start_us) if self._start_us else events
        while len(moved):
            if self._settings.every_us is not None:
                if int(moved.t_us[0]) >= self._end_us:
                    self._close_window(int(moved.t_us[0]))
                stop = int(np.searchsorted(moved.t_us, self._end_us))
            else:
                stop = min(len(moved), (self._settings.every_events or 1) - self._n_window)
            self._feed(moved.part(0, stop), arrived)
            moved = moved.part(stop, len(moved))
            if self._settings.every_events is not None and self._n_window == self._settings.every_events:
                self._decide(self._last_us)

    def end(self) -> None:
        """End the stream: the open step, and a last decision where events came since the one before."""
        if not self._n_window:
            return
        step_us = self._predictor.step_us
        if step_us is not None:
            empty = no_events(self._predictor.input_shape[1:])
            self._read(self._run.feed((empty,), (self._last_us // step_us + 1) * step_us))
        self._decide(self._last_us)

    def _feed(self, events: Events, arrived: float) -> None:
        if not len(events):
            return
        self._last_us = int(events.t_us[-1])
        self._read(self._run.feed((events,), self._last_us))
        self.n_events += len(events)
        self._n_window += len(events)
        self._arrived = arrived

    def _close_window(self, next_us: int) -> None:
        """End the window, and go to that of ``next_us``; those between were silent."""
        every = self._settings.every_us or 1
        if self._n_window:
            if self._predictor.step_us is not None:
                empty = no_events(self._predictor.input_shape[1:])
                self._read(self._run.feed((empty,), self._end_us))
            self._decide(self._end_us)
            self._end_us += every
        n_silent = max(0, (next_us - self._end_us) // every + 1)
        self.n_silent += n_silent
        self._end_us += n_silent * every

    def _read(self, response: Response) -> None:
        if response.n_steps:
            self._reading.add(response.outputs[self._output], response.ends_us)
        self._ties = response.tie_breaks.get(self._output)

    def _decide(self, at_us: int) -> None:
        if self._predictor.step_us is None:
            self._read(self._run.finish())
        values = self._reading.value().reshape(1, -1)
        ties = None if self._ties is None else self._ties.reshape(1, -1)
        confidence = shares(values, self._predictor.confidence)[0]
        top = np.sort(confidence)[::-1]
        decision = Decision(
            index=self.tally.n,
            t_us=at_us + (self._start_us or 0),
            winner=int(decide(values, ties)[0]),
            confidence=confidence,
            margin=float(top[0] - top[1]) if top.size > 1 else 1.0,
            n_events=self._n_window,
            latency_s=time.perf_counter() - self._arrived,
        )
        self.tally.add(decision.latency_s)
        self._n_window = 0
        self._on_decision(decision)
        if self._settings.per_window:
            self._reading = self._fresh()

    def _fresh(self) -> Reading:
        return Reading(self._readout, self._shape, length_us=None)
