"""Peak rates equal the naive maximum over all windows, for steps of a simulation and for single events."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.convert import simulate
from spikeport.convert.errors import InputError
from spikeport.convert.geometry import fan_out
from spikeport.convert.profiles import RateLimit
from spikeport.convert.synops import count_synops
from spikeport.convert.traffic import Peak, TrafficReport, event_synops, find_peaks, peak_rate
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, Trace

from .event_loop import random_net, run_loop


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 200), st.integers(0, 2**40)), max_size=40),
    st.integers(1, 120),
)
def test_the_peak_is_the_largest_sum_over_every_window(events: list[tuple[int, int]], window_us: int) -> None:
    events = sorted(events, key=lambda event: event[0])
    times = np.array([time for time, _ in events], np.int64)
    amounts = np.array([amount for _, amount in events], np.int64)
    found = peak_rate(times, amounts, window_us=window_us)
    sums = {
        start: sum(amount for time, amount in events if start <= time < start + window_us)
        for start in range(-50 - window_us, 201)
    }
    assert found.n == max(sums.values())
    assert found.per_s == pytest.approx(found.n * 1e6 / window_us)
    if events:
        assert sums[found.start_us] == found.n
        assert found.start_us in times


def recorded(seed: int, n_steps: int) -> tuple[SpikingNet, Trace, NDArray[np.int64]]:
    """Return a random net, a trace of random spikes in each step, and the raster that goes with it."""
    rng = np.random.default_rng(seed)
    net = random_net(rng)

    def spikes(shape: tuple[int, ...]) -> NDArray[np.int64]:
        return rng.integers(1, 4, (n_steps, 2, *shape)) * (rng.random((n_steps, 2, *shape)) < 0.02)

    raster = spikes(net.input_shape)
    layers = [spikes(layer.out_shape) for layer in net.layers]
    trace = Trace(
        input_counts=raster.sum(axis=0).astype(np.float64),
        counts=tuple(counts.sum(axis=0) for counts in layers),
        output=np.zeros((n_steps, 2, 1), np.int64),
        output_states=np.zeros((2, 1), np.float32),
        states=tuple(np.zeros(counts.shape[1:], np.float32) for counts in layers),
        spikes=tuple(counts.astype(np.int32) for counts in layers),
        dt_us=500,
    )
    return net, trace, raster


def one_step(trace: Trace, raster: NDArray[np.int64], step: int, sample: int) -> Trace:
    """Return the trace of one step of one recording by itself."""
    assert trace.spikes is not None
    return dataclasses.replace(
        trace,
        input_counts=raster[step, sample][None].astype(float),
        counts=tuple(spikes[step, sample][None].astype(np.int64) for spikes in trace.spikes),
        spikes=None,
    )


@pytest.mark.parametrize("seed", range(12))
def test_peaks_of_a_simulation_equal_an_event_loop_over_every_window(seed: int) -> None:
    n_steps, n_window = 6, 1 + seed % 4
    net, trace, raster = recorded(seed, n_steps)
    found = find_peaks(net, trace, raster=raster, window_us=500 * n_window)
    loops = [[run_loop(net, one_step(trace, raster, step, sample)) for step in range(n_steps)] for sample in range(2)]
    for index, layer in enumerate(found.layers):
        kinds = {
            "synops": ("synops", [edge.target == index for edge in net.edges]),
            "received": ("n_routed", [edge.target == index for edge in net.edges]),
            "sent": ("n_routed", [edge.source == index for edge in net.edges]),
        }
        for kind, (field, chosen) in kinds.items():
            steps = [
                [sum(getattr(tally, field) for tally in itertools.compress(tallies, chosen)) for tallies in rows]
                for rows in loops
            ]
            peak: Peak = getattr(layer, kind)
            windows = {
                (sample, first): sum(rows[first : first + n_window])
                for sample, rows in enumerate(steps)
                for first in range(n_steps)
            }
            assert peak.n == max(windows.values())
            assert windows[peak.sample, peak.start_us // 500] == peak.n
            assert peak.per_s == pytest.approx(peak.n / (n_window * 500e-6))
    per_step = raster.sum(axis=(2, 3, 4))
    assert found.input.n == max(
        int(per_step[first : first + n_window, b].sum()) for b in range(2) for first in range(n_steps)
    )


def test_the_peak_over_the_whole_recording_is_its_count() -> None:
    net, trace, raster = recorded(3, 5)
    first = dataclasses.replace(
        one_step(trace, raster, 0, 0), output=trace.output[:, :1],
        input_counts=trace.input_counts[:1], counts=tuple(counts[:1] for counts in trace.counts),
        spikes=tuple(spikes[:, :1] for spikes in trace.spikes or ()),
    )  # fmt: skip
    peaks = find_peaks(net, first, raster=raster[:, :1], window_us=2500)
    report = count_synops(net, first)
    assert [layer.synops.n for layer in peaks.layers] == [layer.synops for layer in report.layers]
    assert [layer.received.n for layer in peaks.layers] == [layer.n_emitted for layer in report.layers]
    assert sum(layer.sent.n for layer in peaks.layers) == report.n_routed
    assert peaks.input.n == report.n_input_events


def chain_of_one() -> tuple[SpikingNet, Trace, NDArray[np.float64]]:
    weight = np.ones((2, 1, 3, 3), np.float32)
    layer = SpikingLayer("conv", weight, None, (1, 1), (1, 1), 1.0, None, (1, 4, 4), (2, 4, 4))
    net = SpikingNet((layer,), (Edge(INPUT, 0, (2, 2)), Edge(0, None)), (1, 9, 9))
    raster = np.random.default_rng(0).poisson(0.3, (8, 1, 9, 9)).astype(float)
    return net, simulate(net, raster, record="all", dt_us=1000), raster


def test_a_recorded_simulation_and_its_single_events_have_the_same_peak() -> None:
    net, trace, raster = chain_of_one()
    layer = net.layers[0]
    found = find_peaks(net, trace, raster=raster, window_us=3000).layers[0]
    step, _, y, x = np.nonzero(raster)
    n = raster[step, 0, y, x].astype(int)
    times, rows, columns = (np.repeat(values, n) for values in (step * 1000, y, x))
    reach = fan_out(layer.in_shape, layer.weight.shape, layer.window)
    synops = event_synops(reach, rows, columns, pool=(2, 2))
    assert (synops == 0).any()  # the ninth row and column fill no pooling window
    by_event = peak_rate(times, synops, window_us=3000)
    assert (by_event.n, by_event.start_us) == (found.synops.n, found.synops.start_us)
    assert peak_rate(times, np.ones_like(times), window_us=3000).n == found.received.n


def test_the_load_of_a_core_is_known_only_where_its_limit_is() -> None:
    net, trace, raster = chain_of_one()
    unknown = find_peaks(net, trace, raster=raster, window_us=1000)
    assert unknown.load(unknown.layers[0]) is None
    assert unknown.overloaded == ()
    assert unknown.to_dict()["core_limit"]["synops_per_s"] is None
    assert "no figure" in unknown.to_dict()["core_limit"]["source"]
    rate = unknown.layers[0].synops.per_s

    def limited(synops_per_s: float) -> TrafficReport:
        return find_peaks(net, trace, raster=raster, window_us=1000, core_limit=RateLimit(synops_per_s, "test"))

    assert limited(2 * rate).load(unknown.layers[0]) == pytest.approx(0.5)
    assert limited(2 * rate).overloaded == ()
    assert limited(rate / 2).overloaded == ("conv",)
    assert json.loads(json.dumps(limited(rate / 2).to_dict()))["layers"][0]["load"] == pytest.approx(2.0)


def test_streams_that_are_none_are_refused() -> None:
    assert peak_rate([], [], window_us=5) == Peak(0, 0.0, 0)
    with pytest.raises(InputError, match="one amount per event"):
        peak_rate([1, 2], [1], window_us=5)
    with pytest.raises(InputError, match="found float64 and int64"):
        peak_rate([0.5], [1], window_us=5)
    for times, amounts in (([2, 1], [1, 1]), ([1, 2], [1, -1])):
        with pytest.raises(InputError, match="do not decrease and amounts of 0 or more"):
            peak_rate(times, amounts, window_us=5)
    with pytest.raises(InputError, match="a window of 1 us or more, found 0"):
        peak_rate([1], [1], window_us=0)


@pytest.mark.parametrize("window_us", [0, -1000, 1500, 9000])
def test_windows_that_do_not_fit_the_steps_are_refused(window_us: int) -> None:
    net, trace, raster = chain_of_one()
    with pytest.raises(InputError, match=r"whole steps of 1000 us and at most 8000 us.* Try 1000\."):
        find_peaks(net, trace, raster=raster, window_us=window_us)


def test_traces_of_sums_and_foreign_rasters_are_refused() -> None:
    net, trace, raster = chain_of_one()
    with pytest.raises(InputError, match="Try simulate"):
        find_peaks(net, dataclasses.replace(trace, spikes=None), raster=raster, window_us=1000)
    with pytest.raises(InputError, match=r"of shape \[8, 1, 1, 9, 9\], found \[7, 1, 1, 9, 9\]"):
        find_peaks(net, trace, raster=raster[1:], window_us=1000)
    with pytest.raises(InputError, match="found another one"):
        find_peaks(net, trace, raster=raster + 1, window_us=1000)
    for raster_of in (raster - 1, raster / 3):
        with pytest.raises(InputError, match="whole event counts"):
            find_peaks(net, trace, raster=raster_of, window_us=1000)
    other, _, _ = recorded(0, 8)
    with pytest.raises(InputError, match="Try simulate"):
        find_peaks(other, trace, raster=raster, window_us=1000)
