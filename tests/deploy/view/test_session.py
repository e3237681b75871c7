"""Sessions: what was shown comes back from the file, a file is whole or not there, and a bad one is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.artifact import program_hash
from spikeport.deploy.errors import RecordingError
from spikeport.deploy.view import recorder as recorder_module
from spikeport.deploy.view import tape
from spikeport.deploy.view.reading import Session, open_session
from spikeport.deploy.view.recorder import SessionRecorder
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.types import CoreCounts, Stretch, Window
from spikeport.models.errors import TargetError

from .taped import CLASSES, FACTS, PROGRAM, Show, play, position, random_stretch, record

KNOWN: dict[int, Any] = {2: [True] * 4}


@contextlib.contextmanager
def kept(seed: int) -> Iterator[tuple[Session, Show]]:
    """Give the session of a random show, and the show."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "session.npz")
        show = record(path, seed)
        with open_session(path) as session:
            yield session, show


# round trip


@given(st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_everything_shown_comes_back(seed: int) -> None:
    with kept(seed) as (session, show):
        stretches = [one for take in show.stretches for one in take]
        rows = session.stretches
        assert rows["start_us"].tolist() == [one.start_us for one in stretches]
        assert rows["stop_us"].tolist() == [one.stop_us for one in stretches]
        for number, stretch in enumerate(stretches):
            assert session.events(number, number + 1).same(stretch.events)
            assert session.spikes(number, number + 1).same(stretch.spikes)
            counts = {core: rows["cores"][number][i] for i, core in enumerate((2, 5))}
            assert tape.cores_of(counts) == dict(stretch.cores)
            assert tape.powers_of(rows["power_w"][number]) == stretch.power_w
        windows = [one for take in show.windows for one in take]
        assert len(windows) == len(session.windows)
        assert all(one.same(other) for one, (_, other) in zip(windows, session.windows, strict=True))
        assert [one.latency_s for one in windows] == [one.latency_s for _, one in session.windows]
        assert session.facts == FACTS
        assert session.program.same(PROGRAM)
        assert program_hash(session.program) == program_hash(PROGRAM)
        assert [(take.reel, take.name, take.label) for take in session.takes] == [(0, "reel 0", 1), (1, "reel 1", 1)]


def test_equal_shows_give_equal_bytes(tmp_path: Path) -> None:
    with mock.patch("time.perf_counter", return_value=0.0):
        record(tmp_path / "a.npz", 7)
        record(tmp_path / "b.npz", 7)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_numpy_alone_can_read_it(tmp_path: Path) -> None:
    show = record(tmp_path / "a.npz", 1)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        times = np.concatenate([one.events.t_us for take in show.stretches for one in take])
        assert np.array_equal(found["000000/events"]["t_us"], times)
        header = json.loads(bytes(found["header"]))
    assert header["cores"][0] == {"core": 2, "name": "conv2", "in_shape": [2, 8, 6], "out_shape": [2, 8, 6]}
    assert header["program"] == program_hash(PROGRAM)
    assert (header["chip"], header["device"], header["classes"]) == ("speck2fdevkit", "a device", list(CLASSES))


def test_a_long_show_goes_into_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stretches = [random_stretch(rng, t_us, t_us + 50, KNOWN) for t_us in range(0, 60_000, 50)]
    with (
        mock.patch("spikeport.deploy.view.recorder._CHUNK_EVENTS", 500),
        SessionRecorder(tmp_path / "long.npz", PROGRAM, FACTS) as recorder,
    ):
        for stretch in stretches:
            recorder.on_stretch(stretch)
    with open_session(tmp_path / "long.npz") as session:
        assert len(session.stretches) == len(stretches)
        every = session.events(0, len(stretches))
        assert np.array_equal(every.t_us, np.concatenate([one.events.t_us for one in stretches]))
        for number in (900, 3, 400, 1199):
            assert session.events(number, number + 1).same(stretches[number].events)
        with np.load(tmp_path / "long.npz") as found:
            assert sum(name.endswith("/events") for name in found.files) > 10


def test_names_that_no_terminal_shows_and_settings_of_all_kinds(tmp_path: Path) -> None:
    knobs = ViewSettings(
        names=("a\x1b", "b", "c"), plots=(("events",), ("counts", "map")), speed=None, icons=tmp_path, decimate=(1, 4)
    )
    facts = dataclasses.replace(FACTS, settings=knobs, classes=("a\x1b", "é", "c" * 300), device="x\n")
    with SessionRecorder(tmp_path / "a.npz", PROGRAM, facts) as recorder:
        recorder.on_reset(dataclasses.replace(position(0, 0), name="\udcff.aedat\t"))
        recorder.on_stretch(random_stretch(np.random.default_rng(0), 0, 10, KNOWN))
    with open_session(tmp_path / "a.npz") as session:
        assert session.facts.classes == ("a?", "é", "c" * 255)
        assert session.facts.settings == knobs.changed(names=("a?", "b", "c"), icons=None, decimate=(1, 1))
        assert (session.facts.device, session.takes[0].name) == ("x?", "?.aedat?")


# the file is whole or not there


def test_a_file_takes_its_name_at_its_end_and_takes_the_place_of_a_session_only(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    recorder = SessionRecorder(path, PROGRAM, FACTS)
    play(0, recorder)
    assert not path.exists()
    recorder.close()
    recorder.close()
    first = path.read_bytes()
    with contextlib.suppress(KeyboardInterrupt), SessionRecorder(path, PROGRAM, FACTS) as recorder:
        play(1, recorder)
        raise KeyboardInterrupt
    assert path.read_bytes() == first
    assert [one.name for one in tmp_path.iterdir()] == ["a.npz"]
    record(path, 2)
    assert path.read_bytes() != first
    np.savez(tmp_path / "mine.npz", a=np.zeros(3))
    for name, text in (("mine.npz", "expected a recorded session to take the place of"), ("a.txt", "ends in .npz")):
        with pytest.raises(TargetError, match=text):
            SessionRecorder(tmp_path / name, PROGRAM, FACTS)
    with pytest.raises(TargetError, match="another file than the input"):
        SessionRecorder(path, PROGRAM, FACTS, inputs=[path])


def test_nothing_shown_leaves_no_file_and_says_so(tmp_path: Path) -> None:
    recorder = SessionRecorder(tmp_path / "a.npz", PROGRAM, FACTS)
    recorder.on_reset(position(0, 0))
    with pytest.raises(RecordingError, match=r"a\.npz: expected a show that goes on"):
        recorder.close()
    recorder.abandon()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"])
def test_a_process_that_ends_without_closing_leaves_the_file_before_as_it_was(end: str, tmp_path: Path) -> None:
    record(tmp_path / "a.npz", 1)
    before = (tmp_path / "a.npz").read_bytes()
    code = f"""
import os, time
from pathlib import Path
import numpy as np
import spikeport.deploy.view.recorder as recorder_module
from spikeport.deploy.view.reading import open_session
from spikeport.deploy.view.types import Stretch
recorder_module._CHUNK_ITEMS = 1
opened = open_session("a.npz")
recorder = recorder_module.SessionRecorder("a.npz", opened.program, opened.facts)
for t_us in range(100):
    recorder.on_stretch(Stretch(t_us, t_us + 1, opened.events(0, 0), opened.spikes(0, 0), {{}}, {{}}))
assert len(list(Path().iterdir())) == 2
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, capture_output=True, text=True)
    assert done.returncode == (-9 if end else 0), done.stderr
    assert (tmp_path / "a.npz").read_bytes() == before
    left = [one.name for one in tmp_path.iterdir() if one.name != "a.npz"]
    assert all(name.startswith(".") for name in left) if end else not left


def test_a_full_disk_ends_the_recording_but_not_the_show(tmp_path: Path) -> None:
    with (
        mock.patch("spikeport.deploy.view.recorder._CHUNK_ITEMS", 4),
        mock.patch("spikeport.deploy.view.recorder._add", side_effect=OSError(28, "No space left on device")),
    ):
        recorder = SessionRecorder(tmp_path / "a.npz", PROGRAM, FACTS)
        play(0, recorder)
        with pytest.raises(OSError, match="No space left"):
            recorder.close()
    assert "No space left" in str(recorder.problem)
    assert not list(tmp_path.iterdir())


def test_a_slow_disk_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    go, add = threading.Event(), recorder_module._add

    def slow(*args: Any) -> None:
        go.wait(10)
        add(*args)

    rng = np.random.default_rng(0)
    stretches = [random_stretch(rng, t_us, t_us + 50, KNOWN) for t_us in range(0, 1000, 50)]
    with (
        mock.patch("spikeport.deploy.view.recorder._CHUNK_ITEMS", 2),
        mock.patch("spikeport.deploy.view.recorder._add", slow),
    ):
        recorder = SessionRecorder(tmp_path / "a.npz", PROGRAM, FACTS)

        def tell() -> None:
            for one in stretches:
                recorder.on_stretch(one)

        show = threading.Thread(target=tell)
        show.start()
        show.join(0.1)
        assert show.is_alive()  # it waits
        go.set()
        show.join(10)
        recorder.close()
    with open_session(tmp_path / "a.npz") as session:
        assert len(session.stretches) == len(stretches)


def test_a_recording_as_long_as_may_be_read_is_finished_as_it_is(tmp_path: Path) -> None:
    with mock.patch.object(tape, "MAX_CHUNKS", 4), mock.patch("spikeport.deploy.view.recorder._CHUNK_ITEMS", 3):
        recorder = SessionRecorder(tmp_path / "a.npz", PROGRAM, FACTS)
        play(0, recorder)
        recorder.close()
        assert "as long as it may be" in str(recorder.problem)
        with open_session(tmp_path / "a.npz") as session:
            assert 0 < len(session.stretches) < 20


ONE = random_stretch(np.random.default_rng(4), 50, 60, KNOWN)
BAD_SHOWS: dict[str, tuple[Stretch | Window, str]] = {
    "core": (
        dataclasses.replace(ONE, cores={7: CoreCounts(1, 1, 1, 1)}),
        r"expected cores of the program \[2, 5\], found core 7",
    ),
    "rail": (dataclasses.replace(ONE, power_w={"fan": 1.0}), "expected rails of io, ram, .*found 'fan'"),
    "time": (dataclasses.replace(ONE, start_us=70, stop_us=80), "events: expected times within their stretch"),
    "classes": (
        Window(0, 0, 9, np.zeros(5, np.int64), None, None, 0, 0, None),
        r"expected counts of 3 classes, found \[5\]",
    ),
}


@pytest.mark.parametrize("name", BAD_SHOWS)
def test_what_no_reader_would_take_is_not_written(name: str, tmp_path: Path) -> None:
    told, text = BAD_SHOWS[name]
    recorder = SessionRecorder(tmp_path / "a.npz", PROGRAM, FACTS)
    if isinstance(told, Window):
        recorder.on_window(told)
    else:
        recorder.on_stretch(told)
    with pytest.raises(RecordingError, match=text):
        recorder.close()
    assert not list(tmp_path.iterdir())


def test_too_much_text_is_refused_before_the_show(tmp_path: Path) -> None:
    for classes in ((), ("x" * 200,) * 6000):
        with pytest.raises(RecordingError, match="expected names of classes"):
            SessionRecorder(tmp_path / "a.npz", PROGRAM, dataclasses.replace(FACTS, classes=classes))
    assert not list(tmp_path.iterdir())
