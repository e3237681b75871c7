"""What stands between this machine and a board, found out without the driver: its package, USB, permissions."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal

from .chips import CHIPS

SamnaState = Literal["absent", "stub", "real", "virtual"]

PLATFORMS = "Linux with glibc 2.28 or later, macOS 13.3 or later, or WSL with usbipd on Windows"
"""Where the driver runs. Source: documentation of samna 0.48."""

_FETCH = (
    f"`python -c 'import samna'`, online, which replaces the stub of the package index by the real one ({PLATFORMS})"
)

USB_IDS = {
    (0x04B4, 0x5BC7): "Speck2eTestBoard",
    (0x337D, 0x5BC8): "Speck2eDevKit",
    (0x337D, 0x5BC9): "Speck2fModuleDevKit",
    (0x337D, 0x5BCA): "Speck2fDevKit",
}
"""Vendor and product id of each board, and the driver's name of it. Source: documentation of samna 0.48."""

IN_USB2_PORT = (0x04B4, 0x00F1)
"""What a board calls itself in a USB 2 port, where it does not work. Source: as above."""

_RULES = ("etc/udev/rules.d", "run/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d")
_NATIVE = (".so", ".pyd", ".dylib")
_SUPER_SPEED_MBPS = 5000


@dataclasses.dataclass(frozen=True)
class Samna:
    """The vendor's driver as it is installed: ``stub`` is the package of the index that fetches the real one."""

    state: SamnaState
    version: str | None = None

    @property
    def problem(self) -> str | None:
        """Why no board can be opened with it, in one sentence with what to do; None where one can."""
        if self.state == "real":
            return None
        if self.state == "virtual":
            return (
                "samna is the virtual one here: real boards cannot be reached. Try a process that did not install it."
            )
        if self.state == "absent":
            return f"samna, the vendor's driver, is not installed. Try `pip install 'spikeport[board]'`, then {_FETCH}."
        return f"samna, the vendor's driver, is only there as a stub ({self.version}). Try {_FETCH}."


@dataclasses.dataclass(frozen=True)
class UsbBoard:
    """A board on the USB bus; ``chip`` is None where it does not say which one it is.

    ``problems`` are sentences of what keeps it from working, each with what to do.
    """

    chip: str | None
    board: str
    bus: int
    address: int
    problems: tuple[str, ...]


def find_samna() -> Samna:
    """Return which driver an import would give: the virtual one where it is in place, else the installed one."""
    loaded = sys.modules.get("samna")
    if loaded is not None and "virtual" in str(getattr(loaded, "__version__", "")):
        return Samna("virtual", str(loaded.__version__))
    return find_installed()


def find_installed() -> Samna:
    """Return which driver is installed, without importing it.

    The package of the index is a stub: Python text that downloads the driver when it is imported. The driver itself is
    compiled.
    """
    spec = PathFinder.find_spec("samna")
    if spec is None:
        return Samna("absent")
    try:
        version = importlib.metadata.version("samna")
    except importlib.metadata.PackageNotFoundError:
        version = None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if spec.origin is not None and Path(spec.origin).suffix in _NATIVE:
        return Samna("real", version)
    is_real = any(file.suffix in _NATIVE for place in places for file in _files_below(place))
    return Samna("real" if is_real else "stub", version)


def find_usb_boards(root: Path = Path("/")) -> tuple[UsbBoard, ...]:
    """Return the boards on the USB bus, in the order of bus and address; none where the system does not list devices.

    ``root`` is the folder that holds ``sys``, ``dev`` and ``etc``.
    """
    found = []
    for device in sorted((root / "sys/bus/usb/devices").glob("*")):
        ids = _read_hex(device / "idVendor"), _read_hex(device / "idProduct")
        if ids in USB_IDS or ids == IN_USB2_PORT:
            found.append(_describe(device, ids, root))
    return tuple(sorted(found, key=lambda board: (board.bus, board.address)))


def chip_of(board: str) -> str | None:
    """Return the name of the chip whose board the driver calls ``board``; None for cameras and other devices."""
    return next((chip.name for chip in CHIPS if chip.board == board), None)


def _describe(device: Path, ids: tuple[int | None, int | None], root: Path) -> UsbBoard:
    bus, address = _read_int(device / "busnum"), _read_int(device / "devnum")
    vendor, problems = ids[0] or 0, []
    speed = _read_int(device / "speed")
    if ids == IN_USB2_PORT or 0 < speed < _SUPER_SPEED_MBPS:
        what = "the board is in a USB 2 port, or on a USB 2 cable or hub, where it does not work"
        problems.append(f"{what}. Try a USB 3 port, with its own cable.")
    node = root / f"dev/bus/usb/{bus:03}/{address:03}"
    if not os.access(node, os.R_OK | os.W_OK):
        rule = f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor:04x}", MODE="0666"'
        known = _rule_file(vendor, root)
        if known is None:
            todo = f"Try a file /etc/udev/rules.d/60-speck.rules with the line {rule}, then plug the board in again."
        else:
            todo = f"{known} has a rule for it. Try `sudo udevadm control --reload`, then plug the board in again."
        problems.append(f"this user may not write to the board ({node}). {todo}")
    name = USB_IDS.get((vendor, ids[1] or 0), "a board in a USB 2 port")
    return UsbBoard(chip_of(name), name, bus, address, tuple(problems))


def _rule_file(vendor: int, root: Path) -> str | None:
    """Return the name of the first udev rule file that speaks of a vendor."""
    for folder in _RULES:
        for file in sorted((root / folder).glob("*.rules")):
            try:
                text = file.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if f"{vendor:04x}" in text.lower():
                return file.name
    return None


def _files_below(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.rglob("*")
    except OSError:
        return


def _read_hex(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"), 16)
    except (OSError, ValueError):
        return None


def _read_int(path: Path) -> int:
    try:
        return int(float(path.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return 0
