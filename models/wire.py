"""Events as bytes on their way from one process to another: packets for UDP and pipes, and lines of text.

A packet is little-endian: ``SPEV``, version (1 byte), flags (1: the last packet), number of events (2), height (2),
width (2) of the sensor, index of its first event in the stream (8), then 13 bytes an event: t_us (8), x (2), y (2),
p (1). The index tells how many events were lost on the way.
"""

from __future__ import annotations

import dataclasses
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import StreamError
from .events import Events
from .intake import Intake
from .window import no_events

MAGIC = b"SPEV"
PORTION = 1000
"""Events of a packet: 13 kB."""

_HEADER = struct.Struct("<4sBBHHHQ")
_EVENT = np.dtype([("t_us", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
_VERSION, _LAST = 1, 1
_MAX_LINE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Packet:
    """What one packet holds: raw columns, not yet checked."""

    events: NDArray[Any]
    first: int
    sensor_size: tuple[int, int]
    is_last: bool


def pack_events(events: Events, *, first: int = 0, is_last: bool = False, portion: int = PORTION) -> Iterator[bytes]:
    """Yield a recording as packets; ``first`` is the index of its first event in the stream.

    Law: ``unpack_packet`` of each gives the events back.
    """
    height, width = events.sensor_size
    starts = range(0, len(events), portion)
    for start in starts:
        part = events.part(start, start + portion)
        columns = np.empty(len(part), _EVENT)
        for name in ("t_us", "x", "y", "p"):
            columns[name] = getattr(part, name)
        flags = _LAST if is_last and start + portion >= len(events) else 0
        yield _HEADER.pack(MAGIC, _VERSION, flags, len(part), height, width, first + start) + columns.tobytes()
    if is_last and not len(starts):
        yield _HEADER.pack(MAGIC, _VERSION, _LAST, 0, height, width, first)


def packet_size(data: bytes | memoryview) -> int | None:
    """Return the bytes of the packet that ``data`` begins with, None where its header is not all there."""
    if len(data) < _HEADER.size:
        return None
    return _HEADER.size + int(_HEADER.unpack_from(data)[3]) * _EVENT.itemsize


def unpack_packet(data: bytes, who: str) -> Packet:
    """Return what a packet holds; ``who`` is what errors call the stream.

    Raises: StreamError where it is none, or damaged.
    """
    if len(data) < _HEADER.size or data[:4] != MAGIC:
        raise StreamError(
            f"{who}: expected a packet that begins with SPEV, found {bytes(data[:4])!r} and {len(data)} bytes. "
            "Try spikeport.models.wire.pack_events on the sending side."
        )
    _, version, flags, n, height, width, first = _HEADER.unpack_from(data)
    size = _HEADER.size + n * _EVENT.itemsize
    if version != _VERSION or len(data) != size or not (height and width):
        raise StreamError(
            f"{who}: packet at event {first}: expected version {_VERSION} with {size} bytes for {n} events and a "
            f"sensor, found version {version}, {len(data)} bytes and a sensor of {height}x{width}. "
            "Try the same spikeport on both sides."
        )
    columns = np.frombuffer(data, _EVENT, offset=_HEADER.size)
    return Packet(columns, first, (height, width), bool(flags & _LAST))


def send_events(recordings: Iterable[Events], address: tuple[str, int], *, events_per_s: float | None = None) -> int:
    """Send recordings as UDP packets, the last one marked, and return how many events these were.

    Units: no faster than ``events_per_s``; without it as fast as they can be sent, which may lose packets.
    """
    n, size = 0, (1, 1)
    started = time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for events in recordings:
            size = events.sensor_size
            for packet in pack_events(events, first=n):
                out.sendto(packet, address)
                n += (len(packet) - _HEADER.size) // _EVENT.itemsize
                ahead = 0.0 if not events_per_s else n / events_per_s - (time.perf_counter() - started)
                if ahead > 0:
                    time.sleep(ahead)
        for packet in pack_events(no_events(size), first=n, is_last=True):
            out.sendto(packet, address)
    return n


class Parser(Protocol):
    """Bytes in, as they come; recordings out. ``is_over`` after the packet that says so."""

    is_over: bool

    def feed(self, data: bytes) -> list[Events]:
        """Return the events that are complete now."""
        ...

    def close(self) -> list[Events]:
        """Return what is left at the end of the stream."""
        ...


class PacketParser:
    """Packets, cut anywhere; ``lost`` counts the events that were sent and did not come."""

    def __init__(self, intake: Intake, *, who: str) -> None:
        self.is_over = False
        self.n_lost = 0
        self._intake, self._who = intake, who
        self._left = b""
        self._next = 0

    def feed(self, data: bytes) -> list[Events]:
        """Return the events of the packets that are complete."""
        self._left += data
        found = []
        while not self.is_over and (size := packet_size(self._left)) is not None:
            if self._left[:4] == MAGIC and len(self._left) < size:
                break
            packet, self._left = self._left[:size], self._left[size:]
            found.append(self.take(packet))
        return found

    def take(self, data: bytes) -> Events:
        """Return the events of one whole packet; one that comes late is left out and counted."""
        packet = unpack_packet(data, self._who)
        self.is_over |= packet.is_last
        columns = packet.events
        if packet.first < self._next:  # it was counted as lost when its successor came
            self._intake.counts["late"] += columns.size
            columns = columns[:0]
        else:
            self.n_lost += packet.first - self._next
            self._next = packet.first + columns.size
        x, y, p, t_us = (columns[name].astype(np.int64) for name in ("x", "y", "p", "t_us"))
        return self._intake.take_columns(x, y, p, t_us=t_us, sensor_size=packet.sensor_size)

    def close(self) -> list[Events]:
        """Check that no packet was cut short."""
        if self._left:
            raise StreamError(
                f"{self._who}: expected whole packets, found {len(self._left)} bytes of one at the end. "
                "Try sending the stream to its end."
            )
        return []


class LineParser:
    """Lines of ``t_us,x,y,p``, or in the order of a first line of names; the sensor's size comes from the caller."""

    def __init__(self, intake: Intake, sensor_size: tuple[int, int], *, who: str) -> None:
        self.is_over = False
        self._intake, self._size, self._who = intake, sensor_size, who
        self._order = ("t_us", "x", "y", "p")
        self._left, self._n_lines = b"", 0

    def feed(self, data: bytes) -> list[Events]:
        """Return the events of the lines that are complete."""
        whole, newline, self._left = (self._left + data).rpartition(b"\n")
        if len(self._left) > _MAX_LINE:
            raise StreamError(f"{self._who}: expected lines of at most {_MAX_LINE} bytes, found a longer one. Try CSV.")
        return [self._parsed(whole.split(b"\n"))] if newline else []

    def close(self) -> list[Events]:
        """Return the event of a last line without an end."""
        left, self._left = self._left, b""
        return [self._parsed([left])] if left.strip() else []

    def _parsed(self, lines: list[bytes]) -> Events:
        rows = []
        for line in lines:
            self._n_lines += 1
            cells = [cell.strip() for cell in line.strip().split(b",")]
            if cells == [b""]:
                continue
            names = tuple(cell.decode("ascii", "replace").lower().replace("t_us", "t") for cell in cells)
            if self._n_lines == 1 and set(names) == {"t", "x", "y", "p"}:
                self._order = tuple("t_us" if name == "t" else name for name in names)  # type: ignore[assignment]
                continue
            try:
                row = [int(cell) for cell in cells]
                if len(row) != 4 or max(map(abs, row)) >= 2**62:
                    raise ValueError("not four numbers")
            except ValueError:
                raise StreamError(
                    f"{self._who}: line {self._n_lines}: expected four whole numbers {','.join(self._order)}, time in "
                    f"microseconds, found {line[:60]!r}. Try round(t * 1e6) for seconds."
                ) from None
            rows.append(row)
        table = dict(zip(self._order, np.array(rows, np.int64).reshape(-1, 4).T, strict=True))
        return self._intake.take_columns(table["x"], table["y"], table["p"], t_us=table["t_us"], sensor_size=self._size)
