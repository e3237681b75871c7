"""What goes over the WebSocket: frames out, as a JSON header and its numbers; commands in, as strict JSON.

A frame is a little-endian uint32, the length of the header; the header in UTF-8; zeros up to a multiple of 4; then the
sections, each at its ``at`` bytes from the first one, little-endian and at a multiple of 4.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.errors import DeployError

from .backlog import Frame
from .types import CoreCounts, Position, Totals, Window

VERSION = 1
MAX_COMMAND_BYTES = 4096
MAX_ID = (1 << 53) - 1
"""Largest whole number that a browser counts exactly."""

_KINDS = {"u1": "u8", "u2": "u16", "u4": "u32"}


class CommandError(DeployError, ValueError):
    """A message of a client that is no command; ``of`` is its number, where that could be read."""

    def __init__(self, sentence: str, of: int | None = None) -> None:
        super().__init__(sentence)
        self.of = of


@dataclasses.dataclass(frozen=True)
class Command:
    """What a client asks for: its name, the number to answer to, and its values; frames shown have no number."""

    do: str
    id: int | None
    values: Mapping[str, Any]


def encode(frame: Frame, number: int) -> bytes:
    """Return the binary message of a frame. Law: whoever reads it by the rules above has the frame's values again."""
    arrays = [*_pictures(frame), *_maps(frame)]
    sections, at = [], 0
    for name, array, extra in arrays:
        kind = _KINDS[array.dtype.str[1:]]
        sections.append({"name": name, "dtype": kind, "shape": list(array.shape), "at": at, **extra})
        at += array.nbytes + -array.nbytes % 4
    header = json.dumps(
        _header(frame, number) | {"sections": sections}, separators=(",", ":"), allow_nan=False
    ).encode()
    parts = [struct.pack("<I", len(header)), header, bytes(-len(header) % 4)]
    for _, array, _ in arrays:
        parts += [array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(), bytes(-array.nbytes % 4)]
    return b"".join(parts)


def parse_command(text: str) -> Command:
    """Return the command of a client's message.

    Raises: CommandError for anything but one JSON object of at most ``MAX_COMMAND_BYTES`` with the keys of its
    command, each once and of its own type.
    """
    if len(text) > MAX_COMMAND_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_COMMAND_BYTES:
        raise CommandError(f"A command has at most {MAX_COMMAND_BYTES} bytes.")
    try:
        found = json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_constant)
    except CommandError:
        raise
    except (ValueError, RecursionError) as problem:
        raise CommandError("A command is one JSON object, found something else.") from problem
    if not isinstance(found, dict):
        raise CommandError("A command is one JSON object, found something else.")
    number = found.get("id")
    of = number if _is_whole(number, 0, MAX_ID) else None
    do = found.get("do")
    if not isinstance(do, str) or do not in _COMMANDS:
        raise CommandError(f"do: expected one of {', '.join(_COMMANDS)}, found {do!r:.40}.", of)
    values = {key: value for key, value in found.items() if key not in ("do", "id")}
    if do == "shown":
        if "id" in found:
            raise CommandError("shown: expected no id, as nothing is answered.", of)
    elif of is None:
        raise CommandError(f"{do}: expected a whole number as id, found {number!r:.40}.")
    _check_values(do, values, of)
    return Command(do, of, MappingProxyType(values))


def error_message(sentence: str, of: int | None) -> str:
    """Return the message that a command could not be carried out, and why."""
    return json.dumps({"error": sentence, "of": of})


def done_message(of: int | None) -> str:
    """Return the message that a command is carried out."""
    return json.dumps({"done": of})


def facts_message(facts: Mapping[str, Any]) -> str:
    """Return the message of what does not change from frame to frame."""
    return json.dumps({"facts": facts}, separators=(",", ":"), allow_nan=False)


def _header(frame: Frame, number: int) -> dict[str, Any]:
    skipped = frame.skipped_counts
    return {
        "v": VERSION,
        "frame": number,
        "made_ms": frame.made_ms,
        "data_ms": frame.data_ms,
        "t_us": frame.t_us,
        "span_us": frame.span_us,
        "events": frame.n_events,
        "position": _position(frame.position),
        "totals": _totals(frame.totals),
        "cores": [_core(core, counts) for core, counts in frame.cores.items()],
        "power_w": _rails(frame.power_w),
        "windows": [_window(window) for window in frame.windows],
        "skipped_windows": frame.n_skipped_windows,
        "skipped_counts": None if skipped is None else skipped.tolist(),
        "so_far": frame.so_far.tolist(),
        "reset": frame.was_reset,
        "past": frame.is_past,
    }


def _position(at: Position) -> dict[str, Any]:
    return {
        "reel": at.reel,
        "n_reels": at.n_reels,
        "name": at.name,
        "t_us": at.t_us,
        "duration_us": at.duration_us,
        "label": at.label,
        "playing": at.is_playing,
        "ended": at.has_ended,
        "speed": _finite(at.speed),
        "behind_ms": _finite(at.behind_s * 1e3),
        "roi": None if at.roi is None else list(at.roi),
        "recording": at.is_recording,
        "final": at.final,
        "problem": at.problem,
    }


def _totals(totals: Totals) -> dict[str, int]:
    return {field.name.removeprefix("n_"): getattr(totals, field.name) for field in dataclasses.fields(totals)}


def _core(core: int, counts: CoreCounts) -> dict[str, int | None]:
    return {
        "core": core,
        "events": counts.n_events,
        "spikes": counts.n_spikes,
        "synops": counts.synops,
        "dropped": counts.n_dropped,
    }


def _window(window: Window) -> dict[str, Any]:
    return {
        "i": window.index,
        "start_us": window.start_us,
        "stop_us": window.stop_us,
        "counts": window.counts.tolist(),
        "winner": window.winner,
        "label": window.label,
        "events": window.n_events,
        "synops": window.synops,
        "open": window.is_open,
        "latency_ms": _finite(window.latency_s * 1e3),
        "power_w": _rails(window.power_w),
    }


def _rails(power_w: Mapping[str, float] | None) -> dict[str, float | None] | None:
    return None if power_w is None else {rail: _finite(watts) for rail, watts in power_w.items()}


def _finite(value: float | None) -> float | None:
    """Return a number that JSON can hold: it has neither infinities nor NaN."""
    return value if value is not None and math.isfinite(value) else None


_Section = tuple[str, NDArray[Any], dict[str, int]]


def _pictures(frame: Frame) -> Iterable[_Section]:
    if frame.points is not None:
        yield "points", frame.points, {}
    if frame.image is not None:
        yield "image", frame.image, {}


def _maps(frame: Frame) -> Iterable[_Section]:
    for core, spikes in frame.maps.items():
        yield "map", np.clip(spikes, 0, 0xFFFF).astype(np.uint16), {"core": core}


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise CommandError("A command has each key once.")
    return found


def _no_constant(name: str) -> None:
    raise CommandError(f"A command has finite numbers, found {name}.")


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


_Check = tuple[str, Callable[[object], bool]]


def _whole(least: int = 0, most: int = MAX_ID) -> _Check:
    return f"a whole number from {least} to {most}", lambda value: _is_whole(value, least, most)


def _positive(value: object) -> bool:
    # A whole number may be too large for a float.
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_ID and math.isfinite(value)
    )


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_whole(edge, 0, 1 << 15) for edge in value)


def _or_none(check: _Check) -> _Check:
    return f"{check[0]}, or null", lambda value: value is None or check[1](value)


_NUMBER: _Check = ("a number above 0", _positive)
_BOX: _Check = ("[top, bottom, left, right]", _is_box)
_SWITCH: _Check = ("true or false", lambda value: isinstance(value, bool))
_COMMANDS: dict[str, dict[str, _Check]] = {
    "shown": {"frame": _whole()},
    "play": {},
    "pause": {},
    "step": {"n": _whole(1, 10_000)},
    "speed": {"value": _or_none(_NUMBER)},
    "seek": {"t_us": _whole()},
    "open": {"index": _whole()},
    "roi": {"box": _or_none(_BOX)},
    "knobs": {
        "interval_ms": _NUMBER,
        "threshold": _whole(),
        "low": _whole(),
        "high": _whole(),
        "default_class": _or_none(_whole()),
    },
    "watch": {"core": _or_none(_whole())},
    "record": {"on": _SWITCH},
}
_OPTIONAL = {"knobs"}
"""Commands that need not have all of their keys, but one."""


def _check_values(do: str, values: Mapping[str, Any], of: int | None) -> None:
    checks = _COMMANDS[do]
    unknown = [key for key in values if key not in checks]
    missing = [key for key in checks if key not in values and do not in _OPTIONAL]
    if unknown or missing or (do in _OPTIONAL and not values):
        keys = ", ".join(checks) or "none"
        raise CommandError(f"{do}: expected the keys {keys}, found {', '.join(values) or 'none':.60}.", of)
    for key, value in values.items():
        says, holds = checks[key]
        if not holds(value):
            raise CommandError(f"{do}: expected {says} as {key}, found {value!r:.40}.", of)
