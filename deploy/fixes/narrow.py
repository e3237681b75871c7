"""Changes that need training: fewer features, fewer layers, a Linear layer as two.

The weights of such a net only have the right shape, so that it can be planned.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from spikeport.convert.geometry import Window
from spikeport.convert.types import INPUT, Edge
from spikeport.deploy.budget import fits
from spikeport.deploy.chips import Chip

from .draft import Draft, Values, dense, lazy, redraw
from .problems import MEMORY, Problem
from .step import Step, listed, names, trained


def fewer_features(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which the layers have as many features as a core holds, or as the rule allows."""
    for wanted in feature_choices(draft, problem):
        widths = _with_tied(draft, wanted)
        if any(_is_given(draft, index) for index in widths):
            continue
        after = redraw(draft, {index: (features, draft.layers[index].window) for index, features in widths.items()})
        if after is not None:
            what = [
                f"layer '{draft.layers[index].name}' {features} features (now {draft.layers[index].features})"
                for index, features in sorted(widths.items())
            ]
            yield trained("fewer features", f"give {listed(what)}", draft, after)


def _with_tied(draft: Draft, wanted: Mapping[int, int]) -> dict[int, int]:
    """Return the numbers with those of layers whose spikes are added to a changed layer's: as many features."""
    tied, waiting = dict(wanted), list(wanted)
    while waiting:
        index = waiting.pop()
        for edge in draft.outgoing(index):
            mates = [] if edge.target is None else draft.incoming(edge.target)
            for mate in mates:
                if mate.feature_shift == edge.feature_shift and mate.source not in tied and mate.source != INPUT:
                    tied[mate.source] = tied[index]
                    waiting.append(mate.source)
    return tied


def feature_choices(draft: Draft, problem: Problem) -> Iterator[dict[int, int]]:
    """Yield the numbers of features, by layer, with which the layers, or those that read them, keep a rule.

    The number of classes is never changed.
    """
    for wanted in _feature_choices(draft, problem):
        if not any(_is_given(draft, index) for index in wanted):
            yield wanted


def _is_given(draft: Draft, index: int) -> bool:
    """Return whether the features of a layer are those of the output, or not those of a layer of the CNN."""
    return draft.layers[index].is_rebuilt or any(edge.target is None for edge in draft.outgoing(index))


def _feature_choices(draft: Draft, problem: Problem) -> Iterator[dict[int, int]]:
    if problem.rule in ("output channels", "input channels"):
        limit = draft.chip.limits.features
        layers = problem.layers
        if problem.rule == "input channels":
            layers = tuple({e.source for i in problem.layers for e in draft.incoming(i) if e.source != INPUT})
        wanted = {index: limit for index in layers if draft.layers[index].features > limit}
        if wanted:
            yield wanted
        return
    for layers, core in itertools.product(problem.choices, _kinds(draft.chip, problem.cores)):
        wanted = {index: _largest(draft, index, core) for index in layers}
        if all(wanted.values()):
            yield wanted
    if problem.rule == MEMORY:
        mixed = {index: max(_largest(draft, index, c) for c in _kinds(draft.chip, ())) for index in problem.layers}
        if all(mixed.values()):
            yield mixed
    for layers in problem.choices:
        for share in (2, 4, 8):
            wanted = {
                edge.source: -(-draft.layers[edge.source].features // share)
                for index in layers
                for edge in draft.incoming(index)
                if edge.source != INPUT and draft.layers[edge.source].features > 1
            }
            if wanted:
                yield wanted


def _kinds(chip: Chip, taken: tuple[int, ...]) -> list[int]:
    """Return one core of each size that there is, but those taken."""
    kinds = {(core.kernel_words, core.neuron_words): core.core for core in chip.cores if core.core not in taken}
    return list(kinds.values())


def _largest(draft: Draft, index: int, core_id: int) -> int:
    """Return the largest number of features, below that of now, with which a layer fits a core; 0 for none."""
    budget = draft.layers[index].budget
    core = draft.chip.core(core_id)
    low, high = 0, min(budget.features - 1, draft.chip.limits.features)
    while low < high:  # more features never need less memory
        middle = (low + high + 1) // 2
        is_enough = fits(dataclasses.replace(budget, features=middle), core)
        low, high = (middle, high) if is_enough else (low, middle - 1)
    return low


def factorized(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which a layer that covers its input is two, with fewer features between them."""
    for layers, share in itertools.product(problem.choices, (2, 4, 8, 16)):
        after, clauses = draft, []
        for index in sorted(layers, reverse=True):
            form = dense(draft.layers[index])
            n_inputs = form.n_weights // form.features
            n_between = min(n_inputs, form.features) // share
            if (
                form.is_rebuilt
                or not form.covers_input
                or n_between < 1
                or n_between * (n_inputs + form.features) >= form.n_weights
            ):
                break
            after = two_layers(after, index, n_between)
            clauses.append(f"factorize Linear layer '{form.name}' into two by way of {n_between} features")
        else:
            yield Step("factorized Linear", listed(clauses[::-1]), after, needs_retraining=True)


def two_layers(draft: Draft, index: int, n_between: int) -> Draft:
    """Return the draft in which a layer is two: its window to ``n_between`` features, and a 1x1 kernel behind it."""
    form = dense(draft.layers[index])
    between = n_between, *form.out_shape[1:]

    def first_values() -> Values:
        given = form.values()
        weight = np.resize(given.weight, (n_between, *given.weight.shape[1:]))
        return dataclasses.replace(given, weight=weight, bias=None, v_init=None)

    def second_values() -> Values:
        given = form.values()
        return dataclasses.replace(given, weight=np.resize(given.weight, (form.features, n_between, 1, 1)))

    first = dataclasses.replace(
        form, name=draft.free_name(f"{form.name}.factor"), out_shape=between, has_bias=False, values=lazy(first_values)
    )
    second = dataclasses.replace(form, window=Window((1, 1)), in_shape=between, values=lazy(second_values))
    edges = []
    for edge in draft.edges:
        source = edge.source + 1 if edge.source >= index else edge.source
        target = edge.target + 1 if edge.target is not None and edge.target > index else edge.target
        edges.append(dataclasses.replace(edge, source=source, target=target))
    edges.append(Edge(index, index + 1))
    layers = (*draft.layers[:index], first, second, *draft.layers[index + 1 :])
    return dataclasses.replace(draft, layers=layers, edges=tuple(edges))


def fewer_layers(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts without as many layers as are too many, those first that change the other shapes least."""
    n_surplus = max(1, len(draft.layers) - len(draft.chip.cores)) if not problem.cores else 1
    found = []
    for index in range(len(draft.layers)):
        after = _left_out(draft, index)
        if after is not None:
            moved = sum(
                a.in_shape != b.in_shape for a, b in zip(draft.layers[index + 1 :], after.layers[index:], strict=True)
            )
            found.append((moved, index))
    found.sort()
    if n_surplus == 1:
        sets: list[tuple[int, ...]] = [(index,) for _, index in found[:4]]
    else:
        sets = [tuple(sorted(index for _, index in found[:n_surplus]))]
    for layers in sets:
        after_all: Draft | None = draft
        for index in reversed(layers):
            after_all = _left_out(after_all, index) if after_all is not None else None
        if len(layers) == n_surplus and after_all is not None:
            yield trained("fewer layers", f"leave out {names(draft, layers)}", draft, after_all)


def _left_out(draft: Draft, index: int) -> Draft | None:
    """Return the draft in which the readers of a layer read what it read, or in which one branch is gone."""
    incoming, outgoing = draft.incoming(index), draft.outgoing(index)
    form = draft.layers[index]
    if len(incoming) != 1 or incoming[0].source == INPUT or form.is_rebuilt:
        return None
    (before,) = incoming
    if any(edge.target is None for edge in outgoing) and not _is_spare(draft, index):
        return None
    stride = form.window.stride if form.in_shape[1:] != form.out_shape[1:] else (1, 1)
    edges = []
    for edge in draft.edges:
        if edge.target == index or (edge.source == index and edge.target is None):
            continue
        pool, start = edge.pool, edge.source
        if start == index:
            if any(mate.source != index for mate in draft.incoming(edge.target or 0)):
                return None
            start = before.source
            pool = pool[0] * before.pool[0] * stride[0], pool[1] * before.pool[1] * stride[1]
        target = edge.target if edge.target is None or edge.target < index else edge.target - 1
        edges.append(Edge(start - (start > index), target, pool, edge.feature_shift))
    left = (*draft.layers[:index], *draft.layers[index + 1 :])
    return redraw(dataclasses.replace(draft, layers=left, edges=tuple(edges)), {})


def _is_spare(draft: Draft, index: int) -> bool:
    """Return whether a layer only adds to an output that another layer has as well, and is not all that is read."""
    ends = draft.outgoing(index)
    others = {
        (edge.pool, edge.feature_shift, draft.layers[edge.source].out_shape)
        for edge in draft.edges
        if edge.target is None and edge.source not in (INPUT, index)
    }
    shape = draft.layers[index].out_shape
    is_doubled = all(edge.target is None and (edge.pool, edge.feature_shift, shape) in others for edge in ends)
    return is_doubled and all(len(draft.outgoing(edge.source)) > 1 for edge in draft.incoming(index))
