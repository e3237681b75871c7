"""The search for changes, one problem at a time, that lead to a net that fits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from .approximate import halved_recordings, leave_out_features, low_rank, pool_before_linear, tame_threshold
from .draft import Draft
from .exact import free_stride, pool_in_kernel, split, square_kernel
from .narrow import factorized, fewer_features, fewer_layers
from .problems import CROWDED, LAYERS, MEMORY, THRESHOLD, Problem, crowds, find_problems
from .retrain import (
    legal_pool,
    legal_window,
    smaller_dilation,
    smaller_input,
    smaller_kernel,
    smaller_map,
)
from .routes import merge, one_entry, relay
from .step import Step

Move = Callable[[Draft, Problem], Iterator[Step]]

_SMALLER: tuple[Move, ...] = (
    split,
    pool_before_linear,
    low_rank,
    leave_out_features,
    smaller_map,
    fewer_features,
    smaller_kernel,
    factorized,
)

MOVES: dict[str, tuple[Move, ...]] = {
    "kernel": (square_kernel, smaller_kernel, smaller_map),
    "kernel size": (pool_before_linear, smaller_map, smaller_dilation, smaller_kernel),
    "stride": (free_stride, legal_window),
    "padding": (legal_window,),
    "upsample": (legal_window, fewer_layers),
    "output map": (smaller_map,),
    "input map": (halved_recordings, smaller_input, smaller_map),
    "output channels": (split, leave_out_features, fewer_features),
    "input channels": (leave_out_features, fewer_features, smaller_input),
    "pool": (pool_in_kernel, relay, legal_pool),
    "input pool": (pool_in_kernel, halved_recordings, legal_pool),
    "input pools": (pool_in_kernel, legal_pool),
    "feature shift": (one_entry,),
    "entry": (one_entry, merge, relay),
    "output": (relay,),
    "destinations": (relay, merge),
    THRESHOLD: (tame_threshold,),
    LAYERS: (merge, fewer_layers),
    MEMORY: _SMALLER,
    CROWDED: (*_SMALLER, merge, fewer_layers),
}
"""What is tried for each rule."""

DEPTH = 3
"""Changes that are combined, where fewer do not help; more only where these do not either."""

_MAX_DEPTH = 12

MAX_ERROR = 0.5
"""Share of the weights' norm: what moves them further is no version of the net that was given."""

_ENOUGH = 3
"""Kinds of ways among which to choose."""

_WIDTH = 12
"""Drafts of each kind that are followed from one depth to the next."""


@dataclasses.dataclass(frozen=True, eq=False)
class Way:
    """Steps from the net to a draft, and the problems that are left there."""

    draft: Draft
    steps: tuple[Step, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its steps."""
        return frozenset(step.kind for step in self.steps)

    @property
    def sort(self) -> Sort:
        """Whether it changes the function, and whether it needs training: the less the better."""
        return not all(step.is_exact for step in self.steps), any(step.needs_retraining for step in self.steps)


Sort = tuple[bool, bool]
_WORST: Sort = (True, True)


def find_ways(draft: Draft, *, deadline: float) -> list[Way]:
    """Return the ways of at most ``DEPTH`` steps to a draft that fits; of more steps only where there is none.

    Each step deals with the first problem that is left, so no way holds a step that its other steps make idle. Where a
    way was found, longer ones are looked for only among those that change less, exact ones or those without training,
    or as long as there is little choice.
    """
    start = Way(draft, problems=find_problems(draft))
    frontier = [start] if start.problems else []
    seen: set[object] = {(draft.key, start.sort)}
    found: list[Way] = []
    for n_steps in range(_MAX_DEPTH):
        if n_steps >= DEPTH and found:
            break
        following: list[Way] = []
        for way in frontier:
            for child in _children(way):
                if (child.draft.key, child.sort) in seen:
                    continue
                seen.add((child.draft.key, child.sort))
                if not child.problems:
                    found.append(child)
                elif _n_broken(child) <= _n_broken(way) + 1:
                    following.append(child)
                if time.perf_counter() > deadline:
                    return found
        best = min((way.sort for way in found), default=_WORST)
        has_choice = len({way.kinds for way in found}) >= _ENOUGH
        frontier = _best([way for way in following if way.sort < best or (way.sort == best and not has_choice)])
    return found


def _children(way: Way) -> Iterator[Way]:
    """Yield the way with one more step, each that helps against its first problem.

    Training and weights that are nearly right do not go together: what is trained anyway needs no such weights.
    """
    first = way.problems[0]
    if first.rule == CROWDED:
        first = crowds(way.draft)[0]
    for move in MOVES.get(first.rule, ()):
        for step in move(way.draft, first):
            steps = (*way.steps, step)
            is_trained = any(step.needs_retraining for step in steps)
            if is_trained and any(step.error is not None for step in steps):
                continue
            if step.error is not None and step.error() > MAX_ERROR:
                continue
            yield Way(step.draft, steps, find_problems(step.draft))


def _n_broken(way: Way) -> int:
    return sum(problem.n_broken for problem in way.problems)


def _best(ways: list[Way]) -> list[Way]:
    """Return the ways to follow, the best first: of each sort those with the fewest problems left, then the largest."""
    kept: list[Way] = []
    for sort in sorted({way.sort for way in ways}):
        same = [way for way in ways if way.sort == sort]
        kept += sorted(same, key=lambda way: (_n_broken(way), -_size(way)))[:_WIDTH]
    return kept


def _size(way: Way) -> int:
    return sum(form.n_weights + form.n_neurons for form in way.draft.layers)
