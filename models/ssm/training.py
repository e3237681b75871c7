"""Training of event state-space models: recipes by name, and the loop, alone or under torchrun."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spikeport.models.data import EventDataset
from spikeport.models.distributed import join_world
from spikeport.models.errors import ModelNameError, TrainingError
from spikeport.models.events import Events
from spikeport.models.nearest import unknown
from spikeport.models.train import TrainResult, epoch_progress

from .augment import Augmentation, augmented, cut_mixed, sliced
from .tokens import batch_of, sequence_of

if TYPE_CHECKING:
    import torch

    from spikeport.models.event_ssm import EventSSM

_SLOW = ("lambda_re", "lambda_im", "b")
"""Parameters of a state space that learn at the base rate, without decay of weights."""


@dataclasses.dataclass(frozen=True)
class SsmRecipe:
    """How to train: AdamW, a linear warm-up and a cosine to 0, cross entropy with soft labels.

    Eigenvalues and input matrices learn at ``base_rate`` times the number of recordings of an update, all else at
    ``rate_factor`` times that and with ``weight_decay``. An update takes the mean gradient of ``accumulation`` batches
    of ``batch_size`` on each process. Recordings are cut into slices of ``slice_events``, where that is given;
    ``validation_share`` of them choose the best epoch, 0: the last one counts.
    """

    epochs: int
    batch_size: int
    base_rate: float
    rate_factor: float
    accumulation: int = 1
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    slice_events: int | None = None
    validation_share: float = 0.1
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "accumulation": self.accumulation >= 1,
            "base_rate": 0 < self.base_rate < 1,
            "rate_factor": 0 < self.rate_factor < math.inf,
            "warmup_epochs": 0 <= self.warmup_epochs < self.epochs,
            "weight_decay": 0 <= self.weight_decay < 1,
            "slice_events": self.slice_events is None or self.slice_events >= 2,
            "validation_share": 0 <= self.validation_share < 1,
            "seed": self.seed >= 0,
        }
        wrong = [f"{name}: {getattr(self, name)!r} is outside its range" for name, is_in in checks.items() if not is_in]
        if wrong:
            raise TrainingError(f"event SSM recipe: {'; '.join(wrong)}. Try recipe('toy') as it is.")


_GESTURES = Augmentation(
    cut_mix=0.4,
    event_drop=0.05,
    chunk_drop=0.02,
    time_skew=1.12,
    time_jitter_us=5.0,
    jitter_px=math.sqrt(0.3),
    roll_px=32,
    rotation_deg=10.0,
    scale=1.2,
)
_SPOKEN = Augmentation(event_drop=0.1, chunk_drop=0.02, cut_mix=0.3)

RECIPES: dict[str, SsmRecipe] = {
    "dvs-gesture": SsmRecipe(
        epochs=100,
        batch_size=16,
        accumulation=4,
        base_rate=1.2e-5,
        rate_factor=6,
        warmup_epochs=10,
        weight_decay=0.02,
        slice_events=65_536,
        augmentation=_GESTURES,
    ),
    "shd": SsmRecipe(
        epochs=30,
        batch_size=32,
        base_rate=1.7e-5,
        rate_factor=10,
        warmup_epochs=3,
        weight_decay=0.03,
        augmentation=dataclasses.replace(_SPOKEN, time_skew=1.2, time_jitter_us=1.0, noise_events=35, jitter_px=0.55),
    ),
    "ssc": SsmRecipe(
        epochs=200,
        batch_size=64,
        base_rate=5e-6,
        rate_factor=5,
        warmup_epochs=20,
        weight_decay=0.05,
        augmentation=dataclasses.replace(_SPOKEN, time_skew=1.05, time_jitter_us=3.0, noise_events=100, jitter_px=1.0),
    ),
    "toy": SsmRecipe(
        epochs=8, batch_size=32, base_rate=1e-4, rate_factor=2, warmup_epochs=1, weight_decay=0.01, validation_share=0.0
    ),
}
"""How the published models were trained, and a recipe for ``moving_dots`` that a processor gets through.

The published ones chose the best epoch on the test set; here a share of the training set does.
Source: configuration files of event-ssm (arXiv 2404.18508).
"""


def recipe(name: str) -> SsmRecipe:
    """Return a recipe by name.

    Raises: ModelNameError for an unknown one.
    """
    if name not in RECIPES:
        raise ModelNameError(unknown("event SSM recipe", name, RECIPES))
    return RECIPES[name]


def train_ssm(module: EventSSM, dataset: EventDataset, how: SsmRecipe) -> TrainResult:
    """Train ``module`` in place, on the device that it is on, and return how it went; the best weights are kept.

    Under torchrun each process takes its part of each batch, and all keep the same weights.
    Law: equal modules, data and recipes give equal weights on one processor; torch's own random state stays.
    Raises: TrainingError where recordings have no label, do not fit the module or are shorter than a row of its output,
    or the loss diverges.
    """
    import torch

    started = time.perf_counter()
    if how.slice_events is not None:
        dataset = sliced(dataset, how.slice_events)
    _check(module, dataset)
    world = join_world()
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    order = np.random.default_rng(how.seed).permutation(len(dataset))
    n_validation = int(how.validation_share * len(dataset))
    held_out, used = order[:n_validation], order[n_validation:]
    if len(used) < size:
        raise TrainingError(
            f"data set '{dataset.name}': expected a recording for each of {size} processes, found {len(used)}. "
            "Try fewer."
        )
    together = how.batch_size * how.accumulation * size
    n_updates = max(1, len(used) // together) * how.epochs
    optimizer = _optimizer(module, how, together)
    n_warm = how.warmup_epochs * n_updates / how.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, n_warm, n_updates))
    history: list[tuple[float, float]] = []
    best = -1.0, 0, copy.deepcopy(module.state_dict())
    with torch.random.fork_rng(devices=[]), epoch_progress("Training", how.epochs) as advance:
        torch.manual_seed(how.seed * size + rank)
        if size > 1:
            _share_values([*module.parameters(), *module.buffers()], from_first=True)
        for epoch in range(how.epochs):
            module.train()
            losses, n_right, n_seen = [], 0.0, 0
            shuffled = np.random.default_rng([how.seed, epoch]).permutation(used)
            for update in range(max(1, len(used) // together)):
                chosen = shuffled[update * together : (update + 1) * together][rank::size]
                optimizer.zero_grad()
                for part in _parts(chosen, how.batch_size):
                    inputs, targets = _batch(module, dataset, part, how, epoch)
                    logits = module(*inputs)
                    loss = -(targets * torch.log_softmax(logits, 1)).sum(1).mean() * len(part) / len(chosen)
                    loss.backward()  # type: ignore[no-untyped-call]
                    losses.append(float(loss.detach()) * len(chosen) / len(part))
                    n_right += float((logits.detach().argmax(1) == targets.argmax(1)).sum())
                    n_seen += len(part)
                if size > 1:
                    _share_values([one.grad for one in module.parameters() if one.grad is not None])
                optimizer.step()
                schedule.step()
            if size > 1:
                _share_values([one for one in module.buffers() if one.is_floating_point()])
            if not np.isfinite(losses).all():
                raise TrainingError(
                    f"training: expected a finite loss, found NaN or infinity in epoch {epoch + 1}. "
                    f"Try a base_rate below {how.base_rate:g}."
                )
            right = share_right(module, dataset.subset(held_out)) if n_validation else n_right / n_seen
            history.append((float(np.mean(losses)), right))
            if right >= best[0] or not n_validation:
                best = right, epoch, copy.deepcopy(module.state_dict())
            advance(f"loss {history[-1][0]:.3f}, accuracy {right:.1%}")
    module.load_state_dict(best[2])
    module.eval()
    wall_s = time.perf_counter() - started
    return TrainResult(best[1] + 1, best[0], tuple(history), len(used), len(held_out), wall_s)


def share_right(module: EventSSM, dataset: EventDataset, *, batch_size: int = 32) -> float:
    """Return the share of recordings that the training form of ``module`` classifies right."""
    import torch

    was_training = module.training
    module.eval()
    right = 0
    with torch.no_grad():
        for part in _parts(np.arange(len(dataset)), batch_size):
            inputs = _inputs(module, [dataset.recordings[index] for index in part])
            right += int((module(*inputs).argmax(1).cpu().numpy() == dataset.labels[part]).sum())
    module.train(was_training)
    return right / len(dataset)


def _parts(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]


def _batch(
    module: EventSSM, dataset: EventDataset, chosen: NDArray[np.int64], how: SsmRecipe, epoch: int
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return the changed recordings of a batch, and their soft labels."""
    import torch

    recordings = [
        augmented(dataset.recordings[index], how.augmentation, np.random.default_rng([how.seed, epoch, int(index)]))
        for index in chosen
    ]
    targets = np.eye(module.config.classes)[dataset.labels[chosen]]
    rng = np.random.default_rng([how.seed, epoch, len(dataset), int(chosen[0])])
    if rng.random() < how.augmentation.cut_mix:
        recordings, targets = cut_mixed(recordings, targets, rng)
    device = module.embedding.weight.device
    return _inputs(module, recordings), torch.from_numpy(targets.astype(np.float32)).to(device)


def _inputs(module: EventSSM, recordings: list[Events]) -> tuple[torch.Tensor, ...]:
    import torch

    device = module.embedding.weight.device
    arrays = batch_of([sequence_of(events, module.config) for events in recordings])
    return tuple(torch.from_numpy(array).to(device) for array in arrays)


def _optimizer(module: EventSSM, how: SsmRecipe, together: int) -> torch.optim.Optimizer:
    import torch

    slow = [one for name, one in module.named_parameters() if ".ssm." in name and name.split(".")[-1] in _SLOW]
    chosen = set(map(id, slow))
    rest = [one for one in module.parameters() if id(one) not in chosen]
    rate = how.base_rate * together
    groups = [
        {"params": slow, "lr": rate, "weight_decay": 0.0},
        {"params": rest, "lr": rate * how.rate_factor, "weight_decay": how.weight_decay},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.999))


def _share(step: int, n_warm: float, n_updates: int) -> float:
    """Return the rate of an update as a share of the highest."""
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warm) / max(1.0, n_updates - n_warm))))


def _share_values(tensors: list[torch.Tensor], *, from_first: bool = False) -> None:
    """Give all processes the mean of theirs, or the values of the first."""
    import torch
    import torch.distributed as dist

    with torch.no_grad():
        for tensor in tensors:
            if from_first:
                dist.broadcast(tensor, 0)
            else:
                dist.all_reduce(tensor)
                tensor /= dist.get_world_size()


def _check(module: EventSSM, dataset: EventDataset) -> None:
    config = module.config
    wrong = []
    if (dataset.labels < 0).any() or int(dataset.labels.max()) >= config.classes:
        wrong.append(f"labels of 0 to {config.classes - 1}, found {sorted(set(dataset.labels.tolist()))[:4]}")
    sizes = {events.sensor_size for events in dataset.recordings}
    if sizes != {config.sensor_size}:
        wrong.append(f"events of a sensor of {config.sensor_size}, found {sorted(sizes)}")
    shortest = min(len(events) for events in dataset.recordings)
    if shortest <= config.downsampling:
        wrong.append(f"more than {config.downsampling} events in each recording, found {shortest}")
    if wrong:
        raise TrainingError(f"data set '{dataset.name}': expected {'; '.join(wrong)}. Try another config or data set.")
