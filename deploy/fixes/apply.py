"""Suggestions for people: a numbered table, and the net of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikeport.deploy.errors import SettingError

from .types import Cost, Fix


def fix_tables(fixes: Sequence[Fix]) -> list[object]:
    """Return the suggestions for a terminal: a row each, then what those that move the function mean."""
    from spikeport.models.console import table

    if not fixes:
        return ["No change was found with which the net fits. Try the one named with each problem."]
    columns = ("What makes it fit", "Function", "Cores", "Words", "Synops")
    rows = [(f"{number}. {fix.title}", _function(fix), *_costs(fix)) for number, fix in enumerate(fixes, 1)]
    cautions = (f"{number}: {fix.caution}." for number, fix in enumerate(fixes, 1) if fix.caution is not None)
    return [table("Each was tried and fits", columns, rows), *cautions]


def choose(fixes: Sequence[Fix], number: int) -> Fix:
    """Return suggestion ``number``, counted from 1, to be applied.

    Raises: SettingError where there is no such suggestion, or where it needs training.
    """
    applicable = [str(place) for place, fix in enumerate(fixes, 1) if not fix.needs_retraining]
    instead = f"Try --apply {applicable[0]}" if applicable else "Try plan without --apply, which lists what to change"
    if not 1 <= number <= len(fixes):
        there = f"expected 1..{len(fixes)}" if fixes else "expected a net for which a change was found"
        raise SettingError(f"--apply: {there}, found {number}. {instead}.")
    fix = fixes[number - 1]
    if fix.needs_retraining:
        raise SettingError(
            f"--apply {number}: expected a change that needs no training, found '{fix.title}' Its weights would mean "
            f"nothing. {fix.training} {instead}."
        )
    return fix


def write_fix(fix: Fix, path: Path, *, notes: Mapping[str, Any]) -> None:
    """Write the net of a suggestion to one file, whole or not at all; the notes of the net as it was stay with it."""
    from spikeport.convert.store import save_net

    save_net(fix.net, path, notes={**notes, "fixed": fix.title})


def next_command(fix: Fix, path: Path) -> list[str]:
    """Return the command, but for what it writes, with which the net of an applied suggestion goes to the chip."""
    objective = fix.plan.objective
    aim = [] if objective == "reproducible" else ["--objective", objective]
    return ["spikeport", "deploy", str(path), "--chip", fix.chip, *aim]


def _function(fix: Fix) -> str:
    if fix.is_exact:
        return "the same"
    if fix.needs_retraining:
        return "to be trained"
    return "nearly the same" if fix.error is None else f"weights {fix.error:.0%} off"


def _costs(fix: Fix) -> tuple[str, str, str]:
    added = fix.cost.n_cores - fix.before.n_cores
    cores = f"{fix.cost.n_cores}" + (f" ({added:+d})" if added else "")
    return cores, f"{_words(fix.cost):,}", f"x {fix.cost.n_synops / max(1, fix.before.n_synops):.2f}"


def _words(cost: Cost) -> int:
    return cost.kernel_words + cost.neuron_words + cost.bias_words
