"""Weights to integers by the error that they cause together: which scale, what is clipped, what goes up or down."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_FACTORS = (0.92, 0.94, 0.96, 0.98, 1.0, 1.03, 1.06, 1.1, 1.15, 1.22, 1.32, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Of the scale at which no weight is clipped. Each threshold that they give is tried."""

_PATIENCE = 2
_SWEEPS = 4
_EXACT = 1e-3
_N_PROBED = 64


@dataclasses.dataclass(frozen=True)
class Grid:
    """The integers of one layer: registers of ``[lowest, highest]`` for each column, thresholds up to ``most``.

    Shapes: ``lowest`` and ``highest`` are ``[K]``.
    """

    lowest: Values
    highest: Values
    most: int


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """Weights in integers, for a threshold in integers.

    Shapes: ``integers`` ``[F, K]``. ``error`` is the mean squared error of a feature's charge, in thresholds.
    """

    integers: Values
    threshold: int
    error: float


def fit(weight: Values, moments: Values | None, grid: Grid, *, given: Fitted) -> Fitted:
    """Return the integers, and the threshold in integers, that change the charge of the neurons least.

    ``weight`` is in thresholds, so a threshold of ``k`` gives the integers ``k * weight``: it is exact itself.
    Shapes: ``weight`` ``[F, K]``; ``moments`` ``[groups, K, K]`` of what the columns read, one block of features for
    each; without them weights are rounded to nearest.
    Law: values that are whole for some threshold come out as they are; no error is above that of ``given``, where its
    threshold is within the grid; each weight within the registers goes to one of its two neighbors.
    Source: an error is the quadratic form of Nagel et al., ICML 2020 (Up or Down?), minimized column by column as in
    Behdin et al. 2023 (QuantEase).
    """
    given = dataclasses.replace(given, error=charge_error(weight, given, moments))
    if not weight.any() or (np.abs(weight * given.threshold - given.integers) < _EXACT).all():
        return given
    exact = exact_threshold(weight, grid)
    if exact is not None:
        return Fitted(np.rint(weight * exact), exact, 0.0)
    unclipped = _unclipped(weight, grid)
    best = given if given.threshold <= grid.most else dataclasses.replace(given, error=np.inf)
    n_worse = 0
    for factor in _FACTORS:
        threshold = round(unclipped * factor)
        if not 1 <= threshold <= grid.most:
            continue
        found = _rounded(weight, moments, grid, threshold, n_sweeps=1)
        n_worse = 0 if found.error < best.error else n_worse + (factor > 1)
        best = min(best, found, key=lambda one: one.error)
        if n_worse > _PATIENCE:
            break
    refined = _rounded(weight, moments, grid, best.threshold, n_sweeps=_SWEEPS)
    return min(best, refined, key=lambda one: one.error)


def charge_error(weight: Values, found: Fitted, moments: Values | None) -> float:
    """Return the mean squared error of the charge of a feature in one step, in thresholds."""
    return squared_charge(found.integers / found.threshold - weight, moments)


def squared_charge(weight: Values, moments: Values | None) -> float:
    """Return the mean over features of the mean squared charge in one step, in the unit of ``weight``."""
    if moments is None:
        return float(np.square(weight).sum() / len(weight))
    blocks = weight.reshape(len(moments), -1, weight.shape[1])
    return float(sum(((block @ own) * block).sum() for block, own in zip(blocks, moments, strict=True)) / len(weight))


def exact_threshold(weight: Values, grid: Grid) -> int | None:
    """Return the largest threshold for which weights, not all 0, are whole and in their registers; None without one."""
    thresholds = np.arange(1, int(_unclipped(weight, grid)) + 1)
    flat = np.unique(np.abs(weight[weight != 0]))
    probes = flat[np.linspace(0, len(flat) - 1, min(_N_PROBED, len(flat))).astype(int)]
    for value in probes:
        products = thresholds * value
        thresholds = thresholds[np.abs(products - np.rint(products)) < _EXACT]
    for threshold in thresholds[::-1]:
        if _is_whole(weight * threshold):
            return int(threshold)
    return None


def _unclipped(weight: Values, grid: Grid) -> float:
    """Return the largest threshold for which every weight rounds to a number within its register."""
    above, below = weight.max(axis=0), -weight.min(axis=0)
    tops = [(grid.highest[above > 0] + 0.49) / above[above > 0], (0.49 - grid.lowest[below > 0]) / below[below > 0]]
    return float(min(np.concatenate(tops).min(), grid.most))


def _is_whole(values: Values) -> bool:
    return bool((np.abs(values - np.rint(values)) < _EXACT).all())


def _rounded(weight: Values, moments: Values | None, grid: Grid, threshold: int, *, n_sweeps: int) -> Fitted:
    scaled = weight * threshold
    nearest = np.clip(np.rint(scaled), grid.lowest, grid.highest)
    if moments is None:
        made = Fitted(nearest, threshold, 0.0)
        return dataclasses.replace(made, error=charge_error(weight, made, None))
    blocks = len(moments)
    parts = [
        descend(one, start, own, grid, n_sweeps=n_sweeps)
        for one, start, own in zip(np.split(scaled, blocks), np.split(nearest, blocks), moments, strict=True)
    ]
    made = Fitted(np.concatenate(parts), threshold, 0.0)
    return dataclasses.replace(made, error=charge_error(weight, made, moments))


def descend(scaled: Values, nearest: Values, moments: Values, grid: Grid, *, n_sweeps: int) -> Values:
    """Return integers beside ``scaled``, chosen column by column so that each makes up for the errors of the others.

    The first sweep starts with all columns unrounded, the most active one first; the later ones repeat it with what
    was found. A feature for which ``nearest`` is better keeps that.
    Shapes: ``scaled``, ``nearest`` and the result ``[F, K]``, ``moments`` ``[K, K]``.
    """
    lower = np.clip(np.floor(scaled), grid.lowest, grid.highest)
    upper = np.clip(np.ceil(scaled), grid.lowest, grid.highest)
    own = np.diag(moments)
    clipped = np.clip(scaled, grid.lowest, grid.highest)
    error = (clipped - scaled).T.copy()  # as [K, F]: a column of weights is one run of memory
    for _ in range(n_sweeps):
        has_moved = False
        for k in np.argsort(-own, kind="stable"):
            if own[k] <= 0:
                error[k] = nearest[:, k] - scaled[:, k]
                continue
            elsewhere = moments[k] @ error - own[k] * error[k]
            wanted = np.rint(scaled[:, k] - elsewhere / own[k])
            moved = np.clip(wanted, lower[:, k], upper[:, k]) - scaled[:, k]
            has_moved = has_moved or bool((moved != error[k]).any())
            error[k] = moved
        if not has_moved:
            break
    errors = (error.T, nearest - scaled)
    costs = [((one @ moments) * one).sum(axis=1) for one in errors]
    return np.asarray(np.rint(np.where((costs[0] <= costs[1])[:, None], *errors) + scaled))
