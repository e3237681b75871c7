"""What goes over a WebSocket of the page: frames for as long as there is credit, and commands to the show."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from spikeport.deploy.view import relay
from spikeport.deploy.view.protocol import MAX_COMMAND_BYTES, CommandError
from spikeport.deploy.view.relay import Credit, Rate
from spikeport.deploy.view.server import ViewServer
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.types import Totals

from .clients import (
    FACTS,
    FakeShow,
    Stand,
    answer_to,
    ask,
    bare_socket,
    closed_with,
    decoded,
    errors_before_close,
    frames,
    open_socket,
    quiet,
    say,
    standing,
    told_facts,
    wait_for,
)
from .played import classed_case, expected_of, open_show


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(autouse=True)
def no_complaint(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet(caplog):
        yield


# what goes over a WebSocket


def test_what_was_pushed_is_what_arrives(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        made = [stand.show.push(20, seed=seed) for seed in range(5)]
        n_events = 0
        while n_events < 100:
            header, sections = decoded(bytes(socket.recv(3)))  # type: ignore[arg-type]
            say(socket, do="shown", frame=header["frame"])
            n_events += header["events"]
            if header["events"]:
                assert len(sections["points"]) == header["events"]
        assert n_events == sum(len(one.events) for one in made)


def test_without_credit_at_most_the_window_comes_and_then_all_of_the_rest(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        (first,) = frames(socket)
        assert first[0]["reset"]
        for seed in range(30):
            stand.show.push(10, seed=seed)
            time.sleep(0.005)
        came = [first, *frames(socket)]
        assert len(came) == relay.FIRST_CREDIT
        say(socket, do="shown", frame=came[-1][0]["frame"])
        (rest,) = frames(socket)
        headers = [header for header, _ in (*came, rest)]
        assert [header["frame"] for header in headers] == [1, 2, 3]
        assert sum(header["events"] for header in headers) == 300
        assert sum(core["synops"] for header in headers for core in header["cores"]) == 9 * 300
        assert "image" in rest[1]


def test_a_change_that_nobody_calls_about_is_told_within_a_frame(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        (first,) = frames(socket)
        say(socket, do="shown", frame=first[0]["frame"])
        assert frames(socket, first_s=0.1) == []
        try:
            stand.show.at = dataclasses.replace(stand.show.at, is_playing=False, problem="The board is gone.")
            stand.show.counted = Totals(n_events=5)
            (told,) = frames(socket)
            assert told[0]["position"]["problem"] == "The board is gone."
            assert told[0]["totals"]["events"] == 5
        finally:
            stand.show.at = dataclasses.replace(stand.show.at, is_playing=True, problem=None)
            stand.show.counted = Totals()


def test_frames_come_no_faster_than_asked_for(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        numbers, until = [], time.monotonic() + 0.3
        while time.monotonic() < until:
            stand.show.push(1)
            with contextlib.suppress(TimeoutError):
                numbers.append(decoded(bytes(socket.recv(0.002)))[0]["frame"])  # type: ignore[arg-type]
                say(socket, do="shown", frame=numbers[-1])
        assert 0 < len(numbers) <= 0.3 * FACTS["settings"]["fps"] + 2


def test_a_client_that_does_not_read_holds_up_nobody_and_catches_up_at_once(stand: Stand) -> None:
    with open_socket(stand.server, max_queue=1) as slow, open_socket(stand.server) as quick:
        n_quick, until = 0, time.monotonic() + 0.5
        while time.monotonic() < until:
            stand.show.push(400)
            header, _ = decoded(bytes(quick.recv(3)))  # type: ignore[arg-type]
            say(quick, do="shown", frame=header["frame"])
            n_quick += 1
        assert n_quick > 2
        wait_for(lambda: sum(not one._credit.is_left for one in stand.server._clients) == 1)
        (client,) = [one for one in stand.server._clients if not one._credit.is_left]
        assert client._credit.window <= relay.MOST_CREDIT
        assert all(len(sums._points) == 0 for sums in [client._backlog._sums])
        before = time.monotonic()
        header = decoded(bytes(slow.recv(3)))[0]  # type: ignore[arg-type]
        while header["t_us"] < stand.show.t_us:
            say(slow, do="shown", frame=header["frame"])
            header = decoded(bytes(slow.recv(3)))[0]  # type: ignore[arg-type]
        assert header["frame"] <= relay.FIRST_CREDIT + 2
        assert time.monotonic() - before < 1


def test_facts_come_first_and_again_when_they_change(stand: Stand) -> None:
    with bare_socket(stand.server) as socket, bare_socket(stand.server) as other:
        assert json.loads(socket.recv(3)) == {"facts": FACTS} == json.loads(other.recv(3))
        say(socket, do="knobs", id=1, threshold=7)
        assert answer_to(socket, 1) is None
        assert ("knobs", {"threshold": 7}) in stand.show.asked
        changed = {**FACTS, "settings": {**FACTS["settings"], "threshold": 7}}
        assert told_facts(other) == changed
        stand.server.tell(FACTS)
        assert told_facts(other) == FACTS


@pytest.mark.parametrize("n_unshown", [0, 12])
def test_the_frames_of_a_real_show_sum_to_its_run(n_unshown: int) -> None:
    case = classed_case(7)
    show, log = open_show(case, ViewSettings(interval_ms=1.0, step_ms=1.0, speed=None))
    show.start()
    with contextlib.closing(show), ViewServer(show, FACTS) as server, open_socket(server) as socket:
        for number in range(1, n_unshown + 1):
            say(socket, do="step", n=1, id=number)
        came = frames(socket, quiet_s=0.3) if n_unshown else []
        if came:
            say(socket, do="shown", frame=came[-1][0]["frame"])
        say(socket, do="play", id=99)
        assert answer_to(socket, 99, came) is None
        while not came[-1][0]["position"]["ended"]:
            came.append(decoded(bytes(socket.recv(5))))  # type: ignore[arg-type]
            say(socket, do="shown", frame=came[-1][0]["frame"])
    headers = [header for header, _ in came]
    expected, at, totals = expected_of(case), show.position(), dataclasses.asdict(show.totals())
    assert sum(header["events"] for header in headers) == len(case.events)
    assert headers[-1]["totals"] == {name.removeprefix("n_"): count for name, count in totals.items()}
    assert headers[-1]["position"]["final"] == at.final == expected.final
    assert headers[-1]["so_far"] == expected.counts(0, at.t_us)
    assert sum(len(header["windows"]) + header["skipped_windows"] for header in headers) == len(log.windows)
    synops = sum(core["synops"] for header in headers for core in header["cores"])
    assert synops == totals["synops"] == sum(expected.recording.synops.values())


def test_the_show_begins_when_the_first_client_has_drawn_and_nothing_of_it_is_missed() -> None:
    case = classed_case(7)
    show, log = open_show(case, ViewSettings(interval_ms=1.0, speed=None))
    show.start()
    show.await_viewer()
    with contextlib.closing(show), ViewServer(show, FACTS) as server:
        with open_socket(server) as socket:
            ((first, _),) = frames(socket)
            assert (first["past"], first["position"]["playing"], first["windows"]) == (True, False, [])
            assert not show.wait(0.05)
            say(socket, do="shown", frame=1)
            headers = [first]
            while not headers[-1]["position"]["ended"]:
                headers.append(decoded(bytes(socket.recv(5)))[0])  # type: ignore[arg-type]
                say(socket, do="shown", frame=headers[-1]["frame"])
        assert show.wait(1)
        assert sum(header["events"] for header in headers) == len(case.events)
        assert [one["i"] for header in headers for one in header["windows"]] == [one.index for one in log.windows]
        with open_socket(server) as late:
            say(late, do="speed", value=1, id=5)
            ((again, sections), *_) = frames(late)
            say(late, do="shown", frame=1)
            assert (again["past"], again["reset"], again["span_us"], again["events"]) == (True, True, 0, 0)
            assert [one["i"] for one in again["windows"]] == [one.index for one in log.windows][-512:]
            assert all(one["power_w"] for one in again["windows"])
            assert sections["image"].shape == (2, *case.events.sensor_size)
            assert sections["image"].any()
            for name in ("so_far", "totals"):
                assert again[name] == headers[-1][name]
            assert again["position"]["final"] == show.position().final
            assert show.position().has_ended
        assert show.totals().n_events == len(case.events)


def test_a_show_that_begun_otherwise_is_not_begun_by_a_client(stand: Stand) -> None:
    stand.show.n_begun = 0
    with open_socket(stand.server) as socket:
        ((first, _),) = frames(socket)
        assert stand.show.n_begun == 0
        say(socket, do="shown", frame=first["frame"])
        wait_for(lambda: stand.show.n_begun == 1)
        stand.show.push(3)
        header, _ = decoded(bytes(socket.recv(3)))  # type: ignore[arg-type]
        say(socket, do="shown", frame=header["frame"])
        say(socket, do="begin", id=1)
        assert "expected one of" in errors_before_close(socket)[0]
    assert stand.show.n_begun == 1


# commands


def test_commands_reach_the_show_in_their_order(stand: Stand) -> None:
    stand.show.asked.clear()
    sent: list[dict[str, Any]] = [
        {"do": "play"},
        {"do": "speed", "value": 0.5},
        {"do": "speed", "value": None},
        {"do": "roi", "box": [0, 4, 0, 4]},
        {"do": "roi", "box": None},
        {"do": "watch", "core": None},
        {"do": "record", "on": True},
        {"do": "record", "on": False},
    ]
    with open_socket(stand.server) as socket:
        for number, command in enumerate(sent):
            say(socket, **command, id=number)
        assert [answer_to(socket, number) for number in range(len(sent))] == [None] * len(sent)
    assert stand.show.asked == [
        *(("play", None), ("speed", 0.5), ("speed", None), ("roi", (0, 4, 0, 4)), ("roi", None), ("watch", None)),
        *(("record", Path("session.spk")), ("record", None)),
    ]


def test_a_command_that_fails_is_answered_and_the_next_one_works(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        say(socket, do="seek", t_us=5, id=1)
        assert answer_to(socket, 1) == "seek: 5 is nowhere. Try 0."
        say(socket, do="open", index=5, id=2)
        assert answer_to(socket, 2) == "KeyError: 5"
        say(socket, do="play", id=3)
        assert answer_to(socket, 3) is None


def test_a_pause_ends_many_steps(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        say(socket, do="step", n=1000, id=1)
        say(socket, do="pause", id=2)
        answers: set[int] = set()
        while len(answers) < 2:
            message = socket.recv(3)
            if isinstance(message, str):
                answers.add(json.loads(message)["done"])
        assert answers == {1, 2}


def test_recording_without_a_place_for_it_is_refused() -> None:
    with ViewServer(FakeShow(), FACTS) as server, open_socket(server) as socket:
        say(socket, do="record", on=True, id=1)
        assert "no place" in str(answer_to(socket, 1))
        assert ask(server, "/export/windows.csv")[0] == 404


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b'{"do": "play", "id": 1}', "found a binary one"),
        ("garbage", "one JSON object"),
        ('{"do": "shown", "frame": 99}', "expected a frame that was sent"),
        ('{"do": "shown", "frame": 0}', "expected a frame that was sent"),
        ('{"do": "play", "id": 1, "x": 1}', "expected the keys none"),
    ],
)
def test_garbage_is_told_and_the_client_sent_away(stand: Stand, message: str | bytes, says: str) -> None:
    with open_socket(stand.server) as socket:
        socket.send(message)
        assert says in errors_before_close(socket)[0]
        assert closed_with(socket) == 1008


@pytest.mark.parametrize("message", ["x" * (MAX_COMMAND_BYTES + 1), b"x" * (MAX_COMMAND_BYTES + 1)])
def test_a_message_that_is_too_long_ends_the_connection(stand: Stand, message: str | bytes) -> None:
    with open_socket(stand.server) as socket:
        socket.send(message)
        assert closed_with(socket) == 1009


def test_a_message_in_pieces_is_not_longer(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        with contextlib.suppress(ConnectionClosed):
            socket.send(["x" * 3000] * 3)
        # Pieces under way when the server closes reset the connection, which may overtake its farewell.
        assert closed_with(socket) in (1009, 1006)


def test_commands_above_the_rate_are_refused_and_a_flood_ends_the_connection(stand: Stand) -> None:
    with open_socket(stand.server) as socket:
        for number in range(relay.COMMANDS_PER_S + 20):
            say(socket, do="play", id=number)
        assert "20 commands a second" in str(answer_to(socket, relay.COMMANDS_PER_S + 19))
        with contextlib.suppress(ConnectionClosed):
            for number in range(400):
                say(socket, do="play", id=number)
        assert closed_with(socket) == 1008


# the window of credit and the rate by themselves


def test_the_window_follows_the_round_trips() -> None:
    credit, number = Credit(), 0

    def round_trip(seconds: float) -> int:
        nonlocal number
        number += 1
        credit.sent(number, 0.0)
        assert credit.shown(number, seconds)
        return credit.window

    assert credit.window == 2
    assert [round_trip(0.01) for _ in range(4)] == [3, 4, 4, 4]
    assert [round_trip(0.1) for _ in range(2)] == [4, 4]
    assert [round_trip(0.2) for _ in range(5)] == [3, 2, 1, 1, 1]
    assert round_trip(0.01) == 2


def test_a_frame_gives_back_the_credit_of_those_before_it_once() -> None:
    credit = Credit()
    credit.sent(1, 0.0)
    credit.sent(2, 0.0)
    assert not credit.is_left
    assert credit.shown(2, 0.1)
    assert credit.is_left
    assert not credit.shown(1, 0.1)
    assert not credit.shown(2, 0.1)
    with pytest.raises(CommandError):
        credit.shown(3, 0.1)


def test_a_rate_fills_again() -> None:
    rate = Rate(20, 0.0)
    assert [rate.allows(0.0) for _ in range(21)] == [True] * 20 + [False]
    assert rate.allows(0.06)
    assert not rate.allows(0.06)
    assert [rate.allows(99.0) for _ in range(21)] == [True] * 20 + [False]
