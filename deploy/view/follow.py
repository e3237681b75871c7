"""The reel of a recorded session in a show: where it begins, and which knobs it was shown by."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from spikeport.models.window import no_events

from .nodes import NO_SPIKES
from .settings import ViewSettings
from .types import Reel, Stretch
from .windows import Windows


@runtime_checkable
class SessionReel(Protocol):
    """A reel of a recorded session: shown by its ``knobs``, and cut where it was, it shows the same again.

    ``knobs`` are what was set at which time, the first of them at ``start_us``: the window that was open then is cut
    and decided by these. Others, at the same time too, hold from the next window on. Empty: none are to be followed.
    """

    start_us: int
    knobs: Sequence[tuple[int, Mapping[str, Any]]]

    def next_cut_us(self, t_us: int) -> int | None:
        """Return where the next recorded stretch ends."""


def start_of(reel: Reel) -> int:
    """Return where a reel begins: past 0 where a session was recorded from later on."""
    return reel.start_us if isinstance(reel, SessionReel) else 0


def first_settings(reel: Reel, settings: ViewSettings) -> ViewSettings:
    """Return the settings with the knobs that a reel's first window was shown by; as they are where it has none."""
    knobs = reel.knobs[:1] if isinstance(reel, SessionReel) else ()
    return settings.changed(**knobs[0][1]) if knobs else settings


def settings_at(reel: Reel, settings: ViewSettings, t_us: int) -> ViewSettings:
    """Return the settings with the knobs that were set last at a time; as they are where the reel has none."""
    if not isinstance(reel, SessionReel):
        return settings
    n_set = bisect_right(reel.knobs, t_us, key=lambda one: one[0])
    return settings.changed(**reel.knobs[n_set - 1][1]) if n_set else settings


def begin_within(windows: Windows, start_us: int) -> None:
    """Start windows again at a time within one, of which nothing is known: other knobs hold from the next one on."""
    windows.reset(start_us)
    begin_us = start_us - start_us % windows.knobs.interval_us
    windows.add(Stretch(begin_us, start_us, no_events((1, 1)), NO_SPIKES, {}, {}))
