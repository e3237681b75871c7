"""Windows that begin within one: other knobs wait for its end, which always lies ahead."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spikeport.deploy.view.follow import begin_within, first_settings, settings_at, start_of
from spikeport.deploy.view.reels import RecordingReel
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.windows import Windows
from spikeport.models.events import Events

KNOBS = st.integers(1, 9).map(lambda ms: ViewSettings(interval_ms=float(ms)))


@given(st.integers(0, 40_000), KNOBS, KNOBS)
def test_the_open_window_keeps_its_knobs_and_ends_ahead(
    start_us: int, first: ViewSettings, other: ViewSettings
) -> None:
    windows = Windows(2, first)
    begin_within(windows, start_us)
    windows.set(other)
    is_within = start_us % first.interval_us > 0
    assert windows.open_knobs == (first if is_within else other)
    assert windows.knobs == other
    interval_us = windows.open_knobs.interval_us
    assert windows.next_end_us == (start_us // interval_us + 1) * interval_us > start_us


def test_other_reels_begin_at_0_and_have_no_knobs() -> None:
    x, y, p, t_us = np.array([[1], [1], [0], [5]])
    reel = RecordingReel(Events(x, y, p, t_us, (2, 2)))
    wished = ViewSettings(interval_ms=3.0)
    assert start_of(reel) == 0
    assert first_settings(reel, wished) == settings_at(reel, wished, 10) == wished
