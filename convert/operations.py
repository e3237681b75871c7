"""Recorded calls as graph nodes: which reader reads which torch function, and the readers without weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .advice import unknown
from .calls import Arguments, Call, Value, common, map_shape
from .graph import Add, BatchNorm, Concat, Flatten, Node, Relu, Skip, Unknown
from .readers import (
    finite,
    read_adaptive_avg_pool,
    read_adaptive_max_pool,
    read_addmm,
    read_avg_pool,
    read_batch_norm,
    read_conv,
    read_conv_transpose,
    read_linear,
    read_lp_pool,
    read_matmul,
    read_max_pool,
    read_pad,
    read_reduction,
)

Nodes = tuple[Node, ...]
Reader = Callable[[Call, Arguments], Nodes]

_BATCH_TRY = "Try a forward that keeps the batch as its first axis."


def read(call: Call, n_batch: int) -> Nodes:
    """Return the nodes of one call, the last with its name: one, or two where torch does two things in one call.

    ``n_batch`` is the batch size that the call was recorded with.
    """
    if any(value.is_stale for value in call.values):
        return unknown(
            call, "reads a tensor that was changed in place through another", "Try x + y in place of x += y."
        )
    if call.parts:
        refused = [node for part in call.parts for node in read(part, n_batch) if isinstance(node, Unknown)]
        found = unknown(call)
        if found[0].reason.startswith("no spiking counterpart is known") and refused:
            return unknown(call, refused[0].reason, refused[0].fix)
        return found
    off = [shape for shape in (*(value.shape for value in call.values), call.shape) if shape[:1] != (n_batch,)]
    if off:
        return unknown(call, f"the first axis is not the batch: {off[0]}", _BATCH_TRY)
    names, reader = _READERS.get(call.op, ("", None))
    if call.op == "batch_norm" and len(call.args) == len(_TORCH_BATCH_NORM.split()):
        names = _TORCH_BATCH_NORM
    given = _bound(call, names.split())
    return unknown(call) if reader is None or given is None else reader(call, given)


def _bound(call: Call, names: list[str]) -> Arguments | None:
    """Return arguments by name, those that were given; None where there are more than the function has names for."""
    if len(call.args) > len(names):
        return None
    spelled = {_SPELLINGS.get(name, name): value for name, value in call.kwargs.items()}
    return {**dict(zip(names, call.args, strict=False)), **spelled}


_SPELLINGS = {"self": "input", "axis": "dim", "keepdims": "keepdim", "a": "input", "b": "other"}


def _relu(call: Call, _given: Arguments) -> Nodes:
    return (Relu(*common(call)),)


def _clamp(call: Call, given: Arguments) -> Nodes:
    low, high = (_number(given.get(name)) for name in ("min", "max"))
    return _bounded(call, low, math.inf if high is None else high)


def _hardtanh(call: Call, given: Arguments) -> Nodes:
    return _bounded(call, float(given.get("min_val", -1.0)), float(given.get("max_val", 1.0)))


def _relu6(call: Call, _given: Arguments) -> Nodes:
    return _bounded(call, 0.0, 6.0)


def _bounded(call: Call, low: float | None, high: float) -> Nodes:
    if low != 0 or not high > 0:
        return unknown(call)
    return (Relu(*common(call), None if math.isinf(high) else high),)


def _threshold(call: Call, given: Arguments) -> Nodes:
    is_relu = given["threshold"] == 0 and given["value"] == 0
    return (Relu(*common(call)),) if is_relu else unknown(call)


def _leaky_relu(call: Call, given: Arguments) -> Nodes:
    return (Relu(*common(call)),) if given.get("negative_slope", 0.01) == 0 else unknown(call)


def _maximum(call: Call, given: Arguments) -> Nodes:
    """Return a Relu for a maximum with zeros."""
    import torch

    pair = (given["input"], given.get("other"))
    zeros = [one for one in pair if isinstance(one, torch.Tensor) and not int(one.count_nonzero())]
    values = [one for one in pair if isinstance(one, Value)]
    is_relu = len(zeros) == len(values) == 1 and values[0].shape == call.shape
    return (Relu(*common(call)),) if is_relu else unknown(call)


def _number(value: Any) -> float | None:
    """Return a bound as a number; what is none, a map of bounds for example, is not a number."""
    if value is None:
        return None
    if isinstance(value, Value) or (hasattr(value, "numel") and value.numel() != 1):
        return math.nan
    return float(value)


def _dropout(call: Call, given: Arguments) -> Nodes:
    if given.get("training", True) and given.get("p", 0.5) != 0:
        return unknown(call, "drops in evaluation too", "Try training=self.training, or nn.Dropout.")
    return (Skip(*common(call)),)


def _layout(call: Call, _given: Arguments) -> Nodes:
    """Return a Flatten, or a Skip where nothing changes but axes of one pixel come or go."""
    if call.dtype not in ("torch.float32", "torch.float64"):
        return unknown(call, f"rounds to {call.dtype}", "Try to keep float32.")
    source = next(iter(call.values)).shape
    before, after = map_shape(source), map_shape(call.shape)
    if call.shape == source or before == after or after == (*before, 1, 1):
        return (Skip(*common(call)),)
    if len(call.shape) <= 2 and math.prod(source) == math.prod(call.shape):
        return (Flatten(*common(call)),)
    return unknown(
        call, f"reshapes {source[1:]} to {call.shape[1:]}", "Try nn.Flatten(): only channels first to one axis."
    )


def _same_shape(call: Call, given: Arguments) -> Nodes:
    same = call.shape == given["input"].shape
    return (Skip(*common(call)),) if same else unknown(call)


def _getitem(call: Call, given: Arguments) -> Nodes:
    key = given.get("index")
    whole = all(part == slice(None) or part is Ellipsis for part in (key if isinstance(key, tuple) else (key,)))
    return (Skip(*common(call)),) if whole else unknown(call)


def _slice(call: Call, given: Arguments) -> Nodes:
    """Return a Skip for ``aten.slice`` of everything, which is how torch.export writes ``x[:]``."""
    whole = given.get("start") in (None, 0) and given.get("step", 1) == 1 and call.shape == given["input"].shape
    return (Skip(*common(call)),) if whole else unknown(call)


def _concat(call: Call, given: Arguments) -> Nodes:
    parts, axis = given["tensors"], int(given.get("dim", 0)) % max(len(call.shape), 1)
    if not all(isinstance(part, Value) for part in parts):
        return unknown(call, "joins values with constants", "Try nn.ZeroPad2d, or values only.")
    if axis != 1:
        return unknown(call, f"joins along axis {axis}", "Try axis 1, the channels.")
    name, label, _, shape = common(call)
    return (Concat(name, label, tuple(part.name for part in parts), shape),)


def _add(call: Call, given: Arguments) -> Nodes:
    return _sum(call, given, sign=1)


def _sub(call: Call, given: Arguments) -> Nodes:
    return _sum(call, given, sign=-1)


def _rsub(call: Call, given: Arguments) -> Nodes:
    if given.get("alpha", 1) != 1:
        return unknown(call)
    return _sum(call, {"input": given["other"], "other": given["input"]}, sign=-1)


def _sum(call: Call, given: Arguments, *, sign: int) -> Nodes:
    """Return ``input + sign * alpha * other``: a sum of two values, or a shift of one."""
    one, other, factor = given["input"], given["other"], sign * given.get("alpha", 1)
    if isinstance(one, Value) and isinstance(other, Value):
        name, label, _, shape = common(call)
        if one.shape != other.shape or factor != 1:
            return unknown(call)
        if one.name == other.name:
            return _affine(call, one, 2.0, 0.0)
        return (Add(name, label, (one.name, other.name), shape),)
    if isinstance(one, Value):
        return _affine(call, one, 1.0, other * factor)
    return _affine(call, other, float(factor), one)


def _mul(call: Call, given: Arguments) -> Nodes:
    one, other = given["input"], given["other"]
    if isinstance(one, Value) and isinstance(other, Value):
        return unknown(call)
    return _affine(call, one, other, 0.0) if isinstance(one, Value) else _affine(call, other, one, 0.0)


def _div(call: Call, given: Arguments) -> Nodes:
    one, other = given["input"], given["other"]
    if not isinstance(one, Value) or isinstance(other, Value) or given.get("rounding_mode") is not None:
        return unknown(call)
    import torch

    return _affine(call, one, 1.0 / torch.as_tensor(other, dtype=torch.float64), 0.0)


def _neg(call: Call, given: Arguments) -> Nodes:
    return _affine(call, given["input"], -1.0, 0.0)


def _affine(call: Call, value: Value, scale: Any, shift: Any) -> Nodes:
    """Return ``scale * value + shift`` where both are one number, or one for each channel."""
    if call.shape != value.shape:
        return unknown(call, f"spreads {value.shape[1:]} to {call.shape[1:]}", "Try a constant of one pixel.")
    factor, offset = (_per_channel(number, value.shape, call.name) for number in (scale, shift))
    if factor is None or offset is None:
        return unknown(call, "a constant for each pixel", "Try one number, or one for each channel.")
    if (factor == 1).all() and not offset.any():
        return (Skip(*common(call)),)
    n = max(len(factor), len(offset))
    return (BatchNorm(*common(call), np.broadcast_to(factor, n), np.broadcast_to(offset, n)),)


def _per_channel(number: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64] | None:
    """Return a constant as one number, or one for each channel of ``shape``; None where pixels differ."""
    import torch

    tensor = number if isinstance(number, torch.Tensor) else torch.tensor(number, dtype=torch.float64)
    array = np.asarray(finite(tensor, name), np.float64)
    if array.size == 1:
        return array.reshape(1)
    if array.ndim > len(shape):
        return None
    full = np.broadcast_to(array, shape)
    channels = full.reshape(*shape[:2], -1)[0, :, 0]
    same = (full == channels.reshape(-1, *(1,) * (len(shape) - 2))).all()
    return channels if same else None


_CONV = "input weight bias stride padding dilation groups"
_TRANSPOSED = "input weight bias stride padding output_padding groups dilation"
_MAX_POOL = "input kernel_size stride padding dilation ceil_mode return_indices"
_AVG_POOL = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
_DROPOUT = "input p training inplace"
_TORCH_BATCH_NORM = "input weight bias running_mean running_var training momentum eps cudnn_enabled"
"""Of ``torch.batch_norm``, which takes all of them in another order than ``F.batch_norm``."""

_READERS: dict[str, tuple[str, Reader]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), (_CONV, read_conv)),
    "convolution": ("input weight bias stride padding dilation transposed output_padding groups", read_conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (_TRANSPOSED, read_conv_transpose)),
    "linear": ("input weight bias", read_linear),
    **dict.fromkeys(("matmul", "mm"), ("input other", read_matmul)),
    "addmm": ("input mat1 mat2", read_addmm),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), (_AVG_POOL, read_avg_pool)),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), ("input output_size", read_adaptive_avg_pool)),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool1d_with_indices"), (_MAX_POOL, read_max_pool)),
    "max_pool2d_with_indices": (_MAX_POOL, read_max_pool),
    **dict.fromkeys(
        ("adaptive_max_pool1d", "adaptive_max_pool2d"), ("input output_size return_indices", read_adaptive_max_pool)
    ),
    **dict.fromkeys(("lp_pool1d", "lp_pool2d"), ("input norm_type kernel_size stride ceil_mode", read_lp_pool)),
    **dict.fromkeys(("mean", "sum"), ("input dim keepdim", read_reduction)),
    "pad": ("input pad mode value", read_pad),
    "constant_pad_nd": ("input pad value", read_pad),
    "batch_norm": ("input running_mean running_var weight bias training momentum eps", read_batch_norm),
    "relu": ("input inplace", _relu),
    "relu6": ("input inplace", _relu6),
    **dict.fromkeys(("clamp", "clip"), ("input min max", _clamp)),
    "clamp_min": ("input min", _clamp),
    "hardtanh": ("input min_val max_val inplace", _hardtanh),
    "threshold": ("input threshold value inplace", _threshold),
    "leaky_relu": ("input negative_slope inplace", _leaky_relu),
    **dict.fromkeys(("maximum", "max", "fmax"), ("input other keepdim", _maximum)),
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
        (_DROPOUT, _dropout),
    ),
    **dict.fromkeys(
        ("contiguous", "clone", "detach", "alias", "positive", "data", "identity", "lift_fresh_copy", "requires_grad"),
        ("input memory_format", _layout),
    ),
    **dict.fromkeys(
        ("float", "double", "half", "bfloat16", "long", "int", "cpu", "type", "type_as", "to_copy"),
        ("input dtype", _layout),
    ),
    "to": ("input dtype device non_blocking copy memory_format", _layout),
    **dict.fromkeys(("flatten", "squeeze", "unsqueeze"), ("input dim end_dim", _layout)),
    **dict.fromkeys(("view", "reshape", "unsafe_view", "view_as", "reshape_as"), ("input a b c d e f", _layout)),
    "unflatten": ("input dim sizes", _layout),
    **dict.fromkeys(("expand", "expand_as"), ("input a b c d e f", _same_shape)),
    "getitem": ("input index", _getitem),
    "slice": ("input dim start end step", _slice),
    **dict.fromkeys(("cat", "concat", "concatenate"), ("tensors dim", _concat)),
    **dict.fromkeys(("add", "radd", "iadd"), ("input other alpha", _add)),
    **dict.fromkeys(("sub", "subtract", "isub"), ("input other alpha", _sub)),
    "rsub": ("input other alpha", _rsub),
    **dict.fromkeys(("mul", "multiply", "rmul", "imul"), ("input other", _mul)),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv", "idiv"), ("input other", _div)),
    **dict.fromkeys(("neg", "negative"), ("input", _neg)),
}
"""By the plain name of a torch function: the names of its arguments in their order, and what reads it."""
