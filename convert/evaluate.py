"""Run a captured graph as the CNN that it is: for scales, and to prove that a rewrite kept the function."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .errors import CaptureError
from .graph import AvgPool, BatchNorm, Conv, Flatten, Graph, Input, Linear, Node, Relu, Skip, SumPool

if TYPE_CHECKING:
    import torch
    from torch import nn

TOLERANCE = 1e-4
"""Largest difference that a rewrite may make, as a share of the largest output."""


@dataclasses.dataclass(frozen=True)
class EquivalenceGate:
    """How far the rewritten CNN is from the one that was given.

    Units: ``max_error`` is the largest difference of the outputs after undoing the output gain, as a share of the
    largest output; ``argmax_agreement`` is the share of samples with the same largest output. ``n_samples`` counts the
    samples whose outputs are not all zero: the others show nothing.
    """

    n_samples: int
    max_error: float
    argmax_agreement: float


def evaluate(graph: Graph, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the value of every node of ``graph`` for a batch of inputs, in the dtype of the batch.

    Shapes: ``batch`` is ``[N, C, H, W]``, each value ``[N, *node.out_shape]``.
    Raises: CaptureError where the graph holds a node that is ``Unknown``.
    """
    import torch

    values: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for node in graph:
            values[node.name] = batch if isinstance(node, Input) else _apply(node, values[node.inputs[0]])
    return values


def compare(module: nn.Module, graph: Graph, *, batch: torch.Tensor, gain: float = 1.0) -> EquivalenceGate:
    """Return how far ``graph`` is from ``gain`` times ``module``, both run in double precision.

    Raises: CaptureError where they differ by more than ``TOLERANCE`` of the largest output.
    """
    import copy

    import torch

    try:
        with torch.no_grad():
            given = copy.deepcopy(module).cpu().double().eval()(batch.double()).flatten(1)
    except Exception as cause:  # the user's forward may raise anything
        raise CaptureError(
            f"{type(module).__name__} does not run on a batch of {len(batch)} frames in double precision: {cause}. "
            "Try a forward that works for any batch and dtype."
        ) from cause
    rewritten = evaluate(graph, batch.double())[graph.output].flatten(1) / gain
    largest = float(given.abs().max()) or 1.0
    gate = EquivalenceGate(
        n_samples=int((given != 0).any(1).sum()),
        max_error=float((given - rewritten).abs().max()) / largest,
        argmax_agreement=float((given.argmax(1) == rewritten.argmax(1)).double().mean()),
    )
    if not gate.max_error <= TOLERANCE:  # NaN too
        raise CaptureError(
            f"the captured graph is not the function of {type(module).__name__}: outputs differ by "
            f"{gate.max_error:.2g} of the largest one, expected at most {TOLERANCE:g}. "
            "Try plain torch layers in place of subclasses with a forward of their own."
        )
    return gate


def _apply(node: Node, x: torch.Tensor) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    def tensor(array: object) -> torch.Tensor:
        return torch.tensor(array, dtype=x.dtype)

    match node:
        case Conv():
            bias = None if node.bias is None else tensor(node.bias)
            return F.conv2d(x, tensor(node.weight), bias, node.stride, node.padding)
        case Linear():
            return F.linear(x.flatten(1), tensor(node.weight), None if node.bias is None else tensor(node.bias))
        case BatchNorm():
            axes = (1, -1) + (1,) * (x.ndim - 2)
            return x * tensor(node.scale).view(axes) + tensor(node.shift).view(axes)
        case Relu():
            return F.relu(x)
        case AvgPool():
            return F.avg_pool2d(x, node.kernel)
        case SumPool():
            return F.avg_pool2d(x, node.kernel) * (node.kernel[0] * node.kernel[1])
        case Flatten():
            return x.flatten(1)
        case Skip():
            return x
    raise CaptureError(f"node '{node.name}' ({node.label}) cannot be evaluated: it is not a supported layer.")
