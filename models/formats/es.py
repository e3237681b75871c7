"""Event Stream, ``.es``: time as differences of one byte, rows counted from below."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator

import numpy as np

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .columns import room
from .source import BLOCK_EVENTS, Block, Opened, Source

_MAGIC = b"Event Stream"
_HEADER = struct.Struct("<12s3BBHH")
_KINDS = {1: "DVS", 2: "ATIS"}
_MAX_TICKS = 127
_MAX_WAITS = 1 << 26
"""Most bytes that tell nothing but that time passes: over two hours of pauses, and no file of gigabytes from one."""


def open_es(source: Source) -> Opened:
    """Return the recording in an Event Stream file of version 2, DVS or ATIS; exposure events are counted, not kept.

    Rows are turned to count from above, as faery does: the format's origin is the lower left corner.
    Source: github.com/neuromorphic-paris/event_stream; bytes compared with what that library writes.
    """
    head = source.read_at(0, _HEADER.size)
    if len(head) < _HEADER.size:
        raise source.error(0, f"a header of {_HEADER.size} bytes", f"{len(head)}")
    _, major, minor, patch, kind, width, height = _HEADER.unpack(head)
    if major != 2 or kind not in _KINDS:
        raise source.error(
            12,
            "version 2 and type 1 (DVS) or 2 (ATIS)",
            f"version {major}.{minor}.{patch} and type {kind}",
            "Try another file.",
        )
    if not (width and height):
        raise source.error(16, "a sensor of at least 1x1", f"{height}x{width}")
    header = {"version": f"{major}.{minor}.{patch}", "type": _KINDS[kind]}
    return Opened("es", header, (height, width), _blocks(source, kind, height))


def _blocks(source: Source, kind: int, height: int) -> Iterator[Block]:
    from .loops import decode_es

    state = np.array([0, kind - 1, 0], np.int64)
    start = _HEADER.size
    while start < source.size:
        data = np.frombuffer(source.read_at(start, 5 * BLOCK_EVENTS), np.uint8)
        columns = room(np.int32)
        used, n_events, _ = decode_es(data, state, columns)
        if n_events:
            block = columns.block(n_events, start)
            yield dataclasses.replace(block, y=height - 1 - block.y)
        start += used
        if not used:
            if not source.options.cut:
                raise source.error(start, "5 bytes an event", f"{source.size - start}: the last one is cut short")
            source.counts["bytes cut at the end"] += source.size - start
            break
    if state[2]:
        source.counts["exposure events left out"] += int(state[2])


def encode_es(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an Event Stream file of DVS events."""
    height, width = sensor_size
    yield _HEADER.pack(_MAGIC, 2, 0, 0, 1, width, height)
    last, n_waits = 0, 0
    for events in chunks:
        for first in range(0, len(events), BLOCK_EVENTS):
            part = events.part(first, first + BLOCK_EVENTS)
            steps = np.diff(part.t_us, prepend=last)
            waits, ticks = steps // _MAX_TICKS, steps % _MAX_TICKS
            n_waits += int(waits.sum())
            if n_waits > _MAX_WAITS:
                raise EventFileError(
                    f"{name}: expected at most {_MAX_WAITS * _MAX_TICKS} us of pauses, as each {_MAX_TICKS} us take a "
                    f"byte, found {n_waits * _MAX_TICKS}. Try .npz, or events.from_zero()."
                )
            ends = np.cumsum(waits + 5)
            data = np.full(int(ends[-1]), 255, np.uint8)
            y = height - 1 - part.y
            for offset, column in enumerate(((ticks << 1) | part.p, part.x & 255, part.x >> 8, y & 255, y >> 8)):
                data[ends - 5 + offset] = column
            last = int(part.t_us[-1])
            yield data.tobytes()
