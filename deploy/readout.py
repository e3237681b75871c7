"""From a recording to a class, and the net that the readout block of a chip can read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.convert.geometry import Shape3, pooled
from spikeport.convert.kernels import dense_kernel
from spikeport.convert.types import INPUT, SpikingLayer, SpikingNet

from .chips import Limits
from .errors import InvalidProgramError, RecordingError
from .rules import report
from .types import CoreProgram, Destination, Program, Recording, Violation


def with_readout(net: SpikingNet, limits: Limits) -> tuple[SpikingNet, tuple[Violation, ...]]:
    """Return the net whose classes lie where the readout block looks for them, and notes of what that takes.

    By an erratum the block takes class ``i`` from feature ``i * limits.readout_step``: the output layers get features
    without weights between their own. A net that ``check_readout`` refuses is returned as it is.
    Law: output feature ``i * readout_step`` of the result spikes as feature ``i`` of the net, and no other one does.
    """
    step = limits.readout_step
    ends = {edge.source for edge in net.edges if edge.target is None}
    if check_readout(net, limits):
        return net, ()
    layers = tuple(_spread(layer, step) if index in ends else layer for index, layer in enumerate(net.layers))
    edges = tuple(
        dataclasses.replace(edge, feature_shift=edge.feature_shift * step) if edge.target is None else edge
        for edge in net.edges
    )
    notes = tuple(
        report(
            net.layers[index].name,
            "readout erratum",
            found=f"every {step}th, so {net.layers[index].out_shape[0]} output channels became "
            f"{layers[index].out_shape[0]} with zeros between",
            limit="the readout block to take each feature as a class",
            why="The classes stay the same, in more kernel and neuron memory",
            fix="counting the spikes off the chip, without the readout block",
        )
        for index in sorted(ends if step > 1 else ())
    )
    clock = report(
        None,
        "readout without slow clock",
        found="none yet",
        limit="a slow clock, in whose ticks the readout block counts",
        fix="--slow-clock-hz 1000",
    )
    return SpikingNet(layers, edges, net.input_shape), (*notes, clock)


def check_readout(net: SpikingNet, limits: Limits) -> list[Violation]:
    """Return what stands between a net and the readout block of the chip."""
    found = []
    shape = net.output_shape
    if shape is None or shape[1:] != (1, 1):
        size = "maps of several sizes" if shape is None else f"a map of {shape[1]}x{shape[2]}"
        found.append(report(None, "readout", found=size, limit="an output map of 1x1", fix="a Linear layer at the end"))
    elif shape[0] > limits.readout_classes:
        limit, fix = f"at most {limits.readout_classes} classes", "counting the spikes off the chip"
        found.append(report(None, "readout", found=str(shape[0]), limit=limit, fix=fix))
    ends = sorted({edge.source for edge in net.edges if edge.target is None})
    if INPUT in ends:
        fix = "a layer with a 1x1 kernel between input and output"
        found.append(report(None, "readout", found="the input", limit="classes from layers only", fix=fix))
    for index in (end for end in ends if end != INPUT):
        readers = [net.layers[edge.target].name for edge in net.outgoing(index) if edge.target is not None]
        if readers:
            names, limit = ", ".join(f"'{name}'" for name in readers), "an output layer that feeds no other layer"
            fix = "counting the spikes off the chip"
            found.append(report(net.layers[index].name, "readout", found=f"{names} fed by it", limit=limit, fix=fix))
    return found


def _spread(layer: SpikingLayer, step: int) -> SpikingLayer:
    """Return the layer with its features ``step`` apart, and features that never spike between."""
    features = (layer.out_shape[0] - 1) * step + 1

    def wide(values: NDArray[Any]) -> NDArray[Any]:
        spread = np.zeros((features, *values.shape[1:]), values.dtype)
        spread[::step] = values
        return spread

    return dataclasses.replace(
        layer,
        weight=wide(dense_kernel(layer.weight, groups=layer.groups)),
        bias=None if layer.bias is None else wide(layer.bias),
        v_init=None if layer.v_init is None else wide(layer.v_init),
        out_shape=(features, *layer.out_shape[1:]),
        groups=1,
    )


def output_shape(program: Program) -> Shape3 | None:
    """Return ``(features, height, width)`` of what leaves the chip, behind pools and shifts.

    With the readout block the features are those that it takes as classes.
    None where nothing leaves it, or maps of different sizes do: then there are no classes.
    """
    ends = [(core, end, pooled(core.out_shape, (end.pool, end.pool))) for core, end in _ends(program)]
    maps = {(height, width) for _, _, (_, height, width) in ends}
    if len(maps) != 1:
        return None
    features = max(core.out_shape[0] + end.feature_shift for core, end, _ in ends)
    return ((features - 1) // _step(program) + 1, *maps.pop())


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
    equal states to the lower class; so do equal counts where a device could not read the states.
    Raises: as ``count_classes``.
    """
    counts = count_classes(recording, program)
    best = np.flatnonzero(counts == counts.max())
    if len(best) == 1 or not set(program.outputs) <= recording.states.keys():
        return int(best[0])
    return int(best[np.argmax(output_states(recording, program)[best])])


def majority_class(counts: ArrayLike, *, threshold: int = 1, low: int = 0, high: int = 32_000) -> int | None:
    """Return the class with the most spikes of an interval, the lowest one of several; None where nothing is decided.

    That takes ``low`` to ``high`` spikes in all, both included, and at least ``threshold`` (and one) of the winner.
    Source: the majority readout of samna 0.48, which stores the threshold of the visualizer and does not use it.
    """
    numbers = np.asarray(counts, np.int64)
    if not low <= int(numbers.sum()) <= high:
        return None
    return int(numbers.argmax()) if int(numbers.max(initial=0)) >= max(threshold, 1) else None


def count_labels(labels: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Return how often each class from 0 to below ``n_classes`` is among ``labels``; other labels are left out."""
    found = np.asarray(labels, np.int64)
    return np.bincount(found[(found >= 0) & (found < n_classes)], minlength=n_classes)


def output_states(recording: Recording, program: Program) -> NDArray[np.float64]:
    """Return the last potential behind each class, in float units, summed over a pool.

    Shapes: ``[classes]``.
    Raises: as ``count_classes``.
    """
    ends = {core.core for core, _ in _ends(program)}
    return _gathered({core: recording.states[core] / program.core(core).scale for core in ends}, program)


def classes_of(spikes: NDArray[Any], end: Destination, program: Program) -> NDArray[np.int64]:
    """Return the class of each spike that leaves the chip by ``end``, -1 for those that its pool drops.

    With the readout block it is -1 also between two classes.

    Shapes: ``spikes`` are recorded spikes of the core that ``end`` belongs to; the result is as long.
    """
    _, height, width = output_shape(program) or (0, 0, 0)
    f, y, x = (spikes[axis].astype(np.int64) for axis in ("feature", "y", "x"))
    y, x = y // end.pool, x // end.pool
    f, between = np.divmod(f + end.feature_shift, _step(program))
    place = (f * height + y) * width + x
    return np.asarray(np.where((y < height) & (x < width) & (between == 0), place, -1), np.int64)


def _gathered(maps: Any, program: Program) -> NDArray[np.float64]:
    """Return one number per class: maps ``[F, H, W]`` of the output cores, pooled, shifted and added up."""
    shape = output_shape(program)
    if shape is None:
        raise InvalidProgramError(
            "program: expected spikes that leave the chip from maps of one size, found none or several sizes: there is "
            "no class to read. Try one destination with core None, behind the last core."
        )
    step = _step(program)
    total = np.zeros(((shape[0] - 1) * step + 1, *shape[1:]))
    for core, end in _ends(program):
        if core.core not in maps:
            raise RecordingError(
                f"recording: expected counts of the program's output cores, found none of core {core.core}. "
                "Try the program that the recording was made with."
            )
        inside = maps[core.core][:, : shape[1] * end.pool, : shape[2] * end.pool]
        blocks = inside.reshape(len(inside), shape[1], end.pool, shape[2], end.pool)
        total[end.feature_shift : end.feature_shift + len(inside)] += blocks.sum(axis=(2, 4))
    return total[::step].reshape(-1)


def _step(program: Program) -> int:
    """Return how far apart the features of two classes lie."""
    return 1 if program.readout is None else program.readout.spacing


def _ends(program: Program) -> Iterator[tuple[CoreProgram, Destination]]:
    """Yield each core with each of its destinations that leaves the chip."""
    for core in program.cores:
        for destination in core.destinations:
            if destination.core is None:
                yield core, destination
