"""A run of a program that takes its events piece by piece, and keeps the state of every core between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikeport.models.events import Events

from .core import NO_TICKS, RunningCore, walk
from .dvs import enter
from .errors import RecordingError, SettingError
from .layout import ACCEPTED, DROPPED, PIECE, SYNOPS, Fields, Int64s, Layout, pack, unpack
from .stages import part_size, run_stages
from .types import SPIKE, DvsConfig, Program, Recording

_PIECE = 1 << 14
"""Input events that all cores finish before the next ones.

What they cause stays near the processor. Source: measured 2026-11-22, digits and gesture nets: 2^13 to 2^15 are equally
fast, 2^17 is 10 % slower. In threads of their own recordings take ``PIECE`` at once: each step of the interpreter
between two calls of the compiled loop holds the other threads up (8 recordings of a gesture net in two threads: 1.8
instead of 1.4 times faster).
"""


class Session:
    """A program at work: give it events in pieces of any size, take the spikes that they cause.

    A piece is finished, all its spikes included, when ``feed`` returns. ``n_events`` input events came so far.
    Law: pieces one after the other give the spikes, states and counts of all their events in one piece.
    """

    def __init__(
        self,
        program: Program,
        layouts: Sequence[Layout],
        *,
        rate_hz: float | None,
        record: Literal["all"] | None,
        in_threads: bool = False,
    ) -> None:
        if record not in (None, "all"):
            raise SettingError(f"record: expected None (monitored cores) or 'all', found {record!r}.")
        self.n_events = 0
        self._program = program
        self._cores = tuple(map(RunningCore, program.cores, layouts))
        self._rate_hz = rate_hz
        self._records_all = record == "all"
        self._t_us = 0
        self._in_threads = in_threads

    def feed(self, events: Events, *, workers: int = 1) -> dict[int, NDArray[Any]]:
        """Return the spikes that the next events cause, of each recorded core; ``event`` counts from the first feed.

        No events cause no spikes. Time goes on from one piece to the next. Several ``workers`` are threads that let
        the cores work at different parts of a long piece at the same time.
        Raises: RecordingError where the sensor is not the program's, or the events begin before the last of the piece
        before.
        """
        problem = find_sensor_misfit(events, self._program.dvs)
        if problem is not None:
            raise RecordingError(problem)
        self._check_time(events.t_us)
        size = PIECE if self._in_threads else _PIECE
        if workers > 1:
            size = part_size(len(events))
        pieces = [events.part(first, first + size) for first in range(0, max(len(events), 1), size)]
        kept: dict[int, list[NDArray[Any]]] = {
            core.program.core: [] for core in self._cores if core.program.monitor or self._records_all
        }

        def keep(core: RunningCore, number: int, words: Int64s) -> None:
            if core.program.core in kept:
                first = self.n_events + number * size
                kept[core.program.core].append(_stamped(words, pieces[number].t_us, first=first))

        if workers == 1:
            for number, piece in enumerate(pieces):
                for core, _, words in walk(self._cores, *self._arrival(piece)):
                    keep(core, number, words)
        else:
            run_stages(self._cores, [partial(self._arrival, piece) for piece in pieces], keep, workers=workers)
        self._count(events.t_us)
        return {core: parts[0] if len(parts) == 1 else _joined(parts) for core, parts in kept.items()}

    def inject(self, places: Mapping[int, Fields], t_us: Int64s) -> dict[int, NDArray[Any]]:
        """Return the spikes that events cause which go straight into cores, past the input stage.

        Shapes: ``t_us`` holds the time of each event, up to ``PIECE``; ``places`` where it arrives, for each core that
        any of them reaches, in their order: ``event`` is an index into ``t_us``. An event that arrives nowhere lets the
        time pass.
        Raises: RecordingError where the events begin before the last one before, or are too many.
        """
        self._check_time(t_us)
        if t_us.size > PIECE:
            raise RecordingError(f"events: expected at most {PIECE}, found {t_us.size}. Try pieces of them.")
        entering = {core: pack(fields) for core, fields in places.items()}
        spikes = {
            core.program.core: _stamped(words, t_us, first=self.n_events)
            for core, _, words in walk(self._cores, entering, find_ticks(t_us, self._rate_hz))
            if core.program.monitor or self._records_all
        }
        self._count(t_us)
        return spikes

    def _check_time(self, t_us: NDArray[np.integer[Any]]) -> None:
        if t_us.size and int(t_us[0]) < self._t_us:
            raise RecordingError(
                f"events: expected times from {self._t_us} us on, where the piece before ended, found "
                f"{int(t_us[0])} us. Try pieces of one recording in their order."
            )

    def _count(self, t_us: NDArray[np.integer[Any]]) -> None:
        self.n_events += t_us.size
        if t_us.size:
            self._t_us = int(t_us[-1])

    def _arrival(self, piece: Events) -> tuple[dict[int, Int64s], Int64s]:
        """Return the words that enter each entry core, and the leak ticks due before each event."""
        entering = dict.fromkeys(self._program.entry, enter(piece, self._program.dvs))
        return entering, find_ticks(piece.t_us, self._rate_hz)

    def copy(self) -> Session:
        """Return a run in the same state that goes its own way.

        Law: the same events give the same in both, whatever the other one is fed with.
        """
        other = Session.__new__(Session)
        other.__dict__.update(self.__dict__)
        other._cores = tuple(core.copy() for core in self._cores)
        return other

    def progress(self) -> Int64s:
        """Return what each core did so far: events accepted, spikes, synops, events dropped.

        Shapes: ``[cores, 4]``, cores in the order of the program. Law: the numbers of ``recording``.
        """
        rows = [
            (one.progress[ACCEPTED], one.n_spikes, one.progress[SYNOPS], one.progress[DROPPED]) for one in self._cores
        ]
        return np.array(rows, np.int64)

    def spike_map(self, core: int) -> Int64s:
        """Return how often each place of a core's map spiked so far, its features added up, ``[H, W]``."""
        return next(one.spike_map() for one in self._cores if one.program.core == core)

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


def find_ticks(t_us: NDArray[np.integer[Any]], rate_hz: float | None) -> Int64s:
    """Return how many leak ticks are due before events, from time 0 on; nothing without a slow clock."""
    return NO_TICKS if rate_hz is None else np.asarray(t_us // max(1, round(1e6 / rate_hz)), np.int64)


def _stamped(words: Int64s, t_us: NDArray[np.integer[Any]], *, first: int) -> NDArray[Any]:
    stamped = np.empty(words.size, SPIKE)
    fields = unpack(words)
    for name, column in fields._asdict().items():
        stamped[name] = column
    stamped["t_us"] = t_us[fields.event]
    stamped["event"] += first
    stamped.flags.writeable = False
    return stamped


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    whole = np.concatenate(parts)
    whole.flags.writeable = False
    return whole
