"""Random programs with a recording each, small enough for the plain-Python reference, and a builder of cores."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.random import Generator

from spikeport.convert.geometry import Pair, Shape3, out_edge
from spikeport.deploy.types import CoreProgram, Destination, DvsConfig, Program, Reset
from spikeport.models.events import Events

_SYNOPS = 25_000  # of one case in the reference, roughly


@dataclasses.dataclass(frozen=True)
class Case:
    """A program, a recording, and the rate of the slow clock."""

    program: Program
    events: Events
    slow_clock_hz: float | None


@functools.cache
def random_case(seed: int) -> Case:
    """Return the case of ``seed``: up to five cores in any order of ids, joined to a random graph without loops."""
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 3))
    dvs = DvsConfig(
        (channels, int(rng.integers(3, 17)), int(rng.integers(3, 17))),
        merge=bool(rng.random() < 0.3),
        pool=(int(rng.choice([1, 1, 2, 4])), int(rng.choice([1, 1, 2, 4]))),
    )
    n_cores = int(rng.integers(1, 6))
    ids = [int(i) for i in rng.permutation(9)[:n_cores]]
    feeds: list[list[Destination]] = [[] for _ in ids]
    entry = [ids[0]]
    cores: list[CoreProgram] = []
    n_per_event = 0.0
    rate = 1.0
    for position, core_id in enumerate(ids):
        arriving: Shape3 = (channels, -(-dvs.input_shape[1] // dvs.pool[0]), -(-dvs.input_shape[2] // dvs.pool[1]))
        if position:
            sources = rng.choice(position, size=min(position, int(rng.integers(1, 3))), replace=False)
            for source in sources:
                for _ in range(1 + int(rng.random() < 0.2)):
                    feeds[source].append(
                        Destination(core_id, int(rng.choice([1, 1, 2, 2, 4, 3])), int(rng.integers(0, 3)))
                    )
            features, height, width = cores[sources[0]].out_shape
            pool = feeds[sources[0]][-1].pool
            arriving = (features + int(rng.integers(0, 3)), -(-height // pool), -(-width // pool))
            if rng.random() < 0.2:
                entry.append(core_id)
        core, activity = _random_core(rng, core_id, arriving)
        cores.append(core)
        features, height, width = core.out_shape
        fan = features * min(height, core.weight.shape[2]) * min(width, core.weight.shape[3])
        n_per_event += rate * fan
        rate = max(rate, rate * fan * activity)
    for position, destinations in enumerate(feeds):
        if not destinations or rng.random() < 0.2:
            destinations.insert(
                int(rng.integers(0, len(destinations) + 1)), Destination(None, int(rng.choice([1, 2])), 0)
            )
        cores[position] = dataclasses.replace(cores[position], destinations=tuple(destinations))
    events = random_events(rng, dvs.input_shape, int(np.clip(_SYNOPS / n_per_event, 3, 120)))
    span_s = (int(events.t_us[-1]) + 1) / 1e6
    slow_clock_hz = None if rng.random() < 0.3 else float(rng.choice([0.5, 3, 20, 300])) / span_s
    return Case(Program("speck2fdevkit", tuple(cores), tuple(entry), dvs), events, slow_clock_hz)


def wide_case(seed: int) -> Case:
    """Return a case of two cores with up to 150 features: runs that fill no, one and several vectors."""
    rng = np.random.default_rng(seed)
    features, others = int(rng.integers(1, 150)), int(rng.integers(1, 100))
    edge, kernel, stride = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
    reset: Reset = "zero" if rng.random() < 0.5 else "subtract"
    first = make_core(
        0,
        weight=_random_weight(rng, (features, 2, kernel, kernel)),
        threshold_high=int(rng.integers(1, 200)),
        threshold_low=-int(rng.integers(1, 200)),
        reset=reset,
        in_shape=(2, edge, edge),
        stride=(stride, stride),
        padding=(kernel - 1, kernel - 1),
        destinations=(Destination(1),),
    )
    second = make_core(
        1,
        weight=_random_weight(rng, (others, features, 2, 2)),
        threshold_high=int(rng.integers(1, 2000)),
        in_shape=first.out_shape,
        padding=(1, 1),
        destinations=(Destination(None),),
    )
    program = Program("speck2fdevkit", (first, second), (0,), DvsConfig((2, edge, edge)))
    n_events = int(np.clip(4 * _SYNOPS / (features * others * kernel**2), 3, 40))
    return Case(program, random_events(rng, (2, edge, edge), n_events), None)


def random_events(rng: Generator, input_shape: Shape3, n_events: int) -> Events:
    """Return ``n_events`` events anywhere on the sensor, some at equal times, the first not at time 0."""
    _, height, width = input_shape
    t_us = np.sort(rng.integers(0, 400 * n_events, n_events)) // 100 * 100
    return Events(
        x=rng.integers(0, width, n_events),
        y=rng.integers(0, height, n_events),
        p=rng.integers(0, 2, n_events),
        t_us=t_us,
        sensor_size=(height, width),
    )


def make_core(core: int = 0, **fields: Any) -> CoreProgram:
    """Return a core of one neuron with weight 127 and threshold 127; ``fields`` replace what they name."""
    weight = np.asarray(fields.pop("weight", [[[[127]]]]))
    in_shape = fields.pop("in_shape", (weight.shape[1], 1, 1))
    stride, padding = fields.pop("stride", (1, 1)), fields.pop("padding", (0, 0))
    edges = (out_edge(in_shape[i + 1], weight.shape[i + 2], stride[i], padding[i]) for i in (0, 1))
    out_shape = (weight.shape[0], *edges)
    defaults: dict[str, Any] = {
        "name": f"conv{core}",
        "bias": None,
        "threshold_high": 127,
        "threshold_low": -127,
        "reset": "subtract",
        "initial_state": np.zeros(out_shape, np.int16),
        "destinations": (Destination(None),),
        "monitor": True,
        "scale": 1.0,
    }
    shapes = {"in_shape": in_shape, "out_shape": out_shape, "stride": stride, "padding": padding}
    return CoreProgram(core=core, weight=weight, **shapes, **(defaults | fields))


def _random_core(rng: Generator, core: int, arriving: Shape3) -> tuple[CoreProgram, float]:
    """Return a core for maps of about ``arriving``, and a guess of the spikes per synop."""
    channels, height, width = arriving
    if rng.random() < 0.25:  # smaller than what arrives, so that events are dropped
        channels, height, width = (max(1, edge - int(rng.integers(0, 2))) for edge in (channels, height, width))
    ky, pad_y, stride_y = _random_steps(rng, height)
    kx, pad_x, stride_x = _random_steps(rng, width)
    stride: Pair = (stride_y, stride_x)
    features = int(rng.integers(1, 5))
    weight = _random_weight(rng, (features, channels, ky, kx))
    high, low, activity = _random_thresholds(rng)
    bound = int(rng.choice([10, 3000, 32768]))
    bias = rng.integers(-bound, bound, features) if rng.random() < 0.5 else None
    shape = (features, out_edge(height, ky, stride_y, pad_y), out_edge(width, kx, stride_x, pad_x))
    reset: Reset = "zero" if rng.random() < 0.4 else "subtract"
    program = make_core(
        core,
        weight=weight,
        bias=bias,
        threshold_high=high,
        threshold_low=low,
        reset=reset,
        initial_state=_random_state(rng, shape, high),
        in_shape=(channels, height, width),
        stride=stride,
        padding=(pad_y, pad_x),
        monitor=bool(rng.random() < 0.5),
    )
    return program, activity


def _random_steps(rng: Generator, size: int) -> tuple[int, int, int]:
    """Return kernel edge, padding and stride for one axis, such that the output has at least one position."""
    padding = int(rng.choice([0, 0, 1, 2, 3]))
    kernel = int(rng.integers(1, min(5, size + 2 * padding) + 1))
    return kernel, padding, int(rng.choice([1, 1, 1, 2, 3, 4]))


def _random_weight(rng: Generator, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    kind = rng.integers(0, 3)
    if kind == 0:
        return rng.integers(-128, 128, shape)
    if kind == 1:
        return rng.choice([-128, 127, 0, 40], shape)
    return np.clip(np.rint(rng.normal(8, 30, shape)), -128, 127).astype(np.int64)


def _random_thresholds(rng: Generator) -> tuple[int, int, float]:
    """Return upper and lower threshold, and a guess of the spikes per synop."""
    kind = rng.random()
    if kind < 0.2:
        high, activity = int(rng.integers(1, 30)), 0.5
    elif kind < 0.4:
        high, activity = int(rng.integers(32_600, 32_768)), 0.2
    else:
        high, activity = int(rng.integers(60, 400)), 0.15
    low = rng.choice([-1, -high, -2 * high, -32_768 + int(rng.integers(0, 100))])
    return high, int(max(low, -32_768)), activity


def _random_state(rng: Generator, shape: Shape3, high: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    kind = rng.integers(0, 4)
    if kind == 0:
        return rng.integers(-32_768, 32_768, shape)
    if kind == 1:
        return rng.choice([-32_768, 32_767, high, high - 1], shape)
    return np.zeros(shape, np.int64) if kind == 2 else rng.integers(-50, 50, shape)
