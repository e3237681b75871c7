"""Reports of synops: what they say of real nets, of the usual formula, and of what they cannot count."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert import convert, count_synops, simulate
from spikeport.convert.errors import InputError
from spikeport.convert.types import Edge, SpikingLayer, SpikingNet, chain
from spikeport.models.events import Events

from .event_loop import digits_like, run_loop
from .networks import Case, plain_cnns


@settings(max_examples=10, deadline=None)
@given(plain_cnns(), st.integers(0, 99))
def test_synops_of_a_simulated_cnn_equal_a_loop_over_every_spike(case: Case, seed: int) -> None:
    net = convert(case.module, case.input_shape).net
    trace = simulate(net, np.random.default_rng(seed).poisson(0.05, (2, 1, *case.input_shape)))
    report = count_synops(net, trace)
    assert [edge.synops for edge in report.edges] == [tally.synops for tally in run_loop(net, trace)]
    assert report.total == sum(layer.synops for layer in report.layers)


def test_events_are_simulated_in_steps_of_10_ms_before_counting() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 20, (2, 500))
    events = Events(x, y, rng.integers(0, 2, 500), np.sort(rng.integers(0, 50_000, 500)), (20, 20))
    report = count_synops(digits_like(), events)
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
    net = digits_like()
    other = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 20, 20)).net
    with pytest.raises(InputError, match="Try simulate"):
        count_synops(other, simulate(net, np.ones((1, 1, 20, 20))))
    with pytest.raises(InputError, match="whole event counts"):
        count_synops(net, simulate(net, np.full((1, 1, 20, 20), 0.5)))


def test_report_frame_and_json_hold_the_same_numbers() -> None:
    pytest.importorskip("pandas", reason="comes with spikeport[digits]")
    net = digits_like()
    report = count_synops(net, simulate(net, np.ones((3, 1, 20, 20), int)))
    parsed = json.loads(json.dumps(report.to_dict()))
    assert parsed["total"] == report.total == int(report.to_frame()["synops"].sum())


def test_the_edges_say_what_the_router_carries() -> None:
    net = digits_like()
    report = count_synops(net, simulate(net, np.random.default_rng(0).poisson(0.4, (5, 1, 20, 20))))
    assert [(edge.source, edge.target) for edge in report.edges] == [
        *((None, "conv0"), ("conv0", "conv3"), ("conv3", "linear7"), ("linear7", "linear9"), ("linear9", None)),
    ]
    assert [edge.n_routed for edge in report.edges] == [
        *(report.n_input_events, *(layer.n_output_spikes for layer in report.layers)),
    ]
    assert report.n_routed == sum(layer.n_output_spikes for layer in report.layers)
    assert report.routed_per_s == pytest.approx(report.n_routed / 0.05)
    assert report.input_events_per_s == pytest.approx((report.n_input_events or 0) / 0.05)
    assert report.edges[-1].synops == 0


def _uniform(stride: int = 1, padding: int = 0, dilation: int = 1, *, kernel: int = 3, groups: int = 1) -> float | None:
    """Return the error of the usual formula with one spike at every pixel of 11x13, from 4 to 6 channels."""
    weight = np.zeros((6, 4 // groups, kernel, kernel), np.float32)
    ends = [(size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for size in (11, 13)]
    layer = SpikingLayer(
        *("conv", weight, None, (stride, stride), (padding, padding), 1.0, None, (4, 11, 13), (6, ends[0], ends[1])),
        *((dilation, dilation), (1, 1), groups),
    )
    net = chain((layer,), ((1, 1), (1, 1)), (4, 11, 13))
    return count_synops(net, simulate(net, np.ones((1, 4, 11, 13)))).layers[0].average_error_percent


def test_the_usual_formula_is_wrong_by_what_borders_dilation_and_groups_make_of_it() -> None:
    """Source: worked out before this project, with sinabs' own maps, to whole percents."""
    found = [
        *(_uniform(), _uniform(padding=1), _uniform(stride=2), _uniform(3, 2, 2, kernel=5)),
        *(_uniform(padding=1, groups=2), _uniform(stride=4, kernel=2)),
    ]
    assert [round(error or 0.0, 0 if abs(error or 0.0) > 1 else 1) for error in found] == [44, 12, 19, 118, 124, -0.7]


def test_the_usual_formula_is_right_where_no_spike_is_near_a_border() -> None:
    net = chain(
        (SpikingLayer("conv", np.zeros((5, 1, 3, 3)), None, (1, 1), (0, 0), 1.0, None, (1, 9, 9), (5, 7, 7)),),
        *(((1, 1), (1, 1)), (1, 9, 9)),
    )
    raster = np.zeros((1, 1, 9, 9))
    raster[0, 0, 4, 4] = 3
    (layer,) = count_synops(net, simulate(net, raster)).layers
    assert layer.average_synops == layer.synops == 3 * 45
    assert layer.average_error_percent == 0.0
    silent = count_synops(net, simulate(net, np.zeros_like(raster)))
    assert silent.layers[0].average_error_percent is None
    assert silent.layers[0].mean_fan_out == 0.0


def test_negative_counts_are_refused() -> None:
    net = digits_like()
    trace = simulate(net, np.ones((1, 1, 20, 20)))
    negative = dataclasses.replace(trace, counts=(-trace.counts[0] - 1, *trace.counts[1:]))
    with pytest.raises(InputError, match="found negative ones of conv0"):
        count_synops(net, negative)


def test_a_map_that_goes_two_ways_is_routed_twice_but_enters_once() -> None:
    weight = np.ones((1, 1, 1, 1), np.float32)
    layers = [
        SpikingLayer(name, weight, None, (1, 1), (0, 0), 1.0, None, (1, 4, 4), (1, 4, 4)) for name in ("a", "b", "c")
    ]
    edges = (Edge(-1, 0), Edge(-1, 1), Edge(0, 2), Edge(1, 2), Edge(2, None))
    net = SpikingNet(tuple(layers), edges, (1, 4, 4))
    report = count_synops(net, simulate(net, np.ones((2, 1, 4, 4))))
    assert report.n_input_events == 32
    assert [edge.n_routed for edge in report.edges] == [32, 32, 32, 32, 64]
    assert report.n_routed == 128
    assert report.total == report.layers[0].synops + report.layers[1].synops + report.layers[2].synops == 128
    assert report.synops_per_mac == 128 / 48
