"""Where the decisions of a stream go: a rolling log of JSON lines, and a picture of the confidence over time."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from .atomic import write_atomic
from .errors import InferenceError
from .stream import Decision

_MAX_POINTS = 4000


class DecisionLog:
    """One JSON object a line for each decision; a file of more than ``max_bytes`` becomes ``NAME.1``, ``.1`` ``.2`` ...

    At most ``n_files`` are kept. A context manager that closes the file.
    """

    def __init__(
        self, path: str | Path, *, classes: Sequence[str] = (), max_bytes: int = 1 << 26, n_files: int = 4
    ) -> None:
        if max_bytes < 1 or n_files < 1:
            raise InferenceError(
                f"log: expected max_bytes and n_files of 1 or more, found {max_bytes} and {n_files}. Try n_files=4."
            )
        self._path, self._classes, self._max_bytes, self._n_files = Path(path), tuple(classes), max_bytes, n_files
        self._stream = self._path.open("w", encoding="utf-8")
        self._n_bytes = 0

    def add(self, decision: Decision) -> None:
        """Write one line; what was written is on its way to the disk when this returns."""
        line = json.dumps(decision_dict(decision, self._classes), allow_nan=False) + "\n"
        if self._n_bytes and self._n_bytes + len(line) > self._max_bytes:
            self._roll()
        self._stream.write(line)
        self._stream.flush()
        self._n_bytes += len(line)

    def _roll(self) -> None:
        self._stream.close()
        older = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._n_files))]
        for newer, old in zip(older[-2::-1], older[:0:-1], strict=True):
            if newer.exists():
                newer.replace(old)
        self._stream = self._path.open("w", encoding="utf-8")
        self._n_bytes = 0

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def decision_dict(decision: Decision, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a decision as plain values; with the class's name where there is one."""
    named = {"class_name": classes[decision.winner]} if decision.winner < len(classes) else {}
    return {
        "index": decision.index,
        "t_us": decision.t_us,
        "class": decision.winner,
        **named,
        "confidence": [round(value, 6) for value in decision.confidence.tolist()],
        "margin": decision.margin,
        "n_events": decision.n_events,
        "latency_ms": decision.latency_s * 1e3,
    }


class ConfidenceTrace:
    """The confidence in each class over a stream of any length, in fixed memory.

    Where it is full every second point is left out, and from then on only every second decision is kept.
    """

    def __init__(self, *, n_most: int = _MAX_POINTS) -> None:
        self._n_most, self._stride = n_most, 1
        self._points: list[tuple[int, tuple[float, ...]]] = []

    def add(self, decision: Decision) -> None:
        """Keep the decision, or not."""
        if decision.index % self._stride:
            return
        if len(self._points) == self._n_most:
            self._points = self._points[::2]
            self._stride *= 2
            if decision.index % self._stride:
                return
        self._points.append((decision.t_us, tuple(decision.confidence.tolist())))

    def __len__(self) -> int:
        return len(self._points)

    def draw(self, path: str | Path, *, classes: Sequence[str] = (), title: str = "") -> None:
        """Write the picture, one line for each class, to a ``.svg`` or ``.png`` file, whole or not at all.

        Raises: InferenceError for another suffix, or where there was no decision.
        """
        from matplotlib.figure import Figure

        file = Path(path)
        kind = file.suffix.lower().removeprefix(".")
        if kind not in ("svg", "png") or not self._points:
            raise InferenceError(
                f"{file.name}: expected a name that ends in .svg or .png, and a decision, found '{file.suffix}' "
                f"and {len(self._points)} decisions. Try confidence.svg."
            )
        first = self._points[0][0]
        seconds = (np.array([t_us for t_us, _ in self._points]) - first) * 1e-6
        values = np.array([confidence for _, confidence in self._points])
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot()
        for index in range(values.shape[1]):
            name = classes[index] if index < len(classes) else str(index)
            axes.plot(seconds, values[:, index], label=name, linewidth=1.4, color=_color(index, values.shape[1]))
        axes.set(xlabel="Time in s", ylabel="Confidence", ylim=(0, 1), title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
        stream = io.BytesIO()
        # Without a date equal decisions give equal bytes.
        figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None)
        write_atomic(file, stream.getvalue())


def _color(index: int, n: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](index) if n <= 10 else colormaps["turbo"](index / max(1, n - 1))
