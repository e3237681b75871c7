"""How a search chooses: by loss, at a small price of synops, within a budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from .candidates import Setting
from .errors import CalibrationError
from .judging import Verdict

_FINEST = 1.02
"""Ratio of spikes at which a fit to a budget ends."""

_SPIKES_RANGE = (1e-3, 1e4)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What a search tries and how it chooses.

    Units: ``price`` is the loss, in bits, that halving the synops may cost. ``accuracy_slack`` is the share of accuracy
    that may be given up for fewer synops, whatever the price. ``v_mins`` are the lower bounds to try, in thresholds.
    ``n_kept`` settings go from each round to the next. ``seed`` decides which samples set the scales; ``replace`` is
    that of ``convert``.
    Source: the price: measured 2026-11-21, 1 and 4 steps of digits, N-MNIST and animals, 50 settings each, held-out
    samples. With 0.001 to 0.003 the chosen setting was 0.3 points below the best in hindsight, with 0.01 1.5 points;
    the highest accuracy, in place of the least loss, chose one 1.8 points below.
    """

    price: float = 0.003
    accuracy_slack: float = 0.0
    v_mins: tuple[float | None, ...] = (-1.0, None)
    n_kept: int = 6
    replace: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in (("price", self.price), ("accuracy_slack", self.accuracy_slack)):
            if not 0 <= share < 1:
                raise CalibrationError(f"{name}: expected 0 to below 1, found {share}. Try 0.003.")
        if not self.v_mins or self.n_kept < 1:
            raise CalibrationError(
                f"search: expected one lower bound or more and to keep one setting or more, found {self.v_mins} and "
                f"{self.n_kept}. Try (-1.0, None) and 8."
            )


def spikes_within(cost: Callable[[float], float], budget: float, *, start: float) -> float:
    """Return the largest spike count, within 2 %, whose cost is within ``budget``.

    ``cost`` rises with the spikes; the search begins at ``start``, halves or doubles, then bisects.
    Raises: CalibrationError where a thousandth of a spike costs more.
    """
    low, high = _SPIKES_RANGE
    inside = min(max(start, low), high)
    while cost(inside) > budget:
        if inside == low:
            raise CalibrationError(
                f"budget: expected at least {cost(low):,.0f} synops per sample, which input events cause whatever the "
                f"scales, found {budget:,.0f}. Try a larger budget, or fewer features in the first layer."
            )
        inside = max(low, inside / 2)
    outside = min(high, 2 * inside)
    while cost(outside) <= budget:
        inside, outside = outside, min(high, 2 * outside)
        if inside == high:
            return high
    while outside / inside > _FINEST:
        middle = (inside * outside) ** 0.5
        inside, outside = (middle, outside) if cost(middle) <= budget else (inside, middle)
    return inside


def choose(
    verdicts: Mapping[Setting, Verdict], settings: SearchSettings, *, budget: float | None = None
) -> Setting | None:
    """Return the setting with the least loss plus price of its synops; None where none is within ``budget``.

    With an ``accuracy_slack`` it is the one with the fewest synops whose accuracy and loss are no further from those of
    the setting with the least loss.
    """
    within = _within(verdicts, budget)
    if not within:
        return None
    leader = min(within.values(), key=lambda verdict: verdict.loss)
    slack = settings.accuracy_slack
    good = {
        setting: verdict
        for setting, verdict in within.items()
        if verdict.loss <= leader.loss + slack and verdict.accuracy >= leader.accuracy - slack
    }
    if slack > 0:
        return min(good, key=lambda setting: good[setting].synops_per_sample)
    return min(within, key=lambda setting: _priced(within[setting], settings.price))


def promising(
    verdicts: Mapping[Setting, Verdict], settings: SearchSettings, *, budget: float | None = None
) -> tuple[Setting, ...]:
    """Return the ``n_kept`` settings of least loss plus price within the budget, and half as many cheaper ones.

    Of cheaper ones those whose mean loss is within two standard errors of the best one's, sample by sample.
    """
    within = _within(verdicts, budget)
    ranked = sorted(within, key=lambda setting: _priced(within[setting], settings.price))
    best, others = ranked[: settings.n_kept], ranked[settings.n_kept :]
    near = [setting for setting in others if _excess(within[setting], within[best[0]]) <= 2.0]
    cheap = sorted(near, key=lambda setting: within[setting].synops_per_sample)
    return (*best, *cheap[: settings.n_kept // 2])


def _priced(verdict: Verdict, price: float) -> float:
    return verdict.loss + price * math.log2(max(1.0, verdict.synops_per_sample))


def _within(verdicts: Mapping[Setting, Verdict], budget: float | None) -> dict[Setting, Verdict]:
    return {s: verdict for s, verdict in verdicts.items() if budget is None or verdict.synops_per_sample <= budget}


def _excess(verdict: Verdict, best: Verdict) -> float:
    """Return by how many standard errors a verdict's mean loss is above another's, sample by sample."""
    difference = verdict.losses - best.losses
    mean, spread = float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))
    return mean / spread if spread > 0 else math.copysign(math.inf, mean) if mean else 0.0
