"""Prophesee DAT: eight bytes an event, little-endian; the header decides between two layouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from spikeport.models.events import Events

from .source import Block, Opened, Source, at_byte, check_clock, check_fits, percent_header, unwrapped

_BYTES = 8
_EVENT_TYPES = (0x00, 0x0C)
_WORDS = np.dtype([("t", "<u4"), ("address", "<u4")])

_OLD = (9, 8, 17)
_NEW = (14, 14, 28)
"""Bits of x, bits of y, and the bit of the polarity."""


def open_dat(source: Source) -> Opened:
    """Return the recording in a ``.dat`` file.

    With a header of version 2: 14 bits of x, 14 of y, 4 of polarity. Without a header, or with an older one: 9, 8, 1.
    Source: docs.prophesee.ai, DAT file format; the older layout from the POKER-DVS files.
    """
    header, start = percent_header(source)
    layout = _OLD
    if header:
        kind = source.read_at(start, 2)
        if len(kind) < 2 or kind[0] not in _EVENT_TYPES or kind[1] != _BYTES:
            raise source.error(
                start, "events of type 0 or 12 and 8 bytes", f"type and size {list(kind)}", "Try a file of CD events."
            )
        start += 2
        layout = _NEW if header.get("Version", "2").strip() >= "2" else _OLD
    height, width = header.get("Height", ""), header.get("Width", "")
    is_sized = height.isdecimal() and width.isdecimal() and len(height + width) < 12
    size = (int(height), int(width)) if is_sized else None
    return Opened("dat", header, size, _blocks(source, start, layout))


def _blocks(source: Source, start: int, layout: tuple[int, int, int]) -> Iterator[Block]:
    bits_x, bits_y, bit_p = layout
    wraps, last = 0, -1
    for begin, data in source.blocks_of(start, _BYTES):
        words = np.frombuffer(data, _WORDS)
        address = np.ascontiguousarray(words["address"])
        x = (address & ((1 << bits_x) - 1)).astype(np.int16)
        y = ((address >> bits_x) & ((1 << bits_y) - 1)).astype(np.int16)
        p = (address >> bit_p) & (15 if layout == _NEW else 1)
        times, wraps, last = unwrapped(words["t"], 32, wraps, last)
        yield Block(x, y, p.astype(np.int8), times, at_byte(begin, _BYTES))


def encode_dat(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of a ``.dat`` file of version 2, with its header."""
    height, width = sensor_size
    lines = ("Data file containing CD events", "Version 2", f"Height {height}", f"Width {width}")
    yield "".join(f"% {line}\n" for line in lines).encode() + bytes((_EVENT_TYPES[1], _BYTES))
    last = -1
    for events in chunks:
        check_fits(events, 1 << _NEW[0], 1 << _NEW[1], name)
        check_clock(events.t_us, 32, last, name)
        last = int(events.t_us[-1])
        words = np.empty(len(events), _WORDS)
        words["t"] = events.t_us & 0xFFFFFFFF
        words["address"] = (
            events.x.astype(np.uint32)
            | (events.y.astype(np.uint32) << _NEW[0])
            | (events.p.astype(np.uint32) << _NEW[2])
        )
        yield words.tobytes()
