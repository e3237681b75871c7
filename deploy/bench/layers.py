"""Each layer of a program by itself: its time on the emulator, and what its row additions alone would take."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spikeport.deploy.core import RunningCore, join, walk
from spikeport.deploy.dvs import enter
from spikeport.deploy.layout import Fields, Int64s, lay_out, unpack
from spikeport.deploy.session import find_ticks
from spikeport.deploy.types import CoreProgram, Program
from spikeport.models.events import Events

_PIECE = 1 << 14
_N_EVENTS = 4096
_LAP_S = 2e-3


@dataclasses.dataclass(frozen=True)
class LayerSpeed:
    """How fast one layer of a program runs, and how fast its row additions alone.

    ``row_length`` is the longest run of neighboring neurons that one event adds to. ``wall_s`` is the best time from
    the spikes of the layer before until its own are there, their way between the two included.
    Units: ``limit_hz`` is a rate of additions, one per synop, a second.
    """

    name: str
    row_length: int
    synops: int
    wall_s: float
    limit_hz: float

    @property
    def limit_s(self) -> float:
        """Time of the layer's synops at the limit, in seconds."""
        return self.synops / self.limit_hz


@dataclasses.dataclass(frozen=True)
class NetSpeed:
    """The layers of a program on one recording."""

    workload: str
    layers: tuple[LayerSpeed, ...]

    @property
    def synops(self) -> int:
        """Synops of all layers."""
        return sum(layer.synops for layer in self.layers)

    @property
    def wall_s(self) -> float:
        """Time of all layers, in seconds."""
        return sum(layer.wall_s for layer in self.layers)

    @property
    def share(self) -> float:
        """Time at the limit as a share of the time measured."""
        return sum(layer.limit_s for layer in self.layers) / self.wall_s


def measure_layers(workload: str, program: Program, events: Events, *, repeats: int) -> NetSpeed:
    """Return the speed of each layer of a program on one recording, and of its row additions in the same run."""
    first = _run_once(program, events)
    loops = [row_adds(core, lap.arriving) for core, lap in zip(program.cores, first, strict=True)]
    limits_s, laps_s = [math.inf] * len(loops), [math.inf] * len(loops)
    for _ in range(repeats):
        for index, lap in enumerate(_run_once(program, events)):
            laps_s[index] = min(laps_s[index], lap.wall_s)
        for index, (add, _) in enumerate(loops):
            started = time.perf_counter()
            add()
            limits_s[index] = min(limits_s[index], time.perf_counter() - started)
    layers = [
        LayerSpeed(core.name, row_length(core), lap.synops, laps_s[index], loops[index][1] / limits_s[index])
        for index, (core, lap) in enumerate(zip(program.cores, first, strict=True))
    ]
    return NetSpeed(workload, tuple(layers))


class _Lap(NamedTuple):
    """One layer in one run: what arrived, its synops, and the time from the layer before until its spikes are there."""

    arriving: Fields
    synops: int
    wall_s: float


def _run_once(program: Program, events: Events) -> list[_Lap]:
    cores = [RunningCore(core, lay_out(core)) for core in program.cores]
    walls_s = [0.0] * len(cores)
    heard: list[list[Int64s]] = [[] for _ in cores]
    for first in range(0, len(events), _PIECE):
        piece = events.part(first, first + _PIECE)
        entering = dict.fromkeys(program.entry, enter(piece, program.dvs))
        before = time.perf_counter()
        for index, (_, arriving, _) in enumerate(walk(cores, entering, find_ticks(piece.t_us, program.slow_clock_hz))):
            walls_s[index] += time.perf_counter() - before
            heard[index].append(arriving.copy())
            before = time.perf_counter()
    return [
        _Lap(unpack(join(words)), core.n_synops, wall_s)
        for core, words, wall_s in zip(cores, heard, walls_s, strict=True)
    ]


def row_length(core: CoreProgram) -> int:
    """Return the number of neighboring neurons in one row of ``[y][x][feature]`` that an event adds to at most."""
    return int(_reached(core, 1)[1].max()) * core.out_shape[0]


def rows_of(core: CoreProgram, arriving: Fields) -> tuple[Int64s, Int64s]:
    """Return where the state rows begin that up to 4,096 arriving events add to, and the weight rows for them.

    Only events that reach a whole row count, evenly taken from all; where there are none, every such place does.
    Shapes: states lie as ``[y][x][feature]``, weights as ``[channel][kernel row][row]``.
    """
    features, channels, ky, _ = core.weight.shape
    (v_first, n_rows), (u_first, n_columns) = _reached(core, 0), _reached(core, 1)
    is_whole = n_columns == n_columns.max()

    def taken(columns: Fields) -> Fields:
        inside = (columns.y < len(n_rows)) & (columns.x < len(n_columns)) & (columns.feature < channels)
        columns = Fields(*(column[inside] for column in columns))
        kept = np.flatnonzero(is_whole[columns.x] & (n_rows[columns.y] > 0))
        some = kept[:: -(-len(kept) // _N_EVENTS)] if len(kept) else kept
        return Fields(*(column[some] for column in columns))

    events = taken(arriving)
    if not len(events.x):
        events = taken(Fields(*np.indices((1, *core.in_shape), np.int64).reshape(4, -1)))
    repeated = np.repeat(np.arange(len(events.x)), n_rows[events.y])
    number = np.arange(len(repeated)) - np.searchsorted(repeated, repeated)  # of the row, from 0 for each event
    _, channel, y, x = (column[repeated] for column in events)
    v = v_first[y] + number
    tap_row = y + core.padding[0] - v * core.stride[0]
    starts = (v * core.out_shape[2] + u_first[x]) * features
    return starts, (channel * ky + tap_row) * row_length(core)


def _reached(core: CoreProgram, axis: int) -> tuple[Int64s, Int64s]:
    """Return for each input row (axis 0) or column (1) the first output one that it reaches, and how many."""
    position = np.arange(core.in_shape[1 + axis])[:, None] + core.padding[axis]
    target = np.arange(core.out_shape[1 + axis])[None]
    tap = position - target * core.stride[axis]
    is_reached = (tap >= 0) & (tap < core.weight.shape[2 + axis])
    return is_reached.argmax(1), is_reached.sum(1)


def row_adds(core: CoreProgram, arriving: Fields) -> tuple[Callable[[], None], int]:
    """Return a loop that only adds a layer's weight rows to its state rows, and its number of additions.

    It goes over the rows of up to 4,096 events, as often as takes some milliseconds.
    """
    from .rowadd import add_rows

    length = row_length(core)
    rows = rows_of(core, arriving)
    state = np.zeros(int(np.prod(core.out_shape)), np.int16)
    weight = np.ones(int(rows[1].max()) + length, np.int8)
    add_rows(state, weight, rows, length, 1)
    started = time.perf_counter()
    add_rows(state, weight, rows, length, 1)
    n_passes = max(1, round(_LAP_S / max(time.perf_counter() - started, 1e-7)))
    return functools.partial(add_rows, state, weight, rows, length, n_passes), n_passes * len(rows[0]) * length
