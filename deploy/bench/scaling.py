"""How the emulator's cost grows: with finer time bins, longer recordings, more threads, and pieces of a stream."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable

import numpy as np

from spikeport.convert.simulate import simulate_events
from spikeport.convert.synops import count_synops
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.types import Program
from spikeport.models.events import Events, concatenate

from .timing import time_alternately
from .workloads import Workload, uniform_events

BINS_US = (10_000, 1_000, 100)

EMULATOR, ENGINE = "emulator", "float engine, event"

N_THREADS = 2

_PIECE_US = 1_000
_STREAM_HZ = 100_000
_LEAST_SYNOPS = 10**3
_LAP_S = 0.02


@dataclasses.dataclass(frozen=True)
class Cost:
    """The wall time of one run and its synops; ``what`` was varied is a number: microseconds of a bin, or events."""

    engine: str
    what: int
    synops: int
    wall_s: float

    @property
    def per_synop_s(self) -> float:
        """Wall time of a synop, in seconds."""
        return self.wall_s / max(1, self.synops)


@dataclasses.dataclass(frozen=True)
class Threads:
    """How a number of synops is run by one thread and by several: a batch of recordings, or one through the layers."""

    what: str
    n_threads: int
    synops: int
    one_s: float
    several_s: float

    @property
    def gain(self) -> float:
        """How many times faster several threads are."""
        return self.one_s / self.several_s


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long pieces of a stream take from their arrival to all spikes that they cause.

    Units: seconds of wall time; pieces of ``piece_us`` of a recording of ``events_hz`` events a second.
    """

    n_pieces: int
    piece_us: int
    events_hz: int
    p50_s: float
    p99_s: float
    max_s: float


def measure_bins(workload: Workload, *, repeats: int) -> tuple[Cost, ...]:
    """Return the cost of a workload's first recording in time bins of 10 ms, 1 ms and 0.1 ms.

    The float engine adds all spikes of a bin before neurons fire; the emulator takes the events one by one, each at the
    start of its bin.
    """
    events = workload.recordings[0]
    emulator = Emulator(workload.program)
    runs: dict[str, Callable[[], object]] = {}
    synops: dict[tuple[str, int], int] = {}
    for dt_us in BINS_US:
        binned = dataclasses.replace(events, t_us=events.t_us // dt_us * dt_us)
        in_steps = functools.partial(simulate_events, workload.net, events, dt_us=dt_us, engine="event")
        runs[f"{EMULATOR}/{dt_us}"] = functools.partial(emulator.run, binned)
        runs[f"{ENGINE}/{dt_us}"] = in_steps
        synops[EMULATOR, dt_us] = _synops(emulator, binned)
        synops[ENGINE, dt_us] = count_synops(workload.net, in_steps()).total
    walls = time_alternately(runs, repeats)
    return tuple(
        Cost(engine, dt_us, n_synops, walls[f"{engine}/{dt_us}"].median_s)
        for (engine, dt_us), n_synops in synops.items()
    )


def measure_sizes(workload: Workload, most_synops: int, *, repeats: int) -> tuple[Cost, ...]:
    """Return the cost of a run of one event, then of 10^3 synops and ten times more each, up to ``most_synops``.

    The workload's first recording is cut or repeated; runs start from the states after it, so that every part of it
    is as busy. The run of one event shows what every run costs.
    """
    events = workload.recordings[0]
    emulator = Emulator(warmed(workload.program, events))
    per_event = _synops(emulator, events) / len(events)
    wanted = _LEAST_SYNOPS
    lengths = [1]
    while wanted <= most_synops:
        lengths.append(max(lengths[-1] + 1, round(wanted / per_event)))
        wanted *= 10
    whole = concatenate([events] * -(-lengths[-1] // len(events)), 1)
    parts = {n: whole.part(0, n) for n in lengths}
    often = {n: _often(emulator, part) for n, part in parts.items()}
    walls = time_alternately({f"{n}": run for n, (run, _) in often.items()}, repeats)
    return tuple(
        Cost(EMULATOR, n, _synops(emulator, part), walls[f"{n}"].median_s / often[n][1]) for n, part in parts.items()
    )


def warmed(program: Program, events: Events) -> Program:
    """Return a program that starts from the states in which a recording leaves it."""
    states = Emulator(program).run(events).states
    cores = tuple(dataclasses.replace(core, initial_state=states[core.core]) for core in program.cores)
    return dataclasses.replace(program, cores=cores, golden=())


def _synops(emulator: Emulator, events: Events) -> int:
    return sum(emulator.run(events).synops.values())


def _often(emulator: Emulator, events: Events) -> tuple[Callable[[], object], int]:
    """Return runs that take at least some milliseconds together, and how many they are."""
    started = time.perf_counter()
    emulator.run(events)
    n = max(1, round(_LAP_S / max(time.perf_counter() - started, 1e-7)))
    return lambda: [emulator.run(events) for _ in range(n)], n


def measure_threads(workload: Workload, n_batch: int, *, repeats: int) -> tuple[Threads, ...]:
    """Return what two threads gain on a batch of recordings, and on one recording through the layers."""
    emulator = Emulator(workload.program)
    events = workload.recordings[0]
    batch = [
        uniform_events(events.sensor_size, n=len(events), duration_us=events.duration_us + 1, seed=seed)
        for seed in range(n_batch)
    ]
    walls = time_alternately(
        {
            "batch/1": lambda: emulator.run_many(batch, workers=1),
            f"batch/{N_THREADS}": lambda: emulator.run_many(batch, workers=N_THREADS),
            "one/1": lambda: emulator.run(events),
            f"one/{N_THREADS}": lambda: emulator.run(events, workers=N_THREADS),
        },
        repeats,
    )
    synops = [sum(one.synops.values()) for one in (*emulator.run_many(batch, workers=1), emulator.run(events))]
    return tuple(
        Threads(what, N_THREADS, n_synops, walls[f"{key}/1"].median_s, walls[f"{key}/{N_THREADS}"].median_s)
        for what, key, n_synops in (
            (f"{n_batch} recordings", "batch", sum(synops[:-1])),
            ("one recording, layer by layer", "one", synops[-1]),
        )
    )


def measure_stream(program: Program, sensor_size: tuple[int, int], duration_s: float) -> Latency:
    """Return the latency of pieces of 1 ms of 100,000 events a second, fed one after the other without a pause."""
    duration_us = round(duration_s * 1e6)
    n = round(_STREAM_HZ * duration_s)
    events = uniform_events(sensor_size, n=n, duration_us=duration_us, seed=1)
    edges = np.searchsorted(events.t_us, np.arange(0, duration_us + 1, _PIECE_US))
    pieces = [events.part(int(first), int(last)) for first, last in itertools.pairwise(edges)]
    session = Emulator(program).stream()
    walls = []
    for piece in pieces:
        started = time.perf_counter()
        session.feed(piece)
        walls.append(time.perf_counter() - started)
    p50_s, p99_s = (float(np.percentile(walls, percent)) for percent in (50, 99))
    return Latency(len(pieces), _PIECE_US, _STREAM_HZ, p50_s, p99_s, max(walls))
