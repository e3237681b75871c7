"""ONNX operations as the torch calls that do the same, so that they are read as those of a module are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from spikeport.convert.calls import Call, Value

from .onnx_given import Given, Operand, Problem, Translation, Translator
from .onnx_windows import read_average_pool, read_conv, read_conv_transpose, read_max_pool


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


def _leaky_relu(given: Given) -> Translation:
    return given.becomes("leaky_relu", input=given.operand(0), negative_slope=given.attribute("alpha", 0.01))


def _batch_norm(given: Given) -> Translation:
    weight, bias, mean, variance = (given.operand(index) for index in (1, 2, 3, 4))
    epsilon = float(given.attribute("epsilon", 1e-5))
    if not isinstance(variance, Value) and variance is not None and bool((variance + epsilon <= 0).any()):
        return Problem("", "its variances are below 0", "Try exporting the trained network again.")
    return given.becomes(
        "batch_norm",
        input=given.operand(0),
        weight=weight,
        bias=bias,
        running_mean=mean,
        running_var=variance,
        training=bool(given.attribute("training_mode", 0)),
        eps=epsilon,
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
    "Conv": read_conv,
    "ConvTranspose": read_conv_transpose,
    "AveragePool": read_average_pool,
    "MaxPool": read_max_pool,
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
    "Concat": lambda given: given.becomes("cat", tensors=list(given.operands), dim=given.attribute("axis", 1)),
    "Relu": _same("relu"),
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
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
