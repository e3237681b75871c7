"""Activation scales to weights: each layer's spikes stay in a useful range, and the function stays what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .equalize import equalized_gains
from .errors import CalibrationDataError, CalibrationError, WeightValueError
from .graph import Graph, Input
from .shares import cost_shares
from .thresholds import Activations, balanced_scales, mse_scales, observe, percentile_scales

_FEWEST = 2

_MAX_RATIO = 16.0
"""Between the scale of a feature and that of its layer: one that hardly ever fires gets no gain without bounds."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How activations become spike counts.

    Units: the scale of a layer is the activation that becomes ``spikes`` spikes per calibration frame. ``rule`` finds
    it: the ``percentile`` (0 to 100; 100 is the maximum) of the layer's activations, ``over`` the positive ones or all;
    the scale with the least squared error when activations are rounded to spikes and clipped at it (mse); the one that
    balances what is clipped and what is rounded (balance); or 1 (trained), which leaves all weights their ratio. With
    ``per_channel`` each feature has its own. ``equalize`` moves the scales of features so that weights use all of the 8
    bits. ``share`` says whether every layer has ``spikes``, or (cost) up to 4 times as many where they cause fewer
    synops than in the most expensive layer. ``start`` is the potential before the first event: zero, half a threshold,
    what calibration finds per neuron, or what ``starts.choose_start`` says (auto). ``n_steps`` is the number of time
    steps (or leak ticks) that one calibration frame lasts: a bias is added once per step, ``bias / n_steps`` each time.
    Law: doubling ``spikes`` doubles the weights that read the input and every bias, and no other weight.
    Source: percentile: Rueckauer et al., Frontiers in Neuroscience 11:682 (2017), here with biases too; mse and
    calibrated: Li et al., ICML 2021; half: Deng and Gu, ICLR 2021; equalize: Nagel et al., ICCV 2019.
    """

    percentile: float = 99.9
    spikes: float = 20.0
    n_steps: int = 1
    rule: Literal["percentile", "mse", "balance", "trained"] = "percentile"
    over: Literal["positive", "all"] = "positive"
    per_channel: bool = False
    equalize: bool = False
    start: Literal["auto", "zero", "half", "calibrated"] = "auto"
    share: Literal["equal", "cost"] = "equal"

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise CalibrationError(
                f"percentile: expected more than 0 and at most 100, found {self.percentile}. Try 99.9."
            )
        if not 1e-3 <= self.spikes <= 1e6:
            raise CalibrationError(f"spikes: expected 0.001 to 1000000, found {self.spikes}. Try 20.")
        if self.n_steps < 1:
            raise CalibrationError(f"n_steps: expected at least 1, found {self.n_steps}. Try 1.")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise CalibrationError(
                    f"{name}: expected one of {', '.join(allowed)}, found '{getattr(self, name)}'. Try {allowed[0]}."
                )


_CHOICES = {
    "rule": ("percentile", "mse", "balance", "trained"),
    "over": ("positive", "all"),
    "start": ("auto", "zero", "half", "calibrated"),
    "share": ("equal", "cost"),
}


def calibration_batch(data: ArrayLike, entry: Input) -> NDArray[np.float32]:
    """Return calibration frames as float32 ``[N, C, H, W]``.

    Raises: CalibrationDataError for another shape, fewer than two frames, or frames that are all zero; WeightValueError
    for NaN.
    """
    tensor = data.detach().cpu() if hasattr(data, "detach") else data  # a torch tensor, also one that wants a gradient
    frames = np.asarray(tensor, np.float32)
    shapes = {tuple(entry.out_shape), tuple(entry.given_shape)}
    if frames.shape[1:] not in shapes or not len(frames):
        raise CalibrationDataError(
            f"calibration data: expected frames [N, {', '.join(map(str, entry.given_shape))}], found "
            f"{list(frames.shape)}. Try the frames the CNN was trained on, channels first."
        )
    if not np.isfinite(frames).all():
        raise WeightValueError("calibration data: expected finite numbers, found NaN or infinity. Try other frames.")
    if not frames.any():
        raise CalibrationDataError("calibration data: every frame is zero. Try frames that hold events.")
    if len(frames) < _FEWEST:
        raise CalibrationDataError(
            f"calibration data: expected {_FEWEST} samples or more, found {len(frames)}: its scales fit no other. "
            "Try a hundred, such as a folder of recordings."
        )
    return frames.reshape(len(frames), *entry.out_shape)


def find_gains(graph: Graph, frames: NDArray[np.float32], scaling: Scaling) -> dict[str, NDArray[np.float64]]:
    """Return how many spikes stand for 1 in each feature of a folded graph.

    Shapes: ``[F]`` for each convolution; see ``gains`` for where layers must agree.
    Raises: CalibrationError that lists the layers which stay silent on all frames.
    """
    return gains_of(graph, observe(graph, frames), scaling)


def gains_of(graph: Graph, found: Mapping[str, Activations], scaling: Scaling) -> dict[str, NDArray[np.float64]]:
    """Return the same as ``find_gains`` for activations that were observed before.

    Raises: as ``find_gains``.
    """
    silent = {name: activations.n_frames for name, activations in found.items() if activations.is_silent}
    if silent:
        raise CalibrationDataError(
            f"layers that stay silent on all {max(silent.values())} calibration frames: {', '.join(silent)}. "
            "Try more frames, or look whether training left these layers dead."
        )
    gains = {name: scaling.spikes / _scales(activations, scaling) for name, activations in found.items()}
    if scaling.share == "cost":
        shares = cost_shares(graph, gains, found)
        gains = {name: gain * shares[name] for name, gain in gains.items()}
    return equalized_gains(graph, gains, found) if scaling.equalize else gains


def _scales(found: Activations, scaling: Scaling) -> NDArray[np.float64]:
    """Return the scale of each feature of a layer: the layer's own, or near it with one for each feature."""
    (whole,) = _by_rule(found.merged(), scaling)
    if whole <= 0:  # a percentile over all activations, most of them zero
        (whole,) = percentile_scales(found.merged(), scaling.percentile, positive=True)
    if not scaling.per_channel:
        return np.full(len(found.values), whole)
    own = _by_rule(found, scaling)
    return np.where(own > 0, np.clip(own, whole / _MAX_RATIO, whole * _MAX_RATIO), whole)


def _by_rule(found: Activations, scaling: Scaling) -> NDArray[np.float64]:
    match scaling.rule:
        case "mse":
            return mse_scales(found, scaling.spikes, start=0.5 if scaling.start in ("half", "calibrated") else 0.0)
        case "trained":
            return np.ones(len(found.values))
        case "balance":
            return balanced_scales(found, scaling.spikes)
    return percentile_scales(found, scaling.percentile, positive=scaling.over == "positive")
