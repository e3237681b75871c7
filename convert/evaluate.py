"""Run a captured graph as the CNN that it is: for scales, and to prove that a rewrite kept the function."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import CaptureError
from .geometry import Pair
from .graph import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Pad,
    Relu,
    Skip,
    SumPool,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

TOLERANCE = 1e-4
"""Largest difference that a rewrite may make, as a share of the largest output."""


@dataclasses.dataclass(frozen=True)
class EquivalenceGate:
    """How far the CNN after one rewrite, ``step``, is from the one that was given.

    Units: ``max_error`` is the largest difference of the outputs after undoing the output gain, as a share of the
    largest output; ``argmax_agreement`` is the share of samples with the same largest output. ``n_samples`` counts the
    samples whose outputs are not all zero: the others show nothing.
    """

    step: str
    n_samples: int
    max_error: float
    argmax_agreement: float


@dataclasses.dataclass(frozen=True)
class Replacement:
    """What replacing layers did to the function of the CNN, on the calibration frames.

    ``names`` are the replacements asked for (``maxpool=avgpool``), ``nodes`` the layers they changed.
    Units: ``argmax_agreement`` is the share of frames with the same largest output before and after, None where what
    was given cannot be run.
    """

    names: tuple[str, ...]
    nodes: tuple[str, ...]
    n_samples: int
    argmax_agreement: float | None


def evaluate(
    graph: Graph, batch: torch.Tensor, *, known: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Return the value of every node of ``graph`` for a batch of inputs, in the dtype of the batch.

    Nodes in ``known`` keep the value given there, and others compute from it.
    Shapes: ``batch`` is ``[N, C, H, W]``, each value ``[N, *node.out_shape]``.
    Raises: CaptureError where the graph holds a node that is ``Unknown``.
    """
    import torch

    values: dict[str, torch.Tensor] = dict(known or {})
    with torch.no_grad():
        for node in graph:
            if node.name in values:
                continue
            given = [values[name] for name in node.inputs]
            values[node.name] = batch if isinstance(node, Input) else _apply(node, given)
    return values


def outputs(graph: Graph, batch: torch.Tensor) -> torch.Tensor:
    """Return the flat output of ``graph`` for a batch of inputs, in double precision.

    Shapes: ``[N, outputs]``.
    """
    return evaluate(graph, batch.double())[graph.output].reshape(len(batch), -1)


def module_outputs(module: nn.Module, batch: torch.Tensor, given_shape: tuple[int, ...]) -> torch.Tensor:
    """Return the flat output of ``module`` for a batch of inputs, in evaluation mode and double precision.

    Shapes: ``batch`` is ``[N, C, H, W]``, ``given_shape`` what the module takes, without the batch axis; the result is
    ``[N, outputs]``.
    Raises: CaptureError where the module's own code raises.
    """
    import copy

    import torch

    try:
        with torch.no_grad():
            private = copy.deepcopy(module).cpu().double().eval()
            found: torch.Tensor = private(batch.double().reshape(len(batch), *given_shape))
            return found.reshape(len(batch), -1)
    except Exception as cause:  # the user's forward may raise anything
        raise CaptureError(
            f"{type(module).__name__} does not run on a batch of {len(batch)} frames in double precision: {cause}. "
            "Try a forward that works for any batch and dtype."
        ) from cause


def check_rewrite(
    step: str, graph: Graph, *, given: torch.Tensor, batch: torch.Tensor, gain: float = 1.0
) -> EquivalenceGate:
    """Return how far ``graph`` is from ``gain`` times the outputs ``given`` for ``batch``.

    Raises: CaptureError where they differ by more than ``TOLERANCE`` of the largest output.
    """
    rewritten = outputs(graph, batch) / gain
    largest = float(given.abs().max()) or 1.0
    gate = EquivalenceGate(
        step=step,
        n_samples=int((given != 0).any(1).sum()),
        max_error=float((given - rewritten).abs().max()) / largest,
        argmax_agreement=agreement(given, rewritten),
    )
    if not gate.max_error <= TOLERANCE:  # NaN too
        raise CaptureError(
            f"the CNN after '{step}' is not the function that was given: outputs differ by "
            f"{gate.max_error:.2g} of the largest one, expected at most {TOLERANCE:g}. "
            "Try plain torch layers in place of subclasses or control flow of their own."
        )
    return gate


def agreement(given: torch.Tensor, found: torch.Tensor) -> float:
    """Return the share of samples with the same largest output.

    Shapes: both are ``[N, outputs]``.
    """
    return float((given.argmax(1) == found.argmax(1)).double().mean())


def _apply(node: Node, given: list[torch.Tensor]) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    x = given[0] if given else torch.zeros(0)

    def tensor(array: object) -> torch.Tensor:
        return torch.tensor(array, dtype=x.dtype)

    def per_channel(array: object) -> torch.Tensor:
        return tensor(array).view((1, -1) + (1,) * (x.ndim - 2))

    match node:
        case Conv():
            bias = None if node.bias is None else tensor(node.bias)
            wide = spread(x, node.upsample)
            return F.conv2d(wide, tensor(node.weight), bias, node.stride, node.padding, node.dilation, node.groups)
        case Linear():
            return F.linear(x.flatten(1), tensor(node.weight), None if node.bias is None else tensor(node.bias))
        case BatchNorm():
            return x * per_channel(node.scale) + per_channel(node.shift)
        case Relu():
            positive = F.relu(x)
            return positive if node.ceiling is None else torch.minimum(positive, per_channel(_ceilings(node)))
        case AvgPool():
            return F.avg_pool2d(x, node.kernel, node.stride, node.padding)
        case SumPool():
            return F.avg_pool2d(x, node.kernel) * (node.kernel[0] * node.kernel[1])
        case Add():
            return torch.stack(given).sum(0)
        case Concat():
            return torch.cat(given, 1)
        case Pad():
            top, bottom, left, right = node.sides
            return F.pad(x, (left, right, top, bottom))
        case Flatten():
            return x.flatten(1)
        case Skip():
            return x.reshape(len(x), *node.out_shape)  # axes of one pixel come and go
    raise CaptureError(f"node '{node.name}' ({node.label}) cannot be evaluated: it is not a supported layer.")


def _ceilings(node: Relu) -> tuple[float, ...]:
    """Return the upper bounds of a rectifier: one, or one for each feature."""
    return node.ceiling if isinstance(node.ceiling, tuple) else (float(node.ceiling or 0.0),)


def spread(x: torch.Tensor, upsample: Pair) -> torch.Tensor:
    """Return maps with zeros between their pixels, as a transposed convolution reads them.

    Shapes: ``[..., H, W]`` to ``[..., (H - 1) * upsample[0] + 1, (W - 1) * upsample[1] + 1]``.
    """
    if upsample == (1, 1):
        return x
    height, width = ((edge - 1) * up + 1 for edge, up in zip(x.shape[-2:], upsample, strict=True))
    wide = x.new_zeros(*x.shape[:-2], height, width)
    wide[..., :: upsample[0], :: upsample[1]] = x
    return wide
