"""Golden vectors: what a program does with events that excite it, recorded when the program is made."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from spikeport.models.events import Events

from .core import route
from .dvs import enter
from .emulator import Emulator
from .errors import RecordingError
from .layout import Fields, pack
from .stimuli import PIECE, Bench, met_taps, probe_events, search_events
from .types import Golden, Program
from .vectors import MAX_GOLDEN_SPIKES

MAX_EVENTS = 2048
"""Input events of one vector that is made here; a file may hold vectors of more."""

_N_PROBE = 64
_N_SEARCHES = 4
_BIAS_HZ = 100.0  # the rate at which simulation adds biases, for programs that name none or too slow a one to see any


@dataclasses.dataclass(frozen=True, eq=False)
class LazyGolden(Sequence[Golden]):
    """The golden vectors of ``program``, made by the emulator when they are first looked at, and kept.

    Compiling stays fast for whoever only runs the program, and a program that is changed by ``dataclasses.replace``
    keeps the vectors of the one that was compiled, whenever they are made.

    ``probe`` is few events anywhere, after which most states are still near the initial ones; ``search 1`` to at most
    ``search 4`` meet as many weights and wake as many features as was found; ``recording`` is the start of a recording
    that the user gave. A program that answers one event with tens of thousands of spikes may have none of them.
    Law: equal programs and recordings give equal vectors on every machine.
    """

    program: Program
    recording: Events | None = None

    @functools.cached_property
    def made(self) -> tuple[Golden, ...]:
        """The vectors."""
        program = dataclasses.replace(self.program, golden=())
        hz = _rate_hz(program)
        vectors = [_trimmed("probe", probe_events(program, _N_PROBE), program, None)]
        vectors += [
            _recorded(f"search {number}", events, program, hz)
            for number, events in enumerate(_searched(program, hz), 1)
        ]
        if self.recording is not None:
            vectors.append(_trimmed("recording", self.recording.from_zero(), program, hz))
        return tuple(vector for vector in vectors if vector is not None)

    def __len__(self) -> int:
        return len(self.made)

    @overload
    def __getitem__(self, index: int) -> Golden: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Golden]: ...

    def __getitem__(self, index: int | slice) -> Golden | Sequence[Golden]:
        return self.made[index]


def add_golden(program: Program, recording: Events | None = None) -> Program:
    """Return the program with golden vectors of what it does now, in place of any others.

    ``recording`` adds one of the user's own, its first ``MAX_EVENTS`` events at most.
    Raises: RecordingError where the recording is empty or not of the program's sensor.
    """
    if recording is not None:
        size = program.dvs.input_shape[1:]
        if not len(recording) or recording.sensor_size != size:
            (height, width), (h, w) = size, recording.sensor_size
            raise RecordingError(
                f"golden recording: expected events of a sensor of {height}x{width} (height x width), found "
                f"{len(recording)} events of {h}x{w}. Try another recording, or none."
            )
    return dataclasses.replace(program, golden=LazyGolden(program, recording))


def count_untouched(program: Program) -> dict[int, int]:
    """Return how many weights of each core no event of the golden vectors meets.

    Nothing that a device does with the vectors tells whether it was loaded with the right value of such a weight.
    """
    parts = {part.core.core: part for part in Bench.of(program).parts}
    met = {core.core: np.zeros(core.weight.shape[1:], np.bool_) for core in program.cores}
    for golden in program.golden:
        for entry in set(program.entry):
            met[entry] |= met_taps(parts[entry], enter(golden.events, program.dvs))
        for core in program.cores:
            spikes = golden.spikes[core.core]
            sent = pack(Fields(*(spikes[name] for name in Fields._fields)))
            for target, stream in route(core, sent):
                met[target] |= met_taps(parts[target], stream)
    return {core.core: int((~met[core.core]).sum()) * core.weight.shape[0] for core in program.cores}


def content_hash(program: Program, core: int) -> str:
    """Return a hash, 16 hexadecimal digits, of everything that decides what a core does with its events.

    Left out are name, scale, monitor and the program's slow clock; an entry core also stands for the input stage, an
    output core for the readout block.
    """
    one, dvs = program.core(core), program.dvs
    # Spelled out, so that files stay verifiable when a record gets another field: it joins where it is not its default.
    fields: list[Any] = [int(one.threshold_high), int(one.threshold_low), one.reset]
    fields += [one.in_shape, one.stride, one.padding]
    fields += [[(to.core, to.pool, to.feature_shift) for to in one.destinations]]
    if core in program.entry:
        fields += [dvs.input_shape, dvs.merge, dvs.pool, dvs.crop, dvs.mirror, dvs.swap]
    if program.readout is not None and core in program.outputs:
        fields += [{"readout": program.readout.spacing}]
    # Numbers of numpy, which JSON does not know, count as the plain ones that a file gives back.
    digest = hashlib.sha256(json.dumps(fields, default=np.generic.item).encode())
    for tensor in (one.weight, one.bias, one.initial_state):
        digest.update(b"none" if tensor is None else str(tensor.shape).encode() + tensor.tobytes())
    return digest.hexdigest()[:16]


def _rate_hz(program: Program) -> float | None:
    has_bias = any(core.bias is not None and core.bias.any() for core in program.cores)
    return max(program.slow_clock_hz or 0.0, _BIAS_HZ) if has_bias else program.slow_clock_hz


def _searched(program: Program, slow_clock_hz: float | None) -> Iterator[Events]:
    """Yield recordings that reach more and more of a program, and again from nothing once they reach all."""
    bench = Bench.of(program)
    for _ in range(_N_SEARCHES):
        events, after = search_events(bench, slow_clock_hz, n_events=MAX_EVENTS, n_spikes=MAX_GOLDEN_SPIKES)
        if len(events):
            yield events
        bench = after.restarted(anew=after.is_complete or not len(events))


def _recorded(name: str, events: Events, program: Program, slow_clock_hz: float | None) -> Golden:
    found = Emulator(program, slow_clock_hz=slow_clock_hz or 0).run(events, "all")
    contents = {core.core: content_hash(program, core.core) for core in program.cores}
    return Golden(name, events, float(slow_clock_hz or 0), found.spikes, found.states, contents)


def _trimmed(name: str, events: Events, program: Program, slow_clock_hz: float | None) -> Golden | None:
    """Return the vector of as many events from the start as the limits permit, None for none."""
    bench, n, step = Bench.of(program), 0, PIECE
    limit = min(len(events), MAX_EVENTS)
    while n < limit and step:
        piece = events.part(n, min(n + step, limit))
        after = bench.advance(piece, slow_clock_hz)
        if after is None or after.n_spikes > MAX_GOLDEN_SPIKES:
            step //= 2
            continue
        bench, n, step = after, n + len(piece), min(2 * step, PIECE)
    return _recorded(name, events.part(0, n), program, slow_clock_hz) if n else None
