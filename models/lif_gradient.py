"""Gradients of the recurrent LIF classifier for torch: the surrogate of one spike, and whole sequences at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from .lif_loops import Carried, Factors, Kept, add_columns, step_back, step_through, sum_columns
from .sparse import SparseSteps


class SuperSpike(torch.autograd.Function):
    """1 where x > 0, else 0, with the gradient of SuperSpike: 1 / (alpha |x| + 1)^2.

    Norse's release 1.1.0 takes alpha as 1 whatever is given; its release 1.0.0, its later sources and this do not.
    Source: Zenke and Ganguli, Neural Computation 30 (2018), eq. 2 to 4, up to its constant factor, as in Norse.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, alpha: float) -> torch.Tensor:
        """Return the spikes."""
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of x."""
        (x,) = ctx.saved_tensors
        return gradients[0] / (ctx.alpha * x.abs() + 1) ** 2, None


class EventProjection(torch.autograd.Function):
    """The weighted input ``[T, B, H]`` of sparse steps: the sum of a column of the weights ``[H, N]`` per event."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, steps: SparseSteps) -> torch.Tensor:
        """Return the sums."""
        ctx.steps, ctx.n_cells = steps, weight.shape[1]
        return torch.from_numpy(project(weight, steps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of the weights, laid out in memory as they are: column by column."""
        steps: SparseSteps = ctx.steps
        given = np.ascontiguousarray(gradients[0].numpy().reshape(len(steps.starts) - 1, -1))
        total = np.zeros((ctx.n_cells, given.shape[1]), np.float32)
        add_columns(given, steps.starts, steps.cells, steps.amounts, total)
        return torch.from_numpy(total).t(), None


def project(weight: torch.Tensor, steps: SparseSteps) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the weighted input ``[T, B, H]`` of sparse steps, without a gradient."""
    columns = np.ascontiguousarray(weight.detach().numpy().T)
    out = np.empty((*steps.shape[:2], columns.shape[1]), np.float32)
    sum_columns(columns, steps.starts, steps.cells, steps.amounts, out.reshape(-1, columns.shape[1]))
    return out


class Sequence(NamedTuple):
    """What a run of all steps needs beside weights and input, and where it leaves what it did."""

    factors: Factors
    alpha: np.float32
    carried: Carried
    kept: Kept


class LifSequence(torch.autograd.Function):
    """All steps of neurons and readout at once: potentials of the readout ``[T, B, C]`` from weighted input.

    Shapes: ``currents`` is ``[T, B, H]``, ``recurrent`` ``[to, from]``, ``readout`` ``[C, H]``. The state before the
    first step has no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, currents: torch.Tensor, recurrent: torch.Tensor, readout: torch.Tensor, sequence: Sequence
    ) -> torch.Tensor:
        """Return the potentials; ``sequence`` holds the last state and all steps then."""
        ctx.first = sequence.carried.z.copy()
        ctx.sequence = sequence
        ctx.save_for_backward(recurrent, readout)
        return torch.from_numpy(run_steps(currents, recurrent, readout, sequence))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """Return the gradients of the input and of both weights."""
        sequence: Sequence = ctx.sequence
        recurrent, readout = (np.ascontiguousarray(tensor.numpy()) for tensor in ctx.saved_tensors)
        given = np.ascontiguousarray(gradients[0].numpy())
        factors = sequence.factors, sequence.alpha
        found = step_back(given, sequence.kept, ctx.first, (recurrent, readout), factors)
        currents, of_recurrent, of_readout = map(torch.from_numpy, found)
        return currents, of_recurrent.t(), of_readout.t(), None


def run_steps(
    currents: torch.Tensor, recurrent: torch.Tensor, readout: torch.Tensor, sequence: Sequence
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the potentials of the readout, without a gradient."""
    given, between, out = (
        np.ascontiguousarray(tensor.detach().numpy()) for tensor in (currents, recurrent.t(), readout.t())
    )
    potentials = np.empty((*given.shape[:2], out.shape[1]), np.float32)
    step_through(given, between, out, sequence.factors, sequence.carried, (potentials, sequence.kept))
    return potentials
