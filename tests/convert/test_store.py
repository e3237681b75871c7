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
from spikeport.convert.store import FORMAT, load_net_with_notes, net_bytes, net_hash
from spikeport.convert.types import SpikingLayer, SpikingNet, chain
from spikeport.models.tensorfile import pack

from .nets import random_graph
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


@TMP
@given(st.integers(0, 2**32 - 1))
def test_load_gives_back_every_kind_of_layer(tmp_path: Path, seed: int) -> None:
    net = random_graph(np.random.default_rng(seed))
    save_net(net, tmp_path / "net.safetensors")
    found = load_net(tmp_path / "net.safetensors")
    assert found.same(net)
    assert net_bytes(found) == net_bytes(net)


@pytest.fixture(scope="module")
def net() -> SpikingNet:
    rng = np.random.default_rng(0)
    first = SpikingLayer(
        name="conv",
        weight=rng.normal(size=(2, 1, 3, 3)),
        bias=rng.normal(size=2),
        stride=(1, 1),
        padding=(0, 0),
        threshold=1.0,
        v_min=-1.0,
        in_shape=(1, 8, 8),
        out_shape=(2, 6, 6),
        v_init=np.full((2, 6, 6), 0.5),
    )
    last = SpikingLayer(
        "out", rng.normal(size=(2, 1, 3, 3)), None, (1, 1), (2, 2), 1.5, None, (2, 6, 6), (2, 6, 6), (2, 2), groups=2
    )
    return chain((first, last), ((1, 1), (1, 1), (2, 2)), (1, 8, 8))


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    """The layout of version 1, written out: bytes of a net saved before there were groups."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(2, 1, 3, 3)).astype(np.float32), rng.normal(size=(3, 2, 3, 3)).astype(np.float32)]
    bias = np.array([0.5, -1, 2], np.float32)
    common = {"stride": [1, 1], "padding": [0, 0]}
    layers = [
        {**common, "name": "a", "threshold": 1.0, "v_min": -1.0, "in_shape": [1, 8, 8], "out_shape": [2, 6, 6]},
        {**common, "name": "b", "threshold": 2, "v_min": None, "in_shape": [2, 3, 3], "out_shape": [3, 1, 1]},
    ]
    ends = [(-1, 0, [1, 1]), (0, 1, [2, 2]), (1, None, [1, 1])]
    edges = [{"source": source, "target": target, "pool": pool, "feature_shift": 0} for source, target, pool in ends]
    header = {"input_shape": [1, 8, 8], "layers": layers, "edges": edges, "notes": {"seed": 3}}
    tensors = {"layer0/weight": weights[0], "layer1/weight": weights[1], "layer1/bias": bias}
    text = json.dumps({**header, "kind": "net", "format": 1})
    save_file(tensors, tmp_path / "old.safetensors", metadata={"spikeport": text})
    found, notes = load_net_with_notes(tmp_path / "old.safetensors")
    expected = chain(
        (
            SpikingLayer("a", weights[0], None, (1, 1), (0, 0), 1.0, -1.0, (1, 8, 8), (2, 6, 6)),
            SpikingLayer("b", weights[1], bias, (1, 1), (0, 0), 2.0, None, (2, 3, 3), (3, 1, 1)),
        ),
        ((1, 1), (2, 2), (1, 1)),
        (1, 8, 8),
    )
    assert found.same(expected)
    assert notes == {"seed": 3}
    save_net(found, tmp_path / "new.safetensors", notes=notes)
    assert load_net(tmp_path / "new.safetensors").same(found)


def _parts(net: SpikingNet) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    data = net_bytes(net)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["spikeport"])
    return header, load_safetensors(data)


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[SpikingNet, Path], None]:
    def write(net: SpikingNet, path: Path) -> None:
        header, tensors = _parts(net)
        change(header)
        path.write_bytes(pack(tensors, header, kind=header.get("kind", "net"), version=header.get("format", FORMAT)))

    return write


def _tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[SpikingNet, Path], None]:
    def write(net: SpikingNet, path: Path) -> None:
        header, tensors = _parts(net)
        change(tensors)
        path.write_bytes(pack(tensors, header, kind="net", version=FORMAT))

    return write


def _old_with_groups(net: SpikingNet, path: Path) -> None:
    header, tensors = _parts(net)
    del tensors["layer0/v_init"]
    path.write_bytes(pack(tensors, header, kind="net", version=1))


DAMAGE: dict[str, tuple[Callable[[SpikingNet, Path], object], str]] = {
    "missing": (lambda _net, _path: None, "found nothing"),
    "folder": (lambda _net, path: path.mkdir(), "found a folder"),
    "empty": (lambda _net, path: path.write_bytes(b""), "damaged or foreign"),
    "text": (lambda _net, path: path.write_text("hello, world, this is text"), "damaged or foreign"),
    "truncated": (lambda net, path: path.write_bytes(net_bytes(net)[:-20]), "damaged or foreign"),
    "pickle": (lambda _net, path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "damaged or foreign"),
    "plain safetensors": (lambda _net, path: save_file({"a": np.ones(3)}, path), "without its header"),
    "program": (_header(lambda header: header.update(kind="program")), "expected a spikeport net, found a program"),
    "future": (_header(lambda header: header.update(format=99)), "format version 99, this spikeport knows 1, 2"),
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
    "old with a new field": (_header(lambda header: header.update(format=1)), "v_init"),
    "old with groups": (_old_with_groups, "expected the fields"),
    "text as groups": (_header(lambda header: header["layers"][1].update(groups="2")), "expected 1 whole numbers"),
    "true as groups": (_header(lambda header: header["layers"][0].update(groups=True)), "expected 1 whole numbers"),
    "no groups": (_header(lambda header: header["layers"][1].update(groups=0)), "groups: expected a divisor"),
    "many groups": (_header(lambda header: header["layers"][1].update(groups=10**30)), "groups: expected a divisor"),
    "other groups": (_header(lambda header: header["layers"][1].update(groups=1)), "channels a group"),
    "short dilation": (_header(lambda header: header["layers"][0].update(dilation=[1])), "expected 2 whole numbers"),
    "bad dilation": (_header(lambda header: header["layers"][0].update(dilation=[0, 1])), "dilation and upsample of 1"),
    "far dilation": (_header(lambda header: header["layers"][1].update(dilation=[2, 10**30])), "out_shape: expected"),
    "bad upsample": (_header(lambda header: header["layers"][0].update(upsample=[1, 1.5])), "expected 2 whole numbers"),
    "other upsample": (_header(lambda header: header["layers"][0].update(upsample=[2, 1])), "out_shape: expected"),
    "no field": (_header(lambda header: header["layers"][0].pop("groups")), "expected the fields"),
    "start of another type": (
        _tensors(lambda tensors: tensors.update({"layer0/v_init": tensors["layer0/v_init"].astype(np.int32)})),
        "layer0/v_init: expected a float32 tensor, found int32",
    ),
    "start of another shape": (
        _tensors(lambda tensors: tensors.update({"layer1/v_init": np.ones((2, 6), np.float32)})),
        "v_init: expected finite numbers of shape",
    ),
    "infinite start": (
        _tensors(lambda tensors: tensors.update({"layer0/v_init": np.full((2, 6, 6), np.inf, np.float32)})),
        "v_init: expected finite",
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
