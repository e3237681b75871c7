"""Boards as engines of the live view: what the emulator shows, a board shows too."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.deploy import compile_program, virtual
from spikeport.deploy import devkit as devkit_module
from spikeport.deploy import play as play_module
from spikeport.deploy.device import open_device
from spikeport.deploy.devkit import Board, open_board
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DeviceError, SettingError
from spikeport.deploy.play import Pace
from spikeport.deploy.rails import RAILS
from spikeport.deploy.readout import classify, count_labels, n_classes
from spikeport.deploy.samna_config import configure_for
from spikeport.deploy.types import Destination, DvsConfig, Program
from spikeport.deploy.view import boarded as boarded_module
from spikeport.deploy.view.boarded import BoardEngine, open_board_engine
from spikeport.deploy.view.emulated import EmulatedEngine
from spikeport.deploy.view.reels import RecordingReel
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from spikeport.deploy.view.types import Engine, Position, Stretch, Window
from spikeport.models import write_events
from spikeport.models.events import Events
from spikeport.models.window import no_events, one_behind_other
from tests.deploy.nets import digits_net
from tests.deploy.programs import make_core, random_events

NAME = "virtual:speck2fdevkit"
QUICK = Pace(settle_s=0.0, lead_s=0.02, quiet_s=0.02, timeout_s=3.0, late_s=3.0)


def small_program(chip: str = "speck2fdevkit") -> Program:
    """Return two cores, of which the second tells one of three classes."""
    rng = np.random.default_rng(4)
    first = make_core(
        3,
        weight=rng.integers(-20, 60, (4, 2, 3, 3)),
        in_shape=(2, 8, 8),
        destinations=(Destination(5, 2),),
        monitor=False,
    )
    second = make_core(5, weight=rng.integers(-40, 60, (3, 4, 3, 3)), in_shape=(4, 3, 3))
    return Program(chip, (first, second), (3,), DvsConfig((2, 8, 8)))


def small_events(n_events: int = 400) -> Events:
    events = random_events(np.random.default_rng(6), (2, 8, 8), n_events)
    return Events(events.x, events.y, events.p, events.t_us // 2, events.sensor_size)


def cut(events: Events, step_us: int) -> list[tuple[Events, int]]:
    return [(events.window(at, at + step_us), at + step_us) for at in range(0, int(events.t_us[-1]) + 1, step_us)]


def play(engine: Engine, events: Events, step_us: int = 20_000, speed: float | None = None) -> list[Stretch]:
    return [engine.advance(part, stop_us, speed=speed) for part, stop_us in cut(events, step_us)]


def labels(stretches: list[Stretch], program: Program) -> list[int]:
    total = [count_labels(stretch.spikes.label, n_classes(program)) for stretch in stretches]
    return [int(n) for n in np.sum(total, axis=0)]


@pytest.fixture
def engine() -> Iterator[BoardEngine]:
    board = open_board("speck2fdevkit:0", virtual.driver(["speck2fdevkit"]), prefix="virtual:", pace=QUICK)
    opened = BoardEngine(board, small_program())
    yield opened
    opened.close()


def test_a_board_counts_and_decides_as_the_emulator_does(engine: BoardEngine) -> None:
    program, events = engine.program, small_events()
    whole = Emulator(program).run(events, "all")
    assert engine.final_class() is None
    for _ in range(2):
        stretches = play(engine, events, speed=2.0)
        assert labels(stretches, program) == whole.counts[5].sum(axis=(1, 2)).tolist()
        assert [one.start_us for one in stretches] == [one.stop_us - 20_000 for one in stretches]
        for one in stretches:
            assert (np.diff(one.spikes.t_us) >= 0).all()
            assert not len(one.spikes.t_us) or one.start_us <= one.spikes.t_us[0] <= one.spikes.t_us[-1] < one.stop_us
        assert sum(len(one.events) for one in stretches) == len(events)
        assert {(one.n_late, one.n_left_out) for one in stretches} == {(0, 0)}
        assert engine.final_class() == classify(whole, program)
        assert engine.problem is None
        engine.restart()


def test_it_tells_what_a_board_knows(engine: BoardEngine) -> None:
    assert (engine.name, engine.power_source) == ("virtual:speck2fdevkit:0", "virtual")
    assert (engine.can_seek, engine.is_timed, engine.has_camera) == (False, True, False)
    assert engine.keep() is None
    with pytest.raises(DeviceError, match="expected no state to be taken up by a board"):
        engine.take_up(None)
    engine.watch([3, 5, 5])
    stretches = play(engine, small_events())
    for stretch in stretches:
        assert set(stretch.maps) == {5}  # only what is monitored
        assert stretch.maps[5].shape == (1, 1)
        assert stretch.maps[5].sum() == stretch.cores[5].n_spikes == len(stretch.spikes.t_us)
        assert stretch.cores[5].n_dropped == 0
        assert dataclasses.astuple(stretch.cores[3]) == (None, None, None, None)
        assert stretch.cores[5].synops is stretch.cores[5].n_events is None
        assert stretch.work_s > 0
    power_w = stretches[-1].power_w
    assert power_w is not None
    assert tuple(power_w) == RAILS
    engine.watch(())
    assert dict(engine.advance(no_events((8, 8)), stretches[-1].stop_us + 1).maps) == {}


def test_all_cores_are_monitored_where_that_is_asked_for() -> None:
    with pytest.raises(SettingError, match=r"monitor: expected cores of the program, \[3, 5\], found \[7\]"):
        open_board_engine(NAME, small_program(), monitor=[7])
    program, events = small_program(), small_events()
    whole = Emulator(program).run(events, "all")
    engine = open_board_engine(NAME, program, monitor="all")
    try:
        engine.watch([3])
        stretches = play(engine, events, speed=3.0)
        assert (sum(one.maps[3] for one in stretches) == whole.counts[3].sum(axis=0)).all()
        assert sum(one.cores[3].n_spikes or 0 for one in stretches) == whole.n_spikes[3]
    finally:
        engine.close()
        engine.close()
    with open_device(NAME) as board:  # which is free again
        assert board.name == f"{NAME}:0"


def test_equal_counts_go_to_the_higher_state() -> None:
    core = make_core(4, weight=[[[[127]]], [[[127]]]], initial_state=[[[0]], [[50]]], in_shape=(1, 1, 1))
    program = Program("speck2fdevkit", (core,), (4,), DvsConfig((1, 1, 1), merge=True))
    place = np.zeros(5, np.int64)
    events = Events(place, place, place, np.arange(5) * 100, (1, 1))
    engine = open_board_engine(NAME, program)
    try:
        play(engine, events)
        assert engine.final_class() == classify(Emulator(program).run(events), program) == 1
    finally:
        engine.close()


def test_a_board_that_is_unplugged_says_so_again_and_again(engine: BoardEngine) -> None:
    play(engine, small_events(50))
    virtual.unplug(engine._board._board)
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"device 'virtual:speck2fdevkit:0': .* Try"):
            engine.advance(no_events((8, 8)), 10**6)
    with pytest.raises(DeviceError):
        engine.restart()
    engine.close()


def test_what_no_buffer_holds_is_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devkit_module, "_CAPACITY", 4)
    monkeypatch.setattr(play_module.Player, "reset_states", lambda *_: None)
    core = make_core(4, weight=np.full((64, 1, 1, 1), 127))
    program = Program("speck2fdevkit", (core,), (4,), DvsConfig((1, 1, 1), merge=True))
    place = np.zeros(10, np.int64)
    quick = dataclasses.replace(QUICK, late_s=0.05)
    board = open_board("speck2fdevkit:0", virtual.driver(["speck2fdevkit"]), pace=quick)
    engine = BoardEngine(board, program)
    try:
        stretches = play(engine, Events(place, place, place, np.arange(10) * 1000, (1, 1)))
        n_dropped = sum(one.cores[4].n_dropped or 0 for one in stretches)
        assert n_dropped > 0
        assert f": {stretches[-1].cores[4].n_dropped} events came while the buffer was full" in (engine.problem or "")
    finally:
        engine.close()


class Windowed:
    """A listener that keeps the windows."""

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def on_stretch(self, stretch: Stretch) -> None: ...

    def on_window(self, window: Window) -> None:
        self.windows.append(window)

    def on_reset(self, position: Position) -> None: ...


def test_a_show_decides_on_a_board_as_on_the_emulator_also_after_steps_and_a_pause(engine: BoardEngine) -> None:
    events, found = small_events(800), []
    for one in (EmulatedEngine(engine.program), engine):
        listener = Windowed()
        reel, settings = RecordingReel(events), ViewSettings(interval_ms=30.0)
        show = Show(one, [reel], settings=settings, listeners=(listener,))
        show.start()
        try:
            show.step(2)
            assert show.position().t_us == 20_000
            show.play()
            assert show.wait(20)
            position, totals = show.position(), show.totals()
        finally:
            show.close()
        assert (position.has_ended, position.problem, totals.n_events) == (True, None, len(events))
        windows = [(w.start_us, w.counts.tolist(), w.winner, w.is_open) for w in listener.windows]
        found.append((windows, position.final, totals.n_output_spikes, totals.n_dropped, totals.n_late))
    assert found[0] == found[1]


# the camera


def sighted() -> tuple[Program, Events]:
    rng = np.random.default_rng(2)
    core = make_core(4, weight=rng.integers(-20, 60, (3, 1, 8, 8)), in_shape=(1, 32, 32), stride=(8, 8))
    program = Program("speck2fdevkit", (core,), (4,), DvsConfig((2, 128, 128), merge=True, pool=(4, 4)))
    x, y, p = (rng.integers(0, edge, 1000) for edge in (128, 128, 2))
    return program, Events(x, y, p, np.sort(rng.integers(0, 100_000, 1000)), (128, 128))


def test_the_camera_of_a_virtual_board_is_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, scene = sighted()
    with pytest.raises(DeviceError, match=r"none is set\. Try SPIKEPORT_CAMERA=RECORDING"):
        open_board_engine(NAME, program, camera=True)
    write_events(scene, tmp_path / "scene.npz")
    monkeypatch.setenv("SPIKEPORT_CAMERA", str(tmp_path / "scene.npz"))
    engine = open_board_engine(NAME, program, camera=True)
    try:
        assert engine.has_camera
        stretches = [engine.advance(no_events((128, 128)), at) for at in range(20_000, 160_001, 20_000)]
        seen = one_behind_other([one.events for one in stretches])
        assert len(seen) > len(scene)
        assert (seen.x[: len(scene)] == scene.x).all()
        whole = Emulator(program).run(seen)
        assert labels(stretches, program) == [int(n) for n in whole.counts[4].reshape(-1)]
        assert engine.final_class() == classify(whole, program)
    finally:
        engine.close()


def test_a_board_that_stands_at_its_start_is_not_started_again(
    engine: BoardEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    restart = engine._live.restart

    def counted() -> None:
        started.append(1)
        restart()

    monkeypatch.setattr(engine._live, "restart", counted)
    monkeypatch.setattr(boarded_module, "_FRESH_S", 0.0)
    engine.restart()
    (first, stop_us), *_ = cut(small_events(), 20_000)
    once = engine.advance(first, stop_us)
    assert not started
    engine.restart()
    assert len(started) == 1
    assert engine.advance(first, stop_us).same(dataclasses.replace(once, power_w=engine._power_w))
    assert len(started) == 1


def test_a_camera_that_nobody_looked_through_for_a_while_begins_with_what_it_sees_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, scene = sighted()
    made: list[bool] = []

    def counted(*given: Any, **options: Any) -> Any:
        made.append(options["sensor"])
        return configure_for(*given, **options)

    monkeypatch.setattr(devkit_module, "configure_for", counted)
    monkeypatch.setattr(boarded_module, "_FRESH_S", 0.0)
    board = open_board("speck2fdevkit:0", virtual.driver(["speck2fdevkit"], camera=scene), pace=QUICK)
    engine = BoardEngine(board, program, camera=True)
    try:
        stretch = engine.advance(no_events((128, 128)), 50_000)
        assert stretch.n_left_out == 0
        n_seen = len(stretch.events)
        assert n_seen
        assert (stretch.events.x == scene.x[:n_seen]).all()
    finally:
        engine.close()
    assert sorted(made) == [False, True]


def test_a_restart_is_interrupted_where_the_board_is_closed(engine: BoardEngine) -> None:
    play(engine, small_events())
    engine.interrupt()
    with pytest.raises(DeviceError, match=r"it is being closed\. Try opening it again"):
        engine.restart()


def test_a_board_that_does_not_end_is_not_waited_for(engine: BoardEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, waited = threading.Event(), threading.Event()
    close = engine._board.close

    def slow_close() -> None:
        ended.wait(10)
        close()
        waited.set()

    monkeypatch.setattr(boarded_module, "_CLOSE_S", 0.02)
    monkeypatch.setattr(engine._board, "close", slow_close)
    engine.close()
    engine.close()
    assert not waited.is_set()
    ended.set()
    assert waited.wait(10)


@pytest.mark.parametrize("camera", [True, False])
def test_the_emulator_is_no_board_and_has_no_camera(camera: bool) -> None:
    with pytest.raises(DeviceError, match=r"device 'emulator': expected a board.*virtual:speck2fdevkit, whose camera"):
        open_board_engine("emulator", small_program(), camera=camera)


# in earnest


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_second_of_digits_is_counted_exactly() -> None:
    program = compile_program(digits_net())
    rng = np.random.default_rng(0)
    n = 10_000
    x, y, p = (rng.integers(0, edge, n) for edge in (34, 34, 2))
    events = Events(x, y, p, np.sort(rng.integers(0, 1_000_000, n)), (34, 34))
    engine = open_board_engine(NAME, program)
    try:
        stretches = play(engine, events, 33_333)
        whole = Emulator(program).run(events)
        assert engine.final_class() == classify(whole, program)
        assert sum(labels(stretches, program)) == sum(whole.n_spikes[core] for core in program.outputs)
    finally:
        engine.close()


@pytest.mark.hardware
def test_a_real_board_is_an_engine() -> None:
    name = os.environ.get("SPIKEPORT_BOARD", "")
    if not name:
        pytest.skip("SPIKEPORT_BOARD names no board")
    program, events = small_program(name.removeprefix("virtual:").partition(":")[0]), small_events()
    engine = open_board_engine(name, program)
    try:
        assert isinstance(engine._board, Board)
        stretches = play(engine, events)
        stretches.append(engine.advance(no_events((8, 8)), stretches[-1].stop_us + 100_000))
        whole: Any = Emulator(program).run(events)
        assert labels(stretches, program) == whole.counts[5].sum(axis=(1, 2)).tolist()
        assert engine.final_class() == classify(whole, program)
    finally:
        engine.close()
