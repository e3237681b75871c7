"""A board, real or virtual, as what the live view shows: fed by the show, or by its own camera."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from spikeport.deploy.device import VIRTUAL, open_device, parse_device
from spikeport.deploy.devkit import Board
from spikeport.deploy.errors import DeviceError
from spikeport.deploy.live import Answer, Live
from spikeport.deploy.patience import within
from spikeport.deploy.rails import PowerMeter
from spikeport.deploy.readout import classify, count_classes, n_classes
from spikeport.deploy.samna_events import count_spikes
from spikeport.deploy.types import Program, Recording
from spikeport.models.events import Events

from .nodes import NO_SPIKES, output_spikes
from .types import CoreCounts, OutputSpikes, PowerSource, Stretch

_POWER_HZ = 50.0
_CLOSE_S = 0.5
"""How long a board may take to be closed before that goes on without being waited for."""

_FRESH_S = 0.5
"""How long a board may stand at its start, before it starts over where it does not stand still."""


class BoardEngine:
    """A program on an open board, in real time; ``close`` closes the board too.

    What a board does not tell is None: synops, the events that a core took, and of cores that are not monitored
    everything. ``monitor`` adds cores to those that the program monitors and its outputs; each takes its share of the
    one port out of the chip, so all of them are monitored only if asked for. Events that came while the buffer was full
    are counted as dropped by the first output core, whichever core sent them; ``problem`` then says so.
    ``has_camera``: the sensor on the chip feeds the cores, and stretches hold what it saw; what it saw in a pause is
    counted as left out, though the cores had it. Watched are only cores that are ``monitored``.
    Power is the mean of what the monitor sent since the stretch before, or its latest values where it sent none.
    Law: of the same events in any stretches, counts and class are those of the emulator, as far as the chip is, where
    no slow clock ticks and nothing is dropped.
    Raises: as ``Board.live`` and ``Live.restart``; the board stays open then.
    """

    can_seek = False
    is_timed = True

    def __init__(
        self,
        board: Board,
        program: Program,
        *,
        slow_clock_hz: float | None = None,
        monitor: Literal["all"] | Iterable[int] = (),
        camera: bool = False,
    ) -> None:
        self.name, self.program, self.has_camera = board.name, program, camera
        self.power_source: PowerSource | None = "virtual" if board.name.startswith(VIRTUAL) else "measured"
        self.problem: str | None = None
        self._board = board
        cores = [core.core for core in program.cores] if monitor == "all" else [int(core) for core in monitor]
        self._live: Live = board.live(program, monitor=cores, slow_clock_hz=slow_clock_hz, camera=camera)
        told = {core.core for core in program.cores if core.monitor}
        self.monitored = frozenset((*told, *program.outputs, *cores))
        self._shapes = {core.core: core.out_shape for core in program.cores}
        self._watched: tuple[int, ...] = ()
        self._meter: PowerMeter | None = None
        self._power_w: dict[str, float] | None = None
        self._is_new = self._is_closed = False
        self.restart()
        self._meter = board.measure_power(_POWER_HZ)

    def restart(self) -> None:
        """Go back to the initial states and time 0, where the board does not stand there. Raises: DeviceError."""
        if self._is_new:
            return
        self.problem = None
        self._counts = {core: np.zeros(self._shapes[core], np.int64) for core in self.program.outputs}
        self._live.restart()
        self._is_new, self._since_s = True, time.monotonic()

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:
        """Return what happens until ``stop_us``, in real time; a ``speed`` of None is 1. See ``Live.advance``.

        Raises: as there.
        """
        started = time.perf_counter()
        self._begin()
        answer = self._live.advance(events, stop_us, speed=speed)
        for core, counts in self._counts.items():
            self._counts[core] = counts + count_spikes(answer.spikes[core], self._shapes[core])
        if answer.n_dropped:
            self.problem = (
                f"device '{self.name}': {answer.n_dropped} events came while the buffer was full, and are lost. Try "
                "fewer monitored cores, or a lower speed."
            )
        return Stretch(
            answer.start_us,
            answer.stop_us,
            events if answer.sensor is None else answer.sensor,
            _in_order(output_spikes(answer.spikes, self.program)),
            self._core_counts(answer),
            {core: count_spikes(answer.spikes[core], self._shapes[core]).sum(axis=0) for core in self._watched},
            self._measured(),
            n_left_out=answer.n_unseen,
            n_late=answer.n_late,
            work_s=time.perf_counter() - started,
        )

    def watch(self, cores: Sequence[int]) -> None:
        """Have the spike maps of these cores from the next stretch on, those left out that are not monitored."""
        self._watched = tuple(core for core in dict.fromkeys(cores) if core in self.monitored)

    def keep(self) -> Any:
        """Return None: a board cannot be taken back."""
        return None

    def take_up(self, state: Any) -> None:  # noqa: ARG002
        """Refuse: see ``keep``. Raises: DeviceError."""
        raise DeviceError(
            f"device '{self.name}': expected no state to be taken up by a board, found one. Try restart()."
        )

    def final_class(self) -> int | None:
        """Return the class of everything since the restart; None where nothing spiked, or there is no class.

        States decide where counts are equal, as in a run, unless a camera changes them all the time.
        Raises: DeviceError.
        """
        nothing: dict[int, int] = {}
        recording = Recording({}, {}, nothing, nothing, nothing, nothing, self._counts, wall_s=0.0)
        counts = count_classes(recording, self.program) if n_classes(self.program) else np.zeros(1, np.int64)
        if not counts.any():
            return None
        if (counts == counts.max()).sum() > 1 and not self.has_camera:
            recording = dataclasses.replace(recording, states=self._live.states())
        return classify(recording, self.program)

    def interrupt(self) -> None:
        """Have a restart that is under way in another thread fail at once, because ``close`` follows."""
        self._live.interrupt()

    def close(self) -> None:
        """Stop the board and give it back, as far as it still answers; closing twice is fine.

        One that does not answer soon is waited for no longer: a thread goes on closing it as long as there is one.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self.interrupt()
        with contextlib.suppress(DeviceError):
            within(_CLOSE_S, f"device '{self.name}': closing", self._close)

    def _begin(self) -> None:
        """Start over where a clock ticked, or the camera saw something, while nobody played yet."""
        is_new, self._is_new = self._is_new, False
        has_drifted = self.has_camera or self._live.rate_hz is not None
        if is_new and has_drifted and time.monotonic() - self._since_s > _FRESH_S:
            self._live.restart()

    def _close(self) -> None:
        if self._meter is not None:
            with contextlib.suppress(DeviceError):
                self._meter.close()
        self._live.close()
        self._board.close()

    def _core_counts(self, answer: Answer) -> dict[int, CoreCounts]:
        first = next(iter(self.program.outputs), None)
        return {
            core.core: CoreCounts(
                None,
                len(answer.spikes[core.core]) if core.core in answer.spikes else None,
                None,
                answer.n_dropped if core.core == first else None,
            )
            for core in self.program.cores
        }

    def _measured(self) -> dict[str, float] | None:
        if self._meter is not None:
            fresh = {rail: watts for rail, watts in self._meter.take().mean_w().items() if watts is not None}
            if fresh:
                self._power_w = (self._power_w or {}) | fresh
        return self._power_w


def open_board_engine(
    name: str,
    program: Program,
    *,
    slow_clock_hz: float | None = None,
    monitor: Literal["all"] | Iterable[int] = (),
    camera: bool = False,
) -> BoardEngine:
    """Return the engine of a board by its name, ``virtual:speck2fdevkit`` or ``speck2fdevkit:0``; it owns the board.

    Raises: as ``open_device`` and ``BoardEngine``; DeviceError for the emulator, which is no board and has no camera.
    """
    if parse_device(name).chip is None:
        wanted = "a board with a camera" if camera else "a board"
        raise DeviceError(
            f"device '{name}': expected {wanted}, found the emulator. Try --device speck2fdevkit:0, or --device "
            "virtual:speck2fdevkit, whose camera looks at the recording that SPIKEPORT_CAMERA names."
        )
    board = open_device(name)
    try:
        if not isinstance(board, Board):
            raise DeviceError(f"device '{name}': expected a board, found {type(board).__name__}. Try another device.")
        return BoardEngine(board, program, slow_clock_hz=slow_clock_hz, monitor=monitor, camera=camera)
    except BaseException:
        board.close()
        raise


def _in_order(spikes: OutputSpikes) -> OutputSpikes:
    """Return spikes in order of time: those of several cores come in the order of what caused them."""
    if not len(spikes.t_us):
        return NO_SPIKES
    order = np.argsort(spikes.t_us, kind="stable")
    return OutputSpikes(spikes.t_us[order], spikes.label[order])
