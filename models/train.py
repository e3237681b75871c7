"""One training loop: frames accumulated over random windows of event recordings, cross entropy, Adam."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .data import EventDataset, frames_of
from .errors import TrainingError

if TYPE_CHECKING:
    import torch
    from torch import nn


_N_VIEWS = 3
"""Random windows of each validation recording that the best epoch is chosen by, beside its whole sum."""


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Units: a frame is the sum over a window of ``window_min`` to 1 of a recording's length, uniform, anywhere in it; a
    share of its events between 0 and ``event_drop`` is left out, so that no answer hangs on single events;
    ``shift_px``, ``rotation_deg`` and ``stretch`` (relative) bound the random affine map of each frame;
    ``n_dropout_draws`` masks are drawn for each frame at the first dropout layer; ``validation_share`` of the
    recordings, at most 500, choose the best epoch, by sums over all of them and over random windows.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 5e-3
    window_min: float = 0.1
    event_drop: float = 0.6
    shift_px: float = 1.0
    rotation_deg: float = 7.0
    stretch: float = 0.05
    n_dropout_draws: int = 4
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": 0 < self.learning_rate < 1,
            "window_min": 0 < self.window_min <= 1,
            "event_drop": 0 <= self.event_drop < 1,
            "n_dropout_draws": self.n_dropout_draws >= 1,
            "shift_px": 0 <= self.shift_px < math.inf,
            "rotation_deg": 0 <= self.rotation_deg <= 180,
            "stretch": 0 <= self.stretch < 1,
            "validation_share": 0 <= self.validation_share < 1,
            "seed": self.seed >= 0,
        }
        wrong = [f"{name}: {getattr(self, name)!r} is outside its range" for name, is_in in checks.items() if not is_in]
        if wrong:
            raise TrainingError(f"training settings: {'; '.join(wrong)}. Try TrainSettings() as it is.")


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What happened in training; ``history`` has one ``(loss, validation accuracy)`` per epoch."""

    best_epoch: int
    best_accuracy: float
    history: tuple[tuple[float, float], ...]
    n_train: int
    n_validation: int
    wall_s: float


def train(
    module: nn.Module, dataset: EventDataset, *, epochs: int | None = None, settings: TrainSettings | None = None
) -> TrainResult:
    """Train ``module`` in place on the recordings of ``dataset`` and return how it went; the best weights are kept.

    A final ReLU of an ``nn.Sequential`` is left out of the loss, which sees the values before it: an output that has
    died would learn nothing. For a CNN of convolutions and linear layers without biases each frame is scaled to a mean
    of 1: it changes no class, and a window with few events counts as much in the loss as a whole recording.
    A module with a method ``train_on``, such as ``RecurrentLif``, is trained by that, in time steps.
    Law: equal modules, data, settings and numbers of threads give equal weights; torch's own random state stays.
    Raises: TrainingError where recordings have no label, the module does not take their frames, or the loss diverges.
    """
    import torch
    import torch.nn.functional as F

    if (own := getattr(module, "train_on", None)) is not None:  # a model of time steps, not of frames
        return _trained_by_itself(own, dataset, epochs, settings)
    settings = settings or TrainSettings()
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    _check(module, dataset)
    started = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(dataset))
    n_validation = min(500, int(settings.validation_share * len(dataset)))
    held_out, used = order[:n_validation] if n_validation else order, order[n_validation:]
    windows = _Windows(dataset, in_channels(module))
    is_scaled = _is_homogeneous(module)
    views = [windows.draw(held_out, rng, settings.window_min) for _ in range(_N_VIEWS)]
    shown = np.concatenate([windows.draw(held_out, rng, 1.0), *views])
    truth = np.tile(dataset.labels[held_out], 1 + _N_VIEWS)
    logits = _without_last_relu(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = max(12, settings.epochs * -(-len(used) // settings.batch_size))
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1)
    history: list[tuple[float, float]] = []
    best: tuple[float, int, dict[str, torch.Tensor]] = (-1.0, -1, {})
    with (
        torch.random.fork_rng(devices=[]),
        epoch_progress("Training", settings.epochs) as advance,
        _repeated_at_dropout(module, settings.n_dropout_draws) as n_draws,
    ):
        torch.manual_seed(settings.seed)
        for epoch in range(settings.epochs):
            module.train()
            losses = []
            for chosen in _batches(rng.permutation(used), settings.batch_size):
                counts = windows.draw(chosen, rng, settings.window_min, settings.event_drop)
                frames = _augmented(torch.from_numpy(counts), rng, settings)
                if is_scaled:
                    frames = frames * (frames[0].numel() / frames.sum((1, 2, 3), keepdim=True).clamp(min=1.0))
                target = torch.from_numpy(dataset.labels[chosen]).repeat(n_draws)
                loss = F.cross_entropy(logits(frames.contiguous(memory_format=torch.channels_last)), target)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
            _check_loss(losses, epoch, settings)
            right = float((classify_frames(module, shown) == truth).mean())
            history.append((float(np.mean(losses)), right))
            if right >= best[0]:
                best = (right, epoch, copy.deepcopy(module.state_dict()))
            advance(f"loss {history[-1][0]:.3f}, validation {right:.1%}")
    module.load_state_dict(best[2])
    module.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    wall_s = time.perf_counter() - started
    return TrainResult(best[1] + 1, best[0], tuple(history), len(used), len(held_out), wall_s)


def _trained_by_itself(
    own: Callable[..., TrainResult], dataset: EventDataset, epochs: int | None, settings: TrainSettings | None
) -> TrainResult:
    if settings is not None:
        raise TrainingError(
            "training settings: expected none for a model of time steps, which has its own, found those of frames. "
            "Try train(module, dataset, epochs=20)."
        )
    return own(dataset) if epochs is None else own(dataset, epochs=epochs)


def _is_homogeneous(module: nn.Module) -> bool:
    """Return whether scaling the input scales the output: weight layers without bias, rectifiers, average pools."""
    from torch import nn

    kept = (nn.Sequential, nn.ReLU, nn.AvgPool2d, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)
    kinds = (*kept, nn.Conv2d, nn.Linear)
    return all(type(layer) in kinds and getattr(layer, "bias", None) is None for layer in module.modules())


def _batches(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]


def accuracy(module: nn.Module, dataset: EventDataset) -> float:
    """Return the share of recordings, summed over their whole length, that ``module`` classifies right."""
    right = 0
    for first in range(0, len(dataset), 256):
        part = dataset.recordings[first : first + 256]
        frames = frames_of(part, merge_polarity=in_channels(module) == 1)
        right += int((classify_frames(module, frames) == dataset.labels[first : first + 256]).sum())
    return right / len(dataset)


def classify_frames(module: nn.Module, frames: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the class of each frame: the largest output, in evaluation mode.

    Where a final ReLU makes the largest outputs equal (all zero), the values before it decide, as the last potential
    does in the spiking net.
    Shapes: ``frames`` is ``[N, C, H, W]``, the result ``[N]``.
    """
    import torch

    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(frames, np.float32)).to(dtype)
            answers = _without_last_relu(module)(batch).flatten(1).argmax(1)
    finally:
        module.train(was_training)
    return np.asarray(answers.numpy(), np.int64)


def in_channels(module: nn.Module) -> int:
    """Return the input channels of the first convolution of ``module``.

    Raises: TrainingError where it has none.
    """
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels
    raise TrainingError(f"{type(module).__name__}: expected a CNN with a Conv2d, found none. Try digits.")


class _Windows:
    """Frames over random windows, counted straight from the events of all recordings side by side."""

    def __init__(self, dataset: EventDataset, channels: int) -> None:
        self.channels = channels
        self.height, self.width = dataset.recordings[0].sensor_size
        self.starts = np.cumsum([0, *(len(events) for events in dataset.recordings)])
        self.times = [events.from_zero().t_us for events in dataset.recordings]
        area = self.height * self.width
        self.pixels = np.concatenate(
            [
                (events.p.astype(np.int64) * area if channels == 2 else 0)
                + events.y.astype(np.int64) * self.width
                + events.x
                for events in dataset.recordings
            ]
        )

    def draw(
        self, chosen: NDArray[np.int64], rng: np.random.Generator, shortest: float, drop: float = 0.0
    ) -> NDArray[np.float32]:
        """Return one frame ``[N, C, H, W]`` per chosen recording, over a window of its own.

        A share of its events, between 0 and ``drop``, is left out.
        """
        parts, lengths = [], []
        for index in chosen:
            times = self.times[index]
            duration = int(times[-1]) + 1
            length = rng.uniform(shortest, 1.0) * duration
            start = rng.uniform(0.0, duration - length)
            first, last = np.searchsorted(times, [start, start + length]) + self.starts[index]
            pixels = self.pixels[first:last]
            if drop:
                pixels = pixels[rng.random(len(pixels)) >= rng.uniform(0.0, drop)]
            parts.append(pixels)
            lengths.append(len(pixels))
        size = self.channels * self.height * self.width
        base = np.repeat(np.arange(len(chosen)) * size, lengths)
        counts = np.bincount(np.concatenate(parts) + base, minlength=len(chosen) * size)
        return counts.reshape(len(chosen), self.channels, self.height, self.width).astype(np.float32)


def _augmented(frames: torch.Tensor, rng: np.random.Generator, settings: TrainSettings) -> torch.Tensor:
    """Return the frames under small random rotations, stretches, shears and shifts."""
    import torch
    import torch.nn.functional as F

    n, edge = len(frames), frames.shape[-1]
    angle = np.deg2rad(rng.uniform(-settings.rotation_deg, settings.rotation_deg, n))
    scale = np.exp(rng.uniform(-settings.stretch, settings.stretch, n))
    shear = rng.uniform(-settings.stretch, settings.stretch, n)
    shift = rng.uniform(-settings.shift_px, settings.shift_px, (n, 2)) * 2 / edge
    matrix = np.empty((n, 2, 3), np.float32)
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle) * scale
    matrix[:, 0, 1] = -np.sin(angle) * scale + shear
    matrix[:, 1, 0] = np.sin(angle) * scale
    matrix[:, :, 2] = shift
    grid = F.affine_grid(torch.from_numpy(matrix), list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid, align_corners=False)


def _without_last_relu(module: nn.Module) -> nn.Module:
    from torch import nn

    if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[-1], nn.ReLU):
        return module[:-1]
    return module


@contextlib.contextmanager
def _repeated_at_dropout(module: nn.Module, n_draws: int) -> Iterator[int]:
    """Give each frame ``n_draws`` dropout masks: the first dropout layer repeats its batch while training.

    Yields the number of rows per frame that come out. The layers in front, which cost most, run once per frame. Only
    a dropout that is itself a step of a ``Sequential`` is repeated: elsewhere a branch beside it would not match.
    """
    from torch import nn

    steps = module if isinstance(module, nn.Sequential) else ()
    first = next((layer for layer in steps if isinstance(layer, (nn.Dropout, nn.Dropout2d))), None)
    if first is None or n_draws == 1:
        yield 1
        return

    def repeat(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        (x,) = inputs
        return (x.repeat(n_draws, *(1,) * (x.ndim - 1)),) if layer.training else None

    handle = first.register_forward_pre_hook(repeat)
    try:
        yield n_draws
    finally:
        handle.remove()


@contextlib.contextmanager
def epoch_progress(title: str, epochs: int) -> Iterator[Any]:
    """Yield a function that moves the progress bar by one epoch; the bar is on stderr, and only on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=epochs)
        yield lambda text: bar.update(task, advance=1, description=text)


def _check_loss(losses: list[float], epoch: int, settings: TrainSettings) -> None:
    if not np.isfinite(losses).all():
        raise TrainingError(
            f"training: expected a finite loss, found NaN or infinity in epoch {epoch + 1}. "
            f"Try a learning_rate below {settings.learning_rate:g}."
        )


def _check(module: nn.Module, dataset: EventDataset) -> None:
    import torch

    sizes = {events.sensor_size for events in dataset.recordings}
    if (dataset.labels < 0).any():
        raise TrainingError(
            f"data set '{dataset.name}': expected a label for each recording, found some without. Try digits."
        )
    if len(sizes) > 1:
        raise TrainingError(f"data set '{dataset.name}': expected one sensor size, found {sorted(sizes)}. Try one.")
    if any(not len(events) for events in dataset.recordings):
        raise TrainingError(
            f"data set '{dataset.name}': expected events in each recording, found one without. Try a longer one."
        )
    (height, width) = sizes.pop()
    shape = (in_channels(module), height, width)
    if shape[0] not in (1, 2):
        raise TrainingError(f"{type(module).__name__}: expected 1 or 2 input channels, found {shape[0]}. Try 2.")
    try:
        with torch.no_grad():
            outputs = copy.deepcopy(module).eval()(torch.zeros(1, *shape)).flatten(1)
    except RuntimeError as cause:
        reason = str(cause).splitlines()[0]
        raise TrainingError(
            f"{type(module).__name__} does not run on frames of {shape}: {reason}. Try another network."
        ) from cause
    if outputs.shape[1] <= int(dataset.labels.max()):
        raise TrainingError(
            f"{type(module).__name__}: expected an output for each class up to {int(dataset.labels.max())}, "
            f"found {outputs.shape[1]}. Try a wider last layer."
        )
