"""A model of an evaluation on many workers: what shard size, slow and failing workers do to its time."""

from __future__ import annotations

import dataclasses
import heapq
import math
from typing import Any, Literal

import numpy as np

from spikeport.models.errors import InferenceError

How = Literal["dynamic", "fixed"]


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Workers and what they evaluate.

    Units: ``sample_s`` seconds of one sample on a worker of speed 1; speeds are ``exp(normal(0, spread))``, a share of
    ``slow_share`` of the workers is ``slow_factor`` times slower; ``shard_s`` seconds that each shard takes besides
    (taking it, writing its file); a worker fails on average every ``hours_to_failure`` hours, loses its shard, and is
    back after ``restart_s``.
    """

    n_workers: int = 1000
    n_samples: int = 100_000_000
    sample_s: float = 0.02
    spread: float = 0.1
    slow_share: float = 0.02
    slow_factor: float = 4.0
    shard_s: float = 0.05
    hours_to_failure: float = 50.0
    restart_s: float = 120.0

    def __post_init__(self) -> None:
        if self.n_workers < 1 or self.n_samples < 1 or not self.sample_s > 0 or not self.hours_to_failure > 0:
            raise InferenceError(f"fleet: expected workers, samples, and times above 0, found {self}. Try Fleet().")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How long the fleet took.

    Units: ``wall_s`` until the last shard is finished, ``ideal_s`` with no overhead, no failure and no wait at the end;
    ``lost_s`` seconds of work that failures threw away; ``state_bytes`` of all finished shards together.
    """

    shard_size: int
    n_shards: int
    wall_s: float
    ideal_s: float
    lost_s: float
    n_failures: int
    state_bytes: int

    @property
    def efficiency(self) -> float:
        """Share of the ideal speed."""
        return self.ideal_s / self.wall_s

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain numbers."""
        return {**dataclasses.asdict(self), "efficiency": self.efficiency}


def simulate_fleet(
    fleet: Fleet,
    shard_size: int,
    *,
    how: How = "dynamic",
    seed: int = 0,
    bytes_per_shard: int = 700,
) -> Outcome:
    """Return what an evaluation takes in shards of ``shard_size``.

    ``"dynamic"``: each worker takes the next shard as soon as it is free, as ``evaluate`` does; ``"fixed"``: each has
    an equal part from the start.
    Law: no faster than the ideal; equal for equal seeds.
    Raises: InferenceError for a shard of less than one sample.
    """
    if shard_size < 1:
        raise InferenceError(f"fleet: expected a shard size of 1 or more, found {shard_size}. Try 1000.")
    rng = np.random.default_rng(seed)
    speeds = np.exp(rng.normal(0, fleet.spread, fleet.n_workers))
    speeds[rng.random(fleet.n_workers) < fleet.slow_share] /= fleet.slow_factor
    n_shards = math.ceil(fleet.n_samples / shard_size)
    ideal_s = fleet.n_samples * fleet.sample_s / float(speeds.sum())
    mean_s = fleet.hours_to_failure * 3600
    lost_s, n_failures = 0.0, 0

    def spend(worker: int, now: float, n_samples: int) -> float:
        """Return when a worker has finished a shard that it begins now."""
        nonlocal lost_s, n_failures
        need = fleet.shard_s + n_samples * fleet.sample_s / float(speeds[worker])
        while (lives := float(rng.exponential(mean_s))) < need:
            lost_s += lives
            n_failures += 1
            now += lives + fleet.restart_s
        return now + need

    if how == "fixed":
        share = math.ceil(n_shards / fleet.n_workers)
        ends = []
        for worker in range(fleet.n_workers):
            now = 0.0
            for _ in range(min(share, max(0, n_shards - worker * share))):
                now = spend(worker, now, shard_size)
            ends.append(now)
        wall_s = max(ends)
    else:
        free = [(0.0, worker) for worker in range(fleet.n_workers)]
        heapq.heapify(free)
        wall_s = 0.0
        for shard in range(n_shards):
            now, worker = heapq.heappop(free)
            size = min(shard_size, fleet.n_samples - shard * shard_size)
            end = spend(worker, now, size)
            wall_s = max(wall_s, end)
            heapq.heappush(free, (end, worker))
    return Outcome(shard_size, n_shards, wall_s, ideal_s, lost_s, n_failures, n_shards * bytes_per_shard)


def fleet_markdown(fleet: Fleet | None = None) -> str:
    """Return the table of shard sizes of the documentation."""
    given = fleet or Fleet()
    rows = []
    ways: tuple[How, ...] = ("fixed", "dynamic")
    for how in ways:
        for size in (100, 1000, 10_000, 100_000):
            found = simulate_fleet(given, size, how=how)
            rows.append(
                f"| {size:,} | {how} | {found.n_shards:,} | {found.wall_s / 60:,.1f} | {found.efficiency:.1%} | "
                f"{found.n_failures:,} | {found.lost_s / 60:,.1f} | {found.state_bytes / 1e6:,.1f} |"
            )
    columns = "Shard | Taken | Shards | Minutes | Of the ideal | Failures | Minutes of work lost | State files, MB"
    return "\n".join([f"| {columns} |", "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows])


def main() -> None:
    """Print the table."""
    from spikeport.models.console import show

    show(fleet_markdown())


if __name__ == "__main__":
    main()
