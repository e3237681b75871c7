"""A recording played into a board, and what came out of it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from spikeport.models.events import Events

from .errors import DeviceError, RecordingError, SettingError
from .patience import Reader, within
from .retime import spread
from .samna_events import (
    RAW_SPIKE,
    attribute,
    count_spikes,
    decode_spikes,
    decode_states,
    encode_events,
    encode_reads,
    encode_states,
    fill_states,
)
from .session import find_sensor_misfit
from .types import CoreProgram, Program, Recording

T = TypeVar("T")
Int64s = NDArray[np.int64]

MAX_STAMP_US = 2**32 - 1
"""The board's time stamps are unsigned numbers of 32 bits. Source: documentation of samna 0.48."""

_BATCH = 4096
_N_CHECKED = 1024  # neurons of a core that are read back before a run
_N_TIMEOUTS = 6  # after which a board that still sends is given up


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long a board takes, and how long to wait for it; the values of a real one are the default.

    Units: seconds. ``settle_s`` after a configuration; ``lead_s`` from the start of the stop-watch to the first event;
    ``ahead_s`` how much earlier than due events are written; ``quiet_s`` without a spike before a run counts as over;
    ``timeout_s`` for any answer. Of a live feed: ``near_s`` from the board's clock to the first event of a stretch,
    ``late_s`` behind the end of a stretch for spikes that are still missing.
    Source: sinabs waits 1 s and 0.1 s for ``settle_s`` and ``quiet_s``; samna's documentation asks for a lead of 1 s;
    ``near_s`` and ``late_s`` are assumed.
    """

    settle_s: float = 1.0
    lead_s: float = 1.0
    ahead_s: float = 1.0
    quiet_s: float = 0.1
    timeout_s: float = 10.0
    near_s: float = 0.002
    late_s: float = 0.25


@dataclasses.dataclass(frozen=True)
class Streams:
    """The ways to and from the chip: the driver's node to write to, what reads, the stop-watch, the slow clock."""

    source: Any
    reader: Reader
    watch: Any
    clock: Any


@dataclasses.dataclass(frozen=True)
class Tune:
    """A recording ready to be played: ``stamps_us`` of each event count from the start of the stop-watch.

    Units: ``rate_hz`` of the slow clock while it is played; None: it does not tick.
    """

    events: Events
    stamps_us: Int64s
    rate_hz: float | None
    record: Literal["all"] | None


class Player:
    """What feeds an open board called ``name`` and reads it, by its ``driver`` and its ``streams``."""

    def __init__(self, name: str, driver: Any, pace: Pace, streams: Streams) -> None:
        self.name, self.driver, self.pace, self.streams = name, driver, pace, streams
        self._n_late = 0
        self._is_interrupted = False
        self._initial: tuple[Sequence[CoreProgram], list[Any]] = (), []

    def prepare(
        self, program: Program, events: Events, *, rate_hz: float | None, record: Literal["all"] | None
    ) -> Tune:
        """Return when to play the events: as they were recorded, or one by one where all cores are recorded.

        Raises: RecordingError, SettingError.
        """
        if record not in (None, "all"):
            raise SettingError(f"record: expected None (monitored cores) or 'all', found {record!r}.")
        problems = [problem] if (problem := find_sensor_misfit(events, program.dvs)) else []
        if not len(events):
            problems.append("events: expected at least one, found no events. Try a longer window of the recording.")
        if problems:
            raise RecordingError(" ".join(problems))
        period_us = tick_period_us(program, rate_hz)
        played = events
        if record == "all":
            tempo = spread(events, period_us)
            played, period_us = tempo.events, tempo.period_us
        # Ticks are counted by the board from the start of its stop-watch, so a lead would add some. Without them only
        # the times between events matter.
        start_us = 0 if period_us is not None else int(played.t_us[0]) - round(self.pace.lead_s * 1e6)
        stamps_us = played.t_us.astype(np.int64) - start_us
        if stamps_us[-1] > MAX_STAMP_US:
            raise RecordingError(
                f"events: expected at most {MAX_STAMP_US / 6e7:.0f} minutes, which a board's time stamps can count, "
                f"found {stamps_us[-1] / 6e7:.0f}. Try a window of the recording."
            )
        return Tune(events, stamps_us, None if period_us is None else whole_hz(period_us), record)

    def play(self, program: Program, tune: Tune) -> Recording:
        """Return what the loaded board does with a recording, from the program's initial states.

        Raises: DeviceError.
        """
        started = time.perf_counter()
        self.call("the slow clock", lambda: self.streams.clock.set_slow_clk(False))
        self.reset_states(program.cores)
        recorded = program.cores if tune.record else [core for core in program.cores if core.monitor]
        heard = {core.core for core in (*recorded, *(program.core(core) for core in program.outputs))}
        try:
            raw = self._stream(program, tune, heard)
        finally:
            with contextlib.suppress(DeviceError):  # the first error is the one to tell
                self.call("the slow clock", lambda: self.streams.clock.set_slow_clk(False))
                self.call("stopping the stop-watch", self.streams.watch.stop)
        asked = [core for core in program.cores if tune.record or core.core in program.outputs]
        readable = [core for core in asked if tune.rate_hz is None or core.bias is None]
        self._n_late = 0
        answers = self.read(readable)
        if self._n_late:
            raise DeviceError(
                f"device '{self.name}': expected no spike after {self.pace.quiet_s:g} s without one, found "
                f"{self._n_late}. Try again with nothing else at work on this machine."
            )
        states = {core.core: fill_states(core, answers[core.core]) for core in readable}
        spikes = {core: attribute(raw[raw["core"] == core], tune.events, tune.stamps_us) for core in sorted(heard)}
        counts = {core: count_spikes(one, program.core(core).out_shape) for core, one in spikes.items()}
        return Recording(
            spikes={core.core: spikes[core.core] for core in recorded},
            states={core: state for core, state in states.items() if state is not None},
            synops={},
            n_spikes={core: len(one) for core, one in spikes.items()},
            n_events={},
            n_dropped={},
            counts=counts,
            wall_s=time.perf_counter() - started,
        )

    def interrupt(self) -> None:
        """Have states that are written or read in another thread fail at once: nobody waits for them any more."""
        self._is_interrupted = True

    def check_wanted(self) -> None:
        """Raise DeviceError after ``interrupt``."""
        if self._is_interrupted:
            raise DeviceError(f"device '{self.name}': it is being closed. Try opening it again.")

    def close(self) -> None:
        """End the reader and stop the slow clock."""
        self.streams.reader.close(self.pace.timeout_s)
        self.call("the slow clock", lambda: self.streams.clock.set_slow_clk(False))

    def _stream(self, program: Program, tune: Tune, heard: set[int]) -> NDArray[Any]:
        """Return the spikes of the cores in ``heard`` while the recording is played."""
        reader, watch, clock = self.streams.reader, self.streams.watch, self.streams.clock
        parts: list[NDArray[Any]] = []
        reader.forget()
        self.call("the stop-watch", watch.reset)
        self.call("the stop-watch", watch.start)
        began = time.monotonic()
        if tune.rate_hz is not None:
            self.call("the rate of the slow clock", lambda: clock.set_slow_clk_rate(tune.rate_hz))
            self.call("the slow clock", lambda: clock.set_slow_clk(True))
        n_done, n = 0, len(tune.events)
        while n_done < n:
            due_us = (time.monotonic() - began + self.pace.ahead_s) * 1e6
            stop = min(int(np.searchsorted(tune.stamps_us, due_us, side="right")), n_done + _BATCH)
            if stop > n_done:
                part, stamps = tune.events.part(n_done, stop), tune.stamps_us[n_done:stop]
                self.write(encode_events(program, part, stamps, self.driver), "writing events")
                n_done = stop
            else:
                time.sleep(min(self.pace.ahead_s / 4, 0.05))
            parts.append(decode_spikes(self._take(), heard))
        time.sleep(max(0.0, began + float(tune.stamps_us[-1]) * 1e-6 - time.monotonic()))
        parts.append(decode_spikes(self._wait_for_quiet(program.cores[0]), heard))
        return np.concatenate([np.zeros(0, RAW_SPIKE), *parts])

    def _wait_for_quiet(self, core: CoreProgram) -> list[Any]:
        """Return what comes until the board has answered a question asked behind all events, and then is silent."""
        reader, n_neurons = self.streams.reader, int(np.prod(core.out_shape))
        self.write(encode_reads(core, self.driver, step=n_neurons), "asking for a state")
        deadline = time.monotonic() + self.pace.timeout_s
        taken: list[Any] = []
        has_answered = False
        while not has_answered:
            if time.monotonic() > deadline:
                raise self.silent("the state of a neuron behind the last event", "none")
            new = self._take()
            taken += new
            has_answered = any(hasattr(one, "neuron_state") for one in new)
            if new:
                deadline = time.monotonic() + self.pace.timeout_s
            else:
                time.sleep(0.001)
        deadline = time.monotonic() + _N_TIMEOUTS * self.pace.timeout_s
        while time.monotonic() - reader.last_s < self.pace.quiet_s:
            if time.monotonic() > deadline:
                raise self.silent("an end of the spikes behind the last event", "more and more")
            taken += self._take()
            time.sleep(self.pace.quiet_s / 10)
        return taken + self._take()

    def reset_states(self, cores: Sequence[CoreProgram]) -> None:
        """Write the initial state of every neuron, and read some back: twice, before that is an error.

        Raises: DeviceError.
        """
        if self._initial[0] is not cores:  # kept, because making so many events takes as long as sending them
            self._initial = cores, [event for core in cores for event in encode_states(core, self.driver)]
        for _ in range(2):
            for first in range(0, len(self._initial[1]), _BATCH):
                self.check_wanted()
                self.write(self._initial[1][first : first + _BATCH], "writing states")
            wrong = self._count_wrong(cores)
            if not wrong:
                return
        n_wrong = ", ".join(f"{n} of core {core}" for core, n in wrong.items())
        raise self.silent("initial states as they were written", f"others: {n_wrong}")

    def _count_wrong(self, cores: Sequence[CoreProgram]) -> dict[int, int]:
        self.streams.reader.forget()
        answers = self.read(cores, n_max=_N_CHECKED)
        wrong = {}
        for core in cores:
            step = _step(core, _N_CHECKED)
            asked = [int(event.address) for event in encode_reads(core, self.driver, step)]
            written = core.initial_state.ravel()[::step].tolist()
            n = sum(answers[core.core].get(at) != state for at, state in zip(asked, written, strict=True))
            if n:
                wrong[core.core] = n
        return wrong

    def read(self, cores: Sequence[CoreProgram], *, n_max: int | None = None) -> dict[int, dict[int, int]]:
        """Return the states of the cores by address; with ``n_max`` of no more than so many neurons of each.

        Raises: DeviceError.
        """
        states: dict[int, dict[int, int]] = {core.core: {} for core in cores}
        for core in cores:
            step, held = _step(core, n_max), states[core.core]
            n_asked = -(-int(np.prod(core.out_shape)) // step)
            self.write(encode_reads(core, self.driver, step), "asking for states")
            deadline = time.monotonic() + self.pace.timeout_s
            while len(held) < n_asked:
                self.check_wanted()
                new = self._take()
                held.update(decode_states(new, core))
                self._n_late += len(decode_spikes(new, [one.core for one in cores]))
                if new:
                    deadline = time.monotonic() + self.pace.timeout_s
                elif time.monotonic() > deadline:
                    raise self.silent(f"the states of {n_asked} neurons of core {core.core}", str(len(held)))
                else:
                    time.sleep(0.001)
        return states

    def _take(self) -> list[Any]:
        """Return what the reader has, where it has all that came."""
        reader = self.streams.reader
        events = reader.take()
        if reader.n_dropped:
            raise DeviceError(
                f"device '{self.name}': expected to take every event, found {reader.n_dropped} of {reader.n_received} "
                "that came while the buffer was full. Try fewer monitored cores, or a part of the recording."
            )
        return events

    def write(self, events: Iterable[Any], what: str) -> None:
        """Send events to the board, batch by batch; ``what`` says in an error what that was for."""
        waiting = iter(events)
        while batch := list(itertools.islice(waiting, _BATCH)):
            self.call(what, lambda batch=batch: self.streams.source.write(batch))  # type: ignore[misc]

    def call(self, what: str, call: Callable[[], T]) -> T:
        """Return what a call of the driver returns; ``what`` names it in an error. Raises: DeviceError."""
        return within(self.pace.timeout_s, f"device '{self.name}': {what}", call)

    def silent(self, expected: str, found: str) -> DeviceError:
        """Return the error of a board that did not answer as ``expected`` within the time-out."""
        text = f"device '{self.name}': expected {expected} within {self.pace.timeout_s:g} s, found {found}."
        return DeviceError(f"{text} Try the board's reset button, or plugging it in again.")


def _step(core: CoreProgram, n_max: int | None) -> int:
    return 1 if n_max is None else max(1, int(np.prod(core.out_shape)) // n_max)


def tick_period_us(program: Program, rate_hz: float | None) -> int | None:
    """Return the time from one tick of the slow clock to the next; None where no tick does anything."""
    if rate_hz is None or all(core.bias is None for core in program.cores):
        return None
    return max(1, round(1e6 / rate_hz))


def whole_hz(period_us: int) -> int:
    """Return the rate of a period; the slow clock of a board takes whole numbers.

    Raises: SettingError where there is none.
    """
    hz = round(1e6 / period_us)
    if hz < 1 or round(1e6 / hz) != period_us:
        raise SettingError(
            f"slow_clock_hz: expected whole ticks per second, which the slow clock of a board takes, found "
            f"{1e6 / period_us:g}. Try {max(1, hz)}."
        )
    return hz
