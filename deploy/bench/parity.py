"""Rewrites that must keep the function: ours and others' on the same networks."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Shape3
from spikeport.convert.pipeline import convert

from .peers import normalized

if TYPE_CHECKING:
    import torch
    from torch import nn

VARIANCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

_SHAPE = (2, 16, 16)
_N_FRAMES = 512


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far rewritten networks are from the given ones.

    Units: errors are the largest difference of the outputs as a share of the largest output, agreements the share of
    frames with the same largest output; ``ours`` is the worst of all gates of ``convert``, ``other`` of the rewrite
    that it is compared with.
    """

    case: str
    our_error: float
    our_agreement: float
    other: str
    other_error: float | None
    other_agreement: float


def compare_rewrites(n_networks: int = 5) -> tuple[Parity, ...]:
    """Return a row for each variance of batch normalization, and one for random networks with biases each."""
    biased = (
        compare_biases(f"biases, random network {seed}", _random_cnn(seed), _frames(seed)) for seed in range(n_networks)
    )
    return (*(_batchnorm(variance) for variance in VARIANCES), *biased)


def compare_biases(case: str, module: nn.Module, frames: NDArray[np.float32]) -> Parity:
    """Return what ``convert`` and sinabs' ``normalize_weights`` do to a chain with biases, both on ``frames``."""
    error, agreement = _gates(module, frames)
    same = _outputs(module, frames).argmax(1) == _outputs(normalized(module, frames), frames).argmax(1)
    return Parity(
        case=case,
        our_error=error,
        our_agreement=agreement,
        other="sinabs normalize_weights (D2)",
        other_error=None,  # it does not keep the size of the outputs, nor means to
        other_agreement=float(same.double().mean()),
    )


def _batchnorm(variance: float) -> Parity:
    import torch

    module, frames = _random_cnn(0, variance=variance), _frames(0)
    given = _outputs(module, frames)
    error, agreement = _gates(module, frames)
    theirs = _outputs(_folded_without_epsilon(module), frames)
    return Parity(
        case=f"batch normalization, variance {variance:g}",
        our_error=error,
        our_agreement=agreement,
        other="fold without epsilon (D7)",
        other_error=float((theirs - given).abs().max() / given.abs().max()),
        other_agreement=float((theirs.argmax(1) == given.argmax(1)).to(torch.float64).mean()),
    )


def _gates(module: nn.Module, frames: NDArray[np.float32]) -> tuple[float, float]:
    """Return the largest error and the smallest agreement of all gates of ``convert`` with calibration."""
    gates = convert(module, _shape(frames), data=frames).gates
    return max(gate.max_error for gate in gates), min(gate.argmax_agreement for gate in gates)


def _shape(frames: NDArray[np.float32]) -> Shape3:
    channels, height, width = frames.shape[1:]
    return channels, height, width


def _random_cnn(seed: int, *, variance: float | None = None) -> nn.Sequential:
    """Return a CNN of two convolutions and a linear layer with biases, with batch normalization for a ``variance``."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in ((2, 8), (8, 16)):
            layers.append(nn.Conv2d(before, after, 3))
            if variance is not None:
                layer = nn.BatchNorm2d(after)
                nn.init.normal_(layer.running_mean, std=0.1)  # type: ignore[arg-type]
                nn.init.constant_(layer.running_var, variance)  # type: ignore[arg-type]
                nn.init.uniform_(layer.weight, 0.5 * variance**0.5, 1.5 * variance**0.5)
                nn.init.normal_(layer.bias, std=0.1)
                layers.append(layer)
            layers += [nn.ReLU(), nn.AvgPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(64, 10), nn.ReLU()]
        chain = nn.Sequential(*layers).eval()
        with torch.no_grad():  # each class is the largest output somewhere, or an agreement would show nothing
            chain[-2].bias -= chain[:-1](torch.from_numpy(_frames(seed))).mean(0)
        return chain


def _frames(seed: int) -> NDArray[np.float32]:
    """Return frames of scattered pixels, dim ones and bright ones."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((_N_FRAMES, *_SHAPE)) * (rng.random((_N_FRAMES, *_SHAPE)) < 0.2)
    return (pixels * rng.uniform(0.0, 4.0, (_N_FRAMES, 1, 1, 1))).astype(np.float32)


def _outputs(module: nn.Module, frames: NDArray[np.float32]) -> torch.Tensor:
    """Return what the layers before the last ReLU give, in double precision."""
    import torch
    from torch import nn

    layers = list(copy.deepcopy(module).double().eval().children())
    with torch.no_grad():
        made: torch.Tensor = nn.Sequential(*layers[:-1])(torch.from_numpy(frames).double())
    return made


def _folded_without_epsilon(module: nn.Sequential) -> nn.Sequential:
    """Return the chain folded by gamma / sqrt(var), the rule of sinabs' chip back-end."""
    import torch
    from torch import nn

    kept: list[nn.Module] = []
    for layer in copy.deepcopy(module):
        before = kept[-1] if kept else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d) and before.bias is not None:
            mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
            with torch.no_grad():
                factor = layer.weight / variance.sqrt()
                before.weight.mul_(factor[:, None, None, None])
                before.bias.sub_(mean).mul_(factor).add_(layer.bias)
        else:
            kept.append(layer)
    return nn.Sequential(*kept)
