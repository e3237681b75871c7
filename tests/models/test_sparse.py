"""Sparse steps: a raster and back, events as their raster, bad entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spikeport.models.errors import InferenceError
from spikeport.models.events import Events
from spikeport.models.sparse import SparseSteps, sparse_events, sparse_raster

SIZE = (3, 7)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 40)),
        elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.5, -1.0]),
    ),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_a_raster_comes_back_whatever_share_of_it_is_not_zero(raster: Any, most: float) -> None:
    found = sparse_raster(raster, most=most)
    assert (found is None) == (np.count_nonzero(raster) > np.ceil(most * raster.size))
    if found is not None:
        np.testing.assert_array_equal(found.to_raster(), raster)
        assert found.n_events == np.count_nonzero(raster)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 99), st.sampled_from([1, 2]))
def test_events_are_their_raster(lengths: list[int], seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    recordings = [
        Events(
            rng.integers(0, SIZE[1], n),
            rng.integers(0, SIZE[0], n),
            rng.integers(0, 2, n),
            np.sort(rng.integers(3_000, 8_000, n)),
            SIZE,
        )
        for n in lengths
    ]
    found = sparse_events(recordings, n_steps=5, step_us=1000, first=3, channels=channels).to_raster()
    for row, events in enumerate(recordings):
        raster = events.to_raster(1000, n_bins=8, merge_polarity=channels == 1)[3:]
        np.testing.assert_array_equal(found[:, row], raster.reshape(5, -1))


def test_events_outside_the_steps_and_too_many_steps_are_refused() -> None:
    one = np.zeros(1, np.int64)
    late = Events(one, one, one, one + 9_000, SIZE)
    with pytest.raises(InferenceError, match="step 9 to 9"):
        sparse_events([late], n_steps=5, step_us=1000)
    with pytest.raises(InferenceError, match="at most 16777216"):
        sparse_events([late], n_steps=1 << 25, step_us=1000)


@pytest.mark.parametrize(
    ("starts", "cells", "amounts"),
    [
        ([0, 1], [0], [1.0]),
        ([0, 1, 3], [0], [1.0]),
        ([1, 1, 1], [0], [1.0]),
        ([0, 2, 1], [0], [1.0]),
        ([0, 0, 1], [5], [1.0]),
        ([0, 0, 1], [-1], [1.0]),
        ([0, 0, 1], [0], [1.0, 1.0]),
        ([0, 0, 1], [0], [np.nan]),
    ],
)
def test_entries_that_fit_no_shape_are_refused(starts: Any, cells: Any, amounts: Any) -> None:
    with pytest.raises(InferenceError, match="sparse steps: expected"):
        SparseSteps(np.array(starts), np.array(cells), np.array(amounts), (2, 1, 5))


def test_a_raster_without_a_batch_is_refused() -> None:
    with pytest.raises(InferenceError, match=r"raster\[:, None\]"):
        sparse_raster(np.zeros((3, 4)))
