"""Shows for the tests: a listener that remembers, and what a slow independent run says that it must have seen."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.readout import classes_of, classify, count_classes, n_classes
from spikeport.deploy.types import Program, Recording
from spikeport.deploy.view.emulated import EmulatedEngine
from spikeport.deploy.view.reels import RecordingReel
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from spikeport.deploy.view.types import Position, Reel, Stretch, Totals, Window
from spikeport.models.events import Events
from tests.deploy.programs import Case, random_case

WAIT_S = 60.0
"""Far more than anything here takes."""


class Log:
    """A listener that remembers all it is told."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.windows: list[Window] = []
        self.resets: list[Position] = []
        self.knobs: list[ViewSettings] = []
        self.finals: list[int | None] = []
        self.is_closed = False

    def on_stretch(self, stretch: Stretch) -> None:
        self.stretches.append(stretch)

    def on_window(self, window: Window) -> None:
        self.windows.append(window)

    def on_reset(self, position: Position) -> None:
        self.resets.append(position)

    def on_knobs(self, settings: ViewSettings) -> None:
        self.knobs.append(settings)

    def on_end(self, final: int | None) -> None:
        self.finals.append(final)

    def close(self) -> None:
        self.is_closed = True


def classed_case(seed: int) -> Case:
    """Return the first random case from ``seed`` on that has classes."""
    return next(case for n in range(50) if n_classes((case := random_case(seed + 1000 * n)).program))


def open_show(case: Case, settings: ViewSettings | None = None, **options: Any) -> tuple[Show, Log]:
    """Return a show of a case that has not begun, and its log; ``reels`` and ``engine`` may be others."""
    log = Log()
    engine = options.pop("engine", None) or EmulatedEngine(case.program, case.slow_clock_hz or 0)
    reels: Sequence[Reel] = options.pop("reels", None) or [RecordingReel(case.events)]
    chosen = settings or ViewSettings(interval_ms=3.0, speed=None)
    return Show(engine, reels, settings=chosen, listeners=[log], **options), log


def play_out(show: Show) -> None:
    """Play to where the show stands still."""
    show.start()
    show.play()
    assert show.wait(WAIT_S)


def end_of(show: Show) -> int:
    """Return where the reel of a show ends."""
    duration_us = show.position().duration_us
    assert duration_us is not None
    return duration_us


@dataclasses.dataclass(frozen=True, eq=False)
class Expected:
    """What a whole run says: its recording, and time and class of the spikes that left the chip."""

    recording: Recording
    t_us: NDArray[np.int64]
    labels: NDArray[np.int64]
    program: Program

    @property
    def final(self) -> int | None:
        counts = count_classes(self.recording, self.program)
        return classify(self.recording, self.program) if counts.any() else None

    def counts(self, start_us: int, stop_us: int) -> list[int]:
        """Return the spikes of each class in a span of time, one by one."""
        found = [0] * n_classes(self.program)
        for t_us, label in zip(self.t_us.tolist(), self.labels.tolist(), strict=True):
            if start_us <= t_us < stop_us and label >= 0:
                found[label] += 1
        return found


def expected_of(case: Case, events: Events | None = None) -> Expected:
    """Return what ``Emulator.run`` does with a case from its first event on, or with other events."""
    events = case.events.from_zero() if events is None else events
    recording = Emulator(case.program, slow_clock_hz=case.slow_clock_hz or 0).run(events, "all")
    ends = [(core.core, end) for core in case.program.cores for end in core.destinations if end.core is None]
    times = [recording.spikes[core]["t_us"] for core, _ in ends]
    labels = [classes_of(recording.spikes[core], end, case.program) for core, end in ends]
    return Expected(recording, np.concatenate(times), np.concatenate(labels), case.program)


def check_played(log: Log, totals: Totals, expected: Expected, interval_us: int, duration_us: int) -> None:
    """Check everything that a show told of a reel against the whole run."""
    recording = expected.recording
    bounds = [*range(0, duration_us, interval_us), duration_us]
    assert [(w.start_us, w.stop_us) for w in log.windows] == list(itertools.pairwise(bounds))
    assert [w.counts.tolist() for w in log.windows] == [
        expected.counts(first, last) for first, last in itertools.pairwise(bounds)
    ]
    assert [w.is_open for w in log.windows] == [w.stop_us % interval_us != 0 for w in log.windows]
    assert all(s.start_us // interval_us == (s.stop_us - 1) // interval_us for s in log.stretches)
    assert [s.start_us for s in log.stretches] == [0, *(s.stop_us for s in log.stretches[:-1])]
    for core in recording.states:
        told = [s.cores[core] for s in log.stretches]
        assert sum(one.synops or 0 for one in told) == recording.synops[core]
        assert sum(one.n_spikes or 0 for one in told) == recording.n_spikes[core]
        assert sum(one.n_events or 0 for one in told) == recording.n_events[core]
        assert sum(one.n_dropped or 0 for one in told) == recording.n_dropped[core]
    assert totals.n_offered == totals.n_events + totals.n_left_out
    assert totals.n_output_spikes == len(expected.t_us)
    assert totals.synops == sum(recording.synops.values())
    assert totals.n_dropped == sum(recording.n_dropped.values())
    assert totals.n_windows == len(log.windows)


def same_windows(found: Sequence[Window], expected: Sequence[Window]) -> bool:
    """Return whether windows are equal, but for the power of stretches that were cut elsewhere."""
    return len(found) == len(expected) and all(
        dataclasses.replace(one, power_w=None).same(dataclasses.replace(other, power_w=None))
        for one, other in zip(found, expected, strict=True)
    )
