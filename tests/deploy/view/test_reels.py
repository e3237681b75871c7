"""What is played: recordings, folders of them one at a time, streams as they come; and the clock that they play by."""

from __future__ import annotations

import dataclasses
import io
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.errors import RecordingError, SettingError
from spikeport.deploy.view import reels as reels_module
from spikeport.deploy.view import transport
from spikeport.deploy.view.reels import CameraReel, LiveReel, RecordingReel, check_sensor, open_input, open_reels
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.transport import Clock, KeptState, KeptStates
from spikeport.models.errors import EventFileError, StreamError
from spikeport.models.events import Events
from spikeport.models.files import read_events, write_events
from spikeport.models.sources import PipeSource, UdpSource
from spikeport.models.wire import pack_events, send_events
from tests.deploy.programs import random_events

from .played import WAIT_S, check_played, classed_case, expected_of, open_show, play_out

SIZE = (34, 34)


def make_events(seed: int = 0, n: int = 60) -> Events:
    return random_events(np.random.default_rng(seed), (2, *SIZE), n)


# recordings


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 30_000), max_size=6))
def test_pieces_of_a_reel_are_its_recording_from_zero(seed: int, cuts: list[int]) -> None:
    events = make_events(seed)
    reel = RecordingReel(events, "one")
    assert reel.duration_us is not None
    ends = [0, *sorted(min(cut, reel.duration_us) for cut in cuts), reel.duration_us]
    parts = [reel.take(first, last) for first, last in itertools.pairwise(ends)]
    assert sum(map(len, parts)) == len(events)
    assert np.array_equal(np.concatenate([part.t_us for part in parts]), events.t_us - events.t_us[0])
    assert np.array_equal(np.concatenate([part.x for part in parts]), events.x)


def test_folders_tell_labels_and_hold_one_recording_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, folder in enumerate(("3", "7")):
        (tmp_path / folder).mkdir()
        for n in range(2):
            write_events(make_events(2 * index + n), tmp_path / folder / f"{n}.npz")
    read: list[str] = []

    def counted(path: Path) -> Events:
        read.append(f"{path.parent.name}/{path.name}")
        return read_events(path)

    monkeypatch.setattr(reels_module, "read_events", counted)
    reels = open_reels(tmp_path)
    assert [(reel.name, reel.label) for reel in reels] == [("0.npz", 3), ("1.npz", 3), ("0.npz", 7), ("1.npz", 7)]
    assert read == ["3/0.npz"]
    for seed, reel in enumerate(reels):
        assert reel.sensor_size == SIZE
        assert reel.take(0, reel.duration_us or 0).same(make_events(seed).from_zero())
    assert read == ["3/0.npz", "3/1.npz", "7/0.npz", "7/1.npz"]
    (single,) = open_reels(tmp_path / "7" / "1.npz")
    assert (single.name, single.label) == ("1.npz", 7)
    (tmp_path / "7" / "labels.csv").write_text("file,class_index,class_name\n1.npz,2,two\n0.npz,,\n")
    assert [reel.label for reel in open_reels(tmp_path / "7")] == [None, 2]
    plain = tmp_path / "plain"
    plain.mkdir()
    write_events(make_events(), plain / "a.npz")
    write_events(make_events(), plain / "b_is_4.npz")  # as the demo names them
    assert [reel.label for reel in open_reels(plain)] == [None, 4]


def test_what_is_no_recording_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EventFileError, match=r"none\.npz: expected an event file there, found nothing"):
        open_reels(tmp_path / "none.npz")
    with pytest.raises(RecordingError, match=r"folder '.*': expected recordings .* found none"):
        open_reels(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"no recording")
    with pytest.raises(EventFileError, match=r"bad\.npz"):
        open_reels(tmp_path)
    with pytest.raises(RecordingError, match="quiet: expected at least one event to show, found none"):
        RecordingReel(make_events().part(0, 0), "quiet")
    with pytest.raises(RecordingError, match=r"expected a sensor of 128x128 \(height x width\) .* found 34x34"):
        check_sensor(RecordingReel(make_events()), (128, 128))
    write_events(make_events(), tmp_path / "bad.npz")
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,1\n")
    with pytest.raises(RecordingError, match=r"labels\.csv: expected lines of file and class_index"):
        open_reels(tmp_path)


def test_what_an_input_names() -> None:
    (camera,) = open_input("camera", SIZE)
    assert isinstance(camera, CameraReel)
    assert (camera.duration_us, len(camera.take(0, 100))) == (None, 0)
    (stream,) = open_input("-", SIZE)
    assert isinstance(stream, LiveReel)
    (udp,) = open_input("udp://127.0.0.1:0", SIZE)
    assert isinstance(udp, LiveReel)
    udp.close()
    with pytest.raises(StreamError, match="expected a file, - or udp"):
        open_input("tcp://127.0.0.1:1", SIZE)
    with pytest.raises(EventFileError, match="found nothing"):
        open_input("nowhere.npz", SIZE)


# streams


class Script:
    """A source whose pieces the test hands out; None ends it, an error is raised."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._pieces: list[Events | Exception | None] = []
        self._changed = threading.Condition()

    def give(self, *pieces: Events | Exception | None) -> None:
        with self._changed:
            self._pieces.extend(pieces)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Events]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._pieces), WAIT_S)
                piece = self._pieces.pop(0)
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece


def until(said: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100_000), st.lists(st.floats(0, 1), max_size=5))
def test_a_stream_is_played_as_its_recording(seed: int, shares: list[float]) -> None:
    case = classed_case(seed)
    source = Script()
    reel = LiveReel(source, "stream", case.events.sensor_size)
    show, log = open_show(case, ViewSettings(interval_ms=3.0), reels=[reel])
    show.start()
    show.play()
    cuts = [0, *sorted(int(share * len(case.events)) for share in shares), len(case.events)]
    for first, last in itertools.pairwise(cuts):
        source.give(case.events.part(first, last))
    source.give(None)
    assert show.wait(WAIT_S)
    assert show.position().problem is None
    duration_us = int(case.events.t_us[-1] - case.events.t_us[0]) + 1
    assert show.position().duration_us == duration_us
    check_played(log, show.totals(), expected_of(case), 3000, duration_us)
    assert show.position().final == expected_of(case).final
    show.close()


def test_a_stream_stands_still_while_nothing_comes_and_does_what_it_is_asked() -> None:
    case = classed_case(40)
    source = Script()
    reel = LiveReel(source, "stream", case.events.sensor_size)
    show, log = open_show(case, ViewSettings(interval_ms=3.0, step_ms=2.0), reels=[reel])
    show.start()
    show.play()
    assert show.position().t_us == 0
    show.pause()
    with pytest.raises(SettingError, match="seek: expected a recording, found 'stream'"):
        show.seek(0)
    with pytest.raises(SettingError, match="speed: expected a recording"):
        show.set_speed(2.0)
    assert not show.can_seek
    source.give(case.events)
    show.step()
    assert show.position().t_us == 2000
    assert show.totals().n_events == len(case.events.from_zero().window(0, 2000))
    show.set_roi((0, 1, 0, 1))
    show.play()
    newest_us = int(case.events.from_zero().t_us[-1])
    until(lambda: show.position().t_us == newest_us)
    assert show.position().is_playing
    assert show.position().duration_us is None
    source.give(None)
    assert show.wait(WAIT_S)
    assert show.totals().n_offered == len(case.events)
    assert log.windows[-1].is_open
    show.close()


def test_what_waits_too_long_is_left_out_and_counted() -> None:
    case = classed_case(41)
    source = Script()
    reel = LiveReel(source, "stream", case.events.sensor_size, n_waiting=2)
    show, _ = open_show(case, reels=[reel])
    n = len(case.events)
    assert reel.reached_us == 0
    source.give(case.events, None)
    until(lambda: reel.n_missed == n - 2)
    play_out(show)
    totals = show.totals()
    assert (totals.n_offered, totals.n_left_out, totals.n_events) == (n, n - 2, 2)
    assert reel.counts == Counter()
    show.close()


def test_a_stream_that_fails_pauses_with_its_problem() -> None:
    case = classed_case(42)
    wrong = dataclasses.replace(case.events, sensor_size=(99, 98))
    failing = (
        ([StreamError("stream: event 7: damaged.")], "stream: event 7: damaged."),
        ([None], "stream: expected events, found none to the end"),
        ([wrong], "found 99x98"),
    )
    for pieces, found in failing:
        source = Script()
        show, _ = open_show(case, reels=[LiveReel(source, "stream", case.events.sensor_size)])
        source.give(*pieces)
        play_out(show)
        assert found in (show.position().problem or "")
        show.close()


def test_udp_and_pipes_are_played() -> None:
    case = classed_case(43)
    source = UdpSource("127.0.0.1", 0)
    size = case.events.sensor_size
    show, _ = open_show(case, reels=[LiveReel(source, "udp", size)])
    show.start()
    show.play()
    send_events([case.events], source.address)
    assert show.wait(WAIT_S)
    assert show.totals().n_events == len(case.events)
    assert show.position().final == expected_of(case).final
    show.close()
    pipe = PipeSource(io.BytesIO(b"".join(pack_events(case.events, is_last=True))))
    show, _ = open_show(case, reels=[LiveReel(pipe, "pipe", size)])
    play_out(show)
    assert show.totals().n_events == len(case.events)
    show.close()


# clock and states


def test_a_clock_goes_by_its_speed_and_takes_what_is_late_as_it_is() -> None:
    wall = [100.0]
    clock = Clock(2.0, now=lambda: wall[0])
    clock.start(1_000_000)
    assert clock.due_s(3_000_000) == 101.0
    assert clock.wait_s(3_000_000) == 1.0
    wall[0] = 101.2
    clock.arrive(3_000_000)
    assert clock.behind_s == pytest.approx(0.2)
    assert clock.due_s(5_000_000) == 102.0  # it makes up for that
    wall[0] = 103.0
    clock.arrive(5_000_000)
    assert clock.behind_s == pytest.approx(1.0)
    assert clock.due_s(7_000_000) == 104.0  # not for this
    wall[0] = 104.1
    clock.arrive(7_000_000)
    assert clock.behind_s == pytest.approx(1.1)
    clock.start(0)
    assert clock.behind_s == 0.0
    flat_out = Clock(None, now=lambda: wall[0])
    flat_out.arrive(5)
    assert (flat_out.wait_s(10**9), flat_out.due_s(10**9), flat_out.behind_s) == (0.0, wall[0], 0.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=80), st.integers(0, 10**6))
def test_states_are_few_spread_and_none_is_of_later(times: list[int], t_us: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "KEEP_US", 1000)
        patch.setattr(transport, "MAX_KEPT", 8)
        kept = KeptStates()
        for time_us in times:
            if kept.wants(time_us):
                kept.add(KeptState(time_us, None, np.zeros(0, np.int64), None))
        assert len(kept) <= 8
        found = kept.before(t_us)
        assert found is None or (found.t_us <= t_us and found.t_us in times)
        if times and kept.before(10**6) is None:
            assert max(times) < 1000 * 2**20
        kept.clear()
        assert len(kept) == 0
        assert kept.before(t_us) is None


def test_over_a_long_reel_states_stay_as_dense_as_they_can() -> None:
    kept = KeptStates()
    for second in range(1000):
        if kept.wants(second * 1_000_000):
            kept.add(KeptState(second * 1_000_000, None, np.zeros(0, np.int64), None))
    assert 32 <= len(kept) <= 64
    for second in (40, 500, 999):
        found = kept.before(second * 1_000_000)
        assert found is not None
        assert second - found.t_us // 1_000_000 <= 32
