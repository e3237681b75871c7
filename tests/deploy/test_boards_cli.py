"""The commands around boards, as a user calls them, on the virtual board."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from spikeport.convert import save_net
from spikeport.deploy import compile_program, load_program, save_program
from spikeport.deploy.behavior import Behavior, read_behavior, write_behavior
from spikeport.models import write_events

from ..invoke import spawn, spikeport  # noqa: TID252
from .nets import digits_net, gesture_net, random_chain
from .programs import random_events

VIRTUAL = "virtual:speck2edevkit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a net, its program, and a recording."""
    where = tmp_path_factory.mktemp("boards")
    net = random_chain(np.random.default_rng(3))
    save_net(net, where / "net.safetensors")
    program = compile_program(net)
    program = dataclasses.replace(program, golden=tuple(program.golden)[:1])  # played in real time
    save_program(program, where / "program.safetensors")
    write_events(random_events(np.random.default_rng(0), program.dvs.input_shape, 60), where / "events.npz")
    return where


def test_devices_lists_what_there_is_and_what_is_missing(tmp_path: Path) -> None:
    done = spikeport("devices", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("emulator", "virtual:speck2fdevkit", "virtual:speck2e"):
        assert name in done.stdout
    told = json.loads(spikeport("devices", "--json", cwd=tmp_path).stdout)
    assert [one["name"] for one in told["devices"] if one["is_ready"]][:2] == ["emulator", "virtual:speck2e"]
    assert all(note in done.stderr for note in told["notes"])
    assert "Next: spikeport selfcheck --device " in done.stderr


def test_deploy_loads_the_board_that_it_names(folder: Path) -> None:
    arguments = ("deploy", "net.safetensors", "--out", "loaded.safetensors")
    done = spikeport(*arguments, "--device", VIRTUAL, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"Loaded {VIRTUAL}: it took the program." in done.stderr
    assert f"Next: spikeport verify loaded.safetensors --device {VIRTUAL}" in done.stderr
    assert load_program(folder / "loaded.safetensors").chip == "speck2edevkit"
    chosen = spikeport(*arguments, "--device", VIRTUAL, "--chip", "speck2e", cwd=folder)
    assert chosen.returncode == 0, chosen.stderr
    assert load_program(folder / "loaded.safetensors").chip == "speck2e"


def test_verify_and_run_on_a_board_agree_with_the_emulator(folder: Path) -> None:
    verified = spikeport("verify", "program.safetensors", "--device", VIRTUAL, "--json", cwd=folder)
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["device"] == VIRTUAL
    runs = {}
    for device in ("emulator", VIRTUAL):
        arguments = ("run", "program.safetensors", "--input", "events.npz", "--device", device, "--json")
        done = spikeport(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        runs[device] = json.loads(done.stdout)
    for key in ("class", "output_spikes", "n_events"):
        assert runs["emulator"]["recordings"][0][key] == runs[VIRTUAL]["recordings"][0][key]
    assert runs[VIRTUAL]["synops"] is runs[VIRTUAL]["power"] is runs[VIRTUAL]["rails"] is None


def test_run_measures_the_rails_of_a_board(folder: Path) -> None:
    arguments = ("run", "program.safetensors", "--input", "events.npz", "--device", VIRTUAL, "--power", "--json")
    done = spikeport(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    rails = json.loads(done.stdout)["rails"]
    assert list(rails["mean_w"]) == ["io", "ram", "logic", "pixel digital", "pixel analog"]
    assert all(n > 0 for n in rails["n_samples"].values())
    assert all(watts > 0 for watts in rails["baseline_w"].values())
    assert rails["n_dropped"] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--device", VIRTUAL, "--report", "r.html"], 2, "--report: expected the emulator"),
        (["--power"], 2, "--power: expected a board"),
        (["--device", "virtual:speck9"], 7, "no device has this name"),
        (["--device", "speck2fdevkit:7"], 7, "device|samna, the vendor's driver"),
    ],
)
def test_what_a_device_cannot_give_is_refused_first(options: list[str], code: int, message: str, folder: Path) -> None:
    done = spikeport("run", "program.safetensors", "--input", "events.npz", *options, cwd=folder)
    assert done.returncode == code
    assert any(part in done.stderr for part in message.split("|"))
    assert not (folder / "r.html").exists()


def test_selfcheck_writes_what_it_found(tmp_path: Path) -> None:
    done = spikeport("selfcheck", "--out", "behavior.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "What becomes of a sum beyond 16 bits?" in done.stdout
    assert read_behavior(tmp_path / "behavior.json") == Behavior()
    some = spikeport("selfcheck", "--probe", "tick, overflow", "--device", VIRTUAL, "--json", cwd=tmp_path)
    assert some.returncode == 0, some.stderr
    assert [one["name"] for one in json.loads(some.stdout)["answers"]] == ["overflow", "tick"]
    assert spikeport("selfcheck", "--probe", "colour", cwd=tmp_path).returncode == 2
    assert spikeport("selfcheck", "--out", "behavior.txt", cwd=tmp_path).returncode == 2


def test_run_emulates_the_chip_of_a_behavior_file(folder: Path) -> None:
    write_behavior(Behavior(), folder / "same.json")
    write_behavior(Behavior(visit_order="-y -x -feature"), folder / "other.json")
    arguments = ("run", "program.safetensors", "--input", "events.npz", "--json")
    runs = [spikeport(*arguments, *more, cwd=folder) for more in ([], ["--behavior", "same.json"])]
    answers = [json.loads(done.stdout)["recordings"][0] | {"wall_s": 0} for done in runs]
    assert answers[0] == answers[1]
    other = spikeport(*arguments, "--behavior", "other.json", cwd=folder)
    assert other.returncode == 0, other.stderr
    refused = spikeport(*arguments, "--behavior", "events.npz", cwd=folder)
    assert refused.returncode == 6
    assert "events.npz: expected a behavior file" in refused.stderr


def test_a_process_of_its_own_ends_with_the_board(folder: Path) -> None:
    done = spawn("verify", "program.safetensors", "--device", VIRTUAL, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"Golden vectors on {VIRTUAL}: as expected" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whole_nets_and_all_probes_on_the_virtual_board(tmp_path: Path) -> None:
    for net in (digits_net(), gesture_net()):
        save_program(compile_program(net), tmp_path / "program.safetensors")
        done = spikeport("verify", "program.safetensors", "--device", VIRTUAL, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert spikeport("selfcheck", "--device", VIRTUAL, cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_the_rails_are_shown_as_a_table(folder: Path) -> None:
    done = spikeport("run", "program.safetensors", "-i", "events.npz", "--device", VIRTUAL, "--power", cwd=folder)
    assert done.returncode == 0, done.stderr
    for word in ("At rest in mW", "io", "ram", "logic", "pixel digital", "pixel analog"):
        assert word in done.stdout
