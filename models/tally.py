"""Times in buckets that grow by one percent: percentiles of any number of them in fixed memory."""

from __future__ import annotations

import math

import numpy as np

_GROWTH = math.log(1.01)
_LEAST_S = 1e-7
_N_BUCKETS = math.ceil(math.log(1e5 / _LEAST_S) / _GROWTH)


class Tally:
    """How often times occurred.

    Law: a percentile is at most one percent above the exact one; the largest time is exact.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_N_BUCKETS + 2, np.int64)
        self.n, self.max_s, self._sum_s = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        """Count one time, in seconds."""
        bucket = 0 if seconds <= _LEAST_S else min(_N_BUCKETS, 1 + int(math.log(seconds / _LEAST_S) / _GROWTH))
        self._counts[bucket] += 1
        self.n += 1
        self._sum_s += seconds
        self.max_s = max(self.max_s, seconds)

    @property
    def mean_s(self) -> float | None:
        """The mean, None before the first."""
        return self._sum_s / self.n if self.n else None

    def percentile_s(self, percent: float) -> float | None:
        """Return the time that ``percent`` of all do not exceed, None before the first."""
        if not self.n:
            return None
        rank = max(1, math.ceil(self.n * percent / 100))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(self.max_s, _LEAST_S * math.exp(bucket * _GROWTH))
