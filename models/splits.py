"""A data set in two, each class with its share."""

from __future__ import annotations

import numpy as np

from .data import EventDataset
from .errors import DataError


def split_by_class(dataset: EventDataset, n_test: int, *, seed: int = 0) -> tuple[EventDataset, EventDataset]:
    """Return recordings to train on and ``n_test`` to test on, in which each class has its share of all.

    Law: each recording is in exactly one of the two; the shares of a class are within one recording of exact.
    Raises: DataError where ``n_test`` leaves nothing for one of them, or the seed is negative.
    """
    if not 1 <= n_test < len(dataset) or seed < 0:
        raise DataError(
            f"split of '{dataset.name}': expected 1 to {len(dataset) - 1} recordings to test on and a seed of 0 or "
            f"more, found {n_test} and {seed}. Try {max(1, len(dataset) // 4)}."
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    of_class = [order[dataset.labels[order] == label] for label in np.unique(dataset.labels)]
    exact = np.array([len(one) * n_test / len(dataset) for one in of_class])
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: n_test - counts.sum()]] += 1  # the largest remainders
    test = np.concatenate([one[:n] for one, n in zip(of_class, counts, strict=True)])
    return dataset.subset(np.setdiff1d(order, test)), dataset.subset(np.sort(test))
