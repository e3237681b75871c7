"""Boards behind the vendor's driver: found, opened, loaded, fed, read and closed. The one file that imports samna."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from spikeport.models.events import Events

from .chips import Chip, chip
from .dvs import SENSOR
from .emulator import Emulator
from .errors import DeviceError, SettingError
from .live import Live
from .patience import Reader, within
from .play import Pace, Player, Streams
from .preflight import chip_of, find_samna
from .rails import PowerMeter, RailSamples
from .samna_config import configure_for, with_monitors
from .types import Program, Recording

T = TypeVar("T")

_CAPACITY = 1 << 20


@dataclasses.dataclass(frozen=True)
class Found:
    """A board that the driver sees: ``name`` opens it; ``info`` is the driver's own record."""

    name: str
    board: str
    serial: str
    firmware: str
    info: Any


def load_driver(what_for: str = "boards") -> Any:
    """Return the vendor's driver, the module ``samna``; ``what_for`` is told where it is missing.

    Raises: DeviceError where it is not there or no more than the stub of the package index, which is not imported.
    """
    problem = find_samna().problem
    if problem is not None:
        raise DeviceError(f"{what_for}: {problem}")
    import samna

    return samna


def list_boards(samna: Any) -> tuple[Found, ...]:
    """Return the boards with a chip of ours that a driver sees, numbered from 0 for each chip, by USB bus and address.

    Raises: DeviceError where the driver does not answer.
    """
    infos = within(Pace().timeout_s, "the driver: listing devices", samna.device.get_all_devices)
    ours = [(chip_of(info.device_type_name), info) for info in infos]
    known = sorted(
        ((name, info) for name, info in ours if name is not None),
        key=lambda one: (one[0], int(one[1].usb_bus_number), int(one[1].usb_device_address)),
    )
    found: list[Found] = []
    for name, info in known:
        index = sum(one.name.startswith(f"{name}:") for one in found)
        serial, firmware = (str(getattr(info, field, "")) for field in ("serial_number", "logic_version"))
        found.append(Found(f"{name}:{index}", str(info.device_type_name), serial, firmware, info))
    return tuple(found)


def open_board(name: str, samna: Any, *, prefix: str = "", pace: Pace | None = None) -> Board:
    """Return the open board called ``name``, ``speck2fdevkit:0`` for one, of a driver; its own name gets ``prefix``.

    Raises: DeviceError where it is not there, or does not open.
    """
    kind, _, index = name.partition(":")
    wanted = f"{kind}:{int(index or 0)}"
    boards = {board.name: board for board in list_boards(samna)}
    if wanted not in boards:
        there = ", ".join(prefix + board for board in boards) or "none"
        raise DeviceError(
            f"device '{prefix}{wanted}': expected a board of this name, found {there}. Try plugging it into a USB 3 "
            "port; `spikeport devices` tells what is missing."
        )
    return Board(prefix + wanted, samna, boards[wanted], pace=pace or Pace())


class Board:
    """A board behind the protocol of devices.

    A run starts from the program's initial states, which are written to the neurons and read back. With
    ``record="all"`` every core is monitored, events are played one by one, ``retime.GAP_US`` apart or more, so that
    each spike is of the event that caused it, and the states of all cores are read; else events are played in real
    time and the states of the output cores are read. Where a slow clock ticks, states of cores with a bias are left
    out: it ticks on while they are read. Synops and dropped events are not known to a board. ``played_us`` are the
    times of the first and last event of the latest run, of the stop-watch, as those of power measurements are.
    """

    def __init__(self, name: str, samna: Any, found: Found, *, pace: Pace) -> None:
        self.name, self.found, self.pace = name, found, pace
        self._samna = samna
        self._chip: Chip = chip(found.name.partition(":")[0])
        self._driver: Any = getattr(samna, self._chip.driver)
        self._program: Program | None = None
        self._applied: tuple[frozenset[int], bool] | None = None
        self._configurations: dict[tuple[frozenset[int], bool], Any] = {}
        self._rate_hz: float | None = None
        self.played_us = 0, 0
        self._graphs: list[Any] = []
        self._player: Player | None = None
        self._board: Any = self._within("opening", lambda: samna.device.open_device(found.info))
        if self._board is None:
            raise DeviceError(
                f"device '{name}': opening: expected a board, found none: another process may have it, or its firmware "
                "is older than the driver. Try closing the other process, or `spikeport devices`."
            )

    def load(self, program: Program, *, slow_clock_hz: float | None = None) -> None:
        """Validate the program's configuration, load the chip with it and start the streams; see ``Device.load``.

        The same program again, as with another clock, is not loaded twice.
        Raises: DeviceError where the board refuses the configuration or does not answer, also after a soft reset;
        InvalidProgramError where its chip cannot hold the program; SettingError for a rate that is none.
        """
        self._check_open()
        rate_hz = Emulator(program, slow_clock_hz=slow_clock_hz).rate_hz
        if program is not self._program:
            self._forget()
            self._apply(program, _monitored(program))
        self._program, self._rate_hz = program, rate_hz

    def run(self, events: Events, record: Literal["all"] | None = None) -> Recording:
        """Return what the board does with a recording; see ``Device.run`` and the class.

        Raises: DeviceError where nothing is loaded, the board is lost, or more spikes came than could be taken;
        RecordingError where the events do not fit the program, or last longer than a board's time stamps;
        SettingError for a slow clock that a board cannot make.
        """
        self._check_open()
        program = self._program
        if program is None or self._player is None:
            raise DeviceError(f"device '{self.name}' has no program to run. Try device.load(program) first.")
        tune = self._player.prepare(program, events, rate_hz=self._rate_hz, record=record)
        self._apply(program, frozenset(core.core for core in program.cores) if record else _monitored(program))
        self.played_us = int(tune.stamps_us[0]), int(tune.stamps_us[-1])
        try:
            return self._player.play(program, tune)
        except DeviceError:
            self._applied = None  # what the chip still holds of this run goes with the next configuration
            raise

    def live(
        self,
        program: Program,
        *,
        monitor: Iterable[int] = (),
        slow_clock_hz: float | None = None,
        camera: bool = False,
    ) -> Live:
        """Return the feed of a program that takes its events stretch by stretch, to be used in a ``with``.

        Monitored are the cores that the program monitors, its output cores, and those of the ids in ``monitor``. With
        ``camera`` the sensor on the chip feeds the cores. ``slow_clock_hz`` as for ``load``. One feed at a time; no
        ``run`` while it is open.
        Raises: as ``load``; SettingError for a core that the program does not have, or a program whose input is not
        that of the sensor; DeviceError for a virtual camera that has nothing to look at.
        """
        self._check_open()
        watched = _monitored(program) | frozenset(monitor)
        _check_cores(watched, program)
        if camera:
            self._check_camera(program)
        rate_hz = Emulator(program, slow_clock_hz=slow_clock_hz).rate_hz
        if program is not self._program:
            self._forget()
        self._apply(program, watched)
        self._program, self._rate_hz = program, rate_hz
        if self._player is None:
            raise DeviceError(f"device '{self.name}' is not connected. Try open_device('{self.name}') again.")
        heard = with_monitors(program, watched)

        def switch(is_on: bool) -> None:
            self._apply(program, watched, sensor=is_on, settles=False)

        return Live(self._player, heard, rate_hz=rate_hz, switch=switch if camera else None)

    def measure_power(self, rate_hz: float = 50.0) -> PowerMeter:
        """Return the running power monitor, to be used in a ``with``.

        Raises: DeviceError, SettingError.
        """
        self._check_open()
        timeout_s = self.pace.timeout_s
        return PowerMeter(self._samna, self._board, name=self.name, rate_hz=rate_hz, timeout_s=timeout_s)

    def measure_idle(self, duration_s: float = 1.0) -> RailSamples:
        """Return what the rails draw while no events come; its means are a baseline.

        Raises: DeviceError where no measurement comes.
        """
        with self.measure_power() as meter:
            return meter.wait(duration_s)

    def reset(self) -> None:
        """Reset the board by software, as the button on it does; the program has to be loaded again.

        Raises: DeviceError where it does not answer: then only the button helps.
        """
        self._check_open()
        self._forget()
        self._within("soft reset", lambda: self._board.reset_board_soft(True))

    def close(self) -> None:
        """Stop the streams and give the board back, as far as it still answers; closing twice is fine."""
        board, self._board = self._board, None
        if board is None:
            return
        steps: list[tuple[str, Callable[[], Any]]] = []
        if self._player is not None:
            steps.append(("the streams", self._player.close))
        steps += [("a graph", graph.stop) for graph in self._graphs]
        steps.append(("the board", lambda: self._samna.device.close_device(board)))
        for what, step in steps:
            with contextlib.suppress(DeviceError):  # a lost board cannot be told anything, and nothing is left to save
                self._within(f"closing {what}", step)
        self._player, self._program, self._graphs = None, None, []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _apply(
        self, program: Program, monitored: frozenset[int], *, sensor: bool = False, settles: bool = True
    ) -> None:
        """Load the chip with a program whose cores of these ids are monitored, where it is not loaded so already.

        ``sensor`` also lets the camera feed the cores, and its events be seen; they are wanted from the first one on,
        so that ``Live`` waits where it has to, and not here. Not to have it settle is for that.
        """
        if self._applied == (monitored, sensor):
            return
        configuration = self._configured(program, monitored, sensor=sensor)
        fits, message = self._within("validating", lambda: self._driver.validate_configuration(configuration))
        if not fits:
            told = " ".join(str(message).split()).rstrip(".") or "no reason"
            raise DeviceError(
                f"device '{self.name}': expected the configuration of the program to be accepted, found it refused: "
                f"{told}. Try `spikeport verify` on the emulator, and the board's reset button."
            )
        self._applied = None
        model = self._within("the chip", lambda: self._board.get_model())
        try:
            self._within("configuring", lambda: model.apply_configuration(configuration))
        except DeviceError:
            self._within("soft reset", lambda: self._board.reset_board_soft(True))
            self._within("configuring after a soft reset", lambda: model.apply_configuration(configuration))
        if settles:
            time.sleep(self.pace.settle_s)
        if self._player is None:
            self._player = self._connect(model)
        self._applied = monitored, sensor

    def _configured(self, program: Program, monitored: frozenset[int], *, sensor: bool) -> Any:
        """Return a configuration; those of a program are kept, as a large one takes as long to make as to load."""
        key = monitored, sensor
        if key not in self._configurations:
            watched = with_monitors(program, monitored)
            made = configure_for(self._chip, watched, self._driver, sensor=sensor, monitor_sensor=sensor)
            self._configurations[key] = made
        return self._configurations[key]

    def _forget(self) -> None:
        """Know of no program."""
        self._program, self._applied = None, None
        self._configurations.clear()

    def _check_camera(self, program: Program) -> None:
        """Refuse a program that is not of the sensor, and a virtual camera without a recording."""
        size = program.dvs.input_shape[1:]
        if size != SENSOR:
            raise SettingError(
                f"camera: expected a program whose input is the sensor's {SENSOR[0]}x{SENSOR[1]}, found "
                f"{size[0]}x{size[1]}. Try compiling it again with an input stage, such as --dvs "
                '"pool=2,crop=15:49:15:49".'
            )
        rack = getattr(self._samna, "virtual", None)  # which a real driver does not have
        if rack is not None:
            rack.scene.check(self.name)

    def _connect(self, model: Any) -> Player:
        """Start the streams to and from the chip."""
        series = self._chip.driver
        source_name = {"speck2e": "speck2e_event_speck2e_input_event"}.get(series, f"{series}_event_input_event")
        source = getattr(self._samna, f"BasicSourceNode_{source_name}")()
        sink = getattr(self._samna, f"BasicSinkNode_{series}_event_output_event")()
        for nodes in ([source, model.get_sink_node()], [model.get_source_node(), sink]):
            graph = self._samna.graph.EventFilterGraph()
            graph.sequential(nodes)
            self._within("starting a graph", graph.start)
            self._graphs.append(graph)
        watch = self._within("the stop-watch", lambda: self._board.get_stop_watch())
        clock = self._within("the slow clock", lambda: self._board.get_io_module())
        reader = Reader(sink, capacity=_CAPACITY, name=self.name)
        return Player(self.name, self._driver, self.pace, Streams(source, reader, watch, clock))

    def _within(self, what: str, call: Callable[[], T]) -> T:
        return within(self.pace.timeout_s, f"device '{self.name}': {what}", call)

    def _check_open(self) -> None:
        if self._board is None:
            raise DeviceError(f"device '{self.name}' is closed. Try open_device('{self.name}') again.")


def _check_cores(cores: Iterable[int], program: Program) -> None:
    known = {core.core for core in program.cores}
    unknown = sorted(set(cores) - known)
    if unknown:
        raise SettingError(
            f"monitor: expected cores of the program, {sorted(known)}, found {unknown}. Try one of them."
        )


def _monitored(program: Program) -> frozenset[int]:
    """Return the cores whose spikes a plain run needs: those that are monitored, and those that tell the class."""
    return frozenset(core.core for core in program.cores if core.monitor) | frozenset(program.outputs)
