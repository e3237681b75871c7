"""What the tests of evaluation and of streams are given: a predictor, recordings, rasters, labels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from spikeport.models.events import Events
from spikeport.models.stream import Decision, StreamSettings, stream

from ..laws import random_recordings  # noqa: TID252
from .leaky import LeakyPredictor

PREDICTOR = LeakyPredictor()
LOGITS = {"logits": "accuracy"}


def recordings(n: int = 7, seed: int = 0) -> list[Events]:
    return random_recordings(np.random.default_rng(seed), (5, 6), n)


def labels(n: int = 7, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 4, n)


def rasters(n: int = 7, steps: int = 5, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 2, (n, steps, 2, 5, 6)).astype(np.float32)


LAST = LeakyPredictor(readout="last")


def recording(n: int = 2000, seed: int = 0, *, start_us: int = 0, duration_us: int = 100_000) -> Events:
    rng = np.random.default_rng(seed)
    times = start_us + np.sort(rng.integers(0, duration_us, n))
    return Events(rng.integers(0, 6, n), rng.integers(0, 5, n), rng.integers(0, 2, n), times, (5, 6))


def cut(events: Events, at: list[int]) -> list[Events]:
    bounds = [0, *sorted(at), len(events)]
    return [events.part(a, b) for a, b in itertools.pairwise(bounds)]


def run(predictor: Any, source: Any, **options: Any) -> tuple[Any, list[Decision]]:
    decisions: list[Decision] = []
    return stream(predictor, source, settings=StreamSettings(**options), on_decision=decisions.append), decisions
