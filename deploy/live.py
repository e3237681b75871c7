"""A board that is fed as the events come: stretch by stretch, with pauses, for as long as one likes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import ArrayRecord
from spikeport.models.events import Events

from .errors import DeviceError, RecordingError, SettingError
from .play import Player, tick_period_us, whole_hz
from .samna_events import RAW_EVENT, RAW_SPIKE, decode_stretch, encode_events, encode_reads, fill_states
from .session import find_sensor_misfit
from .types import SPIKE, Program

Int64s = NDArray[np.int64]

_WRAP = 1 << 32  # time stamps of a board are unsigned numbers of 32 bits
_BATCH = 512  # events that are made while those before them are on their way
_POLL_S = 0.001
_CATCH_UP = 1.5  # how much faster than asked for a stretch is played at most, after a gap
_PAUSE_US = 500_000  # behind by more than this, or left alone for so long, a run has paused and does not catch up
_ALIGN_US = 600_000_000  # after which the stop-watch starts over, because two clocks never run alike
_N_OPEN = 4  # stretches without an answer, before nothing more is written


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of the map from input time to the time of the board's stop-watch, which is linear within it."""

    start_us: int
    stop_us: int
    board_us: int
    board_stop_us: int

    def to_board(self, t_us: Int64s) -> Int64s:
        """Return the board times of input times.

        Law: input times before ``stop_us`` give board times before ``board_stop_us``.
        """
        length = self.stop_us - self.start_us
        return self.board_us + (t_us - self.start_us) * (self.board_stop_us - self.board_us) // max(length, 1)

    def to_input(self, stamps_us: Int64s) -> Int64s:
        """Return the input times of board times, those outside of the piece at its ends.

        Law: ``to_input(to_board(t))`` is ``t``, at speed 1 and below; else it is at most ``speed`` microseconds off.
        """
        length = self.board_stop_us - self.board_us
        later = -((self.board_us - stamps_us) * (self.stop_us - self.start_us) // max(length, 1))
        return np.clip(self.start_us + later, self.start_us, max(self.start_us, self.stop_us - 1))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Answer(ArrayRecord):
    """What a board sent in the stretch from ``start_us`` to below ``stop_us`` of the input's own time.

    ``sensor`` holds what the camera saw, None without one. ``n_late`` spikes of output cores belong to an earlier
    stretch: they are among ``spikes``, at ``start_us``. ``n_dropped`` events of the board came while the buffer was
    full and are lost. ``n_unseen`` events of the camera came in a pause: they fed the cores, and were not recorded.
    Shapes: ``spikes`` maps each monitored core to an array of ``SPIKE``, in order of time; ``event`` counts from the
    first event since the restart.
    """

    start_us: int
    stop_us: int
    spikes: Mapping[int, NDArray[Any]]
    sensor: Events | None
    n_late: int
    n_dropped: int
    n_unseen: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "spikes", MappingProxyType(dict(self.spikes)))


class Live:
    """A program at work on a board, fed in stretches of the input's own time; a context manager that stops it.

    Within a stretch the board keeps the intervals of the input, divided by the speed. Between two stretches lies a gap,
    as long as the last spikes take to arrive and the next events to be written; the next stretch makes up for it, by
    playing at most half as fast again. A pause is a long gap. So the map from the input's time to that of the board is
    linear in pieces.
    A stretch ends when the board has answered a question that was asked behind its last event, and no later than
    ``Pace.late_s`` after it was due: spikes that come later are counted, and come with the next stretch.

    The chip itself knows no time: without a slow clock neither gaps, pauses nor speed change what it does. With one,
    it ticks on in gaps and pauses, so that leaks differ from those of a recording that is played in one go: a pause of
    a second at 1000 Hz adds 1000 biases to every neuron. The rate of the clock follows the speed, in whole hertz. In
    the stretch that makes up for a gap as many ticks are missing as came in the gap.

    With a camera nothing is written: a stretch is what the sensor saw, in real time, whatever the speed. The sensor is
    switched on by the configuration, which also sets the states: on a real board that takes ``Pace.settle_s`` or more,
    and whether every state starts over is for a board to show. Not known either is how long its events are on their
    way: those that come behind the answer at the end of their stretch are moved to the next one.
    """

    _due_us: int | None

    def __init__(
        self,
        player: Player,
        program: Program,
        *,
        rate_hz: float | None = None,
        switch: Callable[[bool], None] | None = None,
    ) -> None:
        period_us = tick_period_us(program, rate_hz)
        self.rate_hz = None if period_us is None else whole_hz(period_us)
        self._player, self._program, self._switch = player, program, switch
        self._cores = tuple(core.core for core in program.cores if core.monitor)
        self._asked: deque[float] = deque()
        self._begin()

    @property
    def t_us(self) -> int:
        """The end of the last stretch."""
        return self._t_us

    def __enter__(self) -> Self:
        self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def restart(self) -> None:
        """Go back to the initial states and time 0; what is still on its way is forgotten.

        Raises: DeviceError.
        """
        streams, call = self._player.streams, self._player.call
        self._stop()
        if self._switch is None:
            self._player.reset_states(self._program.cores)
        else:
            self._switch(False)
            time.sleep(self._player.pace.settle_s + self._player.pace.quiet_s)  # what it saw is still on its way
        streams.reader.forget()
        call("the stop-watch", streams.watch.reset)
        self._begin()
        call("the stop-watch", streams.watch.start)
        if self.rate_hz is not None:
            self._set_clock(self.rate_hz)
            call("the slow clock", lambda: streams.clock.set_slow_clk(True))
        if self._switch is not None:
            self._due_us = self._now_us()
            self._switch(True)

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Answer:
        """Return what the board does until ``stop_us``, in as much wall time as the stretch takes at ``speed``.

        ``events`` lie between the end of the last stretch and there; with a camera there are none. A board cannot be
        faster than its clock lets it: a speed of None is 1.
        Raises: DeviceError where the board is lost: it does not answer for ``Pace.timeout_s``; RecordingError for
        events of another sensor or outside of the stretch; SettingError for a speed that is none.
        """
        speed = 1.0 if speed is None else float(speed)
        self._check(events, stop_us, speed)
        self._wait_for_room()
        self._align()
        piece = self._next_piece(stop_us, 1.0 if self._switch else speed)
        stamps = piece.to_board(events.t_us.astype(np.int64))
        end_s = self._began_s + piece.board_stop_us * 1e-6
        if self._switch is None:
            self._follow(speed)
            self._feed(events, stamps)
        else:
            self._wait_until(end_s)
        self._ask(end_s)
        self._collect(end_s)
        answer = self._answer(piece, stamps)
        self._t_us, self._left_us = stop_us, self._now_us()
        return answer

    def states(self) -> dict[int, NDArray[np.int16]]:
        """Return the states of the output cores, those with a bias left out while a slow clock ticks.

        Shapes: ``[F, H, W]``. Spikes that come while they are read are lost.
        Raises: DeviceError.
        """
        self._gather()
        self._player.streams.reader.forget()
        self._n_told = self._n_dropped = 0
        outputs = [core for core in self._program.cores if core.core in self._program.outputs]
        readable = [core for core in outputs if self.rate_hz is None or core.bias is None]
        answers = self._player.read(readable)
        self._asked.clear()  # answers that were still missing are among these
        found = {core.core: fill_states(core, answers[core.core]) for core in readable}
        return {core: state for core, state in found.items() if state is not None}

    def interrupt(self) -> None:
        """Have what another thread waits for fail at once: initial states, and the answers of a slow board."""
        self._player.interrupt()

    def close(self) -> None:
        """Stop the clocks, and the camera, as far as the board still answers; closing twice is fine."""
        with contextlib.suppress(DeviceError):
            self._stop()
            if self._switch is not None:
                self._switch(False)

    # time

    def _begin(self) -> None:
        # Taken before the stop-watch starts: this clock is never behind the board's, so nothing is due in its past.
        self._began_s = time.monotonic()
        self._t_us = self._left_us = self._n_events = self._n_told = self._n_dropped = self._since_us = 0
        self._due_us = None
        self._speed = 1.0
        self._asked.clear()
        self._spikes, self._seen = [np.zeros(0, RAW_SPIKE)], [np.zeros(0, RAW_EVENT)]

    def _stop(self) -> None:
        streams, call = self._player.streams, self._player.call
        call("the slow clock", lambda: streams.clock.set_slow_clk(False))
        call("stopping the stop-watch", streams.watch.stop)

    def _now_us(self) -> int:
        return int((time.monotonic() - self._began_s) * 1e6)

    def _next_piece(self, stop_us: int, speed: float) -> Piece:
        """Return when on the board the next stretch is due, as near as can be to where the last one should have ended.

        A camera has no gaps, but in a pause nobody looks.
        """
        now_us, length_us = self._now_us(), round((stop_us - self._t_us) / speed)
        nearest_us = now_us + round(self._player.pace.near_s * 1e6)
        due_us = nearest_us if self._due_us is None else self._due_us
        if self._switch is not None:
            if self._t_us and now_us - self._left_us > _PAUSE_US:
                self._since_us = due_us = now_us
            start_us, stop = due_us, due_us + length_us
        else:
            due_us = nearest_us if nearest_us - due_us > _PAUSE_US else due_us
            start_us = max(due_us, nearest_us)
            stop = max(due_us + length_us, start_us + round(length_us / _CATCH_UP))
        self._due_us = due_us + length_us
        return Piece(self._t_us, stop_us, start_us, stop)

    def _align(self) -> None:
        """Let the stop-watch start over now and then, where nothing is on its way."""
        if self._switch is None and not self._asked and self._now_us() > _ALIGN_US:
            self._began_s, self._due_us = time.monotonic(), None
            self._player.call("the stop-watch", self._player.streams.watch.reset)

    def _follow(self, speed: float) -> None:
        """Let the slow clock tick as often in the input's time as it should, as far as whole hertz can."""
        if self.rate_hz is not None and speed != self._speed:
            self._set_clock(max(1, round(self.rate_hz * speed)))
        self._speed = speed

    def _set_clock(self, hz: int) -> None:
        self._player.call("the rate of the slow clock", lambda: self._player.streams.clock.set_slow_clk_rate(hz))

    # to and from the board

    def _feed(self, events: Events, stamps: Int64s) -> None:
        n_done, ahead_s = 0, self._player.pace.ahead_s
        while n_done < len(events):
            due_us = self._now_us() + ahead_s * 1e6
            stop = min(int(np.searchsorted(stamps, due_us, side="right")), n_done + _BATCH)
            if stop > n_done:
                part = events.part(n_done, stop), stamps[n_done:stop] % _WRAP
                self._player.write(encode_events(self._program, *part, self._player.driver), "writing events")
                n_done = stop
            else:
                time.sleep(min(ahead_s / 4, 0.05))
            self._gather()

    def _wait_until(self, end_s: float) -> None:
        while (left_s := end_s - time.monotonic()) > 0:
            self._gather()
            time.sleep(min(left_s, 0.01))

    def _ask(self, end_s: float) -> None:
        """Ask for a state: the answer comes behind everything that was written before."""
        core = self._program.cores[0]
        question = encode_reads(core, self._player.driver, step=int(np.prod(core.out_shape)))
        self._asked.append(max(end_s, time.monotonic()) + self._player.pace.timeout_s)
        self._player.write(question, "asking for a state")

    def _collect(self, end_s: float) -> None:
        """Take what comes until the board has answered and the stretch is over, or spikes are late."""
        pace = self._player.pace
        early_s = 0.0 if self._switch else pace.near_s
        while self._asked or time.monotonic() < end_s - early_s:
            if time.monotonic() > end_s + pace.late_s:
                break
            self._gather()
            time.sleep(_POLL_S)
        self._gather()

    def _wait_for_room(self) -> None:
        """Let a board that is slower than its input answer before more is written."""
        while len(self._asked) >= _N_OPEN:
            self._player.check_wanted()
            self._gather()
            time.sleep(_POLL_S)

    def _gather(self) -> None:
        """Take what has come.

        Raises: DeviceError where an answer is overdue.
        """
        reader = self._player.streams.reader
        answers = reader.take()
        if answers:
            spikes, seen, n_states = decode_stretch(answers, self._cores)
            self._spikes.append(self._unwrapped(spikes))
            self._seen.append(self._unwrapped(seen))
            for _ in range(min(n_states, len(self._asked))):
                self._asked.popleft()
        if reader.n_dropped > self._n_dropped:
            self._n_dropped = reader.n_dropped
            self._asked.clear()  # an answer may be among what was dropped
        if self._asked and time.monotonic() > self._asked[0]:
            raise self._player.silent("the state of a neuron behind the events of a stretch", "none")

    def _unwrapped(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return what came with times of the stop-watch beyond 32 bits."""
        now_us = self._now_us()
        raw["stamp_us"] = now_us + (raw["stamp_us"] - now_us + _WRAP // 2) % _WRAP - _WRAP // 2
        return raw

    def _answer(self, piece: Piece, stamps: Int64s) -> Answer:
        """Return what has come; ``stamps`` are the times at which the events of a feed were due."""
        raw, seen = np.concatenate(self._spikes), np.concatenate(self._seen)
        n_came = len(seen)
        if self._switch is not None:  # nobody looked before
            raw, seen = (part[part["stamp_us"] >= self._since_us] for part in (raw, seen))
        n_unseen = n_came - len(seen)
        # Of a feed nothing later has been written: what came is of this stretch or of an earlier one.
        until = None if self._switch is None else piece.board_stop_us
        (raw, self._spikes), (seen, self._seen) = _parted(raw, until), _parted(seen, until)
        sensor = None
        if self._switch is not None:
            seen = seen[np.argsort(seen["stamp_us"], kind="stable")]
            stamps, size = seen["stamp_us"], self._program.dvs.input_shape[1:]
            sensor = Events(seen["x"], seen["y"], seen["p"], piece.to_input(stamps), size)
        is_late = (raw["stamp_us"] < piece.board_us) & np.isin(raw["core"], self._program.outputs)
        n_new, self._n_told = self._n_dropped - self._n_told, self._n_dropped
        spikes = {core: self._told(raw[raw["core"] == core], piece, stamps) for core in self._cores}
        self._n_events += len(stamps)
        return Answer(piece.start_us, piece.stop_us, spikes, sensor, int(is_late.sum()), n_new, n_unseen)

    def _told(self, raw: NDArray[Any], piece: Piece, stamps: Int64s) -> NDArray[Any]:
        """Return spikes at the times of the input, each with the last event that was not later."""
        raw = raw[np.argsort(raw["stamp_us"], kind="stable")]
        spikes = np.empty(len(raw), SPIKE)
        spikes["event"] = np.maximum(self._n_events + np.searchsorted(stamps, raw["stamp_us"], side="right") - 1, 0)
        spikes["t_us"] = piece.to_input(raw["stamp_us"])
        for axis in ("feature", "y", "x"):
            spikes[axis] = raw[axis]
        spikes.flags.writeable = False
        return spikes

    def _check(self, events: Events, stop_us: int, speed: float) -> None:
        if not (np.isfinite(speed) and speed > 0):
            raise SettingError(f"speed: expected more than 0, as a multiple of real time, found {speed}. Try 1.")
        problems = [problem] if (problem := find_sensor_misfit(events, self._program.dvs)) else []
        if stop_us < self._t_us:
            problems.append(f"stretch: expected an end from {self._t_us} us on, found {stop_us}. Try restart().")
        elif len(events) and (self._switch or events.t_us[0] < self._t_us or events.t_us[-1] >= stop_us):
            wanted = (
                "no events, which come from the camera" if self._switch else f"times of {self._t_us}..{stop_us - 1} us"
            )
            problems.append(
                f"events: expected {wanted}, found {len(events)} of {events.t_us[0]}..{events.t_us[-1]} us. Try the "
                "window of the stretch."
            )
        if problems:
            raise RecordingError(" ".join(problems))


def _parted(raw: NDArray[Any], until_us: int | None) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """Return what came before ``until_us``, and a list of what is to be kept for the next stretch."""
    later = np.zeros(len(raw), np.bool_) if until_us is None else raw["stamp_us"] >= until_us
    return raw[~later], [raw[later]]
