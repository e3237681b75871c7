"""A run of a program that takes its events piece by piece, and keeps the state of every core between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import frozen
from spikeport.models.events import Events

from .dvs import enter
from .errors import RecordingError, SettingError
from .layout import ACCEPTED, DROPPED, NEXT, SYNOPS, TICKS, Int64s, Layout, SpikeBuffer, Stream
from .types import SPIKE, CoreProgram, DvsConfig, Program, Recording

_NO_TICKS = np.zeros(0, np.int64)
_FIRST_BUFFER = 1 << 16


class Session:
    """A program at work: give it events in pieces of any size, take the spikes that they cause.

    A piece is finished, all its spikes included, when ``feed`` returns. ``n_events`` input events came so far.
    Law: pieces one after the other give the spikes, states and counts of all their events in one piece.
    """

    def __init__(
        self, program: Program, layouts: Sequence[Layout], *, rate_hz: float | None, record: Literal["all"] | None
    ) -> None:
        if record not in (None, "all"):
            raise SettingError(f"record: expected None (monitored cores) or 'all', found {record!r}.")
        self.n_events = 0
        self._program = program
        self._cores = tuple(map(_Core, program.cores, layouts))
        self._period_us = None if rate_hz is None else max(1, round(1e6 / rate_hz))
        self._records_all = record == "all"
        self._t_us = 0

    def feed(self, events: Events) -> dict[int, NDArray[Any]]:
        """Return the spikes that the next events cause, of each recorded core; ``event`` counts from the first feed.

        No events cause no spikes. Time goes on from one piece to the next.
        Raises: RecordingError where the sensor is not the program's, or the events begin before the last of the piece
        before.
        """
        problem = find_sensor_misfit(events, self._program.dvs)
        if problem is not None:
            raise RecordingError(problem)
        if len(events) and int(events.t_us[0]) < self._t_us:
            raise RecordingError(
                f"events: expected times from {self._t_us} us on, where the piece before ended, found "
                f"{int(events.t_us[0])} us. Try pieces of one recording in their order."
            )
        ticks_due = _NO_TICKS if self._period_us is None else np.asarray(events.t_us // self._period_us, np.int64)
        waiting: dict[int, list[Stream]] = {core.core: [] for core in self._program.cores}
        entering = enter(events, self._program.dvs)
        for entry in set(self._program.entry):
            waiting[entry].append(entering)
        spikes: dict[int, NDArray[Any]] = {}
        for one in self._cores:
            core = one.program
            emitted = one.integrate(merge(waiting.pop(core.core)), ticks_due)
            for target, stream in route(core, emitted):
                waiting[target].append(stream)
            if core.monitor or self._records_all:
                spikes[core.core] = _stamped(emitted, events, first=self.n_events)
        self.n_events += len(events)
        if len(events):
            self._t_us = int(events.t_us[-1])
        return spikes

    def recording(self, spikes: Mapping[int, NDArray[Any]] | None = None, *, wall_s: float = 0.0) -> Recording:
        """Return the states, counts and synops of all events so far, with the given spikes."""
        maps = {one.program.core: one.maps() for one in self._cores}
        of = {one.program.core: one.progress for one in self._cores}
        return Recording(
            spikes=spikes or {},
            states={core: state for core, (state, _) in maps.items()},
            synops={core: int(progress[SYNOPS]) for core, progress in of.items()},
            n_spikes={core: int(counts.sum()) for core, (_, counts) in maps.items()},
            n_events={core: int(progress[ACCEPTED]) for core, progress in of.items()},
            n_dropped={core: int(progress[DROPPED]) for core, progress in of.items()},
            counts={core: counts for core, (_, counts) in maps.items()},
            wall_s=wall_s,
        )


class _Core:
    """One core and what changes in it: ``state`` and ``counts`` ``[H, W * F]``, and ``progress``."""

    def __init__(self, program: CoreProgram, layout: Layout) -> None:
        features, height, width = program.out_shape
        self.program, self._layout = program, layout
        self._state = program.initial_state.transpose(1, 2, 0).reshape(height, width * features).copy()
        self._counts = np.zeros(self._state.shape, np.int64)
        self.progress = np.zeros(5, np.int64)

    def integrate(self, arriving: Stream, ticks_due: Int64s) -> SpikeBuffer:
        """Return the spikes that the arriving events cause; ``ticks_due`` is that of the input events."""
        from .kernels import integrate, leak  # compiled code: half a second that only a run needs

        ticks = ticks_due if self.program.bias is not None else _NO_TICKS
        layout, progress = self._layout, self.progress
        parts: list[SpikeBuffer] = []
        size = max(_FIRST_BUFFER, layout.n_targets_max)
        progress[NEXT] = 0
        while not parts or progress[NEXT] < arriving.event.size:
            feature, y, x = (np.empty(size, np.int16) for _ in range(3))
            buffer = SpikeBuffer(np.empty(size, np.int64), feature, y, x)
            n = integrate(layout, arriving, buffer, (self._state, self._counts), ticks, progress)
            parts.append(SpikeBuffer(buffer.event[:n], feature[:n], y[:n], x[:n]))
            size *= 2
        if ticks.size:
            leak(self._state, layout.bias, layout.threshold_low, int(ticks[-1] - progress[TICKS]))
            progress[TICKS] = ticks[-1]
        return parts[0] if len(parts) == 1 else SpikeBuffer(*map(np.concatenate, zip(*parts, strict=True)))

    def maps(self) -> tuple[NDArray[np.int16], Int64s]:
        """Return the states and spike counts of now, ``[F, H, W]``."""
        features, height, width = self.program.out_shape
        state, counts = (
            frozen(array.reshape(height, width, features).transpose(2, 0, 1)) for array in (self._state, self._counts)
        )
        return state, counts


def find_sensor_misfit(events: Events, dvs: DvsConfig) -> str | None:
    """Return why events are not of the sensor that a program reads, as a sentence; None where they are."""
    if events.sensor_size == dvs.input_shape[1:]:
        return None
    sizes = (events.sensor_size, dvs.input_shape[1:], dvs.out_shape[1:])
    found, expected, left = ("{}x{}".format(*size) for size in sizes)
    stage = "" if left == expected else f", of which {left} reach the net"
    return (
        f"events: expected a sensor of {expected} (height x width) as the program's input{stage}, found {found}. "
        "Try cropping or scaling the recording, or a program compiled for its size."
    )


def merge(streams: list[Stream]) -> Stream:
    """Return one stream in order of the causing event, streams in the given order within one event."""
    if len(streams) == 1:
        return streams[0]
    if not streams:
        return Stream(*(np.zeros(0, np.int64) for _ in Stream._fields))
    joined = Stream(*(np.concatenate(columns) for columns in zip(*streams, strict=True)))
    order = np.argsort(joined.event, kind="stable")
    return Stream(*(column[order] for column in joined))


def route(core: CoreProgram, spikes: SpikeBuffer) -> Iterator[tuple[int, Stream]]:
    """Yield each target core with the stream that ``core`` sends it."""
    for target in dict.fromkeys(destination.core for destination in core.destinations):
        if target is None:
            continue
        taken = [destination for destination in core.destinations if destination.core == target]
        n = len(taken)
        shift = np.array([destination.feature_shift for destination in taken], np.int64)
        pool = np.array([destination.pool for destination in taken], np.int64)
        yield (
            target,
            Stream(
                np.repeat(spikes.event, n),
                (spikes.feature[:, None] + shift).reshape(-1),
                (spikes.y[:, None] // pool).reshape(-1),
                (spikes.x[:, None] // pool).reshape(-1),
            ),
        )


def _stamped(spikes: SpikeBuffer, events: Events, *, first: int) -> NDArray[Any]:
    stamped = np.empty(spikes.event.size, SPIKE)
    for name, column in spikes._asdict().items():
        stamped[name] = column
    stamped["t_us"] = events.t_us[spikes.event]
    stamped["event"] += first
    stamped.flags.writeable = False
    return stamped
