"""The simulator's nodes against plain Python, on 200 random layers; what the vendor's own tests ask of them."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from spikeport.deploy.virtual import VirtualBoardError

from .reference import Layer, random_layer, simulate


def nodes_of(samna: types.ModuleType, layer: Layer) -> tuple[Any, Any, Any]:
    nodes = samna.specksim.nodes
    conv, iaf, pool = (
        nodes.SpecksimConvolutionalFilterNode(),
        nodes.SpecksimIAFFilterNode(),
        nodes.SpecksimSumPoolingFilterNode(),
    )
    features, channels, *kernel = layer.weight.shape
    conv.set_parameters(channels, features, tuple(kernel), layer.in_shape[1:], layer.stride, layer.padding)
    conv.set_weights(layer.weight.tolist())
    iaf.set_parameters(features, conv.get_layer().get_output_shape(), layer.threshold, layer.v_min)
    pool.set_parameters(layer.pool, layer.out_size)
    return conv, iaf, pool


def test_200_random_layers_agree_with_the_reference(samna: types.ModuleType) -> None:
    kind, n_spikes, n_outside = samna.specksim.events.Spike, 0, 0
    for seed in range(200):
        layer, events = random_layer(seed)
        conv, iaf, pool = nodes_of(samna, layer)
        graph, monitor = samna.graph.EventFilterGraph(), samna.graph.EventFilterGraph()
        sink_kind = samna.BasicSinkNode_specksim_events_spike
        source, *_, sink = graph.sequential(
            [samna.BasicSourceNode_specksim_events_spike(), conv, iaf, pool, sink_kind()]
        )
        _, monitored = monitor.sequential([iaf, sink_kind()])
        monitor.start()
        graph.start()
        source.write([kind(*event) for event in events])
        graph.stop()
        monitor.stop()
        spikes, pooled, state = simulate(layer, events)
        assert [(one.feature, one.y, one.x, one.timestamp) for one in monitored.get_events()] == spikes
        assert [(one.feature, one.y, one.x, one.timestamp) for one in sink.get_events()] == pooled
        assert np.array_equal(iaf.get_layer().get_v_mem(), state)
        iaf.get_layer().reset_states()
        assert not np.any(iaf.get_layer().get_v_mem())
        assert pool.n_dropped == len(spikes) - len(pooled)
        n_spikes, n_outside = n_spikes + len(pooled), n_outside + conv.n_dropped
    assert n_spikes > 1000
    assert n_outside > 20


def test_weighted_events_go_one_by_one(samna: types.ModuleType) -> None:
    iaf = samna.specksim.nodes.SpecksimIAFFilterNode()
    iaf.set_parameters(1, (1, 1), 1.0, -1.0)
    source_kind = samna.BasicSourceNode_specksim_events_weighted_event
    graph = samna.graph.EventFilterGraph()
    source, _, sink = graph.sequential([source_kind(), iaf, samna.BasicSinkNode_specksim_events_spike()])
    graph.start()
    kind = samna.specksim.events.WeightedEvent
    source.write([kind(0, 0, 0, stamp, 0.2) for stamp in range(5)])
    source.write([kind(1, 0, 0, 9, 5.0)])
    graph.stop()
    assert sink.get_events() == [samna.specksim.events.Spike(0, 0, 0, 4)]


def test_a_convolution_gives_weighted_events_to_a_sink(samna: types.ModuleType) -> None:
    layer, _ = random_layer(3)
    conv, _, _ = nodes_of(samna, layer)
    graph = samna.graph.EventFilterGraph()
    source, _, sink = graph.sequential(
        [samna.BasicSourceNode_specksim_events_spike(), conv, samna.BasicSinkNode_specksim_events_weighted_event()]
    )
    graph.start()
    source.write([samna.specksim.events.Spike(0, 0, 0, 7)])
    graph.stop()
    for event in sink.get_events():
        tap = [
            place + pad - at * step
            for place, pad, at, step in zip((0, 0), layer.padding, (event.y, event.x), layer.stride, strict=True)
        ]
        assert event.weight == layer.weight[event.feature, 0, tap[0], tap[1]]
        assert event.timestamp == 7


def test_layers_tell_their_parameters(samna: types.ModuleType) -> None:
    nodes = samna.specksim.nodes
    conv = nodes.SpecksimConvolutionalFilterNode()
    conv.set_parameters(2, 4, (7, 7), (8, 8), (1, 1), (3, 3))
    layer = conv.get_layer()
    assert (layer.get_in_channels(), layer.get_out_channels(), layer.get_kernel_size()) == (2, 4, (7, 7))
    assert (layer.get_in_shape(), layer.get_stride(), layer.get_padding()) == ((8, 8), (1, 1), (3, 3))
    weights = np.random.default_rng(0).random((4, 2, 7, 7)).astype(np.float32)
    conv.set_weights(weights.tolist())
    assert np.array_equal(np.array(conv.get_weights()), weights)
    iaf = nodes.SpecksimIAFFilterNode()
    iaf.set_parameters(4, (16, 16), 2.0, 0.0)
    assert (iaf.get_layer().get_spike_threshold(), iaf.get_layer().get_min_v_mem()) == (2.0, 0.0)
    pool = nodes.SpecksimSumPoolingFilterNode()
    pool.set_parameters((2, 2), (9, 8))
    assert (pool.get_layer().get_kernel_size(), pool.get_layer().get_shape()) == ((2, 2), (9, 8))
    assert pool.get_layer().get_output_shape() == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, 1, (1, 1), (4, 4), (1, 1), (0, 0)), "channels"),
        ((1, 1, (0, 1), (4, 4), (1, 1), (0, 0)), "kernel_size"),
        ((1, 1, (1, 1), (4,), (1, 1), (0, 0)), "in_shape"),
        ((1, 1, (1, 1), (4, 4), (0, 1), (0, 0)), "stride"),
        ((1, 1, (1, 1), (4, 4), (1, 1), (-1, 0)), "padding"),
        ((1, 1, (5, 5), (4, 4), (1, 1), (0, 0)), "does not fit"),
    ],
)
def test_parameters_that_make_no_layer_are_refused(samna: types.ModuleType, arguments: Any, said: str) -> None:
    conv = samna.specksim.nodes.SpecksimConvolutionalFilterNode()
    with pytest.raises(VirtualBoardError, match="Try set_parameters first"):
        conv.get_layer()
    with pytest.raises(VirtualBoardError, match=said):
        conv.set_parameters(*arguments)


def test_weights_and_thresholds_are_checked(samna: types.ModuleType) -> None:
    conv = samna.specksim.nodes.SpecksimConvolutionalFilterNode()
    conv.set_parameters(1, 1, (1, 1), (4, 4), (1, 1), (0, 0))
    with pytest.raises(VirtualBoardError, match=r"expected the shape \(1, 1, 1, 1\)"):
        conv.set_weights([[[[1, 2]]]])
    with pytest.raises(VirtualBoardError, match="spike_threshold"):
        samna.specksim.nodes.SpecksimIAFFilterNode().set_parameters(1, (1, 1), 0.0, -1.0)
