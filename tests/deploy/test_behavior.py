"""Behavior files and the probes that fill them in: each variant of a device is recognized as what it is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.deploy.behavior import VARIANTS, Behavior, read_behavior, write_behavior
from spikeport.deploy.chips import CHIPS
from spikeport.deploy.device import open_device
from spikeport.deploy.errors import BehaviorFileError, SettingError
from spikeport.deploy.probes import Case, make_probes
from spikeport.deploy.selfcheck import Answer, selfcheck
from spikeport.deploy.types import SPIKE, Recording
from spikeport.models.events import Events

from . import reference

FIELDS = [field.name for field in dataclasses.fields(Behavior)]


def test_the_emulator_keeps_the_specification() -> None:
    told: list[Answer] = []
    found = selfcheck("emulator", on_answer=told.append)
    assert found.ok
    assert found.behavior == Behavior()
    assert [answer.name for answer in told] == FIELDS == list(VARIANTS)
    assert found.behavior.differences() == {}
    json.dumps(found.to_dict())


def play_in_reference(case: Case) -> Recording:
    """Return what the slow reference does with a case, as a device would tell it."""
    cores = reference.run_reference(case.program, case.events, case.slow_clock_hz or None)
    return Recording(
        spikes={core: np.array(one.spikes, SPIKE) for core, one in cores.items()},
        states={core: np.array(one.state, np.int16) for core, one in cores.items()},
        synops={},
        n_spikes={core: len(one.spikes) for core, one in cores.items()},
        n_events={},
        n_dropped={},
        counts={},
        wall_s=0.0,
    )


def answer_of_reference(name: str) -> str | None:
    (probe,) = (probe for probe in make_probes(CHIPS[0]) if probe.name == name)
    return probe.outcomes.get(probe.observe([play_in_reference(case) for case in probe.cases]))


SMALL = [name for name in FIELDS if name != "leak_cores"]  # whose 64x64 maps take the reference too long


@pytest.mark.parametrize("name", SMALL)
def test_the_slow_reference_gives_the_specified_answers_too(name: str) -> None:
    assert answer_of_reference(name) == getattr(Behavior(), name)


class Wide(reference.ReferenceCore):
    """Compares and reduces in more bits than it keeps."""

    def visit(self, f: int, v: int, u: int, weight: int) -> bool:
        value = max(self.state[f][v][u] + weight, self.program.threshold_low)
        fires = value >= self.program.threshold_high
        self.state[f][v][u] = self.saturated(value - fires * self.program.threshold_high)
        return fires


class Wrapping(reference.ReferenceCore):
    """Takes sums modulo 2 to the 16."""

    def saturated(self, value: int) -> int:
        return (value + 32768) % 65536 - 32768


class Skipping(reference.ReferenceCore):
    """Leaves a neuron alone where the weight is 0."""

    def visit(self, f: int, v: int, u: int, weight: int) -> bool:
        return weight != 0 and super().visit(f, v, u, weight)


class Firing(reference.ReferenceCore):
    """Fires at a tick."""

    def tick(self) -> None:
        super().tick()
        for f, y, x in np.argwhere(np.array(self.state) >= self.program.threshold_high):
            self.state[f][y][x] -= self.program.threshold_high
            self.spikes.append((0, 0, int(f), int(y), int(x)))


class Endless(reference.ReferenceCore):
    """Does not know the size of its input."""

    def take(self, event: tuple[int, int], address: tuple[int, int, int]) -> list[reference.Spike]:
        inside = self.program.in_shape
        object.__setattr__(self.program, "in_shape", (inside[0], 128, 128))
        emitted = super().take(event, address)
        object.__setattr__(self.program, "in_shape", inside)
        return emitted


@pytest.mark.parametrize(
    ("name", "core", "variant"),
    [
        ("overflow", Wide, "wide"),
        ("overflow", Wrapping, "wraps"),
        ("zero_weight", Skipping, "skipped"),
        ("tick", Firing, "fires"),
        ("pool_edge", Endless, "reaches"),
    ],
)
def test_hardware_that_works_otherwise_is_recognized(
    name: str, core: type, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "ReferenceCore", core)
    assert answer_of_reference(name) == variant


@pytest.mark.parametrize(
    ("variant", "sort"),
    [
        ("first", lambda ends: ends),
        ("last", lambda ends: ends[::-1]),
        ("low", lambda ends: sorted(ends, key=lambda end: end.feature_shift)),
        ("high", lambda ends: sorted(ends, key=lambda end: -end.feature_shift)),
    ],
)
def test_the_order_of_banks_is_recognized(variant: str, sort: Any) -> None:
    (probe,) = (probe for probe in make_probes(CHIPS[0]) if probe.name == "bank_order")
    found = []
    for case in probe.cases:
        first, second = case.program.cores
        turned = dataclasses.replace(first, destinations=tuple(sort(list(first.destinations))))
        program = dataclasses.replace(case.program, cores=(turned, second))
        found.append(play_in_reference(dataclasses.replace(case, program=program)))
    assert probe.outcomes[probe.observe(found)] == variant


class Odd:
    """The emulator, with what comes out changed by hand."""

    name = "odd"

    def __init__(self, change: Any) -> None:
        self._change, self._device = change, open_device("emulator")

    def load(self, program: Any, *, slow_clock_hz: float | None = None) -> None:
        self._device.load(program, slow_clock_hz=slow_clock_hz)

    def run(self, events: Events, record: Any = None) -> Recording:
        changed = self._change(self._device.run(events, record))
        assert isinstance(changed, Recording)
        return changed

    def close(self) -> None:
        self._device.close()

    def __enter__(self) -> Odd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def mirrored(found: Recording) -> Recording:
    return dataclasses.replace(found, spikes={core: one[::-1] for core, one in found.spikes.items()})


def silent(found: Recording) -> Recording:
    return dataclasses.replace(
        found,
        spikes={core: one[:0] for core, one in found.spikes.items()},
        n_spikes=dict.fromkeys(found.n_spikes, 0),
    )


def other_polarity(found: Recording) -> Recording:
    spikes = {core: one.copy() for core, one in found.spikes.items()}
    for one in spikes.values():
        one["feature"] = 1
    return dataclasses.replace(found, spikes=spikes)


@pytest.mark.parametrize(
    ("probe", "change", "variant"),
    [
        ("visit_order", mirrored, "-y -x -feature"),
        ("visit_order", silent, None),
        ("bank_order", silent, "high"),
        ("last_spike", silent, "stays"),
        ("merged_polarity", other_polarity, "1"),
        ("leak_cores", silent, ""),
        ("zero_weight", silent, None),
    ],
)
def test_a_device_that_differs_is_told_apart(probe: str, change: Any, variant: str | None) -> None:
    found = selfcheck(Odd(change), probes=[probe])
    (answer,) = found.answers
    assert answer.variant == variant
    assert not found.ok
    assert found.behavior.differences()[probe] == (answer.specified, variant)


def test_outcomes_are_distinct_and_variants_that_exist() -> None:
    for probe in make_probes(CHIPS[0]):
        known = VARIANTS[probe.name]
        assert known is None or set(probe.outcomes.values()) == known
        assert len(set(probe.outcomes.values())) == len(probe.outcomes)


def test_unknown_probes_are_refused() -> None:
    with pytest.raises(SettingError, match=r"probes: expected some of overflow, .*, found colour. Try none"):
        selfcheck(probes=["colour", "tick"])


def test_a_behavior_file_gives_the_behavior_back(tmp_path: Path) -> None:
    path = tmp_path / "behavior.json"
    rng = np.random.default_rng(0)
    for _ in range(10):
        values: dict[str, Any] = {
            name: None if known is None or rng.random() < 0.2 else str(rng.choice(sorted(known)))
            for name, known in VARIANTS.items()
        }
        behavior = Behavior(**(values | {"visit_order": "-x y -feature", "leak_cores": "2,3,8"}))
        write_behavior(behavior, path, source={"device": "emulator"})
        assert read_behavior(path) == behavior
    assert json.loads(path.read_text())["source"] == {"device": "emulator"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("not json", "expected a behavior file, which is JSON"),
        ([], "expected kind 'behavior' of format 1"),
        ({"format": 2}, "expected kind 'behavior' of format 1"),
        ({"behavior": {}}, "behavior: expected overflow, "),
        ({"tick": "loud"}, "tick: expected one of fires, silent, or null, found 'loud'"),
        ({"visit_order": "y x y"}, "visit_order: expected the axes"),
        ({"leak_cores": "3,2"}, "leak_cores: expected core numbers in order"),
        ({"overflow": 1}, "overflow: expected one of saturates"),
    ],
)
def test_other_files_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "behavior.json"
    write_behavior(Behavior(), path)
    if isinstance(change, str):
        path.write_text(change)
    else:
        content = json.loads(path.read_text())
        if isinstance(change, dict) and set(change) <= set(content):
            content |= change
        elif isinstance(change, dict):
            content["behavior"] |= change
        else:
            content = change
        path.write_text(json.dumps(content))
    with pytest.raises(BehaviorFileError, match=message) as caught:
        read_behavior(path)
    assert caught.value.exit_code == 6
    assert str(caught.value).startswith("behavior.json: ")


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "behavior.json"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(BehaviorFileError, match="expected at most 1048576 bytes"):
        read_behavior(path)
