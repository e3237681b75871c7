"""The handles of an open virtual board: board, model, and the nodes that events go in and out by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .clock import IoModule, StopWatch
from .configuration import CONFIGURATIONS, SpeckConfiguration
from .engine import Engine
from .errors import VirtualBoardError
from .graph import Node
from .power import PowerModule
from .validation import find_unsupported, validate_configuration


class DeviceSinkNode(Node):
    """Where events enter a board; a full queue of the board makes them wait in front of it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        home = self._home
        left = self._engine.submit(events, lambda: home is None or not home.is_stopping)
        if left:
            self._inbox.appendleft(left)
        return ()

    def run(self) -> bool:
        """Process what waits, and return whether all of it went to the board."""
        n_waiting = len(self._inbox)
        super().run()
        return n_waiting > 0 and not self._inbox

    def check(self) -> None:
        """Raise VirtualBoardError where the board is gone."""
        self._engine.check()

    @property
    def n_waiting(self) -> int:
        """Events in front of the board's queue."""
        return sum(map(len, tuple(self._inbox)))


class DeviceSourceNode(Node):
    """Where the events of a board come from."""


class Model:
    """The chip of a board."""

    def __init__(self, engine: Engine, nodes: tuple[DeviceSourceNode, DeviceSinkNode], driver: str) -> None:
        self._engine, self._driver = engine, driver
        self._source, self._sink = nodes
        self._applied: SpeckConfiguration | None = None

    def apply_configuration(self, config: SpeckConfiguration, timeout: int | None = 10) -> None:
        """Configure the chip; neurons start from the initial values.

        Units: ``timeout`` in seconds.
        Raises: TypeError for the configuration of another chip; VirtualBoardError for one that is not valid, or asks
        for what the virtual board cannot do, with every reason; or where the board hangs for ``timeout``.
        """
        self._engine.check()
        expected = CONFIGURATIONS[self._driver]
        if not isinstance(config, SpeckConfiguration) or config.driver != self._driver:
            module = getattr(config, "driver", type(config).__module__)
            raise TypeError(
                f"virtual samna: apply_configuration: expected {self._driver}.configuration.{expected.__name__}, found "
                f"{type(config).__name__} of {module}. Try samna.{self._driver}.configuration."
            )
        is_valid, message = validate_configuration(config)
        problems = [message] if not is_valid else find_unsupported(config)
        if problems:
            raise VirtualBoardError("virtual samna: apply_configuration: " + "\n".join(problems))
        end_s = time.monotonic() + (10 if timeout is None else timeout)
        while self._engine.is_hung:
            if time.monotonic() > end_s:
                raise VirtualBoardError(
                    f"virtual board {self._engine.name}: apply_configuration: no answer within {timeout} s. "
                    "Try reset_board_soft(True)."
                )
            time.sleep(0.02)
        self._applied = config.copied()
        self._engine.configure(self._applied)

    def get_configuration(self) -> SpeckConfiguration:
        """Return a copy of what was applied last, not of what the chip holds."""
        self._engine.check()
        return CONFIGURATIONS[self._driver]() if self._applied is None else self._applied.copied()

    def get_source_node(self) -> DeviceSourceNode:
        """Return the node that the chip's events come from."""
        self._engine.check()
        return self._source

    def get_sink_node(self) -> DeviceSinkNode:
        """Return the node that takes events to the chip."""
        self._engine.check()
        return self._sink

    def reset(self) -> None:
        """Set all neurons to 0."""
        self._engine.check()
        self._engine.clear_states()

    def __repr__(self) -> str:
        return f"<virtual {type(self).__name__} of {self._engine.name}>"


class Board:
    """An open board. ``engine`` is what is virtual about it: its counts, faults and queue."""

    def __init__(
        self, engine: Engine, nodes: tuple[DeviceSourceNode, DeviceSinkNode], driver: str, power: type
    ) -> None:
        self.engine = engine
        self._model = type(f"{driver.capitalize()}Model", (Model,), {"__doc__": Model.__doc__})(engine, nodes, driver)
        self._io = IoModule(engine.set_clock)
        self._power = PowerModule(engine, power)

    def get_model(self) -> Model:
        """Return the chip."""
        self.engine.check()
        model: Model = self._model
        return model

    def get_model_source_node(self) -> DeviceSourceNode:
        """Return the node that the chip's events come from."""
        return self.get_model().get_source_node()

    def get_model_sink_node(self) -> DeviceSinkNode:
        """Return the node that takes events to the chip."""
        return self.get_model().get_sink_node()

    def get_stop_watch(self) -> StopWatch:
        """Return the counter that stamps events."""
        self.engine.check()
        return self.engine.watch

    def get_io_module(self) -> IoModule:
        """Return the module with the slow clock."""
        self.engine.check()
        return self._io

    def get_power_monitor(self) -> PowerModule:
        """Return the monitor of the rails."""
        self.engine.check()
        return self._power

    def reset_board_soft(self, wait: bool = True) -> None:  # noqa: ARG002
        """Forget configuration, clocks and events on their way; a board that hangs works again."""
        if self.engine.is_gone:
            self.engine.check()
        self.engine.reset()
        self._io = IoModule(self.engine.set_clock)

    def __repr__(self) -> str:
        return f"<virtual {type(self).__name__} {self.engine.name}>"
