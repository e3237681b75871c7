"""The recorder of a session: a listener that writes a show to a file while it goes on."""

from __future__ import annotations

import atexit
import io
import json
import queue
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeport.deploy.artifact import checked_bytes
from spikeport.deploy.errors import RecordingError
from spikeport.deploy.types import Program
from spikeport.models.atomic import check_target, write_atomic
from spikeport.models.errors import TargetError

from . import tape
from .settings import ViewSettings
from .tape import SessionFacts
from .types import Position, Stretch, Window

SUFFIXES = (".npz",)

_CHUNK_EVENTS = 1 << 18
_CHUNK_ITEMS = 512
"""Stretches, windows and marks of a chunk: 10 s or more of a show."""

_WAITING = 2
"""Chunks that may wait for the disk before the show does."""

_MARK_BYTES = 160
"""Room for a mark: names of 255 letters are rare."""

_NO_NUMBERS = dict.fromkeys(("chunks", *(table for table in tape.TABLES if table != "marks")), 0)


class SessionRecorder:
    """Writes what a show does to a file, as one of its listeners; a context manager that closes it.

    A thread of its own writes, so that a show waits only for a disk that falls behind by more than a few chunks;
    nothing is left out then. The file is whole or not there: it takes its name at its end. ``problem`` says why a
    recording has ended before that; None while all is well. ``inputs`` are files that it must not take the place of.
    Law: ``open_session`` gives back every stretch (but its maps), window, reset and change of knobs since the start.
    Raises: TargetError for a place that cannot be written to, or a file there that is no session; InvalidProgramError
    for a program that no file can hold; ``close`` the OSError of a disk, or RecordingError where nothing was recorded.
    """

    def __init__(self, path: str | Path, program: Program, facts: SessionFacts, *, inputs: Iterable[Path] = ()) -> None:
        target = Path(path)
        check_target(target, suffixes=SUFFIXES, inputs=inputs)
        if target.exists() and not tape.is_session(target):
            raise TargetError(
                f"{target.name}: expected a recorded session to take the place of, or nothing, found another file. "
                "Try another name."
            )
        self.path = target
        self.problem: str | None = None
        self._program, self._facts = program, facts
        self._head = checked_bytes(program)
        n_text = _text(tape.describe(program, facts, _NO_NUMBERS)).size
        if not facts.classes or n_text > tape.MAX_TEXT_BYTES - 4096:
            raise RecordingError(
                f"{target.name}: expected names of classes that fill less than {tape.MAX_TEXT_BYTES} bytes, and one at "
                f"least, found {len(facts.classes)} in {n_text} bytes. Try short names."
            )
        self._chunks: queue.Queue[_Chunk | bool] = queue.Queue(_WAITING)
        self._failure: BaseException | None = None
        self._position: dict[str, Any] = {"reel": 0, "name": "", "t_us": 0, "label": None}
        self._stop_us: int | None = None
        self._n_stretches = self._n_bytes = self._n_chunks = self._n_marks = 0
        self._has_ended = self._is_over = False
        self._chunk = _Chunk()
        self._thread = threading.Thread(target=self._write, name="spikeport-session", daemon=True)
        self._thread.start()
        atexit.register(self.abandon)

    def on_reset(self, position: Position) -> None:
        """Take note of another reel, or of a seek; and of where the show stands when the recording begins."""
        label = None if position.label is None else int(position.label)
        name, t_us = tape.shown(position.name), int(position.t_us)
        self._position = {"reel": int(position.reel), "name": name, "t_us": t_us, "label": label}
        self._stop_us = t_us
        self._add_mark({"reset": self._position})

    def on_knobs(self, settings: ViewSettings) -> None:
        """Take note of knobs that are other ones from the next window on."""
        self._add_mark({"knobs": tape.knobs_of(settings)})

    def on_end(self, final: int | None) -> None:
        """Take note of the class of the whole reel, at its end."""
        self._add_mark({"final": None if final is None else int(final)})

    def on_stretch(self, stretch: Stretch) -> None:
        """Take a stretch."""
        if stretch.start_us != self._stop_us:
            self._position = {**self._position, "t_us": int(stretch.start_us)}
            self._add_mark({"reset": self._position})
        if not self._has_room():
            return
        self._stop_us = stretch.stop_us
        self._n_stretches += 1
        self._chunk.stretches.append(stretch)
        self._chunk.n_events += max(len(stretch.events), len(stretch.spikes.t_us))
        self._send_full()

    def on_window(self, window: Window) -> None:
        """Take what was decided."""
        if self._has_room():
            self._chunk.windows.append((self._n_stretches, window))
            self._send_full()

    def stop(self) -> None:
        """Have the file finished without waiting for it; what comes later is not recorded."""
        if not self._has_ended:
            self._has_ended = True
            if self._chunk.stretches or self._chunk.windows or self._chunk.marks:
                self._send(self._chunk)
            self._chunks.put(True)

    def close(self) -> None:
        """Finish the file and wait until it has its name; closing twice is fine. Raises: as the class says."""
        self.stop()
        self._thread.join()
        atexit.unregister(self.abandon)
        failure, self._failure = self._failure, None
        if failure is not None and not isinstance(failure, _Abandoned):
            raise failure

    def abandon(self) -> None:
        """Leave no file, and what had the name before as it was."""
        if not self._has_ended:
            self._has_ended = True
            self._chunks.put(False)
        self._thread.join()
        atexit.unregister(self.abandon)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _add_mark(self, mark: Mapping[str, Any]) -> None:
        if self._has_room():
            self._n_marks += 1
            self._chunk.marks.append({"after": self._n_stretches, **mark})
            self._send_full()

    def _has_room(self) -> bool:
        """Return whether more can be recorded; a file as long as may be read is finished as it is."""
        is_full = self._n_chunks >= tape.MAX_CHUNKS - 1 or self._n_bytes > tape.MAX_TABLE_BYTES - (1 << 24)
        is_full = is_full or self._n_marks * _MARK_BYTES > tape.MAX_MARKS_BYTES
        if is_full and self.problem is None:
            self.problem = f"{self.path.name}: the recording is as long as it may be and has ended. Try a second one."
        return self.problem is None and not self._has_ended

    def _send_full(self) -> None:
        chunk = self._chunk
        n_items = max(len(chunk.stretches), len(chunk.windows), len(chunk.marks))
        if chunk.n_events >= _CHUNK_EVENTS or n_items >= _CHUNK_ITEMS:
            self._send(chunk)

    def _send(self, chunk: _Chunk) -> None:
        self._chunk = _Chunk()
        self._n_chunks += 1
        self._n_bytes += len(chunk.stretches) * tape.stretch_dtype(len(self._program.cores)).itemsize
        self._n_bytes += len(chunk.windows) * tape.window_dtype(len(self._facts.classes)).itemsize
        self._chunks.put(chunk)

    def _take(self) -> _Chunk | bool:
        item = self._chunks.get()
        self._is_over = isinstance(item, bool)
        return item

    def _write(self) -> None:
        """Write chunks until the end of them; after a failure take the rest, so that nobody waits for room."""
        try:
            write_atomic(self.path, self._pieces())
        except BaseException as cause:  # noqa: BLE001 - kept for whoever closes
            self._failure = cause
            if self.problem is None and not isinstance(cause, _Abandoned):
                self.problem = str(cause)
            while not self._is_over:
                self._take()

    def _pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the archive as chunks come."""
        sink, numbers = _Sink(), dict(_NO_NUMBERS)
        with zipfile.ZipFile(sink, "w") as archive:  # stored: what a reader must take is what lies there
            _add(archive, tape.FIRST, np.array([tape.FORMAT], "<i8"))
            _add(archive, "program.npy", np.frombuffer(self._head, np.uint8))
            yield sink.taken()
            while not isinstance(chunk := self._take(), bool):
                for name, table in self._tables(chunk).items():
                    _add(archive, f"{numbers['chunks']:06d}/{name}.npy", table)
                    yield sink.taken()
                    if name in numbers:
                        numbers[name] += len(table)
                numbers["chunks"] += 1
            if not chunk:
                raise _Abandoned
            if not numbers["stretches"]:
                raise RecordingError(
                    f"{self.path.name}: expected a show that goes on while it is recorded, found one that stood still. "
                    "Try to play it."
                )
            _add(archive, "header.npy", _text(tape.describe(self._program, self._facts, numbers)))
        yield sink.taken()

    def _tables(self, chunk: _Chunk) -> dict[str, NDArray[Any]]:
        """Return the arrays of a chunk. Raises: RecordingError where a reader would refuse them."""
        cores = [one.core for one in self._program.cores]
        try:
            rows = [tape.stretch_row(one, cores) for one in chunk.stretches]
            windows = [tape.window_row(one, after, len(self._facts.classes)) for after, one in chunk.windows]
            tables = {
                "stretches": np.array(rows, tape.stretch_dtype(len(cores))),
                "events": _columns([one.events for one in chunk.stretches], tape.EVENT),
                "spikes": _columns([one.spikes for one in chunk.stretches], tape.OUTPUT),
                "windows": np.array(windows, tape.window_dtype(len(self._facts.classes))),
            }
            problem = tape.find_problem(tables, self._program, self._facts)
        except ValueError as cause:
            problem = str(cause)
        if problem is not None:
            raise RecordingError(f"{self.path.name}: {problem}. Try without recording.")
        return {**tables, "marks": _text(chunk.marks)}


class _Chunk:
    """What is gathered before it is written."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.windows: list[tuple[int, Window]] = []
        self.marks: list[dict[str, Any]] = []
        self.n_events = 0


class _Abandoned(Exception):  # noqa: N818 - no error: nobody sees it
    """A recording that is to leave no file."""


class _Sink(io.RawIOBase):
    """Where an archive is written to, piece by piece; it has no end to go back to."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """Return what has come since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _add(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    member = io.BytesIO()
    npy.write_array(member, array, allow_pickle=False)
    archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), member.getvalue())


def _text(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, allow_nan=False, ensure_ascii=False).encode(), np.uint8)


def _columns(parts: Sequence[object], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the columns of records one after the other as one structured array."""
    columns = {name: [getattr(part, name) for part in parts] for name in dtype.names or ()}
    table = np.zeros(sum(map(len, next(iter(columns.values())))), dtype)
    for name, arrays in columns.items():
        table[name] = np.concatenate(arrays) if arrays else ()
    return table
