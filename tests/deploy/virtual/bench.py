"""A board on the bench: open, configured, with a source and a sink, and reads that wait for an answer."""

from __future__ import annotations

import time
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.types import SPIKE
from spikeport.deploy.virtual.configuration import SpeckConfiguration

WAIT_MS = 8000


class Bench:
    """An open board of a driver."""

    def __init__(self, samna: types.ModuleType, name: str = "Speck2fDevKit") -> None:
        self.samna = samna
        self.board = samna.device.open_device(name)
        self.events = (samna.speck2f if "2f" in name else samna.speck2e).event
        self.source = samna.graph.source_to(self.board.get_model_sink_node())
        self.sink = samna.graph.sink_from(self.board.get_model_source_node())

    def apply(self, configuration: SpeckConfiguration) -> None:
        self.board.get_model().apply_configuration(configuration)

    def ask(self, *events: Any) -> list[Any]:
        """Return everything that came out until a register, read behind ``events``, answered."""
        self.source.write([*events, self.events.ReadRegisterValue(77)])
        end, end_s = self.events.RegisterValue(77, 0), time.monotonic() + WAIT_MS / 1e3
        found: list[Any] = []
        while end not in found:
            assert time.monotonic() < end_s, f"no answer within {WAIT_MS} ms"
            found += self.sink.get_events_blocking(WAIT_MS)
        found.remove(end)
        return found

    def spikes(self, found: Sequence[Any], core: int, times: Sequence[int]) -> NDArray[Any]:
        """Return the spikes of a core as a recording has them; ``times`` are the distinct ones of the input events."""
        mine = [one for one in found if type(one).__name__ == "Spike" and one.layer == core]
        rows = [(times.index(one.timestamp), one.timestamp, one.feature, one.y, one.x) for one in mine]
        return np.array(rows, SPIKE)

    def state(self, core: int, shape: tuple[int, int, int]) -> NDArray[np.int16]:
        """Return the states of a core, read one by one."""
        places = [(f, y, x) for f in range(shape[0]) for y in range(shape[1]) for x in range(shape[2])]
        found = self.ask(*(self.events.ReadNeuronValue(core, address(shape, *place)) for place in places))
        values = [one.neuron_state for one in found if type(one).__name__ == "NeuronValue"]
        return np.array(values, np.int16).reshape(shape)


def address(shape: tuple[int, int, int], feature: int, y: int, x: int) -> int:
    """Return the address of a neuron, as the datasheet has it."""
    bits_f, bits_x = ((edge - 1).bit_length() for edge in (shape[0], shape[2]))
    return y << (bits_f + bits_x) | x << bits_f | feature
