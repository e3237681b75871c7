"""What the conversion benchmark converts: three sets of samples, a plain CNN trained on each, inputs in steps."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Shape3
from spikeport.models.data import frames_of, k_folds, nmnist
from spikeport.models.digits_cnn import digits_cnn
from spikeport.models.events import Events
from spikeport.models.images import (
    ImageDataset,
    animal_images,
    bin_recordings,
    digit_images,
    phase_code,
    split_images,
    step_events,
)
from spikeport.models.train import TrainSettings, classify_frames, train
from spikeport.models.weights import load_weights, save_weights

if TYPE_CHECKING:
    from torch import nn

STEP_US = 1_000
"""Length of a time step of still images, and the period of the slow clock that adds biases on the chip."""

TASKS = ("digits", "nmnist", "animals", "silhouettes")
"""``animals`` and ``silhouettes`` are the same images; the CNN of the latter has no biases, as a chip wants it."""

N_CALIBRATION = 256
"""Samples of the training part that converters calibrate on, without their labels."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much a run of the benchmark does: samples to train and test on, epochs, seeds, time steps.

    ``n_chip`` of the test samples run on the emulated chip; ``n_searched`` labelled training samples serve a search.
    The CNN is fine-tuned for ``finetuned_steps`` only: each number of steps takes a training of its own.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    n_test: int = 500
    n_chip: int = 250
    n_train: int = 4500
    epochs: int = 20
    event_epochs: int = 150
    n_searched: int = 384
    finetuned_steps: tuple[int, ...] = (8,)


QUICK = Effort(
    seeds=(0,),
    steps=(1, 4),
    n_test=40,
    n_chip=10,
    n_train=600,
    epochs=8,
    event_epochs=5,
    n_searched=24,
    finetuned_steps=(4,),
)
"""Shows in under a minute that everything runs; its figures are of hardly trained networks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Labelled inputs of a CNN, and the same inputs in time steps.

    Shapes: ``frames`` is what the CNN reads, ``[N, C, H, W]``; ``recordings`` are the events behind it, None for still
    images, whose pixels are phase coded.
    """

    frames: NDArray[np.float32]
    labels: NDArray[np.int64]
    recordings: tuple[Events, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Samples:
        """Return the first ``n`` samples."""
        recordings = None if self.recordings is None else self.recordings[:n]
        return Samples(self.frames[:n], self.labels[:n], recordings)

    def raster(self, n_steps: int) -> NDArray[Any]:
        """Return the event counts of all samples over ``n_steps`` steps, ``[T, N, C, H, W]``."""
        if self.recordings is None:
            return phase_code(self.frames, n_steps)
        return bin_recordings(self.recordings, n_steps)

    def events(self, n_steps: int) -> Iterator[Events]:
        """Yield each sample as the events that a chip sees: a recording as it is, an image step by step."""
        if self.recordings is not None:
            yield from (recording.from_zero() for recording in self.recordings)
            return
        raster = self.raster(n_steps)
        yield from (step_events(raster[:, index], STEP_US) for index in range(len(self)))

    def gain(self, n_steps: int) -> float:
        """Return the number of events that a 1 in a frame becomes, over all steps."""
        return float(n_steps) if self.recordings is None else 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A trained CNN with the samples that it was trained on and those to test on."""

    name: str
    source: str
    seed: int
    module: nn.Module
    train: Samples
    test: Samples
    n_searched: int = 384

    @property
    def labelled(self) -> Samples:
        """The samples that a search may see with their labels."""
        return self.train.first(self.n_searched)

    @property
    def calibration(self) -> Samples:
        """The samples that converters may see."""
        return self.train.first(N_CALIBRATION)

    @property
    def input_shape(self) -> Shape3:
        """``(C, H, W)`` of a frame."""
        channels, height, width = self.test.frames.shape[1:]
        return channels, height, width

    def accuracy(self) -> float:
        """Return the share of test frames that the CNN classifies right."""
        return float((classify_frames(self.module, self.test.frames) == self.test.labels).mean())


def shared_data() -> Path:
    """Return the folder of real recordings, ``SPIKEPORT_DATA`` or ``../shared/data`` beside the repository."""
    return Path(os.environ.get("SPIKEPORT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def missing(name: str) -> str | None:
    """Return what a task lacks to run here, None where it lacks nothing."""
    if name == "nmnist" and not (shared_data() / "nmnist" / "train.zip").is_file():
        return "N-MNIST recordings: set SPIKEPORT_DATA to a folder with nmnist/train.zip"
    return None


def make_task(name: str, seed: int, *, effort: Effort, cache: Path | None = None) -> Task:
    """Return one of ``TASKS``; ``seed`` decides the split and the training. ``cache`` keeps trained weights.

    Raises: DataError where the data is not there.
    """
    return _MAKERS[name](seed, effort, cache)


def animals_cnn() -> nn.Sequential:
    """Return a CNN with biases and batch normalization, untrained: what most people bring.

    Shapes: takes ``[N, 1, 32, 32]``, returns ``[N, 10]``.
    """
    return _three_convolutions(has_bias=True)


def silhouettes_cnn() -> nn.Sequential:
    """Return the same CNN without biases and batch normalization, untrained.

    Shapes: takes ``[N, 1, 32, 32]``, returns ``[N, 10]``.
    """
    return _three_convolutions(has_bias=False)


def _three_convolutions(*, has_bias: bool) -> nn.Sequential:
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 32)):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=has_bias))
        if has_bias:
            layers.append(nn.BatchNorm2d(after))
        layers += [nn.ReLU(), nn.AvgPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 64, bias=has_bias), nn.ReLU()]
    layers += [nn.Linear(64, 10, bias=has_bias), nn.ReLU()]
    if not has_bias:  # without batch normalization the start decides how far training gets: He et al., ICCV 2015
        for layer in layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*layers)


_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "digits": (lambda: digits_cnn(1), 34),
    "animals": (animals_cnn, 32),
    "silhouettes": (silhouettes_cnn, 32),
}


def _digits(seed: int, effort: Effort, cache: Path | None) -> Task:
    return _images("digits", digit_images(), seed=seed, effort=effort, cache=cache)


def _animals(seed: int, effort: Effort, cache: Path | None) -> Task:
    return _images("animals", animal_images(), seed=seed, effort=effort, cache=cache)


def _silhouettes(seed: int, effort: Effort, cache: Path | None) -> Task:
    return _images("silhouettes", animal_images(), seed=seed, effort=effort, cache=cache)


def _images(name: str, images: ImageDataset, *, seed: int, effort: Effort, cache: Path | None) -> Task:
    import torch

    build, size = _NETWORKS[name]
    known, unseen = split_images(images, effort.n_test, seed=seed)
    known = known.subset(range(len(known))[: effort.n_train])
    samples, test = (Samples(part.frames(size=size), part.labels) for part in (known, unseen))

    def learn() -> nn.Module:
        torch.manual_seed(seed)
        module = build()
        train_on_images(module, samples, epochs=effort.epochs, seed=seed)
        return module

    module = _cached(learn, build, cache and cache / f"{name}-{seed}", effort)
    return Task(name, images.source, seed, module, samples, test, effort.n_searched)


def _nmnist(seed: int, effort: Effort, cache: Path | None) -> Task:
    import torch

    everything = nmnist(shared_data() / "nmnist", "train")
    inside, outside = k_folds(len(everything), 5)[seed % 5]
    train_set = everything.subset(inside[: effort.n_train])
    test_set = everything.subset(outside[: effort.n_test])

    def learn() -> nn.Module:
        torch.manual_seed(seed)
        module = digits_cnn(2)
        train(module, train_set, settings=TrainSettings(epochs=effort.event_epochs, seed=seed))
        return module

    module = _cached(learn, lambda: digits_cnn(2), cache and cache / f"nmnist-{seed}", effort)
    known, unseen = (
        Samples(frames_of(part.recordings), part.labels, part.recordings) for part in (train_set, test_set)
    )
    return Task("nmnist", everything.source, seed, module, known, unseen, effort.n_searched)


_MAKERS: dict[str, Callable[[int, Effort, Path | None], Task]] = {
    "digits": _digits,
    "nmnist": _nmnist,
    "animals": _animals,
    "silhouettes": _silhouettes,
}


def _cached(
    learn: Callable[[], nn.Module], build: Callable[[], nn.Module], stem: Path | None, effort: Effort
) -> nn.Module:
    """Return the module that ``learn`` makes, from the cache where it has been there before with the same effort."""
    if stem is None:
        return learn()
    key = f"{effort.n_train}-{effort.n_test}-{effort.epochs}-{effort.event_epochs}"
    file = stem.with_name(f"{stem.name}-{key}.safetensors")
    if file.is_file():
        module = build()
        load_weights(module, file)
        return module.eval()
    module = learn()
    save_weights(module, file)
    return module


def train_on_images(module: nn.Module, samples: Samples, *, epochs: int, seed: int) -> None:
    """Train ``module`` in place on still images: cross entropy before the last ReLU, Adam, shifts by up to 2 pixels.

    Law: equal modules, samples and seeds give equal weights on one thread.
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    logits = module[:-1] if isinstance(module, nn.Sequential) and isinstance(module[-1], nn.ReLU) else module
    frames, labels = torch.from_numpy(samples.frames), torch.from_numpy(samples.labels.copy())
    rng = np.random.default_rng(seed)
    size = 64
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    steps = epochs * -(-len(labels) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=max(2, steps), pct_start=0.2)
    module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            order = rng.permutation(len(labels))
            for first in range(0, len(order), size):
                chosen = torch.from_numpy(order[first : first + size].copy())
                dy, dx = (int(shift) for shift in rng.integers(-2, 3, 2))
                batch = torch.roll(frames[chosen], (dy, dx), (2, 3))  # the padding goes round, never the image
                loss = F.cross_entropy(logits(batch), labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    module.eval()


def in_counts(module: nn.Module, gain: float) -> nn.Module:
    """Return the CNN that reads event counts, ``gain`` of which stand for a 1 in a frame.

    Law: gives ``module(frames)`` for ``gain * frames``.
    """
    import torch
    from torch import nn

    counted = copy.deepcopy(module)
    first = next(layer for layer in counted.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))
    with torch.no_grad():
        first.weight.div_(gain)
    return counted
