"""A viewer in Python: what it is told, what it shows, how it ends; and the docs, run as they stand."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import runpy
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.sync.client import connect

from spikeport.deploy import Emulator, Program, Viewer, classify, compile_program
from spikeport.deploy.errors import SettingError
from spikeport.deploy.view import ServeSettings, ViewSettings
from spikeport.models.events import Events

from ..nets import stack  # noqa: TID252

PAGE = Path(__file__).resolve().parents[3] / "docs" / "view.md"
FAST = ViewSettings(speed=None)


@pytest.fixture(scope="module")
def program() -> Program:
    net = stack((2, 16, 16), [{"features": 4, "kernel": 3, "pool": 2}, {"features": 3, "kernel": 0}])
    return compile_program(net, "speck2fdevkit", provenance={"classes": ["left", "right", "none"]})


@pytest.fixture(scope="module")
def events() -> Events:
    return recording(0)


def recording(seed: int) -> Events:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, edge, 3000) for edge in (16, 16, 2))
    return Events(x, y, p, np.sort(rng.integers(0, 300_000, 3000)), (16, 16)).from_zero()


@contextlib.contextmanager
def played(*given: Any, **named: Any) -> Iterator[Viewer]:
    """Yield a viewer whose show stands at its end."""
    with Viewer(*given, serve=ServeSettings(waits_for_viewer=False), **named) as viewer:
        viewer.start()
        assert viewer.wait(20)
        yield viewer


def get(viewer: Viewer, path: str) -> tuple[int, bytes]:
    origin, _, token = viewer.url.partition("/?token=")
    request = urllib.request.Request(f"{origin}/{path}", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def facts(viewer: Viewer) -> dict[str, Any]:
    """Return what the page is told first."""
    origin, _, token = viewer.url.partition("/?token=")
    headers = {"Authorization": f"Bearer {token}"}
    with connect(origin.replace("http", "ws", 1) + "/ws", additional_headers=headers) as socket:
        found: dict[str, Any] = json.loads(socket.recv())["facts"]
        return found


def test_a_list_of_recordings_is_shown_one_after_the_other(program: Program) -> None:
    recordings = [recording(seed) for seed in range(3)]
    with played(program, recordings, settings=FAST) as viewer:
        expected = {index: classify(Emulator(program).run(one), program) for index, one in enumerate(recordings)}
        assert viewer.show.finals() == expected
        totals = viewer.show.totals()
        assert (totals.n_events, totals.n_windows) == (9000, 9)
        assert facts(viewer)["reels"] == ["recording 0", "recording 1", "recording 2"]


def test_the_page_is_told_what_it_needs_and_of_other_knobs(program: Program, events: Events) -> None:
    with played(program, events, settings=FAST.changed(interval_ms=50.0)) as viewer:
        told = facts(viewer)
        assert told["classes"] == ["left", "right", "none"]
        assert told["sensor"] == [16, 16]
        assert (told["device"], told["power_source"], told["chip"]) == ("emulator", "estimated", "speck2fdevkit")
        assert told["plots"] == [["events", "counts", "readout"], ["power", "cores", "map"]]
        assert [core["core"] for core in told["cores"]] == [core.core for core in program.cores]
        assert [core["entry"] for core in told["cores"]] == [True, False]
        assert [core["output"] for core in told["cores"]] == [False, True]
        assert told["settings"]["interval_ms"] == 50.0
        assert told["settings"]["watch"] == program.cores[0].core
        viewer.show.set_knobs(threshold=7)
        assert facts(viewer)["settings"]["threshold"] == 7


def test_names_are_those_of_the_settings_the_program_the_icons_or_numbers(
    program: Program, events: Events, tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "1_thumb_up.png")
    nameless = dataclasses.replace(program, provenance={})
    icons = FAST.changed(icons=tmp_path)
    for what, settings, expected in (
        (program, FAST.changed(names=("a", "b", "c")), ["a", "b", "c"]),
        (program, icons, ["left", "right", "none"]),
        (nameless, icons, ["0", "thumb up", "2"]),
        (nameless, FAST, ["0", "1", "2"]),
    ):
        with played(what, events, settings=settings) as viewer:
            assert facts(viewer)["classes"] == expected
            url = facts(viewer)["icons"][1]
            assert (url is None) == (settings.icons is None)
            if url is not None:
                assert get(viewer, url) == (200, (tmp_path / "1_thumb_up.png").read_bytes())


def test_what_was_shown_can_be_had_as_a_table_and_an_animation(program: Program, events: Events) -> None:
    with played(program, events, settings=FAST) as viewer:
        status, table = get(viewer, "export/windows.csv")
        assert status == 200
        assert [line.split(",")[2:4] for line in table.decode().splitlines()[1:]] == [
            ["0", "100000"],
            ["100000", "200000"],
            ["200000", str(int(events.t_us[-1]) + 1)],
        ]
        status, animation = get(viewer, "export/activity.gif?from_us=0&to_us=200000")
        assert (status, animation[:6]) == (200, b"GIF89a")
        status, why = get(viewer, "export/activity.gif?from_us=5000000&to_us=6000000")
        assert (status, b"Try playing it first" in why) == (409, True)


def test_a_readout_of_ones_own_decides(program: Program, events: Events) -> None:
    def always_last(counts: NDArray[np.int64]) -> int:
        return len(counts) - 1

    with played(program, events, settings=FAST, readout=always_last) as viewer:
        assert viewer.show.totals().n_decided == viewer.show.totals().n_windows == 3
    with pytest.raises(SettingError, match="readout '<lambda>': expected one of the 3 classes"):
        Viewer(program, events, readout=lambda _: 3)


def test_the_pages_button_never_writes_over_a_file(program: Program, events: Events, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path), Viewer(program, events) as viewer:
        assert re.fullmatch(r"session-\d{8}-\d{6}\.npz", viewer._next_record().name)
        viewer.record_to = tmp_path / "mine.npz"
        assert viewer._next_record() == tmp_path / "mine.npz"
        (tmp_path / "mine.npz").touch()
        assert viewer._next_record() == tmp_path / "mine-2.npz"


@pytest.mark.parametrize("given", [[], ["none.npz"], [b"bytes"], [None]])
def test_a_source_that_is_none_is_refused(program: Program, given: list[Any]) -> None:
    with pytest.raises(SettingError, match="input: expected"):
        Viewer(program, given)


def test_all_threads_and_sockets_are_gone_two_seconds_after_the_end(program: Program, events: Events) -> None:
    before = set(threading.enumerate())
    with Viewer(program, events) as viewer:
        viewer.start()
        origin, _, token = viewer.url.partition("/?token=")
        with connect(
            origin.replace("http", "ws", 1) + "/ws", additional_headers={"Authorization": f"Bearer {token}"}
        ) as socket:
            socket.recv()
            started = time.perf_counter()
            viewer.close()
            assert time.perf_counter() - started < 2.0
        viewer.close()
    until = time.monotonic() + 2.0
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()
    with pytest.raises(OSError, match="refused"):
        get(viewer, "")


def test_a_port_is_served_once(program: Program, events: Events) -> None:
    with Viewer(program, events) as viewer:
        viewer.start()
        port = int(viewer.url.split(":")[2].partition("/")[0])
        other = Viewer(program, events, serve=ServeSettings(port=port))
        with other, pytest.raises(SettingError, match="cannot be listened on"):
            other.start()


def test_every_piece_of_python_in_the_docs_runs(
    program: Program, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # two of its lines write files
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for number, block in enumerate(blocks):
            file = tmp_path / f"block{number}.py"
            file.write_text(block)
            found = runpy.run_path(str(file), init_globals={"program": program, "events": events})
            if "cautious" in found:
                assert found["cautious"](np.array([5, 2, 1])) == 0
                assert found["cautious"](np.array([5, 4, 1])) is None
    assert "Totals(" in said.getvalue()
    assert (tmp_path / "moment.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "activity.gif").read_bytes().startswith(b"GIF8")
