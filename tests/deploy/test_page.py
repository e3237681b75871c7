"""How the page of a report writes numbers and draws pictures."""

from __future__ import annotations

import base64
import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeport.deploy import page, plots
from spikeport.models.events import Events


@given(st.floats(1e-12, 9.99e14))
def test_a_quantity_reads_back_within_its_three_digits(value: float) -> None:
    text = page.si(value, "W").replace("\N{NO-BREAK SPACE}", " ")
    number, unit = text.split(" ")
    powers = {"p": -12, "n": -9, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12}
    assert float(number) * 10.0 ** powers[unit.removesuffix("W")] == pytest.approx(value, rel=0.0051)
    assert len(number.replace(".", "")) == 3


def test_numbers_are_written_for_readers() -> None:
    gap = "\N{NO-BREAK SPACE}"
    assert page.si(0, "W") == f"0{gap}W"
    assert page.si(999_900, "synops/s") == f"1.00{gap}M{gap}synops/s"
    assert page.si(12, "events/s") == f"12.0{gap}events/s"
    assert page.count(1234567) == "1,234,567"
    assert page.percent(0.964) == f"96.4{gap}%"
    assert [page.sig(value) for value in (0.0, 11, 2.6434, 123456)] == ["0.00", "11.0", "2.64", "123,456"]
    assert page.plain({"a": [1, {"b": 2}], "c": "d"}) == "a 1, b 2, c d"


@given(st.lists(st.floats(0, 1), max_size=4))
def test_every_share_lies_on_the_scale(shares: list[float]) -> None:
    axis = page.Axis.around(shares)
    assert all(0 <= axis.of(share) <= 1 for share in [*shares, 1.0])


def test_slices_hold_every_event_once() -> None:
    rng = np.random.default_rng(0)
    x, y, p = rng.integers(0, 2, (3, 3000))
    events = Events(x, y, p, np.sort(rng.integers(0, 200_000, 3000)), (2, 2))
    slices = plots.event_slices(events, n_slices=5)
    assert sum(part.n_on for part in slices) == int(events.p.sum())
    assert sum(part.n_on + part.n_off for part in slices) == len(events)
    assert all(a.stop_ms == b.start_ms for a, b in itertools.pairwise(slices))


@pytest.mark.parametrize("shape", [(1, 1, 1), (10, 1, 1), (5, 3, 7), (40, 64, 64), (2, 33, 65)])
def test_a_spike_map_shows_as_many_features_as_it_says(shape: tuple[int, int, int]) -> None:
    for counts in (np.zeros(shape, np.int64), np.arange(math.prod(shape)).reshape(shape)):
        picture = plots.spike_map(counts, "#336699", n_tiles=16, edge=32)
        assert picture.n_shown == (shape[0] if shape[1:] == (1, 1) else min(shape[0], 16))
        assert picture.uri.startswith("data:image/png;base64,")


def test_more_spikes_are_more_opaque_and_nothing_is_transparent() -> None:
    from matplotlib.image import imread

    uri = plots.png(np.array([[np.nan, 0.0, 0.05, 0.5, 1.0, 7.0]]), "#336699")
    pixels = imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])), format="png")
    alpha = pixels[0, :, 3]
    assert alpha[0] == 0
    assert np.all(np.diff(alpha[1:]) >= 0)
    assert alpha[1] > 0
    assert alpha[-1] == alpha[-2] == 1
