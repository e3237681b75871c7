"""Where a spiking net leaves its CNN, layer by layer, why, and the knob to turn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.convert.errors import InputError
from spikeport.convert.geometry import Shape3
from spikeport.convert.rasters import spread, stack_rasters
from spikeport.convert.simulate import STEP_US
from spikeport.convert.types import Conversion
from spikeport.models.arrays import ArrayRecord, frozen
from spikeport.models.events import Events

from .causes import (
    INPUT_SPAN,
    Cause,
    Verdict,
    dead_share,
    error_parts,
    find_verdict,
    limit,
    own_error,
    size,
    slope_through_origin,
    unit,
)
from .curves import CurvePoint, accuracy_curve, cnn_answers
from .measure import LayerCounts, measure_layers

N_POINTS = 2000
"""Most points of a layer that are kept for its picture."""

N_RECORDINGS = 32
"""Most recordings that ``run_diagnosis`` takes: some seconds for a small net."""

_N_STEPS = 16
"""Time steps of a frame where neither the caller nor the biases of the net say how many."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerDiagnosis(ArrayRecord):
    """How the spikes of one layer follow the activations of the CNN, over all recordings.

    ``slope`` and ``r2`` are of the line through the origin, ``slope_free``, ``intercept`` and ``r2_free`` of the line
    with one. ``own_slope`` is that of the spikes over what the CNN's layer makes of the spikes that arrived: what this
    layer does by itself. ``error`` is what the layer's spikes are off by, ``own_error`` the part that arises here, both
    as a share of the root mean square of the spikes asked for; ``error_share`` is the layer's share of the sum of all
    layers' own squared errors; ``parts`` says where the error comes from (``causes.error_parts``).
    ``bound_share``, ``saturated_share`` and ``uneven_share`` are shares of neurons, each counted in each recording:
    those that the lower bound took potential from, those above what the chip or the CNN's upper bound allows, those
    that fired though their input asks for nothing, because excitation came first. ``dead_share`` never fire though the
    CNN's do, ``silent_share`` do so in neither.
    Shapes: ``activations`` and ``spikes`` are a sample of at most ``N_POINTS`` neurons that are not silent in both.
    Units: activations are in spikes.
    """

    verdict: Verdict
    n_neurons: int
    mean_activation: float
    mean_spikes: float
    slope: float
    r2: float
    slope_free: float
    intercept: float
    r2_free: float
    own_slope: float
    error: float
    own_error: float
    error_share: float
    bound_share: float
    saturated_share: float
    uneven_share: float
    dead_share: float
    silent_share: float
    parts: Mapping[str, float]
    activations: NDArray[np.float32]
    spikes: NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))
        object.__setattr__(self, "activations", frozen(self.activations, np.float32))
        object.__setattr__(self, "spikes", frozen(self.spikes, np.float32))

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.verdict.layer

    @property
    def cause(self) -> Cause:
        """What is wrong with the layer, or ``healthy``."""
        return self.verdict.cause


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(ArrayRecord):
    """Where a spiking net leaves its CNN: a row for each layer, curves of the accuracy, and what to do.

    ``curve`` is empty where the net has no classes. ``cnn_accuracy`` is None without labels.
    """

    layers: tuple[LayerDiagnosis, ...]
    curve: tuple[CurvePoint, ...]
    input: Verdict | None
    cnn_accuracy: float | None
    n_samples: int
    n_steps: int

    @property
    def problems(self) -> tuple[Verdict, ...]:
        """What is wrong, from the input on; empty where all is healthy."""
        layers = tuple(layer.verdict for layer in self.layers if layer.cause != "healthy")
        return layers if self.input is None else (self.input, *layers)

    @property
    def first_bad(self) -> Verdict | None:
        """The first thing that is wrong: what is wrong behind it may follow from it."""
        return next(iter(self.problems), None)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is wrong and the knob to turn, as sentences."""
        if not self.problems:
            worst = max(self.layers, key=lambda layer: layer.own_error)
            text = f"No bad layer: the largest error of a layer's own is {worst.own_error:.0%}, in '{worst.name}'"
            order = worst.parts.get("order", 0.0)
            if order < worst.own_error / 2:
                return (f"{text}.",)
            return (f"{text}, most of it by the order of spikes: excitation that comes before inhibition fires.",)
        first, *rest = map(str, self.problems)
        return (f"First bad layer: {first}", *(f"Behind it, perhaps because of it: {text}" for text in rest))

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as plain values, ready for JSON, without the points of the pictures."""
        left_out = ("verdict", "parts", "activations", "spikes")
        rows = []
        for layer in self.layers:
            fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer) if f.name not in left_out}
            rows.append({**dataclasses.asdict(layer.verdict), **fields, "parts": dict(layer.parts)})
        return {
            "first_bad": dataclasses.asdict(self.first_bad) if self.first_bad else None,
            "problems": [dataclasses.asdict(verdict) for verdict in self.problems],
            "sentences": list(self.sentences),
            "cnn_accuracy": self.cnn_accuracy,
            "n_samples": self.n_samples,
            "n_steps": self.n_steps,
            "layers": rows,
            "curve": [dataclasses.asdict(point) for point in self.curve],
        }


def diagnose(
    conversion: Conversion, raster: ArrayLike, *, labels: ArrayLike | None = None, frames: ArrayLike | None = None
) -> Diagnosis:
    """Return where ``conversion.net`` leaves ``conversion.scaled`` on recordings, and why.

    Each layer is judged by what it makes of the spikes that reach it: an error is blamed on the layer where it arises,
    not on those that inherit it. ``labels`` add accuracies; ``frames``, those of the calibration, tell whether the
    recordings are like them.
    Shapes: ``raster`` is ``[T, C, H, W]`` or ``[T, B, C, H, W]``, ``labels`` ``[B]``, ``frames`` ``[N, C, H, W]``.
    Law: on a net whose layers are those of ``scaled``, without lower bound, no error is blamed on weights or bounds.
    Raises: InputError where raster or labels do not match, or the net is not that of the conversion.
    """
    given = np.asarray(raster)
    batch = given[:, None] if given.ndim == 4 else given
    if batch.ndim != 5 or 0 in batch.shape or batch.shape[2:] != conversion.net.input_shape:
        raise InputError(
            f"raster: expected shape [T, {', '.join(map(str, conversion.net.input_shape))}], or the same with a batch "
            f"axis behind T, found {list(given.shape)}. Try Events.to_raster(dt_us)."
        )
    truth = None if labels is None else np.atleast_1d(np.asarray(labels))
    if truth is not None and truth.shape != batch.shape[1:2]:
        raise InputError(f"labels: expected {batch.shape[1]}, one for each recording, found {list(truth.shape)}.")
    measured = measure_layers(conversion, batch)
    own = np.array([own_error(counts) ** 2 for counts in measured])
    shares = own / (own.sum() or 1.0)
    answers = cnn_answers(conversion, batch)
    return Diagnosis(
        layers=tuple(_layer(counts, float(share)) for counts, share in zip(measured, shares, strict=True)),
        curve=accuracy_curve(conversion.net, batch, answers=answers, labels=truth),
        input=None if frames is None else _input_verdict(batch, np.asarray(frames)),
        cnn_accuracy=None if truth is None else float((answers == truth).mean()),
        n_samples=batch.shape[1],
        n_steps=batch.shape[0],
    )


def run_diagnosis(
    conversion: Conversion,
    *,
    frames: ArrayLike | None = None,
    recordings: Sequence[Events] = (),
    labels: ArrayLike | None = None,
    n_steps: int | None = None,
) -> Diagnosis:
    """Return the diagnosis on the first ``N_RECORDINGS`` recordings, in steps of ``STEP_US``; without any, on frames.

    Frames are spread over ``n_steps``; None: as many as the biases of the net are spread over, 16 where there are none.
    They know no order of events, so recordings tell more. Where both are given, the recordings are compared with the
    frames as those of the calibration.
    Shapes: ``frames`` is ``[N, C, H, W]``, ``labels`` has one for each recording, or frame where there is none.
    Raises: InputError as ``diagnose``, or where there is neither a frame nor a recording.
    """
    truth = None if labels is None else np.atleast_1d(np.asarray(labels))[:N_RECORDINGS]
    shape = conversion.net.input_shape
    array = None if frames is None else _frames(np.asarray(frames), shape)
    if recordings:
        given = stack_rasters(recordings[:N_RECORDINGS], STEP_US, merge_polarity=shape[0] == 1)
        return diagnose(conversion, given, labels=truth, frames=array)
    if array is None:
        raise InputError("diagnosis: expected recordings or frames, found neither. Try the calibration data (--data).")
    steps = _bias_steps(conversion) if n_steps is None else n_steps
    return diagnose(conversion, spread(array[:N_RECORDINGS], steps), labels=truth, frames=array)


def _frames(array: NDArray[Any], shape: Shape3) -> NDArray[Any]:
    if array.ndim < 2 or not array.size or math.prod(array.shape[1:]) != math.prod(shape):
        raise InputError(f"frames: expected shape [N, {', '.join(map(str, shape))}], found {list(array.shape)}.")
    return array.reshape(len(array), *shape)


def _bias_steps(conversion: Conversion) -> int:
    """Return how many steps the biases of the net are spread over, ``_N_STEPS`` where nothing says so."""
    for layer in conversion.net.layers:
        node = conversion.scaled[layer.name]
        meant, added = getattr(node, "bias", None), layer.bias
        if meant is not None and added is not None and added.any():
            product = float(meant @ added) / layer.threshold
            return max(1, round(float(meant @ meant) / product)) if product > 0 else _N_STEPS
    return _N_STEPS


def _input_verdict(batch: NDArray[Any], frames: NDArray[Any]) -> Verdict | None:
    here, there = float(np.abs(batch).sum() / batch.shape[1]), float(np.abs(frames).sum() / max(1, len(frames)))
    ratio = here / there if there else math.inf
    if 1 / INPUT_SPAN <= ratio <= INPUT_SPAN:
        return None
    return Verdict(
        "input",
        "input unlike calibration",
        f"a recording holds {here:,.4g} events on average, {ratio:.3g} times as many as a calibration frame "
        f"({there:,.4g}).",
        "Try calibration frames like these recordings (--data), or windows with as many events.",
    )


def _layer(counts: LayerCounts, error_share: float) -> LayerDiagnosis:
    a, n = counts.activations, counts.spikes
    slope = slope_through_origin(a, n)
    slope_free, intercept = _line(a, n)
    active = (a >= 1).any(axis=0)
    fired = n.any(axis=0)
    points = _points(a, n)
    return LayerDiagnosis(
        verdict=find_verdict(counts),
        n_neurons=int(active.size),
        mean_activation=float(a.mean()),
        mean_spikes=float(n.mean()),
        slope=slope,
        r2=_r2(n, slope * a),
        slope_free=slope_free,
        intercept=intercept,
        r2_free=_r2(n, slope_free * a + intercept),
        own_slope=slope_through_origin(counts.asked, n),
        error=size(n - a) / unit(counts),
        own_error=own_error(counts),
        error_share=error_share,
        bound_share=float(counts.hit.mean()),
        saturated_share=float((n > limit(counts)).mean()),
        uneven_share=float(((n > 0) & (counts.asked <= 0)).mean()),
        dead_share=dead_share(counts),
        silent_share=float((~active & ~fired).mean()),
        parts=error_parts(counts),
        activations=points[0],
        spikes=points[1],
    )


def _line(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    mean_x, mean_y = float(x.mean(dtype=np.float64)), float(y.mean(dtype=np.float64))
    spread_x = x.astype(np.float64) - mean_x
    square = float(np.sum(spread_x**2))
    slope = float(np.sum(spread_x * (y - mean_y))) / square if square else 0.0
    return slope, mean_y - slope * mean_x


def _r2(y: NDArray[Any], line: NDArray[Any]) -> float:
    """Return the share of the variance of ``y`` that a line explains: 1 where it meets all of a constant ``y``."""
    variance = float(np.sum(np.square(y - y.mean(dtype=np.float64), dtype=np.float64)))
    left = float(np.sum(np.square(y - line, dtype=np.float64)))
    return 1 - left / variance if variance else float(left == 0)


def _points(a: NDArray[Any], n: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return at most ``N_POINTS`` pairs, evenly taken from those that are not silent in both."""
    places = np.flatnonzero((a > 0) | (n > 0))
    chosen = places[np.linspace(0, len(places) - 1, min(N_POINTS, len(places))).round().astype(int)]
    return a.ravel()[chosen], n.ravel()[chosen]


def diagnosis_tables(diagnosis: Diagnosis) -> list[object]:
    """Return the diagnosis for a terminal: a row per layer, where its error comes from, accuracy, and what to do."""
    from spikeport.models.console import table

    layers = [
        (
            layer.name,
            layer.slope,
            layer.r2,
            layer.own_slope,
            *(
                100 * share
                for share in (
                    layer.own_error,
                    layer.error_share,
                    layer.bound_share,
                    layer.saturated_share,
                    layer.uneven_share,
                    layer.dead_share,
                    layer.silent_share,
                )
            ),
            layer.cause,
        )
        for layer in diagnosis.layers
    ]
    shares = ("Own error %", "Of all %", "At bound %", "Saturated %", "Uneven %", "Dead %", "Silent %")
    over = f"{diagnosis.n_samples} recordings of {diagnosis.n_steps} steps"
    title = f"Spikes against activations of the CNN, over {over}"
    parts = [(layer.name, *(100 * part for part in layer.parts.values())) for layer in diagnosis.layers]
    names = [f"{name.capitalize()} %" for name in next(iter(diagnosis.layers)).parts]
    shown = [
        table(title, ("Layer", "Slope", "R2", "Own slope", *shares, "Verdict"), layers),
        table("Where the error comes from, in % of the layer's spikes", ("Layer", *names), parts),
    ]
    if diagnosis.curve:
        rows = [
            (
                str(point.n_steps),
                round(point.spikes),
                None if point.synops is None else round(point.synops),
                100 * point.agreement,
                *(() if point.accuracy is None else (100 * point.accuracy,)),
            )
            for point in diagnosis.curve
        ]
        columns = ("Steps", "Spikes", "Synops", "Same class as CNN %")
        labelled = diagnosis.cnn_accuracy is not None
        cnn = f"; the CNN has {diagnosis.cnn_accuracy:.1%} right" if labelled else ""
        shown.append(table(f"Per recording{cnn}", (*columns, "Right %") if labelled else columns, rows))
    return [*shown, *diagnosis.sentences]
