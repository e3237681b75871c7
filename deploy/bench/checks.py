"""What the rows of the conversion benchmark show: means, spreads, and whether the aims are met."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from .parity import Parity
from .run import Row

MARGIN = 0.003
"""How far below the best other converter ours may be, as a share of the samples."""

SAVING = 0.3
"""Share of synops that ours must save against sinabs' defaults at equal accuracy, on two of three sets."""

LOW_STEPS = 4
"""Number of steps at which ours must be above all others."""

FROM_CNN, FROM_SPIKING = 0.01, 0.005
"""Share of the samples that the fine-tuned spiking net may lose to its CNN, and the emulated chip to that net."""

_BASELINE = "sinabs from_model"
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Summary:
    """One method at one number of steps, over all seeds: means, and sample standard deviations as spread."""

    task: str
    method: str
    n_steps: int
    n_seeds: int
    cnn: float
    spiking: float
    spiking_spread: float
    synops: float
    chip: float | None
    chip_spread: float | None
    chip_synops: float | None
    n_events: float


@dataclasses.dataclass(frozen=True)
class Check:
    """One aim of the benchmark, whether it is met, and by which figures."""

    aim: str
    is_met: bool
    figures: str

    def __str__(self) -> str:
        return f"{'PASS' if self.is_met else 'MISS'}  {self.aim}: {self.figures}"


def summarize(rows: Iterable[Row]) -> tuple[Summary, ...]:
    """Return one summary for each task, method and number of steps, in the order of the rows."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.method, row.n_steps), []).append(row)
    return tuple(_summary(group) for group in groups.values())


def _summary(group: list[Row]) -> Summary:
    chips = [row.chip for row in group if row.chip is not None]
    chip_synops = [row.chip_synops for row in group if row.chip_synops is not None]
    first = group[0]
    return Summary(
        task=first.task,
        method=first.method,
        n_steps=first.n_steps,
        n_seeds=len(group),
        cnn=_mean([row.cnn for row in group]),
        spiking=_mean([row.spiking for row in group]),
        spiking_spread=_spread([row.spiking for row in group]),
        synops=_mean([row.synops for row in group]),
        chip=_mean(chips) if chips else None,
        chip_spread=_spread(chips) if chips else None,
        chip_synops=_mean(chip_synops) if chip_synops else None,
        n_events=_mean([row.n_events for row in group]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def check_rows(rows: Iterable[Summary], *, subject: str, peers: Sequence[str]) -> tuple[Check, ...]:
    """Return the aims for accuracy and synops: ``subject`` against ``peers``, set by set."""
    by_task: dict[str, list[Summary]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    checks = []
    for task, group in by_task.items():
        ours = {row.n_steps: row for row in group if row.method == subject}
        best = {
            n_steps: max((row for row in group if row.method in peers and row.n_steps == n_steps), key=_accuracy)
            for n_steps in ours
        }
        checks.append(_never_below(task, ours, best))
        if LOW_STEPS in ours:
            checks.append(_above_all(task, ours[LOW_STEPS], best[LOW_STEPS]))
    savings = [_saving(group, subject) for group in by_task.values()]
    met = sum(saving is not None and saving >= SAVING for saving in savings)
    shown = ", ".join(
        f"{task} {'never as accurate' if saving is None else f'{saving:.0%} fewer'}"
        for task, saving in zip(by_task, savings, strict=True)
    )
    aim = f"{SAVING:.0%} fewer synops than {_BASELINE} at the best accuracy that both reach, on two of the sets"
    return (*checks, Check(aim, met >= 2, shown))


def _accuracy(row: Summary) -> float:
    return row.spiking


def _never_below(task: str, ours: dict[int, Summary], best: dict[int, Summary]) -> Check:
    worst = min(ours, key=lambda n_steps: ours[n_steps].spiking - best[n_steps].spiking)
    gap = ours[worst].spiking - best[worst].spiking
    figures = f"at {worst} steps {100 * gap:+.1f} points against {best[worst].method}"
    aim = f"{task}: never below the best other converter by more than {100 * MARGIN:.1f} points"
    return Check(aim, gap >= -MARGIN - 1e-9, figures)


def _above_all(task: str, ours: Summary, best: Summary) -> Check:
    figures = f"{ours.spiking:.1%} against {best.spiking:.1%} of {best.method}"
    return Check(f"{task}: above all others at {LOW_STEPS} steps", ours.spiking > best.spiking, figures)


def _saving(group: list[Summary], subject: str) -> float | None:
    """Return the share of synops that ``subject`` saves at the best accuracy that it and the baseline both reach.

    Each at its cheapest number of steps that is as accurate; None where there is no baseline, or where the best of
    ``subject`` is further below its best than ``MARGIN``.
    """
    theirs, ours = ([row for row in group if row.method == method] for method in (_BASELINE, subject))
    if not theirs or not ours:
        return None
    best_there, best_here = (max(row.spiking for row in rows) for rows in (theirs, ours))
    if best_here < best_there - MARGIN - 1e-9:
        return None
    level = min(best_there, best_here) - 1e-9
    there, here = (min(row.synops for row in rows if row.spiking >= level) for rows in (theirs, ours))
    return 1.0 - here / there


def check_finetuned(rows: Iterable[Row], method: str) -> tuple[Check, ...]:
    """Return for each task how near the fine-tuned CNN's nets are to the CNN, and the chip to those nets."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        if row.method == method:
            by_task.setdefault(row.task, []).append(row)
    checks = []
    for task, group in by_task.items():
        lost = statistics.fmean(row.cnn - row.spiking for row in group)
        aim = f"{task}: {method} at most {100 * FROM_CNN:g} point below the CNN"
        checks.append(Check(aim, lost <= FROM_CNN + 1e-9, f"{100 * lost:.1f} points below"))
        chips = [row.on_chip_samples - row.chip for row in group if row.chip is not None]
        if chips:
            apart = statistics.fmean(chips)
            aim = f"{task}: {method}, emulated chip within {100 * FROM_SPIKING:g} point of the spiking net"
            checks.append(Check(aim, apart <= FROM_SPIKING + 1e-9, f"{100 * apart:.1f} points below"))
    return tuple(checks)


def check_parity(rows: Iterable[Parity]) -> Check:
    """Return whether every rewrite of ours kept the function."""
    rows = tuple(rows)
    error, agreement = max(row.our_error for row in rows), min(row.our_agreement for row in rows)
    aim = f"every rewrite within {_TOLERANCE:g} of the CNN's output, argmax 100 %"
    return Check(aim, error <= _TOLERANCE and agreement == 1.0, f"largest error {error:.1e}, argmax {agreement:.1%}")
