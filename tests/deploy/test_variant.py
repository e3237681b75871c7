"""Chips of another behavior: as specified they are the emulator, else the probes find out what they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.behavior import ALL_CORES, VARIANTS, Behavior
from spikeport.deploy.device import open_device
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import RecordingError, SettingError
from spikeport.deploy.selfcheck import selfcheck
from spikeport.deploy.types import Program, Recording
from spikeport.deploy.variant import run_variant
from spikeport.models.events import Events

from .programs import random_case

AS_SPECIFIED = ("leak_cores", "last_spike")


@given(st.integers(0, 5000))
@settings(max_examples=20, deadline=None)
def test_the_specified_behavior_is_the_emulators(seed: int) -> None:
    case = random_case(seed)
    for record in ("all", None):
        expected = Emulator(case.program, slow_clock_hz=case.slow_clock_hz or 0).run(case.events, record)
        found = run_variant(case.program, case.events, Behavior(), rate_hz=case.slow_clock_hz, record=record)
        assert found.same(dataclasses.replace(expected, wall_s=found.wall_s))


class Chip:
    """A device of a behavior."""

    name = "chip"

    def __init__(self, behavior: Behavior) -> None:
        self._behavior = behavior

    def load(self, program: Program, *, slow_clock_hz: float | None = None) -> None:
        self._loaded = program, slow_clock_hz or None

    def run(self, events: Events, record: Any = None) -> Recording:
        program, hz = self._loaded
        return run_variant(program, events, self._behavior, rate_hz=hz, record=record)

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> Chip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


orders = st.permutations(["y", "x", "feature"])
signs = st.lists(st.sampled_from(["", "-"]), min_size=3, max_size=3)
choices = {name: st.sampled_from(sorted(known)) for name, known in VARIANTS.items() if known and name != "last_spike"}


@given(orders, signs, st.fixed_dictionaries(choices))
@settings(max_examples=40, deadline=None)
def test_the_probes_find_the_behavior_that_was_given(order: list[str], sign: list[str], values: dict[str, str]) -> None:
    visit_order = " ".join(minus + axis for minus, axis in zip(sign, order, strict=True))
    behavior = Behavior(**values, visit_order=visit_order)
    probes = [field.name for field in dataclasses.fields(Behavior) if field.name not in AS_SPECIFIED]
    found = selfcheck(Chip(behavior), probes=probes).behavior
    assert dataclasses.replace(found, leak_cores=ALL_CORES, last_spike="leaves") == behavior


def test_the_emulator_takes_a_behavior() -> None:
    behavior = Behavior(zero_weight="skipped")
    with open_device("emulator", behavior=behavior) as device:
        assert selfcheck(device, probes=["zero_weight", "tick"]).behavior.zero_weight == "skipped"
        with pytest.raises(RecordingError, match="found no events"):
            device.run(random_case(1).events.part(0, 0))
    with open_device("emulator", behavior=Behavior()) as device:
        assert selfcheck(device, probes=["zero_weight"]).ok
    with pytest.raises(SettingError, match="behavior: expected the emulator, found 'virtual:speck2e'"):
        open_device("virtual:speck2e", behavior=behavior)


def test_undecided_questions_are_taken_as_specified() -> None:
    case = random_case(11)
    nothing = Behavior(**dict.fromkeys(field.name for field in dataclasses.fields(Behavior)))
    found = [run_variant(case.program, case.events, behavior, record="all") for behavior in (nothing, Behavior())]
    assert found[0].same(dataclasses.replace(found[1], wall_s=found[0].wall_s))
    assert sum(map(np.size, found[0].spikes.values())) > 0
