"""Synops are exact: equal to a brute-force loop over every spike, pool, stride and border."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert import convert, count_synops, estimate_power, simulate, tutorial_table
from spikeport.convert.errors import InputError
from spikeport.convert.geometry import Pair, fan_out, out_shape
from spikeport.convert.types import SpikingNet, Trace
from spikeport.models.events import Events

from .networks import Case, plain_cnns


def _visits(shape: tuple[int, int, int], weight: tuple[int, ...], steps: tuple[Pair, Pair], y: int, x: int) -> int:
    """Count the neurons that one event updates, straight from the integer specification."""
    stride, padding = steps
    features, height, width = out_shape(shape, weight, stride, padding)
    return sum(
        0 <= y + padding[0] - v * stride[0] < weight[2] and 0 <= x + padding[1] - u * stride[1] < weight[3]
        for _ in range(features)
        for v in range(height)
        for u in range(width)
    )


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_fan_out_is_the_number_of_neurons_visited(
    features: int, size: Pair, kernel: Pair, stride: Pair, padding: Pair
) -> None:
    shape, weight = (1, *size), (features, 1, *kernel)
    expected = [[_visits(shape, weight, (stride, padding), y, x) for x in range(size[1])] for y in range(size[0])]
    np.testing.assert_array_equal(fan_out(shape, weight, stride, padding), expected)


@settings(max_examples=40, deadline=None)
@given(plain_cnns(), st.integers(0, 99))
def test_synops_equal_a_loop_over_every_spike(case: Case, seed: int) -> None:
    net = convert(case.module, case.input_shape).net
    raster = np.random.default_rng(seed).poisson(0.2, (4, 2, *case.input_shape))
    trace = simulate(net, raster)
    report = count_synops(net, trace)
    for found, index in zip(report.layers, range(len(net.layers)), strict=True):
        assert found.synops == _loop(net, trace, index)
    assert report.total == sum(layer.synops for layer in report.layers)


def _loop(net: SpikingNet, trace: Trace, index: int) -> int:
    layer = net.layers[index]
    (edge,) = net.incoming(index)
    counts = (trace.input_counts, *trace.counts)[edge.source + 1]
    total = 0
    for b, c, y, x in np.ndindex(counts.shape):
        row, column = y // edge.pool[0], x // edge.pool[1]
        if counts[b, c, y, x] and row < layer.in_shape[1] and column < layer.in_shape[2]:
            visits = _visits(layer.in_shape, layer.weight.shape, (layer.stride, layer.padding), row, column)
            total += int(counts[b, c, y, x]) * visits
    return total


def _digits_like() -> SpikingNet:
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(36, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False), nn.ReLU()),
    )
    frames = np.random.default_rng(0).poisson(0.5, (8, 1, 20, 20))
    return convert(module, (1, 20, 20), data=frames).net


def test_events_are_simulated_in_steps_of_10_ms_before_counting() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 20, (2, 500))
    events = Events(x, y, rng.integers(0, 2, 500), np.sort(rng.integers(0, 50_000, 500)), (20, 20))
    report = count_synops(_digits_like(), events)
    assert report.layers[0].n_input_spikes == 500
    assert report.window_s == pytest.approx(0.05)


def test_border_spikes_that_a_pool_drops_are_emitted_but_do_not_arrive() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(2, 2, 1), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(1.0)  # type: ignore[operator]
    net = convert(module, (1, 6, 6)).net  # maps of 5x5 before a pool of 2
    report = count_synops(net, simulate(net, np.ones((3, 1, 6, 6))))
    second = report.layers[1]
    assert second.n_input_spikes < second.n_emitted == report.layers[0].n_output_spikes
    assert second.synops == second.n_input_spikes * 2


def test_traces_of_another_net_and_currents_are_refused() -> None:
    net = _digits_like()
    other = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 20, 20)).net
    with pytest.raises(InputError, match="Try simulate"):
        count_synops(other, simulate(net, np.ones((1, 1, 20, 20))))
    with pytest.raises(InputError, match="whole event counts"):
        count_synops(net, simulate(net, np.full((1, 1, 20, 20), 0.5)))


def test_report_frame_and_json_hold_the_same_numbers() -> None:
    pytest.importorskip("pandas", reason="comes with spikeport[digits]")
    net = _digits_like()
    report = count_synops(net, simulate(net, np.ones((3, 1, 20, 20), int)))
    parsed = json.loads(json.dumps(report.to_dict()))
    assert parsed["total"] == report.total == int(report.to_frame()["synops"].sum())


def test_the_tutorials_table_follows_its_own_rule_and_stands_next_to_the_exact_counts() -> None:
    net = _digits_like()
    trace = simulate(net, np.random.default_rng(0).poisson(0.3, (20, 1, 20, 20)))
    table = tutorial_table(net, trace)
    rows = {row.layer: row for row in table.rows}
    assert [row.fanout_prev for row in table.rows if row.exact_synops is not None] == [72, 36, 8, 3]
    assert table.rows[0].events_routed == 0  # the tutorial's caller passed no input events
    for before, row in zip(table.rows, table.rows[1:], strict=False):
        assert row.n_in == before.n_out
        assert row.events_routed == row.fanout_prev * row.n_in
        assert row.synops_per_s == pytest.approx(row.synops / 20 * 1000)
    exact = count_synops(net, trace)
    assert [row.exact_synops for row in table.rows if row.exact_synops is not None] == [x.synops for x in exact.layers]
    assert rows["conv3"].synops > exact.layers[1].synops  # full fan-out at every border
    assert table.power_mw_as_coded == pytest.approx(10 * table.power_mw_as_written)
    assert any(f"{exact.total:,}" in note for note in table.notes)


def test_the_tutorials_own_figures_follow_from_its_rule() -> None:
    """Source: the tutorial's printed table: 791,398 spikes into conv2 (fan-out 288) in 521 bins: 4.3747e8 /s."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 32, 3, bias=False), nn.ReLU())
    net = convert(module, (1, 12, 12)).net
    trace = simulate(net, np.zeros((521, 1, 12, 12)))
    counts = np.zeros((1, 8, 10, 10), np.int64)
    counts[0, 0, 5, 5] = 791_398
    table = tutorial_table(net, dataclasses.replace(trace, counts=(counts, trace.counts[1])))
    row = table.rows[1]
    assert (row.n_in, row.fanout_prev, row.events_routed) == (791_398, 288, 227_922_624)
    assert row.synops_per_s == pytest.approx(4.3747e8, rel=1e-4)
    assert table.power_mw_as_coded == pytest.approx(227_922_624 / 521 / 10 * 1000 * 10e-8)


def test_the_tutorials_table_is_of_one_recording_through_a_chain() -> None:
    net = _digits_like()
    with pytest.raises(InputError, match="one recording"):
        tutorial_table(net, simulate(net, np.ones((2, 2, 1, 20, 20))))


@pytest.mark.parametrize("hz", [-1.0, float("nan"), float("inf")])
def test_power_refuses_a_slow_clock_that_cannot_be(hz: float) -> None:
    from spikeport.convert.synops import SynopReport

    with pytest.raises(InputError, match="slow clock of 0 ticks per second or more"):
        estimate_power(SynopReport((), 1, 1.0), slow_clock_hz=hz)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**9))
def test_power_bands_are_ordered_and_grow_with_synops(synops: int) -> None:
    net = _digits_like()
    report = count_synops(net, simulate(net, np.ones((3, 1, 20, 20), int)))
    busier = dataclasses.replace(
        report,
        layers=(dataclasses.replace(report.layers[0], synops=report.layers[0].synops + synops), *report.layers[1:]),
    )
    low, high = estimate_power(report), estimate_power(busier)
    for estimate in (low, high):
        assert 0 < estimate.low_w <= estimate.mid_w <= estimate.high_w
        assert sum(rail.mid_w for rail in estimate.rails) == pytest.approx(estimate.mid_w)
        assert all(rail.low_w <= rail.mid_w <= rail.high_w for rail in estimate.rails)
        assert all(coefficient.source for coefficient in estimate.coefficients)
    assert high.mid_w >= low.mid_w


def test_the_published_gesture_figure_lies_within_the_band() -> None:
    """Source: Yao et al. 2024, table 1: 9.5 mW at 1.0e6 spikes in 540 ms; at most 288 synops a spike, at least half."""
    from spikeport.convert.synops import LayerSynops, SynopReport

    for fan_out_assumed in (144, 288):
        layer = LayerSynops("all", 10**6, 10**6, fan_out_assumed * 10**6, 0, 1)
        estimate = estimate_power(SynopReport((layer,), 1, 0.54))
        processor = [rail for rail in estimate.rails if rail.group == "processor"]
        assert sum(rail.low_w for rail in processor) < 9.5e-3 < sum(rail.high_w for rail in processor)


def test_leak_ticks_cost_as_much_as_synops() -> None:
    torch.manual_seed(0)
    net = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8)).net
    report = count_synops(net, simulate(net, np.ones((2, 1, 8, 8), int)))
    assert report.layers[0].n_leaking == 2 * 36
    ticking = estimate_power(report, slow_clock_hz=1000.0)
    still = estimate_power(report)
    synop = next(c for c in still.coefficients if c.unit == "J")
    assert ticking.dynamic_mid_w - still.dynamic_mid_w == pytest.approx(72 * 1000 * synop.mid)


def test_power_refuses_unknown_profiles_and_empty_windows() -> None:
    from spikeport.convert.synops import SynopReport

    with pytest.raises(InputError, match="power profile 'loihi': expected one of speck2f"):
        estimate_power(SynopReport((), 1, 1.0), "loihi")
    with pytest.raises(InputError, match="window of 0 s"):
        estimate_power(SynopReport((), 1, 0.0))
