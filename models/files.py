"""Event recordings in files: N-MNIST binary and NumPy arrays, read with suspicion, written the same way each time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .atomic import write_atomic
from .errors import EventFileError, EventsError
from .events import Events
from .npz import MAX_BYTES, npy_array, npz_arrays

SUFFIXES = (".bin", ".bs2", ".npz", ".npy")

_EVENT_BYTES = 5
_CLOCK_BITS = 23
_CLOCK_US = 1 << _CLOCK_BITS

_SQUARE_SENSORS = (34, 128)
"""Edges of the sensors that a file without a sensor size may come from: N-MNIST, and the 128x128 chips."""

_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"#!AER-DAT", "an AEDAT recording"),
    (b"%PDF-", "a PDF document"),
)
_TEXT = bytes(range(32, 127)) + b"\t\n\r"


def recordings_at(path: str | Path) -> tuple[Path, ...]:
    """Return the recordings in a folder in the order of their names, or the file itself; nothing for other files."""
    place = Path(path)
    found = sorted(place.iterdir()) if place.is_dir() else [place]
    return tuple(file for file in found if file.suffix.lower() in SUFFIXES)


def read_events(path: str | Path, *, sensor_size: tuple[int, int] | None = None) -> Events:
    """Return the recording in a ``.bin``/``.bs2`` (N-MNIST binary), ``.npz`` or ``.npy`` file.

    An ``.npz`` holds the arrays ``x, y, p, t_us`` and ``sensor_size``, as ``write_events`` makes it, or one structured
    array; a ``.npy`` holds one structured array. Structured arrays are read by field name, ``t`` or ``t_us`` in
    microseconds, so the field orders of tonic (t, x, y, p) and samna (x, y, t, p) both do.
    ``sensor_size``, ``(height, width)``, overrides the file's. Without either it is 34x34 where that holds every event
    and 128x128 where that does; a larger sensor has to be named.
    Raises: EventFileError, in one sentence that names the file and the damage.
    """
    file = Path(path)
    data = _content(file, SUFFIXES)
    if file.suffix.lower() in (".bin", ".bs2"):
        return parse_bin(data, file.name, sensor_size)
    if file.suffix.lower() == ".npz":
        return _from_columns(_recording(_members(data, file.name), file.name), file.name, sensor_size)
    _check_signature(data, file.name, "a NumPy array")
    return _from_columns(_fields(npy_array(data, file.name, error=EventFileError), file.name), file.name, sensor_size)


def read_frames(path: str | Path) -> NDArray[np.float32] | None:
    """Return the array ``frames`` of an ``.npz`` file, or None where the file has no such array.

    Shapes: ``[N, C, H, W]``, finite numbers.
    Raises: EventFileError where the file is damaged, or the array is of another shape or kind.
    """
    file = Path(path)
    frames = _members(_content(file, (".npz",)), file.name).get("frames")
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


def write_events(events: Events, path: str | Path) -> None:
    """Write a recording to a ``.npz`` or, in the format of N-MNIST, a ``.bin`` or ``.bs2`` file, whole or not at all.

    The N-MNIST format holds neither the sensor size nor time above 23 bits: whoever reads it has to know the one, and
    pauses must be short enough to count how often the other wrapped around.
    Law: ``read_events(path, sensor_size=events.sensor_size)`` gives the recording back; equal recordings give equal
    bytes.
    Raises: EventFileError where there is no event, the format cannot hold one, or the folder cannot be written to.
    """
    file = Path(path)
    if file.suffix.lower() not in (".npz", ".bin", ".bs2"):
        raise EventFileError(
            f"{file.name}: expected a name that ends in .npz, .bin or .bs2, found '{file.suffix}'. Try .npz."
        )
    if not len(events):
        raise EventFileError(f"{file.name}: expected a recording with events to write, found none. Try a longer one.")
    data = _npz_bytes(events) if file.suffix.lower() == ".npz" else _bin_bytes(events, file.name)
    try:
        write_atomic(file, data)
    except OSError as cause:
        raise EventFileError(
            f"{file.name}: cannot be written there ({cause.strerror}). Try a folder that exists and is yours."
        ) from cause


def parse_bin(data: bytes, name: str, sensor_size: tuple[int, int] | None = None) -> Events:
    """Return the recording in the bytes of an N-MNIST ``.bin`` or ``.bs2`` file; ``name`` is what errors call it.

    Five bytes an event, big-endian: x, y, then one bit of polarity and 23 bits of microseconds. A step back in time of
    more than half of what 23 bits hold is the clock wrapping around; a smaller one is damage.
    Raises: EventFileError, as ``read_events`` does.
    Source: Orchard et al. 2015, N-MNIST. No time steps back in the public recordings of digits and gestures tried.
    """
    _check_foreign(data, name)
    if len(data) % _EVENT_BYTES:
        whole = len(data) - len(data) % _EVENT_BYTES
        raise EventFileError(
            f"{name}: expected {_EVENT_BYTES} bytes an event, found {len(data)} bytes: the event at byte {whole} is "
            "cut short. Try copying the file again."
        )
    if not data:
        raise EventFileError(f"{name}: expected events, found an empty file. Try copying it again.")
    raw = np.frombuffer(data, np.uint8).reshape(-1, _EVENT_BYTES)
    clock = ((raw[:, 2] & 127).astype(np.int64) << 16) | (raw[:, 3].astype(np.int64) << 8) | raw[:, 4]
    times = _unwrapped(clock)
    back = np.diff(times) < 0
    if back.any():
        at = int(np.argmax(back)) + 1
        raise EventFileError(
            f"{name}: expected times that never decrease, found event {at} (byte {at * _EVENT_BYTES}) "
            f"{int(times[at - 1] - times[at])} us before the one before it. Try another copy: this one is damaged or "
            "no N-MNIST binary."
        )
    return _from_columns({"x": raw[:, 0], "y": raw[:, 1], "p": raw[:, 2] >> 7, "t_us": times}, name, sensor_size)


def _unwrapped(clock: NDArray[np.int64]) -> NDArray[np.int64]:
    wraps = np.diff(clock, prepend=clock[:1]) < -(_CLOCK_US // 2)
    return clock + (np.cumsum(wraps) << _CLOCK_BITS)


def _bin_bytes(events: Events, name: str) -> bytes:
    for axis, values in (("x", events.x), ("y", events.y)):
        if int(values.max()) > 255:
            raise EventFileError(
                f"{name}: {axis}: expected at most 255, all that this format holds, found {int(values.max())}. "
                "Try .npz."
            )
    clock = events.t_us & (_CLOCK_US - 1)
    lost = _unwrapped(clock) != events.t_us
    if lost.any():
        at = int(np.argmax(lost))
        found = f"{int(events.t_us[at] - events.t_us[at - 1])} us before event {at}" if at else "a late first event"
        raise EventFileError(
            f"{name}: expected a first event before {_CLOCK_US} us and pauses under {_CLOCK_US // 2} us, all that the "
            f"23-bit clock of this format can tell, found {found}. Try .npz, or events.from_zero()."
        )
    raw = np.empty((len(events), _EVENT_BYTES), np.uint8)
    raw[:, 0], raw[:, 1] = events.x, events.y
    raw[:, 2] = (events.p.astype(np.int64) << 7) | (clock >> 16)
    raw[:, 3], raw[:, 4] = (clock >> 8) & 255, clock & 255
    data = raw.tobytes()
    _check_foreign(data, name)
    return data


def _npz_bytes(events: Events) -> bytes:
    columns = {
        "x": events.x.astype("<i2"),
        "y": events.y.astype("<i2"),
        "p": events.p.astype("i1"),
        "t_us": events.t_us.astype("<i8"),
        "sensor_size": np.array(events.sensor_size, "<i8"),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # stored: deflate differs between versions of zlib
        for name, column in columns.items():
            member = io.BytesIO()
            npy.write_array(member, column, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, member.getvalue())
    return stream.getvalue()


def _content(file: Path, suffixes: tuple[str, ...]) -> bytes:
    try:
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "something that is no file" if file.exists() else "nothing"
            raise EventFileError(f"{file.name}: expected an event file there, found {kind}. Try another path.")
        if file.suffix.lower() not in suffixes:
            raise EventFileError(
                f"{file.name}: expected a file that ends in {', '.join(suffixes)}, found '{file.suffix}'. "
                "Try numpy.savez to save it as .npz."
            )
        if file.stat().st_size > MAX_BYTES:
            raise EventFileError(
                f"{file.name}: expected at most {MAX_BYTES} bytes, found {file.stat().st_size}. Try a part of it."
            )
        return file.read_bytes()
    except OSError as cause:
        raise EventFileError(f"{file.name}: cannot be read ({cause.strerror}). Try another path.") from cause


def _foreign(data: bytes) -> str | None:
    """Return what ``data`` is where that shows at once and it is no N-MNIST binary."""
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    return "text" if data and not data.translate(None, _TEXT) else None


def _check_foreign(data: bytes, name: str) -> None:
    kind = _foreign(data)
    if kind is not None:
        raise EventFileError(
            f"{name}: expected an N-MNIST binary, found what reads as {kind}. "
            "Try the suffix that fits, or another file."
        )


def _check_signature(data: bytes, name: str, expected: str) -> None:
    found = _foreign(data)
    if found != expected:
        named = found or ("nothing: it is empty" if not data else "something else, or a damaged one")
        raise EventFileError(f"{name}: expected {expected}, found {named}. Try copying it again, or another file.")


def _members(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    _check_signature(data, name, "a zip archive")
    return npz_arrays(data, name, error=EventFileError)


def _recording(arrays: Mapping[str, NDArray[Any]], name: str) -> Mapping[str, NDArray[Any]]:
    """Return the columns of an ``.npz``: its own arrays, or the fields of its only structured one."""
    structured = [key for key, array in arrays.items() if array.dtype.names]
    if not {"x", "y", "p"} & set(arrays) and len(structured) == 1:
        size = {key: array for key, array in arrays.items() if key == "sensor_size"}
        return {**_fields(arrays[structured[0]], name), **size}
    return arrays


def _fields(array: NDArray[Any], name: str) -> dict[str, NDArray[Any]]:
    if not array.dtype.names:
        raise EventFileError(
            f"{name}: expected a structured array with the fields x, y, p and t, found {array.dtype!s:.80} of "
            f"shape {list(array.shape)!s:.80}. Try numpy.savez(path, x=..., y=..., p=..., t_us=..., sensor_size=...)."
        )
    return {field: array[field] for field in array.dtype.names}


def _from_columns(columns: Mapping[str, NDArray[Any]], name: str, sensor_size: tuple[int, int] | None) -> Events:
    time = "t_us" if "t_us" in columns or "t" not in columns else "t"
    missing = [key for key in ("x", "y", "p", time) if key not in columns]
    if missing:
        found = ", ".join(map(repr, columns)) or "no array"
        raise EventFileError(
            f"{name}: expected x, y, p and t_us, found {found:.200}; missing: {', '.join(missing)}. "
            "Try numpy.savez(path, x=..., y=..., p=..., t_us=..., sensor_size=...)."
        )
    x, y, p, t_us = (_whole(columns[key], key, name) for key in ("x", "y", "p", time))
    if not t_us.size:
        raise EventFileError(f"{name}: expected events, found none. Try another recording.")
    size: Any = sensor_size if sensor_size is not None else _sensor_size(columns, x, y, name)
    try:
        return Events(x, y, p, t_us, size)
    except EventsError as cause:
        raise EventFileError(f"{name}: {cause}") from cause


def _whole(column: NDArray[Any], key: str, name: str) -> NDArray[Any]:
    if column.ndim != 1:
        raise EventFileError(f"{name}: {key}: expected one axis, found shape {list(column.shape)}. Try {key}.ravel().")
    if column.dtype.kind in "biu":
        return column
    if column.dtype.kind != "f":
        raise EventFileError(f"{name}: {key}: expected whole numbers, found {column.dtype}. Try {key}.astype(int).")
    broken = ~(np.abs(column) < 2.0**53) | (column != np.rint(column))
    if broken.any():
        at = int(np.argmax(broken))
        fix = "microseconds: numpy.rint(t * 1e6)" if key.startswith("t") else f"numpy.rint({key})"
        raise EventFileError(f"{name}: {key}[{at}] is {column[at]}, expected a whole number. Try {fix}.")
    return column.astype(np.int64)


def _sensor_size(columns: Mapping[str, NDArray[Any]], x: NDArray[Any], y: NDArray[Any], name: str) -> tuple[int, int]:
    size = columns.get("sensor_size")
    if size is not None:
        if size.shape != (2,) or size.dtype.kind not in "iu":
            raise EventFileError(
                f"{name}: sensor_size: expected two whole numbers, height and width, found {size.dtype} of shape "
                f"{list(size.shape)}. Try numpy.array([34, 34])."
            )
        return int(size[0]), int(size[1])
    edge = max((int(axis.max()) for axis in (x, y) if axis.size), default=0)
    for square in _SQUARE_SENSORS:
        if edge < square:
            return square, square
    raise EventFileError(
        f"{name}: expected coordinates below {_SQUARE_SENSORS[-1]}, as the file names no sensor size, found {edge}. "
        "Try read_events(path, sensor_size=(height, width)), and write_events as .npz to keep it."
    )
