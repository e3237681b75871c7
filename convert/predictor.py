"""A spiking net as a predictor: recordings or rasters in time steps, with potentials that go on from piece to piece."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.events import Events
from spikeport.models.predictor import (
    MAIN,
    Confidence,
    Inputs,
    Response,
    RunOptions,
    check_raster,
    check_recordings,
)
from spikeport.models.window import OpenSteps, no_events

from .engine import EventLayer, Outcome
from .errors import InputError
from .geometry import sum_pooled
from .layout import BLOCK, Floats, aligned, cells_behind, to_neurons
from .power import estimate_power
from .profiles import PowerProfile
from .simulate import STEP_US
from .spikes import Activity, find_spikes, pack
from .store import net_hash, save_net
from .synops import EdgeTraffic, LayerSynops, SynopReport, edge_reach
from .types import INPUT, SpikingLayer, SpikingNet

Int64s = NDArray[np.int64]

_CLOCK = "clock/"


@dataclasses.dataclass(frozen=True, eq=False)
class NetPredictor:
    """A spiking net in time steps of ``step_us``, computed by what each event does.

    The output counts spikes of each class in each step. A 1-channel net merges polarities.
    Law: equal, bit for bit, whatever batches and pieces the input comes in; equal to ``simulate`` where sums of weights
    are exact in float32.
    Raises: InputError where the net has no classes, or the step is none.
    """

    net: SpikingNet
    step_us: int = STEP_US
    classes: tuple[str, ...] = ()
    power: str | PowerProfile = "speck2f"
    name: str = "spiking net"
    readout: str = "spike_count"
    confidence: Confidence = "share"

    def __post_init__(self) -> None:
        if self.net.output_shape is None:
            raise InputError("predictor: expected outputs of one map size, found several: no classes. Try simulate().")
        if self.step_us < 1:
            raise InputError(f"step_us: expected at least 1 microsecond, found {self.step_us}. Try 10000.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(channels, height, width)`` of the input."""
        return self.net.input_shape

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """The classes: places of the net's ``output_shape``, flattened as torch does."""
        return {MAIN: (int(np.prod(self.net.output_shape or (0,))),)}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.net.layers)

    @property
    def is_idle(self) -> bool:
        """Whether steps without input change nothing: no layer has a bias."""
        return all(layer.bias is None or not layer.bias.any() for layer in self.net.layers)

    def start(self, options: RunOptions) -> NetRun:
        """Return a fresh run."""
        return NetRun(self, options)

    def fingerprint(self) -> str:
        """Return a hash of the net, the step and the power profile."""
        return hashlib.sha256(f"{net_hash(self.net)} {self.step_us} {self.power!r}".encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the net with its step and class names to one file.

        Law: ``spikeport.deploy.open_predictor(path)`` answers the same.
        """
        save_net(self.net, path, notes={"step_us": self.step_us, "classes": list(self.classes)})

    def energy_j(self, response: Response, lengths_us: Int64s) -> NDArray[np.float64]:
        """Return the estimated energy of each sample: lowest, middle, highest.

        Shapes: ``[B, 3]``.
        Units: joules, over the length of each sample.
        """
        clock_hz = 0.0 if self.is_idle else 1e6 / self.step_us
        bands = []
        for row, length_us in enumerate(lengths_us.tolist()):
            report = self._report(response, row, length_us * 1e-6)
            power = estimate_power(report, self.power, slow_clock_hz=clock_hz)
            bands.append([power.low_w, power.mid_w, power.high_w])
        return np.asarray(bands, np.float64) * (lengths_us[:, None] * 1e-6)

    def _report(self, response: Response, row: int, seconds: float) -> SynopReport:
        layers = [
            LayerSynops(
                name=layer.name,
                n_emitted=0,
                n_input_spikes=0,
                synops=int(response.synops[layer.name][row]),
                n_output_spikes=int(response.spikes[layer.name][row]),
                n_neurons=int(np.prod(layer.out_shape)),
                n_leaking=0 if layer.bias is None else int(np.count_nonzero(layer.bias) * np.prod(layer.out_shape[1:])),
            )
            for layer in self.net.layers
        ]
        edges = [
            EdgeTraffic(
                source=None if edge.source == INPUT else self.layers[edge.source],
                target=None if edge.target is None else self.layers[edge.target],
                pool=edge.pool,
                feature_shift=edge.feature_shift,
                n_routed=0 if edge.source == INPUT else int(response.spikes[self.layers[edge.source]][row]),
                n_arrived=0,
                synops=0,
            )
            for edge in self.net.edges
        ]
        return SynopReport(tuple(layers), 1, seconds, tuple(edges), int(response.n_events[row]))


class NetRun:
    """A spiking net at work: the potentials of its layers, the clock, and the events of the open step."""

    def __init__(self, predictor: NetPredictor, options: RunOptions) -> None:
        self._predictor, self._net, self._options = predictor, predictor.net, options
        self._layers = tuple(_Going(layer) for layer in self._net.layers)
        self._steps = OpenSteps(predictor.step_us, who=predictor.name)
        self._reach = [(edge, edge_reach(self._net, edge)) for edge in self._net.edges]

    def feed(self, inputs: Inputs, until_us: int) -> Response:
        """Return the steps that ended."""
        who, shape = self._predictor.name, self._net.input_shape
        if isinstance(inputs, np.ndarray):
            raster = check_raster(inputs, shape, who=who)
            self._steps.skip(len(raster))
            maps = np.ascontiguousarray(raster.swapaxes(0, 1), np.float32)
            is_count = bool((maps >= 0).all() and (maps == np.rint(maps)).all())
            n_events = maps.sum(axis=(1, 2, 3, 4), dtype=np.float64).astype(np.int64) if is_count else None
            return self._run(Activity(spikes=find_spikes(maps)), raster.shape[0], raster.shape[1], n_events)
        check_recordings(inputs, shape, who=who)
        first = self._steps.n_done
        taken, n_steps = self._steps.take(inputs, until_us)
        n_events = np.array([len(events) for events in inputs], np.int64)
        return self._run(self._packed(taken, first, n_steps), n_steps, len(taken), n_events)

    def finish(self) -> Response:
        """Return the open step; none where no event waits."""
        empty = no_events(self._net.input_shape[1:])
        n_samples = max(1, self._steps.n_waiting)
        n_steps = 1 if self._steps.is_waiting else 0
        return self.feed([empty] * n_samples, (self._steps.n_done + n_steps) * self._predictor.step_us)

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:
        """Set the clock to 0, the potentials to their start, and drop the events that wait, as asked."""
        self._steps.reset(time=time, pending=pending)
        if state:
            for layer in self._layers:
                layer.maps = None

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the potentials ``[B, F, H, W]`` by layer, the clock, and what waits."""
        kept = {name: one.maps for name, one in zip(self._predictor.layers, self._layers, strict=True)}
        return {
            **{name: maps for name, maps in kept.items() if maps is not None},
            **{f"{_CLOCK}{name}": array for name, array in self._steps.state().items()},
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned.

        Raises: InputError where it is of another net.
        """
        for name, layer in zip(self._predictor.layers, self._layers, strict=True):
            maps = state.get(name)
            if maps is not None and (maps.ndim != 4 or maps.shape[1:] != layer.out_shape):
                raise InputError(
                    f"state: layer '{name}': expected potentials of shape [batch, {layer.out_shape}], found "
                    f"{list(maps.shape)}. Try the state of this very net."
                )
            layer.maps = None if maps is None else np.array(maps, np.float32)
        clock = {key.removeprefix(_CLOCK): array for key, array in state.items() if key.startswith(_CLOCK)}
        self._steps.restore(clock)

    def _packed(self, taken: Sequence[Events], first: int, n_steps: int) -> Activity:
        height, width = self._net.input_shape[1:]
        is_merged = self._net.input_shape[0] == 1
        steps, cells = [], []
        for row, events in enumerate(taken):
            steps.append(events.t_us // self._predictor.step_us - first + row * n_steps)
            channel = np.zeros(len(events), np.int64) if is_merged else events.p.astype(np.int64)
            cells.append((channel * height + events.y) * width + events.x)
        span = len(taken), n_steps
        return Activity(
            spikes=pack(np.concatenate(steps), np.concatenate(cells), shape=self._net.input_shape, span=span)
        )

    def _run(self, given: Activity, n_steps: int, n_samples: int, n_events: Int64s | None) -> Response:
        net, profile = self._net, dict[str, float]()
        ends_us = self._steps.ends_us(n_steps, n_samples)
        none = np.zeros(n_samples, np.int64)
        if not n_steps:
            return Response(
                outputs={MAIN: np.zeros((0, n_samples, *self._predictor.outputs[MAIN]), np.int64)},
                ends_us=ends_us,
                n_events=none if n_events is None else n_events,
                tie_breaks={MAIN: _output_states(net, [one.potentials(n_samples) for one in self._layers])},
                spikes=dict.fromkeys(self._predictor.layers, none),
                synops={} if n_events is None else dict.fromkeys(self._predictor.layers, none),
                recorded={
                    layer.name: np.zeros((0, n_samples, *layer.out_shape), np.int32)
                    for layer in net.layers
                    if layer.name in self._options.record
                },
            )
        emitted: dict[int, Activity] = {INPUT: given}
        outcomes: list[Outcome] = []
        for index, layer in enumerate(self._layers):
            started = time.perf_counter()
            outcome = layer.run([(edge, emitted[edge.source].spikes) for edge in net.incoming(index)])
            layer.maps = outcome.states
            emitted[index] = outcome.emitted
            outcomes.append(outcome)
            profile[net.layers[index].name] = time.perf_counter() - started
        counts = [given.totals(), *(outcome.counts for outcome in outcomes)]
        names = self._predictor.layers
        return Response(
            outputs={MAIN: _output_counts(net, [given, *(outcome.emitted for outcome in outcomes)])},
            ends_us=ends_us,
            n_events=none if n_events is None else n_events,
            tie_breaks={MAIN: _output_states(net, [outcome.states for outcome in outcomes])},
            spikes={name: one.counts.sum(axis=(1, 2, 3)) for name, one in zip(names, outcomes, strict=True)},
            synops={} if n_events is None else self._synops(counts),
            recorded={
                name: np.rint(outcome.emitted.maps.swapaxes(0, 1)).astype(np.int32)
                for name, outcome in zip(names, outcomes, strict=True)
                if name in self._options.record
            },
            profile=profile if self._options.profile else {},
        )

    def _synops(self, counts: Sequence[NDArray[Any]]) -> dict[str, Int64s]:
        """Return the synops ``[B]`` of each layer; ``counts`` begins with the input."""
        summed = [np.rint(one.sum(axis=1)).astype(np.int64) for one in counts]
        total = {name: np.zeros(len(counts[0]), np.int64) for name in self._predictor.layers}
        for edge, reach in self._reach:
            if edge.target is not None and reach is not None:
                arrived = sum_pooled(summed[edge.source + 1], edge.pool)
                total[self._predictor.layers[edge.target]] += (arrived * reach).sum(axis=(1, 2))
        return total


def _output_counts(net: SpikingNet, emitted: Sequence[Activity]) -> Int64s:
    """Return the spikes that leave the net, ``[T, B, classes]``; ``emitted`` begins with the input."""
    shape = net.output_shape or (0, 0, 0)
    n_samples, n_steps = emitted[0].span
    n_cells = int(np.prod(shape))
    total = np.zeros(n_samples * n_steps * n_cells)
    for edge in (edge for edge in net.edges if edge.target is None):
        spikes = emitted[edge.source + 1].spikes
        cells = cells_behind(edge, spikes.shape, shape)[spikes.places]
        leaves = cells < n_cells
        total += np.bincount((spikes.steps * n_cells + cells)[leaves], spikes.amounts[leaves], total.size)
    return np.rint(total.reshape(n_samples, n_steps, n_cells).swapaxes(0, 1)).astype(np.int64)


def _output_states(net: SpikingNet, states: Sequence[Floats]) -> Floats:
    """Return the last potential behind each class, summed over the pool of its output edge, ``[B, classes]``."""
    total = np.zeros((len(states[0]), *(net.output_shape or (0, 0, 0))), np.float32)
    for edge in (edge for edge in net.edges if edge.target is None and edge.source != INPUT):
        state = sum_pooled(states[edge.source], edge.pool)
        total[:, edge.feature_shift : edge.feature_shift + state.shape[1]] += state
    return total.reshape(len(total), -1)


class _Going(EventLayer):
    """A layer whose next run starts where the last one ended: at ``maps`` ``[B, F, H, W]``, None for the beginning."""

    def __init__(self, layer: SpikingLayer) -> None:
        self.maps: Floats | None = None
        self.out_shape = layer.out_shape
        self._first = layer.v_init
        super().__init__(layer)

    def potentials(self, n_samples: int) -> Floats:
        """Return the potentials of now."""
        if self.maps is None:
            first = np.zeros(self.out_shape, np.float32) if self._first is None else self._first
            return np.broadcast_to(first, (n_samples, *self.out_shape))
        if len(self.maps) < n_samples:
            raise InputError(
                f"run: expected at most {len(self.maps)} recordings, as in the piece before, found {n_samples}. "
                "Try reset() between batches."
            )
        return self.maps[:n_samples]

    def _start(self, n_samples: int) -> Floats:
        if self.maps is None:
            return super()._start(n_samples)
        return aligned(to_neurons(self.potentials(n_samples), self._layer), BLOCK)
