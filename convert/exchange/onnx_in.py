"""An ONNX file to Graph: each operation becomes the torch call that does the same, and is read as one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spikeport.convert.advice import unknown
from spikeport.convert.calls import Call, Value, map_shape
from spikeport.convert.errors import CaptureError, ConvertError, NetFileError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.graph import Graph, Input, Node, Unknown
from spikeport.convert.operations import read

from .onnx_constants import Array, first_line
from .onnx_file import SIZES, OnnxFile, Operation, read_onnx_file
from .onnx_given import Given, Operand, Problem
from .onnx_ops import translated

_AGAIN = "Try exporting the network again."

_MAX_VALUES = 1 << 27
"""Of one map: half a gigabyte, as much as one recording may take in a simulation."""

_RESHAPING = ("Reshape", "Expand", "Squeeze", "Unsqueeze")
"""What only the shape of the result tells of."""


def load_onnx(path: str | Path, *, input_shape: Sequence[int] | None = None) -> Graph:
    """Return the graph of the CNN in an ONNX file.

    Shapes: ``input_shape`` leaves out the batch axis; needed where the file leaves other axes than the batch open.
    Law: ``evaluate(load_onnx(f), x)`` is what f computes for x, unless a node is ``Unknown``.
    Raises: NetFileError where the file is missing, foreign or damaged; CaptureError for other than one input and one
    output, or an input of unknown shape; WeightValueError for weights not finite; InputError without the onnx package.
    """
    file = read_onnx_file(path, input_shape=None if input_shape is None else tuple(input_shape))
    given = map_shape(file.input_shape)
    as_map = given if len(given) == 3 else (*given, 1, 1)
    nodes: list[Node] = [Input(file.input, "input", (), as_map, file.input_shape[1:])]
    values = {file.input: Value(file.input, file.input_shape)}
    for operation in file.operations:
        nodes += _nodes(operation, values, file)
        values[operation.output] = Value(operation.name, operation.shape or ())
    if file.output not in values:
        raise CaptureError(f"{Path(path).name}: expected an output computed from the input, found a constant. {_AGAIN}")
    output = values[file.output].name
    graph = Graph(_reachable(tuple(nodes), output), output)
    _check(graph, Path(path).name)
    return graph


def _check(graph: Graph, name: str) -> None:
    """Run the graph once: what the file says of its sizes must be true.

    Raises: NetFileError where it does not run, or gives other sizes.
    """
    import torch

    if len({node.name for node in graph}) < len(graph):
        raise NetFileError(f"{name}: expected distinct names of operations, found one twice. {_AGAIN}")
    largest = max(math.prod(node.out_shape) for node in graph)
    if largest > _MAX_VALUES:
        raise NetFileError(
            f"{name}: expected maps of at most {_MAX_VALUES} values, found {largest}. Try a smaller input."
        )
    if any(isinstance(node, Unknown) for node in graph):
        return
    try:
        values = evaluate(graph, torch.zeros(1, *graph.input_shape))
    except (RuntimeError, ValueError, LookupError) as cause:
        raise NetFileError(f"{name}: its operations do not fit one another ({first_line(cause)}). {_AGAIN}") from cause
    for node in graph:
        if tuple(values[node.name].shape[1:]) != node.out_shape:
            found = list(values[node.name].shape[1:])
            raise NetFileError(f"{name}: '{node.name}': expected {list(node.out_shape)}, found {found}. {_AGAIN}")


def _nodes(operation: Operation, values: Mapping[str, Value], file: OnnxFile) -> tuple[Node, ...]:
    operands = tuple(_operand(source, values) for source in operation.inputs)
    reads = tuple(operand for operand in operands if isinstance(operand, Value))
    call = Call("", operation.name, operation.op, (), {}, operation.shape or (), operation.dtype)
    refused = dataclasses.replace(call, op=operation.op.lower(), args=reads)
    lost = [value.name for value in reads if not value.shape]
    if lost:
        return unknown(refused, f"reads '{lost[0]}', of unknown size", "Try a standard operation there.")
    if any(source is SIZES for source in operation.inputs) and operation.op not in _RESHAPING:
        return unknown(refused, "works with numbers computed from sizes", "Try numbers that are written out.")
    try:
        found = translated(Given(operation, operands, call))
        if isinstance(found, Problem):
            return unknown(dataclasses.replace(refused, op=found.op), found.reason, found.fix)
        if operation.shape is None:
            return unknown(refused, "its result is of unknown size", "Try an input_shape, or a standard operation.")
        return tuple(node for each in found for node in read(each, file.input_shape[0]))
    except ConvertError:
        raise
    except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, AttributeError) as cause:
        # operands that no exporter gives: text for a number, a constant for the input
        return unknown(refused, f"its operands do not fit: {first_line(cause)}", _AGAIN)


def _operand(source: str | Array | None, values: Mapping[str, Value]) -> Operand:
    """Return a value, or a constant as a torch tensor: of the default type where it holds integers or halves."""
    import torch

    if source is None or isinstance(source, str):
        return None if source is None else values[source]
    kind = np.float64 if source.dtype == np.float64 else np.int64 if source.dtype.kind in "biu" else np.float32
    return torch.from_numpy(np.array(source, dtype=kind))


def _reachable(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """Leave out what the output does not depend on: it computes nothing that is seen."""
    wanted = {output, nodes[0].name}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return tuple(node for node in nodes if node.name in wanted)
