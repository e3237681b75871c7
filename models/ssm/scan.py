"""The linear recurrence of a state space in torch, all steps at once. Imported only where it is used."""

from __future__ import annotations

from typing import Any

import torch


def linear_scan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``h`` with ``h[k] = a[k] * h[k - 1] + b[k]`` and nothing before the first step.

    In about 2 log2(L) operations over all steps, forward and backward.
    Shapes: ``a`` and ``b`` ``[L, ...]``, real or complex, equal in shape.
    """
    found: torch.Tensor = _LinearScan.apply(a, b)  # type: ignore[no-untyped-call]
    return found


class _LinearScan(torch.autograd.Function):
    """The scan with a gradient that is a scan of its own, backward in time: nothing but ``a`` and ``h`` is kept."""

    @staticmethod
    def forward(context: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        h = _scan(a, b)
        context.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, h = context.saved_tensors
        (gradient,) = gradients
        if not len(h):
            return torch.zeros_like(a), gradient
        # g[k] = gradient[k] + conj(a[k + 1]) g[k + 1]: the same recurrence from the end.
        factors = torch.cat([torch.zeros_like(a[:1]), a[1:].flip(0)]).conj().resolve_conj()
        g = _scan(factors, gradient.flip(0).contiguous()).flip(0)
        to_a = torch.cat([torch.zeros_like(h[:1]), g[1:] * h[:-1].conj()])
        return to_a, g


def _scan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the states: pairs of steps made one, the scan of those, and the steps between them from it."""
    n = len(b)
    if n < 2:
        return b.clone()
    odd = a[1::2]
    behind = _scan(odd * a[0 : n - 1 : 2], torch.addcmul(b[1::2], odd, b[0 : n - 1 : 2]))
    h = torch.empty_like(b)
    h[0] = b[0]
    h[1::2] = behind
    n_even = (n - 1) // 2
    if n_even:
        h[2::2] = torch.addcmul(b[2::2], a[2::2], behind[:n_even])
    return h
