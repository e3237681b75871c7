"""The emulator as silicon: events into any core at any time, and states that can be read and written.

A program is fed through its entry cores by events of two polarities. A chip takes a spike of any feature into any core.
So each core that is fed gets a port in front of it: a core of the emulator whose kernel has one tap for each thing
that can be fed, which all lie in one window of the kernel, and whose neuron of that feature fires at once. An event of
the sensor that fills window ``(y, x)`` at tap ``i`` is then the spike number ``i`` at ``(y, x)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.types import CoreProgram, Destination, DvsConfig, Program
from spikeport.models.events import Events

Int64s = NDArray[np.int64]

_FIRST_PORT = 100
"""Ids of ports are this much above those of their cores."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A way into the chip: ``n_features`` numbers that reach all the ``cores`` at once, each with that feature."""

    cores: tuple[int, ...]
    n_features: int


class Silicon:
    """A program at work. Times are counted from its start, or the last ``restart``, and never decrease.

    ``ways`` are what it can be fed through, by name. Law: fed through one way, it equals the emulator whose entry is
    that way's cores.
    """

    def __init__(self, program: Program, ways: Mapping[int, Way], listened: Iterable[int]) -> None:
        heard = set(listened)
        self._program = dataclasses.replace(
            program,
            cores=tuple(dataclasses.replace(core, monitor=core.core in heard) for core in program.cores),
            readout=None,
        )
        self._ways = dict(ways)
        self._first = np.zeros(max(self._ways) + 1, np.int64)
        count = 0
        for name, way in self._ways.items():
            self._first[name] = count
            count += way.n_features
        self._n_taps = count
        self._edge = math.isqrt(count) + 1  # one tap more than needed: its events do nothing but pass the time
        self._rate_hz = 0.0
        self._states: dict[int, NDArray[np.int16]] | None = None
        self.t_us = 0
        self._n_synops = self._n_dropped = 0
        self._begin()

    @property
    def program(self) -> Program:
        """The program with the weights, biases and states of its last start."""
        return self._program

    @property
    def has_bias(self) -> bool:
        """Whether the slow clock changes anything."""
        return any(core.bias is not None for core in self._program.cores)

    def feed(self, way: Int64s, places: Int64s, t_us: Int64s) -> dict[int, NDArray[Any]]:
        """Return the spikes of the cores that are listened to; ``event`` counts the given places.

        Shapes: ``way`` holds the name of the way of each place, ``places`` is ``[n, 3]``: feature, row, column, all
        within the way's cores.
        """
        tap = self._first[way] + places[:, 0]
        y = places[:, 1] * self._edge + tap // self._edge
        x = places[:, 2] * self._edge + tap % self._edge
        return self._feed(y, x, t_us)

    def advance(self, t_us: int) -> None:
        """Let the time pass, with the ticks of the slow clock until then."""
        if t_us > self.t_us:
            at = np.array([self._n_taps // self._edge]), np.array([self._n_taps % self._edge])
            self._feed(*at, np.array([t_us]))

    def states(self) -> dict[int, NDArray[np.int16]]:
        """Return the states of all cores, ``[F, H, W]``."""
        if self._states is None:
            found = self._session.recording().states
            self._states = {core.core: found[core.core] for core in self._program.cores}
        return self._states

    def n_synops(self) -> int:
        """Return the targets visited so far."""
        counts = self._session.recording().synops
        return self._n_synops + sum(counts[core.core] for core in self._program.cores)

    def n_dropped(self) -> int:
        """Return the events so far that reached a core outside of its maps."""
        counts = self._session.recording().n_dropped
        return self._n_dropped + sum(counts[core.core] for core in self._program.cores)

    def restart(self, rate_hz: float, changes: Mapping[int, Mapping[str, NDArray[Any]]] | None = None) -> None:
        """Start counting time from 0 again, with the states of now and a slow clock of ``rate_hz`` (0: none).

        ``changes`` gives arrays of cores to replace, by the names of ``CoreProgram``.
        """
        states, changed = self.states(), changes or {}
        self._n_synops, self._n_dropped = self.n_synops(), self.n_dropped()
        cores = []
        for core in self._program.cores:
            arrays: dict[str, Any] = {"initial_state": states[core.core], **changed.get(core.core, {})}
            cores.append(dataclasses.replace(core, **arrays))
        self._program = dataclasses.replace(self._program, cores=tuple(cores))
        self._rate_hz = rate_hz
        self._begin()

    def _begin(self) -> None:
        cores = {core.core: core for core in self._program.cores}
        reached = {core for way in self._ways.values() for core in way.cores}
        fed = [core for core in cores if core in reached] or list(cores)[:1]
        ports = [self._port(cores[core]) for core in fed]
        height, width = (max(port.in_shape[axis] for port in ports) for axis in (1, 2))
        program = dataclasses.replace(
            self._program,
            cores=(*ports, *self._program.cores),
            entry=tuple(port.core for port in ports),
            dvs=DvsConfig((1, height, width), merge=True),
        )
        self._sensor = (height, width)
        self._session = Emulator(program, slow_clock_hz=self._rate_hz).stream()
        self._states = None
        self.t_us = 0
        self._feed(*(np.array([value]) for value in (self._n_taps // self._edge, self._n_taps % self._edge, 0)))

    def _port(self, core: CoreProgram) -> CoreProgram:
        features, height, width = core.in_shape
        weight = np.zeros((features, 1, self._edge * self._edge), np.int8)
        for name, way in self._ways.items():
            if core.core in way.cores:
                for feature in range(min(features, way.n_features)):
                    weight[feature, 0, self._first[name] + feature] = 1
        return CoreProgram(
            core=core.core + _FIRST_PORT,
            name=f"port of {core.name}",
            weight=weight.reshape(features, 1, self._edge, self._edge),
            bias=None,
            threshold_high=1,
            threshold_low=-1,
            reset="zero",
            initial_state=np.zeros(core.in_shape, np.int16),
            in_shape=(1, height * self._edge, width * self._edge),
            out_shape=core.in_shape,
            stride=(self._edge, self._edge),
            padding=(0, 0),
            destinations=(Destination(core.core),),
            monitor=False,
            scale=1.0,
        )

    def _feed(self, y: Int64s, x: Int64s, t_us: Int64s) -> dict[int, NDArray[Any]]:
        first = self._session.n_events
        spikes = self._session.feed(Events(x, y, np.zeros(x.size, np.int64), t_us, self._sensor))
        self._states = None
        self.t_us = int(t_us[-1])
        counted = {}
        for core, array in spikes.items():
            counted[core] = array.copy()
            counted[core]["event"] -= first
        return counted
