"""Prophesee's raw EVT2 and EVT3: words whose time, row and polarity come from words before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

from .columns import room
from .source import BLOCK_EVENTS, Block, Opened, Source, check_clock, check_fits, percent_header, size_of

_WORD_BYTES = {"evt2": 4, "evt3": 2}
_EDGE = 2048
_STEP = 1 << 10
"""Steps of EVT3's upper time in which a long pause is written: a quarter of what its 12 bits hold."""

_MAX_WAITS = 1 << 16
"""Most words that tell nothing but that time passes, between two events: 3 days."""

_PLUGINS = {"gen31": (480, 640), "gen3": (480, 640), "gen4": (720, 1280), "imx636": (720, 1280), "genx320": (320, 320)}
_SYSTEMS = {"21": (480, 640), "48": (720, 1280)}
"""Sensors by the driver's name, and by the number of the system where a real file with it was seen."""


def open_evt(source: Source) -> Opened:
    """Return the recording in a ``.raw`` file of EVT2 or EVT3, as its header or ``ReadOptions.format`` says.

    Events before the first word of time are counted, not kept. Triggers are left out.
    Words of EVT3's upper time are believed. expelliarmus 1.1.12, and arrays made with it, count 4,096 us more at each
    step back of the lower time, and so each 4,096 us twice; ``ReadOptions.evt3_time`` reads files that way, too.
    Source: docs.prophesee.ai, EVT 2.0 and EVT 3.0 formats; measured 2026-11-22 on a Gen 4.1 recording: the times of
    faery 0.7.1 are these ones but for its rule that time never steps back.
    """
    header, start = percent_header(source)
    form = _form(source, header)
    return Opened(form, header, _sensor(header), _blocks(source, start, form))


def _form(source: Source, header: Mapping[str, str]) -> str:
    named = header.get("evt", "") or header.get("format", "").partition(";")[0].upper().removeprefix("EVT")
    form = {"2.0": "evt2", "2": "evt2", "3.0": "evt3", "3": "evt3"}.get(named)
    asked = source.options.format
    if form is None and named:
        raise EventFileError(
            f"{source.name}: evt: expected format 2.0 or 3.0, found {named!r:.40}. Try converting the file to EVT3."
        )
    if form is None and asked not in _WORD_BYTES:
        raise EventFileError(
            f"{source.name}: byte 0: expected a header that says 'evt 2.0' or 'evt 3.0', found none. "
            "Try naming the format: evt2 or evt3."
        )
    if form is not None and asked in _WORD_BYTES and asked != form:
        raise EventFileError(f"{source.name}: expected {asked}, as asked for, found {form}. Try without naming it.")
    return form or str(asked)


def _sensor(header: Mapping[str, str]) -> tuple[int, int] | None:
    named = dict(part.split("=", 1) for part in header.get("format", "").split(";") if "=" in part)
    geometry = size_of(header.get("geometry", ""))
    if geometry is not None:
        return geometry[1], geometry[0]
    size = size_of(f"{named.get('height', '')}x{named.get('width', '')}")
    if size is not None:
        return size
    plugin = header.get("plugin_name", "")
    found = next((size for word, size in _PLUGINS.items() if word in plugin), None)
    return found or _SYSTEMS.get(header.get("system_ID", ""))


def _blocks(source: Source, start: int, form: str) -> Iterator[Block]:
    from .loops import COUNTS_STEPS, N_LOST, N_STATE, decode_evt2, decode_evt3

    n_bytes = _WORD_BYTES[form]
    decode = decode_evt2 if form == "evt2" else decode_evt3
    state = np.zeros(N_STATE, np.int64)
    state[COUNTS_STEPS] = source.options.evt3_time == "expelliarmus"
    for begin, data in source.blocks_of(start, n_bytes):
        words = np.frombuffer(data, f"<u{n_bytes}")
        used = 0
        while used < words.size:
            columns = room()
            more, n_events, wrong = decode(words[used:], state, columns)
            if n_events:
                yield columns.block(n_events, begin + used * n_bytes, n_bytes)
            used += more
            if wrong:
                word = int(words[used])
                raise source.error(begin + used * n_bytes, f"a word of {form.upper()}", f"{word:#0{2 + 2 * n_bytes}x}")
    if state[N_LOST]:
        source.counts["events before the first time left out"] += int(state[N_LOST])


def _head(form: str, sensor_size: tuple[int, int]) -> bytes:
    height, width = sensor_size
    lines = (f"evt {form[-1]}.0", f"format {form.upper()};height={height};width={width}", f"geometry {width}x{height}")
    return "".join(f"% {line}\n" for line in (*lines, "end")).encode()


def encode_evt2(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an EVT2 file: a word of time where the upper 28 bits of time change, a word an event."""
    yield _head("evt2", sensor_size)
    last = -1
    for events in chunks:
        check_fits(events, _EDGE, _EDGE, name)
        high = events.t_us >> 6
        check_clock(high, 28, last >> 6, name, tick_us=64)
        words = np.empty((len(events), 2), np.uint32)
        words[:, 0] = (8 << 28) | (high & 0xFFFFFFF)
        words[:, 1] = (
            (events.p.astype(np.uint32) << 28)
            | ((events.t_us & 63).astype(np.uint32) << 22)
            | (events.x.astype(np.uint32) << 11)
            | events.y.astype(np.uint32)
        )
        kept = np.ones(words.shape, bool)
        kept[:, 0] = np.diff(high, prepend=last >> 6 if last >= 0 else -1) != 0
        last = int(events.t_us[-1])
        yield words[kept].astype("<u4").tobytes()


def encode_evt3(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Iterator[bytes]:
    """Yield the bytes of an EVT3 file: words of time and row where they change, a word an event.

    Over a long pause words of time alone let a reader count how often their 24 bits wrap around.
    """
    yield _head("evt3", sensor_size)
    last, last_row = -1, -1
    for events in chunks:
        check_fits(events, _EDGE, _EDGE, name)
        for first in range(0, len(events), BLOCK_EVENTS):
            part = events.part(first, first + BLOCK_EVENTS)
            yield _evt3_words(part, last, last_row, name)
            last, last_row = int(part.t_us[-1]), int(part.y[-1])


def _evt3_words(events: Events, last: int, last_row: int, name: str) -> bytes:
    high = events.t_us >> 12
    before = np.concatenate([[max(last, 0) >> 12], high[:-1]])
    words = np.empty((len(events), 4), np.uint16)
    words[:, 0] = (8 << 12) | (high & 4095)
    words[:, 1] = (6 << 12) | (events.t_us & 4095)
    words[:, 2] = events.y
    words[:, 3] = (2 << 12) | (events.p.astype(np.int32) << 11) | events.x
    kept = np.ones(words.shape, bool)
    kept[:, 0] = np.diff(high, prepend=last >> 12 if last >= 0 else -1) != 0
    kept[:, 1] = np.diff(events.t_us, prepend=last) != 0
    kept[:, 2] = np.diff(events.y.astype(np.int32), prepend=last_row) != 0
    waits = np.flatnonzero(high - before >= 2 * _STEP)
    pieces, done = [], 0
    for index in waits.tolist():
        pieces += [words[done:index][kept[done:index]], _waits(int(before[index]), int(high[index]), name)]
        done = index
    pieces.append(words[done:][kept[done:]])
    return b"".join(piece.astype("<u2").tobytes() for piece in pieces)


def _waits(start: int, stop: int, name: str) -> NDArray[np.uint16]:
    """Return words of the upper time from ``start`` to ``stop`` in steps that show each wrap."""
    if stop - start > _MAX_WAITS * _STEP:
        raise EventFileError(
            f"{name}: expected a first event and pauses below {_MAX_WAITS * _STEP << 12} us, "
            f"found {(stop - start) << 12}. Try .npz, or events.from_zero()."
        )
    return ((8 << 12) | (np.arange(start, stop, _STEP) & 4095)).astype(np.uint16)
