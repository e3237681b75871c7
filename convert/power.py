"""A power estimate with its band, per rail, and where each of its numbers comes from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .profiles import Coefficient, Group, Kind, PowerProfile, Term, load_profile
from .published import PLATFORMS, PROFILES, WARNING, Operation
from .synops import SynopReport

Band = tuple[float, float, float]
"""Low, middle and high value."""


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
    Law: ``low_w <= mid_w <= high_w``; ``mid_w`` is the sum of the rails. The bands of the rails together may be wider
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
class PlatformEnergy:
    """What the operations of one recording would cost by another platform's published figure, in joules.

    ``warning`` says why such a figure compares orders of magnitude at best.
    """

    platform: str
    operation: Operation
    n_operations: float
    low_j: float
    mid_j: float
    high_j: float
    source: str
    warning: str = WARNING


def find_profile(name: str | Path) -> PowerProfile:
    """Return the profile of that name, or the one in the file where the name ends in ``.json``.

    Raises: InputError for an unknown name; PowerFileError for a file that is no profile.
    """
    if str(name).endswith(".json"):
        return load_profile(name)
    if str(name) not in PROFILES:
        raise InputError(
            f"power profile '{name}': expected one of {', '.join(PROFILES)}, or a .json file. Try speck2f."
        )
    return PROFILES[str(name)]


def event_rates(report: SynopReport, *, slow_clock_hz: float = 0.0) -> dict[Kind, float | None]:
    """Return how often each kind of event happens per second; None where the report does not say.

    Units: events per second; ``slow_clock_hz`` in leak ticks per second, each updates every neuron that has a bias.
    """
    return {
        "synops": report.synops_per_s,
        "routed": report.routed_per_s,
        "input": report.input_events_per_s,
        "leak": slow_clock_hz * sum(layer.n_leaking for layer in report.layers),
    }


def estimate_power(
    report: SynopReport, profile: str | PowerProfile = "speck2f", *, slow_clock_hz: float = 0.0
) -> PowerEstimate:
    """Return the estimated power: the rest of each rail, plus the energy of each kind of event times its rate.

    ``profile`` is a profile, or the name of one that comes with the package.
    Units: ``slow_clock_hz`` in leak ticks per second.
    Raises: InputError for an unknown profile, a report over no time, or a profile that charges for a kind of event
    that the report does not count.
    """
    chip = profile if isinstance(profile, PowerProfile) else find_profile(profile)
    if not (math.isfinite(slow_clock_hz) and slow_clock_hz >= 0):
        raise InputError(f"power: expected a slow clock of 0 ticks per second or more, found {slow_clock_hz}. Try 0.")
    if report.window_s <= 0:
        raise InputError(
            "power: expected synops over a time window, found a window of 0 s. Try a recording of some length."
        )
    draws = _draws(event_rates(report, slow_clock_hz=slow_clock_hz), chip)
    dynamic = _sum(draw for _, draw in draws)
    total = _sum([*((rail.rest.low, rail.rest.mid, rail.rest.high) for rail in chip.rails), dynamic])
    return PowerEstimate(chip.name, *total, *dynamic, rails=_rails(chip, draws), coefficients=_coefficients(chip))


def rail_power(rates: Mapping[Kind, float | None], profile: PowerProfile) -> tuple[RailPower, ...]:
    """Return what each rail draws while events come at these rates, the rails of ``estimate_power``.

    Units: events per second of each kind; None, or left out: not counted.
    Raises: InputError for a profile that charges for a kind of event that is not counted.
    """
    return _rails(profile, _draws(rates, profile))


def compare_platforms(report: SynopReport) -> tuple[PlatformEnergy, ...]:
    """Return what one recording of the report would cost on other platforms, by their published figures.

    A synop is an accumulation (AC); multiply-accumulates (MAC) are those of one frame through the CNN, left out where
    the report does not know them.
    """
    n_synops = report.total / max(report.n_samples, 1)
    counts: dict[Operation, float | None] = {"synop": n_synops, "AC": n_synops, "MAC": report.n_macs}
    rows = []
    for platform in PLATFORMS:
        n, joule = counts[platform.operation], platform.energy
        if n is not None:
            band = n * joule.low, n * joule.mid, n * joule.high
            rows.append(PlatformEnergy(platform.name, platform.operation, n, *band, source=joule.source))
    return tuple(rows)


def _draws(rates: Mapping[Kind, float | None], profile: PowerProfile) -> list[tuple[Term, Band]]:
    return [(term, _draw(term, rates.get(term.kind), profile.name)) for term in profile.terms]


def _rails(profile: PowerProfile, draws: Sequence[tuple[Term, Band]]) -> tuple[RailPower, ...]:
    rails = []
    for rail in profile.rails:
        parts = (
            (low * share.share.low, mid * share.share.mid, high * share.share.high)
            for term, (low, mid, high) in draws
            for share in term.shares
            if share.rail == rail.name
        )
        rest = rail.rest.low, rail.rest.mid, rail.rest.high
        rails.append(RailPower(rail.name, rail.group, *_sum([rest, *parts])))
    return tuple(rails)


def _draw(term: Term, rate: float | None, profile: str) -> Band:
    energy = term.energy
    if rate is None:
        if energy.high > 0:
            raise InputError(
                f"power profile '{profile}': charges for '{energy.name}', which the report does not count. "
                "Try count_synops on a trace."
            )
        rate = 0.0
    return rate * energy.low, rate * energy.mid, rate * energy.high


def _sum(bands: Iterable[Band]) -> Band:
    low, mid, high = (math.fsum(column) for column in zip(*bands, strict=True))
    return low, mid, high


def _coefficients(profile: PowerProfile) -> tuple[Coefficient, ...]:
    """Return what the estimate rests on; a share that is all of one rail says nothing and is left out."""
    energies = (term.energy for term in profile.terms)
    shares = (share.share for term in profile.terms for share in term.shares if share.share.low < 1)
    return tuple(dict.fromkeys((*(rail.rest for rail in profile.rails), *energies, *shares)))
