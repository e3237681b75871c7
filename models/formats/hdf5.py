"""HDF5: four columns below ``events`` or at the root, DSEC's among them, or one compound array."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .gather import MAX_EVENTS, gathered
from .scale import whole
from .source import BLOCK_EVENTS, MAX_PACKET, Block, Opened, Source, at_event

_DAMAGE = (OSError, RuntimeError, LookupError, TypeError, AttributeError, ValueError, MemoryError, OverflowError)
"""What h5py raises for a damaged file."""

_PLACES = ("events", "CD/events", "CD", "/")
_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "on"),
    "t": ("t_us", "t", "ts", "timestamp", "time"),
}


def open_hdf5(source: Source) -> Opened:
    """Return the recording in an HDF5 file; DSEC's ``t_offset`` is added to its times.

    Blosc and other filters need the package hdf5plugin. Links to other files are not followed.
    Source: dsec.ifi.uzh.ch, data format; docs.prophesee.ai, HDF5 event files.
    """
    import h5py

    try:
        file = source.closing.enter_context(h5py.File(source.stream, "r"))
        columns = _columns(file, source)
        header = {key: column.name for key, (column, _) in columns.items()}
        offset = 0
        if "t_offset" in file and _is_here(file, "t_offset") and file["t_offset"].size == 1:
            offset = int(np.asarray(file["t_offset"][()]).reshape(()))
            header["t_offset"] = str(offset)
        size = _sensor_size(file, columns["x"][0])
        filters = sorted({found for column, _ in columns.values() for found in _missing_filters(column)})
    except EventFileError:
        raise
    except _DAMAGE as cause:
        raise _damaged(source, cause) from cause
    if filters:
        raise EventFileError(
            f"{source.name}: expected filters that this machine has, found {', '.join(filters)}. "
            "Try: pip install 'spikeport[h5]'."
        )
    return Opened("hdf5", header, size, _blocks(source, columns, offset))


Columns = dict[str, tuple[Any, str | None]]
"""The data set, and the field of it where it is compound, of x, y, p and t."""


def _columns(file: Any, source: Source) -> Columns:
    import h5py

    for place in _PLACES:
        if place != "/" and not _is_here(file, place):
            continue
        found = file[place]
        if isinstance(found, h5py.Dataset) and found.dtype.names:
            chosen: Columns = {
                key: (found, name) for key, names in _NAMES.items() for name in names[::-1] if name in found.dtype.names
            }
        elif isinstance(found, h5py.Group):
            chosen = {
                key: (found[name], None)
                for key, names in _NAMES.items()
                for name in names[::-1]
                if _is_here(found, name) and isinstance(found[name], h5py.Dataset)
            }
        else:
            continue
        if len(chosen) == len(_NAMES):
            _check(chosen, source)
            return chosen
    raise EventFileError(
        f"{source.name}: expected arrays x, y, p and t below 'events' or 'CD' or at the root, found "
        f"{', '.join(map(repr, list(file)[:9])) or 'nothing'}. Try writing them as events/x, y, p, t."
    )


def _is_here(group: Any, path: str) -> bool:
    """Return whether a path is there and leads through no link to elsewhere."""
    import h5py

    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            return False
        group = group[part]
    return True


def _check(columns: Columns, source: Source) -> None:
    for key, (column, _) in columns.items():
        if column.external or column.is_virtual:
            raise EventFileError(f"{source.name}: {key}: lies in another file, which is not read. Try copying it in.")
        if column.shape is None or len(column.shape) != 1:
            found = list(column.shape or ())
            raise EventFileError(f"{source.name}: {key}: expected one axis, found shape {found}. Try {key}.ravel().")
        n_bytes = (column.chunks or (0,))[0] * column.dtype.itemsize
        if n_bytes > MAX_PACKET or column.dtype.itemsize > 1 << 10:
            raise EventFileError(
                f"{source.name}: {key}: expected chunks of at most {MAX_PACKET} bytes, found {n_bytes}. "
                "Try smaller ones."
            )
        if column.dtype.hasobject:
            raise EventFileError(f"{source.name}: {key}: expected numbers, found {column.dtype}. Try whole numbers.")
    lengths = {key: column.shape[0] for key, (column, _) in columns.items()}
    if len(set(lengths.values())) > 1:
        raise EventFileError(
            f"{source.name}: expected four arrays of equal length, found {lengths}. Try one column per field."
        )


def _missing_filters(column: Any) -> list[str]:
    """Return the filters of a data set that this machine does not have, having asked hdf5plugin for them."""
    import h5py

    settings = column.id.get_create_plist()
    used = [settings.get_filter(index) for index in range(settings.get_nfilters())]
    if not all(h5py.h5z.filter_avail(code) for code, *_ in used):
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401 - registers its filters
    missing = [(code, name) for code, _, _, name in used if not h5py.h5z.filter_avail(code)]
    return [f"filter {code} ({name.decode('latin-1').strip() or 'no name'})" for code, name in missing]


def _sensor_size(file: Any, column: Any) -> tuple[int, int] | None:
    """Return ``height`` and ``width`` of the attributes; only plain whole numbers are looked at."""
    for holder in (column.parent, file):
        size = [_plain_number(holder, name) for name in ("height", "width")]
        if None not in size:
            return int(size[0] or 0), int(size[1] or 0)
    return None


def _plain_number(holder: Any, name: str) -> int | None:
    if name not in holder.attrs:
        return None
    found = holder.attrs.get_id(name)
    if found.dtype.kind not in "iu" or found.shape != ():  # texts of any length lie in heaps, whose damage can hang
        return None
    return int(holder.attrs[name])


def _blocks(source: Source, columns: Columns, offset: int) -> Iterator[Block]:
    n_events = columns["x"][0].shape[0]
    distinct = {column.id: column for column, _ in columns.values()}
    times = columns["t"][1] or columns["t"][0].name.rpartition("/")[2]
    unit = "us" if times == "t_us" else source.options.time_unit
    for first in range(0, n_events, BLOCK_EVENTS):
        try:
            read = {key: np.asarray(column[first : first + BLOCK_EVENTS]) for key, column in distinct.items()}
        except _DAMAGE as cause:
            raise _damaged(source, cause, first) from cause
        parts = {
            key: read[column.id] if field is None else read[column.id][field]
            for key, (column, field) in columns.items()
        }
        x, y, p = (whole(parts[key], key, source.name, first) for key in ("x", "y", "p"))
        t_us = whole(parts["t"], "t", source.name, first, unit)
        if offset:
            t_us = t_us.astype(np.int64) + offset
        yield Block(x, y, p, t_us, at_event(first, "the arrays"))


def _damaged(source: Source, cause: BaseException, first: int | None = None) -> EventFileError:
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:120]
    where = source.name if first is None else f"{source.name}: events from {first} on"
    return EventFileError(f"{where}: expected an HDF5 file of events, found a damaged one ({reason}). Try copying it.")


def encode_hdf5(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an HDF5 file: ``events/x``, ``y``, ``p`` and ``t`` in microseconds, and the sensor's size."""
    yield _file_of(gathered(chunks, sensor_size, name))


def encode_dsec(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an HDF5 file as DSEC has it: times from ``t_offset``, and the index of each millisecond."""
    events = gathered(chunks, sensor_size, name)
    n_ms = events.duration_us // 1000 + 2
    if n_ms > MAX_EVENTS:
        raise EventFileError(f"{name}: expected at most {MAX_EVENTS} ms, found {n_ms}. Try the format hdf5.")
    yield _file_of(events, n_ms)


def _file_of(events: Events, n_ms: int = 0) -> bytes:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w", libver="latest") as file:
        group = file.create_group("events")
        group.attrs["height"], group.attrs["width"] = (np.int64(edge) for edge in events.sensor_size)
        times = events.t_us
        if n_ms:
            offset = int(times[0])
            times = times - offset
            file["t_offset"] = np.int64(offset)
            edges = np.arange(n_ms, dtype=np.int64) * 1000
            file["ms_to_idx"] = np.searchsorted(times, edges)
        for key, column in (("x", events.x), ("y", events.y), ("p", events.p), ("t", times)):
            group.create_dataset(key, data=column, chunks=(min(len(events), BLOCK_EVENTS),))
    return stream.getvalue()
