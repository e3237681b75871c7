"""Streams: nothing lost or counted twice, the same decisions for any pieces, bounded memory, bad events refused."""

from __future__ import annotations

import json
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.models.cnn import CnnPredictor
from spikeport.models.errors import InferenceError, StreamError
from spikeport.models.events import Events
from spikeport.models.predictor import Response
from spikeport.models.queues import EventQueue
from spikeport.models.sinks import ConfidenceTrace, DecisionLog
from spikeport.models.sources import Pieces
from spikeport.models.stream import Decision, StreamSettings, stream
from spikeport.models.tally import Tally

from .given import LAST as PREDICTOR
from .given import cut, recording, run
from .leaky import LeakyPredictor

FAST = settings(max_examples=15, deadline=None)


def cnn() -> CnnPredictor:
    torch.manual_seed(0)
    return CnnPredictor(nn.Sequential(nn.Flatten(), nn.Linear(60, 3)), (2, 5, 6))


@FAST
@given(st.lists(st.integers(0, 2000), max_size=12), st.sampled_from([7, 333, 5000]), st.booleans(), st.booleans())
def test_decisions_are_the_same_for_any_pieces_and_every_event_is_in_one(
    at: list[int], every: int, by_events: bool, frames: bool
) -> None:
    predictor: Any = cnn() if frames else PREDICTOR
    options: Any = {"every_us": None, "every_events": every} if by_events else {"every_us": max(every, 1000)}
    events = recording(start_us=5)
    _, expected = run(predictor, Pieces([events]), **options)
    report, found = run(predictor, Pieces(cut(events, at)), **options)
    assert len(found) == len(expected)
    assert all(a.same(b) for a, b in zip(found, expected, strict=True))
    assert sum(decision.n_events for decision in found) == len(events) == report.n_events == report.n_in
    assert report.n_dropped == 0
    if by_events:
        assert [decision.n_events for decision in found[:-1]] == [every] * (len(found) - 1)


def test_a_window_of_time_holds_the_events_of_its_time() -> None:
    events = recording(500, start_us=123, duration_us=40_000)
    _, found = run(cnn(), Pieces([events]), every_us=10_000)
    first = int(events.t_us[0])
    for index, decision in enumerate(found[:-1]):
        assert decision.t_us == first + (index + 1) * 10_000
        assert decision.n_events == len(events.window(first + index * 10_000, first + (index + 1) * 10_000))


def test_silent_windows_have_no_decision_and_are_counted() -> None:
    times = np.array([0, 100, 35_000, 80_100])
    zeros = np.zeros(4, np.int64)
    report, found = run(PREDICTOR, Pieces([Events(zeros, zeros, zeros, times, (5, 6))]), every_us=10_000)
    assert [decision.n_events for decision in found] == [2, 1, 1]
    assert report.n_silent == 2 + 4


def test_a_window_alone_forgets_the_ones_before() -> None:
    events = recording(start_us=7)
    _, alone = run(PREDICTOR, Pieces([events]), every_us=10_000, per_window=True, readout="sum")
    _, whole = run(PREDICTOR, Pieces([events]), every_us=10_000, readout="sum")
    assert alone[0].same(whole[0])
    assert not alone[5].same(whole[5])


class Slow(LeakyPredictor):
    """Takes ten milliseconds for each piece."""

    def start(self, options: Any) -> Any:
        run = super().start(options)
        feed = run.feed

        def slowly(inputs: Any, until_us: int) -> Response:
            time.sleep(0.01)
            return feed(inputs, until_us)

        run.feed = slowly  # type: ignore[method-assign]
        return run


@pytest.mark.parametrize("overflow", ["block", "drop"])
def test_a_full_queue_makes_the_source_wait_or_drops_and_counts(overflow: Any) -> None:
    pieces = cut(recording(4000), list(range(100, 4000, 100)))
    report, found = run(Slow(), Pieces(pieces), queue_events=250, overflow=overflow, every_us=50_000)
    assert report.n_in == 4000
    assert report.n_events + report.n_dropped == 4000
    assert sum(decision.n_events for decision in found) == report.n_events
    assert (report.n_dropped > 0) == (overflow == "drop")
    assert report.queue_peak <= 250


def test_a_piece_larger_than_the_queue_passes_in_parts() -> None:
    report, _ = run(PREDICTOR, Pieces([recording(3000)]), queue_events=7, every_us=50_000)
    assert report.n_events == 3000


def test_pace_keeps_the_recordings_own_time() -> None:
    events = recording(300, duration_us=60_000)
    started = time.perf_counter()
    report, found = run(PREDICTOR, Pieces([events]), pace=0.5)
    assert time.perf_counter() - started >= events.duration_us * 2e-6
    assert report.n_events == 300
    assert report.latency_ms["p50"] is not None
    assert [one.t_us for one in found] == [one.t_us for one in run(PREDICTOR, Pieces([events]))[1]]


def test_errors_of_a_source_come_out_and_nothing_hangs() -> None:
    def broken() -> Iterator[Events]:
        yield recording(10)
        raise StreamError("gone. Try again.")

    with pytest.raises(StreamError, match="gone"):
        run(PREDICTOR, Pieces(broken()))
    with pytest.raises(InferenceError, match="input of 2x5x6"):
        run(PREDICTOR, Pieces([Events([0], [0], [0], [0], (9, 9))]))  # type: ignore[arg-type]
    assert threading.active_count() < 20


def test_an_interrupt_ends_a_stream_with_its_report() -> None:
    def interrupt(_: Decision) -> None:
        raise KeyboardInterrupt

    report = stream(PREDICTOR, Pieces([recording()]), on_decision=interrupt)
    assert report.is_interrupted
    assert report.n_decisions == 1


# sinks and counters


def test_the_log_rolls_over_and_keeps_whole_lines(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.jsonl", classes="abcd", max_bytes=2000, n_files=3) as log:
        decisions = run(PREDICTOR, Pieces([recording()]), every_us=1000)[1]
        for decision in decisions:
            log.add(decision)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    lines = [json.loads(line) for file in files[::-1] if file for line in file.read_text().splitlines()]
    order = [line["index"] for line in lines]
    ordered = [*map(json.loads, (files[2].read_text() + files[1].read_text() + files[0].read_text()).splitlines())]
    assert [line["index"] for line in ordered] == list(range(ordered[0]["index"], len(decisions)))
    assert sorted(order) == sorted(line["index"] for line in ordered)
    assert all(file.stat().st_size <= 2000 for file in files)
    assert ordered[-1]["class_name"] == "abcd"[ordered[-1]["class"]]
    with pytest.raises(InferenceError):
        DecisionLog(tmp_path / "x.jsonl", max_bytes=0)


def test_the_picture_of_a_long_stream_stays_small(tmp_path: Path) -> None:
    trace = ConfidenceTrace(n_most=50)
    for index in range(1000):
        trace.add(Decision(index, index * 1000, 0, np.array([0.7, 0.3]), 0.4, 1, 0.001))
        assert len(trace) <= 50
    assert len(trace) > 20
    for name in ("c.svg", "c.png"):
        trace.draw(tmp_path / name, classes=("yes", "no"), title="t")
        assert (tmp_path / name).stat().st_size > 1000
    assert "yes" in (tmp_path / "c.svg").read_text()
    with pytest.raises(InferenceError, match="svg or"):
        trace.draw(tmp_path / "c.pdf")


@FAST
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_are_within_one_percent_above(values: list[float], percent: int) -> None:
    tally = Tally()
    for value in values:
        tally.add(value)
    exact = sorted(values)[max(1, -(-len(values) * percent // 100)) - 1]
    found = tally.percentile_s(percent)
    assert found is not None
    assert exact * 0.999 <= found <= exact * 1.0102
    assert Tally().percentile_s(50) is None


def test_a_queue_that_nobody_empties_lets_its_reader_go() -> None:
    queue = EventQueue(10, "block")
    done = threading.Event()

    def read() -> None:
        queue.put(recording(100))
        done.set()

    threading.Thread(target=read, daemon=True).start()
    time.sleep(0.05)
    assert not done.is_set()
    queue.close()
    assert done.wait(5.0)
    assert queue.n_dropped == queue.n_in == 100


@pytest.mark.parametrize("options", [{"every_us": None}, {"every_events": 3}, {"pace": 0.0}, {"overflow": "lose"}])
def test_settings_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(InferenceError, match="Try StreamSettings"):
        StreamSettings(**options)
    with pytest.raises(InferenceError, match="no more often"):
        run(PREDICTOR, Pieces([recording()]), every_us=500)


def test_memory_does_not_grow_with_the_stream() -> None:
    def endless(n: int) -> Iterator[Events]:
        for index in range(n):
            yield recording(200, index, start_us=index * 100_000)

    def peak(n: int) -> int:
        tracemalloc.start()
        stream(PREDICTOR, Pieces(endless(n)), settings=StreamSettings(queue_events=1000))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(3)
    assert peak(32) < 1.5 * peak(8) + 100_000


class Counting:
    """A predictor that only counts: so that a hundred million events take a minute."""

    name, layers, classes, step_us, is_idle = "count", (), (), None, True
    input_shape = (2, 128, 128)
    outputs = {"output": (1,)}  # noqa: RUF012
    readout, confidence = "sum", "share"

    def start(self, options: Any) -> Any:
        self.n, self.n_since, self.sum = 0, 0, 0
        return self

    def fingerprint(self) -> str:
        return "count"

    def feed(self, inputs: Any, until_us: int) -> Response:
        self.n_since += len(inputs[0])
        self.sum += int(inputs[0].x.astype(np.int64).sum())
        return self._answer(0)

    def finish(self) -> Response:
        self.n += self.n_since
        found = self._answer(1)
        self.n_since = 0
        return found

    def _answer(self, n_steps: int) -> Response:
        outputs = {"output": np.full((n_steps, 1, 1), self.n_since)}
        return Response(outputs, np.zeros((n_steps, 1), np.int64), np.zeros(1, np.int64))

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:
        self.n, self.n_since, self.sum = 0, 0, 0

    def state(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_counted_twice_over_a_hundred_million_events() -> None:
    n_pieces, n = 2000, 50_000
    rng = np.random.default_rng(0)
    x, y, p = (rng.integers(0, edge, n, dtype=np.int16) for edge in (128, 128, 2))
    steps = np.sort(rng.integers(0, 10_000, n))
    size = int(os.sysconf("SC_PAGE_SIZE"))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * size

    def pieces() -> Iterator[Events]:
        for index in range(n_pieces):
            yield Events(x, y, p, steps + index * 10_000, (128, 128))

    predictor: Any = Counting()
    decisions = {"n": 0, "events": 0, "early": 0, "late": 0}

    def count(decision: Decision) -> None:
        decisions["n"] += 1
        decisions["events"] += decision.n_events
        if decision.index == 2000:
            decisions["early"] = resident()
        decisions["late"] = resident() if decision.index % 1000 == 0 else decisions["late"]

    report = stream(
        predictor, Pieces(pieces()), settings=StreamSettings(every_us=None, every_events=9973), on_decision=count
    )
    total = n_pieces * n
    assert report.n_in == report.n_events == decisions["events"] == predictor.n == total
    assert predictor.sum == n_pieces * int(x.astype(np.int64).sum())
    assert report.n_decisions == decisions["n"] == -(-total // 9973)
    assert decisions["late"] - decisions["early"] < 32 << 20
