"""What the page is told of a show beside its frames: program, device, classes, cores, settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from spikeport.deploy.chips import chip
from spikeport.deploy.commands import class_names
from spikeport.deploy.errors import SettingError
from spikeport.deploy.readout import n_classes

from . import icons
from .reels import LiveReel
from .settings import KNOBS, ViewSettings
from .types import Engine, Reel

_SHOWN = (
    *KNOBS,
    *("step_ms", "fps", "fade_ms", "history_s", "power_items", "watch"),
)
"""Settings that the page has to know."""


def names_of(engine: Engine, settings: ViewSettings) -> tuple[str, ...]:
    """Return the name of each class: of the settings, the recorded session or the program, its icon, or its number.

    Raises: SettingError for a number of names, or a default class, that is not one of the classes.
    """
    program = engine.program
    n = settings.n_classes or n_classes(program)
    problems = []
    if settings.names and len(settings.names) != n:
        problems.append(
            f"names: expected {n}, one for each class of the program, found {len(settings.names)}. Try {n} names."
        )
    if settings.default_class is not None and settings.default_class >= n:
        problems.append(
            f"default_class: expected one of the {n} classes from 0 on, found {settings.default_class}. Try 0."
        )
    ids = [core.core for core in program.cores]
    if settings.watch is not None and settings.watch not in ids:
        problems.append(f"watch: expected a core of the program, {ids}, found {settings.watch}. Try {ids[-1]}.")
    if problems:
        raise SettingError("\n".join(problems))
    session = getattr(engine, "session", None)
    told = settings.names or (class_names(program) if session is None else session.facts.classes)
    if len(told) == n:
        return told
    drawn = () if settings.icons is None else icons.names_of(settings.icons)
    return tuple(drawn[index] if index < len(drawn) else str(index) for index in range(n))


def facts_of(
    engine: Engine, reels: Sequence[Reel], *, name: str, settings: ViewSettings, urls: Sequence[str | None]
) -> dict[str, Any]:
    """Return what the page is told of a show, ready for JSON; ``urls`` are those of the classes' icons."""
    program = engine.program
    return {
        "version": version("spikeport"),
        "program": name,
        "chip": program.chip,
        "device": engine.name,
        "power_source": engine.power_source,
        "sensor": list(program.dvs.input_shape[1:]),
        "classes": list(names_of(engine, settings)),
        "icons": list(urls),
        "cores": list(_cores(engine)),
        "settings": shown_settings(settings),
        "plots": [list(row) for row in settings.plots],
        "reels": [reel.name for reel in reels],
        "can_seek": engine.can_seek and not any(isinstance(reel, LiveReel) for reel in reels),
        "has_camera": engine.has_camera,
        "can_record": True,
    }


def shown_settings(settings: ViewSettings) -> dict[str, Any]:
    """Return the settings that the page shows, ready for JSON."""
    return {key: value for key, value in dataclasses.asdict(settings).items() if key in _SHOWN}


def first_watched(engine: Engine) -> int | None:
    """Return the core whose spike map is shown where nobody chose: the first, of the finest map, that can be seen."""
    return next((core["core"] for core in _cores(engine) if core["monitored"]), None)


def _cores(engine: Engine) -> Sequence[Mapping[str, Any]]:
    program = engine.program
    table = chip(program.chip)
    monitored = getattr(engine, "monitored", None)
    return [
        {
            "core": core.core,
            "layer": core.name,
            "shape": list(core.out_shape),
            "monitored": not engine.is_timed if monitored is None else core.core in monitored,
            "throughput": table.core(core.core).throughput,
            "entry": core.core in program.entry,
            "output": core.core in program.outputs,
        }
        for core in program.cores
    ]
