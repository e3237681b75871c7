"""The chip of a virtual board: one configuration at work, and what each kind of event does to it."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.dvs import apply_dvs
from spikeport.models.events import Events

from .clock import Clock
from .configuration import DVS_LAYER, READOUT_LAYER, SENSOR_EDGE, SpeckConfiguration
from .counts import Counts
from .memory import Memory
from .program import input_stage, program_of
from .readout import Readout
from .silicon import Int64s, Silicon, Way
from .validation import order_cores

_NOWHERE = -1

Timed = tuple[Any, int]
"""An event on its way in or out, and its time."""


class Chip:
    """A configured chip. ``kinds`` are the event classes of its driver; ``counts`` outlive configurations.

    Times are those of the board's time line. Between two changes of the clock those of spikes never decrease; while the
    slow clock is on, no others do either.
    """

    def __init__(self, configuration: SpeckConfiguration, kinds: Any, counts: Counts) -> None:
        self.configuration = configuration
        self._kinds, self._counts = kinds, counts
        self._registers: dict[int, int] = {}
        self._stage = input_stage(configuration.dvs_layer)
        self._targets = [one.layer for one in configuration.dvs_layer.destinations if one.enable]
        self.readout = Readout(configuration.readout) if configuration.readout.enable else None
        self._reads = [
            (core, one)
            for core, layer in enumerate(configuration.cnn_layers)
            for one in layer.destinations
            if one.enable and one.layer == READOUT_LAYER
        ]
        self._monitored = {core for core, layer in enumerate(configuration.cnn_layers) if layer.monitor_enable}
        self.silicon = self._silicon()
        self.memory = Memory(self.silicon, counts)
        self._origin_us = self._fed_us = 0
        self._clock = Clock()

    def _silicon(self) -> Silicon | None:
        if not order_cores(self.configuration):
            return None
        program = program_of(self.configuration)
        self._maps = {core.core: core.in_shape for core in program.cores}
        ways = {core.core: Way((core.core,)) for core in program.cores}
        entry = tuple(core for core in self._targets if core in ways)
        if entry:
            ways[DVS_LAYER] = Way(entry)
            self._maps[DVS_LAYER] = tuple(max(self._maps[core][axis] for core in entry) for axis in range(3))
        return Silicon(program, ways, self._monitored | {core for core, _ in self._reads})

    _maps: dict[int, tuple[int, ...]] = {}  # noqa: RUF012

    @property
    def _shows(self) -> bool:
        """Whether cores and input stage may speak: the monitor of the readout block takes their place."""
        return not (self.readout is not None and self.configuration.readout.monitor_enable)

    def set_clock(self, clock: Clock, *, until_us: int, from_us: int) -> None:
        """Let the present slow clock tick ``until_us`` on the old time line, and ``clock`` from ``from_us`` on."""
        old, self._clock = self._clock, clock
        self._fed_us, silicon = from_us, self.silicon
        if silicon is None:
            return
        if silicon.has_bias and old.enabled:
            silicon.advance(until_us - self._origin_us)
        if silicon.has_bias and (old.enabled or clock.enabled):
            self._restart(silicon, from_us, {})
        else:
            self._origin_us = from_us - silicon.t_us

    def flush(self, t_us: int) -> None:
        """Let what was written to the memories take effect."""
        written = self.memory.take()
        if written and self.silicon is not None:
            self._restart(self.silicon, t_us, written)

    def _restart(self, silicon: Silicon, t_us: int, changes: dict[int, dict[str, NDArray[Any]]]) -> None:
        clock = self._clock
        silicon.restart(clock.rate_hz if clock.enabled else 0.0, changes)
        self._origin_us = t_us // clock.period_us * clock.period_us if clock.enabled else self._fed_us

    def process(self, batch: Sequence[Timed]) -> Iterator[Timed]:
        """Yield what comes out, in order, each with its time; attributes ``timestamp`` are still to be set."""
        waiting: list[Timed] = []
        for event, t_us in batch:
            if isinstance(event, (self._kinds.Spike, self._kinds.DvsEvent)):
                waiting.append((event, t_us))
                continue
            yield from self._spikes(waiting)
            waiting = []
            yield from self._answers(event, t_us)
        yield from self._spikes(waiting)
        if batch:
            self.flush(batch[-1][1])

    def _answers(self, event: Any, t_us: int) -> Iterator[Timed]:
        """Yield what an event that reads or writes is answered with."""
        name = type(event).__name__
        if name == "ReadRegisterValue":
            yield self._kinds.RegisterValue(event.address, self._registers.get(event.address, 0)), t_us
        elif name == "WriteRegisterValue":
            self._registers[event.address] = event.data
        elif name.endswith(("NeuronValue", "WeightValue", "BiasValue")):
            silicon = self.silicon
            if silicon is not None and silicon.has_bias and self._clock.enabled:
                due_us = t_us - self._origin_us
                if due_us // self._clock.period_us > silicon.t_us // self._clock.period_us:
                    self.flush(self._origin_us + silicon.t_us)
                    silicon.advance(t_us - self._origin_us)
            value = self.memory.access(event)
            if value is not None:
                yield getattr(self._kinds, name.removeprefix("Read"))(event.layer, event.address, value), t_us
        else:
            self._counts.n_ignored += 1

    def _spikes(self, waiting: Sequence[Timed]) -> Iterator[Timed]:
        if not waiting:
            return
        self.flush(waiting[0][1])
        self._fed_us = waiting[-1][1]
        found: list[tuple[int, int, Any]] = []
        places = self._places(waiting, found)
        times = [t_us for _, t_us in waiting]
        for position, (core, index, spikes) in enumerate(self._run(places, np.array(times, np.int64))):
            if self._shows and core in self._monitored:
                columns = (spikes["feature"].tolist(), spikes["y"].tolist(), spikes["x"].tolist())
                made = self._kinds.Spike.made
                found += (
                    (at, position, made([core, feature, y, x, 0]))
                    for at, feature, y, x in zip(index.tolist(), *columns, strict=True)
                )
        found.sort(key=operator.itemgetter(0, 1))
        for at, _, event in found:
            yield event, times[at]

    def _run(self, places: Int64s, times: Int64s) -> Iterator[tuple[int, Int64s, NDArray[Any]]]:
        """Yield the spikes of each core that is listened to, with the index of the event that caused each."""
        if self.silicon is None or not len(places):
            return
        owner = places[:, 0]
        spikes = self.silicon.feed(places[:, 1], places[:, 2:], times[owner] - self._origin_us)
        for core in (one.core for one in self.silicon.program.cores if one.core in spikes):
            self._read(core, spikes[core])
            yield core, owner[spikes[core]["event"]], spikes[core]

    def _read(self, core: int, spikes: NDArray[Any]) -> None:
        """Give the readout block what it gets of a core."""
        if self.readout is None:
            return
        for one in (destination for source, destination in self._reads if source == core):
            columns = spikes["feature"] + one.feature_shift, spikes["y"] // one.pooling, spikes["x"] // one.pooling
            for place in zip(*(column.tolist() for column in columns), strict=True):
                self.readout.add(*place)

    def _places(self, waiting: Sequence[Timed], monitored: list[tuple[int, int, Any]]) -> Int64s:
        """Return where events go: index of the event, way into the chip, feature, row, column.

        What the monitors of the input stage say is added to ``monitored``, in front of all spikes of the same event.
        """
        direct: list[tuple[int, ...]] = []
        staged: list[tuple[int, ...]] = []
        for index, (event, _) in enumerate(waiting):
            if isinstance(event, self._kinds.Spike):
                direct.append((index, event.layer, event.feature, event.y, event.x))
            else:
                staged.append((index, event.p, event.y, event.x))
        rows = np.array(direct, np.int64).reshape(-1, 5)
        rows[rows[:, 1] == DVS_LAYER, 1] = _NOWHERE  # only events of the sensor enter the input stage
        if staged:
            rows = np.concatenate([rows, self._staged(np.array(staged, np.int64), monitored)])
        if self.readout is not None:
            for spike in rows[rows[:, 1] == READOUT_LAYER].tolist():
                self.readout.add(*spike[2:])
            rows = rows[rows[:, 1] != READOUT_LAYER]
        inside = np.zeros(len(rows), np.bool_)
        for way, shape in self._maps.items():
            inside |= (rows[:, 1] == way) & (rows[:, 2:] < np.array(shape)).all(axis=1)
        self._counts.n_outside += int((~inside).sum())
        rows = rows[inside]
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def _staged(self, rows: Int64s, monitored: list[tuple[int, int, Any]]) -> Int64s:
        """Return the places of events of the sensor behind the input stage, those that nobody takes left out."""
        stage = self.configuration.dvs_layer
        inside = (rows[:, 2:] < SENSOR_EDGE).all(axis=1)
        self._counts.n_outside += int((~inside).sum())
        rows = rows[inside]
        if self._shows and stage.raw_monitor_enable:
            made = self._kinds.DvsEvent.made
            monitored += ((at, -2, made([*place, 0])) for at, *place in rows.tolist())
        rows = rows[np.where(rows[:, 1] > 0, stage.on_channel, stage.off_channel)]
        index = np.arange(len(rows))
        kept = apply_dvs(Events(rows[:, 3], rows[:, 2], rows[:, 1], index, (SENSOR_EDGE, SENSOR_EDGE)), self._stage)
        owner = rows[kept.t_us, 0]
        columns = [np.asarray(column, np.int64) for column in (kept.p, kept.y, kept.x)]
        if self._shows and stage.monitor_enable:
            parts = (owner.tolist(), *(column.tolist() for column in columns))
            kind = self._kinds.Spike
            monitored += ((at, -1, kind(DVS_LAYER, *place)) for at, *place in zip(*parts, strict=True))
        places = [
            np.stack([owner, np.full(owner.size, way), *columns], axis=1)
            for way in (READOUT_LAYER, DVS_LAYER)
            if (way in self._maps if way == DVS_LAYER else way in self._targets and self.readout is not None)
        ]
        return np.concatenate(places) if places else np.zeros((0, 5), np.int64)
