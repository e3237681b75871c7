"""``--rounding fitted`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeport.convert.store import load_net, save_net
from spikeport.deploy.artifact import load_program
from spikeport.deploy.discretize import discretize, fitted
from spikeport.models.events import Events
from spikeport.models.files import write_events

from ..invoke import spikeport  # noqa: TID252
from .nets import stack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net = stack((2, 10, 10), [{"features": 4, "padding": 1, "pool": 2}, {"features": 3, "kernel": 0}])
    save_net(net, tmp_path / "net.safetensors")
    (tmp_path / "recordings").mkdir()
    for index in range(3):
        rng = np.random.default_rng(index)
        x, y, p = rng.integers(0, 10, 300), rng.integers(0, 10, 300), rng.integers(0, 2, 300)
        events = Events(x, y, p, np.sort(rng.integers(0, 90_000, 300)), (10, 10))
        write_events(events, tmp_path / "recordings" / f"{index}.npz")
    return tmp_path


def test_plan_shows_what_each_rounding_loses_and_hints_at_the_same_deployment(folder: Path) -> None:
    plain = spikeport("plan", "net.safetensors", cwd=folder)
    assert plain.returncode == 0, plain.stderr
    assert "Rounding to integers" in plain.stdout
    assert "--rounding" not in plain.stderr
    done = spikeport("plan", "net.safetensors", "--rounding", "fitted", "--data", "recordings", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "the vendor's formula / fitted" in done.stdout
    assert "--rounding fitted --data recordings" in done.stderr
    found = spikeport("plan", "net.safetensors", "--rounding", "fitted", "--json", cwd=folder)
    losses = json.loads(found.stdout)["discretization"]
    assert not losses["is_measured"]
    for layer in losses["layers"]:
        assert layer["fitted"]["error"] <= layer["vendor"]["error"]


def test_deploy_writes_the_fitted_integers_the_same_each_time(folder: Path) -> None:
    options = ("--rounding", "fitted", "--data", "recordings")
    for out in ("a.safetensors", "b.safetensors"):
        done = spikeport("deploy", "net.safetensors", *options, "--out", out, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert (folder / "a.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes()
    program = load_program(folder / "a.safetensors")
    assert set(program.provenance["rounding"]) == {"fitted"}
    done = spikeport("deploy", "net.safetensors", "--rounding", "fitted", "--out", "c.safetensors", cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = discretize(fitted(load_net(folder / "net.safetensors"))).layers
    for core, layer in zip(load_program(folder / "c.safetensors").cores, expected, strict=True):
        assert_array_equal(core.weight, layer.weight)


def test_data_without_a_fit_is_refused(folder: Path) -> None:
    done = spikeport("plan", "net.safetensors", "--data", "recordings", cwd=folder)
    assert done.returncode == 2
    assert "--data recordings: expected none for the vendor's rounding" in done.stderr
