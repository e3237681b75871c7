"""What every reader of events gets and gives: a file with limits, and blocks of events as they stand in it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

BLOCK_EVENTS = 1 << 16
"""Events that a reader decodes at a time: their columns stay in the cache of a processor."""

MAX_HEADER = 1 << 22
"""Most bytes of a header. jAER's with all its preferences has some 300,000."""

MAX_PACKET = 1 << 25
"""Most bytes that one packet or compressed chunk of a file may have, as it is and unpacked."""

MAX_MEMORY = 1 << 26
"""Bytes that reading may take besides the events it hands out; whatever a file says, it is less than twice this."""

TimeUnit = Literal["s", "ms", "us", "ns"]
Polarity = Literal["strict", "signed", "drop"]
Evt3Time = Literal["format", "expelliarmus"]
_POLARITIES = get_args(Polarity)
_EVT3_TIMES = get_args(Evt3Time)

DECIMALS: dict[str, int] = {"s": 6, "ms": 3, "us": 0, "ns": -3}
"""Digits that the point moves to the right from each unit of time to microseconds."""

Place = Callable[[int], str]
"""The index of an event in a block -> where it stands in the file, as errors call it."""

Encoder = Callable[[Iterable[Events], tuple[int, int], str], Iterator[bytes]]
"""Chunks of events, their sensor and the name for errors -> the bytes of a file, piece by piece."""


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What a file does not say about itself, and what may be repaired in it; nothing is, by default.

    ``format`` and ``columns`` (of a CSV file without a line of names: ``"t,x,y,p"``) name what cannot be seen.
    ``time_unit`` is that of CSV, NumPy and HDF5 files whose names do not tell.
    ``sort`` puts events in order of time, within the size of a chunk; ``crop`` leaves out those outside the sensor,
    ``clip`` moves them to its edge; ``polarity`` "signed" takes -1 for 0, "drop" leaves out all but 0 and 1;
    ``from_zero`` lets time start at 0; ``cut`` leaves out what is incomplete at the end. ``evt3_time`` "expelliarmus"
    makes the mistake of that library, for comparison with arrays made with it.
    Raises: EventFileError for another word, or both ``crop`` and ``clip``.
    """

    format: str | None = None
    columns: str | None = None
    time_unit: TimeUnit = "us"
    sort: bool = False
    crop: bool = False
    clip: bool = False
    polarity: Polarity = "strict"
    from_zero: bool = False
    cut: bool = False
    evt3_time: Evt3Time = "format"

    def __post_init__(self) -> None:
        for name, allowed in (("time_unit", tuple(DECIMALS)), ("polarity", _POLARITIES), ("evt3_time", _EVT3_TIMES)):
            if getattr(self, name) not in allowed:
                raise EventFileError(
                    f"{name}: expected one of {', '.join(allowed)}, found {getattr(self, name)!r:.40}. "
                    f"Try {allowed[0]!r}."
                )
        if self.crop and self.clip:
            raise EventFileError("crop and clip: expected at most one of them, found both. Try crop=True alone.")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """An open file.

    ``counts`` is filled while it is read: what was repaired or left out, and how often. ``closing`` is closed after it.
    """

    stream: BinaryIO
    name: str
    size: int
    options: ReadOptions
    counts: Counter[str]
    closing: contextlib.ExitStack

    def read_at(self, start: int, n_bytes: int) -> bytes:
        """Return the bytes from ``start``, fewer at the end of the file.

        Raises: EventFileError where the disk does not give them.
        """
        try:
            self.stream.seek(start)
            return self.stream.read(n_bytes)
        except OSError as cause:
            raise EventFileError(
                f"{self.name}: byte {start}: cannot be read ({cause.strerror}). Try copying it again."
            ) from cause

    def count(self, what: str, n: int) -> None:
        """Count what was repaired or left out, if there is any."""
        if n:
            self.counts[what] += n

    def error(self, start: int, expected: str, found: str, hint: str = "Try copying the file again.") -> EventFileError:
        """Return the error for damage at byte ``start``."""
        return EventFileError(f"{self.name}: byte {start}: expected {expected}, found {found}. {hint}")

    def whole(self, start: int, n_bytes: int) -> int:
        """Return where the last whole record of ``n_bytes`` ends.

        Raises: EventFileError where the last one is cut short and may not be left out.
        """
        rest = (self.size - start) % n_bytes
        if rest and not self.options.cut:
            raise EventFileError(
                f"{self.name}: expected {n_bytes} bytes an event, found {self.size} bytes: the event at byte "
                f"{self.size - rest} is cut short. Try copying the file again, or the repair 'cut'."
            )
        if rest:
            self.counts["bytes cut at the end"] += rest
        return self.size - rest

    def blocks_of(self, start: int, n_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Yield the records from ``start`` on, many at a time, with the byte at which they begin."""
        stop = self.whole(start, n_bytes)
        while start < stop:
            data = self.read_at(start, min(BLOCK_EVENTS * n_bytes, stop - start))
            if not data or len(data) % n_bytes:
                raise self.error(start + len(data), f"{self.size} bytes", "an end before them")
            yield start, data
            start += len(data)


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Some events as they stand in a file, unchecked; ``place(i)`` says where event ``i`` stands."""

    x: NDArray[Any]
    y: NDArray[Any]
    p: NDArray[Any]
    t_us: NDArray[Any]
    place: Place

    def __len__(self) -> int:
        return int(self.t_us.size)


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A file whose header has been read: its format, what it says about itself, and its events to come."""

    format: str
    header: Mapping[str, str]
    sensor_size: tuple[int, int] | None
    blocks: Iterator[Block]


@dataclasses.dataclass(frozen=True, eq=False)
class Format:
    """A kind of event file: how it is called, read and written.

    ``signature`` is what the files begin with, where they begin with something; ``kind`` is the word for that.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    kind: str | None
    open: Callable[[Source], Opened]
    encode: Encoder


def at_byte(start: int, n_bytes: int, kept: NDArray[Any] | None = None) -> Place:
    """Return where each record of ``n_bytes`` stands that begins at ``start``, or each of those ``kept``."""
    return lambda index: f"byte {start + (index if kept is None else int(kept[index])) * n_bytes}"


def at_event(first: int, what: str) -> Place:
    """Return where each event of something stands from its event ``first`` on, where bytes mean nothing."""
    return lambda index: f"event {first + index} of {what}"


def unwrapped(clock: NDArray[Any], bits: int, wraps: int, last: int) -> tuple[NDArray[np.int64], int, int]:
    """Return the times of a clock of few bits, how often it has wrapped around, and what it showed last.

    A step back of more than half of what the clock holds is a wrap; a smaller one is time going backwards.
    """
    times = clock.astype(np.int64)
    steps = np.diff(times, prepend=last if last >= 0 else times[0]) < -(1 << (bits - 1))
    last = int(times[-1])
    if steps.any():
        counted = wraps + np.cumsum(steps)
        return times + (counted << bits), int(counted[-1]), last
    return times + (wraps << bits) if wraps else times, wraps, last


def check_clock(ticks: NDArray[Any], bits: int, last: int, name: str, *, tick_us: int = 1) -> None:
    """Check that a clock of ``bits`` tells these ticks when it is read from the start; ``last`` is the tick before.

    Raises: EventFileError where it does not.
    """
    size = 1 << bits
    if last < 0 and ticks.size and int(ticks[0]) >= size:
        found = "a late first event"
    else:
        steps = np.diff(ticks, prepend=last if last >= 0 else ticks[:1])
        clock = ticks & (size - 1)
        before = np.concatenate([[last & (size - 1) if last >= 0 else clock[0]], clock[:-1]])
        lost = (clock - before + ((clock - before < -(size // 2)) << bits)) != steps
        if not lost.any():
            return
        at = int(np.argmax(lost))
        found = f"{int(steps[at]) * tick_us} us before event {at}"
    raise EventFileError(
        f"{name}: expected a first event before {size * tick_us} us and pauses under {size // 2 * tick_us} us, all "
        f"that the {bits}-bit clock of this format can tell, found {found}. Try .npz, or events.from_zero()."
    )


def check_fits(events: Events, columns: int, rows: int, name: str) -> None:
    """Check that a format with room for ``columns`` and ``rows`` can hold these events.

    Raises: EventFileError where it cannot.
    """
    for axis, values, room in (("x", events.x, columns), ("y", events.y, rows)):
        most = int(values.max(initial=0))
        if most >= room:
            raise EventFileError(
                f"{name}: {axis}: expected at most {room - 1}, all that this format holds, found {most}. Try .npz."
            )


def percent_header(source: Source) -> tuple[dict[str, str], int]:
    """Return the header of a Prophesee file, by the first word of each line, and where the data begin.

    Lines begin with "% " and hold plain text; the data may begin with the same byte. ``% end`` is often missing.
    Raises: EventFileError where the header does not end within ``MAX_HEADER`` bytes.
    """
    head = source.read_at(0, MAX_HEADER)
    header: dict[str, str] = {}
    start = 0
    while head.startswith(b"% ", start):
        stop = head.find(b"\n", start)
        line = head[start : stop if stop >= 0 else None]
        if not all(32 <= byte < 127 or byte in b"\t\r" for byte in line[:4096]) or len(line) > 4096:
            break
        if stop < 0:
            raise source.error(start, f"a header line that ends within {MAX_HEADER} bytes", "none")
        start = stop + 1
        word, _, value = line[2:].decode().strip().partition(" ")
        if word == "end":
            break
        header[word] = value.strip()
    if start >= MAX_HEADER:
        raise source.error(start, f"a header of at most {MAX_HEADER} bytes", "a longer one")
    return header, start


def hash_header(source: Source) -> tuple[list[str], int]:
    """Return the lines of an AEDAT header, without their marks, and where the data begin.

    Raises: EventFileError where the header does not end within ``MAX_HEADER`` bytes.
    """
    head = source.read_at(0, MAX_HEADER)
    lines: list[str] = []
    start = 0
    while head.startswith(b"#", start):
        stop = head.find(b"\n", start)
        if stop < 0 and source.size > len(head):
            raise source.error(start, f"a header line that ends within {MAX_HEADER} bytes", "none")
        line = head[start + 1 : stop].removesuffix(b"\r")
        if stop < 0 or any(byte < 32 and byte != 9 for byte in line[:256]):
            break  # an address may begin with the same byte
        start = stop + 1
        lines.append(line.decode("latin-1").strip())
        if lines[-1].upper() in ("!END-HEADER", "END OF ASCII HEADER"):
            break
    if start >= MAX_HEADER:
        raise source.error(start, f"a header of at most {MAX_HEADER} bytes", "a longer one")
    return lines, start


def size_of(text: str) -> tuple[int, int] | None:
    """Return the sensor that a text such as ``34x128`` (height x width) names, or None."""
    height, cross, width = text.strip().lower().partition("x")
    if cross and height.isdecimal() and width.isdecimal() and len(text) < 16:
        return int(height), int(width)
    return None
