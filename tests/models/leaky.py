"""A small model of its own kind: leaky integrators with values in every step, two outputs, and carried state."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.predictor import Confidence, Inputs, Response, RunOptions, check_raster, check_recordings
from spikeport.models.window import OpenSteps, count_steps, no_events


@dataclasses.dataclass(frozen=True, eq=False)
class LeakyPredictor:
    """Potentials ``v = decay * v + W x`` of ``classes`` as ``"logits"``, and their sum as the scalar ``"total"``.

    Weights are whole numbers and the decay is a half, so that no sum is rounded where streams are short.
    """

    step_us: int = 1000
    n_classes: int = 4
    size: tuple[int, int] = (5, 6)
    seed: int = 0
    name: str = "leaky"
    layers: tuple[str, ...] = ("hidden",)
    classes: tuple[str, ...] = ()
    readout: str = "maximum"
    confidence: Confidence = "softmax"
    is_idle: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2, *self.size)

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (self.n_classes,), "total": ()}

    @property
    def weight(self) -> NDArray[np.float64]:
        rng = np.random.default_rng(self.seed)
        return rng.integers(-3, 4, (2 * self.size[0] * self.size[1], self.n_classes)).astype(np.float64)

    def start(self, options: RunOptions) -> LeakyRun:
        return LeakyRun(self, options)

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()


class LeakyRun:
    def __init__(self, predictor: LeakyPredictor, options: RunOptions) -> None:
        self._predictor, self._options = predictor, options
        self._weight = predictor.weight
        self._steps = OpenSteps(predictor.step_us, who="leaky")
        self._v: NDArray[np.float64] | None = None
        self.n_resets = 0

    def feed(self, inputs: Inputs, until_us: int) -> Response:
        predictor = self._predictor
        if isinstance(inputs, np.ndarray):
            raster = check_raster(inputs, predictor.input_shape, who="leaky")
            self._steps.skip(len(raster))
            n_events = np.zeros(raster.shape[1], np.int64)
        else:
            check_recordings(inputs, predictor.input_shape, who="leaky")
            first = self._steps.n_done
            taken, n_steps = self._steps.take(inputs, until_us)
            raster = count_steps(taken, n_steps, first=first, step_us=predictor.step_us, channels=2)
            n_events = np.array([len(events) for events in inputs], np.int64)
        n_steps, n_samples = raster.shape[:2]
        v = np.zeros((n_samples, predictor.n_classes)) if self._v is None else self._v[:n_samples]
        curve = np.zeros((n_steps, n_samples, predictor.n_classes))
        for step in range(n_steps):
            v = np.round(0.5 * v, 6) + raster[step].reshape(n_samples, -1) @ self._weight
            curve[step] = v
        self._v = v
        return Response(
            outputs={"logits": curve, "total": curve.sum(axis=2)},
            ends_us=self._steps.ends_us(n_steps, n_samples),
            n_events=n_events,
            recorded={"hidden": (curve > 0).astype(np.int32)[..., None, None]} if self._options.record else {},
            profile={"hidden": 0.001} if self._options.profile else {},
        )

    def finish(self) -> Response:
        n_steps = 1 if self._steps.is_waiting else 0
        empty = [no_events(self._predictor.size)] * max(1, self._steps.n_waiting)
        return self.feed(empty, (self._steps.n_done + n_steps) * self._predictor.step_us)

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:
        self.n_resets += 1
        self._steps.reset(time=time, pending=pending)
        if state:
            self._v = None

    def state(self) -> dict[str, NDArray[Any]]:
        kept = {f"clock/{name}": array for name, array in self._steps.state().items()}
        return kept if self._v is None else {**kept, "hidden": self._v.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._v = np.array(state["hidden"]) if "hidden" in state else None
        self._steps.restore({k.removeprefix("clock/"): a for k, a in state.items() if k.startswith("clock/")})
