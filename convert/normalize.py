"""Activation scales to weights: each layer's spikes stay in a useful range, and the function stays what it was."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import CalibrationError, WeightValueError
from .evaluate import evaluate
from .geometry import Shape3
from .graph import Conv, Graph

_CAP = 1_000_000
"""Positive activations kept per layer and batch for a percentile; more are thinned evenly."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How activations become spike counts.

    Units: the ``percentile`` (0 to 100) of the positive activations of a layer becomes ``spikes`` spikes per
    calibration frame; ``n_steps`` is the number of time steps (or leak ticks) that one calibration frame lasts: a bias
    is added once per step, so each step adds ``bias / n_steps``.
    Source: Rueckauer et al., Frontiers in Neuroscience 11:682 (2017), robust normalization; the rule below keeps the
    function with biases too.
    """

    percentile: float = 99.9
    spikes: float = 20.0
    n_steps: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise CalibrationError(
                f"percentile: expected more than 0 and at most 100, found {self.percentile}. Try 99.9."
            )
        if not 1e-3 <= self.spikes <= 1e6:
            raise CalibrationError(f"spikes: expected 0.001 to 1000000, found {self.spikes}. Try 20.")
        if self.n_steps < 1:
            raise CalibrationError(f"n_steps: expected at least 1, found {self.n_steps}. Try 1.")


def calibration_batch(data: ArrayLike, input_shape: Shape3) -> NDArray[np.float32]:
    """Return calibration frames as float32 ``[N, C, H, W]``.

    Raises: CalibrationError for another shape, no frames, or frames that are all zero; WeightValueError for NaN.
    """
    tensor = data.detach().cpu() if hasattr(data, "detach") else data  # a torch tensor, also one that wants a gradient
    frames = np.asarray(tensor, np.float32)
    if frames.ndim != 4 or frames.shape[1:] != tuple(input_shape) or not len(frames):
        raise CalibrationError(
            f"calibration data: expected frames [N, {', '.join(map(str, input_shape))}], found {list(frames.shape)}. "
            "Try the frames the CNN was trained on, channels first."
        )
    if not np.isfinite(frames).all():
        raise WeightValueError("calibration data: expected finite numbers, found NaN or infinity. Try other frames.")
    if not frames.any():
        raise CalibrationError("calibration data: every frame is zero. Try frames that hold events.")
    return frames


def activation_scales(graph: Graph, frames: NDArray[np.float32], percentile: float) -> dict[str, float]:
    """Return the percentile of the positive activations behind each convolution of a folded graph.

    Raises: CalibrationError that lists the layers which stay silent on all frames.
    """
    import torch

    kept: dict[str, list[NDArray[np.float32]]] = {node.name: [] for node in graph if isinstance(node, Conv)}
    for first in range(0, len(frames), 64):
        values = evaluate(graph, torch.from_numpy(frames[first : first + 64].copy()))
        for name, chunks in kept.items():
            activation = values[name].numpy()
            positive = activation[activation > 0]
            chunks.append(positive[:: -(-positive.size // _CAP) or 1])
    silent = [name for name, chunks in kept.items() if not sum(map(len, chunks))]
    if silent:
        raise CalibrationError(
            f"layers that stay silent on all {len(frames)} calibration frames: {', '.join(silent)}. "
            "Try more frames, or look whether training left these layers dead."
        )
    return {name: float(np.percentile(np.concatenate(chunks), percentile)) for name, chunks in kept.items()}


def normalize(graph: Graph, frames: NDArray[np.float32], scaling: Scaling) -> tuple[Graph, float]:
    """Return the graph with weights scaled so that activations count spikes, and the gain of its output.

    Law: the output is the gain times the output of ``graph`` for every input.
    """
    scales = activation_scales(graph, frames, scaling.percentile)
    before = 1.0
    for node in graph:
        if isinstance(node, Conv):
            gain = scaling.spikes / scales[node.name]
            weight = (node.weight * (gain / before)).astype(np.float32)
            bias = None if node.bias is None else (node.bias * gain).astype(np.float32)
            graph = graph.replaced(node.name, weight=weight, bias=bias)
            before = gain
    return graph, before
