"""The benchmark of streams: events per second flat out, and latencies at the events' own speed."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spikeport.models.console import say
from spikeport.models.events import Events
from spikeport.models.predictor import Predictor
from spikeport.models.sources import Pieces
from spikeport.models.stream import StreamReport, StreamSettings, stream

from .setting import describe_setting

_PIECE = 1 << 12
_PACKAGES = ("spikeport", "torch", "numpy", "numba")


@dataclasses.dataclass(frozen=True)
class StreamScope:
    """How much is run: rounds that count, events of a flat-out run, and rate and length of one in real time."""

    repeats: int = 5
    n_flat: int = 1_000_000
    rate_hz: float = 100_000.0
    duration_s: float = 5.0


QUICK = StreamScope(repeats=1, n_flat=50_000, duration_s=0.5)


@dataclasses.dataclass(frozen=True)
class StreamRow:
    """What one predictor did.

    Units: events per second flat out, the median of the rounds; milliseconds of the run in real time, whose decisions
    come every ``every_ms`` of the events' time, from ``rate_hz`` events per second.
    """

    predictor: str
    every_ms: float
    flat_events_per_s: float
    rate_hz: float
    n_decisions: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    n_events: int
    n_dropped: int


@dataclasses.dataclass(frozen=True)
class StreamBenchmark:
    """A run of the benchmark."""

    setting: dict[str, Any]
    rows: tuple[StreamRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain numbers, ready for JSON."""
        return dataclasses.asdict(self)


def run_stream_benchmark(scope: StreamScope, *, command: Sequence[str]) -> StreamBenchmark:
    """Return events per second and latencies of a CNN, a spiking net, and a chip program on the emulator.

    All read random events of a 34 x 34 sensor and have the tutorial's layers; the predictors take turns in each round.
    """
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    predictors = _predictors()
    flat: dict[str, list[float]] = {name: [] for name in predictors}
    for lap in range(scope.repeats + 1):  # the first one compiles, and does not count
        for name, predictor in predictors.items():
            n = scope.n_flat if lap else min(scope.n_flat, 20_000)
            found = _run(predictor, _events(n, scope.rate_hz, lap), StreamSettings(every_us=10_000))
            if lap:
                flat[name].append(found.events_per_s)
        say(f"stream: round {lap} of {scope.repeats}")
    rows = []
    for name, predictor in predictors.items():
        n = int(scope.rate_hz * scope.duration_s)
        paced = StreamSettings(every_us=10_000, pace=1.0, overflow="drop")
        found = _run(predictor, _events(n, scope.rate_hz, 99), paced)
        latency = found.latency_ms
        rows.append(
            StreamRow(
                predictor=name,
                every_ms=10.0,
                flat_events_per_s=statistics.median(flat[name]),
                rate_hz=scope.rate_hz,
                n_decisions=found.n_decisions,
                p50_ms=latency["p50"],
                p99_ms=latency["p99"],
                max_ms=latency["max"],
                n_events=found.n_events,
                n_dropped=found.n_dropped,
            )
        )
        say(f"stream: {name} in real time")
    setting = {
        "command": " ".join(["spikeport", "bench", *command]),
        **describe_setting(*_PACKAGES),
        "scope": dataclasses.asdict(scope),
        "wall_s": time.perf_counter() - started,
    }
    return StreamBenchmark(setting, tuple(rows))


def stream_tables(found: StreamBenchmark) -> list[tuple[str, tuple[str, ...], list[tuple[object, ...]]]]:
    """Return title, columns and rows of the table of a run."""
    rate = found.setting["scope"]["rate_hz"]
    columns = ("Predictor", "Events/s flat out", "Decisions", "p50 in ms", "p99 in ms", "Largest in ms", "Dropped")
    rows: list[tuple[object, ...]] = [
        (row.predictor, row.flat_events_per_s, row.n_decisions, row.p50_ms, row.p99_ms, row.max_ms, row.n_dropped)
        for row in found.rows
    ]
    return [(f"Streams, a decision every 10 ms; latencies at {rate:,.0f} events/s in real time", columns, rows)]


def stream_markdown(found: StreamBenchmark) -> str:
    """Return the section of the page of benchmarks."""
    setting = found.setting
    versions = ", ".join(f"{name} {number}" for name, number in setting["versions"].items() if number)
    lines = [
        "# Streams",
        "",
        f"Written by `{setting['command']}` on {setting['date']}: {setting['machine']}; {versions}. One thread for the",
        "predictor, one for the source. Latency is from the arrival of a window's last event to its decision.",
        "",
    ]
    for title, columns, rows in stream_tables(found):
        lines += [f"## {title}", "", f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
        lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join([*lines, ""])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _predictors() -> dict[str, Predictor]:
    import torch

    from spikeport.convert.pipeline import convert
    from spikeport.convert.predictor import NetPredictor
    from spikeport.deploy.pipeline import compile_program
    from spikeport.deploy.predictors import ProgramPredictor
    from spikeport.models.cnn import CnnPredictor
    from spikeport.models.digits_cnn import digits_cnn

    torch.manual_seed(0)
    module = digits_cnn(2)
    frames = np.random.default_rng(0).poisson(0.5, (16, 2, 34, 34)).astype(np.float32)
    net = convert(module, (2, 34, 34), data=frames).net
    return {
        "CNN, a frame of each window": CnnPredictor(module, (2, 34, 34)),
        "spiking net, steps of 10 ms": NetPredictor(net),
        "chip program, emulator": ProgramPredictor(compile_program(net, "speck2fdevkit")),
    }


def _events(n: int, rate_hz: float, seed: int) -> Iterator[Events]:
    """Yield random events of a rate, in pieces as a camera's driver gives them."""
    rng = np.random.default_rng(seed)
    first_us = 0.0
    while n > 0:
        size = min(n, _PIECE)
        times = first_us + np.cumsum(rng.exponential(1e6 / rate_hz, size))
        first_us = float(times[-1])
        x, y, p = (rng.integers(0, edge, size) for edge in (34, 34, 2))
        yield Events(x, y, p, times.astype(np.int64), (34, 34))
        n -= size


def _run(predictor: Predictor, events: Iterator[Events], settings: StreamSettings) -> StreamReport:
    pieces = list(events)  # made before the clock starts
    return stream(predictor, Pieces(pieces), settings=settings)
