"""Laws of the backlog: nothing is lost, however rarely it is taken, and it never grows."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.view import backlog as module
from spikeport.deploy.view import recent
from spikeport.deploy.view.backlog import MAX_WINDOWS, Audience, Backlog, Frame, cells_of, n_cells
from spikeport.deploy.view.recent import PAST_WINDOWS, Recent
from spikeport.deploy.view.types import CoreCounts, Stretch, Totals

from .clients import N_CLASSES, SENSOR, START, stretch, window

SO_FAR = np.zeros(N_CLASSES, np.int64)


def take(backlog: Backlog) -> Frame:
    return backlog.take(START, Totals(), SO_FAR)


def drawn(frame: Frame) -> np.ndarray:
    """Return the events of a frame per polarity and pixel, however it carries them."""
    if frame.image is not None:
        return frame.image.astype(np.int64)
    assert frame.points is not None
    height, width = SENSOR
    y, x, p = frame.points // (2 * width), frame.points // 2 % width, frame.points % 2
    image = np.zeros((2, height, width), np.int64)
    np.add.at(image, (p, y, x), 1)
    return image


def raster(stretches: list[Stretch]) -> np.ndarray:
    image = np.zeros((2, *SENSOR), np.int64)
    for one in stretches:
        for x, y, p in zip(one.events.x, one.events.y, one.events.p, strict=True):
            image[p, y, x] += 1
    return image


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 150), st.booleans()), max_size=12))
def test_the_frames_sum_to_the_stretches_wherever_they_are_taken(plan: list[tuple[int, bool]]) -> None:
    backlog, frames, stretches = Backlog(), [], []
    for index, (n_events, is_taken) in enumerate(plan):
        stretches.append(stretch(1000 * index, 1000 * (index + 1), n_events=n_events, seed=index))
        backlog.on_stretch(stretches[-1])
        if is_taken:
            frames.append(take(backlog))
    frames.append(take(backlog))
    assert sum(frame.n_events for frame in frames) == sum(len(one.events) for one in stretches)
    assert sum(frame.span_us for frame in frames) == 1000 * len(plan)
    assert np.array_equal(
        sum(drawn(f) for f in frames if f.points is not None or f.image is not None), raster(stretches)
    ) or (not stretches)
    for field in ("n_events", "n_spikes", "synops"):
        told = sum(getattr(frame.cores[4], field) for frame in frames if 4 in frame.cores)
        assert told == sum(getattr(one.cores[4], field) for one in stretches)
    assert all(frame.cores[4].n_dropped is None for frame in frames if 4 in frame.cores)
    maps = [frame.maps[4] for frame in frames if 4 in frame.maps]
    assert np.array_equal(sum(maps, np.zeros((3, 4))), sum((one.maps[4] for one in stretches), np.zeros((3, 4))))
    joules = sum(frame.power_w["ram"] * frame.span_us for frame in frames if frame.power_w)
    assert np.isclose(joules, sum(one.power_w["ram"] * 1000 for one in stretches if one.power_w))


def test_a_frame_carries_points_while_they_are_smaller_than_the_image() -> None:
    most = n_cells(SENSOR) // 2 - 1
    backlog = Backlog()
    backlog.on_stretch(stretch(0, 10, n_events=most))
    frame = take(backlog)
    assert frame.points is not None
    assert frame.points.dtype == np.uint16
    assert frame.points.nbytes < n_cells(SENSOR)
    backlog.on_stretch(stretch(0, 10, n_events=most))
    backlog.on_stretch(stretch(10, 20, n_events=1))
    frame = take(backlog)
    assert frame.points is None
    assert frame.image is not None
    assert frame.image.nbytes == n_cells(SENSOR)


def test_points_of_a_large_sensor_take_four_bytes() -> None:
    backlog, large = Backlog(), stretch(0, 1000, n_events=20, sensor=(200, 300))
    backlog.on_stretch(large)
    points = take(backlog).points
    assert points is not None
    assert points.dtype == np.uint32
    assert np.array_equal(points, (large.events.y.astype(int) * 300 + large.events.x) * 2 + large.events.p)


def test_an_image_saturates_and_its_count_does_not() -> None:
    one = stretch(0, 10, n_events=3000)
    still = Stretch(
        0, 10, type(one.events)(*(np.zeros(3000, int),) * 4, SENSOR), one.spikes, one.cores, one.maps, one.power_w
    )
    backlog = Backlog()
    backlog.on_stretch(still)
    frame = take(backlog)
    assert frame.image is not None
    assert frame.image.max() == module.MAX_SHOWN == frame.image[0, 0, 0]
    assert frame.n_events == 3000


def test_an_image_never_runs_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEW_ENOUGH", 1000)
    backlog, pieces = Backlog(), [stretch(0, 10, n_events=400, seed=seed) for seed in range(10)]
    for piece in pieces:
        backlog.on_stretch(piece)
    assert np.array_equal(drawn(take(backlog)), np.minimum(raster(pieces), 255))


def test_another_sensor_starts_another_picture() -> None:
    backlog = Backlog()
    backlog.on_stretch(stretch(0, 10, n_events=300))
    backlog.on_stretch(stretch(10, 20, n_events=5, sensor=(6, 6)))
    frame = take(backlog)
    assert frame.points is not None
    assert len(frame.points) == 5
    assert frame.n_events == 305


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(("window", "reset", "take")), max_size=40), st.integers(0, 2 * MAX_WINDOWS))
def test_each_window_is_listed_once_or_counted_as_skipped(plan: list[str], n_first: int) -> None:
    backlog, frames, index = Backlog(), [], 0
    for step in ["window"] * n_first + plan:
        if step == "window":
            backlog.on_window(window(index, (index % 5, 1, 0)))
            index += 1
        elif step == "reset":
            backlog.on_reset(START)
        else:
            frames.append(take(backlog))
    frames.append(take(backlog))
    listed = [one for frame in frames for one in frame.windows]
    assert len(listed) + sum(frame.n_skipped_windows for frame in frames) == index
    assert all(len(frame.windows) <= MAX_WINDOWS for frame in frames)
    assert [one.index for one in listed] == sorted({one.index for one in listed})
    skipped = [frame.skipped_counts for frame in frames if frame.skipped_counts is not None]
    counts = sum((one.counts for one in listed), np.zeros(3, int)) + sum(skipped, np.zeros(3, int))
    assert counts.tolist() == [sum(i % 5 for i in range(index)), index, 0]


def test_a_reset_drops_the_picture_and_keeps_the_counts() -> None:
    backlog = Backlog()
    backlog.on_stretch(stretch(0, 10, n_events=300))
    backlog.on_reset(START)
    backlog.on_stretch(stretch(0, 10, n_events=7))
    frame = take(backlog)
    assert frame.was_reset
    assert frame.points is not None
    assert len(frame.points) == 7
    assert frame.n_events == 307
    assert frame.cores[4].n_events == 307
    assert not take(backlog).was_reset


def test_a_backlog_is_empty_until_something_comes_and_calls_when_it_does() -> None:
    calls: list[int] = []
    backlog = Backlog(lambda: calls.append(1))
    assert backlog.is_empty
    backlog.on_stretch(stretch(0, 10, n_events=0))
    assert not backlog.is_empty
    frame = take(backlog)
    assert backlog.is_empty
    assert (frame.t_us, frame.span_us, len(calls)) == (10, 10, 1)
    assert frame.made_ms >= frame.data_ms
    backlog.on_window(window(0))
    backlog.on_reset(START)
    assert len(calls) == 3


def test_what_a_device_does_not_tell_stays_unknown() -> None:
    backlog = Backlog()
    one = stretch(0, 10, n_events=5)
    unknown = CoreCounts(None, 3, None, 1)
    dim = Stretch(0, 10, one.events, one.spikes, {4: unknown}, {}, None)
    backlog.on_stretch(dim)
    backlog.on_stretch(one)
    frame = take(backlog)
    assert frame.cores[4] == CoreCounts(None, 5, None, None)
    assert frame.power_w is not None
    assert frame.power_w["io"] == 0.5
    backlog.on_stretch(dim)
    assert take(backlog).power_w is None


def test_a_backlog_that_nobody_takes_keeps_its_size() -> None:
    def held(backlog: Backlog) -> int:
        sums = backlog._sums
        return (
            sum(piece.nbytes for piece in sums._points)
            + len(sums._windows)
            + (0 if sums._image is None else sums._image.nbytes)
        )

    backlog = Backlog()
    for index in range(600):
        backlog.on_stretch(stretch(index, index + 1, n_events=20, seed=index % 3))
        backlog.on_window(window(index))
    size = held(backlog)
    for index in range(600, 1200):
        backlog.on_stretch(stretch(index, index + 1, n_events=20, seed=index % 3))
        backlog.on_window(window(index))
    assert held(backlog) == size == 4 * n_cells(SENSOR) + MAX_WINDOWS


def test_an_audience_tells_those_who_are_there() -> None:
    audience = Audience()
    early, late = audience.join(), audience.join()
    audience.on_stretch(stretch(0, 10, n_events=5))
    audience.leave(late)
    audience.on_stretch(stretch(10, 20, n_events=6))
    audience.on_window(window(0))
    audience.on_reset(START)
    assert all(take(one).is_past for one in (early, late))
    assert take(early).n_events == 11
    assert take(late).n_events == 5


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(("stretch", "window", "reset")), max_size=30), st.integers(0, 30), st.integers(0, 600))
def test_who_joins_late_is_told_each_window_since_the_reset_once(plan: list[str], joins_at: int, n_first: int) -> None:
    audience, index, since = Audience(Recent(fade_ms=0.02)), 0, 0
    backlog, told = None, []
    for number, step in enumerate(["window"] * n_first + plan):
        if number == n_first + joins_at:
            backlog, told = audience.join(), list(range(since, index))[-PAST_WINDOWS:]
        if step == "window":
            audience.on_window(window(index))
            told.append(index)
            index += 1
        elif step == "reset":
            audience.on_reset(START)
            since, told = index, []
        else:
            audience.on_stretch(stretch(10 * number, 10 * (number + 1), n_events=9, seed=number))
    if backlog is None:
        backlog, told = audience.join(), list(range(since, index))[-PAST_WINDOWS:]
    past, rest = take(backlog), take(backlog)
    assert (past.is_past, past.was_reset, past.span_us, past.n_events, past.cores) == (True, True, 0, 0, {})
    assert past.power_w is None
    assert not rest.is_past
    assert [one.index for one in (*past.windows, *rest.windows)] == told
    assert not take(backlog).was_reset


def test_the_past_image_is_what_has_not_faded_and_its_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    audience, expected = Audience(Recent(fade_ms=0.02)), np.zeros((2, *SENSOR))
    pieces = [stretch(10 * i, 10 * i + 10, n_events=20, seed=i) for i in range(20)]
    for piece in pieces:
        audience.on_stretch(piece)
        for x, y, p, t_us in zip(*(getattr(piece.events, name) for name in ("x", "y", "p", "t_us")), strict=True):
            expected[p, y, x] += np.exp((t_us - 200) / 20)
    frame = take(audience.join())
    assert frame.points is None
    assert frame.image is not None
    # Half a step of rounding; what is older than is seen of one pixel adds less than another step.
    assert np.abs(frame.image / 16 - expected).max() < 1.5 / 16
    monkeypatch.setattr(recent, "PAST_EVENTS", 5)
    few = take(audience.join()).image
    assert few is not None
    assert np.count_nonzero(few) == np.count_nonzero(
        raster([dataclasses.replace(pieces[-1], events=pieces[-1].events.part(15, 20))])
    )
    audience.on_reset(START)
    assert take(audience.join()).image is None


def test_nothing_is_lost_between_threads() -> None:
    backlog, pieces = Backlog(), [stretch(i, i + 1, n_events=50, seed=i % 5) for i in range(300)]
    taken: list[int] = []

    def feed() -> None:
        for piece in pieces:
            backlog.add(piece, cells_of(piece.events))

    feeder = threading.Thread(target=feed)
    feeder.start()
    while feeder.is_alive():
        taken.append(take(backlog).n_events)
    taken.append(take(backlog).n_events)
    assert sum(taken) == 15_000
