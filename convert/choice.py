"""How a search chooses: by loss, at a small price of synops, within a budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from .candidates import Setting
from .errors import CalibrationError
from .judging import Verdict

_FINEST = 1.02
"""Ratio of spikes at which a fit to a budget ends."""

_N_TOGETHER = 8
_FRUGAL = 4.0
_SPIKES_RANGE = (1e-3, 1e4)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What a search tries and how it chooses.

    Units: ``price`` is the ``badness``, in bits, that halving the synops may cost. ``accuracy_slack`` is the share of
    accuracy that may be given up for fewer synops, whatever the price. ``v_mins`` are the lower bounds to try, in
    thresholds. ``n_kept`` settings go from each round to the next. ``seed`` decides which samples set the scales;
    ``replace`` is that of ``convert``.
    Source: measured 2026-11-21 on 1 and 4 steps of digits and N-MNIST and 4 of animals, 25 to 47 settings each, 200
    samples to choose by and 200 to 400 held out. At a price of 0.005 the setting chosen was 0.27 points of accuracy
    below the best in hindsight, at 0.003 0.21 points with a fifth more synops. Least loss alone at 0.003 chose one 0.65
    points below.
    """

    price: float = 0.005
    accuracy_slack: float = 0.0
    v_mins: tuple[float | None, ...] = (-1.0, None)
    n_kept: int = 6
    replace: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in (("price", self.price), ("accuracy_slack", self.accuracy_slack)):
            if not 0 <= share < 1:
                raise CalibrationError(f"{name}: expected 0 to below 1, found {share}. Try 0.005.")
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
    """Return the setting of least ``badness`` plus price of its synops; None where none is within ``budget``.

    With an ``accuracy_slack`` it is the one with the fewest synops whose accuracy is at most that much below, and
    whose badness at most that much above those of the least bad setting.
    """
    within = _within(verdicts, budget)
    if not within:
        return None
    bad = badness(verdicts)
    if settings.accuracy_slack <= 0:
        return min(within, key=lambda setting: bad[setting] + settings.price * _doublings(within[setting]))
    leader = min(within, key=lambda setting: bad[setting])
    highest, lowest = bad[leader] + settings.accuracy_slack, within[leader].accuracy - settings.accuracy_slack
    good = (setting for setting in within if bad[setting] <= highest and within[setting].accuracy >= lowest)
    return min(good, key=lambda setting: within[setting].synops_per_sample)


def promising(
    verdicts: Mapping[Setting, Verdict], settings: SearchSettings, *, budget: float | None = None
) -> tuple[Setting, ...]:
    """Return the ``n_kept`` best settings within the budget, and half as many at several times the price of synops."""
    within, bad = _within(verdicts, budget), badness(verdicts)

    def ranked(price: float) -> list[Setting]:
        return sorted(within, key=lambda setting: bad[setting] + price * _doublings(within[setting]))

    cheap = ranked(_FRUGAL * settings.price)
    return tuple(dict.fromkeys((*ranked(settings.price)[: settings.n_kept], *cheap[: settings.n_kept // 2])))


def badness(verdicts: Mapping[Setting, Verdict]) -> dict[Setting, float]:
    """Return for each setting its loss plus how far it is from the best settings together.

    On a few hundred samples the label alone rewards luck: a net whose spikes are too few for its function errs on
    others than its neighbors, some of them to its advantage. The mean probabilities of the eight settings of least loss
    have less of that.
    Units: bits: the mean loss, and the mean divergence from those probabilities, at most 1 for each sample.
    """
    best = sorted(verdicts.values(), key=lambda verdict: verdict.loss)[:_N_TOGETHER]
    together = np.mean([np.exp2(-verdict.bits) for verdict in best], axis=0)
    entropy = -(together * np.log2(np.maximum(together, np.finfo(float).tiny))).sum(axis=1)
    return {
        setting: verdict.loss + float(np.minimum((together * verdict.bits).sum(axis=1) - entropy, 1.0).mean())
        for setting, verdict in verdicts.items()
    }


def _doublings(verdict: Verdict) -> float:
    return math.log2(max(1.0, verdict.synops_per_sample))


def _within(verdicts: Mapping[Setting, Verdict], budget: float | None) -> dict[Setting, Verdict]:
    return {s: verdict for s, verdict in verdicts.items() if budget is None or verdict.synops_per_sample <= budget}
