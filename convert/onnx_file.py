"""An ONNX file as checked operations with constants as arrays: nothing here knows what the operations mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import CaptureError, InputError, NetFileError
from .graph import Shape

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 1 << 30
"""Of the file, and of its constants together."""

N_BATCH = 2
"""The batch size that stands for an open one."""

_FOLDED = (
    *("Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Gather"),
    *("Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Shape", "Size", "ConstantOfShape", "Expand"),
)
"""What is computed ahead where all operands are constants."""

_INDEX_SOURCES = ("Shape", "Size")

Array = NDArray[Any]


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
    """The operations of an ONNX file in order, its input and its output; ``input_shape`` has the batch axis in front.

    ``is_open`` says that the file leaves the batch size open.
    """

    operations: tuple[Operation, ...]
    input: str
    input_shape: Shape
    output: str
    is_open: bool


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
    constants = _Constants(file)
    try:
        for tensor in graph.initializer:
            constants.add(tensor.name, tensor)
        if graph.sparse_initializer:
            raise ValueError("its weights are sparse, which is not read")
        given = _only_input(file, graph, constants)
        shape, is_open = _input_shape(file, given, input_shape)
        _check_order(graph, {given.name, *constants.arrays})
        shapes = _inferred(model, given.name, shape)
        operations = tuple(_operations(graph, constants, shapes, given.name))
    except ValueError as cause:
        if isinstance(cause, (CaptureError, NetFileError)):
            raise
        raise NetFileError(f"{file.name}: {_line(cause)}. Try exporting the network again.") from cause
    if len(graph.output) != 1:
        raise CaptureError(
            f"{file.name}: expected a network with one output, found {len(graph.output)}. Try exporting one of them."
        )
    return OnnxFile(operations, given.name, shape, graph.output[0].name, is_open)


def _line(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0].rstrip(".")[:200]


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
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if versions and not 7 <= versions[0] <= onnx.defs.onnx_opset_version():
        known = onnx.defs.onnx_opset_version()
        raise NetFileError(
            f"{file.name}: expected an opset of 7 to {known}, found {versions[0]}. Try exporting with opset_version=17."
        )
    return model


class _Constants:
    """The arrays of a file by name, read once, and never more than ``MAX_BYTES`` of them."""

    def __init__(self, file: Path) -> None:
        self.arrays: dict[str, Array] = {}
        self._file = file
        self._left = MAX_BYTES

    def reserve(self, n_bytes: int) -> None:
        """Count what is about to be held, or refuse it."""
        self._left -= n_bytes
        if self._left < 0:
            raise ValueError(f"expected at most {MAX_BYTES} bytes of constants, found more")

    def add(self, name: str, tensor: onnx.TensorProto) -> None:
        """Take a tensor in; text and numbers of 4 bits are refused."""
        from onnx import TensorProto, helper, numpy_helper

        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        except (KeyError, TypeError) as cause:
            raise ValueError(f"constant '{name}': expected numbers, found data type {tensor.data_type}") from cause
        if any(edge < 0 for edge in tensor.dims) or tensor.data_type == TensorProto.STRING:
            raise ValueError(f"constant '{name}': expected numbers of a shape, found {list(tensor.dims)}")
        n_bytes = math.prod(tensor.dims) * dtype.itemsize
        self.reserve(n_bytes)
        if tensor.data_location == TensorProto.EXTERNAL:
            raw = self._external(name, tensor, n_bytes)
            array = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(tuple(tensor.dims))
        else:
            try:
                array = numpy_helper.to_array(tensor)
            except (ValueError, TypeError) as cause:
                raise ValueError(f"constant '{name}': expected {n_bytes} bytes of {dtype}, found others") from cause
        self.arrays[name] = _plain(array)

    def _external(self, name: str, tensor: onnx.TensorProto, n_bytes: int) -> bytes:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        folder = self._file.parent.resolve()
        where = (folder / entries.get("location", "")).resolve()
        if where.parent != folder or not where.is_file():
            raise ValueError(
                f"constant '{name}': expected its numbers in a file beside this one, found "
                f"'{Path(entries.get('location', '')).name:.60}' elsewhere or missing"
            )
        try:
            start, length = int(entries.get("offset", "0")), int(entries.get("length", str(n_bytes)))
        except ValueError:
            start, length = -1, -1
        if start < 0 or length != n_bytes:
            raise ValueError(f"constant '{name}': expected {n_bytes} bytes in '{where.name}', found {length}")
        with where.open("rb") as stream:
            stream.seek(start)
            raw: bytes = stream.read(n_bytes)
        if len(raw) != n_bytes:
            raise ValueError(f"constant '{name}': expected {n_bytes} bytes in '{where.name}', found {len(raw)}")
        return raw


def _plain(array: Array) -> Array:
    """Return numbers in a type that numpy and torch share: bfloat16 and its like become float32."""
    return array if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8 else array.astype(np.float32)


def _only_input(file: Path, graph: onnx.GraphProto, constants: _Constants) -> onnx.ValueInfoProto:
    given = [value for value in graph.input if value.name not in constants.arrays]
    if len(given) != 1:
        names = ", ".join(f"'{value.name}'" for value in given) or "none"
        raise CaptureError(
            f"{file.name}: expected a network with one input, found {len(given)} ({names}). "
            "Try exporting a wrapper that sets the others."
        )
    if not given[0].type.HasField("tensor_type"):
        raise CaptureError(f"{file.name}: input '{given[0].name}': expected a tensor, found another type.")
    only: onnx.ValueInfoProto = given[0]
    return only


def _input_shape(file: Path, given: onnx.ValueInfoProto, wanted: Shape | None) -> tuple[Shape, bool]:
    """Return the shape of the input with its batch axis, and whether the file leaves the batch open."""
    axes = [axis.dim_value if axis.dim_value > 0 else None for axis in given.type.tensor_type.shape.dim]
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
        raise InputError(f"input_shape: expected a shape that fits the file's input of {said}, found {found}.")
    return (axes[0] or N_BATCH, *shape), axes[0] is None


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


def _inferred(model: onnx.ModelProto, given: str, shape: Shape) -> dict[str, tuple[Shape | None, str]]:
    """Return shape and type of every value, for one shape of the input."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.ClearField("shape")
        if value.name == given:
            for edge in shape:
                value.type.tensor_type.shape.dim.add().dim_value = edge
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError) as cause:
        raise ValueError(f"its operations do not fit one another: {_line(cause)}") from cause
    found: dict[str, tuple[Shape | None, str]] = {}
    for value in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
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
    graph: onnx.GraphProto,
    constants: _Constants,
    shapes: Mapping[str, tuple[Shape | None, str]],
    given: str,
) -> Iterator[Operation]:
    """Yield the operations on data; constants are computed ahead, sizes are known from the shapes."""
    arrays, sizes = dict(constants.arrays), set[str]()
    for node, name in zip(graph.node, _names(graph, given), strict=True):
        read = [source for source in node.input if source]
        attributes = {attribute.name: _attribute(attribute, constants) for attribute in node.attribute}
        if node.op_type == "Constant" and len(node.output) == 1:
            arrays[node.output[0]] = _constant(name, attributes)
            continue
        is_standard = node.domain in ("", "ai.onnx")
        if read and is_standard and node.op_type in _FOLDED and all(source in arrays for source in read):
            operands = [arrays[source] for source in read]
            constants.reserve(8 * _size(node.op_type, operands))
            arrays[node.output[0]] = _computed(node, name, operands)
            continue
        of_sizes = any(source in sizes for source in read) and all(source in {*arrays, *sizes} for source in read)
        if of_sizes or (is_standard and node.op_type in _INDEX_SOURCES):
            sizes.update(node.output)
            continue
        shape, dtype = shapes.get(node.output[0], (None, "torch.float32")) if node.output else (None, "")
        inputs = tuple(arrays.get(source, source) if source else None for source in node.input)
        inputs = tuple(SIZES if isinstance(source, str) and source in sizes else source for source in inputs)
        op = node.op_type if is_standard else f"{node.domain}.{node.op_type}"
        yield Operation(op, name, inputs, node.output[0] if node.output else "", attributes, shape, dtype)


SIZES = np.zeros(0, np.int64)
"""Stands for numbers computed from shapes: what is done with them shows in the shapes of the results."""


def _attribute(attribute: onnx.AttributeProto, constants: _Constants) -> Any:
    from onnx import AttributeProto, helper

    if attribute.type == AttributeProto.TENSOR:
        key = f"attribute {attribute.name} {len(constants.arrays)}"
        constants.add(key, attribute.t)
        return constants.arrays.pop(key)
    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        return None
    try:
        value = helper.get_attribute_value(attribute)
    except ValueError as cause:
        raise ValueError(f"attribute '{attribute.name}': {_line(cause)}") from cause
    return value.decode("utf8", "replace") if isinstance(value, bytes) else value


def _constant(name: str, attributes: Mapping[str, Any]) -> Array:
    for key in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if key in attributes:
            value = np.asarray(attributes[key])
            return value.astype(np.float32) if "float" in key else value
    raise ValueError(f"constant '{name}': expected numbers, found {', '.join(attributes) or 'none'}")


def _size(op: str, operands: list[Array]) -> int:
    """Return a number of entries that the result of an operation on constants does not exceed."""
    if op in ("ConstantOfShape", "Expand"):
        return math.prod(map(int, np.ravel(operands[-1])[:64])) * (operands[0].size if op == "Expand" else 1)
    if op == "Gather":
        return operands[0].size * operands[-1].size
    if op in ("Add", "Sub", "Mul", "Div", "Pow"):
        return math.prod(np.broadcast_shapes(*(operand.shape for operand in operands)))
    return sum(operand.size for operand in operands)


def _computed(node: onnx.NodeProto, name: str, operands: list[Array]) -> Array:
    """Return the result of an operation on constants."""
    from onnx.reference import ReferenceEvaluator

    try:
        (result,) = ReferenceEvaluator(node).run(None, dict(zip(filter(None, node.input), operands, strict=False)))
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError, NotImplementedError) as cause:
        raise ValueError(f"operation '{name}' ({node.op_type}): {_line(cause)}") from cause
    return _plain(np.asarray(result))


def _names(graph: onnx.GraphProto, given: str) -> list[str]:
    """Return a name for each operation: ``conv1`` for torch's ``/conv1/Conv``, ``conv0`` for its ``/0/Conv``.

    Law: they are distinct, and an ``@`` in them is followed by a number.
    """
    names: list[str] = []
    n_uses = {given: 1}
    for node in graph.node:
        parts = [part.replace("@", "_") for part in node.name.split("/") if part.isprintable() and part]
        kind = node.op_type.lower()
        if len(parts) > 1 and parts[-1].lower().startswith(kind):
            parts.pop()
        name = parts[-1] if parts else kind
        name = f"{kind}{name}" if name.isdecimal() else name
        n_uses[name] = n_uses.get(name, 0) + 1
        names.append(name if n_uses[name] == 1 else f"{name}@{n_uses[name]}")
    return names
