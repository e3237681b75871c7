"""The event state-space model online, next to JAX: the published model's shapes, one thread, in alternation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checks import Check
from .timing import Timing, time_alternately

if TYPE_CHECKING:
    from spikeport.models.event_ssm import EventSSM, SsmConfig
    from spikeport.models.ssm.engine import OnlineEngine

CARRIED, RESET, JAX_LOOP, JAX_SCAN = "spikeport, carried", "spikeport, reset", "JAX, loop", "JAX, scan"

GAINS = {256: (4.0, 10.0), 1024: (6.0, 10.0)}
"""How many times the events per second of JAX's scan at least, by chunk, and what is aimed at."""

CHUNKS = 16, 256, 1024, 4096

_TUTORIAL = 256
"""Chunk of the tutorial; the scan over such chunks is what sizes are compared with that JAX was not run at."""

ERROR = 1e-4
"""How far logits may be from JAX's, as a share of their scale."""

PYTHON = "SPIKEPORT_JAX_PYTHON"
"""Variable that names the interpreter of an environment with JAX 0.4.29, where this one has none."""

INSTALL_JAX = f"pip install 'jax[cpu]==0.4.29' in an environment of its own, whose python {PYTHON} names"

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

_LIMITS = """
import json, time
import numpy as np
def best(run, n):
    times = []
    for _ in range(7):
        started = time.perf_counter(); run(); times.append(time.perf_counter() - started)
    return n / min(times)
a = np.ones((1024, 1024), np.float32)
x = np.ones(1 << 26, np.float32)
print(json.dumps([best(lambda: a @ a, 2 * 1024**3), best(lambda: x @ x, x.nbytes)]))
"""


@dataclasses.dataclass(frozen=True)
class SsmRow:
    """One engine at one size of chunk; ``error`` is that of its logits to JAX's, as a share of their scale."""

    engine: str
    chunk: int
    n_events: int
    timing: Timing
    error: float | None = None

    @property
    def events_hz(self) -> float:
        """Events per second, by the middle of the times."""
        return self.n_events / self.timing.median_s


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one thread of this machine can do, in a process of its own: a product of 1024x1024, a sum of 256 MB."""

    sgemm_flops_hz: float
    read_bytes_hz: float


@dataclasses.dataclass(frozen=True)
class SsmBenchmark:
    """Everything that the benchmark found.

    ``latencies_us`` holds the 50th, 90th and 99th percentile of the time that one event takes through Python: one that
    ends nothing, one that ends a group of the first stage, one that brings a decision.
    """

    rows: tuple[SsmRow, ...]
    latencies_us: dict[str, tuple[float, float, float]]
    limits: Limits
    flops: float
    bytes_read: float
    checks: tuple[Check, ...]
    absent: tuple[str, ...]

    def table(self) -> tuple[str, tuple[str, ...], list[tuple[object, ...]]]:
        """Return title, columns and rows for the screen and the page."""
        scans = {row.chunk: row.events_hz for row in self.rows if row.engine == JAX_SCAN}
        rows: list[tuple[object, ...]] = [
            (
                row.engine,
                row.chunk,
                f"{row.events_hz:,.0f}",
                f"{row.events_hz / scans.get(row.chunk, scans[_TUTORIAL]):.1f}" if scans else "",
                f"{row.events_hz * self.flops / self.limits.sgemm_flops_hz:.0%}",
                f"{row.events_hz * self.bytes_read / self.limits.read_bytes_hz:.0%}",
                "" if row.error is None else f"{row.error:.1e}",
            )
            for row in self.rows
        ]
        columns = ("Engine", "Chunk", "Events/s", "Times JAX scan", "Of sgemm", "Of read bandwidth", "Error")
        limits = f"{self.limits.sgemm_flops_hz / 1e9:.0f} GFLOP/s, {self.limits.read_bytes_hz / 1e9:.1f} GB/s"
        title = (
            f"dvs/small online, {self.flops / 1e3:.1f} kFLOP and {self.bytes_read:,.0f} B an event; machine {limits}"
        )
        return title, columns, rows

    def latency_table(self) -> tuple[str, tuple[str, ...], list[tuple[object, ...]]]:
        """Return title, columns and rows of the latencies."""
        rows: list[tuple[object, ...]] = [
            (name, *(f"{value:.1f}" for value in values)) for name, values in self.latencies_us.items()
        ]
        return "Latency of one event", ("Event", "Median us", "90 % us", "99 % us"), rows


def measure_ssm(n_events: int = 1 << 18, repeats: int = 5, seed: int = 0) -> SsmBenchmark:
    """Return how fast ``dvs/small`` with 10 classes is online, on uniform tokens 1 ms apart, as in the tutorial.

    Untrained weights. JAX starts each chunk from states at rest; ``carried`` does more, ``reset`` the same.
    """
    import torch

    from spikeport.models.event_ssm import EventSSM, config

    torch.set_num_threads(1)
    module = EventSSM(config("dvs/small", classes=10), seed=seed).eval()
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, module.config.vocabulary, n_events)
    intervals_us = np.full(n_events, 1000)
    carried, reset = module.online(), module.online("reset")
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for chunk in CHUNKS:
        runs[CARRIED, chunk] = functools.partial(_feed, carried, tokens, intervals_us, chunk)
        if chunk in GAINS:
            runs[RESET, chunk] = functools.partial(_feed, reset, tokens, intervals_us, chunk)
    absent: tuple[str, ...] = ()
    errors: dict[tuple[str, int], float] = {}
    timings: dict[str, Timing] = {}
    with _jax(module, tokens, intervals_us) as ask:
        if ask is None:
            absent = (f"JAX: {INSTALL_JAX}",)
        else:
            for chunk in GAINS:
                for engine, how in ((JAX_LOOP, "loop"), (JAX_SCAN, "scan")):
                    runs[engine, chunk] = functools.partial(ask, run=how, chunk=chunk)
                theirs = np.array(ask(run="scan", chunk=chunk, keep=True)["logits"])
                ours = np.array(_feed(reset, tokens, intervals_us, chunk))
                errors[RESET, chunk] = float(np.abs(ours[: len(theirs)] - theirs).max() / np.abs(theirs).max())
        names = {f"{engine}/{chunk}": run for (engine, chunk), run in runs.items()}
        timings = time_alternately(names, repeats)
    rows = [SsmRow(*key, n_events, timings[f"{key[0]}/{key[1]}"], errors.get(key)) for key in runs]
    limits = measure_limits()
    latencies = _latencies(carried, tokens[: 1 << 14], intervals_us[: 1 << 14])
    flops, n_bytes = work_per_event(module.config)
    return SsmBenchmark(tuple(rows), latencies, limits, flops, n_bytes, tuple(check_ssm(rows)), absent)


def check_ssm(rows: list[SsmRow]) -> list[Check]:
    """Return the aims with the figures that they are met or missed by."""
    found = {(row.engine, row.chunk): row for row in rows}
    checks = []
    for chunk, (least, aim) in GAINS.items():
        own, scan = found.get((CARRIED, chunk)), found.get((JAX_SCAN, chunk))
        if scan is not None and own is not None:
            gain = own.events_hz / scan.events_hz
            title = f"Event SSM: chunks of {chunk}: at least {least:g} times the events/s of JAX's scan (aim {aim:g})"
            figures = f"{gain:.1f} times ({own.events_hz:,.0f} against {scan.events_hz:,.0f})"
            checks.append(Check(title, gain >= least, figures))
    worst = max((row.error for row in rows if row.error is not None), default=None)
    if worst is not None:
        title = f"Event SSM: logits within {ERROR:g} of JAX's, of their scale"
        checks.append(Check(title, worst <= ERROR, f"{worst:.1e}"))
    return checks


def work_per_event(config: SsmConfig) -> tuple[float, float]:
    """Return floating-point operations and bytes of the token table for one event of the online engine.

    Products and decays of states; of the first layer, whose input product lies in the table, only the decays and sums.
    """
    products, rate = 0.0, 1.0
    for stage in config.shapes:
        for shape in stage:
            n = 2 * shape.n_states
            per_input = 2 * n + (2 * shape.n_in if rate == 1 else n * shape.n_in)
            per_output = n * shape.n_out + shape.n_out**2
            if shape.n_in != shape.n_out:
                per_output += 2 * shape.n_in * shape.n_out
            products += rate * per_input
            rate /= shape.stride
            products += rate * per_output
    first = config.shapes[0][0]
    return 2 * products, 4.0 * (2 * first.n_states + first.n_in + 2)


def measure_limits() -> Limits:
    """Return what one thread of numpy gets out of this machine."""
    done = subprocess.run(  # noqa: S603 - our own text, in this interpreter
        [sys.executable, "-c", _LIMITS], env=dict(os.environ) | _ONE_THREAD, capture_output=True, text=True, check=True
    )
    return Limits(*json.loads(done.stdout))


def _feed(
    engine: OnlineEngine, tokens: NDArray[np.int64], intervals_us: NDArray[np.int64], chunk: int
) -> list[NDArray[np.float32]]:
    """Return the logits behind each chunk."""
    engine.reset()
    return [engine.feed(tokens[k : k + chunk], intervals_us[k : k + chunk]) for k in range(0, len(tokens), chunk)]


def _latencies(
    engine: OnlineEngine, tokens: NDArray[np.int64], intervals_us: NDArray[np.int64]
) -> dict[str, tuple[float, float, float]]:
    config = engine.config
    engine.reset()
    found: dict[str, list[float]] = {"one event": [], "one that ends a group": [], "one that brings a decision": []}
    for k in range(len(tokens)):
        started = time.perf_counter()
        engine.feed(tokens[k : k + 1], intervals_us[k : k + 1])
        wall_us = (time.perf_counter() - started) * 1e6
        ends = ((k + 1) % config.stride == 0) + ((k + 1) % config.downsampling == 0)
        list(found.values())[ends].append(wall_us)
    shares = {name: np.percentile(values, (50, 90, 99)) for name, values in found.items()}
    return {name: (float(one[0]), float(one[1]), float(one[2])) for name, one in shares.items()}


@contextlib.contextmanager
def _jax(
    module: EventSSM, tokens: NDArray[np.int64], intervals_us: NDArray[np.int64]
) -> Iterator[Callable[..., dict[str, Any]] | None]:
    """Yield what lets a process with JAX do a run, or None where there is no JAX."""
    python = os.environ.get(PYTHON) or (sys.executable if find_spec("jax") else None)
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        arrays: dict[str, Any] = {name: value.detach().numpy() for name, value in module.state_dict().items()}
        arrays |= {"tokens": tokens.astype(np.int32), "intervals_ms": (intervals_us * 1e-3).astype(np.float32)}
        np.savez(path, config=json.dumps(dataclasses.asdict(module.config)), **arrays)
        one_thread = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
        with subprocess.Popen(  # noqa: S603 - the interpreter that the user named
            [python, str(Path(__file__).with_name("jaxssm.py")), str(path)],
            env=dict(os.environ) | _ONE_THREAD | one_thread | {"JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            given, answers = process.stdin, process.stdout
            if given is None or answers is None or not answers.readline():
                yield None
                return

            def ask(**run: Any) -> dict[str, Any]:
                given.write(json.dumps(run) + "\n")
                given.flush()
                answer: dict[str, Any] = json.loads(answers.readline())
                return answer

            yield ask
