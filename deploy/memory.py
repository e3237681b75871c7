"""Why layers do not fit the cores: the violations of memory, of the number of cores, and of a layer order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .budget import MEMORIES, Budget, available, fits, too_small
from .chips import Chip
from .place import Conflict, Placement, place
from .rules import either, report
from .types import Violation

TRY = " Try "


def check_placement(placement: Placement, budgets: Sequence[Budget], chip: Chip) -> list[Violation]:
    """Return why the layers have no placement: too many, too large one by one, too large together, or put elsewhere."""
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
    most = {memory: max(available(core, memory) for core in chip.cores) for memory in MEMORIES}
    over = [memory for memory in MEMORIES if budget.words(memory).occupied > most[memory]]
    if over:
        needs = ((name, budget.words(name)) for name in over)
        found = " and ".join(f"{name} memory {use.occupied} words ({use.formula})" for name, use in needs)
        limit = " and ".join(f"largest core {most[name]}" for name in over)
    else:
        found = f"kernel memory {budget.kernel_words} words and neuron memory {budget.neuron_words} words"
        roomy = [core for core in chip.cores if core.kernel_words >= budget.kernel_words]
        neurons = max(core.neuron_words for core in roomy)
        limit = f"cores with that much kernel memory hold {neurons} neuron words"
    what = f"layer '{budget.layer}' does not fit any core of {chip.name}: {found}, {limit}."
    if not over or "kernel" in over:
        what += _zeros(budget)
    return Violation(budget.layer, "memory", found, limit, f"{what}{TRY}{_smaller(budget, chip)}.")


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
        verb = "fit" if len(likewise) > 1 else "fits"
        what += f" {', '.join(repr(budgets[layer].layer) for layer in likewise)} {verb} on no other cores either."
    fix = f"a smaller '{smallest.layer}': {_smaller(smallest, chip, taken=conflict.cores)}"
    return Violation(None, "memory", found, limit, f"{what}{TRY}{fix}.")


def _misfit(layer: int, given: Placement, auto: Placement, context: tuple[Sequence[Budget], Chip]) -> Violation:
    """Return the violation of a layer on a core, chosen by hand, that is too small for it."""
    budgets, chip = context
    budget, core = budgets[layer], chip.core((given.cores or ())[layer])
    over = too_small(budget, core)
    found = " and ".join(f"{name} memory {budget.words(name).occupied} words" for name in over)
    limit = " and ".join(f"{name} memory {available(core, name)} words" for name in over)
    wide_enough = [other.core for other in chip.cores if fits(budget, other)]
    if auto.cores is not None:
        fix = f"the layer order {','.join(map(str, auto.cores))}, which fits, or 'auto'"
    elif wide_enough:
        fix = f"core {either(wide_enough)} for it"
    else:
        fix = _smaller(budget, chip)
    what = f"layer '{budget.layer}' does not fit core {core.core} of {chip.name}: {found}, the core has {limit}."
    return Violation(budget.layer, "layer order", found, limit, f"{what}{TRY}{fix}.")


def _zeros(budget: Budget) -> str:
    """Return why a kernel is larger in memory than it looks, as a sentence; nothing where it is not."""
    why = ["groups"] if budget.groups > 1 else []
    why += ["dilation"] if budget.dilation != (1, 1) else []
    if not why:
        return ""
    share = f"{budget.useful_kernel_words} of {budget.dense_kernel_words}"
    return f" The chip has no {' and no '.join(why)}: the kernel is stored with zeros, {share} weights are useful."


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
