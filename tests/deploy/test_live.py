"""A board fed as the events come does what the emulator does; pauses, restarts, losses, and its camera."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeport.deploy import compile_program, virtual
from spikeport.deploy import devkit as devkit_module
from spikeport.deploy import live as live_module
from spikeport.deploy import play as play_module
from spikeport.deploy.device import open_device
from spikeport.deploy.devkit import Board, open_board
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DeviceError, RecordingError, SettingError
from spikeport.deploy.live import Answer, Live, Piece
from spikeport.deploy.play import Pace
from spikeport.deploy.types import DvsConfig, Program
from spikeport.models.events import Events
from spikeport.models.window import no_events, one_behind_other

from .nets import branch_net, random_chain
from .programs import make_core, random_events

QUICK = Pace(settle_s=0.0, lead_s=0.02, quiet_s=0.02, timeout_s=3.0, late_s=3.0)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Load the compiled loop, which takes longer than these boards may."""
    program, events = one_neuron()
    Emulator(program).run(events)


@pytest.fixture
def board() -> Iterator[Board]:
    with open_board("speck2e:0", virtual.driver(["speck2e"]), prefix="virtual:", pace=QUICK) as opened:
        yield opened


def one_neuron(n_events: int = 40, gap_us: int = 1000, **changes: Any) -> tuple[Program, Events]:
    """Return a program that answers every event with a spike, and events."""
    program = Program("speck2e", (make_core(4, **changes),), (4,), DvsConfig((1, 1, 1), merge=True))
    place = np.zeros(n_events, np.int64)
    return program, Events(place, place, place, np.arange(n_events) * gap_us, (1, 1))


def feed(live: Live, events: Events, *, step_us: int = 10_000, speed: float | None = None) -> list[Answer]:
    """Feed a recording in stretches of one length, from where the feed stands."""
    stop_us = int(events.t_us[-1]) + 1
    starts = range(live.t_us, stop_us, step_us)
    return [live.advance(events.window(at, at + step_us), at + step_us, speed=speed) for at in starts]


def rows(answers: list[Answer], core: int) -> Counter[tuple[int, ...]]:
    """Return how often each neuron of a core spiked."""
    spikes = np.concatenate([answer.spikes[core] for answer in answers])
    return Counter(zip(*(spikes[axis].tolist() for axis in ("feature", "y", "x")), strict=True))


def expected(program: Program, events: Events, core: int) -> Counter[tuple[int, ...]]:
    counts = Emulator(program).run(events).counts[core]
    return Counter({place: int(n) for place, n in np.ndenumerate(counts) if n})


def refused(match: str) -> Any:
    return pytest.raises(DeviceError, match=match)


# time


@given(st.integers(0, 2**40), st.integers(1, 10**7), st.integers(0, 2**33), st.floats(0.01, 100), st.integers(0, 2**30))
def test_a_piece_of_time_maps_there_and_back(start: int, length: int, board: int, speed: float, at: int) -> None:
    piece = Piece(start, start + length, board, board + max(1, round(length / speed)))
    t_us = np.array([start, start + at % length, start + length - 1])
    stamps = piece.to_board(t_us)
    assert ((stamps >= piece.board_us) & (stamps < piece.board_stop_us)).all()
    back = piece.to_input(stamps)
    assert ((back <= t_us) & (back >= t_us - np.ceil(length / (piece.board_stop_us - piece.board_us)))).all()
    if piece.board_stop_us - piece.board_us >= length:
        assert back.tolist() == t_us.tolist()
    outside = piece.to_input(np.array([piece.board_us - 5, piece.board_stop_us + 5]))
    assert outside.tolist() == [start, start + length - 1]


# feeding


def test_a_chain_fed_in_stretches_spikes_as_in_the_emulator_also_after_a_pause(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    program = compile_program(random_chain(rng), "speck2e", layer_order="auto")
    events = random_events(rng, program.dvs.input_shape, 150)
    every = [core.core for core in program.cores]
    with board.live(program, monitor=every) as live:
        half = int(events.t_us[75])
        answers = feed(live, events.window(0, half + 1), step_us=7000)
        monkeypatch.setattr(live_module, "_PAUSE_US", 50_000)
        time.sleep(0.1)
        answers += feed(live, events, step_us=13_000, speed=2.0)
    whole = Emulator(program).run(events, "all")
    for core in every:
        assert rows(answers, core) == Counter({at: int(n) for at, n in np.ndenumerate(whole.counts[core]) if n})
    assert {(one.n_late, one.n_dropped, one.n_unseen, one.sensor) for one in answers} == {(0, 0, 0, None)}
    for answer in answers:
        for spikes in answer.spikes.values():
            assert ((spikes["t_us"] >= answer.start_us) & (spikes["t_us"] < answer.stop_us)).all()


def test_branches_spike_as_in_the_emulator(board: Board) -> None:
    program = compile_program(branch_net(), "speck2e")
    events = random_events(np.random.default_rng(1), program.dvs.input_shape, 80)
    with board.live(program) as live:
        answers = feed(live, events)
    for core in program.outputs:
        assert rows(answers, core) == expected(program, events, core)


def test_spikes_have_the_times_and_numbers_of_their_events(board: Board) -> None:
    program, events = one_neuron(30)
    with board.live(program) as live:
        answers = feed(live, events, speed=0.9)
        assert live.t_us == 30_000
    spikes = np.concatenate([answer.spikes[4] for answer in answers])
    assert spikes["event"].tolist() == list(range(30))
    assert (np.abs(spikes["t_us"] - events.t_us) <= 1).all()


def test_real_time_is_kept_through_the_gaps(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[Piece] = []
    take = Live._answer

    def noted(self: Live, piece: Piece, stamps: Any) -> Answer:
        pieces.append(piece)
        return take(self, piece, stamps)

    monkeypatch.setattr(Live, "_answer", noted)
    program, events = one_neuron(200)
    with board.live(program) as live:
        feed(live, events, speed=2.0)
    for before, after in itertools.pairwise(pieces):
        assert after.board_us >= before.board_stop_us  # nothing is due before what was written already
        assert 10_000 / 2 / 1.5 - 1 <= after.board_stop_us - after.board_us <= 5000


def test_silence_lets_time_pass(board: Board) -> None:
    program, events = one_neuron()
    with board.live(program) as live:
        started = time.monotonic()
        answer = live.advance(no_events((1, 1)), 50_000)
        assert time.monotonic() - started >= 0.045
        assert (answer.start_us, answer.stop_us, len(answer.spikes[4])) == (0, 50_000, 0)
        assert len(live.advance(events.part(0, 0), 50_000).spikes[4]) == 0  # no time at all


def test_a_restart_begins_with_the_initial_states(board: Board) -> None:
    program, events = one_neuron(2, threshold_high=100, initial_state=[[[60]]], weight=[[[[30]]]])
    with board.live(program) as live:
        for _ in range(3):
            (answer,) = feed(live, events)
            assert answer.spikes[4]["event"].tolist() == [1]
            assert live.states()[4].ravel().tolist() == [20]
            live.restart()
            assert live.t_us == 0
    board.load(program)
    assert board.run(events).states[4].ravel().tolist() == [20]


def test_the_stop_watch_starts_over_now_and_then(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_ALIGN_US", 25_000)
    program, events = one_neuron(100)
    with board.live(program) as live:
        before = board._board.get_stop_watch().n_resets
        answers = feed(live, events)
        assert board._board.get_stop_watch().n_resets - before >= 2
        assert rows(answers, 4) == {(0, 0, 0): 100}


def test_stamps_beyond_32_bits_are_counted_on(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    program, events = one_neuron(60)
    monkeypatch.setattr(live_module, "_ALIGN_US", 2**40)
    with board.live(program) as live:
        watch = board._board.get_stop_watch()
        early_us = 2**32 - 30_000 - watch.now_us()
        watch._zero_us -= early_us
        board._board.engine._last_us = watch.now_us()
        live._began_s -= early_us * 1e-6
        answers = feed(live, events)
        assert rows(answers, 4) == {(0, 0, 0): 60}
        assert not sum(answer.n_late for answer in answers)


def test_a_slow_clock_follows_the_speed(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    program, events = one_neuron(20, bias=[1], threshold_high=3000, weight=[[[[0]]]])
    rates: list[float] = []
    clock = type(board._board.get_io_module())
    set_rate = clock.set_slow_clk_rate

    def noted(self: Any, hz: float) -> None:
        rates.append(hz)
        set_rate(self, hz)

    monkeypatch.setattr(clock, "set_slow_clk_rate", noted)
    with board.live(program, slow_clock_hz=1000) as live:
        feed(live, events, speed=0.5)
        feed(live, Events(events.x, events.y, events.p, events.t_us + 20_000, (1, 1)))
        assert live.states() == {}  # they tick on
        assert rates == [1000, 500, 1000]
    with board.live(program, slow_clock_hz=0) as live:
        feed(live, events)
        assert live.states()[4].ravel().tolist() == [0]
    with pytest.raises(SettingError, match="expected whole ticks per second"):
        board.live(program, slow_clock_hz=0.3)


# what goes wrong


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fault", [virtual.unplug, virtual.hang], ids=["unplug", "hang"])
def test_a_board_that_is_lost_in_the_middle_ends_the_feed(board: Board, fault: Any) -> None:
    program, events = one_neuron(8000)
    with board.live(program) as live:
        live._player.pace = board.pace = dataclasses.replace(QUICK, timeout_s=0.3)
        threading.Timer(0.1, fault, [board._board]).start()
        started = time.monotonic()
        with refused("device 'virtual:speck2e:0': .* Try"):
            feed(live, events)
        assert time.monotonic() - started < QUICK.timeout_s  # of a feed that would have taken 8 s


def test_what_a_full_buffer_has_no_room_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devkit_module, "_CAPACITY", 8)
    monkeypatch.setattr(play_module.Player, "reset_states", lambda *_: None)  # whose answers fill the buffer too
    program, events = one_neuron(10, weight=np.full((64, 1, 1, 1), 127))
    quick = dataclasses.replace(QUICK, late_s=0.03)
    with open_board("speck2e:0", virtual.driver(["speck2e"]), pace=quick) as board, board.live(program) as live:
        answers = feed(live, events)
        answers.append(live.advance(no_events((1, 1)), 40_000))
        n_taken = sum(len(answer.spikes[4]) for answer in answers)
        n_dropped = sum(answer.n_dropped for answer in answers)
        assert n_dropped > 0
        assert n_taken + n_dropped in (640, 641, 642)  # answers about states among them


def test_late_spikes_are_counted_and_come_with_the_next_stretch(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    program, events = one_neuron(60)
    board.pace = dataclasses.replace(QUICK, late_s=0.01)
    with board.live(program) as live:
        live._player.pace = board.pace
        engine, held = board._board.engine, list[Any]()
        emit = engine._emit
        monkeypatch.setattr(engine, "_emit", held.extend)
        first = live.advance(events.window(0, 10_000), 10_000)
        assert len(first.spikes[4]) == first.n_late == 0
        monkeypatch.setattr(engine, "_emit", emit)
        emit(held)
        second = live.advance(events.window(10_000, 20_000), 20_000)
        assert second.n_late == 10
        assert (second.spikes[4]["t_us"] == 10_000).sum() >= 10
        rest = feed(live, events)
        assert rows([first, second, *rest], 4) == {(0, 0, 0): 60}


@pytest.mark.timeout(20)
def test_no_more_is_written_to_a_board_that_does_not_answer(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    program, events = one_neuron(200, gap_us=100)
    board.pace = dataclasses.replace(QUICK, late_s=0.001, timeout_s=5)
    with board.live(program) as live:
        live._player.pace = board.pace
        engine, held = board._board.engine, list[Any]()
        emit = engine._emit

        def release() -> None:
            engine._emit = emit
            emit(held)

        engine._emit = held.extend
        threading.Timer(0.15, release).start()
        answers = []
        for at in range(0, 20_000, 1000):
            answers.append(live.advance(events.window(at, at + 1000), at + 1000))
            assert len(live._asked) <= 4
        answers.append(live.advance(no_events((1, 1)), 120_000))
        assert rows(answers, 4) == {(0, 0, 0): 200}
        assert sum(answer.n_late for answer in answers) > 0


def test_stretches_that_do_not_follow_each_other_are_refused(board: Board) -> None:
    program, events = one_neuron()
    with board.live(program) as live:
        feed(live, events.window(0, 10_000))
        for wrong, stop_us in ((events.window(0, 5000), 20_000), (events, 20_000)):
            with pytest.raises(RecordingError, match=r"events: expected times of 10000\.\.19999 us, found"):
                live.advance(wrong, stop_us)
        with pytest.raises(RecordingError, match="expected an end from 10000 us on, found 5"):
            live.advance(no_events((1, 1)), 5)
        with pytest.raises(RecordingError, match="expected a sensor of 1x1"):
            live.advance(no_events((2, 2)), 20_000)
        for speed in (0, -1, float("nan"), float("inf")):
            with pytest.raises(SettingError, match="speed: expected more than 0"):
                live.advance(no_events((1, 1)), 20_000, speed=speed)
    with pytest.raises(SettingError, match=r"monitor: expected cores of the program, \[4\], found \[5\]"):
        board.live(program, monitor=[5])


# the camera


def sighted(seed: int = 0, n_events: int = 1500, span_us: int = 150_000) -> tuple[Program, Events]:
    """Return a program for the sensor, and what its camera looks at."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(20, 60, (3, 1, 4, 4))
    core = make_core(4, weight=weight, in_shape=(1, 32, 32), stride=(4, 4))
    program = Program("speck2e", (core,), (4,), DvsConfig((2, 128, 128), merge=True, pool=(4, 4)))
    x, y, p = (rng.integers(0, edge, n_events) for edge in (128, 128, 2))
    return program, Events(x, y, p, np.sort(rng.integers(0, span_us, n_events)), (128, 128))


def look(live: Live, stop_us: int, step_us: int = 20_000) -> list[Answer]:
    nothing = no_events((128, 128))
    return [live.advance(nothing, at + step_us) for at in range(live.t_us, stop_us, step_us)]


def test_the_camera_feeds_the_cores_as_its_events_would_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    program, scene = sighted(n_events=1200, span_us=100_000)
    samna = virtual.driver(["speck2e"], camera=scene)
    with open_board("speck2e:0", samna, pace=QUICK) as board:
        with board.live(program, camera=True) as live:
            for _ in range(2):
                answers = look(live, 140_000)
                seen = one_behind_other([answer.sensor for answer in answers if answer.sensor is not None])
                n = min(len(seen), len(scene))
                assert n > 1000
                for axis in ("x", "y", "p"):
                    assert (getattr(seen, axis)[:n] == getattr(scene, axis)[:n]).all()
                since = (one.t_us[: n // 2] - one.t_us[0] for one in (seen, scene))
                assert (np.abs(np.subtract(*since)) <= 1000).all()
                answers += [live.advance(no_events((128, 128)), 150_000)]
                last = answers[-1].sensor
                assert last is not None
                assert rows(answers, 4) == expected(program, one_behind_other([seen, last]), 4)
                assert sum(answer.n_unseen for answer in answers) == 0
                live.restart()
            look(live, 40_000)
            monkeypatch.setattr(live_module, "_PAUSE_US", 50_000)
            time.sleep(0.1)
            (answer,) = look(live, 60_000)
            assert answer.n_unseen > 500
            assert answer.n_late == 0
            with pytest.raises(RecordingError, match="expected no events, which come from the camera"):
                live.advance(scene.part(0, 1).from_zero(), 10**9)
        # It sees nothing once the feed is over.
        n_seen = board._board.engine.counts.n_in
        time.sleep(0.05)
        assert board._board.engine.counts.n_in == n_seen


def test_a_camera_needs_a_program_of_its_size_and_something_to_look_at(board: Board) -> None:
    with pytest.raises(SettingError, match=r"camera: expected .* the sensor's 128x128, found 1x1\. Try"):
        board.live(one_neuron()[0], camera=True)
    with refused("camera of a virtual board looks at a recording, and none is set. Try SPIKEPORT_CAMERA="):
        board.live(sighted()[0], camera=True)


# a real board


@pytest.mark.hardware
def test_a_real_board_is_fed_live() -> None:
    name = os.environ.get("SPIKEPORT_BOARD", "")
    if not name:
        pytest.skip("SPIKEPORT_BOARD names no board")
    chip = name.removeprefix("virtual:").partition(":")[0]
    rng = np.random.default_rng(8)
    program = compile_program(random_chain(rng), chip, layer_order="auto")
    events = random_events(rng, program.dvs.input_shape, 150)
    with open_device(name) as board:
        assert isinstance(board, Board)
        with board.live(program) as live:
            answers = [*feed(live, events), live.advance(no_events(events.sensor_size), live.t_us + 100_000)]
        for core in program.outputs:
            assert rows(answers, core) == expected(program, events, core)
