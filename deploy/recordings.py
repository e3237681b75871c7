"""What a program did, to one file and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import TensorFileError
from spikeport.models.serializers import Key, load_arrays, save_arrays

from .types import SPIKE, Recording

_MAPS = ("spikes", "states", "counts")
_NUMBERS = ("synops", "n_spikes", "n_events", "n_dropped")
_WALL = "wall_s"


def save_recording(recording: Recording, path: str | Path) -> None:
    """Write what a program did to a ``.npz`` or ``.h5`` file, whole or not at all.

    Law: ``load_recording(path).same(recording)``.
    Raises: InferenceError for another suffix.
    """
    arrays: dict[Key, NDArray[Any]] = {(_WALL,): np.array([recording.wall_s])}
    for name in _MAPS:
        for core, array in getattr(recording, name).items():
            columns = {field: array[field] for field in array.dtype.names} if array.dtype.names else {"": array}
            arrays |= {(name, str(core), *([field] if field else [])): part for field, part in columns.items()}
    for name in _NUMBERS:
        numbers = getattr(recording, name)
        arrays[(name,)] = np.array([*numbers.items()], np.int64).reshape(-1, 2)
    save_arrays(path, arrays)


def load_recording(path: str | Path) -> Recording:
    """Return what a program did, from a file of ``save_recording``.

    Raises: TensorFileError where the file is missing, damaged, or holds something else.
    """
    arrays = load_arrays(path)
    try:
        maps: dict[str, dict[int, Any]] = {name: {} for name in _MAPS}
        for key, array in arrays.items():
            if key[0] not in _MAPS:
                continue
            if len(key) == 2:
                maps[key[0]][int(key[1])] = array
                continue
            spikes = maps[key[0]].setdefault(int(key[1]), np.empty(len(array), SPIKE))
            spikes[key[2]] = array
        for spikes in maps["spikes"].values():
            spikes.flags.writeable = False
        numbers: dict[str, Any] = {name: {int(core): int(n) for core, n in arrays[(name,)]} for name in _NUMBERS}
        return Recording(
            spikes=maps["spikes"],
            states=maps["states"],
            counts=maps["counts"],
            **{name: numbers[name] for name in _NUMBERS},
            wall_s=float(arrays[(_WALL,)][0]),
        )
    except (KeyError, ValueError, TypeError, IndexError) as cause:
        raise TensorFileError(
            f"{Path(path).name}: expected a saved recording of a program, found other arrays ({cause!s:.80}). "
            "Try a file of save_recording."
        ) from cause
