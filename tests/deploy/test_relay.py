"""Relays: more ways out of a layer or the input than a chip has, and no spike that differs."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeport.convert import simulate
from spikeport.convert.types import INPUT, Edge, SpikingNet
from spikeport.deploy.assemble import assemble
from spikeport.deploy.chips import chip
from spikeport.deploy.discretize import discretize, fitted
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.place import Placement
from spikeport.deploy.plan import plan
from spikeport.deploy.relay import with_relays
from spikeport.deploy.rules import check_routes
from spikeport.deploy.types import Program
from spikeport.models.events import Events

from .crowded import crowded_net, fan
from .nets import make_layer, random_graph
from .programs import random_events
from .reference import run_net

CHIP = chip("speck2fdevkit")
LIMITS = CHIP.limits
SEEDS = range(30)


@dataclasses.dataclass(frozen=True)
class Case:
    """A net, the same with relays, and a recording."""

    net: SpikingNet
    relayed: SpikingNet
    events: Events


@functools.cache
def case_of(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    net = crowded_net(rng, n_layers=int(rng.integers(2, 6)))
    relayed, _ = with_relays(net, LIMITS)
    return Case(net, relayed, random_events(rng, net.input_shape, 15))


def program_of(net: SpikingNet) -> Program:
    """Return the program with as many cores as there are layers, however many a chip has."""
    return assemble(discretize(net), Placement(CHIP.name, tuple(range(len(net.layers)))))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_layer_spikes_as_with_any_number_of_destinations(seed: int) -> None:
    case = case_of(seed)
    program = program_of(case.relayed)
    found = Emulator(program).run(case.events, "all")
    cores = {core.name: core for core in program.cores}
    for core in run_net(discretize(case.net), case.events):
        own = cores[core.program.name].core
        assert found.spikes[own].tolist() == core.spikes
        assert found.states[own].tolist() == core.state


@pytest.mark.parametrize("seed", SEEDS)
def test_with_relays_no_layer_and_no_input_feeds_too_many(seed: int) -> None:
    case = case_of(seed)
    assert check_routes(case.relayed, LIMITS) == []
    program = program_of(case.relayed)
    assert max(sum(to.core is not None for to in core.destinations) for core in program.cores) <= LIMITS.destinations
    assert len(program.entry) <= LIMITS.entries
    assert with_relays(case.relayed, LIMITS) == (case.relayed, ())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_simulation_is_the_same_too(seed: int) -> None:
    case = case_of(seed)
    raster = np.random.default_rng(seed).integers(0, 3, (4, *case.net.input_shape))
    given, relayed = simulate(case.net, raster), simulate(case.relayed, raster)
    counts = dict(zip((layer.name for layer in case.relayed.layers), relayed.counts, strict=True))
    for layer, expected in zip(case.net.layers, given.counts, strict=True):
        assert_array_equal(counts[layer.name], expected)


def test_the_random_nets_are_of_every_kind() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        net = case_of(seed).net
        for source in range(INPUT, len(net.layers)):
            name = "input" if source == INPUT else "layer"
            ways = [edge for edge in net.outgoing(source) if edge.target is not None]
            seen[f"three ways from {name}"] += len(ways) == 3
            seen[f"more ways from {name}"] += len(ways) > 3
            seen[f"pools of one {name}"] += len({edge.pool for edge in ways}) > 1
            seen[f"twice from {name}"] += len({edge.target for edge in ways}) < len(ways)
            seen[f"shifted {name}"] += any(edge.feature_shift for edge in ways)
        seen["input to output"] += Edge(INPUT, None) in net.edges
    assert min(seen.values()) >= 2, seen


def test_a_net_that_needs_no_relay_is_returned_as_it_is() -> None:
    nets = [fan(2), *(random_graph(np.random.default_rng(seed)) for seed in range(8))]
    for net in nets:
        if not check_routes(net, LIMITS):
            assert with_relays(net, LIMITS) == (net, ())


@pytest.mark.parametrize("n_branches", [3, 4, 5, 6])
def test_each_further_branch_takes_one_core(n_branches: int) -> None:
    relayed, notes = with_relays(fan(n_branches), LIMITS)
    assert len(relayed.layers) - 1 - n_branches == len(notes) == n_branches - 2


def test_a_relay_stands_behind_the_smallest_pool_of_what_it_serves() -> None:
    relayed, _ = with_relays(fan(4, (4, 1, 2, 4)), LIMITS)
    shapes = {layer.name: layer.out_shape for layer in relayed.layers if "relay" in layer.name}
    assert shapes == {"stem.relay": (3, 4, 4), "stem.relay2": (3, 2, 2)}
    assert [layer.name for layer in relayed.layers][:3] == ["stem", "stem.relay", "stem.relay2"]


def test_the_plan_shows_relays_with_their_memory_and_the_program_says_so() -> None:
    planned = plan(fan(3))
    assert planned.fits
    (use,) = (use for use in planned.cores if use.layer == "stem.relay")
    assert (use.used.kernel_words, use.used.neuron_words) == (3 * 4, 3 * 64)
    (note,) = (warning for warning in planned.warnings if warning.rule == "relay")
    assert note.layer == "stem.relay"
    assert note.found == "one more core that repeats the spikes of 'stem' for 'branch1', 'branch2'"
    assert "12 kernel and 192 neuron words" in note.message
    program = compile_program(fan(3))
    assert [core.name for core in program.cores][:2] == ["stem", "stem.relay"]
    assert program.provenance["rewrites"] == [note.message]
    assert "rewrites" not in compile_program(fan(2)).provenance


def test_traffic_of_the_net_places_it_with_its_relays_too() -> None:
    planned = plan(fan(3), objective="fast", traffic={layer.name: 5 for layer in fan(3).layers})
    assert planned.fits
    assert len(planned.cores) == 5


def test_relays_are_exact_in_fitted_integers_too() -> None:
    relays = [layer for layer in discretize(fitted(with_relays(fan(4), LIMITS)[0])).layers if "relay" in layer.name]
    assert len(relays) == 2
    for layer in relays:
        weight = layer.weight[:, :, 0, 0].astype(int)
        assert_array_equal(weight, np.eye(len(weight)) * layer.threshold_high)


def two_pools(edge: int) -> SpikingNet:
    fine = make_layer((2, edge, edge), 2, 2, name="fine", stride=2)
    coarse = make_layer((2, edge // 2, edge // 2), 2, 1, name="coarse")
    edges = (Edge(INPUT, 0), Edge(INPUT, 1, (2, 2)), Edge(0, None), Edge(1, None))
    return SpikingNet((fine, coarse), edges, (2, edge, edge))


def test_a_pool_of_its_own_behind_the_input_is_a_core_that_pools_the_whole_sensor() -> None:
    program = compile_program(two_pools(128))
    relay, fine, coarse = program.cores
    assert (relay.name, relay.out_shape, relay.stride) == ("input.relay", (2, 64, 64), (2, 2))
    assert program.entry == (relay.core, fine.core)
    assert relay.destinations[0].core == coarse.core


def test_the_output_needs_no_way_out_of_a_relay() -> None:
    first = make_layer((2, 16, 16), 2, 1, name="a")
    others = [make_layer((2, 8, 8), 2, 1, name=name) for name in "bcd"]
    pooled = [Edge(INPUT, index, (2, 2)) for index in (1, 2)]
    ends = [Edge(index, None, (2, 2) if index == 0 else (1, 1)) for index in range(3)]
    net = SpikingNet((first, *others[:2]), (Edge(INPUT, 0), *pooled, Edge(INPUT, None, (2, 2)), *ends), (2, 16, 16))
    relayed, notes = with_relays(net, LIMITS)
    assert [layer.name for layer in relayed.layers] == ["input.relay", "a", "b", "c"]
    assert len(notes) == 1
    more = (*net.edges[:3], Edge(INPUT, 3, (2, 2)), *net.edges[3:], Edge(3, None))
    wider = SpikingNet((first, *others), more, net.input_shape)
    relayed_wider, _ = with_relays(wider, LIMITS)
    assert [layer.name for layer in relayed_wider.layers][:3] == ["input.relay", "input.relay2", "a"]
    assert Edge(0, None) in relayed_wider.edges
    raster = np.random.default_rng(0).integers(0, 3, (4, *net.input_shape))
    for given, found in ((net, relayed), (wider, relayed_wider)):
        assert check_routes(found, LIMITS) == []
        names = [layer.name for layer in found.layers]
        counts = simulate(found, raster).counts
        for layer, expected in zip(given.layers, simulate(given, raster).counts, strict=True):
            assert_array_equal(counts[names.index(layer.name)], expected)


def test_input_channels_behind_others_need_no_core() -> None:
    stem = make_layer((2, 6, 6), 3, 1, name="stem")
    both = make_layer((5, 6, 6), 4, 1, name="both", groups=1)
    grouped = make_layer((8, 6, 6), 4, 1, name="grouped", groups=2)
    edges = (Edge(INPUT, 0), Edge(0, 1), Edge(INPUT, 1, (1, 1), 3), Edge(1, 2), Edge(0, 2, (1, 1), 4))
    net = SpikingNet((stem, both, grouped), (*edges, Edge(2, None)), (2, 6, 6))
    moved, notes = with_relays(net, LIMITS)
    assert len(moved.layers) == 3
    assert notes == ()
    assert_array_equal(moved.layers[1].weight, both.weight[:, [3, 4, 0, 1, 2]])
    assert moved.layers[2] is grouped
    assert [(edge.source, edge.feature_shift) for edge in moved.incoming(1)] == [(0, 2), (INPUT, 0)]
    raster = np.random.default_rng(0).integers(0, 3, (5, 2, 6, 6))
    assert_array_equal(simulate(net, raster).output, simulate(moved, raster).output)


def test_an_input_that_others_overlap_in_part_gets_a_relay() -> None:
    stem = make_layer((2, 6, 6), 3, 1, name="stem")
    both = make_layer((5, 6, 6), 4, 1, name="both")
    edges = (Edge(INPUT, 0), Edge(0, 1), Edge(INPUT, 1, (1, 1), 1), Edge(1, None))
    relayed, (note,) = with_relays(SpikingNet((stem, both), edges, (2, 6, 6)), LIMITS)
    assert [layer.name for layer in relayed.layers] == ["input.relay", "stem", "both"]
    assert "repeats the spikes of the input for 'both'" in note.message


def test_a_name_that_is_taken_gets_a_number() -> None:
    net = fan(3)
    named = dataclasses.replace(net.layers[1], name="stem.relay")
    relayed, _ = with_relays(SpikingNet((net.layers[0], named, *net.layers[2:]), net.edges, net.input_shape), LIMITS)
    assert [layer.name for layer in relayed.layers][:3] == ["stem", "stem.relay2", "stem.relay"]


def input_edges(*edges: Edge, edge: int = 16) -> SpikingNet:
    layer = make_layer((3, edge, edge), 2, 2, name="first", stride=2)
    return SpikingNet((layer,), (*edges, Edge(0, None)), (2, edge, edge))


REFUSED = {
    "four ways to one layer": (input_edges(*(Edge(INPUT, 0, (1, 1), shift) for shift in (0, 1, 0, 1))), "entry"),
    "a map too large to repeat": (input_edges(Edge(INPUT, 0), Edge(INPUT, 0, (1, 1), 1), edge=128), "entry"),
    "an output of the whole sensor": (input_edges(Edge(INPUT, 0), Edge(INPUT, None), edge=128), "output"),
    "a pool that no core has": (fan(3, (8,)), "destinations"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_relays_do_not_help_is_left_as_it_is_and_refused_by_name(case: str) -> None:
    net, rule = REFUSED[case]
    assert with_relays(net, LIMITS) == (net, ())
    assert rule in {violation.rule for violation in plan(net).violations}


def test_a_layer_that_another_reads_three_times_is_refused_by_name() -> None:
    stem, reader = make_layer((2, 6, 6), 2, 1, name="stem"), make_layer((4, 6, 6), 2, 1, name="reader")
    ways = tuple(Edge(0, 1, (1, 1), shift) for shift in (0, 1, 2))
    net = SpikingNet((stem, reader), (Edge(INPUT, 0), *ways, Edge(1, None)), (2, 6, 6))
    assert with_relays(net, LIMITS) == (net, ())
    (violation,) = plan(net).violations
    assert (violation.layer, violation.rule, violation.found) == ("stem", "destinations", "3")
