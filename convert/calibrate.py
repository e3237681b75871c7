"""A search for the scales that serve best: rules, starts, lower bounds and spike counts tried on labelled samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .candidates import Setting, baselines, coarse_grid, references, variants
from .capture import capture
from .choice import SearchSettings, choose, promising, spikes_within
from .errors import CalibrationError
from .evaluate import module_outputs
from .fold import fold, refuse
from .gains import apply_gains
from .graph import Graph, Input
from .judging import Judge, LabelledSamples, Verdict, judge_spiking
from .normalize import Scaling, calibration_batch, gains_of
from .pipeline import convert_graph
from .replace import replace as replace_nodes
from .spiking import to_spiking
from .starts import choose_start, with_start
from .thresholds import observe
from .types import Conversion, SpikingNet

if TYPE_CHECKING:
    import torch
    from torch import nn

    Given = Callable[[torch.Tensor], torch.Tensor]

_FIRST_ROUND, _SECOND_ROUND = 64, 256
"""Samples that every setting is judged on, and those that are left; in the end it is all of them."""

_MAX_CALIBRATION = 128
_N_FITTED = 3
_HEADROOM = 0.98
"""Of a budget: it is fitted on the samples of the first round, and has to hold on all."""

_FEWEST = 4


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting that was tried, as judged on the most samples it came to.

    Units: ``loss`` is the mean of ``Verdict.losses``, ``synops_per_sample`` a mean.
    """

    setting: Setting
    accuracy: float
    loss: float
    synops_per_sample: float
    n_samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as plain values, ready for JSON."""
        return {"name": str(self.setting), **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """What a search tried, and the conversion with the best setting.

    ``n_calibration`` samples set the scales and starts, others judged.
    Law: ``best`` is one of ``trials``, judged on all samples that judge, and within ``budget``; ``conversion.net`` is
    the net that was judged, bit for bit.
    """

    trials: tuple[Trial, ...]
    best: Trial
    conversion: Conversion
    n_calibration: int
    budget: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the search as plain values, without the conversion."""
        return {
            "best": self.best.to_dict(),
            "trials": [trial.to_dict() for trial in self.trials],
            "n_calibration": self.n_calibration,
            "budget": self.budget,
        }


def search(
    module: nn.Module,
    input_shape: Sequence[int],
    samples: LabelledSamples,
    *,
    objective: Judge = judge_spiking,
    budget: float | None = None,
    settings: SearchSettings | None = None,
) -> Search:
    """Return the conversion of a CNN with the scales, starts and lower bound that classify ``samples`` best.

    The same as ``search_graph`` of the captured module.
    Shapes: ``input_shape`` as in ``convert``.
    Raises: as ``search_graph``; CaptureError.
    """
    graph, given = _captured(module, input_shape)
    return search_graph(graph, samples, objective=objective, budget=budget, settings=settings, given=given)


def search_graph(
    graph: Graph,
    samples: LabelledSamples,
    *,
    objective: Judge = judge_spiking,
    budget: float | None = None,
    settings: SearchSettings | None = None,
    given: Given | None = None,
) -> Search:
    """Return the conversion of a captured CNN with the scales, starts and lower bound that classify ``samples`` best.

    A third of the samples, at most 128, set the scales, without their labels. Every setting of a coarse grid is judged
    on 64 others, the best and their neighbors on 256, the best of those on all samples. Chosen is by ``badness`` and a
    small price of synops: accuracy on a few hundred samples is too coarse to tell good settings apart. Weights as
    trained with lower bound -1, as sinabs leaves them, and what ``convert`` does unasked are judged to the end.
    Units: ``budget`` is the most synops per sample, on average.
    Law: equal arguments give equal results on one thread; on ``samples`` the accuracy is not below that of those
    baselines within the budget, less ``accuracy_slack``.
    Raises: CalibrationError where even the fewest spikes cost more than the budget, or there are fewer than 4 samples;
    the rest as ``convert_graph``, which ``given`` is for.
    """
    settings = settings or SearchSettings()
    bench = _Workbench(graph, given, samples, objective, settings)
    n_steps, n = samples.n_steps, len(samples)
    first, second = min(_FIRST_ROUND, n), min(_SECOND_ROUND, n)
    known = baselines(n_steps, bench.usual)
    verdicts = bench.judge((*known, *coarse_grid(n_steps, settings.v_mins)), first)
    kept = promising(verdicts, settings, budget=budget)
    if budget is not None:
        kept += tuple(bench.fitted(setting, budget * _HEADROOM, first) for setting in _to_fit(verdicts, budget))
    verdicts = bench.judge(_with_references(kept), second)
    leader = choose(verdicts, settings, budget=budget) or kept[0]
    verdicts |= bench.judge(_with_references(variants(leader)), second)
    kept = promising(verdicts, settings, budget=budget)
    verdicts = bench.judge((*known, *_with_references(kept)), n) | (verdicts if second == n else {})
    best = choose(verdicts, settings, budget=budget, baselines=known)
    if budget is not None and best is None:  # what kept to the budget on few samples does not on all
        best = bench.fitted(leader, budget, n)
    return bench.result(best or leader, budget)


def fit_budget(
    module: nn.Module,
    input_shape: Sequence[int],
    samples: LabelledSamples,
    *,
    budget: float,
    setting: Setting,
    objective: Judge = judge_spiking,
) -> Search:
    """Return the conversion with a setting's spike count changed to the largest that keeps to a budget of synops.

    Samples set the scales and judge as in ``search``.
    Units: ``budget`` is the most synops per sample, on average.
    Law: the best trial costs at most ``budget``, and 2 % more spikes cost more, or the spikes are 10,000.
    Raises: CalibrationError where a thousandth of a spike costs more; the rest as ``convert``.
    """
    bench = _Workbench(*_captured(module, input_shape), samples, objective, SearchSettings())
    best = bench.fitted(setting, budget, len(samples))
    return bench.result(best, budget)


def _with_references(settings: Iterable[Setting]) -> tuple[Setting, ...]:
    """Return the settings, and what ``badness`` compares them with."""
    listed = tuple(settings)
    compared = (one for setting in listed for one in references(setting.scaling.n_steps, setting.v_min))
    return tuple(dict.fromkeys((*listed, *compared)))


def _to_fit(verdicts: Mapping[Setting, Verdict], budget: float) -> tuple[Setting, ...]:
    """Return the best settings of different kinds whose next larger spike count is over the budget."""
    kinds: dict[Setting, list[Setting]] = {}
    for setting in verdicts:
        kinds.setdefault(setting.with_spikes(1.0), []).append(setting)
    chosen = []
    for members in kinds.values():
        inside = [setting for setting in members if verdicts[setting].synops_per_sample <= budget]
        if len(inside) < len(members):
            pool = inside or members
            chosen.append(min(pool, key=lambda setting: verdicts[setting].loss))
    return tuple(sorted(chosen, key=lambda setting: verdicts[setting].loss)[:_N_FITTED])


def _captured(module: nn.Module, input_shape: Sequence[int]) -> tuple[Graph, Given]:
    """Return a captured module, and what computes its outputs."""
    graph = capture(module, input_shape)
    entry = cast("Input", graph.nodes[0])
    return graph, lambda batch: module_outputs(module, batch, entry.given_shape)


class _Workbench:
    """A captured CNN with its samples, and the log of what was judged."""

    def __init__(
        self,
        graph: Graph,
        given: Given | None,
        samples: LabelledSamples,
        objective: Judge,
        settings: SearchSettings,
    ) -> None:
        self._graph, self._given = graph, given
        self._objective, self._replace = objective, settings.replace
        plain, _ = replace_nodes(self._graph, settings.replace)
        refuse(plain)
        self._folded = fold(plain).graph
        if len(samples) < _FEWEST:
            raise CalibrationError(
                f"labelled samples: expected {_FEWEST} or more, found {len(samples)}. Try a few hundred."
            )
        order = np.random.default_rng(settings.seed).permutation(len(samples))
        n_calibration = min(_MAX_CALIBRATION, len(samples) // 3)
        entry = cast("Input", graph.nodes[0])  # captured graphs start with it
        self._frames = calibration_batch(samples.subset(order[:n_calibration]).frames, entry)
        self._activations = observe(self._folded, self._frames)
        self._judging = samples.subset(np.roll(order, -n_calibration))  # those that set the scales come last
        self._nets: dict[Setting, SpikingNet] = {}
        self._log: dict[Setting, Verdict] = {}

    @property
    def usual(self) -> Setting:
        """What ``convert`` does unasked."""
        scaling = Scaling(n_steps=self._judging.n_steps)
        return Setting(*choose_start(self._folded, scaling, "auto", is_calibrated=True))

    def judge(self, settings: Iterable[Setting], n: int) -> dict[Setting, Verdict]:
        """Return verdicts on the first ``n`` samples, and keep them in the log."""
        part = self._judging.subset(range(n))
        verdicts: dict[Setting, Verdict] = {}
        for setting in settings:
            known = self._log.get(setting)
            is_known = known is not None and len(known.losses) == n
            verdicts[setting] = known if known is not None and is_known else self._objective(self._net(setting), part)
            self._log[setting] = verdicts[setting]
        return verdicts

    def _net(self, setting: Setting) -> SpikingNet:
        """Return the net of a setting, the same as ``convert`` makes."""
        if setting not in self._nets:
            scaling, v_min = choose_start(self._folded, setting.scaling, setting.v_min, is_calibrated=True)
            scaled, _ = apply_gains(self._folded, gains_of(self._folded, self._activations, scaling))
            net = to_spiking(scaled, v_min=v_min, n_steps=scaling.n_steps)
            self._nets[setting] = with_start(net, scaled, frames=self._frames, scaling=scaling)
        return self._nets[setting]

    def fitted(self, setting: Setting, budget: float, n: int) -> Setting:
        """Return the setting with as many spikes as the budget allows on the first ``n`` samples."""

        def cost(spikes: float) -> float:
            tried = setting.with_spikes(spikes)
            return self.judge((tried,), n)[tried].synops_per_sample

        return setting.with_spikes(spikes_within(cost, budget, start=setting.scaling.spikes))

    def result(self, best: Setting, budget: float | None) -> Search:
        """Return what was tried, in the order of the first try, and the conversion of the best setting."""
        trials = {
            setting: Trial(setting, one.accuracy, one.loss, one.synops_per_sample, len(one.losses))
            for setting, one in self._log.items()
        }
        conversion = convert_graph(
            self._graph,
            data=self._frames,
            scaling=best.scaling,
            v_min=best.v_min,
            replace=self._replace,
            given=self._given,
        )
        return Search(tuple(trials.values()), trials[best], conversion, len(self._frames), budget)
