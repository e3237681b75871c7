"""ONNX operations as the torch calls that do the same, so that they are read as those of a module are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .calls import Call, Value
from .onnx_file import Operation

Operand = Any
"""A ``Value``, a torch tensor, or None for an operand that is left out."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why an operation cannot be read, and what to try; without words, what is known of the torch function ``op``."""

    op: str
    reason: str = ""
    fix: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """An operation with its operands, and the call that it becomes, which has no operands yet."""

    operation: Operation
    operands: tuple[Operand, ...]
    call: Call

    def operand(self, index: int) -> Operand:
        """Return an operand, None where it is left out."""
        return self.operands[index] if index < len(self.operands) else None

    def attribute(self, name: str, missing: Any) -> Any:
        """Return an attribute, or ``missing`` where it is left out."""
        value = self.operation.attributes.get(name)
        return missing if value is None else value

    def numbers(self, name: str, index: int | None = None) -> list[float] | None:
        """Return an attribute, or the operand that newer files have in its place, as a list; None for neither."""
        value = self.operation.attributes.get(name)
        if value is None and index is not None:
            value = self.operand(index)
        return None if value is None or isinstance(value, Value) else np.ravel(np.asarray(value)).tolist()

    def becomes(self, op: str, **named: Operand) -> tuple[Call]:
        """Return the call of one torch function."""
        return (dataclasses.replace(self.call, op=op, kwargs=named),)


Calls = tuple[Call, ...]
Translation = Calls | Problem
Translator = Callable[[Given], Translation]


def translated(given: Given) -> Translation:
    """Return the calls that an operation becomes, the last with its name, or why there are none."""
    translate = _TRANSLATORS.get(given.operation.op)
    if translate is None:
        return Problem(_REFUSED.get(given.operation.op, given.operation.op.lower()))
    return translate(given)


def _same(op: str, **named: Operand) -> Translator:
    """Return the translator to a function of one operand, with arguments that are always the same."""
    return lambda given: given.becomes(op, input=given.operand(0), **named)


def _both(op: str) -> Translator:
    return lambda given: given.becomes(op, input=given.operand(0), other=given.operand(1))


def _slope(op: str, missing: float) -> Translator:
    return lambda given: given.becomes(
        op, input=given.operand(0), negative_slope=float(given.attribute("alpha", missing))
    )


@dataclasses.dataclass(frozen=True)
class _Window:
    """The attributes of a kernel that moves over a map, one number for each axis of the map."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    before: list[int]
    after: list[int]


def _window(given: Given, kernel: list[int] | None) -> _Window | Problem:
    """Return the window over the first operand; zeros at the sides worked out where the file says how to."""
    value = given.operand(0)
    sizes = value.shape[2:] if isinstance(value, Value) else ()
    n_axes = len(sizes)
    kernel = [int(edge) for edge in given.attribute("kernel_shape", kernel or [])]
    stride = [int(step) for step in given.attribute("strides", [1] * n_axes)]
    dilation = [int(gap) for gap in given.attribute("dilations", [1] * n_axes)]
    pads = [int(side) for side in given.attribute("pads", [0] * (2 * n_axes))]
    if not len(kernel) == len(stride) == len(dilation) == n_axes or len(pads) != 2 * n_axes or n_axes not in (1, 2):
        return Problem("", f"a window along {len(kernel)} axes of {sizes}", "Try inputs of [N, C, H, W] or [N, C, L].")
    if min(kernel + stride + dilation, default=1) < 1:
        return Problem("", f"kernel {kernel}, strides {stride}, dilations {dilation}", "Try numbers of 1 or more.")
    before, after = pads[:n_axes], pads[n_axes:]
    auto = given.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        spans = [gap * (edge - 1) + 1 for gap, edge in zip(dilation, kernel, strict=True)]
        total = [
            max((-(-size // step) - 1) * step + span - size, 0)
            for size, step, span in zip(sizes, stride, spans, strict=True)
        ]
        less, more = [zeros // 2 for zeros in total], [zeros - zeros // 2 for zeros in total]
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
    elif auto == "VALID":
        before, after = [0] * n_axes, [0] * n_axes
    return _Window(kernel, stride, dilation, before, after)


def _padded(given: Given, window: _Window) -> tuple[Calls, Value, list[int]]:
    """Return a call that pads where sides differ or are negative, the value to read, and the padding left to do."""
    value = given.operand(0)
    if window.before == window.after and min(window.before) >= 0:
        return (), value, window.before
    sides = [side for pair in reversed(list(zip(window.before, window.after, strict=True))) for side in pair]
    sizes = [
        size + first + last for size, first, last in zip(value.shape[2:], window.before, window.after, strict=True)
    ]
    padded = Value(f"{given.call.name}@pad", (*value.shape[:2], *sizes))
    call = dataclasses.replace(
        given.call, op="pad", name=padded.name, kwargs={"input": value, "pad": sides}, shape=padded.shape
    )
    return (call,), padded, [0] * len(sizes)


def _conv(given: Given) -> Translation:
    weight = given.operand(1)
    if isinstance(weight, Value) or weight is None:
        return Problem("", "its weights depend on the input", "Try weights that training has fixed.")
    window = _window(given, list(weight.shape[2:]))
    if isinstance(window, Problem):
        return window
    if list(weight.shape[2:]) != window.kernel:
        return Problem("", f"weights {list(weight.shape)} for a kernel of {window.kernel}", "Try exporting it again.")
    pad, value, padding = _padded(given, window)
    return (
        *pad,
        *given.becomes(
            "conv2d" if len(window.kernel) == 2 else "conv1d",
            input=value,
            weight=weight,
            bias=given.operand(2),
            stride=window.stride,
            padding=padding,
            dilation=window.dilation,
            groups=int(given.attribute("group", 1)),
        ),
    )


def _conv_transpose(given: Given) -> Translation:
    weight = given.operand(1)
    if isinstance(weight, Value) or weight is None:
        return Problem("", "its weights depend on the input", "Try weights that training has fixed.")
    window = _window(given, list(weight.shape[2:]))
    if isinstance(window, Problem):
        return window
    is_plain = given.attribute("auto_pad", "NOTSET") == "NOTSET" and given.attribute("output_shape", None) is None
    if not is_plain or window.before != window.after or min(window.before) < 0:
        return Problem("", "its output is cut off unevenly", "Try the same padding on both sides, and no output_shape.")
    return given.becomes(
        "conv_transpose2d" if len(window.kernel) == 2 else "conv_transpose1d",
        input=given.operand(0),
        weight=weight,
        bias=given.operand(2),
        stride=window.stride,
        padding=window.before,
        output_padding=[int(more) for more in given.attribute("output_padding", [0] * len(window.kernel))],
        dilation=window.dilation,
        groups=int(given.attribute("group", 1)),
    )


def _average_pool(given: Given) -> Translation:
    window = _window(given, None)
    if isinstance(window, Problem):
        return window
    if set(window.dilation) != {1}:
        return Problem("", f"its window has gaps: dilations {window.dilation}", "Try a window without gaps.")
    counts = bool(given.attribute("count_include_pad", 0))
    if window.before != window.after and not counts:
        return Problem("", "padded zeros do not count", "Try count_include_pad=True.")
    pad, value, padding = _padded(given, window)
    pool = given.becomes("avg_pool2d", input=value, kernel_size=window.kernel, stride=window.stride, padding=padding)
    return (*pad, dataclasses.replace(pool[0], kwargs={**pool[0].kwargs, "count_include_pad": counts}))


def _max_pool(given: Given) -> Translation:
    window = _window(given, None)
    if isinstance(window, Problem) or window.before != window.after:
        return Problem("max_pool2d", "a maximum over spikes is no sum", "Try nn.AvgPool2d and train again.")
    return given.becomes(
        "max_pool2d",
        input=given.operand(0),
        kernel_size=window.kernel,
        stride=window.stride,
        padding=window.before,
        dilation=window.dilation,
    )


def _batch_norm(given: Given) -> Translation:
    weight, bias, mean, variance = (given.operand(index) for index in (1, 2, 3, 4))
    return given.becomes(
        "batch_norm",
        input=given.operand(0),
        weight=weight,
        bias=bias,
        running_mean=mean,
        running_var=variance,
        training=bool(given.attribute("training_mode", 0)),
        eps=float(given.attribute("epsilon", 1e-5)),
    )


def _clip(given: Given) -> Translation:
    if any(isinstance(given.operand(index), Value) for index in (1, 2)):
        return Problem("clamp", "its bounds depend on the input", "Try bounds that are numbers.")
    low, high = given.numbers("min", 1), given.numbers("max", 2)
    return given.becomes(
        "clamp", input=given.operand(0), min=low[0] if low else None, max=high[0] if high else math.inf
    )


def _gemm(given: Given) -> Translation:
    import torch

    matrix, bias = given.operand(1), given.operand(2)
    if isinstance(matrix, Value) or isinstance(bias, Value) or given.attribute("transA", 0):
        return Problem("", "a product of two values", "Try nn.Linear: weights that training has fixed.")
    alpha, beta = float(given.attribute("alpha", 1.0)), float(given.attribute("beta", 1.0))
    weight = matrix if given.attribute("transB", 0) else matrix.t()
    weight = weight if alpha == 1 else weight.double() * alpha
    if bias is not None:
        bias = torch.as_tensor(bias if beta == 1 else bias.double() * beta)
        if bias.dim() > 1 and bias.shape[0] != 1:
            return Problem("", "a bias for each sample", "Try one bias for each feature.")
        bias = bias.reshape(-1).expand(weight.shape[0]) if bias.numel() == 1 else bias.reshape(-1)
    return given.becomes("linear", input=given.operand(0), weight=weight, bias=bias)


def _sum(given: Given) -> Translation:
    """Return the sum of any number of operands, one after the other."""
    calls: list[Call] = []
    total = given.operand(0)
    last = len(given.operands) - 1
    if last == 0:
        return given.becomes("identity", input=total)
    for index in range(1, last + 1):
        name = given.call.name if index == last else f"{given.call.name}@part{index}"
        named = {"input": total, "other": given.operand(index)}
        calls.append(dataclasses.replace(given.call, op="add", name=name, kwargs=named))
        total = Value(name, given.call.shape)
    return tuple(calls)


def _maximum(given: Given) -> Translation:
    if len(given.operands) != 2:
        return Problem("maximum")
    return given.becomes("maximum", input=given.operand(0), other=given.operand(1))


def _concat(given: Given) -> Translation:
    return given.becomes("cat", tensors=list(given.operands), dim=int(given.attribute("axis", 1)))


def _reduction(op: str) -> Translator:
    def translate(given: Given) -> Translation:
        axes = given.numbers("axes", 1)
        n_axes = len(given.operand(0).shape)
        if isinstance(given.operand(1), Value) or (not axes and given.attribute("noop_with_empty_axes", 0)):
            return Problem("", "its axes are not numbers", "Try a global average pool.")
        chosen = [int(axis) for axis in axes] if axes else list(range(n_axes))
        return given.becomes(op, input=given.operand(0), dim=chosen, keepdim=bool(given.attribute("keepdims", 1)))

    return translate


def _pad(given: Given) -> Translation:
    value = given.operand(0)
    pads, axes, number = given.numbers("pads", 1), given.numbers("axes", 3), given.numbers("value", 2)
    n_axes = len(value.shape)
    chosen = list(range(n_axes)) if axes is None else [int(axis) % n_axes for axis in axes]
    if pads is None or len(pads) != 2 * len(chosen):
        return Problem("pad", "its sides are not numbers", "Try padding= of the next Conv2d.")
    sides = {axis: (int(pads[index]), int(pads[index + len(chosen)])) for index, axis in enumerate(chosen)}
    listed = [side for axis in reversed(range(n_axes)) for side in sides.get(axis, (0, 0))]
    while len(listed) > 4 and listed[-2:] == [0, 0]:
        listed = listed[:-2]
    mode = given.attribute("mode", "constant")
    return given.becomes("pad", input=value, pad=listed, mode=mode, value=number[0] if number else 0.0)


def _dropout(given: Given) -> Translation:
    training = given.numbers("training_mode", 2)
    return given.becomes("dropout", input=given.operand(0), training=bool(training and training[0]))


def _transpose(given: Given) -> Translation:
    n_axes = len(given.operand(0).shape)
    order = given.attribute("perm", list(range(n_axes))[::-1])
    is_same = list(order) == list(range(n_axes))
    return given.becomes("identity", input=given.operand(0)) if is_same else Problem("permute")


def _slice(given: Given) -> Translation:
    """Return what takes a part, or all of it where the shape is the same and no step says otherwise."""
    steps = given.numbers("steps", 4)
    forward = all(step == 1 for step in steps or []) and not isinstance(given.operand(4), Value)
    return given.becomes("slice", input=given.operand(0)) if forward else Problem("slice")


_TRANSLATORS: Mapping[str, Translator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "GlobalAveragePool": _same("adaptive_avg_pool2d"),
    "GlobalMaxPool": _same("adaptive_max_pool2d"),
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _both("matmul"),
    "Add": _both("add"),
    "Sub": _both("sub"),
    "Mul": _both("mul"),
    "Div": _both("div"),
    "Sum": _sum,
    "Max": _maximum,
    "Neg": _same("neg"),
    "Concat": _concat,
    "Relu": _same("relu"),
    "Clip": _clip,
    "LeakyRelu": _slope("leaky_relu", 0.01),
    "PRelu": _same("prelu"),
    "Elu": _same("elu"),
    "Celu": _same("celu"),
    "Selu": _same("selu"),
    "Gelu": _same("gelu"),
    "Mish": _same("mish"),
    "HardSwish": _same("hardswish"),
    "Tanh": _same("tanh"),
    "Sigmoid": _same("sigmoid"),
    "HardSigmoid": _same("hardsigmoid"),
    "Softplus": _same("softplus"),
    "Softsign": _same("softsign"),
    "Softmax": _same("softmax"),
    "LogSoftmax": _same("log_softmax"),
    "ReduceMean": _reduction("mean"),
    "ReduceSum": _reduction("sum"),
    "Pad": _pad,
    "Dropout": _dropout,
    "Identity": _same("identity"),
    "Cast": _same("to"),
    "Flatten": _same("flatten"),
    "Reshape": _same("reshape"),
    "Squeeze": _same("squeeze"),
    "Unsqueeze": _same("unsqueeze"),
    "Expand": _same("expand"),
    "Transpose": _transpose,
    "Slice": _slice,
}

_REFUSED: Mapping[str, str] = {
    "Split": "split",
    "Gather": "select",
    "Resize": "interpolate",
    "Upsample": "interpolate",
    "DepthToSpace": "pixel_shuffle",
    "SpaceToDepth": "pixel_unshuffle",
    "LayerNormalization": "layer_norm",
    "InstanceNormalization": "instance_norm",
    "GroupNormalization": "group_norm",
    "RMSNormalization": "rms_norm",
    "LpNormalization": "normalize",
    "LRN": "local_response_norm",
    "LSTM": "lstm",
    "GRU": "gru",
    "RNN": "rnn_tanh",
    "Einsum": "einsum",
    "Attention": "scaled_dot_product_attention",
    "ReduceMax": "amax",
    "Min": "maximum",
}
"""Operations that are refused with what is known of the torch function beside them."""
