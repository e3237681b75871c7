"""What evaluations and predictions return."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayRecord, frozen
from .errors import InferenceError
from .nearest import unknown
from .predictor import MAIN


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    ``results[output][metric]`` are plain JSON values; ``evaluation["accuracy"]`` is that of the only output.
    ``data`` holds what the callbacks of this process kept, by their keys, ``profile`` seconds by layer or kernel.
    ``first_s`` is the time until the first batch was done, compiling included.
    Units: seconds; ``n_steps`` are steps of all samples together.
    """

    results: Mapping[str, Mapping[str, Any]]
    n_samples: int
    n_steps: int
    n_events: int
    wall_s: float
    first_s: float
    n_ranks: int = 1
    n_resumed: int = 0
    profile: Mapping[str, float] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, metric: str) -> Any:
        """Return the result of a metric of the only output.

        Raises: InferenceError for a metric that was not measured, or with several outputs.
        """
        if len(self.results) != 1:
            raise InferenceError(
                f"evaluation: expected an output before the metric, as there are {', '.join(self.results)}, found "
                f"'{metric}'. Try evaluation.results['{next(iter(self.results))}']['{metric}']."
            )
        found = next(iter(self.results.values()))
        if metric not in found:
            raise InferenceError(unknown("evaluation: metric", metric, found))
        return found[metric]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the callbacks' data as plain values, ready for JSON."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "data"}
        results = {output: dict(found) for output, found in self.results.items()}
        return {**plain, "results": results, "profile": dict(self.profile)}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prediction(ArrayRecord):
    """What a predictor answered to each sample.

    Shapes: ``outputs[name]`` is ``[N, *shape]``, also for outputs that are one number; ``classes[name]`` ``[N]`` is the
    decision of each output.
    """

    outputs: Mapping[str, NDArray[Any]]
    classes: Mapping[str, NDArray[np.int64]]
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("outputs", "classes"):
            arrays = {key: frozen(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(arrays))

    @property
    def output(self) -> NDArray[Any]:
        """The values of the only output, or of that called ``output``."""
        return self.outputs[MAIN] if MAIN in self.outputs else next(iter(self.outputs.values()))


def _rate(n: int, seconds: float) -> float:
    return n / seconds if seconds > 0 else 0.0


def rates(found: Evaluation) -> dict[str, float]:
    """Return samples, steps and events per second of wall time; samples that were finished before do not count."""
    seconds = found.wall_s
    return {
        "samples_per_s": _rate(found.n_samples - found.n_resumed, seconds),
        "steps_per_s": _rate(found.n_steps, seconds),
        "events_per_s": _rate(found.n_events, seconds),
    }
