"""AEDAT 2.0 of jAER: eight bytes an event, big-endian; what an address means depends on the chip."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .source import Block, Opened, Source, at_byte, check_clock, hash_header, size_of, unwrapped

_BYTES = 8
_WORDS = np.dtype([("address", ">u4"), ("t", ">u4")])


@dataclasses.dataclass(frozen=True)
class _Chip:
    """Where an address has x, y and the polarity, what is no event of the pixels, and which polarity a 1 is."""

    sensor_size: tuple[int, int]
    shift_x: int
    mask_x: int
    shift_y: int
    mask_y: int
    bit_p: int
    one_is_on: bool
    special: int


_DVS128 = _Chip((128, 128), 1, 127, 8, 127, 0, one_is_on=False, special=1 << 15)


def _davis(height: int, width: int) -> _Chip:
    # Bit 31 marks samples of frames and of the motion sensor, bit 10 external events.
    return _Chip((height, width), 12, 1023, 22, 511, 11, one_is_on=True, special=(1 << 31) | (1 << 10))


_CHIPS = {
    "dvs128": _DVS128,
    "davis240": _davis(180, 240),
    "davis346": _davis(260, 346),
    "davis640": _davis(480, 640),
}
_SENSOR_LINE = "sensor_size:"


def open_aedat2(source: Source) -> Opened:
    """Return the recording in an AEDAT 2.0 file; addresses are those of a DVS128 where the header names no chip.

    In a DVS128 address a polarity bit of 1 is OFF. Special events are counted, not kept. Coordinates are left as the
    chip counts them, which is from the lower left corner.
    Source: docs.inivation.com, AEDAT 2.0; the polarity measured on POKER-DVS, whose .dat files hold the same events.
    """
    lines, start = hash_header(source)
    header = dict(line.split(":", 1) for line in lines if ":" in line and "<" not in line)
    header = {word.strip(): value.strip() for word, value in header.items()}
    named = header.get("AEChip", "").rpartition(".")[2].lower()
    chip = next((chip for word, chip in _CHIPS.items() if named.startswith(word)), None)
    if named and chip is None:
        raise EventFileError(
            f"{source.name}: AEChip: expected a chip that starts with {', '.join(_CHIPS)}, found {named!r:.60}. "
            "Try exporting the recording as AEDAT 3.1 or 4."
        )
    size = next((size_of(line.partition(":")[2]) for line in lines if line.startswith(_SENSOR_LINE)), None)
    if size is None and chip is not None:
        size = chip.sensor_size
    return Opened("aedat2", header, size, _blocks(source, start, chip or _DVS128))


def _blocks(source: Source, start: int, chip: _Chip) -> Iterator[Block]:
    wraps, last = 0, -1
    for begin, data in source.blocks_of(start, _BYTES):
        words = np.frombuffer(data, _WORDS)
        address = words["address"].astype(np.uint32)
        times, wraps, last = unwrapped(words["t"], 32, wraps, last)
        place = at_byte(begin, _BYTES)
        special = (address & chip.special) != 0
        if special.any():
            kept = np.flatnonzero(~special)
            source.counts["special events left out"] += int(special.sum())
            address, times, place = address[kept], times[kept], at_byte(begin, _BYTES, kept)
        if chip is _DVS128 and address.size and int(address.max()) >> 16:
            at = int(np.argmax(address >> 16 != 0))
            raise EventFileError(
                f"{source.name}: {place(at)}: expected an address of 16 bits, as the header names no chip but DVS128, "
                f"found {int(address[at]):#x}. Try a header line '# AEChip: Davis346' with the true chip."
            )
        x = ((address >> chip.shift_x) & chip.mask_x).astype(np.int16)
        y = ((address >> chip.shift_y) & chip.mask_y).astype(np.int16)
        p = ((address >> chip.bit_p) & 1).astype(np.int8)
        yield Block(x, y, p if chip.one_is_on else p ^ 1, times, place)


def encode_aedat2(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an AEDAT 2.0 file of a DVS128, for up to 128 x 128 pixels, or of the DAVIS of that size."""
    named = [(word, chip) for word, chip in _CHIPS.items() if chip.sensor_size == sensor_size]
    if not named and max(sensor_size) > max(_DVS128.sensor_size):
        sizes = ", ".join(f"{chip.sensor_size[0]}x{chip.sensor_size[1]}" for chip in _CHIPS.values())
        raise EventFileError(
            f"{name}: expected a sensor of at most 128x128, or one of {sizes}, found "
            f"{sensor_size[0]}x{sensor_size[1]}. Try .aedat4."
        )
    word, chip = named[0] if named else ("dvs128", _DVS128)
    lines = (
        "!AER-DAT2.0",
        " This is a raw AE data file - do not edit",
        f" AEChip: {word.capitalize()}",
        f"{_SENSOR_LINE} {sensor_size[0]}x{sensor_size[1]}",
        "End Of ASCII Header",
    )
    yield "".join(f"#{line}\r\n" for line in lines).encode()
    last = -1
    for events in chunks:
        check_clock(events.t_us, 32, last, name)
        last = int(events.t_us[-1])
        p = events.p.astype(np.uint32)
        words = np.empty(len(events), _WORDS)
        words["t"] = events.t_us & 0xFFFFFFFF
        words["address"] = (
            (events.x.astype(np.uint32) << chip.shift_x)
            | (events.y.astype(np.uint32) << chip.shift_y)
            | ((p if chip.one_is_on else p ^ 1) << chip.bit_p)
        )
        yield words.tobytes()
