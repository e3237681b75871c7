"""The laws of the rules over activations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert import thresholds
from spikeport.convert.capture import capture
from spikeport.convert.evaluate import evaluate
from spikeport.convert.fold import fold
from spikeport.convert.graph import Graph
from spikeport.convert.thresholds import (
    Activations,
    balanced_scales,
    mse_scales,
    observe,
    percentile_scales,
    squared_error,
)


def activations(values: np.ndarray) -> Activations:
    return Activations(np.asarray(values, np.float32), np.asarray(values, np.float32).max(axis=1), 1)


def drawn(seed: int, n: int = 400, features: int = 3) -> Activations:
    rng = np.random.default_rng(seed)
    return activations(np.maximum(rng.normal(0.2, 1.0, (features, n)) * rng.uniform(0.1, 5.0, (features, 1)), 0))


def small_graph() -> Graph:
    import torch

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU6(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    return fold(capture(module, (1, 8, 8))).graph


def frames_of(n: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(6.0, (n, 1, 8, 8)).astype(np.float32)


def test_observed_activations_are_those_of_the_cnn() -> None:
    import torch

    graph, frames = small_graph(), frames_of(70)  # more than one batch
    found = observe(graph, frames)
    values = evaluate(graph, torch.from_numpy(frames))
    first = values["relu61"].numpy()  # behind the upper bound of 6
    assert first.max() == 6.0
    np.testing.assert_array_equal(np.sort(found["conv0"].values), np.sort(first.transpose(1, 0, 2, 3).reshape(4, -1)))
    np.testing.assert_array_equal(found["conv0"].highest, first.max(axis=(0, 2, 3)))
    last = np.maximum(values["linear4"].numpy().reshape(70, 5), 0)
    np.testing.assert_array_equal(np.sort(found["linear4"].values), np.sort(last.T))
    assert {found[name].n_frames for name in found} == {70}


def test_memory_stays_bounded_and_the_maximum_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = observe(small_graph(), frames_of(200))
    monkeypatch.setattr(thresholds, "_CAP", 4 * 200 * 10)
    thinned = observe(small_graph(), frames_of(200))
    assert thinned["conv0"].values.shape == (4, 200 * 10)
    np.testing.assert_array_equal(thinned["conv0"].highest, whole["conv0"].highest)
    for percentile in (50.0, 99.0):
        exact = percentile_scales(whole["conv0"].merged(), percentile, positive=True)
        assert percentile_scales(thinned["conv0"].merged(), percentile, positive=True) == pytest.approx(exact, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 100.0), st.booleans())
def test_percentiles_are_those_of_numpy_and_100_is_the_maximum(seed: int, percentile: float, positive: bool) -> None:
    found = drawn(seed)
    scales = percentile_scales(found, percentile, positive=positive)
    for values, scale in zip(found.values, scales, strict=True):
        chosen = values[values > 0] if positive else values
        assert scale == pytest.approx(float(np.percentile(chosen, percentile)), rel=1e-6)
    np.testing.assert_array_equal(percentile_scales(found, 100, positive=positive), found.highest)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 60.0), st.sampled_from([0.0, 0.5]), st.floats(0.02, 1.0))
def test_no_scale_of_the_grid_has_a_smaller_squared_error(seed: int, spikes: float, start: float, share: float) -> None:
    found = drawn(seed, features=1)
    (scale,) = mse_scales(found, spikes, start=start)
    positive = found.values[found.values > 0]
    nearest = thresholds._GRID[np.abs(thresholds._GRID - share).argmin()]
    other = squared_error(positive, float(found.highest[0] * nearest), spikes=spikes, start=start)
    assert squared_error(positive, float(scale), spikes=spikes, start=start) <= other * (1 + 1e-9)


def test_more_spikes_clip_less_and_half_a_threshold_rounds_better() -> None:
    found = drawn(1, n=5000)
    pairs = [[mse_scales(found, spikes, start=0.5) for spikes in (2.0, 50.0)]]
    pairs += [[balanced_scales(found, spikes) for spikes in (2.0, 50.0)]]
    for few, many in pairs:
        assert np.all(few < many)
        assert np.all(many <= found.highest * 1.001)
    (scale,) = mse_scales(found.merged(), 10, start=0.5)
    positive = found.values[found.values > 0]
    errors = [squared_error(positive, float(scale), spikes=10, start=start) for start in (0.0, 0.5)]
    assert errors[1] < errors[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 50.0))
def test_at_a_balanced_scale_the_expected_squared_error_stands_still(seed: int, spikes: float) -> None:
    found = drawn(seed, features=1)
    (scale,) = balanced_scales(found, spikes)
    positive = found.values[found.values > 0].astype(np.float64)

    def expected_error(at: float) -> float:
        is_clipped = positive > at
        return float((np.square(positive - at) * is_clipped).mean() + (1 - is_clipped.mean()) * (at / spikes) ** 2 / 12)

    clipped = 2 * np.maximum(positive - scale, 0).mean()
    rounded = scale * (positive <= scale).mean() / (6 * spikes**2)
    one_more = scale / (6 * spikes**2) / len(positive)  # the share of rounded ones moves in steps
    assert clipped == pytest.approx(rounded, abs=1e-5 * scale + one_more)
    assert expected_error(scale) <= min(expected_error(scale * 1.5), expected_error(scale / 1.5))


def test_silent_features_have_no_scale_and_many_values_are_searched_by_their_quantiles() -> None:
    silent = activations(np.zeros((2, 10)))
    assert silent.is_silent
    rules = (
        percentile_scales(silent, 99.9, positive=True),
        mse_scales(silent, 10, start=0.0),
        balanced_scales(silent, 10),
    )
    assert all(scale == 0 for scales in rules for scale in scales)
    many = drawn(3, n=200_000, features=1)
    assert len(thresholds._quantiles(many.values[0])) == thresholds._QUANTILES
    some = activations(many.values[:, ::20])
    assert mse_scales(many, 10, start=0.5) == pytest.approx(mse_scales(some, 10, start=0.5), rel=0.2)
