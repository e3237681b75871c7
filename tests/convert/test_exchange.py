"""``spikeport export``: a spiking net for other frameworks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from spikeport.convert import save_net
from spikeport.convert.errors import UnsupportedLayerError
from spikeport.convert.exchange.nir_in import load_nir
from spikeport.convert.export import export_command
from spikeport.convert.types import SpikingLayer, SpikingNet, chain
from spikeport.models.errors import TargetError


@pytest.fixture
def net() -> SpikingNet:
    layer = SpikingLayer("a", np.ones((2, 1, 3, 3)), None, (1, 1), (0, 0), 1.0, -1.0, (1, 6, 6), (2, 4, 4))
    return chain((layer,), ((1, 1), (2, 2)), (1, 6, 6))


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command("export")(export_command)
    return app


def _run(*arguments: str | Path) -> tuple[int, str, BaseException | None]:
    found = CliRunner().invoke(_app(), [str(argument) for argument in arguments])
    return found.exit_code, found.stdout, found.exception


def test_the_file_holds_the_net_and_its_notes(net: SpikingNet, tmp_path: Path) -> None:
    save_net(net, tmp_path / "net.safetensors", notes={"classes": ["a"]})
    code, out, _ = _run(tmp_path / "net.safetensors", tmp_path / "net.nir", "--json")
    assert code == 0
    assert json.loads(out)["n_bytes"] == (tmp_path / "net.nir").stat().st_size
    assert load_nir(tmp_path / "net.nir").same(net)


def test_a_dry_run_writes_nothing(net: SpikingNet, tmp_path: Path) -> None:
    save_net(net, tmp_path / "net.safetensors")
    code, out, _ = _run(tmp_path / "net.safetensors", tmp_path / "net.nir", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["nir"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_other_suffixes_and_what_nir_cannot_say_are_refused(net: SpikingNet, tmp_path: Path) -> None:
    save_net(net, tmp_path / "net.safetensors")
    _, _, cause = _run(tmp_path / "net.safetensors", tmp_path / "net.h5")
    assert isinstance(cause, TargetError)
    layer = SpikingLayer(
        "up", np.ones((2, 1, 3, 3)), None, (1, 1), (0, 0), 1.0, -1.0, (1, 6, 6), (2, 9, 9), upsample=(2, 2)
    )
    save_net(chain((layer,), ((1, 1), (1, 1)), (1, 6, 6)), tmp_path / "net.safetensors")
    _, _, cause = _run(tmp_path / "net.safetensors", tmp_path / "net.nir")
    assert isinstance(cause, UnsupportedLayerError)
    assert not (tmp_path / "net.nir").exists()
