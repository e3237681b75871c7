"""The compiled loop that does nothing but add weight rows to state rows. Imported only where a benchmark runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikeport.models.compiled import compiled

Rows = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where each state row and the weight row for it begin."""


@compiled
def add_rows(state: NDArray[np.int16], weight: NDArray[np.int8], rows: Rows, length: int, n_passes: int) -> None:
    """Add weight rows of ``length`` to state rows, all ``n_passes`` times."""
    starts, weight_starts = rows
    for _ in range(n_passes):
        for k in range(starts.size):
            to = state[starts[k] : starts[k] + length]
            row = weight[weight_starts[k] : weight_starts[k] + length]
            for i in range(length):
                to[i] = np.int16(to[i] + row[i])
