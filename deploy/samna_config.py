"""Program to the configuration object of the vendor's driver, whose module is passed in: nothing here imports it.

Names, nesting and axis order are those of the driver: x before y, ``weights[out][in][x][y]``, and
``neurons_initial_value[feature][x][y]``. Source: documentation of samna 0.48; the writer of sinabs 3.1.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from .chips import Chip, chip
from .errors import InvalidProgramError
from .readout import n_classes
from .rules import check_program
from .types import CoreProgram, Destination, DvsConfig, Program

READOUT_LAYER = 12
"""Id of the readout block, as destination and in events. Source: documentation of samna 0.48."""

_ONE_BY_ONE = 3
"""Code of the address mode 1x1 for classes; of the other codes the pages give two orders. Source: as above."""


def configure(program: Program, driver: Any, *, sensor: bool = False, monitor_input: bool = False) -> Any:
    """Return the driver's configuration object for a program.

    ``driver`` is the chip's module of the driver, ``samna.speck2f`` for one. ``sensor`` lets the camera on the chip
    feed the net; without it only events of the host do. ``monitor_input`` also sends out what leaves the input stage.
    The input stage is written where the program or the camera needs it; a program without one is fed core by core, see
    ``feeds_cores``. A core without biases, or with none but zeros, has its leak off. Of a program with a readout block
    the block's decisions are sent out where no core is monitored, because they would silence the monitors of the cores.
    The slow clock is no part of it: the board makes that.
    Law: equal programs give equal configurations; what the program does not use stays as the driver made it.
    Raises: InvalidProgramError with everything that the chip has no word for.
    """
    return configure_for(chip(program.chip), program, driver, sensor=sensor, monitor_input=monitor_input)


def configure_for(
    table: Chip,
    program: Program,
    driver: Any,
    *,
    sensor: bool = False,
    monitor_input: bool = False,
    monitor_sensor: bool = False,
) -> Any:
    """Return what ``configure`` does, for the chip of ``table`` in place of the one that the program names.

    ``monitor_sensor`` also sends out the events of the sensor as they are, in front of the input stage.

    Raises: InvalidProgramError where that chip cannot hold the program.
    """
    problems = [violation.message for violation in check_program(program, table)]
    if problems:
        raise InvalidProgramError(" ".join(problems))
    configuration = driver.configuration.SpeckConfiguration()
    for core in program.cores:
        _write_core(configuration.cnn_layers[core.core], core, readout=program.readout is not None)
    if program.readout is not None:
        _write_readout(configuration.readout, program)
    if sensor or monitor_input or not feeds_cores(program.dvs):
        _write_input(configuration.dvs_layer, program)
    configuration.dvs_layer.monitor_enable = monitor_input
    configuration.dvs_layer.raw_monitor_enable = monitor_sensor
    # Last: setting a monitor of the input stage turns the camera on by itself.
    configuration.dvs_layer.pass_sensor_events = sensor
    return configuration


def feeds_cores(dvs: DvsConfig) -> bool:
    """Return whether events of the host go straight to the entry cores, because the input stage has nothing to do."""
    is_plain = dvs.pool == (1, 1) and dvs.crop is None and not any(dvs.mirror) and not dvs.swap
    return is_plain and not (dvs.merge and dvs.input_shape[0] == 2)


def with_monitors(program: Program, cores: Iterable[int]) -> Program:
    """Return the program with exactly the cores of these ids monitored."""
    wanted = set(cores)
    kept = tuple(dataclasses.replace(core, monitor=core.core in wanted) for core in program.cores)
    return dataclasses.replace(program, cores=kept)


def _write_core(layer: Any, core: CoreProgram, *, readout: bool) -> None:
    features, height, width = core.out_shape
    channels, in_height, in_width = core.in_shape
    layer.dimensions = {
        "input_shape": {"feature_count": channels, "size": {"x": in_width, "y": in_height}},
        "output_shape": {"feature_count": features, "size": {"x": width, "y": height}},
        "kernel_size": core.weight.shape[2],
        "stride": {"x": core.stride[1], "y": core.stride[0]},
        "padding": {"x": core.padding[1], "y": core.padding[0]},
    }
    bias = np.zeros(features, np.int16) if core.bias is None else core.bias
    layer.weights = core.weight.swapaxes(2, 3).tolist()
    layer.biases = bias.tolist()
    layer.leak_enable = bool(bias.any())
    layer.leak_internal_slow_clk_enable = False
    layer.neurons_initial_value = core.initial_state.swapaxes(1, 2).tolist()
    layer.threshold_high = int(core.threshold_high)
    layer.threshold_low = int(core.threshold_low)
    layer.return_to_zero = core.reset == "zero"
    layer.monitor_enable = core.monitor
    layer.input_congestion_balancer_enable = False
    layer.output_decimator_enable = False
    for register, target in zip(layer.destinations, _destinations(core, readout=readout), strict=False):
        register.enable = True
        register.layer = target.core
        register.pooling = target.pool
        register.feature_shift = target.feature_shift


def _destinations(core: CoreProgram, *, readout: bool) -> list[Destination]:
    """Return what the destination registers of a core hold; the way off the chip is the monitor's and takes none."""
    ends = core.destinations
    if readout:
        ends = tuple(end if end.core is not None else dataclasses.replace(end, core=READOUT_LAYER) for end in ends)
    return [end for end in ends if end.core is not None]


def _write_readout(block: Any, program: Program) -> None:
    block.enable = True
    block.readout_configuration_sel = _ONE_BY_ONE
    block.output_neuron_num = n_classes(program)
    block.threshold = 0
    block.internal_slow_clk = False
    block.monitor_enable = not any(core.monitor for core in program.cores)


def _write_input(block: Any, program: Program) -> None:
    dvs = program.dvs
    (top, bottom), (left, right) = dvs.box
    block.merge = dvs.merge or dvs.input_shape[0] == 1
    block.pooling = {"x": dvs.pool[1], "y": dvs.pool[0]}
    block.origin = {"x": left, "y": top}
    block.cut = {"x": right - 1, "y": bottom - 1}  # inclusive
    block.mirror = {"x": dvs.mirror[1], "y": dvs.mirror[0]}
    block.mirror_diagonal = dvs.swap
    for register, entry in zip(block.destinations, program.entry, strict=False):
        register.enable = True
        register.layer = entry
