"""What the supply rails of a board draw, as its power monitor reports it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.powerfit import RAIL_COLUMNS
from spikeport.models.arrays import ArrayRecord, frozen

from .errors import DeviceError, SettingError
from .patience import Reader, within

RAILS = tuple(rail for rail, _ in RAIL_COLUMNS.values())
"""Names of the rails in the order of the monitor's channels: io, ram, logic, pixel digital, pixel analog.

Source: Speck Dev Kit datasheet v1.0; the channel labels of sinabs.
"""

MAX_RATE_HZ = 100.0
"""Measurements of each rail per second. Source: Speck Dev Kit datasheet v1.0."""

_CAPACITY = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RailSamples(ArrayRecord):
    """Measurements of the rails over some time.

    Shapes: ``power_w`` and ``t_us`` hold one 1-D array for each rail, of equal length.
    Units: watts; microseconds of the board's stop-watch, all zero where it did not run.
    ``n_dropped`` measurements came while the buffer was full. ``baseline_w`` is what each rail draws at rest, where
    that was measured; traces have an offset of up to 50 microwatts (datasheet), which it takes away.
    """

    power_w: Mapping[str, NDArray[np.float64]]
    t_us: Mapping[str, NDArray[np.int64]]
    n_dropped: int = 0
    baseline_w: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("power_w", np.float64), ("t_us", np.int64)):
            columns = {rail: frozen(values, dtype) for rail, values in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(columns))

    def mean_w(self) -> dict[str, float | None]:
        """Return the mean power of each rail, in watts; None for a rail without measurements."""
        return {rail: float(values.mean()) if values.size else None for rail, values in self.power_w.items()}

    def above_baseline_w(self) -> dict[str, float | None]:
        """Return the mean power of each rail less what it draws at rest; None where either is not known."""
        rest, means = self.baseline_w or {}, self.mean_w()
        return {rail: None if mean is None or rail not in rest else mean - rest[rail] for rail, mean in means.items()}

    def within(self, first_us: int, last_us: int) -> RailSamples:
        """Return the measurements from one time to another; all of them where the board gave them no times."""
        if not any(stamps.any() for stamps in self.t_us.values()):
            return self
        inside = {rail: (stamps >= first_us) & (stamps <= last_us) for rail, stamps in self.t_us.items()}
        power_w = {rail: values[inside[rail]] for rail, values in self.power_w.items()}
        t_us = {rail: values[inside[rail]] for rail, values in self.t_us.items()}
        return dataclasses.replace(self, power_w=power_w, t_us=t_us)

    def to_dict(self) -> dict[str, Any]:
        """Return the means as plain JSON values."""
        return {
            "mean_w": self.mean_w(),
            "baseline_w": None if self.baseline_w is None else dict(self.baseline_w),
            "above_baseline_w": self.above_baseline_w(),
            "n_samples": {rail: int(values.size) for rail, values in self.power_w.items()},
            "n_dropped": self.n_dropped,
        }


def join_rails(parts: Sequence[RailSamples]) -> RailSamples:
    """Return the measurements of several times as one, with the baseline of the first."""
    return RailSamples(
        {rail: np.concatenate([part.power_w[rail] for part in parts]) for rail in parts[0].power_w},
        {rail: np.concatenate([part.t_us[rail] for part in parts]) for rail in parts[0].t_us},
        sum(part.n_dropped for part in parts),
        parts[0].baseline_w,
    )


class PowerMeter:
    """The power monitor of a board at work; a context manager that stops it.

    ``rate_hz`` is the rate that the monitor has chosen, measurements of each rail per second.
    """

    def __init__(self, samna: Any, board: Any, *, name: str, rate_hz: float, timeout_s: float) -> None:
        if not 0 < rate_hz <= MAX_RATE_HZ:
            raise SettingError(
                f"power: rate_hz: expected more than 0 and at most {MAX_RATE_HZ:g} measurements per second, found "
                f"{rate_hz}. Try 50."
            )
        self._name, self._timeout_s, self._n_told = name, timeout_s, 0
        self._monitor = within(timeout_s, self._what("the power monitor"), board.get_power_monitor)
        sink = samna.BasicSinkNode_unifirm_modules_events_measurement()
        self._graph = samna.graph.EventFilterGraph()
        self._graph.sequential([self._monitor.get_source_node(), sink])
        within(timeout_s, self._what("the graph of the power monitor"), self._graph.start)
        self._reader = Reader(sink, capacity=_CAPACITY, name=name, poll_s=0.01)

        def begin() -> Any:
            return self._monitor.start_auto_power_measurement(rate_hz)

        self.rate_hz = float(within(timeout_s, self._what("starting the power monitor"), begin) or rate_hz)

    def take(self, rest: RailSamples | None = None) -> RailSamples:
        """Return the measurements since the start, or since the last take; ``rest`` are those of the board at rest.

        Raises: DeviceError where the board is lost.
        """
        events, n_dropped = self._reader.take(), self._reader.n_dropped
        n_new, self._n_told = n_dropped - self._n_told, n_dropped
        known = None if rest is None else {rail: w for rail, w in rest.mean_w().items() if w is not None}
        return _split(events, n_dropped=n_new, baseline_w=known)

    def wait(self, duration_s: float) -> RailSamples:
        """Return the measurements of the next ``duration_s`` seconds.

        Raises: DeviceError where none came.
        """
        self.take()
        time.sleep(duration_s)
        samples = self.take()
        if not any(values.size for values in samples.power_w.values()):
            raise DeviceError(
                f"{self._what('power monitor')}: expected measurements within {duration_s:g} s, found none. Try a "
                "longer time, or the board's reset button."
            )
        return samples

    def close(self) -> None:
        """Stop the monitor."""
        within(self._timeout_s, self._what("stopping the power monitor"), self._monitor.stop_auto_power_measurement)
        self._reader.close(self._timeout_s)
        within(self._timeout_s, self._what("the graph of the power monitor"), self._graph.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _what(self, call: str) -> str:
        return f"device '{self._name}': {call}"


def _split(events: Iterable[Any], *, n_dropped: int, baseline_w: Mapping[str, float] | None) -> RailSamples:
    power: dict[str, list[float]] = {rail: [] for rail in RAILS}
    times: dict[str, list[int]] = {rail: [] for rail in RAILS}
    for event in events:
        if 0 <= int(event.channel) < len(RAILS):
            rail = RAILS[int(event.channel)]
            power[rail].append(float(event.value))
            times[rail].append(int(event.timestamp))
    return RailSamples(
        {rail: np.array(values, np.float64) for rail, values in power.items()},
        {rail: np.array(values, np.int64) for rail, values in times.items()},
        n_dropped,
        baseline_w,
    )
