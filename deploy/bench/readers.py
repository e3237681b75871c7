"""How fast event files are read and written, each format of ours on the same events."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from spikeport.models.events import Events
from spikeport.models.files import iterate_events, write_events
from spikeport.models.formats import FORMATS
from spikeport.models.formats.source import ReadOptions

from .timing import time_alternately

SENSOR = (128, 128)
"""What all formats can hold."""

MEAN_STEP_US = 2
AIM_EVENTS_HZ = 20e6
"""Events per second that our own decoders should read at least."""


@dataclasses.dataclass(frozen=True)
class ReaderRow:
    """One format: bytes per event in the file, and events per second read and written, the best of the repeats.

    Reading decodes and checks every event, in chunks, from a file that the system has in memory. ``is_own`` is False
    where the decoding is that of another library.
    """

    format: str
    n_events: int
    bytes_per_event: float
    read_events_hz: float
    write_events_hz: float
    is_own: bool


def measure_readers(n_events: int = 2_000_000, repeats: int = 3, seed: int = 0) -> tuple[ReaderRow, ...]:
    """Return how fast each format is read and written, on random events in steps like those of a busy camera."""
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n_events) for limit in (*SENSOR, 2))
    events = Events(x, y, p, np.cumsum(rng.integers(0, 2 * MEAN_STEP_US + 1, n_events)), SENSOR)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            path = Path(folder) / f"recording{form.suffixes[0]}"
            options = ReadOptions(format=form.name)

            def read(path: Path = path, options: ReadOptions = options) -> int:
                return sum(map(len, iterate_events(path, sensor_size=SENSOR, options=options)))

            def write(path: Path = path, name: str = form.name) -> None:
                write_events(events, path, format=name)

            write()
            timings = time_alternately({"read": read, "write": write}, repeats)
            rows.append(
                ReaderRow(
                    form.name,
                    n_events,
                    path.stat().st_size / n_events,
                    n_events / timings["read"].best_s,
                    n_events / timings["write"].best_s,
                    is_own=form.name not in ("hdf5", "dsec"),
                )
            )
            path.unlink()
    return tuple(rows)
