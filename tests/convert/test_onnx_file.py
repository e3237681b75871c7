"""An ONNX file is read with suspicion: what is damaged, foreign or leads elsewhere is refused in one sentence."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeport.convert.errors import CaptureError, ConvertError, InputError, NetFileError
from spikeport.convert.exchange import onnx_constants, onnx_file
from spikeport.convert.exchange.onnx_in import load_onnx
from spikeport.convert.graph import Conv, Graph

from .onnx_files import model, onnx, op, write

W = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
NODES = [op("Conv", "x w", "c"), op("Relu", "c", "y")]


def _plain(**options: Any) -> Any:
    return model(NODES, {"w": W}, **options)


def _edited(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        net = _plain()
        change(net)
        write(path, net)

    return make


def _external(location: str, *, length: str | None = None, offset: str = "0") -> Callable[[Any], None]:
    def change(net: Any) -> None:
        tensor = net.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": offset, "length": length or str(W.nbytes)}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def _cyclic(net: Any) -> None:
    net.graph.node[0].input[0] = "y"


def _doubled(net: Any) -> None:
    """Constants that grow to petabytes, one line each."""
    names = ["w", *(f"w{index}" for index in range(40))]
    grown = [op("Concat", f"{one} {one}", other, axis=0) for one, other in itertools.pairwise(names)]
    del net.graph.node[:]
    net.graph.node.extend([*grown, op("Conv", f"x {names[-1]}", "y")])


def _spread(net: Any) -> None:
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1 << 30, 1 << 30]), "huge"))
    net.graph.node.insert(0, op("ConstantOfShape", "huge", "z"))


def _short(net: Any) -> None:
    net.graph.initializer[0].raw_data = net.graph.initializer[0].raw_data[:-4]


def _text(net: Any) -> None:
    net.graph.initializer.append(onnx.helper.make_tensor("t", onnx.TensorProto.STRING, [1], [b"a"]))


def _sparse(net: Any) -> None:
    net.graph.sparse_initializer.add()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _path: None, "found nothing"),
    "folder": (lambda path: path.mkdir(), "found a folder"),
    "empty": (lambda path: path.write_bytes(b""), "found one without operations"),
    "text": (lambda path: path.write_text("hello, world"), "found a damaged or foreign one"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "damaged or foreign"),
    "truncated": (lambda path: path.write_bytes(_plain().SerializeToString()[:-40]), "damaged or foreign"),
    "no operations": (_edited(lambda net: net.graph.ClearField("node")), "found one without operations"),
    "of the future": (lambda path: write(path, _plain(opset=999)), "expected an opset of 7 to .*, found 999"),
    "of the past": (lambda path: write(path, _plain(opset=3)), "expected an opset of 7 to .*, found 3"),
    "cyclic": (_edited(_cyclic), "'/c/Conv' reads 'y', which comes later: a cycle"),
    "loose end": (_edited(lambda net: net.graph.node[1].input.__setitem__(0, "z")), "reads 'z', which nothing gives"),
    "given twice": (_edited(lambda net: net.graph.node.append(net.graph.node[1])), "two operations give 'y'"),
    "no output": (_edited(lambda net: setattr(net.graph.output[0], "name", "q")), "'q' is given by no operation"),
    "short weights": (_edited(_short), "constant 'w': expected 216 bytes of float32"),
    "negative weights": (
        _edited(lambda net: net.graph.initializer[0].dims.__setitem__(0, -3)),
        "constant 'w': expected",
    ),
    "many weights": (_edited(lambda net: net.graph.initializer[0].dims.__setitem__(0, 1 << 40)), "bytes of constants"),
    "unknown numbers": (_edited(lambda net: setattr(net.graph.initializer[0], "data_type", 77)), "found data type 77"),
    "text for numbers": (_edited(_text), "constant 't': expected numbers"),
    "sparse": (_edited(_sparse), "its weights are sparse"),
    "constants that double": (_edited(_doubled), "bytes of constants, found more"),
    "constants that spread": (_edited(_spread), "bytes of constants, found more"),
    "elsewhere": (_edited(_external("../other/w.bin")), "in a file beside this one, found 'w.bin' elsewhere"),
    "anywhere": (_edited(_external("/etc/hostname")), "in a file beside this one, found 'hostname' elsewhere"),
    "nowhere": (_edited(_external("w.bin")), "in a file beside this one, found 'w.bin' elsewhere or missing"),
    "too large": (lambda path: write(path, _plain(shape=(1, 2, 1 << 15, 1 << 15))), "expected maps of at most"),
    "a kernel that does not fit": (lambda path: write(path, _plain(shape=(1, 5, 6, 6))), "do not fit one another"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused_in_one_sentence_that_names_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, words = DAMAGE[name]
    monkeypatch.setattr(onnx_constants, "MAX_BYTES", 1 << 24)
    path = tmp_path / "my.net.onnx"
    damage(path)
    with pytest.raises(NetFileError, match=words) as caught:
        load_onnx(path)
    assert caught.value.exit_code == 6
    assert str(caught.value).startswith("my.net.onnx: ")
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Try" in str(caught.value)


def test_weights_in_a_file_beside_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"head" + W.tobytes())
    net = _plain()
    _external("w.bin", offset="4")(net)
    conv = load_onnx(write(tmp_path / "net.onnx", net))["c"]
    assert isinstance(conv, Conv)
    np.testing.assert_array_equal(conv.weight, W)
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(NetFileError, match=r"constant 'w': expected 216 bytes in 'w\.bin', found 212"):
        load_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(("offset", "length"), [("-4", "216"), ("0", "4"), ("x", "216"), ("0", "-1")])
def test_weights_of_strange_places_are_refused(offset: str, length: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    net = _plain()
    _external("w.bin", offset=offset, length=length)(net)
    with pytest.raises(NetFileError, match=r"constant 'w': expected 216 bytes in 'w\.bin'"):
        load_onnx(write(tmp_path / "net.onnx", net))


def test_a_link_to_a_file_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(W.tobytes())
    (tmp_path / "w.bin").symlink_to(tmp_path / "elsewhere" / "w.bin")
    net = _plain()
    _external("w.bin")(net)
    with pytest.raises(NetFileError, match="in a file beside this one"):
        load_onnx(write(tmp_path / "net.onnx", net))


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.onnx", _plain())
    monkeypatch.setattr(onnx_constants, "MAX_BYTES", 100)
    with pytest.raises(NetFileError, match="expected at most 100 bytes of constants"):
        load_onnx(path)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 100)
    with pytest.raises(NetFileError, match="expected at most 100 bytes, found"):
        load_onnx(path)


def _second_input(net: Any) -> None:
    net.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 2]))


def _second_output(net: Any) -> None:
    net.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None))


def _constant_output(net: Any) -> None:
    net.graph.initializer.append(onnx.numpy_helper.from_array(W, "k"))
    net.graph.output[0].name = "k"


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "two inputs": (_edited(_second_input), r"one input, found 2 \('x', 'z'\)"),
    "no input": (_edited(lambda net: net.graph.ClearField("input")), r"one input, found 0 \(none\)"),
    "two outputs": (_edited(_second_output), "one output, found 2"),
    "constant output": (_edited(_constant_output), "an output computed from the input, found a constant"),
    "open size": (
        lambda path: write(path, _plain(shape=("n", 2, "h", "w"))),
        "input of known size, found \\?x2x\\?x\\?",
    ),
    "no size": (lambda path: write(path, _plain(shape=())), "found unknown"),
    "video": (lambda path: write(path, _plain(shape=(1, 2, 3, 6, 6))), "found 1x2x3x6x6"),
    "sequence": (_edited(lambda net: net.graph.input[0].type.sequence_type.SetInParent()), "expected a named tensor"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_networks_of_another_form_are_refused(name: str, tmp_path: Path) -> None:
    make, words = UNFIT[name]
    make(tmp_path / "net.onnx")
    with pytest.raises(CaptureError, match=words) as caught:
        load_onnx(tmp_path / "net.onnx")
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("net.onnx: ")
    assert "Try" in str(caught.value)


def test_sizes_that_the_file_leaves_open_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", _plain(shape=("n", 2, "h", "w")))
    assert load_onnx(path, input_shape=(2, 5, 7))["y"].out_shape == (3, 3, 5)
    for shape in ((3, 5, 7), (2, 5), (2, 0, 7)):
        with pytest.raises(InputError, match=r"fits the input of net.onnx, \?x2x\?x\?, found"):
            load_onnx(path, input_shape=shape)


def test_without_the_onnx_package_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.onnx", _plain())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"net.onnx: .* Try pip install 'spikeport\[onnx\]'") as caught:
        load_onnx(path)
    assert caught.value.exit_code == 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_raise_a_documented_error_or_still_hold_a_graph(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(_plain().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.onnx"
    path.write_bytes(bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))]))
    with contextlib.suppress(ConvertError):
        assert isinstance(load_onnx(path), Graph)
