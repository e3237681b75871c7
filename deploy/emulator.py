"""The exact integer emulator: a program and a recording of events in, what the chip would do out.

The integer specification. No public text describes the chip bit by bit; the emulator is exact against this one:

1. Input events are processed in order; one event with all its descendants is finished before the next one. Cores work
   in program order, and a core takes the spikes of several sources source by source in that order, the input first.
2. A core drops, and counts, an event whose feature (after the shift) or coordinates lie outside its ``in_shape``.
3. The targets of an event are, output rows ascending, then columns, then features, all ``(v, u)`` for which
   ``b = y + pad_y - v * stride_y`` and ``a = x + pad_x - u * stride_x`` lie in the kernel; the weight is
   ``[f, c, b, a]``. Each target is one synop.
4. For each target ``V = max(saturate(V + w), threshold_low)``, in int16. If then ``V >= threshold_high`` there is
   exactly one spike, and ``V -= threshold_high`` or ``V = 0``; a surplus stays until the neuron is visited again.
5. Spikes leave in visiting order: to the recording with their own coordinates, then to each destination as
   ``(f + feature_shift, v // pool, u // pool)``. A spike carries index and time of the input event that caused it.
6. A leak tick is ``V = max(saturate(V + bias), threshold_low)`` for every neuron of the cores with a bias; it fires
   nothing.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from spikeport.models.events import Events

from .errors import RecordingError, SettingError
from .layout import Layout, lay_out
from .session import Session, find_sensor_misfit
from .types import Program, Recording, is_rate


@dataclasses.dataclass(frozen=True, eq=False)
class Emulator:
    """A program ready to run, exact against the integer specification above, with no state kept between runs.

    Input: with ``program.dvs.merge``, and for programs of one input channel, every event is feature 0, otherwise its
    feature is its polarity; the other stages of ``program.dvs`` follow. What its region leaves out reaches no core and
    counts as dropped by none.

    Order: a spike goes to all its destinations, in their order, before the next spike does, also where two of them are
    the same core.

    Leak: ticks come at multiples of ``max(1, round(1e6 / slow_clock_hz))`` microseconds, counted from recording time 0,
    the first one after one period, each before the events of its time. After the last input event no tick comes; all
    earlier ones reach every core with a bias, busy or silent. ``slow_clock_hz`` of None is the rate that the program
    carries, 0 is no slow clock; without one a bias does nothing.

    Law: going layer by layer over the whole recording, as this does, equals finishing one input event after the other.
    Raises: SettingError where ``slow_clock_hz`` is neither a positive number nor 0.
    """

    program: Program
    _: dataclasses.KW_ONLY
    slow_clock_hz: float | None = None
    _layouts: tuple[Layout, ...] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        hz = self.slow_clock_hz
        if hz is not None and hz != 0 and not is_rate(hz):
            raise SettingError(
                f"slow_clock_hz: expected a positive number of ticks per second, found {hz}. "
                "Try 1000, or 0 for a chip without a slow clock."
            )
        object.__setattr__(self, "_layouts", tuple(lay_out(core) for core in self.program.cores))

    @property
    def rate_hz(self) -> float | None:
        """Rate of the slow clock, in hertz: as given, or else the program's; None without a slow clock."""
        return self.program.slow_clock_hz if self.slow_clock_hz is None else self.slow_clock_hz or None

    def run(self, events: Events, record: Literal["all"] | None = None, *, workers: int | None = 1) -> Recording:
        """Return what the program does with ``events``, started from its initial states.

        ``record`` says whose spikes are kept: those of the monitored cores, or with ``"all"`` of every core.
        ``wall_s`` of the first run in a process includes loading the compiled loop, or compiling it where no cache is.
        With several ``workers`` (None: one for each processor) the cores work at different parts of the recording at
        the same time, in threads.

        Law: equal programs and events give the same recording, whatever ran before, in any number of threads.
        Raises: RecordingError where there are no events, or their sensor is not the program's; SettingError
        for any other ``record``, or for less than one thread.
        """
        return self._run(events, self.stream(record), _n_threads(workers))

    def _run(self, events: Events, session: Session, workers: int) -> Recording:
        problems = [problem] if (problem := find_sensor_misfit(events, self.program.dvs)) else []
        if not len(events):
            problems.append("events: expected at least one, found no events. Try a longer window of the recording.")
        if problems:
            raise RecordingError(" ".join(problems))
        started = time.perf_counter()
        spikes = session.feed(events, workers=workers)
        return session.recording(spikes, wall_s=time.perf_counter() - started)

    def stream(self, record: Literal["all"] | None = None) -> Session:
        """Return a run that takes its events in pieces as they arrive, from the initial states on.

        Law: whatever the pieces, their spikes and the states after them are those of ``run`` for all events.
        Raises: SettingError as ``run``.
        """
        return self._session(record)

    def _session(self, record: Literal["all"] | None, *, in_threads: bool = False) -> Session:
        return Session(self.program, self._layouts, rate_hz=self.rate_hz, record=record, in_threads=in_threads)

    def run_many(
        self, recordings: Sequence[Events], record: Literal["all"] | None = None, *, workers: int | None = None
    ) -> tuple[Recording, ...]:
        """Return what ``run`` returns for each recording, in their order, from ``workers`` threads (None: all cores).

        Law: equal for any number of threads, but for the times.
        Raises: as ``run``; SettingError for less than one thread.
        """
        n_threads = _n_threads(workers)

        def run(events: Events) -> Recording:
            return self._run(events, self._session(record, in_threads=n_threads > 1), 1)

        with ThreadPoolExecutor(n_threads) as pool:
            return tuple(pool.map(run, recordings))


def _n_threads(workers: int | None) -> int:
    n_threads = os.cpu_count() or 1 if workers is None else workers
    if n_threads < 1:
        raise SettingError(f"workers: expected 1 or more, found {workers}. Try None for all processors.")
    return n_threads
