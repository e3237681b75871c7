"""Readouts against their definitions over whole curves, and by pieces; encoders and their laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.models.encoders import ENCODERS, LinearLatency, LogLatency, Poisson, Rate, find_encoder, sample_rng
from spikeport.models.errors import InferenceError
from spikeport.models.readouts import (
    READOUTS,
    Delayed,
    ExponentialMean,
    FirstSpike,
    Leaky,
    Reading,
    Readout,
    find_readout,
)

FAST = settings(max_examples=30, deadline=None)


def curve_of(seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    steps, samples = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    values = rng.normal(size=(steps, samples, 3)) * rng.integers(0, 2, (steps, samples, 3))
    ends = np.cumsum(rng.integers(1, 50, steps))[:, None].repeat(samples, axis=1)
    return values, ends, rng


def reference(name: str, values: Any, ends: Any) -> Any:
    """Return the readout of a whole curve, by its definition."""
    starts = np.concatenate([np.zeros_like(ends[:1]), ends[:-1]])[..., None].astype(float)
    if name in ("sum", "spike_count", "delayed"):
        return values.sum(axis=0)
    if name == "mean":
        return values.mean(axis=0)
    if name == "last":
        return values[-1]
    if name == "maximum":
        return values.max(axis=0)
    if name == "first_spike":
        fired = values > 0
        first = ends[fired.argmax(axis=0), np.arange(values.shape[1])[:, None]]
        return np.where(fired.any(axis=0), -first.astype(float), -np.inf)
    if name == "exponential_mean":
        weight = np.exp(-starts / ends[-1][:, None])
        return (weight * values).sum(axis=0) / weight.sum(axis=0)
    return (values * np.exp((ends[..., None] - ends[-1][:, None]) / 100_000.0)).sum(axis=0)


@FAST
@given(st.integers(0, 10**6), st.sampled_from(sorted(READOUTS)))
def test_readouts_are_what_they_are_called(seed: int, name: str) -> None:
    values, ends, rng = curve_of(seed)
    readout = find_readout(name)
    whole = Reading(readout, values.shape[1:], length_us=ends[-1])
    whole.add(values, ends)
    np.testing.assert_allclose(whole.value(), reference(name, values, ends), rtol=1e-12, atol=1e-12)
    parts = Reading(readout, values.shape[1:], length_us=ends[-1])
    cut = int(rng.integers(0, len(values) + 1))
    for part in (slice(0, cut), slice(cut, None)):
        parts.add(values[part], ends[part])
    np.testing.assert_array_equal(parts.value(), whole.value())


@FAST
@given(st.integers(0, 10**6), st.sampled_from(sorted(READOUTS)), st.booleans(), st.booleans())
def test_many_steps_at_once_are_the_steps_one_by_one(seed: int, name: str, whole: bool, masked: bool) -> None:
    values, ends, rng = curve_of(seed)
    values = np.rint(values * 3).astype(np.int64) if whole else values
    live = rng.random(values.shape[:2]) < 0.5 if masked else None
    together, singly = (Reading(find_readout(name), values.shape[1:], length_us=ends[-1]) for _ in range(2))
    together.add(values, ends, live)
    for step in range(len(values)):
        singly.add(values[step : step + 1], ends[step : step + 1], None if live is None else live[step : step + 1])
    np.testing.assert_array_equal(together.value(), singly.value())


@FAST
@given(st.integers(0, 10**6), st.sampled_from(sorted(READOUTS)))
def test_steps_behind_the_end_of_a_sample_do_not_count(seed: int, name: str) -> None:
    values, ends, rng = curve_of(seed)
    n_live = rng.integers(1, len(values) + 1, values.shape[1])
    live = np.arange(len(values))[:, None] < n_live
    lengths = ends[n_live - 1, np.arange(values.shape[1])]
    reading = Reading(find_readout(name), values.shape[1:], length_us=lengths)
    reading.add(values, ends, live)
    for row, n in enumerate(n_live):
        one = Reading(find_readout(name), (1, 3), length_us=lengths[row : row + 1])
        one.add(values[:n, row : row + 1], ends[:n, row : row + 1])
        np.testing.assert_array_equal(reading.value()[row], one.value()[0])


def test_a_delay_leaves_out_steps_that_begin_before_it() -> None:
    values = np.array([[[1.0]], [[2.0]], [[4.0]]])
    ends = np.array([[10], [20], [30]])
    for delay, expected in ((0, 7.0), (1, 6.0), (10, 6.0), (11, 4.0), (30, 0.0)):
        reading = Reading(Delayed(delay_us=delay), (1, 1), length_us=None)
        reading.add(values, ends)
        assert reading.value()[0, 0] == expected


def test_the_earliest_spike_is_the_largest() -> None:
    reading = Reading(FirstSpike(), (1, 3), length_us=None)
    reading.add(np.array([[[0, 1, 0]], [[1, 1, 0]]]), np.array([[10], [20]]))
    assert reading.value().tolist() == [[-20.0, -10.0, -np.inf]]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Leaky(0.0), "tau_us"),
        (lambda: ExponentialMean(float("nan")), "tau_us"),
        (lambda: Delayed(delay_us=-1), "delay"),
        (lambda: Reading(ExponentialMean(), (1, 1), length_us=None), "a stream has no length"),
        (lambda: find_readout("firstspike"), "Try 'first_spike'"),
        (lambda: find_encoder("poison", 4), "Try 'poisson'"),
        (lambda: Poisson(4, rate=-1.0), "rate"),
        (lambda: Rate(0), "n_steps"),
        (lambda: LinearLatency(4, first=4), "first"),
        (lambda: LogLatency(4, threshold=1.5), "threshold"),
        (lambda: Rate(4).encode(np.array([2.0]), np.random.default_rng(0)), r"0\.\.1"),
        (lambda: Poisson(4).encode(np.array([np.nan]), np.random.default_rng(0)), "finite"),
        (lambda: Rate(10**6).encode(np.zeros((500, 500)), np.random.default_rng(0)), "cells"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, match: str) -> None:
    with pytest.raises(InferenceError, match=match):
        make()


def test_a_readout_of_ones_own_is_any_object_with_three_methods() -> None:
    class Count:
        def begin(self, shape: Any, length_us: Any) -> Any:
            return (np.zeros(shape),)

        def step(self, state: Any, value: Any, start_us: Any, end_us: Any) -> Any:
            return (state[0] + 1,)

        def read(self, state: Any) -> Any:
            return state[0]

    readout: Readout = Count()
    reading = Reading(find_readout(readout), (2, 3), length_us=None)
    reading.add(np.zeros((4, 2, 3)), np.ones((4, 2), np.int64))
    assert (reading.value() == 4).all()


# encoders


@FAST
@given(st.integers(0, 10**6), st.sampled_from(sorted(ENCODERS)), st.integers(1, 20))
def test_encoders_give_steps_of_the_frames_shape_and_repeat_themselves(seed: int, name: str, n_steps: int) -> None:
    frame = np.random.default_rng(seed).random((2, 3, 4))
    encoder = find_encoder(name, n_steps)
    made = encoder.encode(frame, sample_rng(0, seed))
    assert made.shape == (n_steps, 2, 3, 4)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, encoder.encode(frame, sample_rng(0, seed)))
    if "latency" in name:
        assert made.sum(axis=0).max() <= 1
    if name == "rate":
        np.testing.assert_array_equal(made.sum(axis=0), np.rint(frame * n_steps))


def test_latency_is_linear_or_that_of_a_leaky_integrator() -> None:
    pixels = np.array([0, 1, 64, 128, 200, 255], np.uint8)
    rng = np.random.default_rng(0)
    linear = LinearLatency(11, threshold=0.0).encode(pixels, rng)
    expected = np.floor((255 - pixels.astype(float)) / 255 * 10 + 0.5)
    for index, pixel in enumerate(pixels):
        assert linear[:, index].argmax() == expected[index] if pixel else linear[:, index].sum() == 0
    log = LogLatency(40, tau_steps=8.0, threshold=0.2).encode(pixels, rng)
    for index, pixel in enumerate(pixels / 255):
        step = np.floor(8.0 * np.log(pixel / (pixel - 0.2))) if pixel > 0.2 else None
        assert (log[:, index].argmax() == step) if step is not None else log[:, index].sum() == 0


def test_poisson_spikes_as_often_as_it_should_and_can_be_signed() -> None:
    frame = np.array([0.0, 0.5, -0.5, 2.0])
    made = Poisson(20_000, rate=1.0, signed=True).encode(frame, np.random.default_rng(0))
    np.testing.assert_allclose(np.abs(made).mean(axis=0), 1 - np.exp(-np.abs(frame)), atol=0.02)
    assert (made[:, 2] <= 0).all()
    assert not Poisson(100).encode(frame, np.random.default_rng(0))[:, 2].any()
