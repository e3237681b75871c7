"""What a program does on a chip that leaves the integer specification where no public text decides: a plain loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import frozen
from spikeport.models.events import Events

from .behavior import Behavior
from .dvs import entering
from .samna_config import feeds_cores
from .types import SPIKE, CoreProgram, Destination, Program, Recording

Int64s = NDArray[np.int64]
Address = tuple[int, int, int]

_SPAN = 1 << 16
_LOWEST, _HIGHEST = -32768, 32767


def run_variant(
    program: Program,
    events: Events,
    behavior: Behavior,
    *,
    rate_hz: float | None = None,
    record: Literal["all"] | None = None,
) -> Recording:
    """Return what a chip of another behavior does with a recording, from the program's initial states.

    One event after the other, in plain code, hundreds of times slower than the emulator (measured 2026-11-22, gesture
    net). Undecided questions, cores that do not leak as they should and last spikes that stay behind are taken as
    specified. A spike of a leak tick is of the last event before it; ticks of all cores come in network order, each
    followed by the spikes that it causes.
    Units: ``rate_hz`` of the slow clock; None: there is none.
    Law: for the specified behavior equal to the emulator; ``selfcheck`` finds the behavior that was given.
    """
    started = time.perf_counter()
    cores = {core.core: _Core(core, behavior) for core in program.cores}
    period = None if rate_hz is None else max(1, round(1e6 / rate_hz))
    arrival = entering(events, program.dvs)
    feature = arrival.feature
    if behavior.merged_polarity == "1" and not feeds_cores(program.dvs) and program.dvs.merge:
        feature = np.ones_like(feature)
    n_ticks, n_entered = 0, 0
    for index in range(len(events)):
        due = 0 if period is None else int(events.t_us[index]) // period
        while n_ticks < due:
            n_ticks += 1
            _settle(cores, {core: one.tick() for core, one in cores.items()}, max(index - 1, 0))
        if n_entered < arrival.event.size and arrival.event[n_entered] == index:
            place = int(feature[n_entered]), int(arrival.y[n_entered]), int(arrival.x[n_entered])
            _settle(cores, {}, index, dict.fromkeys(program.entry, place))
            n_entered += 1
    return Recording(
        spikes={c: one.spikes(events) for c, one in cores.items() if record == "all" or one.program.monitor},
        states={c: frozen(one.state.astype(np.int16)) for c, one in cores.items()},
        synops={c: one.n_synops for c, one in cores.items()},
        n_spikes={c: len(one.sent) for c, one in cores.items()},
        n_events={c: one.n_events for c, one in cores.items()},
        n_dropped={c: one.n_dropped for c, one in cores.items()},
        counts={c: frozen(one.counts) for c, one in cores.items()},
        wall_s=time.perf_counter() - started,
    )


def _settle(
    cores: dict[int, _Core], fired: dict[int, list[Address]], event: int, entry: dict[int, Address] | None = None
) -> None:
    """Bring spikes of a tick, or one event of the input, to their end, core by core in network order."""
    arriving: dict[int, list[Address]] = {core: [] for core in cores}
    for core, place in (entry or {}).items():
        arriving[core].append(place)
    for core, one in cores.items():
        sent = list(fired.get(core, []))
        for place in arriving[core]:
            sent += one.take(place)
        one.sent += [(event, *place) for place in sent]
        for target in dict.fromkeys(end.core for end in one.program.destinations):
            if target is not None:
                arriving[target] += one.route(target, sent)


class _Core:
    """One core and what has happened in it so far."""

    def __init__(self, program: CoreProgram, behavior: Behavior) -> None:
        self.program, self._behavior = program, behavior
        self.state = program.initial_state.astype(np.int64)
        self.counts = np.zeros(program.out_shape, np.int64)
        self.sent: list[tuple[int, int, int, int]] = []
        self.n_synops = self.n_events = self.n_dropped = 0
        self._weight = program.weight.astype(np.int64)

    def take(self, place: Address) -> list[Address]:
        """Return the spikes that an arriving event causes, in the order in which it visits neurons."""
        feature, y, x = place
        channels, height, width = self.program.in_shape
        knows_size = self._behavior.pool_edge != "reaches"
        if feature >= channels or (knows_size and (y >= height or x >= width)):
            self.n_dropped += 1
            return []
        self.n_events += 1
        rows, row_taps = self._reach(y, axis=0)
        columns, column_taps = self._reach(x, axis=1)
        self.n_synops += self.state.shape[0] * rows.size * columns.size
        if not rows.size or not columns.size:
            return []
        weight = self._weight[:, feature][:, row_taps][:, :, column_taps]
        where = np.ix_(np.arange(self.state.shape[0]), rows, columns)
        before = self.state[where]
        after, fires = self._add(before, weight)
        if self._behavior.zero_weight == "skipped":
            after, fires = np.where(weight == 0, before, after), fires & (weight != 0)
        self.state[where] = after
        self.counts[where] += fires
        return self._in_order([(int(f), int(rows[v]), int(columns[u])) for f, v, u in np.argwhere(fires)])

    def tick(self) -> list[Address]:
        """Add the biases to all states, and return the spikes of those that fire, where ticks do."""
        core = self.program
        if core.bias is None:
            return []
        changed = self._narrow(self.state + core.bias[:, None, None])
        self.state = np.maximum(changed, core.threshold_low)
        if self._behavior.tick != "fires":
            return []
        fires = self.state >= core.threshold_high
        self.state = np.where(fires, self._reset(self.state), self.state)
        self.counts += fires
        return self._in_order([(int(f), int(y), int(x)) for f, y, x in np.argwhere(fires)])

    def route(self, target: int, sent: list[Address]) -> list[Address]:
        """Return what arrives at a target of the spikes sent: each at all destinations before the next one."""
        ends = list(self._banks([end for end in self.program.destinations if end.core == target]))
        return [(f + end.feature_shift, y // end.pool, x // end.pool) for f, y, x in sent for end in ends]

    def spikes(self, events: Events) -> NDArray[np.void]:
        """Return the spikes sent, as a recording has them."""
        columns = np.array(self.sent, np.int64).reshape(-1, 4)
        spikes = np.empty(len(columns), SPIKE)
        spikes["event"], spikes["feature"], spikes["y"], spikes["x"] = columns.T
        spikes["t_us"] = events.t_us[columns[:, 0]]
        spikes.flags.writeable = False
        return spikes

    def _reach(self, position: int, *, axis: int) -> tuple[Int64s, Int64s]:
        """Return the output rows (columns) that an input row (column) reaches, and the taps that lead there."""
        out = np.arange(self.program.out_shape[axis + 1])
        taps = position + self.program.padding[axis] - out * self.program.stride[axis]
        inside = (taps >= 0) & (taps < self.program.weight.shape[axis + 2])
        return out[inside], taps[inside]

    def _add(self, before: Int64s, weight: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
        """Return the states after a visit, and which of them fire."""
        whole = before + weight
        if self._behavior.overflow != "wide":
            whole = self._narrow(whole)
        after = np.maximum(whole, self.program.threshold_low)
        fires = after >= self.program.threshold_high
        return self._narrow(np.where(fires, self._reset(after), after)), fires

    def _reset(self, states: Int64s) -> Int64s:
        return np.zeros_like(states) if self.program.reset == "zero" else states - self.program.threshold_high

    def _narrow(self, values: Int64s) -> Int64s:
        """Return values in 16 bits, as an overflow leaves them."""
        if self._behavior.overflow == "wraps":
            return (values - _LOWEST) % _SPAN + _LOWEST
        return np.clip(values, _LOWEST, _HIGHEST)

    def _in_order(self, places: list[Address]) -> list[Address]:
        names = (self._behavior.visit_order or Behavior.visit_order or "").split()
        axes = [({"feature": 0, "y": 1, "x": 2}[name.lstrip("-")], -1 if name[0] == "-" else 1) for name in names]
        return sorted(places, key=lambda place: [sign * place[axis] for axis, sign in axes])

    def _banks(self, ends: list[Destination]) -> Iterator[Destination]:
        order = self._behavior.bank_order
        if order in ("low", "high"):
            sign = 1 if order == "low" else -1
            return iter(sorted(ends, key=lambda end: sign * end.feature_shift))
        return iter(ends[::-1] if order == "last" else ends)
