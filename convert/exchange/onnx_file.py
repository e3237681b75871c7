"""An ONNX file as checked operations with constants as arrays: nothing here knows what the operations mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeport.convert.errors import CaptureError, ConvertError, InputError, NetFileError
from spikeport.convert.graph import Shape

from .onnx_constants import MAX_BYTES, Array, Constants, first_line

if TYPE_CHECKING:
    import onnx

N_BATCH = 2
"""The batch size that stands for an open one."""

_FEW = 1024
"""Constants of up to so many entries may be sizes; of larger ones the sizes of results need the shape only."""

_INDEX_SOURCES = ("Shape", "Size")


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One operation on data: ``inputs`` are names of values, or constants, None for those left out.

    Shapes: ``shape`` is that of the first output, with the batch axis; None where it is not known.
    """

    op: str
    name: str
    inputs: tuple[str | Array | None, ...]
    output: str
    attributes: Mapping[str, Any]
    shape: Shape | None
    dtype: str


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """The operations of an ONNX file in order, its input and its output.

    Shapes: ``input_shape`` has the batch axis in front, ``N_BATCH`` where the file leaves it open.
    """

    operations: tuple[Operation, ...]
    input: str
    input_shape: Shape
    output: str


def read_onnx_file(path: str | Path, *, input_shape: Shape | None = None) -> OnnxFile:
    """Return the operations of the ONNX file at ``path``.

    Constants that lie in a file of their own are read from the folder of ``path`` only.
    Shapes: ``input_shape`` leaves out the batch axis; needed where the file leaves other axes open.
    Raises: NetFileError where the file is missing, foreign or damaged; CaptureError for other than one input and one
    output, or an input of unknown shape; InputError without the onnx package.
    """
    file = Path(path)
    model = _model(file)
    graph = model.graph
    constants = Constants(file)
    try:
        for tensor in graph.initializer:
            constants.add(tensor.name, tensor)
        if graph.sparse_initializer:
            raise ValueError("its weights are sparse, which is not read")
        given = _input(file, graph, constants, input_shape)
        _check_order(graph, {given.name, *constants.arrays})
        nodes = [node for node in graph.node if not constants.fold(node)]
        shapes = _inferred(model, nodes, given, constants.arrays)
        names = _names(nodes, given.name)
        operations = tuple(_operations(nodes, constants, shapes, names))
    except ConvertError:
        raise
    except ValueError as cause:
        raise NetFileError(f"{file.name}: {first_line(cause)}. Try exporting the network again.") from cause
    if len(graph.output) != 1:
        raise CaptureError(
            f"{file.name}: expected a network with one output, found {len(graph.output)}. Try exporting one of them."
        )
    return OnnxFile(operations, given.name, given.shape, graph.output[0].name)


def _model(file: Path) -> onnx.ModelProto:
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise NetFileError(f"{file.name}: expected an ONNX file there, found {found}. Try another path.")
    if file.stat().st_size > MAX_BYTES:
        size = file.stat().st_size
        raise NetFileError(f"{file.name}: expected at most {MAX_BYTES} bytes, found {size}. Try a smaller network.")
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as cause:
        raise InputError(
            f"{file.name}: expected the onnx package to read it, found none. Try pip install 'spikeport[onnx]'."
        ) from cause
    model = onnx.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except (DecodeError, ValueError, RuntimeError, RecursionError) as cause:
        raise NetFileError(
            f"{file.name}: expected an ONNX file, found a damaged or foreign one. Try exporting the network again."
        ) from cause
    if not model.graph.node or not model.opset_import:
        raise NetFileError(
            f"{file.name}: expected an ONNX file, found one without operations. Try exporting the network again."
        )
    if not all(isinstance(text, str) for text in _texts(model.graph)):  # protobuf gives what is no text as bytes
        raise NetFileError(f"{file.name}: expected names of plain text, found others. Try exporting the network again.")
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if versions and not 7 <= versions[0] <= onnx.defs.onnx_opset_version():
        known = onnx.defs.onnx_opset_version()
        raise NetFileError(
            f"{file.name}: expected an opset of 7 to {known}, found {versions[0]}. Try exporting with opset_version=17."
        )
    return model


def _texts(graph: onnx.GraphProto) -> Iterator[object]:
    """Yield every name in a graph."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for named in (*graph.input, *graph.output, *graph.initializer):
        yield named.name


@dataclasses.dataclass(frozen=True)
class _Value:
    """The input: its name, its shape with the batch axis, and the number of its element type."""

    name: str
    shape: Shape
    element: int


def _input(file: Path, graph: onnx.GraphProto, constants: Constants, wanted: Shape | None) -> _Value:
    given = [value for value in graph.input if value.name not in constants.arrays]
    if len(given) != 1:
        names = ", ".join(f"'{value.name}'" for value in given) or "none"
        raise CaptureError(
            f"{file.name}: expected a network with one input, found {len(given)} ({names}). "
            "Try exporting a wrapper that sets the others."
        )
    name, tensor = given[0].name, given[0].type.tensor_type
    if not given[0].type.HasField("tensor_type") or not tensor.elem_type or not name.isprintable() or not name:
        raise CaptureError(f"{file.name}: input '{name!s:.40}': expected a named tensor. Try exporting it again.")
    axes = [axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim]
    if not axes and wanted is not None:
        axes = [None] * (len(wanted) + 1)
    said = "x".join("?" if axis is None else str(axis) for axis in axes) or "unknown"
    try_one = "Try --input-shape channels,height,width (input_shape= in Python)."
    if not 2 <= len(axes) <= 4:
        raise CaptureError(
            f"{file.name}: expected an input of [N, C, H, W], [N, C, L] or [N, F], found {said}. {try_one}"
        )
    if wanted is None and None in axes[1:]:
        raise CaptureError(f"{file.name}: expected an input of known size, found {said}. {try_one}")
    shape = tuple(edge for edge in axes[1:] if edge is not None) if wanted is None else tuple(map(int, wanted))
    fits = len(shape) == len(axes) - 1 and all(axis in (None, edge) for axis, edge in zip(axes[1:], shape, strict=True))
    if not fits or min(shape) < 1:
        found = "x".join(map(str, shape))
        raise InputError(
            f"input_shape: expected a shape that fits the input of {file.name}, {said}, found {found}. {try_one}"
        )
    return _Value(name, (axes[0] or N_BATCH, *shape), tensor.elem_type)


def _check_order(graph: onnx.GraphProto, known: set[str]) -> None:
    known = {"", *known}
    for index, node in enumerate(graph.node):
        for name in node.input:
            if name not in known:
                later = any(name in other.output for other in graph.node[index:])
                what = "comes later: a cycle, or operations out of order" if later else "nothing gives"
                raise ValueError(f"operation '{node.name or node.op_type}' reads '{name}', which {what}")
        for name in filter(None, node.output):
            if name in known:
                raise ValueError(f"two operations give '{name}'")
            known.add(name)
    for output in graph.output:
        if output.name not in known:
            raise ValueError(f"its output '{output.name}' is given by no operation")


def _inferred(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], given: _Value, arrays: Mapping[str, Array]
) -> dict[str, tuple[Shape | None, str]]:
    """Return shape and type of every value, for one shape of the input."""
    import onnx
    from onnx import helper, numpy_helper

    def declared(name: str, shape: Shape, element: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, element, shape)

    read = {name for node in nodes for name in node.input}
    used = {name: array for name, array in arrays.items() if name in read}
    skeleton = helper.make_graph(
        nodes,
        "sizes",
        [
            declared(given.name, given.shape, given.element),
            *(
                declared(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype))
                for name, array in used.items()
            ),
        ],
        [],
        [numpy_helper.from_array(array, name) for name, array in used.items() if array.size <= _FEW],
    )
    domains = {entry.domain for entry in model.opset_import}
    unknown = sorted({node.domain for node in nodes} - domains)
    opsets = [*model.opset_import, *(helper.make_opsetid(domain, 1) for domain in unknown)]
    sized = helper.make_model(skeleton, opset_imports=opsets)
    try:
        inferred = onnx.shape_inference.infer_shapes(sized, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError) as cause:
        raise ValueError(f"its operations do not fit one another: {first_line(cause)}") from cause
    found: dict[str, tuple[Shape | None, str]] = {}
    for value in inferred.graph.value_info:
        tensor = value.type.tensor_type
        edges = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim]
        known = tuple(edges) if tensor.HasField("shape") and min(edges, default=0) >= 0 else None
        found[value.name] = (known, _torch_type(tensor.elem_type))
    return found


def _torch_type(number: int) -> str:
    from onnx import TensorProto

    name = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else "UNDEFINED"
    return {"FLOAT": "torch.float32", "FLOAT16": "torch.float32", "BFLOAT16": "torch.float32"}.get(
        name, {"DOUBLE": "torch.float64", "UNDEFINED": "torch.float32"}.get(name, name.lower())
    )


def _operations(
    nodes: Sequence[onnx.NodeProto],
    constants: Constants,
    shapes: Mapping[str, tuple[Shape | None, str]],
    names: Mapping[str, str],
) -> Iterator[Operation]:
    """Yield the operations on data; what works with sizes alone shows in the shapes."""
    arrays, sizes = constants.arrays, set[str]()
    for node in nodes:
        read = [source for source in node.input if source]
        is_standard = node.domain in ("", "ai.onnx")
        of_sizes = any(source in sizes for source in read) and all(
            source in arrays or source in sizes for source in read
        )
        if of_sizes or (is_standard and node.op_type in _INDEX_SOURCES):
            sizes.update(node.output)
            continue
        output = node.output[0] if node.output else ""
        shape, dtype = shapes.get(output, (None, "torch.float32"))
        inputs = tuple(
            SIZES if source in sizes else arrays.get(source, source) if source else None for source in node.input
        )
        op = node.op_type if is_standard else f"{node.domain}.{node.op_type}"
        yield Operation(op, names[output], inputs, output, constants.attributes(node), shape, dtype)


SIZES = np.zeros(0, np.int64)
"""Stands for numbers computed from shapes: what is done with them shows in the shapes of the results."""


def _names(nodes: Sequence[onnx.NodeProto], given: str) -> dict[str, str]:
    """Return a name for each operation by its first output: ``conv1`` for torch's ``/conv1/Conv``, ``conv0`` for
    its ``/0/Conv``.

    Law: they are distinct, and an ``@`` in them is followed by a number.
    """
    names: dict[str, str] = {}
    n_uses = {given: 1}
    for node in nodes:
        parts = [part.replace("@", "_") for part in node.name.split("/") if part.isprintable() and part]
        kind = node.op_type.lower()
        if len(parts) > 1 and parts[-1].lower().startswith(kind):
            parts.pop()
        name = parts[-1] if parts else kind
        name = f"{kind}{name}" if name.isdecimal() else name
        n_uses[name] = n_uses.get(name, 0) + 1
        names[node.output[0] if node.output else ""] = name if n_uses[name] == 1 else f"{name}@{n_uses[name]}"
    return names
