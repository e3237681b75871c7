"""Devices that run a program: one protocol, opened by name."""

from __future__ import annotations

import difflib
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np

from spikeport.models.events import Events

from .chips import CHIPS
from .emulator import Emulator
from .errors import DeviceError
from .types import Program, Recording

_EMULATOR = "emulator"
_VIRTUAL = "virtual:"
_BOARDS = tuple(chip.name for chip in CHIPS)


class Device(Protocol):
    """Something that is loaded with a program and then fed with recordings; a context manager that closes itself.

    Law: each run starts from the program's initial states.
    """

    name: str

    def load(self, program: Program, *, slow_clock_hz: float | None = None) -> None:
        """Make ``program`` the one that runs, in place of any earlier one; without a slow clock biases do nothing.

        ``slow_clock_hz`` of None is the rate that the program carries, 0 is no slow clock.

        Raises: DeviceError where the device is closed, SettingError where the rate is no positive number.
        """

    def run(self, events: Events, record: Literal["all"] | None = None) -> Recording:
        """Return what the loaded program does with ``events``; ``record="all"`` keeps the spikes of every core.

        A device that can give less, as a board does, leaves the spikes of the other cores and the states that it
        cannot read out of the recording, and never makes any up: ``verify`` compares what is there. Where it knows
        times only, the ``event`` of a spike is the last input event that is not later.

        Raises: DeviceError where nothing is loaded or the device is closed, RecordingError where the events do not
        fit the program.
        """

    def close(self) -> None:
        """Give the device back; closing twice is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_device(name: str) -> Device:
    """Return the open device called ``name``; this version opens ``"emulator"``.

    Raises: DeviceError for every other name, with what was asked for and the nearest name where it is unknown.
    """
    if name == _EMULATOR:
        return _EmulatorDevice()
    board, _, index = name.removeprefix(_VIRTUAL).partition(":")
    if board in _BOARDS and (not index or index.isdecimal()):
        kind = "a virtual board" if name.startswith(_VIRTUAL) else "a real board"
        raise DeviceError(
            f"device '{name}' is {kind}: this version opens only '{_EMULATOR}'. "
            f"Try '{_EMULATOR}', which runs the same program file exactly."
        )
    known = (_EMULATOR, *_BOARDS, *(_VIRTUAL + board for board in _BOARDS))
    near = difflib.get_close_matches(name.lower(), known, n=1)
    raise DeviceError(
        f"device '{name}': no device has this name; this version opens only '{_EMULATOR}'. Try '{(near or known)[0]}'."
    )


class _EmulatorDevice:
    """The emulator behind the protocol of devices."""

    def __init__(self) -> None:
        self.name = _EMULATOR
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
        return self._emulator.run(events, record)

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
