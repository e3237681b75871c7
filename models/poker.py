"""POKER-DVS and folders of images: labelled data from files that the user has."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .data import EventDataset
from .errors import DataError
from .files import read_events
from .images import ImageDataset
from .npz import MAX_BYTES, ZIP_DAMAGE

SUITS = ("club", "diamond", "heart", "spade")
"""Classes of POKER-DVS, in the order of its labels."""

POKER_SIZE = (35, 35)
"""Sensor of the cut-outs: their coordinates are 0 to 34."""

_PICTURES = (".png", ".bmp", ".gif", ".jpg", ".jpeg", ".pgm", ".tif", ".tiff", ".webp")
_MAX_PIXELS = 1 << 24


def poker(root: str | Path) -> EventDataset:
    """Return the card symbols of POKER-DVS: from its zips in a folder, one zip, or a folder of recordings.

    ``pips_dat.zip`` holds 100 upright ones, ``pips_aedat2.zip`` the same and 31 inverted; from both together each is
    taken once. The suit is in a recording's name.
    Source: Serrano-Gotarredona and Linares-Barranco, Frontiers in Neuroscience 9:481 (2015); non-commercial use.
    Raises: DataError where there are no such recordings; EventFileError for a damaged one.
    """
    place = Path(root)
    archives = [place] if place.suffix.lower() == ".zip" else [place / "pips_dat.zip", place / "pips_aedat2.zip"]
    archives = [archive for archive in archives if archive.is_file()]
    if not archives:
        if not place.is_dir():
            raise DataError(
                f"poker: expected a folder or zip of recordings at '{place.name}', found none. Try its path."
            )
        return _read_folder([(file.name, file) for file in sorted(place.rglob("*")) if file.is_file()], place.name)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for archive in archives:
            unpacked = _unpacked(archive, Path(folder))
            files += [one for one in unpacked if archive == archives[0] or one[0].lower().startswith("x")]
        return _read_folder(files, archives[0].name)


def _read_folder(files: Sequence[tuple[str, Path]], name: str) -> EventDataset:
    """Return the recordings among files, whose names are given beside their paths."""
    suits = [(_suit(called), file) for called, file in files if file.suffix.lower() in (".dat", ".aedat")]
    chosen = [(suit, file) for suit, file in suits if suit >= 0]
    if not chosen:
        raise DataError(
            f"poker: {name}: expected recordings (.dat, .aedat) with a suit in their names ({', '.join(SUITS)}), found "
            "none. Try the zip of POKER-DVS."
        )
    recordings = tuple(read_events(file, sensor_size=POKER_SIZE).from_zero() for _, file in chosen)
    labels = np.array([suit for suit, _ in chosen])
    return EventDataset(recordings, labels, SUITS, "poker", "POKER-DVS (IMSE-CNM, non-commercial use)")


def _suit(name: str) -> int:
    """Return the suit that a name such as ``cl_60_td.dat`` or ``xspade07i.aedat`` begins with, -1 for none."""
    start = name.lower().removeprefix("x")
    return next((index for index, suit in enumerate(SUITS) if start.startswith((suit, f"{suit[:2]}_"))), -1)


def _unpacked(archive: Path, folder: Path) -> list[tuple[str, Path]]:
    """Return the names of an archive's files and where each was written to."""
    written = []
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
            for index, entry in enumerate(entries):
                name = Path(entry.filename).name  # the path in the archive is not used
                file = folder / f"{archive.stem}_{index:05d}{Path(name).suffix.lower()}"
                file.write_bytes(opened.read(entry))
                written.append((name, file))
    except ZIP_DAMAGE as cause:
        raise DataError(
            f"{archive.name}: expected a zip of recordings, found a damaged one ({cause!s:.100}). Try copying it again."
        ) from cause
    return written


def image_folder(root: str | Path) -> ImageDataset:
    """Return the gray images in a folder with one folder for each class, whose name is the class's.

    Raises: DataError where there are none, sizes differ, or one cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    place = Path(root)
    classes = sorted(folder.name for folder in place.iterdir() if folder.is_dir()) if place.is_dir() else []
    found = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((place / name).iterdir())
        if file.suffix.lower() in _PICTURES
    ]
    if not found:
        raise DataError(
            f"images '{place.name}': expected a folder for each class with pictures ({', '.join(_PICTURES)}), found "
            "none. Try the folder that holds the classes."
        )
    pictures = []
    for file, _ in found:
        try:
            with Image.open(io.BytesIO(file.read_bytes())) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    raise ValueError(f"more than {_MAX_PIXELS} pixels")
                pictures.append(np.asarray(picture.convert("L"), np.uint8))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as cause:
            raise DataError(
                f"{file.name}: expected a picture, found a damaged one ({cause!s:.100}). Try leaving it out."
            ) from cause
    sizes = sorted({picture.shape for picture in pictures})
    if len(sizes) > 1:
        raise DataError(
            f"images '{place.name}': expected pictures of one size, found {sizes[0]} and {sizes[1]}. Try scaling them."
        )
    labels = np.array([label for _, label in found], np.int64)
    return ImageDataset(np.stack(pictures), labels, tuple(classes), place.name, f"pictures in {place.name}")
