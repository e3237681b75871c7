"""From a recording to a class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidProgramError, RecordingError
from .types import Program, Recording


def n_classes(program: Program) -> int:
    """Return the number of classes that leave the chip: features of the output cores, after their shift; 0 for none."""
    ends = (
        core.out_shape[0] + target.feature_shift
        for core in program.cores
        for target in core.destinations
        if target.core is None
    )
    return max(ends, default=0)


def count_classes(recording: Recording, program: Program) -> NDArray[np.int64]:
    """Return the number of output spikes per class.

    Shapes: ``[classes]``. A class is a feature of an output core, after the shift of the destination that leaves the
    chip, summed over the map; where cores share a class, their spikes add up.
    Raises: InvalidProgramError where no spikes leave the chip, RecordingError where the recording lacks an output core.
    """
    outputs = _outputs(recording, program)
    counts = np.zeros(n_classes(program), np.int64)
    for core, shift in outputs:
        per_feature = recording.counts[core].sum(axis=(1, 2))
        counts[shift : shift + per_feature.size] += per_feature
    return counts


def classify(recording: Recording, program: Program) -> int:
    """Return the class with the most output spikes.

    Equal counts go to the class whose output neurons end in the higher state (in float units, summed over the map),
    equal states to the lower class.
    Raises: as ``count_classes``.
    """
    counts = count_classes(recording, program)
    states = np.zeros(counts.size)
    for core, shift in _outputs(recording, program):
        per_feature = recording.states[core].sum(axis=(1, 2)) / program.core(core).scale
        states[shift : shift + per_feature.size] += per_feature
    best = np.flatnonzero(counts == counts.max())
    return int(best[np.argmax(states[best])])


def _outputs(recording: Recording, program: Program) -> list[tuple[int, int]]:
    """Return core id and feature shift of each destination that leaves the chip."""
    outputs = [
        (core.core, destination.feature_shift)
        for core in program.cores
        for destination in core.destinations
        if destination.core is None
    ]
    if not outputs:
        raise InvalidProgramError(
            "program: no core's spikes leave the chip, so there is no class to read. "
            "Try a destination with core None for the last core."
        )
    missing = sorted({core for core, _ in outputs} - recording.counts.keys())
    if missing:
        raise RecordingError(
            f"recording: expected counts of the program's output cores, found none of core {missing[0]}. "
            "Try the program that the recording was made with."
        )
    return outputs
