"""A recorded session as an engine and its reels: it plays as what it was recorded from."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.errors import RecordingError
from spikeport.deploy.readout import count_labels
from spikeport.models.events import Events

from . import tape
from .follow import begin_within, first_settings, settings_at
from .reading import Session, Take, open_session
from .settings import ViewSettings
from .types import CoreCounts, OutputSpikes, PowerSource, Stretch, Window
from .windows import Windows

__all__ = ["ReplayEngine", "ReplayReel", "Session", "Take", "compare_marks", "open_session", "replay_windows"]

_COMPARED = ("index", "start_us", "stop_us", "n_events", "synops", "is_open")
_DECIDED = ("winner", "label")
_POWER_TOLERANCE_W = 1.5e-9  # windows tell whole nanowatts, and sums of other stretches round otherwise


class ReplayState(NamedTuple):
    """Where a replay stands: ``counts`` are spikes of each class since the start of its take."""

    take: int
    t_us: int
    counts: NDArray[np.int64]


class ReplayEngine:
    """A device that does what a recorded session says; ``reels`` has one reel for each take of it.

    A session holds no spike maps: no core is ``monitored``. Counts of a recorded stretch that is cut are shared out by
    time, and add up.
    Law: windows, counters and classes are the recorded ones for stretches that end where the recorded windows do, and
    class counts are those of the recorded spikes for any others.
    """

    can_seek = True
    is_timed = False
    has_camera = False
    monitored: frozenset[int] = frozenset()

    def __init__(self, session: Session, *, follows_knobs: bool = True) -> None:
        self.name = f"session of {session.facts.device}"
        self.program = session.program
        self.power_source: PowerSource | None = session.facts.power_source
        self.session = session
        self.reels = tuple(ReplayReel(self, index, follows_knobs) for index in range(len(session.takes)))
        self._cores = [one.core for one in session.program.cores]
        self._take, self._t_us = -1, 0
        self._select(0)
        self.restart()

    def restart(self) -> None:
        """Go back to time 0."""
        self._t_us = 0
        self._counts = np.zeros(len(self.session.facts.classes), np.int64)

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:  # noqa: ARG002
        """Return what was recorded until ``stop_us`` of the reel that gave the last events.

        Raises: RecordingError for a stretch that goes back; SessionFileError where the file has changed.
        """
        start_us = self._t_us
        if stop_us < start_us:
            raise RecordingError(
                f"stretch: expected an end from {start_us} us on, found {stop_us} us. Try restart() before."
            )
        first, last = self._between(start_us, stop_us)
        rows = self.session.stretches[first:last]
        spikes = self._spikes(rows, first, start_us, stop_us)
        self._t_us = stop_us
        self._counts += count_labels(spikes.label, len(self._counts))
        shares = _Shares(rows, start_us, stop_us)
        n_left_out, n_late = (int(shares.total(rows[name])) for name in ("n_left_out", "n_late"))
        cores, power_w = shares.cores(self._cores), shares.power_w()
        return Stretch(start_us, stop_us, events, spikes, cores, {}, power_w, n_left_out, n_late)

    def watch(self, cores: Sequence[int]) -> None:
        """Do nothing: a session holds no spike maps."""

    def keep(self) -> ReplayState:
        """Return the state of now."""
        return ReplayState(self._take, self._t_us, self._counts.copy())

    def take_up(self, state: ReplayState) -> None:
        """Go back to a state of ``keep``."""
        self._select(state.take)
        self._t_us, self._counts = state.t_us, state.counts.copy()

    def final_class(self) -> int | None:
        """Return the class that the recorded show had at the reel's end; before, or without, the one of most spikes."""
        take = self.session.takes[self._take]
        if take.has_final and self._t_us >= take.stop_us:
            return take.final
        return int(self._counts.argmax()) if self._counts.any() else None

    def close(self) -> None:
        """Close the file of the session."""
        self.session.close()

    def taken(self, index: int, start_us: int, stop_us: int) -> Events:
        """Return the events of a span of take ``index``, which is played from now on."""
        self._select(index)
        return self.session.events(*self._between(start_us, stop_us)).window(start_us, stop_us)

    def next_cut_us(self, index: int, t_us: int) -> int | None:
        """Return where the next stretch of take ``index`` ends after a time; None behind the last one."""
        self._select(index)
        at = int(np.searchsorted(self._stops, t_us, side="right"))
        return int(self._stops[at]) if at < len(self._stops) else None

    def _select(self, index: int) -> None:
        if index == self._take:
            return
        self._take = index
        take = self.session.takes[index]
        rows = self.session.stretches[take.first : take.last]
        self._starts, self._stops = rows["start_us"].copy(), rows["stop_us"].copy()

    def _between(self, start_us: int, stop_us: int) -> tuple[int, int]:
        """Return the recorded stretches that a span takes part in; one that lasts no time belongs to what follows."""
        take = self.session.takes[self._take]
        ended = int(np.searchsorted(self._stops, start_us, side="right"))
        first = min(ended, int(np.searchsorted(self._starts, start_us)))
        last = len(self._starts) if stop_us >= take.stop_us else int(np.searchsorted(self._starts, stop_us))
        return take.first + first, take.first + max(first, last)

    def _spikes(self, rows: NDArray[Any], first: int, start_us: int, stop_us: int) -> OutputSpikes:
        """Return the spikes of a span; a late one comes with the stretch that it came with."""
        found = self.session.spikes(first, first + len(rows))
        starts, stops = (np.repeat(rows[name], rows["n_spikes"]) for name in ("start_us", "stop_us"))
        came_us = np.clip(found.t_us, starts, np.maximum(starts, stops - 1))
        is_last = stop_us >= self.session.takes[self._take].stop_us
        inside = (came_us >= start_us) & ((came_us < stop_us) | is_last)
        t_us, label = found.t_us[inside], found.label[inside]
        order = np.argsort(t_us, kind="stable")
        return OutputSpikes(t_us[order], label[order])


class ReplayReel:
    """One take of a session: the events that the program took, at their times.

    ``start_us`` is where it begins: a show goes there before it shows anything. ``knobs`` are the settings that it was
    shown by, as in ``Take``; empty where they are not to be followed.
    """

    def __init__(self, engine: ReplayEngine, index: int, follows_knobs: bool = True) -> None:
        take = engine.session.takes[index]
        self.name = take.name if take.start_us == 0 else f"{take.name} from {take.start_us / 1e6:.3f} s"
        self.label = take.label
        self.sensor_size = engine.session.facts.sensor_size
        self.duration_us = take.stop_us
        self.start_us = take.start_us
        self.knobs: tuple[tuple[int, Mapping[str, Any]], ...] = ()
        if follows_knobs:
            self.knobs = tuple((t_us, tape.knobs_of(settings)) for t_us, settings in take.knobs)
        self._engine, self._index = engine, index

    def take(self, start_us: int, stop_us: int) -> Events:
        """Return the events of a span of time. Raises: SessionFileError where the file has changed."""
        return self._engine.taken(self._index, start_us, stop_us)

    def next_cut_us(self, t_us: int) -> int | None:
        """Return where the next recorded stretch ends after a time; a show that cuts there too shows the same."""
        return self._engine.next_cut_us(self._index, t_us)


class _Shares:
    """The parts of recorded stretches that lie in a span of time."""

    def __init__(self, rows: NDArray[Any], start_us: int, stop_us: int) -> None:
        self._rows, self._start_us, self._stop_us = rows, start_us, stop_us

    def total(self, numbers: NDArray[np.int64]) -> Any:
        """Return the sum over the rows, less the shares of the first and last one that lie outside."""
        total = numbers.sum(axis=0)
        if len(numbers):
            total = total - self._until(0, numbers[0], self._start_us)
            total = total - (numbers[-1] - self._until(-1, numbers[-1], self._stop_us))
        return total

    def cores(self, ids: Sequence[int]) -> dict[int, CoreCounts]:
        """Return the counts of each core that anything is said of."""
        told = self._rows["cores"]
        if not len(told):
            return {}
        sums = np.where((told >= 0).any(axis=0), self.total(np.maximum(told, 0)), told.max(axis=0))
        return tape.cores_of(dict(zip(ids, sums, strict=True)))

    def power_w(self) -> dict[str, float] | None:
        """Return the mean power of each rail over the time for which it is known."""
        starts, stops = (self._rows[name] for name in ("start_us", "stop_us"))
        spans = np.minimum(stops, self._stop_us) - np.maximum(starts, self._start_us)
        power = self._rows["power_w"][spans > 0]
        if len(power) == 1:
            return tape.powers_of(power[0])
        weights = np.where(np.isnan(power), 0.0, spans[spans > 0, None])
        known = weights.sum(axis=0)
        mean = np.divide(
            (np.nan_to_num(power) * weights).sum(axis=0), known, np.full(known.shape, np.nan), where=known > 0
        )
        return tape.powers_of(mean)

    def _until(self, row: int, numbers: Any, t_us: int) -> Any:
        """Return which share of a row's numbers lies before a time."""
        start_us, stop_us = int(self._rows["start_us"][row]), int(self._rows["stop_us"][row])
        if t_us >= stop_us and (stop_us > start_us or t_us > start_us or row):
            return numbers
        passed_us = max(0, t_us - start_us)
        exact = [int(number) * passed_us // max(1, stop_us - start_us) for number in np.ravel(numbers)]
        return np.array(exact, np.int64).reshape(np.shape(numbers))


def replay_windows(session: Session, settings: ViewSettings | None = None) -> tuple[tuple[Window, ...], ...]:
    """Return the windows of every take, counted and decided again by the recorded knobs, or by other ``settings``.

    Raises: SessionFileError where the file has changed; SettingError for a default class that there is not.
    """
    engine = ReplayEngine(session, follows_knobs=settings is None)
    shown = session.facts.settings if settings is None else settings
    return tuple(tuple(_windows(engine, reel, shown)) for reel in engine.reels)


def _windows(engine: ReplayEngine, reel: ReplayReel, settings: ViewSettings) -> Iterable[Window]:
    windows = Windows(len(engine.session.facts.classes), first_settings(reel, settings))
    engine.restart()
    engine.advance(reel.take(0, reel.start_us), reel.start_us)
    begin_within(windows, reel.start_us)
    t_us, cut_us = reel.start_us, reel.next_cut_us(reel.start_us)
    while cut_us is not None:
        windows.set(settings_at(reel, settings, t_us))
        stop_us = min(windows.next_end_us, cut_us)
        yield from windows.add(engine.advance(reel.take(t_us, stop_us), stop_us))
        t_us, cut_us = stop_us, reel.next_cut_us(stop_us)
    yield from windows.finish()


def compare_marks(session: Session, windows: Sequence[Sequence[Window]]) -> str | None:
    """Return the first difference between the recorded windows and those of a replay, as a sentence; None without one.

    ``windows`` has those of each take. A window that was open when a recording began or ended is compared as far as it
    was recorded; winners of a readout of the user's own are not compared.
    """
    if len(windows) != len(session.takes):
        return f"expected windows of {len(session.takes)} takes, found those of {len(windows)}."
    after = [at for at, _ in session.windows]
    for number, (take, found) in enumerate(zip(session.takes, windows, strict=True)):
        part = session.windows[bisect_right(after, take.first) : bisect_right(after, take.last)]
        recorded = [one for _, one in part if one.start_us >= take.start_us]
        replayed = [one for one in found if one.start_us >= take.start_us]
        if len(replayed) == len(recorded) + 1 and replayed[-1].is_open:
            replayed.pop()
        for one, other in zip(recorded, replayed, strict=False):
            difference = _difference(one, other, own_readout=session.facts.has_own_readout)
            if difference:
                return f"take {number} ('{take.name}'), window of {one.start_us} us: {difference}."
        if len(recorded) != len(replayed):
            return f"take {number} ('{take.name}'): expected {len(recorded)} windows, found {len(replayed)}."
    return None


def _difference(recorded: Window, replayed: Window, *, own_readout: bool) -> str | None:
    for name in (*_COMPARED, *(() if own_readout else _DECIDED)):
        expected, found = getattr(recorded, name), getattr(replayed, name)
        if expected != found:
            return f"{name}: expected {expected}, found {found}"
    if not np.array_equal(recorded.counts, replayed.counts):
        return f"counts: expected {recorded.counts.tolist()!s:.200}, found {replayed.counts.tolist()!s:.200}"
    expected_w, found_w = recorded.power_w or {}, replayed.power_w or {}
    is_near = expected_w.keys() == found_w.keys() and all(
        math.isclose(power, found_w[rail], abs_tol=_POWER_TOLERANCE_W) for rail, power in expected_w.items()
    )
    return None if is_near else f"power_w: expected {expected_w}, found {found_w}"
