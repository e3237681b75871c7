"""Clocks of a virtual board: the stop-watch that stamps events, and the slow clock of leak and readout."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from .errors import VirtualBoardError

WRAP = 1 << 32
"""Time stamps are 32 bits of microseconds."""

GRACE_US = 1_000_000
"""How late the host may be before the board notices; the vendor's examples leave as much before a recording begins."""


def wall_us() -> int:
    """Return the microseconds of the clock that all boards share."""
    return time.perf_counter_ns() // 1000


@dataclasses.dataclass(frozen=True)
class Clock:
    """The slow clock: ticks at multiples of its period, while it is enabled."""

    enabled: bool = False
    rate_hz: float = 1000.0

    @property
    def period_us(self) -> int:
        """Time from one tick to the next, as the emulator has it."""
        return max(1, round(1e6 / self.rate_hz))


class StopWatch:
    """The counter that stamps events, in microseconds of real time; it starts stopped.

    While it runs, events that come out carry its time, and events that go in wait for the time of their stamp. While it
    is stopped, stamps are 0 and nothing waits. ``switch`` is called with each change, makes it, and hears the time that
    it leads to.
    """

    def __init__(self, switch: Callable[[Callable[[], int]], None]) -> None:
        self._switch = switch
        self._zero_us = wall_us()
        self._stopped_us: int | None = 0
        self.n_resets = 0

    @property
    def is_running(self) -> bool:
        """Whether it counts."""
        return self._stopped_us is None

    @property
    def zero_us(self) -> int:
        """Wall time at which it was 0, while it runs."""
        return self._zero_us

    def now_us(self) -> int:
        """Return its time, of which events carry 32 bits."""
        return wall_us() - self._zero_us if self._stopped_us is None else self._stopped_us

    def start(self, reset: bool = True) -> None:
        """Start counting, from 0 or from where it was stopped."""
        self._switch(lambda: self._set(0 if reset else self.now_us(), runs=True, resets=reset))

    def stop(self) -> None:
        """Stop counting."""
        self._switch(lambda: self._set(self.now_us(), runs=False))

    def reset(self) -> None:
        """Set the time to 0."""
        self._switch(lambda: self._set(0, runs=self.is_running, resets=True))

    def set_enable_value(self, value: bool) -> None:
        """Start or stop, from 0: the older name for both."""
        self._switch(lambda: self._set(0, runs=bool(value), resets=True))

    def _set(self, time_us: int, *, runs: bool, resets: bool = False) -> int:
        self.n_resets += resets
        self._zero_us = wall_us() - time_us
        self._stopped_us = None if runs else time_us
        return time_us

    def __repr__(self) -> str:
        return f"<virtual StopWatch at {self.now_us()} us, {'running' if self.is_running else 'stopped'}>"


class IoModule:
    """The pins of the chip: of these the virtual board has the slow clock."""

    def __init__(self, set_clock: Callable[[Clock], None]) -> None:
        self._set_clock = set_clock
        self._clock = Clock()

    def set_slow_clk(self, value: bool) -> None:
        """Switch the slow clock on or off."""
        self._set(enabled=bool(value))

    def set_slow_clk_rate(self, rate_hz: float) -> None:
        """Set the rate of the slow clock, in hertz.

        Raises: TypeError for what is no number, VirtualBoardError for a rate that is not positive.
        """
        if isinstance(rate_hz, (str, bytes)) or not hasattr(type(rate_hz), "__float__"):
            raise TypeError(f"virtual samna: set_slow_clk_rate: expected a number, found {rate_hz!r:.40}.")
        if not 0 < float(rate_hz) <= 1e6:
            raise VirtualBoardError(
                f"virtual board: set_slow_clk_rate: expected more than 0 and at most 1000000 hertz, found {rate_hz}. "
                "Try 1000."
            )
        self._set(rate_hz=float(rate_hz))

    def set_in_out_interface_clk_rate(self, rate_hz: int) -> None:
        """Take the rate of the interface, which the virtual board has no use for."""

    def _set(self, **changes: Any) -> None:
        self._clock = dataclasses.replace(self._clock, **changes)
        self._set_clock(self._clock)

    def __repr__(self) -> str:
        return f"<virtual IoModule: slow clock {'on' if self._clock.enabled else 'off'}, {self._clock.rate_hz} Hz>"
