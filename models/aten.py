"""Operators of torch's export format, one by one: only those that compute from their arguments alone."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_VALUES = 1 << 28
"""Most values of one result."""

_OF_SIZES: Mapping[str, Callable[[Any, Any], Any]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
}
"""What a forward reckons with the batch size."""

_CHECKS = frozenset({"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size"})
"""What torch.export adds to check sizes; nothing comes out of them."""

_LAYERS = frozenset(
    {
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "linear", "matmul", "einsum"),
        *("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm", "dropout", "feature_dropout"),
        *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_min_", "clip"),
        *("leaky_relu", "leaky_relu_", "prelu", "elu", "elu_", "selu", "celu", "gelu", "silu", "silu_", "mish"),
        *("hardswish", "hardswish_", "hardsigmoid", "softplus", "threshold", "threshold_", "sigmoid", "tanh"),
        *("softmax", "log_softmax", "max_pool1d", "max_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d"),
        *("flatten", "reshape", "view_as", "unflatten", "pad", "to", "contiguous", "detach", "detach_", "concat"),
        *("concatenate", "chunk", "split", "stack", "unbind", "transpose", "t", "numpy_T", "movedim", "narrow"),
        *("add_", "sub_", "mul_", "div_", "rsub", "true_divide", "multiply", "zeros", "ones", "zeros_like"),
        *("ones_like", "lift_fresh_copy", "lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention"),
        *("pixel_shuffle", "pixel_unshuffle", "upsample_nearest1d", "embedding", "expand_as", "norm", "std", "var"),
        *("linalg_vector_norm", "avg_pool2d", "dropout_", "hardsigmoid_", "channel_shuffle", "square", "roll"),
    }
)
"""Operators beside torch's core set that forwards of CNNs are exported as."""

_NOT_READ = frozenset({"resize_", "as_strided", "empty", "empty_strided"})
"""Of the core set: what looks at memory that was not written."""


def operator_problem(target: str) -> str | None:
    """Return why the operator called ``target`` is not run, None where it is."""
    import torch

    if target in _OF_SIZES:
        return None
    found = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target, re.ASCII)
    overload = getattr(getattr(torch.ops.aten, found[1], None), found[2], None) if found else None
    if found is None or not isinstance(overload, torch._ops.OpOverload):
        return f"expected operators of torch.ops.aten, found '{target:.80}'"
    is_core = torch.Tag.core in overload.tags and found[1] not in _NOT_READ
    return None if is_core or found[1] in _LAYERS | _CHECKS else f"the operator '{target:.80}' is not read"


@dataclasses.dataclass(frozen=True)
class _Named:
    """A value that an earlier operator gave."""

    name: str


@dataclasses.dataclass(frozen=True)
class _AsInput:
    """What the input of the network has: its ``dtype`` or its ``device``."""

    what: str


def operation(node: Mapping[str, Any]) -> nn.Module:
    """Return one node of an exported graph as a module, which takes all values by name and adds its own.

    ``captured_as`` is the place and kind of the layer that the operator was part of.
    """
    from torch import nn

    target = str(node["target"])
    args = tuple(_argument(given["arg"]) for given in node["inputs"] if given.get("kind", 1) == 1)
    named = {str(given["name"]): _argument(given["arg"]) for given in node["inputs"] if given.get("kind", 1) != 1}
    if _is_factory(target):
        named.setdefault("device", _AsInput("device"))  # so that nothing is allocated in a run without numbers
    results = [name for result in node["outputs"] for name in _result_names(result)]

    class Operation(nn.Module):
        """One operator."""

        def __init__(self) -> None:
            super().__init__()
            self.captured_as = _captured_as(target, str(node["metadata"].get("nn_module_stack", "")))

        def forward(self, values: dict[str, Any], given: torch.Tensor) -> Any:
            result = _function(target)(
                *(_resolved(one, values, given) for one in args),
                **{name: _resolved(one, values, given) for name, one in named.items()},
            )
            parts = result if isinstance(result, (tuple, list)) else (result,)
            for name, part in zip(results, parts, strict=True):
                if getattr(part, "numel", int)() > MAX_VALUES:
                    raise ValueError(f"'{name:.60}' has {part.numel()} values, expected at most {MAX_VALUES}")
                values[name] = part
            return result

    return Operation()


def _is_factory(target: str) -> bool:
    """Return whether an operator makes a tensor of numbers and sizes alone."""
    arguments = getattr(getattr(_function(target), "_schema", None), "arguments", ())
    names = {argument.name for argument in arguments}
    return "device" in names and not any("Tensor" in str(argument.type) for argument in arguments)


def _function(target: str) -> Callable[..., Any]:
    import torch

    if target in _OF_SIZES:
        return _OF_SIZES[target]
    name, overload = target.split(".")[-2:]
    if name in _CHECKS:
        return lambda *_, **__: ()
    if name == "_native_batch_norm_legit_no_training":
        return _batch_norm
    function: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload)
    return function


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float) -> Any:
    """Return the norm with the two empty tensors that the core operator gives beside it."""
    import torch

    normed = torch.batch_norm(x, weight, bias, mean, variance, False, momentum, eps, False)
    return normed, torch.empty(0), torch.empty(0)


def _captured_as(target: str, stack: str) -> tuple[str, str]:
    """Return name and kind of the layer that an operator belongs to, else those of the operator where it stands."""
    _, path, kind = ([*stack.rpartition(";")[2].split(","), "", "", ""])[:3]
    if kind.startswith("torch.nn.modules.") and ".container." not in kind:
        return path, kind.rpartition(".")[2]
    name = target.split(".")[-2].strip("_")
    return (f"{path}.{name}" if path and not path.startswith("_empty") else name), f"aten.{name}"


def _resolved(item: Any, values: Mapping[str, Any], given: torch.Tensor) -> Any:
    if isinstance(item, _Named):
        return values[item.name]
    if isinstance(item, _AsInput):
        return getattr(given, item.what)
    return [_resolved(part, values, given) for part in item] if isinstance(item, list) else item


def _argument(arg: Mapping[str, Any]) -> Any:
    """Return an argument of the file: a number, a word, or what is filled in when it is run."""
    import torch

    ((kind, content),) = arg.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor" | "as_sym_int" | "as_optional_tensor" | "as_sym_float" | "as_sym_bool":
            return _reference(content)
        case "as_tensors" | "as_optional_tensors" | "as_sym_ints":
            return [_reference(part) for part in content]
        case "as_int" | "as_float" | "as_bool" | "as_string" | "as_ints" | "as_floats" | "as_bools":
            return content
        case "as_scalar_type":
            # float32 is what networks are exported in; it stands for the dtype that the network is run in
            return _AsInput("dtype") if content == 7 else getattr(torch, DTYPES[content])
        case "as_device":
            return _AsInput("device")
        case "as_layout":
            return torch.strided
        case "as_memory_format":
            return torch.preserve_format if content == 4 else torch.contiguous_format
    raise ValueError(f"an argument of kind '{kind:.40}'")


DTYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"},
    **{12: "bool", 13: "bfloat16"},
}
"""Names by their codes in the file, as torch's export schema 8 numbers them."""


def _reference(content: Mapping[str, Any]) -> Any:
    """Return a named value or a number of a union: a name, a plain number, or nothing."""
    for key in ("name", "as_name"):
        if key in content:
            return _Named(str(content[key]))
    ((kind, inner),) = content.items()
    if kind == "as_none":
        return None
    return _Named(str(inner["name"])) if kind == "as_tensor" else inner


def _result_names(result: Mapping[str, Any]) -> list[str]:
    ((kind, content),) = result.items()
    if kind == "as_none":
        return []
    names = content if kind in ("as_tensors", "as_optional_tensors") else [content]
    return [_reference(part).name for part in names]
