"""Metrics against definitions; their states merge exactly in any order."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.models.errors import InferenceError
from spikeport.models.exact import exact_sum, merged, rounded
from spikeport.models.infer import evaluate
from spikeport.models.metrics import METRICS, Latency, TopK, find_metric
from spikeport.models.predictor import Response, decide, shares
from spikeport.models.seen import Seen

from .leaky import LeakyPredictor

FAST = settings(max_examples=30, deadline=None)
FLOATS = st.lists(st.floats(0, 1e300, allow_nan=False, allow_infinity=False), max_size=20)


def seen_of(values: Any, targets: Any, *, ties: Any = None, decided: Any = None) -> Seen:
    values = np.asarray(values, np.float64)
    n = len(values)
    counts = {"a": np.arange(n, dtype=np.int64), "b": np.ones(n, np.int64)}
    response = Response(
        {"output": values[None]}, np.ones((1, n), np.int64), np.ones(n, np.int64), spikes=counts, synops=counts
    )
    return Seen(
        output="output",
        indices=tuple(range(n)),
        targets=targets,
        values=values,
        tie_breaks=ties,
        curve=values[None],
        live=np.ones((1, n), np.bool_),
        lengths_us=np.full(n, 1000),
        decided_us=decided,
        response=response,
        predictor=LeakyPredictor(),
    )


@FAST
@given(FLOATS, st.randoms())
def test_sums_do_not_depend_on_order_or_parts(values: list[float], random: Any) -> None:
    total = exact_sum(values)
    cut = random.randint(0, len(values))
    assert merged(exact_sum(values[:cut]), exact_sum(values[cut:])) == total
    random.shuffle(values)
    assert exact_sum(values) == total
    expected = Fraction(0) + sum(map(Fraction, values))
    if expected < Fraction(1e307):
        assert rounded(total) == float(expected)
    assert math.isnan(rounded(total, 0))


@FAST
@given(st.integers(0, 10**6), st.sampled_from(["accuracy", "top_2", "top_k", "confusion_matrix", "latency", "spikes"]))
def test_states_of_parts_merge_to_that_of_the_whole(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 20))
    values, targets = rng.integers(0, 4, (n, 6)), rng.integers(0, 6, n)
    decided = rng.integers(-1, 5, n)
    metric = find_metric(name)
    whole = metric.update(metric.empty(), seen_of(values, targets, decided=decided))
    cut = int(rng.integers(1, n))
    a, b = (
        metric.update(metric.empty(), seen_of(values[part], targets[part], decided=decided[part]))
        for part in (slice(0, cut), slice(cut, None))
    )
    if name == "spikes":  # counts of the helper begin anew in each part
        assert metric.merge(a, b)["n"] == whole["n"]
        return
    assert metric.merge(a, b) == metric.merge(b, a) == whole
    assert metric.merge(whole, metric.empty()) == whole


@FAST
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_top_k_is_a_stable_sort(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    values, ties = rng.integers(0, 3, (10, 5)).astype(float), rng.integers(0, 2, (10, 5)).astype(float)
    labels = rng.integers(0, 5, 10)
    order = [sorted(range(5), key=lambda i: (-values[row, i], -ties[row, i], i)) for row in range(10)]
    expected = np.mean([labels[row] in order[row][:k] for row in range(10)])
    metric = TopK(k)
    assert metric.result(metric.update(metric.empty(), seen_of(values, labels, ties=ties))) == pytest.approx(expected)
    assert decide(values, ties).tolist() == [one[0] for one in order]


def test_latency_counts_when_the_decision_stayed() -> None:
    metric = Latency()
    state = metric.update(metric.empty(), seen_of(np.eye(4), None, decided=np.array([1000, 3000, -1, 2000])))
    assert metric.result(state) == {
        "n_decided": 3,
        "n_undecided": 1,
        "mean_ms": 2.0,
        "p50_ms": 2.0,
        "p90_ms": 3.0,
        "p99_ms": 3.0,
        "max_ms": 3.0,
    }
    nobody = metric.update(metric.empty(), seen_of(np.eye(2), None, decided=np.array([-1, -1])))
    assert metric.result(nobody)["p50_ms"] is None


def test_latency_in_an_evaluation_is_the_first_step_of_the_last_decision() -> None:
    raster = np.zeros((1, 6, 2, 5, 6), np.float32)
    predictor = LeakyPredictor(readout="last")
    weight = predictor.weight
    first, second = 3, 17
    assert weight[first].argmax() != weight[second].argmax()
    raster.reshape(6, -1)[0, first] = 1
    raster.reshape(6, -1)[3, second] = 50
    found = evaluate(predictor, raster, metrics={"logits": "latency"})
    assert found["latency"]["p50_ms"] == 4.0


def test_spikes_and_synops_are_means_per_sample() -> None:
    for name in ("spikes", "synops"):
        metric = find_metric(name)
        found = metric.result(metric.update(metric.empty(), seen_of(np.eye(4), None)))
        assert found == {"per_sample": (6 + 4) / 4, "layers": {"a": 1.5, "b": 1.0}}


def test_nothing_measured_is_none() -> None:
    for make in METRICS.values():
        metric = make()
        assert metric.result(metric.empty()) is None


def test_what_a_predictor_does_not_count_is_said() -> None:
    with pytest.raises(InferenceError, match="energy: expected a predictor that counts"):
        evaluate(LeakyPredictor(), np.zeros((1, 3, 2, 5, 6)), metrics="energy")
    metric = find_metric("mean_square_error")
    with pytest.raises(InferenceError, match=r"finite outputs"):
        metric.update(metric.empty(), seen_of([[np.inf]], np.zeros((1, 1))))
    with pytest.raises(InferenceError, match=r"numbers of shape \[4\]"):
        metric.update(metric.empty(), seen_of(np.eye(4), np.zeros((4, 3))))
    with pytest.raises(InferenceError, match="k of 1"):
        TopK(0)


@FAST
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6), st.sampled_from(["share", "softmax"]))
def test_shares_sum_to_one_in_the_order_of_the_values(values: list[float], how: Any) -> None:
    found = shares(np.array([values]), how)[0]
    assert found.sum() == pytest.approx(1.0)
    assert found[int(np.argmax(values))] == found.max()
