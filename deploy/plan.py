"""Does a net fit a chip: everything that the chip cannot do, and what it does differently, before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from spikeport.convert.types import SpikingNet

from .advise import advise
from .budget import Budget, count_words, fits
from .chips import Chip, Core
from .chips import chip as find_chip
from .discretize import discretize
from .place import Conflict, LayerOrder, Placement, place
from .rules import check_routes, check_shape, check_thresholds, either, report
from .types import IntegerNet, Violation

_TRY = " Try "


@dataclasses.dataclass(frozen=True)
class CoreUse:
    """What a layer uses of the core it is placed on; ``core`` is None where the layers have no placement."""

    layer: str
    used: Budget
    core: Core | None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under plain names; what there is of each memory is None without a core."""
        row: dict[str, Any] = {"layer": self.layer, "core": None if self.core is None else self.core.core}
        for memory in ("kernel_words", "neuron_words", "bias_words"):
            there = None if self.core is None else getattr(self.core, memory)
            row[memory] = {"used": getattr(self.used, memory), "available": there}
        row["useful_kernel_words"] = self.used.useful_kernel_words
        row["useful_neuron_words"] = self.used.useful_neuron_words
        row["kernel_formula"], row["neuron_formula"] = self.used.kernel_formula, self.used.neuron_formula
        return row


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What became of fitting a net on a chip: ``violations`` it cannot do, ``warnings`` it does differently.

    ``cores`` has one entry per layer, in network order; ``net`` and ``placement`` are what a program is assembled from.
    """

    chip: str
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]
    cores: tuple[CoreUse, ...]
    net: IntegerNet = dataclasses.field(repr=False)
    placement: Placement = dataclasses.field(repr=False)

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
            sentences.append(f"{where}{verb} {violation.message.rpartition(_TRY)[2]}")
        return tuple(dict.fromkeys(sentences))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in plain values, for JSON."""
        return {
            "chip": self.chip,
            "fits": self.fits,
            "violations": [dataclasses.asdict(violation) for violation in self.violations],
            "warnings": [dataclasses.asdict(warning) for warning in self.warnings],
            "cores": [use.to_dict() for use in self.cores],
            "fixes": list(self.fixes),
        }

    def __str__(self) -> str:
        verdict = f"fits {self.chip}" if self.fits else f"does not fit {self.chip}: {count(self.violations, 'problem')}"
        lines = [verdict, *map(_row, self.cores), *(violation.message for violation in self.violations)]
        return "\n".join([*lines, *(f"warning: {warning.message}" for warning in self.warnings)])


def plan(net: SpikingNet, chip: str = "speck2fdevkit", *, layer_order: LayerOrder = "auto") -> Plan:
    """Return whether and how a net fits a chip, with all violations at once; a net that does not fit raises nothing.

    ``layer_order`` gives the core id of each layer in network order, or 'auto' for the best placement that there is.
    Raises: ChipNameError; LayerOrderError where the order is not one distinct core of the chip per layer.
    """
    table = find_chip(chip)
    integers = discretize(net)
    budgets = tuple(map(count_words, net.layers))
    placement = place(budgets, table, layer_order=layer_order)
    violations: list[Violation] = []
    for layer in integers.layers:
        violations += check_shape(layer, table.limits) + check_thresholds(layer, table.numbers)
    violations += check_routes(net, table.limits)
    violations += _check_placement(placement, budgets, table)
    cores = placement.cores or (None,) * len(budgets)
    uses = (
        CoreUse(budget.layer, budget, None if core is None else table.core(core))
        for budget, core in zip(budgets, cores, strict=True)
    )
    return Plan(
        chip,
        tuple(dict.fromkeys(violations)),
        advise(net, integers, placement, table),
        tuple(uses),
        integers,
        placement,
    )


def count(things: Sequence[object], noun: str) -> str:
    """Return the number of things with the noun in singular or plural: ``1 problem``, ``2 problems``."""
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def _check_placement(placement: Placement, budgets: Sequence[Budget], chip: Chip) -> list[Violation]:
    found = []
    if len(budgets) > len(chip.cores):
        found.append(_too_many(len(budgets), chip))
    conflicts, auto = placement.conflicts, placement
    if placement.misfits:
        auto = place(budgets, chip)
        conflicts = auto.conflicts
    found += [_misfit(layer, placement, auto, (budgets, chip)) for layer in placement.misfits]
    found += [_no_core(budgets[conflict.layers[0]], chip) for conflict in conflicts if not conflict.cores]
    crowded: dict[tuple[int, ...], list[Conflict]] = {}
    for conflict in conflicts:
        if 0 < len(conflict.cores) < len(chip.cores):  # one over all cores only says that there are too many layers
            crowded.setdefault(conflict.cores, []).append(conflict)
    return found + [_crowded(group, budgets, chip) for group in crowded.values()]


def _too_many(n_layers: int, chip: Chip) -> Violation:
    n_cores = len(chip.cores)
    more = n_layers - n_cores
    fix = f"leaving out or merging {more} of the layers" if more > 1 else "leaving out or merging one of the layers"
    return report(None, "layers", found=str(n_layers), limit=f"at most {n_cores}, one per core of {chip.name}", fix=fix)


def _no_core(budget: Budget, chip: Chip) -> Violation:
    """Return the violation of a layer that is too large for every core by itself."""
    memories = {
        "kernel memory": (budget.kernel_words, max(core.kernel_words for core in chip.cores), budget.kernel_formula),
        "neuron memory": (budget.neuron_words, max(core.neuron_words for core in chip.cores), budget.neuron_formula),
        "bias memory": (budget.bias_words, max(core.bias_words for core in chip.cores), f"{budget.bias_words}"),
    }
    over = {name: memory for name, memory in memories.items() if memory[0] > memory[1]}
    if over:
        found = " and ".join(f"{name} {words} words ({formula})" for name, (words, _, formula) in over.items())
        limit = " and ".join(f"largest core {most}" for _, most, _ in over.values())
    else:
        found = f"kernel memory {budget.kernel_words} words and neuron memory {budget.neuron_words} words"
        roomy = [core for core in chip.cores if core.kernel_words >= budget.kernel_words]
        most = max(core.neuron_words for core in roomy)
        limit = f"cores with that much kernel memory hold {most} neuron words"
    what = f"layer '{budget.layer}' does not fit any core of {chip.name}: {found}, {limit}."
    return Violation(budget.layer, "memory", found, limit, f"{what}{_TRY}{_smaller(budget, chip)}.")


def _crowded(group: Sequence[Conflict], budgets: Sequence[Budget], chip: Chip) -> Violation:
    """Return the violation of layers that fit one by one but need the same few cores; ``group`` shares those."""
    conflict = group[0]
    layers = [budgets[layer] for layer in conflict.layers]
    likewise = sorted({layer for other in group for layer in other.layers} - set(conflict.layers))
    needs = ", ".join(f"'{b.layer}' {b.kernel_words} kernel and {b.neuron_words} neuron words" for b in layers)
    cores = f"core{'s' if len(conflict.cores) > 1 else ''} {', '.join(map(str, conflict.cores))}"
    found, limit = f"{len(layers)} layers ({needs})", f"{cores} of {chip.name} only"
    smallest = min(layers, key=lambda budget: (budget.kernel_words + 2 * budget.neuron_words, budget.layer))
    what = (
        f"layers {', '.join(repr(b.layer) for b in layers)} do not fit together: expected one core each, found {found}"
    )
    what = f"{what} for {limit}."
    if likewise:
        what += f" {', '.join(repr(budgets[layer].layer) for layer in likewise)} fit on no other cores either."
    fix = f"a smaller '{smallest.layer}': {_smaller(smallest, chip, taken=conflict.cores)}"
    return Violation(None, "memory", found, limit, f"{what}{_TRY}{fix}.")


def _misfit(layer: int, given: Placement, auto: Placement, context: tuple[Sequence[Budget], Chip]) -> Violation:
    """Return the violation of a layer on a core, chosen by hand, that is too small for it."""
    budgets, chip = context
    budget, core = budgets[layer], chip.core((given.cores or ())[layer])
    memories = (
        ("kernel", budget.kernel_words, core.kernel_words),
        ("neuron", budget.neuron_words, core.neuron_words),
        ("bias", budget.bias_words, core.bias_words),
    )
    over = [memory for memory in memories if memory[1] > memory[2]]
    found = " and ".join(f"{name} memory {words} words" for name, words, _ in over)
    limit = " and ".join(f"{name} memory {there} words" for name, _, there in over)
    wide_enough = [other.core for other in chip.cores if fits(budget, other)]
    if auto.cores is not None:
        fix = f"the layer order {','.join(map(str, auto.cores))}, which fits, or 'auto'"
    elif wide_enough:
        fix = f"core {either(wide_enough)} for it"
    else:
        fix = _smaller(budget, chip)
    what = f"layer '{budget.layer}' does not fit core {core.core} of {chip.name}: {found}, the core has {limit}."
    return Violation(budget.layer, "layer order", found, limit, f"{what}{_TRY}{fix}.")


def _smaller(budget: Budget, chip: Chip, *, taken: Sequence[int] = ()) -> str:
    """Return what to change about a layer so that it fits a core not taken: fewer channels where that is enough."""
    cores = [core for core in chip.cores if core.core not in taken]
    groups = budget.groups
    for per_group in range(min(budget.features - 1, chip.limits.features) // groups, 0, -1):
        features = per_group * groups
        roomy = [core.core for core in cores if fits(dataclasses.replace(budget, features=features), core)]
        if roomy:
            return f"at most {features} output channels (now {budget.features}), then it fits core {either(roomy)}"
    for n in range(groups - 1, 0, -1):
        inputs, features = budget.in_features // groups * n, budget.features // groups * n
        fewer = dataclasses.replace(budget, in_features=inputs, features=features, groups=n)
        roomy = [core.core for core in cores if fits(fewer, core)]
        if roomy:
            what = f"at most {n} groups (now {groups}), with {inputs} input and {features} output channels"
            return f"{what}, then it fits core {either(roomy)}"
    if all(dataclasses.replace(budget, features=groups).kernel_words > core.kernel_words for core in cores):
        return "fewer input channels or a smaller kernel"
    return "a smaller output map, by a larger stride or pooling before it"


def _row(use: CoreUse) -> str:
    used, core = use.used, use.core
    kernel, neuron, bias = f"{used.kernel_words}", f"{used.neuron_words}", f"{used.bias_words}"
    if core is not None:
        kernel, neuron = f"{kernel} of {core.kernel_words}", f"{neuron} of {core.neuron_words}"
        bias = f"{bias} of {core.bias_words}"
    where = "no core" if core is None else f"core {core.core}"
    return (
        f"  {use.layer}: {where}; kernel {kernel} words ({used.kernel_formula}), "
        f"neuron {neuron} words ({used.neuron_formula}), bias {bias} words"
    )
