"""What is repaired only where it is asked for, counted; the traps of the formats; text and arrays of other people."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events
from spikeport.models.files import iterate_events, read_events, write_events
from spikeport.models.formats.source import ReadOptions

TMP = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def columns_file(path: Path, **changes: list[int]) -> Path:
    columns = {"x": [1, 2, 3], "y": [4, 5, 6], "p": [0, 1, 0], "t": [10, 20, 30], **changes}
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    np.savez(path, **arrays, sensor_size=np.array([34, 34]))
    return path


def repaired(path: Path, **options: object) -> tuple[Events, dict[str, int]]:
    counts: Counter[str] = Counter()
    events = read_events(path, options=ReadOptions(**options), counts=counts)  # type: ignore[arg-type]
    return events, dict(counts)


def test_time_that_goes_back_is_sorted_and_counted(tmp_path: Path) -> None:
    path = columns_file(tmp_path / "r.npz", t=[10, 5, 10])
    with pytest.raises(EventFileError, match="repair 'sort'"):
        read_events(path)
    events, counts = repaired(path, sort=True)
    assert events.t_us.tolist() == [5, 10, 10]
    assert events.x.tolist() == [2, 1, 3]  # events of one time stay in their order
    assert counts == {"events put in order of time": 1}


@TMP
@given(hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 40)), st.integers(1, 30))
def test_sorting_in_windows_is_sorting(tmp_path: Path, times: np.ndarray, chunk: int) -> None:
    n = len(times)
    np.savez(tmp_path / "r.npz", x=np.arange(n), y=np.zeros(n, int), p=np.zeros(n, int), t=times, sensor_size=[1, 60])
    counts: Counter[str] = Counter()
    pieces = list(iterate_events(tmp_path / "r.npz", chunk=chunk, options=ReadOptions(sort=True), counts=counts))
    order = np.argsort(times, kind="stable")
    np.testing.assert_array_equal(np.concatenate([piece.t_us for piece in pieces]), times[order])
    np.testing.assert_array_equal(np.concatenate([piece.x for piece in pieces]), order)
    assert counts.get("events put in order of time", 0) == int((times < np.maximum.accumulate(times)).sum())


def test_time_that_goes_back_too_far_is_refused_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeport.models.formats.arrays.BLOCK_EVENTS", 10)
    path = columns_file(tmp_path / "r.npz", x=[0] * 50, y=[0] * 50, p=[0] * 50, t=[*range(100, 149), 3])
    with pytest.raises(EventFileError, match=r"t_us is 3, expected at least .* Try a larger chunk"):
        list(iterate_events(path, chunk=10, options=ReadOptions(sort=True)))
    (events,) = iterate_events(path, chunk=50, options=ReadOptions(sort=True))
    assert int(events.t_us[0]) == 3


def test_events_outside_are_left_out_or_moved(tmp_path: Path) -> None:
    path = columns_file(tmp_path / "r.npz", x=[1, 34, -5])
    with pytest.raises(EventFileError, match=r"x is 34, expected a column in 0..33 .2 of these 3 events are outside"):
        read_events(path)
    events, counts = repaired(path, crop=True)
    assert events.t_us.tolist() == [10]
    assert counts == {"events outside the sensor left out": 2}
    events, counts = repaired(path, clip=True)
    assert events.x.tolist() == [1, 33, 0]
    assert counts == {"coordinates moved to the sensor's edge": 2}


def test_polarities_of_other_conventions(tmp_path: Path) -> None:
    path = columns_file(tmp_path / "r.npz", p=[-1, 1, -1])
    events, counts = repaired(path, polarity="signed")
    assert events.p.tolist() == [0, 1, 0]
    assert counts == {"polarities of -1 taken for 0": 2}
    path = columns_file(tmp_path / "q.npz", p=[2, 1, -1])
    with pytest.raises(EventFileError, match="p is 2"):
        repaired(path, polarity="signed")
    events, counts = repaired(path, polarity="drop")
    assert events.x.tolist() == [2]
    assert counts == {"events of another polarity left out": 2}


def test_time_may_be_made_to_start_at_0(tmp_path: Path) -> None:
    path = columns_file(tmp_path / "r.npz", t=[-7, 0, 5])
    with pytest.raises(EventFileError, match=r"t_us is -7, expected 0 or more.*'from_zero'"):
        read_events(path)
    events, counts = repaired(path, from_zero=True)
    assert events.t_us.tolist() == [0, 7, 12]
    assert counts == {"microseconds taken off every time": -7}


@pytest.mark.parametrize("name", ["r.raw", "r.dat", "r.bin", "r.es", "r.aedat", "r.aedat4", "r.csv"])
def test_what_is_incomplete_at_the_end_is_left_out(tmp_path: Path, name: str) -> None:
    events = _line(20)
    write_events(events, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-1] if name != "r.csv" else data[:-5])
    with pytest.raises(EventFileError):
        read_events(tmp_path / name)
    counts: Counter[str] = Counter()
    options = ReadOptions(cut=True)
    found = [] if name in ("r.aedat4",) else [read_events(tmp_path / name, options=options, counts=counts)]
    assert all(one.same(events.part(0, len(one))) and len(one) in (19, 20) for one in found)
    if not found:  # all events are in the one packet that is cut
        with pytest.raises(EventFileError, match="found none"):
            read_events(tmp_path / name, options=options, counts=counts)
    assert sum(n for what, n in counts.items() if what.endswith("cut at the end")) > 0


def _line(n: int) -> Events:
    return Events(np.arange(n), np.zeros(n, int), np.ones(n, int), 10 * np.arange(n), (34, 34))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_unit": "min"}, "time_unit: expected one of s, ms, us, ns, found 'min'"),
        ({"polarity": "both"}, "polarity: expected one of strict, signed, drop, found 'both'"),
        ({"evt3_time": "x"}, "evt3_time: expected one of format, expelliarmus"),
        ({"crop": True, "clip": True}, "crop and clip: expected at most one"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EventFileError, match=message):
        ReadOptions(**options)


# traps of single formats


def test_a_polarity_bit_of_1_is_off_in_a_dvs128_and_on_in_a_davis(tmp_path: Path) -> None:
    (tmp_path / "dvs.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", 5 << 8 | 7 << 1 | 1, 9))
    head = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n"
    (tmp_path / "davis.aedat").write_bytes(head + struct.pack(">II", 5 << 22 | 7 << 12 | 1 << 11, 9))
    for name, polarity, size in (("dvs.aedat", 0, (34, 34)), ("davis.aedat", 1, (260, 346))):
        events = read_events(tmp_path / name)
        assert (events.x.tolist(), events.y.tolist(), events.p.tolist()) == ([7], [5], [polarity])
        assert events.sensor_size == size


def test_special_events_are_counted_and_left_out(tmp_path: Path) -> None:
    words = struct.pack(">IIIIII", 2, 1, 1 << 15, 2, 4, 3)
    (tmp_path / "r.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + words)
    events, counts = repaired(tmp_path / "r.aedat")
    assert events.t_us.tolist() == [1, 3]
    assert counts == {"special events left out": 1}


def test_an_address_may_begin_like_a_line_of_the_header(tmp_path: Path) -> None:
    head = b"#!AER-DAT2.0\r\n# AEChip: Davis640\r\n"
    (tmp_path / "r.aedat").write_bytes(head + struct.pack(">II", ord("#") << 24 | 1 << 12, 7))
    assert read_events(tmp_path / "r.aedat").y.tolist() == [(ord("#") << 24) >> 22]


def test_a_time_may_begin_like_a_line_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(struct.pack("<II", ord("%"), 3 | 4 << 9 | 1 << 17))
    events = read_events(tmp_path / "r.dat")
    assert (events.x.tolist(), events.y.tolist(), events.p.tolist(), events.t_us.tolist()) == ([3], [4], [1], [37])


def test_the_header_decides_between_the_layouts_of_dat(tmp_path: Path) -> None:
    old, new = struct.pack("<II", 9, 3 | 4 << 9 | 1 << 17), struct.pack("<II", 9, 3 | 4 << 14 | 1 << 28)
    for name, content in (
        ("bare.dat", old),
        ("old.dat", b"% Version 1\n\x00\x08" + old),
        ("new.dat", b"% Version 2\n% Height 34\n% Width 34\n\x0c\x08" + new),
    ):
        (tmp_path / name).write_bytes(content)
        events = read_events(tmp_path / name)
        assert events.same(Events(np.array([3]), np.array([4]), np.array([1]), np.array([9]), (34, 34)))


def test_clocks_that_wrap_are_counted_on(tmp_path: Path) -> None:
    times = (1 << 32) - 5, 3, 2
    (tmp_path / "r.dat").write_bytes(b"".join(struct.pack("<II", t & 0xFFFFFFFF, 1) for t in times[:2]))
    assert read_events(tmp_path / "r.dat").t_us.tolist() == [(1 << 32) - 5, (1 << 32) + 3]
    (tmp_path / "r.dat").write_bytes(b"".join(struct.pack("<II", t & 0xFFFFFFFF, 1) for t in times))
    with pytest.raises(EventFileError, match="byte 16: t_us is 4294967298, 1 us before"):
        read_events(tmp_path / "r.dat")


def test_events_before_the_first_time_are_counted(tmp_path: Path) -> None:
    words = np.array([5, 0x2001, 0x8002, 5, 0x6003, 0x2002], "<u2").tobytes()
    (tmp_path / "r.raw").write_bytes(b"% evt 3.0\n% geometry 34x34\n" + words)
    events, counts = repaired(tmp_path / "r.raw")
    assert (events.x.tolist(), events.t_us.tolist()) == ([2], [2 << 12 | 3])
    assert counts == {"events before the first time left out": 1}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("% evt 3.0\n% geometry 640x480\n", (480, 640)),
        ("% format EVT3;height=320;width=320\n% end\n", (320, 320)),
        ("% evt 3.0\n% plugin_name hal_plugin_gen31_fx3\n", (480, 640)),
        ("% evt 3.0\n% system_ID 48\n", (720, 1280)),
        ("% evt 3.0\n% Date 2020-09-25\n", (34, 34)),
    ],
)
def test_the_sensor_of_a_raw_file(tmp_path: Path, header: str, size: tuple[int, int]) -> None:
    (tmp_path / "r.raw").write_bytes(header.encode() + np.array([0x8002, 5, 0x2002], "<u2").tobytes())
    assert read_events(tmp_path / "r.raw").sensor_size == size


def test_event_stream_counts_rows_from_below_and_may_be_reset(tmp_path: Path) -> None:
    head = struct.pack("<12s3BBHH", b"Event Stream", 2, 0, 0, 1, 34, 34)
    body = bytes([0xFE, 0xFF, 0xFF, (3 << 1) | 1, 7, 0, 2, 0])
    (tmp_path / "r.es").write_bytes(head + body)
    expected = Events(np.array([7]), np.array([31]), np.array([1]), np.array([2 * 127 + 3]), (34, 34))
    assert read_events(tmp_path / "r.es").same(expected)


def test_exposure_events_of_an_atis_are_left_out(tmp_path: Path) -> None:
    head = struct.pack("<12s3BBHH", b"Event Stream", 2, 0, 0, 2, 300, 200)
    # As the package event_stream writes five events at 0, 5, 100, 1000 and 1000 us, the second one of exposure.
    body = "0200000000 150100c700 fd822b010200 fffffffffe4b03000300 0004000400"
    (tmp_path / "r.es").write_bytes(head + bytes.fromhex(body))
    events, counts = repaired(tmp_path / "r.es")
    assert events.t_us.tolist() == [0, 100, 1000]
    assert events.x.tolist() == [0, 299, 4]
    assert events.p.tolist() == [1, 1, 0]
    assert counts == {"exposure events left out": 2}


# text and arrays of other people


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x,y,p,t\n1,2,0,10\n3,4,1,20\n", {}),
        ("t_us;y;x;polarity;extra\n10;2;1;0;abc\n20;4;3;1;\n", {}),
        ('"x"\t"y"\t"on"\t"timestamp"\n1\t2\tFalse\t10\n3\t4\tTrue\t20\n', {}),
        ("# a note\nx, y, p, t_s\r\n1, 2, 0, 0.0000100\r\n3, 4, 1, 2e\r\n".replace("2e", "0.00002"), {}),
        ("0.000010000 1 2 0\n0.0000199996 3 4 1\n", {"columns": "t_s x y p"}),
        ("%geometry:34,34\n1,2,0,10\n3,4,1,20", {}),
        ("x,y,p,t_ns\n1,2,0,10999\n3,4,1,20000\n", {}),
        ("x,y,p,t\n1,2,0,.01\n3,4,1,0.02\n".replace(",.01", ",0.01"), {"time_unit": "ms"}),
        ("x,y,p,t\n\n1.0,2,0,10\n  3 , 4 , +1 , 20  \n\n", {}),
        ("\ufeffx,y,p,t\n1,2,0,10\n3,4,1,20\n", {}),
    ],
)
def test_text_of_all_sorts(tmp_path: Path, text: str, options: dict[str, str]) -> None:
    (tmp_path / "r.csv").write_bytes(text.encode())
    events, _ = repaired(tmp_path / "r.csv", **options)
    assert events.same(Events(np.array([1, 3]), np.array([2, 4]), np.array([0, 1]), np.array([10, 20]), (34, 34)))


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3), ("ns", 1e3)])
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_times_of_another_unit(tmp_path: Path, unit: str, factor: float, suffix: str) -> None:
    times = np.array([0.0, 1e6, 2_000_001.0]) * factor
    path = tmp_path / f"r{suffix}"
    zeros = np.zeros(3, int)
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, column in (("xs", zeros), ("ys", zeros), ("ps", zeros.astype(bool)), ("ts", times)):
                file[f"events/{name}"] = column
    else:
        np.savez(path, x=zeros, y=zeros, p=zeros, t=times)
    assert repaired(path, time_unit=unit)[0].t_us.tolist() == [0, 1_000_000, 2_000_001]
    if unit == "s":
        with pytest.raises(EventFileError, match=r"expected a whole number.*time_unit='s'"):
            read_events(path)


def test_whole_times_of_another_unit(tmp_path: Path) -> None:
    path = columns_file(tmp_path / "r.npz", t=[1, 2, 3])
    assert repaired(path, time_unit="s")[0].t_us.tolist() == [1_000_000, 2_000_000, 3_000_000]
    assert repaired(path, time_unit="ns")[0].t_us.tolist() == [0, 0, 0]
    path = columns_file(tmp_path / "r.npz", t=[1, 2, 1 << 60])
    with pytest.raises(EventFileError, match="t: expected times in s, found 1152921504606846976"):
        repaired(path, time_unit="s")


def test_compound_arrays_of_metavision(tmp_path: Path) -> None:
    array = np.zeros(2, [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    array["x"], array["t"] = [1, 3], [10, 20]
    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        file["CD/events"] = array
        file["CD"].attrs["height"], file["CD"].attrs["width"] = 480, 640
    events = read_events(tmp_path / "r.hdf5")
    assert (events.x.tolist(), events.t_us.tolist(), events.sensor_size) == ([1, 3], [10, 20], (480, 640))
