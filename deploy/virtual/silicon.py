"""The emulator as silicon: events into any core at any time, and states that can be read and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.layout import PIECE, Fields
from spikeport.deploy.types import Program

Int64s = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Way:
    """A way into the chip: the cores that an event reaches all at once."""

    cores: tuple[int, ...]


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
        self._rate_hz = 0.0
        self._states: dict[int, NDArray[np.int16]] | None = None
        self.t_us = 0
        self._n_synops = self._n_dropped = 0
        # One event loads the compiled loops now: who waits for a first spike gives up within 0.1 s.
        zero = np.zeros(1, np.int64)
        Emulator(self._program).stream().inject(
            {core.core: Fields(zero, zero, zero, zero) for core in program.cores}, zero
        )
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
        parts = []
        for first in range(0, max(t_us.size, 1), PIECE):
            piece = slice(first, first + PIECE)
            parts.append(self._inject(way[piece], places[piece], t_us[piece], first))
        return (
            parts[0] if len(parts) == 1 else {core: np.concatenate([one[core] for one in parts]) for core in parts[0]}
        )

    def advance(self, t_us: int) -> None:
        """Let the time pass, with the ticks of the slow clock until then."""
        if t_us > self.t_us:
            self._session.inject({}, np.array([t_us]))
            self._states, self.t_us = None, t_us

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
        self._session = Emulator(self._program, slow_clock_hz=self._rate_hz).stream()
        self._states = None
        self.t_us = 0

    def _inject(self, way: Int64s, places: Int64s, t_us: Int64s, first: int) -> dict[int, NDArray[Any]]:
        """Feed a piece; the events of its spikes count from ``first``."""
        arriving = {}
        for core in self._program.cores:
            names = [name for name, one in self._ways.items() if core.core in one.cores]
            event = np.flatnonzero(np.isin(way, names))
            if event.size:
                arriving[core.core] = Fields(event, *places[event].T)
        before = self._session.n_events
        spikes = self._session.inject(arriving, t_us)
        self._states = None
        if t_us.size:
            self.t_us = int(t_us[-1])
        counted = {}
        for core_id, array in spikes.items():
            counted[core_id] = array.copy()
            counted[core_id]["event"] += first - before
        return counted
