"""The input stage of the chip: what reaches the entry cores of a recording, and the settings that fit a net."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from spikeport.convert.geometry import Pair, Shape3
from spikeport.models.events import Events

from .chips import chip
from .errors import SettingError
from .layout import EVENT, FEATURE, PIECE, ROW, Fields, Int64s, unpack
from .types import Box, DvsConfig, Program

SENSOR = (128, 128)
"""Rows and columns of the camera on the chip. Source: Speck2e/2et/2f datasheet v1.02."""

_TRY = 'Try "pool=2,crop=15:49:15:49,mirror=x".'


def enter(events: Events, dvs: DvsConfig) -> Int64s:
    """Return up to ``PIECE`` events as they reach the entry cores, as words; those outside the region are left out.

    Law: merged, pooled, cropped, mirrored and swapped, in this order.
    """
    _, height, width = dvs.input_shape
    (rows, columns), is_cropped = dvs.box, dvs.crop is not None
    row_bits, column_bits = (0, ROW) if dvs.swap else (ROW, 0)
    by_row = _placed(np.arange(height) // dvs.pool[0], rows, (is_cropped, dvs.mirror[0])) << row_bits
    by_column = _placed(np.arange(width) // dvs.pool[1], columns, (is_cropped, dvs.mirror[1])) << column_bits
    words = np.arange(len(events), dtype=np.int64)
    words <<= EVENT
    if not dvs.merge and dvs.input_shape[0] > 1:
        words |= np.multiply(events.p, 1 << FEATURE, dtype=np.int64)
    words |= by_row[events.y]
    words |= by_column[events.x]
    return words[words >= 0] if is_cropped or any(dvs.mirror) else words


def entering(events: Events, dvs: DvsConfig) -> Fields:
    """Return what ``enter`` does with any number of events, as columns; ``event`` is the index in the recording."""
    parts = []
    for first in range(0, max(len(events), 1), PIECE):
        event, *others = unpack(enter(events.part(first, first + PIECE), dvs))
        parts.append((event + first, *others))
    return Fields(*map(np.concatenate, zip(*parts, strict=True)))


def apply_dvs(events: Events, dvs: DvsConfig) -> Events:
    """Return a recording as a net behind the input stage sees it; its sensor is the map of ``dvs.out_shape``.

    Law: ``with_dvs(program, dvs)`` does with ``events`` what ``program`` does with these.
    Raises: SettingError where the recording's sensor is not that of ``dvs``.
    """
    if events.sensor_size != dvs.input_shape[1:]:
        raise SettingError(
            f"dvs: expected events of a sensor of {_size(dvs.input_shape[1:])}, found {_size(events.sensor_size)}. "
            "Try the DvsConfig of that sensor."
        )
    size = dvs.out_shape[1:]
    event, feature, y, x = entering(events, dvs)
    inside = (y < size[0]) & (x < size[1])
    return Events(x[inside], y[inside], feature[inside], events.t_us[event[inside]], size)


def with_dvs(program: Program, dvs: DvsConfig) -> Program:
    """Return the program with ``dvs`` in front of its net: recordings of that sensor go in, the net sees what is left.

    The net's own pool in front of its first layers follows behind ``dvs``, in the same stage of the chip. Golden
    vectors, which are events of the sensor, are left out: ``add_golden`` makes others.
    Raises: SettingError with everything that the chip cannot do, or where the map that ``dvs`` leaves is not the input
    of the net (it names the sizes on both sides), or where the program's input stage does more than pool already.
    """
    plain, limits = program.dvs, chip(program.chip).limits
    if dvs.problem is not None:
        raise SettingError(f"{dvs.problem} {_TRY}")
    problems = []
    if plain != DvsConfig(plain.input_shape, plain.merge, plain.pool):
        problems.append(f"dvs: expected a program without an input stage, found {plain}. Try compile_program again.")
    if max(dvs.input_shape[1:]) > limits.in_edge:
        problems.append(
            f"dvs: sensor: expected at most {limits.in_edge}x{limits.in_edge}, found {_size(dvs.input_shape[1:])}. "
            "Try recordings that are cropped or scaled down before."
        )
    if dvs.out_shape != plain.input_shape:
        problems.append(_other_map(dvs, plain.input_shape))
    steps = (plain.pool[1], plain.pool[0]) if dvs.swap else plain.pool
    pool = (dvs.pool[0] * steps[0], dvs.pool[1] * steps[1])
    if not set(pool) <= set(limits.input_pools):
        then = "" if steps == (1, 1) else f" ({_size(dvs.pool)}, then {_size(steps)} of the net)"
        allowed = ", ".join(map(str, limits.input_pools))
        problems.append(f"dvs: pool: expected one of {allowed} along each axis, found {_size(pool)}{then}. Try pool=1.")
    spans: list[Pair] = []
    for axis, (start, stop), step, is_mirrored in zip(("rows", "columns"), dvs.box, steps, dvs.mirror, strict=True):
        first = start // step
        spans.append((first, first + (stop - start) // step))
        if is_mirrored and (stop - start) % step and not start % step:
            problems.append(
                f"dvs: mirror: expected {axis} that the net's own pool of {step} divides, found {stop - start}. "
                f"Try a net whose input has {(stop - start) // step * step} or {-(-(stop - start) // step) * step}."
            )
        elif start % step:
            problems.append(
                f"dvs: crop: expected {axis} in steps of {step}, by which the net pools behind it, found "
                f"{start}:{stop}. Try {spans[-1][0] * step}:{spans[-1][0] * step + stop - start}."
            )
    if problems:
        raise SettingError(" ".join(problems))
    crop = None if dvs.crop is None else (spans[0], spans[1])
    return dataclasses.replace(program, dvs=dataclasses.replace(dvs, pool=pool, crop=crop), golden=())


def parse_dvs(text: str, channels: int) -> DvsConfig:
    """Return the input stage of a text such as ``sensor=128x128,pool=2,crop=15:49:15:49,mirror=x,swap``.

    The stages work in the order of the chip, however they are written: pool (``2``, or rows x columns ``2x1``), crop
    (top, bottom, left, right of the map behind the pool), mirror (``x``, ``y`` or ``xy``), swap. Without a sensor it is
    the camera of the chip, 128x128; polarities are merged for a net of one channel.
    Raises: SettingError for anything else.
    """
    sensor, pool = SENSOR, (1, 1)
    crop: Box | None = None
    mirror, swap = (False, False), False
    seen: set[str] = set()
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key in seen:
            raise SettingError(f"--dvs: expected each stage once, found {key} twice. {_TRY}")
        seen.add(key)
        if key == "sensor" and (found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)):
            sensor = (int(found[1]), int(found[2]))
        elif key == "pool" and (found := re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", value)):
            pool = (int(found[1]), int(found[2] or found[1]))
        elif key == "crop" and re.fullmatch(r"\d{1,5}(:\d{1,5}){3}", value):
            top, bottom, left, right = map(int, value.split(":"))
            crop = ((top, bottom), (left, right))
        elif key == "mirror" and value in ("x", "y", "xy", "yx"):
            mirror = ("y" in value, "x" in value)
        elif part.strip() == "swap":
            swap = True
        else:
            raise SettingError(
                "--dvs: expected sensor=ROWSxCOLUMNS, pool=N, crop=TOP:BOTTOM:LEFT:RIGHT, mirror=x or y, swap, with "
                f"commas between, found '{part.strip()}'. {_TRY}"
            )
    # The camera has two polarities; what a net of another number of channels reads is said by the net itself.
    dvs = DvsConfig((2 if channels == 1 else channels, *sensor), channels == 1, pool, crop, mirror, swap)
    if dvs.problem is not None:
        raise SettingError(f"--{dvs.problem} {_TRY}")
    return dvs


def _placed(place: Int64s, span: Pair, how: tuple[bool, bool]) -> Int64s:
    """Return places along one axis in the span, mirrored or not; -1, which stays negative, for those outside of it."""
    is_cropped, is_mirrored = how
    start, stop = span
    moved = stop - 1 - place if is_mirrored else place - start
    return np.where((place >= start) & (place < stop), moved, -1) if is_cropped or is_mirrored else moved


def _other_map(dvs: DvsConfig, net_shape: Shape3) -> str:
    channels, height, width = net_shape
    what = (
        f"dvs: expected a map of {_size(net_shape)} (channels x height x width), the input of the net, found "
        f"{_size(dvs.out_shape)} from a sensor of {_size(dvs.input_shape[1:])}"
    )
    if dvs.out_shape[0] != channels:
        return f"{what}. Try merge={channels == 1}."
    rows, columns = (width, height) if dvs.swap else (height, width)
    _, tall, wide = DvsConfig(dvs.input_shape, pool=dvs.pool).out_shape
    if rows > tall or columns > wide:
        return f"{what}. Try a smaller pool, or a net for a smaller input."
    top, left = (tall - rows) // 2, (wide - columns) // 2
    return f"{what}. Try crop={top}:{top + rows}:{left}:{left + columns}, its middle."


def _size(edges: tuple[int, ...]) -> str:
    return "x".join(map(str, edges))
