"""How a search chooses: by loss, at a small price of synops, within a budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .candidates import Setting, references
from .errors import CalibrationError
from .judging import Verdict

_FINEST = 1.02
"""Ratio of spikes at which a fit to a budget ends."""

_FRUGAL = 4.0
_NO_LUCK = 2.0
_SPIKES_RANGE = (1e-3, 1e4)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What a search tries and how it chooses.

    Units: ``price`` is the ``badness``, in bits, that halving the synops may cost. ``accuracy_slack`` is the share of
    accuracy that may be given up for fewer synops, whatever the price. ``v_mins`` are the lower bounds to try, in
    thresholds. ``n_kept`` settings go from each round to the next. ``seed`` decides which samples set the scales;
    ``replace`` is that of ``convert``.
    Source: the price: measured 2026-11-21 on 1 and 4 steps of digits and N-MNIST and 4 of animals, 25 to 47 settings
    each, 200 samples to choose by and 200 to 400 held out. At 0.003 and 0.005 the setting chosen was 0.47 and 0.39
    points of accuracy below the best in hindsight; the loss alone, at 0.003 and 0.005, chose ones 0.65 and 1.2 points
    below.
    """

    price: float = 0.005
    accuracy_slack: float = 0.0
    v_mins: tuple[float | None, ...] = (-1.0, -4.0, None)
    n_kept: int = 8
    replace: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in (("price", self.price), ("accuracy_slack", self.accuracy_slack)):
            if not 0 <= share < 1:
                raise CalibrationError(f"{name}: expected 0 to below 1, found {share}. Try 0.005.")
        if not self.v_mins or self.n_kept < 1:
            raise CalibrationError(
                f"search: expected one lower bound or more and to keep one setting or more, found {self.v_mins} and "
                f"{self.n_kept}. Try (-1.0, -4.0, None) and 8."
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
    verdicts: Mapping[Setting, Verdict],
    settings: SearchSettings,
    *,
    budget: float | None = None,
    baselines: Sequence[Setting] = (),
) -> Setting | None:
    """Return the setting of least ``badness`` plus price of its synops; None where none is within ``budget``.

    With an ``accuracy_slack`` it is the one with the fewest synops whose badness is at most that much above the least.
    Law: its accuracy is at most the slack below that of any of ``baselines`` within the budget.
    """
    within = _within(verdicts, budget)
    if not within:
        return None
    bad, slack = badness(verdicts), settings.accuracy_slack
    leader = min(within, key=lambda setting: bad[setting])
    known = [setting for setting in (*baselines, *((leader,) if slack > 0 else ())) if setting in within]
    lowest = max((within[setting].accuracy for setting in known), default=0.0) - slack
    good = [setting for setting in within if within[setting].accuracy >= lowest]
    if slack > 0:
        near = [setting for setting in good if bad[setting] <= bad[leader] + slack]
        return min(near or good, key=lambda setting: within[setting].synops_per_sample)
    return min(good, key=lambda setting: bad[setting] + settings.price * _doublings(within[setting]))


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
    """Return for each setting the mean of its own loss and of what its reference leads to expect.

    On a few hundred samples labels reward luck: a net whose spikes are too few for its function errs on other samples
    than its neighbors, some of them to its advantage. So half of the badness does not look at labels of its own: the
    loss of the reference plus how far the setting is from it. The reference has the same lower bound and spikes enough
    (``references``); where one of that bound has a loss two standard errors below, which is no luck, it is that one.
    Units: bits; how far is the mean divergence from the reference's probabilities, at most 1 for each sample.
    """
    by_bound = {setting.v_min: _reference(verdicts, setting.v_min) for setting in verdicts}
    return {
        setting: (verdict.loss + by_bound[setting.v_min].loss + _divergence(by_bound[setting.v_min], verdict)) / 2
        for setting, verdict in verdicts.items()
    }


def _reference(verdicts: Mapping[Setting, Verdict], v_min: float | None) -> Verdict:
    alike = [setting for setting in verdicts if setting.v_min == v_min]
    best = min((verdicts[setting] for setting in alike), key=lambda verdict: verdict.loss)
    fine = [verdicts[setting] for setting in alike if setting in references(setting.scaling.n_steps, v_min)]
    reference = min(fine, key=lambda verdict: verdict.loss, default=best)
    difference = reference.losses - best.losses
    is_beaten = reference.loss - best.loss > _NO_LUCK * float(difference.std()) / math.sqrt(len(difference))
    return best if is_beaten else reference


def _divergence(reference: Verdict, verdict: Verdict) -> float:
    further = (np.exp2(-reference.bits) * (verdict.bits - reference.bits)).sum(axis=1)
    return float(np.minimum(further, 1.0).mean())


def _doublings(verdict: Verdict) -> float:
    return math.log2(max(1.0, verdict.synops_per_sample))


def _within(verdicts: Mapping[Setting, Verdict], budget: float | None) -> dict[Setting, Verdict]:
    return {s: verdict for s, verdict in verdicts.items() if budget is None or verdict.synops_per_sample <= budget}
