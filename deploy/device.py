"""Devices that run a program: one protocol, opened by name."""

from __future__ import annotations

import dataclasses
import difflib
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from spikeport.models.events import Events

from .chips import CHIPS
from .emulator import Emulator
from .errors import DeviceError, SettingError
from .types import Program, Recording

if TYPE_CHECKING:
    from .behavior import Behavior
    from .devkit import Board

EMULATOR = "emulator"
VIRTUAL = "virtual:"
_BOARDS = tuple(chip.name for chip in CHIPS)
_MAX_VIRTUAL = 8


class Device(Protocol):
    """Something that is loaded with a program and then fed with recordings; a context manager that closes itself.

    Law: each run starts from the program's initial states.
    """

    name: str

    def load(self, program: Program, *, slow_clock_hz: float | None = None) -> None:
        """Make ``program`` the one that runs, in place of any earlier one; without a slow clock biases do nothing.

        ``slow_clock_hz`` of None is the rate that the program carries, 0 is no slow clock.

        Raises: DeviceError where the device is closed, lost, or refuses the program; SettingError where the rate is no
        positive number.
        """

    def run(self, events: Events, record: Literal["all"] | None = None) -> Recording:
        """Return what the loaded program does with ``events``; ``record="all"`` keeps the spikes of every core.

        A device that can give less, as a board does, leaves the spikes of the other cores and the states that it
        cannot read out of the recording, and never makes any up: ``verify`` compares what is there. Where it knows
        times only, the ``event`` of a spike is the last input event that is not later.

        Raises: DeviceError where nothing is loaded or the device is closed or lost, RecordingError where the events do
        not fit the program, SettingError for any other ``record``.
        """

    def close(self) -> None:
        """Give the device back; closing twice is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclasses.dataclass(frozen=True)
class DeviceName:
    """The name of a device in its parts: ``chip`` is None for the emulator, ``index`` counts boards of one chip."""

    chip: str | None
    index: int = 0
    is_virtual: bool = False


def open_device(name: str, *, behavior: Behavior | None = None) -> Device:
    """Return the open device called ``name``: the emulator, ``speck2fdevkit:0``, or ``virtual:speck2fdevkit:0``.

    Without an index it is the first board. A virtual board behaves as a real one does, in real time, with the emulator
    in place of the silicon. ``behavior`` makes the emulator that of a chip which leaves the integer specification, as
    ``run_variant``, far slower; None, or one that does not leave it, changes nothing.
    Raises: DeviceError for a name that no device has, with the nearest one, and for a board that is not there or does
    not open, with what to do about it; SettingError for a board with ``behavior``: it has its own.
    """
    parsed = parse_device(name)
    if parsed.chip is None:
        return _EmulatorDevice(behavior)
    if behavior is not None:
        raise SettingError(f"behavior: expected the emulator, found '{name}', which has its own. Try '{EMULATOR}'.")
    return _open_board(parsed)


def _open_board(name: DeviceName) -> Board:
    from .devkit import load_driver, open_board

    board = f"{name.chip}:{name.index}"
    if not name.is_virtual:
        return open_board(board, load_driver(f"device '{board}'"))
    from .play import Pace
    from .virtual import driver

    # A virtual board is ready at once and takes events whenever they come.
    pace = Pace(settle_s=0.0, lead_s=0.02, quiet_s=0.03)
    return open_board(board, driver([str(name.chip)] * (name.index + 1)), prefix=VIRTUAL, pace=pace)


def parse_device(name: str) -> DeviceName:
    """Return the parts of a device's name.

    Raises: DeviceError for a name that no device has, with the nearest one.
    """
    if name == EMULATOR:
        return DeviceName(None)
    is_virtual = name.startswith(VIRTUAL)
    board, colon, index = name.removeprefix(VIRTUAL).partition(":")
    if board in _BOARDS and (not colon or (index.isascii() and index.isdecimal() and len(index) <= len("99"))):
        number = int(index or 0)
        if not is_virtual or number < _MAX_VIRTUAL:
            return DeviceName(board, number, is_virtual)
    known = (EMULATOR, *_BOARDS, *(VIRTUAL + board for board in _BOARDS))
    near = difflib.get_close_matches(name.lower(), known, n=1)
    raise DeviceError(
        f"device '{name}': expected '{EMULATOR}', a board such as '{_BOARDS[-1]}' or '{_BOARDS[-1]}:0', or "
        f"'{VIRTUAL}{_BOARDS[-1]}': no device has this name. Try '{(near or known)[0]}'."
    )


class _EmulatorDevice:
    """The emulator behind the protocol of devices."""

    def __init__(self, behavior: Behavior | None) -> None:
        self.name = EMULATOR
        self._behavior = behavior if behavior is not None and behavior.differences() else None
        self._emulator: Emulator | None = None
        self._is_open = True

    def load(self, program: Program, *, slow_clock_hz: float | None = None) -> None:
        self._check_open()
        self._emulator = Emulator(program, slow_clock_hz=slow_clock_hz)
        # One event loads the compiled loop now, so that the first run takes no longer than any other.
        column = np.zeros(1, np.int64)
        self._emulator.run(Events(column, column, column, column, program.dvs.input_shape[1:]))

    def run(self, events: Events, record: Literal["all"] | None = None) -> Recording:
        self._check_open()
        if self._emulator is None:
            raise DeviceError(f"device '{self.name}' has no program to run. Try device.load(program) first.")
        if self._behavior is None:
            return self._emulator.run(events, record)
        from .variant import run_variant

        self._emulator.run(events.part(0, 1), record)  # which refuses what the emulator would
        rate_hz = self._emulator.rate_hz
        return run_variant(self._emulator.program, events, self._behavior, rate_hz=rate_hz, record=record)

    def close(self) -> None:
        self._is_open, self._emulator = False, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise DeviceError(f"device '{self.name}' is closed. Try open_device('{self.name}') again.")
