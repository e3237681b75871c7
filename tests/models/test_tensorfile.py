"""Artifacts: what is packed comes back, equal contents are equal bytes, and a file is whole or as it was."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from spikeport.models import tensorfile
from spikeport.models.atomic import write_atomic
from spikeport.models.errors import TensorFileError
from spikeport.models.tensorfile import pack, unpack

TMP = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(lambda name: name != "__metadata__")
TENSORS = st.dictionaries(
    NAMES,
    hnp.arrays(
        st.sampled_from([np.int8, np.int16, np.int64, np.float32, np.float64, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    max_size=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.dictionaries(NAMES.filter(lambda name: name not in ("kind", "format")), VALUES, max_size=4)


def _equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and a[name].tobytes() == b[name].tobytes()
        for name in a
    )


@TMP
@given(TENSORS, HEADERS, st.integers(1, 9))
def test_unpack_gives_back_what_was_packed(
    tmp_path: Path, tensors: dict[str, np.ndarray], header: dict[str, Any], version: int
) -> None:
    (tmp_path / "a.x").write_bytes(pack(tensors, header, kind="net", version=version))
    found_header, found = unpack(tmp_path / "a.x", kind="net", versions=(version,))
    assert found_header == {**header, "kind": "net", "format": version}
    assert _equal(found, tensors)


@TMP
@given(TENSORS, HEADERS)
def test_equal_contents_give_equal_bytes(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    turned = {name: tensors[name] for name in reversed(tensors)}
    turned_header = {name: header[name] for name in reversed(header)}
    assert pack(turned, turned_header, kind="net", version=1) == pack(tensors, header, kind="net", version=1)


def test_any_memory_layout_is_packed_alike(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1)[:, :, ::-1]
    data = pack({"w": array}, {}, kind="net", version=1)
    assert data == pack({"w": array.copy()}, {}, kind="net", version=1)
    (tmp_path / "a").write_bytes(data)
    np.testing.assert_array_equal(unpack(tmp_path / "a", kind="net", versions=(1,))[1]["w"], array)


def test_a_header_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack({}, {"rate": float("nan")}, kind="net", version=1)


GOOD = pack({"w": np.arange(5, dtype=np.int16)}, {"n": 1}, kind="net", version=1)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "found a damaged or foreign file"),
    "text": (b"hello, this is text and no artifact", "found a damaged or foreign file"),
    "cut in the header": (GOOD[:20], "found a damaged or foreign file"),
    "cut in the tensors": (GOOD[:-3], "found a damaged or foreign file"),
    "longer than it says": (GOOD + b"\0", "found a damaged or foreign file"),
    "huge header": (b"\xff" * 8 + GOOD[8:], "found a damaged or foreign file"),
    "no metadata": (save({"w": np.zeros(2)}), "a safetensors file without its header"),
    "other metadata": (save({"w": np.zeros(2)}, {"format": "pt"}), "a safetensors file without its header"),
    "header of no JSON": (save({"w": np.zeros(2)}, {"spikeport": "{"}), "without its header"),
    "header of a list": (save({"w": np.zeros(2)}, {"spikeport": "[]"}), "without its header"),
    "header without kind": (save({"w": np.zeros(2)}, {"spikeport": '{"format": 1}'}), "without its header"),
    "deep header": (save({"w": np.zeros(2)}, {"spikeport": "[" * 100_000}), "without its header"),
    "other kind": (
        pack({}, {}, kind="program", version=1),
        "expected a spikeport net, found a program.*spikeport conv",
    ),
    "other version": (pack({}, {}, kind="net", version=7), "net format version 7, this spikeport knows 1, 2"),
    "version of text": (save({}, {"spikeport": '{"kind": "net", "format": "1"}'}), "format version '1'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_one_sentence_with_the_name_of_the_file(tmp_path: Path, case: str) -> None:
    content, message = DAMAGED[case]
    (tmp_path / "a.net").write_bytes(content)
    with pytest.raises(TensorFileError, match=message) as raised:
        unpack(tmp_path / "a.net", kind="net", versions=(1, 2))
    said = str(raised.value)
    assert said.startswith("a.net: ")
    assert str(tmp_path) not in said
    assert "\n" not in said
    assert "Try " in said
    assert raised.value.exit_code == 6


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TensorFileError, match=r"^a\.net: expected a spikeport net there, found nothing"):
        unpack(tmp_path / "a.net", kind="net", versions=(1,))
    with pytest.raises(TensorFileError, match="found a folder"):
        unpack(tmp_path, kind="net", versions=(1,))


def test_a_file_may_not_be_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.net").write_bytes(GOOD)
    monkeypatch.setattr(tensorfile, "MAX_BYTES", 10)
    with pytest.raises(TensorFileError, match=f"expected at most 10 bytes, found {len(GOOD)}"):
        unpack(tmp_path / "a.net", kind="net", versions=(1,))


def test_a_damaged_file_is_refused_or_still_an_artifact(tmp_path: Path) -> None:
    path, rng, n_refused = tmp_path / "a.net", random.Random(0), 0
    for _ in range(500):
        data = bytearray(GOOD)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            assert unpack(path, kind="net", versions=(1,))[0]["kind"] == "net"
        except TensorFileError:
            n_refused += 1
    assert 300 < n_refused < 500


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    for content in (b"a long first content", b"short"):
        write_atomic(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208 - hidden files too
    plain = tmp_path / "b"
    plain.touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    write_atomic(tmp_path / "a", b"old")
    with monkeypatch.context() as patched:
        patched.setattr(step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "a", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_write_into_nowhere_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "gone" / "a", tmp_path / "folder"):
        with pytest.raises(OSError):  # noqa: PT011 - each system has its own words
            write_atomic(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
