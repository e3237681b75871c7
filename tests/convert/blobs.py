"""A tiny classification task that a tiny CNN learns in an instant: in which corner of the map most events are."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from spikeport.convert.judging import LabelledSamples

SHAPE = (1, 8, 8)


def blob_raster(n: int, *, n_steps: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return event counts ``[T, n, 1, 8, 8]`` and the corner of each, 0 to 3."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    rate = np.full((n, 1, 8, 8), 0.25)
    for index, label in enumerate(labels):
        y, x = divmod(int(label), 2)
        rate[index, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 0.55
    return rng.poisson(rate, (n_steps, n, 1, 8, 8)), labels


def blob_samples(n: int = 96, *, n_steps: int = 4, seed: int = 0) -> LabelledSamples:
    """Return labelled samples of the task."""
    return LabelledSamples(*blob_raster(n, n_steps=n_steps, seed=seed))


@functools.cache
def blob_cnn() -> nn.Sequential:
    """Return a CNN with biases, trained on the sums of the rasters."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4), nn.ReLU()),
    )
    raster, labels = blob_raster(256, seed=99)
    frames, target = torch.from_numpy(raster.sum(axis=0).astype(np.float32)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-2)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(module[:-1](frames), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module.eval()
