"""Synops equal a brute-force event loop, integer for integer, on hundreds of random layers of every supported kind."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from spikeport.convert import count_synops
from spikeport.convert.geometry import Pair
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet

from .event_loop import random_net, random_trace, run_loop, visits

N_NETS = 300  # of three layers each


def dense_macs(layer: SpikingLayer) -> int:
    """Return the multiply-accumulates on pixels of the input, by a convolution of ones with ones."""
    size = tuple((edge - 1) * up + 1 for edge, up in zip(layer.in_shape[1:], layer.upsample, strict=True))
    ones = torch.zeros(1, layer.in_shape[0], *size, dtype=torch.float64)
    ones[..., :: layer.upsample[0], :: layer.upsample[1]] = 1.0
    weight = torch.ones(layer.weight.shape, dtype=torch.float64)
    made = F.conv2d(ones, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return int(made.sum())


def test_synops_equal_an_event_loop_on_random_layers_of_every_kind() -> None:
    seen: collections.Counter[str] = collections.Counter()
    configurations = set()
    for seed in range(N_NETS):
        rng = np.random.default_rng(seed)
        net = random_net(rng)
        trace = random_trace(rng, net)
        report = count_synops(net, trace)
        tallies = run_loop(net, trace)
        for edge, found, tally in zip(net.edges, report.edges, tallies, strict=True):
            assert (found.n_routed, found.n_arrived, found.synops) == dataclasses.astuple(tally), (seed, edge)
            seen["pool"] += edge.pool != (1, 1)
            seen["dropped border"] += tally.n_arrived < tally.n_routed
            seen["feature shift"] += edge.feature_shift > 0
        for index, (layer, counted) in enumerate(zip(net.layers, report.layers, strict=True)):
            into = [tally for edge, tally in zip(net.edges, tallies, strict=True) if edge.target == index]
            assert counted.synops == sum(tally.synops for tally in into)
            assert counted.n_emitted == sum(tally.n_routed for tally in into)
            assert counted.n_input_spikes == sum(tally.n_arrived for tally in into)
            assert counted.n_output_spikes == trace.counts[index].sum()
            if seed < 40:
                assert counted.n_macs == dense_macs(layer)
            configurations.add((layer.in_shape, layer.out_shape, layer.window, layer.groups))
            seen.update(kinds(net, index))
        assert report.total == sum(tally.synops for tally in tallies)
        assert report.n_routed == sum(t.n_routed for e, t in zip(net.edges, tallies, strict=True) if e.source != INPUT)
        seen["several spikes"] += any((counts > 1).any() for counts in trace.counts)
    assert len(configurations) >= 500
    rare = {kind: n for kind, n in seen.items() if n < 40}
    assert not rare, rare
    assert set(seen) == {
        *("stride", "padding", "dilation", "upsample", "groups", "linear", "pool", "dropped border"),
        *("feature shift", "several sources", "several targets", "several spikes"),
    }


def kinds(net: SpikingNet, index: int) -> dict[str, int]:
    layer = net.layers[index]
    one: Pair = (1, 1)
    return {
        "stride": layer.stride != one,
        "padding": layer.padding != (0, 0),
        "dilation": layer.dilation != one,
        "upsample": layer.upsample != one,
        "groups": layer.groups > 1,
        "linear": layer.out_shape[1:] == one and layer.weight.shape[2:] == layer.in_shape[1:],
        "several sources": len(net.incoming(index)) > 1,
        "several targets": len(net.outgoing(index)) > 1,
    }


def test_one_spike_at_every_place_costs_the_multiply_accumulates_of_a_frame() -> None:
    for seed in range(40):
        net = random_net(np.random.default_rng(seed))
        trace = random_trace(np.random.default_rng(seed), net)
        for layer in net.layers:
            places = np.ones((1, *layer.in_shape))
            alone = dataclasses.replace(trace, input_counts=places, counts=(np.zeros((1, *layer.out_shape), np.int64),))
            single = SpikingNet((layer,), (Edge(INPUT, 0), Edge(0, None)), layer.in_shape)
            report = count_synops(single, alone)
            assert (
                report.total == report.n_macs == sum(visits(layer, c, y, x) for _, c, y, x in np.ndindex(places.shape))
            )
            assert report.synops_per_mac == (1.0 if report.n_macs else None)
