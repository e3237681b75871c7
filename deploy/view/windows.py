"""From stretches to windows: what was collected in each interval, and what was decided at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.deploy.errors import SettingError
from spikeport.deploy.readout import count_labels
from spikeport.models.arrays import frozen

from .gauges import sum_told
from .nodes import NO_SPIKES, Collect, Collection, Counts, Decision, Node, Tick, count, decided, majority
from .settings import ViewSettings
from .types import Stretch, Window

Readout = Callable[[NDArray[np.int64]], int | np.integer[Any] | None]
"""Takes the counts of each class, returns the winner, or None where it cannot say."""


class Windows:
    """Cuts stretches into windows and decides at the end of each; ``readout`` takes the place of the majority.

    Law: windows end at multiples of the interval, silent ones too; the spikes and events of stretches cut anywhere
    give the same windows. Synops of a stretch that crosses an end count where it begins.
    Raises: SettingError for a default class that there is not, or a readout that is none.
    """

    def __init__(self, n_classes: int, knobs: ViewSettings, readout: Readout | None = None) -> None:
        if readout is not None and not callable(readout):
            raise SettingError(
                f"readout: expected a function of the counts, found {readout!r:.60}. Try lambda counts: None."
            )
        self._n_classes, self._readout = n_classes, readout
        self._next = _checked(knobs, n_classes)
        self._count = count(n_classes)
        self._collect = Collect(knobs.interval_us)
        self._before = np.zeros(n_classes, np.int64)
        self._synops: int | None = 0
        self._begin()

    @property
    def next_end_us(self) -> int:
        """When the open window ends, and a stretch has to."""
        return self._collect.stop_us

    @property
    def knobs(self) -> ViewSettings:
        """What the next window is cut and decided by."""
        return self._next

    @property
    def open_knobs(self) -> ViewSettings:
        """What the open window is cut and decided by."""
        return self._open

    @property
    def so_far(self) -> NDArray[np.int64]:
        """Spikes of each class since the start of the reel, those of the open window among them."""
        return frozen(self._before)

    def set(self, knobs: ViewSettings) -> None:
        """Take other knobs from the next window on, or from the open one where it has not begun.

        Raises: SettingError for a default class that there is not.
        """
        self._next = _checked(knobs, self._n_classes)
        self._collect.set_interval(knobs.interval_us)
        if not self._collect.has_begun:
            self._begin()

    def reset(self, t_us: int = 0, *, so_far: ArrayLike | None = None) -> None:
        """Start again with the window that ``t_us`` lies in, its spikes to come with the next stretches.

        Shapes: ``so_far`` holds the counts of each class up to the start of that window; None: no spikes.
        """
        self._collect.reset(t_us)
        self._before = np.array(np.zeros(self._n_classes) if so_far is None else so_far, np.int64)
        self._begin()

    def add(self, stretch: Stretch, due_s: float | None = None) -> tuple[Window, ...]:
        """Return the windows that ended within a stretch.

        Units: ``due_s`` of ``time.perf_counter`` is when the end of the stretch was due; None: now.
        Raises: SettingError for an own readout that fails; RecordingError for stretches that go back in time.
        """
        due_s = time.perf_counter() if due_s is None else due_s
        skipped = self._collect(Tick(stretch.start_us, stretch.start_us, NO_SPIKES))
        windows = [self._decide(collection, due_s) for collection in skipped]
        self._before = self._before + count_labels(stretch.spikes.label, self._n_classes)
        self._synops = sum_told((self._synops, *(core.synops for core in stretch.cores.values())))
        t_us, first = stretch.start_us, 0
        for collection in self._collect(Tick(stretch.start_us, stretch.stop_us, stretch.spikes)):
            last = int(np.searchsorted(stretch.events.t_us, collection.stop_us))
            self._take(stretch, last - first, collection.stop_us - t_us)
            windows.append(self._decide(collection, due_s))
            t_us, first = collection.stop_us, last
        self._take(stretch, len(stretch.events) - first, stretch.stop_us - t_us)
        return self._given(windows)

    def finish(self, due_s: float | None = None) -> tuple[Window, ...]:
        """Return the window that the end of a recording cuts short; none where it has not begun."""
        due_s = time.perf_counter() if due_s is None else due_s
        return self._given([self._decide(collection, due_s) for collection in self._collect.finish()])

    def _given(self, windows: list[Window | SettingError]) -> tuple[Window, ...]:
        """Return the windows, or raise the first problem now that all are done and the next one is open."""
        for window in windows:
            if isinstance(window, SettingError):
                raise window
        return tuple(window for window in windows if isinstance(window, Window))

    def _begin(self) -> None:
        """Start a window, by the knobs that are due."""
        self._open = self._next
        self._decider = _decider(self._next, self._readout)
        self._n_events = 0
        self._synops = 0
        self._energy_j: dict[str, float] = {}
        self._powered_us = 0

    def _take(self, stretch: Stretch, n_events: int, span_us: int) -> None:
        self._n_events += n_events
        if stretch.power_w is not None and span_us > 0:
            self._powered_us += span_us
            for rail, power in stretch.power_w.items():
                self._energy_j[rail] = self._energy_j.get(rail, 0.0) + power * span_us * 1e-6

    def _decide(self, collection: Collection, due_s: float) -> Window | SettingError:
        (counts,) = self._count(collection)
        try:
            (decision,) = self._decider(counts)
        except SettingError as problem:
            self._begin()
            return problem
        seconds = self._powered_us * 1e-6
        # In whole nanowatts: the last bits of a sum depend on where stretches were cut, and that on the wall clock.
        powers = {rail: round(energy / seconds, 9) for rail, energy in self._energy_j.items() if self._powered_us}
        power = powers or None
        window = Window(
            decision.index,
            decision.start_us,
            decision.stop_us,
            decision.counts,
            decision.winner,
            decision.label,
            self._n_events,
            self._synops,
            power,
            decision.is_open,
            max(0.0, time.perf_counter() - due_s),
        )
        self._begin()
        return window


def _checked(knobs: ViewSettings, n_classes: int) -> ViewSettings:
    if knobs.default_class is not None and not 0 <= knobs.default_class < n_classes:
        raise SettingError(
            f"default_class: expected one of the {n_classes} classes from 0 on, or None, found "
            f"{knobs.default_class}. Try None."
        )
    return knobs


def _decider(knobs: ViewSettings, readout: Readout | None) -> Node:
    if readout is None:
        return majority(knobs.threshold, knobs.low, knobs.high, knobs.default_class)

    def node(counts: Counts) -> tuple[Decision, ...]:
        return (decided(counts, ask_readout(readout, counts.counts), default=knobs.default_class),)

    return node


def ask_readout(readout: Readout, counts: NDArray[np.int64]) -> int | None:
    """Return what a readout of the user's own says, if that is a class or None."""
    name = getattr(readout, "__name__", type(readout).__name__)
    try:
        said = readout(counts)
    except (Exception, SystemExit) as cause:  # the user's function may raise anything
        raise SettingError(
            f"readout '{name}': expected a class or None for the counts {counts.tolist()!s:.80}, found "
            f"{type(cause).__name__}: {cause}. Try it on numpy.zeros({len(counts)}, int)."
        ) from cause
    is_class = isinstance(said, (int, np.integer)) and not isinstance(said, bool) and 0 <= said < len(counts)
    if said is not None and not is_class:
        raise SettingError(
            f"readout '{name}': expected one of the {len(counts)} classes from 0 on, or None, found {said!r:.40} of "
            f"type {type(said).__name__}. Try int(counts.argmax())."
        )
    return None if said is None else int(said)
