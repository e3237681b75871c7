"""Laws of the event record: what it refuses, and that rasters keep every event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spikeport.models.errors import EventsError
from spikeport.models.events import Events, concatenate

FAST = settings(max_examples=40, deadline=None)


@st.composite
def recordings(draw: st.DrawFn, *, n_min: int = 0, size: tuple[int, int] | None = None) -> Events:
    height, width = size or draw(st.tuples(st.integers(1, 7), st.integers(1, 9)))
    n = draw(st.integers(n_min, 30))
    x, y, p = (draw(hnp.arrays(np.int64, n, elements=st.integers(0, edge - 1))) for edge in (width, height, 2))
    steps = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 40)))
    return Events(x, y, p, np.cumsum(steps), (height, width))


RASTERS = hnp.arrays(
    np.int64,
    st.tuples(st.integers(0, 4), st.integers(1, 2), st.integers(1, 4), st.integers(1, 5)),
    elements=st.integers(0, 3),
)


def _slow_raster(events: Events, dt_us: int) -> np.ndarray:
    n_bins = max((int(t) // dt_us + 1 for t in events.t_us), default=0)
    raster = np.zeros((n_bins, 2, *events.sensor_size))
    for x, y, p, t in zip(events.x, events.y, events.p, events.t_us, strict=True):
        raster[t // dt_us, p, y, x] += 1
    return raster


@FAST
@given(recordings(), st.integers(1, 50))
def test_a_raster_counts_every_event_in_its_place(events: Events, dt_us: int) -> None:
    raster = events.to_raster(dt_us)
    assert raster.dtype == np.float32
    assert raster.sum() == len(events)
    np.testing.assert_array_equal(raster, _slow_raster(events, dt_us))


@FAST
@given(recordings(), st.integers(1, 50), st.integers(0, 20))
def test_merged_polarities_are_the_sum_over_them(events: Events, dt_us: int, n_bins: int) -> None:
    merged = events.to_raster(dt_us, n_bins=n_bins, merge_polarity=True)
    np.testing.assert_array_equal(merged, events.to_raster(dt_us, n_bins=n_bins).sum(axis=1, keepdims=True))
    assert merged.sum() == np.count_nonzero(events.t_us < n_bins * dt_us)


@FAST
@given(RASTERS, st.integers(1, 1000))
def test_events_of_a_raster_give_the_raster_back(raster: np.ndarray, dt_us: int) -> None:
    events = Events.from_raster(raster, dt_us)
    again = events.to_raster(dt_us, n_bins=len(raster), merge_polarity=raster.shape[1] == 1, dtype=np.int64)
    np.testing.assert_array_equal(again, raster)
    assert not (events.t_us % dt_us).any()


@FAST
@given(recordings(), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_windows_side_by_side_are_the_window_over_both(events: Events, a: int, b: int, c: int) -> None:
    start, middle, stop = sorted((a, b, c))
    parts = (events.window(start, middle), events.window(middle, stop))
    whole = events.window(start, stop)
    assert all(((part.t_us >= start) & (part.t_us < stop)).all() for part in parts)
    assert len(whole) == np.count_nonzero((events.t_us >= start) & (events.t_us < stop))
    for name in ("x", "y", "p", "t_us"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


@FAST
@given(recordings())
def test_from_zero_moves_the_first_event_to_zero_and_nothing_else(events: Events) -> None:
    moved = events.from_zero()
    assert moved.duration_us == events.duration_us
    assert moved.from_zero().same(moved)
    assert not len(moved) or moved.t_us[0] == 0
    np.testing.assert_array_equal(np.diff(moved.t_us), np.diff(events.t_us))


@FAST
@given(recordings(size=(4, 5)), recordings(size=(4, 5)), recordings(size=(4, 5)), st.integers(0, 100))
def test_concatenation_keeps_events_and_is_associative(a: Events, b: Events, c: Events, gap_us: int) -> None:
    whole = concatenate([a, b, c], gap_us)
    assert len(whole) == len(a) + len(b) + len(c)
    np.testing.assert_array_equal(whole.x, np.concatenate([a.x, b.x, c.x]))
    n_gaps = max(sum(bool(len(part)) for part in (a, b, c)) - 1, 0)
    assert whole.duration_us == a.duration_us + b.duration_us + c.duration_us + n_gaps * gap_us
    assert concatenate([concatenate([a, b], gap_us), c], gap_us).same(whole)


@FAST
@given(recordings(n_min=1))
def test_same_compares_every_field(events: Events) -> None:
    copy = Events(list(events.x), list(events.y), list(events.p), list(events.t_us), events.sensor_size)  # type: ignore[arg-type]
    assert copy.same(events)
    assert copy != events
    others = (
        Events(events.x, events.y, 1 - events.p, events.t_us, events.sensor_size),
        Events(events.x, events.y, events.p, events.t_us + 1, events.sensor_size),
        Events(events.x, events.y, events.p, events.t_us, (events.sensor_size[0] + 1, events.sensor_size[1])),
        events.window(0, int(events.t_us[-1])),
    )
    assert not any(events.same(other) for other in others)
    assert not events.same("events")


def test_arrays_are_kept_in_their_dtypes_and_read_only() -> None:
    x = np.array([0, 1], np.uint16)
    events = Events(x, x, x.astype(bool), x.astype(np.uint32), (2, 2))
    x[0] = 1
    assert events.x[0] == 0
    assert [getattr(events, name).dtype for name in ("x", "y", "p", "t_us")] == [np.int16, np.int16, np.int8, np.int64]
    for name in ("x", "y", "p", "t_us"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(events, name)[0] = 0
    assert repr(events) == "Events(2 events, 0.0 ms, sensor 2x2)"


def test_no_events_are_a_recording_too() -> None:
    none: list[int] = []
    events = Events(none, none, none, none, (3, 4))  # type: ignore[arg-type]
    assert len(events) == events.duration_us == 0
    assert events.to_raster(10).shape == (0, 2, 3, 4)
    assert events.to_raster(10, n_bins=2).sum() == 0
    assert events.from_zero() is events


def _events(**changes: Any) -> Events:
    return Events(**{"x": [0, 1], "y": [0, 1], "p": [0, 1], "t_us": [5, 6], "sensor_size": (2, 2), **changes})


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "lengths": (lambda: _events(x=[0]), r"four 1-D arrays of equal length, found x \[1\], y \[2\]"),
    "axes": (lambda: _events(x=[[0, 1]]), "four 1-D arrays"),
    "floats": (lambda: _events(x=[0.0, 1.0]), r"x: expected integers, found float64. Try x.astype\(int\)"),
    "objects": (lambda: _events(t_us=np.array([1, None])), "t_us: expected integers, found object"),
    "column": (lambda: _events(x=[0, 2]), r"x\[1\] is 2, expected a column of the sensor in 0..1 \(1 of 2 events"),
    "row": (lambda: _events(y=[-1, 0]), r"y\[0\] is -1, expected a row of the sensor in 0..1"),
    "polarity": (lambda: _events(p=[-1, 1]), r"p\[0\] is -1, expected a polarity \(0 off, 1 on\) in 0..1"),
    "negative time": (lambda: _events(t_us=[-5, 6]), r"t_us\[0\] is -5, expected 0 or more. Try t_us - t_us.min\(\)"),
    "time back": (lambda: _events(t_us=[5, 4]), r"t_us\[1\] is 4, earlier than 5 before it; .*Try sorting"),
    "time of 64 bits": (lambda: _events(t_us=np.array([1, 2**63], np.uint64)), "expected times of 63 bits"),
    "size of one": (lambda: _events(sensor_size=34), r"sensor_size: expected \(height, width\), found 34"),
    "size of three": (lambda: _events(sensor_size=(2, 34, 34)), r"expected \(height, width\)"),
    "size in letters": (lambda: _events(sensor_size="34"), r"expected \(height, width\), found '34'"),
    "size in floats": (lambda: _events(sensor_size=(34.5, float("inf"))), r"expected \(height, width\)"),
    "no size": (lambda: _events(sensor_size=(0, 2)), "edges of 1 to 32767, found 0x2"),
    "no bin width": (lambda: _events().to_raster(0), "dt_us: expected at least 1 microsecond, found 0"),
    "negative bins": (lambda: _events().to_raster(1, n_bins=-1), "n_bins: expected 0 or more"),
    "times since 1970": (lambda: _events(t_us=[0, 17 * 10**14]).to_raster(1000), r"Try from_zero\(\) first"),
    "narrow counts": (lambda: Events.from_raster(np.full((1, 1, 1, 1), 300), 1).to_raster(1, dtype=np.uint8), "of 300"),
    "half counts": (lambda: Events.from_raster([[[[2049]]]], 1).to_raster(1, dtype=np.float16), "of 2049"),
    "raster axes": (lambda: Events.from_raster(np.zeros((2, 3, 3)), 1), r"expected shape \[T, 1 or 2, H, W\]"),
    "raster channels": (lambda: Events.from_raster(np.zeros((2, 3, 1, 1)), 1), r"found \[2, 3, 1, 1\]"),
    "raster of parts": (lambda: Events.from_raster(np.full((1, 1, 1, 1), 0.5), 1), "whole event counts"),
    "raster of NaN": (lambda: Events.from_raster(np.full((1, 1, 1, 1), np.nan), 1), "whole event counts"),
    "raster below 0": (lambda: Events.from_raster(np.full((1, 1, 1, 1), -1), 1), "whole event counts"),
    "raster of text": (lambda: Events.from_raster(np.full((1, 1, 1, 1), "1"), 1), "whole event counts"),
    "raster without time": (lambda: Events.from_raster(np.ones((2, 1, 1, 1)), 0), "dt_us: expected at least 1"),
    "nothing to join": (lambda: concatenate([]), "expected at least one recording, found none"),
    "two sensors": (
        lambda: concatenate([_events(), _events(sensor_size=(3, 2))]),
        r"one sensor size, found \[\(2, 2\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_recording_is_refused_in_one_sentence(case: str) -> None:
    attempt, message = BAD[case]
    with pytest.raises(EventsError, match=message) as raised:
        attempt()
    assert "\n" not in str(raised.value)
    assert "Try " in str(raised.value)
    assert raised.value.exit_code == 2
