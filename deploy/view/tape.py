"""The file of a recorded session: a zip archive of plain NumPy arrays, nothing compressed.

    spikeport_session.npy  the version of the format
    program.npy            the bytes of the program's file
    000000/                the first chunk, and so on
        stretches.npy  events.npy  spikes.npy  windows.npy   structured arrays, see below
        marks.npy      JSON text: the resets, and the changes of the knobs
    header.npy             JSON text: what was shown, and how many there are of everything

``numpy.load(path, allow_pickle=False)["000000/events"]["t_us"]`` reads it without this package. Chunks hold whole
stretches; the events and spikes of a stretch are the next ``n_events`` and ``n_spikes`` of its chunk. ``after`` of a
window or mark is the number of stretches of the whole session before it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.artifact import program_hash
from spikeport.deploy.rails import RAILS
from spikeport.deploy.readout import n_classes
from spikeport.deploy.types import Program

from .settings import KNOBS, ViewSettings
from .types import CoreCounts, PowerSource, Stretch, Window

FORMAT = 1
"""Version of the file, raised with every change that an older reader would not understand."""

KIND = "spikeport session"
FIRST = "spikeport_session.npy"
TABLES = ("stretches", "events", "spikes", "windows", "marks")

MAX_CHUNKS = 1 << 14
MAX_TABLE_BYTES = 1 << 29
"""Most bytes of all stretches and windows together: they are held in memory while a session is open."""

MAX_TEXT_BYTES = 1 << 20
"""Most bytes of the header, and of the marks of a chunk: JSON becomes many times larger in memory."""

MAX_MARKS_BYTES = 1 << 24
"""Most bytes of the marks of all chunks together."""

MAX_MEMBER_BYTES = 1 << 26
"""Most bytes of one array of a chunk."""

MAX_TIME_US = 1 << 41
"""Latest time of a session, 25 days: who plays it goes through all of them."""

MAX_STRETCH_US = 3_600_000_000
"""Longest stretch: none crosses the end of a window, which may last an hour."""

MAX_COUNT = 1 << 40

EVENT = np.dtype([("t_us", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "i1")])
OUTPUT = np.dtype([("t_us", "<i8"), ("label", "<i2")])

_NOT_TOLD, _ABSENT = -1, -2
_MAX_SUM = 1 << 60
_LOOKS_ONLY = {"icons", "decimate", "rescale"}  # a folder of another machine; what was done to events is done already


def stretch_dtype(n_cores: int) -> np.dtype[Any]:
    """Return the type of a stretch's row: ``cores`` holds events, spikes, synops and dropped events of each core.

    There -1 is what the device does not tell, -2 in the first place a core that it says nothing of. ``power_w`` is in
    the order of ``rails.RAILS``; NaN is not known.
    """
    times = [(name, "<i8") for name in ("start_us", "stop_us", "n_events", "n_spikes", "n_left_out", "n_late")]
    return np.dtype([*times, ("cores", "<i8", (n_cores, 4)), ("power_w", "<f8", (len(RAILS),))])


def window_dtype(n_counts: int) -> np.dtype[Any]:
    """Return the type of a window's row; -1 is a winner, label or number of synops of None."""
    numbers = ("after", "index", "start_us", "stop_us", "winner", "label", "n_events", "synops", "is_open")
    rest: list[Any] = [("latency_s", "<f8"), ("power_w", "<f8", (len(RAILS),)), ("counts", "<i8", (n_counts,))]
    return np.dtype([*((name, "<i8") for name in numbers), *rest])


@dataclasses.dataclass(frozen=True)
class SessionFacts:
    """What a session is recorded from, beside the program.

    ``classes`` has a name for each class that windows count. ``has_own_readout``: winners came from a function of the
    user's, which is not recorded.
    """

    device: str
    power_source: PowerSource | None
    classes: tuple[str, ...]
    sensor_size: tuple[int, int]
    settings: ViewSettings
    has_own_readout: bool = False


def describe(program: Program, facts: SessionFacts, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return the header; ``numbers`` are those of chunks, stretches, events, spikes and windows."""
    cores = [
        {"core": one.core, "name": one.name, "in_shape": list(one.in_shape), "out_shape": list(one.out_shape)}
        for one in program.cores
    ]
    settings = dataclasses.asdict(facts.settings)
    settings["names"] = [shown(name) for name in facts.settings.names]
    return {
        "kind": KIND,
        "format": FORMAT,
        "spikeport": version("spikeport"),
        "program": program_hash(program),
        "chip": program.chip,
        "cores": cores,
        "device": shown(facts.device),
        "power_source": facts.power_source,
        "classes": [shown(name) for name in facts.classes],
        "sensor": list(facts.sensor_size),
        "rails": list(RAILS),
        "settings": {name: value for name, value in settings.items() if name not in _LOOKS_ONLY},
        "own_readout": facts.has_own_readout,
        "numbers": dict(numbers),
    }


def read_header(text: bytes) -> tuple[SessionFacts, dict[str, Any]]:
    """Return the facts in the text of a header, and the header.

    Raises: ValueError that says what was expected and found.
    """
    header = read_json(text)
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise ValueError(f"header: expected that of a {KIND}, found {str(header)[:80]!r}")
    if header.get("format") != FORMAT:
        raise ValueError(f"header: expected format version {FORMAT}, found {header.get('format')!r:.20}")
    fields = {"kind", "format", "spikeport", "program", "chip", "cores", "device", "power_source", "classes", "sensor"}
    fields |= {"rails", "settings", "own_readout", "numbers"}
    if set(header) != fields:
        raise ValueError(f"header: expected the fields {sorted(fields)}, found {sorted(header)!s:.200}")
    numbers, sensor, names = header["numbers"], header["sensor"], header["classes"]
    wanted = {"chunks", *(table for table in TABLES if table != "marks")}
    if not isinstance(numbers, dict) or set(numbers) != wanted or not all(is_whole(n) for n in numbers.values()):
        raise ValueError(f"header: expected numbers of {', '.join(sorted(wanted))}, found {numbers!s:.120}")
    if not 1 <= numbers["chunks"] <= MAX_CHUNKS:
        raise ValueError(f"header: expected 1 to {MAX_CHUNKS} chunks, found {numbers['chunks']}")
    if not (isinstance(sensor, list) and len(sensor) == 2 and all(is_whole(n, 1, 32767) for n in sensor)):
        raise ValueError(f"header: expected a sensor of [height, width], found {sensor!s:.60}")
    if not (_is_texts(names) and 1 <= len(names) <= 32767):
        raise ValueError(f"header: expected the names of 1 to 32767 classes, found {names!s:.60}")
    if not _is_texts([header[name] for name in ("spikeport", "program", "chip", "device")]):
        raise ValueError("header: expected text for spikeport, program, chip and device, found something else")
    if header["power_source"] not in (None, *get_args(PowerSource)):
        raise ValueError(f"header: expected a power source of {get_args(PowerSource)}, found another")
    if header["rails"] != list(RAILS) or not isinstance(header["own_readout"], bool):
        raise ValueError(f"header: expected the rails {', '.join(RAILS)} and own_readout of true or false")
    facts = SessionFacts(
        header["device"],
        header["power_source"],
        tuple(names),
        (sensor[0], sensor[1]),
        _settings(header["settings"]),
        header["own_readout"],
    )
    return facts, header


def _settings(entry: Any) -> ViewSettings:
    known = {field.name for field in dataclasses.fields(ViewSettings)} - _LOOKS_ONLY
    if not isinstance(entry, dict) or not set(entry) <= known:
        raise ValueError(f"settings: expected some of {', '.join(sorted(known))}, found {str(entry)[:120]}")
    rows, names = entry.get("plots", [["events"]]), entry.get("names", [])
    is_rows = isinstance(rows, list) and all(isinstance(row, list) and _is_texts(row) for row in rows)
    if not is_rows or not _is_texts(names) or not isinstance(entry.get("loop", False), bool):
        raise ValueError("settings: expected rows of plots, a list of names, and loop of true or false")
    made = {**entry, "names": tuple(names)}
    if "plots" in entry:
        made["plots"] = tuple(map(tuple, rows))
    return ViewSettings(**made)


def read_marks(text: bytes) -> list[dict[str, Any]]:
    """Return the marks of a chunk, each with ``after`` and one thing more.

    It is ``reset`` with ``reel, name, t_us, label``, or ``knobs`` with all of ``KNOBS``, or ``final``: the class of the
    whole reel, which has ended.

    Raises: ValueError that says what was expected and found.
    """
    marks = read_json(text)
    if not isinstance(marks, list) or not all(map(_is_mark, marks)):
        raise ValueError(f"expected a list of resets, changes of knobs and ends, found {str(marks)[:120]}")
    return marks


def _is_mark(mark: Any) -> bool:
    if not isinstance(mark, dict) or not is_whole(mark.get("after")):
        return False
    if set(mark) == {"after", "knobs"}:
        return isinstance(mark["knobs"], dict) and set(mark["knobs"]) == set(KNOBS)
    if set(mark) == {"after", "final"}:
        return mark["final"] is None or is_whole(mark["final"], 0, 32767)
    reset = mark.get("reset")
    if (
        set(mark) != {"after", "reset"}
        or not isinstance(reset, dict)
        or set(reset) != {"reel", "name", "t_us", "label"}
    ):
        return False
    is_label = reset["label"] is None or is_whole(reset["label"], -1, 32767)
    is_place = is_whole(reset["reel"]) and is_whole(reset["t_us"], 0, MAX_TIME_US)
    return is_place and is_label and _is_texts([reset["name"]])


def knobs_of(settings: ViewSettings) -> dict[str, Any]:
    """Return the settings that may change while a show goes on, by name."""
    return {name: getattr(settings, name) for name in KNOBS}


def stretch_row(stretch: Stretch, cores: Sequence[int]) -> tuple[Any, ...]:
    """Return the row of a stretch.

    Raises: ValueError where it holds a core that the program lacks, or a rail of another name.
    """
    counts = np.full((len(cores), 4), _ABSENT, np.int64)
    for core, one in stretch.cores.items():
        if core not in cores:
            raise ValueError(f"stretch: expected cores of the program {list(cores)}, found core {core}")
        told = (one.n_events, one.n_spikes, one.synops, one.n_dropped)
        counts[cores.index(core)] = [_NOT_TOLD if n is None else n for n in told]
    times = (stretch.start_us, stretch.stop_us, len(stretch.events), len(stretch.spikes.t_us))
    return (*times, stretch.n_left_out, stretch.n_late, counts, _powers(stretch.power_w))


def window_row(window: Window, after: int, n_counts: int) -> tuple[Any, ...]:
    """Return the row of a window.

    Raises: ValueError where it counts other classes, or holds a rail of another name.
    """
    if window.counts.shape != (n_counts,):
        raise ValueError(f"window: expected counts of {n_counts} classes, found {list(window.counts.shape)}")
    none = [_NOT_TOLD if value is None else value for value in (window.winner, window.label)]
    synops = _NOT_TOLD if window.synops is None else window.synops
    numbers = (after, window.index, window.start_us, window.stop_us, *none, window.n_events, synops, window.is_open)
    return (*numbers, window.latency_s, _powers(window.power_w), window.counts)


def window_of(row: NDArray[Any]) -> Window:
    """Return the window in a row."""
    winner, label, synops = (None if row[name] < 0 else int(row[name]) for name in ("winner", "label", "synops"))
    index, start_us, stop_us, n_events = (int(row[name]) for name in ("index", "start_us", "stop_us", "n_events"))
    rest = (n_events, synops, powers_of(row["power_w"]), bool(row["is_open"]), float(row["latency_s"]))
    return Window(index, start_us, stop_us, row["counts"], winner, label, *rest)


def _powers(power_w: Mapping[str, float] | None) -> NDArray[np.float64]:
    values = np.full(len(RAILS), np.nan)
    for rail, power in (power_w or {}).items():
        if rail not in RAILS:
            raise ValueError(f"power: expected rails of {', '.join(RAILS)}, found '{rail:.40}'")
        values[RAILS.index(rail)] = power
    return values


def powers_of(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Return the power of the rails that are known; None where none is."""
    found = {rail: float(power) for rail, power in zip(RAILS, values, strict=True) if not np.isnan(power)}
    return found or None


def cores_of(told: Mapping[int, NDArray[np.int64]]) -> dict[int, CoreCounts]:
    """Return the counts of cores from rows of their sums; those that nothing is said of are left out."""
    return {
        core: CoreCounts(*(None if n < 0 else int(n) for n in sums))
        for core, sums in told.items()
        if sums[0] != _ABSENT
    }


def find_problem(tables: Mapping[str, NDArray[Any]], program: Program, facts: SessionFacts) -> str | None:
    """Return what is wrong with the arrays of a chunk, as the middle of a sentence; None where nothing is."""
    rows, events, spikes, windows = (tables[name] for name in ("stretches", "events", "spikes", "windows"))
    for name, table in tables.items():
        if table.nbytes > MAX_MEMBER_BYTES:
            return f"{name}: expected at most {MAX_MEMBER_BYTES} bytes, found {table.nbytes}"
    height, width = facts.sensor_size
    n_labels = max(len(facts.classes), n_classes(program))
    for name in ("start_us", "stop_us", "n_events", "n_spikes", "n_left_out", "n_late"):
        most = MAX_TIME_US if name.endswith("_us") else MAX_COUNT
        if not _within(rows[name], 0, most):
            return f"stretches: expected {name} of 0 to {most}, found {rows[name].min()} to {rows[name].max()}"
    if not _within(rows["stop_us"] - rows["start_us"], 0, MAX_STRETCH_US) or not _within(
        rows["cores"], _ABSENT, MAX_COUNT
    ):
        return f"stretches: expected times in order, {MAX_STRETCH_US} us at most, and counts of cores, found others"
    for name, table in (("events", events), ("spikes", spikes)):
        if int(rows[f"n_{name}"].sum()) != len(table):
            return f"{name}: expected {int(rows[f'n_{name}'].sum())}, as the stretches say, found {len(table)}"
        of = np.repeat(np.arange(len(rows)), rows[f"n_{name}"])
        backwards = (np.diff(table["t_us"]) < 0) & (np.diff(of) == 0)
        least = 0 if name == "events" else -MAX_TIME_US  # a late spike of a device may be from before the start
        if backwards.any() or not _within(table["t_us"], least, MAX_TIME_US):
            return f"{name}: expected times that never decrease within a stretch, up to {MAX_TIME_US}, found others"
        if name == "events" and not np.all(
            (table["t_us"] >= rows["start_us"][of]) & (table["t_us"] < rows["stop_us"][of])
        ):
            return "events: expected times within their stretch, found others"
    ranges = (("x", events, 0, width - 1), ("y", events, 0, height - 1), ("p", events, 0, 1))
    for name, table, least, most in (*ranges, ("label", spikes, -1, n_labels - 1)):
        if not _within(table[name], least, most):
            found = table[name][(table[name] < least) | (table[name] > most)][0]
            return f"{name}: expected {least} to {most}, found {found}"
    return _window_problem(windows, len(facts.classes))


def _window_problem(windows: NDArray[Any], n_counts: int) -> str | None:
    for name in ("after", "index", "start_us", "stop_us", "n_events", "counts", "is_open"):
        most = 1 if name == "is_open" else MAX_TIME_US if name.endswith("_us") else MAX_COUNT
        if not _within(windows[name], 0, most):
            return f"windows: expected {name} of 0 to {most}, found others"
    if not (_within(windows["synops"], -1, _MAX_SUM) and np.all(windows["start_us"] <= windows["stop_us"])):
        return "windows: expected synops and times in order, found others"
    if not all(_within(windows[name], -1, n_counts - 1) for name in ("winner", "label")):
        return f"windows: expected winners and labels of -1 to {n_counts - 1}, found others"
    return None


def _within(values: NDArray[Any], least: int, most: int) -> bool:
    return not values.size or (int(values.min()) >= least and int(values.max()) <= most)


def read_json(text: bytes) -> Any:
    """Return the value of a JSON text. Raises: ValueError for anything that is none."""
    try:
        return json.loads(text.decode(), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("expected JSON, found brackets within brackets without end") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"expected finite numbers, found {constant}")


def is_whole(value: object, least: int = 0, most: int = 1 << 53) -> bool:
    """Return whether a value of JSON is a whole number in a range."""
    return type(value) is int and least <= value <= most


def _is_texts(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(one, str) and len(one) <= 4096 and one.isprintable() for one in values
    )


def shown(name: str) -> str:
    """Return a name as every terminal can show it."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:255])


def is_session(path: str | Path) -> bool:
    """Return whether a file begins as a recorded session does; ``open_session`` says what is wrong with one."""
    file = Path(path)
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        start = stream.read(30 + len(FIRST))
    return start[:4] == b"PK\x03\x04" and start[30:] == FIRST.encode()
