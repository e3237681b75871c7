"""Golden vectors in the program file: tensors ``golden<i>/...`` and an entry each in the header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair, Shape3
from spikeport.models.arrays import frozen
from spikeport.models.events import Events

from .errors import InvalidProgramError
from .types import SPIKE, CoreProgram, Golden, Program, is_rate

MAX_GOLDEN = 8
"""Vectors of one program."""

MAX_GOLDEN_EVENTS = 1 << 16
"""Input events of one vector."""

MAX_GOLDEN_SPIKES = 1 << 16
"""Spikes of one vector, over all cores; the bound on what a small file may become in memory."""

Tensors = dict[str, NDArray[Any]]


def find_golden_misfit(program: Program) -> str | None:
    """Return why the golden vectors cannot be those of the program or of any file, as a sentence; None where they can.

    Law: vectors without a misfit come back from their file as they were.
    """
    if len(program.golden) > MAX_GOLDEN:
        return f"golden: expected at most {MAX_GOLDEN} vectors, found {len(program.golden)}. Try fewer."
    size = program.dvs.input_shape[1:]
    shapes = {core.core: core.out_shape for core in program.cores}
    for golden in program.golden:
        found = {core: state.shape for core, state in golden.states.items()}
        problem = None
        if golden.events.sensor_size != size or found != shapes or set(golden.spikes) != set(shapes):
            sensor = golden.events.sensor_size
            problem = f"expected events of a sensor of {size} and maps of {shapes}, found {sensor} and {found}"
        problem = problem or _find_wrong_setting(golden) or _find_wrong_spikes(golden, shapes)
        if problem is not None:
            return f"golden vector {golden.name!r:.60}: {problem}. Try add_golden(program) after a change on purpose."
    return None


def _find_wrong_setting(golden: Golden) -> str | None:
    hz, hashes, n = golden.slow_clock_hz, golden.contents, len(golden.events)
    if not isinstance(golden.name, str) or not golden.name.isprintable():
        return "expected a name of one line of text"
    if not (hz == 0 or is_rate(hz)):
        return f"slow_clock_hz: expected 0 or a positive number, found {hz!r:.60}"
    if set(hashes) != set(golden.states) or not all(map(_is_hash, hashes.values())):
        return f"contents: expected a hash for each of the cores {sorted(golden.states)}, found {dict(hashes)!r:.200}"
    if not 1 <= n <= MAX_GOLDEN_EVENTS:
        return f"expected 1 to {MAX_GOLDEN_EVENTS} events, found {n}"
    n_spikes = sum(len(spikes) for spikes in golden.spikes.values())
    return _too_many_spikes(n_spikes) if n_spikes > MAX_GOLDEN_SPIKES else None


def _find_wrong_spikes(golden: Golden, shapes: Mapping[int, Shape3]) -> str | None:
    n, t_us = len(golden.events), golden.events.t_us
    for core, shape in shapes.items():
        spikes, state = golden.spikes[core], golden.states[core]
        if spikes.dtype != SPIKE or spikes.ndim != 1 or state.dtype != np.int16:
            return f"core {core}: expected spikes of {SPIKE} and states of int16, found {spikes.dtype}, {state.dtype}"
        event = spikes["event"]
        for name, limit in zip(("event", "feature", "y", "x"), (n, *shape), strict=True):
            wrong = (spikes[name] < 0) | (spikes[name] >= limit)
            if wrong.any():
                at = int(np.argmax(wrong))
                return f"core {core}: {name}[{at}]: expected 0..{limit - 1}, found {spikes[name][at]}"
        if (np.diff(event) < 0).any() or (spikes["t_us"] != t_us[event]).any():
            return f"core {core}: expected spikes in the order of their events, with their times, found others"
    return None


def _too_many_spikes(n_spikes: int) -> str:
    return f"expected at most {MAX_GOLDEN_SPIKES} spikes over all cores, found {n_spikes}"


def golden_tensors(program: Program) -> tuple[Tensors, list[dict[str, Any]]]:
    """Return the tensors of the golden vectors, and their entries in the header.

    Shapes: ``events`` int16 ``[n, 3]`` (y, x, polarity), ``t_us`` int64 ``[n]``; for each core
    ``counts`` int32 ``[n]`` of spikes at each event, ``neurons`` uint16, the flat index of each spike in ``out_shape``,
    and ``state``.
    Raises: InvalidProgramError where ``find_golden_misfit`` finds one, or a map has more neurons than any core.
    """
    problem = find_golden_misfit(program)
    if problem is not None:
        raise InvalidProgramError(problem)
    tensors: Tensors = {}
    for index, golden in enumerate(program.golden):
        events = golden.events
        tensors[f"golden{index}/events"] = np.stack([events.y, events.x, events.p.astype(np.int16)], axis=1)
        tensors[f"golden{index}/t_us"] = events.t_us
        for core in program.cores:
            where, spikes = f"golden{index}/core{core.core}", golden.spikes[core.core]
            if int(np.prod(core.out_shape)) > 1 << 16:
                raise InvalidProgramError(
                    f"core {core.core} ('{core.name}'): out_shape: expected at most {1 << 16} neurons, found "
                    f"{core.out_shape}. Try a program that plan() finds fit."
                )
            place = tuple(spikes[name].astype(np.int64) for name in ("feature", "y", "x"))
            tensors[f"{where}/counts"] = np.bincount(spikes["event"], minlength=len(events)).astype(np.int32)
            tensors[f"{where}/neurons"] = np.ravel_multi_index(place, core.out_shape).astype(np.uint16)
            tensors[f"{where}/state"] = golden.states[core.core]
    entries = [
        {
            "name": golden.name,
            "slow_clock_hz": float(golden.slow_clock_hz),
            "contents": {str(core): content for core, content in golden.contents.items()},
        }
        for golden in program.golden
    ]
    return tensors, entries


def read_golden(
    entries: Any, tensors: Tensors, cores: Sequence[CoreProgram], input_shape: Shape3
) -> tuple[Golden, ...]:
    """Return the golden vectors of a file, and take their tensors out of ``tensors``.

    Raises: ValueError, in a few words that name tensor and damage.
    """
    if not isinstance(entries, list) or len(entries) > MAX_GOLDEN:
        raise ValueError(f"golden: expected a list of at most {MAX_GOLDEN} vectors, found {entries!r:.60}")
    return tuple(_golden(index, entry, tensors, cores, input_shape[1:]) for index, entry in enumerate(entries))


def _golden(index: int, entry: Any, tensors: Tensors, cores: Sequence[CoreProgram], size: Pair) -> Golden:
    where = f"golden{index}"
    if not isinstance(entry, dict) or set(entry) != {"contents", "name", "slow_clock_hz"}:
        raise ValueError(f"{where}: expected the fields ['contents', 'name', 'slow_clock_hz'], found {entry!r:.60}")
    name, hz, contents = entry["name"], entry["slow_clock_hz"], entry["contents"]
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError(f"{where}: name: expected text, found {name!r:.60}")
    if type(hz) not in (int, float) or not (hz == 0 or is_rate(hz)):
        raise ValueError(f"{where}: slow_clock_hz: expected 0 or a positive number, found {hz!r:.60}")
    ids = {str(core.core): core.core for core in cores}
    if not isinstance(contents, dict) or set(contents) != set(ids) or not all(map(_is_hash, contents.values())):
        raise ValueError(f"{where}: contents: expected a hash for each of the cores {sorted(ids)}")
    t_us = _column(tensors, f"{where}/t_us", np.int64)
    n = t_us.size
    if not 1 <= n <= MAX_GOLDEN_EVENTS:
        raise ValueError(f"{where}/t_us: expected 1 to {MAX_GOLDEN_EVENTS} events, found {n}")
    columns = _shaped(tensors, f"{where}/events", np.int16, (n, 3))
    try:
        events = Events(columns[:, 1], columns[:, 0], columns[:, 2], t_us, size)
    except ValueError as cause:  # EventsError, which says what and where
        raise ValueError(f"{where}: {str(cause).partition(' Try ')[0]}") from cause
    # Before any of them takes ten times its size in the file.
    n_spikes = sum(tensors[key].size for core in cores if (key := f"{where}/core{core.core}/neurons") in tensors)
    if n_spikes > MAX_GOLDEN_SPIKES:
        raise ValueError(f"{where}: {_too_many_spikes(n_spikes)}")
    spikes = {core.core: _spikes(f"{where}/core{core.core}", core, tensors, t_us) for core in cores}
    states = {core.core: _shaped(tensors, f"{where}/core{core.core}/state", np.int16, core.out_shape) for core in cores}
    return Golden(name, events, float(hz), spikes, states, {ids[core]: contents[core] for core in contents})


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef")


def _spikes(where: str, core: CoreProgram, tensors: Tensors, t_us: NDArray[np.int64]) -> NDArray[Any]:
    counts = _shaped(tensors, f"{where}/counts", np.int32, t_us.shape)
    neurons = _column(tensors, f"{where}/neurons", np.uint16)
    n_neurons = int(np.prod(core.out_shape))
    if counts.min() < 0 or int(counts.sum(dtype=np.int64)) != neurons.size:
        raise ValueError(
            f"{where}/counts: expected counts of 0 or more that add up to {neurons.size} spikes, found "
            f"{int(counts.sum(dtype=np.int64))} and a least one of {counts.min()}"
        )
    if neurons.size and neurons.max() >= n_neurons:
        raise ValueError(f"{where}/neurons: expected neurons in 0..{n_neurons - 1}, found {neurons.max()}")
    spikes = np.empty(neurons.size, SPIKE)
    spikes["event"] = np.repeat(np.arange(t_us.size), counts)
    spikes["t_us"] = t_us[spikes["event"]]
    spikes["feature"], spikes["y"], spikes["x"] = np.unravel_index(neurons, core.out_shape)
    return frozen(spikes)


def _column(tensors: Tensors, name: str, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    tensor = _taken(tensors, name, dtype)
    if tensor.ndim != 1:
        raise ValueError(f"{name}: expected one axis, found shape {list(tensor.shape)}")
    return tensor


def _shaped(tensors: Tensors, name: str, dtype: type[np.integer[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
    tensor = _taken(tensors, name, dtype)
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, found {list(tensor.shape)}")
    return frozen(tensor)


def _taken(tensors: Tensors, name: str, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise ValueError(f"{name}: expected a tensor, found none")
    if tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {np.dtype(dtype)}, found {tensor.dtype}")
    return tensor
