"""Where a stream of events comes from: a file, standard input, or UDP on this machine."""

from __future__ import annotations

import socket
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from .errors import StreamError
from .events import Events
from .intake import Intake
from .window import no_events
from .wire import MAGIC, LineParser, PacketParser, Parser

CHUNK = 1 << 14
"""Events of a piece of a file."""

_READ = 1 << 16
_POLL_S = 0.2


class EventSource(Protocol):
    """Pieces of a stream in order of time, and what of it was left out or lost so far."""

    def __iter__(self) -> Iterator[Events]:
        """Yield the pieces; an empty one says that nothing came for a while."""
        ...

    @property
    def counts(self) -> Counter[str]:
        """How many events were left out or lost, by kind."""
        ...


class Pieces:
    """Recordings at hand, as the pieces of one stream."""

    def __init__(self, recordings: Iterable[Events], *, repairs: bool = False) -> None:
        self._recordings, self._intake = recordings, Intake(repairs=repairs)

    def __iter__(self) -> Iterator[Events]:
        """Yield the pieces."""
        return map(self._intake.take, self._recordings)

    @property
    def counts(self) -> Counter[str]:
        """What was left out."""
        return self._intake.counts


class FileSource:
    """A recording in a file of any size and format that ``iterate_events`` reads."""

    def __init__(
        self, path: str | Path, *, sensor_size: tuple[int, int] | None = None, chunk: int = CHUNK, repairs: bool = False
    ) -> None:
        from .files import iterate_events
        from .formats.source import ReadOptions

        self._read: Counter[str] = Counter()
        options = ReadOptions(crop=repairs, polarity="drop" if repairs else "strict", sort=repairs)
        self._pieces = iterate_events(path, chunk=chunk, sensor_size=sensor_size, options=options, counts=self._read)
        self._intake = Intake(repairs=repairs, who=Path(path).name)

    def __iter__(self) -> Iterator[Events]:
        """Yield the pieces of the file."""
        return map(self._intake.take, self._pieces)

    @property
    def counts(self) -> Counter[str]:
        """What was left out or repaired."""
        return self._read + self._intake.counts


class PipeSource:
    """Packets, or lines of text, as they come through a pipe."""

    def __init__(
        self, stream: BinaryIO | None = None, *, sensor_size: tuple[int, int] | None = None, repairs: bool = False
    ) -> None:
        self._stream = sys.stdin.buffer if stream is None else stream
        self._size = sensor_size
        self._intake = Intake(repairs=repairs, who="stdin")
        self._parser: Parser | None = None

    def __iter__(self) -> Iterator[Events]:
        """Yield events as soon as they are complete."""
        head = b""
        while self._parser is None:
            data = self._read()
            head += data
            if len(head) < len(MAGIC) and data:
                continue
            self._parser = self._choose(head)
            yield from self._parser.feed(head)
        while not self._parser.is_over and (data := self._read()):
            yield from self._parser.feed(data)
        yield from self._parser.close()

    @property
    def counts(self) -> Counter[str]:
        """What was left out or lost."""
        lost = getattr(self._parser, "n_lost", 0)
        return self._intake.counts + Counter(lost=int(lost))

    def _read(self) -> bytes:
        read = getattr(self._stream, "read1", self._stream.read)
        data: bytes = read(_READ)
        return data

    def _choose(self, head: bytes) -> Parser:
        if not head:
            raise StreamError("stdin: expected events, found an empty stream. Try a program that writes packets to it.")
        if head.startswith(MAGIC):
            return PacketParser(self._intake, who="stdin")
        if self._size is None:
            raise StreamError(
                "stdin: expected packets (SPEV), or lines of text with a sensor size, found no packets and no size. "
                "Try --sensor 34x34."
            )
        return LineParser(self._intake, self._size, who="stdin")


class UdpSource:
    """Packets that arrive at an address of this machine, until the last one, or until none came for ``idle_s``.

    The address is bound at once: ``address`` says which port was taken where 0 was asked for.
    """

    def __init__(self, host: str, port: int, *, idle_s: float | None = None, repairs: bool = False) -> None:
        self._who = f"udp://{host}:{port}"
        self._idle_s = idle_s
        self._intake = Intake(repairs=repairs, who=self._who)
        self._parser = PacketParser(self._intake, who=self._who)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        try:
            self._socket.bind((host, port))
        except OSError as cause:
            self._socket.close()
            raise StreamError(f"{self._who}: cannot be listened at ({cause.strerror}). Try another port.") from cause
        self._socket.settimeout(_POLL_S)

    def close(self) -> None:
        """Give the address back, where nobody reads from it yet or any more."""
        self._socket.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens at."""
        host, port = self._socket.getsockname()
        return host, port

    def __iter__(self) -> Iterator[Events]:
        """Yield the events of each packet."""
        waited_s = 0.0
        try:
            while not self._parser.is_over:
                try:
                    data = self._socket.recv(_READ)
                except TimeoutError:
                    waited_s += _POLL_S
                    if self._idle_s is not None and waited_s >= self._idle_s:
                        return
                    yield _NOTHING
                    continue
                waited_s = 0.0
                yield self._parser.take(data)
        finally:
            self._socket.close()

    @property
    def counts(self) -> Counter[str]:
        """What was left out or lost."""
        return self._intake.counts + Counter(lost=self._parser.n_lost)


_NOTHING = no_events((1, 1))


def open_source(spec: str, *, sensor_size: tuple[int, int] | None = None, repairs: bool = False) -> EventSource:
    """Return the source that ``spec`` names: a file, ``-`` for standard input, or ``udp://127.0.0.1:PORT``.

    ``udp://127.0.0.1:7777?idle=5`` ends after 5 seconds without a packet.
    Raises: StreamError for an address that is none; EventFileError for a file that is no recording.
    """
    if spec == "-":
        return PipeSource(sensor_size=sensor_size, repairs=repairs)
    if "://" not in spec:
        return FileSource(spec, sensor_size=sensor_size, repairs=repairs)
    parsed = urllib.parse.urlsplit(spec)
    asked = urllib.parse.parse_qs(parsed.query)
    try:
        port = parsed.port
        idle_s = float(asked.pop("idle", ["0"])[0]) or None
    except ValueError:
        port = idle_s = None
    if asked or parsed.scheme != "udp" or not parsed.hostname or port is None or parsed.path not in ("", "/"):
        raise StreamError(
            f"input '{spec[:80]}': expected a file, - or udp://HOST:PORT, found another address. "
            "Try udp://127.0.0.1:7777."
        )
    return UdpSource(parsed.hostname, port, idle_s=idle_s, repairs=repairs)
