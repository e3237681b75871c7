"""Everything counted since a show began."""

from __future__ import annotations

import dataclasses

from .types import Position, Stretch, Totals, Window


class Tally:
    """A listener that adds up what a show did; ``totals`` may be read from any thread.

    What a device does not tell counts as none.
    """

    def __init__(self) -> None:
        self.totals = Totals()

    def on_stretch(self, stretch: Stretch) -> None:
        """Add a stretch."""
        before, cores = self.totals, stretch.cores.values()
        self.totals = dataclasses.replace(
            before,
            n_offered=before.n_offered + stretch.n_left_out + len(stretch.events),
            n_left_out=before.n_left_out + stretch.n_left_out,
            n_events=before.n_events + len(stretch.events),
            n_output_spikes=before.n_output_spikes + len(stretch.spikes.t_us),
            n_dropped=before.n_dropped + sum(core.n_dropped or 0 for core in cores),
            n_late=before.n_late + stretch.n_late,
            synops=before.synops + sum(core.synops or 0 for core in cores),
        )

    def on_window(self, window: Window) -> None:
        """Add a window; one that the end of a recording cut short counts too."""
        before = self.totals
        n_decided = before.n_decided + (window.winner is not None)
        self.totals = dataclasses.replace(before, n_windows=before.n_windows + 1, n_decided=n_decided)

    def on_reset(self, position: Position) -> None:
        """Take nothing back: another reel or a seek goes on from the same totals."""
