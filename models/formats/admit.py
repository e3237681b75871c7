"""From events as they stand in a file to events in order of time on a sensor: refused, or repaired where asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import EventFileError

from .source import Block, Opened, Source

MAX_EDGE = 32767


def admitted(opened: Opened, source: Source, sensor_size: tuple[int, int] | None, window: int) -> Iterator[Block]:
    """Yield the events of a file, checked and repaired as ``source.options`` says, in their final dtypes.

    Without ``sensor_size`` coordinates are bounded by what an int16 holds. ``sort`` holds ``2 * window`` events back.
    Raises: EventFileError at the first event that is refused, with its place in the file.
    """
    height, width = sensor_size or (MAX_EDGE, MAX_EDGE)
    cleaned = (_cleaned(block, source, height, width) for block in opened.blocks)
    filled = (block for block in cleaned if len(block))
    ordered = _sorted(filled, source, window) if source.options.sort else _in_order(filled, source)
    return _from_start(ordered, source)


def _cleaned(block: Block, source: Source, height: int, width: int) -> Block:
    block = _polarized(block, source)
    for axis, room in (("x", width), ("y", height)):
        block = _inside(block, axis, room, source)
    t_us = block.t_us
    if t_us.dtype.kind == "u" and t_us.dtype.itemsize == 8 and len(block) and int(t_us.max()) > np.iinfo(np.int64).max:
        at = int(np.argmax(t_us))
        raise EventFileError(
            f"{source.name}: {block.place(at)}: t_us is {int(t_us[at])}, expected times of 63 bits. "
            "Try times in microseconds."
        )
    return dataclasses.replace(
        block,
        x=np.ascontiguousarray(block.x, np.int16),  # a view of a field would hold on to all of them
        y=np.ascontiguousarray(block.y, np.int16),
        p=np.ascontiguousarray(block.p, np.int8),
        t_us=np.ascontiguousarray(t_us, np.int64),
    )


def _outside(values: NDArray[Any], room: int) -> NDArray[np.bool_] | None:
    """Return which values are not in ``0..room - 1``, or None where all are."""
    if not values.size or values.dtype.kind == "b":
        return None
    if int(values.max()) < room and (values.dtype.kind == "u" or int(values.min()) >= 0):
        return None
    outside: NDArray[np.bool_] = (values < 0) | (values >= room)
    return outside


def _polarized(block: Block, source: Source) -> Block:
    outside = _outside(block.p, 2)
    if outside is None:
        return block
    rule = source.options.polarity
    if rule == "signed":
        signed = block.p == -1
        source.count("polarities of -1 taken for 0", int(signed.sum()))
        block = dataclasses.replace(block, p=np.where(signed, 0, block.p))
        outside &= ~signed
    if not outside.any():
        return block
    if rule == "drop":
        source.counts["events of another polarity left out"] += int(outside.sum())
        return _kept(block, ~outside)
    at = int(np.argmax(outside))
    raise EventFileError(
        f"{source.name}: {block.place(at)}: p is {int(block.p[at])}, expected a polarity of 0 (off) or 1 (on). "
        f"Try the repair polarity='{'signed' if int(block.p[at]) == -1 else 'drop'}'."
    )


def _inside(block: Block, axis: str, room: int, source: Source) -> Block:
    values: NDArray[Any] = getattr(block, axis)
    outside = _outside(values, room)
    if outside is None:
        return block
    n_outside = int(outside.sum())
    if source.options.clip:
        source.counts["coordinates moved to the sensor's edge"] += n_outside
        moved = np.clip(values, 0, room - 1)
        return dataclasses.replace(block, x=moved) if axis == "x" else dataclasses.replace(block, y=moved)
    if source.options.crop:
        source.counts["events outside the sensor left out"] += n_outside
        return _kept(block, ~outside)
    at = int(np.argmax(outside))
    line = "column" if axis == "x" else "row"
    raise EventFileError(
        f"{source.name}: {block.place(at)}: {axis} is {int(values[at])}, expected a {line} in 0..{room - 1} "
        f"({n_outside} of these {len(block)} events are outside). "
        "Try the sensor's true size, or the repair 'crop' or 'clip'."
    )


def _kept(block: Block, mask: NDArray[np.bool_]) -> Block:
    kept = np.flatnonzero(mask)
    place = block.place
    return Block(block.x[kept], block.y[kept], block.p[kept], block.t_us[kept], lambda index: place(int(kept[index])))


def _in_order(blocks: Iterator[Block], source: Source) -> Iterator[Block]:
    last: int | None = None
    for block in blocks:
        t_us = block.t_us
        at, before = 0, last
        if last is None or int(t_us[0]) >= last:
            back = t_us[1:] < t_us[:-1]
            at = int(np.argmax(back)) + 1 if back.any() else len(block)
            before = int(t_us[at - 1])
        if at < len(block):
            raise EventFileError(
                f"{source.name}: {block.place(at)}: t_us is {int(t_us[at])}, {(before or 0) - int(t_us[at])} us before "
                f"the one before it; expected times that never decrease. Try another copy, or the repair 'sort'."
            )
        last = before
        yield block


def _sorted(blocks: Iterator[Block], source: Source, window: int) -> Iterator[Block]:
    held: list[Block] = []
    n_held, latest, handed_out = 0, None, None
    for block in blocks:
        t_us = block.t_us
        if handed_out is not None and int(t_us.min()) < handed_out:
            at = int(np.argmin(t_us))
            raise EventFileError(
                f"{source.name}: {block.place(at)}: t_us is {int(t_us[at])}, expected at least {handed_out}: it goes "
                f"back by more than the {window} events that are sorted at a time. Try a larger chunk."
            )
        highest = np.maximum.accumulate(t_us if latest is None else np.concatenate([[latest], t_us]))
        source.count("events put in order of time", int((t_us < highest[-t_us.size :]).sum()))
        latest = int(highest[-1])
        held.append(block)
        n_held += len(block)
        if n_held >= 2 * window:
            merged = _merged(held)
            yield _slice(merged, 0, n_held - window)
            held = [_slice(merged, n_held - window, n_held)]
            handed_out, n_held = int(merged.t_us[n_held - window - 1]), window
    if held:
        yield _merged(held)


def _merged(blocks: list[Block]) -> Block:
    x, y, p, t_us = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("x", "y", "p", "t_us"))
    order = np.argsort(t_us, kind="stable")
    return Block(x[order], y[order], p[order], t_us[order], lambda _: "the first event in time")


def _slice(block: Block, first: int, stop: int) -> Block:
    kept = slice(first, stop)
    return Block(block.x[kept], block.y[kept], block.p[kept], block.t_us[kept], block.place)


def _from_start(blocks: Iterator[Block], source: Source) -> Iterator[Block]:
    start: int | None = None
    for block in blocks:
        if start is None:
            start = int(block.t_us[0]) if source.options.from_zero else 0
            if start:
                source.counts["microseconds taken off every time"] += start
        t_us = block.t_us - start if start else block.t_us
        if int(t_us[0]) < 0 or int(t_us[-1]) < 0:
            raise EventFileError(
                f"{source.name}: {block.place(0)}: t_us is {int(block.t_us[0])}, expected 0 or more, below 2^63 "
                "altogether. Try the repair 'from_zero', or times in microseconds."
            )
        yield dataclasses.replace(block, t_us=t_us)
