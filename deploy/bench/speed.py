"""One workload on our engines and on other frameworks, in alternation: times, and whether the spikes agree."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.simulate import simulate, simulate_events
from spikeport.convert.synops import count_synops
from spikeport.deploy.emulator import Emulator

from .frameworks import FRAMEWORKS, SINABS, Stepper
from .timing import Timing, time_alternately

if TYPE_CHECKING:
    import torch

    from .workloads import Workload

EMULATOR = "spikeport emulator"
Engine = Literal["event", "auto"]

ENGINES: dict[str, Engine] = {"spikeport float, event": "event", "spikeport float, auto": "auto"}

_PIECE = 997
_MAX_CELLS = 100_000_000


@dataclasses.dataclass(frozen=True)
class SpeedRow:
    """One way to run a workload, timed.

    ``synops`` are those of the 8-bit program for the emulator, those of the float net in time steps for all others:
    frameworks that spike by another rule are credited with the same.
    Units: ``timing`` is of all recordings of the workload; ``n_steps`` is None where time has no steps.
    """

    workload: str
    engine: str
    n_threads: int
    n_events: int
    n_steps: int | None
    synops: int
    timing: Timing

    @property
    def events_hz(self) -> float:
        """Input events a second of wall time."""
        return self.n_events / self.timing.median_s

    @property
    def synops_hz(self) -> float:
        """Synops a second of wall time."""
        return self.synops / self.timing.median_s


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Spikes of each layer on all recordings of a workload, and how far they are from sinabs' in one call.

    ``n_cells`` is the number of neurons times steps that were compared, ``n_differing`` that of those with another
    number of spikes; both None where only sums were. ``note`` says what the rule of the engine is.
    """

    workload: str
    engine: str
    spikes: tuple[int, ...]
    n_cells: int | None
    n_differing: int | None
    note: str


def time_workload(
    workload: Workload, frameworks: Sequence[str], *, repeats: int, n_threads: int = 1
) -> tuple[SpeedRow, ...]:
    """Return the times of all engines on a workload; torch and, above one, the emulator use ``n_threads``.

    torch's number of threads is set back to one.
    """
    import torch

    emulator = Emulator(workload.program)
    synops = sum(sum(emulator.run(events).synops.values()) for events in workload.recordings)
    nominal = nominal_synops(workload)
    runs: dict[str, Callable[[], object]] = {EMULATOR: functools.partial(_emulate, emulator, workload, n_threads)}
    if n_threads == 1:
        runs |= {name: functools.partial(_simulate, workload, engine) for name, engine in ENGINES.items()}
    rasters = [torch.from_numpy(raster)[:, None] for raster in workload.rasters()]
    for name in frameworks:
        runs[name] = functools.partial(_step, FRAMEWORKS[name].build(workload.net), rasters)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with torch.no_grad():
            timings = time_alternately(runs, repeats)
    finally:
        torch.set_num_threads(before)
    return tuple(
        SpeedRow(
            workload=workload.name,
            engine=name,
            n_threads=n_threads,
            n_events=workload.n_events,
            n_steps=None if name == EMULATOR else sum(workload.n_steps),
            synops=synops if name == EMULATOR else nominal,
            timing=timing,
        )
        for name, timing in timings.items()
    )


def nominal_synops(workload: Workload) -> int:
    """Return the exact synops of the float net in time steps on all recordings of a workload."""
    traces = (simulate(workload.net, raster, dt_us=workload.dt_us) for raster in workload.rasters())
    return sum(count_synops(workload.net, trace).total for trace in traces)


def _emulate(emulator: Emulator, workload: Workload, n_threads: int) -> None:
    if n_threads > 1 and len(workload.recordings) > 1:
        emulator.run_many(workload.recordings, workers=n_threads)
        return
    for events in workload.recordings:
        emulator.run(events, workers=n_threads)


def _simulate(workload: Workload, engine: Engine) -> None:
    for events in workload.recordings:
        simulate_events(workload.net, events, dt_us=workload.dt_us, engine=engine)


def _step(stepper: Stepper, rasters: Sequence[torch.Tensor]) -> None:
    for raster in rasters:
        stepper.run(raster)


def best_sinabs(rows: Sequence[SpeedRow]) -> SpeedRow | None:
    """Return the faster of sinabs' two ways among rows of one workload and number of threads; None without sinabs."""
    theirs = [row for row in rows if row.engine in SINABS]
    return min(theirs, key=lambda row: row.timing.median_s) if theirs else None


def compare_spikes(workload: Workload, frameworks: Sequence[str]) -> tuple[Agreement, ...]:
    """Return the spikes of every engine on a workload, and in how many cells they differ from sinabs in one call.

    Cells are compared for our float engines and for sinabs; where those of a recording are too many, sums are.
    """
    rasters = workload.rasters()
    reference = _spikes_of(FRAMEWORKS[SINABS[0]].build(workload.net), rasters)
    n_neurons = sum(int(np.prod(layer.out_shape)) for layer in workload.net.layers)
    has_cells = n_neurons * max(workload.n_steps) <= _MAX_CELLS
    found = []
    for name, engine in ENGINES.items():
        spikes = [_engine_spikes(workload, raster, engine, has_cells) for raster in rasters]
        found.append(_agreement(workload.name, name, spikes, reference, "the rule of sinabs"))
    for name in frameworks:
        framework = FRAMEWORKS[name]
        spikes = reference if name == SINABS[0] else _spikes_of(framework.build(workload.net), rasters)
        note = framework.differs or "several spikes a step, a lower bound"
        found.append(_agreement(workload.name, name, spikes, reference if framework.differs is None else None, note))
    return (*found, check_pieces(workload))


Spikes = list[list[NDArray[np.generic]]]
"""Of each recording, of each layer: ``[T, F, H, W]``, or sums over time ``[F, H, W]``."""


def _spikes_of(stepper: Stepper, rasters: Sequence[NDArray[np.float32]]) -> Spikes:
    return [list(stepper.spikes(raster)) for raster in rasters]


def _engine_spikes(
    workload: Workload, raster: NDArray[np.float32], engine: Engine, has_cells: bool
) -> list[NDArray[np.generic]]:
    record: Literal["all"] | None = "all" if has_cells else None
    trace = simulate(workload.net, raster, dt_us=workload.dt_us, record=record, engine=engine)
    if trace.spikes is None:
        return [count[0] for count in trace.counts]
    return [spikes[:, 0] for spikes in trace.spikes]


def _agreement(workload: str, engine: str, spikes: Spikes, reference: Spikes | None, note: str) -> Agreement:
    totals = tuple(sum(int(layer.sum(dtype=np.float64)) for layer in layers) for layers in zip(*spikes, strict=True))
    n_cells = n_differing = None
    if reference is not None and spikes[0][0].shape == reference[0][0].shape:
        pairs = [
            (a, b) for ours, theirs in zip(spikes, reference, strict=True) for a, b in zip(ours, theirs, strict=True)
        ]
        n_cells = sum(a.size for a, _ in pairs)
        n_differing = sum(int(np.count_nonzero(a != b)) for a, b in pairs)
    return Agreement(workload, engine, totals, n_cells, n_differing, note)


def check_pieces(workload: Workload) -> Agreement:
    """Return the emulator's spikes, and how many differ where a recording comes in pieces of 997 events.

    What differs are spikes, states and synops of every core; spikes are compared with their event, time and address.
    """
    emulator = Emulator(workload.program)
    totals = np.zeros(len(workload.program.cores), np.int64)
    n_compared = n_differing = 0
    for events in workload.recordings:
        whole = emulator.run(events, record="all")
        session = emulator.stream("all")
        parts = [session.feed(events.part(first, first + _PIECE)) for first in range(0, len(events), _PIECE)]
        pieced = session.recording({core: np.concatenate([part[core] for part in parts]) for core in whole.spikes})
        for core, spikes in whole.spikes.items():
            again = pieced.spikes[core]
            n_same = int(np.count_nonzero(spikes == again)) if spikes.shape == again.shape else 0
            state, other = whole.states[core], pieced.states[core]
            n_compared += spikes.size + state.size + 1
            n_differing += max(spikes.size, again.size) - n_same
            n_differing += int(np.count_nonzero(state != other)) + int(whole.synops[core] != pieced.synops[core])
        totals += [whole.n_spikes[core.core] for core in workload.program.cores]
    note = "8 bits, event by event, one spike a visit; compared with itself in pieces: spikes, states, synops"
    return Agreement(workload.name, EMULATOR, tuple(map(int, totals)), n_compared, n_differing, note)


def n_cores() -> int:
    """Return the number of cores of this machine."""
    return os.cpu_count() or 1
