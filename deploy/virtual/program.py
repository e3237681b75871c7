"""From a configuration to the program that the emulator runs: the only place that knows both."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.chips import CHIPS, chip
from spikeport.deploy.types import Box, CoreProgram, Destination, DvsConfig, Program, ReadoutConfig

from .configuration import N_CORES, READOUT_LAYER, SENSOR_EDGE, CnnLayerConfig, DvsLayerConfig, SpeckConfiguration
from .errors import VirtualBoardError
from .validation import find_unsupported, order_cores, validate_configuration


def program_of(configuration: SpeckConfiguration, board: str | None = None) -> Program:
    """Return the program of a configuration for the chip ``board`` (None: the first one that takes it).

    The input feeds the destinations of the input stage; where it has none, every core that no other one feeds, with
    maps of the first of them as its sensor. A core that feeds no other one is an output. Without ``leak_enable`` a core
    has no bias. Scales are 1, because a configuration does not say what an integer stands for.
    Law: of the configuration of a compiled program it is that program, but for names, scales and provenance.
    Raises: VirtualBoardError for a configuration that is not valid, has no core in use, or asks for what the virtual
    board cannot do.
    """
    is_valid, message = validate_configuration(configuration)
    problems = [message] if not is_valid else find_unsupported(configuration)
    if not order_cores(configuration) and not problems:
        problems = ["configuration: expected at least one core with weights, found none. Try one in cnn_layers."]
    if problems:
        raise VirtualBoardError("\n".join(problems))
    order = order_cores(configuration)
    name = board or next(one.name for one in CHIPS if one.driver == configuration.driver)
    cores = tuple(_core(configuration.cnn_layers[core], core) for core in order)
    stage = configuration.dvs_layer
    entry = tuple(dict.fromkeys(one.layer for one in stage.destinations if one.enable and one.layer < N_CORES))
    if entry:
        dvs = input_stage(stage)
    else:
        fed = {target.core for core in cores for target in core.destinations}
        entry = tuple(core.core for core in cores if core.core not in fed)
        shape = cores[order.index(entry[0])].in_shape
        dvs = DvsConfig(shape, merge=shape[0] == 1)
    return Program(name, cores, entry, dvs, readout=_readout(configuration, cores, chip(name).limits.readout_step))


def input_stage(stage: DvsLayerConfig) -> DvsConfig:
    """Return the input stage, from the sensor on; the whole map is no crop.

    ``on_channel`` and ``off_channel`` have no place in it: see ``passes``.
    """
    pool = (stage.pooling.y, stage.pooling.x)
    height, width = (SENSOR_EDGE // step for step in pool)
    bottom, right = min(stage.cut.y + 1, height), min(stage.cut.x + 1, width)
    crop: Box | None = ((min(stage.origin.y, bottom - 1), bottom), (min(stage.origin.x, right - 1), right))
    if crop == ((0, height), (0, width)):
        crop = None
    mirror = (stage.mirror.y, stage.mirror.x)
    return DvsConfig((2, SENSOR_EDGE, SENSOR_EDGE), stage.merge, pool, crop, mirror, stage.mirror_diagonal)


def passes(stage: DvsLayerConfig, polarity: int) -> bool:
    """Return whether the input stage lets events of a polarity (0 off, 1 on) in."""
    return bool(stage.on_channel if polarity else stage.off_channel)


def _core(layer: CnnLayerConfig, core: int) -> CoreProgram:
    dimensions = layer.dimensions
    into, out = dimensions.input_shape, dimensions.output_shape
    out_shape = (out.feature_count, out.size.y, out.size.x)
    routes = tuple(
        Destination(one.layer if one.layer < N_CORES else None, one.pooling, one.feature_shift)
        for one in layer.destinations
        if one.enable
    )
    state = _array(layer, "neurons_initial_value", np.int16)
    return CoreProgram(
        core=core,
        name=f"cnn_layers[{core}]",
        weight=_array(layer, "weights", np.int8).swapaxes(2, 3),
        bias=_array(layer, "biases", np.int16) if layer.leak_enable else None,
        threshold_high=layer.threshold_high,
        threshold_low=layer.threshold_low,
        reset="zero" if layer.return_to_zero else "subtract",
        initial_state=state.swapaxes(1, 2) if state.size else np.zeros(out_shape, np.int16),
        in_shape=(into.feature_count, into.size.y, into.size.x),
        out_shape=out_shape,
        stride=(dimensions.stride.y, dimensions.stride.x),
        padding=(dimensions.padding.y, dimensions.padding.x),
        destinations=routes or (Destination(None),),
        monitor=layer.monitor_enable,
        scale=1.0,
    )


def _array(layer: CnnLayerConfig, name: str, dtype: Any) -> NDArray[Any]:
    """Return an array of a core without the way through lists."""
    return np.asarray(layer._values[layer._fields[name].place]).astype(dtype)


def _readout(configuration: SpeckConfiguration, cores: tuple[CoreProgram, ...], step: int) -> ReadoutConfig | None:
    """Return the readout block as a program has it: its classes are features 0, ``step``, 2 ``step`` and so on."""
    reads = [
        (core, one)
        for core in cores
        for one in configuration.cnn_layers[core.core].destinations
        if one.enable and one.layer == READOUT_LAYER
    ]
    fits = all((core.out_shape[0] - 1) % step == 0 and one.feature_shift % step == 0 for core, one in reads)
    outputs = {core.core for core in cores if any(target.core is None for target in core.destinations)}
    if not configuration.readout.enable or not fits or {core.core for core, _ in reads} != outputs:
        return None
    return ReadoutConfig(step)
