"""Engines give one result: dense maps by sinabs, events, or either layer by layer; there may be any number of steps."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from spikeport.convert import engine, simulate
from spikeport.convert.errors import InputError
from spikeport.convert.simulate import simulate_events
from spikeport.convert.synops import count_macs
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, chain
from spikeport.models.events import Events

from .integer_loop import assert_equals_reference, random_raster
from .nets import EIGHTHS, random_graph
from .recordings import NOTHING, graph_for_events, neuron, random_events

SEEDS = st.integers(0, 2**32 - 1)


def convolutions(rng: Generator, *, n_layers: int, size: int = 16) -> SpikingNet:
    """Return a net of padded 3x3 convolutions with arbitrary float weights."""
    shape = (4, size, size)
    weights = (rng.normal(0.08, 0.2, (4, 4, 3, 3)) for _ in range(n_layers))
    layers = (
        SpikingLayer(f"conv{i}", weight, None, (1, 1), (1, 1), 1.0, -1.0, shape, shape)
        for i, weight in enumerate(weights)
    )
    return chain(tuple(layers), (NOTHING,) * (n_layers + 1), shape)


# one result


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_events_equal_dense_maps_and_the_loop_over_integers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_graph(rng)
    raster = random_raster(rng, net, 2)
    found = simulate(net, raster, record="all", engine="event")
    assert found.same(simulate(net, raster, record="all", engine="dense"))
    if seed % 3 == 0:
        assert_equals_reference(net, raster, found)


@pytest.mark.parametrize("features", [5, 11, 16, 21, 25, 32, 43, 54, 70, 86])
def test_runs_of_any_length_are_added(features: int) -> None:
    """Three taps of so many features: runs of 16 to 272 weights, channels and neurons of more than one word of bits."""
    rng = np.random.default_rng(features)
    shape = (40, 6, 20)
    layer = SpikingLayer(
        name="wide",
        weight=rng.integers(-32, 40, (features, 40, 3, 3)) / 64,
        bias=None,
        stride=(1, 1),
        padding=(1, 1),
        threshold=1.5,
        v_min=-2.0,
        in_shape=shape,
        out_shape=(features, 6, 20),
    )
    net = chain((layer,), (NOTHING, NOTHING), shape)
    raster = rng.poisson(0.02, (5, *shape))
    found = simulate(net, raster, record="all", engine="event")
    assert found.counts[0].sum() > 300
    assert found.same(simulate(net, raster, record="all", engine="dense"))


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_inputs_that_are_no_counts_are_the_same_currents(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_graph(rng)
    raster = rng.integers(-6, 12, (4, 2, *net.input_shape)) * (rng.random((4, 2, *net.input_shape)) < 0.5) / EIGHTHS
    found = simulate(net, raster, record="all", engine="event")
    assert found.same(simulate(net, raster, record="all", engine="dense"))


def test_auto_changes_between_engines_where_activity_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WORTH_MACS", 0)
    monkeypatch.setattr(engine, "FEW_CELLS", 0)
    monkeypatch.setattr(engine, "BREAK_EVEN", 0.25)
    chosen = []
    choose = engine.Layers._is_event

    def watched(layers: engine.Layers, *arguments: Any) -> bool:
        chosen.append(choose(layers, *arguments))
        return chosen[-1]

    monkeypatch.setattr(engine.Layers, "_is_event", watched)
    n_changes = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        net = random_graph(rng)
        raster = random_raster(rng, net, 2)
        chosen.clear()
        found = simulate(net, raster, record="all")
        n_changes += len(set(chosen)) == 2
        assert found.same(simulate(net, raster, record="all", engine="dense"))
    assert n_changes > 4


def test_auto_goes_by_work_share_and_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    net = convolutions(np.random.default_rng(0), n_layers=1)
    empty, full = (np.full((3, *net.input_shape), amount) for amount in (0, 1))

    used: list[str] = []

    def stopping(name: str) -> Callable[..., None]:
        def stop(*_: Any) -> None:
            used.append(name)
            raise _StopError

        return stop

    monkeypatch.setattr(engine.EventLayer, "run", stopping("event"))
    monkeypatch.setattr(engine, "step_through", stopping("dense"))

    def engine_of(raster: NDArray[Any]) -> str:
        with pytest.raises(_StopError):
            simulate(net, raster)
        return used[-1]

    assert engine_of(empty) == "dense"  # little work
    layer = net.layers[0]
    monkeypatch.setattr(engine, "WORTH_MACS", 3 * count_macs(layer.in_shape, layer.weight.shape, layer.window))
    assert (engine_of(empty), engine_of(full)) == ("event", "event")
    monkeypatch.setattr(engine, "FEW_CELLS", 4 * 16 * 16)
    assert (engine_of(empty), engine_of(full)) == ("event", "dense")
    assert engine_of(empty[:2]) == "dense"


class _StopError(Exception):
    pass


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_batches_and_small_rooms_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_graph(rng)
    raster = random_raster(rng, net, 3)
    whole = simulate(net, raster, record="all", engine="event")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_SPIKES", 1)
        assert simulate(net, raster, record="all", engine="event").same(whole)
    for sample in range(3):
        alone = simulate(net, raster[:, sample], engine="event")
        for index, counts in enumerate(alone.counts):
            np.testing.assert_array_equal(counts[0], whole.counts[index][sample])
            np.testing.assert_array_equal(alone.states[index][0], whole.states[index][sample])


# rounding


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_one_neuron_rounds_as_sinabs_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = np.float32(rng.normal() * 10.0 ** rng.integers(-2, 5)).reshape(1, 1, 1, 1)
    start = np.float32(rng.normal() * 3).reshape(1, 1, 1)
    net = neuron(weight=weight, threshold=float(np.float32(rng.uniform(0.05, 2))), v_init=start)
    raster = rng.poisson(0.4, (30, 1, 1, 1))
    found = simulate(net, raster, record="all", engine="event")
    assert found.same(simulate(net, raster, record="all", engine="dense"))


def test_a_neuron_that_rounding_leaves_at_its_threshold_fires_unasked_in_the_next_step() -> None:
    rng = np.random.default_rng(0)
    threshold = rng.uniform(0.05, 2, 100_000).astype(np.float32)
    v = threshold * rng.integers(2, 1000, threshold.size).astype(np.float32)
    rest = v - np.trunc(v / threshold) * threshold
    stays = np.flatnonzero(rest >= threshold)
    assert stays.size
    for case in stays[:5]:
        net = neuron(weight=v[case].reshape(1, 1, 1, 1), threshold=float(threshold[case]))
        raster = np.zeros((2, 4, 1, 1, 1), np.int64).swapaxes(0, 1)
        raster[0, 0] = raster[3, 1] = 1  # the last step of a recording must not reach into the next one
        found = simulate(net, raster, record="all", engine="event")
        assert found.spikes is not None
        assert found.spikes[0][1, 0].item() > 0
        assert found.same(simulate(net, raster, record="all", engine="dense"))


def test_few_spikes_differ_with_arbitrary_weights() -> None:
    """Bound: measured 2026-11-22, 30 nets of this kind: 4e-5 of the cells at most, none in every second one."""
    rng = np.random.default_rng(3)
    net = convolutions(rng, n_layers=3)
    raster = rng.poisson(0.2, (60, 2, *net.input_shape))
    dense, event = (simulate(net, raster, record="all", engine=which).spikes for which in ("dense", "event"))
    assert dense is not None
    assert event is not None
    differs = np.concatenate([(a != b).reshape(-1) for a, b in zip(dense, event, strict=True)])
    assert sum(spikes.sum() for spikes in dense) > 10_000
    assert differs.mean() < 1e-4


# no input needed


def test_neurons_beyond_a_bound_at_the_start_need_no_input() -> None:
    silence = np.zeros((3, 2, 1, 1, 1), np.int64)
    for start, spikes, state in ((2.5, 2, 0.5), (-3.0, 0, -1.0), (0.25, 0, 0.25)):
        trace = simulate(neuron(v_init=np.full((1, 1, 1), start), v_min=-1.0), silence, engine="event", record="all")
        assert trace.spikes is not None
        assert trace.spikes[0].reshape(3, 2).tolist() == [[spikes] * 2, [0, 0], [0, 0]]
        assert trace.states[0].tolist() == [[[[state]]]] * 2


def test_biases_work_in_silent_steps() -> None:
    net = neuron(bias=np.full(1, 0.25))
    trace = simulate(net, np.zeros((9, 1, 1, 1)), engine="event", record="all")
    assert trace.output.reshape(-1).tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0]


# recordings


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([100, 700, 10_000]))
def test_recordings_equal_their_rasters(seed: int, dt_us: int) -> None:
    rng = np.random.default_rng(seed)
    net = graph_for_events(rng)
    events = random_events(rng, net, int(rng.integers(1, 60)))
    raster = events.from_zero().to_raster(dt_us, merge_polarity=net.input_shape[0] == 1)
    expected = simulate(net, raster, dt_us=dt_us, record="all", engine="dense")
    for which in ("auto", "dense", "event"):
        assert simulate_events(net, events, dt_us=dt_us, record="all", engine=which).same(expected)


def test_half_a_million_steps_need_no_raster_and_silent_ones_change_nothing() -> None:
    rng = np.random.default_rng(1)
    net = convolutions(rng, n_layers=2)
    first = dataclasses.replace(net.layers[0], weight=net.layers[0].weight[:, :2], in_shape=(2, 16, 16))
    edges = (Edge(INPUT, 0), Edge(0, 1), Edge(1, None, (16, 16)))
    net = SpikingNet((first, net.layers[1]), edges, (2, 16, 16))
    events = random_events(rng, net, 2_000)
    events = dataclasses.replace(events, t_us=np.arange(2_000) // 3)
    late = dataclasses.replace(events, t_us=events.t_us * 75_000)
    expected = simulate_events(net, events, dt_us=1, engine="event")
    assert expected.counts[1].any()
    for which in ("auto", "event"):
        trace = simulate_events(net, late, dt_us=100, engine=which)
        assert trace.n_steps > 499_000
        assert trace.output[::750].tolist() == expected.output.tolist()
        for found, wanted in zip((*trace.counts, *trace.states), (*expected.counts, *expected.states), strict=True):
            np.testing.assert_array_equal(found, wanted)
    with pytest.raises(InputError, match="neuron steps in the largest map"):
        simulate_events(net, late, dt_us=100, engine="dense")


# errors


def test_what_cannot_be_simulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = neuron()
    one = Events(np.zeros(2, int), np.zeros(2, int), np.zeros(2, int), np.array([0, 900]), (1, 1))
    raster = np.ones((2, 1, 1, 1))
    with pytest.raises(InputError, match="engine: expected one of auto, dense, event, found 'fast'"):
        simulate(net, raster, engine="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="engine: expected one of"):
        simulate_events(net, one, engine="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="order: expected one of steps, events, found 'time'"):
        simulate_events(net, one, order="time")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected 'auto' or 'event' for order 'events', found 'dense'"):
        simulate_events(net, one, order="events", engine="dense")
    with pytest.raises(InputError, match="dt_us: expected at least 1"):
        simulate_events(net, one, dt_us=0)
    colored = dataclasses.replace(net.layers[0], weight=np.ones((1, 3, 1, 1)), in_shape=(3, 1, 1))
    with pytest.raises(InputError, match="1 input channel or 2 for the polarities, found 3"):
        simulate_events(chain((colored,), (NOTHING, NOTHING), (3, 1, 1)), one)
    monkeypatch.setattr(sys.modules["spikeport.convert.simulate"], "_MAX_CELLS", 90)
    with pytest.raises(InputError, match=r"at most 90 neuron steps in the largest map .* found 91 \(91 steps\)"):
        simulate_events(net, one, dt_us=10, engine="event")
    with pytest.raises(InputError, match="found 91"):
        simulate_events(net, one, dt_us=10, engine="event", record="all")
    assert simulate_events(net, one, dt_us=11, engine="event").n_steps == 82
