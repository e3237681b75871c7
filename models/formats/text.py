"""CSV and other columns of text, with a line of names or with ``ReadOptions.columns``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .columns import room
from .source import BLOCK_EVENTS, DECIMALS, Block, Opened, Source, size_of

_HEAD_BYTES = 1 << 16
_MAX_LINE = 1 << 12
_READ_BYTES = 1 << 21
_NONE = 4

_ROLES = {"x": 0, "y": 1, "p": 2, "pol": 2, "polarity": 2, "on": 2}
_TIMES = ("t", "ts", "time", "timestamp")
_UNITS = {f"{time}_{unit}": unit for time in _TIMES for unit in DECIMALS}


def open_text(source: Source) -> Opened:
    """Return the recording in a text file: one event a line, columns by name, extra columns left out.

    Lines in front that begin with # or % are comments; ``# sensor_size: HxW`` and ``%geometry:W,H`` name the sensor.
    A name such as ``t_s`` tells the unit of time. Without names ``%geometry`` means Metavision's order x, y, p, t.
    """
    head = source.read_at(0, _HEAD_BYTES)
    size: tuple[int, int] | None = None
    is_metavision = False
    start = 0
    while head[start : start + 1] in (b"#", b"%", b"\n", b"\r"):
        line, start = _line(source, head, start)
        word, _, value = line.lstrip("#% ").partition(":")
        if word == "sensor_size":
            size = size_of(value)
        elif word == "geometry":
            is_metavision = True
            size = size_of("x".join(reversed(value.strip().split(","))))
    line, after = _line(source, head, start) if start < len(head) else ("", start)
    is_names = any(character.isalpha() for character in line)
    names = line if is_names else source.options.columns or ("x,y,p,t" if is_metavision else None)
    if names is None:
        raise EventFileError(
            f"{source.name}: byte {start}: expected a line of names such as x,y,p,t_us, found {line!r:.60}. "
            "Try naming the columns: columns='t,x,y,p'."
        )
    delimiter = next((mark for mark in ",;\t" if mark in line), " ")
    fields = _fields(source, names)
    form = np.array([ord(delimiter), *fields], np.int64)
    header = {"columns": names.strip(), "delimiter": {"\t": "tab", " ": "space"}.get(delimiter, delimiter)}
    return Opened("csv", header, size, _blocks(source, after if is_names else start, form))


def _line(source: Source, head: bytes, start: int) -> tuple[str, int]:
    stop = head.find(b"\n", start)
    if stop < 0:
        stop = len(head)
    if stop - start > _MAX_LINE or (stop == _HEAD_BYTES and source.size > _HEAD_BYTES):
        raise source.error(start, f"lines of at most {_MAX_LINE} bytes", "a longer one", "Try another file.")
    return head[start:stop].decode("utf-8", "replace"), stop + 1


def _fields(source: Source, line: str) -> list[int]:
    """Return by how many digits the point of times moves, and the column of each field."""
    names = [name.strip(" \"'\r\ufeff").lower() for name in line.replace(";", ",").replace("\t", ",").split(",")]
    if len(names) == 1:
        names = names[0].split()
    unit = next((_UNITS[name] for name in names if name in _UNITS), source.options.time_unit)
    is_time = [name in _UNITS or name in _TIMES for name in names]
    roles = [3 if time else _ROLES.get(name, _NONE) for name, time in zip(names, is_time, strict=True)]
    missing = [name for name, role in (("x", 0), ("y", 1), ("p", 2), ("t_us", 3)) if roles.count(role) != 1]
    if missing:
        raise EventFileError(
            f"{source.name}: expected one column each of x, y, p and t_us, found {', '.join(names)!r:.200}; missing or "
            f"twice: {', '.join(missing)}. Try a first line of names: x,y,p,t_us."
        )
    return [DECIMALS[unit], *roles]


def _blocks(source: Source, start: int, form: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[Block]:
    from .loops import TEXT_ERRORS, decode_text

    while start < source.size:
        data = source.read_at(start, _READ_BYTES)
        if not data:
            raise source.error(start, f"{source.size} bytes", "an end before them")
        stop = data.rfind(b"\n") + 1
        if start + len(data) >= source.size and stop < len(data):
            data, stop = data + b"\n", len(data) + 1
        if not stop:
            raise source.error(start, f"lines of at most {_MAX_LINE} bytes", "a longer one", "Try another file.")
        raw = np.frombuffer(data, np.uint8, stop)
        used = 0
        while used < stop:
            columns = room(np.int64, np.int64)
            more, n_events, wrong = decode_text(raw[used:], form, columns)
            if n_events:
                yield columns.block(n_events, start + used)
            used += more
            if wrong:
                if source.options.cut and data.find(b"\n", used) == stop - 1 and start + stop >= source.size:
                    source.counts["bytes cut at the end"] += source.size - start - used
                    return
                line = data[used : min(data.find(b"\n", used), used + 60)].decode("utf-8", "replace")
                expected, found = TEXT_ERRORS[wrong]
                hint = "Try the true unit of time, such as time_unit='s'." if wrong == 4 else "Try correcting the line."
                raise source.error(start + used, expected, f"{found} in the line {line!r}", hint)
        start += stop


def encode_text(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:  # noqa: ARG001
    """Yield the bytes of a CSV file: a comment with the sensor, a line of names, one line an event."""
    yield f"# sensor_size: {sensor_size[0]}x{sensor_size[1]}\nx,y,p,t_us\n".encode()
    for events in chunks:
        for first in range(0, len(events), BLOCK_EVENTS):
            part = events.part(first, first + BLOCK_EVENTS)
            rows = zip(part.x.tolist(), part.y.tolist(), part.p.tolist(), part.t_us.tolist(), strict=True)
            yield "".join(f"{x},{y},{p},{t}\n" for x, y, p, t in rows).encode()
