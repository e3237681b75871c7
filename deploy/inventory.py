"""Which devices this machine has, and what is missing for those that do not work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from .chips import CHIPS
from .device import EMULATOR, VIRTUAL
from .errors import DeviceError
from .preflight import UsbBoard, find_samna, find_usb_boards

Kind = Literal["emulator", "virtual", "board"]


@dataclasses.dataclass(frozen=True)
class DeviceEntry:
    """A device by the name that opens it.

    ``what`` says what it is; ``serial`` and ``firmware`` are those of a board, where the driver tells them;
    ``problems`` are sentences of what keeps it from working, each with what to do.
    """

    name: str
    kind: Kind
    what: str
    serial: str = ""
    firmware: str = ""
    problems: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether nothing is known to keep it from working."""
        return not self.problems


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The devices of a machine; ``notes`` are sentences of what is missing for boards as such."""

    devices: tuple[DeviceEntry, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the inventory as plain JSON values."""
        devices = [dataclasses.asdict(one) | {"is_ready": one.is_ready} for one in self.devices]
        return {"devices": devices, "notes": list(self.notes)}


def list_devices(root: Path = Path("/")) -> Inventory:
    """Return the emulator, the virtual boards, and the boards that are plugged in.

    The driver is asked only where it is the real one and every board on the bus may be written to: without that
    permission it does not return an error, but ends the process. ``root`` is the folder that holds ``sys``, ``dev`` and
    ``etc``.
    """
    devices = [DeviceEntry(EMULATOR, "emulator", "the integer specification, exactly")]
    what = "a virtual board: the driver's interface, in real time"
    devices += [DeviceEntry(VIRTUAL + chip.name, "virtual", what) for chip in CHIPS]
    on_bus, samna = find_usb_boards(root), find_samna()
    notes = [] if samna.problem is None else [samna.problem]
    if samna.problem is None and not any(board.problems for board in on_bus):
        try:
            boards = _ask_driver()
        except DeviceError as error:
            boards, notes = _from_bus(on_bus), [*notes, str(error)]
    else:
        boards = _from_bus(on_bus, problem=samna.problem)
    if not boards:
        notes.append("No board is plugged in, as far as USB tells. Try a USB 3 port, and the board's power switch.")
    return Inventory((*devices, *boards), tuple(notes))


def _ask_driver() -> list[DeviceEntry]:
    from .devkit import list_boards, load_driver

    found = list_boards(load_driver())
    return [DeviceEntry(one.name, "board", one.board, one.serial, one.firmware) for one in found]


def _from_bus(boards: tuple[UsbBoard, ...], problem: str | None = None) -> list[DeviceEntry]:
    """Return the boards as USB shows them, numbered for each chip as the driver would."""
    entries: list[DeviceEntry] = []
    for board in boards:
        index = sum(entry.name.startswith(f"{board.chip}:") for entry in entries)
        name = f"{board.chip}:{index}" if board.chip is not None else board.board
        problems = (*board.problems, *([problem] if problem is not None else []))
        entries.append(DeviceEntry(name, "board", board.board, problems=problems))
    return entries
