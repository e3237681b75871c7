"""The integer specification in plain Python, one input event with all its descendants after the other.

Written for reading, not for speed: unbounded integers with every saturation written out, all neurons of a map asked
whether an event reaches them, leak ticks one by one. It shares no code with the emulator.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from spikeport.convert.types import INPUT
from spikeport.deploy.types import CoreProgram, DvsConfig, IntegerNet, Program
from spikeport.models.events import Events

from .programs import make_core

Spike = tuple[int, int, int, int, int]
"""Index and time of the causing input event, feature, row, column."""


@dataclasses.dataclass
class ReferenceCore:
    """One core and what has happened in it so far."""

    program: CoreProgram
    state: list[list[list[int]]] = dataclasses.field(init=False)
    spikes: list[Spike] = dataclasses.field(default_factory=list)
    n_events: int = 0
    n_dropped: int = 0
    synops: int = 0
    n_saturated: int = 0

    def __post_init__(self) -> None:
        self.state = self.program.initial_state.tolist()

    def saturated(self, value: int) -> int:
        bounded = min(max(value, -32768), 32767)
        self.n_saturated += bounded != value
        return bounded

    def tick(self) -> None:
        if self.program.bias is None:
            return
        bias = self.program.bias.tolist()
        for f, feature in enumerate(self.state):
            for row in feature:
                for u, value in enumerate(row):
                    row[u] = max(self.saturated(value + bias[f]), self.program.threshold_low)

    def take(self, event: tuple[int, int], address: tuple[int, int, int]) -> list[Spike]:
        """Visit the targets of one event and return the spikes in visiting order."""
        core, (c, y, x) = self.program, address
        channels, height, width = core.in_shape
        if not (0 <= c < channels and 0 <= y < height and 0 <= x < width):
            self.n_dropped += 1
            return []
        self.n_events += 1
        features, out_height, out_width = core.out_shape
        _, _, ky, kx = core.weight.shape
        emitted: list[Spike] = []
        for v in range(out_height):
            for u in range(out_width):
                b = y + core.padding[0] - v * core.stride[0]
                a = x + core.padding[1] - u * core.stride[1]
                if not (0 <= b < ky and 0 <= a < kx):
                    continue
                fired = [f for f in range(features) if self.visit(f, v, u, int(core.weight[f, c, b, a]))]
                emitted += [(*event, f, v, u) for f in fired]
        self.spikes += emitted
        return emitted

    def visit(self, f: int, v: int, u: int, weight: int) -> bool:
        """Add one weight to one neuron and return whether it fires."""
        self.synops += 1
        value = max(self.saturated(self.state[f][v][u] + weight), self.program.threshold_low)
        fires = value >= self.program.threshold_high
        if fires:
            value = 0 if self.program.reset == "zero" else value - self.program.threshold_high
        self.state[f][v][u] = value
        return fires


def run_reference(program: Program, events: Events, slow_clock_hz: float | None = None) -> dict[int, ReferenceCore]:
    """Return the cores of ``program`` by id, as they are after the last event."""
    cores = {core.core: ReferenceCore(core) for core in program.cores}
    period = None if slow_clock_hz is None else max(1, round(1e6 / slow_clock_hz))
    next_tick = period
    columns = (events.t_us.tolist(), events.p.tolist(), events.y.tolist(), events.x.tolist())
    for index, (t, p, y, x) in enumerate(zip(*columns, strict=True)):
        while period is not None and next_tick is not None and next_tick <= t:
            for core in cores.values():
                core.tick()
            next_tick += period
        address = through_dvs((p, y, x), program.dvs)
        emitted: dict[int, list[Spike]] = {}
        for core_id, core in cores.items():
            emitted[core_id] = core.take((index, t), address) if address and core_id in program.entry else []
            for source_id, source in list(cores.items()):
                if source_id == core_id:
                    break
                for _, _, f, v, u in emitted[source_id]:
                    for destination in source.program.destinations:
                        if destination.core == core_id:
                            pool, shift = destination.pool, destination.feature_shift
                            emitted[core_id] += core.take((index, t), (f + shift, v // pool, u // pool))
    return cores


def through_dvs(event: tuple[int, int, int], dvs: DvsConfig) -> tuple[int, int, int] | None:
    """Return the address of an event behind the input stage, None where it is cropped away."""
    p, y, x = event
    if dvs.merge or dvs.input_shape[0] == 1:
        p = 0
    y, x = y // dvs.pool[0], x // dvs.pool[1]
    if dvs.crop is not None:
        (top, bottom), (left, right) = dvs.crop
        if not (top <= y < bottom and left <= x < right):
            return None
        y, x, height, width = y - top, x - left, bottom - top, right - left
    else:
        height, width = dvs.input_shape[1] // dvs.pool[0], dvs.input_shape[2] // dvs.pool[1]
    if dvs.mirror[0]:
        if y >= height:
            return None
        y = height - 1 - y
    if dvs.mirror[1]:
        if x >= width:
            return None
        x = width - 1 - x
    return (p, x, y) if dvs.swap else (p, y, x)


def run_net(net: IntegerNet, events: Events) -> list[ReferenceCore]:
    """Return what the layers of a dense net do, with any number of ways from a layer or the input to others."""
    cores = []
    for index, layer in enumerate(net.layers):
        fields = ("name", "weight", "bias", "threshold_high", "threshold_low", "reset", "initial_state")
        steps = ("in_shape", "stride", "padding")
        cores.append(ReferenceCore(make_core(index, **{name: getattr(layer, name) for name in (*fields, *steps)})))
    features = np.zeros(len(events), int) if net.input_shape[0] == 1 else events.p
    columns = (events.t_us.tolist(), features.tolist(), events.y.tolist(), events.x.tolist())
    for number, (t, f, y, x) in enumerate(zip(*columns, strict=True)):
        emitted: dict[int, list[Spike]] = {INPUT: [(number, t, f, y, x)]}
        for index, core in enumerate(cores):
            emitted[index] = []
            for source in range(INPUT, index):
                ways = [edge for edge in net.edges if (edge.source, edge.target) == (source, index)]
                for _, _, c, v, u in emitted[source]:
                    for way in ways:
                        address = (c + way.feature_shift, v // way.pool[0], u // way.pool[1])
                        emitted[index] += core.take((number, t), address)
    return cores
