"""A chip program on a device as a predictor: recording by recording."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import InferenceError
from spikeport.models.events import Events
from spikeport.models.predictor import MAIN, Confidence, Inputs, Response, RunOptions, check_recordings
from spikeport.models.window import OpenSteps, no_events, one_behind_other

from .artifact import program_hash
from .device import Device
from .predictors import check_classes
from .readout import count_classes, n_classes, output_states
from .types import Program


@dataclasses.dataclass(frozen=True, eq=False)
class DevicePredictor:
    """A program on an open device, recording by recording: a board, real or virtual, or the emulator as one.

    A device starts each recording, or window of a stream, from the program's initial states: it carries nothing on.
    """

    device: Device
    program: Program
    classes: tuple[str, ...] = ()
    slow_clock_hz: float | None = None
    readout: str = "spike_count"
    confidence: Confidence = "share"
    step_us: int | None = dataclasses.field(default=None, init=False)
    is_idle: bool = dataclasses.field(default=True, init=False)

    def __post_init__(self) -> None:
        check_classes(self.program)
        self.device.load(self.program, slow_clock_hz=self.slow_clock_hz)

    @property
    def name(self) -> str:
        """The device's name."""
        return f"device {self.device.name}"

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
        """No layer can be recorded."""
        return ()

    def start(self, options: RunOptions) -> DeviceRun:
        """Return a fresh run."""
        return DeviceRun(self, options)

    def fingerprint(self) -> str:
        """Return a hash of the program, the device's name, and the slow clock."""
        text = f"{program_hash(self.program)} {self.device.name} {self.slow_clock_hz}"
        return hashlib.sha256(text.encode()).hexdigest()


class DeviceRun:
    """A device at work: it gets each recording as soon as it is whole."""

    def __init__(self, predictor: DevicePredictor, options: RunOptions) -> None:
        self._predictor, self._options = predictor, options
        self._waiting: list[list[Events]] = []

    def feed(self, inputs: Inputs, until_us: int) -> Response:  # noqa: ARG002
        """Collect the events; the device gets them when the recording ends."""
        if isinstance(inputs, np.ndarray):
            raise InferenceError(
                f"{self._predictor.name}: expected recordings of events, found an array. Try Events.from_raster()."
            )
        check_recordings(inputs, self._predictor.input_shape, who=self._predictor.name)
        self._waiting = self._waiting or [[] for _ in inputs]
        for kept, events in zip(self._waiting, inputs, strict=True):
            if len(events):
                kept.append(events)
        return self._response([], np.array([len(events) for events in inputs], np.int64))

    def finish(self) -> Response:
        """Return the counts of the collected recordings, as one step."""
        whole = [(one_behind_other(parts) if parts else None) for parts in self._waiting]
        self._waiting = []
        if not any(whole):
            return self._response([], np.zeros(max(1, len(whole)), np.int64))
        return self._response(whole, np.zeros(len(whole), np.int64))

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:  # noqa: ARG002
        """Drop the collected events, as asked; a device keeps nothing else."""
        if pending:
            self._waiting = []

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the collected events."""
        steps = OpenSteps(1, who=self._predictor.name)
        empty = no_events(self._predictor.input_shape[1:])
        steps.take([(one_behind_other(parts) if parts else None) or empty for parts in self._waiting], 0)
        return steps.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned."""
        rows = sorted({int(key.split("/")[1]) for key in state if key.startswith("waiting/")})
        size: Any = self._predictor.input_shape[1:]
        columns = ("x", "y", "p", "t_us")
        kept = [tuple(state[f"waiting/{row}/{name}"] for name in columns) for row in rows]
        self._waiting = [[Events(x, y, p, t_us, size)] for x, y, p, t_us in kept]

    def _response(self, recordings: list[Events | None], n_events: NDArray[np.int64]) -> Response:
        predictor = self._predictor
        n_samples = len(recordings) or len(n_events)
        k = n_classes(predictor.program)
        counts = np.zeros((1 if recordings else 0, n_samples, k), np.int64)
        ends = np.zeros((len(counts), n_samples), np.int64)
        ties: list[NDArray[Any]] = []
        started = time.perf_counter()
        for row, events in enumerate(recordings):
            if events is None or not len(events):
                continue
            found = predictor.device.run(events.from_zero())
            counts[0, row] = count_classes(found, predictor.program)
            ends[0, row] = int(events.t_us[-1]) + 1
            if set(predictor.program.outputs) <= found.states.keys():
                ties.append(output_states(found, predictor.program))
        profile = {predictor.name: time.perf_counter() - started} if self._options.profile and recordings else {}
        return Response(
            outputs={MAIN: counts},
            ends_us=ends,
            n_events=n_events,
            tie_breaks={MAIN: np.stack(ties)} if ties and len(ties) == n_samples else {},
            profile=profile,
        )
