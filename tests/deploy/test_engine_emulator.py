"""The float twin of the emulator: single events in float32 give the chip's spikes, event by event."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert.simulate import simulate_events
from spikeport.convert.types import SpikingLayer, SpikingNet
from spikeport.deploy import Emulator, compile_program
from spikeport.deploy.types import CoreProgram, Program
from spikeport.models.events import Events

from .nets import branch_net, digits_net, random_chain, random_graph
from .programs import random_events


def whole_layer(core: CoreProgram) -> SpikingLayer:
    """Return a core's integers as a layer in float."""
    return SpikingLayer(
        name=core.name,
        weight=core.weight.astype(np.float32),
        bias=None if core.bias is None else core.bias.astype(np.float32),
        stride=core.stride,
        padding=core.padding,
        threshold=float(core.threshold_high),
        v_min=float(core.threshold_low),
        in_shape=core.in_shape,
        out_shape=core.out_shape,
        v_init=core.initial_state.astype(np.float32),
    )


def assert_twins(net: SpikingNet, program: Program, events: Events) -> None:
    """Compare all spikes of all cores; ``events`` come one per microsecond, so that a step is an event."""
    assert [core.name for core in program.cores] == [layer.name for layer in net.layers]
    whole = dataclasses.replace(net, layers=tuple(map(whole_layer, program.cores)))
    trace = simulate_events(whole, events, dt_us=1, record="all", order="events")
    recording = Emulator(program, slow_clock_hz=0).run(events, record="all")
    assert trace.spikes is not None
    for index, core in enumerate(program.cores):
        spikes = recording.spikes[core.core]
        expected = np.zeros(trace.spikes[index][:, 0].shape, np.int64)
        np.add.at(expected, (spikes["event"], spikes["feature"], spikes["y"], spikes["x"]), 1)
        np.testing.assert_array_equal(trace.spikes[index][:, 0], expected)
        np.testing.assert_array_equal(trace.states[index][0], recording.states[core.core])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_single_events_spike_as_on_the_emulator(seed: int, is_chain: bool) -> None:
    rng = np.random.default_rng(seed)
    net = random_chain(rng) if is_chain else random_graph(rng)
    events = random_events(rng, net.input_shape, 80)
    events = dataclasses.replace(events, t_us=np.arange(len(events)))
    assert_twins(net, compile_program(net), events)


def test_known_nets_spike_as_on_the_emulator() -> None:
    for net in (digits_net(), branch_net()):
        rng = np.random.default_rng(0)
        events = random_events(rng, net.input_shape, 1_000)
        events = dataclasses.replace(events, t_us=np.arange(len(events)))
        program = compile_program(net)
        assert_twins(net, program, events)
        assert sum(Emulator(program).run(events).n_spikes.values()) > 300
