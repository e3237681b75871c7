"""What rounding to the chip's integers loses, layer by layer, by the vendor's formula and fitted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.types import SpikingLayer, SpikingNet

from .activity import Moments, assumed_charge, layer_moments
from .discretize import FittedNet, Rounding, columns, discretize, in_thresholds
from .rounding import squared_charge
from .types import IntegerLayer, IntegerNet


@dataclasses.dataclass(frozen=True)
class LayerLoss:
    """What one method made of the weights of a layer.

    ``n_zeroed`` weights became 0, ``n_clipped`` ended at the end of 8 bits, ``n_surplus`` are above the threshold, so
    that a neuron has more charge left than its next threshold. ``error`` is that of the charge which reaches a neuron
    in a step, relative to the charge, both as root mean squares; None for a layer of zeros, or a threshold of 0.
    """

    method: Rounding
    threshold: int
    n_zeroed: int
    n_clipped: int
    n_surplus: int
    error: float | None


@dataclasses.dataclass(frozen=True)
class LayerLosses:
    """One layer by each method; ``fitted`` is None where nothing is fitted."""

    layer: str
    n_weights: int
    vendor: LayerLoss
    fitted: LayerLoss | None = None


@dataclasses.dataclass(frozen=True)
class DiscretizationReport:
    """What rounding loses in each layer; ``is_measured`` says whether errors are for a measured activity."""

    layers: tuple[LayerLosses, ...]
    is_measured: bool = False

    @property
    def is_fitted(self) -> bool:
        """Whether there is a fit to compare with the vendor's formula."""
        return any(layer.fitted is not None for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under plain names; ``fitted`` is None where nothing is fitted."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of text for each layer, under ``LOSS_COLUMNS``; the fit stands behind the vendor's."""
        return [
            (
                one.layer,
                f"{one.n_weights:,}",
                *(
                    " / ".join(f"{getattr(loss, name):,}" for loss in (one.vendor, one.fitted) if loss is not None)
                    for name in ("threshold", "n_zeroed", "n_clipped", "n_surplus")
                ),
                " / ".join(
                    "none" if loss.error is None else f"{loss.error:.2%}"
                    for loss in (one.vendor, one.fitted)
                    if loss is not None
                ),
            )
            for one in self.layers
        ]


LOSS_COLUMNS = ("Layer", "Weights", "Threshold", "Zeroed", "Clipped", "Above threshold", "Error of the charge")
"""Of ``DiscretizationReport.rows``."""


def report_losses(net: SpikingNet, integers: IntegerNet) -> DiscretizationReport:
    """Return what the vendor's formula loses in each layer of ``net``, and what the fit does for a ``FittedNet``.

    ``integers`` is ``discretize(net)``.
    """
    activity = net.activity if isinstance(net, FittedNet) else None
    measured = {} if activity is None else activity.moments
    is_fitted = isinstance(net, FittedNet)
    vendor = discretize(net, method="vendor").layers if is_fitted else integers.layers
    ours = integers.layers if is_fitted else (None,) * len(net.layers)
    layers = []
    for layer, theirs, fitted in zip(net.layers, vendor, ours, strict=True):
        moments = measured.get(layer.name)
        layers.append(
            LayerLosses(
                layer.name,
                layer.weight.size,
                _loss(layer, theirs, moments, "vendor"),
                None if fitted is None else _loss(layer, fitted, moments, "fitted"),
            )
        )
    return DiscretizationReport(tuple(layers), activity is not None)


def _loss(layer: SpikingLayer, integer: IntegerLayer, measured: Moments | None, method: Rounding) -> LayerLoss:
    weight, rounded = in_thresholds(layer), columns(integer.weight, integer.bias)
    threshold = integer.threshold_high
    wanted, integers = np.rint(columns(layer.weight, None)[:, :-1] * integer.scale), rounded[:, :-1]
    lowest, highest = np.iinfo(integer.weight.dtype).min, np.iinfo(integer.weight.dtype).max
    charge, error = _charge(layer, weight, measured), None
    if threshold > 0 and charge > 0:
        error = float(np.sqrt(_charge(layer, rounded / threshold - weight, measured) / charge))
    return LayerLoss(
        method=method,
        threshold=threshold,
        n_zeroed=int(((weight[:, :-1] != 0) & (integers == 0)).sum()),
        n_clipped=int(((wanted < lowest) | (wanted > highest)).sum()),
        n_surplus=int((integers > threshold).sum()),
        error=error,
    )


def _charge(layer: SpikingLayer, weight: NDArray[np.float64], measured: Moments | None) -> float:
    if measured is None:
        return assumed_charge(weight, layer.weight.shape[2] * layer.weight.shape[3])
    return squared_charge(weight, layer_moments(layer, measured))
