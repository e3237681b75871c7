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
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import frozen
from spikeport.models.events import Events

from .dvs import enter
from .errors import RecordingError, SettingError
from .layout import ACCEPTED, DROPPED, NEXT, SYNOPS, TICKS, Int64s, Layout, SpikeBuffer, Stream, lay_out
from .types import SPIKE, CoreProgram, DvsConfig, Program, Recording, is_rate

_NO_TICKS = np.zeros(0, np.int64)
_FIRST_BUFFER = 1 << 16


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

    def run(self, events: Events, record: Literal["all"] | None = None) -> Recording:
        """Return what the program does with ``events``, started from its initial states.

        ``record`` says whose spikes are kept: those of the monitored cores, or with ``"all"`` of every core.
        ``wall_s`` of the first run in a process includes loading the compiled loop, or compiling it where no cache is.

        Law: equal programs and events give the same recording, whatever ran before.
        Raises: RecordingError where there are no events, or their sensor is not the program's; SettingError
        for any other ``record``.
        """
        _check(events, self.program.dvs)
        if record not in (None, "all"):
            raise SettingError(f"record: expected None (monitored cores) or 'all', found {record!r}.")
        started = time.perf_counter()
        ticks_due = _ticks_due(events, self.rate_hz)
        waiting: dict[int, list[Stream]] = {core.core: [] for core in self.program.cores}
        entering = enter(events, self.program.dvs)
        for entry in set(self.program.entry):
            waiting[entry].append(entering)
        outcomes: dict[int, _Outcome] = {}
        spikes: dict[int, NDArray[Any]] = {}
        for core, layout in zip(self.program.cores, self._layouts, strict=True):
            arriving = merge(waiting.pop(core.core))
            outcome, emitted = _integrated(core, layout, arriving, ticks_due if core.bias is not None else _NO_TICKS)
            outcomes[core.core] = outcome
            for target, stream in route(core, emitted):
                waiting[target].append(stream)
            if core.monitor or record == "all":
                spikes[core.core] = _stamped(emitted, events)
        return Recording(
            spikes=spikes,
            states={core: outcome.state for core, outcome in outcomes.items()},
            synops={core: int(outcome.progress[SYNOPS]) for core, outcome in outcomes.items()},
            n_spikes={core: int(outcome.counts.sum()) for core, outcome in outcomes.items()},
            n_events={core: int(outcome.progress[ACCEPTED]) for core, outcome in outcomes.items()},
            n_dropped={core: int(outcome.progress[DROPPED]) for core, outcome in outcomes.items()},
            counts={core: outcome.counts for core, outcome in outcomes.items()},
            wall_s=time.perf_counter() - started,
        )


class _Outcome(NamedTuple):
    state: NDArray[np.int16]
    counts: Int64s
    progress: Int64s


def _check(events: Events, dvs: DvsConfig) -> None:
    problems = []
    if events.sensor_size != dvs.input_shape[1:]:
        sizes = (events.sensor_size, dvs.input_shape[1:], dvs.out_shape[1:])
        found, expected, left = ("{}x{}".format(*size) for size in sizes)
        stage = "" if left == expected else f", of which {left} reach the net"
        problems.append(
            f"events: expected a sensor of {expected} (height x width) as the program's input{stage}, found {found}. "
            "Try cropping or scaling the recording, or a program compiled for its size."
        )
    if not len(events):
        problems.append("events: expected at least one, found no events. Try a longer window of the recording.")
    if problems:
        raise RecordingError(" ".join(problems))


def _ticks_due(events: Events, slow_clock_hz: float | None) -> Int64s:
    """Return the number of leak ticks before each input event; nothing without a slow clock."""
    if slow_clock_hz is None:
        return _NO_TICKS
    due: Int64s = np.floor_divide(events.t_us, max(1, round(1e6 / slow_clock_hz)), dtype=np.int64)
    return due


def merge(streams: list[Stream]) -> Stream:
    """Return one stream in order of the causing event, streams in the given order within one event."""
    if len(streams) == 1:
        return streams[0]
    if not streams:
        return Stream(*(np.zeros(0, np.int64) for _ in Stream._fields))
    joined = Stream(*(np.concatenate(columns) for columns in zip(*streams, strict=True)))
    order = np.argsort(joined.event, kind="stable")
    return Stream(*(column[order] for column in joined))


def _integrated(core: CoreProgram, layout: Layout, arriving: Stream, ticks_due: Int64s) -> tuple[_Outcome, SpikeBuffer]:
    from .kernels import integrate, leak  # compiled code: half a second that only a run needs

    features, height, width = core.out_shape
    state = core.initial_state.transpose(1, 2, 0).reshape(height, width * features).copy()
    counts = np.zeros(state.shape, np.int64)
    progress = np.zeros(5, np.int64)
    parts: list[SpikeBuffer] = []
    size = max(_FIRST_BUFFER, layout.n_targets_max)
    while not parts or progress[NEXT] < arriving.event.size:
        feature, y, x = (np.empty(size, np.int16) for _ in range(3))
        buffer = SpikeBuffer(np.empty(size, np.int64), feature, y, x)
        n = integrate(layout, arriving, buffer, (state, counts), ticks_due, progress)
        parts.append(SpikeBuffer(buffer.event[:n], feature[:n], y[:n], x[:n]))
        size *= 2
    if ticks_due.size:
        leak(state, layout.bias, layout.threshold_low, int(ticks_due[-1] - progress[TICKS]))
    emitted = parts[0] if len(parts) == 1 else SpikeBuffer(*map(np.concatenate, zip(*parts, strict=True)))
    state, counts = (frozen(a.reshape(height, width, features).transpose(2, 0, 1)) for a in (state, counts))
    return _Outcome(state, counts, progress), emitted


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


def _stamped(spikes: SpikeBuffer, events: Events) -> NDArray[Any]:
    stamped = np.empty(spikes.event.size, SPIKE)
    for name, column in spikes._asdict().items():
        stamped[name] = column
    stamped["t_us"] = events.t_us[spikes.event]
    stamped.flags.writeable = False
    return stamped
