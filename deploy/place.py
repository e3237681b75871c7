"""Layers to cores: a complete search for the best placement, and the reason where there is none."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, get_args

from .budget import Budget, fits
from .chips import Chip, Core
from .errors import LayerOrderError, SettingError

LayerOrder = Literal["auto"] | Sequence[int]
Objective = Literal["reproducible", "fast", "compact"]
Cost = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Layers that cannot all be placed, by position, and the only cores (ids) that any of them fits on.

    Law: one layer more than cores, and without any one of the layers the others can be placed on the cores.
    """

    layers: tuple[int, ...]
    cores: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Placement:
    """The core id of each layer in network order, or None with the conflicts that prevent one.

    ``misfits`` holds the layers (positions) that do not fit the core which a layer order gave them.
    """

    chip: str
    cores: tuple[int, ...] | None
    conflicts: tuple[Conflict, ...] = ()
    misfits: tuple[int, ...] = ()


def place(
    budgets: Sequence[Budget],
    chip: Chip,
    *,
    layer_order: LayerOrder = "auto",
    objective: Objective = "reproducible",
    loads: Sequence[int] | None = None,
) -> Placement:
    """Return the placement of the layers on distinct cores: the best one, or the one that ``layer_order`` asks for.

    Best is first, whatever the objective, the fewest layers with a bias on cores with the leak erratum, which makes
    those cores unusable for them. Then, in this order:

    - ``reproducible``: the fewest layers on cores that do not keep the order of spikes; the least memory of all cores
      in use, so that large cores stay free; the lowest core ids.
    - ``fast``: the least time for the work of all layers, ``loads`` over the throughput of the core, so that the
      busiest layers get the parallel cores; then as ``reproducible``.
    - ``compact``: the least memory of all cores in use; then as ``reproducible``. On a Speck that is the same placement
      for a net without biases, because its cores out of order are among the largest.

    ``loads`` holds the work of each layer in any unit, as ``spikeport.deploy.load`` counts it; None: all alike. More
    layers than cores have no layer order, so ``layer_order`` is not looked at then.
    Law: the search is complete: a placement is found if there is one, otherwise there are as many conflicts as layers
    have to go.
    Raises: LayerOrderError where ``layer_order`` is not one distinct core of the chip per layer; SettingError for an
    objective that is none.
    """
    if objective not in get_args(Objective):
        names = get_args(Objective)
        raise SettingError(f"objective: expected one of {', '.join(names)}, found {objective!r}. Try {names[0]!r}.")
    if isinstance(layer_order, str) and layer_order != "auto":
        raise LayerOrderError(f"layer order: expected 'auto' or a list of core ids, found {layer_order!r}. Try 'auto'.")
    if isinstance(layer_order, str) or len(budgets) > len(chip.cores):
        cores = _best(budgets, chip, objective, loads or [1] * len(budgets))
        return Placement(chip.name, cores, () if cores is not None else _conflicts(budgets, chip))
    order = check_order(layer_order, [budget.layer for budget in budgets], chip)
    misfits = (layer for layer, core in enumerate(order) if not fits(budgets[layer], chip.core(core)))
    return Placement(chip.name, order, misfits=tuple(misfits))


def check_order(layer_order: Sequence[int], layers: Sequence[str], chip: Chip) -> tuple[int, ...]:
    """Return the layer order as a tuple of core ids, one for each of ``layers``.

    Raises: LayerOrderError where it is not one distinct core of the chip per layer.
    """
    ids = [core.core for core in chip.cores]
    names = ", ".join(layers)
    expected = f"layer order: expected {len(layers)} distinct cores of {ids[0]}..{ids[-1]}, one per layer: {names}"
    try:
        given = tuple(layer_order)
        order = tuple(operator.index(core) for core in given if not isinstance(core, bool))
        is_whole = len(order) == len(given)
    except TypeError:
        order, is_whole = (), False
    if not is_whole:
        raise LayerOrderError(f"{expected}; found {layer_order!r}. Try whole numbers, or 'auto'.")
    problems = []
    if len(order) != len(layers):
        problems.append(f"{len(order)} entries")
    if foreign := sorted(set(order) - set(ids)):
        problems.append(f"no core of {chip.name}: {', '.join(map(str, foreign))}")
    if twice := sorted({core for core in order if order.count(core) > 1}):
        problems.append(f"more than once: {', '.join(map(str, twice))}")
    if problems:
        raise LayerOrderError(f"{expected}; found {list(order)} ({'; '.join(problems)}). Try 'auto'.")
    return order


def _best(budgets: Sequence[Budget], chip: Chip, objective: Objective, loads: Sequence[int]) -> tuple[int, ...] | None:
    # Dynamic programming over subsets of cores, 512 with nine cores: complete and exact, and comparing tuples of whole
    # numbers breaks ties the same way on every machine.
    unit = math.lcm(*(Fraction(core.throughput).numerator for core in chip.cores))
    best: dict[int, tuple[Cost, tuple[int, ...]]] = {0: ((0,) * 4, ())}
    for budget, load in zip(budgets, loads, strict=True):
        options = [
            (1 << bit, core.core, _cost(budget, core, objective, int(load * unit / Fraction(core.throughput))))
            for bit, core in enumerate(chip.cores)
            if fits(budget, core)
        ]
        longer: dict[int, tuple[Cost, tuple[int, ...]]] = {}
        for taken, (cost, cores) in best.items():
            for bit, core, more in options:
                if taken & bit:
                    continue
                candidate = (tuple(map(operator.add, cost, more)), (*cores, core))
                if taken | bit not in longer or candidate < longer[taken | bit]:
                    longer[taken | bit] = candidate
        best = longer
    return min(best.values())[1] if best else None


def _cost(budget: Budget, core: Core, objective: Objective, time: int) -> Cost:
    erratum, unordered = int(budget.has_bias and not core.leak_safe), int(not core.in_order)
    size = core.kernel_words + 2 * core.neuron_words  # bytes
    if objective == "fast":
        return erratum, time, unordered, size
    if objective == "compact":
        return erratum, size, unordered, 0
    return erratum, unordered, size, 0


def _conflicts(budgets: Sequence[Budget], chip: Chip) -> tuple[Conflict, ...]:
    """Return one conflict per layer that has to go, those over the fewest cores first.

    Layers cannot all be placed where more of them than a set of cores has fit on these cores only (Hall's theorem). In
    the smallest such set, any layers that are one more than its cores are a conflict that cannot be made smaller: fewer
    layers on the same cores are no longer too many, and fewer cores would have been a smaller set. One layer of each
    conflict goes, until the rest can be placed.
    """
    only = [sum(1 << bit for bit, core in enumerate(chip.cores) if fits(budget, core)) for budget in budgets]
    unions = {0}
    for mask in set(only):
        unions |= {union | mask for union in unions}
    by_size = sorted(unions, key=lambda union: (union.bit_count(), union))
    left = list(range(len(budgets)))
    found = []
    while crowd := _smallest_crowd(left, only, by_size):
        layers, union = crowd
        cores = (core.core for bit, core in enumerate(chip.cores) if union >> bit & 1)
        found.append(Conflict(tuple(layers), tuple(sorted(cores))))
        left.remove(layers[-1])
    return tuple(found)


def _smallest_crowd(left: Sequence[int], only: Sequence[int], by_size: Sequence[int]) -> tuple[list[int], int] | None:
    """Return the layers, one more than cores, of the smallest set of cores that has too many; None where none has."""
    for union in by_size:
        inside = [layer for layer in left if only[layer] | union == union]
        n_cores = union.bit_count()
        if len(inside) > n_cores:
            return inside[: n_cores + 1], union
    return None
