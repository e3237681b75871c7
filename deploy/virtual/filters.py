"""Filters that a graph makes by name or from a builder: type filters, member selection, spike counts, readout, crops.

What they do: public documentation of samna 0.48.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from spikeport.deploy.readout import count_labels, majority_class

from . import ui
from .errors import VirtualBoardError
from .graph import Node, SinkNode


class EventTypeFilter(Node):
    """Passes events of one type, or all but one; with neither set it passes all."""

    def __init__(self, kinds: Sequence[type] = ()) -> None:
        super().__init__()
        self._names = {getattr(kind, "_kind", kind.__name__): kind for kind in kinds}
        self._desired = self._rejected = ""

    def get_available_types(self) -> list[str]:
        """Return the names of the types that it knows."""
        return list(self._names)

    def set_desired_type(self, name: str) -> None:
        """Pass only events of the named type."""
        self._desired, self._rejected = self._checked(name), ""

    def get_desired_type(self) -> str:
        """Return the name of the type that passes; empty where none was set."""
        return self._desired

    def set_rejected_type(self, name: str) -> None:
        """Pass all events but those of the named type."""
        self._desired, self._rejected = "", self._checked(name)

    def get_rejected_type(self) -> str:
        """Return the name of the type that does not pass; empty where none was set."""
        return self._rejected

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        if self._desired:
            return [event for event in events if _kind_of(event) == self._desired]
        return [event for event in events if _kind_of(event) != self._rejected] if self._rejected else events

    def _checked(self, name: str) -> str:
        if self._names and name not in self._names:
            raise VirtualBoardError(
                f"virtual samna: type filter: expected one of {', '.join(self._names)}, found {name!r:.60}."
            )
        return name


def _kind_of(event: Any) -> str:
    return str(getattr(type(event), "_kind", "")) or type(event).__name__


class MemberSelect(Node):
    """Passes events whose attribute has one of the listed values; events without that attribute do not pass."""

    def __init__(self) -> None:
        super().__init__()
        self._allowed: set[Any] = set()
        self._attribute = ""

    def set_white_list(self, white_list: Sequence[int | str], attribute: str) -> None:
        """Pass events whose ``attribute`` is in the list."""
        if isinstance(white_list, (str, bytes)) or not all(isinstance(value, (int, str)) for value in white_list):
            raise TypeError(f"virtual samna: set_white_list: expected a list of int or str, found {white_list!r:.60}.")
        self._allowed, self._attribute = set(white_list), attribute

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        if not self._attribute:
            return events
        return [event for event in events if getattr(event, self._attribute, None) in self._allowed]


class DvsToViz(Node):
    """Makes events of the sensor, and spikes, what a viewer shows."""

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        shown = []
        for event in events:
            polarity = getattr(event, "p", getattr(event, "feature", None))
            if polarity is not None and hasattr(event, "x"):
                shown.append(ui.DvsEvent(min(polarity, 255), event.y, event.x, getattr(event, "timestamp", 0)))
        return shown


class Collection(list[Any]):
    """The spikes of one interval."""


class SpikeCollection(Node):
    """Collects spikes over intervals of real time, and gives one collection at the end of each."""

    is_periodic = True

    def __init__(self, spike: type | None = None) -> None:
        super().__init__()
        self._spike = spike
        self._interval_ms = 500
        self._held = Collection()
        self._end_s: float | None = None

    def set_interval_milli_sec(self, interval: int) -> None:
        """Set the length of the intervals, in milliseconds."""
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise TypeError(f"virtual samna: set_interval_milli_sec: expected 1 or more, found {interval!r:.40}.")
        self._interval_ms = interval

    def get_interval_milli_sec(self) -> int:
        """Return the length of the intervals, in milliseconds."""
        return self._interval_ms

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        now_s = time.monotonic()
        if self._end_s is None:
            self._end_s = now_s + self._interval_ms / 1e3
        self._held += (event for event in events if self._spike is None or isinstance(event, self._spike))
        if now_s < self._end_s:
            return ()
        done, self._held = self._held, Collection()
        self._end_s = now_s + self._interval_ms / 1e3
        return (done,)


class _OfFeatures(Node):
    """A node that is told how many features there are."""

    def __init__(self) -> None:
        super().__init__()
        self._feature_count = 1

    def set_feature_count(self, count: int) -> None:
        """Set the number of features."""
        self._feature_count = int(count)

    def get_feature_count(self) -> int:
        """Return the number of features."""
        return self._feature_count

    def counts(self, spikes: Sequence[Any]) -> list[int]:
        """Return how many spikes each feature has; others are left out."""
        counted: list[int] = count_labels([spike.feature for spike in spikes], self._feature_count).tolist()
        return counted


class SpikeCountNode(_OfFeatures):
    """Gives the number of spikes of each feature for each collection."""

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        return [
            ui.SpikeCount(feature, count, _time_of(spikes))
            for spikes in events
            for feature, count in enumerate(self.counts(spikes))
        ]


class MajorityReadoutNode(_OfFeatures):
    """Gives the feature with the most spikes of each collection.

    The default feature is given where the number of spikes does not lie between the two thresholds, or there are none;
    of equal features the lowest is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self._default, self._low, self._high = 0, 0, 32_000

    def set_default_feature(self, feature: int) -> None:
        """Set what is given where there is no majority."""
        self._default = int(feature)

    def set_threshold_low(self, count: int) -> None:
        """Set the number of spikes from which on there is a majority."""
        self._low = int(count)

    def set_threshold_high(self, count: int) -> None:
        """Set the number of spikes up to which there is a majority."""
        self._high = int(count)

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        decided = []
        for spikes in events:
            counts = self.counts(spikes)
            winner = majority_class(counts, low=self._low, high=self._high)
            decided.append(ui.Readout(self._default if winner is None else winner, _time_of(spikes)))
        return decided


def _time_of(spikes: Sequence[Any]) -> int:
    return spikes[-1].timestamp if spikes else 0


class MeasurementToViz(Node):
    """Makes power measurements, in watts, what a viewer shows, in milliwatts."""

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        return [ui.Measurement(event.channel, event.value * 1e3, event.timestamp) for event in events]


class EventCounterSink(SinkNode):
    """Counts events and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def get_count(self) -> int:
        """Return how many events came."""
        return self._count

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        self._count += len(events)
        return ()


class EventToggle(Node):
    """Passes events while it is on, which it is at first."""

    def __init__(self) -> None:
        super().__init__()
        self._is_on = True

    def set_enable(self, value: bool) -> None:
        """Switch it on or off."""
        self._is_on = bool(value)

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        return events if self._is_on else ()


class EventCrop(Node):
    """Passes events within a region, whose first row and column become 0."""

    def __init__(self) -> None:
        super().__init__()
        self._roi = (0, 0, 127, 127)

    def set_roi(self, xtl: int, ytl: int, xbr: int, ybr: int) -> None:
        """Set the region by its first and last column and row."""
        if xbr < xtl or ybr < ytl:
            raise VirtualBoardError(f"virtual samna: set_roi: expected corners in order, found {(xtl, ytl, xbr, ybr)}.")
        self._roi = (xtl, ytl, xbr, ybr)

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        left, top, right, bottom = self._roi
        kept = [event.copied() for event in events if left <= event.x <= right and top <= event.y <= bottom]
        for event in kept:
            event.x, event.y = event.x - left, event.y - top
        return kept


class EventDecimate(Node):
    """Passes one event of every ``M``."""

    def __init__(self) -> None:
        super().__init__()
        self._every, self._n = 1, 0

    def set_decimation_fraction(self, m: int, l: int = 1) -> None:  # noqa: E741
        """Pass ``l`` of ``m`` events; ``l`` is 1."""
        if m < 1 or l != 1:
            raise VirtualBoardError(
                f"virtual samna: set_decimation_fraction: expected M of 1 or more and L of 1, found {m}/{l}."
            )
        self._every, self._n = m, 0

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        first = -self._n % self._every
        self._n += len(events)
        return events[first :: self._every]


class EventRescale(Node):
    """Divides coordinates by two coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self._width = self._height = 1.0

    def set_rescaling_coefficients(self, width_coeff: float, height_coeff: float) -> None:
        """Set what columns and rows are divided by."""
        if min(width_coeff, height_coeff) <= 0:
            raise VirtualBoardError("virtual samna: set_rescaling_coefficients: expected positive numbers.")
        self._width, self._height = float(width_coeff), float(height_coeff)

    def reset(self) -> None:
        """Set both coefficients to 1."""
        self._width = self._height = 1.0

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        scaled = [event.copied() for event in events]
        for event in scaled:
            event.x, event.y = int(event.x / self._width), int(event.y / self._height)
        return scaled


class CameraToChip(Node):
    """Makes events of another camera those of a chip's sensor."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self._kind = kind

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        return [self._kind(event.p, event.y, event.x, event.timestamp) for event in events]


def named_nodes(chips: dict[str, Any]) -> dict[str, Callable[[], Node]]:
    """Return the nodes that a chain may ask for by name; ``chips`` gives the event classes of each driver."""
    from .streamer import VizEventStreamer

    nodes: dict[str, Callable[[], Node]] = {
        "MeasurementToVizConverter": MeasurementToViz,
        "VizEventStreamer": VizEventStreamer,
        "DvsEventCrop": EventCrop,
        "DvsEventDecimate": EventDecimate,
        "DvsEventRescale": EventRescale,
        "CameraToVizConverter": DvsToViz,
    }
    for driver, events in chips.items():
        name, make = driver.capitalize(), functools.partial
        nodes |= {
            f"{name}Forward": Node,
            f"{name}InputEventTypeFilter": make(EventTypeFilter, events.InputEvent.kinds),
            f"{name}OutputEventTypeFilter": make(EventTypeFilter, events.OutputEvent.kinds),
            f"{name}MemberSelect": MemberSelect,
            f"{name}InputMemberSelect": MemberSelect,
            f"{name}OutputMemberSelect": MemberSelect,
            f"{name}DvsToVizConverter": DvsToViz,
            f"{name}SpikeCollectionNode": make(SpikeCollection, events.Spike),
            f"{name}SpikeCountNode": SpikeCountNode,
            f"{name}MajorityReadoutNode": MajorityReadoutNode,
            f"{name}DvsEventCrop": EventCrop,
            f"{name}SpikeEventCrop": EventCrop,
            f"CameraTo{name}Input": make(CameraToChip, events.DvsEvent),
        }
    return nodes
