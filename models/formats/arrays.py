"""NumPy's files: one structured array, or the columns of an archive, read a piece at a time."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events
from spikeport.models.npz import ZIP_DAMAGE, npy_header

from .gather import gathered
from .scale import whole
from .source import BLOCK_EVENTS, Block, Opened, Place, Source, at_byte, at_event

_MAX_NPY_HEADER = 1 << 16
_MAX_DIRECTORY = 1 << 20
"""Most bytes of the list of members of an archive."""

_MAX_MEMBERS = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class _Column:
    """An array in a file: its name for errors, dtype and shape, how to read on in it, and where its events stand."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stream: BinaryIO
    place: Callable[[int], Place]


def open_npy(source: Source) -> Opened:
    """Return the recording in the structured array of a ``.npy`` file, its fields read by name."""
    source.stream.seek(0)
    column = _column(source.stream, source.size, source.name, 0)
    if not column.dtype.names:
        raise _not_structured(source.name, column)
    return Opened("npy", {"fields": ", ".join(column.dtype.names)}, None, _blocks(source, _as_fields(column, source)))


def open_npz(source: Source) -> Opened:
    """Return the recording in an ``.npz`` file: its columns, or the fields of its only structured array."""
    _check_directory(source)
    try:
        archive = source.closing.enter_context(zipfile.ZipFile(source.stream))
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        if len(entries) > _MAX_MEMBERS:
            raise ValueError(f"{len(entries)} arrays")
        columns = {}
        for entry in entries:
            where = f"{source.name}: {entry.filename!r:.60}"
            stream = cast(BinaryIO, archive.open(entry))
            columns[entry.filename.removesuffix(".npy")] = _column(stream, entry.file_size, where, None)
    except ZIP_DAMAGE as cause:
        raise _damaged(source, cause) from cause
    size = _sensor_size(columns.pop("sensor_size", None), source)
    structured = [key for key, column in columns.items() if column.dtype.names]
    if not {"x", "y", "p"} & set(columns) and len(structured) == 1:
        chosen = _as_fields(columns[structured[0]], source)
    else:
        chosen = {key: (column, None) for key, column in columns.items()}
    return Opened("npz", {"arrays": ", ".join(columns)}, size, _blocks(source, chosen))


Chosen = Mapping[str, tuple[_Column, str | None]]
"""The column, and the field of it where it is a structured array, by the name of what it holds."""


def _as_fields(column: _Column, source: Source) -> Chosen:
    if not column.dtype.names:
        raise _not_structured(source.name, column)
    return {field: (column, field) for field in column.dtype.names}


def _blocks(source: Source, chosen: Chosen) -> Iterator[Block]:
    time = "t_us" if "t_us" in chosen or "t" not in chosen else "t"
    missing = [key for key in ("x", "y", "p", time) if key not in chosen]
    if missing:
        found = ", ".join(map(repr, chosen)) or "no array"
        raise EventFileError(
            f"{source.name}: expected x, y, p and t_us, found {found:.200}; missing: {', '.join(missing)}. "
            "Try numpy.savez(path, x=..., y=..., p=..., t_us=..., sensor_size=...)."
        )
    used = {key: chosen[key] for key in ("x", "y", "p", time)}
    shapes = {key: column.shape for key, (column, _) in used.items()}
    for key, shape in shapes.items():
        if len(shape) != 1:
            raise EventFileError(
                f"{source.name}: {key}: expected one axis, found shape {list(shape)}. Try {key}.ravel()."
            )
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
        raise EventFileError(
            f"{source.name}: expected four 1-D arrays of equal length, found {found}. Try one column per field."
        )
    n_events = shapes["x"][0]
    distinct = {id(column): column for column, _ in used.values()}
    for first in range(0, n_events, BLOCK_EVENTS):
        n = min(BLOCK_EVENTS, n_events - first)
        read = {key: _read(column, n, source) for key, column in distinct.items()}
        parts = {
            key: read[id(column)] if field is None else read[id(column)][field] for key, (column, field) in used.items()
        }
        unit = "us" if time == "t_us" else source.options.time_unit
        x, y, p = (whole(parts[key], key, source.name, first) for key in ("x", "y", "p"))
        t_us = whole(parts[time], time, source.name, first, unit)
        yield Block(x, y, p, t_us, used["x"][0].place(first))


def _read(column: _Column, n_events: int, source: Source) -> NDArray[Any]:
    n_bytes = n_events * column.dtype.itemsize
    try:
        data = column.stream.read(n_bytes)
    except ZIP_DAMAGE as cause:
        raise _damaged(source, cause) from cause
    if len(data) < n_bytes:
        raise EventFileError(
            f"{column.name}: expected {n_bytes} bytes more, found {len(data)}. Try copying the file again."
        )
    return np.frombuffer(data, column.dtype)


def _column(stream: BinaryIO, size: int, name: str, start: int | None) -> _Column:
    """Return the array that begins here, with its header read."""
    prefix = stream.read(12)
    n_bytes = int.from_bytes(prefix[8:10] if prefix[6:7] == b"\x01" else prefix[8:12], "little")
    if n_bytes > _MAX_NPY_HEADER:
        raise EventFileError(
            f"{name}: byte 8: expected a header of at most {_MAX_NPY_HEADER} bytes, found one of {n_bytes}. "
            "Try numpy.save again."
        )
    offset = 10 if prefix[6:7] == b"\x01" else 12
    head = prefix + stream.read(max(0, offset + n_bytes - len(prefix)))
    shape, _, dtype = npy_header(io.BytesIO(head), name, error=EventFileError)
    begin = offset + n_bytes
    declared, held = math.prod(shape) * dtype.itemsize, size - begin
    if declared != held or min(shape, default=0) < 0:
        raise EventFileError(
            f"{name}: expected {declared} bytes for {dtype!s:.80} of shape {list(shape)!s:.80}, found {held}. "
            "Try numpy.save again."
        )
    if start is None:
        return _Column(name, dtype, shape, stream, lambda first: at_event(first, "the archive"))
    place = functools.partial(_at_record, start + begin, dtype.itemsize)
    return _Column(name, dtype, shape, stream, place)


def _at_record(start: int, n_bytes: int, first: int) -> Place:
    return at_byte(start + first * n_bytes, n_bytes)


def _not_structured(name: str, column: _Column) -> EventFileError:
    return EventFileError(
        f"{name}: expected a structured array with the fields x, y, p and t, found {column.dtype!s:.80} of "
        f"shape {list(column.shape)!s:.80}. Try numpy.savez(path, x=..., y=..., p=..., t_us=..., sensor_size=...)."
    )


def _sensor_size(column: _Column | None, source: Source) -> tuple[int, int] | None:
    if column is None:
        return None
    if column.shape != (2,) or column.dtype.kind not in "iu":
        raise EventFileError(
            f"{source.name}: sensor_size: expected two whole numbers, height and width, found {column.dtype} of shape "
            f"{list(column.shape)}. Try numpy.array([34, 34])."
        )
    height, width = _read(column, 2, source).tolist()
    return height, width


def _check_directory(source: Source) -> None:
    """Check that the list of members is short: it is read as a whole, at what its own end says."""
    tail = source.read_at(max(0, source.size - (1 << 17)), 1 << 17)
    last = tail.rfind(b"PK\x05\x06")
    n_bytes = int.from_bytes(tail[last + 12 : last + 16], "little") if last >= 0 else 0
    long = tail.rfind(b"PK\x06\x06")
    if long >= 0:
        n_bytes = max(n_bytes if n_bytes < 0xFFFFFFFF else 0, int.from_bytes(tail[long + 40 : long + 48], "little"))
    if n_bytes > _MAX_DIRECTORY:
        raise EventFileError(
            f"{source.name}: expected a list of members of at most {_MAX_DIRECTORY} bytes, found {n_bytes}. "
            "Try numpy.savez again."
        )


def _damaged(source: Source, cause: BaseException) -> EventFileError:
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:100]
    return EventFileError(
        f"{source.name}: expected an .npz file, found a damaged or foreign one ({reason}). Try numpy.savez again."
    )


def encode_npy(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of a ``.npy`` file: fields t, x, y, p, as tonic orders them, without the sensor size."""
    events = gathered(chunks, sensor_size, name)
    array = np.empty(len(events), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "i1")])
    array["t"], array["x"], array["y"], array["p"] = events.t_us, events.x, events.y, events.p
    yield _npy_bytes(array)


def encode_npz(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an ``.npz`` file: x, y, p, t_us and sensor_size."""
    events = gathered(chunks, sensor_size, name)
    columns = {
        "x": events.x.astype("<i2"),
        "y": events.y.astype("<i2"),
        "p": events.p.astype("i1"),
        "t_us": events.t_us.astype("<i8"),
        "sensor_size": np.array(events.sensor_size, "<i8"),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # stored: deflate differs between versions of zlib
        for key, column in columns.items():
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, _npy_bytes(column))
    yield stream.getvalue()


def _npy_bytes(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    npy.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()
