"""Golden vectors on a device: the first place where it does something else than the program did when it was made."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .device import Device, open_device
from .errors import GoldenError
from .golden import content_hash, count_untouched
from .types import Golden, Program, Recording
from .vectors import find_golden_misfit

_ORDER = ("event", "y", "x", "feature")
"""Spikes are compared in the order in which the specification visits neurons; within one event a board may differ."""


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first place where a device left the golden vectors.

    ``kind`` ``"spikes"``: ``expected`` and ``found`` are numbers of spikes of one neuron at input event ``event``.
    ``kind`` ``"state"``: they are states after the last event, and ``event`` and ``t_us`` are None.
    ``kind`` ``"content"``: spikes and states agree, but the core is not loaded with what the vectors were recorded
    with; they are hashes of that, and ``neuron`` is None too.
    Shapes: ``neuron`` is ``(feature, y, x)``, before pooling.
    """

    vector: str
    kind: Literal["spikes", "state", "content"]
    core: int
    layer: str
    neuron: tuple[int, int, int] | None
    event: int | None
    t_us: int | None
    expected: int | str
    found: int | str

    @property
    def message(self) -> str:
        """The divergence as one sentence."""
        where = f"core {self.core} ('{self.layer}')"
        if self.neuron is None:
            return (
                f"{where}: expected what the golden vectors were recorded with (hash {self.expected}), found other "
                f"weights, thresholds, states, routes or readout ({self.found}), which no golden event shows."
            )
        feature, y, x = self.neuron
        where += f", feature {feature}, y {y}, x {x}"
        if self.kind == "state":
            return (
                f"{where}: expected the state {self.expected} after the last event of '{self.vector}', "
                f"found {self.found}; all spikes agree."
            )
        return (
            f"{where}: expected {_times(self.expected)} at event {self.event} ({self.t_us} us) of '{self.vector}', "
            f"found {_times(self.found)}."
        )


@dataclasses.dataclass(frozen=True)
class Verification:
    """What a device made of the golden vectors: ``divergence`` is None where it did what is expected.

    ``cores`` whose spikes were compared, ``state_cores`` whose final states were: a board gives the spikes of monitored
    cores only. ``n_spikes`` compared are those expected; ``n_untouched`` weights of each core are met by no vector.
    """

    device: str
    divergence: Divergence | None
    vectors: tuple[str, ...]
    cores: tuple[int, ...]
    state_cores: tuple[int, ...]
    n_events: int
    n_spikes: int
    n_untouched: Mapping[int, int]

    @property
    def ok(self) -> bool:
        """Whether everything compared is as expected."""
        return self.divergence is None

    def to_dict(self) -> dict[str, Any]:
        """Return the verification as plain JSON values."""
        divergence = None
        if self.divergence is not None:
            divergence = {**dataclasses.asdict(self.divergence), "message": self.divergence.message}
            divergence["neuron"] = None if self.divergence.neuron is None else list(self.divergence.neuron)
        return {
            "ok": self.ok,
            "device": self.device,
            "divergence": divergence,
            "vectors": list(self.vectors),
            "cores": list(self.cores),
            "state_cores": list(self.state_cores),
            "n_events": self.n_events,
            "n_spikes": self.n_spikes,
            "n_untouched": {str(core): n for core, n in self.n_untouched.items()},
        }


def verify(program: Program, device: str | Device = "emulator") -> Verification:
    """Return whether a device does with the golden events what the program did when it was made.

    ``device`` is a name to open, or an open device, which stays open. Compared is what it gives: the spikes of each
    core in its recording, event by event, then the final states of each core in it. A divergence in spikes, which has
    an event, is reported before one in states alone; of those the earliest event, of that the first core in network
    order, of that the first neuron by row, column and feature. Last, the program is compared with the hashes of what
    it was, for the weights that no golden event meets, and the readout block. Not covered is ``program.slow_clock_hz``:
    the vectors are replayed at the rates that they were recorded with.
    Law: a program as it was compiled has no divergence on the emulator.
    Raises: GoldenError where the program has no golden vectors, they cannot be its own, or the device gives nothing to
    compare; DeviceError.
    """
    _check(program)
    if isinstance(device, str):
        with open_device(device) as opened:
            found = _replayed(program, opened)
        name = device
    else:
        found, name = _replayed(program, device), device.name
    ids = [core.core for core in program.cores]
    cores = tuple(core for core in ids if all(core in one.spikes for one in found))
    state_cores = tuple(core for core in ids if all(core in one.states for one in found))
    if not cores and not state_cores:
        raise GoldenError(
            f"device '{name}': expected spikes or states of at least one core to compare, found none. "
            "Try a program that monitors a core: spikeport deploy --monitor all."
        )
    pairs = list(zip(program.golden, found, strict=True))
    in_spikes = (_first_spike(golden, one, program, cores) for golden, one in pairs)
    in_states = (_first_state(golden, one, program, state_cores) for golden, one in pairs)
    in_contents = (_first_content(golden, program) for golden in program.golden)
    searched = itertools.chain(in_spikes, in_states, in_contents)
    return Verification(
        device=name,
        divergence=next((one for one in searched if one is not None), None),
        vectors=tuple(golden.name for golden in program.golden),
        cores=cores,
        state_cores=state_cores,
        n_events=sum(len(golden.events) for golden in program.golden),
        n_spikes=sum(len(golden.spikes[core]) for golden in program.golden for core in cores),
        n_untouched=count_untouched(program),
    )


def _check(program: Program) -> None:
    if not len(program.golden):
        raise GoldenError(
            "program: expected golden vectors, found none. Try `spikeport deploy` again, or add_golden(program)."
        )
    problem = find_golden_misfit(program)
    if problem is not None:
        raise GoldenError(problem)


def _replayed(program: Program, device: Device) -> list[Recording]:
    found, rate_hz = [], None
    for golden in program.golden:
        if rate_hz != golden.slow_clock_hz:
            rate_hz = golden.slow_clock_hz
            device.load(program, slow_clock_hz=rate_hz)
        found.append(device.run(golden.events, "all"))
    return found


def _first_spike(golden: Golden, found: Recording, program: Program, cores: tuple[int, ...]) -> Divergence | None:
    first: Divergence | None = None
    for core in program.cores:
        if core.core not in cores:
            continue
        row = _first_row(golden.spikes[core.core], found.spikes[core.core])
        if row is None or (first is not None and first.event is not None and first.event <= row[0]):
            continue
        event, y, x, feature = row
        expected, there = (_count(spikes[core.core], row) for spikes in (golden.spikes, found.spikes))
        t_us = int(golden.events.t_us[event]) if 0 <= event < len(golden.events) else None
        place = (feature, y, x)
        first = Divergence(golden.name, "spikes", core.core, core.name, place, event, t_us, expected, there)
    return first


def _first_row(expected: NDArray[Any], found: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Return the first spike that one of the two has more often than the other."""
    a, b = _sorted(expected), _sorted(found)
    n = min(len(a), len(b))
    differs = (a[:n] != b[:n]).any(axis=1)
    at = int(np.argmax(differs)) if differs.any() else n
    rows = [tuple(int(value) for value in one[at]) for one in (a, b) if at < len(one)]
    return min(rows) if rows else None  # type: ignore[return-value]


def _sorted(spikes: NDArray[Any]) -> NDArray[np.int64]:
    columns = [spikes[name].astype(np.int64) for name in _ORDER]
    return np.stack(columns, axis=1)[np.lexsort(columns[::-1])]


def _count(spikes: NDArray[Any], row: tuple[int, int, int, int]) -> int:
    is_it = np.ones(len(spikes), np.bool_)
    for name, value in zip(_ORDER, row, strict=True):
        is_it &= spikes[name] == value
    return int(is_it.sum())


def _first_state(golden: Golden, found: Recording, program: Program, cores: tuple[int, ...]) -> Divergence | None:
    for core in program.cores:
        if core.core not in cores:
            continue
        expected, there = golden.states[core.core], found.states[core.core]
        differs = (expected != there).transpose(1, 2, 0)
        if differs.any():
            y, x, feature = (int(axis) for axis in np.unravel_index(int(np.argmax(differs)), differs.shape))
            values = int(expected[feature, y, x]), int(there[feature, y, x])
            return Divergence(golden.name, "state", core.core, core.name, (feature, y, x), None, None, *values)
    return None


def _first_content(golden: Golden, program: Program) -> Divergence | None:
    for core in program.cores:
        was, is_now = golden.contents[core.core], content_hash(program, core.core)
        if was != is_now:
            return Divergence(golden.name, "content", core.core, core.name, None, None, None, was, is_now)
    return None


def _times(n_spikes: int | str) -> str:
    return "no spike" if n_spikes == 0 else "a spike" if n_spikes == 1 else f"{n_spikes} spikes"
