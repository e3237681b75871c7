"""Event recordings in files: read whole or in chunks, checked or repaired, written the same way each time."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .atomic import write_atomic
from .errors import EventFileError, EventsError
from .events import Events
from .formats import FORMATS, SUFFIXES, choose_format, find_format
from .formats.admit import admitted
from .formats.detect import HEAD_BYTES, foreign
from .formats.gather import MAX_EVENTS, joined, rechunked
from .formats.nmnist import open_nmnist
from .formats.source import Format, Opened, ReadOptions, Source
from .npz import MAX_BYTES, npz_arrays

CHUNK = 1 << 20
"""Events of a chunk, where nobody says how many."""

_SQUARE_SENSORS = (34, 128)
"""Edges of the sensors that a file without a sensor size may come from: N-MNIST, and the 128x128 chips."""

_NO_RECORDINGS = (".csv", ".txt")
"""Suffixes that are more often those of labels and notes than of recordings."""


def recordings_at(path: str | Path) -> tuple[Path, ...]:
    """Return the recordings in a folder in the order of their names, or the file itself; nothing for other files.

    Texts in a folder are left out, as they may be labels.
    """
    place = Path(path)
    if not place.is_dir():
        return (place,) if place.suffix.lower() in SUFFIXES else ()
    wanted = set(SUFFIXES) - set(_NO_RECORDINGS)
    return tuple(file for file in sorted(place.iterdir()) if file.suffix.lower() in wanted)


def read_events(
    path: str | Path,
    *,
    sensor_size: tuple[int, int] | None = None,
    options: ReadOptions | None = None,
    counts: Counter[str] | None = None,
) -> Events:
    """Return the recording in a file, by its suffix and content; ``docs/recordings.md`` lists the formats.

    ``sensor_size``, ``(height, width)``, overrides the file's. Without either it is 34x34 where that holds every event
    and 128x128 where that does; a larger sensor has to be named. Nothing is repaired but what ``options`` asks for;
    ``counts`` is filled with what was, and with what is no event of a pixel.
    Raises: EventFileError, in one sentence that names the file, the damage and its place; also for more than
    ``MAX_EVENTS`` events, which ``iterate_events`` reads.
    """
    with opened_file(path, options or ReadOptions(), counts) as (source, opened):
        return _recording(source, opened, sensor_size)


def iterate_events(
    path: str | Path,
    *,
    chunk: int = CHUNK,
    sensor_size: tuple[int, int] | None = None,
    options: ReadOptions | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Events]:
    """Yield the recording in a file in pieces of ``chunk`` events, the last one with what is left.

    Where neither the file nor the caller says the sensor's size, the file is read twice.
    Law: put together, the pieces are what ``read_events`` returns, whatever the file's size.
    Units: takes up to 70 bytes for each event of a chunk, 140 with ``sort``, and 64 MiB.
    Raises: EventFileError as ``read_events`` does, when the pieces before are out already.
    """
    if chunk < 1:
        raise EventFileError(f"chunk: expected at least 1 event, found {chunk}. Try {CHUNK}.")
    return _chunks(path, chunk, sensor_size, options or ReadOptions(), counts)


def _chunks(
    path: str | Path,
    chunk: int,
    sensor_size: tuple[int, int] | None,
    options: ReadOptions,
    counts: Counter[str] | None,
) -> Iterator[Events]:
    size = sensor_size
    if size is None:
        with opened_file(path, options, None) as (source, opened):
            size = opened.sensor_size or _scanned_size(source, opened, chunk)
    with opened_file(path, options, counts) as (source, opened):
        blocks = admitted(opened, source, checked_size(size, source.name), chunk)
        n_events = 0
        for events in rechunked(blocks, chunk, size, source.name):
            n_events += len(events)
            yield events
        if not n_events:
            raise _no_events(source.name)


@contextlib.contextmanager
def opened_file(path: str | Path, options: ReadOptions, counts: Counter[str] | None) -> Iterator[tuple[Source, Opened]]:
    """Return, for a ``with``, a file and its header, read; its events are decoded as its blocks are taken.

    Raises: EventFileError where it is no file, cannot be read, or is none of the formats.
    """
    file = Path(path)
    with contextlib.ExitStack() as closing:
        try:
            _check_file(file)
            stream = closing.enter_context(file.open("rb"))
            size = file.stat().st_size
        except OSError as cause:
            raise EventFileError(f"{file.name}: cannot be read ({cause.strerror}). Try another path.") from cause
        source = Source(stream, file.name, size, options, Counter() if counts is None else counts, closing)
        yield source, choose_format(source, file.suffix).open(source)


def parse_bin(data: bytes, name: str, sensor_size: tuple[int, int] | None = None) -> Events:
    """Return the recording in the bytes of an N-MNIST ``.bin`` or ``.bs2`` file; ``name`` is what errors call it.

    Raises: EventFileError, as ``read_events`` does.
    """
    if not data:
        raise EventFileError(f"{name}: expected events, found an empty file. Try copying it again.")
    with contextlib.ExitStack() as closing:
        source = Source(io.BytesIO(data), name, len(data), ReadOptions(), Counter(), closing)
        return _recording(source, open_nmnist(source), sensor_size)


def _recording(source: Source, opened: Opened, sensor_size: tuple[int, int] | None) -> Events:
    size = sensor_size or opened.sensor_size
    if size is not None:
        checked_size(size, source.name)
    columns = joined(admitted(opened, source, size, MAX_EVENTS), source.name)
    if not columns["t_us"].size:
        raise _no_events(source.name)
    if size is None:
        size = _named_size(max(int(columns["x"].max()), int(columns["y"].max())), source.name)
    return Events(**columns, sensor_size=size)


def checked_size(size: tuple[int, int], name: str) -> tuple[int, int]:
    """Return the size of a sensor, checked; ``name`` is what errors call the file.

    Raises: EventFileError where it is none.
    """
    try:
        return Events(*(np.empty(0, np.int64),) * 4, sensor_size=size).sensor_size
    except EventsError as cause:
        raise EventFileError(f"{name}: {cause}") from cause


def _scanned_size(source: Source, opened: Opened, chunk: int) -> tuple[int, int]:
    edge = 0
    for block in admitted(opened, source, None, chunk):
        edge = max(edge, int(block.x.max()), int(block.y.max()))
    return _named_size(edge, source.name)


def assumed_size(edge: int) -> tuple[int, int] | None:
    """Return the smallest usual sensor that has a pixel ``edge``, or None where none has."""
    return next(((square, square) for square in _SQUARE_SENSORS if edge < square), None)


def _named_size(edge: int, name: str) -> tuple[int, int]:
    size = assumed_size(edge)
    if size is None:
        raise EventFileError(
            f"{name}: expected coordinates below {_SQUARE_SENSORS[-1]}, as the file names no sensor size, "
            f"found {edge}. Try read_events(path, sensor_size=(height, width)), or --sensor HxW."
        )
    return size


def _no_events(name: str) -> EventFileError:
    return EventFileError(f"{name}: expected events, found none. Try another recording.")


def _check_file(file: Path) -> None:
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "something that is no file" if file.exists() else "nothing"
        raise EventFileError(f"{file.name}: expected an event file there, found {kind}. Try another path.")


def write_events(events: Events, path: str | Path, *, format: str | None = None) -> None:  # noqa: A002
    """Write a recording, whole or not at all, in the format of the path's suffix or the one named.

    Files of N-MNIST and ``.npy`` do not hold the sensor size; those with a short clock need pauses that it can tell.
    Law: ``read_events(path, sensor_size=events.sensor_size)`` gives the recording back; equal recordings give equal
    bytes.
    Raises: EventFileError where there is no event, the format cannot hold one, or the folder cannot be written to.
    """
    if not len(events):
        raise EventFileError(
            f"{Path(path).name}: expected a recording with events to write, found none. Try a longer one."
        )
    write_chunks([events], path, format=format)


def write_chunks(chunks: Iterable[Events], path: str | Path, *, format: str | None = None) -> int:  # noqa: A002
    """Write pieces of one recording as ``write_events`` does and return how many events they had.

    npz, npy and HDF5 are put together in memory first; the others are written as the pieces come.
    """
    file = Path(path)
    form = format_of(file, format)
    pieces = (piece for piece in chunks if len(piece))
    first = next(pieces, None)
    if first is None:
        raise _no_events(file.name)
    counted = Counter[str]()
    whole = _in_sequence(itertools.chain([first], pieces), counted, file.name)
    try:
        write_atomic(file, form.encode(whole, first.sensor_size, file.name))
    except OSError as cause:
        raise EventFileError(
            f"{file.name}: cannot be written there ({cause.strerror}). Try a folder that exists and is yours."
        ) from cause
    return counted["events"]


def format_of(file: Path, name: str | None = None) -> Format:
    """Return the format to write a file in: the one named, or the first with the file's suffix.

    Raises: EventFileError for a name or a suffix that is none of ours.
    """
    if name is not None:
        return find_format(name)
    for form in FORMATS:
        if file.suffix.lower() in form.suffixes:
            return form
    raise EventFileError(
        f"{file.name}: expected a name that ends in {', '.join(SUFFIXES)}, found '{file.suffix}'. Try .npz."
    )


def _in_sequence(pieces: Iterable[Events], counted: Counter[str], name: str) -> Iterator[Events]:
    size, last = None, 0
    for piece in pieces:
        if piece.sensor_size != (size or piece.sensor_size) or int(piece.t_us[0]) < last:
            raise EventFileError(
                f"{name}: expected pieces of one recording in order of time, found a piece of another sensor, or one "
                f"that begins before {last} us. Try one file per recording."
            )
        size, last = piece.sensor_size, int(piece.t_us[-1])
        counted["events"] += len(piece)
        yield piece


def read_frames(path: str | Path) -> NDArray[np.float32] | None:
    """Return the array ``frames`` of an ``.npz`` file, or None where the file has no such array.

    Shapes: ``[N, C, H, W]``, finite numbers.
    Raises: EventFileError where the file is damaged, or the array is of another shape or kind.
    """
    file = Path(path)
    frames = npz_arrays(_npz_content(file), file.name, error=EventFileError).get("frames")
    if frames is None:
        return None
    if frames.dtype.kind not in "biuf" or frames.ndim != 4 or not frames.size:
        raise EventFileError(
            f"{file.name}: frames: expected numbers of shape [N, C, H, W], found {frames.dtype} of shape "
            f"{list(frames.shape)}. Try frames[:, None] for frames without a channel axis."
        )
    with np.errstate(over="ignore"):
        converted = frames.astype(np.float32)
    if not np.isfinite(converted).all():
        raise EventFileError(
            f"{file.name}: frames: expected finite numbers, found NaN or infinity. Try numpy.isfinite."
        )
    return converted


def _npz_content(file: Path) -> bytes:
    try:
        _check_file(file)
        if file.suffix.lower() != ".npz":
            raise EventFileError(
                f"{file.name}: expected a file that ends in .npz, found '{file.suffix}'. Try numpy.savez."
            )
        if file.stat().st_size > MAX_BYTES:
            raise EventFileError(
                f"{file.name}: expected at most {MAX_BYTES} bytes, found {file.stat().st_size}. Try a part of it."
            )
        data = file.read_bytes()
    except OSError as cause:
        raise EventFileError(f"{file.name}: cannot be read ({cause.strerror}). Try another path.") from cause
    found = foreign(data[:HEAD_BYTES])
    if found != "a zip archive":
        named = found or ("something else, or a damaged one" if data else "nothing: it is empty")
        raise EventFileError(f"{file.name}: expected a zip archive, found {named}. Try copying it again.")
    return data
