"""Layers to cores: a complete search for the best placement, and the reason where there is none."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Literal

from .budget import Budget, fits
from .chips import Chip, Core
from .errors import LayerOrderError

LayerOrder = Literal["auto"] | Sequence[int]
Cost = tuple[int, int, int]


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


def place(budgets: Sequence[Budget], chip: Chip, *, layer_order: LayerOrder = "auto") -> Placement:
    """Return the placement of the layers on distinct cores: the best one, or the one that ``layer_order`` asks for.

    Best is, in this order: the fewest layers with a bias on cores with the leak erratum, the fewest layers on cores
    that do not keep the order of spikes, the least memory of all cores in use (so that large cores stay free), the
    lowest core ids. More layers than cores have no layer order, so ``layer_order`` is not looked at then.
    Law: the search is complete: a placement is found if there is one, otherwise there are as many conflicts as layers
    have to go.
    Raises: LayerOrderError where ``layer_order`` is not one distinct core of the chip per layer.
    """
    if isinstance(layer_order, str) and layer_order != "auto":
        raise LayerOrderError(f"layer order: expected 'auto' or a list of core ids, found {layer_order!r}. Try 'auto'.")
    if isinstance(layer_order, str) or len(budgets) > len(chip.cores):
        cores = _best(budgets, chip)
        return Placement(chip.name, cores, () if cores is not None else _conflicts(budgets, chip))
    order = check_order(layer_order, len(budgets), chip)
    misfits = (layer for layer, core in enumerate(order) if not fits(budgets[layer], chip.core(core)))
    return Placement(chip.name, order, misfits=tuple(misfits))


def check_order(layer_order: Sequence[int], n_layers: int, chip: Chip) -> tuple[int, ...]:
    """Return the layer order as a tuple of core ids.

    Raises: LayerOrderError where it is not one distinct core of the chip per layer.
    """
    ids = [core.core for core in chip.cores]
    expected = f"layer order: expected {n_layers} distinct cores of {ids[0]}..{ids[-1]}, one per layer"
    try:
        order = tuple(operator.index(core) for core in layer_order if not isinstance(core, bool))
    except TypeError:
        order = ()
    if len(order) != len(layer_order):
        raise LayerOrderError(f"{expected}, found {layer_order!r}. Try whole numbers, or 'auto'.")
    problems = []
    if len(order) != n_layers:
        problems.append(f"{len(order)} entries")
    if foreign := sorted(set(order) - set(ids)):
        problems.append(f"no core of {chip.name}: {', '.join(map(str, foreign))}")
    if twice := sorted({core for core in order if order.count(core) > 1}):
        problems.append(f"more than once: {', '.join(map(str, twice))}")
    if problems:
        raise LayerOrderError(f"{expected}, found {list(order)} ({'; '.join(problems)}). Try 'auto'.")
    return order


def _best(budgets: Sequence[Budget], chip: Chip) -> tuple[int, ...] | None:
    # Dynamic programming over subsets of cores, 512 with nine cores: complete and exact, and comparing tuples breaks
    # ties the same way on every machine.
    best: dict[int, tuple[Cost, tuple[int, ...]]] = {0: ((0, 0, 0), ())}
    for budget in budgets:
        options = [(1 << bit, core, _cost(budget, core)) for bit, core in enumerate(chip.cores) if fits(budget, core)]
        longer: dict[int, tuple[Cost, tuple[int, ...]]] = {}
        for taken, (cost, cores) in best.items():
            for bit, core, more in options:
                if taken & bit:
                    continue
                candidate = (_sum(cost, more), (*cores, core.core))
                if taken | bit not in longer or candidate < longer[taken | bit]:
                    longer[taken | bit] = candidate
        best = longer
    return min(best.values())[1] if best else None


def _cost(budget: Budget, core: Core) -> Cost:
    size = core.kernel_words + 2 * core.neuron_words  # bytes
    return int(budget.has_bias and not core.leak_safe), int(not core.in_order), size


def _sum(a: Cost, b: Cost) -> Cost:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _conflicts(budgets: Sequence[Budget], chip: Chip) -> tuple[Conflict, ...]:
    """Return one conflict per layer that a maximum matching leaves over: what alternating paths from it reach.

    Source: Hall's theorem. Every core that is reached holds a layer (else the path would place one more), so there is
    one layer more than cores; shifting layers along the path frees the one at its end, so any of them may be left out.
    """
    allowed = [[core.core for core in chip.cores if fits(budget, core)] for budget in budgets]
    holder: dict[int, int] = {}
    left_over = [layer for layer in range(len(budgets)) if not _augment(layer, allowed, holder, set())]
    return tuple(_reach(layer, allowed, holder) for layer in left_over)


def _augment(layer: int, allowed: list[list[int]], holder: dict[int, int], seen: set[int]) -> bool:
    for core in allowed[layer]:
        if core in seen:
            continue
        seen.add(core)
        if core not in holder or _augment(holder[core], allowed, holder, seen):
            holder[core] = layer
            return True
    return False


def _reach(layer: int, allowed: list[list[int]], holder: dict[int, int]) -> Conflict:
    layers, cores = [layer], set[int]()
    for reached in layers:
        for core in allowed[reached]:
            if core not in cores:
                cores.add(core)
                layers.append(holder[core])
    return Conflict(tuple(sorted(layers)), tuple(sorted(cores)))
