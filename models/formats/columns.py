"""Room for decoded events, which the compiled loops fill and blocks are cut from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .source import BLOCK_EVENTS, Block, at_byte


class Room(NamedTuple):
    """Columns for one block, and where each event stood: an index into the words or bytes given to the loop.

    A named tuple, as compiled loops take no other record.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    p: NDArray[Any]
    t_us: NDArray[np.int64]
    at: NDArray[np.int64]

    def block(self, n_events: int, start: int, n_bytes: int = 1) -> Block:
        """Return the first events; index 0 of ``at`` is byte ``start``, each step ``n_bytes``."""
        columns = [column[:n_events] for column in self]
        if n_events < self.at.size // 8 * 7:  # a view would hold on to the room that is empty
            columns = [column.copy() for column in columns]
        x, y, p, t_us, at = columns
        return Block(x, y, p, t_us, at_byte(start, n_bytes, at))


def room(coordinate: DTypeLike = np.int16, polarity: DTypeLike = np.int8) -> Room:
    """Return empty columns for ``BLOCK_EVENTS`` events."""
    x, y = np.empty(BLOCK_EVENTS, coordinate), np.empty(BLOCK_EVENTS, coordinate)
    t_us, at = np.empty(BLOCK_EVENTS, np.int64), np.empty(BLOCK_EVENTS, np.int64)
    return Room(x, y, np.empty(BLOCK_EVENTS, polarity), t_us, at)
