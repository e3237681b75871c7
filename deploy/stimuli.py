"""Events that excite a program: pieces of noise, repeated patches and moving edges, chosen by what they reach.

Nothing here is exact on purpose: what a program does with the chosen events is recorded by the emulator afterwards. The
same program gets the same events everywhere, because the random numbers are the raw stream of a bit generator, which
numpy promises to keep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair
from spikeport.models.events import Events

from .core import RunningCore, walk
from .dvs import enter
from .layout import Int64s, lay_out, unpack
from .session import find_ticks
from .types import CoreProgram, Program

STEP_US = 100
"""Time between two generated events: far more than one takes through all cores of the chip (3.36 us, arXiv 2304.06793),
so that a spike that a board stamps with a time belongs to one event."""

PIECE = 128
"""Events that are tried at once."""

_FIRED = 1000
_SMALLEST = 8  # events of a piece, once there is any
_PATIENCE = 8  # pieces in a row that reach nothing new, after which the search ends
_SPIKES_PER_PIECE = 1 << 13  # of one core; a program that answers one event with more is let alone

Bools = NDArray[np.bool_]
Draw = Callable[[int, int], Int64s]
"""``draw(n, k)``: ``n`` random numbers in ``0..k-1``."""


class Reached(NamedTuple):
    """What events did to one core.

    Shapes: ``taps`` ``[C, ky, kx]`` were met by an event; ``level`` ``[F]`` is ``_FIRED`` where the feature spiked,
    else how near to it the states came, from 0; ``floor`` ``[F]`` is where they came down to the lower threshold.
    """

    taps: Bools
    level: Int64s
    floor: Bools

    @property
    def score(self) -> float:
        """Shares of what was reached; the nearest feature counts most, because what lies behind a core needs one.

        Sums of whole numbers, so that it is the same on every machine.
        """
        nearest, mean = int(self.level.max()) / _FIRED, int(self.level.sum()) / (_FIRED * self.level.size)
        return int(self.taps.sum()) / self.taps.size + mean + 4 * nearest + int(self.floor.sum()) / self.floor.size / 2

    @property
    def is_complete(self) -> bool:
        """Whether every weight was met, and every feature spiked and came down to the lower threshold."""
        return bool(self.taps.all() and self.level.min() == _FIRED and self.floor.all())


class Part(NamedTuple):
    """A core as the bench wants it; ``rows`` and ``columns`` say which places of the kernel an input place meets."""

    core: CoreProgram
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """A program between two pieces of a recording: its cores as they are, and what was reached."""

    program: Program
    parts: tuple[Part, ...]
    cores: tuple[RunningCore, ...]
    reached: tuple[Reached, ...]
    n_spikes: int = 0
    n_restarts: int = 0

    @classmethod
    def of(cls, program: Program) -> Bench:
        """Return the bench of a program that has seen nothing."""
        cores = tuple(RunningCore(core, lay_out(core)) for core in program.cores)
        return cls(program, tuple(map(_part, program.cores)), cores, tuple(map(_unreached, program.cores)))

    @property
    def score(self) -> float:
        """How much was reached, more is better."""
        return sum(one.score for one in self.reached)

    @property
    def is_complete(self) -> bool:
        """Whether every core is complete."""
        return all(one.is_complete for one in self.reached)

    def restarted(self, *, anew: bool) -> Bench:
        """Return the bench at the program's initial states, with what was reached so far or, ``anew``, nothing."""
        again = Bench.of(self.program)
        reached = again.reached if anew else self.reached
        return dataclasses.replace(again, reached=reached, n_restarts=self.n_restarts + 1)

    def advance(self, events: Events, slow_clock_hz: float | None) -> Bench | None:
        """Return the bench after more events, or None where a core spikes more than a piece may.

        Law: pieces one after the other leave the states that the emulator finds after all of them.
        """
        cores = tuple(core.copy() for core in self.cores)
        entering = dict.fromkeys(self.program.entry, enter(events, self.program.dvs))
        steps = walk(cores, entering, find_ticks(events.t_us, slow_clock_hz), n_most=_SPIKES_PER_PIECE)
        reached, n_spikes = [], self.n_spikes
        for part, seen, (core, arriving, spikes) in zip(self.parts, self.reached, steps, strict=False):
            is_touched = arriving.size or (slow_clock_hz is not None and core.program.bias is not None)
            reached.append(_reached(seen, part, (arriving, spikes), core.state) if is_touched else seen)
            n_spikes += spikes.size
        if len(reached) < len(self.parts):
            return None
        return dataclasses.replace(self, cores=cores, reached=tuple(reached), n_spikes=n_spikes)


def _unreached(core: CoreProgram) -> Reached:
    n_features = core.weight.shape[0]
    return Reached(
        np.zeros(core.weight.shape[1:], np.bool_), np.zeros(n_features, np.int64), np.zeros(n_features, np.bool_)
    )


def _reached(seen: Reached, part: Part, words: tuple[Int64s, Int64s], state: NDArray[np.int16]) -> Reached:
    taps, level, floor = seen
    arriving, spikes = words
    if not taps.all():
        taps = taps | met_taps(part, arriving)
    if level.min() < _FIRED:
        highest = state.reshape(-1, level.size).max(axis=0).astype(np.int64)
        level = np.maximum(level, np.clip(highest * _FIRED // part.core.threshold_high, 0, _FIRED - 1))
        level[unpack(spikes).feature] = _FIRED
    lowest = state.reshape(-1, floor.size).min(axis=0)
    return Reached(taps, level, floor | (lowest <= part.core.threshold_low))


def met_taps(part: Part, words: Int64s) -> Bools:
    """Return which places of the kernel the events that arrive at a core meet.

    Shapes: ``[C, ky, kx]``; an event meets a place of its channel for all features at once.
    """
    channels, height, width = part.core.in_shape
    arriving = unpack(words)
    inside = (arriving.feature < channels) & (arriving.y < height) & (arriving.x < width)
    there = np.zeros(part.core.in_shape, np.float32)
    there[arriving.feature[inside], arriving.y[inside], arriving.x[inside]] = 1.0
    met: Bools = part.rows.T @ there @ part.columns > 0
    return met


def _part(core: CoreProgram) -> Part:
    _, height, width = core.in_shape
    rows = _meets(height, core.out_shape[1], core.weight.shape[2], (core.stride[0], core.padding[0]))
    columns = _meets(width, core.out_shape[2], core.weight.shape[3], (core.stride[1], core.padding[1]))
    return Part(core, rows, columns)


def _meets(size: int, out_size: int, kernel: int, steps: Pair) -> NDArray[np.float32]:
    """Return 1 where an input place reaches some output by a place of the kernel: ``[size, kernel]``."""
    stride, padding = steps
    offset = np.arange(size)[:, None] + padding - np.arange(kernel)
    is_met = (offset % stride == 0) & (offset >= 0) & (offset // stride < out_size)
    return np.asarray(is_met, np.float32)


def probe_events(program: Program, n_events: int) -> Events:
    """Return few events, far from each other, so that final states still show the initial ones."""
    draw = _random(0)
    height, width = program.dvs.input_shape[1:]
    return _recording(_scattered(draw, n_events, program), 0, (height, width))


def search_events(bench: Bench, slow_clock_hz: float | None, *, n_events: int, n_spikes: int) -> tuple[Events, Bench]:
    """Return events that reach more of a program than a bench at its start, and that bench after them; or no events.

    Each piece is the best of a few: a patch that repeats, a moving edge, noise, the piece before once more. The search
    ends where every weight was met and every feature spiked, where ``_PATIENCE`` pieces gain nothing, or before
    ``n_events`` or ``n_spikes``.
    """
    program, draw = bench.program, _random(bench.n_restarts)
    size = program.dvs.input_shape[1:]
    best = bench
    kept: list[Events] = []
    n_useful, n_piece, n = 0, PIECE, 0
    while n + n_piece <= n_events and len(kept) - n_useful < _PATIENCE and not bench.is_complete:
        places = [kind(draw, n_piece, program) for kind in _KINDS]
        if kept and len(kept[-1]) == n_piece:
            places.append((kept[-1].y.astype(np.int64), kept[-1].x.astype(np.int64), kept[-1].p.astype(np.int64)))
        tried = []
        for piece in (_recording(place, n, size) for place in places):
            after = bench.advance(piece, slow_clock_hz)
            if after is not None and after.n_spikes <= n_spikes:
                tried.append((piece, after))
        smallest = _SMALLEST if kept else 1
        if not tried and n_piece > smallest:
            n_piece = max(smallest, n_piece // _SMALLEST)
            continue
        if not tried:
            break
        piece, bench = max(tried, key=lambda one: one[1].score)
        kept.append(piece)
        n += n_piece
        if bench.score > best.score:
            best, n_useful = bench, len(kept)
    pieces = kept[:n_useful] or [_recording(_scattered(draw, 0, program), 0, size)]
    y, x, p = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("y", "x", "p"))
    return _recording((y, x, p), 0, size), best


Places = tuple[Int64s, Int64s, Int64s]
"""Rows, columns and polarities."""


def _random(seed: int) -> Draw:
    bits = np.random.PCG64(seed)
    return lambda n, k: (bits.random_raw(n) >> np.uint64(33)).astype(np.int64) % k


def _recording(places: Places, n_before: int, size: Pair) -> Events:
    y, x, p = places
    return Events(x, y, p, (n_before + 1 + np.arange(y.size)) * STEP_US, size)


def _region(program: Program) -> tuple[Pair, Pair]:
    """Return the rows and the columns of the sensor that reach a core."""
    dvs = program.dvs
    (top, bottom), (left, right) = dvs.box
    (py, px), (_, height, width) = dvs.pool, dvs.input_shape
    return (top * py, min(bottom * py, height)), (left * px, min(right * px, width))


def _scattered(draw: Draw, n: int, program: Program) -> Places:
    """Return noise over the whole sensor."""
    _, height, width = program.dvs.input_shape
    return draw(n, height), draw(n, width), draw(n, 2)


def _patch(draw: Draw, n: int, program: Program) -> Places:
    """Return a random texture of 4 to 24 pixels edge, in one polarity or both, over and over."""
    (top, bottom), (left, right) = _region(program)
    edge = (4, 6, 8, 12, 16, 24)[_one(draw, 6)]
    high, wide = min(edge, bottom - top), min(edge, right - left)
    y0, x0 = top + _one(draw, bottom - top - high + 1), left + _one(draw, right - left - wide + 1)
    m = 8 + _one(draw, high * wide // 2 + 1)
    y, x, p = y0 + draw(m, high), x0 + draw(m, wide), draw(m, 2)
    if _one(draw, 2):
        p[:] = p[0]
    again = np.arange(n) % m
    return y[again], x[again], p[again]


def _edge(draw: Draw, n: int, program: Program) -> Places:
    """Return a bar that moves across, in one polarity or with the other one behind it."""
    (top, bottom), (left, right) = _region(program)
    high, wide = bottom - top, right - left
    length = 4 + _one(draw, max(1, min(high, wide) // 2))
    dy, dx = ((0, 1), (1, 0), (1, 1), (1, -1))[_one(draw, 4)]
    step, along = np.divmod(np.arange(n), length)
    y = top + (_one(draw, high) + step * dy - along * dx) % high
    x = left + (_one(draw, wide) + step * dx + along * dy) % wide
    p = np.full(n, _one(draw, 2))
    return y, x, np.where(step % 2 == 1, 1 - p, p) if _one(draw, 2) else p


def _one(draw: Draw, k: int) -> int:
    return int(draw(1, k)[0])


_KINDS = (_patch, _edge, _scattered)
