"""Bad input to the command line: one sentence, its exit code, and every file as it was."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from spikeport.convert import convert, save_net
from spikeport.convert.errors import NetFileError
from spikeport.deploy.cli import run_cli

from ..invoke import spawn, spikeport  # noqa: TID252
from .user import SHAPE, fill

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
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with every kind of bad file in it."""
    folder = fill(tmp_path_factory.mktemp("user"))
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


@pytest.mark.parametrize(
    "step",
    [
        ("plan", "net.safetensors", "--json"),
        ("plan", "nothing.safetensors"),
        pytest.param(("plan",), marks=pytest.mark.slow),
    ],
)
def test_a_call_in_this_process_is_what_a_process_of_its_own_gives(step: tuple[str, ...], hostile: Path) -> None:
    here, there = spikeport(*step, cwd=hostile), spawn(*step, cwd=hostile)
    assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)


def test_with_debug_the_error_itself_ends_the_command(hostile: Path) -> None:
    with pytest.raises(NetFileError, match="found nothing"):
        run_cli(["--debug", "plan", str(hostile / "nothing.safetensors")])


@pytest.mark.parametrize("line", ["out = 1", "dry-run = 'yes'", "layer-order = [1.5]", "dry_run = true", "out = ''"])
def test_a_toml_file_of_wrong_types_is_refused(line: str, hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hostile / "wrong.toml").write_text(f"[deploy]\n{line}\n")
    assert run_cli(["--config", str(hostile / "wrong.toml"), "deploy", str(hostile / "net.safetensors")]) == 2
    assert f"[deploy] {line.split()[0]}" in capsys.readouterr().err


def test_refused_layers_come_as_findings_with_json(hostile: Path) -> None:
    done = spikeport("convert", "my_net.py:maxpool", *SHAPE, "--json", cwd=hostile)
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert [found["node"] for found in error["findings"]] == ["maxpool2", "sigmoid4"]
    assert all("Try" in found["detail"] for found in error["findings"])
