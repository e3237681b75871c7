"""Labelled data by name: recordings and still images."""

from __future__ import annotations

import dataclasses

import numpy as np

from .data import EventDataset, Split, digits, open_dataset
from .errors import DataError
from .images import ImageDataset
from .poker import image_folder, poker
from .symbols import symbols

_N_SYMBOLS = 100


def open_labelled(
    spec: str, *, split: Split = "test", size: int | None = None, n: int | None = None
) -> EventDataset | ImageDataset:
    """Return the data set that ``spec`` names, its first ``n`` samples where that is given.

    It is ``digits``, ``symbols`` (card symbols, generated, of one seed for each split), ``nmnist:FOLDER``,
    ``gestures:FOLDER``, ``poker:FOLDER``, ``images:FOLDER`` (a folder for each class), or a path: a recording or a
    folder of them. ``size`` is the sensor of simulated digits.
    Raises: DataError for an unknown name or an empty folder; EventFileError for a damaged recording.
    """
    if n is not None and n < 1:
        raise DataError(f"data '{spec}': expected 1 sample or more, found {n}. Try 100.")
    name, _, folder = spec.partition(":")
    found: EventDataset | ImageDataset
    if spec == "symbols":
        return symbols(n or _N_SYMBOLS, seed=int(split == "test"))
    if spec == "digits" and n is not None:
        return digits(split, n=n, size=size or 34)
    if name == "poker" and folder:
        found = poker(folder)
    elif name == "images" and folder:
        found = image_folder(folder)
    else:
        found = open_dataset(spec, split=split, size=size)
    if n is None or n >= len(found):
        return found
    return dataclasses.replace(found.subset(np.arange(n)))
