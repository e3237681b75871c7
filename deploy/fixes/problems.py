"""What stands between a draft and the chip: the same rules as ``plan``, without the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

from spikeport.convert.types import SpikingNet
from spikeport.deploy.place import place
from spikeport.deploy.rules import check_routes

from .draft import Draft

MEMORY = "memory"
CROWDED = "crowded"
LAYERS = "layers"
THRESHOLD = "threshold"

_FIRST = ("entry", "feature shift", "input pools", "output", "pool", "input pool", "destinations", "upsample", "stride")
"""Rules whose fixes change the shapes that the other rules look at."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One rule that is broken, and the layers (positions) that break it.

    ``layers`` is empty where the whole net, or its input, breaks the rule. Layers that fit one by one but not together
    are a crowd: ``cores`` are those they need, and any one of the layers may give way; ``n_surplus`` layers are too
    many.
    """

    rule: str
    layers: tuple[int, ...]
    cores: tuple[int, ...] = ()
    n_surplus: int = 0

    @property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """The sets of layers to change at once: any one of a crowd; otherwise all that break the rule, or the first."""
        if self.cores:
            return tuple((index,) for index in self.layers)
        return (self.layers,) if len(self.layers) <= 1 else (self.layers, self.layers[:1])

    @property
    def n_broken(self) -> int:
        """Number of layers that have to change."""
        return self.n_surplus or max(1, len(self.layers))


def find_problems(draft: Draft) -> tuple[Problem, ...]:
    """Return every rule that the draft breaks, in the order in which they are best dealt with.

    Law: none where ``plan`` of the net finds no violation, and the other way round.
    """
    broken: dict[str, list[int]] = {}
    positions = {form.name: index for index, form in enumerate(draft.layers)}
    for index, form in enumerate(draft.layers):
        for rule in form.broken_rules:
            broken.setdefault(rule, []).append(index)
        if not form.is_rounded_well:
            broken.setdefault(THRESHOLD, []).append(index)
    # The rules of routes read names, shapes and edges only, and a draft has those of a net.
    for violation in check_routes(cast("SpikingNet", draft), draft.chip.limits):
        places = broken.setdefault(violation.rule, [])
        if violation.layer is not None:
            places.append(positions[violation.layer])
    found = [Problem(rule, tuple(dict.fromkeys(layers))) for rule, layers in broken.items()]
    found.sort(key=lambda problem: _FIRST.index(problem.rule) if problem.rule in _FIRST else len(_FIRST))
    return (*found, *_memory(draft))


def _memory(draft: Draft) -> list[Problem]:
    forms = draft.layers
    found = []
    if len(forms) > len(draft.chip.cores):
        surplus = len(forms) - len(draft.chip.cores)
        found.append(Problem(LAYERS, tuple(range(len(forms))), n_surplus=surplus))
    alone = tuple(index for index, form in enumerate(forms) if not form.cores)
    if alone:
        found.append(Problem(MEMORY, alone))
    if not found:
        n_surplus = _count_surplus([form.cores for form in forms])
        found += [Problem(CROWDED, (), n_surplus=n_surplus)] if n_surplus else []
    return found


def crowds(draft: Draft) -> tuple[Problem, ...]:
    """Return the smallest sets of layers that fit one by one but not together."""
    conflicts = place([form.budget for form in draft.layers], draft.chip).conflicts
    return tuple(Problem(CROWDED, conflict.layers, conflict.cores, 1) for conflict in conflicts)


def _count_surplus(allowed: Sequence[Sequence[int]]) -> int:
    """Return how many layers are left over where as many as possible have a core each, of those allowed."""
    holder: dict[int, int] = {}

    def augment(layer: int, seen: set[int]) -> bool:
        for core in allowed[layer]:
            if core not in seen:
                seen.add(core)
                if core not in holder or augment(holder[core], seen):
                    holder[core] = layer
                    return True
        return False

    return sum(not augment(layer, set()) for layer in range(len(allowed)))
