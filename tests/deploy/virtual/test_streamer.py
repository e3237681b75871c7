"""The node that sends events to viewers, and the viewer without a window."""

from __future__ import annotations

import socket
import threading
import time
import types
from typing import Any

import pytest

from spikeport.deploy.virtual import VirtualBoardError
from spikeport.deploy.virtual.graph import Node
from spikeport.deploy.virtual.streamer import HOST, VizEventStreamer, parse_endpoint, run_visualizer, watch


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def test_a_viewer_is_told_of_plots_and_counts(samna: types.ModuleType, port: int) -> None:
    graph = samna.graph.EventFilterGraph()
    source, streamer = graph.sequential([Node(), "VizEventStreamer"])
    assert streamer.set_streamer_endpoint(f"tcp://0.0.0.0:{port}")
    graph.start()
    ui = samna.ui
    plots = [ui.ActivityPlotConfiguration(128, 128, "Dvs Plot", (0, 0, 0.5, 1))]
    source.receive([ui.VisualizerConfiguration(plots=plots)])
    heard: list[dict[str, Any]] = []
    viewer = threading.Thread(target=watch, args=(port, heard.append))
    viewer.start()
    assert streamer.wait_for_receiver_count(1, 5000) == streamer.get_connected_receiver_count() == 1
    source.receive([ui.DvsEvent(0, 1, 2, 3)] * 7)
    graph.stop()
    streamer.close()
    viewer.join(5)
    assert not viewer.is_alive()
    assert {"plots": ["ActivityPlotConfiguration"]} in heard
    assert {"DvsEvent": 7} in heard
    assert streamer.counts == {"VisualizerConfiguration": 1, "DvsEvent": 7}


def test_only_this_machine_is_listened_to(port: int) -> None:
    streamer = VizEventStreamer()
    assert streamer.set_streamer_endpoint(f"tcp://*:{port}")
    assert streamer._server is not None
    assert streamer._server.getsockname()[0] == "127.0.0.1"
    assert not VizEventStreamer().set_streamer_endpoint(f"tcp://127.0.0.1:{port}")
    assert streamer.wait_for_receiver_count(1, 30) == 0
    streamer.close()


def test_a_viewer_that_leaves_is_forgotten(port: int) -> None:
    streamer = VizEventStreamer()
    streamer.set_streamer_endpoint(f"tcp://127.0.0.1:{port}")
    connection = socket.create_connection((HOST, port))
    assert streamer.wait_for_receiver_count(1, 5000) == 1
    connection.close()
    end = time.monotonic() + 5
    while streamer.get_connected_receiver_count() and time.monotonic() < end:
        streamer._apply([object()])
    assert streamer.get_connected_receiver_count() == 0
    streamer.close()


def test_a_viewer_says_that_it_has_no_window_and_that_nothing_sends(
    port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikeport.deploy.virtual.streamer._CONNECT_S", 0.1)
    assert watch(port, print, connect_s=0.1) is False
    streamer = VizEventStreamer()
    streamer.set_streamer_endpoint(f"tcp://127.0.0.1:{port}")
    viewer = threading.Thread(target=run_visualizer, args=(f"tcp://0.0.0.0:{port}", 0.5, 0.5))
    viewer.start()
    streamer.wait_for_receiver_count(1, 5000)
    streamer._apply([object()])
    streamer.close()
    viewer.join(5)
    assert not viewer.is_alive()
    printed = capsys.readouterr().out
    assert "virtual samnagui: no window" in printed
    assert "plots none; events {'object': 1}" in printed


@pytest.mark.parametrize(
    "endpoint", ["", "40000", "udp://127.0.0.1:1", "tcp://127.0.0.1", "tcp://a:0", "tcp://a:99999", None]
)
def test_endpoints_are_checked(endpoint: Any) -> None:
    with pytest.raises(VirtualBoardError, match="endpoint: expected tcp://ADDRESS:PORT"):
        parse_endpoint(endpoint)
    assert parse_endpoint("tcp://0.0.0.0:40000") == 40000
