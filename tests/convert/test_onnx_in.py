"""The graph of an ONNX file computes what the file does, by onnx's own reference; the rest is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikeport.convert.errors import UnsupportedLayerError, WeightValueError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.exchange.onnx_in import load_onnx
from spikeport.convert.graph import Conv, Graph, Relu, Unknown
from spikeport.convert.pipeline import convert_graph

from .onnx_files import model, onnx, op, write

RNG = np.random.default_rng(0)


def _normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


W, B = _normal(3, 2, 3, 3), _normal(3)
ONES = np.ones(2, np.float32)
MAGIC = onnx.helper.make_node("Magic", ["x"], ["y"], "magic", domain="my.own")
FLAT = [op("Flatten", "x", "f")]
CASES: dict[str, tuple[list[Any], Mapping[str, Any], Mapping[str, Any]]] = {
    "Conv": ([op("Conv", "x w b", "y", strides=[2, 1], pads=[1, 0, 1, 0])], {"w": W, "b": B}, {}),
    "Conv, grouped and dilated": (
        [op("Conv", "x w", "y", group=2, dilations=[2, 1], kernel_shape=[3, 3])],
        {"w": _normal(4, 1, 3, 3)},
        {},
    ),
    "Conv, uneven zeros": ([op("Conv", "x w b", "y", pads=[1, 0, 0, 2])], {"w": W, "b": B}, {}),
    "Conv, same": ([op("Conv", "x w b", "y", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": W, "b": B}, {}),
    "Conv, same before": (
        [op("Conv", "x w", "y", auto_pad="SAME_LOWER")],
        {"w": _normal(3, 2, 2, 4)},
        {},
    ),
    "Conv, valid": ([op("Conv", "x w", "y", auto_pad="VALID")], {"w": W}, {}),
    "Conv along one axis": (
        [op("Conv", "x w b", "y", pads=[2, 1], strides=[2])],
        {"w": _normal(3, 2, 4), "b": B},
        {"shape": ("n", 2, 9)},
    ),
    "Conv in halves": ([op("Conv", "x c", "y")], {"c": W.astype(np.float16).astype(np.float32)}, {}),
    "ConvTranspose": (
        [op("ConvTranspose", "x w", "y", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0])],
        {"w": _normal(2, 3, 3, 3)},
        {},
    ),
    "BatchNormalization": (
        [op("BatchNormalization", "x s b m v", "y", epsilon=1e-3)],
        {"s": _normal(2), "b": _normal(2), "m": _normal(2), "v": np.array([1e-6, 2], np.float32)},
        {},
    ),
    "Clip": ([op("Clip", "x zero high", "y")], {"zero": np.float32(0), "high": np.float32(0.5)}, {}),
    "Clip below": ([op("Clip", "x zero", "y")], {"zero": np.float32(0)}, {}),
    "Clip of old": ([op("Clip", "x", "y", min=0.0, max=0.5)], {}, {"opset": 7}),
    "Max with zero": ([op("Max", "x zero", "y")], {"zero": np.float32(0)}, {}),
    "AveragePool": ([op("AveragePool", "x", "y", kernel_shape=[2, 3], strides=[2, 3])], {}, {}),
    "AveragePool, counted zeros": (
        [op("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
        {},
    ),
    "AveragePool, full windows": (
        [op("AveragePool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],
        {},
        {},
    ),
    "GlobalAveragePool": ([op("GlobalAveragePool", "x", "y")], {}, {}),
    "ReduceMean of old": ([op("ReduceMean", "x", "y", axes=[2, 3], keepdims=0)], {}, {}),
    "ReduceMean": ([op("ReduceMean", "x axes", "y", keepdims=1)], {"axes": np.array([-1, -2])}, {"opset": 18}),
    "Gemm": (
        [*FLAT, op("Gemm", "f w b", "y", alpha=0.5, beta=2.0, transB=1)],
        {"w": _normal(4, 72), "b": _normal(4)},
        {},
    ),
    "Gemm, as it stands": ([*FLAT, op("Gemm", "f w b", "y")], {"w": _normal(72, 4), "b": _normal(1, 4)}, {}),
    "Gemm, one bias": ([*FLAT, op("Gemm", "f w b", "y")], {"w": _normal(72, 4), "b": _normal(1)}, {}),
    "MatMul and Add": (
        [*FLAT, op("MatMul", "f w", "m"), op("Add", "m b", "y")],
        {"w": _normal(72, 4), "b": _normal(4)},
        {},
    ),
    "Transpose of weights": (
        [*FLAT, op("Transpose", "w", "t", perm=[1, 0]), op("MatMul", "f t", "y")],
        {"w": _normal(4, 72)},
        {},
    ),
    "constants per channel": (
        [op("Mul", "x s", "a"), op("Sub", "a c", "b"), op("Div", "b s", "d"), op("Sub", "one d", "y")],
        {
            "s": np.array([0.5, 2], np.float32).reshape(1, 2, 1, 1),
            "c": np.float32(0.25),
            "one": np.ones((2, 1, 1), np.float32),
        },
        {},
    ),
    "Flatten of a reshape": (
        [op("Reshape", "x shape", "y")],
        {"shape": np.array([0, -1])},
        {},
    ),
    "Reshape by its own sizes": (
        [
            op("Shape", "x", "s"),
            op("Gather", "s zero", "n", axis=0),
            op("Unsqueeze", "n axes", "u"),
            op("Concat", "u rest", "t", axis=0),
            op("Reshape", "x t", "y"),
        ],
        {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])},
        {},
    ),
    "Squeeze": ([op("GlobalAveragePool", "x", "g"), op("Squeeze", "g axes", "y")], {"axes": np.array([2, 3])}, {}),
    "Unsqueeze and back": (
        [op("Unsqueeze", "x axes", "u"), op("Squeeze", "u axes", "y")],
        {"axes": np.array([2])},
        {"shape": ("n", 2, 9)},
    ),
    "Add": ([op("Relu", "x", "r"), op("Add", "x r", "y")], {}, {}),
    "Sum of three": ([op("Relu", "x", "r"), op("Identity", "x", "i"), op("Sum", "x r i", "y")], {}, {}),
    "Concat": ([op("Relu", "x", "r"), op("Concat", "r x", "y", axis=-3)], {}, {}),
    "Dropout": ([op("Dropout", "x ratio", "y")], {"ratio": np.float32(0.5)}, {}),
    "Pad": ([op("Pad", "x pads", "y")], {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 0])}, {}),
    "Pad of old": ([op("Pad", "x", "y", pads=[0, 0, 1, 2, 0, 0, 3, 0])], {}, {"opset": 7}),
    "Pad along axes": (
        [op("Pad", "x pads - axes", "y")],
        {"pads": np.array([1, 3]), "axes": np.array([-1])},
        {"opset": 18},
    ),
    "Constant": ([op("Constant", "", "c", value_float=2.0), op("Mul", "x c", "y")], {}, {}),
    "Cast and Neg": ([op("Cast", "x", "c", to=1), op("Neg", "c", "y")], {}, {}),
    "Transpose and Slice of nothing": (
        [op("Transpose", "x", "t", perm=[0, 1, 2, 3]), op("Slice", "t first last", "y")],
        {"first": np.array([0]), "last": np.array([99])},
        {},
    ),
}


def _outputs(net: Any, graph: Graph) -> tuple[Any, Any]:
    from onnx.reference import ReferenceEvaluator

    shape = [axis.dim_value for axis in net.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    (expected,) = ReferenceEvaluator(net).run(None, {"x": x})
    values = evaluate(graph, torch.from_numpy(x).reshape(3, *graph.input_shape))
    return expected, values[graph.output].numpy()


@pytest.mark.parametrize("name", CASES)
def test_the_graph_computes_what_the_file_does(name: str, tmp_path: Path) -> None:
    nodes, constants, options = CASES[name]
    net = model(nodes, constants, **options)
    graph = load_onnx(write(tmp_path / "net.onnx", net))
    assert not any(isinstance(node, Unknown) for node in graph)
    expected, found = _outputs(net, graph)
    assert found.size == expected.size
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, "n", None])
def test_any_batch_size_of_the_file_is_read(batch: Any, tmp_path: Path) -> None:
    nodes = [op("Conv", "x w", "c"), op("Relu", "c", "r"), op("Flatten", "r", "f"), op("MatMul", "f m", "y")]
    net = model(nodes, {"w": W, "m": _normal(48, 5)}, shape=(batch, 2, 6, 6))
    graph = load_onnx(write(tmp_path / "net.onnx", net))
    assert [node.name for node in graph] == ["x", "c", "r", "f", "y"]
    assert graph[graph.output].out_shape == (5,)


def test_names_are_those_of_torch_layers_and_distinct(tmp_path: Path) -> None:
    names = ["/0/Conv", "/block/conv/Conv", "", "/act/Relu", "/act/Relu"]
    nodes = [onnx.helper.make_node("Relu" if "Conv" not in name else "Conv", ["x"], ["y"], name=name) for name in names]
    nodes[0].input[:], nodes[0].output[:] = ["x", "w"], ["a"]
    nodes[1].input[:], nodes[1].output[:] = ["a", "v"], ["b"]
    for index, node in enumerate(nodes[2:]):
        node.input[:], node.output[:] = ["bcd"[index]], ["cdy"[index]]
    graph = load_onnx(write(tmp_path / "net.onnx", model(nodes, {"w": W, "v": _normal(3, 3, 1, 1)})))
    assert [node.name for node in graph] == ["x", "conv0", "conv", "relu", "act", "act@2"]


def test_what_no_output_depends_on_is_left_out(tmp_path: Path) -> None:
    net = model([op("Relu", "x", "y"), op("Softmax", "x", "spare")])
    assert [node.name for node in load_onnx(write(tmp_path / "net.onnx", net))] == ["x", "y"]


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([op("MaxPool", "x", "y", kernel_shape=[2, 2])], {}, r"'y' \(MaxPool\): a maximum over spikes"),
        ([op("MaxPool", "x", "y", kernel_shape=[2, 2], pads=[0, 1, 1, 1])], {}, r"\(MaxPool\): a maximum over spikes"),
        ([op("GlobalMaxPool", "x", "y")], {}, r"'y' \(GlobalMaxPool\): a maximum over spikes is no sum"),
        ([op("LeakyRelu", "x", "y")], {}, r"'y' \(LeakyRelu\): negative outputs cannot be spikes"),
        ([op("Flatten", "x", "f"), op("Softmax", "f", "y")], {}, r"'y' \(Softmax\): no spiking counterpart"),
        ([op("Sigmoid", "x", "y")], {}, r"'y' \(Sigmoid\): no spiking counterpart"),
        ([op("Clip", "x low", "y")], {"low": np.float32(-1)}, "its lower bound is not 0"),
        ([op("Mul", "x x", "y")], {}, "a product of two values"),
        ([op("Transpose", "x", "y", perm=[0, 2, 3, 1])], {}, "changes the order of axes"),
        ([op("Concat", "x x", "y", axis=2)], {}, "joins along axis 2"),
        ([op("Reshape", "x s", "y")], {"s": np.array([0, 4, 3, 6])}, "reshapes"),
        ([op("Pad", "x p", "y", mode="reflect")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, "padding_mode='reflect'"),
        ([op("Pad", "x p v", "y")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.float32(1)}, "pads with 1"),
        ([op("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}, "padded zeros do not count"),
        ([op("AveragePool", "x", "y", kernel_shape=[4, 4], strides=[4, 4], ceil_mode=1)], {}, "ceil_mode adds windows"),
        ([op("Dropout", "x r t", "y")], {"r": np.float32(0.5), "t": np.array(True)}, "drops in evaluation too"),
        ([op("Conv", "x x", "y")], {}, "its weights depend on the input"),
        ([op("BatchNormalization", "x s s s v", "y")], {"s": ONES, "v": -ONES}, "below 0"),
        ([op("Gemm", "f f", "y"), op("Flatten", "x", "f")][::-1], {}, "a product of two values"),
        ([op("Slice", "x a b a", "y")], {"a": np.array([1]), "b": np.array([2])}, "takes a part of its input"),
        ([op("Shape", "x", "s"), op("Mul", "x s", "y")], {}, "numbers computed from sizes"),
        ([op("Einsum", "x", "y", equation="nchw->nhwc")], {}, "a general product"),
        ([MAGIC], {}, r"'magic' \(my.own.Magic\): no spiking counterpart is known"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(nodes: Any, constants: Any, words: str, tmp_path: Path) -> None:
    graph = load_onnx(write(tmp_path / "net.onnx", model(nodes, constants)))
    with pytest.raises(UnsupportedLayerError, match=words) as caught:
        convert_graph(graph)
    assert caught.value.exit_code == 3
    assert all("Try" in finding.detail for finding in caught.value.findings)


def test_substitutes_are_those_of_torch_layers(tmp_path: Path) -> None:
    nodes = [
        op("Conv", "x w", "c"),
        op("LeakyRelu", "c", "a"),
        op("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    nodes += [op("Flatten", "p", "f"), op("MatMul", "f m", "z"), op("Softmax", "z", "y")]
    graph = load_onnx(write(tmp_path / "net.onnx", model(nodes, {"w": W, "m": _normal(12, 4)})))
    names = [node.substitute[0] for node in graph if isinstance(node, Unknown) and node.substitute]
    assert names == ["leakyrelu=relu", "maxpool=avgpool", "softmax=identity"]
    conversion = convert_graph(graph, replace=names)
    assert conversion.replacement is not None
    assert conversion.replacement.nodes == ("a", "p", "y")
    assert [layer.name for layer in conversion.net.layers] == ["c", "z"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    weight = W.copy()
    weight[0, 0, 0, 0] = value
    with pytest.raises(WeightValueError, match="layer 'y': expected finite numbers, found 1 NaN or infinite") as caught:
        load_onnx(write(tmp_path / "net.onnx", model([op("Conv", "x w", "y")], {"w": weight})))
    assert caught.value.exit_code == 6


def test_halves_and_doubles_are_read(tmp_path: Path) -> None:
    for dtype in (np.float16, np.float64):
        net = model([op("Conv", "x w", "c"), op("Relu", "c", "y")], {"w": W.astype(dtype)})
        net.graph.input[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = load_onnx(write(tmp_path / "net.onnx", net))
        assert isinstance(graph["y"], Relu)
        conv = graph["c"]
        assert isinstance(conv, Conv)
        np.testing.assert_array_equal(conv.weight, W.astype(dtype).astype(np.float32))
