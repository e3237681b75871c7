"""Exported networks: computed as they were, read as data, and refused by name where they are damaged or hostile."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spikeport.models import exported
from spikeport.models.errors import NetworkFileError
from spikeport.models.exported import load_exported

MODEL = "net/models/model.json"
WEIGHTS = "net/data/weights/model_weights_config.json"


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of an exported network."""
    path = tmp_path_factory.mktemp("whole") / "net.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own use of what it deprecates
        torch.export.save(torch.export.export(module(), (torch.rand(1, 2, 4, 4),)), path)
    return path.read_bytes()


def changed(whole: bytes, member: str, change: Callable[[Any], Any]) -> bytes:
    """Return an archive with one member changed: as JSON, or as bytes where ``change`` takes them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == member:
                content = json.dumps(change(json.loads(content))).encode() if "json" in member else change(content)
            if content is not None:
                new.writestr(entry.filename, content)
    return stream.getvalue()


def test_an_exported_network_computes_what_it_did_for_any_batch(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(whole)
    network, input_shape = load_exported(tmp_path / "net.pt2")
    assert input_shape == (2, 4, 4)
    for dtype in (torch.float32, torch.float64):
        batch = torch.randn(5, 2, 4, 4, dtype=dtype)
        torch.testing.assert_close(network.to(dtype)(batch), module().to(dtype)(batch))


def _nodes(model: dict[str, Any]) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = model["graph_module"]["graph"]["nodes"]
    return nodes


def _with_node(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(model: dict[str, Any]) -> dict[str, Any]:
        _nodes(model)[0].update(changes)
        return model

    return change


def _with_weight(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(config: dict[str, Any]) -> dict[str, Any]:
        entry = config["config"]["0.weight"]
        entry.update({name: value for name, value in changes.items() if name in entry})
        entry["tensor_meta"].update({name: value for name, value in changes.items() if name in entry["tensor_meta"]})
        return config

    return change


def _huge(model: dict[str, Any]) -> dict[str, Any]:
    size = {"name": "size", "arg": {"as_ints": [1 << 20, 1 << 20]}, "kind": 1}
    number = {"name": "fill_value", "arg": {"as_float": 1.0}, "kind": 1}
    node = {"target": "torch.ops.aten.full.default", "inputs": [size, number], "metadata": {}}
    _nodes(model).append({**node, "outputs": [{"as_tensor": {"name": "huge"}}]})
    return model


def _second_input(model: dict[str, Any]) -> dict[str, Any]:
    specs = model["graph_module"]["signature"]["input_specs"]
    specs.append(specs[-1])
    return model


def _mutation(model: dict[str, Any]) -> dict[str, Any]:
    change = {"buffer_mutation": {"arg": {"name": "x"}, "buffer_name": "1.running_mean"}}
    model["graph_module"]["signature"]["output_specs"].append(change)
    return model


HOSTILE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "an operator that reads files": (
        MODEL,
        _with_node(target="torch.ops.aten.from_file.default"),
        "the operator 'torch.ops.aten.from_file.default' is not read",
    ),
    "memory that was not written": (MODEL, _with_node(target="torch.ops.aten.empty.memory_format"), "is not read"),
    "another library": (MODEL, _with_node(target="torch.ops.mine.run.default"), "expected operators of torch.ops.aten"),
    "Python": (MODEL, _with_node(target="os.system"), "expected operators of torch.ops.aten, found 'os.system'"),
    "an attribute": (MODEL, _with_node(target="torch.ops.aten.__class__.__base__"), "expected operators of torch.ops"),
    "a higher order": (MODEL, _with_node(target="torch.ops.higher_order.cond"), "expected operators of torch.ops.aten"),
    "an input that is not there": (
        MODEL,
        _with_node(inputs=[{"name": "self", "arg": {"as_tensor": {"name": "nothing"}}, "kind": 1}]),
        "found a damaged one",
    ),
    "an argument of no known kind": (
        MODEL,
        _with_node(inputs=[{"name": "self", "arg": {"as_graph": {"name": "g"}}, "kind": 1}]),
        "an argument of kind 'as_graph'",
    ),
    "too few arguments": (MODEL, _with_node(inputs=[]), "found a damaged one"),
    "a result beyond reason": (MODEL, _huge, "'huge' has 1099511627776 values, expected at most"),
    "two inputs": (MODEL, _second_input, "one input and one output, found 2 inputs, 1 outputs"),
    "a change of a buffer": (MODEL, _mutation, "found 1 inputs, 2 outputs, a buffer_mutation"),
    "another version": (MODEL, lambda model: {**model, "schema_version": {"major": 99}}, "version 8 of .*, found 99"),
    "no graph": (MODEL, lambda model: {"schema_version": model["schema_version"]}, "found a damaged one .KeyError"),
    "a list": (MODEL, lambda _model: [1], "found a damaged one"),
    "a pickled weight": (WEIGHTS, _with_weight(use_pickle=True), "'0.weight' is held as a pickle, which is refused"),
    "a longer weight": (WEIGHTS, _with_weight(sizes=[{"as_int": 9999}] * 4), "'0.weight' reaches beyond its numbers"),
    "a negative stride": (WEIGHTS, _with_weight(strides=[{"as_int": -1}] * 4), "'0.weight' reaches beyond"),
    "an offset": (WEIGHTS, _with_weight(storage_offset={"as_int": 5}), "'0.weight' reaches beyond"),
    "a weight of no type": (WEIGHTS, _with_weight(dtype=77), "found a damaged one"),
    "a weight of another shape": (
        WEIGHTS,
        _with_weight(sizes=[{"as_int": 3}] * 3, strides=[{"as_int": 1}] * 3),
        "damaged",
    ),
    "a weight elsewhere": (WEIGHTS, _with_weight(path_name="../../../secret"), "found a damaged one"),
    "fewer numbers": ("net/data/weights/weight_0", lambda content: content[:-8], "'0.weight' reaches beyond"),
    "no numbers": ("net/data/weights/weight_0", lambda _content: b"", "found a damaged one"),
    "another format": ("net/archive_format", lambda _content: b"pte", "found another zip"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_damaged_contents_are_refused_in_one_sentence(name: str, whole: bytes, tmp_path: Path) -> None:
    member, change, words = HOSTILE[name]
    (tmp_path / "net.pt2").write_bytes(changed(whole, member, change))
    with pytest.raises(NetworkFileError, match=words) as caught:
        load_exported(tmp_path / "net.pt2")
    said = str(caught.value)
    assert said.startswith("net.pt2: ")
    assert "\n" not in said
    assert "Try " in said
    assert str(tmp_path) not in said
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.pt2", None, "expected an exported network there, found nothing"),
        ("folder.pt2", None, "found a folder"),
        ("empty.pt2", b"", "damaged or foreign file"),
        ("text.pt2", b"hello", "damaged or foreign file"),
    ],
)
def test_files_that_are_none(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NetworkFileError, match=f"^{name}: .*{words}"):
        load_exported(tmp_path / name)


def test_a_cut_file_is_refused(whole: bytes, tmp_path: Path) -> None:
    for size in (10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net.pt2").write_bytes(whole[:size])
        with pytest.raises(NetworkFileError, match="damaged or foreign"):
            load_exported(tmp_path / "net.pt2")


def test_a_file_may_not_be_larger_than_the_limit(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pt2").write_bytes(whole)
    monkeypatch.setattr(exported, "MAX_BYTES", 1000)
    with pytest.raises(NetworkFileError, match="expected at most 1000 bytes, found"):
        load_exported(tmp_path / "net.pt2")


def test_sample_inputs_which_are_a_pickle_are_not_read(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(
        changed(whole, "net/data/sample_inputs/model.pt", lambda _content: b"cos\nsystem\n")
    )
    load_exported(tmp_path / "net.pt2")


def test_damaged_bytes_are_refused_or_load(whole: bytes, tmp_path: Path) -> None:
    path, rng, n_refused = tmp_path / "net.pt2", random.Random(0), 0
    model = zipfile.ZipFile(io.BytesIO(whole)).read(MODEL)
    for _ in range(60):
        data = bytearray(model)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(32, 127)
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(stream, "w") as new:
            for entry in old.infolist():
                new.writestr(entry.filename, bytes(data) if entry.filename == MODEL else old.read(entry))
        path.write_bytes(stream.getvalue())
        try:
            load_exported(path)
        except NetworkFileError:
            n_refused += 1
    assert n_refused > 10
