"""What is served beside frames: the page's files and the icons, read once, and the rules for exports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from spikeport.deploy.errors import SettingError

MAX_EXPORT_US = 60_000_000
"""Longest stretch of time of an animation."""

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
"""The files that are served, by their suffixes, and what a browser takes them for."""

Listing = Mapping[str, tuple[bytes, str]]
"""Contents and kinds of files by the names that they are served under."""

_PAGE = Path(__file__).with_name("page")
_MAX_FILE_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Assets:
    """What is served beside frames: files of the page, icons by their names, and what is rendered on demand.

    ``activity_gif`` is called with the first and the last microsecond. ``record_path`` says where the next session is
    written to, None where nothing may be. All are called in threads and may raise the package's errors.
    """

    page: Path = _PAGE
    icons: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    windows_csv: Callable[[], bytes] | None = None
    activity_gif: Callable[[int, int], bytes] | None = None
    record_path: Callable[[], Path] | None = None


def page_files(folder: Path) -> dict[str, Path]:
    """Return the files of the page's folder by their names. Raises: SettingError."""
    if not folder.is_dir():
        raise SettingError(f"page: expected a folder, found none at {folder}. Try installing spikeport again.")
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in KINDS}


def read_listing(files: Mapping[str, Path]) -> Listing:
    """Return the content and kind of each file by its name; nothing else is ever served.

    Raises: SettingError for what is no picture or text of a known kind, or too large.
    """
    found: dict[str, tuple[bytes, str]] = {}
    problems = []
    for name, path in files.items():
        kind = KINDS.get(path.suffix.lower())
        if kind is None or not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:
            problems.append(
                f"{path.name}: expected a file of at most {_MAX_FILE_BYTES >> 20} MiB, one of {', '.join(KINDS)}, "
                "found something else. Try a PNG."
            )
        else:
            found[name] = (path.read_bytes(), kind)
    if problems:
        raise SettingError("\n".join(problems))
    return found


def export_range(query: bytes) -> tuple[int, int]:
    """Return the first and last microsecond that an export asks for. Raises: SettingError."""
    try:
        pairs = parse_qsl(query.decode("ascii"), strict_parsing=True, max_num_fields=2)
        times = {key: int(value) for key, value in pairs if value.isascii() and value.isdigit() and len(value) < 16}
        start_us, stop_us = times["from_us"], times["to_us"]
    except (ValueError, KeyError) as problem:
        raise SettingError("activity.gif: expected from_us and to_us, whole microseconds.") from problem
    if not 0 < stop_us - start_us <= MAX_EXPORT_US:
        seconds = math.floor(MAX_EXPORT_US / 1e6)
        raise SettingError(f"activity.gif: expected to_us after from_us by at most {seconds} s.")
    return start_us, stop_us
