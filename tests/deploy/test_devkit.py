"""Boards that are absent, taken, pulled out, hung, full or wrong: each ends in an error that says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spikeport.deploy import compile_program, virtual
from spikeport.deploy import devkit as devkit_module
from spikeport.deploy import play as play_module
from spikeport.deploy.devkit import Board, list_boards, open_board
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DeviceError, InvalidProgramError, RecordingError, SettingError
from spikeport.deploy.patience import Reader, within
from spikeport.deploy.play import Pace
from spikeport.deploy.rails import RAILS, RailSamples, join_rails
from spikeport.deploy.samna_events import encode_states
from spikeport.deploy.types import DvsConfig, Program
from spikeport.models.events import Events

from .nets import branch_net
from .programs import make_core

QUICK = Pace(settle_s=0.0, lead_s=0.02, quiet_s=0.02, timeout_s=0.6)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Load the compiled loop, which takes longer than these boards may."""
    program, events = one_neuron()
    Emulator(program).run(events)


@pytest.fixture
def samna() -> Any:
    return virtual.driver(["speck2e"])


@pytest.fixture
def board(samna: Any) -> Iterator[Board]:
    with open_board("speck2e:0", samna, prefix="virtual:", pace=QUICK) as opened:
        yield opened


def one_neuron(n_events: int = 20, gap_us: int = 1000) -> tuple[Program, Events]:
    """Return a program that answers every event with a spike, and events."""
    program = Program("speck2e", (make_core(4),), (4,), DvsConfig((1, 1, 1), merge=True))
    place = np.zeros(n_events, np.int64)
    return program, Events(place, place, place, np.arange(n_events) * gap_us, (1, 1))


def refused(match: str) -> Any:
    return pytest.raises(DeviceError, match=match)


# finding and opening


def info(board: str, bus: int, address: int) -> SimpleNamespace:
    return SimpleNamespace(
        device_type_name=board, usb_bus_number=bus, usb_device_address=address, serial_number=f"s{address}"
    )


def test_boards_are_numbered_for_each_chip_by_their_place_on_usb() -> None:
    infos = [
        info("Speck2fDevKit", 2, 1),
        info("DVXplorer", 1, 9),
        info("Speck2eDevKit", 1, 5),
        info("Speck2fDevKit", 1, 8),
    ]
    found = list_boards(SimpleNamespace(device=SimpleNamespace(get_all_devices=lambda: infos)))
    assert [(one.name, one.serial) for one in found] == [
        ("speck2edevkit:0", "s5"),
        ("speck2fdevkit:0", "s8"),
        ("speck2fdevkit:1", "s1"),
    ]


def test_a_board_that_is_not_there_is_told_with_those_that_are(samna: Any) -> None:
    with refused("device 'virtual:speck2e:1': expected a board of this name, found virtual:speck2e:0. Try") as caught:
        open_board("speck2e:1", samna, prefix="virtual:")
    assert caught.value.exit_code == 7
    nothing = SimpleNamespace(device=SimpleNamespace(get_all_devices=list))
    with refused("device 'speck2e:0': expected a board of this name, found none"):
        open_board("speck2e", nothing)


def test_a_board_that_somebody_has_does_not_open(board: Board) -> None:
    with refused("device 'speck2e:0': opening: expected an answer, found "):
        open_board("speck2e:0", virtual.driver(["speck2e"]))


def test_a_driver_that_gives_no_board_is_told() -> None:
    device = SimpleNamespace(get_all_devices=lambda: [info("Speck2eTestBoard", 1, 1)], open_device=lambda _: None)
    with refused("opening: expected a board, found none: another process may have it"):
        open_board("speck2e:0", SimpleNamespace(device=device, speck2e=None))


# loading


def test_a_refused_configuration_is_told_with_the_drivers_reason(
    board: Board, samna: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samna.speck2e, "validate_configuration", lambda _: (False, "core 4 has\n no room."))
    with refused("expected the configuration of the program to be accepted, found it refused: core 4 has no room. Try"):
        board.load(one_neuron()[0])


def test_a_chip_that_cannot_hold_the_program_is_told_before(board: Board) -> None:
    program = Program("speck2e", (make_core(4, stride=(3, 3)),), (4,), DvsConfig((1, 1, 1), merge=True))
    with pytest.raises(InvalidProgramError, match="layer 'conv4': stride"):
        board.load(program)


def test_a_board_that_does_not_take_its_configuration_is_reset_once(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, events = one_neuron()
    resets, model = [], type(board._board.get_model())
    apply, reset = model.apply_configuration, type(board._board).reset_board_soft

    def reset_too(self: Any, *arguments: Any) -> Any:
        resets.append(arguments)
        return reset(self, *arguments)

    def apply_later(self: Any, *arguments: Any) -> Any:
        if not resets:
            raise RuntimeError("timeout")  # as the driver does
        return apply(self, *arguments)

    monkeypatch.setattr(type(board._board), "reset_board_soft", reset_too)
    monkeypatch.setattr(model, "apply_configuration", apply_later)
    board.load(program)
    assert resets == [(True,)]
    assert len(board.run(events).spikes[4]) == len(events)

    def refuse(self: Any, *arguments: Any) -> Any:
        raise RuntimeError("timeout")

    monkeypatch.setattr(model, "apply_configuration", refuse)
    with refused("configuring after a soft reset: expected an answer, found RuntimeError: timeout. Try"):
        board.load(one_neuron()[0])
    assert len(resets) == 2


def test_a_reset_by_hand_needs_a_load(board: Board) -> None:
    program, events = one_neuron()
    board.load(program)
    board.reset()
    with refused("has no program to run"):
        board.run(events)
    board.load(program)
    assert len(board.run(events).spikes[4]) == len(events)


# running


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fault", [virtual.unplug, virtual.hang], ids=["unplug", "hang"])
@pytest.mark.parametrize("delay_s", [0.0, 0.15])
def test_a_lost_board_ends_the_run(board: Board, fault: Any, delay_s: float) -> None:
    program, events = one_neuron(400)
    board.load(program)
    if delay_s:
        threading.Timer(delay_s, fault, [board._board]).start()
    else:
        fault(board._board)
    started = time.monotonic()
    with refused("device 'virtual:speck2e:0': .* Try plugging the board in again|Try the board's reset button"):
        board.run(events)
    assert time.monotonic() - started < 10  # and not for ever
    board.close()
    board.close()


def test_spikes_that_do_not_fit_the_buffer_are_counted_and_told(samna: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devkit_module, "_CAPACITY", 4)
    core = make_core(4, weight=np.full((64, 1, 1, 1), 127))
    program = Program("speck2e", (core,), (4,), DvsConfig((1, 1, 1), merge=True))
    monkeypatch.setattr(play_module.Player, "reset_states", lambda *_: None)  # whose answers fill the buffer too
    with open_board("speck2e:0", samna, pace=QUICK) as board:
        board.load(program)
        with refused("expected to take every event, found [0-9]+ of [0-9]+ that came while the buffer was full"):
            board.run(one_neuron()[1])


def test_states_that_do_not_hold_are_told(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    program, events = one_neuron()

    def wrong(core: Any, driver: Any) -> Any:
        for event in encode_states(core, driver):
            event.neuron_state = 5
            yield event

    board.load(program)
    monkeypatch.setattr(play_module, "encode_states", wrong)
    with refused("expected initial states as they were written within .*, found others: 1 of core 4"):
        board.run(events)


def test_spikes_behind_the_end_are_told(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    program, events = one_neuron()
    board.load(program)
    with monkeypatch.context() as patch:
        patch.setattr(play_module.Player, "_wait_for_quiet", lambda *_: [])
        with refused("expected no spike after 0.02 s without one, found [0-9]+"):
            board.run(events)
    assert len(board.run(events).spikes[4]) == len(events)  # nothing is left of the run before


def test_recordings_that_no_time_stamp_counts_are_refused(board: Board) -> None:
    program, events = one_neuron(2, gap_us=2**32)
    board.load(program)
    with pytest.raises(RecordingError, match=r"expected at most 72 minutes, .* found 72. Try a window"):
        board.run(events)
    # Played one by one, no time passes between them.
    assert board.run(events, "all").spikes[4]["t_us"].tolist() == [0, 2**32]


def test_a_slow_clock_of_broken_hertz_is_refused(board: Board) -> None:
    core = make_core(4, bias=[1])
    program = Program("speck2e", (core,), (4,), DvsConfig((1, 1, 1), merge=True))
    board.load(program, slow_clock_hz=0.3)
    with pytest.raises(SettingError, match=r"slow_clock_hz: expected whole ticks per second, .* found 0.3. Try 1"):
        board.run(one_neuron()[1])


def test_a_second_clock_does_not_load_the_board_again(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    program = compile_program(branch_net(), "speck2e")
    loads = []
    model = type(board._board.get_model())
    apply = model.apply_configuration

    def counted(*given: Any) -> Any:
        loads.append(given)
        return apply(*given)

    monkeypatch.setattr(model, "apply_configuration", counted)
    for hz in (0.0, 100.0, None):
        board.load(program, slow_clock_hz=hz)
    assert len(loads) == 1


def test_no_thread_stays_behind(samna: Any) -> None:
    before = set(threading.enumerate())
    program, events = one_neuron()
    with open_board("speck2e:0", samna, pace=QUICK) as board:
        board.load(program)
        assert (board.run(events).counts[4] == Emulator(program).run(events).counts[4]).all()
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [thread.name for thread in set(threading.enumerate()) - before if "spikeport" in thread.name]


# power


def test_the_rails_are_measured_at_rest_and_above_it(board: Board) -> None:
    board.load(one_neuron()[0])
    idle = board.measure_idle(0.15)
    assert set(idle.power_w) == set(RAILS)
    assert all(values.size for values in idle.power_w.values())
    rest = {rail: watts for rail, watts in idle.mean_w().items() if watts is not None}
    with board.measure_power(100) as meter:
        board.run(one_neuron(300)[1])
        samples = meter.take(idle)
    first, last = board.played_us
    played = samples.within(first, last)
    assert all(0 < played.power_w[rail].size <= samples.power_w[rail].size for rail in RAILS)
    assert all(((stamps >= first) & (stamps <= last)).all() for stamps in played.t_us.values())
    assert join_rails([played, played]).mean_w() == pytest.approx(played.mean_w())
    above = samples.above_baseline_w()
    assert all(abs(above[rail] - (samples.mean_w()[rail] - rest[rail])) < 1e-12 for rail in RAILS)  # type: ignore[operator]
    assert samples.n_dropped == 0
    assert set(samples.to_dict()) == {"mean_w", "baseline_w", "above_baseline_w", "n_samples", "n_dropped"}


def test_rails_that_were_not_measured_have_no_mean() -> None:
    samples = RailSamples({"io": np.zeros(0), "ram": np.array([1e-3, 3e-3])}, {"io": np.zeros(0, int), "ram": [1, 2]})  # type: ignore[dict-item]
    assert samples.mean_w() == {"io": None, "ram": 2e-3}
    assert samples.above_baseline_w() == {"io": None, "ram": None}
    assert samples.within(2, 5).power_w["ram"].tolist() == [3e-3]
    without_times = RailSamples({"ram": np.ones(2)}, {"ram": np.zeros(2, int)})
    assert without_times.within(2, 5).power_w["ram"].size == 2


@pytest.mark.parametrize("rate_hz", [0, -1, 101, np.nan])
def test_a_rate_that_the_monitor_does_not_have_is_refused(board: Board, rate_hz: float) -> None:
    with pytest.raises(SettingError, match="rate_hz: expected more than 0 and at most 100 measurements per second"):
        board.measure_power(rate_hz)


def test_a_monitor_that_says_nothing_is_told(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = type(board._board.get_power_monitor())
    monkeypatch.setattr(monitor, "start_auto_power_measurement", lambda self, rate: rate)
    with refused("power monitor: expected measurements within 0.05 s, found none"):
        board.measure_idle(0.05)


# waiting


def test_a_call_that_ends_gives_what_it_returns() -> None:
    assert within(1, "it", lambda: 5) == 5
    with refused("it: expected an answer, found KeyError: 'colour'. Try"):
        within(1, "it", lambda: dict[str, int]()["colour"])
    started = time.monotonic()
    with refused("it: expected an answer within 0.05 s, found none. Try"):
        within(0.05, "it", lambda: time.sleep(0.5))
    assert time.monotonic() - started < 0.45


def test_a_reader_counts_what_it_has_no_room_for() -> None:
    bursts = [list(range(7)), [], list(range(5))]
    reader = Reader(SimpleNamespace(get_events=lambda: bursts.pop(0) if bursts else []), capacity=4, name="x")
    deadline = time.monotonic() + 5
    while bursts and time.monotonic() < deadline:
        time.sleep(0.001)
    reader.close(1)
    assert reader.n_received == 12
    taken = reader.take()
    assert taken[:4] == [0, 1, 2, 3]
    assert reader.n_dropped == 12 - len(taken)
    reader.forget()
    assert reader.n_received == reader.n_dropped == 0


def test_what_a_driver_raises_while_reading_comes_with_the_next_take() -> None:
    def fail() -> list[Any]:
        raise OSError("no such device")

    reader = Reader(SimpleNamespace(get_events=fail), capacity=4, name="x")
    reader.close(1)
    with refused("device 'x': reading: expected events, found OSError: no such device. Try"):
        reader.take()
