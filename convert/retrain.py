"""A training loop for prepared CNNs on frames: cross entropy, a bound on synops, Adam; the best epoch is kept."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.models.errors import TrainingError
from spikeport.models.train import TrainResult, classify_frames, epoch_progress

from .errors import CalibrationError, WeightValueError
from .prepare import expected_synops, synop_penalty

if TYPE_CHECKING:
    import torch
    from torch import nn


_FEWEST_STEPS = 12
"""Of a schedule: the tenth of fewer, in which the rate rises, is no step."""

_SLACK = 0.05
"""Of a bound on synops: an epoch that keeps to it within this share is no worse than one far below."""


@dataclasses.dataclass(frozen=True)
class RetrainSettings:
    """How to train on frames.

    ``synop_target`` bounds the mean synops of a frame (None: no bound), ``synop_weight`` is what the squared share
    above it adds to the loss. ``validation_share`` of the frames, at most 500, choose the best epoch: the most accurate
    one of those that keep to the bound.
    Units: frames are shifted by up to ``shift_px`` pixels, and zeros come in at the border.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 1e-3
    shift_px: int = 2
    synop_target: float | None = None
    synop_weight: float = 3.0
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": 0 < self.learning_rate < 1,
            "shift_px": self.shift_px >= 0,
            "synop_target": self.synop_target is None or 0 < self.synop_target < math.inf,
            "synop_weight": 0 <= self.synop_weight < math.inf,
            "validation_share": 0 <= self.validation_share < 1,
            "seed": self.seed >= 0,
        }
        wrong = [f"{name}: {getattr(self, name)!r} is outside its range" for name, is_in in checks.items() if not is_in]
        if wrong:
            raise TrainingError(f"retraining settings: {'; '.join(wrong)}. Try RetrainSettings() as it is.")


def retrain(
    prepared: nn.Module, frames: ArrayLike, labels: ArrayLike, *, settings: RetrainSettings | None = None
) -> TrainResult:
    """Train a module of ``prepare_finetune`` in place and return how it went; the weights of the best epoch are kept.

    For recordings ``spikeport.models.train`` does the same without a bound on synops.
    Shapes: ``frames`` is ``[N, C, H, W]``, ``labels`` ``[N]``.
    Law: equal modules, frames, settings and numbers of threads give equal weights; torch's own random state stays.
    Raises: CalibrationError for frames or labels of another shape, WeightValueError for NaN, CaptureError for a module
    that is not prepared or takes other frames, TrainingError where the loss diverges.
    """
    import torch
    import torch.nn.functional as F

    settings = settings or RetrainSettings()
    x, y = _checked(frames, labels)
    started = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(y))
    n_validation = min(500, int(settings.validation_share * len(y)))
    held_out, used = order[:n_validation] if n_validation else order, order[n_validation:]
    steps = max(_FEWEST_STEPS, settings.epochs * -(-len(used) // settings.batch_size))
    optimizer = torch.optim.Adam(prepared.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1)
    history: list[tuple[float, float]] = []
    best: tuple[tuple[float, float], int, dict[str, torch.Tensor]] = ((-math.inf, 0.0), -1, {})
    with torch.random.fork_rng(devices=[]), epoch_progress("Fine-tuning", settings.epochs) as advance:
        torch.manual_seed(settings.seed)
        for epoch in range(settings.epochs):
            prepared.train()
            losses = []
            mixed = rng.permutation(used)
            for first in range(0, len(mixed), settings.batch_size):
                chosen = mixed[first : first + settings.batch_size]
                batch = torch.from_numpy(_shifted(x[chosen], rng, settings.shift_px))
                loss = F.cross_entropy(prepared(batch).flatten(1), torch.from_numpy(y[chosen]))
                if settings.synop_target is not None:
                    loss = loss + settings.synop_weight * synop_penalty(prepared, settings.synop_target)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"fine-tuning: expected a finite loss, found NaN or infinity in epoch {epoch + 1}. "
                        f"Try a learning_rate below {settings.learning_rate:g}."
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
            right = float((classify_frames(prepared, x[held_out]) == y[held_out]).mean())
            history.append((float(np.mean(losses)), right))
            score = (-_excess(prepared, settings.synop_target), right)
            if score >= best[0]:
                best = (score, epoch, copy.deepcopy(prepared.state_dict()))
            advance(f"loss {history[-1][0]:.3f}, validation {right:.1%}")
    prepared.load_state_dict(best[2])
    prepared.eval()
    wall_s = time.perf_counter() - started
    return TrainResult(best[1] + 1, best[0][1], tuple(history), len(used), len(held_out), wall_s)


def _excess(prepared: nn.Module, target: float | None) -> float:
    """Return by which share the synops of the last forward are above the target; up to ``_SLACK`` counts as none."""
    if target is None:
        return 0.0
    share = float(expected_synops(prepared).detach()) / target - 1
    return share if share > _SLACK else 0.0


def _checked(frames: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x, y = np.ascontiguousarray(frames, np.float32), np.asarray(labels)
    if x.ndim < 2 or not len(x) or y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise CalibrationError(
            f"fine-tuning: expected frames [N, C, H, W] with N labels of 0 or more, found {list(x.shape)} and "
            f"{y.dtype}{list(y.shape)}. Try one class index per frame."
        )
    if not np.isfinite(x).all():
        raise WeightValueError("fine-tuning: expected finite frames, found NaN or infinity. Try other frames.")
    return x, y.astype(np.int64)


def _shifted(frames: NDArray[np.float32], rng: np.random.Generator, most: int) -> NDArray[np.float32]:
    """Return maps ``[N, C, H, W]`` moved by up to ``most`` rows and columns, all alike, zeros behind them."""
    if frames.ndim != 4 or not most:
        return frames
    dy, dx = (int(step) for step in rng.integers(-most, most + 1, 2))
    height, width = frames.shape[2:]
    moved = np.zeros_like(frames)
    to_y, to_x = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    from_y, from_x = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
    moved[:, :, to_y, to_x] = frames[:, :, from_y, from_x]
    return moved
