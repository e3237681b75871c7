"""What a spiking net does with recordings, in fixed time steps or event by event."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.models.events import Events

from .engine import Engine, Layers, Outcome
from .errors import InputError
from .geometry import Shape3, sum_pooled
from .layout import cells_behind
from .spikes import Activity, Spikes, pack
from .types import INPUT, SpikingNet, Trace

Order = Literal["steps", "events"]

STEP_US = 10_000
"""Time step of a simulation where none is given: 10 ms, as in sinabs' examples."""

_CELLS = 4_000_000
"""Neuron steps held at once; larger batches are simulated in parts.

Source: measured 2026-11-22, tutorial's CNN, 8 steps, 256 recordings, one core: 0.39 s; in one part 1.3 s, with a
sixteenth of it 1.0 s.
"""

_MAX_CELLS = 500_000_000
"""Neuron steps of one recording in dense maps: 2 GB for each copy of a layer's spikes."""


def simulate(
    net: SpikingNet,
    raster: ArrayLike,
    *,
    dt_us: int = STEP_US,
    record: Literal["all"] | None = None,
    engine: Engine = "auto",
) -> Trace:
    """Return what ``net`` does with a raster, in fixed time steps.

    In each step a layer adds the weighted spikes and its bias to the potential, emits as many spikes as whole
    thresholds fit, and keeps the rest, not below ``v_min``; each recording starts at ``v_init``. The chip works event
    by event: see ``simulate_events`` with ``order="events"``, and the emulator.
    ``engine`` says how this is computed: by sinabs on dense maps, by what each event does, or (``auto``) by either,
    layer by layer, as the activity and the amount of work suggest.
    Shapes: ``raster`` is ``[T, C, H, W]`` or ``[T, B, C, H, W]``; ``record="all"`` keeps all layers' spikes over time.
    Units: ``dt_us`` is the length of a step; it only labels the trace.
    Law: engines give the same trace where sums of weights are exact in float32. Others round differently: a few spikes
    in a million cells come a step earlier or later.
    Raises: InputError where the raster does not match the net's input, or a setting is unknown.
    """
    _check_choice("engine", engine, ("auto", "dense", "event"))
    batch = _checked_raster(net, raster).swapaxes(0, 1)
    n_samples, n_steps = batch.shape[:2]
    layers = Layers(net, engine, (n_samples, n_steps), max_cells=_MAX_CELLS)
    _check_sizes(_held(net, layers, record), n_steps)
    part = max(1, _CELLS // (n_steps * max(int(np.prod(layer.out_shape)) for layer in net.layers)))
    traces = []
    for first in range(0, n_samples, part):
        given = Activity(maps=batch[first : first + part])
        traces.append(_traced(net, given, layers.run(given), dt_us, record=record))
    return traces[0] if len(traces) == 1 else _joined(traces)


def simulate_events(
    net: SpikingNet,
    events: Events,
    *,
    dt_us: int = STEP_US,
    record: Literal["all"] | None = None,
    engine: Engine = "auto",
    order: Order = "steps",
) -> Trace:
    """Return what ``net`` does with one recording, from its first event on.

    A 1-channel net merges polarities. In steps of ``dt_us`` it is ``simulate`` of the raster, which the events do
    without: time grows with events, and in layers with a bias with steps. In ``order="events"`` each event is finished,
    with all that it causes, before the next, as on the chip and in float32: a neuron that it visits spikes at most once
    and keeps the surplus, no bias is added, and ``dt_us`` only says how the trace is cut into steps.
    Law: in ``order="events"`` a net of the integers of a program spikes as the emulator without a slow clock does,
    where no potential leaves int16.
    Raises: InputError where sensor or polarities are not the net's input, the recording is empty, a setting is unknown,
    or what is to be kept is too large.
    """
    _check_choice("engine", engine, ("auto", "dense", "event"))
    _check_choice("order", order, ("steps", "events"))
    if order == "events" and engine == "dense":
        raise InputError("engine: expected 'auto' or 'event' for order 'events', found 'dense'. Try engine='event'.")
    if net.input_shape[0] > 2:
        raise InputError(
            f"recording: expected a net of 1 input channel or 2 for the polarities, found {net.input_shape[0]}. "
            "Try simulate() with a raster of its channels."
        )
    if events.sensor_size != net.input_shape[1:]:
        raise InputError(
            f"recording: expected a sensor of {_size(net.input_shape[1:])} as the net's input, "
            f"found {_size(events.sensor_size)}. Try a net for this sensor, or crop the recording."
        )
    if not len(events):
        raise InputError("recording: expected at least one event, found none. Try another recording.")
    if dt_us < 1:
        raise InputError(f"dt_us: expected at least 1 microsecond, found {dt_us}. Try 10000 for steps of 10 ms.")
    bins = (events.t_us - events.t_us[0]) // dt_us
    span = 1, int(bins[-1]) + 1
    layers = Layers(net, "event" if order == "events" else engine, span, max_cells=_MAX_CELLS)
    _check_sizes([*_held(net, layers, record), *([net.input_shape] if layers.is_dense else [])], span[1])
    channel = np.zeros(len(events), np.int64) if net.input_shape[0] == 1 else events.p.astype(np.int64)
    cells = (channel * events.sensor_size[0] + events.y) * events.sensor_size[1] + events.x
    if order == "steps":
        given = Activity(spikes=pack(bins, cells, shape=net.input_shape, span=span))
        return _traced(net, given, layers.run(given), dt_us, record=record)
    singly = pack(np.arange(len(events)), cells, shape=net.input_shape, span=(1, len(events)))

    def in_steps(spikes: Spikes) -> Activity:
        return Activity(spikes=spikes.at(bins[spikes.steps], span))

    outcomes = (dataclasses.replace(one, emitted=in_steps(one.emitted.spikes)) for one in layers.run_singly(singly))
    return _traced(net, in_steps(singly), outcomes, dt_us, record=record)


def _check_choice(name: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise InputError(f"{name}: expected one of {', '.join(choices)}, found {found!r}. Try {choices[0]!r}.")


def _checked_raster(net: SpikingNet, raster: ArrayLike) -> NDArray[Any]:
    array = np.asarray(raster)
    batch = array[:, None] if array.ndim == 4 else array
    if batch.ndim != 5 or batch.shape[2:] != net.input_shape or 0 in batch.shape:
        raise InputError(
            f"raster: expected shape [T, {', '.join(map(str, net.input_shape))}], or the same with a batch axis "
            f"behind T, found {list(array.shape)}. Try Events.to_raster(dt_us)."
        )
    if not np.isfinite(batch).all():
        raise InputError("raster: expected finite numbers, found NaN or infinity.")
    return batch


def _held(net: SpikingNet, layers: Layers, record: Literal["all"] | None) -> list[Shape3]:
    """Return the shapes of the maps that are held for all steps of a recording."""
    if layers.is_dense or record == "all":
        return [layer.out_shape for layer in net.layers]
    return [net.output_shape or (1, 1, 1)]


def _check_sizes(shapes: Sequence[Shape3], n_steps: int) -> None:
    cells = n_steps * max(int(np.prod(shape)) for shape in shapes)
    if cells > _MAX_CELLS:
        raise InputError(
            f"recording: expected at most {_MAX_CELLS:,} neuron steps in the largest map that is kept, found {cells:,} "
            f"({n_steps:,} steps). Try engine='event' without record, longer steps, or a shorter recording."
        )


def _traced(
    net: SpikingNet,
    given: Activity,
    outcomes: Iterable[Outcome],
    dt_us: int,
    *,
    record: Literal["all"] | None,
) -> Trace:
    input_counts = given.totals()
    output = np.zeros((*given.span, *(net.output_shape or (0, 0, 0))), np.float32)
    counts, states, kept = [], [], []
    _add_output(net, INPUT, given, output)
    for index, outcome in enumerate(outcomes):
        counts.append(_own(outcome.counts))
        states.append(_own(outcome.states))
        _add_output(net, index, outcome.emitted, output)
        if record == "all":
            kept.append(_own(np.rint(outcome.emitted.maps.swapaxes(0, 1)).astype(np.int32, order="C")))
    return Trace(
        input_counts=input_counts,
        counts=tuple(counts),
        output=np.rint(_flat(output).swapaxes(0, 1)).astype(np.int64, order="C"),
        output_states=_output_states(net, states),
        states=tuple(states),
        spikes=tuple(kept) if record == "all" else None,
        dt_us=dt_us,
    )


def _add_output(net: SpikingNet, source: int, emitted: Activity, output: NDArray[np.float32]) -> None:
    """Add to ``output`` ``[B, T, *output_shape]`` what of a source leaves the net."""
    shape: Shape3 = output.shape[2:]
    for edge in net.outgoing(source):
        if edge.target is not None or not net.output_shape:
            continue
        if emitted.is_dense:
            leaving = sum_pooled(emitted.maps, edge.pool)
            output[:, :, edge.feature_shift : edge.feature_shift + leaving.shape[2]] += leaving
            continue
        spikes, n_cells = emitted.spikes, int(np.prod(shape))
        cells = cells_behind(edge, spikes.shape, shape)[spikes.places]
        leaves = cells < n_cells
        np.add.at(output.reshape(-1), (spikes.steps * n_cells + cells)[leaves], spikes.amounts[leaves])


def _output_states(net: SpikingNet, states: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the last potential behind each class ``[B, classes]``, summed over the pool of its output edge."""
    total = np.zeros((len(states[0]), *(net.output_shape or (0, 0, 0))), np.float32)
    for edge in net.edges if net.output_shape else ():
        if edge.target is None and edge.source != INPUT:
            state = sum_pooled(states[edge.source], edge.pool)
            total[:, edge.feature_shift : edge.feature_shift + state.shape[1]] += state
    return _flat(total)


def _flat(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return maps ``[..., F, H, W]`` with one axis in place of three."""
    return maps.reshape(*maps.shape[:-3], int(np.prod(maps.shape[-3:])))


def _joined(traces: list[Trace]) -> Trace:
    layers = range(len(traces[0].counts))
    spikes = None
    if traces[0].spikes is not None:
        spikes = tuple(_own(np.concatenate([t.spikes[i] for t in traces if t.spikes], axis=1)) for i in layers)
    return Trace(
        input_counts=np.concatenate([trace.input_counts for trace in traces]),
        counts=tuple(_own(np.concatenate([trace.counts[i] for trace in traces])) for i in layers),
        output=np.concatenate([trace.output for trace in traces], axis=1),
        output_states=np.concatenate([trace.output_states for trace in traces]),
        states=tuple(_own(np.concatenate([trace.states[i] for trace in traces])) for i in layers),
        spikes=spikes,
        dt_us=traces[0].dt_us,
    )


def _own(array: NDArray[Any]) -> NDArray[Any]:
    """Return a fresh array read-only, so that a record keeps it instead of a copy."""
    array.flags.writeable = False
    return array


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
