"""A show that does what a test tells it, and clients of its page, for the tests of the server."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import logging
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from spikeport.deploy.errors import SettingError
from spikeport.deploy.view import guard
from spikeport.deploy.view.assets import Assets
from spikeport.deploy.view.backlog import Audience
from spikeport.deploy.view.server import ViewServer
from spikeport.deploy.view.settings import ServeSettings
from spikeport.deploy.view.types import Box, CoreCounts, OutputSpikes, Position, Stretch, Totals, Window
from spikeport.models.events import Events

SENSOR = (12, 16)
N_CLASSES = 3
TOKEN = "a-token-of-sixteen"  # noqa: S105 - of a test
NONE = "none"
"""Instead of a token: send no header with it."""
FACTS: dict[str, Any] = {
    "version": "test",
    "sensor": list(SENSOR),
    "settings": {"interval_ms": 100.0, "threshold": 1, "fps": 50.0, "watch": None},
}
START = Position(0, 1, "a reel", 0, 1_000_000, None, True, False, 1.0, 0.0, None, False, None)


def stretch(start_us: int, stop_us: int, *, n_events: int, seed: int = 0, sensor: tuple[int, int] = SENSOR) -> Stretch:
    rng = np.random.default_rng(seed)
    height, width = sensor
    events = Events(
        rng.integers(0, width, n_events).astype(np.int16),
        rng.integers(0, height, n_events).astype(np.int16),
        rng.integers(0, 2, n_events).astype(np.int8),
        np.sort(rng.integers(start_us, stop_us, n_events)),
        sensor,
    )
    spikes = OutputSpikes(np.zeros(0, np.int64), np.zeros(0, np.int16))
    counts = CoreCounts(n_events, n_events // 2, 9 * n_events, None)
    spiked = rng.integers(0, 5, (3, 4)).astype(np.int64)
    return Stretch(
        start_us, stop_us, events, spikes, {4: counts}, {4: spiked}, {"io": 0.5, "ram": 1e-3 * (1 + seed % 7)}
    )


def window(index: int, counts: Sequence[int] = (1, 2, 3)) -> Window:
    span = (index * 100_000, (index + 1) * 100_000)
    return Window(index, *span, np.array(counts), 2, 2, 10, 90, None, latency_s=0.001)


class FakeShow:
    """A show that a test plays by hand; it notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.at = START
        self.counted = Totals()
        self.gate = threading.Event()
        self.listeners: list[Audience] = []
        self.t_us = self.n_begun = 0

    def push(self, n_events: int, *, span_us: int = 1000, seed: int = 0) -> Stretch:
        """Tell a stretch, as the thread of a show does."""
        made = stretch(self.t_us, self.t_us + span_us, n_events=n_events, seed=seed)
        self.t_us += span_us
        for listener in self.listeners:
            listener.on_stretch(made)
        return made

    def add_listener(self, listener: Audience) -> None:
        self.listeners.append(listener)

    def remove_listener(self, listener: Audience) -> None:
        self.listeners.remove(listener)

    def position(self) -> Position:
        return self.at

    def totals(self) -> Totals:
        return self.counted

    def so_far(self) -> NDArray[np.int64]:
        return np.arange(N_CLASSES)

    def begin(self) -> None:
        self.n_begun += 1

    def play(self) -> None:
        self.asked.append(("play", None))

    def pause(self) -> None:
        self.asked.append(("pause", None))
        self.gate.set()

    def step(self, n: int = 1) -> None:
        """Take steps until somebody pauses."""
        self.asked.append(("step", n))
        self.gate.clear()
        self.gate.wait(5)

    def set_speed(self, speed: float | None) -> None:
        self.asked.append(("speed", speed))

    def seek(self, t_us: int) -> None:
        raise SettingError(f"seek: {t_us} is nowhere. Try 0.")

    def open(self, index: int) -> None:
        raise KeyError(index)

    def set_roi(self, box: Box | None) -> None:
        self.asked.append(("roi", box))

    def set_knobs(self, **knobs: Any) -> None:
        self.asked.append(("knobs", knobs))

    def watch(self, core: int | None) -> None:
        self.asked.append(("watch", core))

    def record(self, path: Path | None) -> None:
        self.asked.append(("record", path))


def decoded(message: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return a frame's header and its sections by name, read by the documented rules alone."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    first = -(-(4 + length) // 4) * 4
    kinds = {"u8": "<u1", "u16": "<u2", "u32": "<u4"}
    sections = {}
    for section in header["sections"]:
        assert section["at"] % 4 == 0
        n = int(np.prod(section["shape"]))
        found = np.frombuffer(message, kinds[section["dtype"]], n, first + section["at"])
        sections[section["name"]] = found.reshape(section["shape"])
    return header, sections


@contextlib.contextmanager
def open_socket(server: ViewServer, **options: Any) -> Iterator[ClientConnection]:
    """Yield a WebSocket as the page opens it, after its facts have come."""
    with bare_socket(server, **options) as socket:
        assert "facts" in json.loads(socket.recv(5))
        yield socket


@contextlib.contextmanager
def bare_socket(server: ViewServer, *, origin: str | None = "", **options: Any) -> Iterator[ClientConnection]:
    """Yield a WebSocket with the token's cookie and the page's origin, or others."""
    at = f"127.0.0.1:{server.port}"
    headers = options.pop("headers", {"cookie": f"spikeport-{server.port}={token_of(server)}"})
    where = f"http://{at}" if origin == "" else origin
    settings = {"open_timeout": 5, "close_timeout": 0.2, "compression": None, "proxy": None, **options}
    with connect(f"ws://{at}/ws", origin=where, additional_headers=headers, **settings) as socket:  # type: ignore[arg-type]
        yield socket


def token_of(server: ViewServer) -> str:
    return server.url.rpartition("=")[2]


def ask(
    server: ViewServer, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, **given: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a request that has the token unless ``token`` says otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    sent = {"authorization": f"Bearer {given.get('token', token_of(server))}"} if given.get("token") != NONE else {}
    try:
        connection.request(method, path, headers={**sent, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def say(socket: ClientConnection, **command: Any) -> None:
    socket.send(json.dumps(command))


def frames(
    socket: ClientConnection, *, first_s: float = 5.0, quiet_s: float = 0.1
) -> list[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """Return the frames that come until none does for a while, without telling that they are shown."""
    found: list[tuple[dict[str, Any], dict[str, NDArray[Any]]]] = []
    while True:
        try:
            message = socket.recv(quiet_s if found else first_s)
        except TimeoutError:
            return found
        if isinstance(message, bytes):
            found.append(decoded(message))


def answer_to(socket: ClientConnection, number: int, came: list[Any] | None = None) -> str | None:
    """Return the sentence of the error that answers a command, None where it is done.

    Frames are shown on the way, and added to those that came.
    """
    while True:
        message = socket.recv(5)
        if isinstance(message, bytes):
            found = decoded(message)
            say(socket, do="shown", frame=found[0]["frame"])
            if came is not None:
                came.append(found)
            continue
        told = json.loads(message)
        if told.get("done") == number:
            return None
        if told.get("of") == number and "error" in told:
            return str(told["error"])


@contextlib.contextmanager
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where a server complains: whatever clients do to it, it expects."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@dataclasses.dataclass(frozen=True)
class Stand:
    server: ViewServer
    show: FakeShow
    is_rendering: threading.Event
    may_render: threading.Event


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    """Yield a server with a page, an icon and exports, and the show behind it."""
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "app.js").write_text("export {}")
    (folder / "base.css").write_text("body {}")
    (folder / "secret.txt").write_text("secret")
    (folder.parent / "beside.js").write_text("beside")
    (folder / "0_zero.png").write_bytes(b"\x89PNG")

    is_rendering, may_render = threading.Event(), threading.Event()

    def gif(start_us: int, stop_us: int) -> bytes:
        if start_us == 13:
            raise SettingError("13 us is too early. Try 14.")
        if start_us == 14:
            is_rendering.set()
            may_render.wait(5)
        return b"GIF89a %d %d" % (start_us, stop_us)

    assets = Assets(
        folder,
        {"0_zero.png": folder / "0_zero.png"},
        windows_csv=lambda: b"index,label\n0,1\n",
        activity_gif=gif,
        record_path=lambda: Path("session.spk"),
    )
    show = FakeShow()
    with ViewServer(show, FACTS, ServeSettings(token=TOKEN), assets) as server:
        yield Stand(server, show, is_rendering, may_render)


def refused(server: ViewServer, **options: Any) -> int:
    """Return the status that a WebSocket is refused with; its answer has the headers of all others."""
    with pytest.raises(InvalidStatus) as answer, bare_socket(server, **options):
        pass
    response = answer.value.response
    assert {name: response.headers[name] for name in guard.HEADERS} == dict(guard.HEADERS)
    return response.status_code


def closed_with(socket: Any) -> int:
    """Return the code of the close that comes after what else comes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            socket.recv(3)
    code: int = socket.close_code
    return code


def errors_before_close(socket: Any) -> list[str]:
    told = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = socket.recv(3)
            if isinstance(message, str) and "error" in json.loads(message):
                told.append(json.loads(message)["error"])
    return told


def told_facts(socket: Any) -> dict[str, Any]:
    while True:
        message = socket.recv(3)
        if isinstance(message, bytes):
            say(socket, do="shown", frame=decoded(message)[0]["frame"])
        elif "facts" in json.loads(message):
            found: dict[str, Any] = json.loads(message)["facts"]
            return found


def wait_for(holds: Any) -> None:
    until = time.monotonic() + 3
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
