"""What is kept of a show for its exports."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np

from spikeport.deploy.view.export import draw_gif
from spikeport.deploy.view.recent import Recent
from spikeport.deploy.view.types import Position

from .clients import START, stretch, window


def reset_to(name: str) -> Position:
    return dataclasses.replace(START, name=name)


def test_the_table_tells_recordings_in_a_row_apart() -> None:
    recent = Recent(("a", "b", "c"), recording="first, of two.npz")
    recent.on_window(window(0))
    recent.on_window(window(1))
    recent.on_reset(reset_to("=second.npz"))
    recent.on_window(window(0, (4, 5, 6)))
    table = recent.windows_csv().decode()
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [row["recording"] for row in rows] == ["first, of two.npz"] * 2 + ["'=second.npz"]
    assert [row["index"] for row in rows] == ["0", "1", "0"]
    columns = table.splitlines()[0].split(",")
    numbers = [columns.index(name) for name in ("index", "start_us", "stop_us", "spikes 2 c")]
    read = np.loadtxt(io.StringIO(table), np.int64, delimiter=",", skiprows=1, usecols=numbers, quotechar='"')
    np.testing.assert_array_equal(read, [[0, 0, 100_000, 3], [1, 100_000, 200_000, 3], [0, 0, 100_000, 6]])


def test_a_gif_has_the_classes_of_its_own_recording_only() -> None:
    recent, pieces = Recent(("a", "b", "c")), [stretch(0, 100_000, n_events=50), stretch(100_000, 150_000, n_events=9)]
    recent.on_window(window(0))
    recent.on_reset(reset_to("second"))
    for piece in pieces:
        recent.on_stretch(piece)
    assert recent.activity_gif(0, 100_000) == draw_gif(pieces[0].events, (0, 100_000))
