"""Icons: found by their names, nothing else passes for one, and the shipped ones are as drawn."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeport.deploy.errors import SettingError
from spikeport.deploy.view.drawings import DIGITS, FOLDER, SIZE, drawn
from spikeport.deploy.view.icons import MAX_BYTES, find_icons, names_of
from spikeport.models.gesture_cnn import GESTURES

CLASSES = ("zero", "one", "two", "three")


def png(folder: Path, name: str, size: tuple[int, int] = (4, 4)) -> Path:
    path = folder / name
    Image.new("RGB", size).save(path, "PNG")
    return path


def test_files_are_found_by_their_index_and_give_the_names(tmp_path: Path) -> None:
    first, third = png(tmp_path, "0_hand_clap.png"), png(tmp_path, "02_air drums_2.PNG")
    (tmp_path / "README.txt").write_text("by hand")
    assert find_icons(tmp_path, CLASSES) == (first, None, third, None)
    assert names_of(tmp_path) == ("hand clap", "1", "air drums 2")
    (tmp_path / "empty").mkdir()
    assert find_icons(tmp_path / "empty", CLASSES) == (None,) * 4
    assert names_of(str(tmp_path / "empty")) == ()


def test_everything_that_is_no_icon_is_named(tmp_path: Path) -> None:
    outside = png(tmp_path, "outside.png")
    folder = tmp_path / "icons"
    folder.mkdir()
    (folder / "0_link.png").symlink_to(outside)
    png(folder, "1_one.png")
    png(folder, "01_again.png")
    (folder / "2_text.png").write_text("no image at all, but a text that is long enough")
    (folder / "3_folder.png").mkdir()
    problems = {
        "0_link.png": "found a link out of it",
        "1_one.png": "expected one icon for class 1, found '01_again.png' too",
        "2_text.png": "expected a PNG image",
        "3_folder.png": "expected a file",
    }
    refused(folder, problems)
    for path in list(folder.iterdir()):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    png(folder, "0_large.png").write_bytes((folder / "0_large.png").read_bytes() + bytes(MAX_BYTES))
    png(folder, "1_wide.png", (5000, 1))
    (folder / "2_short.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    png(folder, "-1_negative.png")
    png(folder, "4_behind.png")
    png(folder, "99999999999_huge.png")
    problems = {
        "0_large.png": f"expected at most {MAX_BYTES} bytes",
        "1_wide.png": "expected edges of 1 to 2048 pixels, found 5000x1",
        "2_short.png": "expected a PNG image",
        "-1_negative.png": "expected a name of {index}_{label}.png",
        "4_behind.png": "expected an index of 0 to 3",
        "99999999999_huge.png": "expected a name of {index}_{label}.png",
    }
    refused(folder, problems)
    for number in range(10, 20):
        png(folder, f"{number}_more.png")
    with pytest.raises(SettingError, match="8 more files are no icons"):
        find_icons(folder, CLASSES)
    with pytest.raises(SettingError, match="expected a folder at 'none', found nothing"):
        find_icons(tmp_path / "none", CLASSES)
    with pytest.raises(SettingError, match=r"expected a folder at 'outside\.png', found a file"):
        names_of(outside)


def refused(folder: Path, problems: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        find_icons(folder, CLASSES)
    *lines, advice = str(caught.value).splitlines()
    assert advice.startswith("Try ")
    assert len(lines) == len(problems)
    for name, problem in problems.items():
        assert any(re.match(re.escape(f"icons: '{name}': ") + ".*" + re.escape(problem), line) for line in lines), name


def test_the_drawn_icons_go_with_digits_and_gestures() -> None:
    gestures = find_icons(None, GESTURES)
    assert [path.name.split("_")[0] for path in gestures if path] == [str(index) for index in range(11)]
    assert find_icons(None, [name.upper().replace(" ", "_") for name in GESTURES]) == gestures
    digits = find_icons(None, DIGITS)
    assert [path.name for path in digits if path] == [f"{index}_{name}.png" for index, name in enumerate(DIGITS)]
    assert find_icons(None, [str(index) for index in range(10)]) == digits
    assert find_icons(None, GESTURES[::-1]) == (None,) * 11
    assert find_icons(None, ()) == ()
    assert names_of(FOLDER / "gestures") == GESTURES
    assert names_of(FOLDER / "digits") == DIGITS


def test_the_shipped_icons_are_the_drawn_ones() -> None:
    icons = drawn()
    assert {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.png")} == set(icons)
    seen = []
    for name, data in icons.items():
        content = (FOLDER / name).read_bytes()
        assert len(content) < 4096
        shipped, again = (np.asarray(Image.open(io.BytesIO(one))).astype(int) for one in (content, data))
        assert shipped.shape == (SIZE, SIZE, 4)
        assert np.abs(shipped - again).max() <= 32  # another Pillow may round otherwise
        alpha = shipped[..., 3]
        assert alpha[0].max() == alpha[:, 0].max() == alpha[-1].max() == alpha[:, -1].max() == 0, name
        assert 0.08 < (alpha > 127).mean() < 0.6
        seen.append(content)
    assert len(set(seen)) == len(seen)


def test_icons_can_be_seen_on_dark_and_on_light() -> None:
    def luminance(color: np.ndarray) -> float:
        share = color[:3] / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for data in drawn().values():
        pixels = np.asarray(Image.open(io.BytesIO(data))).reshape(-1, 4)
        for color in np.unique(pixels[pixels[:, 3] == 255], axis=0):
            found = luminance(color)
            assert 1.05 / (found + 0.05) >= 3.0
            assert (found + 0.05) / (luminance(np.array([17, 19, 24])) + 0.05) >= 3.0
