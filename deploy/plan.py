"""Does a net fit a chip: everything that the chip cannot do, and what it does differently, before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from spikeport.convert.types import SpikingNet

from .advise import advise
from .budget import MEMORIES, Budget, Memory, available, count_words, too_small
from .chips import Core
from .chips import chip as find_chip
from .discretize import discretize, fitted_like
from .load import Traffic, count_loads
from .losses import DiscretizationReport, report_losses
from .memory import TRY, check_placement
from .place import LayerOrder, Objective, Placement, place
from .readout import check_readout, with_readout
from .relay import with_relays
from .rules import check_routes, check_shape, check_thresholds
from .types import IntegerNet, Violation


@dataclasses.dataclass(frozen=True)
class CoreUse:
    """What a layer uses of the core it is placed on; ``core`` is None where the layers have no placement.

    ``too_small`` has, for each core of the chip, the memories that are too small for the layer: none where it fits.
    """

    layer: str
    used: Budget
    core: Core | None
    too_small: Mapping[int, tuple[Memory, ...]] = dataclasses.field(hash=False, default_factory=dict)

    @property
    def candidates(self) -> tuple[int, ...]:
        """Ids of the cores that are large enough for the layer."""
        return tuple(core for core, memories in self.too_small.items() if not memories)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under plain names; what there is of each memory is None without a core."""
        row: dict[str, Any] = {"layer": self.layer, "core": None if self.core is None else self.core.core}
        for memory in MEMORIES:
            there = None if self.core is None else available(self.core, memory)
            use = self.used.words(memory)
            row[f"{memory}_words"] = {"used": use.occupied, "available": there}
            row[f"useful_{memory}_words"], row[f"{memory}_formula"] = use.useful, use.formula
        row["candidates"] = list(self.candidates)
        row["too_small"] = {str(core): list(memories) for core, memories in self.too_small.items() if memories}
        return row


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What became of fitting a net on a chip: ``violations`` it cannot do, ``warnings`` it does differently.

    ``cores`` has one entry per layer, in network order; ``net`` and ``placement`` are what a program is assembled from.
    ``objective`` is what the placement is the best for; ``losses`` says what rounding to integers lost.
    """

    chip: str
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]
    cores: tuple[CoreUse, ...]
    net: IntegerNet = dataclasses.field(repr=False)
    placement: Placement = dataclasses.field(repr=False)
    objective: Objective = "reproducible"
    losses: DiscretizationReport = dataclasses.field(default_factory=lambda: DiscretizationReport(()))

    @property
    def fits(self) -> bool:
        """Whether the chip can do all that the net needs."""
        return not self.violations

    @property
    def fixes(self) -> tuple[str, ...]:
        """One thing to try per violation, as a sentence; it removes that violation, not always the others."""
        sentences = []
        for violation in self.violations:
            where = "" if violation.layer is None else f"Layer '{violation.layer}': "
            verb = "Try" if violation.layer is None else "try"
            sentences.append(f"{where}{verb} {violation.message.rpartition(TRY)[2]}")
        return tuple(dict.fromkeys(sentences))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in plain values, for JSON."""
        return {
            "chip": self.chip,
            "fits": self.fits,
            "violations": [dataclasses.asdict(violation) for violation in self.violations],
            "warnings": [dataclasses.asdict(warning) for warning in self.warnings],
            "objective": self.objective,
            "cores": [use.to_dict() for use in self.cores],
            "conflicts": [
                {"layers": [self.net.layers[index].name for index in conflict.layers], "cores": list(conflict.cores)}
                for conflict in self.placement.conflicts
            ],
            "discretization": self.losses.to_dict(),
            "fixes": list(self.fixes),
        }

    def __str__(self) -> str:
        verdict = f"fits {self.chip}" if self.fits else f"does not fit {self.chip}: {count(self.violations, 'problem')}"
        lines = [verdict, *map(_row, self.cores), *(violation.message for violation in self.violations)]
        return "\n".join([*lines, *(f"warning: {warning.message}" for warning in self.warnings)])


def plan(
    net: SpikingNet,
    chip: str = "speck2fdevkit",
    *,
    layer_order: LayerOrder = "auto",
    objective: Objective = "reproducible",
    traffic: Traffic = None,
    readout: bool = False,
) -> Plan:
    """Return whether and how a net fits a chip, with all violations at once; a net that does not fit raises nothing.

    Where a layer feeds more others than a core has destinations, relays are put in (``with_relays``), and for
    ``readout`` the output layers are widened for the readout block (``with_readout``); a warning says so for each.
    ``layer_order`` gives the core id of each layer in network order, or 'auto' for the best placement that there is:
    'reproducible' avoids cores that do not keep the order of spikes, 'fast' gives those to the busiest layers,
    'compact' keeps large cores free, see ``place``. ``traffic`` says how busy the layers are (a report of
    ``count_synops``, or synops by layer name) where ``count_loads`` should not estimate it.
    Raises: ChipNameError; LayerOrderError where the order is not one distinct core of the chip per layer; SettingError
    for an objective that is none, and traffic that lacks a layer.
    """
    table, given = find_chip(chip), net
    violations = check_readout(net, table.limits) if readout else []
    net, widened = with_readout(net, table.limits) if readout else (net, ())
    net, relays = with_relays(net, table.limits)
    net = fitted_like(net, given)
    integers = discretize(net)
    budgets = tuple(map(count_words, net.layers))
    loads = count_loads(net, traffic, relays=[note.layer or "" for note in relays])
    placement = place(budgets, table, layer_order=layer_order, objective=objective, loads=loads)
    for layer in integers.layers:
        violations += check_shape(layer, table.limits) + check_thresholds(layer, table.numbers)
    violations += check_routes(net, table.limits)
    violations += check_placement(placement, budgets, table)
    cores = placement.cores or (None,) * len(budgets)
    uses = (
        CoreUse(
            budget.layer,
            budget,
            None if core is None else table.core(core),
            MappingProxyType({each.core: too_small(budget, each) for each in table.cores}),
        )
        for budget, core in zip(budgets, cores, strict=True)
    )
    return Plan(
        chip,
        tuple(dict.fromkeys(violations)),
        (*widened, *relays, *advise(net, integers, placement, table)),
        tuple(uses),
        integers,
        placement,
        objective,
        report_losses(net, integers),
    )


def count(things: Sequence[object], noun: str) -> str:
    """Return the number of things with the noun in singular or plural: ``1 problem``, ``2 problems``."""
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def _row(use: CoreUse) -> str:
    where = "no core" if use.core is None else f"core {use.core.core}"
    memories = []
    for memory in MEMORIES:
        words = use.used.words(memory)
        there = "" if use.core is None else f" of {available(use.core, memory)}"
        memories.append(f"{memory} {words.occupied}{there} words ({words.formula}; {words.useful} useful)")
    return f"  {use.layer}: {where}; {', '.join(memories)}"
