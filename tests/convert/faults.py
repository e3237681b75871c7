"""Small CNNs on moving patterns, and the faults that users make, put into the layers of their spiking nets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spikeport.convert import Conversion, Scaling, convert
from spikeport.convert.fold import fold
from spikeport.convert.gains import apply_gains
from spikeport.convert.normalize import find_gains
from spikeport.convert.spiking import to_spiking

SHAPE = (2, 16, 16)


def small_cnn(
    seed: int, *, bias: bool = False, inhibited: bool = False, ceilings: Mapping[int, float] | None = None
) -> nn.Sequential:
    """Return three random layers, each behind a pool of area 4; ``inhibited`` ones have as much inhibition as drive."""
    torch.manual_seed(seed)
    widths = (2, 6, 8, 10)
    layers: list[nn.Module] = []
    for index in range(3):
        layers.append(nn.AvgPool2d(2))
        if index < 2:
            layers.append(nn.Conv2d(widths[index], widths[index + 1], 3, padding=1, bias=bias))
        else:
            layers += [nn.Flatten(), nn.Linear(widths[2] * 4, widths[3], bias=bias)]
        weight = layers[-1].get_parameter("weight")
        with torch.no_grad():
            nn.init.kaiming_normal_(weight)
            if inhibited:
                weight.sub_(0.9 * weight.mean(dim=tuple(range(1, weight.ndim)), keepdim=True))
            if bias:
                layers[-1].get_parameter("bias").normal_(0, 0.2)
        ceiling = (ceilings or {}).get(index)
        layers.append(nn.ReLU() if ceiling is None else nn.Hardtanh(0.0, ceiling))
    return nn.Sequential(*layers).eval()


def moving_raster(seed: int, *, n: int = 6, n_steps: int = 8, n_patterns: int = 2) -> NDArray[np.float32]:
    """Return random patches of events that jump: what excites a neuron comes after or before what inhibits it."""
    rng = np.random.default_rng(seed)

    def pattern() -> NDArray[Any]:
        patches = np.kron(rng.random((n, SHAPE[0], 4, 4)) > 0.5, np.ones((4, 4)))
        return rng.poisson(patches * (16 / n_steps), (n_steps // n_patterns, n, *SHAPE))

    return np.concatenate([pattern() for _ in range(n_patterns)]).astype(np.float32)


def converted(
    module: nn.Module, raster: NDArray[np.float32], *, v_min: float | None = None, **scaling: Any
) -> Conversion:
    """Return the conversion whose calibration frames are the recordings themselves."""
    given = {"n_steps": len(raster), **scaling}
    return convert(module, SHAPE, data=raster.sum(0), scaling=Scaling(**given), v_min=v_min)


def with_layer(conversion: Conversion, index: int, **changes: Any) -> Conversion:
    """Return the conversion with fields of one layer of its net changed."""
    layers = list(conversion.net.layers)
    layers[index] = dataclasses.replace(layers[index], **changes)
    return dataclasses.replace(conversion, net=dataclasses.replace(conversion.net, layers=tuple(layers)))


def unscaled(conversion: Conversion, index: int, n_steps: int) -> Conversion:
    """Return the conversion in which one layer has the weights and bias as trained."""
    layer = conversion.net.layers[index]
    trained: Any = conversion.graph[layer.name]
    bias = None if trained.bias is None else trained.bias / n_steps
    return with_layer(conversion, index, weight=trained.weight.reshape(layer.weight.shape), bias=bias)


def overdriven(conversion: Conversion, index: int, raster: NDArray[np.float32]) -> Conversion:
    """Return the conversion with the scale of one layer a thousand times too low, so that it fires as much more.

    The next layer makes up for it: in float steps the function stays.
    """
    folded = fold(conversion.graph).graph
    gains = find_gains(folded, raster.sum(0), Scaling(n_steps=len(raster)))
    gains[conversion.net.layers[index].name] *= 1000
    scaled, _ = apply_gains(folded, gains)
    return dataclasses.replace(conversion, scaled=scaled, net=to_spiking(scaled, v_min=None, n_steps=len(raster)))


def low_ceiling(module: nn.Sequential, index: int, raster: NDArray[np.float32], *, share: float = 0.6) -> float:
    """Return the bound that ``share`` of the positive activations of rectifier ``index`` stay below."""
    value = torch.from_numpy(raster.sum(0))
    rectifiers = [layer for layer in module if isinstance(layer, nn.ReLU)]
    with torch.no_grad():
        for layer in module:
            value = layer(value)
            if layer is rectifiers[index]:
                break
    return float(value[value > 0].quantile(share))


Weights = NDArray[Any]


def _on_8_bits(weight: Weights, too_large: float) -> tuple[Weights, float]:
    scale = 127 / float(np.abs(weight).max()) * too_large
    return np.rint(weight * scale), scale


def cut(weight: Weights) -> Weights:
    """Weights scaled six times too large for 8 bits, clipped there."""
    integers, scale = _on_8_bits(weight, 6)
    return np.clip(integers, -128, 127) / scale


def wrapped(weight: Weights) -> Weights:
    """Weights scaled three times too large for 8 bits, the rest cut off the left as a plain cast does."""
    integers, scale = _on_8_bits(weight, 3)
    return ((integers.astype(np.int64) + 128) % 256 - 128) / scale


def with_outlier(weight: Weights) -> Weights:
    """One weight so large that in 8 bits there is nothing left for the others."""
    changed = weight.copy()
    changed.flat[int(np.abs(weight).argmax())] *= 300
    return changed


def negative(weight: Weights) -> Weights:
    """Inhibition only."""
    return -np.abs(weight)


def scaled_by(factor: float) -> Callable[[Weights], Weights]:
    """Return the change of weights by a factor."""
    return lambda weight: weight * factor
