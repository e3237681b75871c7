"""Recorded calls of layers with weights, of pools and of paddings, as graph nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .advice import substitute, unknown
from .calls import Arguments, Call, Value, common, map_shape
from .errors import WeightValueError
from .geometry import Pair, Window
from .graph import AvgPool, BatchNorm, Conv, Flatten, Linear, Node, Pad, Skip, SumPool
from .kernels import dense_kernel, widened

Nodes = tuple[Node, ...]

_TRAIN = "Try nn.AvgPool2d of the same size and train again."


def read_conv(call: Call, given: Arguments) -> Nodes:
    """Return the convolution of ``conv1d`` or ``conv2d``; of length L is of height 1."""
    if given.get("transposed"):
        return read_conv_transpose(call, given)
    problem = _weights_problem(given)
    if problem:
        return unknown(call, *problem)
    weight = _kernel(given["weight"], call.name)
    stride, dilation = _pair(given, "stride", 1), _pair(given, "dilation", 1)
    groups, padding = int(given.get("groups", 1)), given.get("padding", 0)
    bias = finite(given.get("bias"), call.name)
    numbers = (0, 0) if isinstance(padding, str) else _pair(given, "padding", 0)
    conv = Conv(*common(call), weight, bias, stride, numbers, dilation, (1, 1), groups)
    if padding != "same":
        return (conv,)
    (top, bottom), (left, right) = (
        _same_sides(size, gap) for size, gap in zip(weight.shape[2:], dilation, strict=True)
    )
    return (widened(conv, (top, bottom, left, right)),)


def _same_sides(kernel: int, dilation: int) -> tuple[int, int]:
    """Return the zeros that torch puts before and after: the odd one goes after."""
    total = dilation * (kernel - 1)
    return total // 2, total - total // 2


def read_conv_transpose(call: Call, given: Arguments) -> Nodes:
    """Return the convolution over a spread map that ``conv_transpose1d`` or ``conv_transpose2d`` is.

    Law: torch's ``o = q * stride + i * dilation - p`` is ``Window``'s with taps in reverse and a padding of
    ``dilation * (k - 1) - p``. Zero taps behind the kernel move its end: that is the output padding.
    """
    problem = _weights_problem(given)
    if problem:
        return unknown(call, *problem)
    stride, dilation = _pair(given, "stride", 1), _pair(given, "dilation", 1)
    padding, extra = _pair(given, "padding", 0), _pair(given, "output_padding", 0)
    groups, weight = int(given.get("groups", 1)), _kernel(given["weight"], call.name)
    n_in, per_group, ky, kx = weight.shape
    weight = weight.reshape(groups, n_in // groups, per_group, ky, kx).swapaxes(1, 2)
    weight = weight.reshape(groups * per_group, n_in // groups, ky, kx)
    limit = tuple(gap * (size - 1) for gap, size in zip(dilation, (ky, kx), strict=True))
    if any(pad > most for pad, most in zip(padding, limit, strict=True)):
        return unknown(
            call,
            f"padding={padding} cuts off more than its kernel reaches, {limit}",
            "Try a smaller padding, and leave out rows and columns before it.",
        )
    if any(more % gap for more, gap in zip(extra, dilation, strict=True)):
        weight, dilation = dense_kernel(weight, dilation=dilation), (1, 1)
    longer = tuple(more // gap for more, gap in zip(extra, dilation, strict=True))
    weight = np.pad(weight, ((0, 0), (0, 0), (0, longer[0]), (0, longer[1])))[:, :, ::-1, ::-1]
    rows, columns = (gap * (size - 1) - pad for gap, size, pad in zip(dilation, weight.shape[2:], padding, strict=True))
    bias = finite(given.get("bias"), call.name)
    return (Conv(*common(call), weight, bias, (1, 1), (rows, columns), dilation, stride, groups),)


def _weights_problem(given: Arguments) -> tuple[str, str] | None:
    if isinstance(given["weight"], Value) or isinstance(given.get("bias"), Value):
        return "its weights depend on the input", "Try weights that training has fixed."
    n_axes = given["weight"].dim() - 2
    if n_axes not in (1, 2):
        return f"a convolution along {n_axes} axes", "Try nn.Conv2d or nn.Conv1d."
    if not isinstance(given["input"], Value) or len(given["input"].shape) != n_axes + 2:
        return "its input has no batch axis", "Try inputs of [N, C, H, W]."
    return None


def _kernel(weight: Any, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = finite(weight, name)
    return array if array.ndim == 4 else array[:, :, None, :]


def read_linear(call: Call, given: Arguments) -> Nodes:
    """Return the linear layer of ``linear``, or of a matrix product with a constant matrix."""
    weight, bias = given["weight"], given.get("bias")
    return _linear(call, given["input"], weight, bias)


def read_matmul(call: Call, given: Arguments) -> Nodes:
    """Return the linear layer of ``x @ w`` where ``w`` is a constant matrix."""
    matrix = given["other"]
    if isinstance(matrix, Value) or matrix.dim() != 2:
        return unknown(call, "a product of two values", "Try nn.Linear: weights that training has fixed.")
    return _linear(call, given["input"], matrix.t(), None)


def read_addmm(call: Call, given: Arguments) -> Nodes:
    """Return the linear layer of ``b + x @ w``."""
    matrix, bias = given["mat2"], given["input"]
    if isinstance(matrix, Value) or isinstance(bias, Value) or given.get("beta", 1) != 1 or given.get("alpha", 1) != 1:
        return unknown(call, "a product of two values", "Try nn.Linear: weights that training has fixed.")
    return _linear(call, given["mat1"], matrix.t(), bias.expand(call.shape)[0])


def _linear(call: Call, value: Any, weight: Any, bias: Any) -> Nodes:
    if isinstance(weight, Value) or isinstance(bias, Value) or not isinstance(value, Value):
        return unknown(call, "its weights depend on the input", "Try weights that training has fixed.")
    if len(value.shape) != 2:
        return unknown(
            call, f"a Linear over an input that is not flat gives {call.shape[1:]}", "Try nn.Flatten() before it."
        )
    return (Linear(*common(call), finite(weight, call.name), finite(bias, call.name)),)


def read_batch_norm(call: Call, given: Arguments) -> Nodes:
    """Return the norm of ``batch_norm`` in evaluation."""
    mean, variance = given.get("running_mean"), given.get("running_var")
    if given.get("training") or mean is None or variance is None:
        return unknown(
            call, "no running statistics", "Try track_running_stats=True and eval(), so that it can be folded."
        )
    if any(isinstance(given.get(name), Value) for name in ("running_mean", "running_var", "weight", "bias")):
        return unknown(call, "its weights depend on the input", "Try weights that training has fixed.")
    center, spread = (finite(tensor, call.name).astype(np.float64) for tensor in (mean, variance))
    gain, shift = finite(given.get("weight"), call.name), finite(given.get("bias"), call.name)
    # Source: the definition of torch.nn.BatchNorm2d; leaving the epsilon out is a 41 % error at a variance of 1e-5.
    scale = (1.0 if gain is None else gain.astype(np.float64)) / np.sqrt(spread + float(given.get("eps", 1e-5)))
    return (BatchNorm(*common(call), scale, (0.0 if shift is None else shift) - center * scale),)


def read_avg_pool(call: Call, given: Arguments) -> Nodes:
    """Return the pool of ``avg_pool1d`` or ``avg_pool2d``."""
    kernel, stride, padding = _window(given)
    if not _is_plain(call, given["input"], Window(kernel, stride, padding)):
        return unknown(call, "ceil_mode adds windows that are not full", "Try ceil_mode=False.")
    if padding != (0, 0) and not given.get("count_include_pad", True):
        return unknown(call, "padded zeros do not count", "Try count_include_pad=True.")
    divisor = given.get("divisor_override")
    if divisor is None:
        return _pool(call, kernel, stride, padding)
    scale = np.full(1, kernel[0] * kernel[1] / float(divisor))
    pool, inner = _pool(call, kernel, stride, padding, inner=True), f"{call.name}.pool"
    return (*pool, BatchNorm(call.name, call.label, (inner,), map_shape(call.shape), scale, np.zeros(1)))


def _pool(call: Call, kernel: Pair, stride: Pair, padding: Pair = (0, 0), *, inner: bool = False) -> Nodes:
    name, label, inputs, shape = common(call)
    name = f"{name}.pool" if inner else name
    if kernel == stride == (1, 1) and padding == (0, 0):
        return (Skip(name, label, inputs, shape),)
    return (AvgPool(name, label, inputs, shape, kernel, stride, padding),)


def read_adaptive_avg_pool(call: Call, given: Arguments) -> Nodes:
    """Return the pool of ``adaptive_avg_pool1d`` or ``adaptive_avg_pool2d`` where its windows are all the same."""
    kernel = adaptive_kernel(call, given["input"])
    if kernel is None:
        source, target = given["input"].shape[2:], call.shape[2:]
        return unknown(
            call, f"its windows differ: {source} to {target}", "Try nn.AvgPool2d with the window written out."
        )
    return _pool(call, kernel, kernel)


def adaptive_kernel(call: Call, value: Value) -> Pair | None:
    """Return the window of an adaptive pool whose output size divides its input size, else None."""
    sizes = list(zip(value.shape[2:], call.shape[2:], strict=True))
    if len(value.shape) not in (3, 4) or any(edge % size for edge, size in sizes):
        return None
    return _of_map([edge // size for edge, size in sizes], 1)


def read_max_pool(call: Call, given: Arguments) -> Nodes:
    """Return the refusal of ``max_pool1d`` or ``max_pool2d``, with the average pool that may stand in its place."""
    kernel, stride, padding = _window(given)
    node = None
    if _pair(given, "dilation", 1) == (1, 1) and _is_plain(call, given["input"], Window(kernel, stride, padding)):
        node = _pool(call, kernel, stride, padding)[0]
    return unknown(call, "a maximum over spikes is no sum", _TRAIN, substitute("max_pool", node))


def read_adaptive_max_pool(call: Call, given: Arguments) -> Nodes:
    """Return the refusal of ``adaptive_max_pool2d``, with the average pool that may stand in its place."""
    kernel = adaptive_kernel(call, given["input"])
    node = None if kernel is None else _pool(call, kernel, kernel)[0]
    return unknown(call, "a maximum over spikes is no sum", _TRAIN, substitute("adaptive_max_pool", node))


def read_lp_pool(call: Call, given: Arguments) -> Nodes:
    """Return the sum pool of ``lp_pool2d`` with a norm of 1."""
    kernel, stride, _ = _window(given)
    if given["norm_type"] != 1 or stride != kernel or not _is_plain(call, given["input"], Window(kernel, stride)):
        reason = f"norm_type={given['norm_type']:g}, kernel {kernel}, stride {stride}"
        return unknown(call, reason, "Try nn.AvgPool2d instead.")
    return (SumPool(*common(call), kernel),)


def read_reduction(call: Call, given: Arguments) -> Nodes:
    """Return the pool of ``mean`` or ``sum`` over the axes of the map; a Flatten behind it where they are dropped."""
    value, axes = given["input"], given.get("dim")
    n_axes = len(value.shape)
    chosen = {int(axis) % n_axes for axis in ((axes,) if isinstance(axes, int) else axes or range(n_axes))}
    keeps = bool(given.get("keepdim", False))
    if n_axes not in (3, 4) or not chosen <= set(range(2, n_axes)) or not (keeps or len(chosen) == n_axes - 2):
        reason = f"a {call.op} along axes {sorted(chosen)} of {value.shape}, the batch being axis 0"
        return unknown(call, reason, "Try a global average pool: x.mean((2, 3)).")
    kernel = _of_map([edge if axis in chosen else 1 for axis, edge in enumerate(value.shape) if axis >= 2], 1)
    name, label, inputs, shape = common(call)
    inner, map_of = (name, shape) if keeps else (f"{name}.pool", (value.shape[1], 1, 1))
    made = (inner, label, inputs, map_of)
    pool = AvgPool(*made, kernel, kernel) if call.op == "mean" else SumPool(*made, kernel)
    return (pool,) if keeps else (pool, Flatten(name, label, (inner,), shape))


def read_pad(call: Call, given: Arguments) -> Nodes:
    """Return the zeros of ``pad`` around a map."""
    sides = [int(side) for side in given["pad"]]
    mode, value = given.get("mode", "constant"), given.get("value") or 0.0
    if mode != "constant" or value != 0:
        what = f"padding_mode='{mode}'" if mode != "constant" else f"pads with {value:g}"
        return unknown(call, what, "Try padding_mode='zeros'.")
    if not any(sides):
        return (Skip(*common(call)),)
    n_map = len(given["input"].shape) - 2
    if min(sides) < 0 or n_map not in (1, 2) or any(sides[2 * n_map :]):
        return unknown(call, f"pads by {sides}", "Try padding rows and columns only, by 0 or more.")
    left, right, top, bottom = (sides[: 2 * n_map] + [0] * 4)[:4]
    return (Pad(*common(call), (top, bottom, left, right)),)


def _window(given: Arguments) -> tuple[Pair, Pair, Pair]:
    kernel = _pair(given, "kernel_size", 1)
    has_stride = given.get("stride") not in (None, (), [])
    return kernel, _pair(given, "stride", 1) if has_stride else kernel, _pair(given, "padding", 0)


def _is_plain(call: Call, value: Value, window: Window) -> bool:
    """Return whether the result is as large as without ceil_mode."""
    size = map_shape(value.shape)[1:]
    return len(size) == 2 and window.out_size((size[0], size[1])) == map_shape(call.shape)[1:]


def _pair(given: Arguments, name: str, neutral: int) -> Pair:
    """Return ``(y, x)`` of a size: one number for all axes, or one for each; ``neutral`` is what changes nothing."""
    value, n_axes = given.get(name, neutral), len(given["input"].shape) - 2
    values = [int(part) for part in value] if isinstance(value, (tuple, list)) else [int(value)]
    return _of_map(values * n_axes if len(values) == 1 else values, neutral)


def _of_map(values: list[int], neutral: int) -> Pair:
    """Return ``(y, x)`` of one number for each axis of the map; what has one axis is of height 1."""
    return (values[-2] if len(values) > 1 else neutral, values[-1])


def finite(tensor: Any, name: str) -> Any:
    """Return a constant as an array, float32 unless it is of double precision; None as None.

    Raises: WeightValueError for NaN or infinity, with the name of the layer.
    """
    if tensor is None:
        return None
    plain = tensor.detach().cpu()
    array = (plain if plain.element_size() == 8 and plain.is_floating_point() else plain.float()).numpy()
    bad = math.prod(array.shape) - int(np.isfinite(array).sum())
    if bad:
        raise WeightValueError(
            f"layer '{name}': expected finite numbers, found {bad} NaN or infinite of {array.size}. "
            "Try training again with a lower learning rate, or another checkpoint."
        )
    return array
