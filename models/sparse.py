"""Event counts of a batch in time steps, only those that are not 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayRecord, frozen
from .errors import InferenceError
from .events import Events

_MAX_ROWS = 1 << 24


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SparseSteps(ArrayRecord):
    """What arrives in each step of each sample, as cells and amounts.

    Shapes: ``shape`` is ``(T, B, N)``, N the cells of the input; what arrives in step t of sample b are the entries
    from ``starts[t * B + b]`` to the next start, of ``cells`` and ``amounts``, both ``[n]``.
    Raises: InferenceError for entries outside that shape, or amounts that are not finite.
    """

    starts: NDArray[np.int64]
    cells: NDArray[np.int64]
    amounts: NDArray[np.float32]
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        for name, dtype in (("starts", np.int64), ("cells", np.int64), ("amounts", np.float32)):
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))
        n_steps, n_samples, n_cells = self.shape
        n = len(self.cells)
        wrong = []
        if min(self.shape) < 0 or self.starts.shape != (n_steps * n_samples + 1,):
            wrong.append(f"{n_steps * n_samples + 1} starts, found {list(self.starts.shape)}")
        elif self.starts[0] != 0 or self.starts[-1] != n or (np.diff(self.starts) < 0).any():
            wrong.append(f"starts that go from 0 up to {n}")
        if self.amounts.shape != (n,) or self.cells.ndim != 1:
            wrong.append(f"one amount for each cell, found {list(self.amounts.shape)} for {list(self.cells.shape)}")
        elif n and not (int(self.cells.min()) >= 0 and int(self.cells.max()) < n_cells):
            wrong.append(f"cells of 0..{n_cells - 1}, found {int(self.cells.min())}..{int(self.cells.max())}")
        if not np.isfinite(self.amounts).all():
            wrong.append("finite amounts, found NaN or infinity")
        if wrong:
            raise InferenceError(f"sparse steps: expected {'; '.join(wrong)}. Try sparse_raster(raster).")

    @property
    def n_events(self) -> int:
        """Number of entries."""
        return len(self.cells)

    def to_raster(self) -> NDArray[np.float32]:
        """Return the sums as an array ``[T, B, N]``."""
        n_steps, n_samples, n_cells = self.shape
        rows = np.repeat(np.arange(n_steps * n_samples), np.diff(self.starts))
        total = np.bincount(rows * n_cells + self.cells, self.amounts, n_steps * n_samples * n_cells)
        return total.astype(np.float32).reshape(self.shape)


def sparse_events(
    recordings: Sequence[Events], *, n_steps: int, step_us: int, first: int = 0, channels: int = 2
) -> SparseSteps:
    """Return the events of ``n_steps`` steps from step ``first`` on, each an entry of its own, in their order.

    Shapes: a cell is ``(p * height + y) * width + x``; with ``channels`` of 1 polarities are merged.
    Law: ``sparse_events(r, ...).to_raster()`` equals the raster of the same steps.
    Raises: InferenceError where there are too many steps, or events outside of them.
    """
    from .lif_loops import place_events

    n_samples = len(recordings)
    height, width = recordings[0].sensor_size
    if n_steps * n_samples > _MAX_ROWS:
        raise InferenceError(
            f"steps: expected at most {_MAX_ROWS} at once, found {n_steps} steps of {n_samples} recordings. "
            "Try longer steps, smaller pieces, or events.from_zero()."
        )
    rows, cells = [], []
    for sample, events in enumerate(recordings):
        step = events.t_us // step_us - first
        if len(step) and not (step[0] >= 0 and step[-1] < n_steps):
            raise InferenceError(
                f"steps: expected events of {n_steps} steps, found some of step {int(step[0])} to {int(step[-1])}. "
                "Try events.from_zero(), or more steps."
            )
        rows.append(step * n_samples + sample)
        channel = events.p.astype(np.int64) if channels == 2 else 0
        cells.append((channel * height + events.y.astype(np.int64)) * width + events.x)
    found = np.concatenate(cells) if cells else np.zeros(0, np.int64)
    starts, placed = np.zeros(n_steps * n_samples + 1, np.int64), np.empty(len(found), np.int64)
    place_events(np.concatenate(rows), found, starts, placed)
    amounts = np.ones(len(found), np.float32)
    _lock(starts, placed, amounts)
    return SparseSteps(starts, placed, amounts, (n_steps, n_samples, channels * height * width))


def sparse_raster(raster: NDArray[Any], *, most: float = 1.0) -> SparseSteps | None:
    """Return the values of a raster ``[T, B, ...]`` that are not 0; None where they are more than ``most`` of all.

    Law: ``sparse_raster(r).to_raster()`` equals ``r``, with the axes behind time and batch as one.
    Raises: InferenceError for fewer than three axes, or values that are not finite.
    """
    from .lif_loops import find_amounts

    if raster.ndim < 3:
        raise InferenceError(f"raster: expected [time, batch, ...], found {list(raster.shape)}. Try raster[:, None].")
    n_steps, n_samples = raster.shape[:2]
    flat = np.ascontiguousarray(raster.reshape(n_steps * n_samples, -1) if raster.size else raster, np.float32)
    flat = flat.reshape(n_steps * n_samples, int(np.prod(raster.shape[2:])))
    room = int(np.ceil(most * flat.size))
    starts = np.zeros(len(flat) + 1, np.int64)
    cells, amounts = np.empty(room + 16, np.int64), np.empty(room + 16, np.float32)
    n = find_amounts(flat, starts, cells, amounts)
    if n > room:
        return None
    cells, amounts = cells[:n], amounts[:n]
    _lock(starts, cells, amounts)
    return SparseSteps(starts, cells, amounts, (n_steps, n_samples, flat.shape[1]))


def _lock(*arrays: NDArray[Any]) -> None:
    """Make arrays that nobody else has read-only: a record takes such without a copy."""
    for array in arrays:
        array.flags.writeable = False
