"""`spikeport plan` with a net that does not fit: the numbered changes, and `--apply`, as a user calls it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from spikeport.convert.store import load_net_with_notes, save_net
from spikeport.deploy.fixes import suggest
from spikeport.deploy.plan import plan

from ..invoke import spikeport  # noqa: TID252
from .nets import digits_net, single, stack

ROWS = [{"features": 32, "kernel": 3, "padding": 1, "stride": 2}, {"features": 4, "kernel": 3, "padding": 1, "pool": 8}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a net that does not fit, one that does, and one that only training makes fit."""
    home = tmp_path_factory.mktemp("fixes")
    save_net(
        stack((2, 128, 128), [*ROWS, {"features": 5, "kernel": 0}]),
        home / "large.safetensors",
        notes={"classes": ["a"]},
    )
    save_net(digits_net(), home / "small.safetensors")
    save_net(single((2, 32, 32), 4, stride=3), home / "stride.safetensors")
    return home


def test_a_net_that_does_not_fit_gets_numbered_changes(folder: Path) -> None:
    done = spikeport("plan", "large.safetensors", cwd=folder)
    assert done.returncode == 4
    assert "Error: layer 'layer1': pool: expected 1, 2 or 4, found 8x8" in done.stderr
    fixes = suggest(load_net_with_notes(folder / "large.safetensors")[0])
    for number, fix in enumerate(fixes, 1):
        assert f"{number}. {fix.title}" in done.stdout
    assert "the same" in done.stdout
    assert "Next: spikeport plan large.safetensors" in done.stderr


def test_the_next_command_applies_the_first_change_and_the_one_after_it_deploys(folder: Path) -> None:
    done = spikeport("plan", "large.safetensors", cwd=folder)
    command = shlex.split(done.stderr.rpartition("Next: spikeport ")[2])
    applied = spikeport(*command, cwd=folder)
    assert applied.returncode == 0, applied.stderr
    net, notes = load_net_with_notes(folder / "fixed.safetensors")
    assert plan(net).fits
    assert notes["classes"] == ["a"]
    assert f"Wrote fixed.safetensors: {notes['fixed']}" in applied.stderr
    deploy = shlex.split(applied.stderr.rpartition("Next: spikeport ")[2])
    assert deploy[0] == "deploy"
    deployed = spikeport(*deploy, cwd=folder)
    assert deployed.returncode == 0, deployed.stderr


def test_json_holds_the_suggestions(folder: Path) -> None:
    done = spikeport("plan", "large.safetensors", "--json", cwd=folder)
    assert done.returncode == 4
    result = json.loads(done.stdout)
    first = result["suggestions"][0]
    assert first["is_exact"]
    assert not first["needs_retraining"]
    assert set(first["cost"]) == {"n_cores", "kernel_words", "neuron_words", "bias_words", "n_synops"}
    applied = spikeport("plan", "large.safetensors", "--apply", 1, "--out", "j.safetensors", "--json", cwd=folder)
    assert applied.returncode == 0
    assert json.loads(applied.stdout)["applied"] == 1
    assert json.loads(applied.stdout)["fixed"] == "j.safetensors"
    fits = spikeport("plan", "small.safetensors", "--json", cwd=folder)
    assert json.loads(fits.stdout)["suggestions"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("large.safetensors", "--apply", "99"), 2, "--apply: expected 1.."),
        (("large.safetensors", "--apply", "0"), 2, "--apply: expected 1.."),
        (
            ("large.safetensors", "--apply", "1", "--out", "large.safetensors"),
            2,
            "expected another file than the input",
        ),
        (("large.safetensors", "--apply", "1", "--out", "fixed.pt"), 2, "ends in .safetensors"),
        (("large.safetensors", "--out", "f.safetensors"), 2, "--out: expected --apply with it"),
        (("small.safetensors", "--apply", "1"), 2, "'small.safetensors' does. Try deploy."),
        (("stride.safetensors", "--apply", "1"), 2, "train it and convert it again."),
    ],
)
def test_what_cannot_be_applied_is_refused(arguments: tuple[str, ...], code: int, message: str, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = spikeport("plan", *arguments, cwd=folder)
    assert done.returncode == code
    assert message in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_net_that_only_training_makes_fit_has_no_command_that_applies_it(folder: Path) -> None:
    done = spikeport("plan", "stride.safetensors", cwd=folder)
    assert done.returncode == 4
    assert "to be trained" in done.stdout
    assert "Next:" not in done.stderr
