"""Damaged files of every format: one documented sentence with the place, little memory, repair only where asked."""

from __future__ import annotations

import importlib.util
import io
import os
import random
import struct
import sys
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events
from spikeport.models.files import iterate_events, read_events, write_events
from spikeport.models.formats import FORMATS, gather
from spikeport.models.formats.source import MAX_HEADER, MAX_MEMORY, ReadOptions

TMP = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = [form.name for form in FORMATS]


def _fuzz() -> Any:
    path = Path(__file__).resolve().parents[1] / "fuzz_readers.py"
    spec = importlib.util.spec_from_file_location("fuzz_readers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUZZ = _fuzz()


def evt3(*words: int, head: str = "% evt 3.0\n% geometry 34x34\n") -> bytes:
    return head.encode() + np.array(words, "<u2").tobytes()


def evt2(*words: int, head: str = "% evt 2.0\n% geometry 34x34\n") -> bytes:
    return head.encode() + np.array(words, "<u4").tobytes()


def dat(*events: tuple[int, int, int, int], head: str = "% Version 2\n") -> bytes:
    packed = b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in events)
    return head.encode() + b"\x0c\x08" + packed


def aedat2(*events: tuple[int, int], head: str = "#!AER-DAT2.0\r\n") -> bytes:
    return head.encode() + b"".join(struct.pack(">II", address, t) for address, t in events)


def aedat3(*fields: int, body: bytes = b"", head: str = "#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n") -> bytes:
    return head.encode() + struct.pack("<hhiiiiii", *fields) + body


def es(body: bytes, version: int = 2, kind: int = 1, size: tuple[int, int] = (34, 34)) -> bytes:
    return struct.pack("<12s3BBHH", b"Event Stream", version, 0, 0, kind, *size) + body


def aedat4() -> bytearray:
    return bytearray(whole("aedat4"))


def whole(name: str) -> bytes:
    (form,) = (form for form in FORMATS if form.name == name)
    return b"".join(form.encode([FUZZ.sample_events()], (34, 34), "r"))


def changed(data: bytearray, start: int, form: str, *values: int) -> bytes:
    struct.pack_into(form, data, start, *values)
    return bytes(data)


def hdf5(**columns: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, column in columns.items():
            file[name.replace("__", "/")] = column
    return stream.getvalue()


AEDAT4_HEAD = 18 + struct.unpack_from("<I", whole("aedat4"), 14)[0]
ONES = np.ones(2, int)

DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "empty raw": ("r.raw", b"", "expected events, found an empty file"),
    "raw without a header": ("r.raw", evt3(1, head=""), "byte 0: expected a header that says 'evt 2.0'.*evt2 or evt3"),
    "picture as raw": ("r.raw", b"\x89PNG\r\n\x1a\n" + bytes(9), "byte 0: expected Prophesee EVT3, .*a PNG picture"),
    "another version of raw": ("r.raw", evt3(head="% evt 2.1\n"), "evt: expected format 2.0 or 3.0, found '2.1'"),
    "header without events": ("r.raw", evt3(), "expected events, found none"),
    "unknown word of EVT3": ("r.raw", evt3(0x8001, 0x9000), "byte 29: expected a word of EVT3, found 0x9000"),
    "unknown word of EVT2": ("r.raw", evt2(1 << 31, 5 << 28), "byte 31: expected a word of EVT2, found 0x50000000"),
    "half a word": ("r.raw", evt3(0x8001) + b"\1", "expected 2 bytes an event.*byte 29 is cut short.*repair 'cut'"),
    "only events before the time": ("r.raw", evt3(5, 0x2001), "expected events, found none"),
    "EVT3 going back": ("r.raw", evt3(0x8001, 5, 0x6005, 0x2001, 0x6004, 0x2002), "byte 37: t_us is 4100, 1 us before"),
    "EVT3 outside": ("r.raw", evt3(0x8001, 0x6005, 40, 0x2001), "byte 33: y is 40, expected a row in 0..33"),
    "endless header": ("r.raw", b"% a" + b"b" * (MAX_HEADER + 9), "what reads as text|header"),
    "DAT of triggers": ("r.dat", b"% Version 2\n\x0e\x08" + bytes(8), r"events of type 0 or 12 .* \[14, 8\]"),
    "DAT of polarity 2": ("r.dat", dat((1, 1, 1, 2)), "byte 14: p is 2, expected a polarity.*polarity='drop'"),
    "DAT going back": ("r.dat", dat((9, 1, 1, 0), (5, 1, 1, 0)), "byte 22: t_us is 5, 4 us before"),
    "cut DAT": ("r.dat", dat((9, 1, 1, 0))[:-1], "the event at byte 14 is cut short"),
    "AEDAT 2 of an unknown chip": ("r.aedat", aedat2(head="#!AER-DAT2.0\r\n# AEChip: a.b.Cochlea\r\n"), "'cochlea'"),
    "AEDAT 2 of a large chip": ("r.aedat", aedat2((1 << 20, 5)), "byte 14: expected an address of 16 bits"),
    "AEDAT 2 of one line": ("r.aedat", b"#!AER-DAT2.0" + b"a" * (MAX_HEADER + 9), "header line that ends within"),
    "AEDAT 2 of lines only": (
        "r.aedat",
        b"#!AER-DAT2.0\n" + b"#aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" * (MAX_HEADER // 32),
        f"within {MAX_HEADER} bytes",
    ),
    "AEDAT 1": ("r.aedat", b"#!AER-DAT1.0\r\n" + bytes(60), "found an AEDAT recording of another version"),
    "AEDAT 3 compressed": ("r.aedat", aedat3(*[0] * 8, head="#!AER-DAT3.1\r\n#Format: PNG\r\n"), "expected RAW"),
    "AEDAT 3 cut in a header": ("r.aedat", aedat3(*[1] * 8)[:-1], "byte 42: expected a packet header of 28 bytes"),
    "AEDAT 3 of damaged packets": ("r.aedat", aedat3(1, 1, 8, 4, 0, 1, 9, 9), "byte 42: .* 9 of 1 events of 8 bytes"),
    "AEDAT 3 that ends early": ("r.aedat", aedat3(1, 1, 8, 4, 0, 9, 9, 9), "byte 42: expected 72 bytes .* found 0"),
    "AEDAT 3 of long events": ("r.aedat", aedat3(1, 1, 16, 4, 0, 0, 0, 0), "expected polarity events of 8 bytes"),
    "AEDAT 4 of a huge header": ("r.aedat4", changed(aedat4(), 14, "<I", 1 << 30), "header of 20 to 4194304 bytes"),
    "AEDAT 4 of another table": ("r.aedat4", changed(aedat4(), 22, "<I", 5), "byte 14: expected an AEDAT 4 header"),
    "AEDAT 4 of an unknown codec": ("r.aedat4", changed(aedat4(), 46, "<i", 9), "expected a compression of 0, 1, 2"),
    "AEDAT 4 of a far table": ("r.aedat4", changed(aedat4(), 18, "<I", 1 << 31), "byte 14: expected an offset within"),
    "AEDAT 4 of a huge packet": (
        "r.aedat4",
        changed(aedat4(), AEDAT4_HEAD, "<ii", 0, 1 << 30),
        f"byte {AEDAT4_HEAD}: expected a packet of at most 33554432 bytes, found stream 0, 1073741824",
    ),
    "AEDAT 4 of a long packet": (
        "r.aedat4",
        changed(aedat4(), AEDAT4_HEAD + 4, "<i", 1 << 20),
        "expected a whole packet",
    ),
    "AEDAT 4 of too many events": (
        "r.aedat4",
        changed(aedat4(), AEDAT4_HEAD + 8 + 28, "<I", 1 << 31),
        f"byte {AEDAT4_HEAD}: expected a packet that holds its 2147483648 events",
    ),
    "AEDAT 4 of no LZ4": ("r.aedat4", changed(aedat4(), 46, "<i", 1), "expected a packet compressed with LZ4"),
    "AEDAT 4 of no Zstandard": ("r.aedat4", changed(aedat4(), 46, "<i", 3), "expected a packet compressed with Zstand"),
    "Event Stream of version 1": ("r.es", es(b"", 1), "byte 12: expected version 2 .* found version 1.0.0"),
    "Event Stream of colors": ("r.es", es(b"", kind=4), "found version 2.0.0 and type 4"),
    "Event Stream without a sensor": (
        "r.es",
        es(bytes(5), size=(0, 0)),
        "byte 16: expected a sensor of at least 1x1, found 0x0",
    ),
    "cut Event Stream": ("r.es", es(bytes(7)), "byte 25: expected 5 bytes an event, found 2"),
    "short Event Stream": ("r.es", es(b"")[:-3], "byte 0: expected a header of 20 bytes, found 17"),
    "Event Stream outside": ("r.es", es(b"\0\1\0\50\0"), "byte 20: y is -7, expected a row"),
    "text without names": ("r.csv", b"1,2,0,5\n", "byte 0: expected a line of names .* found '1,2,0,5'"),
    "text of other names": ("r.csv", b"a,b\n1,2\n", "found 'a, b'; missing or twice: x, y, p, t_us"),
    "text of words": ("r.csv", b"x,y,p,t\n1,2,0,5\n1,b,0,5\n", "byte 16: expected a number, .* line '1,b,0,5'"),
    "text of few columns": ("r.csv", b"x,y,p,t\n1,2,0\n", "byte 8: expected as many columns as before, found fewer"),
    "text of more columns": ("r.csv", b"x,y,p,t\n1,2,0,5,6\n", "byte 8: .* found more in the line"),
    "text of joined numbers": ("r.txt", b"x y p t\n1-2 0 5 6\n", "byte 8: expected a number"),
    "text of fractions": ("r.csv", b"x,y,p,t\n1,2,0,5.5\n", "expected a whole number, found a fraction.*time_unit='s'"),
    "text of long numbers": ("r.csv", b"x,y,p,t\n1,2,0," + b"9" * 30 + b"\n", "a number of at most 18 digits"),
    "text of one line": ("r.csv", b"x,y,p,t," + b"a" * 99_999, "byte 0: expected lines of at most 4096 bytes"),
    "text without an end": ("r.csv", b"x,y,p,t\n" + b"1" * (3 << 20), "byte 8: expected lines of at most 4096 bytes"),
    "text of nothing": ("r.csv", b"x,y,p,t\n\n\n", "expected events, found none"),
    "binary as text": ("r.csv", b"PK\x03\x04" + bytes(9), "byte 0: expected text in columns, .* a zip archive"),
    "HDF5 of other names": ("r.h5", hdf5(frames=ONES), "found 'frames'. Try writing them as events/x"),
    "HDF5 of unequal lengths": ("r.h5", hdf5(x=ONES, y=ONES, p=ONES, t=ONES[:1]), "four arrays of equal length"),
    "HDF5 of two axes": ("r.h5", hdf5(x=ONES, y=ONES, p=ONES, t=np.ones((2, 2))), r"t: expected one axis, .*\[2, 2\]"),
    "HDF5 of text": ("r.h5", hdf5(x=["a", "b"], y=ONES, p=ONES, t=ONES), "x: expected numbers, found object"),
    "cut HDF5": (
        "r.h5",
        hdf5(x=ONES, y=ONES, p=ONES, t=ONES)[:-900],
        "expected an HDF5 file of events, found a damaged",
    ),
    "npy of a huge header": (
        "r.npy",
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 99,
        "byte 8: .* at most 65536 bytes",
    ),
    "npy that is short": ("r.npy", whole("npy")[:-5], "expected 780 bytes for .* found 775. Try numpy.save"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_one_sentence_with_its_place(tmp_path: Path, case: str) -> None:
    name, content, message = DAMAGED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EventFileError, match=message) as raised:
        read_events(tmp_path / name)
    said = str(raised.value)
    assert said.startswith(f"{name}: ")
    assert "\n" not in said
    assert "Try" in said
    with pytest.raises(EventFileError, match=message):
        list(iterate_events(tmp_path / name, sensor_size=(34, 34)))


def test_what_is_asked_for_must_make_sense(tmp_path: Path) -> None:
    (tmp_path / "r.raw").write_bytes(evt3(0x8001, 5, 0x2001))
    for options, message in (
        (ReadOptions(format="evt2"), "expected evt2, as asked for, found evt3"),
        (ReadOptions(format="evt9"), "format 'evt9': expected one of nmnist"),
        (ReadOptions(format="npz"), "expected a zip archive, found something else"),
    ):
        with pytest.raises(EventFileError, match=message):
            read_events(tmp_path / "r.raw", options=options)
    with pytest.raises(EventFileError, match="chunk: expected at least 1 event, found 0"):
        iterate_events(tmp_path / "r.raw", chunk=0)
    with pytest.raises(EventFileError, match="edges of 1 to 32767"):
        read_events(tmp_path / "r.raw", sensor_size=(0, 5))
    (tmp_path / "bare.raw").write_bytes(evt3(0x8001, 5, 0x2001, head=""))
    assert len(read_events(tmp_path / "bare.raw", options=ReadOptions(format="evt3"))) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files on this system")
def test_devices_are_no_recordings(tmp_path: Path) -> None:
    (tmp_path / "zero.raw").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.raw")
    for name in ("zero.raw", "pipe.raw"):
        with pytest.raises(EventFileError, match="found something that is no file"):
            read_events(tmp_path / name)


@pytest.mark.parametrize(("codec", "module"), [(1, "lz4"), (3, "zstandard")])
def test_a_missing_package_is_named(tmp_path: Path, codec: int, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.aedat4").write_bytes(changed(aedat4(), 46, "<i", codec))
    for name in [name for name in sys.modules if name.split(".")[0] == module] + [module]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EventFileError, match=rf"expected the package {module}.*pip install 'spikeport\[aedat4\]'"):
        read_events(tmp_path / "r.aedat4")


def test_a_missing_filter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.h5").write_bytes(whole("hdf5"))
    monkeypatch.setattr("spikeport.models.formats.hdf5._missing_filters", lambda _: ["filter 32001 (blosc)"])
    with pytest.raises(EventFileError, match=r"filter 32001 \(blosc\). Try: pip install 'spikeport\[h5\]'"):
        read_events(tmp_path / "r.h5")


def test_hdf5_follows_no_links_to_other_files(tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(whole("hdf5"))
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["events"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/events")
    with pytest.raises(EventFileError, match="expected arrays x, y, p and t"):
        read_events(tmp_path / "r.h5")


def packed_with_lz4(payload: bytes) -> bytes:
    frame = pytest.importorskip("lz4.frame")
    packed: bytes = frame.compress(payload)
    head = changed(aedat4(), 46, "<i", 1)[:AEDAT4_HEAD]
    return head + struct.pack("<ii", 0, len(packed)) + packed


BOMBS: dict[str, bytes] = {
    "r.npz": b"",
    "r.aedat4": packed_with_lz4(bytes(1 << 30)),
    "vectors.raw": evt3(0x8001, 5, 0x3001, *[0x4FFF] * 1_000_000, head="% evt 3.0\n% geometry 2047x2047\n"),
    "wide.raw": evt3(0x8001, 5, *[0x3001, 0x4FFF] * 500_000, head="% evt 3.0\n% geometry 2047x2047\n"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_little_bytes_take_little_memory(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[name])
    if name == "r.npz":
        array = np.zeros(3_000_000, [("x", "<i8"), ("y", "<i8"), ("p", "<i8"), ("t", "<i8")])
        np.savez_compressed(path, events=array)
    monkeypatch.setattr(gather, "MAX_EVENTS", 1 << 21)
    cap = max(16 << 21, MAX_MEMORY) if name == "r.aedat4" else 16 << 21
    tracemalloc.start()
    with pytest.raises(EventFileError):
        read_events(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size < 1 << 23
    assert peak < 2 * cap


def test_a_long_list_of_members_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.npz", "w") as archive:
        for index in range(12_000):
            archive.writestr(f"{index:060}.npy", b"")
    with pytest.raises(EventFileError, match="list of members of at most 1048576 bytes"):
        read_events(tmp_path / "r.npz")


# fuzz


@pytest.mark.parametrize("name", NAMES)
@TMP
@given(st.integers(0, 1 << 30))
def test_a_mutated_file_is_refused_or_read(tmp_path: Path, name: str, seed: int) -> None:
    (form,) = (form for form in FORMATS if form.name == name)
    path = tmp_path / f"r{form.suffixes[0]}"
    path.write_bytes(FUZZ.mutated(whole(name), random.Random(seed)))
    FUZZ.outcome(path)
    FUZZ.outcome(path, ReadOptions(sort=True, crop=True, polarity="drop", cut=True, from_zero=True))


@TMP
@given(st.sampled_from(sorted(FUZZ.real_samples()) or [""]), st.integers(0, 1 << 30))
def test_a_mutated_real_file_is_refused_or_read(tmp_path: Path, name: str, seed: int) -> None:
    if name:
        suffix, data = FUZZ.real_samples()[name]
        path = tmp_path / f"r{suffix}"
        path.write_bytes(FUZZ.mutated(data, random.Random(seed)))
        FUZZ.outcome(path)


HEADS = {
    ".raw": b"% evt 3.0\n% geometry 34x34\n",
    ".dat": b"% Version 2\n\x0c\x08",
    ".aedat": b"#!AER-DAT3.1\r\n#!END-HEADER\r\n",
    ".aedat4": whole("aedat4")[:AEDAT4_HEAD],
    ".es": es(b""),
    ".csv": b"x,y,p,t\n",
    ".h5": b"\x89HDF\r\n\x1a\n",
    ".npy": b"\x93NUMPY\x01\x00",
    ".npz": b"PK\x03\x04",
    ".bin": b"",
}


@TMP
@given(st.sampled_from(sorted(HEADS)), st.binary(max_size=300))
def test_noise_is_refused_or_read(tmp_path: Path, suffix: str, noise: bytes) -> None:
    (tmp_path / f"r{suffix}").write_bytes(HEADS[suffix] + noise)
    FUZZ.outcome(tmp_path / f"r{suffix}")


def test_a_failure_of_the_fuzzer_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_events(FUZZ.sample_events(), tmp_path / "r.raw")
    monkeypatch.setattr(FUZZ, "CAP_BYTES", 10)
    with pytest.raises(AssertionError, match="bytes"):
        FUZZ.outcome(tmp_path / "r.raw")
    counts: Counter[str] = Counter()
    assert len(read_events(tmp_path / "r.raw", counts=counts)) == len(FUZZ.sample_events())
    assert not counts
    assert isinstance(FUZZ.sample_events(), Events)
