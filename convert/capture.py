"""torch module to Graph, by torch.fx: every operation becomes one node, none is left out."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import CaptureError, WeightValueError
from .geometry import Pair, Shape3
from .graph import AvgPool, BatchNorm, Conv, Flatten, Graph, Input, Linear, Node, Relu, Shape, Skip, SumPool, Unknown

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

_TRY_SEQUENTIAL = "Try to write it as an nn.Sequential of Conv2d, Linear, ReLU, AvgPool2d and Flatten."


def capture(module: nn.Module, input_shape: Shape3) -> Graph:
    """Return the graph of ``module`` in evaluation mode, for inputs of ``[N, C, H, W]``.

    Shapes: ``input_shape`` is ``(C, H, W)``.
    Law: ``evaluate(capture(m, s), x)`` equals ``m.eval()(x)`` unless a node is ``Unknown``; ``m`` is left as it was.
    Raises: CaptureError where the module cannot be traced or does not run; WeightValueError for weights not finite.
    """
    import copy

    import torch
    from torch import fx
    from torch.fx.passes.shape_prop import ShapeProp

    if not isinstance(module, torch.nn.Module):
        raise CaptureError(f"expected a torch.nn.Module, found {type(module).__name__}. Try the model itself.")
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise CaptureError(f"input_shape: expected (channels, height, width), found {tuple(input_shape)}.")
    name, probe = type(module).__name__, torch.zeros(2, *input_shape)
    try:
        private = copy.deepcopy(module).cpu().float().eval()
    except Exception as cause:  # the user's own __deepcopy__, or parametrizations that cannot be copied
        raise CaptureError(
            f"{name} cannot be copied: {first_line(cause)}. Try torch.nn.utils.remove_weight_norm, or plain layers."
        ) from cause
    try:
        with torch.no_grad():
            private(probe)
    except Exception as cause:  # the user's forward may raise anything
        raise CaptureError(
            f"{name} does not run on an input of {tuple(input_shape)} (a batch of two): {first_line(cause)}. "
            "Try the (channels, height, width) that it was trained on."
        ) from cause
    try:
        program = fx.GraphModule(private, _tracer().trace(private))
        with torch.no_grad():
            ShapeProp(program).propagate(probe)
    except Exception as cause:  # tracing runs the user's forward on stand-ins for tensors
        raise CaptureError(f"torch.fx cannot trace {name}: {first_line(cause)}. {_TRY_SEQUENTIAL}") from cause
    return _graph(program)


def first_line(cause: BaseException) -> str:
    """Return the first line of an error's message without its full stop, or the error's name."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0].rstrip(".")


def _tracer() -> fx.Tracer:
    from torch import fx

    class LeafTracer(fx.Tracer):
        """Looks into the user's own modules, never into torch's layers nor subclasses of the layers known here."""

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, tuple(_module_readers())) or super().is_leaf_module(m, module_qualified_name)

    return LeafTracer()


def _graph(program: fx.GraphModule) -> Graph:
    names = _names(program)
    nodes = [_read(fx_node, program, names) for fx_node in program.graph.nodes if fx_node.op != "output"]
    output = names[_output(program)]
    if sum(isinstance(node, Input) for node in nodes) != 1:
        n_inputs = sum(isinstance(node, Input) for node in nodes)
        raise CaptureError(f"expected a module with one input, found {n_inputs}. Try a wrapper that sets the others.")
    return Graph(_reachable(tuple(nodes), output), output)


def _reachable(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """Leave out what the output does not depend on: it computes nothing that is seen."""
    wanted = {output, *(node.name for node in nodes if isinstance(node, Input))}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return tuple(node for node in nodes if node.name in wanted)


def _output(program: fx.GraphModule) -> fx.Node:
    from torch import fx

    value = next(node for node in program.graph.nodes if node.op == "output").args[0]
    if not isinstance(value, fx.Node):
        raise CaptureError(f"expected a module that returns one tensor, found {value!r}. Try a wrapper that picks one.")
    return value


def _names(program: fx.GraphModule) -> dict[fx.Node, str]:
    """Name each node after the user's attribute; a bare index in an nn.Sequential gets its kind in front: conv0."""
    names: dict[fx.Node, str] = {}
    for fx_node in program.graph.nodes:
        name = str(fx_node.target) if fx_node.op == "call_module" else str(fx_node.name)
        if name.isdigit():
            name = _label(fx_node, program).lower().removesuffix("2d").removesuffix("1d") + name
        repeat = sum(taken == name or taken.startswith(f"{name}@") for taken in names.values())
        names[fx_node] = f"{name}@{repeat + 1}" if repeat else name
    return names


def _read(fx_node: fx.Node, program: fx.GraphModule, names: dict[fx.Node, str]) -> Node:
    """Return the graph node of one fx node; what is not known becomes ``Unknown`` with a reason and a fix."""
    inputs = tuple(names[node] for node in fx_node.all_input_nodes if _is_tensor(node))
    common = (names[fx_node], _label(fx_node, program), inputs, _shape(fx_node))
    if fx_node.op == "placeholder":
        return Input(*common)
    if fx_node.op == "get_attr":
        return Unknown(*common, "a bare parameter is no layer", _TRY_SEQUENTIAL)
    if fx_node.op == "call_module":
        module = program.get_submodule(str(fx_node.target))
        for kind, read in _module_readers().items():
            if isinstance(module, kind):
                return read(module, *common)
        return _unknown_layer(type(module), *common)
    if fx_node.target in _relu_functions():
        return Relu(*common)
    if fx_node.target in _flatten_functions():
        return _read_flatten_call(fx_node, *common)
    if fx_node.target in _skip_functions():
        return _read_dropout_call(fx_node, *common)
    return Unknown(*common, *_advice(common[1]))


def _label(fx_node: fx.Node, program: fx.GraphModule) -> str:
    if fx_node.op == "placeholder":
        return "input"
    if fx_node.op == "call_module":
        return type(program.get_submodule(str(fx_node.target))).__name__
    if fx_node.op == "call_method":
        return f"Tensor.{fx_node.target}"
    return str(getattr(fx_node.target, "__name__", fx_node.target))


def _is_tensor(fx_node: fx.Node) -> bool:
    return hasattr(fx_node.meta.get("tensor_meta"), "shape")


def _shape(fx_node: fx.Node) -> Shape:
    return tuple(int(edge) for edge in fx_node.meta["tensor_meta"].shape[1:]) if _is_tensor(fx_node) else ()


def _relu_functions() -> tuple[object, ...]:
    import torch
    import torch.nn.functional as F

    return torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_"


def _flatten_functions() -> tuple[object, ...]:
    import torch

    return torch.flatten, "flatten", "view", "reshape", torch.reshape


def _skip_functions() -> tuple[object, ...]:
    import torch.nn.functional as F

    return F.dropout, F.dropout2d, "contiguous"


def _read_dropout_call(fx_node: fx.Node, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Node:
    training = fx_node.kwargs.get("training", fx_node.args[2] if len(fx_node.args) > 2 else True)
    if "dropout" in label and training:
        return Unknown(
            name, label, inputs, shape, "drops in evaluation too", "Try training=self.training, or nn.Dropout."
        )
    return Skip(name, label, inputs, shape)


def _read_flatten_call(fx_node: fx.Node, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Node:
    source = _shape(next(node for node in fx_node.all_input_nodes if _is_tensor(node)))
    if len(inputs) == 1 and len(shape) == 1 and shape[0] == int(np.prod(source)):
        return Flatten(name, label, inputs, shape)
    if len(inputs) == 1 and shape == source:
        return Skip(name, label, inputs, shape)
    return Unknown(
        name,
        label,
        inputs,
        shape,
        f"reshapes {source} to {shape}",
        "Try nn.Flatten(): only channels first to one axis.",
    )


Reader = Callable[..., Node]


def _module_readers() -> dict[type, Reader]:
    from torch import nn

    return {
        nn.Conv2d: _read_conv,
        nn.Linear: _read_linear,
        nn.BatchNorm1d: _read_batchnorm,
        nn.BatchNorm2d: _read_batchnorm,
        nn.ReLU: lambda _module, *common: Relu(*common),
        nn.AvgPool2d: _read_avgpool,
        nn.Flatten: _read_flatten,
        nn.Dropout: lambda _module, *common: Skip(*common),
        nn.Dropout1d: lambda _module, *common: Skip(*common),
        nn.Dropout2d: lambda _module, *common: Skip(*common),
        nn.Identity: lambda _module, *common: Skip(*common),
        nn.LPPool2d: _read_sumpool,
    }


def _read_conv(module: nn.Conv2d, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Node:
    common = (name, label, inputs, shape)
    problems = []
    if module.groups != 1:
        problems.append((f"groups={module.groups}", "Try groups=1; the chip has no grouped convolution."))
    if tuple(module.dilation) != (1, 1):
        problems.append((f"dilation={tuple(module.dilation)}", "Try dilation=1 with a larger kernel."))
    if module.padding_mode != "zeros":
        problems.append((f"padding_mode='{module.padding_mode}'", "Try padding_mode='zeros'."))
    padding = _padding(module)
    if padding is None:
        problems.append((f"padding={module.padding!r} of an even kernel", "Try an odd kernel or a padding in numbers."))
    if problems or padding is None:
        return Unknown(*common, " and ".join(reason for reason, _ in problems), " ".join(fix for _, fix in problems))
    stride = (int(module.stride[0]), int(module.stride[1]))
    return Conv(*common, _array(module.weight, name), _bias(module.bias, name), stride, padding)


def _padding(module: nn.Conv2d) -> Pair | None:
    if module.padding == "valid":
        return 0, 0
    if module.padding == "same":
        ky, kx = module.kernel_size
        return ((ky - 1) // 2, (kx - 1) // 2) if ky % 2 and kx % 2 else None
    return int(module.padding[0]), int(module.padding[1])


def _read_linear(module: nn.Linear, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Node:
    common = (name, label, inputs, shape)
    if len(shape) != 1:
        return Unknown(*common, f"a Linear over an input that is not flat gives {shape}", "Try nn.Flatten() before it.")
    return Linear(*common, _array(module.weight, name), _bias(module.bias, name))


def _read_batchnorm(
    module: nn.BatchNorm1d | nn.BatchNorm2d, name: str, label: str, inputs: tuple[str, ...], shape: Shape
) -> Node:
    common = (name, label, inputs, shape)
    if module.running_mean is None or module.running_var is None:
        return Unknown(*common, "no running statistics", "Try track_running_stats=True, so that it can be folded.")
    mean, variance = _array(module.running_mean, name), _array(module.running_var, name)
    gain = _array(module.weight, name) if module.weight is not None else np.ones_like(mean)
    shift = _array(module.bias, name) if module.bias is not None else np.zeros_like(mean)
    # Source: the definition of torch.nn.BatchNorm2d; leaving the epsilon out is a 41 % error at a variance of 1e-5.
    scale = gain.astype(np.float64) / np.sqrt(variance.astype(np.float64) + module.eps)
    return BatchNorm(*common, scale, shift.astype(np.float64) - mean.astype(np.float64) * scale)


def _read_avgpool(module: nn.AvgPool2d, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Node:
    common = (name, label, inputs, shape)
    kernel, stride, padding = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
    if stride != kernel or padding != (0, 0) or module.ceil_mode or module.divisor_override is not None:
        reason = f"kernel {kernel}, stride {stride}, padding {padding}, ceil_mode={module.ceil_mode}"
        reason += "" if module.divisor_override is None else f", divisor_override={module.divisor_override}"
        return Unknown(*common, reason, f"Try nn.AvgPool2d({kernel}) and nothing else.")
    return AvgPool(*common, kernel)


def _read_sumpool(module: nn.LPPool2d, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Node:
    common = (name, label, inputs, shape)
    kernel = _pair(module.kernel_size)
    stride = kernel if module.stride is None else _pair(module.stride)
    if module.norm_type != 1 or stride != kernel or module.ceil_mode:
        return Unknown(*common, f"norm_type={module.norm_type}, stride {stride}", "Try nn.AvgPool2d instead.")
    return SumPool(*common, kernel)


def _read_flatten(module: nn.Flatten, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Node:
    common = (name, label, inputs, shape)
    if len(shape) != 1:
        return Unknown(*common, f"start_dim={module.start_dim}", "Try nn.Flatten(): all axes but the batch.")
    return Flatten(*common)


def _unknown_layer(kind: type, name: str, label: str, inputs: tuple[str, ...], shape: Shape) -> Unknown:
    return Unknown(name, label, inputs, shape, *_advice(kind.__name__))


_ADVICE = {
    "MaxPool2d": ("a maximum over spikes is no sum", "Try nn.AvgPool2d of the same size and train again."),
    "max_pool2d": ("a maximum over spikes is no sum", "Try nn.AvgPool2d of the same size and train again."),
    "AdaptiveAvgPool2d": ("its window depends on the input", "Try nn.AvgPool2d with the window written out."),
    "avg_pool2d": ("a functional pool", "Try nn.AvgPool2d as a layer."),
    "ReLU6": ("spiking neurons have no upper bound of their own", "Try nn.ReLU and train again."),
    "LeakyReLU": ("negative outputs cannot be spikes", "Try nn.ReLU and train again."),
    "PReLU": ("negative outputs cannot be spikes", "Try nn.ReLU and train again."),
    "Softmax": ("no spiking counterpart", "Try to leave it out: the class with the most spikes is the same."),
    "LogSoftmax": ("no spiking counterpart", "Try to leave it out: the class with the most spikes is the same."),
    "softmax": ("no spiking counterpart", "Try to leave it out: the class with the most spikes is the same."),
    "Sigmoid": ("no spiking counterpart", "Try nn.ReLU and train again."),
    "Tanh": ("no spiking counterpart", "Try nn.ReLU and train again."),
    operator.add.__name__: ("branches that meet are not supported", "Try a plain chain of layers."),
    "cat": ("branches that meet are not supported", "Try a plain chain of layers."),
}


def _advice(label: str) -> tuple[str, str]:
    return _ADVICE.get(label, ("no spiking counterpart is known", _TRY_SEQUENTIAL))


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _bias(bias: torch.Tensor | None, name: str) -> NDArray[np.float32] | None:
    return None if bias is None else _array(bias, name)


def _array(tensor: torch.Tensor, name: str) -> NDArray[np.float32]:
    array = np.asarray(tensor.detach().cpu().float().numpy(), np.float32)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise WeightValueError(
            f"layer '{name}': expected finite numbers, found {bad} NaN or infinite of {array.size}. "
            "Try training again with a lower learning rate, or another checkpoint."
        )
    return array
