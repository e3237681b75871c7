"""Random shows on tape: stretches as a device tells them, what is decided, and the file of both."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.random import Generator

from spikeport.deploy.rails import RAILS
from spikeport.deploy.types import Destination, DvsConfig, Program
from spikeport.deploy.view.recorder import SessionRecorder
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.tally import Tally
from spikeport.deploy.view.tape import SessionFacts
from spikeport.deploy.view.types import CoreCounts, OutputSpikes, Position, Stretch, Totals, Window
from spikeport.deploy.view.windows import Windows
from spikeport.models.events import Events

from ..programs import make_core  # noqa: TID252

SENSOR = (8, 6)
N_CLASSES = 3
CLASSES = ("one", "two", "three")


def small_program() -> Program:
    """Return a program of two cores and three classes."""
    shape: dict[str, Any] = {"in_shape": (2, *SENSOR)}
    first = make_core(
        2, weight=np.ones((2, 2, 1, 1), np.int8), threshold_high=1, destinations=(Destination(5),), **shape
    )
    weight = np.random.default_rng(0).integers(-4, 7, (N_CLASSES, 2, 8, 8), np.int8)  # square, as the chip has them
    shape["padding"] = (0, 1)  # which makes the map 1x1
    last = make_core(5, weight=weight, threshold_high=8, destinations=(Destination(None),), **shape)
    return Program("speck2fdevkit", (first, last), (2,), DvsConfig((2, *SENSOR)), {"classes": list(CLASSES)})


PROGRAM = small_program()
FACTS = SessionFacts("a device", "measured", CLASSES, SENSOR, ViewSettings(interval_ms=1.0))


@dataclasses.dataclass
class Show:
    """What was shown: stretches and windows of each take, and the totals of all."""

    stretches: list[list[Stretch]]
    windows: list[list[Window]]
    totals: Totals


def position(reel: int, t_us: int, name: str = "reel") -> Position:
    """Return where a show stands."""
    fields: dict[str, Any] = {"duration_us": None, "label": 1, "is_playing": True, "has_ended": False, "speed": 1.0}
    rest: dict[str, Any] = {"behind_s": 0.0, "roi": None, "is_recording": True, "final": None}
    return Position(reel, 3, f"{name} {reel}", t_us, **fields, **rest)


def random_stretch(rng: Generator, start_us: int, stop_us: int, known: Any) -> Stretch:
    """Return a stretch with anything in it; ``known`` says which numbers the device tells."""
    span = stop_us - start_us
    n_events = int(rng.integers(0, 20)) if span else 0
    n_spikes = int(rng.integers(0, 6))
    early = max(0, start_us - int(rng.integers(0, 300)) * int(rng.random() < 0.2))
    events = Events(
        rng.integers(0, SENSOR[1], n_events),
        rng.integers(0, SENSOR[0], n_events),
        rng.integers(0, 2, n_events),
        np.sort(rng.integers(start_us, stop_us, n_events)) if n_events else np.zeros(0, np.int64),
        SENSOR,
    )
    times = np.sort(rng.integers(early, max(stop_us, early + 1), n_spikes))
    spikes = OutputSpikes(times, rng.integers(-1, N_CLASSES, n_spikes).astype(np.int16))
    cores = {
        core: CoreCounts(*(int(rng.integers(0, 100)) if one else None for one in told)) for core, told in known.items()
    }
    power = None if rng.random() < 0.2 else {rail: float(rng.random()) for rail in RAILS[:3]}
    numbers = (int(rng.integers(0, 3)), int((times < start_us).sum()))
    return Stretch(start_us, stop_us, events, spikes, cores, {}, power, *numbers)


def play(seed: int, listener: Any, *, n_takes: int = 2, settings: ViewSettings = FACTS.settings) -> Show:
    """Show random stretches to a listener as a show does: cut where windows end, knobs changed on the way."""
    rng = np.random.default_rng(seed)
    show = Show([], [], Totals())
    tally = Tally()
    known = {2: rng.random(4) < 0.7, 5: rng.random(4) < 0.7} if rng.random() < 0.7 else {5: rng.random(4) < 0.5}
    windows = Windows(N_CLASSES, settings)
    for take in range(n_takes):
        start_us = t_us = 0 if take == 0 or rng.random() < 0.5 else int(rng.integers(0, 5000))
        windows.reset(start_us)
        listener.on_reset(position(take, start_us))
        show.stretches.append([])
        show.windows.append([])

        def tell(found: tuple[Window, ...], take: int = take) -> None:
            for window in found:
                listener.on_window(window)
                tally.on_window(window)
                show.windows[take].append(window)

        n_stretches = int(rng.integers(1, 25))
        for number in range(n_stretches):
            is_long = t_us == start_us or number == n_stretches - 1  # others may last no time, as of a late device
            stop_us = min(windows.next_end_us, t_us + int(rng.integers(int(is_long), 800)))
            stretch = random_stretch(rng, t_us, stop_us, known)
            listener.on_stretch(stretch)
            tally.on_stretch(stretch)
            show.stretches[take].append(stretch)
            tell(windows.add(stretch))
            t_us = stop_us
            if rng.random() < 0.1:
                settings = settings.changed(interval_ms=float(rng.integers(1, 4)), threshold=int(rng.integers(0, 3)))
                windows.set(settings)
                listener.on_knobs(settings)
        if rng.random() < 0.7:
            listener.on_end(int(rng.integers(0, N_CLASSES)) if rng.random() < 0.7 else None)
            tell(windows.finish())
    show.totals = tally.totals
    return show


def record(path: Path, seed: int, **changes: Any) -> Show:
    """Write a random show to a file."""
    with SessionRecorder(path, PROGRAM, FACTS) as recorder:
        return play(seed, recorder, **changes)


def changed(source: io.BytesIO, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return the bytes of the archive with its members, arrays by name, changed."""
    with np.load(source, allow_pickle=False) as found:
        members = {name: found[name] for name in found.files}
    change(members)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in members.items():
            member = io.BytesIO()
            npy.write_array(member, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", member.getvalue())
    return stream.getvalue()
