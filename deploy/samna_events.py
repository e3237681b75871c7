"""Recordings and neuron states to events of the vendor's driver, and back; its module is passed in.

Source of names and addresses: documentation of samna 0.48; Speck2e/2et/2f datasheet v1.02.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Shape3
from spikeport.models.arrays import frozen
from spikeport.models.events import Events

from .budget import power_of_two
from .samna_config import feeds_cores
from .types import SPIKE, CoreProgram, Program

Int64s = NDArray[np.int64]

RAW_SPIKE = np.dtype(
    [("core", np.int16), ("stamp_us", np.int64), *[(name, np.int16) for name in ("feature", "y", "x")]]
)
"""A spike as a board reports it: its time stamp counts from the start of the board's stop-watch."""


RAW_EVENT = np.dtype([("stamp_us", np.int64), *[(name, np.int16) for name in ("p", "y", "x")]])
"""An event of the sensor as a board reports it."""


def encode_events(program: Program, events: Events, stamps_us: Int64s, driver: Any) -> Iterator[Any]:
    """Yield what a recording is for the driver, each event at its time stamp.

    A program without an input stage is fed by spikes, one for each entry core, in network order; else by events of the
    camera.
    Shapes: ``stamps_us`` has one value per event.
    """
    columns = (events.p.tolist(), events.y.tolist(), events.x.tolist(), stamps_us.tolist())
    if not feeds_cores(program.dvs):
        for p, y, x, stamp in zip(*columns, strict=True):
            event = driver.event.DvsEvent()
            event.p, event.y, event.x, event.timestamp = bool(p), y, x, stamp
            yield event
        return
    is_merged = program.dvs.merge or program.dvs.input_shape[0] == 1
    entries = [core.core for core in program.cores if core.core in program.entry]
    for p, y, x, stamp in zip(*columns, strict=True):
        for entry in entries:
            spike = driver.event.Spike()
            spike.layer, spike.feature, spike.y, spike.x = entry, 0 if is_merged else p, y, x
            spike.timestamp = stamp
            yield spike


def encode_states(core: CoreProgram, driver: Any) -> Iterator[Any]:
    """Yield the events that write the initial state of every neuron of a core."""
    addresses = neuron_addresses(core.out_shape).ravel().tolist()
    for address, state in zip(addresses, core.initial_state.ravel().tolist(), strict=True):
        event = driver.event.WriteNeuronValue()
        event.layer, event.address, event.neuron_state = core.core, address, state
        yield event


def encode_reads(core: CoreProgram, driver: Any, step: int = 1) -> Iterator[Any]:
    """Yield the events that ask for the state of every ``step``-th neuron of a core."""
    for address in neuron_addresses(core.out_shape).ravel()[::step].tolist():
        event = driver.event.ReadNeuronValue()
        event.layer, event.address = core.core, address
        yield event


def decode_states(answers: Iterable[Any], core: CoreProgram) -> dict[int, int]:
    """Return the states of a core that a board reported, by the address of the neuron."""
    values = (one for one in answers if hasattr(one, "neuron_state") and int(one.layer) == core.core)
    return {int(one.address): int(one.neuron_state) for one in values}


def fill_states(core: CoreProgram, states: dict[int, int]) -> NDArray[np.int16] | None:
    """Return the states of a core, None where a board did not report every neuron.

    Shapes: ``[F, H, W]``.
    """
    addresses = neuron_addresses(core.out_shape).ravel().tolist()
    if any(address not in states for address in addresses):
        return None
    values = np.array([states[address] for address in addresses], np.int16)
    return frozen(values.reshape(core.out_shape))


def decode_spikes(answers: Iterable[Any], cores: Iterable[int]) -> NDArray[Any]:
    """Return the spikes among a board's events that are of the given cores, in order of arrival.

    Shapes: structured array of ``RAW_SPIKE``.
    """
    wanted = set(cores)
    rows = [
        (int(one.layer), int(one.timestamp), int(one.feature), int(one.y), int(one.x))
        for one in answers
        if hasattr(one, "feature") and int(one.layer) in wanted
    ]
    return np.array(rows, RAW_SPIKE)


def decode_stretch(answers: Iterable[Any], cores: Iterable[int]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Return the spikes of the given cores, the events of the sensor, and the number of states, in order of arrival.

    Shapes: structured arrays of ``RAW_SPIKE`` and ``RAW_EVENT``.
    """
    wanted = set(cores)
    spikes, seen, n_states = [], [], 0
    for one in answers:
        layer = getattr(one, "layer", None)
        if layer is None:
            if hasattr(one, "p"):
                seen.append((int(one.timestamp), int(one.p), int(one.y), int(one.x)))
        elif (feature := getattr(one, "feature", None)) is None:
            n_states += hasattr(one, "neuron_state")
        elif int(layer) in wanted:
            spikes.append((int(layer), int(one.timestamp), int(feature), int(one.y), int(one.x)))
    return np.array(spikes, RAW_SPIKE), np.array(seen, RAW_EVENT), n_states


def attribute(raw: NDArray[Any], events: Events, stamps_us: Int64s) -> NDArray[Any]:
    """Return spikes with the input events that caused them: the last ones that were not later.

    Shapes: ``raw`` of ``RAW_SPIKE``, the result of ``SPIKE``; ``stamps_us`` are the times at which ``events`` were due.
    """
    cause = np.maximum(np.searchsorted(stamps_us, raw["stamp_us"], side="right") - 1, 0)
    spikes = np.empty(len(raw), SPIKE)
    spikes["event"], spikes["t_us"] = cause, events.t_us[cause]
    for axis in ("feature", "y", "x"):
        spikes[axis] = raw[axis]
    spikes.flags.writeable = False
    return spikes


def count_spikes(spikes: NDArray[Any], shape: Shape3) -> Int64s:
    """Return the spikes of each neuron.

    Shapes: ``[F, H, W]``; spikes outside of it are left out.
    """
    places = np.stack([spikes[axis].astype(np.int64) for axis in ("feature", "y", "x")])
    inside = ((places >= 0) & (places < np.array(shape)[:, None])).all(axis=0)
    flat = np.ravel_multi_index(tuple(places[:, inside]), shape)
    return frozen(np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape), np.int64)


def neuron_addresses(shape: Shape3) -> Int64s:
    """Return the address of each neuron in the memory of a core.

    Shapes: ``[F, H, W]``. An address is made of bit fields: row above column above feature.
    Source: datasheet v1.02; the vendor's own helper shifts the row by the bits of the height, which is the same for
    square maps, on which it was tried.
    """
    features, height, width = shape
    f, y, x = np.ogrid[:features, :height, :width]
    per_pixel = power_of_two(features)
    return np.asarray((y * power_of_two(width) + x) * per_pixel + f, np.int64)
