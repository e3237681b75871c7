"""Integer net and placement to the program of a chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from spikeport.convert.geometry import Pair
from spikeport.convert.kernels import dense_kernel
from spikeport.convert.types import INPUT, Edge

from .chips import chip
from .errors import InvalidProgramError, MonitorError
from .place import Placement
from .types import CoreProgram, Destination, DvsConfig, IntegerNet, Program, ReadoutConfig

Monitor = Literal["all", "readout"] | Sequence[str] | None


def assemble(
    net: IntegerNet, placement: Placement, *, monitor: Monitor = None, provenance: Mapping[str, Any] | None = None
) -> Program:
    """Return the program: what each core is loaded with, in network order, and how spikes go from one to the next.

    ``monitor`` names the layers whose spikes leave the chip; None means those of the output, 'all' means all, 'readout'
    none: the readout block reads the output layers, which ``plan(net, readout=True)`` widens for it. The input stage
    merges polarities for one channel and pools as the input edges do; ``with_dvs`` gives it more to do.
    Law: each edge of the net becomes one destination (None behind the output) with its pool and shift, or an entry;
    groups and dilation become zeros in the weights.
    Raises: MonitorError for names that the net does not have; InvalidProgramError where the layers have no placement,
    or a layer or an edge asks for something that the chip has no word for, which ``plan`` reports in full.
    """
    cores = placement.cores
    if cores is None or len(cores) != len(net.layers):
        raise InvalidProgramError(
            f"assemble: expected a core for each of {len(net.layers)} layers, found {cores}. Try plan(net) to see why."
        )
    monitored = check_monitor(net, monitor)
    programs = []
    for index, layer in enumerate(net.layers):
        if layer.upsample != (1, 1):
            up = "x".join(map(str, layer.upsample))
            raise InvalidProgramError(
                f"layer '{layer.name}': upsample: expected 1x1, found {up}: the chip cannot upsample. Try plan(net)."
            )
        routes = (edge for edge in net.edges if edge.source == index)
        programs.append(
            CoreProgram(
                core=cores[index],
                name=layer.name,
                weight=dense_kernel(layer.weight, dilation=layer.dilation, groups=layer.groups),
                bias=layer.bias,
                threshold_high=layer.threshold_high,
                threshold_low=layer.threshold_low,
                reset=layer.reset,
                initial_state=layer.initial_state,
                in_shape=layer.in_shape,
                out_shape=layer.out_shape,
                stride=layer.stride,
                padding=layer.padding,
                destinations=tuple(_destination(edge, layer.name, cores) for edge in routes),
                monitor=layer.name in monitored,
                scale=layer.scale,
            )
        )
    entry, pool = _entry(net, cores)
    dvs = DvsConfig(net.input_shape, merge=net.input_shape[0] == 1, pool=pool)
    readout = ReadoutConfig(chip(placement.chip).limits.readout_step) if monitor == "readout" else None
    return Program(placement.chip, tuple(programs), entry, dvs, provenance or {}, readout=readout)


def check_monitor(net: IntegerNet, monitor: Monitor) -> frozenset[str]:
    """Return the names of the layers to monitor.

    Raises: MonitorError for names that the net does not have.
    """
    names = [layer.name for layer in net.layers]
    if monitor is None:
        return frozenset(names[edge.source] for edge in net.edges if edge.target is None and edge.source != INPUT)
    if isinstance(monitor, str):
        if monitor not in ("all", "readout"):
            raise MonitorError(
                f"monitor: expected None, 'all', 'readout' or a list of layers, found {monitor!r}. Try [{monitor!r}]."
            )
        return frozenset(names if monitor == "all" else ())
    if unknown := [name for name in monitor if name not in names]:
        raise MonitorError(f"monitor: expected layers of {names}, found {unknown}. Try 'all' for all of them.")
    return frozenset(monitor)


def _destination(edge: Edge, source: str, cores: Sequence[int]) -> Destination:
    if edge.pool[0] != edge.pool[1]:
        raise InvalidProgramError(f"layer '{source}': pool: expected a square one, found {edge.pool}. Try plan(net).")
    return Destination(None if edge.target is None else cores[edge.target], edge.pool[0], edge.feature_shift)


def _entry(net: IntegerNet, cores: Sequence[int]) -> tuple[tuple[int, ...], Pair]:
    edges = [edge for edge in net.edges if edge.source == INPUT]
    pools = {edge.pool for edge in edges}
    targets = [edge.target for edge in edges if edge.target is not None and edge.feature_shift == 0]
    if len(pools) != 1 or len(set(targets)) != len(edges):
        raise InvalidProgramError(
            "input: expected edges to distinct layers with one pool and no feature shift, "
            f"found {edges}. Try plan(net) to see each problem."
        )
    return tuple(cores[target] for target in targets), pools.pop()
