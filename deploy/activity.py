"""What reaches the weights of each layer: the statistics that rounding is fitted to."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.convert.rasters import arriving
from spikeport.convert.simulate import simulate
from spikeport.convert.types import INPUT, SpikingLayer, SpikingNet
from spikeport.models.arrays import ArrayRecord, frozen

Moments = NDArray[np.float64]

_MOST_INPUTS = 2048
"""Weights of a feature up to which products of all pairs are kept: 32 MiB; above it a layer is rounded to nearest."""

_MOST_SPIKES = 1 << 25
_MOST_PLACES, _STEPS_TOGETHER = 8192, 32
"""Places of a map that are looked at in so many steps: a sample is enough for thousands of products."""

_TAPS_TOGETHER, _ALL_TOGETHER = 0.3, 0.03
_ASSUMED_SHARE = 0.1


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Activity(ArrayRecord):
    """Second moments of what each layer reads in one time step, by the name of the layer.

    Shapes: ``moments[layer]`` is ``[groups, K + 1, K + 1]`` for ``K = C // groups * ky * kx``: means, over places of
    the output map and steps, of products of the spike counts behind two weights; the last row and column belong to
    the bias, which is added once in a step. A layer that is upsampled, or has a K above 2048, has none. ``kept`` names
    the layers that keep the vendor's integers all the same, because a trial found fewer spikes changed by them.
    """

    moments: Mapping[str, Moments]
    kept: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        made = {name: frozen(one, np.float64) for name, one in self.moments.items()}
        object.__setattr__(self, "moments", MappingProxyType(made))

    def sha256(self) -> str:
        """Return a hash of the numbers and of the names that they belong to."""
        found = hashlib.sha256()
        for name, one in sorted(self.moments.items()):
            found.update(f"{name} {one.shape} ".encode() + one.astype("<f8").tobytes())
        found.update(" ".join(sorted(self.kept)).encode())
        return found.hexdigest()


def measure_activity(net: SpikingNet, raster: ArrayLike, *, n_together: int = 1) -> Activity:
    """Return the activity that recordings or frames cause, simulated step by step.

    ``n_together`` is for how many steps charges count as arriving together: 10 ms serve recordings of moving things.
    Shapes: ``raster`` is ``[T, C, H, W]`` or ``[T, B, C, H, W]``.
    Raises: InputError where the raster does not match the net's input.
    """
    return measure_activities(net, raster, (n_together,))[0]


def measure_activities(net: SpikingNet, raster: ArrayLike, spans: Sequence[int]) -> tuple[Activity, ...]:
    """Return ``measure_activity`` for each number of steps in ``spans``, from one simulation.

    Recordings of fewer steps count as one span.
    """
    batch = np.asarray(raster)
    batch = batch[:, None] if batch.ndim == 4 else batch
    counted = [layer for layer in net.layers if _is_counted(layer)]
    sums = [{layer.name: _nothing(layer) for layer in counted} for _ in spans]
    n_places = [dict.fromkeys(one, 0) for one in sums]
    rng = np.random.default_rng(0)
    at_once = max(1, _MOST_SPIKES // max(1, len(batch) * sum(int(np.prod(layer.out_shape)) for layer in net.layers)))
    for first in range(0, max(1, batch.shape[1]), at_once):
        part = batch[:, first : first + at_once]
        trace = simulate(net, part, record="all")
        sources: dict[int, NDArray[Any]] = {INPUT: part, **dict(enumerate(trace.spikes or ()))}
        for index, layer in enumerate(net.layers):
            if layer.name not in sums[0]:
                continue
            maps = arriving(net, index, sources)
            for wanted, total, n in zip(spans, sums, n_places, strict=True):
                span = min(wanted, len(maps))
                n_spans = len(maps) // span
                summed = maps[: n_spans * span].reshape(n_spans, span, *maps.shape[1:]).sum(axis=1)
                n[layer.name] += _add_products(total[layer.name], layer, summed.reshape(-1, *layer.in_shape), span, rng)
    return tuple(
        Activity({name: total / n[name] for name, total in one.items()}) for one, n in zip(sums, n_places, strict=True)
    )


def assumed_moments(layer: SpikingLayer) -> Moments | None:
    """Return the moments of a layer of which no activity is known, ``[1, K + 1, K + 1]``; the bias stands by itself.

    Spike counts are never negative: inputs that rise and fall independently still push the sum of a feature's weights
    in one direction, those of one channel more than those of all, so errors of one sign add up.
    Source: the two shares: measured 2026-11-22. At 0.3 and 0.03 the layers of CNNs for digits and N-MNIST changed 20 %
    fewer spikes than by the vendor's formula, those of a gesture CNN 16 % (root mean square over layers); at 0 and 0,
    which is rounding to nearest, the former two as many.
    """
    channels, taps = layer.weight.shape[1], layer.weight.shape[2] * layer.weight.shape[3]
    size = channels * taps
    if size > _MOST_INPUTS:
        return None
    made = np.zeros((1, size + 1, size + 1))
    made[0, :size, :size] = np.kron(np.eye(channels), np.full((taps, taps), _TAPS_TOGETHER)) + _ALL_TOGETHER
    made[0] += np.eye(size + 1)
    return made


def assumed_charge(weight: NDArray[np.float64], taps: int) -> float:
    """Return the mean over features of the mean squared charge by the assumed moments, without putting these up.

    Shapes: ``weight`` is ``[F, K + 1]``, its last column the bias; ``taps`` is ``ky * kx``.
    """
    inputs = weight[:, :-1]
    channels = inputs.reshape(len(weight), -1, taps).sum(axis=2)
    together = _TAPS_TOGETHER * np.square(channels).sum() + _ALL_TOGETHER * np.square(inputs.sum(axis=1)).sum()
    return float((np.square(weight).sum() + together) / len(weight))


def layer_moments(layer: SpikingLayer, measured: Moments | None) -> Moments | None:
    """Return the moments that a layer's rounding is fitted to: the measured ones with a share of the assumed.

    The share keeps weights apart that calibration never saw, or always saw together.
    """
    assumed = assumed_moments(layer)
    if measured is None or assumed is None:
        return assumed
    found = measured.copy()
    inputs = range(found.shape[1] - 1)
    mean = np.maximum(found[:, inputs, inputs].mean(axis=1), 1e-12)
    found[:, -1:, -1:] = np.where(found[:, -1:, -1:] > 0, found[:, -1:, -1:], 1.0)
    share = _ASSUMED_SHARE / assumed[0, 0, 0] * mean[:, None, None] * assumed
    share[:, -1, -1] = 0.0
    return np.asarray(found + share, np.float64)


def _is_counted(layer: SpikingLayer) -> bool:
    return layer.upsample == (1, 1) and _n_inputs(layer) <= _MOST_INPUTS


def _n_inputs(layer: SpikingLayer) -> int:
    return int(np.prod(layer.weight.shape[1:]))


def _nothing(layer: SpikingLayer) -> Moments:
    size = _n_inputs(layer) + 1
    return np.zeros((layer.groups, size, size))


def _add_products(
    total: Moments, layer: SpikingLayer, maps: NDArray[np.float32], span: int, rng: np.random.Generator
) -> int:
    """Add the products of all places and maps, or of a sample of them, to ``total`` and return how many they are.

    ``maps`` are sums over ``span`` steps; products are divided by it.
    """
    seen = _windows(maps, layer)
    n_maps, _, height, width = seen.shape[:4]
    n = min(n_maps * height * width, _MOST_PLACES * -(-n_maps * span // _STEPS_TOGETHER))
    places = rng.choice(n_maps * height * width, n, replace=False, shuffle=False)
    step, y, x = np.unravel_index(places, (n_maps, height, width))
    read = seen[step, :, y, x].reshape(n, layer.groups, -1)
    for group in range(layer.groups):
        both = np.concatenate([read[:, group], np.full((n, 1), span, np.float32)], axis=1)
        total[group] += both.T @ both / span
    return int(n)


def _windows(maps: NDArray[np.float32], layer: SpikingLayer) -> NDArray[np.float32]:
    """Return what the kernel of a layer sees at each place of its output map, without upsampling.

    Shapes: ``maps`` ``[N, C, H, W]`` becomes ``[N, C, H_out, W_out, ky, kx]``, a view of the padded maps.
    """
    window = layer.window
    (pad_y, pad_x), (apart_y, apart_x) = window.padding, window.dilation
    padded = np.pad(maps, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)))
    reach = tuple(apart * (kernel - 1) + 1 for apart, kernel in zip(window.dilation, window.kernel, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    return seen[:, :, :: window.stride[0], :: window.stride[1], ::apart_y, ::apart_x]
