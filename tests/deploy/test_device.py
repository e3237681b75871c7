"""Devices: the emulator behind the protocol, and every name that does not open."""

from __future__ import annotations

import numpy as np
import pytest

from spikeport.deploy.chips import CHIPS
from spikeport.deploy.device import open_device
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DeviceError, SettingError

from .programs import random_case


def test_the_emulator_device_runs_what_the_emulator_runs() -> None:
    with open_device("emulator") as device:
        for seed in (1, 2):
            case = random_case(seed)
            device.load(case.program, slow_clock_hz=case.slow_clock_hz)
            expected = Emulator(case.program, slow_clock_hz=case.slow_clock_hz).run(case.events, "all")
            assert device.run(case.events, "all").same(expected)
            assert set(device.run(case.events).spikes) == {core.core for core in case.program.cores if core.monitor}


@pytest.mark.parametrize("chip", [chip.name for chip in CHIPS])
@pytest.mark.parametrize("name", ["{}", "{}:0", "virtual:{}", "virtual:{}:1"])
def test_boards_are_refused_by_name(chip: str, name: str) -> None:
    asked = name.format(chip)
    with pytest.raises(
        DeviceError, match=f"device '{asked}' is a .* board: this version opens only 'emulator'"
    ) as caught:
        open_device(asked)
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("emulater", "emulator"),
        ("Emulator", "emulator"),
        ("speck2fdefkit", "speck2fdevkit"),
        ("virtual:speck2", "virtual:speck2e"),
        ("speck2e:first", "speck2e"),
        ("", "emulator"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(asked: str, nearest: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{asked}': no device has this name.* Try '{nearest}'"):
        open_device(asked)


def test_refuses_to_run_without_a_program_or_after_closing() -> None:
    case = random_case(1)
    device = open_device("emulator")
    with pytest.raises(DeviceError, match="has no program to run"):
        device.run(case.events)
    with pytest.raises(SettingError, match="slow_clock_hz"):
        device.load(case.program, slow_clock_hz=np.nan)
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="is closed"):
        device.load(case.program)
    with pytest.raises(DeviceError, match="is closed"):
        device.run(case.events)
