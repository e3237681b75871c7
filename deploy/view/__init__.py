"""The live view: a program at work, in a browser.

The front door: ``__all__`` is what is public. A module is imported when one of its names is first used.
"""

from typing import TYPE_CHECKING

from spikeport.models.front import open_front as _open_front

if TYPE_CHECKING:
    from .boarded import BoardEngine
    from .emulated import EmulatedEngine
    from .export import Look, draw_gif, draw_png, write_windows_csv
    from .nodes import (
        Collection,
        Counts,
        Decision,
        Tick,
        chain,
        collect,
        count,
        crop,
        decimate,
        majority,
        output_spikes,
        rescale,
    )
    from .reading import open_session
    from .recorder import SessionRecorder
    from .reels import RecordingReel
    from .replay import ReplayEngine, compare_marks, replay_windows
    from .settings import ServeSettings, ViewSettings
    from .show import Show
    from .types import CoreCounts, Engine, OutputSpikes, Position, Reel, Stretch, Totals, Window
    from .viewer import Viewer, view

__all__ = [
    "BoardEngine",
    "Collection",
    "CoreCounts",
    "Counts",
    "Decision",
    "EmulatedEngine",
    "Engine",
    "Look",
    "OutputSpikes",
    "Position",
    "RecordingReel",
    "Reel",
    "ReplayEngine",
    "ServeSettings",
    "SessionRecorder",
    "Show",
    "Stretch",
    "Tick",
    "Totals",
    "ViewSettings",
    "Viewer",
    "Window",
    "chain",
    "collect",
    "compare_marks",
    "count",
    "crop",
    "decimate",
    "draw_gif",
    "draw_png",
    "majority",
    "open_session",
    "output_spikes",
    "replay_windows",
    "rescale",
    "view",
    "write_windows_csv",
]

_open_front(__name__)
