"""Exports: a table that reads back to equal numbers, pictures that show what was there."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spikeport.deploy.errors import SettingError
from spikeport.deploy.view.export import MAX_FRAMES, MAX_GIF_EDGE, Look, draw_gif, draw_png, write_windows_csv
from spikeport.deploy.view.types import Window
from spikeport.models.events import Events

NAMES = ("hand clap", "=HYPERLINK(1)", 'a "b", c\nd')
COUNTS = st.integers(0, 1 << 40)
MAYBE = st.none() | COUNTS


@st.composite
def some_window(draw: st.DrawFn) -> Window:
    start_us = draw(COUNTS)
    watts = st.dictionaries(st.sampled_from(["io", "ram", "pixel analog", "fan"]), st.floats(0, 10))
    winner = draw(st.none() | st.integers(0, 2))
    return Window(
        draw(COUNTS),
        start_us,
        start_us + draw(COUNTS),
        np.array([draw(COUNTS) for _ in NAMES]),
        winner,
        draw(st.none() | st.integers(0, 2)) if winner is None else winner,
        draw(COUNTS),
        draw(MAYBE),
        draw(st.none() | watts),
        draw(st.booleans()),
        draw(st.floats(0, 100)),
    )


def number(text: str) -> int | None:
    return int(text) if text else None


@given(st.lists(some_window(), max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_table_reads_back_to_equal_numbers(windows: list[Window]) -> None:
    rows = list(csv.DictReader(io.StringIO(write_windows_csv(windows, NAMES).decode(), newline="")))
    assert len(rows) == len(windows)
    for row, one in zip(rows, windows, strict=True):
        power = {
            name.removeprefix("power_w "): float(value) for name, value in row.items() if "power_w" in name and value
        }
        again = Window(
            int(row["index"]),
            int(row["start_us"]),
            int(row["stop_us"]),
            np.array([int(row[f"spikes {index} {name}"]) for index, name in enumerate(NAMES)]),
            number(row["winner"]),
            number(row["label"]),
            int(row["n_events"]),
            number(row["synops"]),
            power or (None if one.power_w is None else {}),
            row["is_open"] == "1",
            float(row["latency_s"]),
        )
        assert again.same(one)
        assert again.latency_s == one.latency_s
        assert row["label_name"].lstrip("'") == ("" if one.label is None else NAMES[one.label])


def test_no_cell_is_a_formula() -> None:
    window = Window(0, 0, 1, np.zeros(3, np.int64), 1, 1, 0, 0, None)
    for row in csv.reader(io.StringIO(write_windows_csv([window], NAMES).decode(), newline="")):
        assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@"))]


def moving(sensor: tuple[int, int] = (40, 60), n: int = 3000, span_us: int = 1_000_000) -> Events:
    rng = np.random.default_rng(0)
    t_us = np.sort(rng.integers(0, span_us, n))
    x = (t_us * (sensor[1] - 1) // span_us + rng.integers(0, 2, n)).clip(0, sensor[1] - 1)
    return Events(x, rng.integers(0, sensor[0], n), rng.integers(0, 2, n), t_us, sensor)


def frames_of(data: bytes) -> list[Image.Image]:
    image = Image.open(io.BytesIO(data))
    assert image.format == "GIF"
    frames = []
    for frame in range(getattr(image, "n_frames", 1)):
        image.seek(frame)
        frames.append(image.convert("RGB"))
    return frames


@pytest.mark.parametrize(
    ("span_us", "fps", "n"), [((0, 1_000_000), 20.0, 20), ((250_000, 300_001), 50.0, 3), ((5, 6), 20.0, 1)]
)
def test_a_gif_has_the_frames_asked_for(span_us: tuple[int, int], fps: float, n: int) -> None:
    data = draw_gif(moving(), span_us, look=Look(fps=fps))
    assert len(frames_of(data)) == n
    assert draw_gif(moving(), span_us, look=Look(fps=fps)) == data


def test_a_long_gif_has_fewer_frames_and_takes_as_long() -> None:
    data = draw_gif(moving((9, 9)), (0, 20_000_000))
    assert len(frames_of(data)) == MAX_FRAMES
    image, shown_ms = Image.open(io.BytesIO(data)), 0
    for frame in range(MAX_FRAMES):
        image.seek(frame)
        shown_ms += image.info["duration"]
    assert shown_ms == 20_000


def test_a_frame_shows_the_events_just_before_it() -> None:
    columns = ([3, 5, 5], [2, 7, 7], [1, 0, 1], [100_000, 900_000, 1_500_000])
    x, y, p, t_us = map(np.array, columns)
    events = Events(x, y, p, t_us, (10, 10))
    frames = [np.asarray(one).astype(int) for one in frames_of(draw_gif(events, (0, 2_000_000), look=Look(scale=8)))]

    def color(frame: int, x: int, y: int) -> tuple[int, int, int]:
        r, g, b = frames[frame][y * 8 + 4, x * 8 + 4]
        return int(r), int(g), int(b)

    background = color(0, 3, 2)
    assert color(0, 3, 2) == color(1, 3, 2) == background  # an event at the end of a frame is in the next
    red, _, blue = color(2, 3, 2)
    assert red > blue + 40  # on
    assert sum(color(2, 3, 2)) > sum(color(3, 3, 2)) > sum(color(4, 3, 2))  # fades
    assert color(12, 3, 2) == background
    red, _, blue = color(18, 5, 7)
    assert blue > red + 40  # off
    red, _, blue = color(30, 5, 7)
    assert red > blue + 40


def test_pictures_are_as_large_as_is_handy_and_never_larger() -> None:
    assert frames_of(draw_gif(moving((720, 1280)), (0, 100_000)))[0].size == (MAX_GIF_EDGE, 180 + 15)
    assert frames_of(draw_gif(moving((720, 1280)), (0, 100_000), look=Look(scale=9)))[0].size == (MAX_GIF_EDGE, 195)
    assert Image.open(io.BytesIO(draw_png(moving((720, 1280)), 9))).size == (1280, 735)
    assert Image.open(io.BytesIO(draw_png(moving((16, 16)), 9, look=Look(scale=3)))).size == (72, 63)
    assert Image.open(io.BytesIO(draw_png(moving((128, 128)), 9))).size == (256, 271)


def test_the_class_decided_last_is_written_below() -> None:
    empty = moving(n=0)
    windows = [Window(i, i * 100, i * 100 + 100, np.zeros(2, np.int64), i, i, 0, 0, None) for i in range(2)]
    names = ["a class", "Ж" * 500]

    def picture(t_us: int, classes: Sequence[str] = ()) -> bytes:
        return draw_png(empty, t_us, windows=windows, classes=classes)

    assert picture(99) == draw_png(empty, 99)
    assert picture(100, classes=names) == picture(199, classes=names) != draw_png(empty, 100)
    assert picture(200, classes=names) == draw_png(empty, 200, windows=[windows[1]], classes=["", "?" * 400])
    assert picture(100) == draw_png(empty, 100, windows=windows, classes=["0"])


def test_what_makes_no_picture_is_refused() -> None:
    for span_us in ((5, 5), (9, 5), (-1, 5), (0, 4_000_000_000)):
        with pytest.raises(SettingError, match="gif: expected a span"):
            draw_gif(moving(), span_us)
    with pytest.raises(SettingError, match="png: expected a time of 0 us or more, found -1"):
        draw_png(moving(), -1)
    with pytest.raises(SettingError, match=r"(?s)fps: expected.*fade_ms: expected.*scale: expected"):
        Look(fps=0, fade_ms=float("nan"), scale=99)
    with pytest.raises(SettingError, match="scale: expected"):
        Look(scale=1.5)  # type: ignore[arg-type]
