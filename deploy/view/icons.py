"""The images of the classes: files named ``{index}_{label}.png`` in a folder, as the vendor's visualizer has them."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

from spikeport.deploy.errors import SettingError
from spikeport.models.gesture_cnn import GESTURES

from .drawings import DIGITS, FOLDER

MAX_BYTES = 1 << 18
MAX_EDGE = 1 << 11
MAX_INDEX = 1 << 10

_NAME = re.compile(r"(?P<index>\d{1,9})_(?P<label>.+)\.png", re.IGNORECASE)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_N_SHOWN = 8

_SETS = {"gestures": (GESTURES,), "digits": (DIGITS, tuple(map(str, range(10))))}
"""The icons that come with the package, and the names of classes that they are of."""


def find_icons(folder: str | Path | None, classes: Sequence[str]) -> tuple[Path | None, ...]:
    """Return the file of each class's icon, None for those without one.

    ``folder`` None: the drawn icons, where the classes are the ten digits or the gestures of DVS128 Gesture, in their
    order. Other files than ``.png`` are left alone.
    Raises: SettingError with every file that is no icon of one of the classes.
    """
    if folder is None:
        own = _own_set(classes)
        return find_icons(own, classes) if own else (None,) * len(classes)
    found = {index: path for index, _, path in _entries(Path(folder), len(classes))}
    return tuple(found.get(index) for index in range(len(classes)))


def names_of(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the classes that the files in a folder have, the index for one that has none.

    Underscores are spaces. Raises: as ``find_icons``.
    """
    names = {index: label.replace("_", " ").strip() for index, label, _ in _entries(Path(folder), MAX_INDEX)}
    return tuple(names.get(index) or str(index) for index in range(max(names, default=-1) + 1))


def _own_set(classes: Sequence[str]) -> Path | None:
    wanted = tuple(map(_plain, classes))
    for name, sets in _SETS.items():
        if any(wanted == tuple(map(_plain, one)) for one in sets):
            return FOLDER / name
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()


def _entries(folder: Path, n_classes: int) -> list[tuple[int, str, Path]]:
    """Return index, label and path of every icon in a folder, in the order of the indices."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise SettingError(f"icons: expected a folder at '{folder.name}', found {found}. Try a folder of .png files.")
    entries: dict[int, tuple[int, str, Path]] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".png":
            continue
        match = _NAME.fullmatch(path.name)
        index = int(match["index"]) if match else -1
        problem = _problem(path, folder) if 0 <= index < n_classes else f"expected an index of 0 to {n_classes - 1}"
        if match is None:
            problem = "expected a name of {index}_{label}.png"
        if problem is None and index in entries:
            problem = f"expected one icon for class {index}, found '{entries[index][2].name}' too"
        if problem is not None:
            problems.append(f"icons: {path.name!r:.80}: {problem}.")
        elif match is not None:
            entries[index] = (index, match["label"], path)
    if problems:
        rest = [f"{len(problems) - _N_SHOWN} more files are no icons."] if len(problems) > _N_SHOWN else []
        advice = "Try names as 0_hand_clap.png, and only icons in the folder."
        raise SettingError("\n".join([*problems[:_N_SHOWN], *rest, advice]))
    return [entries[index] for index in sorted(entries)]


def _problem(path: Path, folder: Path) -> str | None:
    """Return what keeps a file from being an icon."""
    if not path.resolve().is_relative_to(folder.resolve()):
        return "expected a file in the folder, found a link out of it"
    if not path.is_file():
        return "expected a file, found something else"
    size = path.stat().st_size
    if size > MAX_BYTES:
        return f"expected at most {MAX_BYTES} bytes, found {size}"
    with path.open("rb") as stream:
        start = stream.read(33)
    if len(start) < 33 or start[:16] != _SIGNATURE + b"\0\0\0\rIHDR":
        return "expected a PNG image, found something else"
    width, height = struct.unpack(">2L", start[16:24])
    if not (1 <= width <= MAX_EDGE and 1 <= height <= MAX_EDGE):
        return f"expected edges of 1 to {MAX_EDGE} pixels, found {width}x{height}"
    return None
