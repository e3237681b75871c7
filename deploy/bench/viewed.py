"""A process of its own that shows a program at work on a steady stream of events, until its stdin is closed."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np

from spikeport.deploy.artifact import load_program
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.viewer import Viewer
from spikeport.models.console import show_line
from spikeport.models.events import Events
from spikeport.models.window import no_events, one_behind_other

from .workloads import uniform_events

_BLOCK_US = 1_000_000
_HOUR_US = 3_600_000_000


class SteadyReel:
    """Events at a steady rate, drawn evenly over sensor and polarities; every second is the same.

    Law: ``count(stop_us)`` events come before ``stop_us``, whatever pieces they are taken in.
    """

    label = None
    duration_us = _HOUR_US

    def __init__(self, sensor_size: tuple[int, int], rate_hz: int) -> None:
        self.name, self.sensor_size = f"{rate_hz:,} events/s", sensor_size
        self._block = uniform_events(sensor_size, n=rate_hz, duration_us=_BLOCK_US, seed=0)

    def take(self, start_us: int, stop_us: int) -> Events:
        """Return the events of a stretch of time."""
        parts = [no_events(self.sensor_size)]
        for second in range(start_us // _BLOCK_US, -(-stop_us // _BLOCK_US)):
            first_us = second * _BLOCK_US
            part = self._block.window(start_us - first_us, stop_us - first_us)
            parts.append(Events(part.x, part.y, part.p, part.t_us + first_us, self.sensor_size))
        return one_behind_other(parts)

    def count(self, stop_us: int) -> int:
        """Return the number of events before a time."""
        whole, rest_us = divmod(stop_us, _BLOCK_US)
        return whole * len(self._block) + int(np.searchsorted(self._block.t_us, rest_us))


def main(path: str, rate_hz: str, seeking: str = "") -> None:
    """Show the program in a file, print where as a line of JSON, and the totals as another when stdin ends.

    With "no-seek" no states are kept to go back to, as of a stream: they are one a second, up to 64, and would hide
    what else takes memory.
    """
    program = load_program(path)
    reel = SteadyReel(program.dvs.input_shape[1:], int(rate_hz))
    with Viewer(program, reel, settings=ViewSettings()) as viewer:
        if seeking == "no-seek":
            viewer.show.engine.can_seek = False
        viewer.start()
        show_line(json.dumps({"url": viewer.url}))
        sys.stdin.read()
        totals = viewer.show.totals()
    show_line(json.dumps(dataclasses.asdict(totals)))


if __name__ == "__main__":
    main(*sys.argv[1:])
