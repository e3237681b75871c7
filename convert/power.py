"""A power estimate with its band, per rail, and where each of its numbers comes from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from .errors import InputError
from .synops import SynopReport

Group = Literal["processor", "sensor", "io"]

_NOTEBOOK = (
    "idle reading of one speck2fdevkit, sinabs power monitoring notebook; "
    "band: offset error of up to 50 uW per rail, Speck dev kit datasheet v1.0"
)
_PAPER = "Yao et al., Nature Communications 15:4464 (2024), table 1"
_OFFSET_W = 50e-6

# Source: _PAPER. DVS Gesture, vanilla SNN: 9.5 mW in all, 0.42 mW of it at rest, 1.0e6 spikes in a window of 540 ms;
# the gait rows reach 7.6 nJ per spike by the same arithmetic. A spike of that net reaches at most 32 features x 3 x 3.
_GESTURE_J_PER_SPIKE = (9.5e-3 - 0.42e-3) * 0.54 / 1.0e6
_LARGEST_J_PER_SPIKE = 7.6e-9
_NOMINAL_FAN_OUT = 32 * 3 * 3


@dataclasses.dataclass(frozen=True)
class Coefficient:
    """A number of the energy model with its band and its source."""

    name: str
    low: float
    mid: float
    high: float
    unit: str
    source: str


@dataclasses.dataclass(frozen=True)
class RailPower:
    """Estimated power of one supply rail, in watts."""

    name: str
    group: Group
    low_w: float
    mid_w: float
    high_w: float


@dataclasses.dataclass(frozen=True)
class PowerEstimate:
    """Estimated power while recordings like those of the report stream through the chip, in watts.

    An estimate, never a measurement: three figures, the coefficients they rest on, and where those come from.
    Law: ``low_w <= mid_w <= high_w``; ``mid_w`` is the sum of the rails. The bands of the rails together are wider
    than the band of the total, because the same dynamic energy may lie on either of two rails.
    """

    profile: str
    low_w: float
    mid_w: float
    high_w: float
    dynamic_low_w: float
    dynamic_mid_w: float
    dynamic_high_w: float
    rails: tuple[RailPower, ...]
    coefficients: tuple[Coefficient, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain numbers, ready for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class PowerProfile:
    """The coefficients of one chip."""

    name: str
    rest: tuple[tuple[str, Group, Coefficient], ...]
    synop_j: Coefficient
    ram_share: Coefficient


def _rest(name: str, mid_w: float) -> Coefficient:
    return Coefficient(f"rest of rail {name}", max(mid_w - _OFFSET_W, 0.0), mid_w, mid_w + _OFFSET_W, "W", _NOTEBOOK)


SPECK2F = PowerProfile(
    name="speck2f",
    rest=(
        ("io", "io", _rest("io", 61.7e-6)),
        ("ram", "processor", _rest("ram", 51.7e-6)),
        ("logic", "processor", _rest("logic", 367.0e-6)),
        ("pixel digital", "sensor", _rest("pixel digital", 78.9e-6)),
        ("pixel analog", "sensor", _rest("pixel analog", 610.9e-6)),
    ),
    synop_j=Coefficient(
        "energy of a synop, spikes and their routing included",
        10e-12,
        _GESTURE_J_PER_SPIKE / _NOMINAL_FAN_OUT,
        _LARGEST_J_PER_SPIKE / (_NOMINAL_FAN_OUT / 2),
        "J",
        f"derived from {_PAPER}: (9.5 - 0.42) mW x 0.54 s / 1.0e6 spikes / 288 synops per spike; "
        "low: 10 pJ, the planning value of sinabs 0.3.0; "
        "high: derived, 7.6 nJ per spike (gait, same table) at an assumed half of 288 synops per spike",
    ),
    ram_share=Coefficient(
        "share of the dynamic power on rail ram, the rest on logic",
        0.3,
        0.5,
        0.7,
        "1",
        "assumed: no per-rail figure under load is published",
    ),
)

PROFILES = {profile.name: profile for profile in (SPECK2F,)}


def estimate_power(report: SynopReport, profile: str = "speck2f", *, slow_clock_hz: float = 0.0) -> PowerEstimate:
    """Return the estimated power: the rest of each rail, plus energy per synop times synops per second.

    A leak tick counts as one synop for every neuron that has a bias.
    Units: ``slow_clock_hz`` in leak ticks per second.
    Raises: InputError for an unknown profile or a report over no time.
    """
    if profile not in PROFILES:
        raise InputError(f"power profile '{profile}': expected one of {', '.join(PROFILES)}. Try speck2f.")
    if not (math.isfinite(slow_clock_hz) and slow_clock_hz >= 0):
        raise InputError(f"power: expected a slow clock of 0 ticks per second or more, found {slow_clock_hz}. Try 0.")
    if report.window_s <= 0:
        raise InputError(
            "power: expected synops over a time window, found a window of 0 s. Try a recording of some length."
        )
    chip = PROFILES[profile]
    updates_per_s = report.synops_per_s + slow_clock_hz * sum(layer.n_leaking for layer in report.layers)
    low, mid, high = (updates_per_s * joule for joule in (chip.synop_j.low, chip.synop_j.mid, chip.synop_j.high))
    rails = []
    for name, group, rest in chip.rest:
        share = _dynamic_share(name, chip.ram_share)
        bands = (rest.low + share[0] * low, rest.mid + share[1] * mid, rest.high + share[2] * high)
        rails.append(RailPower(name, group, *bands))
    return PowerEstimate(
        profile=profile,
        low_w=sum(rest.low for _, _, rest in chip.rest) + low,
        mid_w=sum(rest.mid for _, _, rest in chip.rest) + mid,
        high_w=sum(rest.high for _, _, rest in chip.rest) + high,
        dynamic_low_w=low,
        dynamic_mid_w=mid,
        dynamic_high_w=high,
        rails=tuple(rails),
        coefficients=(*(rest for _, _, rest in chip.rest), chip.synop_j, chip.ram_share),
    )


def _dynamic_share(rail: str, ram: Coefficient) -> tuple[float, float, float]:
    if rail == "ram":
        return ram.low, ram.mid, ram.high
    if rail == "logic":
        return 1 - ram.high, 1 - ram.mid, 1 - ram.low
    return 0.0, 0.0, 0.0
