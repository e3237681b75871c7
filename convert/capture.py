"""torch module to Graph, by running it once: every operation becomes one node, none is left out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import CaptureError, UnsupportedLayerError
from .geometry import Shape3
from .graph import Graph, Input, Node, Shape
from .operations import read
from .record import INPUT_NAME, Recording, record

if TYPE_CHECKING:
    import torch
    from torch import nn

_N_PROBE = 2
"""Samples of the run that is recorded; a network of a ``.pt2`` file may know its own batch, ``exported_batch``."""

_COMPILED = "_orig_mod"
"""Where torch.compile keeps the module that it was given."""

_WRAPPER = "Try a wrapper with a forward that takes one tensor and returns one."


def capture(module: nn.Module, input_shape: Sequence[int]) -> Graph:
    """Return the graph of ``module`` in evaluation mode, for inputs of ``[N, *input_shape]``.

    The module runs once on a random batch of two; what it does with the input is recorded, function by function, so
    that control flow is followed as that batch took it, and layers of the user's own are looked into. What another
    batch would do differently shows in the gates of ``convert``.
    Shapes: ``input_shape`` is ``(C, H, W)``, ``(C, L)`` or ``(N,)``; a map in the graph is ``(C, H, W)``, of height 1
    for an axis of length, and a vector is ``(N,)``. The input is always a map, a vector of 1x1 pixel.
    Law: ``evaluate(capture(m, s), x)`` equals ``m.eval()(x)`` unless a node is ``Unknown``; ``m`` is left as it was.
    Raises: CaptureError where the module does not run, or takes or returns other than one tensor; WeightValueError for
    weights not finite; UnsupportedLayerError for one that says why it is ``not_convertible``.
    """
    import torch

    shape = _checked_shape(module, input_shape)
    private, name = _private(module), type(module).__name__
    n_batch = getattr(private, "exported_batch", None) or _N_PROBE
    probe = torch.rand(n_batch, *shape, generator=torch.Generator().manual_seed(0))
    recording = _recorded(private, probe, name)
    output = _output(recording, name, n_batch)
    nodes: list[Node] = [Input(INPUT_NAME, "input", (), _as_map(shape), shape)]
    for call in recording.calls:
        nodes += read(call, n_batch)
    return Graph(_reachable(tuple(nodes), output), output)


def first_line(cause: BaseException) -> str:
    """Return the first line of an error's message without its full stop, or the error's name."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0].rstrip(".")


def _checked_shape(module: object, input_shape: Sequence[int]) -> Shape:
    import torch

    if not isinstance(module, torch.nn.Module):
        raise CaptureError(f"expected a torch.nn.Module, found {type(module).__name__}. Try the model itself.")
    for child in module.modules():
        if (reason := getattr(child, "not_convertible", None)) is not None:
            raise UnsupportedLayerError(f"{type(child).__name__} has no spiking counterpart on the chip: {reason}.")
    if any(isinstance(child, torch.jit.ScriptModule) for child in module.modules()):
        raise CaptureError(
            f"{type(module).__name__} holds TorchScript, whose operations cannot be seen. "
            "Try the Python module that it was made from."
        )
    shape = tuple(int(edge) for edge in input_shape)
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise CaptureError(
            f"input_shape: expected (channels, height, width), (channels, length) or (features,), found {shape}. "
            "Try the shape of one sample."
        )
    required = _required_inputs(module)
    if required is not None and len(required) != 1:
        found = f"{len(required)}: {', '.join(required)}" if required else "none"
        raise CaptureError(
            f"{type(module).__name__}: expected a module with one input, found {found}. "
            "Try a wrapper that sets the others."
        )
    return shape


def _required_inputs(module: nn.Module) -> tuple[str, ...] | None:
    """Return the inputs that a forward cannot run without, None where one is enough for it."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = [one.name for one in parameters if one.default is one.empty and one in positional]
    required += [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    takes_one = positional or any(one.kind is one.VAR_POSITIONAL for one in parameters)
    return None if takes_one and len(required) <= 1 else tuple(required)


def _private(module: nn.Module) -> nn.Module:
    import copy

    try:
        private: nn.Module = copy.deepcopy(getattr(module, _COMPILED, module)).cpu().float().eval()
    except Exception as cause:  # the user's own __deepcopy__, or parametrizations that cannot be copied
        raise CaptureError(
            f"{type(module).__name__} cannot be copied: {first_line(cause)}. "
            "Try torch.nn.utils.remove_weight_norm, or plain layers."
        ) from cause
    for parent in list(private.modules()):
        for name, child in parent.named_children():
            if hasattr(child, _COMPILED):
                setattr(parent, name, getattr(child, _COMPILED))
    return private


def _recorded(private: nn.Module, probe: torch.Tensor, name: str) -> Recording:
    import torch

    try:
        with torch.random.fork_rng(devices=[]):
            return record(private, probe.clone())
    except Exception as cause:  # the user's forward may raise anything
        raise CaptureError(
            f"{name} does not run on an input of {tuple(probe.shape[1:])} (a batch of {len(probe)}): "
            f"{first_line(cause)}. "
            "Try the (channels, height, width) that it was trained on."
        ) from cause


def _output(recording: Recording, name: str, n_batch: int) -> str:
    import torch

    result = recording.result
    if not isinstance(result, torch.Tensor):
        raise CaptureError(f"{name}: expected a module that returns one tensor, found {_described(result)}. {_WRAPPER}")
    if recording.output is None:
        raise CaptureError(
            f"{name}: expected an output that torch computes from the input, found one of {list(result.shape)} that no "
            "recorded operation gave. Try a forward in torch alone, and x + y in place of changes in place."
        )
    if result.shape[:1] != (n_batch,):
        raise CaptureError(
            f"{name}: expected an output for each of {n_batch} samples, found one of {list(result.shape)}. "
            "Try a forward that keeps the batch as its first axis."
        )
    return recording.output


def _described(result: Any) -> str:
    if isinstance(result, dict):
        return f"a {type(result).__name__} of {', '.join(map(str, result))}"
    if isinstance(result, (tuple, list)):
        return f"a {type(result).__name__} of {len(result)}"
    return "nothing" if result is None else f"a {type(result).__name__}"


def _as_map(shape: Shape) -> Shape3:
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], 1, 1)


def _reachable(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """Leave out what the output does not depend on: it computes nothing that is seen."""
    wanted = {output, *(node.name for node in nodes if isinstance(node, Input))}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return tuple(node for node in nodes if node.name in wanted)
