"""What was shown, for others: a table of the windows as CSV, the events as a GIF or a PNG."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.errors import SettingError
from spikeport.deploy.rails import RAILS
from spikeport.models.events import Events

from .types import Window

if TYPE_CHECKING:
    from PIL import Image

MAX_FRAMES = 300
MAX_FPS = 50.0
"""Frames of a GIF per second: browsers slow down those that ask for more."""

MAX_GIF_EDGE = 320
MAX_PNG_EDGE = 1280
MAX_SPAN_US = 3_600_000_000

_LEVELS = 15  # of brightness, of each polarity
_BACKGROUND, _TEXT = (16, 18, 24), (214, 218, 226)
_OFF, _ON = (64, 148, 255), (255, 168, 48)
_TEXT_INDEX = 2 * _LEVELS + 1
_STRIP = 15  # pixels below the events, for time and class
_LETTER = 6
_FADES = 6  # after which nothing is left of an event
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclasses.dataclass(frozen=True)
class Look:
    """How events are drawn: ``fade_ms`` until one has faded to a third, ``scale`` pixels for each of the sensor's.

    ``fps`` frames for each second of the recording; a span of more than 300 frames has fewer. ``scale`` None: as large
    as is handy.
    Raises: SettingError for values that make no sense.
    """

    fps: float = 20.0
    fade_ms: float = 50.0
    scale: int | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected more than 0 and at most {most:g}, found {value!r:.20}. Try {advice}."
            for name, value, most, advice in (
                ("fps", self.fps, MAX_FPS, "20"),
                ("fade_ms", self.fade_ms, 10_000.0, "50"),
                ("scale", 1 if self.scale is None else self.scale, 16, "None"),
            )
            if not 0 < value <= most or (name == "scale" and not isinstance(value, int))
        ]
        if problems:
            raise SettingError("\n".join(problems))


def write_windows_csv(
    windows: Iterable[Window], classes: Sequence[str], *, recordings: Sequence[str] | None = None
) -> bytes:
    """Return a CSV table in UTF-8 with a row for each window; what is not known is empty.

    ``recordings`` names that of each window.
    Units: as the columns say; ``latency_s`` of wall time.
    Law: reading a row gives the numbers of its window back, bit for bit. No cell is a formula to a spreadsheet.
    """
    kept = list(windows)
    known = {rail for window in kept for rail in window.power_w or ()}
    rails = [rail for rail in RAILS if rail in known] + sorted(known - set(RAILS))
    spikes = [f"spikes {index} {name}" for index, name in enumerate(classes)]
    rest = ["winner", "label", "label_name", "n_events", "synops", "is_open", "latency_s"]
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    first = ["recording", "index", "start_us", "stop_us"]
    table.writerow([*first, *spikes, *rest, *(f"power_w {rail}" for rail in rails)])
    for one, recording in zip(kept, recordings or [""] * len(kept), strict=True):
        name = _plain("" if one.label is None else _name_of(one.label, classes))
        power = [(one.power_w or {}).get(rail) for rail in rails]
        decided = (one.winner, one.label, name, one.n_events, one.synops, int(one.is_open), one.latency_s)
        when = (_plain(recording), one.index, one.start_us, one.stop_us)
        table.writerow([*when, *one.counts.tolist(), *decided, *power])
    return stream.getvalue().encode()


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def draw_gif(
    events: Events,
    span_us: tuple[int, int],
    *,
    look: Look | None = None,
    windows: Sequence[Window] = (),
    classes: Sequence[str] = (),
) -> bytes:
    """Return a GIF of the events of a span of time, as fast as they came, with the class decided last below them.

    A sensor of more than 320 pixels is drawn smaller. Equal arguments give equal bytes.
    Raises: SettingError for a span that is empty or longer than an hour.
    """
    look = look or Look()
    start_us, stop_us = span_us
    if not 0 <= start_us < stop_us <= start_us + MAX_SPAN_US:
        raise SettingError(
            f"gif: expected a span of more than 0 us and at most {MAX_SPAN_US // 10**6} s, found {start_us} to "
            f"{stop_us} us. Try a span of the recording."
        )
    n_frames = min(MAX_FRAMES, max(1, math.ceil((stop_us - start_us) * look.fps / 1e6 - 1e-9)))
    step_us = max((stop_us - start_us) / n_frames, 1e6 / MAX_FPS)
    hundredths = [round(step_us * frame / 1e4) for frame in range(n_frames + 1)]  # the unit of the format
    times = [round(start_us + (stop_us - start_us) * (frame + 1) / n_frames) for frame in range(n_frames)]
    caption = _Caption(windows, classes)
    frames = [_framed(image, caption.at(t_us)) for t_us, image in _images(events, times, look, MAX_GIF_EDGE)]
    stream = io.BytesIO()
    shown_ms = [10 * (end - begin) for begin, end in itertools.pairwise(hundredths)]
    rest: dict[str, Any] = {"append_images": frames[1:], "duration": shown_ms, "loop": 0}
    frames[0].save(stream, "GIF", save_all=True, optimize=False, **rest)
    return stream.getvalue()


def draw_png(
    events: Events,
    t_us: int,
    *,
    look: Look | None = None,
    windows: Sequence[Window] = (),
    classes: Sequence[str] = (),
) -> bytes:
    """Return a PNG of the events just before a time, with the class decided last; equal arguments give equal bytes.

    Raises: SettingError for a time below 0.
    """
    if t_us < 0:
        raise SettingError(f"png: expected a time of 0 us or more, found {t_us}. Try a time of the recording.")
    ((_, image),) = _images(events, [t_us], look or Look(), MAX_PNG_EDGE)
    stream = io.BytesIO()
    _framed(image, _Caption(windows, classes).at(t_us)).save(stream, "PNG")
    return stream.getvalue()


class _Caption:
    """Says what is written below the events at a time."""

    def __init__(self, windows: Sequence[Window], classes: Sequence[str]) -> None:
        self._windows = sorted(windows, key=lambda window: window.stop_us)
        self._stops = [window.stop_us for window in self._windows]
        self._classes = classes

    def at(self, t_us: int) -> str:
        """Return time and class."""
        before = bisect_right(self._stops, t_us)
        label = self._windows[before - 1].label if before else None
        name = "" if label is None else _name_of(label, self._classes)
        return f"{t_us / 1e6:.3f} s  {name}".rstrip()


def _name_of(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)


def _images(events: Events, times: Sequence[int], look: Look, most: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield each time with what is seen then, as indices into the palette."""
    height, width = events.sensor_size
    shrink = -(-max(height, width) // most)
    edge = (-(-height // shrink), -(-width // shrink))
    scale = min(look.scale or max(1, 256 // max(edge)), max(1, most // max(edge)))
    fade_us = look.fade_ms * 1e3
    rest = events.window(max(0, times[0] - round(_FADES * fade_us)), times[-1])
    seen_us, is_on = np.full(edge, -np.inf), np.zeros(edge, np.bool_)
    done = 0
    for t_us in times:
        upto = int(np.searchsorted(rest.t_us, t_us))
        part, done = rest.part(done, upto), upto
        y, x = part.y // shrink, part.x // shrink
        seen_us[y, x] = part.t_us
        is_on[y, x] = part.p == 1
        level = np.rint(_LEVELS * np.exp((seen_us - t_us) / fade_us)).astype(np.uint8)
        image = np.where((level > 0) & is_on, level + _LEVELS, level).astype(np.uint8)
        yield t_us, image.repeat(scale, axis=0).repeat(scale, axis=1)


def _framed(image: NDArray[np.uint8], caption: str) -> Image.Image:
    """Return the picture with its caption below."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape
    font = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)()
    frame = Image.new("P", (max(width, 12 * _LETTER), height + _STRIP), 0)
    frame.putpalette(_palette())
    frame.paste(Image.fromarray(image), ((frame.width - width) // 2, 0))
    text = caption.encode("latin-1", "replace").decode("latin-1")[: (frame.width - 4) // _LETTER]
    draw = ImageDraw.Draw(frame)
    draw.fontmode = "1"
    draw.text((3, height + 2), text, fill=_TEXT_INDEX, font=font)
    return frame


def _palette() -> list[int]:
    """Return red, green and blue of each index: the background, then off and on from dark to bright, then the text."""
    colors = [_BACKGROUND]
    for bright in (_OFF, _ON):
        for level in range(1, _LEVELS + 1):
            share = (level / _LEVELS) ** 0.7  # faint ones are still seen
            colors.append(tuple(round(a + (b - a) * share) for a, b in zip(_BACKGROUND, bright, strict=True)))
    return [value for color in (*colors, _TEXT) for value in color]
