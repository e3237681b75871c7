"""Times at which a board plays a recording so that each spike can be told to belong to one input event."""

from __future__ import annotations

import dataclasses

import numpy as np

from spikeport.models.events import Events

GAP_US = 100
"""Between two input events: an event through nine cores takes a few microseconds on the chip (arXiv 2304.06793)."""


_SECOND_US = 1_000_000


@dataclasses.dataclass(frozen=True)
class Tempo:
    """A recording at other times, and the slow clock that goes with it: None where there is none.

    Units: ``period_us`` in microseconds.
    """

    events: Events
    period_us: int | None


def spread(events: Events, period_us: int | None, *, gap_us: int = GAP_US) -> Tempo:
    """Return a recording in which the next event comes at least ``gap_us`` later, however close the two were.

    With a slow clock its period becomes longer where that is needed, and one of whole ticks per second where there is
    one; as many ticks lie before each event as did before, and the events of a period lie together in the middle of it.
    Law: the emulator does with the result what it does with the recording, but for the times.
    """
    n = len(events)
    if period_us is None or not n:
        return Tempo(_at(events, np.arange(n, dtype=np.int64) * gap_us), None)
    tick = events.t_us // period_us
    _, first, n_in = np.unique(tick, return_index=True, return_counts=True)
    needed = max(period_us, (int(n_in.max()) + 1) * gap_us)
    hz = _SECOND_US // needed
    longer = round(_SECOND_US / hz) if hz else needed
    within = np.arange(n) - np.repeat(first, n_in)
    margin = np.repeat((longer - (n_in - 1) * gap_us) // 2, n_in)
    return Tempo(_at(events, tick * longer + margin + within * gap_us), longer)


def _at(events: Events, t_us: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Events:
    return Events(events.x, events.y, events.p, t_us, events.sensor_size)
