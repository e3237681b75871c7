"""What a metric is, and what it sees of a batch."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import InferenceError
from .predictor import Predictor, Response, decide

State = dict[str, Any]
"""Plain JSON values: what a shard is written with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """One batch as a metric sees it, of one output of a predictor.

    Shapes: ``values`` ``[B, *shape]`` is what the readout made of ``curve`` ``[T, B, *shape]``; ``live`` ``[T, B]``
    says which steps belong to a sample, ``lengths_us`` ``[B]`` how long it is, ``tie_breaks`` as in ``Response``.
    ``targets`` is None, labels ``[B]``, or ``[B, *shape]``, or one such entry per step for each sample.
    ``decided_us`` ``[B]`` is the end of the step from which on the decision stayed what it is, -1 without one.
    """

    output: str
    indices: tuple[int, ...]
    targets: Any
    values: NDArray[np.float64]
    tie_breaks: NDArray[Any] | None
    curve: NDArray[Any]
    live: NDArray[np.bool_]
    lengths_us: NDArray[np.int64]
    decided_us: NDArray[np.int64] | None
    response: Response
    predictor: Predictor

    @property
    def classes(self) -> NDArray[np.int64]:
        """The decision for each sample."""
        return decide(self.values, self.tie_breaks)

    def labels(self, who: str) -> NDArray[np.int64]:
        """Return the targets as classes of this output, ``[B]``.

        Raises: InferenceError where there are none, or they are no classes.
        """
        if self.targets is None:
            raise InferenceError(f"metric {who}: expected a label for each sample, found none. Try labelled data.")
        labels = np.asarray(self.targets)
        n_classes = int(np.prod(self.values.shape[1:]))
        if labels.shape != self.values.shape[:1] or labels.dtype.kind not in "iu":
            raise InferenceError(
                f"metric {who}: expected one whole number per sample as label, found {labels.dtype} of shape "
                f"{list(labels.shape)} for {len(self.values)} samples. Try mean_square_error for other targets."
            )
        outside = (labels < 0) | (labels >= n_classes)
        if outside.any():
            at = int(np.argmax(outside))
            raise InferenceError(
                f"metric {who}: sample {self.indices[at]}: expected a label of 0..{n_classes - 1} for {n_classes} "
                f"outputs, found {int(labels[at])} ({int(outside.sum())} of this batch). "
                "Try labels that are indices of the predictor's classes."
            )
        return labels.astype(np.int64)


class Metric(Protocol):
    """A measure of the answers: pure functions of states that are JSON values.

    Law: ``merge`` of the states of any parts of the data is the state of the whole, exactly.
    """

    @property
    def name(self) -> str:
        """What the result is called."""
        ...

    def empty(self) -> State:
        """Return the state before any sample."""
        ...

    def update(self, state: State, seen: Seen) -> State:
        """Return the state after one more batch."""
        ...

    def merge(self, a: State, b: State) -> State:
        """Return the state of both parts."""
        ...

    def result(self, state: State) -> Any:
        """Return the measure, of plain JSON values; None before any sample."""
        ...
