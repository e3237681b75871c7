"""The virtual boards of one driver: discovery, opening and closing, and the faults that a test may cause."""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikeport.deploy.chips import Chip, chip

from .board import Board, DeviceSinkNode, DeviceSourceNode
from .camera import Camera, Scene
from .engine import QUEUE_EVENTS, Engine
from .errors import VirtualBoardError
from .fields import Integer, Struct, Text
from .locks import BoardLock, lock_folder

MARK = " (virtual)"

_LOST = "lost: it was unplugged. Try plugging it in and opening it again"


class VirtualName(str):
    """A name that compares and hashes as the real one, and prints with a mark."""

    __slots__ = ()

    def __str__(self) -> str:
        return str.__str__(self) + MARK

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class _Name(Text):
    def _shown(self, kept: Any) -> Any:
        return VirtualName(kept)


class DeviceInfo(Struct):
    """What is known of a board that is not open."""

    __slots__ = ()
    _kind = "device::DeviceInfo"
    serial_number = Text("")
    usb_bus_number = Integer(0, 0, 255)
    usb_device_address = Integer(0, 0, 255)
    logic_version = Integer(0, 0, 2**32 - 1)
    device_type_name = _Name("")


@dataclasses.dataclass(eq=False)
class _Slot:
    """A place of the rack: ``name`` is the type and the number among its like."""

    name: str
    chip: Chip
    info: DeviceInfo
    lock: BoardLock
    board: Board | None = None
    is_plugged: bool = True


_numbers = itertools.count()
_racks: weakref.WeakSet[Rack] = weakref.WeakSet()


class Rack:
    """Virtual boards of the given chips, by the names of ``chips.CHIPS``; a name may come more than once.

    ``events`` gives the event classes by driver, ``nodes`` the classes of a driver's device nodes, ``power`` the class
    of power measurements; ``scene`` is what the cameras look at.
    Raises: ChipNameError for an unknown chip, VirtualBoardError for none at all.
    """

    def __init__(
        self, devices: Sequence[str], *, events: Any, nodes: Any, power: type, n_queue: int | None, scene: Scene
    ) -> None:
        if isinstance(devices, str) or not devices:
            raise VirtualBoardError(
                f"virtual board: expected a list of chips, found {devices!r}. Try ['speck2fdevkit']."
            )
        self._events, self._nodes, self._power, self.scene = events, nodes, power, scene
        self._n_queue = QUEUE_EVENTS if n_queue is None else n_queue
        self.number = next(_numbers)
        folder: Path = lock_folder()
        counts: dict[str, int] = {}
        self._slots: list[_Slot] = []
        for position, device in enumerate(devices):
            table = chip(device)
            index = counts[device] = counts.get(device, -1) + 1
            name = f"{device}:{index}"
            info = DeviceInfo(f"VIRTUAL-{device}-{index}", 250, position + 1, 1, table.board)
            self._slots.append(_Slot(name, table, info, BoardLock(name, folder)))
        _racks.add(self)

    def all(self) -> list[DeviceInfo]:
        """Return the boards that are plugged in, also those that another process has open."""
        return [slot.info.copied() for slot in self._slots if slot.is_plugged]

    def unopened(self) -> list[DeviceInfo]:
        """Return the boards that nobody has open."""
        return [
            slot.info.copied() for slot in self._slots if slot.is_plugged and slot.board is None and slot.lock.is_free
        ]

    def opened(self) -> list[DeviceInfo]:
        """Return the boards that are open here."""
        return [slot.info.copied() for slot in self._slots if slot.board is not None]

    def open(self, device: DeviceInfo | str, default_config: object = None) -> Board:  # noqa: ARG002
        """Return the open board of an info, of ``NAME:INDEX``, or the next free one called ``NAME``.

        A board that is open here already is returned again, but not for a name without an index.
        Raises: VirtualBoardError where there is none, or another process has it.
        """
        if isinstance(device, DeviceInfo):
            found = [slot for slot in self._slots if slot.info.serial_number == device.serial_number]
            asked = device.serial_number
        elif isinstance(device, str):
            asked = str.__str__(device).replace(MARK, "")
            kind, _, index = asked.partition(":")
            found = [slot for slot in self._slots if slot.info.device_type_name == kind]
            if index:
                found = found[int(index) : int(index) + 1] if index.isdecimal() else []
            else:
                found = [slot for slot in found if slot.board is None] or found[:0]
        else:
            raise TypeError(f"virtual samna: open_device: expected a DeviceInfo or a name, found {device!r:.60}.")
        lost = [slot.name for slot in found if not slot.is_plugged]
        if lost and len(lost) == len(found):
            raise VirtualBoardError(f"virtual board {lost[0]}: {_LOST}.")
        found = [slot for slot in found if slot.is_plugged]
        if not found:
            names = ", ".join(f"{slot.info.device_type_name!s}" for slot in self._slots if slot.is_plugged) or "none"
            raise VirtualBoardError(
                f"virtual samna: open_device: no board '{asked}' is there and free; plugged in: {names}. "
                "Try one of get_unopened_devices()."
            )
        return self._opened(found[0])

    def _opened(self, slot: _Slot) -> Board:
        if slot.board is None:
            slot.lock.take()
            driver = slot.chip.driver
            source_kind, sink_kind = self._nodes[driver]
            source: DeviceSourceNode = source_kind()
            name, camera = f"virtual:{slot.name}", Camera(self.scene)
            engine = Engine(name, self._events[driver], source.forward, n_queue=self._n_queue, camera=camera)
            sink: DeviceSinkNode = sink_kind(engine)
            kind = type(slot.chip.board, (Board,), {"__doc__": Board.__doc__})
            slot.board = kind(engine, (source, sink), driver, self._power)
        return slot.board

    def close(self, board: Board) -> None:
        """Close a board; its handles are of no use afterwards.

        Raises: TypeError for what is no board; VirtualBoardError where it is closed already.
        """
        if not isinstance(board, Board):
            raise TypeError(f"virtual samna: close_device: expected an open board, found {board!r:.60}.")
        slot = next((slot for slot in self._slots if slot.board is board), None)
        if slot is None:
            board.engine.check()
            raise VirtualBoardError("virtual samna: close_device: the board belongs to another driver.")
        self._end(slot, "closed. Try samna.device.open_device again")

    def _end(self, slot: _Slot, why: str) -> None:
        if slot.board is not None:
            slot.board.engine.end(why)
            slot.board = None
        slot.lock.release()

    def close_all(self) -> None:
        """Close every board."""
        for slot in self._slots:
            self._end(slot, "closed, because its driver was taken out. Try install again")

    # faults

    def unplug(self, device: Board | str) -> None:
        """Pull the plug of a board, given by its handle or as ``speck2fdevkit:0``."""
        slot = self._slot(device)
        slot.is_plugged = False
        self._end(slot, _LOST)

    def plug_in(self, device: str) -> None:
        """Plug a board in again; it has to be opened again."""
        self._slot(device).is_plugged = True

    def hang(self, device: Board | str) -> None:
        """Let a board answer nothing until ``reset_board_soft``."""
        slot = self._slot(device)
        if slot.board is None:
            raise VirtualBoardError(f"virtual board {slot.name}: not open, so it cannot hang. Try opening it.")
        slot.board.engine.hang()

    def _slot(self, device: Board | str) -> _Slot:
        name = device if isinstance(device, str) and ":" in device else f"{device}:0"
        for slot in self._slots:
            if slot.board is device or slot.name == name:
                return slot
        known = ", ".join(slot.name for slot in self._slots)
        raise VirtualBoardError(f"virtual board: expected one of {known}, found {device!r}. Try {self._slots[0].name}.")


def unplug(device: Board | str) -> None:
    """Pull the plug of a board, given by its handle, or as ``speck2fdevkit:0`` of the newest driver that has it."""
    _rack_of(device).unplug(device)


def plug_in(device: str) -> None:
    """Plug in a board, as ``speck2fdevkit:0``, that was unplugged; it has to be opened again."""
    _rack_of(device).plug_in(device)


def hang(device: Board | str) -> None:
    """Let an open board answer nothing until ``reset_board_soft``; given as for ``unplug``."""
    _rack_of(device).hang(device)


def _rack_of(device: Board | str) -> Rack:
    found = None
    for rack in sorted(_racks, key=lambda rack: rack.number):
        try:
            rack._slot(device)
        except VirtualBoardError:
            continue
        found = rack
    if found is None:
        raise VirtualBoardError(f"virtual board: expected one that a driver has, found {device!r}. Try install first.")
    return found


@atexit.register
def _close_all() -> None:
    for rack in tuple(_racks):
        rack.close_all()
