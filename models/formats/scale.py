"""Columns of any kind of number as whole ones, times in microseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import EventFileError

from .source import DECIMALS, TimeUnit

_EXACT = 2.0**53


def whole(column: NDArray[Any], key: str, name: str, first: int = 0, unit: TimeUnit = "us") -> NDArray[Any]:
    """Return a column as whole numbers; ``first`` is the index of its first event, ``unit`` that of its times.

    Raises: EventFileError where a number is none, has a fraction of a microsecond or of a pixel, or is too large.
    """
    if column.dtype.kind in "biu":
        return column if unit == "us" else _scaled(column, unit, key, name)
    if column.dtype.kind != "f":
        raise EventFileError(f"{name}: {key}: expected whole numbers, found {column.dtype}. Try {key}.astype(int).")
    with np.errstate(over="ignore", invalid="ignore"):
        moved = column if unit == "us" else np.rint(column.astype(np.float64) * 10.0 ** DECIMALS[unit])
        broken = ~(np.abs(moved) < _EXACT) | (moved != np.rint(moved))
    if broken.any():
        at = int(np.argmax(broken))
        fix = "microseconds: numpy.rint(t * 1e6), or time_unit='s'" if key.startswith("t") else f"numpy.rint({key})"
        raise EventFileError(f"{name}: {key}[{first + at}] is {column[at]}, expected a whole number. Try {fix}.")
    exact: NDArray[np.int64] = moved.astype(np.int64)
    return exact


def _scaled(column: NDArray[Any], unit: TimeUnit, key: str, name: str) -> NDArray[np.int64]:
    factor = 10 ** abs(DECIMALS[unit])
    times: NDArray[np.int64] = column.astype(np.int64)
    if unit == "ns":
        times //= factor
        return times
    most = int(np.abs(times).max(initial=0))
    if most > np.iinfo(np.int64).max // factor:
        raise EventFileError(f"{name}: {key}: expected times in {unit}, found {most}. Try another unit of time.")
    times *= factor
    return times
