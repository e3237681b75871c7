"""Files that are no session, or a broken or hostile one: each is refused in one sentence, and fast."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeport.deploy.errors import SessionFileError
from spikeport.deploy.view import reading, tape
from spikeport.deploy.view.reading import open_session

from .taped import changed, record

Members = dict[str, NDArray[Any]]


@functools.cache
def example() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "session.npz")
        record(path, 3)
        return path.read_bytes()


def refused(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(SessionFileError, match=text) as caught:
        open_session(path)
    message = str(caught.value)
    assert message.startswith("bad.npz: ")
    assert "Try " in message
    assert "\n" not in message
    assert len(message) < 700
    assert caught.value.exit_code == 6


def written(change: Callable[[Members], None]) -> bytes:
    return changed(io.BytesIO(example()), change)


def table(name: str, column: str, value: Any) -> Callable[[Members], None]:
    """Return the change of the first row of a table."""

    def change(members: Members) -> None:
        one = members[f"000000/{name}"]
        assert len(one)
        if isinstance(value, dict):
            one[column][value["at"]] = value["to"]
        else:
            one[column][0] = value

    return change


def text(name: str, change: Callable[[Any], Any]) -> Callable[[Members], None]:
    """Return the change of a JSON member."""

    def apply(members: Members) -> None:
        value = json.loads(bytes(members[name]))
        new = change(value)
        members[name] = np.frombuffer(json.dumps(value if new is None else new).encode(), np.uint8)

    return apply


def header(**fields: Any) -> Callable[[Members], None]:
    return text("header", lambda value: value.update(fields))


def setting(**fields: Any) -> Callable[[Members], None]:
    return text("header", lambda value: value["settings"].update(fields))


def number(**fields: Any) -> Callable[[Members], None]:
    return text("header", lambda value: value["numbers"].update(fields))


def marks(value: Any) -> Callable[[Members], None]:
    return text("000000/marks", lambda _: value)


def member(name: str, array: Any) -> Callable[[Members], None]:
    return lambda members: members.update({name: array})


RESET = {"reel": 0, "name": "a", "t_us": 0, "label": None}
BACK = [{"after": 0, "reset": RESET}, {"after": 2, "reset": {**RESET, "t_us": 1 << 40}}]
KNOBS = {"interval_ms": 1.0, "threshold": 1, "low": 0, "high": 9, "default_class": None}

CHANGES: dict[str, tuple[Callable[[Members], None], str]] = {
    "no program": (lambda members: members.__delitem__("program"), "program"),
    "no spikes": (lambda members: members.__delitem__("000000/spikes"), "000000/spikes.npy': expected it"),
    "no header": (lambda members: members.__delitem__("header"), "header.npy': expected it"),
    "no kind": (lambda members: members.__delitem__("spikeport_session"), "spikeport_session.npy': expected it"),
    "a member more": (member("000001/events", np.zeros(0, tape.EVENT)), "expected no such member"),
    "objects": (member("000000/events", np.array([{}, None])), "expected numbers, found Python objects"),
    "objects in a column": (
        member("000000/events", np.zeros(2, [("t_us", "O"), ("x", "<i2"), ("y", "<i2"), ("p", "i1")])),
        "expected numbers, found Python objects",
    ),
    "another dtype": (member("000000/spikes", np.zeros(3)), "spikes.npy': expected .*found float64"),
    "big-endian": (member("000000/spikes", np.zeros(3, tape.OUTPUT.newbyteorder(">"))), "spikes.npy': expected"),
    "two dimensions": (member("000000/spikes", np.zeros((1, 3), tape.OUTPUT)), "in one dimension"),
    "another version": (
        member("spikeport_session", np.array([9], "<i8")),
        r"expected format version 1, which this spikeport knows, found \[9\]",
    ),
    "no version": (member("spikeport_session", np.zeros(0, "<i8")), r"expected format version 1, .* found \[\]"),
    "version of the header": (header(format=2), "header: expected format version 1, found 2"),
    "kind": (header(kind="a program"), "expected that of a spikeport session"),
    "a list": (text("header", lambda _: [1]), "expected that of a spikeport session"),
    "a field more": (header(more=1), "expected the fields"),
    "brackets": (member("header", np.frombuffer(b"[" * 100_000, np.uint8)), "brackets within brackets"),
    "no JSON": (member("header", np.frombuffer(b"{]", np.uint8)), "header|damaged"),
    "no text": (member("header", np.frombuffer(b"\xff\xfe", np.uint8)), "damaged"),
    "infinite": (member("header", np.frombuffer(b'{"a": Infinity}', np.uint8)), "expected finite numbers"),
    "many digits": (member("header", np.frombuffer(b'{"a": ' + b"9" * 5000 + b"}", np.uint8)), "damaged"),
    "another program": (header(program="0" * 64), "program: expected the one that the header names"),
    "other cores": (header(cores=[{"core": 1}]), "program: expected the one that the header names"),
    "no program file": (member("program", np.zeros(100, np.uint8)), "expected a spikeport program"),
    "sensor of none": (header(sensor=[0, 6]), "expected a sensor of"),
    "another sensor": (header(sensor=[6, 8]), "sensor: expected"),
    "control character": (header(device="a\x1b[2J"), "expected text for"),
    "power source": (header(power_source="sun"), "expected a power source"),
    "rails": (header(rails=["io"]), "expected the rails"),
    "no classes": (header(classes=[]), "names of 1 to 32767 classes"),
    "fewer classes": (header(classes=["one"]), "windows.npy': expected"),
    "numbers": (number(events=3), "expected numbers of what the chunks hold"),
    "negative numbers": (number(events=-3), "expected numbers of"),
    "no chunks": (number(chunks=0), "expected 1 to .* chunks, found 0"),
    "too many chunks": (number(chunks=1 << 40), "expected 1 to .* chunks, found"),
    "a chunk more": (number(chunks=2), "000001/events.npy': expected it"),
    "unknown setting": (setting(more=1), "settings: expected some of"),
    "setting": (setting(interval_ms=-1), "interval_ms: expected 1 to"),
    "huge setting": (setting(interval_ms=10**400), "damaged"),
    "setting of another type": (setting(plots=[[[]]]), "settings: expected rows of plots"),
    "loop": (setting(loop="yes"), "loop of true or false"),
    "negative time": (table("stretches", "start_us", -5), "expected start_us of 0 to 2199023255552, found -5 to"),
    "huge time": (table("stretches", "stop_us", 1 << 60), "expected stop_us of 0 to"),
    "time that ends before it starts": (table("stretches", "start_us", 1 << 40), "expected times in order"),
    "a stretch of days": (table("stretches", "stop_us", {"at": -1, "to": 1 << 40}), "3600000000 us at most"),
    "a gap": (table("stretches", "start_us", {"at": -1, "to": 20}), "times in order|each where the one before"),
    "huge count": (table("stretches", "n_events", (1 << 62)), "expected n_events of 0 to"),
    "other count": (table("stretches", "n_events", 1 << 39), "events: expected .*as the stretches say"),
    "huge synops": (table("stretches", "cores", 1 << 62), "counts of cores"),
    "a core less than none": (table("stretches", "cores", -3), "counts of cores"),
    "column": (table("events", "x", 6), "x: expected 0 to 5, found 6"),
    "row": (table("events", "y", -1), "y: expected 0 to 7, found -1"),
    "polarity": (table("events", "p", 2), "p: expected 0 to 1, found 2"),
    "event before its stretch": (table("events", "t_us", -1), "events: expected times"),
    "event after its stretch": (table("events", "t_us", {"at": -1, "to": 1 << 40}), "within their stretch"),
    "events backwards": (table("events", "t_us", {"at": 1, "to": 0}), "events: expected times"),
    "spike time": (table("spikes", "t_us", {"at": -1, "to": 1 << 60}), "spikes: expected times"),
    "label": (table("spikes", "label", 3), "label: expected -1 to 2, found 3"),
    "label of less than no class": (table("spikes", "label", -2), "label: expected -1 to 2, found -2"),
    "winner": (table("windows", "winner", 3), "winners and labels"),
    "counts": (table("windows", "counts", -1), "counts of 0 to"),
    "window behind all": (table("windows", "after", {"at": -1, "to": 1 << 30}), "windows: expected them in the order"),
    "windows out of order": (table("windows", "after", 50), "windows: expected them in the order"),
    "no marks": (marks([]), "a reset before all"),
    "marks of no kind": (marks({"a": 1}), "expected a list of resets"),
    "another mark": (marks([{"after": 0, "run": "x"}]), "expected a list of resets"),
    "a reset of less": (marks([{"after": 0, "reset": {}}]), "expected a list of resets"),
    "marks out of order": (marks([{"after": 3, "reset": RESET}, {"after": 0, "reset": RESET}]), "marks: expected"),
    "mark behind all": (marks([{"after": 0, "reset": RESET}, {"after": 99999, "final": 1}]), "marks: expected"),
    "final": (marks([{"after": 0, "reset": RESET}, {"after": 1, "final": "x"}]), "expected a list of resets"),
    "knobs": (
        marks([{"after": 0, "reset": RESET}, {"after": 1, "knobs": {**KNOBS, "threshold": -1}}]),
        "threshold: expected",
    ),
    "other knobs": (marks([{"after": 0, "reset": RESET}, {"after": 1, "knobs": {"fps": 3}}]), "a list of resets"),
    "time goes back": (marks(BACK), "expected each where the one before ends"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_member_that_is_not_as_it_should_be(name: str, tmp_path: Path) -> None:
    change, told = CHANGES[name]
    refused(tmp_path, written(change), told)


def test_the_corpus_is_made_of_a_file_that_is_fine(tmp_path: Path) -> None:
    (tmp_path / "fine.npz").write_bytes(written(lambda members: None))
    open_session(tmp_path / "fine.npz").close()


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(SessionFileError, match=r"none\.npz: expected a recorded session there, found nothing. Try"):
        open_session(tmp_path / "none.npz")
    with pytest.raises(SessionFileError, match="found a folder"):
        open_session(tmp_path)


def test_foreign_and_cut_files(tmp_path: Path) -> None:
    data = example()
    for content in (b"", b"PK", b"\x93NUMPY" * 9, data[:100], data[: len(data) // 2], data[:-1], data + b"x"):
        refused(tmp_path, content, "found a file that is cut short or foreign")
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    refused(tmp_path, stream.getvalue(), "spikeport_session.npy': expected it, found nothing")
    flipped = bytearray(data)
    flipped[data.index(b"000000/events.npy") + 400] ^= 1
    refused(tmp_path, bytes(flipped), "damaged or foreign file .Bad CRC")


def rewritten(**options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(example())) as source, zipfile.ZipFile(stream, "w", **options) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return stream.getvalue()


def test_packed_doubled_and_locked_members(tmp_path: Path) -> None:
    refused(tmp_path, rewritten(compression=zipfile.ZIP_DEFLATED), "found a packed or locked one")
    stream = io.BytesIO(example())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("header.npy", b"")
    refused(tmp_path, stream.getvalue(), "expected each member once, found 'header.npy' twice")
    locked = bytearray(rewritten())
    locked[locked.rindex(b"PK\x01\x02") + 8] |= 1
    refused(tmp_path, bytes(locked), "found a packed or locked one")


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("000000/events.npy", bytes(50_000_000))
    refused(tmp_path, stream.getvalue(), "found a packed or locked one")


def resized(name: bytes, size: int) -> bytes:
    """Return the file with another size of a member in its list of members, packed and unpacked alike."""
    data = bytearray(example())
    at = data.rindex(name) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    struct.pack_into("<2L", data, at + 20, size, size)
    return bytes(data)


def test_sizes_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path, resized(b"000000/events.npy", 0xFFFFFFF0), "expected at most .* bytes, found 4294967280")
    refused(tmp_path, resized(b"000000/events.npy", 1 << 25), "which the file has, found")
    refused(tmp_path, resized(b"header.npy", 2 << 20), "expected at most 1048576 bytes")
    refused(tmp_path, resized(b"000000/spikes.npy", 9), "damaged")
    stream = io.BytesIO()
    lie = {"descr": npy.dtype_to_descr(tape.EVENT), "fortran_order": False, "shape": (1 << 50,)}
    npy.write_array_header_1_0(stream, lie)
    data = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(example())) as source, zipfile.ZipFile(data, "w") as target:
        for name in source.namelist():
            target.writestr(name, stream.getvalue() if name.endswith("events.npy") else source.read(name))
    refused(tmp_path, data.getvalue(), "events.npy': expected 14636698788954112 bytes .* found 0")


def test_lists_of_members_and_tables_that_would_fill_the_memory(tmp_path: Path) -> None:
    with mock.patch.object(reading, "_MAX_DIRECTORY_BYTES", 100):
        refused(tmp_path, example(), "expected a list of members of at most 100 bytes")
    with mock.patch.object(tape, "MAX_TABLE_BYTES", 100):
        refused(tmp_path, example(), "expected stretches and windows of at most 100 bytes")
    with mock.patch.object(tape, "MAX_MARKS_BYTES", -(1 << 20)):
        refused(tmp_path, example(), "expected marks of at most")
    data = bytearray(example())
    struct.pack_into("<L", data, len(data) - 10, 0x7FFFFFFF)
    refused(tmp_path, bytes(data), "expected a list of members")
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    refused(tmp_path, end + locator + example()[-22:], "expected a list of members of at most .* found 1099511627776")


def test_a_file_that_changes_while_it_is_open_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(example())
    with open_session(path) as session:
        data = bytearray(example())
        data[data.index(b"000000/events.npy") + 400] ^= 1
        with path.open("r+b") as stream:
            stream.write(data)
        with pytest.raises(SessionFileError, match=r"a\.npz: '000000/events\.npy'.*Bad CRC"):
            session.events(0, len(session.stretches))


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_file_with_any_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(example())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.npz")
        path.write_bytes(content)
        with contextlib.suppress(SessionFileError):
            open_session(path).close()
