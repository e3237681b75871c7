"""The command line for what stands around the cores: camera, slow clock, readout block."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spikeport.convert import save_net
from spikeport.deploy import load_program
from spikeport.deploy.types import DvsConfig, ReadoutConfig
from spikeport.models.events import Events
from spikeport.models.files import write_events

from ..invoke import Done, spikeport  # noqa: TID252
from .nets import stack


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    net = stack((2, 16, 16), [{"features": 4, "pool": 2, "bias": True}, {"features": 5, "kernel": 0}])
    save_net(net, folder / "net.safetensors")
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 100_000, 3000))
    y, x, p = rng.integers(0, 40, 3000), rng.integers(0, 40, 3000), rng.integers(0, 2, 3000)
    write_events(Events(x, y, p, times, (40, 40)), folder / "camera.npz")
    return folder


def deploy(home: Path, *options: str) -> Done:
    return spikeport("deploy", "net.safetensors", *options, "--json", cwd=home)


def test_a_larger_camera_is_cropped_and_its_recordings_run(home: Path) -> None:
    stage = "sensor=40x40,pool=2,crop=2:18:2:18,mirror=x"
    assert deploy(home, "--dvs", stage, "--out", "camera.safetensors").returncode == 0
    expected = DvsConfig((2, 40, 40), pool=(2, 2), crop=((2, 18), (2, 18)), mirror=(False, True))
    assert load_program(home / "camera.safetensors").dvs == expected
    done = spikeport("run", "camera.safetensors", "--input", "camera.npz", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recordings"][0]["synops"] > 0


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ("sensor=40x40,pool=2", "input of the net, found 2x20x20 from a sensor of 40x40. Try crop=2:18:2:18"),
        ("crop=left", "--dvs: expected sensor=ROWSxCOLUMNS"),
    ],
)
def test_a_camera_that_leaves_another_map_is_refused(stage: str, text: str, home: Path) -> None:
    done = deploy(home, "--dvs", stage, "--out", "none.safetensors")
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())
    assert not (home / "none.safetensors").exists()


def test_the_program_carries_the_slow_clock_and_a_run_may_say_otherwise(home: Path) -> None:
    assert "bias without slow clock" in {
        each["rule"] for each in json.loads(deploy(home, "--dry-run").stdout)["warnings"]
    }
    done = deploy(home, "--dvs", "sensor=40x40,crop=2:18:2:18", "--slow-clock-hz", "500", "--out", "clock.safetensors")
    assert "bias without slow clock" not in {each["rule"] for each in json.loads(done.stdout)["warnings"]}
    assert load_program(home / "clock.safetensors").slow_clock_hz == 500.0
    found = []
    for options in ((), ("--slow-clock-hz", "500"), ("--slow-clock-hz", "0")):
        run = spikeport("run", "clock.safetensors", "--input", "camera.npz", *options, "--json", cwd=home)
        assert run.returncode == 0, run.stderr
        assert "do nothing" not in run.stderr
        result = json.loads(run.stdout)
        found.append((result["recordings"][0]["output_spikes"], result["power"]))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_rate_that_is_none_is_refused(home: Path) -> None:
    done = deploy(home, "--slow-clock-hz", "-5", "--dry-run")
    assert done.returncode == 2
    assert "--slow-clock-hz: expected more than 0 and at most 1000000 ticks" in " ".join(done.stderr.split())


def test_the_readout_block_is_planned_and_deployed(home: Path) -> None:
    done = spikeport("plan", "net.safetensors", "--readout", "--json", cwd=home)
    assert "readout erratum" in {each["rule"] for each in json.loads(done.stdout)["warnings"]}
    assert "--monitor readout" in done.stderr
    assert deploy(home, "--monitor", "readout", "--out", "readout.safetensors").returncode == 0
    program = load_program(home / "readout.safetensors")
    assert program.readout == ReadoutConfig(4)
    assert program.cores[-1].out_shape == (17, 1, 1)
