"""What is missing for a board, found without the driver: the stub, USB ids, ports, permissions."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spikeport.deploy import devkit, inventory, virtual
from spikeport.deploy.chips import CHIPS
from spikeport.deploy.devkit import load_driver
from spikeport.deploy.errors import DeviceError
from spikeport.deploy.inventory import list_devices
from spikeport.deploy.preflight import USB_IDS, Samna, chip_of, find_samna, find_usb_boards


def plug(root: Path, ids: str, *, bus: int = 1, address: int = 7, speed: str = "5000", allowed: bool = True) -> None:
    """Put a device into a folder that looks like that of the system."""
    device = root / f"sys/bus/usb/devices/{bus}-{address}"
    device.mkdir(parents=True)
    vendor, product = ids.split(":")
    names = ("idVendor", "idProduct", "busnum", "devnum", "speed")
    for name, value in zip(names, (vendor, product, bus, address, speed), strict=True):
        (device / name).write_text(f"{value}\n")
    node = root / f"dev/bus/usb/{bus:03}/{address:03}"
    node.parent.mkdir(parents=True, exist_ok=True)
    if allowed:
        node.touch()


def place_samna(folder: Path, *, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a package ``samna`` that must not be imported the only one there is."""
    package = folder / "samna"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the driver was imported')\n")
    if native:
        (package / "samna.cpython-311-x86_64-linux-gnu.so").touch()
    monkeypatch.setattr(sys, "path", [str(folder)])
    importlib.invalidate_caches()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.48.6")


def test_a_package_without_the_compiled_driver_is_the_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_samna(tmp_path, native=False, monkeypatch=monkeypatch)
    found = find_samna()
    assert found == Samna("stub", "0.48.6")
    assert "only there as a stub (0.48.6). Try `python -c 'import samna'`, online" in str(found.problem)
    with pytest.raises(DeviceError, match="only there as a stub") as caught:
        load_driver()
    assert caught.value.exit_code == 7
    assert "samna" not in sys.modules


def test_a_compiled_driver_is_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_samna(tmp_path, native=True, monkeypatch=monkeypatch)
    assert find_samna() == Samna("real", "0.48.6")
    assert find_samna().problem is None
    assert "samna" not in sys.modules


def test_no_package_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert find_samna() == Samna("absent")
    assert "Try `pip install 'spikeport[board]'`" in str(find_samna().problem)


def test_a_virtual_driver_is_not_taken_for_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "samna", SimpleNamespace(__version__="0.48.6+virtual"))
    assert find_samna().state == "virtual"
    assert "is the virtual one here" in str(find_samna().problem)


@pytest.mark.parametrize("ids", USB_IDS)
def test_each_board_is_known_by_its_ids(ids: tuple[int, int], tmp_path: Path) -> None:
    plug(tmp_path, f"{ids[0]:04x}:{ids[1]:04x}")
    plug(tmp_path, "1d6b:0003", address=1)
    (board,) = find_usb_boards(tmp_path)
    assert board.board == USB_IDS[ids]
    assert board.chip in {chip.name for chip in CHIPS}
    assert chip_of(board.board) == board.chip
    assert (board.bus, board.address, board.problems) == (1, 7, ())


def test_a_camera_is_no_board() -> None:
    assert chip_of("DVXplorer") is None


@pytest.mark.parametrize(("ids", "speed"), [("04b4:00f1", "480"), ("337d:5bca", "480")])
def test_a_slow_port_is_told(ids: str, speed: str, tmp_path: Path) -> None:
    plug(tmp_path, ids, speed=speed)
    (board,) = find_usb_boards(tmp_path)
    assert len(board.problems) == 1
    assert "USB 2 port" in board.problems[0]
    assert "Try a USB 3 port" in board.problems[0]


def test_a_missing_rule_and_an_unread_one_are_told_apart(tmp_path: Path) -> None:
    plug(tmp_path, "337d:5bca", allowed=False)
    (board,) = find_usb_boards(tmp_path)
    assert 'ATTR{idVendor}=="337d"' in board.problems[0]
    rules = tmp_path / "etc/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "60-other.rules").write_text('ATTR{idVendor}=="dead"\n')
    (rules / "61-speck.rules").write_text('ATTR{idVendor}=="337D", MODE="0666"\n')
    (board,) = find_usb_boards(tmp_path)
    assert "61-speck.rules has a rule for it. Try `sudo udevadm control --reload`" in board.problems[0]


def test_a_system_that_lists_no_devices_has_none(tmp_path: Path) -> None:
    assert find_usb_boards(tmp_path) == ()
    broken = tmp_path / "sys/bus/usb/devices/1-1"
    broken.mkdir(parents=True)
    (broken / "idVendor").write_text("not a number")
    assert find_usb_boards(tmp_path) == ()


def test_the_inventory_numbers_boards_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    for address in (9, 4):
        plug(tmp_path, "337d:5bca", address=address, allowed=address == 9)
    plug(tmp_path, "04b4:00f1", bus=2)
    found = list_devices(tmp_path)
    boards = [entry for entry in found.devices if entry.kind == "board"]
    assert [entry.name for entry in boards] == ["speck2fdevkit:0", "speck2fdevkit:1", "a board in a USB 2 port"]
    assert [len(entry.problems) for entry in boards] == [2, 1, 2]
    assert not any(entry.is_ready for entry in boards)
    assert [entry.name for entry in found.devices if entry.is_ready] == [
        "emulator",
        *(f"virtual:{chip.name}" for chip in CHIPS),
    ]
    assert len(found.notes) == 1
    assert found.to_dict()["devices"][0]["is_ready"] is True


def test_the_inventory_asks_the_real_driver_only_where_that_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load() -> Any:
        asked.append(1)
        if len(asked) > 1:
            raise DeviceError("the driver: listing devices: expected an answer, found none.")
        return virtual.driver(["speck2fdevkit", "speck2fdevkit"])

    monkeypatch.setattr(inventory, "find_samna", lambda: Samna("real", "0.48.6"))
    monkeypatch.setattr(devkit, "load_driver", load)
    plug(tmp_path, "337d:5bca", allowed=False)
    assert not [entry for entry in list_devices(tmp_path).devices if entry.kind == "board" and entry.is_ready]
    assert asked == []  # it would end the process
    (tmp_path / "dev/bus/usb/001/007").touch()
    boards = [entry for entry in list_devices(tmp_path).devices if entry.kind == "board"]
    assert [entry.name for entry in boards] == ["speck2fdevkit:0", "speck2fdevkit:1"]
    assert all(entry.is_ready and "virtual" in entry.serial.lower() and entry.firmware for entry in boards)
    silent = list_devices(tmp_path)
    assert [entry.name for entry in silent.devices if entry.kind == "board"] == ["speck2fdevkit:0"]
    assert "listing devices: expected an answer" in silent.notes[0]


def test_without_a_board_the_inventory_says_so(tmp_path: Path) -> None:
    assert "No board is plugged in" in list_devices(tmp_path).notes[-1]
