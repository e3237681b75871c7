"""Changes that need no training but move the function: low rank, features left out, weights averaged or clipped.

Each says how far the weights are from those given; what that does to the accuracy, only data can tell.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.grid import BIAS_BITS, WEIGHT_BITS
from spikeport.convert.types import INPUT

from .draft import Draft, Form, Values, dense, lazy
from .narrow import feature_choices, two_layers
from .problems import Problem
from .retrain import FACTORS
from .step import Step, listed, names, size

Array = NDArray[np.floating[Any]]


_MAX_WORK = 4_000_000_000
"""Multiplications of a decomposition: about half a second of one processor."""


def low_rank(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which a layer is two: one of few features for what matters most, one that puts it together.

    The first layer has two features for each direction, one for either sign, because spikes have none.
    """
    for index in problem.layers:
        form = dense(draft.layers[index])
        if form.is_relay:
            continue
        channels, features = form.n_weights // form.features, form.features
        for share in (2, 4, 8, 16):
            rank = min(channels, features) // share // 2
            if rank < 1 or 2 * rank * (channels + features) >= channels * features:
                continue
            if min(channels, features) ** 2 * max(channels, features) > _MAX_WORK:
                continue
            yield _factorized(draft, index, form, rank)


def _factorized(draft: Draft, index: int, form: Form, rank: int) -> Step:
    factors = functools.cache(lambda: _factors(form, rank))
    after = two_layers(draft, index, 2 * rank)
    first, second = after.layers[index : index + 2]
    after = after.put(index, dataclasses.replace(first, is_rounded_well=True, values=lambda: factors()[0]))
    after = after.put(index + 1, dataclasses.replace(second, values=lambda: factors()[1]))
    return Step(
        "low rank",
        f"factorize layer '{form.name}' into two layers by way of {2 * rank} features (rank {rank} of "
        f"{min(form.n_weights // form.features, form.features)})",
        after,
        caution="its sums pass as whole spikes of either sign",
        error=lambda: factors()[2],
    )


def _factors(form: Form, rank: int) -> tuple[Values, Values, float]:
    """Return the two layers, and the relative error of their product.

    Source: truncated singular value decomposition, by the eigenvectors of the smaller Gram matrix. Each direction is
    scaled so that its largest weight is one threshold.
    """
    values = form.values()
    matrix = values.weight.reshape(form.features, -1)
    is_flat = matrix.shape[0] <= matrix.shape[1]
    main = _directions(form)[:, -rank:]
    left = main if is_flat else matrix @ main
    right = main.T @ matrix if is_flat else main.T
    norm = np.linalg.norm(matrix)
    error = float(np.linalg.norm(matrix - left @ right) / norm) if norm else 0.0
    peak = np.maximum(np.abs(right).max(axis=1), np.finfo(np.float32).tiny)
    right, left = right / peak[:, None], left * peak
    both = np.concatenate([right, -right]).reshape(2 * rank, *values.weight.shape[1:])
    joined = np.concatenate([left, -left], axis=1)[:, :, None, None]
    return Values(both, None, 1.0, None, None), dataclasses.replace(values, weight=joined), error


_KNOWN: weakref.WeakKeyDictionary[Form, Array] = weakref.WeakKeyDictionary()
"""Directions of layers that drafts share, as long as one of these drafts is there."""


def _directions(form: Form) -> Array:
    """Return the directions of the weights' smaller side, those that matter most last."""
    if form not in _KNOWN:
        matrix = form.values().weight.reshape(form.features, -1)
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        _KNOWN[form] = np.asarray(np.linalg.eigh(gram)[1], np.float32)
    return _KNOWN[form]


def leave_out_features(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts without the features whose weights matter least, by their norm where they are read."""
    for wanted in feature_choices(draft, problem):
        errors: list[Callable[[], float]] = []
        after: Draft | None = draft
        for index, features in wanted.items():
            after = None if after is None else _pruned(after, index, features, errors)
        if after is None:
            continue
        what = [
            f"{draft.layers[index].features - features} of the {draft.layers[index].features} features of layer "
            f"'{draft.layers[index].name}'"
            for index, features in wanted.items()
        ]
        yield Step(
            "left out features",
            f"leave out {listed(what)}, those whose weights are smallest where they are read",
            after,
            caution="which features matter, only data can tell",
            error=lambda errors=tuple(errors): max(error() for error in errors),  # type: ignore[misc]
        )


def _pruned(draft: Draft, index: int, features: int, errors: list[Callable[[], float]]) -> Draft | None:
    form, outgoing = dense(draft.layers[index]), draft.outgoing(index)
    targets = {edge.target: dense(draft.layers[edge.target]) for edge in outgoing if edge.target is not None}
    if len(targets) != len(outgoing) or any(len(draft.incoming(target)) > 1 for target in targets):
        return None
    if any(edge.feature_shift for edge in outgoing) or any(t.in_shape[0] != form.features for t in targets.values()):
        return None  # a reader has channels that nothing feeds

    @functools.cache
    def kept() -> tuple[NDArray[np.intp], float]:
        power = sum(np.square(target.values().weight).sum(axis=(0, 2, 3)) for target in targets.values())
        order = np.argsort(-np.asarray(power), kind="stable")
        lost, total = float(np.sum(power[order[features:]])), float(np.sum(power))
        return np.sort(order[:features]), (lost / total) ** 0.5 if total else 0.0

    def narrow() -> Values:
        values, own = form.values(), kept()[0]
        bias = None if values.bias is None else values.bias[own]
        v_init = None if values.v_init is None else values.v_init[own]
        return dataclasses.replace(values, weight=values.weight[own], bias=bias, v_init=v_init)

    def read(target: Form) -> Values:
        values = target.values()
        return dataclasses.replace(values, weight=values.weight[:, kept()[0]])

    errors.append(lambda: kept()[1])
    out_shape = features, *form.out_shape[1:]
    after = draft.put(index, dataclasses.replace(form, out_shape=out_shape, values=lazy(narrow)))
    for place, target in targets.items():
        in_shape = features, *target.in_shape[1:]
        wanted = lazy(functools.partial(read, target))
        after = after.put(place, dataclasses.replace(target, in_shape=in_shape, values=wanted))
    return after


def pool_before_linear(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the drafts in which layers that cover their input read a larger pool, with averaged weights."""
    for layers in problem.choices:
        for factor in FACTORS:
            after: Draft | None = draft
            errors: list[Callable[[], float]] = []
            for index in layers:
                after = None if after is None else _averaged(after, index, factor, errors)
            if after is not None and layers:
                yield Step(
                    "pool before Linear",
                    f"pool {factor}x{factor} more in front of {names(draft, layers)}, each weight the mean of those "
                    "it stands for",
                    after,
                    caution="places within a window are no longer told apart",
                    error=lambda errors=tuple(errors): max(error() for error in errors),  # type: ignore[misc]
                )


def _averaged(draft: Draft, index: int, factor: int, errors: list[Callable[[], float]]) -> Draft | None:
    form, incoming = dense(draft.layers[index]), draft.incoming(index)
    _, height, width = form.in_shape
    if not form.covers_input or min(height, width) < factor or any(edge.source == INPUT for edge in incoming):
        return None
    if height % factor or width % factor:
        return None
    in_shape = form.in_shape[0], height // factor, width // factor

    @functools.cache
    def made() -> tuple[Values, float]:
        values = form.values()
        features, channels = values.weight.shape[:2]
        blocks = values.weight.reshape(features, channels, in_shape[1], factor, in_shape[2], factor)
        mean = blocks.mean(axis=(3, 5), dtype=np.float32)
        norm = float(np.linalg.norm(values.weight))
        error = float(np.linalg.norm(blocks - mean[:, :, :, None, :, None])) / norm if norm else 0.0
        return dataclasses.replace(values, weight=mean), error

    errors.append(lambda: made()[1])
    window = dataclasses.replace(form.window, kernel=in_shape[1:])
    smaller = dataclasses.replace(form, window=window, in_shape=in_shape, values=lambda: made()[0])
    edges = tuple(
        dataclasses.replace(edge, pool=(edge.pool[0] * factor, edge.pool[1] * factor)) if edge in incoming else edge
        for edge in draft.edges
    )
    return dataclasses.replace(draft.put(index, smaller), edges=edges)


def halved_recordings(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft that is fed with recordings scaled down beforehand by what the input's pool did so far."""
    del problem
    channels, height, width = draft.input_shape
    for factor in (*FACTORS, 8):
        edges = draft.outgoing(INPUT)
        if any(edge.pool[0] % factor or edge.pool[1] % factor for edge in edges) or height % factor or width % factor:
            continue
        after = tuple(
            dataclasses.replace(edge, pool=(edge.pool[0] // factor, edge.pool[1] // factor)) if edge in edges else edge
            for edge in draft.edges
        )
        shape = channels, height // factor, width // factor
        yield Step(
            "smaller input",
            f"feed it recordings scaled down from {size((height, width))} to {size(shape[1:])}, and pool them "
            f"{factor} times less",
            dataclasses.replace(draft, edges=after, input_shape=shape),
            caution="the recordings have to be scaled down before",
        )


def tame_threshold(draft: Draft, problem: Problem) -> Iterator[Step]:
    """Yield the draft in which weights, biases and ``v_min`` are clipped, so that the threshold keeps a number."""
    after = draft
    for index in problem.layers:
        form = draft.layers[index]
        if form.values().threshold > _LARGEST:
            return  # no clipping makes a threshold smaller
        values = lazy(functools.partial(_tamed, form))
        after = after.put(index, dataclasses.replace(form, values=values, is_rounded_well=True))
    yield Step(
        "threshold",
        f"clip weights, biases and v_min of {names(draft, problem.layers)} to at most "
        f"{2 ** (WEIGHT_BITS - 1) - 1} thresholds, and v_min to as many as 16 bits hold",
        after,
        caution="a weight that is clipped makes its neuron spike all the same, but fewer times",
    )


_LARGEST = 1e38
"""Thresholds beyond this leave float32, in which the net is discretized."""


def _tamed(form: Form) -> Values:
    values = form.values()
    largest = values.threshold * (2 ** (WEIGHT_BITS - 1) - 1)
    loudest = values.threshold * (2 ** (BIAS_BITS - 1) - 1)
    lowest = values.threshold * (form.chip.numbers.threshold_low[0] + 1)
    bias = None if values.bias is None else np.clip(values.bias, -loudest, loudest)
    v_min = None if values.v_min is None else max(values.v_min, lowest)
    return dataclasses.replace(values, weight=np.clip(values.weight, -largest, largest), bias=bias, v_min=v_min)
