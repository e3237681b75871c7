"""The pictures of the report: events and spike maps as small PNGs, time courses as SVG in the page's colors."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ON = "#2f86d6"
OFF = "#d9713a"
ACCENT = "#2f86d6"
LAYERS = ("#14988a", "#2694c4", "#4c80dd", "#7c6cdb", "#a35fcb", "#c5539f", "#d45a6d", "#cf7238", "#a8871f")
"""One color per layer, from the input on; light enough for a dark page, dark enough for a light one."""

INK = "#010203"
FAINT = "#010204"
"""matplotlib draws these two, the page replaces them by what its color scheme says."""

WIDTH = 4.7
_N_LEVELS = 20

N_ROWS = 16
"""Most classes that ``class_spikes`` draws."""


@dataclasses.dataclass(frozen=True)
class EventSlice:
    """Where the events of one stretch of time fell, as PNG data URIs."""

    start_ms: float
    stop_ms: float
    n_on: int
    n_off: int
    on: str
    off: str


@dataclasses.dataclass(frozen=True)
class SpikeMap:
    """A layer's spike counts as a PNG data URI that shows ``n_shown`` of its features."""

    uri: str
    n_shown: int


def layer_color(index: int) -> str:
    """Return the color of layer ``index``."""
    return LAYERS[index % len(LAYERS)]


def event_slices(events: Events, n_slices: int = 4) -> tuple[EventSlice, ...]:
    """Return images of ``n_slices`` stretches of equal length, on one scale of color per polarity."""
    start = int(events.t_us[0])
    edges = np.linspace(start, int(events.t_us[-1]) + 1, n_slices + 1).round().astype(np.int64)
    parts = [events.window(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    maps = np.stack([_polarity_maps(part) for part in parts])
    # One hot pixel must not turn the rest of the picture white.
    full = [max(1.0, float(np.quantile(m[m > 0], 0.98))) if m.any() else 1.0 for m in (maps[:, 0], maps[:, 1])]
    return tuple(
        EventSlice(
            start_ms=(int(a) - start) / 1e3,
            stop_ms=(int(b) - start) / 1e3,
            n_on=int(counts[1].sum()),
            n_off=int(counts[0].sum()),
            on=png(counts[1] / full[1], ON),
            off=png(counts[0] / full[0], OFF),
        )
        for (a, b), counts in zip(itertools.pairwise(edges), maps, strict=True)
    )


def _polarity_maps(events: Events) -> NDArray[np.int64]:
    height, width = events.sensor_size
    index = (events.p.astype(np.int64) * height + events.y) * width + events.x
    return np.bincount(index, minlength=2 * height * width).reshape(2, height, width)


def spike_map(counts: NDArray[Any], color: str, *, n_tiles: int = 16, edge: int = 32) -> SpikeMap:
    """Return a picture of a layer's spike counts.

    The busiest maps come as tiles in the order of their features; large maps are summed down to ``edge`` pixels.
    A layer of 1x1 maps becomes one tile with a pixel per neuron.
    Shapes: ``counts`` is ``[F, H, W]``.
    """
    features, height, width = counts.shape
    if height == width == 1:
        columns = math.ceil(math.sqrt(features))
        grid = np.full((math.ceil(features / columns), columns), np.nan)
        grid.flat[:features] = counts.ravel()
        return SpikeMap(png(_scaled(grid), color), features)
    busiest = np.sort(np.argsort(-counts.sum(axis=(1, 2)), kind="stable")[:n_tiles])
    step = max(1, math.ceil(max(height, width) / edge))
    tiles = _summed(counts[busiest], step)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    tile_h, tile_w = tiles.shape[1:]
    sheet = np.full((rows * (tile_h + 1) - 1, columns * (tile_w + 1) - 1), np.nan)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (tile_h + 1), index % columns * (tile_w + 1)
        sheet[top : top + tile_h, left : left + tile_w] = tile
    return SpikeMap(png(_scaled(sheet), color), len(tiles))


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    full = float(np.nanmax(values))
    return values / full if full > 0 else values


def _summed(maps: NDArray[Any], step: int) -> NDArray[np.int64]:
    features, height, width = maps.shape
    padded = np.zeros((features, -(-height // step) * step, -(-width // step) * step), np.int64)
    padded[:, :height, :width] = maps
    blocks = padded.reshape(features, padded.shape[1] // step, step, -1, step)
    return np.asarray(blocks.sum(axis=(2, 4)), np.int64)


def png(values: NDArray[Any], color: str) -> str:
    """Return a PNG data URI: 0 is a faint tint of ``color``, 1 and above the full color, NaN is transparent.

    Shapes: ``values`` is ``[H, W]``.
    """
    from matplotlib.image import imsave

    rgba = np.zeros((*values.shape, 4), np.uint8)
    rgba[..., :3] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    # Few levels keep the file small; the square root keeps single spikes visible.
    level = np.rint(np.sqrt(np.clip(np.nan_to_num(values), 0, 1)) * _N_LEVELS) / _N_LEVELS
    rgba[..., 3] = np.where(np.isnan(values), 0, 18 + np.rint(level * 237)).astype(np.uint8)
    rgba[np.isnan(values)] = 0
    buffer = io.BytesIO()
    imsave(buffer, rgba, format="png", metadata={"Software": None})  # type: ignore[dict-item]
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def event_rate(events: Events, n_bins: int = 80) -> str:
    """Return the number of events per millisecond over time, on above and off below the axis, as SVG."""
    start, stop = int(events.t_us[0]), int(events.t_us[-1]) + 1
    edges = np.linspace(start, stop, min(n_bins, stop - start) + 1)
    per_ms = 1e3 / np.diff(edges)
    with drawing("event-rate", (WIDTH, 1.8)) as (figure, (axes,)):
        axes.grid(axis="y", color=FAINT, lw=0.5)
        axes.set_axisbelow(True)
        for polarity, sign, color, name in ((1, 1, ON, "on"), (0, -1, OFF, "off")):
            counts, _ = np.histogram(events.t_us[events.p == polarity], edges)
            axes.stairs(sign * counts * per_ms, (edges - start) / 1e3, fill=True, color=color, alpha=0.85, lw=0)
            axes.annotate(name, (1.01, 0.5 + sign * 0.25), xycoords="axes fraction", color=color, va="center")
        axes.axhline(0, color=INK, lw=0.7)
        axes.set_xlim(0, (stop - start) / 1e3)
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.set(xlabel="time (ms)", ylabel="events per ms")
        return to_svg(figure, "Events per millisecond over time, on events upward, off events downward.")


def class_spikes(
    t_us: NDArray[np.int64],
    classes: NDArray[np.int64],
    *,
    names: Sequence[str],
    winner: int,
    span_us: tuple[int, int],
) -> str:
    """Return the spikes that leave the chip as SVG: one row per class over time, beside it the total of each.

    Only the ``N_ROWS`` busiest classes are drawn; the bar of class ``winner`` stands out.
    Shapes: ``t_us`` and ``classes`` have one entry per spike; ``names`` one per class.
    """
    edges = np.linspace(span_us[0], span_us[1] + 1, 61)
    totals = np.bincount(classes, minlength=len(names))
    rows = np.sort(np.argsort(-totals, kind="stable")[:N_ROWS])
    table = np.stack([np.histogram(t_us[classes == row], edges)[0] for row in rows])
    with drawing("class-spikes", (WIDTH, 0.5 + 0.22 * len(rows)), width_ratios=(3, 1)) as (figure, (axes, bars)):
        image = np.zeros((*table.shape, 4))
        image[..., :3] = [int(ACCENT[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        image[..., 3] = np.sqrt(table / max(1, table.max()))
        axes.imshow(image, aspect="auto", interpolation="none", extent=(0, (edges[-1] - edges[0]) / 1e3, len(rows), 0))
        axes.set(xlabel="time (ms)")
        axes.set_yticks(np.arange(len(rows)) + 0.5, [names[row] for row in rows])
        colors = [ACCENT if row == winner else FAINT for row in rows]
        bars.barh(np.arange(len(rows)) + 0.5, totals[rows], height=0.62, color=colors)
        for position, total in enumerate(totals[rows]):
            bars.annotate(
                f"{total:,}", (total, position + 0.5), (3, 0), textcoords="offset points", va="center", fontsize=8
            )
        bars.set(ylim=(len(rows), 0), xlim=(0, max(1, totals.max()) * 1.35), xlabel="spikes", xticks=[], yticks=[])
        bars.spines["bottom"].set_visible(False)
        return to_svg(figure, "Spikes of each class over time, and their totals.")


@contextmanager
def drawing(
    name: str, size: tuple[float, float], width_ratios: tuple[int, ...] = (1,)
) -> Iterator[tuple[Figure, NDArray[Any]]]:
    """Yield a figure with axes side by side; ``name`` keeps its ids apart from those of other figures on the page."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
    }
    with rc_context():
        # A style of the user's own must not change the page.
        rcdefaults()
        rcParams.update(style)
        figure = Figure(figsize=size, layout="constrained")
        grid = {"width_ratios": width_ratios, "wspace": 0.02}
        yield figure, figure.subplots(1, len(width_ratios), gridspec_kw=grid, squeeze=False)[0]


def to_svg(figure: Figure, label: str, dpi: int = 100) -> str:
    """Return the figure for use inside a page: no prolog, no metadata, no fixed size, colors by the page.

    Units: ``dpi`` is the resolution of what is drawn as a picture inside it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, dpi=dpi, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:xlink)?="[^"]*"|\s+version="[^"]*"', "", text)
    text = re.sub(r'(<svg)[^>]*?(viewBox="[^"]*")[^>]*>', rf'\1 \2 role="img" aria-label="{label}">', text, count=1)
    # Names such as "patch_1" repeat from figure to figure; nothing refers to them.
    text = re.sub(
        r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|image|\w*Collection)_?\d+"', "", text
    )
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace(INK, "var(--ink)").replace(FAINT, "var(--line)")
