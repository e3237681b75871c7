"""What makes a net fit: for every misfit there is a change, and each that is named fits when it is applied."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spikeport.convert.errors import InvalidNetError
from spikeport.convert.simulate import simulate
from spikeport.convert.store import load_net, save_net
from spikeport.convert.synops import count_synops
from spikeport.convert.types import INPUT, Edge, SpikingNet
from spikeport.deploy import chips
from spikeport.deploy.chips import KI, chip
from spikeport.deploy.discretize import fitted
from spikeport.deploy.errors import ChipNameError, LayerOrderError, SettingError
from spikeport.deploy.fixes import Fix, choose, fix_tables, next_command, suggest
from spikeport.deploy.fixes.draft import draft_of
from spikeport.deploy.fixes.problems import find_problems
from spikeport.deploy.fixes.suggest import measure
from spikeport.deploy.plan import plan
from spikeport.deploy.relay import with_relays

from .misfits import MISFITS, Misfit
from .nets import digits_net, gesture_net, make_layer, random_chain, random_graph, single, stack

BY_NAME = {misfit.name: misfit for misfit in MISFITS}
LONG = ("two crowds", "five layers for cores 0 to 2", "everything at once", "VGG-11", "LeNet on a camera")
QUICK = [name for name in BY_NAME if name not in LONG]
ZOO = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)]


@functools.cache
def tried(name: str) -> tuple[SpikingNet, tuple[Fix, ...]]:
    """Return a misfit with weights that add up exactly in float32, and what makes it fit."""
    net = BY_NAME[name].build()
    exact = (dataclasses.replace(layer, weight=np.round(layer.weight * 64) / 64) for layer in net.layers)
    net = dataclasses.replace(net, layers=tuple(exact))
    return net, suggest(net)


def rasters(net: SpikingNet, n_steps: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((n_steps, *net.input_shape)) < 0.2).astype(np.float32)


@pytest.mark.parametrize("name", ZOO)
def test_what_is_suggested_fits_when_it_is_applied(name: str, tmp_path: Path) -> None:
    _, fixes = tried(name)
    for number, fix in enumerate(fixes):
        save_net(fix.net, tmp_path / f"{number}.safetensors")
        applied = load_net(tmp_path / f"{number}.safetensors")
        assert plan(applied, fix.chip).fits
        assert fix.plan.fits
        assert fix.plan.chip == fix.chip
        assert fix.cost == measure(applied)


def test_most_misfits_get_a_suggestion() -> None:
    helped = [name for name in QUICK if tried(name)[1]]
    assert len(QUICK) >= 30
    assert len(helped) >= 0.9 * len(QUICK)


@pytest.mark.parametrize("name", ZOO)
def test_an_exact_suggestion_gives_the_same_spikes(name: str) -> None:
    net, fixes = tried(name)
    exact = [fix for fix in fixes if fix.is_exact]
    if not exact:
        return
    raster = rasters(net)
    expected = simulate(net, raster)
    for fix in exact:
        found = simulate(fix.net, raster)
        assert np.array_equal(found.output, expected.output), fix.title
        assert np.array_equal(found.output_states, expected.output_states), fix.title
        names = [layer.name for layer in fix.net.layers]
        for layer, counts in zip(net.layers, expected.counts, strict=True):
            if layer.name in names:
                assert np.array_equal(found.counts[names.index(layer.name)], counts), fix.title


@pytest.mark.parametrize("name", ZOO)
def test_suggestions_are_ranked_and_say_what_they_are(name: str) -> None:
    _, fixes = tried(name)
    ranks = [(not fix.is_exact, fix.needs_retraining) for fix in fixes]
    assert ranks == sorted(ranks)
    assert len({fix.title for fix in fixes}) == len(fixes)
    for fix in fixes:
        assert fix.title.endswith(".")
        assert fix.title[0].isupper()
        assert (fix.training is not None) == fix.needs_retraining
        assert not (fix.is_exact and fix.needs_retraining)
        if not fix.is_exact and not fix.needs_retraining:
            assert fix.caution is not None
        if fix.error is not None:
            assert 0 <= fix.error <= 0.5
        assert fix.to_dict()["kind"] == " + ".join(fix.kinds)


@pytest.mark.parametrize("misfit", MISFITS, ids=lambda misfit: misfit.name)
def test_a_draft_has_a_problem_where_its_plan_has_a_violation(misfit: Misfit) -> None:
    net = misfit.build()
    table = chip("speck2fdevkit")
    relayed, _ = with_relays(net, table.limits)
    violations = plan(net).violations
    misrounded = [violation.layer for violation in violations if violation.rule == "threshold"]
    problems = find_problems(draft_of(relayed, table, badly_rounded=misrounded))
    assert bool(problems) == bool(violations)
    rules = {violation.rule for violation in violations}
    assert {problem.rule for problem in problems} - {"crowded"} <= rules
    assert rules - {"memory"} <= {problem.rule for problem in problems}


def random_misfit(rng: np.random.Generator) -> SpikingNet:
    """Return a chain of layers of which some ask for too much: kernels, strides, paddings, pools or memory."""
    rows = []
    for _ in range(int(rng.integers(1, 5))):
        edge = int(rng.choice([1, 2, 3, 3, 5]))
        row = {
            "features": int(rng.choice([8, 16, 24, 48, 64, 128])),
            "kernel": edge if rng.random() < 0.8 else (edge, 3),
            "stride": int(rng.choice([1, 1, 2, 3])),
            "padding": int(rng.choice([1, 1, 2, 9])),
            "pool": int(rng.choice([1, 2, 2, 4, 8])) if rng.random() < 0.9 else (1, 2),
            "bias": True if rng.random() < 0.2 else None,
        }
        rows.append({**row, "dilation": 2} if rng.random() < 0.1 else row)
    return stack((2, 32, 32), [*rows, {"features": 10, "kernel": 0}])


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))])
def test_what_is_suggested_for_a_random_net_fits_and_is_what_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    try:
        net = random_misfit(rng)
    except InvalidNetError:  # its maps end before its layers do
        return
    if min(min(layer.in_shape) for layer in net.layers) < 1:
        return
    layers = (
        dataclasses.replace(
            layer,
            weight=np.round(layer.weight * 64) / 64,
            bias=None if layer.bias is None else np.round(layer.bias * 64) / 64,
        )
        for layer in net.layers
    )
    net = dataclasses.replace(net, layers=tuple(layers))
    raster = rng.integers(0, 3, (2, *net.input_shape)).astype(np.float32)
    for fix in suggest(net):
        assert plan(fix.net).fits
        if fix.is_exact:
            assert np.array_equal(simulate(fix.net, raster).output, simulate(net, raster).output), fix.title


def test_a_draft_of_a_net_that_fits_has_no_problem_and_is_that_net() -> None:
    rng = np.random.default_rng(3)
    for net in (digits_net(), gesture_net(), random_chain(rng), random_graph(rng)):
        draft = draft_of(net, chip("speck2fdevkit"))
        assert find_problems(draft) == ()
        assert draft.net().same(net)
        assert suggest(net) == ()


def test_low_rank_is_offered_with_its_error_where_the_weights_have_one() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(256, 8)) @ rng.normal(size=(8, 2048)) / 16
    rows = [{"features": 32, "kernel": 3, "padding": 1}, {"features": 256, "kernel": 0}]
    net = stack((2, 8, 8), [rows[0], {**rows[1], "weight": weight.reshape(256, 32, 8, 8)}])
    (fix,) = [fix for fix in suggest(net) if fix.kinds == ("low rank",)]
    assert fix.error is not None
    assert fix.error < 1e-3
    assert not fix.needs_retraining
    first, second = fix.net.layers[1:]
    rank = first.weight.shape[0] // 2
    product = second.weight[:, :rank, 0, 0] @ first.weight[:rank].reshape(rank, -1)
    assert np.allclose(product, weight, atol=1e-3)
    assert np.array_equal(first.weight[rank:], -first.weight[:rank])
    # The signed sums arrive, each sign by neurons of its own: over time the spikes are those of the one layer.
    raster = rasters(net, 40)
    given, found = simulate(net, raster), simulate(fix.net, raster)
    assert np.corrcoef(given.output.sum(0).ravel(), found.output.sum(0).ravel())[0, 1] > 0.9


def test_features_that_nothing_reads_are_left_out_without_a_change() -> None:
    rows = [{"features": 20, "kernel": 3, "padding": 1, "stride": 2}, {"features": 4, "kernel": 3, "padding": 1}]
    net = stack((2, 128, 128), rows)
    weight = np.round(net.layers[1].weight * 64) / 64
    weight[:, 3:7] = 0
    net = dataclasses.replace(
        net,
        layers=(
            dataclasses.replace(net.layers[0], weight=np.round(net.layers[0].weight * 64) / 64),
            dataclasses.replace(net.layers[1], weight=weight),
        ),
    )
    fix = next(fix for fix in suggest(net) if fix.kinds == ("left out features",))
    assert fix.error == 0
    raster = rasters(net)
    assert np.array_equal(simulate(fix.net, raster).output, simulate(net, raster).output)


def test_the_classes_of_a_net_are_never_changed() -> None:
    net = stack((2, 16, 16), [{"features": 64, "kernel": 3, "padding": 1}, {"features": 30, "kernel": 0}])
    fixes = suggest(net)
    assert fixes
    assert {fix.net.output_shape for fix in fixes} == {net.output_shape}


def test_a_net_whose_output_is_pooled_gets_suggestions_that_keep_its_classes() -> None:
    rows = [{"features": 512, "kernel": 4, "stride": 4}, {"features": 33, "kernel": 3, "padding": 1, "pool": 4}]
    net = stack((2, 16, 16), rows)
    fixes = suggest(net)
    assert fixes
    assert {fix.net.output_shape for fix in fixes} == {(33, 1, 1)}


def test_a_pool_behind_the_output_that_no_map_is_left_for_is_not_suggested() -> None:
    rows = [{"features": 20, "kernel": 1}, {"features": 8, "kernel": 8, "stride": 8}]
    net = stack((2, 64, 64), [*rows, {"features": 10, "kernel": 2, "stride": 2, "pool": 4}])
    for fix in suggest(net):
        assert fix.net.output_shape == net.output_shape


def test_a_suggestion_says_where_the_map_of_the_output_changes() -> None:
    fixes = suggest(single((2, 32, 32), 4, stride=3))
    assert fixes
    for fix in fixes:
        _, height, width = fix.net.output_shape or (0, 0, 0)
        assert fix.title.endswith(f"(the output is then {height}x{width}, now 10x10).")


def test_two_equal_ways_from_the_input_become_one() -> None:
    _, fixes = tried("a first layer that is fed twice")
    assert [fix.kinds for fix in fixes] == [("one entry",)]


@pytest.mark.parametrize("shift", [0, 5])
def test_no_feature_is_left_out_where_a_reader_has_channels_of_its_own(shift: int) -> None:
    wide = make_layer((2, 16, 16), 300, 1, name="wide")
    reader = make_layer((310, 16, 16), 10, 1, name="reader")
    net = SpikingNet((wide, reader), (Edge(INPUT, 0), Edge(0, 1, (1, 1), shift), Edge(1, None)), (2, 16, 16))
    assert not plan(net).fits
    assert "left out features" not in {kind for fix in suggest(net) for kind in fix.kinds}


def test_what_only_the_readout_makes_too_large_gets_suggestions() -> None:
    net = stack((2, 8, 8), [{"features": 512, "kernel": 4, "stride": 4}, {"features": 10, "kernel": 2}])
    assert plan(net).fits
    assert not plan(net, readout=True).fits
    fixes = suggest(net, readout=True)
    assert fixes
    for fix in fixes:
        assert plan(fix.net, readout=True).fits
        assert fix.net.output_shape == net.output_shape


def test_suggestions_are_planned_for_the_objective_that_was_asked_for() -> None:
    net = BY_NAME["four layers for cores 0 to 2"].build()
    fix = suggest(net, objective="fast")[0]
    assert fix.plan.objective == "fast"
    assert fix.plan.placement.cores == plan(fix.net, objective="fast").placement.cores
    assert next_command(fix, Path("fixed.safetensors"))[-2:] == ["--objective", "fast"]
    assert "--objective" not in next_command(suggest(net)[0], Path("fixed.safetensors"))


def test_a_layer_order_that_does_not_fit_is_replaced() -> None:
    net = single((2, 64, 64), 16, padding=1)
    fix = suggest(net, layer_order=[5])[0]
    assert fix.kinds == ("layer order",)
    assert fix.is_exact
    assert fix.net.same(net)
    assert (
        fix.title
        == f"Use the layer order {fix.plan.placement.cores[0] if fix.plan.placement.cores else ''}, or 'auto'."
    )


def test_another_chip_is_named_where_it_holds_the_net(monkeypatch: pytest.MonkeyPatch) -> None:
    net = single((2, 64, 64), 32, padding=1)
    given = chip("speck2fdevkit")
    large = tuple(dataclasses.replace(core, neuron_words=256 * KI) for core in given.cores)
    monkeypatch.setattr(chips, "CHIPS", (*chips.CHIPS, dataclasses.replace(given, name="larger", cores=large)))
    first = suggest(net)[0]
    assert first.kinds == ("another chip",)
    assert first.chip == "larger"
    assert first.is_exact
    assert first.net.same(net)
    assert plan(first.net, "larger").fits


def test_what_does_not_fit_with_the_readout_is_planned_with_it() -> None:
    net = stack((2, 8, 8), [{"features": 32, "kernel": 3, "padding": 1}, {"features": 10, "kernel": 0}])
    assert plan(net).fits
    assert not plan(net, readout=True).fits
    for fix in suggest(net, readout=True):
        assert plan(fix.net, readout=True).fits


def test_the_changes_of_a_fitted_net_are_planned_as_fitted_ones() -> None:
    net = fitted(BY_NAME["four layers for cores 0 to 2"].build())
    first = suggest(net)[0]
    assert first.is_exact
    expected = plan(fitted(first.net))
    assert expected.fits
    assert first.plan.net.same(expected.net)


def test_the_search_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    net = BY_NAME["two crowds"].build()
    given = plan(net)
    monkeypatch.setattr(sys.modules[suggest.__module__], "TIME_LIMIT_S", 0.0)
    suggest(net, given=given)
    start = time.perf_counter()
    fixes = suggest(net, given=given)
    assert time.perf_counter() - start < 60  # a search without an end would take the test's own limit
    assert isinstance(fixes, tuple)


def test_dense_synops_are_those_of_a_net_that_spikes_once_everywhere() -> None:
    for net in (digits_net(), random_chain(np.random.default_rng(0)), random_chain(np.random.default_rng(1))):
        trace = simulate(net, np.ones((1, *net.input_shape)))
        ones = tuple(np.ones_like(count) for count in trace.counts)
        once = dataclasses.replace(trace, counts=ones, input_counts=np.ones_like(trace.input_counts))
        assert count_synops(net, once).total == measure(net).n_synops


@pytest.mark.parametrize(
    ("options", "error"),
    [({"chip": "speck3"}, ChipNameError), ({"layer_order": [0, 0]}, LayerOrderError)],
)
def test_what_plan_refuses_is_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        suggest(single((2, 64, 64), 32, padding=1), **options)  # type: ignore[arg-type]


def test_only_a_suggestion_that_is_there_and_needs_no_training_is_applied() -> None:
    net = BY_NAME["four layers for cores 0 to 2"].build()
    fixes = suggest(net)
    assert choose(fixes, 1) is fixes[0]
    with pytest.raises(SettingError, match=r"expected 1\.\.\d, found 99"):
        choose(fixes, 99)
    trained = next(number for number, fix in enumerate(fixes, 1) if fix.needs_retraining)
    with pytest.raises(SettingError, match=r"In the CNN, .* train it and convert it again\. Try --apply 1\."):
        choose(fixes, trained)
    with pytest.raises(SettingError, match="Try plan without --apply"):
        choose(fixes[trained - 1 : trained], 1)
    with pytest.raises(SettingError, match="a change was found"):
        choose((), 1)
    assert fix_tables(()) == ["No change was found with which the net fits. Try the one named with each problem."]
