"""NumPy's files: what numpy saves is decoded as numpy does, and no header is believed on its word."""

from __future__ import annotations

import io
import random
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from spikeport.models import npz
from spikeport.models.errors import EventFileError, WeightsFileError
from spikeport.models.npz import npy_array, npz_arrays

FAST = settings(max_examples=60, deadline=None)
STRUCTURED = np.dtype([("t", "<i8"), ("x", ">u2"), ("p", "?")])


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _npz(*, compressed: bool = False, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


@FAST
@given(
    hnp.arrays(
        hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.unicode_string_dtypes(max_len=3),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_arrays_are_those_that_numpy_saved(array: np.ndarray) -> None:
    for saved in (array, np.asfortranarray(array) if array.ndim else array):
        for found in (
            npy_array(_npy(saved), "a", error=EventFileError),
            npz_arrays(_npz(compressed=True, a=saved), "a", error=EventFileError)["a"],
        ):
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            assert found.tobytes() == array.tobytes()
            assert not found.flags.writeable


def test_structured_arrays_and_the_order_of_members_are_kept() -> None:
    arrays: dict[str, Any] = {"b": np.zeros(3, STRUCTURED), "a": np.ones(2), "c": np.array(7)}
    found = npz_arrays(_npz(**arrays), "a", error=EventFileError)
    assert list(found) == ["b", "a", "c"]
    assert found["b"].dtype == STRUCTURED


def _huge_header() -> bytes:
    content = _npy(np.zeros(10, np.int64))
    return content.replace(b"(10,), }", b"(1000000000000,), }").replace(b" " * 11 + b"\n", b"\n")


def _with_flag(offset: int, value: int) -> bytes:
    data = bytearray(_npz(a=np.zeros(3)))
    data[data.index(b"PK\x01\x02") + offset] = value
    return bytes(data)


ARRAYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "found a damaged one"),
    "other version": (b"\x93NUMPY\x07\x00" + bytes(80), "found a damaged one"),
    "header of no dictionary": (_npy(np.zeros(3)).replace(b"{'descr'", b"['descr'"), "found a damaged one"),
    "objects": (_npy(np.array([{}])), "expected numbers, found Python objects, which are refused"),
    "huge declared size": (
        _huge_header(),
        r"expected 8000000000000 bytes for int64 of shape \[1000000000000\], found 80",
    ),
    "negative shape": (_npy(np.zeros(4)).replace(b"(4,), }   ", b"(-2,-2), }"), r"of shape \[-2, -2\], found 32"),
    "cut": (_npy(np.zeros(4))[:-3], r"expected 32 bytes for float64 of shape \[4\], found 29"),
    "longer": (_npy(np.zeros(4)) + b"\0", r"expected 32 bytes .* found 33"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_a_damaged_array_is_refused(case: str) -> None:
    content, message = ARRAYS[case]
    with pytest.raises(EventFileError, match=f"^r.npy: .*(?:{message})") as raised:
        npy_array(content, "r.npy", error=EventFileError)
    assert "Try numpy.save" in str(raised.value)


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "expected an .npz file, found a damaged or foreign one"),
    "text": (b"hello", "found a damaged or foreign one"),
    "cut": (_npz(a=np.zeros(9))[:-40], "found a damaged or foreign one"),
    "encrypted": (_with_flag(8, 1), "found a damaged or foreign one .*encrypted"),
    "unknown compression": (_with_flag(10, 99), "found a damaged or foreign one"),
    "damaged member": (_npz(a=np.zeros(9)).replace(b"\x93NUMPY", b"\x93NUNPY"), "damaged or foreign one .*CRC"),
    "objects": (_npz(a=np.array([None])), "'a.npy': expected numbers, found Python objects"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_damaged_archive_is_refused_with_the_error_of_the_caller(case: str) -> None:
    content, message = ARCHIVES[case]
    with pytest.raises(WeightsFileError, match=f"^w.npz: .*{message}.*Try numpy.save"):
        npz_arrays(content, "w.npz", error=WeightsFileError)


def test_an_archive_may_not_unpack_to_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = _npz(compressed=True, x=np.zeros(100_000, np.int64))
    assert len(bomb) < 10_000
    monkeypatch.setattr(npz, "MAX_BYTES", 100_000)
    with pytest.raises(EventFileError, match=r"^bomb\.npz: expected at most 100000 bytes, found arrays .* 800128"):
        npz_arrays(bomb, "bomb.npz", error=EventFileError)


def test_members_that_are_no_arrays_are_left_out() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert npz_arrays(stream.getvalue(), "a", error=EventFileError) == {}


def test_a_damaged_header_is_refused_or_an_array() -> None:
    whole, rng, n_refused = _npy(np.zeros(5, STRUCTURED)), random.Random(0), 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(140)] = rng.choice(b"()[]{}',:109-\"\\ \n" + bytes([rng.randrange(256)]))
        try:
            assert npy_array(bytes(data), "a", error=EventFileError).nbytes <= len(whole)
        except EventFileError:
            n_refused += 1
    assert n_refused > 1000
