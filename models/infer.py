"""Evaluate and predict: any predictor, any data, any number of processes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import BatchRunner, InferenceSettings
from .callbacks import Callbacks, Checkpoint, find_callback
from .distributed import World, join_world, told_to_end
from .errors import InferenceError
from .metrics import find_metric
from .nearest import unknown
from .predictor import Predictor, Response, check_predictor
from .progress import Progress, progress
from .readouts import Readout, find_readout
from .results import Evaluation, Prediction
from .samples import Sample, Samples, open_samples
from .seen import Metric, Seen, State
from .shards import ShardFolder

Metrics = str | Metric | Sequence[str | Metric] | Mapping[str, Any]

_SHARD = 64
"""Most samples that a process takes at once where no checkpoint says how many."""

_TURNS = 8
"""Shards for each process, at least: one that is slow delays the end by little."""


def evaluate(
    predictor: Predictor,
    data: Any,
    *,
    metrics: Metrics = "accuracy",
    callbacks: Sequence[Any] = (),
    settings: InferenceSettings | None = None,
) -> Evaluation:
    """Return the metrics of a predictor on data: named results, exact whatever the batches, shards or processes.

    ``data`` is an ``EventDataset`` or ``ImageDataset``, a pair of inputs (arrays, or recordings) and targets, pairs of
    input and label, a torch data set or loader, ``Batches``, or an iterator of any of these. Targets of several outputs
    are a mapping by output. ``metrics`` are names or objects, for every output, or a mapping by output. A
    ``Checkpoint`` among ``callbacks`` keeps finished shards, and an evaluation that was interrupted goes on from them.
    Under torchrun each process takes shards as it gets to them, and all return the same results.
    Law: equal for any batch size, shards and number of processes.
    Raises: InferenceError for unknown names, data that does not fit, or labels that are none; RankError where another
    process is lost; ShardError for a folder of another evaluation.
    """
    started = time.perf_counter()
    settings = settings or InferenceSettings()
    ready = with_step(check_predictor(predictor), settings)
    samples = open_samples(data)
    measured = _find_metrics(metrics, ready)
    found = [find_callback(callback) for callback in callbacks]
    checkpoints = [one for one in found if isinstance(one, Checkpoint)]
    watching = Callbacks([one for one in found if not isinstance(one, Checkpoint)])
    readouts = _find_readouts(settings, ready)
    world = join_world()
    if (checkpoints or world) and not settings.is_independent:
        raise InferenceError(
            "evaluate: expected samples that leave no trace in each other, for shards, found a reset switched off. "
            "Try all three resets, or one process without a checkpoint."
        )
    folder = _open_folder(checkpoints, ready, samples, measured, (settings, readouts))
    size = checkpoints[0].shard_size if checkpoints else _portion(samples.n, world)
    session = _Session(measured, started)
    with progress("Evaluating", samples.n, is_shown=settings.is_shown) as bar, told_to_end(world):
        bar.phase("starting; loops may be compiled")
        watching.begin(ready, samples.n)
        runner = BatchRunner(
            ready,
            settings,
            readouts=readouts,
            callbacks=watching,
            needs_decisions=any(getattr(m, "needs_decisions", False) for ms in measured.values() for m in ms),
        )
        if world is not None:
            world.begin()
        for number, part in _shards(samples, size, world):
            known = folder.find(number) if folder else None
            if known is not None:
                session.resume(known, bar)
                continue
            states = session.run(runner.run(part), bar, world)
            if folder is not None and states["totals"]["n_samples"]:
                folder.write(number, states)
        total = session.total
        if world is not None:
            bar.phase("waiting for the other processes")
            total = functools.reduce(session.merged, map(json.loads, world.gather(json.dumps(session.total))))
    kept = watching.end()
    totals = total["totals"]
    if not totals["n_samples"]:
        raise InferenceError("data: expected at least one sample, found none. Try another data set.")
    return Evaluation(
        results={
            output: {metric.name: metric.result(total[output][metric.name]) for metric in ms}
            for output, ms in measured.items()
        },
        n_samples=totals["n_samples"],
        n_steps=totals["n_steps"],
        n_events=totals["n_events"],
        wall_s=time.perf_counter() - started,
        first_s=session.first_s or 0.0,
        n_ranks=world.size if world else 1,
        n_resumed=totals["n_resumed"],
        profile=session.profile,
        data=kept,
    )


def predict(
    predictor: Predictor,
    data: Any,
    *,
    callbacks: Sequence[Any] = (),
    settings: InferenceSettings | None = None,
) -> Prediction:
    """Return what a predictor answers to each sample of ``data``, read out; targets are not looked at.

    Data, callbacks and settings are as for ``evaluate``. Each process of several answers all samples.
    Raises: InferenceError as ``evaluate``.
    """
    settings = settings or InferenceSettings()
    ready = with_step(check_predictor(predictor), settings)
    samples = open_samples(data)
    watching = Callbacks([find_callback(callback) for callback in callbacks])
    rows: dict[int, dict[str, tuple[NDArray[Any], int]]] = {}
    with progress("Predicting", samples.n, is_shown=settings.is_shown) as bar:
        bar.phase("starting; loops may be compiled")
        watching.begin(ready, samples.n)
        readouts = _find_readouts(settings, ready)
        runner = BatchRunner(ready, settings, readouts=readouts, callbacks=watching, needs_decisions=False)
        for seen, response in runner.run(samples.between(0, None)):
            for name, one in seen.items():
                for row, (index, winner) in enumerate(zip(one.indices, one.classes.tolist(), strict=True)):
                    rows.setdefault(index, {})[name] = one.values[row], winner
            bar.advance(response.n_samples, n_steps=response.ends_us.size, n_events=int(response.n_events.sum()))
            bar.phase("")
    kept = watching.end()
    if not rows:
        raise InferenceError("data: expected at least one sample, found none. Try another data set.")
    order = sorted(rows)
    return Prediction(
        outputs={name: np.stack([rows[index][name][0] for index in order]) for name in ready.outputs},
        classes={name: np.array([rows[index][name][1] for index in order], np.int64) for name in ready.outputs},
        data=kept,
    )


class _Session:
    """The states of all metrics over what was done so far."""

    def __init__(self, metrics: Mapping[str, tuple[Metric, ...]], started: float) -> None:
        self._metrics, self._started = metrics, started
        self.total = self._empty()
        self.profile: dict[str, float] = {}
        self.first_s: float | None = None

    def _empty(self) -> State:
        states: State = {output: {m.name: m.empty() for m in ms} for output, ms in self._metrics.items()}
        return {**states, "totals": dict.fromkeys(("n_samples", "n_steps", "n_events", "n_resumed"), 0)}

    def merged(self, a: State, b: State) -> State:
        """Return the states of both parts."""
        both: State = {
            output: {m.name: m.merge(a[output][m.name], b[output][m.name]) for m in ms}
            for output, ms in self._metrics.items()
        }
        return {**both, "totals": {key: a["totals"][key] + b["totals"][key] for key in a["totals"]}}

    def resume(self, states: State, bar: Progress) -> None:
        """Take in the states of a shard that was finished before."""
        n = states["totals"]["n_samples"]
        totals = {**states["totals"], "n_resumed": n}
        self.total = self.merged(self.total, {**states, "totals": totals})
        bar.advance(n, n_steps=0, n_events=0)

    def run(self, batches: Iterator[tuple[dict[str, Seen], Response]], bar: Progress, world: World | None) -> State:
        """Return the states of a shard, and take them in."""
        states = self._empty()
        for seen, response in batches:
            self.first_s = self.first_s or time.perf_counter() - self._started
            for output, metrics in self._metrics.items():
                for metric in metrics:
                    states[output][metric.name] = metric.update(states[output][metric.name], seen[output])
            n_steps = int(next(iter(seen.values())).live.sum())
            n_events = int(response.n_events.sum())
            found = {"n_samples": response.n_samples, "n_steps": n_steps, "n_events": n_events}
            states["totals"] = {key: n + found.get(key, 0) for key, n in states["totals"].items()}
            for name, seconds in response.profile.items():
                self.profile[name] = self.profile.get(name, 0.0) + seconds
            bar.advance(response.n_samples, n_steps=n_steps, n_events=n_events)
            bar.phase(self._shown(states))
            if world is not None:
                world.check()
        self.total = self.merged(self.total, states)
        return states

    def _shown(self, states: State) -> str:
        found = [(m.name, m.result(states[out][m.name])) for out, ms in self._metrics.items() for m in ms]
        return ", ".join(f"{name} {value:.4f}" for name, value in found if isinstance(value, float))


def with_step(predictor: Predictor, settings: InferenceSettings) -> Predictor:
    """Return the predictor with the step of the settings, where they name one.

    Raises: InferenceError where the predictor's step cannot be changed.
    """
    if settings.dt_us is None or settings.dt_us == predictor.step_us:
        return predictor
    record: Any = predictor
    fields: set[str] = (
        {field.name for field in dataclasses.fields(record)} if dataclasses.is_dataclass(record) else set()
    )
    if "step_us" not in fields:
        raise InferenceError(
            f"{predictor.name}: dt_us: expected the predictor's own step of {predictor.step_us} us, found "
            f"{settings.dt_us}. Try dt_us=None."
        )
    changed: Predictor = dataclasses.replace(record, step_us=settings.dt_us)
    return changed


def _find_metrics(metrics: Metrics, predictor: Predictor) -> dict[str, tuple[Metric, ...]]:
    outputs = predictor.outputs
    if isinstance(metrics, Mapping):
        strange = [name for name in metrics if name not in outputs]
        if strange:
            raise InferenceError(unknown(f"metrics: output of {predictor.name}", strange[0], outputs))
        chosen = dict(metrics)
    else:
        chosen = dict.fromkeys(outputs, metrics)
    found = {}
    for output, wanted in chosen.items():
        several = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
        made = tuple(find_metric(one) for one in several)
        names = [metric.name for metric in made]
        if len(set(names)) < len(names) or not names:
            raise InferenceError(
                f"metrics: expected some, each with a name of its own, found {', '.join(names) or 'none'}. "
                "Try TopK(3, name='top_3')."
            )
        found[output] = made
    return found


def _find_readouts(settings: InferenceSettings, predictor: Predictor) -> dict[str, Readout]:
    given = settings.readout
    if isinstance(given, Mapping):
        strange = [name for name in given if name not in predictor.outputs]
        if strange:
            raise InferenceError(unknown(f"readout: output of {predictor.name}", strange[0], predictor.outputs))
    of = given if isinstance(given, Mapping) else dict.fromkeys(predictor.outputs, given)
    return {name: find_readout(of.get(name) or predictor.readout) for name in predictor.outputs}


def _open_folder(
    checkpoints: Sequence[Checkpoint],
    predictor: Predictor,
    samples: Samples,
    metrics: Mapping[str, tuple[Metric, ...]],
    how: tuple[InferenceSettings, Mapping[str, Readout]],
) -> ShardFolder | None:
    """Return the folder of finished shards of this very evaluation, None without a checkpoint."""
    if not checkpoints:
        return None
    if len(checkpoints) > 1:
        raise InferenceError("callbacks: expected one checkpoint, found several. Try one folder.")
    settings, readouts = how
    answers = dataclasses.replace(settings, batch_size=1, profile=False, is_shown=None, readout=None)
    parts = (
        predictor.fingerprint(),
        samples.mark,
        samples.n,
        checkpoints[0].shard_size,
        answers,
        sorted((name, repr(readout)) for name, readout in readouts.items()),
        sorted((output, [repr(metric) for metric in ms]) for output, ms in metrics.items()),
    )
    folder = ShardFolder(Path(checkpoints[0].folder), hashlib.sha256(repr(parts).encode()).hexdigest())
    folder.open()
    return folder


def _portion(n: int | None, world: World | None) -> int | None:
    """Return the samples of a shard where no checkpoint says how many; None for one shard of all."""
    if world is None:
        return None
    return _SHARD if n is None else max(1, min(_SHARD, n // (_TURNS * world.size)))


def _shards(samples: Samples, size: int | None, world: World | None) -> Iterator[tuple[int, Iterator[Sample]]]:
    """Yield the shards of this process: number and samples; with others, each takes the next that nobody has."""
    if size is None:
        yield 0, samples.between(0, None)
        return
    if samples.at is not None and samples.n is not None:
        n_shards = -(-samples.n // size)
        numbers = itertools.count() if world is None else iter(world.take, None)
        for number in numbers:
            if number >= n_shards:
                return
            yield number, samples.between(number * size, (number + 1) * size)
    walking = samples.between(0, None)
    mine = 0 if world is None else world.take()
    for number in itertools.count():
        part = list(itertools.islice(walking, size))
        if not part:
            return
        if number == mine:
            yield number, iter(part)
            mine = number + 1 if world is None else world.take()
