"""The laws of the search for scales: what is judged is what you get, within the budget, at its price."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert.calibrate import Search, fit_budget, search
from spikeport.convert.candidates import Setting, baselines, coarse_grid, references, variants
from spikeport.convert.choice import SearchSettings, badness, choose, promising, spikes_within
from spikeport.convert.errors import CalibrationError, UnsupportedLayerError
from spikeport.convert.judging import LabelledSamples, Verdict, judge_scores, judge_spiking, label_recordings
from spikeport.convert.normalize import Scaling
from spikeport.convert.pipeline import convert
from spikeport.convert.simulate import simulate
from spikeport.convert.synops import count_synops
from spikeport.models.events import Events

from .blobs import SHAPE, blob_cnn, blob_samples

SMALL = SearchSettings(n_kept=2, v_mins=(-1.0, None))
ZERO = np.zeros(1, np.int64)
ONE_EVENT = Events(ZERO, ZERO, ZERO, ZERO, (8, 8))


@pytest.fixture(scope="module")
def found() -> Search:
    return search(blob_cnn(), SHAPE, blob_samples(), settings=SMALL)


def verdict_of(loss: float, synops: float, n: int = 20) -> Verdict:
    """Return a verdict of two classes in which every sample has the same loss below 1 bit."""
    bits = np.tile([loss, -math.log2(1 - 2**-loss)], (n, 1))
    return Verdict(np.ones(n, bool), np.full(n, loss), bits, synops)


def setting_of(spikes: float, v_min: float | None = -1.0) -> Setting:
    return Setting(Scaling(spikes=spikes, n_steps=4), v_min)


# the search


def test_the_net_that_was_judged_is_the_net_that_is_returned(found: Search) -> None:
    samples = blob_samples()
    assert found.best in found.trials
    assert found.best.n_samples == len(samples)
    again = judge_spiking(found.conversion.net, samples)
    assert again.accuracy == found.best.accuracy
    assert again.synops_per_sample == pytest.approx(found.best.synops_per_sample, rel=1e-12)
    assert found.conversion.gate.max_error < 1e-4


def test_the_conversion_is_what_convert_makes_of_the_setting(found: Search) -> None:
    samples, best = blob_samples(), found.best.setting
    order = np.random.default_rng(0).permutation(len(samples))[: found.n_calibration]
    frames = samples.subset(order).frames
    assert found.n_calibration == len(samples) // 3
    again = convert(blob_cnn(), SHAPE, data=frames, scaling=best.scaling, v_min=best.v_min)
    assert again.net.same(found.conversion.net)


def usual(n_steps: int) -> Setting:
    return Setting(Scaling(n_steps=n_steps, start="calibrated"), None)


def test_baselines_are_judged_to_the_end_and_every_setting_once(found: Search) -> None:
    judged = {trial.setting: trial.n_samples for trial in found.trials}
    assert len(judged) == len(found.trials)
    assert [judged[setting] for setting in baselines(4, usual(4))] == [len(blob_samples())] * 3
    assert set(judged) >= set(coarse_grid(4, (-1.0, None)))
    known = [trial.accuracy for trial in found.trials if trial.setting in baselines(4, usual(4))]
    assert found.best.accuracy >= max(known)


def test_equal_searches_are_equal_and_another_seed_splits_otherwise() -> None:
    samples = blob_samples(18, n_steps=1)
    first, again, other = (
        search(blob_cnn(), SHAPE, samples, settings=dataclasses.replace(SMALL, seed=seed)) for seed in (0, 0, 1)
    )
    assert again.trials == first.trials
    assert again.conversion.net.same(first.conversion.net)
    assert other.trials != first.trials


def test_a_budget_is_kept_and_slack_makes_it_cheaper(found: Search) -> None:
    budget = found.best.synops_per_sample * 0.6
    one_bound = dataclasses.replace(SMALL, v_mins=(None,))
    limited = search(blob_cnn(), SHAPE, blob_samples(), budget=budget, settings=one_bound)
    assert limited.best.synops_per_sample <= budget
    assert count_synops(limited.conversion.net, simulate(limited.conversion.net, blob_samples().raster)).total <= (
        budget * len(blob_samples())
    )
    slack = search(blob_cnn(), SHAPE, blob_samples(), settings=dataclasses.replace(one_bound, accuracy_slack=0.2))
    assert slack.best.synops_per_sample < found.best.synops_per_sample
    assert slack.best.accuracy >= max(trial.accuracy for trial in found.trials) - 0.25


def test_one_step_is_enough_and_needs_no_lower_bound() -> None:
    found = search(blob_cnn(), SHAPE, blob_samples(48, n_steps=1), settings=SMALL)
    assert {trial.setting.v_min for trial in found.trials} == {-1.0, None}  # None: what convert does unasked
    assert len(baselines(1, usual(1))) == 2  # a net of one step is as trained either way
    assert found.best.accuracy >= max(t.accuracy for t in found.trials if t.setting in baselines(1, usual(1)))


def test_any_objective_may_judge() -> None:
    seen: list[int] = []

    def judge(net: object, samples: LabelledSamples) -> Verdict:
        seen.append(len(samples))
        return verdict_of(0.5, 100.0 + len(seen), len(samples))

    found = search(blob_cnn(), SHAPE, blob_samples(70), objective=judge, settings=SMALL)
    assert set(seen) == {64, 70}
    cheapest = min(t.synops_per_sample for t in found.trials if t.n_samples == 70)
    assert found.best.synops_per_sample == cheapest


def test_a_budget_that_input_events_alone_exceed_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"budget: expected at least .* synops per sample, which input events"):
        search(blob_cnn(), SHAPE, blob_samples(24), budget=10.0, settings=SMALL)


def test_fit_budget_finds_the_largest_spike_count_within_the_budget() -> None:
    samples, setting = blob_samples(24), Setting(Scaling(n_steps=4, start="half"), None)
    found = fit_budget(blob_cnn(), SHAPE, samples, budget=8000.0, setting=setting)
    assert found.best.synops_per_sample <= 8000.0 < 1.3 * found.best.synops_per_sample
    more = fit_budget(blob_cnn(), SHAPE, samples, budget=16000.0, setting=setting)
    assert more.best.setting.scaling.spikes > found.best.setting.scaling.spikes
    assert dataclasses.replace(found.best.setting, scaling=setting.scaling) == setting
    over = [trial for trial in found.trials if trial.synops_per_sample > 8000.0]
    nearest = min(trial.setting.scaling.spikes for trial in over)
    assert nearest <= found.best.setting.scaling.spikes * 1.02 * (1 + 1e-9)


def test_what_cannot_be_converted_is_refused_unless_replaced() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    with pytest.raises(UnsupportedLayerError):
        search(module, SHAPE, blob_samples(12), settings=SMALL)
    replaced = dataclasses.replace(SMALL, n_kept=1, replace=("maxpool=avgpool",))
    found = search(module, SHAPE, blob_samples(12), settings=replaced)
    assert found.conversion.replacement is not None


def test_the_record_is_plain_values(found: Search) -> None:
    import json

    told = json.loads(json.dumps(found.to_dict()))
    assert told["best"]["name"] == str(found.best.setting)
    assert len(told["trials"]) == len(found.trials)
    assert told["n_calibration"] == 32


# candidates


def test_settings_tell_what_they_are_and_neighbors_differ_in_one_thing() -> None:
    scaling = Scaling(spikes=2.5, n_steps=4, start="calibrated", share="cost")
    setting = Setting(scaling, None)
    text = "percentile 99.9 of positive, 2.5 spikes by cost, calibrated start, no lower bound"
    assert str(setting) == text
    neighbors = list(variants(setting))
    assert len(neighbors) == len(set(neighbors))
    for other in neighbors:
        changed = [
            field.name
            for field in dataclasses.fields(Scaling)
            if getattr(scaling, field.name) != getattr(other.scaling, field.name)
        ]
        assert len(changed) + (other.v_min != setting.v_min) == 1
    assert len({str(other) for other in neighbors}) == len(neighbors)
    bounded = {other.v_min for other in variants(Setting(scaling, -2.0))}
    assert bounded == {-2.0, -1.0, -4.0}
    single = dataclasses.replace(scaling, n_steps=1)
    assert {other.v_min for other in variants(Setting(single, -2.0))} == {-2.0}
    assert set(references(4, None)) <= set(coarse_grid(4, (None,)))


# choice


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1e3), st.floats(0.0, 1e4), st.floats(0.5, 2.0), st.floats(1e-2, 1e3))
def test_spikes_within_a_budget_are_the_most_there_are(slope: float, fixed: float, power: float, start: float) -> None:
    def cost(spikes: float) -> float:
        return fixed + slope * float(spikes**power)

    budget = fixed + slope * 40.0**power
    spikes = spikes_within(cost, budget, start=start)
    assert spikes <= 40.0 * (1 + 1e-9)
    assert spikes * 1.021 >= 40.0


def test_spikes_within_end_at_both_ends_of_their_range() -> None:
    assert spikes_within(lambda spikes: 1.0, 2.0, start=20.0) == 1e4
    with pytest.raises(CalibrationError, match="expected at least 3 synops per sample"):
        spikes_within(lambda spikes: 3.0, 2.0, start=20.0)


def test_the_choice_is_the_least_badness_at_its_price() -> None:
    verdicts = {setting_of(5): verdict_of(0.10, 1000), setting_of(10): verdict_of(0.099, 2000)}
    assert choose(verdicts, SearchSettings()) == setting_of(5)  # a thousandth of a bit is not worth twice the synops
    assert choose(verdicts, SearchSettings(price=0.0)) == setting_of(10)
    assert choose(verdicts, SearchSettings(price=0.0), budget=1500) == setting_of(5)
    assert choose(verdicts, SearchSettings(), budget=500) is None
    worse = {**verdicts, setting_of(1): verdict_of(0.2, 10)}
    assert choose(worse, SearchSettings()) == setting_of(5)
    assert choose(worse, SearchSettings(accuracy_slack=0.2)) == setting_of(1)
    wrong = dataclasses.replace(verdict_of(0.01, 5), is_correct=np.zeros(20, bool))
    lower = {setting_of(0.5): wrong, setting_of(5): verdict_of(0.1, 1000)}
    assert choose(lower, SearchSettings()) == setting_of(0.5)
    assert choose(lower, SearchSettings(), baselines=[setting_of(5)]) == setting_of(5)  # never less accurate than it
    assert choose(lower, SearchSettings(), baselines=[setting_of(5)], budget=10) == setting_of(0.5)
    assert promising({}, SearchSettings(), budget=1.0) == ()
    kept = promising(worse, SearchSettings(n_kept=2, price=0.003))
    assert kept == (setting_of(5), setting_of(10), setting_of(1))  # the last at four times the price


def test_luck_on_labels_counts_half_where_a_setting_is_far_from_its_reference() -> None:
    (reference, _) = references(4, None)
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(400, 4)), np.zeros(400, np.int64)
    scores[:, 0] += 2.0
    exact = judge_scores(scores, scores.argmax(1), labels, n_synops=400_000)
    luckier = scores.copy()
    wrong = np.flatnonzero(scores.argmax(1) != 0)
    luckier[wrong[:2], 0] += 3.0  # right by accident
    others = rng.permutation(400)[:150]
    luckier[others] = np.roll(luckier[others], 1, axis=1)[:, [1, 0, 3, 2]]  # and unlike the reference elsewhere
    lucky = judge_scores(luckier, luckier.argmax(1), labels, n_synops=400_000)
    bad = badness({reference: exact, setting_of(2, None): lucky})
    assert lucky.loss < exact.loss
    assert bad[reference] == pytest.approx(exact.loss)
    assert bad[setting_of(2, None)] > bad[reference]
    beaten = {reference: exact, setting_of(2, None): dataclasses.replace(exact, losses=exact.losses * 0.5)}
    assert badness(beaten)[setting_of(2, None)] == pytest.approx(exact.loss / 2)  # far better on every sample: no luck
    assert badness({setting_of(2): lucky})[setting_of(2)] == pytest.approx(lucky.loss)  # nothing to compare with


# judging


def test_scores_have_the_order_of_predictions() -> None:
    samples = blob_samples(60)
    for v_min in (-1.0, None):
        net = convert(blob_cnn(), SHAPE, data=samples.frames, scaling=Scaling(spikes=3, n_steps=4), v_min=v_min).net
        verdict, trace = judge_spiking(net, samples), simulate(net, samples.raster)
        assert verdict.is_correct.tolist() == (trace.predictions() == samples.labels).tolist()
        assert verdict.bits.argmin(axis=1).tolist() == trace.predictions().tolist()
        assert verdict.synops_per_sample == count_synops(net, trace).total / 60


def test_losses_do_not_depend_on_how_many_spikes_the_output_emits() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(60, 5)), rng.integers(0, 5, 60)
    scores[np.arange(60), labels] += 1.5
    one, many = (judge_scores(s, s.argmax(1), labels, n_synops=1) for s in (scores, 7.0 * scores))
    np.testing.assert_allclose(one.losses, many.losses, atol=0.03)
    np.testing.assert_allclose(np.exp2(-one.bits).sum(axis=1), 1.0)
    assert one.losses.max() <= 1.0
    assert one.accuracy == (scores.argmax(1) == labels).mean()
    better = scores.copy()
    better[np.arange(60), labels] += 1.0
    assert judge_scores(better, better.argmax(1), labels, n_synops=1).loss < one.loss


def test_recordings_become_labelled_rasters_of_equal_length() -> None:
    places = np.arange(2)
    events = [Events(places + 1, places, places, np.array(times), (4, 4)) for times in ([5000, 5010], [0, 25_000])]
    other = Events(places, places, places, places, (5, 5))
    samples = label_recordings(events, [0, 1])
    assert samples.raster.shape == (3, 2, 2, 4, 4)
    assert samples.raster.sum() == 4
    assert samples.recordings is not None
    assert [int(recording.t_us[0]) for recording in samples.recordings] == [0, 0]
    assert label_recordings(events, [0, 1], merge_polarity=True).raster.shape == (3, 2, 1, 4, 4)
    assert samples.subset([1]).recordings == (samples.recordings[1],)
    with pytest.raises(CalibrationError, match="one sensor size"):
        label_recordings([*events, other], [0, 1, 2])
    with pytest.raises(CalibrationError, match="one sensor size"):
        label_recordings([], [])


# bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raster": np.ones((4, 3, 1, 8, 8))}, r"expected a raster \[T, N, C, H, W\] with N labels"),
        ({"raster": np.ones((12, 1, 8, 8))}, r"expected a raster \[T, N, C, H, W\] with N labels"),
        ({"raster": np.zeros((4, 12, 1, 8, 8))}, "expected event counts of 0 or more"),
        ({"raster": np.full((4, 12, 1, 8, 8), np.nan)}, "expected event counts of 0 or more"),
        ({"raster": -np.ones((4, 12, 1, 8, 8))}, "expected event counts of 0 or more"),
        ({"labels": np.full(12, -1)}, "expected labels of 0 or more, found -1"),
        (
            {"recordings": (ONE_EVENT,)},
            "expected a recording for each of 12 labels, found 1",
        ),
    ],
)
def test_samples_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        dataclasses.replace(blob_samples(12), **changes)  # type: ignore[arg-type]


def test_too_few_samples_foreign_shapes_and_labels_are_refused() -> None:
    with pytest.raises(CalibrationError, match="expected 4 or more, found 3"):
        search(blob_cnn(), SHAPE, blob_samples(3))
    with pytest.raises(CalibrationError, match="expected labels below 4, the classes of the net, found 7"):
        search(blob_cnn(), SHAPE, dataclasses.replace(blob_samples(12), labels=np.full(12, 7)))
    with pytest.raises(CalibrationError, match=r"expected frames \[N, 1, 8, 8\]"):
        search(blob_cnn(), SHAPE, LabelledSamples(np.ones((4, 12, 1, 9, 9)), np.zeros(12, np.int64)))


@pytest.mark.parametrize("changes", [{"price": -0.1}, {"accuracy_slack": 1.0}, {"v_mins": ()}, {"n_kept": 0}])
def test_search_settings_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match="expected"):
        dataclasses.replace(SearchSettings(), **changes)  # type: ignore[arg-type]
