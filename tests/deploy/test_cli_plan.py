"""``spikeport plan`` as a user sees it: formulas, the picture of the cores, a page, objectives."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spikeport.convert import save_net
from spikeport.deploy import load_program

from ..invoke import NO_COLOR, spikeport  # noqa: TID252
from .misfits import MISFITS
from .nets import branch_net, digits_net

CROWD = next(misfit for misfit in MISFITS if misfit.name == "four layers for cores 0 to 2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("plans")
    save_net(digits_net(), home / "net.safetensors")
    save_net(branch_net(), home / "branches.safetensors")
    save_net(CROWD.build(), home / "crowd.safetensors")
    return home


def test_a_plan_shows_each_memory_with_its_formula_and_every_core(folder: Path) -> None:
    done = spikeport("plan", "branches.safetensors", cwd=folder)
    assert done.returncode == 0, done.stderr
    for words in ("Fits speck2fdevkit", "10 x P(3 x 3) x P(5)", "= 1,280 of 16,384", "450 useful", "0-8"):
        assert words in done.stdout
    assert all(f"core {core}" in done.stdout for core in range(9))
    assert "to core 7, pool 2," in done.stdout


def test_a_plan_in_a_terminal_without_unicode_is_drawn_in_ascii(folder: Path) -> None:
    command = [sys.executable, "-m", "spikeport.deploy", "plan", "crowd.safetensors"]
    env = os.environ | NO_COLOR | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "+- core 0 (input) " in done.stdout
    assert "kernel #.........  <1%" in done.stdout
    assert "Without a core: layer3." in done.stdout


def test_a_plan_is_written_as_a_page_whether_the_net_fits_or_not(folder: Path) -> None:
    for name, code, words in (
        ("net", 0, "It fits speck2fdevkit"),
        ("crowd", 4, "It does not fit speck2fdevkit: 1 problem."),
    ):
        done = spikeport("plan", f"{name}.safetensors", "--report", f"{name}.html", cwd=folder)
        assert done.returncode == code
        assert f"Wrote {name}.html." in done.stderr
        page = (folder / f"{name}.html").read_text()
        assert page.count('<section id="plan">') == page.count('<svg class="chip"') == 1
        assert words in page
        assert "None" not in page
        assert len(page) < 200_000
    assert "Without a core: layer3" in page
    assert "do not fit together" in page


def test_a_plan_as_json_has_the_same_numbers_in_the_report(folder: Path) -> None:
    done = spikeport("plan", "crowd.safetensors", "--json", "--report", "plan.json", cwd=folder)
    told = json.loads(done.stdout)
    kept = json.loads((folder / "plan.json").read_text())["plan"]
    assert kept.items() <= told.items()
    assert [row["candidates"] for row in kept["cores"]] == [[0, 1, 2]] * 4
    assert told["conflicts"] == [{"layers": [f"layer{index}" for index in range(4)], "cores": [0, 1, 2]}]


def test_an_objective_leads_from_the_plan_to_the_program(folder: Path) -> None:
    done = spikeport("plan", "net.safetensors", "--objective", "fast", "--json", cwd=folder)
    planned = json.loads(done.stdout)
    assert "--objective fast" in done.stderr
    assert planned["objective"] == "fast"
    done = spikeport("deploy", "net.safetensors", "--objective", "fast", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    program = load_program(folder / "program.safetensors")
    assert [core.core for core in program.cores] == [row["core"] for row in planned["cores"]]
    assert {0, 1} < {core.core for core in program.cores}


def test_a_suggestion_keeps_the_objective_up_to_the_program(folder: Path) -> None:
    done = spikeport("plan", "crowd.safetensors", "--objective", "fast", cwd=folder)
    again = shlex.split(done.stderr.rpartition("Next: spikeport ")[2])
    assert done.returncode == 4
    assert again[again.index("--objective") + 1] == "fast"
    applied = spikeport(*again, "--json", cwd=folder)
    assert applied.returncode == 0, applied.stderr
    told = json.loads(applied.stdout)["suggestions"][0]["cores"]
    deploy = shlex.split(applied.stderr.rpartition("Next: spikeport ")[2])
    assert deploy[deploy.index("--objective") + 1] == "fast"
    assert spikeport(*deploy, cwd=folder).returncode == 0
    assert [core.core for core in load_program(folder / "program.safetensors").cores] == told


def test_the_command_of_the_page_makes_the_page_again(folder: Path) -> None:
    options = ("--layer-order", "3,4,5,6,7", "--objective", "compact", "--rounding", "fitted")
    done = spikeport("plan", "net.safetensors", *options, "--report", "again.json", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    command = json.loads((folder / "again.json").read_text())["command"]
    repeated = spikeport(*shlex.split(command)[1:], "--json", cwd=folder)
    assert repeated.stdout == done.stdout
    spikeport("plan", "net.safetensors", "--readout", "--report", "readout.json", cwd=folder)
    assert json.loads((folder / "readout.json").read_text())["command"].endswith(" --readout")


@pytest.mark.parametrize("rate", ["-5", "nan"])
def test_a_rate_that_is_none_is_told_both_ends(folder: Path, rate: str) -> None:
    done = spikeport("deploy", "net.safetensors", "--slow-clock-hz", rate, cwd=folder)
    assert done.returncode == 2
    found = " ".join(done.stderr.split())
    assert (
        f"expected more than 0 and at most 1000000 ticks per second, or 0 for no slow clock, found {float(rate)}"
        in found
    )


def test_an_objective_that_is_none_and_a_page_of_another_kind_are_refused(folder: Path) -> None:
    done = spikeport("plan", "net.safetensors", "--objective", "small", cwd=folder)
    assert done.returncode == 2
    assert "reproducible" in done.stderr
    done = spikeport("plan", "net.safetensors", "--report", "plan.pdf", cwd=folder)
    assert done.returncode == 2
    assert ".html" in done.stderr
    assert not (folder / "plan.pdf").exists()
