"""The example of the event state-space model, and its file on the command line, as a user would go on from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spikeport.models.events import Events
from spikeport.models.files import write_events

from ..invoke import spikeport  # noqa: TID252

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "08_event_ssm_online.py"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_online_example_measures_plots_and_leaves_a_model_to_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKEPORT_DATA", str(tmp_path / "nothing"))
    command = [sys.executable, str(EXAMPLE), "--events", "1024"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "events at random places stand for one" in done.stdout
    assert len(re.findall(r"online, state carried +[\d,]+ +[\d,]+", done.stdout)) == 4
    assert "dvs/small with random weights: 32,768 events, 128 decisions" in done.stdout
    assert (tmp_path / "event_ssm_random.svg").read_text().startswith("<?xml")

    rng = np.random.default_rng(0)
    columns = [rng.integers(0, limit, 1000) for limit in (128, 128, 2)]
    write_events(
        Events(columns[0], columns[1], columns[2], np.arange(1000) * 40, (128, 128)), tmp_path / "recording.npz"
    )
    model, recording = str(tmp_path / "event_ssm.safetensors"), str(tmp_path / "recording.npz")
    found = spikeport("stream", model, "--input", recording, "--every", "256", "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["n_decisions"] == 4
    refused = spikeport("stream", model, "--input", recording, "--step-us", "1000", cwd=tmp_path)
    assert refused.returncode == 2
    assert "expected no --step-us" in refused.stderr


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_toy_model_of_the_example_learns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--events", "1024", "--toy"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (share,) = re.findall(r"([\d.]+)% of 200 fresh recordings right", done.stdout)
    assert float(share) >= 95
    assert (tmp_path / "event_ssm_toy.svg").is_file()
