"""Fit a power profile to what a board's supply rails drew under known loads."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import ArrayRecord, frozen

from .errors import InputError, PowerFileError
from .profiles import KINDS, Coefficient, Group, Kind, PowerProfile, Rail, Term, whole_share
from .published import OFFSET_W

RATE_COLUMNS: dict[Kind, str] = {
    "synops": "synops_per_s",
    "routed": "routed_per_s",
    "input": "input_per_s",
    "leak": "leak_per_s",
}
"""Columns of a rail log: events per second of each kind, averaged over an interval."""

RAIL_COLUMNS: dict[str, tuple[str, Group]] = {
    "io_w": ("io", "io"),
    "ram_w": ("ram", "processor"),
    "logic_w": ("logic", "processor"),
    "pixel_digital_w": ("pixel digital", "sensor"),
    "pixel_analog_w": ("pixel analog", "sensor"),
}
"""Columns of a rail log: mean power of each rail over an interval, in watts; a log has at least one of them."""

_MIN_ROWS_PER_UNKNOWN = 3
_COLLINEAR = 1e-6
_N_SHOWN = 5
_STANDARD_ERRORS = 2.0


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RailLog(ArrayRecord):
    """What the rails of a board drew in a number of intervals, and what the chip did in them.

    Shapes: every array has one value per interval; ``rates`` by kind of event, ``power_w`` by name of rail.
    Units: events per second, watts. ``source`` is the file or the set-up it is from.
    Raises: InputError where lengths differ, a kind is missing, a rail is unknown, or a value is negative or not finite.
    """

    rates: Mapping[Kind, NDArray[np.float64]]
    power_w: Mapping[str, NDArray[np.float64]]
    source: str

    def __post_init__(self) -> None:
        for name in ("rates", "power_w"):
            columns = {key: frozen(column, np.float64) for key, column in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(columns))
        known = [rail for rail, _ in RAIL_COLUMNS.values()]
        columns = {**self.rates, **self.power_w}
        lengths = {key: column.shape for key, column in columns.items()}
        problems = []
        if set(self.rates) != set(KINDS):
            problems.append(f"expected rates of {', '.join(KINDS)}, found {', '.join(self.rates) or 'none'}.")
        if not self.power_w or not set(self.power_w) <= set(known):
            problems.append(f"expected rails out of {', '.join(known)}, found {', '.join(self.power_w) or 'none'}.")
        if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
            problems.append(f"expected one value per interval in every column, found {lengths}.")
        problems += [
            f"'{key}': expected finite numbers of 0 or more, found others."
            for key, column in columns.items()
            if not (np.isfinite(column).all() and (column >= 0).all())
        ]
        if problems:
            raise InputError(f"rail log '{self.source}': {' '.join(problems)} Try read_rail_log.")

    def __len__(self) -> int:
        return len(self.rates["synops"])


def read_rail_log(path: str | Path) -> RailLog:
    """Return the rail log in a CSV file: a line of column names, then one line per measurement interval.

    Columns, in any order: all of ``RATE_COLUMNS``, at least one of ``RAIL_COLUMNS``, no others. Lines that begin with
    ``#`` are left out.
    Raises: PowerFileError where a column is missing, unknown or twice there, or a cell is no number of 0 or more; every
    such place is named.
    """
    name = Path(path).name
    lines = _csv_lines(Path(path), name)
    if not lines:
        raise PowerFileError(f"{name}: expected a line of column names, found no line. Try another file.")
    header = [cell.strip() for cell in lines[0][1]]
    _check_header(header, name)
    problems: list[str] = []
    rows = [_numbers(cells, header, number, problems) for number, cells in lines[1:]]
    if problems:
        further = f"; {len(problems) - _N_SHOWN} further" if len(problems) > _N_SHOWN else ""
        raise PowerFileError(f"{name}: {'; '.join(problems[:_N_SHOWN])}{further}. Try leaving out those intervals.")
    table = np.array(rows, np.float64).reshape(len(rows), len(header))
    columns = dict(zip(header, table.T, strict=True))
    return RailLog(
        {kind: columns[column] for kind, column in RATE_COLUMNS.items()},
        {rail: columns[column] for column, (rail, _) in RAIL_COLUMNS.items() if column in columns},
        name,
    )


def fit_profile(logs: RailLog | Sequence[RailLog], *, name: str, date: str, offset_w: float = OFFSET_W) -> PowerProfile:
    """Return the profile that explains the power of each rail best, with no energy below 0.

    Each rail is fitted by itself: power at rest, plus an energy for each kind of event, by non-negative least squares.
    A band is two standard errors to either side, cut at 0, from the residuals and as if all coefficients were free; the
    power at rest adds ``offset_w``, the offset of a rail's meter, which no log can show. A kind of event that never
    happens in the logs stays unknown, at 0.
    Units: ``offset_w`` in watts. ``date`` is when the logs were taken.
    Law: logs that follow the model without noise give its coefficients back.
    Raises: PowerFileError where there are too few intervals, or columns that always vary together: they are named.
    """
    parts = (logs,) if isinstance(logs, RailLog) else tuple(logs)
    _check_logs(parts, offset_w)
    rates = {kind: np.concatenate([log.rates[kind] for log in parts]) for kind in KINDS}
    used = [kind for kind in KINDS if rates[kind].any()]
    n = len(rates["synops"])
    matrix = np.stack([np.ones(n), *(rates[kind] for kind in used)], axis=1)
    where = ", ".join(dict.fromkeys(log.source for log in parts))
    _check_matrix(matrix, ["power at rest", *(RATE_COLUMNS[kind] for kind in used)], where)
    source = f"fitted: {n} intervals, {date}, {where}"
    groups = dict(RAIL_COLUMNS.values())
    rails, terms = [], []
    for rail in parts[0].power_w:
        fitted, errors = _fit(matrix, np.concatenate([log.power_w[rail] for log in parts]))
        rests = _band(f"rest of rail {rail}", fitted[0], errors[0], unit="W", source=source, date=date)
        rests = dataclasses.replace(rests, low=max(rests.low - offset_w, 0.0), high=rests.high + offset_w)
        rails.append(Rail(rail, groups[rail], rests))
        for kind in KINDS:
            title = f"energy of {KINDS[kind]}, rail {rail}"
            if kind in used:
                index = 1 + used.index(kind)
                energy = _band(title, fitted[index], errors[index], unit="J", source=source, date=date)
            else:
                unseen = f"unknown: no {RATE_COLUMNS[kind]} above 0 in what was {source}"
                energy = Coefficient(title, 0.0, 0.0, 0.0, "J", unseen, date)
            terms.append(Term(kind, energy, (whole_share(rail, date=date),)))
    return PowerProfile(name, f"Fitted to {n} intervals of {where}.", tuple(rails), tuple(terms))


def solve_nonnegative(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ``x >= 0`` that makes ``|matrix @ x - target|`` smallest.

    Law: with ``g = matrix.T @ (matrix @ x - target)``: ``x >= 0``, ``g >= 0`` and ``x * g = 0``, up to rounding.
    Source: Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23: active sets.
    """
    n = matrix.shape[1]
    norms = np.linalg.norm(matrix, axis=0)
    norms[norms == 0] = 1.0
    scaled = matrix / norms  # watts, joules and counts lie 12 orders of magnitude apart
    tolerance = 10 * np.finfo(np.float64).eps * max(matrix.shape) * float(np.linalg.norm(target))
    x = np.zeros(n)
    is_free = np.zeros(n, bool)
    is_barred = np.zeros(n, bool)  # would leave again at once: rounding alone made it look useful
    for _ in range(10 * n + 10):
        descent = np.where(is_free | is_barred, -np.inf, scaled.T @ (target - scaled @ x))
        best = int(descent.argmax())
        if descent[best] <= tolerance:
            break
        is_free[best] = True
        while True:
            trial = np.zeros(n)
            trial[is_free] = np.linalg.lstsq(scaled[:, is_free], target, rcond=None)[0]
            if trial[best] <= 0 and x[best] == 0:
                is_free[best], is_barred[best] = False, True
                break
            blocked = is_free & (trial <= 0)
            if not blocked.any():
                x, is_barred = trial, np.zeros(n, bool)
                break
            step = (x[blocked] / (x[blocked] - trial[blocked])).min()
            x = x + step * (trial - x)
            x[blocked & (x <= np.finfo(np.float64).eps * np.abs(x).max())] = 0.0
            is_free &= x > 0
    return np.asarray(x / norms)


def _fit(matrix: NDArray[np.float64], power_w: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coefficients of one rail, and the standard error of each."""
    fitted = solve_nonnegative(matrix, power_w)
    n, n_unknowns = matrix.shape
    variance = float(((matrix @ fitted - power_w) ** 2).sum()) / (n - n_unknowns)
    norms = np.linalg.norm(matrix, axis=0)
    spread = np.diag(np.linalg.inv((matrix / norms).T @ (matrix / norms)))
    return fitted, np.asarray(np.sqrt(variance * spread) / norms)


def _band(name: str, mid: float, error: float, *, unit: str, source: str, date: str) -> Coefficient:
    half = _STANDARD_ERRORS * float(error)
    text = f"{source}; band: two standard errors"
    return Coefficient(name, max(float(mid) - half, 0.0), float(mid), float(mid) + half, unit, text, date)


def _check_logs(logs: Sequence[RailLog], offset_w: float) -> None:
    if not logs or any(set(log.power_w) != set(logs[0].power_w) for log in logs):
        found = [sorted(log.power_w) for log in logs]
        raise InputError(f"fit: expected one or more logs of the same rails, found {found}. Try one log at a time.")
    if not (math.isfinite(offset_w) and offset_w >= 0):
        raise InputError(f"fit: expected an offset of 0 W or more, found {offset_w}. Try {OFFSET_W:g}.")


def _check_matrix(matrix: NDArray[np.float64], names: list[str], where: str) -> None:
    n, n_unknowns = matrix.shape
    if n < _MIN_ROWS_PER_UNKNOWN * n_unknowns:
        raise PowerFileError(
            f"{where}: expected at least {_MIN_ROWS_PER_UNKNOWN * n_unknowns} intervals for {n_unknowns} unknowns "
            f"({', '.join(names)}), found {n}. Try a longer log."
        )
    _, sizes, directions = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0), full_matrices=False)
    if sizes[-1] < _COLLINEAR * sizes[0]:
        together = [name for name, part in zip(names, directions[-1], strict=True) if abs(part) > 10 * _COLLINEAR]
        raise PowerFileError(
            f"{where}: expected columns that vary independently, found collinear ones: {', '.join(together)}. "
            "Try adding intervals in which one of them varies alone."
        )


def _csv_lines(path: Path, name: str) -> list[tuple[int, list[str]]]:
    """Return the lines that are no comment and not empty, with their numbers in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else str(cause)
        raise PowerFileError(f"{name}: expected a rail log in CSV, found: {reason}. Try another file.") from cause
    return [
        (number, cells)
        for number, cells in rows
        if any(map(str.strip, cells)) and not cells[0].lstrip().startswith("#")
    ]


def _check_header(header: list[str], name: str) -> None:
    wanted, rails = list(RATE_COLUMNS.values()), list(RAIL_COLUMNS)
    missing = [column for column in wanted if column not in header]
    foreign = [column for column in header if column not in (*wanted, *rails)]
    double = sorted({column for column in header if header.count(column) > 1})
    problems = []
    if missing:
        problems.append(f"no column {', '.join(missing)}")
    if foreign:
        problems.append(f"unknown columns {', '.join(repr(column[:40]) for column in foreign)}")
    if double:
        problems.append(f"columns twice: {', '.join(double)}")
    if not set(header) & set(rails):
        problems.append("no column of a rail")
    if problems:
        raise PowerFileError(
            f"{name}: expected the columns {', '.join(wanted)} and one or more of {', '.join(rails)}, found "
            f"{'; '.join(problems)}. Try renaming the columns."
        )


def _numbers(cells: list[str], header: list[str], number: int, problems: list[str]) -> list[Any]:
    if len(cells) != len(header):
        problems.append(f"line {number}: expected {len(header)} cells, found {len(cells)}")
        return [0.0] * len(header)
    values = []
    for column, cell in zip(header, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            problems.append(f"line {number}, {column}: expected a number of 0 or more, found '{cell.strip():.20}'")
        values.append(value)
    return values
