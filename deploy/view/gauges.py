"""What the cores of a stretch come to: the power of each rail by the power model, and sums of what a device tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from spikeport.convert.power import find_profile, rail_power
from spikeport.convert.profiles import Kind, PowerProfile
from spikeport.deploy.errors import SettingError
from spikeport.deploy.types import Program

from .types import CoreCounts


def power_of(
    cores: Mapping[int, CoreCounts],
    program: Program,
    *,
    span_us: int,
    profile: str | PowerProfile = "speck2f",
    slow_clock_hz: float | None = None,
    figure: Literal["low", "mid", "high"] = "mid",
) -> dict[str, float] | None:
    """Return what each rail draws by the power model, while a program's cores do so much in a stretch; None: not known.

    It is not known where a core does not tell what the profile charges for. A stretch of no length is one at rest.
    Units: watts; ``slow_clock_hz`` None: the program's own. ``figure`` is which end of the band, or its middle.
    Law: over a whole recording equal to ``estimate_power`` of the traffic that ``spikeport run`` counts.
    Raises: InputError for an unknown profile, SettingError for a time below 0.
    """
    if span_us < 0:
        raise SettingError(f"power: expected a stretch of 0 us or more, found {span_us}. Try stop_us - start_us.")
    model = profile if isinstance(profile, PowerProfile) else find_profile(profile)
    clock_hz = (program.slow_clock_hz or 0.0) if slow_clock_hz is None else slow_clock_hz
    rates: dict[Kind, float | None] = {
        kind: None if n is None else n / (span_us * 1e-6) if span_us else 0.0
        for kind, n in _numbers(cores, program).items()
    }
    rates["leak"] = clock_hz * _leaking(program)
    if any(rates[term.kind] is None and term.energy.high > 0 for term in model.terms):
        return None
    return {rail.name: float(getattr(rail, f"{figure}_w")) for rail in rail_power(rates, model)}


def sum_told(numbers: Iterable[int | None]) -> int | None:
    """Return the sum of what a device tells; None where it does not tell all."""
    told = list(numbers)
    known = [number for number in told if number is not None]
    return sum(known) if len(known) == len(told) else None


def _numbers(cores: Mapping[int, CoreCounts], program: Program) -> dict[Kind, int | None]:
    """Return how many events of each kind happened, apart from leak updates; as ``compare.count_traffic`` has them."""
    silent = CoreCounts(None, None, None, None)
    told = {core.core: cores.get(core.core, silent) for core in program.cores}
    sent: dict[int | None, list[int | None]] = {}
    for core in program.cores:
        for end in core.destinations:
            sent.setdefault(end.core, []).append(told[core.core].n_spikes)
    read = []
    for entry in program.entry:
        came, others = sum_told((told[entry].n_events, told[entry].n_dropped)), sum_told(sent.get(entry, ()))
        read.append(None if came is None or others is None else came - others)
    return {
        "synops": sum_told(one.synops for one in told.values()),
        "routed": sum_told(n for numbers in sent.values() for n in numbers),
        "input": max((n for n in read if n is not None), default=None),
    }


def _leaking(program: Program) -> int:
    """Return how many neurons a leak tick changes."""
    return sum(
        int(np.count_nonzero(core.bias)) * core.out_shape[1] * core.out_shape[2]
        for core in program.cores
        if core.bias is not None
    )
