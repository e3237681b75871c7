"""Where the potentials of a spiking net start."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .dense import currents, fire
from .evaluate import evaluate
from .graph import Conv, Graph
from .normalize import Scaling
from .rasters import arriving, spread
from .types import INPUT, SpikingLayer, SpikingNet

_CELLS = 4_000_000
"""Neuron steps of the largest layer that calibration simulates at once: it takes fewer frames where there are more."""

_MAX_FRAMES = 64
_ROUNDS = 3


def choose_start(
    graph: Graph, scaling: Scaling, v_min: float | Literal["auto"] | None, *, is_calibrated: bool
) -> tuple[Scaling, float | None]:
    """Return the start and the lower bound of the potentials that are meant where the given ones say auto.

    They are zero and -1, as in sinabs, unless a folded CNN has biases and frames to calibrate on. There each step
    adds a bias before any spike can take it back, so neurons fire too much or, with a bound, forget: then the start is
    calibrated, and there is no bound.
    Source: measured 2026-11-22, CNN with biases and batch normalization on silhouettes of animals, 200 images, 4 and 16
    steps: 12 and 10 % right with zero and -1, 86 and 96 % with these; without biases, on digits and N-MNIST, zero and
    -1 are as good or better.
    """
    is_biased = any(isinstance(node, Conv) and node.bias is not None and node.bias.any() for node in graph)
    is_other = is_biased and is_calibrated
    if scaling.start == "auto":
        scaling = dataclasses.replace(scaling, start="calibrated" if is_other else "zero")
    if v_min == "auto":
        v_min = None if is_other else -1.0
    return scaling, v_min


def with_start(net: SpikingNet, scaled: Graph, *, frames: NDArray[np.float32], scaling: Scaling) -> SpikingNet:
    """Return the net with the potentials before the first event that ``scaling.start`` asks for, zero for auto.

    ``half`` is half a threshold for every neuron: what a count of whole spikes loses by rounding down on average.
    ``calibrated`` is what ``calibrated_start`` finds on ``frames`` spread evenly over ``scaling.n_steps``.
    Source: half: Deng and Gu, ICLR 2021.
    """
    if scaling.start in ("zero", "auto"):
        return net
    if scaling.start == "half":
        starts = (np.full(layer.out_shape, layer.threshold / 2, np.float32) for layer in net.layers)
        layers = (dataclasses.replace(layer, v_init=start) for layer, start in zip(net.layers, starts, strict=True))
        return dataclasses.replace(net, layers=tuple(layers))
    largest = max(int(np.prod(shape)) for shape in (net.input_shape, *(layer.out_shape for layer in net.layers)))
    n_frames = int(np.clip(_CELLS // (largest * scaling.n_steps), 1, _MAX_FRAMES))
    return calibrated_start(net, scaled, raster=spread(frames[:n_frames], scaling.n_steps))


def calibrated_start(net: SpikingNet, scaled: Graph, *, raster: NDArray[np.float32]) -> SpikingNet:
    """Return the net in which every neuron starts where its counts come closest to the CNN, layer after layer.

    A layer starts at zero, at half a threshold, or at one of the two plus the mean over all samples of activation less
    spike count, each neuron its own, at least its lower bound and below its threshold: whichever gives the least mean
    absolute difference of counts from activations, given the spikes of the layers before it.
    Shapes: ``raster`` is ``[T, B, C, H, W]``.
    Law: on ``raster`` that difference is, layer by layer, not larger than with a start at zero or half a threshold.
    Source: after the calibration of Li et al., ICML 2021, of potentials in place of biases.
    """
    import torch

    activations = evaluate(scaled, torch.from_numpy(raster.sum(axis=0)))
    live: dict[int, NDArray[np.float32]] = {INPUT: raster}
    layers: list[SpikingLayer] = []
    for index, layer in enumerate(net.layers):
        wanted = activations[layer.name].clamp(min=0).numpy()
        chosen, spikes = _started(layer, arriving(net, index, live), wanted)
        layers.append(chosen)
        live[index] = spikes
        readers = {edge.source for edge in net.edges if edge.target is not None and edge.target > index}
        live = {source: value for source, value in live.items() if source in readers}
    return dataclasses.replace(net, layers=tuple(layers))


def _started(
    layer: SpikingLayer, arriving: NDArray[np.float32], wanted: NDArray[np.float32]
) -> tuple[SpikingLayer, NDArray[np.float32]]:
    """Return the layer with its best start, and its spikes ``[T, B, F, H, W]``."""
    least = np.inf
    chosen, emitted = layer, arriving
    current = currents(layer, arriving)
    for share in (0.0, 0.5):
        start = np.full(layer.out_shape, share * layer.threshold, np.float32)
        for _ in range(_ROUNDS):
            tried = dataclasses.replace(layer, v_init=start)
            spikes = fire(tried, current)
            missing = wanted - spikes.sum(axis=0)
            error = float(np.abs(missing).mean())
            if error < least:
                least, chosen, emitted = error, tried, spikes
            start = _within(start + layer.threshold * missing.mean(axis=0), layer)
    return chosen, emitted


def _within(start: NDArray[np.float32], layer: SpikingLayer) -> NDArray[np.float32]:
    """Return potentials within what a neuron can have between two events."""
    below = np.nextafter(np.float32(layer.threshold), np.float32(0))
    return np.clip(start, -layer.threshold if layer.v_min is None else layer.v_min, below).astype(np.float32)
