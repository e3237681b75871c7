"""The knobs of the live view: every value that makes no sense is refused in one sentence each, all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeport.deploy.errors import SettingError
from spikeport.deploy.view.settings import (
    PLOTS,
    ServeSettings,
    ViewSettings,
    parse_limits,
    parse_plots,
    parse_share,
    parse_speed,
)

TOKEN = "a" * 16

REFUSED: dict[str, tuple[Any, ...]] = {
    "interval_ms": (0, -1, float("nan"), float("inf"), "100", True, 1e12),
    "step_ms": (0, -5, None),
    "fade_ms": (0, -1),
    "history_s": (0, 1e9),
    "fps": (0, 61, "30"),
    "speed": (0, -1, float("nan"), "1", 1e9, True),
    "power_items": (0, 4, True, 5.5, "5"),
    "decimate": ((2, 1), (0, 1), (1,), (1, 2, 3), 4, (1.0, 2)),
    "watch": (-1, "conv1"),
    "threshold": (-1, 1.5, None),
    "low": (-1, 40_000),
    "high": (-1, 1.5),
    "names": (("",), (1,), ("x" * 81,)),
    "n_classes": (0, 2.0),
    "default_class": (-1, 0.5),
    "plots": ((), ((),), (("events", "events"),), (("events",), ("radar",))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_knob_that_makes_no_sense_is_named(name: str) -> None:
    for value in REFUSED[name]:
        with pytest.raises(SettingError) as refused:
            ViewSettings(**{name: value})
        (line,) = str(refused.value).splitlines()
        assert name in line.split(": expected")[0]
        assert "found" in line
        assert "Try" in line


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingError) as refused:
        ViewSettings(interval_ms=-1, power_items=4, plots=(("radar",),))
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == ["interval_ms", "power_items", "plots"]


def test_classes_that_do_not_go_together_are_refused() -> None:
    assert ViewSettings(names=("a", "b"), n_classes=2, default_class=1).default_class == 1
    for odd in ({"names": ("a", "b"), "n_classes": 3}, {"names": ("a", "b"), "default_class": 2}):
        with pytest.raises(SettingError, match="expected"):
            ViewSettings(**odd)  # type: ignore[arg-type]


def test_other_knobs_are_checked_as_the_first_ones() -> None:
    settings = ViewSettings().changed(interval_ms=12.5, speed=None)
    assert (settings.interval_us, settings.step_us, settings.speed) == (12_500, 10_000, None)
    with pytest.raises(SettingError, match="interval_ms"):
        settings.changed(interval_ms=0)
    assert dataclasses.replace(settings, interval_ms=100.0, speed=1.0) == ViewSettings()


@pytest.mark.parametrize(
    "odd",
    [
        {"host": "nowhere at all"},
        {"host": ""},
        {"host": "127.0.0.1:80"},
        {"host": "1.2.3"},
        {"host": "0.0.0.0"},  # noqa: S104 - refused
        {"host": "::"},
        {"port": -1},
        {"port": 65536},
        {"port": True},
        {"token": "short"},
        {"token": "x" * 15 + "/"},
        {"allow_hosts": ("example.org:80",)},
        {"allow_hosts": ("*",)},
        {"allow_hosts": ("0.0.0.0",)},  # noqa: S104 - refused
        {"max_viewers": 0},
        {"max_viewers": 1000},
    ],
    ids=str,
)
def test_a_place_to_serve_at_that_makes_no_sense_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as refused:
        ServeSettings(**odd)
    assert str(refused.value).startswith(next(iter(odd)))


def test_only_loopback_is_local() -> None:
    assert all(ServeSettings(host).is_local for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not ServeSettings("10.0.0.7").is_local
    assert not ServeSettings("camera.example").is_local
    assert not ServeSettings("0.0.0.0", allow_hosts=("10.0.0.7",), token=TOKEN).is_local  # noqa: S104


@given(st.permutations(list(PLOTS)), st.lists(st.booleans(), min_size=6, max_size=6), st.sampled_from(["/", ","]))
def test_rows_of_plots_are_read_as_they_are_written(plots: list[str], breaks: list[bool], between: str) -> None:
    rows: list[list[str]] = [[]]
    for plot, is_break in zip(plots, breaks, strict=True):
        if is_break and rows[-1]:
            rows.append([])
        rows[-1].append(plot)
    assert parse_plots(f" {between} ".join(map(" ".join, rows))) == tuple(map(tuple, rows))


@pytest.mark.parametrize("text", ["", " ", "events /", "events, ,map", "event", "events events"])
def test_rows_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--plots: expected"):
        parse_plots(text)


@given(st.text(max_size=12))
def test_no_text_is_more_than_refused(text: str) -> None:
    for parse in (parse_plots, parse_limits, parse_speed, parse_share):
        said = refusal(parse, text)
        assert said is None or (said.startswith("--") and "Try" in said)


def refusal(parse: Callable[[str], object], text: str) -> str | None:
    try:
        parse(text)
    except SettingError as refused:
        return str(refused)
    return None


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))
def test_limits_and_shares_are_read_as_they_are_written(low: int, more: int) -> None:
    high = min(low + more, 10**9 - 1)
    assert parse_limits(f"{low}:{high}") == (low, high)
    if low < high:
        with pytest.raises(SettingError, match="LOW:HIGH"):
            parse_limits(f"{high}:{low}")


def test_speeds() -> None:
    found = [parse_speed(text) for text in ("1", "0.25", ".5", "2x", "max", " MAX ")]
    assert found == [1.0, 0.25, 0.5, 2.0, None, None]
    assert parse_share("1:4") == (1, 4)
    for text in ("0", "-1", "1e3", "fast", "", "2000"):
        with pytest.raises(SettingError, match="--speed"):
            parse_speed(text)
    for text in ("4:1", "0:1", "1", "1/4"):
        with pytest.raises(SettingError, match="--decimate"):
            parse_share(text)
