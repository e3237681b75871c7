"""The layers of an event state-space model in torch. Imported only where they are used."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .configs import LayerShape, SsmConfig
from .hippo import start_values, truncated
from .scan import linear_scan

EPS = 1e-6
"""Milliseconds added to each interval in a mean by time."""

_HIGHEST = -1e-4
"""Largest real part of an eigenvalue with ``clip_eigs``."""


class StateSpace(nn.Module):
    """A diagonal complex state space whose states decay with the time between events.

    With ``tau = step_rescale * exp(log_step)`` for each state, ``h[k] = exp(lambda tau d[k]) h[k - 1] + g B u[k]`` and
    ``y = Re(C h) + D pool(u)``, twice the first with ``conj_sym``. ``async``: ``g = (exp(lambda tau) - 1) / lambda``
    whatever the interval ``d[k]``; ``zoh``: ``g = (exp(lambda tau d[k]) - 1) / lambda``; ``dirac``: ``g = 1``. A stride
    keeps the state of the first event of each group, behind it.
    """

    def __init__(self, shape: LayerShape, config: SsmConfig, rng: np.random.Generator) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        for name, values in start_values(shape, config, rng).items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(values)))
        self.lambda_re: nn.Parameter
        self.lambda_im: nn.Parameter
        self.log_step: nn.Parameter
        self.b: nn.Parameter
        self.c: nn.Parameter
        self.d: nn.Parameter

    def eigenvalues(self) -> torch.Tensor:
        """Return the eigenvalues ``[P]``."""
        real = self.lambda_re.clamp(max=_HIGHEST) if self.config.clip_eigs else self.lambda_re
        return torch.complex(real, self.lambda_im)

    def steps(self) -> torch.Tensor:
        """Return the time step of each state ``[P]``."""
        return self.config.step_rescale * torch.exp(self.log_step)

    def forward(self, u: torch.Tensor, intervals_ms: torch.Tensor) -> torch.Tensor:
        """Return ``Re(C h)`` of each group ``[G, B, H_out]`` of inputs ``[L, B, H_in]`` at intervals ``[L, B]``.

        A group is worked out at once: each of its inputs, decayed by the time that is left to the group's end. A scan
        goes over the groups only. An incomplete group at the end is left out.
        """
        stride = self.shape.stride
        n_groups = len(u) // stride
        rates = self.eigenvalues() * self.steps()
        inputs = u[: n_groups * stride] @ self.b[..., 0].T, u[: n_groups * stride] @ self.b[..., 1].T
        driven = torch.complex(*inputs) * self._gain(rates, intervals_ms[: n_groups * stride])
        # The kept state is the one behind a group's first event: shifted by a stride less one, it is behind a last one.
        own_ms = intervals_ms[: n_groups * stride].to(self.lambda_re.dtype)
        shifted = _groups(_shifted(driven, stride), stride)
        times_ms = _groups(_shifted(own_ms, stride), stride)
        total_ms = times_ms.sum(1)
        if stride > 1:
            later_ms = times_ms[:, 1:].flip(1).cumsum(1).flip(1)
            left_ms = torch.cat([later_ms, torch.zeros_like(later_ms[:, :1])], 1)
            shifted = shifted * torch.exp(rates * left_ms[..., None])
        h = linear_scan(torch.exp(rates * total_ms[..., None]), shifted.sum(1))
        y = h.real @ self.c[..., 0].T - h.imag @ self.c[..., 1].T
        return 2 * y if self.config.conj_sym else y

    def through(self, u: torch.Tensor) -> torch.Tensor:
        """Return ``D u``."""
        return u @ self.d.T if self.d.ndim == 2 else u * self.d

    def _gain(self, rates: torch.Tensor, intervals_ms: torch.Tensor) -> torch.Tensor | float:
        if self.config.discretization == "dirac":
            return 1.0
        exponent = rates if self.config.discretization == "async" else rates * intervals_ms[..., None]
        return complex_expm1(exponent) / self.eigenvalues()


class MaskedBatchNorm(nn.Module):
    """Batch normalization over all events of a batch but its padding.

    The original takes padding into its statistics; this one does not. The variance is that of the batch, as there.
    """

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.momentum, self.eps = momentum, 1e-5

    def forward(self, x: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
        """Return ``x`` ``[L, B, H]`` normalized; ``is_real`` ``[L, B]`` is False for padding."""
        mean, var = self.running_mean, self.running_var
        if self.training:
            chosen = x[is_real]
            mean, var = chosen.mean(0), chosen.var(0, unbiased=False)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 1 - self.momentum)
                self.running_var.lerp_(var, 1 - self.momentum)
        return (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias


class EventSsmLayer(nn.Module):
    """Norm, state space, gate and skip: ``x`` at intervals ``d`` to one row for each group of ``stride`` events.

    ``y = ssm(norm(x))``; ``y * sigmoid(W gelu(y) + b) + pool(x)``, where gelu is the tanh form; the skip goes through
    a linear layer if widths differ. Without ``prenorm`` the norm comes last. Dropout masks are shared over time.
    """

    def __init__(self, shape: LayerShape, config: SsmConfig, rng: np.random.Generator) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        width = shape.n_in if config.prenorm else shape.n_out
        is_batch = config.norm == "batch"
        self.norm: nn.Module = MaskedBatchNorm(width, config.bn_momentum) if is_batch else nn.LayerNorm(width, eps=1e-6)
        self.ssm = StateSpace(shape, config, rng)
        self.gate = linear(shape.n_out, shape.n_out, rng)
        self.skip = linear(shape.n_in, shape.n_out, rng) if shape.n_in != shape.n_out else None

    def forward(
        self, x: torch.Tensor, intervals_ms: torch.Tensor, is_real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return outputs, their intervals, and which of them hold no padding.

        Shapes: ``x`` is ``[L, B, H_in]``, the others ``[L, B]``.
        """
        stride, mode = self.shape.stride, self.config.pooling
        u = self._norm(x, is_real) if self.config.prenorm else x
        y = self.ssm(u, intervals_ms) + self.ssm.through(pool(u, intervals_ms, stride=stride, mode=mode))
        gate = torch.sigmoid(self.gate(self._drop(F.gelu(y, approximate="tanh"))))
        gated = self._drop(y * gate)
        rest = pool(x, intervals_ms, stride=stride, mode=mode)
        out = gated + (rest if self.skip is None else self.skip(rest))
        intervals_ms = _groups(intervals_ms, stride).sum(1)
        is_real = _groups(is_real, stride).all(1)
        return (out if self.config.prenorm else self._norm(out, is_real)), intervals_ms, is_real

    def _norm(self, x: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
        found = self.norm(x, is_real) if isinstance(self.norm, MaskedBatchNorm) else self.norm(x)
        return cast(torch.Tensor, found)

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.config.dropout:
            return x
        return x * F.dropout(torch.ones_like(x[:1]), self.config.dropout)


def pool(x: torch.Tensor, intervals_ms: torch.Tensor, *, stride: int, mode: str) -> torch.Tensor:
    """Return one row for each complete group of ``stride`` rows.

    ``"last"`` is the first of the group, as in the original despite its name; ``"timepool"`` is weighted by the
    intervals, of which none counts less than a millionth of a millisecond.
    """
    if stride == 1:
        return x
    groups = _groups(x, stride)
    if mode == "last":
        return groups[:, 0]
    if mode == "avgpool":
        return groups.mean(1)
    weights = (_groups(intervals_ms, stride) + EPS)[..., None].to(x.dtype)
    return (groups * weights).sum(1) / weights.sum(1)


def complex_expm1(z: torch.Tensor) -> torch.Tensor:
    """Return ``exp(z) - 1``, exact to rounding also near 0."""
    real, imaginary = z.real, z.imag
    half = torch.sin(imaginary / 2)
    small = torch.expm1(real)
    return torch.complex(small * torch.cos(imaginary) - 2 * half * half, (small + 1) * torch.sin(imaginary))


def linear(n_in: int, n_out: int, rng: np.random.Generator) -> nn.Linear:
    """Return a linear layer that starts as those of flax: cut-off normal weights, biases of 0."""
    layer = nn.Linear(n_in, n_out)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(truncated(rng, (n_out, n_in), 1.0 / n_in)))
        layer.bias.zero_()
    return layer


def _groups(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Return complete groups of rows ``[G, stride, ...]``."""
    n_groups = len(x) // stride
    return x[: n_groups * stride].reshape(n_groups, stride, *x.shape[1:])


def _shifted(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Return ``x`` behind ``stride - 1`` rows of zeros, as long as before."""
    if stride == 1 or not len(x):
        return x
    return torch.cat([torch.zeros_like(x[: stride - 1]), x[: len(x) - stride + 1]])
