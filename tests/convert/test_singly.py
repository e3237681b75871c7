"""Single events in float, each finished before the next: equal to plain loops, whatever the cut into steps."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.convert.simulate import simulate_events
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet
from spikeport.models.events import Events

from .integer_loop import synapses
from .nets import EIGHTHS
from .recordings import NOTHING, graph_for_events, neuron, random_events

SEEDS = st.integers(0, 2**32 - 1)


def reference_singly(net: SpikingNet, events: Events) -> list[NDArray[np.int64]]:
    """Return the spikes ``[n_events, F, H, W]`` of each layer, event by event, in eighths and with plain loops."""
    tables = [synapses(layer) for layer in net.layers]
    states = [np.zeros(layer.out_shape, np.int64).reshape(-1) for layer in net.layers]
    for state, layer in zip(states, net.layers, strict=True):
        if layer.v_init is not None:
            state[:] = np.rint(layer.v_init.reshape(-1) * EIGHTHS)
    fired = [np.zeros((len(events), *layer.out_shape), np.int64) for layer in net.layers]
    is_merged = net.input_shape[0] == 1
    for n in range(len(events)):
        emitted = {INPUT: [(0 if is_merged else int(events.p[n]), int(events.y[n]), int(events.x[n]))]}
        for index, layer in enumerate(net.layers):
            emitted[index] = []
            sources = dict.fromkeys(sorted(edge.source for edge in net.incoming(index)))
            arriving = [
                (edge, cell)
                for source in sources
                for cell in emitted[source]
                for edge in net.incoming(index)
                if edge.source == source
            ]
            for edge, (c, y, x) in arriving:
                row, column = y // edge.pool[0], x // edge.pool[1]
                if row >= layer.in_shape[1] or column >= layer.in_shape[2]:
                    continue
                place = np.ravel_multi_index((c + edge.feature_shift, row, column), layer.in_shape)
                targets = sorted(_reached(layer, c + edge.feature_shift, row, column), key=lambda f: f[1:] + f[:1])
                for f, v, u in targets:
                    target = int(np.ravel_multi_index((f, v, u), layer.out_shape))
                    potential = int(states[index][target] + tables[index][target, place])
                    if layer.v_min is not None:
                        potential = max(potential, round(layer.v_min * EIGHTHS))
                    if potential >= round(layer.threshold * EIGHTHS):
                        potential -= round(layer.threshold * EIGHTHS)
                        fired[index][n, f, v, u] += 1
                        emitted[index].append((f, v, u))
                    states[index][target] = potential
    return fired


def _reached(layer: SpikingLayer, c: int, y: int, x: int) -> list[tuple[int, int, int]]:
    window, per_feature = layer.window, layer.out_shape[0] // layer.groups
    group = c // (layer.in_shape[0] // layer.groups)
    found = []
    for f, v, u in np.ndindex(layer.out_shape):
        taps = [
            (position * up + pad - out * stride) / dilation
            for position, out, up, pad, stride, dilation in (
                (y, v, window.upsample[0], window.padding[0], window.stride[0], window.dilation[0]),
                (x, u, window.upsample[1], window.padding[1], window.stride[1], window.dilation[1]),
            )
        ]
        covers = 0 <= taps[0] <= window.kernel[0] - 1 and 0 <= taps[1] <= window.kernel[1] - 1
        if f // per_feature == group and covers:
            found.append((f, v, u))
    return found


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_single_events_equal_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = graph_for_events(rng)
    events = random_events(rng, net, int(rng.integers(1, 15)))
    events = dataclasses.replace(events, t_us=np.arange(len(events)) * 7)
    trace = simulate_events(net, events, dt_us=7, record="all", order="events")
    assert trace.spikes is not None
    for found, expected in zip(trace.spikes, reference_singly(net, events), strict=True):
        np.testing.assert_array_equal(found[:, 0], expected)


def test_the_cut_into_steps_changes_no_single_event() -> None:
    rng = np.random.default_rng(2)
    net = graph_for_events(rng)
    events = random_events(rng, net, 200)
    fine, coarse = (simulate_events(net, events, dt_us=dt_us, order="events") for dt_us in (10, 20_000))
    assert coarse.n_steps < fine.n_steps
    for name in ("counts", "states"):
        for a, b in zip(getattr(fine, name), getattr(coarse, name), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(fine.output.sum(axis=0), coarse.output.sum(axis=0))


def test_single_events_leave_biases_out_and_fire_once() -> None:
    net = neuron(bias=np.ones(1), weight=np.full((1, 1, 1, 1), 2.5))
    events = Events(np.zeros(3, int), np.zeros(3, int), np.zeros(3, int), np.arange(3) * 10, (1, 1))
    trace = simulate_events(net, events, dt_us=10, order="events")
    assert trace.output.reshape(-1).tolist() == [1, 1, 1]
    assert trace.states[0].item() == 4.5


def test_several_edges_of_one_source_arrive_spike_by_spike() -> None:
    """Both edges of the input feed the same neuron: +1 then -1 for each event, never both +1 first."""
    layer = SpikingLayer(
        name="sum",
        weight=np.array([[[[1.0]], [[-1.0]]]]),
        bias=None,
        stride=NOTHING,
        padding=(0, 0),
        threshold=2.0,
        v_min=0.0,
        in_shape=(2, 1, 1),
        out_shape=(1, 1, 1),
    )
    net = SpikingNet((layer,), (Edge(INPUT, 0), Edge(INPUT, 0, feature_shift=1), Edge(0, None)), (1, 1, 1))
    events = Events(np.zeros(4, int), np.zeros(4, int), np.zeros(4, int), np.arange(4), (1, 1))
    assert simulate_events(net, events, dt_us=1, order="events").counts[0].item() == 0
