"""The constants of an ONNX file as arrays: those that it holds, and those that follow from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 1 << 30
"""Of the file, and of its constants together."""

_FOLDED = (
    *("Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Gather"),
    *("Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Abs", "Exp", "Max", "Min", "Clip"),
    *("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "ReduceMax", "ReduceMin"),
    *("Shape", "Size", "ConstantOfShape", "Expand"),
)
"""What is computed ahead where all operands are constants."""

Array = NDArray[Any]


class Constants:
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

    def fold(self, node: onnx.NodeProto) -> bool:
        """Compute an operation whose operands are all constants, and return whether it is such a one.

        Raises: ValueError where it cannot be computed.
        """
        if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            return False
        if node.op_type == "Constant":
            self.arrays[node.output[0]] = self._constant(node)
            return True
        read = [name for name in node.input if name]
        if not read or node.op_type not in _FOLDED or any(name not in self.arrays for name in read):
            return False
        operands = [self.arrays[name] for name in read]
        self.reserve(8 * _size(node.op_type, operands))
        self.arrays[node.output[0]] = _computed(node, operands)
        return True

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        """Return the attributes of an operation as numbers, text and arrays; graphs in them as None."""
        return {attribute.name: self._attribute(attribute) for attribute in node.attribute}

    def _constant(self, node: onnx.NodeProto) -> Array:
        attributes = self.attributes(node)
        for key in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            value = np.asarray(attributes.get(key))
            if value.dtype.kind in "biuf":
                return value.astype(np.float32) if "float" in key else value
        raise ValueError(f"constant '{node.name}': expected numbers, found {', '.join(attributes) or 'none'}")

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        from onnx import AttributeProto, helper

        if attribute.type == AttributeProto.TENSOR:
            key = f"attribute {attribute.name} {len(self.arrays)}"
            self.add(key, attribute.t)
            return self.arrays.pop(key)
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            return None
        try:
            value = helper.get_attribute_value(attribute)
        except ValueError as cause:
            raise ValueError(f"attribute '{attribute.name}': {first_line(cause)}") from cause
        return value.decode("utf8", "replace") if isinstance(value, bytes) else value


def _plain(array: Array) -> Array:
    """Return numbers in a type that numpy and torch share: bfloat16 and its like become float32."""
    return array if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8 else array.astype(np.float32)


def _size(op: str, operands: list[Array]) -> int:
    """Return a number of entries that the result of an operation on constants does not exceed."""
    if op in ("ConstantOfShape", "Expand"):
        return math.prod(map(int, np.ravel(operands[-1])[:64])) * (operands[0].size if op == "Expand" else 1)
    if op == "Gather":
        return operands[0].size * operands[-1].size
    if op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"):
        return math.prod(np.broadcast_shapes(*(operand.shape for operand in operands)))
    return sum(operand.size for operand in operands)


def _computed(node: onnx.NodeProto, operands: list[Array]) -> Array:
    """Return the result of an operation on constants."""
    from onnx.reference import ReferenceEvaluator

    try:
        named = dict(zip(filter(None, node.input), operands, strict=False))
        (result,) = ReferenceEvaluator(node).run(None, named)
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError, NotImplementedError) as cause:
        raise ValueError(f"operation '{node.name}' ({node.op_type}): {first_line(cause)}") from cause
    return _plain(np.asarray(result))


def first_line(cause: BaseException) -> str:
    """Return the first line of an error's message without its full stop, or the error's name."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0].rstrip(".")[:200]
