"""The command ``finetune`` as a user runs it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from spikeport.convert import Edge, SpikingNet, load_net, save_net
from spikeport.convert.errors import ConvertError
from spikeport.convert.finetune_cli import finetune_command
from spikeport.convert.store import load_net_with_notes
from spikeport.models import EventDataset
from spikeport.models.errors import ModelsError

from .test_finetune import make_net, make_recordings

app = typer.Typer()
app.command()(finetune_command)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a net; the data set ``digits`` is a small one of bars."""
    recordings, labels = make_recordings(24)
    small = EventDataset(tuple(recordings), labels, ("lies", "stands"), "bars", "made here")
    monkeypatch.setattr("spikeport.models.data.open_dataset", lambda spec, **_: small if spec == "digits" else None)
    save_net(make_net(), tmp_path / "net.safetensors", notes={"classes": ["lies", "stands"]})
    return tmp_path


def call(folder: Path, *arguments: str, data: str = "digits") -> Any:
    before = torch.get_num_threads()
    net, out = str(folder / "net.safetensors"), str(folder / "tuned.safetensors")
    try:
        return CliRunner().invoke(app, [net, "--data", data, "--out", out, "--epochs", "2", *arguments])
    finally:
        torch.set_num_threads(before)


def test_it_writes_the_net_with_its_notes_and_prints_what_happened(folder: Path) -> None:
    done = call(folder, "--json", "--dt-ms", "20")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert len(result["history"]) == 2
    assert result["best_epoch"] == 2
    assert result["n_train"] + result["n_validation"] == 24
    tuned, notes = load_net_with_notes(folder / "tuned.safetensors")
    assert not tuned.same(make_net())
    assert notes["classes"] == ["lies", "stands"]
    assert notes["finetune"]["epochs"] == 2
    assert "spikeport deploy" in done.stderr


def test_equal_seeds_write_equal_bytes(folder: Path) -> None:
    files = []
    for seed in ("3", "3", "4"):
        assert call(folder, "--seed", seed).exit_code == 0
        files.append((folder / "tuned.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_people_see_a_table(folder: Path) -> None:
    done = call(folder, "--synops", "0.95", "--dt-ms", "20")
    assert done.exit_code == 0, done.output
    assert "Held-out accuracy" in done.stdout
    assert "Target:" in done.stdout


def test_a_dry_run_checks_everything_and_writes_nothing(folder: Path) -> None:
    done = call(folder, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n_recordings"] == 24
    assert not (folder / "tuned.safetensors").exists()


def unlabelled() -> EventDataset:
    recordings, _ = make_recordings(6)
    return EventDataset(tuple(recordings), np.full(6, -1), (), "bars", "made here")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--dt-ms", "nan"), "--dt-ms: expected"),
        (("--synops", "nan"), "synop_target nan"),
        (("--synops", "-1"), "synop_target -1"),
        (("--learning-rate", "2"), "learning_rate 2"),
        (("--out", "net.txt"), "ends in .safetensors"),
    ],
)
def test_bad_options_are_named(folder: Path, arguments: tuple[str, ...], match: str, dry: tuple[str, ...]) -> None:
    done = call(folder, *arguments, *dry)
    assert isinstance(done.exception, (ConvertError, ModelsError))
    assert match in str(done.exception)
    assert done.exception.exit_code == 2
    assert not (folder / "tuned.safetensors").exists()


def test_bad_data_and_nets_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeport.models.data.open_dataset", lambda *_, **__: unlabelled())
    done = call(folder, "--dry-run")
    assert "expected a label for each recording, found 6 without" in str(done.exception)
    layer = make_net().layers[0]
    other = SpikingNet((layer,), (Edge(-1, 0), Edge(0, None)), (2, 8, 8))
    monkeypatch.setattr("spikeport.models.data.open_dataset", lambda *_, **__: rotated())
    save_net(other, folder / "net.safetensors")
    done = call(folder, "--dry-run")
    assert "expected a sensor of 8x8" in str(done.exception)
    data = bytearray((folder / "net.safetensors").read_bytes())
    data[-4 * 4 :] = np.full(4, np.nan, np.float32).tobytes()
    (folder / "net.safetensors").write_bytes(data)
    done = call(folder)
    assert isinstance(done.exception, ConvertError)
    assert done.exception.exit_code == 6
    assert not (folder / "tuned.safetensors").exists()


def rotated() -> EventDataset:
    recordings, labels = make_recordings(6)
    wide = tuple(dataclasses.replace(events, sensor_size=(8, 9)) for events in recordings)
    return EventDataset(wide, labels, ("lies", "stands"), "bars", "made here")


def test_the_written_net_loads(folder: Path) -> None:
    assert call(folder).exit_code == 0
    assert load_net(folder / "tuned.safetensors").input_shape == (2, 8, 8)
