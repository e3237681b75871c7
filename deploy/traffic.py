"""Peak rates per core of a run: the busiest window, by the time of the events that cause the work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import fan_out
from spikeport.convert.profiles import UNKNOWN_LIMIT, RateLimit
from spikeport.convert.traffic import LayerPeaks, Peak, TrafficReport, event_synops, peak_rate
from spikeport.models.events import Events

from .dvs import entering
from .errors import RecordingError
from .types import CoreProgram, Program, Recording

Stream = tuple[NDArray[np.integer[Any]], NDArray[np.int64]]


def find_core_peaks(
    program: Program, recording: Recording, *, events: Events, window_us: int, core_limit: RateLimit = UNKNOWN_LIMIT
) -> TrafficReport:
    """Return the peak rates of each core in a run that recorded all spikes, over a window that slides by one event.

    A spike counts at the time of the input event that caused it, as the recording has it: the chip's own delays are not
    known. ``events`` is what was run.
    Law: over a window longer than the recording the synops are those the emulator counted.
    Raises: RecordingError where the recording lacks the spikes of a core.
    """
    missing = [core.name for core in program.cores if core.core not in recording.spikes]
    if missing:
        raise RecordingError(
            f"core peaks: expected the spikes of all cores, found none of {', '.join(missing)}. "
            'Try run(program, events, record="all").'
        )
    layers = []
    for core in program.cores:
        arriving = _arriving(core, program, recording, events)
        spikes = recording.spikes[core.core]
        each = np.full(len(spikes), len(core.destinations), np.int64)
        layers.append(
            LayerPeaks(
                core.name,
                synops=_peak([(times, synops) for times, synops in arriving], window_us),
                received=_peak([(times, np.ones_like(synops)) for times, synops in arriving], window_us),
                sent=_peak([(spikes["t_us"], each)], window_us),
            )
        )
    return TrafficReport(tuple(layers), _peak([_all(events.t_us)], window_us), window_us, core_limit)


def _arriving(core: CoreProgram, program: Program, recording: Recording, events: Events) -> list[Stream]:
    """Return time and synops of each event that is sent to a core, one stream for each of its sources."""
    reach = fan_out(core.in_shape, core.weight.shape, core.window)
    given = entering(events, program.dvs)
    streams = [
        (events.t_us[given.event], event_synops(reach, given.y, given.x, pool=(1, 1)))
        for entry in program.entry
        if entry == core.core
    ]
    for source in program.cores:
        for destination in source.destinations:
            if destination.core == core.core:
                spikes = recording.spikes[source.core]
                pool = destination.pool, destination.pool
                streams.append((spikes["t_us"], event_synops(reach, spikes["y"], spikes["x"], pool=pool)))
    return streams


def _all(times: NDArray[np.integer[Any]]) -> Stream:
    return times, np.ones(len(times), np.int64)


def _peak(streams: list[Stream], window_us: int) -> Peak:
    times = np.concatenate([np.asarray(one, np.int64) for one, _ in streams] or [np.zeros(0, np.int64)])
    amounts = np.concatenate([amount for _, amount in streams] or [np.zeros(0, np.int64)])
    order = np.argsort(times, kind="stable")
    return peak_rate(times[order], amounts[order], window_us=window_us)
