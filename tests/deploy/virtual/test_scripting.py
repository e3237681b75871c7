"""``spikeport run-script``: a user's script on virtual boards, as the user starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikeport.deploy.preflight import Samna

from ...invoke import spawn, spikeport  # noqa: TID252

SCRIPT = """
import sys
import samna
print(__name__, sys.argv[1:], sys.path[0], samna.__version__)
print([str(info.device_type_name) for info in samna.device.get_all_devices()])
import beside
if "--fail" in sys.argv:
    sys.exit(5)
if "--raise" in sys.argv:
    samna.device.open_device("Speck3")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "script.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    path.with_name("beside.py").write_text("print('beside')\n")
    return path


def test_a_script_runs_on_the_boards_that_it_is_given(script: Path, tmp_path: Path) -> None:
    done = spawn(
        "run-script", "--virtual", "speck2edevkit,speck2fdevkit", script, "--debug", "3", "-x", "", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"__main__ ['--debug', '3', '-x', ''] {script.parent.resolve()} ")
    assert "virtual" in first
    assert second == "['Speck2eDevKit (virtual)', 'Speck2fDevKit (virtual)']"
    assert third == "beside"
    assert "Virtual boards: speck2edevkit, speck2fdevkit." in done.stderr


def test_how_a_script_ends_is_how_the_command_ends(script: Path, tmp_path: Path) -> None:
    assert spikeport("run-script", script, "--fail", cwd=tmp_path).returncode == 5
    assert spikeport("run-script", script, "--raise", cwd=tmp_path).returncode == 1


def test_scripts_and_boards_that_are_not_there_are_refused(script: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["missing.py"], "does not exist"),
        (["--virtual", "speck2f", script], "Try 'speck2"),
        (["--virtual", "speck2fdevkit,,", script], "--virtual: expected names of chips"),
    ):
        done = spikeport("run-script", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_real_driver_is_not_replaced(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeport.deploy.preflight.find_installed", lambda: Samna("real"))
    done = spikeport("run-script", script, cwd=tmp_path)
    assert done.returncode == 7
    assert "the real samna is installed" in done.stderr
