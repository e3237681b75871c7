"""AEDAT 4 of DV: packets of flatbuffers, plain or compressed with LZ4 or Zstandard."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .source import BLOCK_EVENTS, MAX_HEADER, MAX_PACKET, Block, Opened, Source, at_event

_MAGIC = b"#!AER-DAT4.0\r\n"
_EVENT = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
_CODECS = {0: "NONE", 1: "LZ4", 2: "LZ4", 3: "ZSTD", 4: "ZSTD"}

Fail = Callable[[str, str], EventFileError]


def open_aedat4(source: Source) -> Opened:
    """Return the first stream of events in an AEDAT 4 file; other streams are counted.

    Times are microseconds since 1970 in what cameras record. LZ4 needs the package lz4, Zstandard zstandard.
    Source: docs.inivation.com, AEDAT 4.0; the layout of flatbuffers from flatbuffers.dev, internals.
    """
    start = len(_MAGIC)
    n_bytes = int.from_bytes(source.read_at(start, 4), "little")
    if not 20 <= n_bytes <= MAX_HEADER:
        raise source.error(start, f"a header of 20 to {MAX_HEADER} bytes", f"{n_bytes}")
    data = source.read_at(start + 4, n_bytes)

    def fail(expected: str, found: str) -> EventFileError:
        return source.error(start, expected, found)

    if len(data) < n_bytes or data[4:8] != b"IOHE":
        raise fail(f"an AEDAT 4 header of {n_bytes} bytes", "another one, or its beginning only")
    fields = _fields(data, fail)
    codec = _number(data, fields, 0, "<i", fail)
    table = _number(data, fields, 1, "<q", fail, -1)
    if codec not in _CODECS:
        raise fail(f"a compression of {', '.join(map(str, _CODECS))}", f"{codec}")
    text = _text(data, fields, fail)
    stop = source.size if table <= start + n_bytes or table > source.size else table
    sizes = [re.search(rf'key="{axis}" type="int">(\d{{1,5}})<', text) for axis in ("sizeY", "sizeX")]
    height, width = (int(found[1]) if found else 0 for found in sizes)
    header = {"compression": _CODECS[codec]}
    header |= {
        word: found[1] for word in ("source",) if (found := re.search(rf'key="{word}"[^>]*>([^<]{{1,99}})<', text))
    }
    blocks = _blocks(source, start + 4 + n_bytes, stop, _CODECS[codec])
    return Opened("aedat4", header, (height, width) if height and width else None, blocks)


def _blocks(source: Source, start: int, stop: int, codec: str) -> Iterator[Block]:
    unpack = _unpacker(codec, source.name)
    wanted: int | None = None
    while start < stop:
        head = source.read_at(start, 8)
        stream, n_bytes = struct.unpack("<ii", head) if len(head) == 8 else (0, -1)
        if len(head) == 8 and not (0 <= n_bytes <= MAX_PACKET and 0 <= stream < 1 << 16):
            raise source.error(start, f"a packet of at most {MAX_PACKET} bytes", f"stream {stream}, {n_bytes} bytes")
        if len(head) < 8 or start + 8 + n_bytes > stop:
            if source.options.cut:
                source.counts["packets cut at the end"] += 1
                return
            raise source.error(start, "a whole packet", "the end of the file in it")

        def fail(expected: str, found: str, start: int = start) -> EventFileError:
            return source.error(start, expected, found)

        if wanted in (None, stream):
            packet = unpack(source.read_at(start + 8, n_bytes), fail)
            if packet[8:12] == b"EVTS":
                wanted = stream
                yield from _events(packet, start, fail)
            else:
                source.counts["packets of other streams left out"] += 1
        else:
            source.counts["packets of other streams left out"] += 1
        start += 8 + n_bytes


def _events(packet: bytes, start: int, fail: Fail) -> Iterator[Block]:
    body = memoryview(packet)[4:]
    fields = _fields(body, fail)
    if not fields.get(0):
        return
    vector = fields[0] + _unpacked("<I", body, fields[0], fail)
    n_events = _unpacked("<I", body, vector, fail)
    if vector + 4 + n_events * _EVENT.itemsize > len(body):
        raise fail(f"a packet that holds its {n_events} events", f"{len(body)} bytes")
    events: NDArray[np.void] = np.frombuffer(body, _EVENT, n_events, vector + 4)
    for first in range(0, n_events, BLOCK_EVENTS):
        part = events[first : first + BLOCK_EVENTS]
        x, y, p, t_us = (np.ascontiguousarray(part[name]) for name in ("x", "y", "p", "t"))
        yield Block(x, y, p, t_us, at_event(first, f"the packet at byte {start}"))


def _unpacker(codec: str, name: str) -> Callable[[bytes, Fail], bytes]:
    """Return the function that unpacks a packet, up to ``MAX_PACKET`` bytes."""
    if codec == "NONE":
        return lambda data, _: data
    module = {"LZ4": "lz4", "ZSTD": "zstandard"}[codec]
    try:
        return _lz4() if codec == "LZ4" else _zstd()
    except ImportError as cause:
        raise EventFileError(
            f"{name}: expected the package {module}, as the file is compressed with {codec}, found none. "
            "Try: pip install 'spikeport[aedat4]'."
        ) from cause


def _lz4() -> Callable[[bytes, Fail], bytes]:
    import lz4.frame

    def unpack(data: bytes, fail: Fail) -> bytes:
        decompressor = lz4.frame.LZ4FrameDecompressor()
        try:
            unpacked: bytes = decompressor.decompress(data, max_length=MAX_PACKET)
        except (RuntimeError, MemoryError, ValueError) as cause:
            raise fail("a packet compressed with LZ4", f"a damaged one ({cause!s:.80})") from cause
        if not decompressor.eof:
            raise fail(f"a packet that unpacks to at most {MAX_PACKET} bytes", "a longer one, or a part of one")
        return unpacked

    return unpack


def _zstd() -> Callable[[bytes, Fail], bytes]:
    import zstandard

    def unpack(data: bytes, fail: Fail) -> bytes:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_PACKET)
        try:
            with decompressor.stream_reader(data) as reader:
                unpacked: bytes = reader.read(MAX_PACKET + 1)
        except (zstandard.ZstdError, MemoryError, ValueError) as cause:
            raise fail("a packet compressed with Zstandard", f"a damaged one ({cause!s:.80})") from cause
        if len(unpacked) > MAX_PACKET:
            raise fail(f"a packet that unpacks to at most {MAX_PACKET} bytes", "a longer one")
        return unpacked

    return unpack


# flatbuffers: a table lists, in a second table in front of it, how far behind its start each field is


def _unpacked(form: str, data: bytes | memoryview, start: int, fail: Fail) -> int:
    if not 0 <= start <= len(data) - struct.calcsize(form):
        raise fail(f"an offset within {len(data)} bytes", f"{start}")
    return int(struct.unpack_from(form, data, start)[0])


def _fields(data: bytes | memoryview, fail: Fail) -> dict[int, int]:
    """Return where each field of the root table is."""
    table = _unpacked("<I", data, 0, fail)
    listing = table - _unpacked("<i", data, table, fail)
    n_fields = (_unpacked("<H", data, listing, fail) - 4) // 2
    offsets = (_unpacked("<H", data, listing + 4 + 2 * index, fail) for index in range(min(n_fields, 3)))
    return {index: table + offset for index, offset in enumerate(offsets) if offset}


def _number(data: bytes, fields: dict[int, int], index: int, form: str, fail: Fail, default: int = 0) -> int:
    return _unpacked(form, data, fields[index], fail) if index in fields else default


def _text(data: bytes, fields: dict[int, int], fail: Fail) -> str:
    if 2 not in fields:
        return ""
    start = fields[2] + _unpacked("<I", data, fields[2], fail)
    n_bytes = _unpacked("<I", data, start, fail)
    return data[start + 4 : start + 4 + n_bytes].decode("utf-8", "replace")


def encode_aedat4(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:  # noqa: ARG001
    """Yield the bytes of an AEDAT 4 file: not compressed, without a table of its packets, which is optional."""
    text = _INFO.format(width=sensor_size[1], height=sensor_size[0]).encode()
    # Root at 24; its listing, of 10 bytes, at 14; compression, table and text as the fields of 20 bytes; the text.
    header = struct.pack("<I4s6xHHHHHiiIq", 24, b"IOHE", 10, 20, 4, 12, 8, 10, 0, 12, -1)
    header += struct.pack("<I", len(text)) + text + b"\0"
    header += bytes(-len(header) % 4)
    yield _MAGIC + struct.pack("<I", len(header)) + header
    for events in chunks:
        for first in range(0, len(events), BLOCK_EVENTS):
            part = events.part(first, first + BLOCK_EVENTS)
            packed = np.zeros(len(part), _EVENT)
            packed["t"], packed["x"], packed["y"], packed["p"] = part.t_us, part.x, part.y, part.p
            # Root at 16; its listing, of 6 bytes, at 10; the vector at 24, its structs at a multiple of 8.
            body = struct.pack("<I4s2xHHHiII", 16, b"EVTS", 6, 8, 4, 6, 4, len(part)) + packed.tobytes()
            yield struct.pack("<iiI", 0, len(body) + 4, len(body)) + body


_INFO = """<dv version="2.0">
    <node name="outInfo" path="/mainloop/Recorder/outInfo/">
        <node name="0" path="/mainloop/Recorder/outInfo/0/">
            <attr key="compression" type="string">NONE</attr>
            <attr key="originalModuleName" type="string">spikeport</attr>
            <attr key="originalOutputName" type="string">events</attr>
            <attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>
            <attr key="typeIdentifier" type="string">EVTS</attr>
            <node name="info" path="/mainloop/Recorder/outInfo/0/info/">
                <attr key="sizeX" type="int">{width}</attr>
                <attr key="sizeY" type="int">{height}</attr>
                <attr key="source" type="string">spikeport</attr>
                <attr key="tsOffset" type="long">0</attr>
            </node>
        </node>
    </node>
</dv>
"""
