"""Every format: what is written comes back, in pieces as whole, and real files are what other libraries say."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
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
from hypothesis.extra import numpy as hnp

from spikeport.deploy.bench.readers import measure_readers
from spikeport.models.errors import EventFileError
from spikeport.models.events import Events
from spikeport.models.files import iterate_events, read_events, recordings_at, write_chunks, write_events
from spikeport.models.formats import FORMATS
from spikeport.models.formats.source import ReadOptions

from ..shared import SHARED, needs  # noqa: TID252

SAMPLES = SHARED / "formats"
TMP = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

EDGE = {"nmnist": 256, "aedat2": 128, "evt2": 2048, "evt3": 2048, "dat": 1 << 14}
PAUSE_BITS = {"nmnist": 22, "aedat2": 31, "dat": 31, "evt2": 32, "evt3": 30, "es": 20, "dsec": 30}
UNSIZED = ("nmnist", "npy")
NAMES = [form.name for form in FORMATS]
SUFFIX = {form.name: form.suffixes[0] for form in FORMATS}


@st.composite
def recordings(draw: st.DrawFn, name: str) -> Events:
    edge = EDGE.get(name, 32767)
    height, width = draw(st.tuples(st.integers(1, edge), st.integers(1, edge)))
    n = draw(st.integers(1, 20))
    x, y, p = (draw(hnp.arrays(np.int64, n, elements=st.integers(0, limit - 1))) for limit in (width, height, 2))
    pause = (1 << PAUSE_BITS.get(name, 50)) - 1
    steps = draw(hnp.arrays(np.int64, n, elements=st.one_of(st.integers(0, 100), st.integers(0, pause))))
    return Events(x, y, p, np.cumsum(steps), (height, width))


def some_events(n: int = 1000, size: tuple[int, int] = (34, 34), step_us: int = 90) -> Events:
    rng = np.random.default_rng(0)
    x, y, p = (rng.integers(0, limit, n) for limit in (size[1], size[0], 2))
    return Events(x, y, p, np.cumsum(rng.integers(0, step_us, n)), size)


def together(pieces: list[Events]) -> Events:
    columns = [np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("x", "y", "p", "t_us")]
    return Events(columns[0], columns[1], columns[2], columns[3], pieces[0].sensor_size)


def read(path: Path, name: str, size: tuple[int, int] | None = None) -> Events:
    return read_events(path, sensor_size=size, options=ReadOptions(format=name))


# laws


@pytest.mark.parametrize("name", NAMES)
@TMP
@given(st.data())
def test_what_is_written_comes_back(tmp_path: Path, name: str, data: st.DataObject) -> None:
    events = data.draw(recordings(name))
    path = tmp_path / f"r{SUFFIX[name]}"
    write_events(events, path, format=name)
    assert read(path, name, events.sensor_size if name in UNSIZED else None).same(events)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", NAMES)
@TMP
@given(st.integers(1, 350), st.integers(1, 350))
def test_in_pieces_as_whole(tmp_path: Path, name: str, chunk: int, written: int) -> None:
    events = some_events(300)
    path = tmp_path / f"r{SUFFIX[name]}"
    pieces = [events.part(first, first + written) for first in range(0, len(events), written)]
    assert write_chunks(pieces, path, format=name) == len(events)
    found = list(iterate_events(path, chunk=chunk))
    assert {len(piece) for piece in found[:-1]} <= {chunk}
    assert together(found).same(events)
    whole = tmp_path / f"whole{SUFFIX[name]}"
    write_events(events, whole, format=name)
    assert name in ("aedat3", "aedat4") or whole.read_bytes() == path.read_bytes()  # those have packets, one a piece


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_any_size_hold_the_same(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    events = some_events(step_us=9000)
    write_events(events, tmp_path / f"r{SUFFIX[name]}", format=name)
    for module in ("source", "columns", "aedat3", "aedat4", "arrays", "evt", "es", "hdf5", "text"):
        monkeypatch.setattr(f"spikeport.models.formats.{module}.BLOCK_EVENTS", 17)
    monkeypatch.setattr("spikeport.models.formats.text._READ_BYTES", 200)
    assert read(tmp_path / f"r{SUFFIX[name]}", name).same(events)
    write_events(events, tmp_path / f"small{SUFFIX[name]}", format=name)
    assert read(tmp_path / f"small{SUFFIX[name]}", name).same(events)


@TMP
@given(recordings("any"), st.sampled_from(sorted({*EDGE, *PAUSE_BITS})))
def test_a_format_refuses_what_it_cannot_hold(tmp_path: Path, events: Events, name: str) -> None:
    path = tmp_path / f"r{SUFFIX[name]}"
    path.unlink(missing_ok=True)
    with contextlib.suppress(EventFileError):
        write_events(events, path, format=name)
    if path.exists():
        assert read(path, name, events.sensor_size if name in UNSIZED else None).same(events)


@pytest.mark.parametrize("size", [(180, 240), (260, 346), (480, 640)])
def test_aedat_2_has_the_layout_of_the_davis_cameras(tmp_path: Path, size: tuple[int, int]) -> None:
    events = some_events(size=size)
    write_events(events, tmp_path / "r.aedat", format="aedat2")
    assert read_events(tmp_path / "r.aedat").same(events)


def test_pieces_must_be_of_one_recording(tmp_path: Path) -> None:
    early, late = some_events(5), some_events(5, (20, 20))
    for pieces in ([early, late], [early.from_zero(), early.from_zero()]):
        with pytest.raises(EventFileError, match="pieces of one recording in order of time"):
            write_chunks(pieces, tmp_path / "r.raw")
    with pytest.raises(EventFileError, match="found none"):
        write_chunks([], tmp_path / "r.raw")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_recordings_may_hold_notes(tmp_path: Path) -> None:
    for name in ("b.raw", "a.es", "labels.csv", "notes.txt", "c.png"):
        (tmp_path / name).touch()
    assert [file.name for file in recordings_at(tmp_path)] == ["a.es", "b.raw"]
    assert recordings_at(tmp_path / "labels.csv") == (tmp_path / "labels.csv",)


def test_every_format_is_measured() -> None:
    rows = measure_readers(2000, repeats=1)
    assert [row.format for row in rows] == NAMES
    assert all(row.read_events_hz > 0 and row.write_events_hz > 0 and row.bytes_per_event > 0 for row in rows)


# real files, and other libraries


@needs("formats")
def test_evt3_is_the_reference_array_event_for_event() -> None:
    expected = np.load(SAMPLES / "expelliarmus_evt3_sample.npy")
    path = SAMPLES / "expelliarmus_evt3_sample.raw"
    events = read_events(path, options=ReadOptions(evt3_time="expelliarmus"))
    for name, field in (("x", "x"), ("y", "y"), ("p", "p"), ("t_us", "t")):
        np.testing.assert_array_equal(getattr(events, name), expected[field])
    # That array was made by a library which adds 4,096 us at each step back of the lower time, and so counts each
    # roll-over of it twice. Read as the format says, the recording has the same events; only those steps are missing.
    plain = read_events(path)
    for name in ("x", "y", "p"):
        np.testing.assert_array_equal(getattr(plain, name), expected[name])
    extra = expected["t"] - plain.t_us
    assert plain.sensor_size == (720, 1280)
    assert set(np.diff(extra)) == {0, 4096}
    assert set(extra % 4096) == {0}


def oracle(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return importlib.import_module(name)


def same_as(events: Events, array: Any, time: str = "t") -> None:
    polarity = "p" if "p" in array.dtype.fields else "on"
    for name, field in (("x", "x"), ("y", "y"), ("p", polarity), ("t_us", time)):
        np.testing.assert_array_equal(getattr(events, name), array[field])


@needs("formats")
@pytest.mark.parametrize(("file", "encoding"), [("expelliarmus_evt2_sample.raw", "evt2"), ("sample_ncars.dat", "dat")])
def test_prophesee_files_are_what_expelliarmus_reads(file: str, encoding: str) -> None:
    array = oracle("expelliarmus").Wizard(encoding=encoding).read(SAMPLES / file)
    same_as(read_events(SAMPLES / file, sensor_size=(480, 640)), array)


@needs("formats")
def test_evt3_has_the_times_of_faery() -> None:
    stream = oracle("faery").events_stream_from_file(str(SAMPLES / "expelliarmus_evt3_sample.raw"))
    array = np.concatenate(list(stream))
    events = read_events(SAMPLES / "expelliarmus_evt3_sample.raw")
    for name, field in (("x", "x"), ("y", "y"), ("p", "on")):
        np.testing.assert_array_equal(getattr(events, name), array[field])
    ahead = array["t"].astype(np.int64) - events.t_us  # faery holds time after a word of it that was up to 15 us ahead
    assert ahead.min() == 0
    assert ahead.max() < 16
    assert (ahead == 0).mean() > 0.99


@needs("formats")
def test_aedat_4_is_what_the_package_aedat_reads() -> None:
    aedat = oracle("aedat")
    path = SAMPLES / "tonic_sample.aedat4"
    array = np.concatenate([packet["events"] for packet in aedat.Decoder(str(path)) if "events" in packet])
    counts: Counter[str] = Counter()
    events = read_events(path, counts=counts)
    same_as(events, array)
    assert events.sensor_size == (240, 320)
    assert counts["packets of other streams left out"] > 0


def test_other_libraries_read_what_we_write(tmp_path: Path) -> None:
    events = some_events(size=(120, 128))
    expelliarmus = oracle("expelliarmus")
    for encoding, suffix in (("evt2", ".raw"), ("dat", ".dat")):
        write_events(events, tmp_path / f"r{suffix}", format=encoding)
        same_as(events, expelliarmus.Wizard(encoding=encoding).read(tmp_path / f"r{suffix}"))
    faery = oracle("faery")
    for name in ("r.raw", "r.es", "r.aedat4"):
        write_events(events, tmp_path / name)
        same_as(events, np.concatenate(list(faery.events_stream_from_file(str(tmp_path / name)))))
    aedat = oracle("aedat")
    packets = aedat.Decoder(str(tmp_path / "r.aedat4"))
    same_as(events, np.concatenate([packet["events"] for packet in packets]))
    assert packets.id_to_stream()[0] == {"type": "events", "width": 128, "height": 120}
    stream = oracle("event_stream").Decoder(str(tmp_path / "r.es"))
    array = np.concatenate(list(stream))
    array["y"] = 119 - array["y"]
    same_as(events, array)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_dv_processing_reads_what_we_write(tmp_path: Path) -> None:
    oracle("dv_processing")
    events = some_events(size=(120, 128))
    write_events(events, tmp_path / "r.aedat4")
    code = (
        "import dv_processing as dv, sys, numpy as np\n"
        "r = dv.io.MonoCameraRecording(sys.argv[1]); parts = []\n"
        "while (b := r.getNextEventBatch()) is not None: parts.append(b.numpy())\n"
        "a = np.concatenate(parts); np.savez(sys.argv[2], x=a['x'], y=a['y'], p=a['polarity'], t=a['timestamp'])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r.aedat4"), str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, capture_output=True)  # a process of its own: a C++ library may end it
    assert read_events(tmp_path / "found.npz", sensor_size=(120, 128)).same(events)


@needs("poker_dvs")
def test_poker_dvs_is_the_same_in_both_its_formats(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(SHARED / "poker_dvs" / "pips_aedat2.zip") as addresses,
        zipfile.ZipFile(SHARED / "poker_dvs" / "pips_dat.zip") as words,
    ):
        files = {Path(name).stem.removesuffix("_td"): name for name in words.namelist() if name.endswith(".dat")}
        names = [name for name in addresses.namelist() if name.startswith("pips_aedat/") and name.endswith(".aedat")]
        for name in names[:30]:
            (tmp_path / "r.aedat").write_bytes(addresses.read(name))
            (tmp_path / "r.dat").write_bytes(words.read(files[Path(name).stem]))
            first = read_events(tmp_path / "r.aedat", sensor_size=(35, 35))
            second = read_events(tmp_path / "r.dat", sensor_size=(35, 35))
            assert int(first.t_us[0]) > 100_000  # the clock of a chip does not start at 0
            assert first.from_zero().same(second.from_zero())


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_dsec_files_with_blosc(tmp_path: Path) -> None:
    hdf5plugin = oracle("hdf5plugin")
    events = some_events(size=(480, 640))
    with h5py.File(tmp_path / "events.h5", "w") as file:
        for name, column in (("x", events.x), ("y", events.y), ("p", events.p), ("t", events.t_us)):
            kind = np.uint32 if name == "t" else np.uint16
            file.create_dataset(f"events/{name}", data=column.astype(kind), **hdf5plugin.Blosc(cname="zstd"))
        file["t_offset"] = np.int64(49_599_300_523)
    found = read_events(tmp_path / "events.h5", sensor_size=(480, 640))
    assert int(found.t_us[0]) == 49_599_300_523 + int(events.t_us[0])
    assert found.from_zero().same(events.from_zero())


def test_dsec_files_have_an_offset_and_an_index(tmp_path: Path) -> None:
    events = some_events(size=(480, 640))
    write_events(events, tmp_path / "again.h5", format="dsec")
    with h5py.File(tmp_path / "again.h5") as file:
        assert int(file["t_offset"][()]) == int(events.t_us[0])
        index = file["ms_to_idx"][()]
        times = file["events/t"][()]
    assert len(index) > 10
    assert all(times[at - 1] < 1000 * ms <= times[at] for ms, at in enumerate(index[:-1]) if at)


# files larger than memory


@pytest.mark.parametrize("name", ["dat", "evt3", "npz", "hdf5", "csv", "aedat4"])
@pytest.mark.parametrize(("sort", "bytes_per_event"), [(False, 70), (True, 140)])
def test_a_chunk_takes_no_more_memory_than_is_said(tmp_path: Path, name: str, sort: bool, bytes_per_event: int) -> None:
    chunk = 1 << 18
    path = tmp_path / f"r{SUFFIX[name]}"
    write_events(some_events(5 << 17, (128, 128), step_us=5), path, format=name)
    next(iterate_events(path, chunk=1))  # compiles what is not yet compiled, which takes memory of its own
    tracemalloc.start()
    n_events = 0
    for events in iterate_events(path, chunk=chunk, options=ReadOptions(sort=sort)):
        n_events += len(events)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_events == 5 << 17
    assert peak < chunk * bytes_per_event + (16 << 20)  # less than the 64 MiB, which would hide all of this


LARGE = 1 << 30
# Not ru_maxrss, which starts with what the process had that started this one. The second figure is a control: 64 MiB.
PROCESS = """
import sys
from pathlib import Path
from spikeport.models.files import iterate_events
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
n = sum(map(len, iterate_events(sys.argv[1])))
before = peak()
block = b"x" * ((before << 10) + (64 << 20))
print(n, before, peak())
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "bytes_per_event"), [("dat", 8), ("evt3", None)])
def test_a_file_of_a_gigabyte_is_read_within_300_mib(tmp_path: Path, name: str, bytes_per_event: int | None) -> None:
    path = tmp_path / f"large{SUFFIX[name]}"
    part = some_events(1 << 20, (128, 128), step_us=3)

    def pieces() -> Any:
        start, written = 0, 0
        while written < LARGE:
            yield Events(part.x, part.y, part.p, part.t_us + start, part.sensor_size)
            start += int(part.t_us[-1]) + 1
            written += len(part) * (bytes_per_event or 5)

    n_events = write_chunks(pieces(), path, format=name)
    try:
        assert path.stat().st_size >= LARGE
        done = subprocess.run([sys.executable, "-c", PROCESS, str(path)], check=True, capture_output=True, text=True)
    finally:
        path.unlink()
    found, peak_kib, control_kib = map(int, done.stdout.split())
    assert found == n_events
    assert peak_kib <= 300 * 1024
    assert control_kib >= peak_kib + 64 * 1024
