"""A core at work: its states between events, and the way of spikes from core to core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.layout import aligned
from spikeport.models.arrays import frozen

from .layout import LANES, MASK, NEXT, SYNOPS, TICKS, Int64s, Layout, masks_of
from .types import CoreProgram

NO_TICKS: Int64s = np.zeros(0, np.int64)
NO_WORDS: Int64s = np.zeros(0, np.int64)
_SPIKES = 1 << 17
"""Room for the spikes of one call of the compiled loop, which grows where it is too small."""


class RunningCore:
    """One core and what changes in it: states, spike counts, and ``progress`` in the places that ``layout`` names.

    ``n_spikes`` were sent so far.
    Law: events in pieces of any size give the spikes and states of all of them at once.
    """

    def __init__(self, program: CoreProgram, layout: Layout) -> None:
        self.program, self._layout = program, layout
        self.progress = np.zeros(5, np.int64)
        self.n_spikes = 0
        self._state = aligned(program.initial_state.transpose(1, 2, 0), LANES)
        self._counts = np.zeros(layout.n_neurons, np.int64)
        self._masks = masks_of(layout)
        self._room = np.zeros(0, np.int64)

    def integrate(self, arriving: Int64s, ticks_due: Int64s) -> Iterator[Int64s]:
        """Yield the spikes that the arriving events cause, in parts of as many as there is room for.

        All parts must be taken; the last one is room that the next events are written to. ``ticks_due`` holds the leak
        ticks before each input event of the piece; it is empty without a slow clock.
        """
        from .kernels import integrate, leak  # compiled code: half a second that only a run needs

        ticks = ticks_due if self.program.bias is not None else NO_TICKS
        layout, progress = self._layout, self.progress
        smallest = self._masks.size // MASK * LANES
        neurons = self._state, self._counts, self._masks
        n_spikes = progress[NEXT] = 0
        while progress[NEXT] < arriving.size:
            if self._room.size < smallest + n_spikes:
                self._room = np.empty(max(_SPIKES, smallest + 2 * n_spikes), np.int64)
            n = integrate(layout, arriving, self._room, neurons, ticks, progress)
            n_spikes += n
            self.n_spikes += n
            yield self._room[:n] if progress[NEXT] == arriving.size else self._room[:n].copy()
        if ticks.size:
            leak(self.state, layout.bias, layout.threshold_low, int(ticks[-1] - progress[TICKS]))
            progress[TICKS] = ticks[-1]

    @property
    def state(self) -> NDArray[np.int16]:
        """The states of now, flat ``[H, W, F]``."""
        return self._state[: self._layout.n_neurons]

    @property
    def n_synops(self) -> int:
        """Targets visited so far."""
        return int(self.progress[SYNOPS])

    def maps(self) -> tuple[NDArray[np.int16], Int64s]:
        """Return the states and spike counts of now, ``[F, H, W]``."""
        features, height, width = self.program.out_shape
        states, counts = (
            frozen(array.reshape(height, width, features).transpose(2, 0, 1)) for array in (self.state, self._counts)
        )
        return states, counts

    def spike_map(self) -> Int64s:
        """Return how often each place of the map spiked so far, its features added up, ``[H, W]``."""
        features, height, width = self.program.out_shape
        return np.asarray(self._counts.reshape(height, width, features).sum(axis=2), np.int64)

    def copy(self) -> RunningCore:
        """Return a core in the same state that goes its own way."""
        other = RunningCore.__new__(RunningCore)
        other.__dict__.update(self.__dict__)
        other.progress, other._counts = self.progress.copy(), self._counts.copy()
        other._state = aligned(self.state, LANES)
        other._masks, other._room = masks_of(self._layout), np.zeros(0, np.int64)
        return other


def walk(
    cores: Sequence[RunningCore], entering: dict[int, Int64s], ticks_due: Int64s, *, n_most: int | None = None
) -> Iterator[tuple[RunningCore, Int64s, Int64s]]:
    """Yield each core, in network order, with the events that arrived and the spikes that it sent on.

    The spikes are there until the core's next events. ``entering`` holds the input of the entry cores. Ends before a
    core of more than ``n_most`` spikes.
    """
    waiting: dict[int, list[Int64s]] = {core.program.core: [] for core in cores}
    waiting |= {core: [words] for core, words in entering.items()}
    for core in cores:
        arriving = merge(waiting.pop(core.program.core))
        parts: list[Int64s] = []
        for part in core.integrate(arriving, ticks_due):
            parts.append(part)
            if n_most is not None and sum(one.size for one in parts) > n_most:
                return
        spikes = join(parts)
        yield core, arriving, spikes
        for target, stream in route(core.program, spikes):
            waiting[target].append(stream)


def join(parts: Iterable[Int64s]) -> Int64s:
    """Return words one part after the other."""
    parts = [part for part in parts if part.size]
    return parts[0] if len(parts) == 1 else np.concatenate([NO_WORDS, *parts])


def merge(streams: Sequence[Int64s]) -> Int64s:
    """Return one stream in order of the causing event, streams in the given order within one event."""
    if not streams:
        return NO_WORDS
    merged = streams[0]
    for stream in streams[1:]:
        from .kernels import merge_two

        first, merged = merged, np.empty(merged.size + stream.size, np.int64)
        merge_two(first, stream, merged)
    return merged


def route(core: CoreProgram, spikes: Int64s) -> Iterator[tuple[int, Int64s]]:
    """Yield each core that ``core`` sends to, with the stream that arrives there.

    A spike goes to all destinations of one core, in their order, before the next spike does.
    """
    from .kernels import send

    for target in dict.fromkeys(destination.core for destination in core.destinations):
        if target is None:
            continue
        taken = [(to.pool, to.feature_shift) for to in core.destinations if to.core == target]
        if taken == [(1, 0)]:
            yield target, spikes
            continue
        sent = np.empty(spikes.size * len(taken), np.int64)
        send(spikes, np.array(taken, np.int64), sent)
        yield target, sent
