"""What goes wrong with boards: unplugged, hung, owned by another process, late events, full queues and sinks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from spikeport.deploy.errors import ChipNameError, DeviceError
from spikeport.deploy.virtual import VirtualBoardError, driver, hang, plug_in, unplug
from spikeport.deploy.virtual.graph import SinkNode
from spikeport.deploy.virtual.locks import BoardLock

from .bench import Bench
from .writer import configured, one_neuron, program_of_one

HOLDER = """
import sys
from spikeport.deploy.virtual import driver
board = driver(["speck2fdevkit"]).device.open_device("Speck2fDevKit:0")
print("held", flush=True)
sys.stdin.readline()
"""


def neuron(samna: types.ModuleType) -> Bench:
    bench = Bench(samna)
    bench.apply(configured(program_of_one(one_neuron()), with_input=False))
    return bench


# discovery and ownership


def test_boards_are_listed_as_virtual_and_opened_by_info_by_name_and_by_number() -> None:
    samna = driver(["speck2fdevkit", "speck2edevkit", "speck2fdevkit", "speck2e", "speck2fmodule"])
    device = samna.device
    infos = device.get_all_devices()
    assert [info.device_type_name for info in infos] == [
        "Speck2fDevKit",
        "Speck2eDevKit",
        "Speck2fDevKit",
        "Speck2eTestBoard",
        "Speck2fModuleDevKit",
    ]
    assert len({info.serial_number for info in infos}) == 5
    for info in infos:
        for shown in (str(info), str(info.device_type_name), f"{info.device_type_name}", repr(info.device_type_name)):
            assert "virtual" in shown
        assert "VIRTUAL" in info.serial_number
    first = device.open_device(infos[0])
    assert device.open_device(infos[0]) is device.open_device("Speck2fDevKit:0") is first
    second = device.open_device(str(infos[0].device_type_name))
    assert second is device.open_device("Speck2fDevKit:1")
    assert "virtual" in repr(first)
    assert type(first).__name__ == "Speck2fDevKit"
    with pytest.raises(VirtualBoardError, match="no board 'Speck2fDevKit' is there and free"):
        device.open_device("Speck2fDevKit")
    for name in ("Speck2fDevKit:2", "Speck2fDevKit:x", "Speck3", ""):
        with pytest.raises(VirtualBoardError, match="Try one of get_unopened_devices"):
            device.open_device(name)
    with pytest.raises(TypeError):
        device.open_device(3)
    assert len(device.get_unopened_devices()) == 3
    assert [info.serial_number for info in device.get_opened_devices()] == [
        infos[0].serial_number,
        infos[2].serial_number,
    ]
    device.close_device(second)
    assert device.open_device("Speck2fDevKit") is not second
    samna.virtual.close_all()
    assert device.get_opened_devices() == []


def test_a_driver_needs_boards_that_there_are() -> None:
    with pytest.raises(ChipNameError, match="speck2fdevkit"):
        driver(["speck2f"])
    nothing: Any
    for nothing in ([], "speck2fdevkit"):
        with pytest.raises(VirtualBoardError, match=r"Try \['speck2fdevkit'\]"):
            driver(nothing)


def test_a_closed_board_is_of_no_use(samna: types.ModuleType) -> None:
    bench = neuron(samna)
    samna.device.close_device(bench.board)
    for use in (
        bench.board.get_model,
        bench.board.get_stop_watch,
        bench.board.get_io_module,
        bench.board.get_power_monitor,
        bench.board.reset_board_soft,
        lambda: samna.device.close_device(bench.board),
        lambda: bench.source.write([bench.events.Spike(3, 0, 0, 0)]),
    ):
        with pytest.raises(VirtualBoardError, match="closed"):
            use()
    with pytest.raises(TypeError):
        samna.device.close_device("Speck2fDevKit")
    other = driver(["speck2fmodule"])
    foreign = other.device.open_device("Speck2fModuleDevKit")
    with pytest.raises(VirtualBoardError, match="another driver"):
        samna.device.close_device(foreign)
    other.virtual.close_all()


def test_a_board_of_another_process_is_refused_with_its_id_and_free_when_that_is_killed(
    samna: types.ModuleType,
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(VirtualBoardError, match=f"owned by process {holder.pid}"):
            samna.device.open_device("Speck2fDevKit:0")
        assert [info.device_type_name for info in samna.device.get_unopened_devices()] == ["Speck2eDevKit"]
        assert len(samna.device.get_all_devices()) == 2
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        neuron(samna)
    finally:
        holder.kill()
        holder.wait(10)
        for stream in (holder.stdin, holder.stdout):
            if stream is not None:
                stream.close()


def test_a_lock_file_that_is_left_over_locks_nothing(tmp_path: Path) -> None:
    lock = BoardLock("speck2fdevkit:0", tmp_path)
    lock.take()
    with pytest.raises(VirtualBoardError, match=f"owned by process {os.getpid()}"):
        BoardLock("speck2fdevkit:0", tmp_path).take()
    lock.release()
    lock.release()
    (path,) = tmp_path.glob("*.lock")
    path.write_text("999999999\n")
    assert lock.is_free
    lock.take()
    assert path.read_text() == f"{os.getpid()}\n"
    assert not lock.is_free
    lock.release()


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VirtualBoardError, match="SPIKEPORT_LOCKS"):
        BoardLock("speck2fdevkit:0", tmp_path / "missing").take()
    (tmp_path / "target").write_text("precious")
    trap = BoardLock("speck2fdevkit:0", tmp_path)
    trap._path.symlink_to(tmp_path / "target")
    with pytest.raises(VirtualBoardError, match="lock file cannot be opened"):
        trap.take()
    assert (tmp_path / "target").read_text() == "precious"


# lost and hung


def test_a_plug_that_is_pulled_in_the_middle_of_a_run_is_a_named_error(samna: types.ModuleType) -> None:
    bench = neuron(samna)
    bench.board.get_stop_watch().start()
    bench.source.write([bench.events.Spike(3, 0, 0, 0, stamp) for stamp in (0, 100, 60_000_000)])
    assert len(bench.sink.get_n_events(2, 5000)) == 2
    unplug(bench.board)
    for use in (
        bench.board.get_model,
        bench.board.reset_board_soft,
        bench.board.engine.watch.stop,
        lambda: bench.source.write([bench.events.Spike(3, 0, 0, 0)]),
    ):
        with pytest.raises(DeviceError, match="virtual:speck2fdevkit:0: lost: it was unplugged"):
            use()
    assert bench.sink.get_events_blocking(20) == []
    assert bench.board.engine.counts.n_discarded == 1
    assert [info.device_type_name for info in samna.device.get_all_devices()] == ["Speck2eDevKit"]
    with pytest.raises(VirtualBoardError, match="speck2fdevkit:0: lost: it was unplugged"):
        samna.device.open_device("Speck2fDevKit:0")
    with pytest.raises(VirtualBoardError, match="plugged in: Speck2eDevKit"):
        samna.device.open_device("Speck2fDevKit:1")
    plug_in("speck2fdevkit:0")
    again = neuron(samna)
    assert len(again.ask(again.events.Spike(3, 0, 0, 0))) == 1


def test_a_board_that_hangs_answers_nothing_until_a_soft_reset(samna: types.ModuleType) -> None:
    bench = neuron(samna)
    hang("speck2fdevkit:0")
    bench.source.write([bench.events.Spike(3, 0, 0, 0)])
    assert bench.sink.get_events_blocking(150) == []
    started = time.monotonic()
    with pytest.raises(VirtualBoardError, match=r"no answer within 0 s. Try reset_board_soft\(True\)"):
        bench.board.get_model().apply_configuration(configured(program_of_one(one_neuron())), 0)
    assert time.monotonic() - started < 5
    bench.board.reset_board_soft(True)
    assert bench.board.engine.counts.n_discarded == 1
    bench.apply(configured(program_of_one(one_neuron()), with_input=False))
    assert len(bench.ask(bench.events.Spike(3, 0, 0, 0))) == 1


def test_faults_name_boards_that_there_are(samna: types.ModuleType) -> None:
    with pytest.raises(VirtualBoardError, match="not open, so it cannot hang"):
        samna.virtual.hang("speck2fdevkit")
    with pytest.raises(VirtualBoardError, match="expected one of speck2fdevkit:0, speck2edevkit:0"):
        samna.virtual.unplug("speck2fdevkit:1")
    with pytest.raises(VirtualBoardError, match="Try install first"):
        unplug("speck2fmodule:7")


def test_an_error_inside_the_board_is_told_and_a_soft_reset_helps(samna: types.ModuleType) -> None:
    bench = neuron(samna)
    bench.board.engine.submit([object()], lambda: True)  # past every check, as no user can
    bench.board.engine._kinds = None
    bench.board.engine._chip._kinds = None
    bench.board.engine.submit([bench.events.Spike(3, 0, 0, 0)], lambda: True)
    end = time.monotonic() + 5
    while not bench.board.engine.is_hung and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(VirtualBoardError, match="stopped by an internal error"):
        bench.board.get_stop_watch().start()
    bench.board.engine._kinds = bench.events
    bench.board.reset_board_soft(True)
    bench.apply(configured(program_of_one(one_neuron()), with_input=False))
    assert len(bench.ask(bench.events.Spike(3, 0, 0, 0))) == 1


# time


def test_events_ahead_of_the_stop_watch_wait_and_hold_what_follows(samna: types.ModuleType) -> None:
    bench, kinds = neuron(samna), samna.speck2f.event
    watch = bench.board.get_stop_watch()
    watch.start()
    started = time.monotonic()
    found = bench.ask(kinds.Spike(3, 0, 0, 0, 10), kinds.Spike(3, 0, 0, 0, 120_000), kinds.ReadNeuronValue(3, 0))
    assert time.monotonic() - started > 0.1
    assert [getattr(one, "timestamp", None) for one in found] == [10, 120_000, None]
    watch.stop()
    assert bench.ask(kinds.Spike(3, 0, 0, 0, 4_000_000)) == [kinds.Spike(3, 0, 0, 0, 0)]


def test_a_stamp_of_the_past_is_sent_at_once_and_counted_where_it_is_more_than_a_moment_late(
    samna: types.ModuleType,
) -> None:
    bench, kinds = neuron(samna), samna.speck2f.event
    watch = bench.board.get_stop_watch()
    watch.start()
    watch._zero_us -= 5_000_000  # five seconds ago
    now_us = watch.now_us()
    late, in_time = bench.ask(kinds.Spike(3, 0, 0, 0, 1_000_000), kinds.Spike(3, 0, 0, 0, now_us + 200_000))
    assert late.timestamp >= now_us
    assert in_time.timestamp == now_us + 200_000
    assert bench.board.engine.counts.n_late == 1
    slightly = watch.now_us() - 500_000
    (spike,) = bench.ask(kinds.Spike(3, 0, 0, 0, slightly))
    assert spike.timestamp == in_time.timestamp  # time never goes back, so it is that of the last spike
    assert bench.board.engine.counts.n_late == 1


def test_stamps_wrap_around_at_32_bits(samna: types.ModuleType) -> None:
    bench, kinds = neuron(samna), samna.speck2f.event
    watch = bench.board.get_stop_watch()
    watch.start()
    watch._zero_us -= (1 << 32) - 30_000
    stamps = [(1 << 32) - 20_000 + step for step in (0, 15_000)] + [5_000]
    found = bench.ask(*(kinds.Spike(3, 0, 0, 0, stamp) for stamp in stamps))
    assert [one.timestamp for one in found] == stamps


def test_the_stop_watch_starts_stops_and_goes_on(samna: types.ModuleType) -> None:
    watch = neuron(samna).board.get_stop_watch()
    assert (watch.is_running, watch.now_us()) == (False, 0)
    watch.start()
    time.sleep(0.01)
    watch.stop()
    stopped_us = watch.now_us()
    assert stopped_us >= 10_000
    watch.start(reset=False)
    assert watch.now_us() >= stopped_us
    watch.reset()
    assert watch.now_us() < stopped_us
    watch.set_enable_value(False)
    assert (watch.is_running, watch.now_us()) == (False, 0)
    watch.set_enable_value(True)
    assert watch.is_running
    assert "virtual" in repr(watch)


@pytest.mark.parametrize(
    ("rate", "kind"),
    [(0, VirtualBoardError), (-1, VirtualBoardError), (2e6, VirtualBoardError), ("1", TypeError), (None, TypeError)],
)
def test_a_slow_clock_needs_a_rate(samna: types.ModuleType, rate: object, kind: type[Exception]) -> None:
    io = neuron(samna).board.get_io_module()
    with pytest.raises(kind, match="set_slow_clk_rate"):
        io.set_slow_clk_rate(rate)
    io.set_in_out_interface_clk_rate(1_000_000)
    assert "virtual" in repr(io)


# full


def test_a_full_queue_makes_the_writer_wait_and_loses_nothing() -> None:
    samna = driver(["speck2fdevkit"], n_queue=10)
    try:
        bench = neuron(samna)
        bench.board.get_stop_watch().start()
        engine, entrance = bench.board.engine, bench.board.get_model_sink_node()
        bench.source.write([bench.events.Spike(3, 0, 0, 0, 600_000 + stamp) for stamp in range(100)])
        end = time.monotonic() + 5
        while engine.n_waiting < 10 and time.monotonic() < end:
            time.sleep(0.005)
        assert engine.n_waiting == 10
        assert engine.counts.n_in == 10
        found = bench.sink.get_n_events(100, 8000)
        assert [one.timestamp for one in found] == [600_000 + stamp for stamp in range(100)]
        assert entrance.n_waiting == 0
    finally:
        samna.virtual.close_all()


def test_a_graph_that_is_stopped_before_a_full_queue_keeps_what_is_left() -> None:
    samna = driver(["speck2fdevkit"], n_queue=10)
    try:
        bench = neuron(samna)
        bench.board.get_stop_watch().start()
        entrance = bench.board.get_model_sink_node()
        bench.source.write([bench.events.Spike(3, 0, 0, 0, 600_000)] * 30)
        end = time.monotonic() + 5
        while bench.board.engine.n_waiting < 10 and time.monotonic() < end:
            time.sleep(0.005)
        assert bench.source.graph.stop()
        assert (bench.board.engine.n_waiting, entrance.n_waiting) == (10, 20)
        bench.source.graph.start()
        assert len(bench.sink.get_n_events(30, 8000)) == 30
    finally:
        samna.virtual.close_all()


def test_a_full_sink_drops_counts_and_says_so() -> None:
    sink = SinkNode(capacity=3)
    with pytest.warns(RuntimeWarning, match="holds 3 events"):
        sink._apply([1, 2, 3, 4, 5])
    sink._apply([6])
    assert sink.n_dropped == 3
    assert sink.get_events() == [1, 2, 3]
    sink._apply([7])
    assert (sink.get_n_events(1, 0), sink.n_dropped) == ([7], 3)
