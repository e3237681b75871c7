"""``spikeport convert`` with everything it takes: sources, replacements, searches, reports."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikeport.convert import load_net, save_nir

from ..invoke import Done, spawn, spikeport  # noqa: TID252

NETS = """
import torch
from torch import nn
import torch.nn.functional as F

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.last = nn.Linear(4 * 17 * 17, 10, bias=False)
    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.avg_pool2d(torch.relu(self.body(x) + x), 2)
        return self.last(x.flatten(1))

def residual():
    torch.manual_seed(0)
    return Residual()

def pooled():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4), nn.Softmax(1))

class Two(nn.Module):
    def forward(self, a, b):
        return a + b

def two():
    return Two()
"""


Start = Callable[..., Done]
a_process = pytest.param(spawn, marks=[pytest.mark.slow, pytest.mark.timeout(300)])
in_both_ways = pytest.mark.parametrize("start", [spikeport, a_process])


def result(folder: Path, *arguments: str, start: Start = spikeport) -> dict[str, Any]:
    done = start(*arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "frames.npz", frames=rng.poisson(0.5, (12, 2, 34, 34)).astype(np.float32))
    np.savez(tmp_path / "small.npz", frames=rng.poisson(1.0, (20, 1, 8, 8)).astype(np.float32))
    return tmp_path


@in_both_ways
def test_a_net_with_branches_converts_plans_and_exports(folder: Path, start: Start) -> None:
    shape = ("--input-shape", "2,34,34")
    found = result(folder, "convert", "nets.py:residual", *shape, "--data", "frames.npz", "--scale", "mse", start=start)
    assert {finding["status"] for finding in found["findings"]} <= {"converted", "folded", "passed through"}
    assert [gate["step"] for gate in found["gates"]][-1] == "activations to spike counts"
    assert all(gate["max_error"] < 1e-4 for gate in found["gates"])
    assert spikeport("plan", "net.safetensors", cwd=folder).returncode in (0, 4)
    result(folder, "export", "net.safetensors", "net.nir", start=start)
    again = result(folder, "convert", "net.nir", "--out", "again.safetensors")
    assert again["n_layers"] == found["n_layers"]
    assert load_net(folder / "again.safetensors").same(load_net(folder / "net.safetensors"))


def test_layers_that_cannot_spike_are_refused_with_the_replacement_and_replaced_when_asked(folder: Path) -> None:
    call = ("convert", "nets.py:pooled", "--input-shape", "1,8,8", "--data", "small.npz")
    refused = spikeport(*call, cwd=folder)
    assert refused.returncode == 3
    assert "maxpool=avgpool" in refused.stderr
    assert "softmax=identity" in refused.stderr
    assert not (folder / "net.safetensors").exists()
    half = spikeport(*call, "--replace", "maxpool=avgpool", cwd=folder)
    assert half.returncode == 3
    assert "Softmax" in half.stderr
    found = result(folder, *call, "--replace", "maxpool=avgpool,softmax=identity")
    assert [finding["status"] for finding in found["findings"]].count("replaced") == 2
    assert 0 <= found["replacement"]["argmax_agreement"] <= 1
    shown = spikeport(*call, "--replace", "maxpool=avgpool,softmax=identity", cwd=folder)
    assert "the same class as before on" in shown.stdout
    wrong = spikeport(*call, "--replace", "maxpool=magic", cwd=folder)
    assert wrong.returncode == 2
    assert "maxpool=avgpool" in wrong.stderr


@in_both_ways
def test_onnx_and_pt2_files_give_the_net_of_the_module(folder: Path, start: Start) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(27, 4)
    ).eval()
    pytest.importorskip("onnx")
    with warnings.catch_warnings():  # torch's exporter that needs no further package says that it is the old one
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1, 1, 8, 8),), folder / "net.onnx", dynamo=False)
    program = torch.export.export(module, (torch.zeros(2, 1, 8, 8),))
    torch.export.save(program, folder / "net.pt2")
    hashes = set()
    for source in ("net.onnx", "net.pt2"):
        found = result(folder, "convert", source, "--data", "small.npz", "--out", f"{source}.safetensors", start=start)
        net = load_net(folder / f"{source}.safetensors")
        hashes.add(tuple(layer.weight.tobytes() for layer in net.layers))
        assert found["n_layers"] == 2
    assert len(hashes) == 1


def test_diagnosis_and_report_of_a_conversion(folder: Path) -> None:
    call = ("convert", "nets.py:residual", "--input-shape", "2,34,34", "--data", "frames.npz", "--v-min", "none")
    found = result(folder, *call, "--diagnose", "--report", "page.html")
    assert len(found["diagnosis"]["layers"]) == 3
    page = (folder / "page.html").read_text()
    assert "<svg" in page
    assert "stem" in page
    dry = spikeport(*call, "--report", "dry.html", "--out", "dry.safetensors", "--dry-run", cwd=folder)
    assert dry.returncode == 0
    assert not (folder / "dry.html").exists()
    assert not (folder / "dry.safetensors").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_auto_searches_within_a_budget_and_prints_what_it_tried(folder: Path) -> None:
    trained = spawn("train", "digits", "--epochs", "4", "--out", "weights.safetensors", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    call = ("convert", "digits", "--weights", "weights.safetensors", "--data", "digits", "--scale", "auto")
    found = result(folder, *call, "--budget", "3000000", start=spawn)
    search = found["search"]
    assert search["best"]["synops_per_sample"] <= 3_000_000
    assert len(search["trials"]) > 10
    assert search["best"]["name"] in {trial["name"] for trial in search["trials"]}
    on_chip = result(folder, *call, "--objective", "chip")
    assert on_chip["search"]["best"]["accuracy"] > 0.3


_POOLED = ("--input-shape", "1,8,8", "--replace", "maxpool=avgpool,softmax=identity")

BAD = {
    "auto without data": (("convert", "digits", "--scale", "auto"), 2, "expected calibration data"),
    "auto without labels": (
        ("convert", "nets.py:residual", "--input-shape", "2,34,34", "--data", "frames.npz", "--scale", "auto"),
        2,
        "classes are known",
    ),
    "budget without auto": (("convert", "digits", "--budget", "5"), 2, "--scale auto"),
    "unknown rule": (("convert", "digits", "--scale", "best"), 2, "expected one of percentile"),
    "diagnosis without data": (("convert", "digits", "--diagnose"), 2, "--diagnose"),
    "two inputs": (("convert", "nets.py:two", "--input-shape", "1,8,8"), 3, "one input, found 2"),
    "pickled module": (("convert", "some.pt"), 6, "some.pt"),
    "no such onnx": (("convert", "none.onnx"), 6, "none.onnx"),
    "no such nir": (("convert", "none.nir"), 6, "none.nir"),
    "damaged onnx": (("convert", "bad.onnx"), 6, "bad.onnx"),
    "damaged nir": (("convert", "bad.nir"), 6, "bad.nir"),
    "damaged pt2": (("convert", "bad.pt2"), 6, "bad.pt2"),
    "wrong shape": (
        ("convert", "nets.py:residual", "--input-shape", "2,34,34", "--data", "small.npz"),
        6,
        "expected frames",
    ),
    **{
        what: (("convert", "nets.py:pooled", *_POOLED, "--data", f"{what}.npz"), 6, text)
        for what, text in (
            ("zeros", "every frame is zero"),
            ("nan", "found NaN"),
            ("one", "2 samples or more, found 1"),
        )
    },
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_nothing_is_written(folder: Path, name: str) -> None:
    for suffix in ("onnx", "nir", "pt2"):
        (folder / f"bad.{suffix}").write_bytes(b"\x89HDF\r\n\x1a\nPK\x03\x04" * 9)
    torch.save(torch.nn.ReLU(), folder / "some.pt")
    for what, frames in (("zeros", np.zeros(4)), ("nan", np.full(4, np.nan)), ("one", np.ones(1))):
        np.savez(folder / f"{what}.npz", frames=np.broadcast_to(frames.reshape(-1, 1, 1, 1), (len(frames), 1, 8, 8)))
    before = sorted(path.name for path in folder.iterdir())
    arguments, code, text = BAD[name]
    done = spikeport(*arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_a_saved_nir_file_of_ours_converts_without_options(folder: Path) -> None:
    found = result(folder, "convert", "digits", "--out", "digits.safetensors")
    net = load_net(folder / "digits.safetensors")
    save_nir(net, folder / "digits.nir")
    again = result(folder, "convert", "digits.nir", "--out", "again.safetensors")
    assert again["sha256"] == found["sha256"]
