"""From a recording to a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Shape3, pooled

from .errors import InvalidProgramError, RecordingError
from .types import CoreProgram, Destination, Program, Recording


def output_shape(program: Program) -> Shape3 | None:
    """Return ``(features, height, width)`` of what leaves the chip, behind pools and shifts.

    None where nothing leaves it, or maps of different sizes do: then there are no classes.
    """
    ends = [(core, end, pooled(core.out_shape, (end.pool, end.pool))) for core, end in _ends(program)]
    maps = {(height, width) for _, _, (_, height, width) in ends}
    if len(maps) != 1:
        return None
    return (max(core.out_shape[0] + end.feature_shift for core, end, _ in ends), *maps.pop())


def n_classes(program: Program) -> int:
    """Return the number of classes: places of ``output_shape``, 0 where there is none."""
    return int(np.prod(output_shape(program) or (0,)))


def count_classes(recording: Recording, program: Program) -> NDArray[np.int64]:
    """Return the number of output spikes per class.

    Shapes: ``[classes]``. A class is a place of ``output_shape``, flattened as torch does: a feature where the map is
    1x1. Where cores share a class, their spikes add up.
    Raises: InvalidProgramError where there is no ``output_shape``, RecordingError where the recording lacks an output
    core.
    """
    return np.asarray(_gathered(recording.counts, program), np.int64)


def classify(recording: Recording, program: Program) -> int:
    """Return the class with the most output spikes.

    Equal counts go to the class whose output neurons end in the higher state (in float units, summed over a pool),
    equal states to the lower class.
    Raises: as ``count_classes``.
    """
    counts, states = count_classes(recording, program), output_states(recording, program)
    best = np.flatnonzero(counts == counts.max())
    return int(best[np.argmax(states[best])])


def output_states(recording: Recording, program: Program) -> NDArray[np.float64]:
    """Return the last potential behind each class, in float units, summed over a pool.

    Shapes: ``[classes]``.
    Raises: as ``count_classes``.
    """
    ends = {core.core for core, _ in _ends(program)}
    return _gathered({core: recording.states[core] / program.core(core).scale for core in ends}, program)


def classes_of(spikes: NDArray[Any], end: Destination, program: Program) -> NDArray[np.int64]:
    """Return the class of each spike that leaves the chip by ``end``, -1 for those that its pool drops.

    Shapes: ``spikes`` are recorded spikes of the core that ``end`` belongs to; the result is as long.
    """
    _, height, width = output_shape(program) or (0, 0, 0)
    f, y, x = (spikes[axis].astype(np.int64) for axis in ("feature", "y", "x"))
    y, x = y // end.pool, x // end.pool
    place = ((f + end.feature_shift) * height + y) * width + x
    return np.asarray(np.where((y < height) & (x < width), place, -1), np.int64)


def _gathered(maps: Any, program: Program) -> NDArray[np.float64]:
    """Return one number per class: maps ``[F, H, W]`` of the output cores, pooled, shifted and added up."""
    shape = output_shape(program)
    if shape is None:
        raise InvalidProgramError(
            "program: expected spikes that leave the chip from maps of one size, found none or several sizes: there is "
            "no class to read. Try one destination with core None, behind the last core."
        )
    total = np.zeros(shape)
    for core, end in _ends(program):
        if core.core not in maps:
            raise RecordingError(
                f"recording: expected counts of the program's output cores, found none of core {core.core}. "
                "Try the program that the recording was made with."
            )
        inside = maps[core.core][:, : shape[1] * end.pool, : shape[2] * end.pool]
        blocks = inside.reshape(len(inside), shape[1], end.pool, shape[2], end.pool)
        total[end.feature_shift : end.feature_shift + len(inside)] += blocks.sum(axis=(2, 4))
    return total.reshape(-1)


def _ends(program: Program) -> Iterator[tuple[CoreProgram, Destination]]:
    """Yield each core with each of its destinations that leaves the chip."""
    for core in program.cores:
        for destination in core.destinations:
            if destination.core is None:
                yield core, destination
