"""The emulator as what the live view shows: a program that runs on from stretch to stretch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import InvalidProgramError, RecordingError, SettingError
from spikeport.deploy.layout import Int64s
from spikeport.deploy.readout import classify, count_classes, n_classes
from spikeport.deploy.samna_config import with_monitors
from spikeport.deploy.session import Session
from spikeport.deploy.types import Program
from spikeport.models.events import Events

from .gauges import power_of
from .nodes import NO_SPIKES, output_spikes
from .types import CoreCounts, PowerSource, Stretch

_MOST_CLASSES = int(np.iinfo(np.int16).max)


class EmulatedState(NamedTuple):
    """A run at a moment: ``session`` is never fed."""

    session: Session
    t_us: int


class EmulatedEngine:
    """A program on the emulator, its power estimated by the power model.

    ``slow_clock_hz`` is as of ``Emulator``. Spike maps are there for every core, monitored or not.
    Law: whatever the stretches, spikes, counts and class are those of ``Emulator.run`` for all events; a silent stretch
    does nothing but let the time pass, its leak ticks are those before the next event.
    Raises: SettingError as ``Emulator``; InvalidProgramError for more classes than a label can tell.
    """

    power_source: PowerSource | None = "estimated"
    can_seek = True
    is_timed = False
    has_camera = False

    _session: Session
    _t_us: int
    _done: Int64s
    _maps: dict[int, Int64s]

    def __init__(self, program: Program, slow_clock_hz: float | None = None, name: str = "emulator") -> None:
        if n_classes(program) > _MOST_CLASSES:
            raise InvalidProgramError(
                f"program: expected at most {_MOST_CLASSES} classes to look at, found {n_classes(program)}. Try a net "
                "that ends in a Linear layer."
            )
        self.name, self.program = name, program
        self._emulator = Emulator(with_monitors(program, program.outputs), slow_clock_hz=slow_clock_hz)
        self._watched: tuple[int, ...] = ()
        self._load()
        self._begin(self._emulator.stream(), 0)

    def restart(self) -> None:
        """Go back to the initial states and time 0."""
        self._begin(self._emulator.stream(), 0)

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:  # noqa: ARG002
        """Return what happens until ``stop_us``; ``speed`` changes nothing.

        Raises: RecordingError where the sensor is not the program's, or events or end lie outside of the stretch.
        """
        started, start_us = time.perf_counter(), self._t_us
        times = (int(events.t_us[0]), int(events.t_us[-1]) + 1) if len(events) else (start_us, stop_us)
        if not start_us <= times[0] <= times[1] <= stop_us:
            raise RecordingError(
                f"stretch: expected events from {start_us} us on and before its end, found some of {times[0]} to "
                f"{times[1] - 1} us in a stretch to {stop_us} us. Try pieces of one recording in their order."
            )
        spikes = output_spikes(self._session.feed(events), self.program) if len(events) else NO_SPIKES
        self._t_us = stop_us
        done = self._session.progress()
        counts = {
            core.core: CoreCounts(*row)
            for core, row in zip(self.program.cores, (done - self._done).tolist(), strict=True)
        }
        maps = {core: self._session.spike_map(core) for core in self._watched}
        fresh = {core: map_ - self._maps[core] for core, map_ in maps.items()}
        self._done, self._maps = done, maps
        power_w = power_of(
            counts, self.program, span_us=stop_us - start_us, slow_clock_hz=self._emulator.rate_hz or 0.0
        )
        work_s = time.perf_counter() - started
        return Stretch(start_us, stop_us, events, spikes, counts, fresh, power_w, work_s=work_s)

    def watch(self, cores: Sequence[int]) -> None:
        """Have the spike maps of these cores from the next stretch on.

        Raises: SettingError for one that the program does not have.
        """
        ids = [core.core for core in self.program.cores]
        unknown = [core for core in cores if core not in ids]
        if unknown:
            raise SettingError(f"watch: expected cores of the program, {ids}, found {unknown[0]}. Try {ids[-1]}.")
        self._watched = tuple(dict.fromkeys(cores))
        self._maps = self._maps_now()

    def keep(self) -> EmulatedState:
        """Return the state of now."""
        return EmulatedState(self._session.copy(), self._t_us)

    def take_up(self, state: EmulatedState) -> None:
        """Go back to a state of ``keep``, which stays as it is."""
        self._begin(state.session.copy(), state.t_us)

    def final_class(self) -> int | None:
        """Return the class of everything since the restart; None where nothing spiked, or there is no class."""
        if not n_classes(self.program):
            return None
        recording = self._session.recording()
        return classify(recording, self.program) if count_classes(recording, self.program).any() else None

    def close(self) -> None:
        """Do nothing: there is no device to give back."""

    def _load(self) -> None:
        """Have the compiled loop loaded: half a second that no show should fall behind by."""
        origin = np.zeros(1, np.int64)
        _, height, width = self.program.dvs.input_shape
        self._emulator.stream().feed(Events(origin, origin, origin, origin, (height, width)))

    def _begin(self, session: Session, t_us: int) -> None:
        self._session, self._t_us = session, t_us
        self._done = session.progress()
        self._maps = self._maps_now()

    def _maps_now(self) -> dict[int, Int64s]:
        return {core: self._session.spike_map(core) for core in self._watched}
