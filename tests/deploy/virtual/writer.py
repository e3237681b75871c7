"""Random programs that a Speck can hold, and their configurations, written attribute by attribute."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.random import Generator

from spikeport.deploy.types import CoreProgram, Destination, DvsConfig, Program
from spikeport.deploy.virtual.configuration import READOUT_LAYER, SpeckConfiguration
from spikeport.models.events import Events

SENSOR = (2, 128, 128)


def one_neuron(**changes: Any) -> CoreProgram:
    """Return a core of one neuron with weight and threshold 127."""
    core = CoreProgram(
        core=3,
        name="cnn_layers[3]",
        weight=np.full((1, 1, 1, 1), 127, np.int8),
        bias=None,
        threshold_high=127,
        threshold_low=-127,
        reset="subtract",
        initial_state=np.zeros((1, 1, 1), np.int16),
        in_shape=(1, 1, 1),
        out_shape=(1, 1, 1),
        stride=(1, 1),
        padding=(0, 0),
        destinations=(Destination(None),),
        monitor=True,
        scale=1.0,
    )
    return dataclasses.replace(core, **changes)


def program_of_one(core: CoreProgram) -> Program:
    """Return the program of one core, fed by events of its own input map."""
    return Program("speck2fdevkit", (core,), (core.core,), DvsConfig(core.in_shape, merge=core.in_shape[0] == 1))


def random_program(seed: int) -> Program:
    """Return up to four cores behind the input stage: a chain, or two branches that meet."""
    rng = np.random.default_rng(seed)
    ids = [int(core) for core in rng.permutation(9)[:4]]
    pool = int(rng.choice([4, 4, 2]))
    size = int(rng.integers(5, 13))
    merge = bool(rng.random() < 0.3)
    top, left = (int(value) for value in rng.integers(0, 128 // pool - size, 2))
    mirror = (bool(rng.random() < 0.3), bool(rng.random() < 0.3))
    crop = ((top, top + size), (left, left + size))
    dvs = DvsConfig(SENSOR, merge, (pool, pool), crop, mirror, bool(rng.random() < 0.3))
    first = _core(rng, ids[0], dvs.out_shape)
    if rng.random() < 0.5:
        shape = first.out_shape
        second = _core(rng, ids[1], (shape[0], *(-(-edge // 2) for edge in shape[1:])))
        first = dataclasses.replace(first, destinations=(Destination(ids[1], 2),))
        return Program("speck2fdevkit", (first, dataclasses.replace(second, monitor=True)), (ids[0],), dvs)
    other = dataclasses.replace(first, core=ids[1], name=f"cnn_layers[{ids[1]}]", weight=-first.weight, monitor=True)
    features = first.out_shape[0]
    last = _core(rng, ids[2], (2 * features, *first.out_shape[1:]))
    first = dataclasses.replace(first, destinations=(Destination(ids[2]),))
    other = dataclasses.replace(other, destinations=(Destination(ids[2], 1, features),))
    cores = sorted((first, other), key=lambda core: core.core)
    return Program("speck2fdevkit", (*cores, dataclasses.replace(last, monitor=True)), (ids[0], ids[1]), dvs)


def _core(rng: Generator, core: int, in_shape: tuple[int, ...]) -> CoreProgram:
    features, kernel = int(rng.integers(1, 5)), int(rng.integers(1, min(3, *in_shape[1:]) + 1))
    stride = (int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2])))
    padding = (int(rng.integers(0, 2)), int(rng.integers(0, 2)))
    channels, height, width = in_shape
    out = tuple(
        (edge + 2 * pad - kernel) // step + 1 for edge, pad, step in zip((height, width), padding, stride, strict=True)
    )
    shape = (features, out[0], out[1])
    return CoreProgram(
        core=core,
        name=f"cnn_layers[{core}]",
        weight=rng.integers(-60, 100, (features, channels, kernel, kernel)).astype(np.int8),
        bias=rng.integers(-5, 5, features).astype(np.int16) if rng.random() < 0.5 else None,
        threshold_high=int(rng.integers(30, 200)),
        threshold_low=-int(rng.integers(1, 200)),
        reset="zero" if rng.random() < 0.3 else "subtract",
        initial_state=rng.integers(-20, 20, shape).astype(np.int16),
        in_shape=(channels, height, width),
        out_shape=shape,
        stride=stride,
        padding=padding,
        destinations=(Destination(None),),
        monitor=bool(rng.random() < 0.5),
        scale=1.0,
    )


def random_events(seed: int, dvs: DvsConfig, n_events: int = 400) -> Events:
    """Return events of the sensor in the region that goes on, and a little around it, every 50 us."""
    rng = np.random.default_rng(seed)
    y, x = (
        np.clip(rng.integers(first * step - 3, stop * step + 3, n_events), 0, edge - 1)
        for (first, stop), step, edge in zip(dvs.box, dvs.pool, dvs.input_shape[1:], strict=True)
    )
    return Events(x, y, rng.integers(0, 2, n_events), np.arange(n_events) * 50, dvs.input_shape[1:])


def configured(program: Program, *, with_input: bool = True) -> SpeckConfiguration:
    """Return the configuration of a program; without ``with_input`` nothing comes through the input stage."""
    configuration = SpeckConfiguration()
    for core in program.cores:
        write_core(configuration.cnn_layers[core.core], core)
    dvs, stage = program.dvs, configuration.dvs_layer
    if with_input:
        (top, bottom), (left, right) = dvs.box
        stage.merge, stage.mirror_diagonal = dvs.merge, dvs.swap
        stage.mirror = {"y": dvs.mirror[0], "x": dvs.mirror[1]}
        stage.pooling = {"y": dvs.pool[0], "x": dvs.pool[1]}
        stage.origin, stage.cut = {"y": top, "x": left}, {"y": bottom - 1, "x": right - 1}
        for place, target in enumerate(program.entry):
            stage.destinations[place].enable, stage.destinations[place].layer = True, target
    return configuration


def write_core(layer: Any, core: CoreProgram) -> None:
    """Write one core."""
    axes = ("y", "x")
    into, out = (
        {"feature_count": shape[0], "size": dict(zip(axes, shape[1:], strict=True))}
        for shape in (core.in_shape, core.out_shape)
    )
    layer.dimensions = {
        "input_shape": into,
        "output_shape": out,
        "kernel_size": core.weight.shape[2],
        "stride": dict(zip(axes, core.stride, strict=True)),
        "padding": dict(zip(axes, core.padding, strict=True)),
    }
    layer.weights = core.weight.transpose(0, 1, 3, 2).tolist()
    layer.biases = [0] * core.out_shape[0] if core.bias is None else core.bias.tolist()
    layer.leak_enable = core.bias is not None
    layer.neurons_initial_value = core.initial_state.transpose(0, 2, 1).tolist()
    layer.threshold_high, layer.threshold_low = core.threshold_high, core.threshold_low
    layer.return_to_zero, layer.monitor_enable = core.reset == "zero", core.monitor
    routes = [one for one in core.destinations if one.core is not None]
    for place, one in enumerate(routes):
        target = layer.destinations[place]
        target.enable, target.layer, target.pooling = True, one.core, one.pool
        target.feature_shift = one.feature_shift


def read_by_readout(layer: Any) -> None:
    """Let the readout block read a core."""
    layer.destinations[0].enable, layer.destinations[0].layer = True, READOUT_LAYER
