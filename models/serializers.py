"""Arrays by key to one file and back: npz and HDF5, both the same for whoever reads them."""

from __future__ import annotations

import dataclasses
import io
import json
import urllib.parse
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .atomic import write_atomic
from .errors import InferenceError, TensorFileError
from .nearest import unknown
from .npz import MAX_BYTES, npz_arrays
from .predictor import Response

Key = str | tuple[str, ...]
Arrays = Mapping[Key, NDArray[Any]]

_KINDS = "biufcSV"


class Serializer(Protocol):
    """A kind of file for arrays. A key is a text, or a tuple of texts; any characters will do."""

    def write(self, path: str | Path, arrays: Arrays) -> None:
        """Write the arrays, whole or not at all."""
        ...

    def read(self, path: str | Path) -> dict[Key, NDArray[Any]]:
        """Return the arrays; nothing that a file holds is run."""
        ...


@dataclasses.dataclass(frozen=True)
class Npz:
    """NumPy's ``.npz``, read without pickle.

    Law: ``read`` gives back what ``write`` was given; equal arrays give equal bytes.
    """

    def write(self, path: str | Path, arrays: Arrays) -> None:
        """Write the arrays, whole or not at all."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:  # stored: deflate differs between versions of zlib
            for key, array in arrays.items():
                member = io.BytesIO()
                npy.write_array(member, _plain(key, array), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{_quoted(key)}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, member.getvalue())
        write_atomic(path, stream.getvalue())

    def read(self, path: str | Path) -> dict[Key, NDArray[Any]]:
        """Return the arrays.

        Raises: TensorFileError where the file is missing, damaged, too large, or holds objects.
        """
        file = Path(path)
        found = npz_arrays(_content(file), file.name, error=TensorFileError)
        return {_key(name): array for name, array in found.items()}


@dataclasses.dataclass(frozen=True)
class Hdf5:
    """HDF5, a data set for each array in a group for each part of its key.

    Law: ``read`` gives back what ``write`` was given.
    """

    def write(self, path: str | Path, arrays: Arrays) -> None:
        """Write the arrays, whole or not at all."""
        import h5py

        stream = io.BytesIO()
        with h5py.File(stream, "w", track_order=True) as opened:
            for key, array in arrays.items():
                opened.create_dataset(_quoted(key), data=_plain(key, array), track_times=False)
        write_atomic(path, stream.getvalue())

    def read(self, path: str | Path) -> dict[Key, NDArray[Any]]:
        """Return the arrays.

        Raises: TensorFileError where the file is missing, damaged, too large, or holds links or objects.
        """
        import h5py

        file = Path(path)
        data = _content(file)
        found: dict[Key, NDArray[Any]] = {}
        try:
            with h5py.File(io.BytesIO(data), "r") as opened:
                _collect(opened, "", found, h5py)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as cause:
            lines = str(cause).splitlines() or [type(cause).__name__]
            raise TensorFileError(
                f"{file.name}: expected an HDF5 file of arrays, found a damaged or foreign one ({lines[0][:100]}). "
                "Try writing it again."
            ) from cause
        return found


SERIALIZERS: Mapping[str, Callable[[], Serializer]] = MappingProxyType({"npz": Npz, "hdf5": Hdf5})
"""Serializers by name."""

_BY_SUFFIX = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}


def find_serializer(serializer: str | Serializer) -> Serializer:
    """Return the serializer of that name, or the one that is given.

    Raises: InferenceError for an unknown name, with the nearest one.
    """
    if not isinstance(serializer, str):
        return serializer
    if serializer not in SERIALIZERS:
        raise InferenceError(unknown("serializer", serializer, SERIALIZERS))
    return SERIALIZERS[serializer]()


def serializer_of(path: str | Path) -> Serializer:
    """Return the serializer that the suffix of a name asks for.

    Raises: InferenceError for another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise InferenceError(
            f"{Path(path).name}: expected a name that ends in {', '.join(_BY_SUFFIX)}, found '{suffix}'. Try .npz."
        )
    return SERIALIZERS[_BY_SUFFIX[suffix]]()


def save_arrays(path: str | Path, arrays: Arrays) -> None:
    """Write arrays by key to a ``.npz`` or ``.h5`` file.

    Law: ``load_arrays`` gives them back.
    """
    serializer_of(path).write(path, arrays)


def load_arrays(path: str | Path) -> dict[Key, NDArray[Any]]:
    """Return the arrays in a ``.npz`` or ``.h5`` file; raises as the serializers."""
    return serializer_of(path).read(path)


_MAPPINGS = ("outputs", "tie_breaks", "spikes", "synops", "recorded")


def save_response(response: Response, path: str | Path) -> None:
    """Write a response to a ``.npz`` or ``.h5`` file.

    Law: ``load_response(path).same(response)``, but for the profile.
    """
    arrays: dict[Key, NDArray[Any]] = {("ends_us",): response.ends_us, ("n_events",): response.n_events}
    for name in _MAPPINGS:
        arrays |= {(name, key): array for key, array in getattr(response, name).items()}
    save_arrays(path, arrays)


def load_response(path: str | Path) -> Response:
    """Return the response in a file.

    Raises: TensorFileError where the file is damaged, or holds something else.
    """
    parts: dict[str, Any] = {name: {} for name in _MAPPINGS}
    for key, array in load_arrays(path).items():
        if isinstance(key, tuple) and len(key) == 2 and key[0] in _MAPPINGS:
            parts[key[0]][key[1]] = array
        else:
            parts[key if isinstance(key, str) else "/".join(key)] = array
    if not {"ends_us", "n_events"} <= parts.keys() or len(parts) != len(_MAPPINGS) + 2:
        raise TensorFileError(
            f"{Path(path).name}: expected a saved response, found arrays {', '.join(map(str, parts))[:200]}. "
            "Try a file of save_response."
        )
    return Response(**parts)


def save_state(state: Mapping[str, NDArray[Any]], path: str | Path) -> None:
    """Write the state of a run to a ``.npz`` or ``.h5`` file, from which another process goes on.

    Law: ``load_state`` gives it back, bit for bit.
    """
    save_arrays(path, {(name,): array for name, array in state.items()})


def load_state(path: str | Path) -> dict[str, NDArray[Any]]:
    """Return the state of a run in a file; raises as the serializers."""
    return {key if isinstance(key, str) else "/".join(key): array for key, array in load_arrays(path).items()}


def _collect(group: Any, before: str, found: dict[Key, NDArray[Any]], h5py: Any) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        item = group[name] if isinstance(link, h5py.HardLink) else None
        if isinstance(item, h5py.Group) and before.count("/") < 16:
            _collect(item, f"{before}{name}/", found, h5py)
        elif isinstance(item, h5py.Dataset) and item.dtype.kind in _KINDS and not item.external:
            if item.nbytes > MAX_BYTES:
                raise ValueError(f"'{name}' takes more than {MAX_BYTES} bytes")
            array = np.asarray(item[()])
            array.flags.writeable = False
            found[_key(f"{before}{name}")] = array
        else:
            raise ValueError(f"'{name}' is no plain array")


def _content(file: Path) -> bytes:
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise TensorFileError(f"{file.name}: expected a file of arrays there, found {found}. Try another path.")
    if file.stat().st_size > MAX_BYTES:
        raise TensorFileError(
            f"{file.name}: expected at most {MAX_BYTES} bytes, found {file.stat().st_size}. Try a smaller one."
        )
    return file.read_bytes()


def _plain(key: Key, array: NDArray[Any]) -> NDArray[Any]:
    values = np.asarray(array)
    if values.dtype.hasobject or values.dtype.kind not in _KINDS:
        raise InferenceError(
            f"array {_quoted(key)!r}: expected numbers, found {values.dtype}. Try an array of a plain dtype."
        )
    return values


def _quoted(key: Key) -> str:
    """Return a key as the path of a member: parts are quoted, so that any text is a part."""
    parts = (key,) if isinstance(key, str) else key
    if not parts or not all(parts):
        raise InferenceError(f"key {key!r}: expected a text, or a tuple of texts, found an empty one. Try ('layer',).")
    quoted = [urllib.parse.quote(part, safe="").replace(".", "%2E") for part in parts]
    return ("" if isinstance(key, str) else "@/") + "/".join(quoted)


def _key(path: str) -> Key:
    parts = path.split("/")
    if parts[0] == "@":
        return tuple(map(urllib.parse.unquote, parts[1:]))
    return urllib.parse.unquote(path) if len(parts) == 1 else tuple(map(urllib.parse.unquote, parts))


def tables_of(data: Mapping[str, Any]) -> dict[Key, NDArray[Any]]:
    """Return what callbacks kept, ``Evaluation.data``, as arrays by key, ready to be saved.

    Raises: InferenceError for what is no array, number or mapping of these.
    """
    found: dict[Key, NDArray[Any]] = {}

    def walk(prefix: tuple[str, ...], value: Any) -> None:
        if isinstance(value, Mapping):
            for key, part in value.items():
                walk((*prefix, str(key)), part)
            return
        array = np.asarray(json.dumps(value).encode()) if isinstance(value, str) else np.asarray(value)
        found[prefix] = _plain(prefix, array)

    for key, value in data.items():
        walk((str(key),), value)
    return found
