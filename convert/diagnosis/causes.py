"""From the counts of a layer to the cause of its error, as sentences with numbers: the rules of the diagnosis."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .measure import LayerCounts, on_grid

Cause = Literal[
    "healthy",
    "scale missing",
    "wrong pool factor",
    "dead layer",
    "lower bound too tight",
    "clipping",
    "int8 overflow",
    "bias not applied",
    "bias added too often",
    "too few spikes",
    "other weights",
    "input unlike calibration",
]

WEIGHTS_OFF = 0.1
"""Error by weights and biases that counts as a fault. An intact layer has none, one rounded to 8 bits up to 0.05."""

BOUND_OFF = 0.15
"""Error by the lower bound that counts: half as much again as rounding to whole spikes makes at 20 spikes (0.1)."""

GRID_OFF = 0.25
"""Error by 8-bit weights that counts: five times what it is for weights without outliers (0.05)."""

CLIPPED_OFF = 0.1
"""Error by clipping that counts: as much as rounding to whole spikes makes at 20 spikes."""

TOO_FEW_OFF = 0.5
"""Error by rounding to whole spikes that counts, where the most active neurons send no more than ``FEW_SPIKES``."""

FEW_SPIKES = 3.0
"""Spikes of the most active neurons below which rounding, half a spike on average, is a large part of them."""

SCALE_SPAN = 1000.0
"""Scales of trained layers differ by less: weights further off are no missing scale, the layer is dead."""

SAME_FACTOR = 0.1
"""Spread of the logarithm of the ratio of two sets of weights below which they count as multiples of one another:
rounding to 8 bits moves a weight of a tenth of the largest one by 4 %."""

FACTOR_OFF = 0.05
"""Relative distance from 1 within which a factor makes no error worth naming."""

POOL_FACTOR_OFF = 0.01
"""Relative distance from a pool's area within which a factor is that area: a pool counted twice is exactly that."""

UNDERFLOW = 0.5
"""Share of weights that become 0 in 8 bits from which the grid is too coarse. Gaussian weights lose about 1 %."""

AT_LIMIT = 0.05
"""Share of weights at the largest value, to either side, from which they have been cut there; three at least."""

DEAD_SHARE = 0.5
"""Share of neurons that never fire though the CNN's are active, from which the layer is dead."""

INPUT_SPAN = 3.0
"""Factor between the input of a recording and of a calibration frame from which they are unlike one another."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is wrong with a layer: ``evidence`` says it with numbers, ``fix`` names the knob to turn."""

    layer: str
    cause: Cause
    evidence: str
    fix: str

    def __str__(self) -> str:
        return f"'{self.layer}': {self.cause}: {self.evidence} {self.fix}".rstrip()


def size(values: NDArray[Any]) -> float:
    """Return the root of the mean square, 0 for no values."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def error_parts(counts: LayerCounts) -> dict[str, float]:
    """Return the root mean square of each part of a layer's error, as a share of the spikes asked for.

    ``inherited`` is what earlier layers did, the others arise in the layer: weights and bias that are not those of the
    CNN, the lower bound, clipping, the order of spikes, rounding to whole spikes. ``int8`` and ``no bias`` are not part
    of the simulated net's error, they would come on a chip: by 8-bit weights, and without a slow clock.
    """
    base = unit(counts)
    pairs = {
        "inherited": (counts.asked, counts.activations),
        "weights": (counts.unbounded, counts.intended),
        "lower bound": (counts.spikes, counts.unbounded),
        "clipping": (np.minimum(counts.intended, limit(counts)), counts.intended),
        "order": (np.minimum(counts.intended, limit(counts)), counts.rounded),
        "rounding": (counts.rounded, counts.asked),
        "int8": (counts.gridded, counts.spikes),
        "no bias": (counts.unbiased, counts.spikes),
    }
    return {name: size(found - meant) / base for name, (found, meant) in pairs.items()}


def unit(counts: LayerCounts) -> float:
    """Return what errors are shares of: the root mean square of the spikes asked for, or what the CNN's layer has."""
    return size(counts.asked) or size(counts.activations) or 1.0


def limit(counts: LayerCounts) -> NDArray[np.float32]:
    """Return the most spikes that a neuron may send: one in each update on the chip, or the CNN's upper bound."""
    bound = np.inf if counts.ceiling is None else np.ceil(counts.ceiling)
    return np.asarray(np.minimum(counts.visits, bound), np.float32)


def find_verdict(counts: LayerCounts) -> Verdict:
    """Return the cause of the largest fault of a layer, or that it is healthy.

    A layer at which nothing arrives is not to blame for its silence.
    """
    parts = error_parts(counts)
    if _never_reaches_threshold(counts):
        most = float(counts.activations.max())
        return _verdict(
            counts,
            "scale missing",
            f"its largest activation is {most:.3g} spikes, so that no neuron ever fires.",
            "Try converting with calibration data (--data), which gives each layer its scale.",
        )
    if parts["weights"] > WEIGHTS_OFF:
        return _weights_verdict(counts, parts["weights"])
    if parts["clipping"] > CLIPPED_OFF:
        return _clipping_verdict(counts, parts["clipping"])
    if parts["lower bound"] > BOUND_OFF:
        low = (counts.layer.v_min or 0.0) / counts.layer.threshold
        return _verdict(
            counts,
            "lower bound too tight",
            f"the bound of {low:.3g} thresholds takes potential from {counts.hit.mean():.0%} of the neurons, which "
            f"makes an error of {parts['lower bound']:.0%} of its spikes.",
            f"Try --v-min {min(-1.0, 4 * low):g}, or none.",
        )
    if parts["int8"] > GRID_OFF:
        return _grid_verdict(counts, parts["int8"])
    most = float(np.percentile(counts.activations, 99.9))
    if parts["rounding"] > TOO_FEW_OFF and most <= FEW_SPIKES:
        return _verdict(
            counts,
            "too few spikes",
            f"its most active neurons send {most:.2g} spikes, and rounding to whole ones makes an error of "
            f"{parts['rounding']:.0%}.",
            "Try more spikes for each frame (--spikes).",
        )
    if not counts.visits.any():
        return _verdict(counts, "healthy", "nothing arrives at it.", "")
    return _verdict(counts, "healthy", f"error of its own {own_error(counts):.0%} of its spikes.", "")


def own_error(counts: LayerCounts) -> float:
    """Return the root mean square of the error that arises in the layer, as a share of the spikes asked for."""
    return size(counts.spikes - counts.asked) / unit(counts)


def _verdict(counts: LayerCounts, cause: Cause, evidence: str, fix: str) -> Verdict:
    return Verdict(counts.layer.name, cause, evidence, fix)


def _never_reaches_threshold(counts: LayerCounts) -> bool:
    start = 0.0 if counts.layer.v_init is None else counts.layer.v_init.max() / counts.layer.threshold
    return bool(counts.activations.any() and counts.activations.max() + start < 1 and not counts.spikes.any())


def _clipping_verdict(counts: LayerCounts, error: float) -> Verdict:
    over_chip = float((counts.intended > counts.visits).mean())
    if counts.ceiling is not None and np.any(counts.intended > np.ceil(counts.ceiling)):
        share = float((counts.intended > np.ceil(counts.ceiling)).mean())
        return _verdict(
            counts,
            "clipping",
            f"the CNN cuts activations at {float(counts.ceiling.max()):.3g} spikes, spiking neurons do not: "
            f"{share:.0%} of them send more, an error of {error:.0%}.",
            "Try nn.ReLU() in place of the bounded one, and train again.",
        )
    return _verdict(
        counts,
        "clipping",
        f"{over_chip:.0%} of its neurons send more spikes than they receive events; on the chip one event causes one "
        f"spike at most, which cuts off {error:.0%}.",
        "Try fewer spikes (--spikes) or a higher --percentile: now one event makes a neuron cross several thresholds.",
    )


def _grid_verdict(counts: LayerCounts, error: float) -> Verdict:
    return _verdict(
        counts,
        "int8 overflow",
        f"in 8 bits {underflow(counts):.0%} of its weights become 0, the largest is "
        f"{_outlier(counts.layer.weight):.0f} times the median: the error is {error:.0%} of its spikes.",
        "Try training with weight decay, cutting off the outlier, or Scaling(equalize=True).",
    )


def underflow(counts: LayerCounts) -> float:
    """Return the share of the layer's non-zero weights that become 0 on the chip's grid."""
    weight = counts.layer.weight
    lost = (weight != 0) & (on_grid(counts.layer).weight == 0)
    return float(lost.sum() / max(1, (weight != 0).sum()))


def _outlier(weight: NDArray[Any]) -> float:
    sizes = np.abs(weight[weight != 0])
    return float(sizes.max() / np.median(sizes)) if sizes.size else 0.0


def _weights_verdict(counts: LayerCounts, error: float) -> Verdict:
    """Return why weights and biases that are not those of the scaled CNN make an error."""
    factor = _common_factor(counts)
    is_silent = not counts.spikes.any()
    if factor is not None and 1 / SCALE_SPAN <= factor <= SCALE_SPAN:
        if abs(factor - 1) > FACTOR_OFF:
            return _factor_verdict(counts, factor)
        bias = _bias_verdict(counts, error)
        if bias is not None:
            return bias
    if is_silent:
        largest = float(counts.layer.weight.max()) / counts.layer.threshold
        return _verdict(
            counts,
            "dead layer",
            f"no neuron ever fires, where the CNN's weights would give {counts.intended.sum():,.0f} spikes; its "
            f"largest weight is {largest:.3g} thresholds.",
            "Try the weights that convert() gave, or look whether training left the layer dead.",
        )
    lost, gaps = underflow(counts), float(np.mean((counts.node.weight != 0) & (counts.layer.weight == 0)))
    rows = counts.layer.weight.reshape(len(counts.layer.weight), -1)
    has_weights = rows.any(axis=1) & (factor is None or factor >= 1 / SCALE_SPAN)
    cut_off = float(np.mean(~has_weights))
    if cut_off < DEAD_SHARE and (lost >= UNDERFLOW or gaps >= UNDERFLOW or _is_on_grid(rows) or _is_cut(rows)):
        return _verdict(
            counts,
            "int8 overflow",
            f"its weights do not fit 8 bits: {max(lost, gaps):.0%} of them become 0, {_at_limit(rows):.0%} sit at the "
            f"largest value, which is {_outlier(rows):.0f} times the median; the error is {error:.0%} of its spikes.",
            "Try the float weights that convert() gave: discretize() finds the factor that fits.",
        )
    dead = dead_share(counts)
    if max(dead, cut_off) >= DEAD_SHARE:
        return _verdict(
            counts,
            "dead layer",
            f"{dead:.0%} of its neurons never fire though those of the CNN are active, {cut_off:.0%} of its features "
            "have no weights to speak of.",
            "Try the weights that convert() gave.",
        )
    return _verdict(
        counts,
        "other weights",
        f"its weights are not those of the CNN, nor a multiple: the error is {error:.0%} of its spikes.",
        "Try the weights that convert() gave.",
    )


def _factor_verdict(counts: LayerCounts, factor: float) -> Verdict:
    slope = slope_through_origin(counts.asked, counts.spikes)
    seen = f"its weights over its threshold are {factor:.3g} times those of the scaled CNN"
    seen += f", and it sends {slope:.3g} spikes for each one asked for."
    area = counts.pool_area
    if area > 1 and any(abs(factor / wrong - 1) <= POOL_FACTOR_OFF for wrong in (area, 1 / area)):
        return _verdict(
            counts,
            "wrong pool factor",
            f"{seen} The pool in front of it has an area of {area}.",
            f"Try 1/{area} in the weights exactly once: sum pools stand for average pools.",
        )
    return _verdict(
        counts, "scale missing", seen, "Try the weights that convert() gave with calibration data (--data)."
    )


def _bias_verdict(counts: LayerCounts, error: float) -> Verdict | None:
    gain = counts.bias_gain
    if gain is None:
        if counts.layer.bias is None or not counts.layer.bias.any():
            return None
        return _verdict(counts, "bias added too often", "it has a bias, the CNN has none.", "Try a bias of None.")
    if abs(gain - 1) <= FACTOR_OFF or not 0 <= gain <= SCALE_SPAN:
        return None
    seen = f"{gain:.3g} times the bias of the CNN is added in {counts.n_steps} steps, an error of {error:.0%}."
    fix = f"Try --steps {counts.n_steps}, as many as a recording has steps or leak ticks."
    if gain < 1:
        return _verdict(counts, "bias not applied", seen, f"{fix} On a chip a bias needs a slow clock.")
    return _verdict(counts, "bias added too often", seen, fix)


def _common_factor(counts: LayerCounts) -> float | None:
    """Return the factor between the layer's weights and those of the CNN; None where they are no multiples.

    Factors of single features and channels count too: scales may be missing for each of them.
    """
    given, wanted = counts.layer.weight / counts.layer.threshold, counts.node.weight
    clear = np.abs(wanted) > 0.1 * np.abs(wanted).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(clear, given.astype(np.float64) / wanted, np.nan)
    known = ratio[clear]
    if not known.size or not np.all(known > 0):
        return None
    logs = np.log(ratio)
    factor = math.exp(float(np.nanmean(logs)))
    features, channels = wanted.shape[:2]
    if known.size >= 4 * (features + channels):  # enough of them to tell factors apart from chance
        for _ in range(2):
            for axes in ((1, 2, 3), (0, 2, 3)):
                counted = np.maximum(clear.sum(axis=axes, keepdims=True), 1)
                logs = logs - np.nansum(logs, axis=axes, keepdims=True) / counted
    return factor if float(np.nanstd(logs)) <= SAME_FACTOR else None


def _is_on_grid(weight: NDArray[Any]) -> bool:
    """Return whether weights are multiples of one step, 128 of them at most: they have been through 8 bits."""
    levels = np.unique(np.append(np.abs(weight.astype(np.float64)).ravel(), 0.0))
    gaps = np.diff(levels)
    gaps = gaps[gaps > 1e-5 * levels[-1]]
    if gaps.size < 3:
        return False
    steps = levels / gaps.min()
    return bool(steps[-1] <= 128.5 and np.all(np.abs(steps - np.rint(steps)) < 0.02))


def _is_cut(weight: NDArray[Any]) -> bool:
    n_at_limit = round(_at_limit(weight) * np.count_nonzero(weight))
    return n_at_limit >= 3 and _at_limit(weight) >= AT_LIMIT


def _at_limit(weight: NDArray[Any]) -> float:
    sizes = np.abs(weight[weight != 0])
    return float(np.mean(sizes >= 0.99 * sizes.max())) if sizes.size else 0.0


def dead_share(counts: LayerCounts) -> float:
    """Return the share of neurons that never fire, though the CNN's reach one spike in some recording."""
    active = (counts.activations >= 1).any(axis=0)
    return float((active & ~counts.spikes.any(axis=0)).mean())


def slope_through_origin(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the slope of the line through the origin with the least squared error; 0 where all ``x`` are 0."""
    square = float(np.sum(np.square(x, dtype=np.float64)))
    return float(np.sum(x.astype(np.float64) * y)) / square if square else 0.0
