"""Training of the recurrent LIF classifier on event recordings, every step of each."""

from __future__ import annotations

import copy
import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .data import EventDataset
from .errors import TrainingError
from .sparse import SparseSteps, sparse_events
from .train import TrainResult, epoch_progress

if TYPE_CHECKING:
    from .recurrent_lif import RecurrentLif


@dataclasses.dataclass(frozen=True)
class LifTrainSettings:
    """How to train: Adam at a constant rate, on whole recordings.

    ``validation_share`` of the recordings choose the best epoch; 0: the last one counts, and the accuracy of an epoch
    is that of its batches as they were trained on.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 2e-3
    validation_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": 0 < self.learning_rate < 1,
            "validation_share": 0 <= self.validation_share < 1,
            "seed": self.seed >= 0,
        }
        wrong = [f"{name}: {getattr(self, name)!r} is outside its range" for name, is_in in checks.items() if not is_in]
        if wrong:
            raise TrainingError(f"training settings: {'; '.join(wrong)}. Try LifTrainSettings() as it is.")


def train_lif(module: RecurrentLif, dataset: EventDataset, *, settings: LifTrainSettings | None = None) -> TrainResult:
    """Train ``module`` in place by the negative log likelihood of its classes, and return how it went.

    The maximum over time of a recording is taken over its own steps, whatever else is in its batch.
    Law: equal modules, data and settings give equal weights.
    Raises: TrainingError where recordings have no label or do not fit the module, or the loss diverges.
    """
    import torch
    import torch.nn.functional as F

    settings = settings or LifTrainSettings()
    channels = _channels(module, dataset)
    started = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(dataset))
    n_validation = int(settings.validation_share * len(dataset))
    held_out, used = order[:n_validation], order[n_validation:]
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate)
    history: list[tuple[float, float]] = []
    best = -1.0, 0, copy.deepcopy(module.state_dict())
    with epoch_progress("Training", settings.epochs) as advance:
        for epoch in range(settings.epochs):
            module.train()
            losses, n_right = [], 0
            shuffled = rng.permutation(used)
            for first in range(0, len(used), settings.batch_size):
                chosen = shuffled[first : first + settings.batch_size]
                steps, n_steps = _batch(module, dataset, chosen, channels)
                target = torch.from_numpy(dataset.labels[chosen])
                answer = module(steps, n_steps)
                loss = F.nll_loss(answer, target.to(answer.device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(float(loss.detach()))
                n_right += int((answer.detach().argmax(1).cpu() == target).sum())
            if not np.isfinite(losses).all():
                raise TrainingError(
                    f"training: expected a finite loss, found NaN or infinity in epoch {epoch + 1}. "
                    f"Try a learning_rate below {settings.learning_rate:g}."
                )
            right = n_right / len(used)
            if n_validation:
                right = float(
                    (classify_recordings(module, dataset.subset(held_out)) == dataset.labels[held_out]).mean()
                )
            history.append((float(np.mean(losses)), right))
            if right >= best[0] or not n_validation:
                best = right, epoch, copy.deepcopy(module.state_dict())
            advance(f"loss {history[-1][0]:.3f}, right {right:.1%}")
    module.load_state_dict(best[2])
    module.eval()
    wall_s = time.perf_counter() - started
    return TrainResult(best[1] + 1, best[0], tuple(history), len(used), n_validation, wall_s)


def classify_recordings(module: RecurrentLif, dataset: EventDataset) -> NDArray[np.int64]:
    """Return the class of each recording, ``[N]``.

    Raises: TrainingError where recordings do not fit the module.
    """
    import torch

    channels = _channels(module, dataset, needs_labels=False)
    found = []
    with torch.no_grad():
        for first in range(0, len(dataset), 32):
            chosen = np.arange(first, min(first + 32, len(dataset)))
            found.append(module(*_batch(module, dataset, chosen, channels)).argmax(1).cpu().numpy())
    return np.concatenate(found)


def _batch(
    module: RecurrentLif, dataset: EventDataset, chosen: NDArray[np.int64], channels: int
) -> tuple[SparseSteps, NDArray[np.int64]]:
    """Return recordings side by side, and the number of steps of each."""
    step_us = round(module.config.dt_s * 1e6)
    recordings = [dataset.recordings[index].from_zero() for index in chosen]
    n_steps = np.array([int(events.t_us[-1]) // step_us + 1 for events in recordings], np.int64)
    return sparse_events(recordings, n_steps=int(n_steps.max()), step_us=step_us, channels=channels), n_steps


def _channels(module: RecurrentLif, dataset: EventDataset, *, needs_labels: bool = True) -> int:
    """Return 2, or 1 where the module merges polarities."""
    config, sizes = module.config, {events.sensor_size for events in dataset.recordings}
    wrong = []
    if needs_labels and (dataset.labels < 0).any():
        wrong.append("a label for each recording, found some without")
    if needs_labels and len(dataset.classes) > config.classes:
        wrong.append(f"at most {config.classes} classes, found {len(dataset.classes)}")
    if any(not len(events) for events in dataset.recordings):
        wrong.append("events in each recording, found one without")
    if round(config.dt_s * 1e6) < 1:
        wrong.append(f"a step of 1 microsecond or more, found {config.dt_s} s")
    channels = {config.in_features / (height * width) for height, width in sizes}
    if len(sizes) > 1 or not channels <= {1.0, 2.0}:
        wrong.append(f"one sensor of {config.in_features} or half as many pixels, found {sorted(sizes)}")
    if wrong:
        raise TrainingError(f"data set '{dataset.name}': expected {'; '.join(wrong)}. Try symbols().")
    return int(channels.pop())
