"""The records of the live view: what a program did in a stretch of time, what was decided, and how to show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.types import Program
from spikeport.models.arrays import ArrayRecord, frozen
from spikeport.models.events import Events

PowerSource = Literal["estimated", "virtual", "measured"]
"""Where power figures come from: the power model, the model of the virtual board, or the rails of a real one."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OutputSpikes(ArrayRecord):
    """Spikes that left the chip, in order of time.

    Shapes: ``t_us`` int64 and ``label`` int16 are 1-D and of equal length; a label of -1 is that of no class.
    Units: microseconds of the input's own time.
    """

    t_us: NDArray[np.int64]
    label: NDArray[np.int16]

    def __post_init__(self) -> None:
        object.__setattr__(self, "t_us", frozen(self.t_us, np.int64))
        object.__setattr__(self, "label", frozen(self.label, np.int16))


@dataclasses.dataclass(frozen=True)
class CoreCounts:
    """What one core did: events that it took, spikes that it sent, synops, events that it dropped.

    None is what a device does not tell.
    """

    n_events: int | None
    n_spikes: int | None
    synops: int | None
    n_dropped: int | None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Stretch(ArrayRecord):
    """What went into a program and came out of it from ``start_us`` to below ``stop_us`` of the input's own time.

    Shapes: ``maps`` holds int64 ``[H, W]`` for each watched core, its spikes with features added up.
    Units: ``power_w`` in watts for each rail, None where nothing is known; ``work_s`` is what the device took;
    ``n_left_out`` input events were left out by the nodes before the program; ``n_late`` spikes came from a board after
    the stretch that they belong to.
    """

    start_us: int
    stop_us: int
    events: Events
    spikes: OutputSpikes
    cores: Mapping[int, CoreCounts]
    maps: Mapping[int, NDArray[np.int64]]
    power_w: Mapping[str, float] | None = None
    n_left_out: int = 0
    n_late: int = 0
    work_s: float = dataclasses.field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", MappingProxyType({core: frozen(one) for core, one in self.maps.items()}))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Window(ArrayRecord):
    """One interval of collected spikes, and what was decided at its end.

    ``winner`` is None where the decision fell back on nothing: too few spikes, or too many. ``label`` is what is shown:
    the winner, or the default class. ``is_open`` windows were cut short by the end of a recording.
    Shapes: ``counts`` is int64 ``[classes]``.
    Units: ``latency_s`` is wall time from when the window was due to end until it was decided.
    """

    index: int
    start_us: int
    stop_us: int
    counts: NDArray[np.int64]
    winner: int | None
    label: int | None
    n_events: int
    synops: int | None
    power_w: Mapping[str, float] | None
    is_open: bool = False
    latency_s: float = dataclasses.field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", frozen(self.counts, np.int64))


Box = tuple[int, int, int, int]
"""``(top, bottom, left, right)`` of the sensor, bottom and right outside of it."""


class Engine(Protocol):
    """What runs a program in stretches of the input's time; a device, or a recorded session.

    ``can_seek`` says whether a state can be taken up again; ``is_timed`` whether the device has a clock of its own, so
    that it cannot go faster than ``speed`` lets it. ``has_camera``: events come from the device itself.
    """

    name: str
    program: Program
    power_source: PowerSource | None
    can_seek: bool
    is_timed: bool
    has_camera: bool

    def restart(self) -> None:
        """Go back to the initial states and time 0. Raises: DeviceError."""

    def advance(self, events: Events, stop_us: int, *, speed: float | None = None) -> Stretch:
        """Return what happens until ``stop_us``; ``events`` lie between the end of the stretch before and there.

        ``speed`` is how fast the input's time goes, as a multiple of the wall's; None: as fast as it can.
        Law (emulator): equal events give equal spikes and counts for any stretches.
        Raises: DeviceError, RecordingError.
        """

    def watch(self, cores: Sequence[int]) -> None:
        """Have the spike maps of these cores from the next stretch on.

        A device leaves out those that it does not monitor.
        """

    def keep(self) -> Any:
        """Return the state of now, to be taken up by ``take_up``; None where it cannot be."""

    def take_up(self, state: Any) -> None:
        """Go back to a state of ``keep``, with its time."""

    def final_class(self) -> int | None:
        """Return the class of everything since the restart, as ``spikeport run`` has it; None where nothing spiked."""

    def close(self) -> None:
        """Give the device back; closing twice is fine."""


class Reel(Protocol):
    """Something to play: ``duration_us`` is None where nobody knows the end, as of a camera or a stream."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def sensor_size(self) -> tuple[int, int]:
        """Height and width of the sensor."""

    @property
    def duration_us(self) -> int | None:
        """Time to just after the last event."""

    @property
    def label(self) -> int | None:
        """The true class, where it is known."""

    def take(self, start_us: int, stop_us: int) -> Events:
        """Return the events with ``start_us <= t_us < stop_us``, their times counted from the start of the reel.

        A live one returns what has come so far. Raises: errors of the readers.
        """


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a show stands.

    Units: ``t_us`` of the reel's own time; ``behind_s`` is how far that is behind the speed asked for, in wall time.
    ``speed`` None: as fast as it can. ``roi`` None: the whole sensor. ``label`` is the true class, where it is known;
    ``final`` the class of the whole recording, once it was played to its end. ``has_ended``: it stands there, and
    nothing follows; what plays has not ended. ``problem`` is what the show stopped for, or else why a recording has
    ended by itself, or what its device complains about.
    """

    reel: int
    n_reels: int
    name: str
    t_us: int
    duration_us: int | None
    label: int | None
    is_playing: bool
    has_ended: bool
    speed: float | None
    behind_s: float
    roi: Box | None
    is_recording: bool
    final: int | None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Totals:
    """Everything counted since the show began; a seek or another reel does not take anything back.

    ``n_offered`` events came from the reels; each was left out by a node (``n_left_out``) or went to the program.
    """

    n_offered: int = 0
    n_left_out: int = 0
    n_events: int = 0
    n_output_spikes: int = 0
    n_dropped: int = 0
    n_late: int = 0
    synops: int = 0
    n_windows: int = 0
    n_decided: int = 0
