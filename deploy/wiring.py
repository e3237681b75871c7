"""The picture of a chip as SVG: boxes in rows, and lines between them that keep to the gaps."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from html import escape

from .budget import MEMORIES
from .picture import COLUMNS, Box, Picture, Route, percent
from .plots import layer_color

_WIDTH, _HEIGHT = 264, 132  # of a box
_GAP, _LANE = 78, 17  # between two boxes of a row; between two lines in one gap
_EDGE = 14

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class _Wire:
    """A route between two boxes, by position; ``label`` says what happens on the way."""

    start: int
    stop: int
    label: str

    @property
    def is_straight(self) -> bool:
        """Whether the second box stands to the right of the first."""
        return self.stop == self.start + 1 and self.stop % COLUMNS > 0

    @property
    def gaps(self) -> tuple[int, ...]:
        """The gaps below rows along which the wire runs."""
        first, last = self.start // COLUMNS, self.stop // COLUMNS
        return () if self.is_straight else (first,) if last <= first + 1 else (first, last - 1)


def draw_svg(picture: Picture) -> str:
    """Return the picture as an SVG element for a page: colors of the page where it has them, no script, no font.

    Law: equal pictures give equal text; each box, and each line between two of them, is an element of its own with
    ``data-core`` or ``data-route``.
    """
    wires = tuple(_wires(picture))
    grid = _Grid.of(wires, len(picture.boxes))
    height = grid.height + (24 if picture.unplaced else 0)
    label = f"The cores of {picture.chip}: layers, memory in use, and where spikes go"
    parts = [
        f'<svg class="chip" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {grid.width:g} {height:g}" role="img" '
        f'aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="13">',
    ]
    parts += [_box(picture, index, grid) for index in range(len(picture.boxes))]
    parts += _lines(picture, wires, grid)
    if picture.unplaced:
        at = grid.margin, grid.height + 10
        parts.append(_text(at, f"Without a core: {', '.join(picture.unplaced)}", fill=_WARN, font_size=13))
    return "\n".join([*parts, "</svg>"])


_INK, _SOFT, _LINE = "var(--ink, #1c2430)", "var(--soft, #5d6878)", "var(--line, #d9dee5)"
_CARD, _PAGE, _WARN = "var(--card, #f1f3f6)", "var(--page, #ffffff)", "var(--warn, #b3541e)"


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Where boxes and gaps are: ``tops`` of the rows, ``margin`` left of them for lines that pass a row."""

    tops: tuple[float, ...]
    margin: float
    width: float
    height: float

    @classmethod
    def of(cls, wires: tuple[_Wire, ...], n_boxes: int) -> _Grid:
        n_rows = -(-n_boxes // COLUMNS)
        n_lanes = Counter(gap for wire in wires for gap in wire.gaps)
        n_passing = sum(len(wire.gaps) == 2 for wire in wires)
        margin = _EDGE + n_passing * _LANE
        tops, y = [], float(_EDGE)
        for row in range(n_rows):
            tops.append(y)
            y += _HEIGHT + 2 * _EDGE + n_lanes[row] * _LANE
        return cls(tuple(tops), margin, margin + COLUMNS * _WIDTH + (COLUMNS - 1) * _GAP + _EDGE, y)

    def corner(self, index: int) -> Point:
        """Return the top left corner of a box."""
        return self.margin + index % COLUMNS * (_WIDTH + _GAP), self.tops[index // COLUMNS]


def _wires(picture: Picture) -> Iterator[_Wire]:
    position = {box.core.core: index for index, box in enumerate(picture.boxes)}
    for route in picture.routes:
        if route.source is not None and route.target is not None:
            yield _Wire(position[route.source], position[route.target], route.how)


def _lines(picture: Picture, wires: tuple[_Wire, ...], grid: _Grid) -> Iterator[str]:
    """Yield the wires: straight to the right neighbor, else down, along the gap below, past rows at the left, on."""
    n_ends = Counter(end for wire in wires if not wire.is_straight for end in _ends(wire))
    n_beside = Counter(wire.start for wire in wires if wire.is_straight)
    taken: Counter[object] = Counter()

    def place(key: object) -> int:
        taken[key] += 1
        return taken[key]

    for wire in wires:
        (x0, y0), (x1, y1) = grid.corner(wire.start), grid.corner(wire.stop)
        if wire.is_straight:
            y = y0 + _HEIGHT * place(("beside", wire.start)) / (n_beside[wire.start] + 1)
            middle = (x0 + _WIDTH + x1) / 2
            beside = zip(((middle, y - 6), (middle, y + 14)), wire.label.split(", "), strict=False)
            yield _wire(picture, wire, [(x0 + _WIDTH, y), (x1, y)]) + "".join(_label(*pair) for pair in beside)
            continue
        leave, enter = _ends(wire)
        out = x0 + _WIDTH * _port(leave[1], place(leave) / (n_ends[leave] + 1))
        into = x1 + _WIDTH * _port(enter[1], place(enter) / (n_ends[enter] + 1))
        lanes = [grid.tops[gap] + _HEIGHT + _EDGE / 2 + _LANE * place(gap) for gap in wire.gaps]
        points = [(out, y0 + _HEIGHT), (out, lanes[0])]
        if len(lanes) == 2:
            left = grid.margin - _LANE * place("left")
            points += [(left, lanes[0]), (left, lanes[1])]
        points += [(into, lanes[-1]), (into, y1 + _HEIGHT if enter[1] == "below" else y1)]
        yield _wire(picture, wire, points) + _label(((out + points[2][0]) / 2, lanes[0] - 3), wire.label)


def _ends(wire: _Wire) -> tuple[tuple[int, str], tuple[int, str]]:
    """Return the sides of the two boxes at which a wire leaves and enters."""
    side = "below" if wire.start // COLUMNS == wire.stop // COLUMNS else "above"
    return (wire.start, "below"), (wire.stop, side)


def _port(side: str, share: float) -> float:
    """Return where on its side of a box a wire ends: on the left above and on the right below, so that none meet."""
    return share / 2 if side == "above" else (1 + share) / 2


def _wire(picture: Picture, wire: _Wire, points: list[Point]) -> str:
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    ends = f"{picture.boxes[wire.start].core.core}-{picture.boxes[wire.stop].core.core}"
    color = layer_color(wire.start)
    (x0, y0), (x, y) = points[-2:]
    across, down = (x > x0) - (x < x0), (y > y0) - (y < y0)
    tip = " ".join(
        f"{x - 8 * across * back + 4 * down * side:g},{y - 8 * down * back + 4 * across * side:g}"
        for back, side in ((0, 0), (1, 1), (1, -1))
    )
    drawn = f'<path data-route="{ends}" d="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
    return f'{drawn}<polygon points="{tip}" fill="{color}"/>'


def _label(at: Point, text: str) -> str:
    halo: dict[str, str | int] = {"stroke": _PAGE, "stroke_width": 4, "paint_order": "stroke"}
    return _text(at, text, fill=_SOFT, font_size=11, text_anchor="middle", **halo) if text else ""


def _box(picture: Picture, index: int, grid: _Grid) -> str:
    box, (x, y) = picture.boxes[index], grid.corner(index)
    edge = _WARN if box.is_overfull else _LINE
    dashed = "" if box.layer else ' stroke-dasharray="5 4"'
    fill = _CARD if box.layer else "none"
    parts = [
        f'<g data-core="{box.core.core}"><rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="10" '
        f'fill="{fill}" stroke="{edge}"{dashed}/>',
        _text((x + _WIDTH - 12, y + 22), f"core {box.core.core}", fill=_SOFT, text_anchor="end"),
    ]
    if box.layer is None:
        parts.append(_text((x + 12, y + 22), "unused", fill=_SOFT, font_size=13))
    else:
        short = box.layer if len(box.layer) <= 22 else f"{box.layer[:21]}…"
        parts.append(f'<rect x="{x + 12:g}" y="{y + 12:g}" width="10" height="10" rx="5" fill="{layer_color(index)}"/>')
        parts.append(_text((x + 28, y + 22), short, font_size=13, font_weight=600))
    parts += _meters(box, (x, y), layer_color(index))
    ends = [name for name, is_one in (("input", picture.is_entry(box)), ("output", picture.is_output(box))) if is_one]
    arrows = {"input": "→ from the input", "output": "to the output →"}
    if ends:
        words = "   ".join(f"{arrows[end]}{_how(picture.routes, box, end)}" for end in ends)
        parts.append(_text((x + 12, y + _HEIGHT - 12), words))
    return "".join([*parts, "</g>"])


def _how(routes: tuple[Route, ...], box: Box, end: str) -> str:
    core = box.core.core
    found = (r.how for r in routes if (r.source, r.target) == ((None, core) if end == "input" else (core, None)))
    return "".join(f" ({how})" for how in found if how)


def _meters(box: Box, corner: Point, color: str) -> Iterator[str]:
    x, y = corner
    for index, memory in enumerate(MEMORIES):
        top, long = y + 42 + 23 * index, _WIDTH - 118
        share = box.share(memory)
        yield _text((x + 12, top + 8), memory, fill=_SOFT)
        if box.layer is None:
            words = getattr(box.core, f"{memory}_words")
            yield _text((x + _WIDTH - 12, top + 8), f"{words:,} words", fill=_SOFT, text_anchor="end")
            continue
        full = _WARN if share > 1 else color
        yield f'<rect x="{x + 58:g}" y="{top:g}" width="{long}" height="9" rx="3" fill="{_LINE}"/>'
        if share > 0:
            width = max(2.0, min(share, 1.0) * long)
            yield f'<rect x="{x + 58:g}" y="{top:g}" width="{width:.1f}" height="9" rx="3" fill="{full}"/>'
        yield _text((x + _WIDTH - 12, top + 9), percent(share), fill=_SOFT, text_anchor="end")


def _text(at: Point, text: str, **style: str | int) -> str:
    """Return a line of text; ``style`` are attributes of SVG, with underscores for hyphens."""
    given: dict[str, str | int] = {"fill": _INK, "font_size": 12, **style}
    attributes = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in given.items())
    return f'<text x="{at[0]:g}" y="{at[1]:g}" {attributes}>{escape(text)}</text>'
