"""Processing nodes: small steps from events or spikes to decisions, to be put together with ``chain``.

A node is called with one item and returns the items that come of it. Some count or wait, and so have a state: those
have ``reset()``, and ``finish()`` where something may still be held at the end of a recording.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.errors import RecordingError, SettingError
from spikeport.deploy.readout import classes_of, count_labels, majority_class
from spikeport.deploy.types import Program
from spikeport.models.arrays import ArrayRecord, frozen
from spikeport.models.events import Events

from .types import Box, OutputSpikes

NO_SPIKES = OutputSpikes(np.zeros(0, np.int64), np.zeros(0, np.int16))

Node = Callable[[Any], Iterable[Any]]
"""Takes one item, returns those that come of it."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Tick(ArrayRecord):
    """The spikes that came while time went from ``start_us`` to ``stop_us``; it may be silent."""

    start_us: int
    stop_us: int
    spikes: OutputSpikes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Collection(ArrayRecord):
    """The spikes of one interval; ``is_open`` where the recording ended within it.

    ``index`` is how many intervals of this length fit in before it, from time 0 on.
    """

    index: int
    start_us: int
    stop_us: int
    spikes: OutputSpikes
    is_open: bool = False


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Counts(ArrayRecord):
    """The number of spikes of each feature in one interval.

    Shapes: ``counts`` is int64 ``[features]``.
    """

    index: int
    start_us: int
    stop_us: int
    counts: NDArray[np.int64]
    is_open: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", frozen(self.counts, np.int64))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Decision(Counts):
    """What the counts of one interval say: ``winner`` is None where nothing is decided, ``label`` is what is shown."""

    winner: int | None = None
    label: int | None = None


class Chain:
    """Nodes one after the other, as one node; made by ``chain``."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self._nodes = nodes

    def __call__(self, item: Any) -> tuple[Any, ...]:
        """Return what comes of one item."""
        return _run(self._nodes, (item,))

    def reset(self) -> None:
        """Have every node forget what came before."""
        for node in self._nodes:
            getattr(node, "reset", _nothing)()

    def finish(self) -> tuple[Any, ...]:
        """Return what the nodes still hold, taken through those behind them."""
        rest: tuple[Any, ...] = ()
        for node in self._nodes:
            rest = (*_run((node,), rest), *getattr(node, "finish", _nothing)())
        return rest


def chain(*nodes: Node) -> Chain:
    """Return the node that runs the given ones one after the other; none: one that passes everything.

    Law: chains of chains give what the chain of all their nodes gives.
    """
    return Chain(nodes)


def _run(nodes: Iterable[Node], items: tuple[Any, ...]) -> tuple[Any, ...]:
    for node in nodes:
        items = tuple(made for item in items for made in node(item))
    return items


def _nothing() -> tuple[Any, ...]:
    return ()


class Decimate:
    """A node that thins out events; made by ``decimate``."""

    def __init__(self, keep: int, of: int) -> None:
        if not 1 <= keep <= of:
            raise SettingError(f"decimate: expected 1 <= keep <= of, found {keep} of {of}. Try decimate(1, 2).")
        self._keep, self._of = keep, of
        self._phase = 0

    def __call__(self, events: Events) -> tuple[Events, ...]:
        """Return the events that stay."""
        place = (self._phase + np.arange(len(events))) % self._of
        self._phase = (self._phase + len(events)) % self._of
        return (_selected(events, place < self._keep),)

    def reset(self) -> None:
        """Have the next event be the first again."""
        self._phase = 0


def decimate(keep: int, of: int) -> Decimate:
    """Return the node that passes the first ``keep`` of each ``of`` events.

    Law: of n events ``n // of * keep + min(n % of, keep)`` pass, however they come in pieces.
    Raises: SettingError unless ``1 <= keep <= of``.
    """
    return Decimate(keep, of)


def rescale(from_size: tuple[int, int], to_size: tuple[int, int]) -> Node:
    """Return the node that brings events of one sensor size to another, each by ``y * height // from_height``.

    Every event stays one event: a smaller size has several pixels share one, a larger size leaves pixels without.
    Shapes: sizes are ``(height, width)``.
    Raises: SettingError for sizes that are none; the node a RecordingError for events of another sensor size.
    """
    for size in (from_size, to_size):
        if len(size) != 2 or not all(1 <= edge <= 32767 for edge in size):
            raise SettingError(f"rescale: expected sizes (height, width) of 1 to 32767, found {size}. Try (128, 128).")

    def node(events: Events) -> tuple[Events, ...]:
        if events.sensor_size != tuple(from_size):
            raise RecordingError(
                f"rescale: expected events of a sensor of {from_size[0]}x{from_size[1]}, found "
                f"{events.sensor_size[0]}x{events.sensor_size[1]}. Try rescale({events.sensor_size}, {to_size})."
            )
        if tuple(from_size) == tuple(to_size):
            return (events,)
        y, x = (
            axis.astype(np.int64) * new // old
            for axis, new, old in zip((events.y, events.x), to_size, from_size, strict=True)
        )
        return (Events(x, y, events.p, events.t_us, to_size),)

    return node


def crop(box: Box, shift: bool = False) -> Node:
    """Return the node that passes the events within a box.

    With ``shift`` the first row and column of the box become 0, and the sensor is as large as the box.
    Shapes: ``box`` is ``(top, bottom, left, right)``, bottom and right outside of it.
    Raises: SettingError for a box of no area; the node one for events of a sensor that the box does not lie in.
    """
    top, bottom, left, right = box
    if not (0 <= top < bottom and 0 <= left < right):
        raise SettingError(
            f"crop: expected 0 <= top < bottom and 0 <= left < right, found rows {top}:{bottom}, columns "
            f"{left}:{right}. Try (0, 64, 0, 64)."
        )

    def node(events: Events) -> tuple[Events, ...]:
        height, width = events.sensor_size
        if bottom > height or right > width:
            raise SettingError(
                f"crop: expected a box within the sensor of {height}x{width}, found rows {top}:{bottom}, columns "
                f"{left}:{right}. Try (0, {height}, 0, {width})."
            )
        inside = (events.y >= top) & (events.y < bottom) & (events.x >= left) & (events.x < right)
        kept = _selected(events, inside)
        if shift:
            kept = Events(kept.x - left, kept.y - top, kept.p, kept.t_us, (bottom - top, right - left))
        return (kept,)

    return node


def _selected(events: Events, mask: NDArray[np.bool_]) -> Events:
    kept = np.flatnonzero(mask)  # faster than the mask itself for four columns
    if len(kept) == len(events):
        return events
    return Events(events.x[kept], events.y[kept], events.p[kept], events.t_us[kept], events.sensor_size)


class Collect:
    """A node that collects spikes by their time; made by ``collect``.

    ``start_us`` and ``stop_us`` are those of the window that is open now.
    """

    def __init__(self, interval_us: int, start_us: int = 0) -> None:
        self._first_us, self._next_us = start_us, _checked_interval(interval_us)
        self.interval_us, self.start_us, self.stop_us, self._t_us = self._next_us, 0, 0, 0
        self._held: list[OutputSpikes] = []
        self.reset()

    @property
    def has_begun(self) -> bool:
        """Whether time has passed, or spikes have come, in the window that is open."""
        return self._t_us > self.start_us or bool(self._held)

    def __call__(self, tick: Tick) -> tuple[Collection, ...]:
        """Return the windows that have ended; the spikes of others are held."""
        if not self._t_us <= tick.start_us <= tick.stop_us:
            raise RecordingError(
                f"collect: expected spikes from {self._t_us} us on, found those of {tick.start_us} to {tick.stop_us} "
                "us. Try them in order of time, or reset() before."
            )
        if len(tick.spikes.t_us):
            self._held.append(tick.spikes)
        ended = []
        while self.stop_us <= tick.stop_us:
            ended.append(self._close(self.stop_us))
        self._t_us = tick.stop_us
        return tuple(ended)

    def set_interval(self, interval_us: int) -> None:
        """Take another interval from the next window on, or from this one where it has not begun.

        Raises: SettingError below 1 us.
        """
        self._next_us = _checked_interval(interval_us)
        if not self.has_begun:
            self._open(self.start_us)

    def reset(self, t_us: int | None = None) -> None:
        """Forget what is held, and start again with the window that ``t_us`` lies in; None: where it began at first."""
        first_us = self._first_us if t_us is None else t_us
        self._held = []
        self._open(first_us - first_us % self._next_us)

    def finish(self) -> tuple[Collection, ...]:
        """Return the open window, unless it has not begun; windows go on from there."""
        if not self.has_begun:
            return ()
        return (self._close(self._t_us, is_open=True),)

    def _open(self, start_us: int) -> None:
        self.interval_us = self._next_us
        self.start_us = self._t_us = start_us
        self.stop_us = (start_us // self.interval_us + 1) * self.interval_us

    def _close(self, stop_us: int, *, is_open: bool = False) -> Collection:
        """Return the open window, and open the next one; late spikes are in it, early ones wait for theirs."""
        held = _joined(self._held)
        is_due = np.ones(len(held.t_us), np.bool_) if is_open else held.t_us < stop_us
        rest = OutputSpikes(held.t_us[~is_due], held.label[~is_due])
        self._held = [rest] if len(rest.t_us) else []
        spikes = held if is_due.all() else OutputSpikes(held.t_us[is_due], held.label[is_due])
        done = Collection(self.start_us // self.interval_us, self.start_us, stop_us, spikes, is_open)
        self._open(stop_us)
        return done


def collect(interval_us: int, start_us: int = 0) -> Collect:
    """Return the node that gathers the spikes of ticks over windows of ``interval_us``, each given once it has ended.

    Windows end at multiples of the interval, and silent ones are given too. A spike goes to the window of its time,
    or, where that one has ended, to the one that is open: none is lost.
    Law: ticks cut anywhere give the same windows.
    Raises: SettingError below 1 us; the node a RecordingError for ticks that go back in time.
    """
    return Collect(interval_us, start_us)


def count(n_features: int) -> Node:
    """Return the node that counts the spikes of each feature of a collection; those of other features are left out.

    Law: the counts add up to the spikes with a feature of 0 to below ``n_features``.
    """
    if n_features < 0:
        raise SettingError(f"count: expected 0 or more features, found {n_features}. Try 10.")

    def node(collection: Collection) -> tuple[Counts, ...]:
        counts = count_labels(collection.spikes.label, n_features)
        return (Counts(collection.index, collection.start_us, collection.stop_us, counts, collection.is_open),)

    return node


def majority(threshold: int = 1, low: int = 0, high: int = 32_000, default: int | None = None) -> Node:
    """Return the node that decides on the feature with the most spikes; the lowest one of several.

    Nothing is decided unless the spikes together are ``low`` to ``high``, both included, and those of the winner at
    least ``threshold``; ``default`` is then shown. No spikes decide nothing.
    """

    def node(counts: Counts) -> tuple[Decision, ...]:
        winner = majority_class(counts.counts, threshold=threshold, low=low, high=high)
        return (decided(counts, winner, default=default),)

    return node


def decided(counts: Counts, winner: int | None, *, default: int | None) -> Decision:
    """Return the decision for ``winner``, or for nobody: ``default`` is then shown."""
    label = default if winner is None else winner
    return Decision(counts.index, counts.start_us, counts.stop_us, counts.counts, counts.is_open, winner, label)


def output_spikes(spikes: Mapping[int, NDArray[Any]], program: Program) -> OutputSpikes:
    """Return the spikes that leave the chip, with their classes, from the recorded spikes of the output cores.

    Shapes: structured arrays of ``SPIKE`` by core, as in ``Recording.spikes``; other cores may be there too.
    Law: the labels counted are ``count_classes`` of the recording.
    Raises: RecordingError where an output core is missing.
    """
    missing = [core for core in program.outputs if core not in spikes]
    if missing:
        raise RecordingError(
            f"output spikes: expected those of the program's output cores, found none of {missing}. Try monitoring "
            "the last layer."
        )
    ends = [
        (spikes[core.core], classes_of(spikes[core.core], end, program))
        for core in program.cores
        for end in core.destinations
        if end.core is None
    ]
    if not ends:
        return NO_SPIKES
    if len(ends) == 1:
        return OutputSpikes(ends[0][0]["t_us"], ends[0][1].astype(np.int16))
    order = np.argsort(np.concatenate([one["event"] for one, _ in ends]), kind="stable")
    times = np.concatenate([one["t_us"] for one, _ in ends])
    return OutputSpikes(times[order], np.concatenate([labels for _, labels in ends])[order].astype(np.int16))


def _joined(parts: list[OutputSpikes]) -> OutputSpikes:
    if len(parts) < 2:
        return parts[0] if parts else NO_SPIKES
    times, labels = (np.concatenate([getattr(one, name) for one in parts]) for name in ("t_us", "label"))
    return OutputSpikes(times, labels)


def _checked_interval(interval_us: int) -> int:
    if not (math.isfinite(interval_us) and interval_us == int(interval_us) and interval_us >= 1):
        raise SettingError(f"collect: expected an interval of 1 or more whole us, found {interval_us}. Try 100000.")
    return int(interval_us)
