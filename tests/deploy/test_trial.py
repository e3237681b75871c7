"""High resolution event by event, the trial of fitted layers, and fitted nets on their way to a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spikeport.convert.geometry import Shape3
from spikeport.deploy import trial
from spikeport.deploy.activity import measure_activity
from spikeport.deploy.artifact import program_bytes
from spikeport.deploy.discretize import FittedNet, discretize, fitted, fitted_like
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import SettingError
from spikeport.deploy.losses import report_losses
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.plan import plan
from spikeport.deploy.resolution import (
    as_fine,
    class_counts,
    count_changes,
    enter_events,
    enter_raster,
    fine,
    run_fine,
)
from spikeport.deploy.trial import fit_as_asked, fit_to
from spikeport.models.events import Events

from .nets import branch_net, digits_net, random_graph, stack


def noise(shape: Shape3, n: int = 400, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    t_us = np.sort(rng.integers(0, 20_000, n))
    _, height, width = shape
    x, y = rng.integers(0, width, n), rng.integers(0, height, n)
    return Events(x, y, rng.integers(0, 2, n), t_us, (height, width))


def rasters(net: Any, n: int = 4, seed: int = 0) -> Any:
    return np.random.default_rng(seed).poisson(0.15, (6, n, *net.input_shape))


@pytest.mark.parametrize("clock", [None, 1000.0])
def test_the_fine_loop_counts_the_spikes_that_the_emulator_counts(clock: float | None) -> None:
    for seed in range(3):
        net = stack((2, 12, 12), [{"features": 4, "padding": 1, "pool": 2, "bias": True}, {"features": 3, "stride": 2}])
        net = net if seed == 0 else branch_net()
        program = compile_program(net)
        events = noise(net.input_shape, seed=seed)
        outcome = Emulator(program, slow_clock_hz=clock).run(events, record="all")
        found = run_fine(as_fine(discretize(net)), enter_events(events, net.input_shape[0], slow_clock_hz=clock))
        for core, counts in zip(program.cores, found, strict=True):
            assert_array_equal(counts, outcome.counts[core.core])
        assert sum(int(counts.sum()) for counts in found) > 0


def test_high_resolution_and_integers_agree_where_the_integers_are_exact() -> None:
    for seed in range(4):
        net = random_graph(np.random.default_rng(seed))
        integers, entering = as_fine(discretize(net)), enter_raster(rasters(net)[:, 0])
        for exact, whole in zip(run_fine(fine(net), entering), run_fine(integers, entering), strict=True):
            assert_array_equal(exact, whole)
        changed = count_changes(fine(net), [integers], entering)
        assert not changed[:, 0].any()
        assert changed[:, 1].any()


def test_a_raster_enters_as_the_events_it_counts_in_the_order_of_its_steps() -> None:
    raster = np.random.default_rng(0).poisson(0.5, (5, 2, 3, 4))
    entering = enter_raster(raster, seed=3)
    back = np.zeros_like(raster)
    np.add.at(back, (entering.ticks - 1, *entering.events[:, 1:].T), 1)
    assert_array_equal(back, raster)
    assert (np.diff(entering.ticks) >= 0).all()
    assert_array_equal(entering.events[:, 0], np.arange(raster.sum()))


def test_classes_are_read_behind_pools_and_shifts() -> None:
    net = fine(digits_net())
    counts = run_fine(net, enter_raster(rasters(digits_net())[:, 0]))
    assert_array_equal(class_counts(net, counts), counts[-1].reshape(-1))


def test_in_the_trial_no_layer_changes_more_spikes_than_by_the_vendor() -> None:
    net = digits_net()
    raster = rasters(net)
    variants = [as_fine(discretize(net)), as_fine(discretize(fit_to(net, raster)))]
    changed = np.stack([count_changes(fine(net), variants, enter_raster(raster[:, i], seed=i)) for i in range(4)]).sum(
        0
    )
    assert (changed[:, 1] <= changed[:, 0]).all()
    assert changed[:, 1].sum() < 0.7 * changed[:, 0].sum()


def test_each_layer_gets_the_integers_that_won_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    net = digits_net()
    changed = np.array([[9, 1, 2, 3], [1, 2, 3, 4], [9, 9, 1, 9], [9, 9, 9, 1], [5, 5, 5, 5]])
    monkeypatch.setattr(trial, "_count_changes", lambda *_: changed)
    raster = rasters(net)
    found = fit_to(net, raster)
    assert found.activity is not None
    assert found.activity.kept == {"layer1", "layer4"}
    assert set(found.activity.moments) == {"layer0", "layer2"}
    for name, span in (("layer0", 1), ("layer2", 4)):
        assert_allclose(found.activity.moments[name], measure_activity(net, raster, n_together=span).moments[name])
    ours, theirs = discretize(found), discretize(net)
    assert ours.layers[3].same(discretize(fitted(net)).layers[3])
    assert ours.layers[1].same(theirs.layers[1])
    assert not ours.layers[0].same(theirs.layers[0])


def test_what_has_no_events_is_fitted_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_count_changes", lambda *_: pytest.fail("tried"))
    net = stack((2, 6, 6), [{"features": 3}])
    assert fit_to(net, np.full((4, 2, 6, 6), 0.25)).activity is not None
    upsampled = stack((2, 6, 6), [{"features": 3, "upsample": 2}])
    assert fit_to(upsampled, np.ones((4, 2, 6, 6))).activity is not None


# on the way to a program


def test_a_fitted_net_becomes_a_program_of_its_integers_and_says_so() -> None:
    net = digits_net()
    ours = fitted(net, measure_activity(net, rasters(net)))
    program = compile_program(ours)
    for core, integer in zip(program.cores, discretize(ours).layers, strict=True):
        assert_array_equal(core.weight, integer.weight)
        assert core.threshold_high == integer.threshold_high
    assert ours.activity is not None
    assert program.provenance["rounding"] == {"fitted": ours.activity.sha256()}
    assert compile_program(fitted(net)).provenance["rounding"] == {"fitted": None}
    assert "rounding" not in compile_program(net).provenance
    again = fitted(net, measure_activity(net, rasters(net)))
    assert program_bytes(compile_program(again)) == program_bytes(program)


def test_a_rewritten_net_is_fitted_where_it_reads_as_before() -> None:
    net = branch_net()
    given = fitted(net, measure_activity(net, rasters(net)))
    assert given.activity is not None
    for rewritten in (net, plan(given, readout=True).net):
        assert len(rewritten.layers) >= len(net.layers)
    kept = fitted_like(net, given)
    assert isinstance(kept, FittedNet)
    assert kept.same(given)
    assert fitted_like(net, net) is net
    moved = stack(net.input_shape, [{"features": 3, "name": "both"}])
    other = fitted_like(moved, given)
    assert isinstance(other, FittedNet)
    assert other.activity is not None
    assert not other.activity.moments
    plain = fitted_like(moved, fitted(net))
    assert isinstance(plain, FittedNet)
    assert plain.activity is None


def test_the_report_counts_what_became_of_the_weights() -> None:
    net = digits_net()
    ours = fitted(net, measure_activity(net, rasters(net)))
    found = plan(ours).losses
    assert found.is_measured
    assert found.is_fitted
    for layer, theirs, integer, row in zip(
        net.layers, discretize(net).layers, discretize(ours).layers, found.layers, strict=True
    ):
        assert (row.layer, row.n_weights) == (layer.name, layer.weight.size)
        assert row.fitted is not None
        for loss, one in ((row.vendor, theirs), (row.fitted, integer)):
            assert loss.threshold == one.threshold_high
            assert loss.n_zeroed == np.count_nonzero(layer.weight) - np.count_nonzero(one.weight)
            assert loss.n_surplus == (one.weight > one.threshold_high).sum()
        assert row.vendor.n_clipped == 0
        assert row.vendor.error is not None
        assert row.fitted.error is not None
        assert row.fitted.error < row.vendor.error
    assert found.to_dict()["layers"][0]["vendor"]["threshold"] == found.layers[0].vendor.threshold
    assert [row[0] for row in found.rows()] == [layer.name for layer in net.layers]
    assert all(" / " in cell for row in found.rows() for cell in row[2:])


def test_without_a_fit_the_report_has_the_vendors_numbers_only() -> None:
    found = plan(digits_net()).losses
    assert not found.is_fitted
    assert not found.is_measured
    assert all(layer.fitted is None for layer in found.layers)
    dead = stack((2, 6, 6), [{"features": 3, "weight": np.zeros((3, 2, 3, 3))}])
    (row,) = report_losses(dead, discretize(dead)).layers
    assert row.vendor.error is None
    assert found.rows()
    assert report_losses(dead, discretize(dead)).rows()[0][-1] == "none"


def test_options_of_a_command_say_what_is_fitted_to_what() -> None:
    net = digits_net()
    assert fit_as_asked(net, "vendor", None) is net
    without = fit_as_asked(net, "fitted", None)
    assert isinstance(without, FittedNet)
    assert without.activity is None
    with pytest.raises(SettingError, match="expected none for the vendor's rounding"):
        fit_as_asked(net, "vendor", "digits")


def test_a_threshold_far_below_the_lower_bound_still_makes_a_program() -> None:
    weight = np.full((2, 1, 3, 3), 1e-5, np.float32)
    net = fitted(stack((1, 6, 6), [{"features": 2, "kernel": 3, "weight": weight, "threshold": 2e-5, "v_min": -1.0}]))
    assert plan(net).fits
    (core,) = compile_program(net).cores
    assert core.threshold_low == -32768
    tiny = stack((1, 6, 6), [{"features": 2, "kernel": 3, "v_min": -1e-310}])
    assert compile_program(fitted(tiny)).cores[0].threshold_low == -1


def test_silent_layers_and_rasters_that_are_no_events_are_fitted_all_the_same() -> None:
    net = stack((1, 6, 6), [{"features": 2, "kernel": 3, "weight": np.zeros((2, 1, 3, 3), np.float32)}])
    counts = np.random.default_rng(0).integers(0, 3, (4, 1, 6, 6))
    assert isinstance(fit_to(net, counts), FittedNet)
    assert isinstance(fit_to(branch_net(), -rasters(branch_net())), FittedNet)


def test_a_sample_with_more_events_than_a_trial_may_have_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_MOST_TRIED", 3)
    monkeypatch.setattr(trial, "enter_raster", None)  # would be called for a trial
    net = branch_net()
    assert isinstance(fit_to(net, rasters(net)), FittedNet)


@pytest.mark.parametrize("seed", range(8))
def test_the_formula_of_the_vendor_clips_no_weight(seed: int) -> None:
    net = random_graph(np.random.default_rng(seed))
    assert all(one.vendor.n_clipped == 0 for one in report_losses(net, discretize(net)).layers)
