"""Small programs whose spikes and states tell how a chip does what no public text decides."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from spikeport.convert.geometry import Shape3, Window
from spikeport.models.events import Events

from .behavior import ALL_CORES, AXES
from .chips import Chip
from .types import CoreProgram, Destination, DvsConfig, Program, Recording

_CORE, _NEXT = 4, 5  # cores that work in order, of which every one may leak
_CLOCK_HZ = 100.0
_OFF_CHIP = (Destination(None),)


@dataclasses.dataclass(frozen=True)
class Case:
    """A program, a recording for it, and the rate of the slow clock; 0: none."""

    program: Program
    events: Events
    slow_clock_hz: float = 0.0


@dataclasses.dataclass(frozen=True)
class Probe:
    """One open question, and the cases that decide it.

    ``name`` is the field of ``Behavior``; ``observe`` makes what the cases gave comparable, ``outcomes`` says which
    variant that is. What is no outcome leaves the question undecided.
    """

    name: str
    question: str
    cases: tuple[Case, ...]
    observe: Callable[[Sequence[Recording]], Hashable]
    outcomes: Mapping[Hashable, str]


def make_probes(chip: Chip) -> tuple[Probe, ...]:
    """Return the probes for a chip, in the order of the fields of ``Behavior``.

    Law: on a device that keeps the integer specification each finds the default of its field.
    """
    name = chip.name
    return (
        _probe_overflow(name),
        _probe_zero_weight(name),
        _probe_tick(name),
        _probe_visit_order(name),
        _probe_bank_order(name),
        _probe_merged_polarity(name),
        _probe_pool_edge(name),
        _probe_leak(chip),
        _probe_last_spike(chip),
    )


def _probe_overflow(chip: str) -> Probe:
    core = _core(
        [[[[127]]], [[[-128]]]], (1, 1, 1), threshold_high=32767, threshold_low=-32768, initial_state=[32767, -32768]
    )

    def observe(found: Sequence[Recording]) -> Hashable:
        return (found[0].n_spikes[_CORE], *_states(found[0], _CORE))

    return Probe(
        "overflow",
        "What becomes of a sum beyond 16 bits?",
        (Case(_program(chip, core), _events([(0, 0, 0)])),),
        observe,
        {(1, 0, -32768): "saturates", (1, 127, -32768): "wide", (0, -32642, 32640): "wraps"},
    )


def _probe_zero_weight(chip: str) -> Probe:
    core = _core([[[[127]], [[0]]]], (2, 1, 1), threshold_high=40, threshold_low=-40)
    return Probe(
        "zero_weight",
        "Does a weight of 0 compare a surplus with the threshold again?",
        (Case(_program(chip, core), _events([(0, 0, 0), (1, 0, 0)])),),
        lambda found: found[0].n_spikes[_CORE],
        {2: "visits", 1: "skipped"},
    )


def _probe_tick(chip: str) -> Probe:
    core = _core([[[[0]]]], (1, 1, 2), bias=[50], threshold_high=100, threshold_low=-100, initial_state=[0, 60])

    def observe(found: Sequence[Recording]) -> Hashable:
        return bool((found[0].spikes[_CORE]["x"] == 1).any())  # which no event visits

    events = _events([(0, 0, 0), (0, 0, 0)], t_us=[1_000, 55_000], size=(1, 2))
    return Probe(
        "tick",
        "Does a leak tick that lifts a state to the threshold fire?",
        (Case(_program(chip, core), events, _CLOCK_HZ),),
        observe,
        {False: "silent", True: "fires"},
    )


def _probe_visit_order(chip: str) -> Probe:
    core = _core(np.full((2, 1, 3, 3), 127), (1, 3, 3), padding=(1, 1))

    def observe(found: Sequence[Recording]) -> Hashable:
        return tuple(tuple(int(spike[axis]) for axis in AXES) for spike in found[0].spikes[_CORE])

    outcomes: dict[Hashable, str] = {}
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            spans = [range(3)[:: signs[0]], range(3)[:: signs[1]], range(2)[:: signs[2]]]
            places = itertools.product(*(spans[axis] for axis in order))
            back = [order.index(axis) for axis in range(3)]
            seen = tuple(tuple(place[at] for at in back) for place in places)
            outcomes[seen] = " ".join("-" * (signs[axis] < 0) + AXES[axis] for axis in order)
    return Probe(
        "visit_order",
        "In which order does an event visit neurons?",
        (Case(_program(chip, core), _events([(0, 1, 1)], size=(3, 3))),),
        observe,
        outcomes,
    )


def _probe_bank_order(chip: str) -> Probe:
    def case(*shifts: int) -> Case:
        ends = tuple(Destination(_NEXT, 1, shift) for shift in shifts)
        first = _core([[[[127]]]], (1, 1, 1), destinations=ends)
        second = _core([[[[60]], [[-60]]]], (2, 1, 1), core=_NEXT, threshold_high=50, threshold_low=-50)
        return Case(_program(chip, first, second), _events([(0, 0, 0)]))

    return Probe(
        "bank_order",
        "Which of two destinations that are one core is served first?",
        (case(0, 1), case(1, 0)),
        lambda found: tuple(one.n_spikes[_NEXT] for one in found),
        {(1, 0): "first", (0, 1): "last", (1, 1): "low", (0, 0): "high"},
    )


def _probe_merged_polarity(chip: str) -> Probe:
    core = _core([[[[127]], [[0]]], [[[0]], [[127]]]], (2, 2, 2))
    program = _program(chip, core, dvs=DvsConfig((2, 2, 2), merge=True))
    return Probe(
        "merged_polarity",
        "Which feature has an event whose polarity was merged?",
        (Case(program, _events([(1, 0, 0), (0, 0, 1)], size=(2, 2))),),
        lambda found: tuple(found[0].spikes[_CORE]["feature"].tolist()),
        {(0, 0): "0", (1, 1): "1"},
    )


def _probe_pool_edge(chip: str) -> Probe:
    first = _core([[[[127]]]], (1, 3, 3), destinations=(Destination(_NEXT, 2),))
    second = _core(np.full((1, 1, 3, 3), 127), (1, 1, 1), core=_NEXT, padding=(1, 1))
    return Probe(
        "pool_edge",
        "Does a spike of an odd map's last row reach neurons behind a pool?",
        (Case(_program(chip, first, second), _events([(0, 2, 2)], size=(3, 3))),),
        lambda found: found[0].n_spikes[_NEXT],
        {0: "dropped", 1: "reaches"},
    )


def _probe_leak(chip: Chip) -> Probe:
    """Return a probe of one case for each core: neurons fire when they are visited after enough ticks, not before."""
    cores = sorted(core.core for core in chip.cores)
    cases = []
    places = np.arange(64) * 63 % 64, np.arange(64)  # one pixel of each row and column
    for core in cores:
        edge, features = 64, chip.core(core).neuron_words // 64**2
        one = _core(
            np.ones((features, 1, 1, 1)),
            (1, edge, edge),
            core=core,
            bias=[10] * features,
            threshold_high=151,
            threshold_low=-1,
        )
        ys, xs = np.tile(places[0], 2), np.tile(places[1], 2)
        t_us = np.repeat([85_000, 205_000], 64)  # states of 80 and of 201, a tick more or less
        events = Events(xs, ys, np.zeros(128, np.int64), t_us, (edge, edge))
        cases.append(Case(_program(chip.name, one), events, _CLOCK_HZ))

    def observe(found: Sequence[Recording]) -> Hashable:
        right = []
        for core, recording in zip(cores, found, strict=True):
            spikes, n_features = recording.spikes[core], chip.core(core).neuron_words // 64**2
            all_late = bool((spikes["event"] >= 64).all())
            if all_late and len(np.unique(spikes[["feature", "y", "x"]])) == len(spikes) == 64 * n_features:
                right.append(str(core))
        return ",".join(right)

    subsets = (
        ",".join(chosen) for n in range(len(cores) + 1) for chosen in itertools.combinations(ALL_CORES.split(","), n)
    )
    return Probe(
        "leak_cores",
        "On which cores do all neurons of a large map leak?",
        tuple(cases),
        observe,
        {subset: subset for subset in subsets},
    )


def _probe_last_spike(chip: Chip) -> Probe:
    parallel = [core.core for core in chip.cores if not core.in_order]
    cases = tuple(
        Case(_program(chip.name, _core([[[[127]]]], (1, 1, 1), core=core)), _events([(0, 0, 0)])) for core in parallel
    )

    def observe(found: Sequence[Recording]) -> Hashable:
        return min(one.n_spikes[core] for core, one in zip(parallel, found, strict=True))

    question = "Does the last spike leave a core with parallel pipelines?"
    return Probe("last_spike", question, cases, observe, {1: "leaves", 0: "stays"})


def _core(weight: Any, in_shape: Shape3, *, core: int = _CORE, **fields: Any) -> CoreProgram:
    weights = np.asarray(weight, np.int8)
    padding = fields.get("padding", (0, 0))
    out_size = Window((weights.shape[2], weights.shape[3]), (1, 1), padding).out_size(in_shape[1:])
    out_shape = (weights.shape[0], *out_size)
    state = np.asarray(fields.pop("initial_state", np.zeros(out_shape)), np.int16).reshape(out_shape)
    bias = fields.pop("bias", None)
    defaults: dict[str, Any] = {"threshold_high": 127, "threshold_low": -127, "reset": "subtract", "stride": (1, 1)}
    defaults |= {"padding": (0, 0), "destinations": _OFF_CHIP, "monitor": True, "scale": 1.0}
    return CoreProgram(
        core=core,
        name=f"core {core}",
        weight=weights,
        bias=None if bias is None else np.asarray(bias, np.int16),
        initial_state=state,
        in_shape=in_shape,
        out_shape=out_shape,
        **(defaults | fields),
    )


def _program(chip: str, *cores: CoreProgram, dvs: DvsConfig | None = None) -> Program:
    channels, height, width = cores[0].in_shape
    return Program(chip, cores, (cores[0].core,), dvs or DvsConfig((channels, height, width), merge=channels == 1))


def _events(
    rows: Sequence[tuple[int, int, int]], *, size: tuple[int, int] = (1, 1), t_us: Sequence[int] | None = None
) -> Events:
    """Return events of ``(polarity, y, x)``, a millisecond apart if no times are given."""
    p, y, x = np.array(rows, np.int64).T
    return Events(x, y, p, np.arange(1, len(rows) + 1) * 1000 if t_us is None else np.array(t_us), size)


def _states(recording: Recording, core: int) -> tuple[int, ...]:
    """Return the states of a core, nothing where the device cannot read them."""
    return tuple(recording.states[core].ravel().tolist()) if core in recording.states else ()
