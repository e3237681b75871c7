"""Pieces of a recording put together, within a limit, and cut into chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events

MAX_EVENTS = 1 << 26
"""Most events of a recording in memory: 0.9 GB as ``Events``, 2 GB while they are put together and checked."""

_DTYPES = {"x": np.int16, "y": np.int16, "p": np.int8, "t_us": np.int64}


class Columns(Protocol):
    """Anything with the four columns of events."""

    @property
    def x(self) -> NDArray[Any]:
        """The column x."""

    @property
    def y(self) -> NDArray[Any]:
        """The column y."""

    @property
    def p(self) -> NDArray[Any]:
        """The column p."""

    @property
    def t_us(self) -> NDArray[Any]:
        """The column t_us."""


def joined(pieces: Iterable[Columns], name: str) -> dict[str, NDArray[Any]]:
    """Return the columns of all pieces, read-only.

    Raises: EventFileError where there are more than ``MAX_EVENTS`` events.
    """
    parts: dict[str, list[NDArray[Any]]] = {column: [] for column in _DTYPES}
    n_events = 0
    for piece in pieces:
        n_events += piece.t_us.size
        if n_events > MAX_EVENTS:
            raise EventFileError(
                f"{name}: expected at most {MAX_EVENTS} events in memory at once, found more. "
                "Try iterate_events, or a format that is written in pieces, such as .raw."
            )
        for column in parts:
            parts[column].append(getattr(piece, column))
    columns = {}
    for column, dtype in _DTYPES.items():  # one after the other: the pieces of each are let go at once
        columns[column] = np.concatenate([np.empty(0, dtype), *parts.pop(column)])
        columns[column].flags.writeable = False
    return columns


def gathered(chunks: Iterable[Events], sensor_size: tuple[int, int], name: str) -> Events:
    """Return chunks of a recording as one.

    Raises: EventFileError where there are more than ``MAX_EVENTS`` events.
    """
    return Events(**joined(chunks, name), sensor_size=sensor_size)


def rechunked(pieces: Iterable[Columns], chunk: int, sensor_size: tuple[int, int], name: str) -> Iterator[Events]:
    """Yield the pieces as recordings of ``chunk`` events each, the last one with what is left."""
    held: list[Columns] = []
    n_held = 0
    for piece in pieces:
        n_events, first = piece.t_us.size, 0
        while n_held + n_events - first >= chunk:
            stop = first + chunk - n_held
            yield Events(**joined([*held, _part(piece, first, stop)], name), sensor_size=sensor_size)
            held, n_held, first = [], 0, stop
        if first < n_events:
            held.append(_part(piece, first, n_events))
            n_held += n_events - first
    if n_held:
        yield Events(**joined(held, name), sensor_size=sensor_size)


@dataclasses.dataclass(frozen=True, eq=False)
class _Piece:
    x: NDArray[Any]
    y: NDArray[Any]
    p: NDArray[Any]
    t_us: NDArray[Any]


def _part(piece: Columns, first: int, stop: int) -> _Piece:
    kept = slice(first, stop)
    return _Piece(piece.x[kept], piece.y[kept], piece.p[kept], piece.t_us[kept])
