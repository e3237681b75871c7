"""Events to a viewer: the node that sends them, and a viewer that accepts and counts them, without a window.

A line of JSON per batch goes over a TCP connection of this machine: ``{"SpikeCount": 11}`` says how many events of each
kind came, ``{"plots": [...]}`` the plots of a configuration. Whatever address is asked for, the node listens on
127.0.0.1 only.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import re
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from . import ui
from .errors import VirtualBoardError
from .graph import Node

HOST = "127.0.0.1"
_CONNECT_S = 10.0
_POLL_S = 0.2


def parse_endpoint(endpoint: str) -> int:
    """Return the port of ``tcp://ADDRESS:PORT``.

    Raises: VirtualBoardError for anything else.
    """
    found = re.fullmatch(r"tcp://[\w.\-*]+:(\d{1,5})", endpoint) if isinstance(endpoint, str) else None
    if found is None or not 0 < int(found[1]) < 65536:
        raise VirtualBoardError(
            f"virtual samna: endpoint: expected tcp://ADDRESS:PORT, found {endpoint!r:.60}. Try tcp://127.0.0.1:40000."
        )
    return int(found[1])


class VizEventStreamer(Node):
    """Sends events to the viewers that connected; without one they are only counted, by kind, in ``counts``."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = ui.EVENTS
        self.counts: Counter[str] = Counter()
        self._viewers: list[socket.socket] = []
        self._server: socket.socket | None = None
        self._lines: list[bytes] = []

    def set_streamer_endpoint(self, endpoint: str) -> bool:
        """Listen for viewers at the endpoint's port; return whether that is possible."""
        port = parse_endpoint(endpoint)
        self.close()
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            server.close()
            return False
        server.listen(4)
        server.settimeout(_POLL_S)
        self._server = server
        reference = weakref.ref(self)
        threading.Thread(target=_accept, args=(reference, server), name="virtual viewers", daemon=True).start()
        # multiprocessing waits at the exit for viewers, which wait for this: it has to be registered after that.
        importlib.import_module("multiprocessing.util")
        atexit.register(_close_of, reference)
        return True

    def get_connected_receiver_count(self) -> int:
        """Return how many viewers there are."""
        return len(self._viewers)

    def wait_for_receiver_count(self, count: int = 1, timeout_milli_sec: int = 10_000) -> int:
        """Return how many viewers there are, after waiting for ``count`` of them."""
        end_s = time.monotonic() + timeout_milli_sec / 1e3
        while len(self._viewers) < count and time.monotonic() < end_s:
            time.sleep(0.01)
        return len(self._viewers)

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        counts = Counter(type(event).__name__ for event in events)
        self.counts += counts
        lines = [json.dumps(counts).encode() + b"\n"]
        lines += [
            json.dumps({"plots": [type(plot).__name__ for plot in event.plots]}).encode() + b"\n"
            for event in events
            if isinstance(event, ui.VisualizerConfiguration)
        ]
        self._lines += lines[1:]
        for viewer in tuple(self._viewers):
            self._send(viewer, b"".join(lines))
        return ()

    def accept(self, server: socket.socket) -> bool:
        """Take the next viewer, waiting a moment; return False where the server is no longer this node's."""
        if server is not self._server:
            return False
        try:
            viewer, _ = server.accept()
        except TimeoutError:
            return True
        except OSError:
            return False
        viewer.settimeout(1.0)
        self._send(viewer, b"".join(self._lines) or b"{}\n")
        self._viewers.append(viewer)
        return True

    def _send(self, viewer: socket.socket, lines: bytes) -> None:
        try:
            viewer.sendall(lines)
        except OSError:  # it has gone, or reads nothing
            viewer.close()
            with contextlib.suppress(ValueError):
                self._viewers.remove(viewer)

    def close(self) -> None:
        """Let the viewers go; setting an endpoint listens again."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        while self._viewers:
            self._viewers.pop().close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()


def _accept(reference: weakref.ref[VizEventStreamer], server: socket.socket) -> None:
    while (streamer := reference()) is not None and streamer.accept(server):
        del streamer


def _close_of(reference: weakref.ref[VizEventStreamer]) -> None:
    if (streamer := reference()) is not None:
        streamer.close()


def watch(port: int, told: Callable[[dict[str, Any]], None], *, connect_s: float = _CONNECT_S) -> bool:
    """Connect to a streamer and tell of each line until it ends; return whether there was one within ``connect_s``."""
    end_s = time.monotonic() + connect_s
    while True:
        try:
            connection = socket.create_connection((HOST, port), timeout=1.0)
            break
        except OSError:
            if time.monotonic() > end_s:
                return False
            time.sleep(0.05)
    with connection:
        connection.settimeout(_POLL_S)
        left = b""
        while True:
            try:
                part = connection.recv(65536)
            except TimeoutError:
                continue  # a viewer stays as long as its streamer does
            except OSError:
                return True
            *lines, left = (left + part).split(b"\n")
            for line in lines:
                told(json.loads(line))
            if not part:
                return True


def run_visualizer(endpoint: str, width_proportion: float = 0.75, height_proportion: float = 0.75) -> None:  # noqa: ARG001
    """Accept the events of a streamer until it ends, and print how many came: there is no window."""
    counts: Counter[str] = Counter()
    plots: list[str] = []

    def told(line: dict[str, Any]) -> None:
        if "plots" in line:
            plots[:] = line["plots"]
        else:
            counts.update(line)

    print(f"virtual samnagui: no window; counting the events of {endpoint}", flush=True)
    if watch(parse_endpoint(endpoint), told):
        print(f"virtual samnagui: plots {', '.join(plots) or 'none'}; events {dict(counts)}", flush=True)
    else:
        print(f"virtual samnagui: nothing sends to {endpoint}", flush=True)
