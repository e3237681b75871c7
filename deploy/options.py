"""Options that several commands of deployment share, and what their texts mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .discretize import Rounding
from .errors import LayerOrderError, SettingError
from .place import Objective
from .types import is_rate

NetFile = Annotated[Path, typer.Argument(dir_okay=False, help="A spiking net from `spikeport convert`.")]
ChipName = Annotated[str, typer.Option(help="speck2fdevkit, speck2fmodule, speck2edevkit or speck2e.")]
Order = Annotated[str, typer.Option("--layer-order", help="'auto', or the core of each layer: 0,1,2,7,4,5,6,3,8.")]
Aim = Annotated[
    Objective,
    typer.Option(
        help="What 'auto' looks for: spikes in order, busy layers on the parallel cores, or large cores free."
    ),
]

SlowClock = Annotated[
    float | None, typer.Option(help="Rate at which biases are added, in hertz; the program's if not given, 0: never.")
]

Rounded = Annotated[
    Rounding,
    typer.Option("--rounding", help="Weights to integers by the vendor's formula, or fitted to what layers read."),
]
FitData = Annotated[
    str | None,
    typer.Option("--data", help="Recordings or frames to fit to, as those of `convert`; fewer gains without."),
]

DeviceOption = Annotated[
    str, typer.Option(help="Where it runs: emulator, a board as speck2fdevkit:0, or virtual:speck2fdevkit.")
]

MAX_SLOW_CLOCK_HZ = 1e6  # a tick per unit of recorded time


def check_rate(hz: float | None) -> float | None:
    """Return the rate of a slow clock as it was given.

    Raises: SettingError where it is neither None nor within 0..``MAX_SLOW_CLOCK_HZ``, or too slow for a single tick.
    """
    if hz is None or hz == 0 or (is_rate(hz) and hz <= MAX_SLOW_CLOCK_HZ):
        return hz
    raise SettingError(
        f"--slow-clock-hz: expected more than 0 and at most {MAX_SLOW_CLOCK_HZ:.0f} ticks per second, or 0 for no slow "
        f"clock, found {hz}. Try 1000."
    )


def parse_order(text: str) -> Literal["auto"] | tuple[int, ...]:
    """Return 'auto' or the core ids of a text such as ``0,1,2``.

    Raises: LayerOrderError for anything else.
    """
    if text.strip() == "auto":
        return "auto"
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise LayerOrderError(
            f"--layer-order: expected 'auto' or core numbers such as 0,1,2,7,4, found '{text}'. Try auto."
        ) from None
