"""What is in an event file, counted without believing it: facts, what would have to be repaired, a small picture."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EventFileError
from .files import assumed_size, checked_size, opened_file
from .formats import find_format
from .formats.source import Block, ReadOptions

_SINCE_1970_US = 10**15
"""Times from here on are microseconds since 1970: 2001 and later."""

_PICTURE_EVENTS = 1 << 20
_PICTURE_COLUMNS = 64
_MAX_ROWS = 32
_SHADES = " .:-=+*#%@"


@dataclasses.dataclass(frozen=True)
class Survey:
    """What an event file holds.

    ``sensor_from`` is "named" by the caller, the "file", "assumed" as ``read_events`` does, or None where nobody knows.
    ``repairs`` are problems and how many events have them, by the option of ``ReadOptions`` that repairs them;
    ``left_out`` counts what is no event of a pixel; ``damage`` is the sentence at which reading ends, if it does.
    Units: times in microseconds as the file has them; ``rate_hz`` in events per second.
    """

    name: str
    n_bytes: int
    format: str
    title: str
    header: Mapping[str, str]
    sensor_size: tuple[int, int] | None
    sensor_from: str | None
    n_events: int
    first_us: int
    last_us: int
    n_on: int
    edges: tuple[int, int]
    repairs: Mapping[str, int]
    left_out: Mapping[str, int]
    damage: str | None
    picture: tuple[str, ...]

    @property
    def duration_us(self) -> int:
        """Time from the earliest to the latest event."""
        return self.last_us - self.first_us

    @property
    def rate_hz(self) -> float | None:
        """Events per second on average; None for a recording without a duration."""
        return self.n_events / self.duration_us * 1e6 if self.duration_us else None

    @property
    def on_share(self) -> float | None:
        """Share of the events with polarity 1; None without events."""
        return self.n_on / self.n_events if self.n_events else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the picture, for JSON."""
        fields = dataclasses.asdict(self)
        del fields["picture"]
        extra = {"duration_us": self.duration_us, "rate_hz": self.rate_hz, "on_share": self.on_share}
        return {**fields, **extra, "header": dict(self.header)}


def survey_events(
    path: str | Path, *, sensor_size: tuple[int, int] | None = None, options: ReadOptions | None = None
) -> Survey:
    """Return what an event file holds, reading it once, in pieces.

    Raises: EventFileError where the file cannot be opened or its header not be read; later damage is in the result.
    """
    chosen = dataclasses.replace(options or ReadOptions(), cut=True)
    counts: Counter[str] = Counter()
    with opened_file(path, chosen, counts) as (source, opened):
        known = sensor_size or opened.sensor_size
        tally = _Tally(known if known is None else checked_size(known, source.name))
        damage = None
        try:
            for block in opened.blocks:
                tally.add(block)
        except EventFileError as error:
            damage = str(error)
        form, header, n_bytes, in_file = opened.format, dict(opened.header), source.size, opened.sensor_size
    size, origin = sensor_size or in_file, "named" if sensor_size else "file"
    if size is None:
        size, origin = assumed_size(max(tally.edges)), "assumed"
    cut = sum(counts.pop(key) for key in list(counts) if key.endswith("cut at the end"))
    return Survey(
        name=Path(path).name,
        n_bytes=n_bytes,
        format=form,
        title=find_format(form).title,
        header=header,
        sensor_size=size,
        sensor_from=None if size is None else origin,
        n_events=tally.n_events,
        first_us=tally.first_us,
        last_us=tally.last_us,
        n_on=tally.n_on,
        edges=(tally.edges[0], tally.edges[1]),
        repairs={**tally.problems, **({"cut": cut} if cut else {})},
        left_out=dict(counts),
        damage=damage,
        picture=tally.picture(None if origin == "assumed" else size),
    )


class _Tally:
    """Sums over the blocks of a file."""

    def __init__(self, sensor_size: tuple[int, int] | None) -> None:
        self.sensor_size = sensor_size
        self.n_events, self.n_on = 0, 0
        self.first_us, self.last_us = 0, 0
        self.latest: int | None = None
        self.edges = [0, 0]
        self.problems: Counter[str] = Counter()
        self._seen: list[NDArray[np.int64]] = []
        self._n_seen = 0

    def add(self, block: Block) -> None:
        """Count the events of a block."""
        if not len(block):
            return
        x, y, p, t = (column.astype(np.int64) for column in (block.x, block.y, block.p, block.t_us))
        earliest, latest = int(t.min()), int(t.max())
        self.first_us = earliest if not self.n_events else min(self.first_us, earliest)
        self.last_us = latest if not self.n_events else max(self.last_us, latest)
        self.n_events += len(block)
        self.n_on += int((p == 1).sum())
        self.edges = [max(edge, int(axis.max())) for edge, axis in zip(self.edges, (x, y), strict=True)]
        running = np.maximum.accumulate(t)
        if self.latest is not None:
            running = np.maximum(running, self.latest)
        self.latest = int(running[-1])
        height, width = self.sensor_size or (1 << 62, 1 << 62)
        found = {
            "sort": int((t < running).sum()),
            "crop": int(((x < 0) | (x >= width) | (y < 0) | (y >= height)).sum()),
            "polarity=signed": int((p == -1).sum()),
            "polarity=drop": int(((p < -1) | (p > 1)).sum()),
            "from_zero": int((t < 0).sum()),
        }
        self.problems.update({repair: n for repair, n in found.items() if n})
        if self._n_seen < _PICTURE_EVENTS:
            self._seen.append(np.stack([y, x]))
            self._n_seen += len(block)

    def picture(self, size: tuple[int, int] | None) -> tuple[str, ...]:
        """Return lines of characters, darker ones for more events; of the first million."""
        if not self._seen:
            return ()
        seen = np.concatenate(self._seen, axis=1)
        height, width = size or (min(self.edges[1], 1 << 15) + 1, min(self.edges[0], 1 << 15) + 1)
        inside = (seen >= 0).all(axis=0) & (seen[0] < height) & (seen[1] < width)
        columns = min(_PICTURE_COLUMNS, width)
        rows = max(1, min(_MAX_ROWS, round(columns * height / width / 2)))
        cells = (seen[0, inside] * rows // height) * columns + seen[1, inside] * columns // width
        counts = np.log1p(np.bincount(cells, minlength=rows * columns).reshape(rows, columns))
        shades = np.rint(counts / max(float(counts.max()), 1e-9) * (len(_SHADES) - 1)).astype(int)
        return tuple("".join(_SHADES[shade] for shade in row).rstrip() for row in shades)


def is_since_1970(survey: Survey) -> bool:
    """Return whether the times look like microseconds since 1970."""
    return survey.first_us >= _SINCE_1970_US
