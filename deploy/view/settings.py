"""Every knob of the live view, with the vendor's names beside ours, and what texts of the command line mean.

==================================  ===============================================================================
the vendor's visualizer             here
==================================  ===============================================================================
``spike_collection_interval``       ``interval_ms``
``readout_prediction_threshold``    ``threshold`` (theirs is stored and never used)
``readout_default_return_value``    ``default_class`` (None: nothing is shown; theirs shows the class before)
``readout_default_threshold_low``   ``low``
``readout_default_threshold_high``  ``high``
``feature_names``                   ``names``
``feature_count``                   ``n_classes``
``readout_images``                  ``icons``
``readout_node``                    ``readout`` of ``Viewer``: a function of the counts
``add_readout_plot``                "readout" in ``plots``
``add_spike_count_plot``            "counts" in ``plots``
``add_power_monitor_plot``          "power" in ``plots``
``power_monitor_number_of_items``   ``power_items``
``window_scale``, the layouts       the rows of ``plots``; the page follows its window
``dvs_shape``                       the program's own sensor; the region of interest is set on the page
``extra_arguments`` (span, scale)   ``history_s``; scales follow what is shown
``gui`` endpoint                    ``ServeSettings``
==================================  ===============================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikeport.deploy.errors import SettingError

from .guard import is_every, is_loopback

PLOTS = {
    "events": "the sensor's events, fading",
    "counts": "spikes of each class in each interval, as lines",
    "readout": "the class decided, with its icon",
    "power": "power of each supply rail",
    "cores": "events, spikes, synops and load of each core",
    "map": "where one core spikes",
}
"""The plots of the page, and what each shows."""

KNOBS = ("interval_ms", "threshold", "low", "high", "default_class")
"""Settings that may change while a show goes on."""

DEFAULT_PLOTS = (("events", "counts", "readout"), ("power", "cores", "map"))
RAIL_NUMBERS = (3, 5)
LOOPBACK = "127.0.0.1"

_MAX_MS = 3_600_000.0
_MAX_FPS = 60.0
_MAX_SPEED = 1000.0
_MAX_FADE_MS = 10_000.0
_MAX_HISTORY_S = 600.0
_MAX_COUNT = 1 << 31
_MAX_VIEWERS = 64
_MAX_NAME = 80
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*")


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How spikes are collected and decided on, and how a show goes and looks.

    A window's winner needs ``threshold`` spikes of its own, and ``low`` to ``high`` of all classes; else
    ``default_class`` is shown. ``names`` and ``n_classes`` stand in place of what the program says. ``plots`` are rows
    from top to bottom. ``speed`` is that of the recording's time, None as fast as it can. ``decimate`` ``(L, M)`` keeps
    L of every M events. ``rescale`` scales recordings of another sensor size to the program's. ``watch`` is the core
    whose spike map is shown first; None: the first that can be seen.
    Units: ``interval_ms`` and ``step_ms`` of the recording's own time; ``fade_ms`` until an event has faded to a third.
    Raises: SettingError with every value that makes no sense.
    """

    interval_ms: float = 100.0
    threshold: int = 1
    low: int = 0
    high: int = 32000
    default_class: int | None = None
    names: tuple[str, ...] = ()
    n_classes: int | None = None
    power_items: int = 5
    plots: tuple[tuple[str, ...], ...] = DEFAULT_PLOTS
    icons: Path | None = None
    fps: float = 30.0
    fade_ms: float = 50.0
    step_ms: float = 10.0
    speed: float | None = 1.0
    loop: bool = False
    decimate: tuple[int, int] = (1, 1)
    history_s: float = 10.0
    watch: int | None = None
    rescale: bool = False

    def __post_init__(self) -> None:
        found = [
            *_time_problems(self),
            *_number_problems(self),
            *_decision_problems(self),
            *_plot_problems(self.plots),
        ]
        _refuse(found)

    @property
    def interval_us(self) -> int:
        """The length of a window in microseconds of the recording's time."""
        return round(self.interval_ms * 1000)

    @property
    def step_us(self) -> int:
        """The length of a single step in microseconds of the recording's time."""
        return round(self.step_ms * 1000)

    def changed(self, **knobs: Any) -> ViewSettings:
        """Return the settings with other values for some of them. Raises: SettingError."""
        return dataclasses.replace(self, **knobs)


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Where the page is served, and to whom.

    ``port`` 0 is any free one; ``token`` None is a random one. An address that is not this machine's own loopback is
    reached only under the names in ``allow_hosts``, or under itself; every address needs the token. With
    ``waits_for_viewer`` the show begins when the first page is there, so that nothing is missed; else at once.
    Raises: SettingError with every value that makes no sense.
    """

    host: str = LOOPBACK
    port: int = 0
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()
    max_viewers: int = 8
    waits_for_viewer: bool = True

    def __post_init__(self) -> None:
        found = []
        if not is_host(self.host):
            found.append(
                f"host: expected an address or a name of this machine, found {self.host!r:.60}. Try {LOOPBACK}."
            )
        elif is_every(self.host) and not self.allow_hosts:
            found.append(
                f"host: expected the names that the page is reached by in allow_hosts, as {self.host} is every "
                f"interface, found none. Try allow_hosts with this machine's address, or host {LOOPBACK}."
            )
        if not _is_whole(self.port, 0, 65535):
            found.append(f"port: expected 0 (any free one) to 65535, found {self.port!r:.20}. Try 8700.")
        if self.token is not None and not (isinstance(self.token, str) and _TOKEN.fullmatch(self.token)):
            found.append(
                "token: expected 16 to 128 letters, digits, - and _, found something else. Try none: it is random then."
            )
        odd = [name for name in self.allow_hosts if not is_host(name) or is_every(name)]
        if odd:
            found.append(f"allow_hosts: expected names or addresses without ports, found {odd[0]!r:.60}. Try a name.")
        if not _is_whole(self.max_viewers, 1, _MAX_VIEWERS):
            found.append(f"max_viewers: expected 1 to {_MAX_VIEWERS}, found {self.max_viewers!r:.20}. Try 8.")
        _refuse(found)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host)


def is_host(name: object) -> bool:
    """Return whether a text is an address or a host's name, without a port."""
    if not isinstance(name, str):
        return False
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    looks_like_address = re.fullmatch(r"[0-9.]+", name) is not None
    return not looks_like_address and _HOST.fullmatch(name) is not None


def parse_plots(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the rows of plots of a text: names with spaces between, rows with ``/`` or a comma between.

    Raises: SettingError for an unknown plot, one that is named twice, or none.
    """
    rows = tuple(tuple(row.split()) for row in re.split("[/,]", text))
    found = _plot_problems(rows)
    _refuse([problem.replace("plots:", "--plots:", 1) for problem in found])
    return rows


def parse_limits(text: str) -> tuple[int, int]:
    """Return the fewest and the most spikes of a window that is decided on, of ``LOW:HIGH``.

    Raises: SettingError for anything else.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*:\s*(\d{1,9})\s*", text)
    if not match or int(match[1]) > int(match[2]):
        raise SettingError(
            f"--limits: expected LOW:HIGH, total spikes of an interval, found '{text[:40]}'. Try 0:32000."
        )
    return int(match[1]), int(match[2])


def parse_speed(text: str) -> float | None:
    """Return a speed as a multiple of the recording's own; None for ``max``, as fast as it can.

    Raises: SettingError for anything else.
    """
    if text.strip().lower() == "max":
        return None
    match = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})x?\s*", text)
    if not match or not 0 < float(match[1]) <= _MAX_SPEED:
        raise SettingError(
            f"--speed: expected a number above 0 and up to {_MAX_SPEED:g}, or max, found '{text[:40]}'. "
            "Try 0.25, 1 or max."
        )
    return float(match[1])


def parse_share(text: str) -> tuple[int, int]:
    """Return L and M of ``L:M``: keep L of every M events. Raises: SettingError for anything else."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*(?::|of)\s*(\d{1,6})\s*", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise SettingError(f"--decimate: expected L:M, to keep L of every M events, found '{text[:40]}'. Try 1:4.")
    return int(match[1]), int(match[2])


def _time_problems(settings: ViewSettings) -> list[str]:
    found = []
    times: Mapping[str, tuple[object, float, float, float]] = {
        "interval_ms": (settings.interval_ms, 1.0, _MAX_MS, 100.0),
        "step_ms": (settings.step_ms, 0.001, _MAX_MS, 10.0),
        "fade_ms": (settings.fade_ms, 1.0, _MAX_FADE_MS, 50.0),
        "history_s": (settings.history_s, 1.0, _MAX_HISTORY_S, 10.0),
        "fps": (settings.fps, 1.0, _MAX_FPS, 30.0),
    }
    for name, (value, least, most, advice) in times.items():
        if not _is_number(value) or not least <= float(value) <= most:  # type: ignore[arg-type]
            found.append(f"{name}: expected {least:.10g} to {most:.10g}, found {value!r:.40}. Try {advice:g}.")
    speed = settings.speed
    if speed is not None and not (_is_number(speed) and 0 < speed <= _MAX_SPEED):
        found.append(f"speed: expected a number above 0 and up to {_MAX_SPEED:g}, or None, found {speed!r:.40}. Try 1.")
    return found


def _number_problems(settings: ViewSettings) -> list[str]:
    found = []
    if settings.power_items not in RAIL_NUMBERS or isinstance(settings.power_items, bool):
        found.append(f"power_items: expected 3 or 5 rails, found {settings.power_items!r:.40}. Try 5.")
    kept = settings.decimate
    is_pair = isinstance(kept, tuple) and len(kept) == 2
    if not (is_pair and _is_whole(kept[1], 1, _MAX_COUNT) and _is_whole(kept[0], 1, kept[1])):
        found.append(f"decimate: expected (L, M) with 1 <= L <= M, found {kept!r:.40}. Try (1, 4).")
    if not isinstance(settings.rescale, bool):
        found.append(f"rescale: expected True or False, found {settings.rescale!r:.40}. Try True.")
    if settings.watch is not None and not _is_whole(settings.watch, 0, _MAX_COUNT):
        found.append(f"watch: expected the number of a core, or None, found {settings.watch!r:.40}. Try None.")
    return found


def _decision_problems(settings: ViewSettings) -> list[str]:
    found = []
    if not _is_whole(settings.threshold, 0, _MAX_COUNT):
        found.append(f"threshold: expected a number of spikes, found {settings.threshold!r:.40}. Try 1.")
    if not (_is_whole(settings.low, 0, _MAX_COUNT) and _is_whole(settings.high, 0, _MAX_COUNT)):
        limits = (settings.low, settings.high)
        found.append(f"low, high: expected two numbers of spikes, found {limits!r:.60}. Try 0 and 32000.")
    elif settings.low > settings.high:
        found.append(
            f"low, high: expected low at most as large as high, found {settings.low} and {settings.high}. "
            "Try 0 and 32000."
        )
    odd = [name for name in settings.names if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME]
    if odd:
        found.append(
            f"names: expected 1 to {_MAX_NAME} letters for each class, found {odd[0]!r:.60}. Try a short name."
        )
    if settings.n_classes is not None and not _is_whole(settings.n_classes, 1, 1 << 10):
        found.append(f"n_classes: expected 1 to {1 << 10}, or None, found {settings.n_classes!r:.40}. Try None.")
    elif settings.n_classes is not None and settings.names and len(settings.names) != settings.n_classes:
        found.append(
            f"names: expected {settings.n_classes}, one for each class, found {len(settings.names)}. Try only names."
        )
    default = settings.default_class
    n_known = settings.n_classes or len(settings.names) or _MAX_COUNT
    if default is not None and not _is_whole(default, 0, n_known - 1):
        found.append(f"default_class: expected the number of a class, or None, found {default!r:.40}. Try 0.")
    return found


def _plot_problems(rows: Sequence[Sequence[str]]) -> list[str]:
    known = ", ".join(PLOTS)
    plots = [plot for row in rows for plot in row]
    unknown = [plot for plot in plots if plot not in PLOTS]
    if unknown:
        return [f"plots: expected some of {known}, found '{unknown[0]:.40}'. Try '{_ADVICE}'."]
    twice = [plot for plot in PLOTS if plots.count(plot) > 1]
    if twice:
        return [f"plots: expected each plot once, found '{twice[0]}' {plots.count(twice[0])} times. Try '{_ADVICE}'."]
    if not plots or not all(rows):
        return [f"plots: expected rows with some of {known} in each, found an empty row. Try '{_ADVICE}'."]
    return []


_ADVICE = " / ".join(" ".join(row) for row in DEFAULT_PLOTS)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise SettingError("\n".join(problems))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
