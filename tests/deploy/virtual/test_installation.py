"""Putting the driver in place, taking it out, and leaving a real one alone; nothing else imports one."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest

from spikeport.deploy.errors import ChipNameError, DeviceError
from spikeport.deploy.preflight import find_installed
from spikeport.deploy.virtual import install, installed, uninstall
from spikeport.deploy.virtual.modules import submodules, viewer

GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("samna", "samnagui") or name.startswith("sinabs.backend.dynapcnn"):
            raise AssertionError(f"imported {name}")
sys.meta_path.insert(0, Guard())
"""


def test_a_driver_is_in_place_while_it_is_installed() -> None:
    with installed(["speck2edevkit"]) as module:
        found = importlib.import_module("samna")
        assert found is module
        assert (
            importlib.import_module("samna.speck2f.configuration").SpeckConfiguration
            is module.speck2f.configuration.SpeckConfiguration
        )
        assert importlib.import_module("samna.specksim.nodes") is module.specksim.nodes
        assert "virtual" in importlib.import_module("samnagui").__version__
        assert importlib.util.find_spec("samna") is not None
        assert [info.device_type_name for info in module.device.get_all_devices()] == ["Speck2eDevKit"]
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("samna.dynapse1")
    assert not [name for name in sys.modules if name.partition(".")[0] in ("samna", "samnagui")]
    uninstall()


def test_a_second_driver_takes_the_place_of_the_first() -> None:
    first = install(["speck2fdevkit"])
    board = first.device.open_device("Speck2fDevKit")
    second = install(["speck2fdevkit"])
    try:
        assert sys.modules["samna"] is second is not first
        with pytest.raises(DeviceError, match="driver was taken out"):
            board.get_model()
        second.device.open_device("Speck2fDevKit")
    finally:
        uninstall()


def test_a_driver_that_cannot_be_made_leaves_the_first_one_in_place() -> None:
    with installed() as first:
        with pytest.raises(ChipNameError):
            install(["speck9"])
        assert sys.modules["samna"] is first


def test_what_stands_under_the_name_already_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = types.ModuleType("samna")
    monkeypatch.setitem(sys.modules, "samna", foreign)
    with pytest.raises(DeviceError, match="samna has been imported already"):
        install()
    uninstall()
    assert sys.modules["samna"] is foreign


def test_the_stub_of_the_index_is_told_from_a_driver_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert find_installed().state == "absent"
    package = tmp_path / "samna"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('downloads')\n")
    importlib.invalidate_caches()
    assert find_installed().state == "stub"
    (package / "_samna.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    assert find_installed().state == "real"
    with pytest.raises(DeviceError, match="the real samna is installed, and is not replaced"):
        install()
    assert "samna" not in sys.modules


def test_a_driver_that_is_a_single_compiled_file_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "samna.so").write_bytes(b"")
    importlib.invalidate_caches()
    assert find_installed().state == "real"


def test_modules_of_a_viewer() -> None:
    assert set(submodules(viewer())) == {"samnagui"}


@pytest.mark.parametrize(
    "code",
    [
        "import spikeport.deploy\nfrom spikeport.deploy.virtual import driver; driver(['speck2fdevkit'])",
        "from spikeport.deploy.cli import run_cli; run_cli(['plan', '--help']); run_cli(['run-script', '--help'])",
    ],
)
def test_nothing_imports_a_driver_or_the_vendors_back_end(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{GUARD}\n{code}"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
