"""The contract of devices: the same tests over the emulator, a virtual board, and a real one where there is one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spikeport.deploy import classify, compile_program, verify, with_dvs
from spikeport.deploy.chips import CHIPS
from spikeport.deploy.device import Device, DeviceName, open_device, parse_device
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DeviceError, RecordingError, SettingError
from spikeport.deploy.selfcheck import selfcheck
from spikeport.deploy.types import DvsConfig, Program, Recording
from spikeport.models.events import Events

from .nets import branch_net, random_chain, single
from .programs import make_core, random_events

DEVICES = [
    "emulator",
    "virtual:speck2fdevkit",
    pytest.param(os.environ.get("SPIKEPORT_BOARD", ""), marks=pytest.mark.hardware, id="hardware"),
]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if not request.param:
        pytest.skip("SPIKEPORT_BOARD names no board")
    with open_device(request.param) as opened:
        yield opened


def chain_case(seed: int, n_events: int = 40) -> tuple[Program, Events]:
    """Return a chain whose results do not hang on the order of cores that work at the same time."""
    rng = np.random.default_rng(seed)
    program = compile_program(random_chain(rng), layer_order="auto")
    return program, random_events(rng, program.dvs.input_shape, n_events)


def rows(spikes: NDArray[Any]) -> list[tuple[int, ...]]:
    return sorted(tuple(map(int, spike)) for spike in spikes.tolist())


def agrees(found: Recording, expected: Recording) -> bool:
    """Return whether everything that a device has told is right; the order within one event is its own."""
    same = all(rows(spikes) == rows(expected.spikes[core]) for core, spikes in found.spikes.items())
    same &= all((state == expected.states[core]).all() for core, state in found.states.items())
    same &= all((counts == expected.counts[core]).all() for core, counts in found.counts.items())
    parts = ("synops", "n_events", "n_dropped", "n_spikes")
    return same and all(getattr(expected, name)[c] == n for name in parts for c, n in getattr(found, name).items())


@pytest.mark.parametrize("seed", range(4))
def test_all_cores_do_what_the_emulator_does(device: Device, seed: int) -> None:
    program, events = chain_case(seed)
    device.load(program)
    found = device.run(events, "all")
    ids = {core.core for core in program.cores}
    assert set(found.spikes) == set(found.states) == set(found.counts) == ids
    assert agrees(found, Emulator(program).run(events, "all"))


def test_a_plain_run_gives_the_monitored_cores_and_the_class(device: Device) -> None:
    program, events = chain_case(5)
    first = program.cores[0].core
    program = dataclasses.replace(
        program, cores=tuple(dataclasses.replace(core, monitor=core.core == first) for core in program.cores)
    )
    device.load(program)
    found, expected = device.run(events), Emulator(program).run(events)
    assert set(found.spikes) == {first}
    assert set(program.outputs) <= set(found.counts)
    assert all((found.counts[core] == expected.counts[core]).all() for core in program.outputs)
    assert classify(found, program) == classify(expected, program)


def test_each_run_starts_from_the_initial_states(device: Device) -> None:
    core = make_core(4, threshold_high=100, initial_state=[[[60]]], weight=[[[[30]]]])
    program = Program("speck2fdevkit", (core,), (4,), DvsConfig((1, 1, 1), merge=True))
    place = np.zeros(2, np.int64)
    events = Events(place, place, place, np.array([0, 50]), (1, 1))
    device.load(program)
    for _ in range(3):
        found = device.run(events, "all")
        assert len(found.spikes[4]) == 1
        assert found.spikes[4]["event"].tolist() == [1]
        assert found.states[4].ravel().tolist() == [20]


def test_another_program_takes_the_place_of_the_first(device: Device) -> None:
    for seed in (6, 7):
        program, events = chain_case(seed)
        device.load(program)
        assert agrees(device.run(events, "all"), Emulator(program).run(events, "all"))


def test_a_net_of_branches_runs(device: Device) -> None:
    program = compile_program(branch_net())
    events = random_events(np.random.default_rng(3), program.dvs.input_shape, 60)
    device.load(program)
    assert agrees(device.run(events, "all"), Emulator(program).run(events, "all"))


def test_the_input_stage_of_the_chip_does_its_part(device: Device) -> None:
    program = with_dvs(
        compile_program(single((1, 16, 8), 2, weight=np.full((2, 1, 3, 3), 0.9))),
        DvsConfig((2, 128, 128), True, (2, 4), ((3, 11), (5, 21)), (True, False), swap=True),
    )
    events = random_events(np.random.default_rng(2), (2, 128, 128), 300)
    device.load(program)
    found = device.run(events, "all")
    assert agrees(found, Emulator(program).run(events, "all"))
    assert sum(map(len, found.spikes.values()))


def clocked_program(hz: float | None) -> Program:
    core = make_core(
        4, weight=np.full((2, 1, 1, 1), 50), bias=[7, -9], in_shape=(1, 2, 2), threshold_high=90, threshold_low=-70
    )
    return Program("speck2fdevkit", (core,), (4,), DvsConfig((1, 2, 2), merge=True), slow_clock_hz=hz)


@pytest.mark.parametrize(("carried", "given"), [(None, None), (100.0, None), (None, 50.0), (100.0, 0.0)])
def test_biases_are_added_at_ticks_of_the_slow_clock(
    device: Device, carried: float | None, given: float | None
) -> None:
    program = clocked_program(carried)
    events = random_events(np.random.default_rng(1), (1, 2, 2), 40)
    events = Events(events.x, events.y, events.p, np.arange(40) * 2000 + 500, (2, 2))
    device.load(program, slow_clock_hz=given)
    found = device.run(events, "all")
    assert agrees(found, Emulator(program, slow_clock_hz=given).run(events, "all"))
    assert len(found.spikes[4])


def test_golden_vectors_hold_on_every_device(device: Device) -> None:
    program, _ = chain_case(8)
    program = dataclasses.replace(program, golden=tuple(program.golden)[:2])  # a board plays them in real time
    found = verify(program, device)
    assert found.ok
    assert found.device == device.name
    assert found.cores == tuple(core.core for core in program.cores)


def test_a_wrong_program_is_found_out(device: Device) -> None:
    program, _ = chain_case(9)
    first = program.cores[0]
    weight = first.weight.copy()
    weight.flat[np.argmax(weight)] = -1
    wrong = dataclasses.replace(
        program, cores=(dataclasses.replace(first, weight=weight), *program.cores[1:]), golden=tuple(program.golden)[:2]
    )
    assert not verify(wrong, device).ok


def test_a_device_keeps_the_specification(device: Device) -> None:
    names = [
        "overflow",
        "zero_weight",
        "visit_order",
        "bank_order",
        "merged_polarity",
        "pool_edge",
        "last_spike",
        "tick",
    ]
    found = selfcheck(device, probes=names)
    assert {answer.name: answer.variant for answer in found.answers} == {
        answer.name: answer.specified for answer in found.answers
    }


def test_events_that_do_not_fit_are_refused(device: Device) -> None:
    program, events = chain_case(10)
    device.load(program)
    with pytest.raises(RecordingError, match="expected at least one, found no events"):
        device.run(events.part(0, 0))
    with pytest.raises(RecordingError, match="events: expected a sensor of 16x16"):
        device.run(Events(events.x, events.y, events.p, events.t_us, (17, 16)))
    with pytest.raises(SettingError, match="record: expected None"):
        device.run(events, "some")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="slow_clock_hz"):
        device.load(program, slow_clock_hz=np.nan)
    assert agrees(device.run(events, "all"), Emulator(program).run(events, "all"))


@pytest.mark.parametrize("name", DEVICES[:2])
def test_refuses_to_run_without_a_program_or_after_closing(name: str) -> None:
    program, events = chain_case(1)
    device = open_device(name)
    with pytest.raises(DeviceError, match="has no program to run"):
        device.run(events)
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="is closed"):
        device.load(program)
    with pytest.raises(DeviceError, match="is closed"):
        device.run(events)


# names


@pytest.mark.parametrize("chip", [chip.name for chip in CHIPS])
def test_a_board_is_called_by_its_chip_and_number(chip: str) -> None:
    assert parse_device(chip) == DeviceName(chip, 0, is_virtual=False)
    assert parse_device(f"{chip}:3") == DeviceName(chip, 3, is_virtual=False)
    assert parse_device(f"virtual:{chip}:1") == DeviceName(chip, 1, is_virtual=True)
    assert parse_device("emulator") == DeviceName(None)


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("emulater", "emulator"),
        ("Emulator", "emulator"),
        ("emulator:0", "emulator"),
        ("speck2fdefkit", "speck2fdevkit"),
        ("virtual:speck2", "virtual:speck2e"),
        ("virtual:speck2fdevkit:8", "virtual:speck2fdevkit"),
        ("speck2e:first", "speck2e"),
        ("speck2e:", "speck2e"),
        ("speck2e:-1", "speck2e"),
        ("speck2e:100", "speck2e"),
        ("", "emulator"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(asked: str, nearest: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{asked}': .*no device has this name.* Try '{nearest}'") as caught:
        open_device(asked)
    assert caught.value.exit_code == 7


def test_a_real_board_without_its_driver_says_how_to_get_it() -> None:
    from spikeport.deploy.preflight import find_samna

    if find_samna().state == "real":
        pytest.skip("the vendor's driver is installed")
    with pytest.raises(DeviceError, match=r"samna, the vendor's driver, .* Try .*import samna") as caught:
        open_device("speck2fdevkit:0")
    assert "\n" not in str(caught.value)
