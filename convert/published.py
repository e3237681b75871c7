"""What others published about power and energy: measurements, the profiles derived from them, other platforms."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .profiles import Coefficient, PowerProfile, Rail, Share, Term, unknown_term

Operation = Literal["synop", "MAC", "AC"]

PAPER = "Yao et al., Nature Communications 15:4464 (2024), table 1"
_NOTEBOOK = (
    "idle reading of one speck2fdevkit, sinabs power monitoring notebook; "
    "band: offset error of up to 50 uW per rail, Speck dev kit datasheet v1.0"
)
_NOTEBOOK_DATE = "2026-02 (sinabs 3.1.3)"
_PAPER_DATE = "2024"
OFFSET_W = 50e-6
"""Offset error of one rail of the dev kit's power monitor. Source: Speck dev kit datasheet v1.0, August 2023."""

# A spike of the paper's net, 32C3S1-32C3S2-32C3S1-AP4-32FC, reaches at most 32 features x 3 x 3 neurons.
LARGEST_FAN_OUT = 32 * 3 * 3
SMALLEST_FAN_OUT = LARGEST_FAN_OUT // 2
"""Assumed: half of the largest one, on average over the layers of that net."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The power of the processor of a real Speck chip on one task, in all and at rest.

    Units: ``n_spikes`` in one input of ``window_s`` seconds, read as: of all layers, per input.
    Source: Yao et al., Nature Communications 15:4464 (2024), table 1 and its note.
    """

    task: str
    network: Literal["vanilla", "dynamic"]
    total_w: float
    n_spikes: float
    rest_w: float = 0.42e-3
    window_s: float = 0.54

    @property
    def joule_per_spike(self) -> float:
        """Power above rest, over spikes per second; what moves and stores them is in it."""
        return (self.total_w - self.rest_w) * self.window_s / self.n_spikes


MEASUREMENTS = (
    Measurement("DVS-Gesture", "vanilla", 9.5e-3, 1.0e6),
    Measurement("DVS-Gesture", "dynamic", 3.8e-3, 0.4e6),
    Measurement("gait-day", "vanilla", 16.1e-3, 2.9e6),
    Measurement("gait-day", "dynamic", 7.3e-3, 1.2e6),
    Measurement("gait-night", "vanilla", 46.8e-3, 3.3e6),
    Measurement("gait-night", "dynamic", 12.3e-3, 1.5e6),
)


def _rest(name: str, mid_w: float) -> Coefficient:
    low_w, high_w = max(mid_w - OFFSET_W, 0.0), mid_w + OFFSET_W
    return Coefficient(f"rest of rail {name}", low_w, mid_w, high_w, "W", _NOTEBOOK, _NOTEBOOK_DATE)


_RAILS = (
    Rail("io", "io", _rest("io", 61.7e-6)),
    Rail("ram", "processor", _rest("ram", 51.7e-6)),
    Rail("logic", "processor", _rest("logic", 367.0e-6)),
    Rail("pixel digital", "sensor", _rest("pixel digital", 78.9e-6)),
    Rail("pixel analog", "sensor", _rest("pixel analog", 610.9e-6)),
)


def _share(rail: str) -> Share:
    source = "assumed: no per-rail figure under load is published"
    return Share(rail, Coefficient(f"share of the dynamic power on rail {rail}", 0.3, 0.5, 0.7, "1", source, "2026-02"))


def _profile(name: str, description: str, synop: Coefficient) -> PowerProfile:
    """Return a profile of one figure per synop, which has the energy of spikes and input events in it."""
    shares = _share("ram"), _share("logic")
    leak = dataclasses.replace(
        synop, name="energy of a leak update", source="assumed: a leak update costs as much as a synop"
    )
    contained = "not published separately: contained in the energy of a synop"
    return PowerProfile(
        name,
        description,
        _RAILS,
        (
            Term("synops", synop, shares),
            unknown_term("routed", "logic", source=contained, date=synop.date),
            unknown_term("input", "logic", source=contained, date=synop.date),
            Term("leak", leak, shares),
        ),
    )


_SYNOP = "energy of a synop, spikes and their routing included"
_HIGHEST_J = max(row.joule_per_spike for row in MEASUREMENTS) / SMALLEST_FAN_OUT
_HIGHEST = (
    f"high: derived from {PAPER}, {_HIGHEST_J * SMALLEST_FAN_OUT * 1e9:.1f} nJ per spike (gait-night) at an assumed "
    f"{SMALLEST_FAN_OUT} synops per spike"
)

SPECK2F = _profile(
    "speck2f",
    "From the planning value to the largest figure derived from published measurements of Speck.",
    Coefficient(
        _SYNOP,
        10e-12,
        MEASUREMENTS[0].joule_per_spike / LARGEST_FAN_OUT,
        _HIGHEST_J,
        "J",
        f"derived from {PAPER}: (9.5 - 0.42) mW x 0.54 s / 1.0e6 spikes / {LARGEST_FAN_OUT} synops per spike; "
        f"low: 10 pJ, the planning value of sinabs 0.3.0; {_HIGHEST}",
        _PAPER_DATE,
    ),
)

PLANNING = _profile(
    "planning",
    "The 10 pJ per synop that the vendor's tutorial plans with; measurements derive more.",
    Coefficient(
        _SYNOP,
        10e-12,
        10e-12,
        _HIGHEST_J,
        "J",
        f"planning value: 10 pJ per synop, text of the CNN-to-Speck tutorial and default of sinabs 0.3.0; {_HIGHEST}",
        "2019",
    ),
)


def _measured(task: str) -> PowerProfile:
    """Return the profile derived from the rows of one task: lowest and highest row, and the middle of the two."""
    rows = [row.joule_per_spike for row in MEASUREMENTS if row.task == task]
    low, high = min(rows) / LARGEST_FAN_OUT, max(rows) / SMALLEST_FAN_OUT
    source = (
        f"derived from {PAPER}, {task}: {min(rows) * 1e9:.2f} to {max(rows) * 1e9:.2f} nJ per spike above rest, in "
        f"windows of 540 ms; low: at {LARGEST_FAN_OUT} synops per spike, the most in that net; high: at an assumed "
        f"{SMALLEST_FAN_OUT}; mid: halfway"
    )
    synop = Coefficient(_SYNOP, low, (low + high) / 2, high, "J", source, _PAPER_DATE)
    return _profile(f"speck-{task.lower()}", f"Derived from what was measured on Speck for {task} alone.", synop)


PROFILES = {
    profile.name: profile
    for profile in (SPECK2F, PLANNING, *(_measured(task) for task in dict.fromkeys(row.task for row in MEASUREMENTS)))
}
"""The profiles that come with the package, by name."""

WARNING = (
    "Other platforms, for comparison only: definitions of a synaptic operation differ, and so does what is counted "
    "besides the operation itself (memory, routing, rest)."
)


@dataclasses.dataclass(frozen=True)
class Platform:
    """The published energy of one operation on another platform: a single figure, hence no band."""

    name: str
    operation: Operation
    energy: Coefficient


def _platform(name: str, operation: Operation, picojoule: float, source: str, date: str) -> Platform:
    joule = picojoule * 1e-12
    text = f"{source}; a single figure, no band is published"
    return Platform(name, operation, Coefficient(f"energy of one {operation}", joule, joule, joule, "J", text, date))


_SENECA = "Tang et al. (SENECA), Frontiers in Neuroscience 17:1187252 (2023), table 3, which names {} as its origin"
_HOROWITZ = "45 nm, arithmetic alone: Horowitz, ISSCC 2014, as tabled in PMC8934428, table 3"
_ARITHMETIC: dict[Operation, dict[str, float]] = {
    "MAC": {"float32": 4.6, "float16": 1.5, "int32": 3.2, "int8": 0.23},
    "AC": {"float32": 0.9, "float16": 0.4, "int32": 0.1, "int8": 0.03},
}

PLATFORMS = (
    *(
        _platform(name, "synop", picojoule, _SENECA.format(origin), "2023")
        for name, picojoule, origin in (
            ("Loihi", 23.6, "Davies et al. 2018"),
            ("TrueNorth", 2.5, "Akopyan et al. 2015"),
            ("SENECA", 2.8, "itself"),
            ("ODIN", 12.7, "Frenkel et al. 2018"),
            ("ReckOn", 5.3, "Frenkel and Indiveri 2022"),
            ("muBrain", 26.0, "Stuijt et al. 2021"),
            ("Tianjic", 1.54, "Deng et al. 2020"),
            ("NeuronFlow", 20.0, "Moreira et al. 2020"),
            ("SpiNNaker", 45.0, "Stromatias et al. 2013"),
            ("SpiNNaker2", 10.0, "Höppner et al. 2021"),
        )
    ),
    *(
        _platform(f"45 nm {dtype}", operation, picojoule, _HOROWITZ, "2014")
        for operation, row in _ARITHMETIC.items()
        for dtype, picojoule in row.items()
    ),
)
"""What other platforms are said to need; read with ``WARNING``."""
