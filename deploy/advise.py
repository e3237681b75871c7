"""What the chip does differently from the spiking net, although the net fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from spikeport.convert.geometry import Pair
from spikeport.convert.grid import to_integers
from spikeport.convert.types import INPUT, SpikingLayer, SpikingNet

from .budget import count_words
from .chips import Chip
from .place import Placement
from .rules import report
from .types import IntegerLayer, IntegerNet, Violation


def advise(net: SpikingNet, integers: IntegerNet, placement: Placement, chip: Chip) -> tuple[Violation, ...]:
    """Return one warning for each thing that the chip does differently, edge by edge, then layer by layer.

    They are odd maps in front of a pool, a pool in front of the output, input channels that no camera event has,
    classes where the readout block does not look for them; kernels that are stored with zeros; weights above the
    threshold, weights that became zero, biases, a ``v_min`` that became -1, initial potentials that are clipped; biases
    on cores with the leak erratum, and cores that do not keep the order of spikes.
    """
    found = list(_input_channels(net, chip))
    for edge in net.edges:
        source = None if edge.source == INPUT else net.layers[edge.source].name
        found += _odd_map(source, net.source_shape(edge)[1:], edge.pool)
        if source is not None and edge.target is None and max(edge.pool) > 1:
            found.append(_output_pool(source, edge.pool))
    found += _readout(net, integers, chip)
    found += _zeroed(net, integers)
    for index, (layer, integer) in enumerate(zip(net.layers, integers.layers, strict=True)):
        found += _dense(layer)
        found += _numbers(layer, integer)
        found += _start(layer, integer)
        if placement.cores is not None:
            found += _core(integer, placement.cores[index], chip)
    return tuple(dict.fromkeys(found))


def _input_channels(net: SpikingNet, chip: Chip) -> Iterator[Violation]:
    channels, allowed = net.input_shape[0], chip.limits.input_channels
    if channels not in allowed:
        yield report(
            None,
            "input channels",
            found=str(channels),
            limit=" or ".join(map(str, allowed)),
            why=f"Camera events have {max(allowed)} polarities, so the channels above stay silent",
            fix=f"a net for {max(allowed)} channels",
        )


def _odd_map(layer: str | None, size: Pair, pool: Pair) -> Iterator[Violation]:
    if size[0] % pool[0] or size[1] % pool[1]:
        yield report(
            layer,
            "odd map",
            found=f"{size[0]}x{size[1]} before a pool of {pool[0]}x{pool[1]}",
            limit="a map that the pool divides",
            why="The chip divides addresses: spikes of the last rows or columns lie beyond the pooled map and are lost",
            fix="another input size" if layer is None else "another padding or input size",
        )


def _output_pool(layer: str, pool: Pair) -> Violation:
    return report(
        layer,
        "output pool",
        found=f"{pool[0]}x{pool[1]}",
        limit="no pool behind the last layer",
        why="Spikes leave the chip with addresses before pooling",
        fix="dividing them by the pool where they are read",
    )


def _readout(net: SpikingNet, integers: IntegerNet, chip: Chip) -> Iterator[Violation]:
    """Yield what the readout block makes of the classes of a single output layer; a net without classes has none."""
    outputs = [edge.source for edge in net.edges if edge.target is None]
    if len(outputs) != 1 or net.output_shape is None or net.output_shape[1:] != (1, 1) or net.output_shape[0] < 2:
        return
    layer, step, most = integers.layers[outputs[0]], chip.limits.readout_step, chip.limits.readout_classes
    n_classes, between = len(layer.weight), np.arange(len(layer.weight)) % step > 0
    if not layer.weight[between].any():
        n_classes = int((~between).sum())
    else:
        widened = dataclasses.replace(count_words(layer), features=step * (n_classes - 1) + 1)
        yield report(
            layer.name,
            "readout",
            found=f"class i at feature i, {n_classes} classes",
            limit=f"class i at feature {step} i for the readout block",
            why="That is an erratum of the block; spikes that leave the chip as events keep their features",
            fix=f"planning for the block (readout) where it decides on the class: that widens the layer to "
            f"{widened.features} features and {widened.kernel_words} kernel words",
        )
    if n_classes > most:
        yield report(
            layer.name,
            "readout",
            found=f"{n_classes} classes",
            limit=f"at most {most} for the readout block",
            why="Spikes that leave the chip as events are not limited",
            fix="counting them on the host",
        )


def _zeroed(net: SpikingNet, integers: IntegerNet) -> Iterator[Violation]:
    found = []
    for layer, integer in zip(net.layers, integers.layers, strict=True):
        if not integer.weight.any():
            yield report(
                layer.name,
                "dead layer",
                found="weights that are all 0 as integers",
                limit="some weight that is not 0",
                why="It never spikes, and no layer behind it does",
                fix="more spikes per frame in the conversion, or a layer that has learned something",
            )
            continue
        lost = int(((layer.weight != 0) & (integer.weight == 0)).sum())
        if lost:
            found.append(f"{lost} of {np.count_nonzero(layer.weight)} in '{layer.name}'")
    if found:
        yield report(
            None,
            "zeroed weights",
            found=", ".join(found),
            limit="no weight that rounds to 0",
            why="One scale holds for all weights of a layer, and the largest value of the layer sets it",
            fix="training with weights clipped to a smaller range",
        )


def _dense(layer: SpikingLayer) -> Iterator[Violation]:
    budget = count_words(layer)
    (ky, kx), (dense_y, dense_x) = layer.window.kernel, budget.kernel
    kinds, instead = [], []
    if layer.groups > 1:
        kinds.append(f"grouped convolution of {layer.groups} groups")
        instead.append("one group")
    if (ky, kx) != budget.kernel:
        kinds.append(f"dilated kernel of {ky}x{kx} over {dense_y}x{dense_x}")
        instead.append(f"a kernel of {dense_y}x{dense_x}")
    if kinds:
        yield report(
            layer.name,
            "dense kernel",
            found=(
                f"{' with a '.join(kinds)} stored dense: {budget.dense_kernel_words:,} words, "
                f"{budget.useful_kernel_words:,} useful"
            ),
            limit="one group and no dilation",
            why="The chip stores and visits those zeros: they count as synops, and let a surplus fire",
            fix=f"{' and '.join(instead)}, which costs the chip no more",
        )


def _numbers(layer: SpikingLayer, integer: IntegerLayer) -> Iterator[Violation]:
    largest, threshold = int(integer.weight.max()), integer.threshold_high
    if largest > threshold:
        yield report(
            layer.name,
            "weight above threshold",
            found=str(largest),
            limit=f"at most the threshold, {threshold} as integer",
            why="One spike at most leaves a neuron per event, so the surplus waits for the next event",
            fix="calibration data in the conversion",
        )
    if integer.bias is not None and integer.bias.any():
        yield report(
            layer.name,
            "bias without slow clock",
            found=f"{np.count_nonzero(integer.bias)} of {integer.bias.size}",
            limit="none",
            why="The chip adds it to every neuron at each tick of the slow clock; without the clock it does nothing",
            fix="a net without biases, or a slow clock (--slow-clock-hz)",
        )
    if layer.v_min is not None and int(to_integers(layer.v_min, integer.scale)) == 0:
        yield report(
            layer.name,
            "v_min",
            found=f"{layer.v_min:g}, which rounds to 0",
            limit="-1 or less as integer",
            why=f"The register cannot hold 0, so it becomes -1, which stands for {-1 / integer.scale:.3g}",
            fix="a lower v_min",
        )


def _start(layer: SpikingLayer, integer: IntegerLayer) -> Iterator[Violation]:
    if layer.v_init is None:
        return
    lowest = integer.threshold_low / integer.scale if layer.v_min is None else layer.v_min
    n_outside = int(((layer.v_init < lowest) | (layer.v_init >= layer.threshold)).sum())
    if n_outside:
        yield report(
            layer.name,
            "initial state",
            found=f"{n_outside} of {layer.v_init.size} potentials outside",
            limit=f"{lowest:.3g} or more and less than the threshold, {layer.threshold:.3g}",
            why="They are clipped: a neuron that starts at its threshold would only fire when it is visited",
            fix="initial potentials within these bounds",
        )


def _core(integer: IntegerLayer, core_id: int, chip: Chip) -> Iterator[Violation]:
    core = chip.core(core_id)
    if integer.bias is not None and integer.bias.any() and not core.leak_safe:
        yield report(
            integer.name,
            "leak erratum",
            found=f"core {core_id}",
            limit=f"for a bias one of cores {', '.join(str(other.core) for other in chip.cores if other.leak_safe)}",
            why="An erratum declares the bias of that core unusable",
            fix="a net without biases, or a smaller layer",
        )
    if not core.in_order:
        yield report(
            integer.name,
            "spike order",
            found=f"core {core_id}",
            limit=f"for a fixed order one of cores {', '.join(str(c.core) for c in chip.cores if c.in_order)}",
            why="Its pipelines run in parallel: results vary a little, and the last spike waits for one more event",
            fix="one more event behind each recording",
        )
