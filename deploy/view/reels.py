"""What a show plays: recordings, a folder of them, a stream of events as it comes, the camera of a board."""

from __future__ import annotations

import csv
import re
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from spikeport.deploy.errors import RecordingError
from spikeport.models.errors import StreamError
from spikeport.models.events import Events
from spikeport.models.files import read_events, recordings_at
from spikeport.models.formats import SUFFIXES
from spikeport.models.queues import EventQueue
from spikeport.models.sources import EventSource, open_source
from spikeport.models.window import no_events, one_behind_other

from .types import Reel

CAMERA = "camera"
"""The input that is the camera of the board itself."""

_N_WAITING = 1 << 20
"""Events of a stream that wait to be shown, a second of a busy camera; more are left out and counted."""

_CLOSE_S = 0.3

_LABELS = "labels.csv"
_COLUMNS = ("class_index", "label")
_CLASS_FOLDER = re.compile(r"\d{1,3}")
_CLASS_NAME = re.compile(r".*_is_(\d{1,3})")  # as `spikeport demo` names recordings


class RecordingReel:
    """A recording at hand; it lasts from its first event, at 0, to just after its last one.

    ``label`` is its true class, where it is known. Raises: RecordingError for a recording without events.
    """

    def __init__(self, events: Events, name: str = "recording", label: int | None = None) -> None:
        if not len(events):
            raise RecordingError(f"{name}: expected at least one event to show, found none. Try another recording.")
        self.name, self.label = name, label
        self.sensor_size = events.sensor_size
        self._events = events.from_zero()
        self.duration_us: int | None = int(self._events.t_us[-1]) + 1

    def take(self, start_us: int, stop_us: int) -> Events:
        """Return the events of a span of time."""
        return self._events.window(start_us, stop_us)


class _Shelf:
    """Room for one recording: reading another one puts the one before away."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._reel: RecordingReel | None = None

    def fetch(self, path: Path) -> RecordingReel:
        if self._reel is None or self._path != path:
            self._reel = None  # first, so that there are never two
            self._reel, self._path = RecordingReel(read_events(path), path.name), path
        return self._reel


class FileReel:
    """A recording in a file, read when it is first asked for anything but its name.

    Raises: errors of ``read_events``, wherever it is read.
    """

    def __init__(self, path: Path, label: int | None, shelf: _Shelf) -> None:
        self.name, self.label = path.name, label
        self._path, self._shelf = path, shelf

    @property
    def sensor_size(self) -> tuple[int, int]:
        """Height and width of the sensor."""
        return self._shelf.fetch(self._path).sensor_size

    @property
    def duration_us(self) -> int | None:
        """Time to just after the last event."""
        return self._shelf.fetch(self._path).duration_us

    def take(self, start_us: int, stop_us: int) -> Events:
        """Return the events of a span of time."""
        return self._shelf.fetch(self._path).take(start_us, stop_us)


class LiveReel:
    """A stream of events as it comes, its time counted from its first event; ``sensor_size`` is what is expected.

    Its time goes as far as its events do: while none come it stands still. What the show does not take in time is left
    out and counted in ``n_missed``. It is read in a thread from the first ``take`` on. ``duration_us`` is None until
    the stream has ended.
    Law: each event of the source is taken, waits, or is counted in ``n_missed``.
    """

    label: int | None = None

    def __init__(
        self, source: EventSource, name: str, sensor_size: tuple[int, int], *, n_waiting: int = _N_WAITING
    ) -> None:
        self.name, self.sensor_size = name, sensor_size
        self.duration_us: int | None = None
        self._source = source
        self._queue = EventQueue(n_waiting, "drop")
        self._held = no_events(sensor_size)
        self._first_us: int | None = None
        self._reached_us = 0
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"spikeport {name}")
        self._is_begun = False

    @property
    def n_missed(self) -> int:
        """Events left out so far because too many waited."""
        return self._queue.n_dropped

    @property
    def counts(self) -> Counter[str]:
        """What the source itself left out or lost so far, by kind."""
        return self._source.counts

    @property
    def reached_us(self) -> int:
        """Up to when all events are there: no event before will come."""
        self._gather()
        return self._reached_us

    def take(self, start_us: int, stop_us: int) -> Events:
        """Return the events of a span of time that have come; those before it are then forgotten.

        Raises: RecordingError for events of another sensor; StreamError for a damaged stream.
        """
        self._gather()
        self._held = self._held.window(start_us, self._reached_us + 1)
        return self._held.window(start_us, stop_us)

    def close(self) -> None:
        """Read no more, and give back what the source holds."""
        self._queue.close()
        if self._is_begun:
            self._reader.join(_CLOSE_S)  # a pipe that nobody writes to would be waited for without an end
        elif (close := getattr(self._source, "close", None)) is not None:
            close()

    def _gather(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            self._reader.start()
        pieces = self._queue.take_waiting()
        if pieces is None:
            if self._first_us is None:
                raise StreamError(f"{self.name}: expected events, found none to the end. Try a sender that sends some.")
            self._reached_us = self.duration_us = self.duration_us or self._reached_us + 1
            return
        if pieces:
            self._append([events for events, _ in pieces])

    def _append(self, pieces: Sequence[Events]) -> None:
        events = one_behind_other(pieces)
        if self._first_us is None:
            self._first_us = int(events.t_us[0])
        moved = Events(events.x, events.y, events.p, events.t_us - self._first_us, events.sensor_size)
        self._held = one_behind_other([self._held, moved])
        self._reached_us = int(moved.t_us[-1])

    def _misfit(self, size: tuple[int, int]) -> RecordingError:
        found, expected = ("{}x{}".format(*one) for one in (size, self.sensor_size))
        return RecordingError(
            f"{self.name}: expected events of a sensor of {expected}, found {found}. Try a sender of that size."
        )

    def _read(self) -> None:
        try:
            for events in self._source:
                if len(events) and events.sensor_size != self.sensor_size:
                    raise self._misfit(events.sensor_size)
                if not self._queue.put(events):
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised again where the events are taken
            self._queue.end(error)
            return
        self._queue.end()


class CameraReel:
    """The camera of a board: its events come out of the engine, so there are none to take here."""

    name = CAMERA
    duration_us: int | None = None
    label: int | None = None

    def __init__(self, sensor_size: tuple[int, int]) -> None:
        self.sensor_size = sensor_size

    def take(self, start_us: int, stop_us: int) -> Events:  # noqa: ARG002
        """Return no events."""
        return no_events(self.sensor_size)


def open_input(spec: str | Path, sensor_size: tuple[int, int]) -> tuple[Reel, ...]:
    """Return the reels that a text names: ``camera``, ``-`` or ``udp://127.0.0.1:PORT``, a recording or a folder.

    ``sensor_size`` is that of the program; recordings bring their own. Raises: as ``open_reels`` and ``open_source``.
    """
    text = str(spec)
    if text == CAMERA:
        return (CameraReel(sensor_size),)
    if text == "-" or "://" in text:
        name = "standard input" if text == "-" else text
        return (LiveReel(open_source(text, sensor_size=sensor_size), name, sensor_size),)
    return open_reels(spec)


def open_reels(path: str | Path) -> tuple[Reel, ...]:
    """Return a recording, or those of a folder in the order of their names, each read when it is played, one at a time.

    Labels are those of a ``labels.csv`` (file, class_index or label) beside the recordings, or else the number that
    their folder is called by, as of N-MNIST. A folder without recordings stands for the folders in it.
    Raises: EventFileError where the first recording is missing or damaged; RecordingError for a folder without any.
    """
    place = Path(path)
    files = _files_of(place) if place.is_dir() else (place,)
    if not files:
        raise RecordingError(
            f"folder '{place.name or place}': expected recordings ({', '.join(SUFFIXES)}), found none. "
            "Try another folder."
        )
    shelf = _Shelf()
    tables = {folder: _read_labels(folder) for folder in {file.parent for file in files}}
    reels = tuple(FileReel(file, _label_of(file, tables[file.parent]), shelf) for file in files)
    shelf.fetch(files[0])
    return reels


def check_sensor(reel: Reel, sensor_size: tuple[int, int], *, rescale: bool = False) -> None:
    """Refuse a reel whose sensor is not that of the program, unless its events are scaled to that.

    Raises: RecordingError; errors of the readers where it had to be read.
    """
    if reel.sensor_size != sensor_size and not rescale:
        found, expected = ("{}x{}".format(*size) for size in (reel.sensor_size, sensor_size))
        raise RecordingError(
            f"{reel.name}: expected a sensor of {expected} (height x width) as the program's input, found {found}. "
            "Try rescale, which scales it to that (rescale = true in the table [view] of a --config file), or a "
            "program compiled for its size."
        )


def _files_of(folder: Path) -> Sequence[Path]:
    files = recordings_at(folder)
    if files:
        return files
    return [file for inner in sorted(folder.iterdir()) if inner.is_dir() for file in recordings_at(inner)]


def _label_of(file: Path, table: dict[str, int] | None) -> int | None:
    if table is not None:
        return table.get(file.name)
    if named := _CLASS_NAME.fullmatch(file.stem):
        return int(named[1])
    name = file.absolute().parent.name
    return int(name) if _CLASS_FOLDER.fullmatch(name) else None


def _read_labels(folder: Path) -> dict[str, int] | None:
    """Return the label of each file that a folder's table names; rows without one are no labels. None: no table."""
    table = folder / _LABELS
    if not table.is_file():
        return None
    labels = {}
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                numbers = [row[column] for column in _COLUMNS if (row.get(column) or "").isdecimal()]
                if row.get("file") and numbers:
                    labels[row["file"]] = int(numbers[0])
    except (OSError, ValueError, csv.Error) as cause:
        raise RecordingError(
            f"{_LABELS}: expected lines of file and class_index in folder '{folder.name}', found {cause!s:.80}. "
            "Try removing it: recordings are shown without labels too."
        ) from cause
    return labels
