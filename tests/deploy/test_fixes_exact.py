"""Changes that keep the function keep every spike, on random nets whose numbers add up exactly in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeport.convert.geometry import Pair
from spikeport.convert.simulate import simulate
from spikeport.convert.types import INPUT, Edge, SpikingNet, chain
from spikeport.deploy.chips import chip
from spikeport.deploy.fixes import search
from spikeport.deploy.fixes.draft import Draft, draft_of, redraw
from spikeport.deploy.fixes.exact import free_stride, pool_in_kernel, split_layer, square_kernel
from spikeport.deploy.fixes.narrow import fewer_features, fewer_layers
from spikeport.deploy.fixes.problems import Problem, find_problems
from spikeport.deploy.fixes.retrain import smaller_map
from spikeport.deploy.fixes.routes import merge, one_entry, relay
from spikeport.deploy.fixes.step import Step
from spikeport.deploy.relay import with_relays

from .crowded import fan
from .nets import make_layer, random_graph, stack

CHIP = chip("speck2fdevkit")
quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def drawn(net: SpikingNet) -> Draft:
    return draft_of(net, CHIP)


def exactly(net: SpikingNet) -> SpikingNet:
    """Return the net with weights that are multiples of 1/64."""
    layers = (dataclasses.replace(layer, weight=np.round(layer.weight * 64) / 64) for layer in net.layers)
    return dataclasses.replace(net, layers=tuple(layers))


def assert_same_function(net: SpikingNet, changed: SpikingNet, seed: int = 0) -> None:
    raster = np.random.default_rng(seed).integers(0, 3, (4, *net.input_shape)).astype(np.float32)
    expected, found = simulate(net, raster), simulate(changed, raster)
    assert any(count.any() for count in expected.counts)
    assert np.array_equal(found.output, expected.output)
    assert np.array_equal(found.output_states, expected.output_states)
    places = {layer.name: place for place, layer in enumerate(changed.layers)}
    for layer, counts in zip(net.layers, expected.counts, strict=True):
        if layer.name in places and changed.layers[places[layer.name]].out_shape == layer.out_shape:
            assert np.array_equal(found.counts[places[layer.name]], counts), layer.name


def steps(move: Callable[[Draft, Problem], Iterator[Step]], net: SpikingNet, rule: str) -> list[Step]:
    draft = drawn(net)
    (problem,) = [problem for problem in find_problems(draft) if problem.rule == rule]
    return list(move(draft, problem))


@quick
@given(st.integers(0, 10**6), st.data())
def test_a_split_layer_is_the_layer(seed: int, data: st.DataObject) -> None:
    net = random_graph(np.random.default_rng(seed), n_layers=4)
    wide = [index for index, layer in enumerate(net.layers) if layer.out_shape[0] > 1]
    if not wide:
        return
    index = data.draw(st.sampled_from(wide))
    features = net.layers[index].out_shape[0]
    first = data.draw(st.integers(1, features - 1))
    rest = data.draw(st.integers(1, features - first))
    parts = tuple(part for part in (first, rest, features - first - rest) if part)
    changed = split_layer(drawn(net), index, parts).net()
    assert len(changed.layers) == len(net.layers) + len(parts) - 1
    assert changed.output_shape == net.output_shape
    assert_same_function(net, changed, seed)


@quick
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2])),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from([(1, 1), (1, 2), (2, 3)]),
    st.sampled_from([1, 2]),
)
def test_a_kernel_padded_to_a_square_is_the_kernel(
    kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> None:
    layer = make_layer(
        (2, 14, 13), 4, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, name="conv"
    )
    net = exactly(chain((layer,), ((1, 1), (1, 1)), (2, 14, 13)))
    draft = drawn(net)
    for step in square_kernel(draft, Problem("kernel", (0,))):
        ky, kx = step.draft.layers[0].window.kernel
        assert ky == kx
        assert_same_function(net, step.draft.net())


def test_a_kernel_of_one_row_becomes_a_square_and_one_whose_map_would_grow_does_not() -> None:
    row = exactly(stack((2, 9, 9), [{"features": 3, "kernel": (1, 3), "padding": (0, 1)}]))
    (step,) = steps(square_kernel, row, "kernel")
    assert step.is_exact
    assert step.draft.layers[0].window.padding == (1, 1)
    assert find_problems(step.draft) == ()
    even = exactly(stack((2, 9, 9), [{"features": 3, "kernel": (2, 3)}]))
    assert steps(square_kernel, even, "kernel") == []


@quick
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.integers(0, 4),
    st.integers(1, 2),
    st.integers(0, 1),
    st.integers(24, 34),
)
def test_a_pool_moved_into_the_kernel_is_the_pool(
    pool: Pair, kernel: int, stride: int, padding: int, edge: int
) -> None:
    second: dict[str, Any] = {"features": 3, "kernel": kernel}
    if kernel:
        if min(edge // pool[0], edge // pool[1]) < kernel:
            return
        second |= {"stride": stride, "padding": padding}
    net = exactly(stack((2, edge, edge), [{"features": 4, "kernel": 1, "pool": pool}, second]))
    problems = [problem for problem in find_problems(drawn(net)) if problem.rule == "pool"]
    for problem in problems:
        for step in pool_in_kernel(drawn(net), problem):
            (edge_between,) = step.draft.incoming(1)
            assert edge_between.pool[0] == edge_between.pool[1]
            assert edge_between.pool[0] in CHIP.limits.pools
            assert_same_function(net, step.draft.net())


@pytest.mark.parametrize("pool", [(3, 3), (5, 5), (2, 1), (2, 4), (6, 6)])
def test_pools_that_the_chip_lacks_are_read_by_the_linear_layer_behind(pool: Pair) -> None:
    size = 15 if pool[0] in (3, 5) else 12
    rows: list[dict[str, Any]] = [
        {"features": 4, "kernel": 3, "padding": 1, "pool": pool},
        {"features": 5, "kernel": 0},
    ]
    net = exactly(stack((2, size, size), rows))
    (step,) = steps(pool_in_kernel, net, "pool")
    assert step.is_exact
    assert {problem.rule for problem in find_problems(step.draft)} <= {"kernel"}
    assert_same_function(net, step.draft.net())


def test_pools_that_are_a_product_go_through_a_relay() -> None:
    net = exactly(
        stack((2, 32, 32), [{"features": 4, "kernel": 3, "padding": 1, "pool": 8}, {"features": 5, "kernel": 0}])
    )
    (step,) = steps(relay, net, "pool")
    assert find_problems(step.draft) == ()
    assert_same_function(net, step.draft.net())


def test_a_pool_behind_the_output_that_is_a_product_ends_in_a_relay() -> None:
    net = exactly(stack((2, 32, 32), [{"features": 4, "kernel": 3, "padding": 1, "pool": 8}]))
    (step,) = steps(relay, net, "pool")
    raster = np.random.default_rng(0).integers(0, 3, (4, *net.input_shape))
    expected = simulate(net, raster).output
    assert expected.any()
    assert np.array_equal(simulate(step.draft.net(), raster).output, expected)


def test_a_stride_that_moves_nothing_is_replaced() -> None:
    net = exactly(stack((2, 9, 12), [{"features": 4, "kernel": 9, "stride": (3, 1)}]))
    (step,) = steps(free_stride, net, "stride")
    assert find_problems(step.draft) == ()
    assert_same_function(net, step.draft.net())
    moving = stack((2, 9, 9), [{"features": 4, "kernel": 3, "stride": 3}])
    assert steps(free_stride, moving, "stride") == []


def star(n_branches: int, *, kernels: tuple[int, ...] = (1, 3, 5), join: bool = True) -> SpikingNet:
    """Return a stem, branches of several kernels, and a layer that reads them: side by side, or added."""
    stem = make_layer((2, 12, 12), 4, padding=1, name="stem")
    branches = []
    for index in range(n_branches):
        kernel = kernels[index % len(kernels)]
        threshold = float(2 ** (index % 3))
        branches.append(
            make_layer(
                (4, 12, 12),
                3,
                kernel,
                padding=kernel // 2,
                threshold=threshold,
                v_min=-threshold,
                name=f"branch{index}",
                seed=index,
                v_init=np.full((3, 12, 12), 0.25 * index) if index else None,
            )
        )
    last = make_layer((3 * n_branches if join else 3, 12, 12), 5, 3, padding=1, name="last")
    edges = [Edge(INPUT, 0), *(Edge(0, index + 1) for index in range(n_branches))]
    edges += [Edge(i + 1, n_branches + 1, feature_shift=3 * i if join else 0) for i in range(n_branches)]
    layers = (stem, *branches, last)
    return exactly(SpikingNet(layers, (*edges, Edge(n_branches + 1, None)), (2, 12, 12)))


@pytest.mark.parametrize("n_branches", [3, 4, 6])
def test_more_readers_than_a_core_has_destinations_are_served_by_relays(n_branches: int) -> None:
    net = star(n_branches)
    draft = drawn(net)
    (step,) = relay(draft, Problem("destinations", (0,)))
    assert "destinations" not in {problem.rule for problem in find_problems(step.draft)}
    assert len(step.draft.layers) == len(net.layers) + n_branches - 2
    assert_same_function(net, step.draft.net())


@pytest.mark.parametrize("join", [True, False])
def test_merged_layers_do_what_each_did(join: bool) -> None:
    net = star(3, join=join)
    found = list(merge(drawn(net), Problem("destinations", (0,))))
    assert found
    for step in found:
        assert len(step.draft.layers) < len(net.layers)
        assert_same_function(net, step.draft.net())


def test_layers_whose_thresholds_would_round_the_weights_are_not_merged() -> None:
    net = star(2)
    third = dataclasses.replace(net.layers[2], threshold=3.0, v_min=-3.0)
    net = dataclasses.replace(net, layers=(*net.layers[:2], third, net.layers[3]))
    assert list(merge(drawn(net), Problem("layers", ()))) == []


def test_layers_of_the_output_are_not_merged() -> None:
    net = star(2)
    open_ended = dataclasses.replace(net, edges=(*net.edges, Edge(1, None, feature_shift=0)))
    assert list(merge(drawn(open_ended), Problem("layers", ()))) == []


@pytest.mark.parametrize("side", [False, True])
def test_several_edges_from_the_input_become_one(side: bool) -> None:
    first = make_layer((2, 12, 12), 3, padding=1, name="side")
    last = make_layer((7, 12, 12), 4, padding=1, name="last")
    edges = [Edge(INPUT, 0), Edge(INPUT, 1, feature_shift=1), Edge(INPUT, 1, feature_shift=5)]
    edges += [Edge(0, 1, feature_shift=3)] if side else [Edge(0, None)]
    net = exactly(SpikingNet((first, last), (*edges, Edge(1, None)), (2, 12, 12)))
    (step,) = one_entry(drawn(net), Problem("entry", ()))
    assert len([edge for edge in step.draft.incoming(1) if edge.source == INPUT]) == 1
    assert step.draft.layers[1].in_shape[0] == (5 if side else 2)
    assert_same_function(net, step.draft.net())


@quick
@given(st.integers(0, 10**6), st.integers(0, 3), st.sampled_from([smaller_map, fewer_features, fewer_layers]))
def test_what_has_to_be_trained_is_a_net_all_the_same(
    seed: int, index: int, move: Callable[[Draft, Problem], Iterator[Step]]
) -> None:
    net = random_graph(np.random.default_rng(seed), n_layers=4)
    draft = drawn(net)
    for step in move(draft, Problem("crowded", (index,), (0,), 1)):
        assert step.needs_retraining
        made = step.draft.net()
        assert made.edges == step.draft.edges
        assert not made.same(net)


def test_a_draft_that_no_shape_follows_from_is_none() -> None:
    net = star(3)
    draft = drawn(net)
    window = draft.layers[1].window
    assert redraw(draft, {1: (3, dataclasses.replace(window, stride=(2, 2)))}) is None  # the maps that meet differ
    added = drawn(star(3, join=False))
    assert redraw(added, {1: (2, window)}) is None  # what is added must keep as many features
    assert redraw(draft, {}, input_shape=(2, 0, 12)) is None
    narrow = redraw(draft, {1: (2, window)})
    assert narrow is not None
    assert sorted(edge.feature_shift for edge in narrow.incoming(4)) == [0, 2, 5]


def relayed(net: SpikingNet) -> tuple[Draft, int]:
    """Return the draft of a net with the relay that it needs, and the position of that."""
    grown, notes = with_relays(net, CHIP.limits)
    (name,) = (note.layer for note in notes)
    return draft_of(grown, CHIP, relays=[name]), [layer.name for layer in grown.layers].index(str(name))


def test_a_split_relay_stays_in_parts() -> None:
    draft, index = relayed(exactly(fan(3)))
    parts = split_layer(draft, index, (1, 2))
    again = redraw(parts, {})
    assert again is not None
    assert again.key == parts.key
    assert_same_function(exactly(fan(3)), again.net())
    stem = draft.layers[0]
    whole = redraw(draft, {0: (2, stem.window)})
    assert whole is not None
    assert whole.layers[index].features == 2  # a relay follows what it repeats
    assert redraw(parts, {0: (2, stem.window)}) is None  # its parts do not
    assert redraw(parts, {0: (4, stem.window)}) is None


def test_merged_relays_are_one_layer_of_all_their_features() -> None:
    stem = make_layer((2, 6, 6), 3, 1, name="stem")
    relays = [make_layer((3, 6, 6), 3, 1, name=name, weight=np.eye(3)[:, :, None, None]) for name in "ab"]
    last = make_layer((6, 6, 6), 2, 1, name="last")
    edges = (Edge(INPUT, 0), Edge(0, 1), Edge(0, 2), Edge(1, 3), Edge(2, 3, (1, 1), 3), Edge(3, None))
    net = exactly(SpikingNet((stem, *relays, last), edges, (2, 6, 6)))
    (step,) = merge(draft_of(net, CHIP, relays=["a", "b"]), Problem("layers", ()))
    again = redraw(step.draft, {})
    assert again is not None
    assert again.key == step.draft.key
    assert_same_function(net, again.net())


def test_a_split_that_is_merged_again_is_the_start() -> None:
    rows = [{"features": 4, "kernel": 3, "padding": 1}, {"features": 5, "kernel": 0}]
    draft = drawn(exactly(stack((2, 8, 8), rows)))
    parts = split_layer(draft, 0, (2, 2))
    assert parts.key != draft.key
    (step,) = merge(parts, Problem("layers", ()))
    assert step.draft.key == draft.key
    biased = drawn(exactly(stack((2, 8, 8), [{**rows[0], "bias": True}, rows[1]])))
    assert biased.key != draft.key


def test_the_search_never_comes_back_to_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Draft] = []

    def nothing(draft: Draft, problem: Problem) -> Iterator[Step]:
        assert problem.rule == "stride"
        seen.append(draft)
        yield Step("nothing", "change nothing", draft)

    monkeypatch.setattr(search, "MOVES", {"stride": (nothing,)})
    draft = drawn(stack((2, 9, 9), [{"features": 4, "kernel": 3, "stride": 3}]))
    assert search.find_ways(draft, deadline=float("inf")) == []
    assert seen == [draft]


def test_a_convolution_that_comes_to_cover_its_map_stays_a_convolution() -> None:
    rows: list[dict[str, Any]] = [{"features": 4, "kernel": 1}, {"features": 3, "kernel": 3, "stride": 2}]
    draft = drawn(stack((2, 12, 12), rows))
    smaller = redraw(draft, {}, edges=(Edge(INPUT, 0), Edge(0, 1, (4, 4)), Edge(1, None)))
    assert smaller is not None
    assert smaller.layers[1].in_shape[1:] == smaller.layers[1].window.kernel == (3, 3)
    assert not smaller.layers[1].covers_input
    assert redraw(smaller, {}, input_shape=(2, 8, 8)) is None
    assert redraw(smaller, {}, input_shape=(2, 20, 20)) is not None
    linear = drawn(stack((2, 12, 12), [rows[0], {"features": 3, "kernel": 0}]))
    followed = redraw(linear, {}, input_shape=(2, 8, 8))
    assert followed is not None
    assert followed.layers[1].window.kernel == (8, 8)


def test_a_kernel_that_follows_its_map_is_named() -> None:
    net = stack((2, 8, 8), [{"features": 4, "kernel": 1}, {"features": 3, "kernel": 2, "stride": 2, "name": "fc"}])
    assert all("becomes" not in step.clause for step in smaller_map(drawn(net), Problem("memory", (0,))))
    rows: list[dict[str, Any]] = [{"features": 4, "kernel": 1}, {"features": 3, "kernel": 0, "name": "fc"}]
    found = [step.clause for step in smaller_map(drawn(stack((2, 8, 8), rows)), Problem("memory", (0,)))]
    assert any(clause.endswith(" (the kernel of 'fc' becomes 4x4)") for clause in found)
    assert any(clause.endswith(" (the kernel of 'fc' becomes 2x2)") for clause in found)
