"""A chip program on the emulator as a predictor: event by event, with states that go on from piece to piece."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.power import estimate_power
from spikeport.convert.profiles import PowerProfile
from spikeport.models.errors import InferenceError
from spikeport.models.events import Events
from spikeport.models.predictor import MAIN, Confidence, Inputs, Response, RunOptions, check_recordings
from spikeport.models.window import OpenSteps, no_events

from .artifact import program_hash, save_program
from .compare import count_traffic
from .emulator import Emulator
from .errors import InvalidProgramError
from .readout import classes_of, n_classes, output_states
from .session import Session
from .types import Program, Recording

_CLOCK = "clock/"


@dataclasses.dataclass(frozen=True, eq=False)
class ProgramPredictor:
    """A chip program on the emulator: each event is finished before the next; outputs are counted in steps.

    ``step_us`` only says how finely output spikes are told apart in time.
    Law: equal, bit for bit, whatever batches and pieces the input comes in; counts are those of ``Emulator.run``.
    Raises: InvalidProgramError where the program has no classes.
    """

    program: Program
    step_us: int = 1000
    classes: tuple[str, ...] = ()
    slow_clock_hz: float | None = None
    power: str | PowerProfile = "speck2f"
    name: str = "chip program"
    readout: str = "spike_count"
    confidence: Confidence = "share"
    is_idle: bool = dataclasses.field(default=True, init=False)

    def __post_init__(self) -> None:
        check_classes(self.program)
        if self.step_us < 1:
            raise InferenceError(f"step_us: expected at least 1 microsecond, found {self.step_us}. Try 1000.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(channels, height, width)`` of the sensor."""
        return self.program.dvs.input_shape

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """The classes."""
        return {MAIN: (n_classes(self.program),)}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the cores' layers."""
        return tuple(core.name for core in self.program.cores)

    def start(self, options: RunOptions) -> ProgramRun:
        """Return a fresh run."""
        return ProgramRun(self, options)

    def fingerprint(self) -> str:
        """Return a hash of the program and the settings."""
        text = f"{program_hash(self.program)} {self.step_us} {self.slow_clock_hz} {self.power!r}"
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the program, with step and class names in its provenance, to one file.

        Law: ``open_predictor(path)`` answers the same.
        """
        notes: dict[str, Any] = {**self.program.provenance, "step_us": self.step_us}
        if self.classes:
            notes["classes"] = list(self.classes)
        rate = self.program.slow_clock_hz if self.slow_clock_hz is None else self.slow_clock_hz
        save_program(dataclasses.replace(self.program, provenance=notes, slow_clock_hz=rate or None), path)

    def energy_j(self, response: Response, lengths_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the estimated energy of each sample: lowest, middle, highest.

        Shapes: ``[B, 3]``.
        Units: joules, over the length of each sample.
        """
        rate = (self.program.slow_clock_hz if self.slow_clock_hz is None else self.slow_clock_hz) or 0.0
        bands = []
        for row, length_us in enumerate(lengths_us.tolist()):
            of = {core.core: core.name for core in self.program.cores}
            recording = Recording(
                spikes={},
                states={},
                synops={core: int(response.synops[name][row]) for core, name in of.items()},
                n_spikes={core: int(response.spikes[name][row]) for core, name in of.items()},
                n_events=dict.fromkeys(of, 0),
                n_dropped=dict.fromkeys(of, 0),
                counts={core.core: np.zeros(core.out_shape, np.int64) for core in self.program.cores},
                wall_s=0.0,
            )
            report = count_traffic(self.program, [recording], window_s=length_us * 1e-6)
            edges = tuple(
                dataclasses.replace(edge, n_routed=int(response.spikes[edge.source][row])) if edge.source else edge
                for edge in report.edges
            )
            whole = dataclasses.replace(report, edges=edges, n_input_events=int(response.n_events[row]))
            power = estimate_power(whole, self.power, slow_clock_hz=rate)
            bands.append([power.low_w, power.mid_w, power.high_w])
        return np.asarray(bands, np.float64) * (lengths_us[:, None] * 1e-6)


class ProgramRun:
    """A program at work on several streams: one session of the emulator for each."""

    def __init__(self, predictor: ProgramPredictor, options: RunOptions) -> None:
        self._predictor, self._options = predictor, options
        program = predictor.program
        kept = {core.core for core in program.cores if core.name in options.record} | set(program.outputs)
        cores = tuple(dataclasses.replace(core, monitor=core.core in kept) for core in program.cores)
        self._program = dataclasses.replace(program, cores=cores)
        self._emulator = Emulator(self._program, slow_clock_hz=predictor.slow_clock_hz)
        self._steps = OpenSteps(predictor.step_us, who=predictor.name)
        self._streams: list[_Stream] = []

    def feed(self, inputs: Inputs, until_us: int) -> Response:
        """Return the steps that ended."""
        predictor = self._predictor
        if isinstance(inputs, np.ndarray):
            raise InferenceError(
                f"{predictor.name}: expected recordings of events, which a chip takes, found an array of shape "
                f"{list(inputs.shape)}. Try Events.from_raster(raster, dt_us)."
            )
        check_recordings(inputs, predictor.input_shape, who=predictor.name)
        started = time.perf_counter()
        first = self._steps.n_done
        taken, n_steps = self._steps.take(inputs, until_us)
        n_samples = len(taken)
        while len(self._streams) < n_samples:
            self._streams.append(self._fresh(first * predictor.step_us))
        streams = self._streams[:n_samples]
        before = [one.counts() for one in streams]
        outputs = np.zeros((n_steps, n_samples, n_classes(self._program)), np.int64)
        recorded = {
            core.name: np.zeros((n_steps, n_samples, *core.out_shape), np.int32)
            for core in self._program.cores
            if core.name in self._options.record
        }
        for row, (stream, events) in enumerate(zip(streams, taken, strict=True)):
            spikes = stream.feed(events)
            self._count(spikes, stream.origin_us, outputs[:, row], first)
            for core in self._program.cores:
                if core.name in recorded:
                    found = spikes[core.core]
                    step = (found["t_us"] + stream.origin_us) // predictor.step_us - first
                    np.add.at(recorded[core.name][:, row], (step, found["feature"], found["y"], found["x"]), 1)
        after = [one.counts() for one in streams]
        ran = time.perf_counter()
        states = [output_states(one.recording(), self._program) for one in streams]
        cores = self._program.cores
        return Response(
            outputs={MAIN: outputs},
            ends_us=self._steps.ends_us(n_steps, n_samples),
            n_events=np.array([len(events) for events in inputs], np.int64),
            tie_breaks={MAIN: np.stack(states)},
            spikes={c.name: np.array([b[c.core][0] - a[c.core][0] for a, b in _pairs(before, after)]) for c in cores},
            synops={c.name: np.array([b[c.core][1] - a[c.core][1] for a, b in _pairs(before, after)]) for c in cores},
            recorded=recorded,
            profile=self._profile(ran - started, time.perf_counter() - ran),
        )

    def finish(self) -> Response:
        """Return the open step; none where no event waits."""
        shape = self._predictor.input_shape
        empty = [no_events(shape[1:])] * max(1, self._steps.n_waiting)
        n_steps = 1 if self._steps.is_waiting else 0
        return self.feed(empty, (self._steps.n_done + n_steps) * self._predictor.step_us)

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:
        """Set the clock to 0, the states to those that the program starts with, and drop waiting events, as asked."""
        self._steps.reset(time=time, pending=pending)
        if state:
            self._streams = []
        elif time:
            self._streams = [self._continued(one.states(), 0) for one in self._streams]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the states ``[B, F, H, W]`` by layer, the clock, and what waits."""
        kept = {f"{_CLOCK}{name}": array for name, array in self._steps.state().items()}
        if self._streams:
            states = [one.states() for one in self._streams]
            kept |= {core.name: np.stack([one[core.core] for one in states]) for core in self._program.cores}
            kept[f"{_CLOCK}last_us"] = np.array([one.last_us for one in self._streams], np.int64)
        return kept

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned.

        Raises: InferenceError where it is of another program.
        """
        clock = {key.removeprefix(_CLOCK): array for key, array in state.items() if key.startswith(_CLOCK)}
        self._steps.restore(clock)
        self._streams = []
        for row, last_us in enumerate(clock.get("last_us", np.zeros(0, np.int64)).tolist()):
            states = {}
            for core in self._program.cores:
                maps = state.get(core.name)
                if maps is None or maps.shape[1:] != core.out_shape:
                    raise InferenceError(
                        f"state: core {core.core} ('{core.name}'): expected states of {core.out_shape}, found "
                        f"{None if maps is None else maps.shape[1:]}. Try the state of this very program."
                    )
                states[core.core] = maps[row]
            self._streams.append(self._continued(states, last_us))

    def _count(
        self, spikes: Mapping[int, NDArray[Any]], origin_us: int, outputs: NDArray[np.int64], first: int
    ) -> None:
        """Add the spikes that leave the chip to ``outputs`` ``[T, classes]``."""
        for core in self._program.cores:
            for end in core.destinations:
                if end.core is not None:
                    continue
                found = classes_of(spikes[core.core], end, self._program)
                steps = (spikes[core.core]["t_us"] + origin_us) // self._predictor.step_us - first
                inside = found >= 0
                index = steps[inside] * outputs.shape[1] + found[inside]
                outputs += np.bincount(index, minlength=outputs.size).reshape(outputs.shape)

    def _period_us(self) -> int:
        rate = self._emulator.rate_hz
        return 0 if rate is None else max(1, round(1e6 / rate))

    def _fresh(self, now_us: int) -> _Stream:
        """Return a stream from the program's own states; leak ticks before ``now_us`` are none of its own."""
        period = self._period_us()
        origin = now_us // period * period if period else 0
        return _Stream(self._emulator.stream(), origin, now_us)

    def _continued(self, states: Mapping[int, NDArray[Any]], last_us: int) -> _Stream:
        """Return a stream that goes on from ``states`` at ``last_us``; all leak ticks until then have come."""
        cores = tuple(dataclasses.replace(core, initial_state=states[core.core]) for core in self._program.cores)
        emulator = Emulator(
            dataclasses.replace(self._program, cores=cores), slow_clock_hz=self._predictor.slow_clock_hz
        )
        period = self._period_us()
        return _Stream(emulator.stream(), last_us // period * period if period else 0, last_us)

    def _profile(self, emulated_s: float, read_s: float) -> dict[str, float]:
        return {"emulator": emulated_s, "states": read_s} if self._options.profile else {}


class _Stream:
    """A session whose clock starts at ``origin_us`` of the run: a multiple of the leak period."""

    def __init__(self, session: Session, origin_us: int, last_us: int) -> None:
        self._session, self.origin_us, self.last_us = session, origin_us, last_us

    def feed(self, events: Events) -> dict[int, NDArray[Any]]:
        """Return the spikes of recorded cores, at times of the session's clock."""
        moved = events
        if self.origin_us:
            moved = Events(events.x, events.y, events.p, events.t_us - self.origin_us, events.sensor_size)
        if len(events):
            self.last_us = int(events.t_us[-1])
        return self._session.feed(moved)

    def recording(self) -> Recording:
        """Return states and counts of now."""
        return self._session.recording()

    def states(self) -> Mapping[int, NDArray[np.int16]]:
        """Return the states of now, by core."""
        return self._session.recording().states

    def counts(self) -> dict[int, tuple[int, int]]:
        """Return spikes and synops so far, by core."""
        found = self._session.recording()
        return {core: (found.n_spikes[core], found.synops[core]) for core in found.n_spikes}


def _pairs(before: list[Any], after: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(before, after, strict=True))


def check_classes(program: Program) -> None:
    """Check that spikes which leave the chip are classes.

    Raises: InvalidProgramError otherwise.
    """
    if not n_classes(program):
        raise InvalidProgramError(
            "program: expected spikes that leave the chip from maps of one size, found none or several sizes: there "
            "are no classes to predict. Try one destination with core None, behind the last core."
        )
