"""Card symbols under a simulated event camera: labelled recordings like those of POKER-DVS, made on the spot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .data import EventDataset
from .dvs import DvsModel, simulate_dvs
from .errors import DataError
from .events import Events
from .poker import POKER_SIZE, SUITS

_CAMERA = DvsModel(threshold=0.15, refractory_us=300.0, noise_hz=1.0)
_STEP_US = 500
_FINE = 3
"""Points in a pixel along an edge, whose mean is its intensity."""

_Points = NDArray[np.float64]
_Inside = NDArray[np.bool_]


def symbols(n: int = 100, *, seed: int = 0) -> EventDataset:
    """Return ``n`` recordings of card symbols, the suits in turn: dark on bright, flying through the view.

    Each has its own size, tilt, way, and length of 8 to 25 ms.
    Law: recording k of a seed is the same for every ``n``.
    Raises: DataError for fewer than 1 recording or a negative seed.
    """
    if n < 1 or seed < 0:
        raise DataError(
            f"symbols: expected 1 recording or more and a seed of 0 or more, found {n}, {seed}. Try 100, 0."
        )
    recordings = tuple(_recording(index % len(SUITS), seed, index) for index in range(n))
    labels = np.arange(n) % len(SUITS)
    return EventDataset(recordings, labels, SUITS, "symbols", "card symbols under a simulated event camera")


def _recording(suit: int, seed: int, index: int) -> Events:
    rng = np.random.default_rng([seed, index])
    duration_us = int(rng.uniform(8_000, 25_000))
    times = np.arange(0, duration_us + _STEP_US, _STEP_US, dtype=np.float64)
    size, tilt = rng.uniform(9.0, 11.5), rng.uniform(-0.15, 0.15)
    heading, way = rng.uniform(0, 2 * np.pi), rng.uniform(6.0, 10.0)
    middle = (np.array(POKER_SIZE) - 1) / 2 + rng.uniform(-1.5, 1.5, 2)
    part = times / times[-1] - 0.5
    centers = middle + part[:, None] * way * np.array([np.sin(heading), np.cos(heading)])
    axis = (np.arange(POKER_SIZE[0] * _FINE) + 0.5) / _FINE - 0.5
    down = (axis[None, :, None] - centers[:, 0, None, None]) / size
    right = (axis[None, None, :] - centers[:, 1, None, None]) / size
    x, y = np.cos(tilt) * right + np.sin(tilt) * down, np.sin(tilt) * right - np.cos(tilt) * down
    covered = _SHAPES[suit](x, y).reshape(len(times), POKER_SIZE[0], _FINE, POKER_SIZE[1], _FINE).mean(axis=(2, 4))
    return simulate_dvs(1.0 - covered, times, model=_CAMERA, seed=seed * 1_000_003 + index)


def _heart(x: _Points, y: _Points) -> _Inside:
    a, b = 1.25 * x, 1.15 * y + 0.1
    square = a * a + b * b - 1
    return np.asarray(square * square * square - a * a * b * b * b < 0)


def _diamond(x: _Points, y: _Points) -> _Inside:
    return np.asarray(np.abs(x) / 0.7 + np.abs(y) < 1)


def _spade(x: _Points, y: _Points) -> _Inside:
    return _heart(x, 0.1 - y) | _stem(x, y)


def _club(x: _Points, y: _Points) -> _Inside:
    def disc(at_x: float, at_y: float) -> _Inside:
        return np.asarray((x - at_x) ** 2 + (y - at_y) ** 2 < 0.42**2)

    return disc(0.0, 0.48) | disc(-0.47, -0.18) | disc(0.47, -0.18) | _stem(x, y)


def _stem(x: _Points, y: _Points) -> _Inside:
    return np.asarray((np.abs(x) < 0.09 + 0.12 * (y < -0.8)) & (y < 0.2) & (y > -1.0))


_SHAPES: tuple[Callable[[_Points, _Points], _Inside], ...] = (_club, _diamond, _heart, _spade)
"""In the order of the suits."""
