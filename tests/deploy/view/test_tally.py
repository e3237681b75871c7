"""The tally: exact sums, however a run is cut, and nothing taken back."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.tally import Tally
from spikeport.deploy.view.types import CoreCounts, OutputSpikes, Position, Stretch, Totals, Window
from spikeport.deploy.view.windows import Windows
from spikeport.models.events import Events

NUMBERS = st.none() | st.integers(0, 1 << 40)
CORES = st.dictionaries(
    st.integers(0, 8), st.builds(CoreCounts, *(NUMBERS for _ in dataclasses.fields(CoreCounts))), max_size=3
)
STRETCHES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 99), st.integers(0, 9), CORES), max_size=6
)


@settings(max_examples=40, deadline=None)
@given(STRETCHES)
def test_totals_are_sums_and_every_offered_event_is_somewhere(
    given_: list[tuple[int, int, int, int, dict[int, CoreCounts]]],
) -> None:
    tally, windows = Tally(), Windows(1, ViewSettings(interval_ms=1.0))
    decided: list[Window] = []
    for number, (n_events, n_spikes, n_left_out, n_late, cores) in enumerate(given_):
        t_us = np.full(n_events, 700 * number)
        where = np.zeros(n_events, np.int64)
        spikes = OutputSpikes(np.full(n_spikes, 700 * number), np.zeros(n_spikes, np.int16))
        stretch = Stretch(
            700 * number, 700 * number + 700, Events(where, where, where, t_us, (1, 1)), spikes, cores, {},
            n_left_out=n_left_out, n_late=n_late,
        )  # fmt: skip
        tally.on_stretch(stretch)
        decided += windows.add(stretch)
    for window in decided:
        tally.on_window(window)
    found = tally.totals
    told = [one for *_, cores in given_ for one in cores.values()]
    assert found == Totals(
        n_offered=found.n_left_out + found.n_events,
        n_left_out=sum(one[2] for one in given_),
        n_events=sum(one[0] for one in given_),
        n_output_spikes=sum(one[1] for one in given_),
        n_dropped=sum(one.n_dropped or 0 for one in told),
        n_late=sum(one[3] for one in given_),
        synops=sum(one.synops or 0 for one in told),
        n_windows=700 * len(given_) // 1_000,
        n_decided=sum(bool(window.counts.sum()) for window in decided),
    )


def test_a_reset_takes_nothing_back() -> None:
    tally = Tally()
    tally.totals = before = Totals(n_offered=4, n_events=4, n_windows=2)
    tally.on_reset(Position(1, 2, "b", 0, None, None, True, False, 1.0, 0.0, None, False, None))
    assert tally.totals == before
