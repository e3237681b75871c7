"""What the benchmark of the emulator measures: workloads, layers, scaling, processes, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert import simulate
from spikeport.deploy import Emulator, compile_program
from spikeport.deploy.bench import frameworks, processes
from spikeport.deploy.bench.command import WORKLOAD_NAMES, bench_command
from spikeport.deploy.bench.emulator import run_emulator_benchmark
from spikeport.deploy.bench.layers import (
    measure_layers,
    row_adds,
    row_length,
    rows_of,
)
from spikeport.deploy.bench.processes import measure_memory, measure_starts
from spikeport.deploy.bench.scaling import (
    BINS_US,
    EMULATOR,
    measure_bins,
    measure_sizes,
    measure_stream,
    measure_threads,
    warmed,
)
from spikeport.deploy.bench.timing import Timing, time_alternately
from spikeport.deploy.bench.workloads import (
    GESTURE_SPIKES,
    WORKLOADS,
    Scope,
    Workload,
    digits_workload,
    find_missing,
    gesture_workload,
    scale_to_spikes,
    uniform_events,
)
from spikeport.deploy.errors import RecordingError
from spikeport.deploy.layout import Fields
from spikeport.deploy.types import CoreProgram
from spikeport.models.errors import DataError

from ..deploy.nets import stack  # noqa: TID252
from ..deploy.programs import make_core  # noqa: TID252

LAYERS = [{"features": 4, "kernel": 3, "pool": 2}, {"features": 6, "kernel": 3}, {"features": 3, "kernel": 0}]


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Return a small net with a recording that makes all of its layers spike."""
    net = stack((2, 16, 16), LAYERS)
    events = uniform_events((16, 16), n=3_000, duration_us=200_000, seed=0)
    return Workload("made", net, compile_program(net), (events,), (20,), "random", "drawn")


# timing and workloads


def test_runs_take_turns_and_the_first_round_does_not_count() -> None:
    done: list[str] = []
    timings = time_alternately({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 3)
    assert done == ["a", "b"] * 4
    assert [len(timing.walls_s) for timing in timings.values()] == [3, 3]
    assert Timing((3.0, 1.0, 2.0)).median_s == 2.0
    assert Timing((3.0, 1.0, 2.0)).best_s == 1.0


def test_drawn_events_are_as_many_within_the_time_and_the_same_again() -> None:
    events = uniform_events((5, 7), n=1_000, duration_us=2_000, seed=3)
    assert len(events) == 1_000
    assert events.sensor_size == (5, 7)
    assert int(events.t_us[-1]) < 2_000
    assert set(events.p.tolist()) == {0, 1}
    assert events.same(uniform_events((5, 7), n=1_000, duration_us=2_000, seed=3))


def test_weights_are_scaled_until_each_layer_spikes_as_often_as_asked() -> None:
    net = stack((2, 16, 16), LAYERS)
    raster = uniform_events((16, 16), n=4_000, duration_us=400_000, seed=0).to_raster(10_000)
    scaled, found = scale_to_spikes(net, raster, (6_000, 2_000, 300))
    trace = simulate(scaled, raster)
    assert tuple(int(count.sum()) for count in trace.counts) == found
    assert found == pytest.approx((6_000, 2_000, 300), rel=0.01)
    for before, after in zip(net.layers, scaled.layers, strict=True):
        ratio = after.weight / before.weight
        assert np.allclose(ratio, ratio.flat[0])


def test_the_tutorials_workload_has_its_events_steps_and_spikes_per_layer() -> None:
    (made,) = digits_workload(Scope(shrink=40))
    assert made.n_steps == (14,)
    assert made.n_events == 262_628 * 14 // 521
    assert made.rasters()[0].shape == (14, 1, 64, 64)
    assert made.rasters()[0].sum() == made.n_events
    assert made.targets is not None
    counts = [int(count.sum()) for count in simulate(made.net, made.rasters()[0]).counts]
    assert counts == pytest.approx(made.targets, rel=0.03, abs=1)
    assert len(made.program.cores) == 5


def test_without_real_data_the_gesture_net_gets_random_weights_and_the_rest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKEPORT_DATA", str(tmp_path))
    (made,) = gesture_workload(Scope(shrink=50))
    assert made.weights.startswith("random")
    assert made.targets == tuple(-(-n // 50) for n in GESTURE_SPIKES)
    assert [find_missing(name) for name in ("digits", "gesture")] == [None, None]
    assert "nmnist/test.zip" in str(find_missing("nmnist"))
    with pytest.raises(DataError, match="dvs128_gesture"):
        run_emulator_benchmark(Scope(), ("recordings",), command=())


def test_real_recordings_run_from_zero_with_public_weights() -> None:
    for name in ("nmnist", "recordings"):
        if find_missing(name):
            pytest.skip(str(find_missing(name)))
        made = next(iter(WORKLOADS[name][0](Scope(n_digits=1, n_gestures=1))))
        assert made.weights.startswith("public")
        assert int(made.recordings[0].t_us[0]) == 0
        assert made.rasters()[0].sum() == made.n_events
        assert made.duration_s * 1e6 >= made.recordings[0].duration_us


# layers


@st.composite
def cores(draw: st.DrawFn) -> CoreProgram:
    kernel = tuple(draw(st.integers(1, 3)) for _ in "yx")
    stride = tuple(draw(st.integers(1, edge)) for edge in kernel)
    padding = tuple(draw(st.integers(0, edge - 1)) for edge in kernel)
    size = tuple(draw(st.integers(max(1, edge - 2 * pad), 7)) for edge, pad in zip(kernel, padding, strict=True))
    features, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    weight = np.ones((features, channels, *kernel), np.int8)
    return make_core(weight=weight, in_shape=(channels, *size), stride=stride, padding=padding)


@given(cores(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_rows_to_add_are_those_that_the_specification_visits(core: CoreProgram, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, height, width = core.out_shape
    ky, kx = core.weight.shape[2:]
    arriving = Fields(np.arange(30), *(rng.integers(0, edge + 1, 30) for edge in core.in_shape))  # some outside
    starts, weights = rows_of(core, arriving)
    length = row_length(core)
    visited = []
    for _, channel, y, x in zip(*arriving, strict=True):
        if channel >= core.in_shape[0] or y >= core.in_shape[1] or x >= core.in_shape[2]:
            continue
        for v in range(height):
            tap = int(y) + core.padding[0] - v * core.stride[0]
            reached = [u for u in range(width) if 0 <= int(x) + core.padding[1] - u * core.stride[1] < kx]
            if 0 <= tap < ky and len(reached) * features == length:
                visited.append(((v * width + reached[0]) * features, (int(channel) * ky + tap) * length))
    if visited:
        assert sorted(zip(starts.tolist(), weights.tolist(), strict=True)) == sorted(visited)
    assert 0 < len(starts) == len(weights)
    assert starts.max() + length <= features * height * width
    assert min(starts.min(), weights.min()) >= 0


def test_the_loop_at_the_limit_adds_each_weight_as_often_as_it_says() -> None:
    core = make_core(weight=np.ones((2, 1, 3, 3), np.int8), in_shape=(1, 8, 8))
    run, n_adds = row_adds(core, Fields(*(np.array([value]) for value in (0, 0, 4, 4))))
    state = run.args[0]  # type: ignore[attr-defined]
    before = int(state.astype(np.int64).sum())
    run.args[1][:] = 1  # type: ignore[attr-defined]
    assert (n_adds % 18, before) == (0, 2 * 18)
    run.func(state, run.args[1], run.args[2], run.args[3], 5)  # type: ignore[attr-defined]
    assert int(state.astype(np.int64).sum()) == before + 5 * 18


def test_times_of_layers_sum_to_that_of_the_net_and_shares_are_of_them(workload: Workload) -> None:
    net = measure_layers("made", workload.program, workload.recordings[0], repeats=2)
    assert [layer.name for layer in net.layers] == [core.name for core in workload.program.cores]
    assert [layer.synops for layer in net.layers] == list(
        Emulator(workload.program).run(workload.recordings[0]).synops.values()
    )
    assert net.wall_s == pytest.approx(sum(layer.wall_s for layer in net.layers))
    assert net.share * net.wall_s == pytest.approx(sum(layer.limit_s for layer in net.layers))
    assert [layer.row_length for layer in net.layers] == [12, 18, 3]
    assert all(layer.limit_hz > 0 for layer in net.layers)


# scaling


def test_bins_change_nothing_for_the_emulator_and_every_bin_is_measured(workload: Workload) -> None:
    costs = measure_bins(workload, repeats=1)
    assert [cost.what for cost in costs] == [dt_us for dt_us in BINS_US for _ in "ab"]
    emulated = {cost.synops for cost in costs if cost.engine == EMULATOR}
    assert emulated == {sum(Emulator(workload.program).run(workload.recordings[0]).synops.values())}
    assert all(cost.per_synop_s > 0 for cost in costs)


def test_longer_recordings_are_as_busy_as_short_ones(workload: Workload) -> None:
    costs = measure_sizes(workload, 10**6, repeats=1)
    assert costs[0].what == 1
    assert len(costs) == 1 + 4
    assert [cost.synops for cost in costs[2:]] == pytest.approx([1e4, 1e5, 1e6], rel=0.5)


def test_a_warmed_program_starts_where_the_recording_left_it(workload: Workload) -> None:
    (events,) = workload.recordings
    emulator, ready = Emulator(workload.program), Emulator(warmed(workload.program, events))
    half = len(events) // 2
    session = emulator.stream()
    session.feed(events)
    later = events.part(0, half)
    session.feed(type(events)(later.x, later.y, later.p, later.t_us + 10**6, events.sensor_size))
    states = ready.run(later).states
    assert all(np.array_equal(state, session.recording().states[core]) for core, state in states.items())


def test_threads_run_the_same_synops_and_a_stream_has_a_piece_a_millisecond(workload: Workload) -> None:
    batch, one = measure_threads(workload, 3, repeats=1)
    assert one.synops == sum(Emulator(workload.program).run(workload.recordings[0]).synops.values())
    assert batch.synops > 2 * one.synops
    assert batch.gain == batch.one_s / batch.several_s
    latency = measure_stream(workload.program, (16, 16), 0.05)
    assert latency.n_pieces == 50
    assert 0 < latency.p50_s <= latency.p99_s <= latency.max_s


# processes


def test_memory_and_first_run_are_of_processes_of_their_own(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure_memory(workload.program, 5_000)
    assert found.n_events == 5_000
    assert found.events_bytes == 5_000 * 13
    assert found.peak_bytes >= found.before_bytes > 10 * 2**20
    walls: list[dict[str, str]] = []

    def called(arguments: list[str], environment: dict[str, str]) -> str:
        walls.append(environment)
        assert arguments[:3] == ["-m", "spikeport.deploy", "run"]
        assert Path(arguments[3]).is_file()
        assert Path(arguments[5]).is_file()
        return ""

    monkeypatch.setattr(processes, "_called", called)
    starts = measure_starts(workload.program, workload.recordings[0], 3)
    assert len(starts.later_s) == 3
    assert len({environment["NUMBA_CACHE_DIR"] for environment in walls}) == 1
    assert starts.compile_s == pytest.approx(starts.first_s - starts.later_median_s)


def test_a_process_that_fails_is_said(workload: Workload) -> None:
    with pytest.raises(RecordingError, match="found exit code 1"):
        measure_memory(workload.program, -1)


def test_peak_memory_grows_with_what_is_held() -> None:
    code = """
import pathlib, numpy
from spikeport.deploy.bench import soak
before = soak.peak_bytes()
held = numpy.ones(1 << 27, numpy.int8)
print(soak.peak_bytes() - before)
soak._STATUS = pathlib.Path("no such file")
print(soak.peak_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(int(grown) > 2**27 * 0.9 for grown in done.stdout.split())
    assert len(done.stdout.split()) == 2


# the command


def test_bad_options_are_refused_before_any_work(tmp_path: Path) -> None:
    assert tuple(WORKLOADS) == WORKLOAD_NAMES
    with pytest.raises(DataError, match="--workloads: expected some of digits, gesture"):
        bench_command("emulator", workloads="digits,cats")
    with pytest.raises(DataError, match="expected no --tasks, which is an option of bench convert"):
        bench_command("emulator", tasks="digits")
    with pytest.raises(DataError, match="expected no --repeats, which is an option of bench emulator"):
        bench_command("convert", repeats=3)


def test_frameworks_that_are_not_there_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(frameworks.FRAMEWORKS)
    gone = frameworks.Framework("no_such_package", "pip install it", known["Norse"].build, None)
    monkeypatch.setattr(frameworks, "FRAMEWORKS", {**known, "Norse": gone, "Norse, again": gone})
    there, absent = frameworks.find_frameworks()
    assert "Norse" not in there
    assert "sinabs, one call" in there
    assert absent[-1] == "Norse, again".partition(",")[0] + ": pip install it"
    assert sum("pip install it" in line for line in absent) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quick_run_as_a_user_would_start_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "spikeport.deploy", "bench", "emulator", "--quick", "--json", "--repeats", "1"]
    done = subprocess.run([*command, "--out", str(page)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    found = json.loads(done.stdout)
    engines = {row["engine"] for row in found["rows"]}
    there = frameworks.find_frameworks()[0]
    assert engines == {*there, "spikeport emulator", "spikeport float, event", "spikeport float, auto"}
    text = page.read_text()
    for check in found["checks"]:
        assert f"{'PASS' if check['is_met'] else 'MISS'}  {check['aim']}: {check['figures']}" in text
    for reason in found["absent"]:
        assert reason in text
    assert "`spikeport bench emulator --quick --repeats 1`" in text
    (pieces,) = (check for check in found["checks"] if "same bits" in check["aim"])
    assert pieces["is_met"]
