"""Simulation equals a slow loop over integers: groups, dilation, upsampling, initial potentials, branches."""

from __future__ import annotations

import importlib
from collections import Counter

import numpy as np
import pytest
import sinabs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert import simulate, to_sinabs
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, chain

from .integer_loop import assert_equals_reference, random_raster
from .nets import random_chain, random_graph, random_layer

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_a_graph_of_any_layers_equals_the_loop_over_integers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_graph(rng)
    raster = random_raster(rng, net, 2)
    assert_equals_reference(net, raster, simulate(net, raster, record="all"))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_fresh_sinabs_layers_give_the_spikes_of_simulate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_chain(rng)
    raster = random_raster(rng, net, 3)
    batch_first = torch.from_numpy(raster.swapaxes(0, 1).copy()).float().flatten(0, 1)
    with torch.no_grad():
        found = to_sinabs(net, batch_size=3)(batch_first)
    found = found.reshape(3, len(raster), -1).transpose(0, 1)
    np.testing.assert_array_equal(found.numpy(), simulate(net, raster).output)


def test_the_random_nets_are_of_every_kind() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        net = random_graph(rng)
        trace = simulate(net, random_raster(rng, net, 1))
        for index, layer in enumerate(net.layers):
            is_busy = bool(trace.counts[index].any())
            incoming = net.incoming(index)
            seen["groups"] += is_busy and layer.groups > 1
            seen["dilation"] += is_busy and max(layer.dilation) > 1
            seen["upsample"] += is_busy and max(layer.upsample) > 1
            seen["upsample and stride"] += is_busy and max(layer.upsample) > 1 and max(layer.stride) > 1
            seen["v_init"] += is_busy and layer.v_init is not None
            seen["add"] += is_busy and [edge.feature_shift for edge in incoming] == [0, 0]
            seen["concat"] += is_busy and any(edge.feature_shift for edge in incoming)
            seen["pool"] += is_busy and any(max(edge.pool) > 1 for edge in incoming)
            seen["several readers"] += is_busy and len(net.outgoing(index)) > 1
    assert min(seen.values()) >= 6, seen


def test_every_recording_of_a_batch_starts_at_the_initial_potentials(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    layer = random_layer(rng, "conv", (2, 5, 5))
    while layer.v_init is None:
        layer = random_layer(rng, "conv", (2, 5, 5))
    net = chain((layer,), ((1, 1), (1, 1)), (2, 5, 5))
    raster = rng.poisson(0.5, (4, 5, 2, 5, 5))
    whole = simulate(net, raster, record="all")
    assert_equals_reference(net, raster, whole)
    module = importlib.import_module("spikeport.convert.simulate")  # the front door hides it behind the function
    monkeypatch.setattr(module, "_CELLS", 2 * 4 * int(np.prod(layer.out_shape)))
    assert simulate(net, raster, record="all").same(whole)


def test_sinabs_layers_keep_their_potentials_and_lose_the_initial_ones_when_reset() -> None:
    layer = SpikingLayer(
        "a", np.ones((1, 1, 1, 1)), None, (1, 1), (0, 0), 4.0, -1.0, (1, 1, 1), (1, 1, 1), v_init=np.full((1, 1, 1), 3)
    )
    module = to_sinabs(chain((layer,), ((1, 1), (1, 1)), (1, 1, 1)))
    one = torch.ones(5, 1, 1, 1)
    with torch.no_grad():
        assert module(one).flatten().tolist() == [1, 0, 0, 0, 1]
        sinabs.reset_states(module)
        assert module(one).flatten().tolist() == [0, 0, 0, 1, 0]


def test_layers_with_names_that_collide_are_all_kept() -> None:
    def layer(name: str) -> SpikingLayer:
        return SpikingLayer(name, np.ones((1, 1, 1, 1)), None, (1, 1), (0, 0), 1.0, -1.0, (1, 2, 2), (1, 2, 2))

    for names in (("a", "a_spike"), ("a_spike", "a"), ("a.b", "a_b"), ("input_pool", "a")):
        net = chain(tuple(map(layer, names)), ((2, 2), (1, 1), (1, 1)), (1, 4, 4))
        assert len(to_sinabs(net)) == 5


def test_input_that_leaves_the_net_as_it_is_counts_as_output() -> None:
    layer = SpikingLayer(
        name="same",
        weight=np.eye(2, dtype=np.float32)[:, :, None, None],
        bias=None,
        stride=(1, 1),
        padding=(0, 0),
        threshold=1.0,
        v_min=-1.0,
        in_shape=(2, 4, 4),
        out_shape=(2, 4, 4),
    )
    edges = (Edge(INPUT, 0), Edge(0, None), Edge(INPUT, None, feature_shift=1))
    raster = np.random.default_rng(0).integers(0, 3, (5, 3, 2, 4, 4))
    trace = simulate(SpikingNet((layer,), edges, (2, 4, 4)), raster)
    expected = np.zeros((5, 3, 3, 4, 4), np.int64)
    expected[:, :, :2] += raster
    expected[:, :, 1:] += raster
    np.testing.assert_array_equal(trace.output, expected.reshape(5, 3, -1))
