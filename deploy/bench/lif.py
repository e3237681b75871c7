"""The recurrent LIF classifier next to Norse: forward and training, the same weights, input and optimizer."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.sparse import sparse_events
from spikeport.models.symbols import symbols

from .checks import Check
from .timing import Timing, time_alternately

if TYPE_CHECKING:
    import torch

    from spikeport.models.recurrent_lif import RecurrentLif

OURS, OURS_EVENTS, PLAIN, NORSE = "spikeport, raster", "spikeport, events", "plain torch", "Norse"

FORWARD_1, FORWARD_32, TRAINING = "forward, batch 1", "forward, batch 32", "training, batch 32"

GAINS = {FORWARD_1: (9.0, 20.0), FORWARD_32: (3.0, 3.0), TRAINING: (2.1, 5.0)}
"""How many times Norse's steps per second at least, and what is aimed at."""

ERROR = 1e-5
"""How far potentials may be from the plain reference in float64."""

INSTALL_NORSE = "pip install --no-deps norse"
"""Its own list of packages would replace torch."""

N_CALLS = {FORWARD_1: 50, FORWARD_32: 5, TRAINING: 5}
"""Calls one after the other in each round, as in a stream or in training: what another engine left in the caches is not
measured."""

_HIDDEN, _BATCH, _RATE = 100, 32, 2e-3


@dataclasses.dataclass(frozen=True)
class LifRow:
    """One way to do one thing: ``n_steps`` steps of ``n_samples`` samples side by side, ``n_events`` in all.

    ``error`` is the largest distance of its potentials to those of plain torch in float64.
    """

    task: str
    engine: str
    n_steps: int
    n_samples: int
    n_events: int
    timing: Timing
    error: float | None

    @property
    def steps_hz(self) -> float:
        """Time steps a second, of all samples at once, by the middle of the times."""
        return self.n_steps / self.timing.median_s

    @property
    def events_hz(self) -> float:
        """Input events a second."""
        return self.n_events / self.timing.median_s


@dataclasses.dataclass(frozen=True)
class LifBenchmark:
    """Everything that the benchmark found; ``absent`` says what could not be part of it, and why."""

    rows: tuple[LifRow, ...]
    checks: tuple[Check, ...]
    absent: tuple[str, ...]

    def table(self) -> tuple[str, tuple[str, ...], list[tuple[object, ...]]]:
        """Return title, columns and rows for the screen and the page."""
        norse = {row.task: row.steps_hz for row in self.rows if row.engine == NORSE}
        rows: list[tuple[object, ...]] = [
            (
                row.task,
                row.engine,
                f"{row.timing.median_s * 1e3:.2f}",
                f"{row.steps_hz:,.0f}",
                f"{row.events_hz / 1e6:.2f}",
                f"{row.steps_hz / norse[row.task]:.1f}" if row.task in norse else "",
                "" if row.error is None else f"{row.error:.1e}",
            )
            for row in self.rows
        ]
        columns = ("Task", "Engine", "ms", "Steps/s", "M events/s", "Times Norse", "Error")
        return f"Recurrent LIF classifier, 2450-{_HIDDEN}-4", columns, rows


def measure_lif(repeats: int = 5, seed: int = 0) -> LifBenchmark:
    """Return how fast forward and training are, and how far from the reference, one thread, in alternation.

    The recordings are card symbols under a simulated camera, in steps of 1 ms; all start from the same weights. Norse's
    loop is that of its POKER-DVS tutorial, with its own cells.
    """
    import torch

    from spikeport.models.recurrent_lif import RecurrentLif

    torch.set_num_threads(1)
    dataset = symbols(_BATCH, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = RecurrentLif(2450, _HIDDEN, len(dataset.classes))
        norse = _norse_net(module) if find_spec("norse") else None
    labels = torch.from_numpy(dataset.labels.copy())
    rows: list[LifRow] = []
    for task, n_samples in ((FORWARD_1, 1), (FORWARD_32, _BATCH)):
        recordings = dataset.recordings[:n_samples]
        n_steps = max(int(events.t_us[-1]) // 1000 + 1 for events in recordings)
        steps = sparse_events(recordings, n_steps=n_steps, step_us=1000)
        raster = torch.from_numpy(steps.to_raster())
        engines: dict[str, Callable[[], torch.Tensor]] = {
            OURS: lambda raster=raster: module.run(raster).potentials,  # type: ignore[misc]
            OURS_EVENTS: lambda steps=steps: module.run(steps).potentials,  # type: ignore[misc]
            PLAIN: lambda raster=raster: module.run(raster, engine="torch").potentials,  # type: ignore[misc]
        }
        if norse is not None:
            engines[NORSE] = lambda raster=raster: norse(raster)  # type: ignore[misc]
        size = n_steps, n_samples, steps.n_events
        rows += _forward_rows(task, engines, size, reference=_reference(module, raster), repeats=repeats)
        if n_samples == _BATCH:
            learners: dict[str, Callable[[RecurrentLif], torch.Tensor]] = {
                OURS: lambda net, raster=raster: net.run(raster).potentials,  # type: ignore[misc]
                OURS_EVENTS: lambda net, steps=steps: net.run(steps).potentials,  # type: ignore[misc]
                PLAIN: lambda net, raster=raster: net.run(raster, engine="torch").potentials,  # type: ignore[misc]
            }
            runs = {name: _learning(copy.deepcopy(module), run, labels) for name, run in learners.items()}
            if norse is not None:
                runs[NORSE] = _learning(norse, lambda net, raster=raster: net(raster), labels)  # type: ignore[misc]
            timings = _timed(TRAINING, runs, repeats)
            rows += [LifRow(TRAINING, name, *size, timing, None) for name, timing in timings.items()]
    absent = () if norse is not None else (f"Norse: {INSTALL_NORSE}",)
    return LifBenchmark(tuple(rows), tuple(check_lif(rows)), absent)


def check_lif(rows: list[LifRow]) -> list[Check]:
    """Return the aims with the figures that they are met or missed by."""
    checks = []
    worst = max((row.error for row in rows if row.error is not None and row.engine != NORSE), default=None)
    if worst is not None:
        checks.append(
            Check(f"LIF: potentials within {ERROR:g} of plain torch in float64", worst <= ERROR, f"{worst:.1e}")
        )
    for task, (least, aim) in GAINS.items():
        found = {row.engine: row for row in rows if row.task == task}
        if NORSE in found and OURS in found:
            gain = found[OURS].steps_hz / found[NORSE].steps_hz
            title = f"LIF: {task}: at least {least:g} times Norse's steps/s (aim {aim:g})"
            figures = f"{gain:.1f} times ({found[OURS].steps_hz:,.0f} against {found[NORSE].steps_hz:,.0f})"
            checks.append(Check(title, gain >= least, figures))
    return checks


def _forward_rows(
    task: str,
    engines: dict[str, Callable[[], torch.Tensor]],
    size: tuple[int, int, int],
    *,
    reference: NDArray[np.float64],
    repeats: int,
) -> list[LifRow]:
    import torch

    with torch.no_grad():
        errors = {name: float(np.abs(run().numpy() - reference).max()) for name, run in engines.items()}
        timings = _timed(task, engines, repeats)
    return [LifRow(task, name, *size, timing, errors[name]) for name, timing in timings.items()]


def _timed(task: str, runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Return the times of one call of each, from rounds of several."""
    n_calls = N_CALLS[task]

    def several(run: Callable[[], object]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(n_calls):
                run()

        return call

    timings = time_alternately({name: several(run) for name, run in runs.items()}, repeats)
    return {name: Timing(tuple(wall / n_calls for wall in timing.walls_s)) for name, timing in timings.items()}


def _reference(module: RecurrentLif, raster: torch.Tensor) -> NDArray[np.float64]:
    """Return the potentials of plain torch in float64."""
    import torch

    with torch.no_grad():
        found = copy.deepcopy(module).double().run(raster.double(), engine="torch").potentials
    return np.asarray(found.numpy(), np.float64)


def _learning(net: Any, potentials: Callable[[Any], torch.Tensor], labels: torch.Tensor) -> Callable[[], None]:
    """Return one iteration of training, which goes on from the one before."""
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.Adam(net.parameters(), lr=_RATE)

    def learn() -> None:
        optimizer.zero_grad()
        loss = F.nll_loss(F.log_softmax(potentials(net).max(dim=0).values, dim=1), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return learn


def _norse_net(ours: RecurrentLif) -> torch.nn.Module:
    """Return the same network of Norse's cells, with the same weights, step by step as in its tutorial."""
    import torch
    from torch import nn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of calls of torch that are deprecated
        from norse.torch import LICell, LIFParameters, LIFRecurrentCell

    config = ours.config

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inverse = (torch.as_tensor(1 / tau) for tau in (config.tau_syn_s, config.tau_mem_s))
            p = LIFParameters(*inverse, v_th=torch.as_tensor(config.v_th), alpha=torch.as_tensor(config.alpha))
            self.lif = LIFRecurrentCell(config.in_features, config.hidden, p=p, dt=config.dt_s)
            self.linear = nn.Linear(config.hidden, config.classes, bias=False)
            self.out = LICell(dt=config.dt_s)
            with torch.no_grad():
                self.lif.input_weights.copy_(ours.input_weight)
                self.lif.recurrent_weights.copy_(ours.recurrent_weight)
                self.linear.weight.copy_(ours.readout_weight)

        def forward(self, raster: torch.Tensor) -> torch.Tensor:
            hidden: Any = None
            readout: Any = None
            potentials = []
            for step in raster.flatten(2):
                spikes, hidden = self.lif(step, hidden)
                potential, readout = self.out(self.linear(spikes), readout)
                potentials.append(potential)
            return torch.stack(potentials)

    return Net()
