"""Frames read back by the documented rules alone; commands, where anything but the exact shape is refused."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.view.backlog import Backlog, Frame
from spikeport.deploy.view.protocol import (
    MAX_COMMAND_BYTES,
    MAX_ID,
    CommandError,
    done_message,
    encode,
    error_message,
    facts_message,
    parse_command,
)
from spikeport.deploy.view.types import Totals

from .clients import N_CLASSES, START, decoded, stretch, window

GOOD: dict[str, dict[str, Any]] = {
    "play": {},
    "pause": {},
    "step": {"n": 3},
    "speed": {"value": 0.5},
    "seek": {"t_us": 0},
    "open": {"index": 2},
    "roi": {"box": [0, 8, 0, 9]},
    "knobs": {"interval_ms": 50.5, "threshold": 2, "low": 0, "high": 9, "default_class": None},
    "watch": {"core": 4},
    "record": {"on": True},
}


def made(n_events: int, *, n_windows: int = 0, sensor: tuple[int, int] = (12, 16)) -> Frame:
    backlog = Backlog()
    backlog.on_stretch(stretch(0, 1000, n_events=n_events, sensor=sensor))
    for index in range(n_windows):
        backlog.on_window(window(index))
    return backlog.take(START, Totals(n_events=n_events), np.arange(N_CLASSES))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 300), st.integers(0, 520), st.sampled_from(((12, 16), (5, 7), (200, 300))), st.integers(1, MAX_ID)
)
def test_a_frame_is_read_back_by_the_documented_rules(n_events: int, n_windows: int, sensor: Any, number: int) -> None:
    frame = made(n_events, n_windows=n_windows, sensor=sensor)
    header, sections = decoded(encode(frame, number))
    assert header["v"] == 1
    assert header["frame"] == number
    assert header["events"] == header["totals"]["events"] == n_events
    assert header["so_far"] == [0, 1, 2]
    assert header["reset"] is True
    assert header["cores"] == [
        {"core": 4, "events": n_events, "spikes": n_events // 2, "synops": 9 * n_events, "dropped": None}
    ]
    assert len(header["windows"]) + header["skipped_windows"] == n_windows
    picture = frame.image if frame.points is None else frame.points
    assert picture is not None
    assert np.array_equal(sections["image" if frame.points is None else "points"], picture)
    assert np.array_equal(sections["map"], frame.maps[4])
    assert header["sections"][-1]["core"] == 4


def test_a_header_says_what_the_records_say() -> None:
    at = dataclasses.replace(
        START, duration_us=None, roi=(0, 4, 0, 4), speed=None, behind_s=0.25, final=1, problem="The board is gone."
    )
    frame = dataclasses.replace(made(0, n_windows=1), position=at)
    header, _ = decoded(encode(frame, 1))
    position = header["position"]
    assert position["roi"] == [0, 4, 0, 4]
    assert position["behind_ms"] == 250
    assert (position["speed"], position["final"], position["problem"]) == (None, 1, "The board is gone.")
    assert (position["playing"], position["ended"], position["recording"]) == (True, False, False)
    (told,) = header["windows"]
    assert told == {
        "i": 0,
        "start_us": 0,
        "stop_us": 100_000,
        "counts": [1, 2, 3],
        "winner": 2,
        "label": 2,
        "events": 10,
        "synops": 90,
        "open": False,
        "latency_ms": 1.0,
        "power_w": None,
    }
    assert set(header["totals"]) == {
        *("offered", "left_out", "events", "output_spikes", "dropped", "late", "synops", "windows", "decided"),
    }


def test_numbers_that_json_does_not_have_become_null() -> None:
    at = dataclasses.replace(START, behind_s=float("inf"))
    frame = dataclasses.replace(made(1), position=at, power_w={"io": float("nan"), "ram": 1.5})
    header, _ = decoded(encode(frame, 1))
    assert header["position"]["behind_ms"] is None
    assert header["power_w"] == {"io": None, "ram": 1.5}


def test_maps_saturate_at_what_two_bytes_hold() -> None:
    frame = dataclasses.replace(made(1), maps={4: np.array([[70_000, 3]])})
    _, sections = decoded(encode(frame, 1))
    assert sections["map"].tolist() == [[65535, 3]]


def test_a_frame_before_any_stretch_has_no_sections() -> None:
    message = encode(Backlog().take(START, Totals(), np.zeros(3, np.int64)), 1)
    header, sections = decoded(message)
    assert sections == {}
    assert header["t_us"] == START.t_us
    assert len(message) % 4 == 0
    assert struct.unpack_from("<I", message)[0] <= len(message) - 4


def test_the_text_messages_are_those_of_the_page() -> None:
    assert json.loads(error_message("No.", 3)) == {"error": "No.", "of": 3}
    assert json.loads(done_message(3)) == {"done": 3}
    assert json.loads(facts_message({"sensor": [1, 2]})) == {"facts": {"sensor": [1, 2]}}


@pytest.mark.parametrize("do", GOOD)
def test_commands_of_their_exact_shape_are_taken(do: str) -> None:
    command = parse_command(json.dumps({"do": do, "id": 7, **GOOD[do]}))
    assert (command.do, command.id, dict(command.values)) == (do, 7, GOOD[do])


@pytest.mark.parametrize("do", GOOD)
def test_commands_of_any_other_shape_are_refused_with_their_number(do: str) -> None:
    values = GOOD[do]
    wrong = [
        {**values, "more": 1},
        *({**values, key: [[]]} for key in values),
        *({**values, key: "1"} for key in values),
    ]
    wrong += [{key: value for key, value in values.items() if key != gone} for gone in values if do != "knobs"]
    wrong += [{}] if values else []
    for one in wrong:
        with pytest.raises(CommandError, match=f"^{do}: ") as refused:
            parse_command(json.dumps({"do": do, "id": 7, **one}))
        assert refused.value.of == 7


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "7",
        "{",
        '{"do": "play"}',
        '{"do": "play", "id": true}',
        '{"do": "play", "id": 1.0}',
        '{"do": "play", "id": -1}',
        '{"do": "play", "id": 9007199254740992}',
        '{"do": "play", "id": 1, "id": 1}',
        '{"do": "play", "id": NaN}',
        '{"do": "speed", "value": Infinity, "id": 1}',
        '{"do": "speed", "value": 0, "id": 1}',
        '{"do": "speed", "value": 1e400, "id": 1}',
        '{"do": "speed", "value": ' + "9" * 400 + ', "id": 1}',
        '{"do": "speed", "value": true, "id": 1}',
        '{"do": "step", "n": 0, "id": 1}',
        '{"do": "step", "n": 1.5, "id": 1}',
        '{"do": "seek", "t_us": -1, "id": 1}',
        '{"do": "roi", "box": [1, 2, 3], "id": 1}',
        '{"do": "roi", "box": [1, 2, 3, -4], "id": 1}',
        '{"do": "record", "on": 1, "id": 1}',
        '{"do": "shown", "frame": 1, "id": 1}',
        '{"do": "shown"}',
        '{"do": "shown", "frame": "1"}',
        '{"do": "_check", "id": 1}',
        '{"do": ["play"], "id": 1}',
        '{"do": "close", "id": 1}',
        "[" * 4000,
        '{"do": "play", "id": 1}' + " " * MAX_COMMAND_BYTES,
        '{"do": "' + "\u20ac" * 2000 + '", "id": 1}',
    ],
)
def test_garbage_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_command(text)
    assert len(str(refused.value)) < 300
    json.loads(error_message(str(refused.value), refused.value.of))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=60)
    | JSON.map(json.dumps)
    | st.fixed_dictionaries(
        {"do": st.sampled_from((*GOOD, "shown"))},
        optional=dict.fromkeys(("id", "frame", "n", "value", "box", "on", "core", "low"), JSON),
    ).map(json.dumps)
)
def test_every_text_is_a_command_or_refused(text: str) -> None:
    try:
        command = parse_command(text)
    except CommandError:
        return
    assert command.do in (*GOOD, "shown")
    assert (command.id is None) == (command.do == "shown")
    assert json.loads(text).keys() == {"do", *command.values, *(() if command.do == "shown" else ("id",))}
