"""Random changes to labelled recordings, as they are trained on: pure functions of events and a random generator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spikeport.models.data import EventDataset
from spikeport.models.errors import TrainingError
from spikeport.models.events import Events

from .configs import SsmConfig

Doubles = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How recordings are changed before they are trained on; as they stand here, not at all.

    ``cut_mix`` is the share of batches in which each recording gets a piece of another one, and as much of its label;
    ``event_drop`` the share of events left out, ``chunk_drop`` the largest share left out in one piece, in
    ``chunk_share`` of the recordings. Times are stretched by ``1 / time_skew`` to ``time_skew``. A ``spatial_share`` of
    the recordings each is rolled by up to ``roll_px``, turned by up to ``rotation_deg``, scaled by ``1 / scale`` to
    ``scale``: events that leave the sensor are left out. Up to ``noise_events`` are added.
    Units: ``time_jitter_us`` and ``jitter_px`` are standard deviations for each event.
    """

    cut_mix: float = 0.0
    event_drop: float = 0.0
    chunk_drop: float = 0.0
    chunk_share: float = 0.3
    time_skew: float = 1.0
    time_jitter_us: float = 0.0
    jitter_px: float = 0.0
    noise_events: int = 0
    roll_px: int = 0
    rotation_deg: float = 0.0
    scale: float = 1.0
    spatial_share: float = 0.3

    def __post_init__(self) -> None:
        shares = ("cut_mix", "event_drop", "chunk_drop", "chunk_share", "spatial_share")
        amounts = ("time_jitter_us", "jitter_px", "noise_events", "roll_px", "rotation_deg")
        checks = {name: 0 <= getattr(self, name) <= 1 for name in shares}
        checks |= {name: 0 <= getattr(self, name) < math.inf for name in amounts}
        checks |= {name: 1 <= getattr(self, name) < math.inf for name in ("time_skew", "scale")}
        wrong = [f"{name}: {getattr(self, name)!r} is outside its range" for name, is_in in checks.items() if not is_in]
        if wrong:
            raise TrainingError(f"augmentation: {'; '.join(wrong)}. Try Augmentation() as it is.")


def augmented(events: Events, how: Augmentation, rng: np.random.Generator) -> Events:
    """Return a recording changed at random, in order of time from 0.

    Law: the same generator gives the same recording; one with events keeps at least two of them.
    """
    height, width = events.sensor_size
    x, y, p, t = (np.asarray(column, np.float64) for column in (events.x, events.y, events.p, events.t_us))
    keep = rng.random(len(x)) >= how.event_drop
    if rng.random() < how.chunk_share and how.chunk_drop > 0:
        n = int(rng.uniform(0, how.chunk_drop) * len(x))
        first = int(rng.integers(0, len(x) - n + 1))
        keep[first : first + n] = False
    t = t * math.exp(rng.uniform(-1, 1) * math.log(how.time_skew)) + rng.normal(0, 1, len(t)) * how.time_jitter_us
    x, y = x + rng.normal(0, 1, len(x)) * how.jitter_px, y + rng.normal(0, 1, len(y)) * how.jitter_px * (height > 1)
    x, y = _moved(x, y, events.sensor_size, how, rng)
    x, y = np.rint(x), np.rint(y)
    keep &= (x >= 0) & (x < width) & (y >= 0) & (y < height)
    if keep.sum() < 2:
        return events
    n_noise = int(rng.integers(0, how.noise_events + 1))
    noise = rng.integers(0, width, n_noise), rng.integers(0, height, n_noise), rng.integers(0, 2, n_noise)
    columns = [np.concatenate([own[keep], added]) for own, added in zip((x, y, p), noise, strict=True)]
    times = np.concatenate([t[keep], rng.uniform(t[keep].min(), t[keep].max(), n_noise)])
    order = np.argsort(times, kind="stable")
    times = np.rint(times - times[order[0]]).astype(np.int64)
    placed = [column[order].astype(np.int64) for column in columns]
    return Events(placed[0], placed[1], placed[2], times[order], events.sensor_size)


def cut_mixed(recordings: Sequence[Events], targets: Doubles, rng: np.random.Generator) -> tuple[list[Events], Doubles]:
    """Return recordings in each of which a piece of another one stands for what was there, and their targets.

    A piece is some of the other's events in a row; what the recording had at those times goes. The targets are mixed by
    the shares of events.
    Shapes: ``targets`` ``[N, classes]``, each row with a sum of 1.
    Law: each target still sums to 1.
    """
    pieces = []
    for events in recordings:
        n = int(rng.integers(1, max(2, len(events))))
        first = int(rng.integers(0, max(1, len(events) - n)))
        pieces.append(events.part(first, first + n))
    mixed, labels = [], []
    for index, other in enumerate(rng.permutation(len(recordings))):
        own, piece = recordings[index], pieces[other]
        if not len(piece):
            mixed.append(own)
            labels.append(targets[index])
            continue
        outside = (own.t_us < piece.t_us[0]) | (own.t_us > piece.t_us[-1])
        columns = [
            np.concatenate([getattr(own, name)[outside], getattr(piece, name)]) for name in ("x", "y", "p", "t_us")
        ]
        order = np.argsort(columns[3], kind="stable")
        x, y, p, t_us = (column[order] for column in columns)
        share = len(piece) / len(t_us)
        mixed.append(Events(x, y, p, t_us, own.sensor_size))
        labels.append(targets[index] * (1 - share) + targets[other] * share)
    return mixed, np.array(labels)


def sliced(dataset: EventDataset, n_events: int) -> EventDataset:
    """Return the recordings in slices of ``n_events`` that overlap by half, without the rest; shorter ones whole."""
    recordings, labels = [], []
    for events, label in zip(dataset.recordings, dataset.labels, strict=True):
        last = max(1, len(events) - n_events + 1)
        parts = [events.part(first, first + n_events) for first in range(0, last, max(1, n_events // 2))]
        recordings += parts
        labels += [int(label)] * len(parts)
    return dataclasses.replace(dataset, recordings=tuple(recordings), labels=np.array(labels, np.int64))


def moving_dots(n: int, *, seed: int = 0) -> EventDataset:
    """Return ``n`` recordings of a dot that moves right, left, down or up over 16x16 pixels.

    Some 260 events in 60 to 140 ms, a tenth of them noise. Only their order tells one way from its opposite.
    Raises: TrainingError for fewer than 1 recording or a negative seed.
    """
    if n < 1 or seed < 0:
        raise TrainingError(
            f"moving dots: expected 1 recording or more and a seed of 0 or more, found {n}, {seed}. Try 100, seed=0."
        )
    recordings, labels = [], np.arange(n) % len(DIRECTIONS)
    for index, label in enumerate(labels):
        rng = np.random.default_rng([seed, index])
        n_events, duration_us = int(rng.integers(257, 265)), rng.uniform(60e3, 140e3)
        t_us = np.sort(rng.uniform(0, duration_us, n_events))
        along = 16 * t_us / duration_us if label % 2 == 0 else 16 * (1 - t_us / duration_us)
        along, across = along + rng.normal(0, 0.7, n_events), rng.uniform(2, 14) + rng.normal(0, 0.7, n_events)
        is_noise = rng.random(n_events) < 0.1
        along, across = (np.where(is_noise, rng.uniform(0, 16, n_events), one) for one in (along, across))
        x, y = (along, across) if label < 2 else (across, along)
        x, y = np.clip(x, 0, 15), np.clip(y, 0, 15)
        p = rng.integers(0, 2, n_events)
        recordings.append(Events(x.astype(np.int64), y.astype(np.int64), p, t_us.astype(np.int64), (16, 16)))
    return EventDataset(tuple(recordings), labels, DIRECTIONS, "moving dots", "drawn at random")


DIRECTIONS = ("right", "left", "down", "up")

TOY = SsmConfig(
    vocabulary=2 * 16 * 16,
    classes=4,
    sensor_size=(16, 16),
    d_model=32,
    d_ssm=32,
    block_size=8,
    n_stages=2,
    n_layers=2,
    stride=8,
    pooling="avgpool",
    head="pool",
)
"""A model for ``moving_dots`` that a processor trains in a minute."""


def _moved(
    x: Doubles, y: Doubles, size: tuple[int, int], how: Augmentation, rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Return coordinates rolled, turned and scaled about the middle of the sensor, each for a share of recordings."""
    is_rolled, is_turned, is_scaled = rng.random(3) < how.spatial_share
    roll = rng.integers(-how.roll_px, how.roll_px + 1, 2) * is_rolled
    angle = math.radians(rng.uniform(-1, 1) * how.rotation_deg) * is_turned
    factor = rng.uniform(1 / how.scale, how.scale) if is_scaled else 1.0
    middle_x, middle_y = (size[1] - 1) / 2, (size[0] - 1) / 2
    x, y = x + roll[0] - middle_x, y + roll[1] * (size[0] > 1) - middle_y
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    return x * cos - y * sin + middle_x, x * sin + y * cos + middle_y
