"""AEDAT 3.1 of cAER: packets of events with a header each, little-endian."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator

import numpy as np

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .source import BLOCK_EVENTS, Block, Opened, Source, at_byte, hash_header, size_of

_PACKET = struct.Struct("<hhiiiiii")
"""Type, source, bytes an event, offset of the time, overflows of the time, capacity, events, valid events."""

_POLARITY = 1
_EVENT = np.dtype([("data", "<u4"), ("t", "<i4")])
_SENSOR_LINE = "Sensor-Size:"

_SENSORS = {"DVS128": (128, 128), "DAVIS128": (128, 128), "DAVIS208": (192, 208), "DAVIS240": (180, 240)}
_SENSORS |= {"DAVIS346": (260, 346), "DAVIS640": (480, 640), "DVXPLORER": (480, 640)}


def open_aedat3(source: Source) -> Opened:
    """Return the recording in an AEDAT 3.0 or 3.1 file: its valid polarity events; others are counted.

    Source: docs.inivation.com, AEDAT 3.1.
    """
    lines, start = hash_header(source)
    header = {word.strip(): value.strip() for word, _, value in (line.partition(":") for line in lines) if value}
    if header.get("Format", "RAW").upper() != "RAW":
        raise EventFileError(
            f"{source.name}: Format: expected RAW, found {header['Format']!r:.40}. Try recording without compression."
        )
    named = [value.upper() for word, value in header.items() if word.startswith("Source")]
    size = size_of(header.get(_SENSOR_LINE[:-1], ""))
    if size is None:
        size = next((size for chip, size in _SENSORS.items() for one in named if one.startswith(chip)), None)
    return Opened("aedat3", header, size, _blocks(source, start))


def _blocks(source: Source, start: int) -> Iterator[Block]:
    while start < source.size:
        head = source.read_at(start, _PACKET.size)
        if len(head) < _PACKET.size:
            if _is_cut(source):
                return
            raise source.error(start, f"a packet header of {_PACKET.size} bytes", f"{len(head)} bytes")
        kind, _, n_bytes, offset, overflow, capacity, n_events, _ = _PACKET.unpack(head)
        if not (0 <= kind < 256 and 8 <= n_bytes <= 1 << 24 and 0 <= n_events <= capacity and overflow >= 0):
            raise source.error(
                start,
                "the header of a packet",
                f"type {kind}, {n_events} of {capacity} events of {n_bytes} bytes, {overflow} overflows",
            )
        begin, stop = start + _PACKET.size, start + _PACKET.size + n_events * n_bytes
        if stop > source.size and not _is_cut(source):
            raise source.error(start, f"{n_events * n_bytes} bytes of events", f"{source.size - begin}")
        if kind == _POLARITY:
            if n_bytes != _EVENT.itemsize or offset != 4:
                raise source.error(start, "polarity events of 8 bytes", f"{n_bytes} bytes, the time at byte {offset}")
            yield from _polarities(source, begin, min(stop, source.size), overflow)
        elif n_events:
            source.counts["events of other kinds left out"] += n_events
        start = stop


def _is_cut(source: Source) -> bool:
    if source.options.cut:
        source.counts["packets cut at the end"] += 1
    return source.options.cut


def _polarities(source: Source, start: int, stop: int, overflow: int) -> Iterator[Block]:
    step = BLOCK_EVENTS * _EVENT.itemsize
    for begin in range(start, stop - _EVENT.itemsize + 1, step):
        data = source.read_at(begin, min(step, stop - begin))
        events = np.frombuffer(data[: len(data) // _EVENT.itemsize * _EVENT.itemsize], _EVENT)
        kept = np.flatnonzero(events["data"] & 1)
        if len(kept) < len(events):
            source.counts["events marked as not valid left out"] += len(events) - len(kept)
        valid, t = events["data"][kept], events["t"][kept].astype(np.int64) + (overflow << 31)
        x, y, p = (valid >> 17).astype(np.int16), ((valid >> 2) & 0x7FFF).astype(np.int16), (valid >> 1) & 1
        if len(kept):
            yield Block(x, y, p.astype(np.int8), t, at_byte(begin, _EVENT.itemsize, kept))


def encode_aedat3(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an AEDAT 3.1 file, a packet per chunk and overflow of the 31-bit time."""
    chip = next((chip for chip, size in _SENSORS.items() if size == sensor_size), "DVS128")
    lines = ("!AER-DAT3.1", "Format: RAW", f"Source 1: {chip}", f"{_SENSOR_LINE} {sensor_size[0]}x{sensor_size[1]}")
    yield "".join(f"#{line}\r\n" for line in (*lines, "!END-HEADER")).encode()
    for events in chunks:
        overflow = events.t_us >> 31
        if int(overflow[-1]) >= 1 << 31:
            raise EventFileError(
                f"{name}: expected times below {1 << 62} us, found {int(events.t_us[-1])}. Try events.from_zero()."
            )
        edges = [0, *(np.flatnonzero(np.diff(overflow)) + 1).tolist(), len(events)]
        for first, stop in itertools.pairwise(edges):
            part = events.part(first, stop)
            packed = np.empty(len(part), _EVENT)
            packed["data"] = (
                1 | (part.p.astype(np.uint32) << 1) | (part.y.astype(np.uint32) << 2) | (part.x.astype(np.uint32) << 17)
            )
            packed["t"] = part.t_us & 0x7FFFFFFF
            n = len(part)
            yield _PACKET.pack(_POLARITY, 1, _EVENT.itemsize, 4, int(overflow[first]), n, n, n) + packed.tobytes()
