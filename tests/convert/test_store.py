"""The net file is a contract: it comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save_file

from spikeport.convert import convert, load_net, save_net
from spikeport.convert.errors import NetFileError
from spikeport.convert.store import load_net_with_notes, net_bytes, net_hash
from spikeport.convert.types import SpikingNet
from spikeport.models.tensorfile import pack

from .networks import Case, plain_cnns

TMP = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@TMP
@given(plain_cnns())
def test_load_gives_back_what_was_saved(tmp_path: Path, case: Case) -> None:
    net = convert(case.module, case.input_shape).net
    save_net(net, tmp_path / "net.safetensors", notes={"seed": 1})
    found, notes = load_net_with_notes(tmp_path / "net.safetensors")
    assert found.same(net)
    assert notes == {"seed": 1}
    assert net_bytes(found) == net_bytes(net)
    assert net_hash(found) == net_hash(net)


@pytest.fixture(scope="module")
def net() -> SpikingNet:
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    return convert(module, (1, 8, 8)).net


def _parts(net: SpikingNet) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    data = net_bytes(net)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["spikeport"])
    return header, load_safetensors(data)


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[SpikingNet, Path], None]:
    def write(net: SpikingNet, path: Path) -> None:
        header, tensors = _parts(net)
        change(header)
        path.write_bytes(pack(tensors, header, kind=header.get("kind", "net"), version=header.get("format", 1)))

    return write


def _tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[SpikingNet, Path], None]:
    def write(net: SpikingNet, path: Path) -> None:
        header, tensors = _parts(net)
        change(tensors)
        path.write_bytes(pack(tensors, header, kind="net", version=1))

    return write


DAMAGE: dict[str, tuple[Callable[[SpikingNet, Path], object], str]] = {
    "missing": (lambda _net, _path: None, "found nothing"),
    "folder": (lambda _net, path: path.mkdir(), "found a folder"),
    "empty": (lambda _net, path: path.write_bytes(b""), "damaged or foreign"),
    "text": (lambda _net, path: path.write_text("hello, world, this is text"), "damaged or foreign"),
    "truncated": (lambda net, path: path.write_bytes(net_bytes(net)[:-20]), "damaged or foreign"),
    "pickle": (lambda _net, path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "damaged or foreign"),
    "plain safetensors": (lambda _net, path: save_file({"a": np.ones(3)}, path), "without its header"),
    "program": (_header(lambda header: header.update(kind="program")), "expected a spikeport net, found a program"),
    "future": (_header(lambda header: header.update(format=99)), "format version 99, this spikeport knows 1"),
    "no layers": (_header(lambda header: header.pop("layers")), "layers: expected a list"),
    "bad field": (_header(lambda header: header["layers"][0].update(extra=1)), "expected the fields"),
    "bad shape": (_header(lambda header: header.update(input_shape=[1, "8", 8])), "expected 3 whole numbers"),
    "bad notes": (_header(lambda header: header.update(notes=[])), "notes: expected an object"),
    "bad bound": (_header(lambda header: header["layers"][0].update(v_min=2)), "v_min: expected 0"),
    "bad edge": (_header(lambda header: header["edges"][0].update(target=9)), "expected an earlier layer"),
    "no weight": (_tensors(lambda tensors: tensors.pop("layer0/weight")), "layer0/weight: expected a float32 tensor"),
    "wrong dtype": (
        _tensors(lambda tensors: tensors.update({"layer0/weight": tensors["layer0/weight"].astype(np.float64)})),
        "found float64",
    ),
    "surplus": (_tensors(lambda tensors: tensors.update({"layer7/weight": np.ones(1)})), "belong to no layer"),
    "wrong shape": (
        _tensors(lambda tensors: tensors.update({"layer0/weight": np.ones((2, 1, 2, 3), np.float32)})),
        "out_shape: expected",
    ),
    "nan": (
        _tensors(lambda tensors: tensors.update({"layer0/weight": np.full((2, 1, 3, 3), np.nan, np.float32)})),
        "NaN",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused_in_one_sentence_that_names_them(name: str, net: SpikingNet, tmp_path: Path) -> None:
    damage, words = DAMAGE[name]
    path = tmp_path / "my.net.safetensors"
    damage(net, path)
    with pytest.raises(NetFileError, match=words) as caught:
        load_net(path)
    assert "my.net.safetensors" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_raise_the_one_documented_error_or_still_hold_a_legal_net(
    data: st.DataObject, net: SpikingNet, tmp_path: Path
) -> None:
    content = bytearray(net_bytes(net))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.safetensors"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(NetFileError):
        assert isinstance(load_net(path), SpikingNet)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    net: SpikingNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    save_net(net, path)
    before = path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_net(net, path, notes={"other": True})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]
