"""The power monitor of a virtual board: the energy model of ``convert/power`` in place of a measurement.

Channels are the rails in the driver's order: 0 io, 1 ram, 2 logic, 3 pixel digital, 4 pixel analog. A value is the
model's middle figure for the synops since the last sample: a figure of a model, without the noise of a measurement.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from spikeport.convert.power import find_profile, rail_power
from spikeport.convert.profiles import Kind

from .clock import WRAP, wall_us
from .engine import Engine
from .graph import Node

MAX_RATE_HZ = 100.0
"""Fastest sampling. Source: Speck dev kit datasheet v1.0, August 2023."""


class PowerModule:
    """Samples the power of the rails and gives a ``Measurement`` of ``kind`` for each; values in watts."""

    def __init__(self, engine: Engine, kind: type) -> None:
        self._engine, self._kind = engine, kind
        self._node = Node()
        self._node.gives = (kind,)
        self._seen = engine.n_synops(), wall_us()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def get_source_node(self) -> Node:
        """Return the node that the measurements come from."""
        return self._node

    def start_auto_power_measurement(self, rate_hz: float) -> float:
        """Sample at a rate, in hertz, and return the rate that it really is: at most ``MAX_RATE_HZ``."""
        self._engine.check()
        if isinstance(rate_hz, str) or not float(rate_hz) > 0:
            raise TypeError(f"virtual samna: start_auto_power_measurement: expected a rate above 0, found {rate_hz!r}.")
        self.stop_auto_power_measurement()
        actual_hz = min(float(rate_hz), MAX_RATE_HZ)
        self._ending = threading.Event()
        self._seen = self._engine.n_synops(), wall_us()
        self._thread = threading.Thread(
            target=self._sample, args=(1.0 / actual_hz, self._ending), name="virtual power monitor", daemon=True
        )
        self._thread.start()
        return actual_hz

    def stop_auto_power_measurement(self) -> None:
        """Stop sampling."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            self._thread = None

    def single_shot_power_measurement(self) -> None:
        """Sample once."""
        self._engine.check()
        self._node.forward(self._measure())

    start_auto_power_monitor = start_auto_power_measurement
    stop_auto_power_monitor = stop_auto_power_measurement
    single_shot_power_monitor = single_shot_power_measurement

    def _sample(self, period_s: float, ending: threading.Event) -> None:
        next_s = time.monotonic() + period_s
        while not ending.wait(max(0.0, next_s - time.monotonic())) and not self._engine.is_over:
            self._node.forward(self._measure())
            next_s += period_s

    def _measure(self) -> list[Any]:
        """Return one measurement of each rail."""
        (before, before_us), now = self._seen, (self._engine.n_synops(), wall_us())
        self._seen = now
        passed_s = max(now[1] - before_us, 1) / 1e6
        rates: dict[Kind, float | None] = {
            "synops": max(now[0] - before, 0) / passed_s,
            "leak": self._engine.leaks_per_s(),
        }
        watch = self._engine.watch
        stamp = watch.now_us() % WRAP if watch.is_running else 0
        rails = rail_power(rates, find_profile("speck2f"))
        return [self._kind(channel, rail.mid_w, stamp) for channel, rail in enumerate(rails)]
