"""Fitting a net's integers to data: what its layers read, and a trial of each layer event by event."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.convert.inputs import read_calibration
from spikeport.convert.rasters import spread, stack_rasters
from spikeport.convert.simulate import STEP_US
from spikeport.convert.types import SpikingNet

from .activity import Activity, measure_activities, measure_activity
from .discretize import FittedNet, Rounding, discretize, fitted
from .errors import SettingError
from .resolution import as_fine, count_changes, enter_raster, fine
from .types import IntegerNet

_SPANS = (1, 4)

_N_TRIED = 32
_MOST_TRIED = 2_000_000
"""Input events in a trial at most: some seconds for a net as large as the chip. A sample with more has no trial."""

_N_READ, _N_STEPS = 64, 16


def fit_to(net: SpikingNet, raster: ArrayLike) -> FittedNet:
    """Return ``net`` with its integers fitted to what recordings, or frames as events, cause in it.

    There are several fits: charges count as arriving together in one step or in several, or by the assumed activity.
    In a trial on the events of the raster each layer runs in the integers of each fit and in the vendor's, and gets
    those that change the fewest spikes. Rasters that are no whole numbers, and nets that upsample, have no trial and
    get the fit to one step.
    Shapes: ``raster`` is ``[T, C, H, W]`` or ``[T, B, C, H, W]``; a step is as in ``measure_activity``.
    Law: in the trial no layer changes more spikes than by the vendor's formula.
    Raises: InputError where the raster does not match the net's input.
    """
    batch = np.asarray(raster)
    batch = batch[:, None] if batch.ndim == 4 else batch
    if any(layer.upsample != (1, 1) for layer in net.layers) or (batch != np.rint(batch)).any() or (batch < 0).any():
        return fitted(net, measure_activity(net, batch))
    candidates = (*measure_activities(net, batch, _SPANS), Activity({}))
    variants = [discretize(net, method="vendor"), *(discretize(fitted(net, one)) for one in candidates)]
    best = _count_changes(net, variants, batch).argmin(axis=1)
    moments, kept = {}, set()
    for layer, choice in zip(net.layers, best, strict=True):
        if choice == 0:
            kept.add(layer.name)
        elif layer.name in candidates[choice - 1].moments:
            moments[layer.name] = candidates[choice - 1].moments[layer.name]
    return fitted(net, Activity(moments, frozenset(kept)))


def fit_as_asked(net: SpikingNet, rounding: Rounding, data: str | None) -> SpikingNet:
    """Return ``net`` as the options of a command ask for: as it is for the vendor's formula, else fitted.

    ``data`` is what ``convert --data`` takes; the first 64 recordings or frames are used, recordings in steps of 10 ms,
    frames as events over 16 steps.
    Raises: SettingError for data without a fit; what reading the data raises.
    """
    if rounding == "vendor":
        if data is not None:
            raise SettingError(
                f"--data {Path(data).name}: expected none for the vendor's rounding, which looks at weights only. "
                "Try --rounding fitted."
            )
        return net
    if data is None:
        return fitted(net)
    found = read_calibration(data, net.input_shape)
    if found.recordings:
        merges = net.input_shape[0] == 1
        return fit_to(net, stack_rasters(found.recordings[:_N_READ], STEP_US, merge_polarity=merges))
    return fit_to(net, spread(found.frames[:_N_READ], _N_STEPS))


def _count_changes(net: SpikingNet, variants: Sequence[IntegerNet], batch: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return how many spikes each variant changes in each layer by itself, ``[layers, variants]``."""
    reference, integers = fine(net), [as_fine(one) for one in variants]
    changed = np.zeros((len(net.layers), len(variants)), np.int64)
    n_events = 0
    for sample in range(min(batch.shape[1], _N_TRIED)):
        coming = int(batch[:, sample].sum(dtype=np.int64))
        if n_events + coming > _MOST_TRIED:
            break
        entering = enter_raster(batch[:, sample], seed=sample)
        changed += count_changes(reference, integers, entering)[:, :-1]
        n_events += coming
    return changed
