"""Labelled data by name: POKER-DVS in its forms, folders of pictures, and what is none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeport.models.errors import DataError
from spikeport.models.labelled import open_labelled
from spikeport.models.poker import SUITS, image_folder, poker

from ..shared import SHARED, needs  # noqa: TID252

POKER = SHARED / "poker_dvs"


@needs("poker_dvs")
def test_poker_is_131_symbols_of_four_suits() -> None:
    found = poker(POKER)
    assert len(found) == 131
    assert np.bincount(found.labels).tolist() == [17 + 13, 35 + 8, 23, 25 + 10]
    assert found.classes == SUITS
    assert all(recording.sensor_size == (35, 35) and recording.t_us[0] == 0 for recording in found.recordings)
    assert sum(map(len, found.recordings[:100])) == 286_439


@needs("poker_dvs")
def test_poker_of_a_zip_and_of_a_folder_are_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(POKER / "pips_dat.zip") as archive:
        archive.extractall(tmp_path)
    whole, unpacked = poker(POKER / "pips_dat.zip"), poker(tmp_path)
    assert len(whole) == len(unpacked) == 100
    assert all(a.same(b) for a, b in zip(whole.recordings, unpacked.recordings, strict=True))
    found = open_labelled(f"poker:{POKER}", n=7)
    assert len(found) == 7


def test_places_without_cards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        poker(tmp_path / "absent")
    with pytest.raises(DataError, match="a suit in their names"):
        poker(tmp_path)
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(DataError, match="damaged"):
        poker(tmp_path / "broken.zip")


def pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(2 + label):
            Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8)).save(folder / name / f"{index}.png")
    (folder / "notes.txt").write_text("no class")
    return folder


def test_a_folder_of_pictures_has_a_class_for_each_folder(tmp_path: Path) -> None:
    found = image_folder(pictures(tmp_path / "images"))
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    expected = np.asarray(Image.open(tmp_path / "images" / "dog" / "2.png"))
    np.testing.assert_array_equal(found.images[4], expected)
    assert len(open_labelled(f"images:{tmp_path / 'images'}", n=3)) == 3


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder for each class"):
        image_folder(tmp_path)
    folder = pictures(tmp_path / "images")
    (folder / "cat" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png: expected a picture"):
        image_folder(folder)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(folder / "cat" / "bad.png")
    with pytest.raises(DataError, match="one size"):
        image_folder(folder)


def test_names_that_are_none_and_counts_that_make_no_sense() -> None:
    with pytest.raises(DataError, match="Try digits"):
        open_labelled("digit")
    with pytest.raises(DataError, match="1 sample or more"):
        open_labelled("digits", n=0)
    assert len(open_labelled("digits", n=3)) == 3
