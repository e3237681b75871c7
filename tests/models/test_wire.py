"""Events on their way into a stream: bad ones refused or counted, packets, lines of text, UDP, files."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.models.errors import EventFileError, StreamError
from spikeport.models.events import Events
from spikeport.models.files import write_events
from spikeport.models.intake import Intake
from spikeport.models.sources import FileSource, Pieces, PipeSource, UdpSource, open_source
from spikeport.models.wire import pack_events, send_events, unpack_packet

from .given import LAST as PREDICTOR
from .given import recording, run

FAST = settings(max_examples=15, deadline=None)


# bad events


def columns(**changed: Any) -> dict[str, Any]:
    return {name: np.array(values) for name, values in changed.items()}


BAD = [
    ("outside", {"x": [0, 6, 1], "y": [0, 0, 0], "p": [0, 0, 0], "t_us": [0, 1, 2]}),
    ("outside", {"x": [0, 1, 1], "y": [0, -1, 0], "p": [0, 0, 0], "t_us": [0, 1, 2]}),
    ("polarity", {"x": [0, 1, 1], "y": [0, 0, 0], "p": [0, 2, 0], "t_us": [0, 1, 2]}),
    ("backward", {"x": [0, 1, 1], "y": [0, 0, 0], "p": [0, 0, 0], "t_us": [5, 4, 6]}),
    ("pause", {"x": [0, 1, 1], "y": [0, 0, 0], "p": [0, 0, 0], "t_us": [5, 10**15, 6]}),
]


@pytest.mark.parametrize(("kind", "raw"), BAD)
def test_events_that_are_none_are_refused_or_left_out_and_counted(kind: str, raw: Any) -> None:
    given = columns(**raw)
    t_us = given.pop("t_us")
    with pytest.raises(StreamError, match=r"event 1 \(.*Try --repair"):
        Intake().take_columns(**given, t_us=t_us, sensor_size=(5, 6))
    intake = Intake(repairs=True)
    left = intake.take_columns(**given, t_us=t_us, sensor_size=(5, 6))
    assert len(left) == 2
    assert intake.counts == {kind: 1}


def test_time_may_not_step_back_between_pieces_either() -> None:
    late, early = recording(10, start_us=10**6), recording(10)
    with pytest.raises(StreamError, match=r"event 10 .*does not step back \(before this piece: 10"):
        run(PREDICTOR, Pieces([late, early]))
    source = Pieces([late, early], repairs=True)
    report, _ = run(PREDICTOR, source)
    assert report.left_out == {"backward": 10}
    with pytest.raises(StreamError, match="events of one sensor"):
        run(PREDICTOR, Pieces([recording(3), Events([0], [0], [0], [10**6], (9, 9))]))  # type: ignore[arg-type]


@FAST
@given(st.integers(0, 10**6))
def test_what_is_left_out_and_what_is_left_are_everything(seed: int) -> None:
    rng = np.random.default_rng(seed)
    intake, n_left = Intake(repairs=True), 0
    for _ in range(3):
        n = int(rng.integers(0, 20))
        x, y, p = (rng.integers(-1, edge, n) for edge in (8, 7, 3))
        left = intake.take_columns(x, y, p, t_us=rng.integers(-5, 100, n), sensor_size=(5, 6))
        n_left += len(left)
    assert n_left + sum(intake.counts.values()) == intake.n_events


# the wire


@FAST
@given(st.integers(0, 300), st.integers(1, 100), st.integers(0, 10**9))
def test_packets_give_their_events_back(n: int, portion: int, first: int) -> None:
    events = recording(n)
    packets = [unpack_packet(data, "t") for data in pack_events(events, first=first, is_last=True, portion=portion)]
    for name in ("x", "y", "p", "t_us"):
        joined = np.concatenate([packet.events[name] for packet in packets])
        np.testing.assert_array_equal(joined, getattr(events, name))
    assert [packet.is_last for packet in packets] == [False] * (len(packets) - 1) + [True]


@FAST
@given(st.binary(max_size=80))
def test_bytes_that_are_no_packet_are_refused(data: bytes) -> None:
    for one in (data, b"SPEV" + data):
        with pytest.raises(StreamError):
            unpack_packet(one, "t")
        with pytest.raises(StreamError):
            list(PipeSource(io.BytesIO(b"SPEV\x02" + one)))


def test_a_pipe_takes_packets_cut_anywhere() -> None:
    events = recording(500)
    data = b"".join(pack_events(events, portion=77))

    class Dribble(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return super().read1(13)

    report, found = run(PREDICTOR, PipeSource(Dribble(data)))
    expected = run(PREDICTOR, Pieces([events]))[1]
    assert report.n_events == 500
    assert all(a.same(b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(StreamError, match="of one at the end"):
        run(PREDICTOR, PipeSource(io.BytesIO(data[:-3])))


def test_a_pipe_takes_lines_of_text_in_the_order_of_their_names() -> None:
    events = recording(50)
    rows = zip(events.t_us, events.x, events.y, events.p, strict=True)
    text = "\n".join(f"{t},{x},{y},{p}" for t, x, y, p in rows)
    swapped = "x,y,t,p\n" + "\n".join(
        f"{x},{y},{t},{p}" for t, x, y, p in zip(events.t_us, events.x, events.y, events.p, strict=True)
    )
    for one in (text, text + "\n", swapped):
        report, _ = run(PREDICTOR, PipeSource(io.BytesIO(one.encode()), sensor_size=(5, 6)))
        assert report.n_events == 50
    for line, match in (("0.001,1,1,0", "line 51: .*Try round"), ("1,2,3", "four whole numbers"), ("x" * 5000, "line")):
        with pytest.raises(StreamError, match=match):
            run(PREDICTOR, PipeSource(io.BytesIO(f"{text}\n{line}\n".encode()), sensor_size=(5, 6)))
    with pytest.raises(StreamError, match="--sensor"):
        run(PREDICTOR, PipeSource(io.BytesIO(text.encode())))
    with pytest.raises(StreamError, match="empty stream"):
        run(PREDICTOR, PipeSource(io.BytesIO(b"")))


def test_udp_counts_what_was_lost_on_the_way() -> None:
    source = UdpSource("127.0.0.1", 0, idle_s=5.0)
    events = recording(1000)
    packets = list(pack_events(events, portion=100, is_last=True))
    del packets[3]
    late = packets.pop(4)

    def send() -> None:
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for packet in [*packets[:6], late, *packets[6:]]:
                out.sendto(packet, source.address)

    thread = threading.Thread(target=send)
    thread.start()
    report, _ = run(PREDICTOR, source)
    thread.join()
    assert report.n_events == 800
    assert report.left_out == {"lost": 200, "late": 100}


def test_udp_from_end_to_end_and_addresses_that_are_none() -> None:
    source = open_source("udp://127.0.0.1:0?idle=5")
    events = recording(3000)
    address = source.address  # type: ignore[attr-defined]
    thread = threading.Thread(target=send_events, args=([events.part(0, 1500), events.part(1500, 3000)], address))
    thread.start()
    report, found = run(PREDICTOR, source)
    thread.join()
    assert report.n_events + sum(report.left_out.values()) == 3000
    assert found
    for spec in ("udp://127.0.0.1", "tcp://127.0.0.1:7", "udp://127.0.0.1:7/x", "udp://h:99999", "udp://h:1?a=2"):
        with pytest.raises(StreamError, match=r"Try udp://127\.0\.0\.1:7777"):
            open_source(spec)
    with UdpSource("127.0.0.1", 0)._socket as taken, pytest.raises(StreamError, match="cannot be listened at"):
        UdpSource("127.0.0.1", taken.getsockname()[1])


def test_nobody_sends_and_the_stream_ends() -> None:
    report, found = run(PREDICTOR, UdpSource("127.0.0.1", 0, idle_s=0.3))
    assert report.n_in == 0
    assert not found


def test_a_file_is_a_stream(tmp_path: Path) -> None:
    events = recording()
    write_events(events, tmp_path / "r.npz")
    _, found = run(PREDICTOR, FileSource(tmp_path / "r.npz", chunk=77))
    assert all(a.same(b) for a, b in zip(found, run(PREDICTOR, Pieces([events]))[1], strict=True))
    with pytest.raises(EventFileError):
        run(PREDICTOR, open_source(str(tmp_path / "absent.npz")))
