"""A recorded session from its file: everything is checked before anything is shown."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy import artifact
from spikeport.deploy.errors import DeployError, SessionFileError
from spikeport.deploy.types import Program
from spikeport.models.errors import TensorFileError
from spikeport.models.events import Events
from spikeport.models.npz import ZIP_DAMAGE, npy_array

from . import tape
from .settings import ViewSettings
from .tape import SessionFacts
from .types import OutputSpikes, Window

_MAX_DIRECTORY_BYTES = 1 << 23
_END = struct.Struct("<4s4H2LH")
_LOCATOR_BYTES, _END_64 = 20, struct.Struct("<4sQ2H2L4Q")
_KEPT_CHUNKS = 2


@dataclasses.dataclass(frozen=True)
class Take:
    """Stretches that follow each other: from the start of a reel, or from a seek, to the next.

    ``first`` to below ``last`` are its stretches. ``knobs`` are what the settings were from which time on, the first of
    them at its start; others at the same time hold from the next window on. ``label`` is the true class, where it is
    known. ``final`` is the class of all of it, where ``has_final`` says that it was played to its end.
    """

    reel: int
    name: str
    label: int | None
    start_us: int
    stop_us: int
    first: int
    last: int
    knobs: tuple[tuple[int, ViewSettings], ...]
    has_final: bool = False
    final: int | None = None


class Session:
    """A recorded session; a context manager that closes its file.

    ``stretches`` has a row for each stretch (``tape.stretch_dtype``) and stays in memory, ``windows`` what was decided,
    each with the number of stretches before it; events and spikes are read as they are asked for.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, facts: SessionFacts, program: Program) -> None:
        self.path, self.facts, self.program = path, facts, program
        self.stretches: NDArray[Any] = np.zeros(0, tape.stretch_dtype(len(program.cores)))
        self.windows: tuple[tuple[int, Window], ...] = ()
        self.takes: tuple[Take, ...] = ()
        self._archive = archive
        self._starts: dict[str, list[int]] = {"events": [0], "spikes": [0]}
        self._ends: dict[str, NDArray[np.int64]] = {}
        self._kept: dict[tuple[str, int], NDArray[Any]] = {}

    def events(self, first: int, last: int) -> Events:
        """Return the events of the stretches ``first`` to below ``last``, all of one take.

        Raises: SessionFileError where the file is not what it was when it was opened.
        """
        table = self._rows("events", first, last)
        return Events(table["x"], table["y"], table["p"], table["t_us"], self.facts.sensor_size)

    def spikes(self, first: int, last: int) -> OutputSpikes:
        """Return the spikes of the stretches ``first`` to below ``last``, one stretch after another; as ``events``."""
        table = self._rows("spikes", first, last)
        return OutputSpikes(table["t_us"], table["label"])

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._kept.clear()
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, name: str, first_stretch: int, last_stretch: int) -> NDArray[Any]:
        first, last = int(self._ends[name][first_stretch]), int(self._ends[name][last_stretch])
        starts, parts = self._starts[name], []
        chunk = int(np.searchsorted(starts, first, side="right")) - 1
        while chunk < len(starts) - 1 and starts[chunk] < last:
            table = self._table(name, chunk)
            parts.append(table[max(first - starts[chunk], 0) : last - starts[chunk]])
            chunk += 1
        return np.concatenate(parts) if parts else np.zeros(0, _dtypes(self)[name])

    def _table(self, name: str, chunk: int) -> NDArray[Any]:
        key = (name, chunk)
        if key not in self._kept:
            found = [old for old in self._kept if old[0] == name]
            for old in found[: len(found) - _KEPT_CHUNKS + 1]:
                del self._kept[old]
            table = _array(self._archive, f"{chunk:06d}/{name}.npy", _dtypes(self)[name], self.path.name)
            if len(table) != self._starts[name][chunk + 1] - self._starts[name][chunk]:
                raise _refusal(self.path.name, f"chunk {chunk}: {name}: expected what it held when it was opened")
            self._kept[key] = table
        return self._kept[key]


def open_session(path: str | Path) -> Session:
    """Return the session in a file, once all of it has been checked.

    Law: memory stays below a few hundred megabytes whatever the file says, and no code of it runs.
    Raises: SessionFileError, in one sentence that names the file, where it is missing, foreign, damaged, of another
    version, or holds values outside their ranges.
    """
    file = Path(path)
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise SessionFileError(f"{file.name}: expected a recorded session there, found {found}. Try another path.")
    archive: zipfile.ZipFile | None = None
    try:
        _check_directory(file)
        archive = zipfile.ZipFile(file)
        return _opened(file, archive)
    except BaseException as cause:
        if archive is not None:
            archive.close()
        if isinstance(cause, SessionFileError):
            raise
        if isinstance(cause, (*ZIP_DAMAGE, OverflowError, TypeError)):
            raise _refusal(file.name, _sentence(cause)) from cause
        raise


def _opened(file: Path, archive: zipfile.ZipFile) -> Session:
    _check_members(archive.infolist(), file.stat().st_size)
    formats = _array(archive, tape.FIRST, np.dtype("<i8"), file.name)
    if formats.tolist() != [tape.FORMAT]:
        raise ValueError(f"expected format version {tape.FORMAT}, which this spikeport knows, found {formats[:3]}")
    facts, header = tape.read_header(_text(archive, "header.npy", file.name))
    program, program_hash = _program(archive, file.name)
    if program_hash != header["program"] or [one.core for one in program.cores] != _ids(header):
        raise ValueError("program: expected the one that the header names, found another")
    if program.dvs.input_shape[1:] != facts.sensor_size:
        raise ValueError(f"sensor: expected {program.dvs.input_shape[1:]} as of the program, found {facts.sensor_size}")
    numbers = header["numbers"]
    _check_names(archive.namelist(), numbers["chunks"])
    session = Session(file, archive, facts, program)
    _read_chunks(session, archive, numbers)
    return session


def _ids(header: dict[str, Any]) -> list[object]:
    cores = header["cores"]
    return [one.get("core") for one in cores if isinstance(one, dict)] if isinstance(cores, list) else []


def _read_chunks(session: Session, archive: zipfile.ZipFile, numbers: dict[str, int]) -> None:
    """Check every chunk, and keep what stays in memory of it."""
    name, rows, windows, marks = session.path.name, [], [], []
    dtypes = _dtypes(session)
    for chunk in range(numbers["chunks"]):
        tables = {key: _array(archive, f"{chunk:06d}/{key}.npy", dtype, name) for key, dtype in dtypes.items()}
        problem = tape.find_problem(tables, session.program, session.facts)
        if problem is not None:
            raise ValueError(f"chunk {chunk}: {problem}")
        rows.append(tables["stretches"])
        windows.append(tables["windows"])
        marks += tape.read_marks(_text(archive, f"{chunk:06d}/marks.npy", name))
        for key, starts in session._starts.items():
            starts.append(starts[-1] + len(tables[key]))
    session.stretches = np.concatenate(rows)
    session._ends = {key: np.append(0, np.cumsum(session.stretches[f"n_{key}"])) for key in session._starts}
    table = np.concatenate(windows)
    found = {key: starts[-1] for key, starts in session._starts.items()}
    found |= {"chunks": numbers["chunks"], "stretches": len(session.stretches), "windows": len(table)}
    if found != numbers or not len(session.stretches):
        raise ValueError(f"header: expected numbers of what the chunks hold, {found}, found {numbers}")
    if np.any(np.diff(table["after"]) < 0) or int(table["after"].max(initial=0)) > len(session.stretches):
        raise ValueError("windows: expected them in the order of the stretches, found others")
    session.windows = tuple((int(row["after"]), tape.window_of(row)) for row in table)
    session.takes = tuple(_takes(session.stretches, marks, session.facts.settings))


def _takes(rows: NDArray[Any], marks: Sequence[dict[str, Any]], settings: ViewSettings) -> Iterator[Take]:
    """Yield the takes: resets cut the stretches, and knobs stay as they are over a reset."""
    after = [mark["after"] for mark in marks]
    resets = [number for number, mark in enumerate(marks) if "reset" in mark]
    if after != sorted(after) or not resets or after[resets[0]] != 0 or after[-1] > len(rows):
        raise ValueError("marks: expected them in the order of the stretches, a reset before all, found others")
    finals = {mark["after"]: mark["final"] for mark in marks if "final" in mark}
    for mark in marks[: resets[0]]:
        settings = settings.changed(**mark.get("knobs", {}))
    for number, following in zip(resets, [*resets[1:], len(marks)], strict=True):
        reset, first = marks[number]["reset"], after[number]
        last = after[following] if following < len(marks) else len(rows)
        knobs = [(reset["t_us"], settings)]
        for mark in marks[number + 1 : following]:
            if "knobs" in mark:
                settings = settings.changed(**mark["knobs"])
                at = mark["after"]
                knobs += [(int(rows["stop_us"][at - 1]) if at > first else reset["t_us"], settings)] * (at < last)
        if first == last:
            continue  # nothing was shown of it
        inside = rows[first:last]
        if np.any(inside["start_us"] != np.append(reset["t_us"], inside["stop_us"][:-1])):
            raise ValueError("stretches: expected each where the one before ends between two resets, found others")
        place = (reset["reel"], reset["name"], reset["label"], reset["t_us"], int(inside["stop_us"][-1]))
        yield Take(*place, first, last, tuple(knobs), last in finals, finals.get(last))


def _dtypes(session: Session) -> dict[str, np.dtype[Any]]:
    return {
        "stretches": session.stretches.dtype,
        "events": tape.EVENT,
        "spikes": tape.OUTPUT,
        "windows": tape.window_dtype(len(session.facts.classes)),
    }


def _check_directory(file: Path) -> None:
    """Refuse an archive whose list of members alone would fill the memory."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - _END.size - _LOCATOR_BYTES - _END_64.size))
        tail = stream.read()
    end = tail[-_END.size :]
    if len(end) < _END.size or end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        raise ValueError("expected the end of an archive, found a file that is cut short or foreign")
    n_bytes = _END.unpack(end)[5]
    locator = tail[-_END.size - _LOCATOR_BYTES : -_END.size]
    if locator[:4] == b"PK\x06\x07":
        record = tail[: _END_64.size]
        n_bytes = _END_64.unpack(record)[8] if len(record) == _END_64.size else size
    if n_bytes > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"expected a list of members of at most {_MAX_DIRECTORY_BYTES} bytes, found {n_bytes}")


def _check_members(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Refuse members that are packed, and more bytes than there are: nothing grows when it is read."""
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f"expected each member once, found {twice!r:.60} twice")
    for entry in entries:
        is_plain = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
        if not is_plain or entry.flag_bits & 1:
            raise ValueError(f"{entry.filename!r:.60}: expected a member as it is, found a packed or locked one")
        limit = tape.MAX_TEXT_BYTES if entry.filename.endswith(("header.npy", "marks.npy")) else tape.MAX_MEMBER_BYTES
        if entry.file_size > limit + 4096:
            raise ValueError(f"{entry.filename!r:.60}: expected at most {limit} bytes, found {entry.file_size}")
    declared = sum(entry.file_size for entry in entries)
    if declared > size:
        raise ValueError(f"expected members of at most {size} bytes, which the file has, found {declared}")
    kept = sum(entry.file_size for entry in entries if entry.filename.endswith(("stretches.npy", "windows.npy")))
    if kept > tape.MAX_TABLE_BYTES:
        raise ValueError(f"expected stretches and windows of at most {tape.MAX_TABLE_BYTES} bytes, found {kept}")
    n_marks = sum(entry.file_size for entry in entries if entry.filename.endswith("marks.npy"))
    if n_marks > tape.MAX_MARKS_BYTES + 4096 * len(entries):
        raise ValueError(f"expected marks of at most {tape.MAX_MARKS_BYTES} bytes, found {n_marks}")


def _check_names(found: Iterable[str], n_chunks: int) -> None:
    chunks = {f"{chunk:06d}/{table}.npy" for chunk in range(n_chunks) for table in tape.TABLES}
    expected = {tape.FIRST, "program.npy", "header.npy", *chunks}
    if odd := sorted(expected ^ set(found)):
        what = "expected it, found nothing" if odd[0] in expected else "expected no such member"
        raise ValueError(f"{odd[0]!r:.60}: {what}")


def _program(archive: zipfile.ZipFile, name: str) -> tuple[Program, str]:
    """Return the program and the hash of its file."""
    data = _array(archive, "program.npy", np.dtype(np.uint8), name).tobytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "program of the session")  # the reader of programs takes files
        copy.write_bytes(data)
        try:
            return artifact.load_program(copy), hashlib.sha256(data).hexdigest()
        except DeployError as cause:
            raise ValueError(str(cause).partition(" Try ")[0].rstrip(".")) from cause


def _text(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    return _array(archive, member, np.dtype(np.uint8), name).tobytes()


def _array(archive: zipfile.ZipFile, member: str, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return a member of the archive. Raises: SessionFileError where it is missing, damaged, or of another dtype."""
    try:
        array = npy_array(archive.read(member), f"{member!r:.60}", error=TensorFileError)
    except KeyError:
        raise _refusal(name, f"{member!r:.60}: expected it, found nothing") from None
    except (*ZIP_DAMAGE, TensorFileError) as cause:
        raise _refusal(name, _sentence(cause, member)) from cause
    if array.dtype != dtype or array.ndim != 1:
        raise _refusal(name, f"{member!r:.60}: expected {dtype!s:.60} in one dimension, found {array.dtype!s:.60}")
    return array


def _sentence(cause: BaseException, member: str = "") -> str:
    text = str(cause).partition(" Try ")[0].strip().rstrip(".").replace("\n", "; ")
    if not text:
        text = type(cause).__name__
    if "expected" in text:
        return text[:400]
    where = f"{member!r:.60}: " if member else ""
    return f"{where}expected a recorded session, found a damaged or foreign file ({text[:200]})"


def _refusal(name: str, problem: str) -> SessionFileError:
    return SessionFileError(f"{name}: {problem}. Try the file as it was recorded, or record it again.")
