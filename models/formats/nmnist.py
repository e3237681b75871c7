"""N-MNIST binary, ``.bin`` and ``.bs2``: five bytes an event, big-endian, a clock of 23 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .detect import HEAD_BYTES, foreign
from .source import Block, Opened, Source, at_byte, check_clock, check_fits, unwrapped

_BYTES = 5
_CLOCK_BITS = 23
_CLOCK_US = 1 << _CLOCK_BITS


def open_nmnist(source: Source) -> Opened:
    """Return the recording in an N-MNIST file, which says nothing about its sensor.

    Source: Orchard et al. 2015, N-MNIST. No time steps back in the public recordings of digits and gestures tried.
    """
    _check_foreign(source.read_at(0, HEAD_BYTES), source.name)
    return Opened("nmnist", {}, None, _blocks(source))


def _blocks(source: Source) -> Iterator[Block]:
    wraps, last = 0, -1
    for start, data in source.blocks_of(0, _BYTES):
        raw = np.frombuffer(data, np.uint8).reshape(-1, _BYTES)
        clock = (raw[:, 2] & 127).astype(np.int32)
        clock <<= 8
        clock |= raw[:, 3]
        clock <<= 8
        clock |= raw[:, 4]
        times, wraps, last = unwrapped(clock, _CLOCK_BITS, wraps, last)
        yield Block(raw[:, 0], raw[:, 1], raw[:, 2] >> 7, times, at_byte(start, _BYTES))


def encode_nmnist(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:  # noqa: ARG001
    """Yield the bytes of an N-MNIST file, which holds neither the sensor size nor time above 23 bits."""
    last = -1
    for events in chunks:
        check_fits(events, 256, 256, name)
        check_clock(events.t_us, _CLOCK_BITS, last, name)
        clock = events.t_us & (_CLOCK_US - 1)
        raw = np.empty((len(events), _BYTES), np.uint8)
        raw[:, 0], raw[:, 1] = events.x, events.y
        raw[:, 2] = (events.p.astype(np.int64) << 7) | (clock >> 16)
        raw[:, 3], raw[:, 4] = (clock >> 8) & 255, clock & 255
        data = raw.tobytes()
        if last < 0:
            _check_foreign(data[:HEAD_BYTES], name)
        last = int(events.t_us[-1])
        yield data


def _check_foreign(head: bytes, name: str) -> None:
    kind = foreign(head)
    if kind is not None:
        raise EventFileError(
            f"{name}: byte 0: expected an N-MNIST binary, found what reads as {kind}. "
            "Try the suffix that fits, or another file."
        )
