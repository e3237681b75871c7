"""Timing of several runs in alternation, so that what a shared machine does between them meets all alike."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long the repeats of one run took, in the order in which they ran.

    Units: seconds of wall time.
    """

    walls_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The middle one."""
        return statistics.median(self.walls_s)

    @property
    def best_s(self) -> float:
        """The shortest one."""
        return min(self.walls_s)


def time_alternately(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Return the times of ``runs``: each once in every round, ``repeats`` rounds after one that does not count."""
    walls_s: dict[str, list[float]] = {name: [] for name in runs}
    for lap in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            ended = time.perf_counter()
            if lap:
                walls_s[name].append(ended - started)
    return {name: Timing(tuple(walls)) for name, walls in walls_s.items()}
