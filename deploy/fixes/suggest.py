"""suggest(): the changes with which a net fits, ranked, each planned before it is returned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from spikeport.convert.geometry import pooled
from spikeport.convert.types import SpikingNet
from spikeport.deploy import chips
from spikeport.deploy.budget import Budget, count_words
from spikeport.deploy.chips import Chip
from spikeport.deploy.discretize import fitted_like
from spikeport.deploy.load import count_loads
from spikeport.deploy.place import LayerOrder, Objective
from spikeport.deploy.plan import Plan, plan
from spikeport.deploy.relay import with_relays

from .draft import draft_of
from .problems import THRESHOLD
from .search import Way, find_ways
from .step import size
from .types import Cost, Fix

Planner = Callable[[SpikingNet, str], Plan]

N_FIXES = 8
TIME_LIMIT_S = 2.0

_STEP = 0.25
"""What one more change counts in the ranking, as a share of the weights, neurons or pixels. Assumed."""


def suggest(
    net: SpikingNet,
    chip: str = "speck2fdevkit",
    *,
    layer_order: LayerOrder = "auto",
    objective: Objective = "reproducible",
    readout: bool = False,
    given: Plan | None = None,
) -> tuple[Fix, ...]:
    """Return changes with which ``net`` fits, the best first; none where it fits as it is, or where none was found.

    Exact changes come first, then those that need no training, then the smallest change. A change that needs training
    comes with weights of the right shapes only. ``layer_order``, ``objective`` and ``readout`` are those of ``plan``,
    and ``given`` is what it returned, where it was called already. The search ends after ``TIME_LIMIT_S``, the planning
    of what was found later. A fitted net is planned as one; the nets of the fixes are to be fitted again.
    Law: the net of each fix, planned anew for its chip with the layer order 'auto', fits, and has as many classes.
    Raises: ChipNameError, LayerOrderError, SettingError, as ``plan``.
    """
    if given is None:
        given = plan(net, chip, layer_order=layer_order, objective=objective, readout=readout)
    if given.fits:
        return ()
    table = chips.chip(chip)
    relayed, notes = with_relays(net, table.limits)  # what ``plan`` places
    before = measure(relayed)

    def wanted(changed: SpikingNet, chip: str) -> Plan:
        return plan(fitted_like(changed, net), chip, objective=objective, readout=readout)

    fixes = _with_auto(relayed, chip, before, wanted) if layer_order != "auto" else []
    fixes += _on_other_chips(relayed, table, before, wanted) if not fixes else []
    misrounded = [violation.layer for violation in given.violations if violation.rule == THRESHOLD]
    draft = draft_of(
        relayed,
        table,
        badly_rounded=misrounded,
        relays=[note.layer for note in notes],
        spacing=table.limits.readout_step if readout else 1,
    )
    ways = find_ways(draft, deadline=time.perf_counter() + TIME_LIMIT_S)
    offered: list[Way] = []
    for way in sorted(ways, key=lambda way: _order(way, relayed)):
        if len(fixes) >= N_FIXES:
            break
        if any(_is_idle(way, other, relayed) for other in offered):
            continue
        fix = _tried(way, relayed, chip, wanted)
        if fix is not None:
            offered.append(way)
            fixes.append(fix)
    return tuple(fixes)


def measure(net: SpikingNet) -> Cost:
    """Return what a net occupies, whether it fits or not."""
    budgets: list[Budget] = [count_words(layer) for layer in net.layers]
    return Cost(
        n_cores=len(net.layers),
        kernel_words=sum(budget.kernel_words for budget in budgets),
        neuron_words=sum(budget.neuron_words for budget in budgets),
        bias_words=sum(budget.bias_words for budget in budgets),
        n_synops=sum(count_loads(net)),
    )


def _with_auto(net: SpikingNet, chip: str, before: Cost, wanted: Planner) -> list[Fix]:
    """Return the layer order with which the net fits as it is, where there is one."""
    auto = wanted(net, chip)
    title = f"Use the layer order {','.join(map(str, auto.placement.cores or ()))}, or 'auto'."
    return [Fix(title, ("layer order",), True, False, net, auto, before, before)] if auto.fits else []


def _on_other_chips(net: SpikingNet, chip: Chip, before: Cost, wanted: Planner) -> Iterator[Fix]:
    """Yield the chips, of another kind, that the net fits as it is."""
    for other in chips.CHIPS:
        planned = wanted(net, other.name) if _differs(other, chip) else None
        if planned is not None and planned.fits:
            title = f"Use {other.name}, which holds the net as it is."
            yield Fix(title, ("another chip",), True, False, net, planned, before, before)


def _differs(one: Chip, other: Chip) -> bool:
    return (one.cores, one.limits, one.numbers) != (other.cores, other.limits, other.numbers)


def _tried(way: Way, given: SpikingNet, chip: str, wanted: Planner) -> Fix | None:
    """Return the fix at the end of a way, with its weights and its plan.

    None where that does not fit after all, or where the output would have other classes.
    """
    is_changed, needs_retraining = way.sort
    errors = [step.error() for step in way.steps if step.error is not None]
    net = way.draft.net()
    (n_classes, maps), (n_given, maps_given) = _output(net), _output(given)
    if n_classes != n_given:
        return None
    planned = wanted(net, chip)
    if not planned.fits:
        return None
    resized = "" if maps == maps_given else f" (the output is then {maps}, now {maps_given})"
    said = _joined([step.clause for step in way.steps]) + resized
    cautions = list(dict.fromkeys(step.caution for step in way.steps if step.caution is not None))
    return Fix(
        title=f"{said[0].upper()}{said[1:]}.",
        kinds=tuple(dict.fromkeys(step.kind for step in way.steps)),
        is_exact=not is_changed,
        needs_retraining=needs_retraining,
        net=net,
        plan=planned,
        cost=measure(net),
        before=measure(given),
        training=_training(way) if needs_retraining else None,
        caution=f"{'; '.join(cautions)}: test the accuracy" if cautions and not needs_retraining else None,
        error=max(errors) if errors else None,
    )


def _output(net: SpikingNet) -> tuple[int, str]:
    """Return the number of features of the output, and the sizes of its maps as text."""
    ends = [(edge, pooled(net.source_shape(edge), edge.pool)) for edge in net.edges if edge.target is None]
    sizes = dict.fromkeys(size(shape[1:]) for _, shape in ends)
    return max((edge.feature_shift + shape[0] for edge, shape in ends), default=0), ", ".join(sizes)


def _joined(clauses: Sequence[str]) -> str:
    *first, last = clauses
    return f"{'; '.join(first)}; and {last}" if first else last


def _training(way: Way) -> str:
    changes = _joined([step.clause for step in way.steps if step.needs_retraining])
    is_all = all(step.needs_retraining for step in way.steps)
    return f"In the CNN, {changes}; train it and convert it again{'' if is_all else ', then plan it for the rest'}."


def _is_idle(way: Way, other: Way, net: SpikingNet) -> bool:
    """Return whether a way that ranks higher makes this one needless.

    It does where this one takes the same kinds of change, or more and the net does not stay larger by it; and where
    both share a step, after which the other does less to the function.
    """
    if way.kinds >= other.kinds and way.sort >= other.sort:
        return way.kinds == other.kinds or _change(way, net) >= _change(other, net)
    is_shared = bool({step.clause for step in way.steps} & {step.clause for step in other.steps})
    return is_shared and way.sort > other.sort and len(way.steps) >= len(other.steps)


def _order(way: Way, net: SpikingNet) -> tuple[object, ...]:
    """Return what ways are sorted by: exact, then untrained, then those of few and small changes."""
    return way.sort, _change(way, net) + _STEP * len(way.steps), len(way.draft.layers)


def _change(way: Way, net: SpikingNet) -> float:
    """Return the shares of weights, neurons and pixels that are gone or new, added up."""
    forms, (_, height, width) = way.draft.layers, way.draft.input_shape
    now = sum(form.n_weights for form in forms), sum(form.n_neurons for form in forms), height * width
    before = (
        sum(layer.weight.size for layer in net.layers),
        sum(math.prod(layer.out_shape) for layer in net.layers),
        net.input_shape[1] * net.input_shape[2],
    )
    return round(sum(abs(a - b) / max(a, b) for a, b in zip(now, before, strict=True)), 6)
