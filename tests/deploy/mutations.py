"""Programs with one flipped bit, and the first event at which two runs differ, told apart without ``verify``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spikeport.deploy.chips import chip
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import InvalidProgramError
from spikeport.deploy.rules import check_program
from spikeport.deploy.types import CoreProgram, Golden, Program
from spikeport.models.events import Events

from .reference import run_reference

KINDS = ("weight", "threshold", "route", "state")


def mutated(program: Program, kind: str, rng: Generator) -> Program:
    """Return the program with one bit flipped somewhere, such that it still is one that the chip can be loaded with."""
    while True:
        position = int(rng.integers(len(program.cores)))
        core = program.cores[position]
        try:
            changed = _flipped(core, kind, rng)
            if changed is None:
                continue
            cores = (*program.cores[:position], changed, *program.cores[position + 1 :])
            made = dataclasses.replace(program, cores=cores)
        except InvalidProgramError:
            continue
        if not check_program(made, chip(made.chip)):
            return made


def _flipped(core: CoreProgram, kind: str, rng: Generator) -> CoreProgram | None:
    if kind == "weight":
        return dataclasses.replace(core, weight=_one_bit(core.weight, rng))
    if kind == "state":
        return dataclasses.replace(core, initial_state=_one_bit(core.initial_state, rng))
    if kind == "threshold":
        high, low = core.threshold_high, core.threshold_low
        if rng.integers(2):
            return dataclasses.replace(core, threshold_high=int(_one_bit(np.array([high], np.int16), rng)[0]))
        return dataclasses.replace(core, threshold_low=int(_one_bit(np.array([low], np.int16), rng)[0]))
    at = int(rng.integers(len(core.destinations)))
    route = core.destinations[at]
    field = ("core", "pool", "feature_shift")[int(rng.integers(3))]
    value = getattr(route, field)
    if value is None:
        return None  # off the chip: where a spike goes then is nothing that a device shows
    changed = dataclasses.replace(route, **{field: value ^ (1 << int(rng.integers(4)))})
    if route.core is None:
        return None
    return dataclasses.replace(core, destinations=(*core.destinations[:at], changed, *core.destinations[at + 1 :]))


def _one_bit(values: NDArray[Any], rng: Generator) -> NDArray[Any]:
    flipped = values.copy()
    bits = flipped.reshape(-1).view(f"u{values.itemsize}")
    bits[int(rng.integers(bits.size))] ^= 1 << int(rng.integers(8 * values.itemsize))
    return flipped


@dataclasses.dataclass(frozen=True)
class Trace:
    """What one run did: per core the spikes as ``(event, y, x, feature)``, and the states after the last event."""

    spikes: Mapping[int, list[tuple[int, int, int, int]]]
    states: Mapping[int, NDArray[np.int16]]


def trace_reference(program: Program, golden: Golden) -> Trace:
    """Return what the slow reference does with the events of a golden vector."""
    cores = run_reference(program, golden.events, golden.slow_clock_hz or None)
    spikes = {core: [(event, y, x, f) for event, _, f, y, x in one.spikes] for core, one in cores.items()}
    return Trace(spikes, {core: np.array(one.state, np.int16) for core, one in cores.items()})


def trace_emulator(program: Program, golden: Golden) -> Trace:
    """Return what the emulator does with the events of a golden vector."""
    found = Emulator(program, slow_clock_hz=golden.slow_clock_hz).run(golden.events, "all")
    columns = ("event", "y", "x", "feature")
    spikes = {
        core: list(zip(*(one[name].tolist() for name in columns), strict=True)) for core, one in found.spikes.items()
    }
    return Trace(spikes, found.states)


Place = tuple[int | None, int]
"""Event and core; the event is None for states after the last one."""


def first_difference(program: Program, a: Trace, b: Trace) -> Place | None:
    """Return where two runs first differ, going event by event and core by core; after the events, in the states."""
    tables: list[dict[tuple[int, int], list[tuple[int, ...]]]] = []
    for trace in (a, b):
        tables.append({})
        for core, spikes in trace.spikes.items():
            for event, *place in spikes:
                tables[-1].setdefault((event, core), []).append(tuple(place))
    order = [core.core for core in program.cores]
    for event, position in sorted({(event, order.index(core)) for table in tables for event, core in table}):
        left, right = (sorted(table.get((event, order[position]), [])) for table in tables)
        if left != right:
            return event, order[position]
    for core in order:
        if not np.array_equal(a.states[core], b.states[core]):
            return None, core
    return None


def expected_difference(
    original: Program, changed: Program, trace: Callable[[Program, Golden], Trace], known: Sequence[Trace]
) -> Place | None:
    """Return where ``verify`` has to find the first difference; ``known`` are the traces of the original."""
    places = [
        first_difference(original, was, trace(changed, golden))
        for golden, was in zip(original.golden, known, strict=True)
    ]
    found = [place for place in places if place is not None]
    return next((place for place in found if place[0] is not None), found[0] if found else None)


def busy_events(rng: Generator, size: tuple[int, int], n_events: int) -> Events:
    """Return a recording that has nothing to do with how golden events are made: a few blobs that drift and flicker."""
    height, width = size
    n_blobs = int(rng.integers(1, 5))
    centers, speed = rng.uniform(0, 1, (n_blobs, 2)) * size, rng.normal(0, 0.02, (n_blobs, 2))
    blob = rng.integers(0, n_blobs, n_events)
    spread = rng.uniform(0.5, 3.0, n_blobs)[blob, None]
    places = centers[blob] + speed[blob] * np.arange(n_events)[:, None] + rng.normal(0, 1, (n_events, 2)) * spread
    y, x = (np.rint(places) % size).astype(int).T
    p = (rng.random(n_events) < rng.uniform(0.2, 0.8)).astype(int)
    return Events(np.minimum(x, width - 1), np.minimum(y, height - 1), p, np.arange(n_events) * 37, size)
