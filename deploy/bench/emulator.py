"""The benchmark of the emulator, whole: its parts in their order, and everything that they found."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from typing import Any

from spikeport.models.console import say
from spikeport.models.errors import DataError

from .aims import (
    check_agreement,
    check_bins,
    check_limit,
    check_memory,
    check_sizes,
    check_speed,
    check_starts,
    check_stream,
    check_threads,
)
from .checks import Check
from .frameworks import SINABS, find_frameworks
from .layers import NetSpeed, measure_layers
from .processes import Memory, Starts, measure_memory, measure_starts
from .scaling import Cost, Latency, Threads, measure_bins, measure_sizes, measure_stream, measure_threads
from .setting import describe_setting
from .speed import Agreement, SpeedRow, compare_spikes, n_cores, time_workload
from .workloads import WORKLOADS, Scope, Workload, find_missing

LAYER_REPEATS = 4
"""Rounds for the layers in each round for the frameworks: differences of short times need more of them."""

_N_START_EVENTS = 1_000

_PACKAGES = ("spikeport", "torch", "sinabs", "spikingjelly", "snntorch", "norse", "numpy", "numba")


@dataclasses.dataclass(frozen=True)
class Part:
    """What a workload is: its weights, its recordings, and whether all frameworks ran it or sinabs alone."""

    name: str
    weights: str
    source: str
    n_recordings: int
    n_events: int
    duration_s: float
    targets: tuple[int, ...] | None
    has_all_peers: bool


@dataclasses.dataclass(frozen=True)
class EmulatorBenchmark:
    """Everything that one run of the benchmark found; ``absent`` says what could not be part of it, and why.

    ``scaled`` names the workload of bins, threads, stream and memory, ``sized`` that of the sizes.
    """

    setting: dict[str, Any]
    parts: tuple[Part, ...]
    rows: tuple[SpeedRow, ...]
    agreements: tuple[Agreement, ...]
    nets: tuple[NetSpeed, ...]
    scaled: str
    bins: tuple[Cost, ...]
    sized: str
    sizes: tuple[Cost, ...]
    threads: tuple[Threads, ...]
    latency: Latency
    memory: Memory
    starts: Starts
    checks: tuple[Check, ...]
    absent: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain numbers, ready for JSON."""
        return dataclasses.asdict(self)


def run_emulator_benchmark(scope: Scope, names: Sequence[str], *, command: Sequence[str]) -> EmulatorBenchmark:
    """Return what the benchmark finds; progress goes to stderr.

    Raises: DataError where none of the workloads can be run here.
    """
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    frameworks, uninstalled = find_frameworks()
    absent = [*(reason for name in names if (reason := find_missing(name))), *uninstalled]
    there = [name for name in names if not find_missing(name)]
    if not there:
        raise DataError(f"bench: expected at least one workload, found none. {' '.join(absent)}. Try digits.")
    workloads: dict[str, list[Workload]] = {}
    for name in there:
        say(f"Making workload {name} ...")
        workloads[name] = list(WORKLOADS[name][0](scope))
    everything = [workload for group in workloads.values() for workload in group]
    rows, agreements, nets = _measure_speed(everything, frameworks, scope.repeats)
    scaled = next(workloads[name][0] for name in ("gesture", *there) if name in workloads)
    sized = workloads["digits"][0] if "digits" in workloads else scaled
    say("Bins, sizes, threads, stream ...")
    bins = measure_bins(next(iter(workloads.get("recordings", [scaled]))), repeats=scope.repeats)
    sizes = measure_sizes(sized, scope.most_synops, repeats=scope.repeats)
    threads = measure_threads(scaled, scope.n_batch, repeats=scope.repeats)
    latency = measure_stream(scaled.program, scaled.recordings[0].sensor_size, scope.stream_s)
    say("Processes of their own: memory, first run ...")
    memory = measure_memory(scaled.program, scope.n_soak)
    starts = measure_starts(scaled.program, scaled.recordings[0].part(0, _N_START_EVENTS), scope.n_starts)
    real = {workload.name: workload.duration_s for workload in workloads.get("recordings", ())}
    checks = (
        *check_speed(rows, real),
        *check_agreement(agreements),
        *check_limit(nets),
        *check_bins(bins),
        check_sizes(sizes),
        *check_threads(threads),
        check_stream(latency),
        check_memory(memory),
        check_starts(starts),
    )
    return EmulatorBenchmark(
        setting={
            "command": shlex.join(["spikeport", "bench", *command]),
            **describe_setting(*_PACKAGES),
            "scope": dataclasses.asdict(scope),
            "wall_s": time.perf_counter() - started,
        },
        parts=tuple(map(_part, everything)),
        rows=rows,
        agreements=agreements,
        nets=nets,
        scaled=scaled.name,
        bins=bins,
        sized=sized.name,
        sizes=sizes,
        threads=threads,
        latency=latency,
        memory=memory,
        starts=starts,
        checks=checks,
        absent=tuple(absent),
    )


def _measure_speed(
    workloads: Sequence[Workload], frameworks: Sequence[str], repeats: int
) -> tuple[tuple[SpeedRow, ...], tuple[Agreement, ...], tuple[NetSpeed, ...]]:
    """Return times and agreement of all workloads, by one thread and by all cores, and the layers of synthetic ones."""
    rows: list[SpeedRow] = []
    agreements: list[Agreement] = []
    nets: list[NetSpeed] = []
    for workload in workloads:
        say(f"{workload.name}: {workload.n_events:,} events ...")
        peers = [name for name in frameworks if workload.has_all_peers or name in SINABS]
        rows += time_workload(workload, peers, repeats=repeats)
        if workload.has_all_peers:
            agreements += compare_spikes(workload, peers)
            if n_cores() > 1:
                rows += time_workload(workload, peers, repeats=repeats, n_threads=n_cores())
            if len(workload.recordings) == 1:
                nets.append(
                    measure_layers(
                        workload.name, workload.program, workload.recordings[0], repeats=LAYER_REPEATS * repeats
                    )
                )
    return tuple(rows), tuple(agreements), tuple(nets)


def _part(workload: Workload) -> Part:
    return Part(
        name=workload.name,
        weights=workload.weights,
        source=workload.source,
        n_recordings=len(workload.recordings),
        n_events=workload.n_events,
        duration_s=workload.duration_s,
        targets=workload.targets,
        has_all_peers=workload.has_all_peers,
    )
