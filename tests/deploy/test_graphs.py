"""Nets with branches, groups, dilation and initial potentials: chip, integer reference and simulation agree exactly."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeport.convert import count_synops, simulate
from spikeport.convert.kernels import dense_kernel
from spikeport.convert.synops import EdgeTraffic, LayerSynops, SynopReport
from spikeport.convert.types import INPUT, SpikingNet, Trace
from spikeport.deploy.artifact import load_program, save_program
from spikeport.deploy.compare import count_traffic
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.types import Program, Recording
from spikeport.models.events import Events

from .nets import random_graph
from .programs import random_events
from .reference import run_reference

SEEDS = range(24)


@dataclasses.dataclass(frozen=True)
class Case:
    """A net, its program, and what simulation (one event a step) and chip did with a recording."""

    net: SpikingNet
    program: Program
    events: Events
    trace: Trace
    recording: Recording


@functools.cache
def case_of(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    net = random_graph(rng, n_layers=int(rng.integers(3, 7)))
    program = compile_program(net)
    events = random_events(rng, net.input_shape, 60)
    feature = events.p if net.input_shape[0] == 2 else np.zeros_like(events.p)
    raster = np.zeros((len(events), *net.input_shape), np.int8)
    raster[np.arange(len(events)), feature, events.y, events.x] = 1
    return Case(net, program, events, simulate(net, raster, record="all"), Emulator(program).run(events, "all"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_chip_equals_the_simulation_event_by_event(seed: int) -> None:
    case = case_of(seed)
    trace, recording = case.trace, case.recording
    assert trace.spikes is not None
    for index, core in enumerate(case.program.cores):
        found = np.zeros_like(trace.spikes[index][:, 0])
        spikes = recording.spikes[core.core]
        np.add.at(found, (spikes["event"], spikes["feature"], spikes["y"], spikes["x"]), 1)
        assert_array_equal(found, trace.spikes[index][:, 0])
        assert_array_equal(recording.states[core.core], trace.states[index][0])


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_the_chip_equals_the_integer_reference(seed: int) -> None:
    case = case_of(seed)
    few = case.events.window(0, int(case.events.t_us[12]))
    recording = Emulator(case.program).run(few, "all")
    for core_id, core in run_reference(case.program, few).items():
        assert recording.spikes[core_id].tolist() == core.spikes
        assert recording.states[core_id].tolist() == core.state
        assert recording.synops[core_id] == core.synops


def test_the_random_nets_are_of_every_kind() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        net, trace = case_of(seed).net, case_of(seed).trace
        for index, layer in enumerate(net.layers):
            is_busy, incoming = bool(trace.counts[index].any()), net.incoming(index)
            readers = [edge for edge in net.outgoing(index) if edge.target is not None]
            seen["groups"] += is_busy and layer.groups > 1
            seen["dilation"] += is_busy and layer.dilation != (1, 1) and layer.window.kernel != (1, 1)
            seen["v_init"] += is_busy and layer.v_init is not None
            seen["add"] += is_busy and [edge.feature_shift for edge in incoming] == [0, 0]
            seen["concat"] += is_busy and any(edge.feature_shift for edge in incoming)
            seen["two pools"] += is_busy and len({edge.pool for edge in incoming}) == 2
            seen["two destinations"] += is_busy and len(readers) == 2
            seen["two entries"] += is_busy and len(net.outgoing(INPUT)) == 2
            seen["input and layer"] += is_busy and len(incoming) == 2 and incoming[0].source == INPUT
    assert min(seen.values()) >= 3, seen


def traffic(report: SynopReport) -> tuple[LayerSynops, ...]:
    """Return the layers of a report without what a chip does not know: the CNN's multiply-accumulates."""
    return tuple(dataclasses.replace(layer, n_macs=None, average_fan_out=None) for layer in report.layers)


def between_layers(report: SynopReport) -> list[EdgeTraffic]:
    return [edge for edge in report.edges if edge.source is not None]


def dense(net: SpikingNet) -> SpikingNet:
    layers = (
        dataclasses.replace(
            layer,
            weight=dense_kernel(layer.weight, dilation=layer.dilation, groups=layer.groups),
            dilation=(1, 1),
            groups=1,
        )
        for layer in net.layers
    )
    return dataclasses.replace(net, layers=tuple(layers))


@pytest.mark.parametrize("seed", SEEDS)
def test_synops_on_the_chip_are_those_of_the_dense_net(seed: int) -> None:
    case = case_of(seed)
    visited = count_traffic(case.program, [case.recording], window_s=case.trace.window_s)
    stored = count_synops(dense(case.net), case.trace)
    assert visited.layers == traffic(stored)
    assert sorted(map(str, between_layers(visited))) == sorted(map(str, between_layers(stored)))
    assert sum(edge.synops for edge in visited.edges) == visited.total
    assert visited.n_routed == stored.n_routed
    sparse = count_synops(case.net, case.trace)
    for layer, on_chip, alone in zip(case.net.layers, visited.layers, sparse.layers, strict=True):
        is_dense = layer.groups == 1 and (layer.dilation == (1, 1) or layer.window.kernel == (1, 1))
        assert alone.synops == on_chip.synops if is_dense else alone.synops <= on_chip.synops


def test_every_run_starts_at_the_initial_potentials_also_from_a_file(tmp_path: Path) -> None:
    case = next(case for case in map(case_of, SEEDS) if case.net.layers[0].v_init is not None)
    net, program, events = case.net, case.program, case.events
    assert_array_equal(program.cores[0].initial_state, net.layers[0].v_init)
    save_program(program, tmp_path / "program")
    for emulator in (Emulator(program), Emulator(load_program(tmp_path / "program"))):
        assert emulator.run(events, "all").same(case.recording)
        assert emulator.run(events, "all").same(case.recording)
    zeros = dataclasses.replace(net.layers[0], v_init=None)
    without = compile_program(dataclasses.replace(net, layers=(zeros, *net.layers[1:])))
    assert not Emulator(without).run(events, "all").same(case.recording)
