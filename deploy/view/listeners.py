"""What a show tells what: the protocols of those that listen to it, and of the one that records it."""

from __future__ import annotations

from typing import Protocol

from .settings import ViewSettings
from .types import Position, Stretch, Window


class Listener(Protocol):
    """What is told of a show, in its thread: each method must be quick and never wait.

    Where it also has ``on_knobs(settings)`` and ``on_end(final)``, it is told of other settings, and of the class of a
    whole reel.
    """

    def on_stretch(self, stretch: Stretch) -> None:
        """Take a stretch."""

    def on_window(self, window: Window) -> None:
        """Take a window, told after the stretch that it ends with."""

    def on_reset(self, position: Position) -> None:
        """Take note that time jumped: another reel, or a seek."""


class Recorder(Listener, Protocol):
    """A listener that writes a session to a file; where it has a ``problem``, it has ended by itself."""

    def on_knobs(self, settings: ViewSettings) -> None:
        """Take note of knobs: of the open window where none were shown yet, from the next window on otherwise."""

    def close(self) -> None:
        """Finish the file."""
