"""NIR's nodes between neurons, weights, pools and factors, as what they do to a current."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.errors import WeightValueError
from spikeport.convert.geometry import Pair, Shape3
from spikeport.convert.graph import Status
from spikeport.convert.kernels import dense_kernel

from .currents import Current, Kernel, convolved, pooled, scaled
from .nir_file import NirFile, NirNode
from .nir_neurons import RefusedError, of_each

WEIGHTS = ("Affine", "Linear", "Conv1d", "Conv2d")

_TRANSPARENT = ("Flatten", "Identity", "Delay", "Scale", "SumPool2d", "AvgPool2d")

Passed = tuple[Current, Status, str]


def passed_on(node: NirNode, given: Current) -> Passed:
    """Return what leaves a node that is no neuron, input or output, and what to say of it.

    Raises: RefusedError; WeightValueError for weights that are not finite.
    """
    read = _READERS.get(node.kind)
    if read is None:
        raise RefusedError(
            "no counterpart is known", "Try IF neurons, Conv2d, Affine, Linear, pools, Flatten and Scale."
        )
    if given.is_weighted and node.kind not in ("Flatten", "Identity", "Delay", "Scale"):
        raise RefusedError(
            "weights stand in front of it without neurons between",
            "Try an IF node there: spikes are weighted and pooled.",
        )
    return read(node, given)


def input_shape_of(node: NirNode, file: NirFile, given: Shape3 | None) -> Shape3:
    """Return ``(C, H, W)`` of the input: as given, or what the file says and its first weights can take.

    Writers put the shape of a sample there, some with its batch and time axes in front.
    """
    if given is not None:
        return given
    dims = [int(edge) for edge in np.ravel(node.fields.get("shape", ())) if np.isfinite(edge)]
    shapes = list(_maps(dims))
    reader, is_pooled = _first_reader(node, file)
    if reader is None:
        fitting = [shape for shape in shapes if len(dims) <= 3]
    else:
        fitting = [shape for shape in shapes if _fits(shape, reader, is_pooled)]
        size = np.ravel(reader.fields.get("input_shape", ()))
        if not fitting and not is_pooled and reader.kind == "Conv2d" and size.size == 2:
            return _channels(reader), int(size[0]), int(size[1])
    if not fitting or min(fitting[0]) < 1:
        reads = f", which '{reader.name}' ({reader.kind}) cannot read" if reader else ""
        raise RefusedError(f"its shape is {tuple(dims)}{reads}", "Try input_shape=(channels, height, width).")
    return fitting[0]


def _maps(dims: list[int]) -> Iterator[Shape3]:
    """Yield what a shape may mean as a map, longer ones first."""
    if len(dims) >= 3:
        yield dims[-3], dims[-2], dims[-1]
    if len(dims) >= 2:
        yield dims[-2], 1, dims[-1]
    if dims:
        yield dims[-1], 1, 1


def _first_reader(node: NirNode, file: NirFile) -> tuple[NirNode | None, bool]:
    """Return the first weights that the input reaches, and whether a pool stands in front of them."""
    nodes = {other.name: other for other in file.nodes}
    is_pooled = False
    name = node.name
    while readers := file.outputs.get(name, ()):
        reader = nodes[readers[0]]
        if reader.kind in WEIGHTS and isinstance(reader.fields.get("weight"), np.ndarray):
            return reader, is_pooled
        if reader.kind not in _TRANSPARENT:
            break
        is_pooled = is_pooled or "Pool" in reader.kind
        name = reader.name
    return None, is_pooled


def _fits(shape: Shape3, reader: NirNode, is_pooled: bool) -> bool:
    if reader.kind in ("Affine", "Linear"):
        return is_pooled or math.prod(shape) == reader.fields["weight"].shape[-1]
    return shape[0] == _channels(reader) and (reader.kind == "Conv2d" or shape[1] == 1)


def _channels(reader: NirNode) -> int:
    weight = reader.fields["weight"]
    return int(weight.shape[1]) * whole(reader.fields, "groups", 1) if weight.ndim > 1 else 0


def whole(fields: Mapping[str, Any], key: str, missing: int) -> int:
    """Return a whole number of a node, or ``missing`` where it is not there."""
    value = np.ravel(fields.get(key, missing))
    if value.size != 1 or value.dtype.kind not in "biu":
        raise RefusedError(f"its {key} is {fields.get(key)!s:.40}, not a whole number", "Try writing the file again.")
    return int(value[0])


def _pair(node: NirNode, key: str, *, missing: int, least: int) -> Pair:
    value = np.ravel(node.fields.get(key, missing))
    if value.size not in (1, 2) or value.dtype.kind not in "iu" or (value < least).any() or (value > 2**15).any():
        found = str(node.fields.get(key))
        raise RefusedError(
            f"its {key} is {found:.40}, expected two numbers of {least} or more", "Try writing it again."
        )
    return int(value[0]), int(value[-1])


def _array(node: NirNode, key: str, n_axes: int) -> NDArray[np.float64]:
    value = node.fields.get(key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.ndim != n_axes or not value.size:
        found = f"shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise RefusedError(f"its {key} has {found}, expected {n_axes} axes of numbers", "Try writing the file again.")
    array = value.astype(np.float64)
    n_bad = int(array.size - np.isfinite(array.astype(np.float32)).sum())
    if n_bad:
        raise WeightValueError(
            f"node '{node.name}' ({node.kind}): {key}: expected finite numbers, found {n_bad} NaN or infinite of "
            f"{array.size}. Try training again with a lower learning rate, or another checkpoint."
        )
    return array


def _bias(node: NirNode, features: int) -> NDArray[np.float64] | None:
    if "bias" not in node.fields:
        return None
    bias = _array(node, "bias", 1)
    if len(bias) != features:
        raise RefusedError(f"its bias has {len(bias)} entries for {features} features", "Try writing the file again.")
    return bias


def _matrix(node: NirNode, given: Current) -> Passed:
    weight = _array(node, "weight", 2)
    features, n_inputs = weight.shape
    if n_inputs != math.prod(given.shape):
        raise RefusedError(
            f"it takes {n_inputs} values and reads {math.prod(given.shape)} of a map {given.shape}",
            "Try input_shape=, or a Flatten in front of it.",
        )
    kernel = Kernel(weight.reshape(features, *given.shape))
    return convolved(given, kernel, _bias(node, features)), "converted", "to the weights of the neurons that read it"


def _convolution(node: NirNode, given: Current) -> Passed:
    is_line = node.kind == "Conv1d"
    weight = _array(node, "weight", 3 if is_line else 4)
    stride, dilation = (_pair(node, key, missing=1, least=1) for key in ("stride", "dilation"))
    padding = _padding(node)
    if is_line:
        weight = weight[:, :, None, :]
        stride, padding, dilation = (1, stride[0]), padding and (0, padding[0]), (1, dilation[0])
    groups = whole(node.fields, "groups", 1)
    channels, height, width = given.shape
    if given.is_flat and (height, width) != (1, 1):
        raise RefusedError("it reads a vector", "Try the Flatten behind it.")
    if groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != channels:
        raise RefusedError(
            f"it takes {weight.shape[1] * groups} channels in {groups} groups to {weight.shape[0]} features "
            f"and reads {channels} channels",
            "Try input_shape=(channels, height, width).",
        )
    said = np.ravel(node.fields.get("input_shape", ()))
    if said.size == 2 and tuple(said) not in ((height, width), (width, height)):
        raise RefusedError(
            f"it is for maps of {said[0]}x{said[1]} and reads {height}x{width}", "Try another input_shape=."
        )
    kernel = Kernel(weight, stride, padding or (0, 0), dilation, groups)
    kernel = _padded_to_same(kernel) if padding is None else kernel
    current = convolved(given, kernel, _bias(node, weight.shape[0]))
    if min(current.shape) < 1:
        raise RefusedError(f"its kernel is larger than its map of {height}x{width}", "Try a larger input_shape=.")
    return current, "converted", "to the weights of the neurons that read it"


def _padding(node: NirNode) -> Pair | None:
    """Return the zeros on each side, None for as many as keep the size."""
    value = node.fields.get("padding", 0)
    if not isinstance(value, str):
        return _pair(node, "padding", missing=0, least=0)
    if value not in ("same", "valid"):
        raise RefusedError(f"its padding is '{value:.40}'", "Try 'same', 'valid' or numbers.")
    if value == "same" and _pair(node, "stride", missing=1, least=1) != (1, 1):
        raise RefusedError("its padding is 'same' with a stride", "Try a padding in numbers.")
    return None if value == "same" else (0, 0)


def _padded_to_same(kernel: Kernel) -> Kernel:
    """Return the kernel with the padding that keeps the size: where it is odd, torch puts the last zero behind."""
    total = [dilation * (edge - 1) for dilation, edge in zip(kernel.dilation, kernel.weight.shape[2:], strict=True)]
    if any(zeros % 2 for zeros in total):  # one more zero before the map, that a zero of the kernel lies on
        weight = dense_kernel(kernel.weight, dilation=kernel.dilation)
        weight = np.pad(weight, ((0, 0), (0, 0), (total[0] % 2, 0), (total[1] % 2, 0)))
        kernel = Kernel(weight, kernel.stride, (0, 0), (1, 1), kernel.groups)
    return Kernel(
        kernel.weight, kernel.stride, ((total[0] + 1) // 2, (total[1] + 1) // 2), kernel.dilation, kernel.groups
    )


def _pool(node: NirNode, given: Current) -> Passed:
    kernel = _pair(node, "kernel_size", missing=1, least=1)
    stride, padding = _pair(node, "stride", missing=1, least=1), _pair(node, "padding", missing=0, least=0)
    if stride != kernel or padding != (0, 0):
        raise RefusedError(
            f"its windows of {kernel} overlap or are padded (stride {stride}, padding {padding})",
            f"Try stride {kernel} and no padding.",
        )
    if given.is_flat:
        raise RefusedError("it pools a vector", "Try the Flatten behind it.")
    current = pooled(given, kernel)
    if min(current.shape) < 1:
        raise RefusedError(
            f"its window is larger than its map of {given.shape[1]}x{given.shape[2]}", "Try a smaller one."
        )
    if node.kind == "SumPool2d":
        return current, "passed through", "sum pool: spikes of one window share one address"
    share = np.full(current.shape[0], 1 / (kernel[0] * kernel[1]))
    return scaled(current, share), "folded", f"to a sum pool, its division by {math.prod(kernel)} into the next weights"


def _scale(node: NirNode, given: Current) -> Passed:
    factor = of_each(node, "scale", given.shape)
    if not np.isfinite(factor).all():
        raise WeightValueError(f"node '{node.name}' (Scale): scale: expected finite numbers, found infinity.")
    into = "the weights in front of it" if given.is_weighted else "the next weights"
    return scaled(given, factor), "folded", f"into {into}"


def _flatten(node: NirNode, given: Current) -> Passed:
    start, end = whole(node.fields, "start_dim", 1), whole(node.fields, "end_dim", -1)
    # 0 leaves out the batch axis, 1 counts it: writers do either
    if start not in (0, 1) or end not in (-1, 2, 3):
        raise RefusedError(f"it flattens the axes {start} to {end}", "Try to flatten all of them.")
    values = Current(given.shape, given.terms, given.bias, is_flat=True)
    return values, "passed through", "keeps every value; the next layer reads them by channel, row, column"


def _identity(node: NirNode, given: Current) -> Passed:
    if node.kind == "Delay" and np.any(node.fields.get("delay", 0)):
        raise RefusedError("spikes arrive in the step in which they are sent", "Try delays of 0, or to leave it out.")
    return given, "passed through", "does nothing"


_READERS: dict[str, Callable[[NirNode, Current], Passed]] = {
    "Affine": _matrix,
    "Linear": _matrix,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Scale": _scale,
    "Flatten": _flatten,
    "Identity": _identity,
    "Delay": _identity,
}
