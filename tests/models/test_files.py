"""Event files: what is written comes back, real recordings are read, and damage is one clear sentence."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events
from spikeport.models.files import iterate_events, parse_bin, read_events, read_frames, write_events

from ..shared import SHARED, needs  # noqa: TID252

TMP = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CLOCK_US = 1 << 23


@st.composite
def recordings(draw: st.DrawFn, *, pause_us: int, edge: int) -> Events:
    height, width = draw(st.tuples(st.integers(1, edge), st.integers(1, edge)))
    n = draw(st.integers(1, 20))
    x, y, p = (draw(hnp.arrays(np.int64, n, elements=st.integers(0, limit - 1))) for limit in (width, height, 2))
    times = np.cumsum(draw(hnp.arrays(np.int64, n, elements=st.integers(0, pause_us))))
    return Events(x, y, p, times, (height, width))


def _some_events(n: int = 40) -> Events:
    rng = np.random.default_rng(0)
    x, y, p = (rng.integers(0, limit, n) for limit in (34, 34, 2))
    return Events(x, y, p, np.cumsum(rng.integers(0, 900, n)), (34, 34))


def _events_of(x: list[int], y: list[int], p: list[int], t_us: list[int]) -> Events:
    return Events(np.array(x), np.array(y), np.array(p), np.array(t_us), (34, 34))


def _bin(*events: tuple[int, int, int, int]) -> bytes:
    return b"".join(
        struct.pack(">BBI", x, y, p << 23 | t)[:2] + struct.pack(">I", p << 23 | t)[1:] for x, y, p, t in events
    )


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _npz(**members: bytes | np.ndarray) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content if isinstance(content, bytes) else _npy(content))
    return stream.getvalue()


def _columns(**changes: Any) -> dict[str, np.ndarray]:
    columns = {"x": [1, 2], "y": [3, 4], "p": [0, 1], "t_us": [10, 20], "sensor_size": [34, 34]}
    return {key: np.array(value) for key, value in {**columns, **changes}.items() if value is not None}


def _structured(order: str = "txyp", events: Events | None = None, dtype: str = "<i8") -> np.ndarray:
    events = events or _some_events()
    array = np.zeros(len(events), [(field, dtype) for field in order])
    for field in order:
        array[field] = getattr(events, "t_us" if field == "t" else field)
    return array


@TMP
@given(recordings(pause_us=1 << 50, edge=32767))
def test_an_npz_gives_the_recording_back(tmp_path: Path, events: Events) -> None:
    write_events(events, tmp_path / "r.npz")
    assert read_events(tmp_path / "r.npz").same(events)
    assert [file.name for file in tmp_path.iterdir()] == ["r.npz"]


@TMP
@given(recordings(pause_us=(1 << 22) - 1, edge=256), st.sampled_from([".bin", ".bs2", ".BIN"]))
def test_a_binary_gives_the_recording_back_over_wraps_of_its_clock(tmp_path: Path, events: Events, suffix: str) -> None:
    path = tmp_path / f"r{suffix}"
    write_events(events, path)
    assert path.stat().st_size == 5 * len(events)
    assert read_events(path, sensor_size=events.sensor_size).same(events)


@TMP
@given(recordings(pause_us=3 * CLOCK_US, edge=300))
def test_a_binary_is_refused_or_gives_the_recording_back(tmp_path: Path, events: Events) -> None:
    path = tmp_path / "r.bin"
    path.unlink(missing_ok=True)
    with contextlib.suppress(EventFileError):
        write_events(events, path)
    if list(tmp_path.iterdir()):
        assert read_events(path, sensor_size=events.sensor_size).same(events)


def test_the_bits_of_a_binary_are_those_of_n_mnist() -> None:
    data = _bin((1, 2, 0, 3), (33, 32, 1, CLOCK_US - 1), (0, 0, 1, 5))
    assert data[:10] == bytes([1, 2, 0, 0, 3, 33, 32, 255, 255, 255])
    events = parse_bin(data, "r.bin")
    assert events.same(_events_of([1, 33, 0], [2, 32, 0], [0, 1, 1], [3, CLOCK_US - 1, CLOCK_US + 5]))


@pytest.mark.parametrize(
    ("largest", "given_size", "expected"),
    [
        (33, None, (34, 34)),
        (34, None, (128, 128)),
        (127, None, (128, 128)),
        (33, (64, 50), (64, 50)),
        (200, (180, 240), (180, 240)),
    ],
)
def test_the_sensor_is_the_named_one_or_the_smallest_usual(
    tmp_path: Path, largest: int, given_size: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    events = _columns(x=[0, largest], y=[0, 0], sensor_size=None)
    (tmp_path / "r.bin").write_bytes(_bin((0, 0, 0, 10), (largest, 0, 1, 20)))
    (tmp_path / "r.npz").write_bytes(_npz(**events))
    for name in ("r.bin", "r.npz"):
        assert read_events(tmp_path / name, sensor_size=given_size).sensor_size == expected


def test_a_named_sensor_overrides_that_of_the_file(tmp_path: Path) -> None:
    write_events(_some_events(), tmp_path / "r.npz")
    assert read_events(tmp_path / "r.npz", sensor_size=(50, 60)).sensor_size == (50, 60)


@pytest.mark.parametrize("order", ["txyp", "xytp", "pytx"])
@pytest.mark.parametrize("dtype", ["<i8", ">u4", "<f8"])
def test_structured_arrays_are_read_by_field_name(tmp_path: Path, order: str, dtype: str) -> None:
    array = _structured(order, dtype=dtype)
    np.save(tmp_path / "r.npy", array)
    np.savez_compressed(tmp_path / "r.npz", events=array)
    np.savez(tmp_path / "sized.npz", events=array, sensor_size=[34, 34])
    for name in ("r.npy", "r.npz", "sized.npz"):
        assert read_events(tmp_path / name).same(_some_events())


def test_plain_columns_may_be_of_other_dtypes_and_orders(tmp_path: Path) -> None:
    x, y, t = np.array([1, 2], np.int8), np.array([3, 4], np.float32), np.array([10, 20], np.uint64)
    np.savez(tmp_path / "r.npz", p=np.array([False, True]), y=y, t=t, x=x)
    assert read_events(tmp_path / "r.npz").same(_events_of([1, 2], [3, 4], [0, 1], [10, 20]))


@pytest.mark.parametrize("suffix", [".npz", ".bin"])
def test_equal_recordings_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_events(_some_events(), tmp_path / folder / f"{folder}{suffix}")
    hashes = {hashlib.sha256((tmp_path / f / f"{f}{suffix}").read_bytes()).hexdigest() for f in ("a", "b")}
    assert len(hashes) == 1


def test_our_npz_is_numpys(tmp_path: Path) -> None:
    write_events(_some_events(), tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["x", "y", "p", "t_us", "sensor_size"]
        np.testing.assert_array_equal(arrays["t_us"], _some_events().t_us)


def test_frames_of_an_npz(tmp_path: Path) -> None:
    frames = np.arange(16, dtype=np.uint8).reshape(1, 2, 2, 4)
    np.savez(tmp_path / "f.npz", frames=frames)
    found = read_frames(tmp_path / "f.npz")
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, frames)
    write_events(_some_events(), tmp_path / "r.npz")
    assert read_frames(tmp_path / "r.npz") is None


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 3, 3)), r"found float64 of shape \[2, 3, 3\]. Try frames\[:, None\]"),
        (np.zeros((0, 1, 3, 3)), r"found float64 of shape \[0, 1, 3, 3\]"),
        (np.full((1, 1, 1, 1), "a"), "expected numbers"),
        (np.full((1, 1, 1, 1), np.nan), "found NaN or infinity"),
        (np.full((1, 1, 1, 1), 1e300), "found NaN or infinity"),
        (np.full((1, 1, 1, 1), None), "found Python objects"),
    ],
)
def test_frames_that_are_none_are_refused(tmp_path: Path, frames: np.ndarray, message: str) -> None:
    (tmp_path / "f.npz").write_bytes(_npz(frames=frames))
    with pytest.raises(EventFileError, match=rf"^f\.npz: .*{message}"):
        read_frames(tmp_path / "f.npz")


def test_frames_are_read_from_npz_only(tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(_bin((1, 1, 1, 1)))
    with pytest.raises(EventFileError, match=r"ends in \.npz, found '\.bin'"):
        read_frames(tmp_path / "f.bin")


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + bytes(50)
DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "cut binary": ("r.bin", _bin((1, 1, 1, 1), (2, 2, 0, 2))[:-2], "found 8 bytes: the event at byte 5 is cut short"),
    "empty binary": ("r.bs2", b"", "expected events, found an empty file"),
    "picture as binary": ("r.bin", PNG, "what reads as a PNG picture"),
    "archive as binary": ("r.bs2", _npz(**_columns()), "what reads as a zip archive"),
    "text as binary": ("r.bin", b"x,y,p,t\n" * 5, "what reads as text"),
    "binary going back": (
        "r.bin",
        _bin((1, 1, 1, 9), (1, 1, 1, 7)),
        "byte 5: t_us is 7, 2 us before the one before it",
    ),
    "binary of a large sensor": ("r.bin", _bin((128, 1, 1, 9)), r"found 128. Try read_events\(path, sensor_size="),
    "unknown suffix": ("r.mp4", PNG, r"ends in \.bin, \.bs2, \.npz, \.npy, .*, found '\.mp4'"),
    "picture as AEDAT 4": ("r.aedat4", PNG, "expected an AEDAT 4 recording, found a PNG picture"),
    "archive as HDF5": ("r.h5", _npz(**_columns()), "expected an HDF5 file, found a zip archive .another suffix"),
    "no suffix": ("recording", PNG, "found ''"),
    "picture as npz": ("r.npz", PNG, "expected a zip archive, found a PNG picture"),
    "text as npz": ("r.npz", b"hello", "expected a zip archive, found text"),
    "nothing as npz": ("r.npz", b"", "expected a zip archive, found nothing"),
    "noise as npz": ("r.npz", bytes(range(200, 250)), "expected a zip archive, found something else"),
    "empty archive": ("r.npz", _npz(), "expected a zip archive, found an empty zip archive"),
    "archive of other files": ("r.npz", _npz(frames=np.zeros(3)), "missing: x, y, p, t_us"),
    "missing column": ("r.npz", _npz(**_columns(y=None)), "found 'x', 'p', 't_us'; missing: y."),
    "missing time": ("r.npz", _npz(**_columns(t_us=None)), "missing: t_us"),
    "unsorted times": (
        "r.npz",
        _npz(**_columns(t_us=[20, 10])),
        "event 1 of the archive: t_us is 10, 10 us before the one before it",
    ),
    "outside the sensor": (
        "r.npz",
        _npz(**_columns(x=[1, 40])),
        "event 1 of the archive: x is 40, expected a column in 0..33",
    ),
    "polarity of -1": (
        "r.npz",
        _npz(**_columns(p=[-1, 1])),
        "event 0 of the archive: p is -1, expected a polarity .*polarity='signed'",
    ),
    "unequal lengths": ("r.npz", _npz(**_columns(x=[1])), "1-D arrays of equal length"),
    "damaged npz": ("r.npz", _npz(**_columns())[:-60], "found a damaged or foreign one"),
    "objects": ("r.npz", _npz(**_columns(x=np.array([1, None]))), "'x.npy': expected numbers, found Python objects"),
    "two axes": ("r.npz", _npz(**_columns(x=[[1, 2]])), r"x: expected one axis, found shape \[1, 2\]"),
    "parts of microseconds": ("r.npz", _npz(**_columns(t_us=[0.5, 1])), r"t_us\[0\] is 0.5.*rint\(t \* 1e6\)"),
    "times of NaN": ("r.npz", _npz(**_columns(t_us=[1, np.nan])), r"t_us\[1\] is nan, expected a whole number"),
    "endless times": ("r.npz", _npz(**_columns(t_us=[1, np.inf])), r"t_us\[1\] is inf, expected a whole number"),
    "parts of pixels": ("r.npz", _npz(**_columns(x=[1, 2.5])), r"x\[1\] is 2.5.*Try numpy.rint\(x\)"),
    "coordinates as text": ("r.npz", _npz(**_columns(x=["a", "b"])), "x: expected whole numbers, found <U1"),
    "times as dates": (
        "r.npz",
        _npz(**_columns(t_us=np.zeros(2, "M8[us]"))),
        "t_us: expected whole numbers, found dat",
    ),
    "no events": ("r.npz", _npz(**_columns(x=[], y=[], p=[], t_us=[])), "expected events, found none"),
    "sensor of one edge": ("r.npz", _npz(**_columns(sensor_size=[34])), "sensor_size: expected two whole numbers"),
    "sensor of halves": ("r.npz", _npz(**_columns(sensor_size=[34.5, 34])), "two whole numbers, .* found float64"),
    "sensor of nothing": ("r.npz", _npz(**_columns(sensor_size=[0, 34])), "sensor_size: expected edges of 1 to 32767"),
    "npy without fields": ("r.npy", _npy(np.zeros((3, 4))), r"structured array .* found float64 of shape \[3, 4\]"),
    "npy of objects": ("r.npy", _npy(np.array([{}])), "found Python objects, which are refused"),
    "npy without polarity": ("r.npy", _npy(np.zeros(3, [("x", "i2"), ("y", "i2"), ("t", "i8")])), "missing: p"),
    "npy of two axes": ("r.npy", _npy(_structured()[None]), "expected one axis"),
    "empty npy": ("r.npy", b"", "expected a NumPy array, found nothing"),
    "text as npy": ("r.npy", b"1 2 3", "expected a NumPy array, found text"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_one_sentence_with_the_name_of_the_file(tmp_path: Path, case: str) -> None:
    name, content, message = DAMAGED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EventFileError, match=message) as raised:
        read_events(tmp_path / name)
    said = str(raised.value)
    assert said.startswith(f"{name}: ")
    assert str(tmp_path) not in said
    assert "\n" not in said
    assert "Try " in said
    assert raised.value.exit_code == 6


@pytest.mark.parametrize(("name", "message"), [("gone.bin", "found nothing"), ("folder.npz", "found a folder")])
def test_a_file_that_is_not_there(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(EventFileError, match=message):
        read_events(tmp_path / name)


def test_a_path_that_cannot_be_one() -> None:
    with pytest.raises(EventFileError, match="cannot be read"):
        read_events("a" * 5000 + ".bin")


def test_a_recording_in_memory_may_not_be_larger_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(_some_events(), tmp_path / "r.bin")
    monkeypatch.setattr("spikeport.models.formats.gather.MAX_EVENTS", 39)
    with pytest.raises(EventFileError, match=r"expected at most 39 events in memory at once, found more\. Try iterate"):
        read_events(tmp_path / "r.bin")
    assert sum(map(len, iterate_events(tmp_path / "r.bin", chunk=30))) == 40


def test_frames_may_not_be_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "f.npz", frames=np.zeros((1, 1, 9, 9)))
    monkeypatch.setattr("spikeport.models.files.MAX_BYTES", 100)
    with pytest.raises(EventFileError, match="expected at most 100 bytes, found"):
        read_frames(tmp_path / "f.npz")


def _events_at(*times: int, x: int = 1, edge: int = 400) -> Events:
    n = len(times)
    return Events(np.full(n, x), np.ones(n, int), np.ones(n, int), np.array(times), (edge, edge))


UNWRITABLE: dict[str, tuple[Events, str, str]] = {
    "column": (_events_at(1, x=256), "r.bin", "x: expected at most 255.* found 256. Try .npz"),
    "late start": (_events_at(CLOCK_US), "r.bs2", "found a late first event. Try .npz"),
    "long pause": (_events_at(0, CLOCK_US + 3), "r.bin", "found 8388611 us before event 1"),
    "pause over a wrap": (_events_at(CLOCK_US // 2, CLOCK_US + 3), "r.bin", "pauses under 4194304 us"),
    "looks like text": (_events_of([32], [32], [0], [0x202020]), "r.bin", "what reads as text"),
    "no events": (_events_at(), "r.npz", "expected a recording with events to write, found none"),
    "suffix": (_events_at(1), "r.mp4", r"ends in \.bin, \.bs2, \.npz, .*, found '\.mp4'"),
    "folder": (_events_at(1), "gone/r.npz", "^r.npz: cannot be written there"),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, case: str) -> None:
    events, name, message = UNWRITABLE[case]
    with pytest.raises(EventFileError, match=message):
        write_events(events, tmp_path / name)
    assert not list(tmp_path.iterdir())


@needs("nmnist")
@pytest.mark.parametrize("archive", ["train.zip", "test.zip"])
def test_real_n_mnist_recordings(archive: str) -> None:
    with zipfile.ZipFile(SHARED / "nmnist" / archive) as opened:
        names = [name for name in opened.namelist() if name.endswith(".bs2")][:50]
        found = [parse_bin(opened.read(name), name) for name in names]
    assert len(found) == 50
    for events in found:
        assert events.sensor_size == (34, 34)
        assert 1000 < len(events) < 8000  # three saccades of 100 ms each
        assert 290_000 < events.duration_us < 340_000
        assert 0.2 < events.p.mean() < 0.8


@needs("dvs128_gesture")
def test_real_gestures() -> None:
    files = sorted((SHARED / "dvs128_gesture").glob("*.bs2"))
    assert files
    for file in files:
        events = read_events(file)
        assert events.sensor_size == (128, 128)
        assert len(events) == file.stat().st_size // 5
        assert 1_400_000 < events.duration_us < 1_500_000


@needs("formats")
def test_a_structured_array_of_another_tool() -> None:
    file = SHARED / "formats" / "expelliarmus_evt3_sample.npy"
    events = read_events(file, sensor_size=(720, 1280))
    expected = np.load(file)
    for name, field in (("x", "x"), ("y", "y"), ("p", "p"), ("t_us", "t")):
        np.testing.assert_array_equal(getattr(events, name), expected[field])
    with pytest.raises(EventFileError, match="Try read_events"):
        read_events(file)
