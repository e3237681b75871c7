"""npz and HDF5: what is written comes back under any key; what is damaged or could run code is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spikeport.models.errors import InferenceError, TensorFileError
from spikeport.models.serializers import (
    SERIALIZERS,
    find_serializer,
    load_arrays,
    save_arrays,
    serializer_of,
    tables_of,
)

FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
KEYS = st.one_of(PARTS, st.lists(PARTS, min_size=1, max_size=3).map(tuple))
ARRAYS = hnp.arrays(
    st.sampled_from([np.int8, np.int64, np.float32, np.bool_, np.uint16]), hnp.array_shapes(min_dims=0, min_side=0)
)


@FAST
@given(st.dictionaries(KEYS, ARRAYS, max_size=4), st.sampled_from([".npz", ".h5", ".hdf5"]))
def test_arrays_come_back_under_any_key(tmp_path: Path, arrays: Any, suffix: str) -> None:
    taken: dict[Any, Any] = {}
    for key, array in arrays.items():  # HDF5 cannot hold an array where it has a group
        parts = ("@", *key) if isinstance(key, tuple) else (key,)
        clash = any(
            parts[: len(other)] == other or other[: len(parts)] == parts
            for other in (("@", *k) if isinstance(k, tuple) else (k,) for k in taken)
        )
        if not clash:
            taken[key] = array
    save_arrays(tmp_path / f"a{suffix}", taken)
    found = load_arrays(tmp_path / f"a{suffix}")
    assert set(found) == set(taken)
    for key, array in taken.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)
        assert not found[key].flags.writeable


@pytest.mark.parametrize("key", ["a-b", "a.b", "../x", "a/b", "ünï", ("a-b", "c-d"), ("..", "/")])
def test_keys_with_characters_of_file_names_are_keys(tmp_path: Path, key: Any) -> None:
    for suffix in (".npz", ".h5"):
        save_arrays(tmp_path / f"k{suffix}", {key: np.arange(3)})
        assert list(load_arrays(tmp_path / f"k{suffix}")) == [key]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["k.h5", "k.npz"]


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    for suffix in (".npz", ".h5"):
        for name in ("a", "b"):
            save_arrays(tmp_path / f"{name}{suffix}", {("x", "y"): np.arange(5), "z": np.ones((2, 2))})
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    with pytest.raises(TensorFileError, match="found nothing"):
        load_arrays(file)
    save_arrays(file, {("x", str(index)): np.arange(50) for index in range(5)})
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = int(rng.integers(0, 256))
        file.write_bytes(bytes(changed[: int(rng.integers(0, len(data) + 1))]))
        try:
            load_arrays(file)
        except TensorFileError:
            continue


def test_hdf5_with_links_or_objects_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as opened:
        opened["x"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(TensorFileError, match="no plain array"):
        load_arrays(file)
    with h5py.File(file, "w") as opened:
        opened.create_dataset("x", data="text")
    with pytest.raises(TensorFileError, match="no plain array"):
        load_arrays(file)


def test_names_suffixes_keys_and_objects_that_do_not_fit(tmp_path: Path) -> None:
    assert set(SERIALIZERS) == {"npz", "hdf5"}
    with pytest.raises(InferenceError, match="Try 'hdf5'"):
        find_serializer("hdf")
    with pytest.raises(InferenceError, match="ends in"):
        serializer_of("a.txt")
    for key in ("", (), ("a", "")):
        with pytest.raises(InferenceError, match="found an empty one"):
            save_arrays(tmp_path / "a.npz", {key: np.zeros(1)})
    with pytest.raises(InferenceError, match="expected numbers"):
        save_arrays(tmp_path / "a.npz", {"a": np.array([None])})


def test_what_callbacks_kept_can_be_saved(tmp_path: Path) -> None:
    data = {"spikes conv": {3: {"times_us": np.arange(4), "n": np.ones(4)}}, "early_exit_us": {0: 1000}}
    for suffix in (".npz", ".h5"):
        save_arrays(tmp_path / f"d{suffix}", tables_of(data))
        found = load_arrays(tmp_path / f"d{suffix}")
        np.testing.assert_array_equal(found["spikes conv", "3", "times_us"], np.arange(4))
        assert found["early_exit_us", "0"] == 1000
