"""ONNX files written operation by operation, or exported by torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

Shape = Sequence[int | str | None]


def op(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    """Return an operation; ``inputs`` are names, apart by blanks, ``-`` for one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, [output], name=f"/{output}/{kind}", **attributes)


def model(
    nodes: Sequence[Any],
    constants: Mapping[str, Any] | None = None,
    *,
    shape: Shape = ("n", 2, 6, 6),
    output: str = "y",
    opset: int = 17,
) -> Any:
    """Return a model that reads ``x`` of ``shape``."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(path: Path, net: Any) -> Path:
    path.write_bytes(net.SerializeToString())
    return path


def export(module: nn.Module, shape: Sequence[int], path: Path, *, is_open: bool = False) -> Path:
    """Export a module with torch's exporter that needs no further package, which warns that it is the old one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, *shape),),
            path,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}} if is_open else None,
        )
    return path
