"""Fine-tuning after conversion: a spiking net trained through time, on the chip's integers and within its synops."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.models.errors import TrainingError
from spikeport.models.events import Events
from spikeport.models.train import epoch_progress

from .samples import Augmentation, Samples, collect
from .types import SpikingNet
from .unroll import class_shape, from_grid, parameters_of, unroll

if TYPE_CHECKING:
    import torch

    from .unroll import Parameters, Unfolding

_N_VIEWS = 3
"""Random changes of each held-out recording that the best epoch is chosen by, beside the recording itself."""

_PENALTY = 3.0
"""Of the loss per unit of synops above the target, as a share of the target."""

_N_MEASURED = 500
"""Recordings that the synops of the given net are measured on."""

_LAST = 0.1
"""Share of the epochs, the last ones, of which the best is kept: earlier ones, with a high rate, owe much to luck."""

_SHARPNESS = 0.3
"""What one output spike adds to a class's logit."""

_PART_CELLS = 30_000_000
"""Neuron steps of the largest layer that go through the net at once; larger batches add up their gradients."""


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune a spiking net.

    ``synop_target`` bounds the mean synops of a recording: up to 1 it is a share of what the given net needs, above
    it is a number; None: no bound. ``learning_rate`` is in standard deviations of each layer's weights; it rises over
    the first tenth of the batches and falls to 0. ``validation_share`` of the recordings, at most 500, choose the best
    epoch; for equal seeds and shares they are those that ``models.train`` held out.
    Units: ``dt_us`` is the length of a time step, for event recordings; a net with biases adds them every ``tick_us``,
    of which a step must be a multiple. What augmentation does with a recording, see ``Augmentation``.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 0.03
    synop_target: float | None = None
    dt_us: int = 50_000
    tick_us: int = 10_000
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        changes = self.augmentation
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": 0 < self.learning_rate < 1,
            "synop_target": self.synop_target is None or 0 < self.synop_target < math.inf,
            "dt_us": self.dt_us >= 1,
            "tick_us": self.tick_us >= 1,
            "shift": 0 <= changes.shift < 1,
            "rotation_deg": 0 <= changes.rotation_deg <= 180,
            "stretch": 0 <= changes.stretch < 1,
            "event_drop": 0 <= changes.event_drop < 1,
            "validation_share": 0 < self.validation_share < 1,
            "seed": self.seed >= 0,
        }
        values = {**vars(self), **vars(self.augmentation)}
        wrong = [f"{name} {values[name]!r}" for name, is_in in checks.items() if not is_in]
        if wrong:
            raise TrainingError(
                f"fine-tuning settings out of range: {', '.join(wrong)}. Try FinetuneSettings() as it is."
            )


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One pass: its mean loss, and accuracy and mean synops of a recording on the held-out part after it."""

    loss: float
    accuracy: float
    synops: float


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """A fine-tuned net and how it came about.

    ``start`` is the held-out accuracy and synops of the given net on the chip's integers (its loss is NaN);
    ``best_epoch`` counts from 1; ``synop_target`` is the bound in synops, None without one.
    Law: ``history[best_epoch - 1]`` is true of ``net``, in the same steps.
    """

    net: SpikingNet
    start: Epoch
    history: tuple[Epoch, ...]
    best_epoch: int
    synop_target: float | None
    n_train: int
    n_validation: int
    wall_s: float

    @property
    def best(self) -> Epoch:
        """The epoch that was kept."""
        return self.history[self.best_epoch - 1]


def finetune(
    net: SpikingNet,
    recordings: Sequence[Events] | NDArray[Any],
    labels: ArrayLike,
    *,
    settings: FinetuneSettings | None = None,
) -> Finetuned:
    """Return ``net`` trained through time on labelled recordings, with weights on the grid of the chip.

    Every batch runs with weights, biases, thresholds and lower bounds rounded as deployment rounds them; gradients
    pass the rounding, and the spikes by a surrogate. The loss is the cross entropy of output spikes plus the last
    potential, and a penalty for synops above the target. The epoch that is kept is one of the last tenth: the one that
    holds the target (within 5 %), then has the highest accuracy, then the fewest synops. Thresholds and lower bounds
    keep their ratio.
    Shapes: ``recordings`` as for ``collect``, ``labels`` ``[N]``, indices of classes.
    Law: equal arguments and one thread give the same net, byte for byte; torch's own random state stays.
    Raises: InputError where the recordings do not suit the net; TrainingError where labels or settings do not suit
    the recordings, or the loss diverges.
    Source: surrogate gradients: Neftci et al., IEEE Signal Processing Magazine 36:51 (2019), here of counts.
    """
    import torch

    settings = settings or FinetuneSettings()
    samples = collect(net, recordings, dt_us=settings.dt_us)
    truth = check_labels(net, labels, len(samples))
    tuner = _Tuner(net, samples, truth, settings, n_ticks=_ticks(net, samples, settings))
    started = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(samples))
    n_validation = max(1, min(500, int(settings.validation_share * len(samples))))
    held_out, used = order[:n_validation], order[n_validation:]
    parameters = parameters_of(net)
    views = tuner.views(held_out, rng)
    start = tuner.validate(parameters, views, held_out)
    target = settings.synop_target
    if target is not None:
        target = tuner.find_target(parameters, samples.draw(used[:_N_MEASURED], rng=rng), target)
    optimizer, schedule = _optimizer(parameters, settings, n_batches=-(-len(used) // settings.batch_size))
    history: list[Epoch] = []
    best: tuple[tuple[float, ...], int, list[torch.Tensor]] | None = None
    with epoch_progress("Fine-tuning", settings.epochs) as advance:
        for epoch in range(settings.epochs):
            losses = []
            shuffled = rng.permutation(used)
            for first in range(0, len(used), settings.batch_size):
                optimizer.zero_grad()
                losses.append(tuner.backward(parameters, shuffled[first : first + settings.batch_size], rng, target))
                optimizer.step()
                schedule.step()
            _check_loss(losses, epoch, settings)
            found = tuner.validate(parameters, views, held_out)
            history.append(dataclasses.replace(found, loss=float(np.mean(losses))))
            rank = (float(target is None or found.synops <= 1.05 * target), found.accuracy, -found.synops)
            is_last = epoch >= settings.epochs - max(1, round(_LAST * settings.epochs))
            if is_last and (best is None or rank > best[0]):
                best = (rank, epoch, [tensor.detach().clone() for tensor in parameters.tensors()])
            advance(f"loss {history[-1].loss:.3f}, held-out {found.accuracy:.1%}, {found.synops:,.0f} synops")
    if best is None:
        raise TrainingError(f"fine-tuning: expected at least one epoch, found {settings.epochs}. Try 20.")
    with torch.no_grad():
        for tensor, kept in zip(parameters.tensors(), best[2], strict=True):
            tensor.copy_(kept)
    wall_s = time.perf_counter() - started
    tuned = from_grid(net, parameters)
    return Finetuned(tuned, start, tuple(history), best[1] + 1, target, len(used), n_validation, wall_s)


@dataclasses.dataclass(frozen=True)
class _Tuner:
    """What stays the same over the batches: the net, its samples and labels, and how they are drawn."""

    net: SpikingNet
    samples: Samples
    labels: NDArray[np.int64]
    settings: FinetuneSettings
    n_ticks: int

    def views(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """Return the chosen recordings as they are, then changed at random as in training."""
        changes = self.settings.augmentation
        return (
            self.samples.draw(chosen, rng=rng),
            *(self.samples.draw(chosen, augmentation=changes, rng=rng) for _ in range(_N_VIEWS)),
        )

    def validate(
        self, parameters: Parameters, views: tuple[NDArray[np.float32], ...], chosen: NDArray[np.int64]
    ) -> Epoch:
        """Return the accuracy over all views, and the synops of the first."""
        n_right = 0
        for view in views:
            for first, outcome in self._run(parameters, view):
                predicted = outcome.predictions().numpy()
                n_right += int((predicted == self.labels[chosen[first : first + len(predicted)]]).sum())
        return Epoch(math.nan, n_right / (len(views) * len(chosen)), self.measure(parameters, views[0]))

    def measure(self, parameters: Parameters, raster: NDArray[np.float32]) -> float:
        """Return the mean synops of a recording."""
        total = sum(float(outcome.synops) * len(outcome.counts) for _, outcome in self._run(parameters, raster))
        return float(total / raster.shape[1])

    def find_target(self, parameters: Parameters, raster: NDArray[np.float32], target: float) -> float:
        """Return the target in synops a recording.

        Raises: TrainingError where the input events alone need more.
        """
        outcomes = list(self._run(parameters, raster))
        fixed = sum(float(outcome.input_synops) * len(outcome.counts) for _, outcome in outcomes) / raster.shape[1]
        found = target * self.measure(parameters, raster) if target <= 1 else target
        if found <= fixed:
            raise TrainingError(
                f"synop_target: expected more than the {fixed:,.0f} synops that the events of a recording cause in "
                f"the first layer, which no training changes, found {found:,.0f}. Try {2 * fixed:,.0f}, or a net with "
                "fewer features there."
            )
        return found

    def backward(
        self, parameters: Parameters, chosen: NDArray[np.int64], rng: np.random.Generator, target: float | None
    ) -> float:
        """Add the gradients of one batch, part by part, and return its loss."""
        import torch
        import torch.nn.functional as F

        total = 0.0
        for first in range(0, len(chosen), self._part):
            part = chosen[first : first + self._part]
            raster = self.samples.draw(part, augmentation=self.settings.augmentation, rng=rng)
            outcome = unroll(self.net, parameters, torch.from_numpy(raster), n_ticks=self.n_ticks)
            logits = (outcome.counts + outcome.potentials) * _SHARPNESS
            loss = F.cross_entropy(logits, torch.from_numpy(self.labels[part]))
            if target is not None:
                # Augmentation leaves events out: the bound is that of the events that are left.
                left = float(raster.sum()) / max(1, self.samples.n_events(part))
                loss = loss + _PENALTY * torch.relu(outcome.synops / (target * max(left, 1e-3)) - 1)
            loss = loss * (len(part) / len(chosen))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    @property
    def _part(self) -> int:
        shapes = (self.net.input_shape, *(layer.out_shape for layer in self.net.layers))
        return max(1, _PART_CELLS // (self.samples.n_steps * max(math.prod(shape) for shape in shapes)))

    def _run(self, parameters: Parameters, raster: NDArray[np.float32]) -> Iterator[tuple[int, Unfolding]]:
        import torch

        size = min(self._part, 64)
        with torch.no_grad():
            for first in range(0, raster.shape[1], size):
                part = torch.from_numpy(np.ascontiguousarray(raster[:, first : first + size]))
                yield first, unroll(self.net, parameters, part, n_ticks=self.n_ticks)


def check_labels(net: SpikingNet, labels: ArrayLike, n_samples: int) -> NDArray[np.int64]:
    """Return the labels as class indices.

    Raises: TrainingError where they are not one class of the net for each recording, or a class has fewer than two;
    InputError where the net has no classes.
    """
    found = np.asarray(labels)
    n_classes = math.prod(class_shape(net))
    problems = []
    if found.shape != (n_samples,) or found.dtype.kind not in "iu":
        problems.append(f"expected {n_samples} whole numbers, found {found.dtype} of shape {list(found.shape)}.")
    elif (found < 0).any():
        problems.append(f"expected a label for each recording, found {int((found < 0).sum())} without.")
    elif (found >= n_classes).any():
        problems.append(f"expected classes 0 to {n_classes - 1} of this net, found {int(found.max())}.")
    else:
        counts = np.bincount(found)
        few = np.flatnonzero((counts > 0) & (counts < 2))
        if np.count_nonzero(counts) < 2:
            problems.append("expected recordings of at least two classes, found one.")
        if len(few):
            problems.append(f"expected at least 2 recordings of each class, found 1 of class {int(few[0])}.")
    if problems:
        raise TrainingError(f"labels: {' '.join(problems)} Try a labelled data set such as nmnist:FOLDER.")
    return found.astype(np.int64)


def _ticks(net: SpikingNet, samples: Samples, settings: FinetuneSettings) -> int:
    """Return how often a step adds the biases."""
    if not samples.has_phase or all(layer.bias is None for layer in net.layers):
        return 1
    if settings.dt_us % settings.tick_us:
        raise TrainingError(
            f"dt_us: expected a multiple of tick_us ({settings.tick_us}) for a net with biases, found "
            f"{settings.dt_us}. Try {max(1, settings.dt_us // settings.tick_us) * settings.tick_us}."
        )
    return settings.dt_us // settings.tick_us


def _optimizer(parameters: Parameters, settings: FinetuneSettings, *, n_batches: int) -> tuple[Any, Any]:
    """Return Adam with a rate for each tensor, and the schedule of the rates."""
    import torch

    groups: list[dict[str, Any]] = []
    for weight, bias in zip(parameters.weights, parameters.biases, strict=True):
        spread = float(weight.detach().square().mean().sqrt()) or 1.0
        groups += [
            {"params": [tensor], "lr": settings.learning_rate * spread}
            for tensor in (weight, bias)
            if tensor is not None
        ]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in groups],
        total_steps=max(12, settings.epochs * n_batches) + 1,
        pct_start=0.1,
    )
    return optimizer, schedule


def _check_loss(losses: list[float], epoch: int, settings: FinetuneSettings) -> None:
    if not np.isfinite(losses).all():
        raise TrainingError(
            f"fine-tuning: expected a finite loss, found NaN or infinity in epoch {epoch + 1}. "
            f"Try a learning_rate below {settings.learning_rate:g}."
        )
