"""The icons that come with the live view, drawn: ``python -m spikeport.deploy.view.drawings`` writes them again.

A person faces whoever looks, as in front of a camera: the right hand is on the left of the picture, and clockwise is
as the picture shows it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spikeport.models.gesture_cnn import GESTURES

if TYPE_CHECKING:
    from PIL import Image

SIZE = 96
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FOLDER = Path(__file__).parent / "drawn"

_SCALE = 8  # drawn this many times larger, for smooth edges
_BODY = (79, 134, 232, 255)  # both at least 3 to 1 against white and against a near black
_MOTION = (217, 102, 31, 255)
_NOTHING = (0, 0, 0, 0)

Point = tuple[float, float]
Color = tuple[int, int, int, int]


class _Pen:
    """Draws strokes with round ends; ``turns`` puts right where left is."""

    def __init__(self, turns: bool = False) -> None:
        from PIL import Image, ImageDraw

        self._image = Image.new("RGBA", (SIZE * _SCALE, SIZE * _SCALE), _NOTHING)
        self._draw = ImageDraw.Draw(self._image)
        self._turns = turns

    def stroke(self, points: Iterable[Point], color: Color, width: float, *, gap: float = 0.0) -> None:
        """Draw a line through points; ``gap`` clears as much beside it."""
        placed = [self._placed(point) for point in points]
        for fill, across in (*(((_NOTHING, width + 2 * gap),) if gap else ()), (color, width)):
            self._draw.line(placed, fill, round(across * _SCALE))
            for x, y in placed:
                half = across * _SCALE / 2
                self._draw.ellipse((x - half, y - half, x + half, y + half), fill)

    def shape(self, points: Iterable[Point], color: Color) -> None:
        """Fill the shape between points."""
        self._draw.polygon([self._placed(point) for point in points], color)

    def done(self) -> Image.Image:
        """Return the drawing in its size."""
        return self._image.reduce(_SCALE)

    def _placed(self, point: Point) -> Point:
        x, y = point
        return ((SIZE - x if self._turns else x) * _SCALE, y * _SCALE)


def _arc(center: Point, radii: Point, start: float, stop: float) -> list[Point]:
    """Return points of an ellipse, from an angle to another, in degrees from the right by way of the bottom."""
    n = max(2, math.ceil(abs(stop - start) / 4))
    angles = [math.radians(start + (stop - start) * i / n) for i in range(n + 1)]
    return [(center[0] + radii[0] * math.cos(a), center[1] + radii[1] * math.sin(a)) for a in angles]


def _arrow(pen: _Pen, center: Point, radius: float, start: float, stop: float) -> None:
    """Draw a turning arrow from an angle to another."""
    turn = math.copysign(1, stop - start)
    pen.stroke(_arc(center, (radius, radius), start, stop), _MOTION, 4.5)
    end, tip = math.radians(stop), math.radians(stop + turn * 38 * 15 / radius)
    inner, outer = radius - 8.5, radius + 8.5
    corners = [(center[0] + r * math.cos(a), center[1] + r * math.sin(a)) for r, a in ((inner, end), (outer, end))]
    pen.shape([*corners, (center[0] + radius * math.cos(tip), center[1] + radius * math.sin(tip))], _MOTION)


def _person(pen: _Pen, x: float = 48.0) -> None:
    """Draw head and trunk; arms begin at the shoulders, 17 beside the middle at a height of 52."""
    for r in range(1, 12, 4):
        pen.stroke(_arc((x, 23), (r, r), 0, 360), _BODY, 5)
    pen.shape([(x - 17, 49), (x + 17, 49), (x + 13, 91), (x - 13, 91)], _BODY)
    pen.stroke([(x - 14, 47.5), (x + 14, 47.5)], _BODY, 11)
    pen.stroke([(x - 12, 90), (x + 12, 90)], _BODY, 4)


def _arm(pen: _Pen, points: Sequence[Point]) -> None:
    pen.stroke(points, _BODY, 9, gap=2.5)
    pen.stroke([points[-1], points[-1]], _BODY, 13)


def _hanging(pen: _Pen, x: float, side: int) -> None:
    pen.stroke([(x + side * 18, 50), (x + side * 24, 68), (x + side * 23, 88)], _BODY, 9, gap=2.5)


def _clap(pen: _Pen) -> None:
    _person(pen)
    _arm(pen, [(29, 51), (17, 71), (41, 68)])
    _arm(pen, [(67, 51), (79, 71), (55, 68)])
    pen.stroke([(48, 59), (48, 77)], _NOTHING, 2)
    for angle in (-155, -130, -50, -25):
        across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        pen.stroke([(48 + r * across, 58 + r * down) for r in (36, 45)], _MOTION, 5)


def _wave(pen: _Pen) -> None:
    _person(pen, 63)
    _hanging(pen, 63, 1)
    _arm(pen, [(44, 51), (25, 61), (25, 32)])
    for radius in (13, 20):
        for middle in (0, 180):
            pen.stroke(_arc((25, 32), (radius, radius), middle - 32, middle + 32), _MOTION, 4.5)


def _circling(is_clockwise: bool) -> Callable[[_Pen], None]:
    def draw(pen: _Pen) -> None:
        _person(pen, 66)
        _hanging(pen, 66, 1)
        _arm(pen, [(47, 50), (24, 44)])
        _arrow(pen, (24, 44), 17.5, *((-20, -280) if not is_clockwise else (20, 280)))

    return draw


def _roll(pen: _Pen) -> None:
    _person(pen)
    _arm(pen, [(67, 51), (79, 70), (41, 77)])
    _arm(pen, [(29, 51), (17, 66), (55, 60)])
    _arrow(pen, (48, 64), 38, 158, 196)
    _arrow(pen, (48, 64), 38, -22, 16)


def _drums(pen: _Pen) -> None:
    _person(pen)
    pen.stroke(_arc((48, 79), (25, 7), 0, 360), _MOTION, 4.5, gap=2.5)
    pen.shape(_arc((48, 79), (23, 5), 0, 360), _NOTHING)
    pen.shape([*_arc((48, 79), (25, 9.5), 180, 0), *_arc((48, 89), (25, 5), 0, 180)], _MOTION)
    pen.stroke([(13, 40), (30, 27)], _MOTION, 4.5, gap=2.5)
    _arm(pen, [(29, 51), (13, 62), (13, 40)])
    pen.stroke([(77, 64), (56, 77)], _MOTION, 4.5, gap=2.5)
    _arm(pen, [(67, 51), (84, 49), (77, 64)])


def _guitar(pen: _Pen) -> None:
    _person(pen)
    pen.stroke([(40, 75), (88, 42)], _MOTION, 6, gap=2.5)
    pen.stroke([(85, 38), (91, 46)], _MOTION, 5)
    for center, radius in (((37, 77), 13), ((52, 67), 9)):
        pen.stroke(_arc(center, (radius / 2, radius / 2), 0, 360), _MOTION, radius, gap=2.5)
    pen.stroke([(40, 75), (88, 42)], _MOTION, 6)
    _arm(pen, [(67, 51), (83, 70), (77, 50)])
    _arm(pen, [(29, 51), (10, 62), (36, 76)])


def _other(pen: _Pen) -> None:
    _person(pen, 34)
    _hanging(pen, 34, -1)
    _hanging(pen, 34, 1)
    pen.stroke([*_arc((77, 30), (11, 11), 195, 400), (77, 48), (77, 55)], _MOTION, 6)
    pen.stroke([(77, 68), (77, 68)], _MOTION, 8)


_POSES: tuple[tuple[Callable[[_Pen], None], bool], ...] = (
    (_clap, False),
    (_wave, False),
    (_wave, True),
    (_circling(True), False),
    (_circling(False), False),
    (_circling(False), True),  # turned round, the other way round
    (_circling(True), True),
    (_roll, False),
    (_drums, False),
    (_guitar, False),
    (_other, False),
)


def _digit_strokes() -> tuple[tuple[list[Point], ...], ...]:
    six = (_arc((66, 60), (38, 45), 180, 262), _arc((48, 60), (20, 22), 0, 360))
    return (
        (_arc((48, 48), (21, 34), 0, 360),),
        ([(34, 27), (50, 14), (50, 82)], [(35, 82), (65, 82)]),
        ([*_arc((48, 34), (20, 20), 190, 390), (29, 82), (69, 82)],),
        (_arc((46, 31), (19, 17), 200, 450), _arc((46, 65), (22, 17), 270, 520)),
        ([(59, 82), (59, 14), (26, 60), (71, 60)],),
        ([(65, 14), (35, 14), *_arc((46, 60), (22, 22), 222, 515)],),
        six,
        ([(27, 14), (69, 14), (42, 82)],),
        (_arc((48, 31), (17, 17), 0, 360), _arc((48, 65), (21, 17), 0, 360)),
        tuple([(SIZE - x, SIZE - y) for x, y in stroke] for stroke in six),
    )


def draw_digit(digit: int) -> bytes:
    """Return the PNG of a digit."""
    pen = _Pen()
    for stroke in _digit_strokes()[digit]:
        pen.stroke(stroke, _BODY, 11)
    return _png(pen.done())


def draw_gesture(gesture: int) -> bytes:
    """Return the PNG of a class of DVS128 Gesture."""
    pose, turns = _POSES[gesture]
    pen = _Pen(turns)
    pose(pen)
    return _png(pen.done())


def drawn() -> dict[str, bytes]:
    """Return every icon by its path in the folder of icons."""
    digits = {f"digits/{i}_{name}.png": draw_digit(i) for i, name in enumerate(DIGITS)}
    names = [name.replace(" ", "_") for name in GESTURES]
    return digits | {f"gestures/{i}_{name}.png": draw_gesture(i) for i, name in enumerate(names)}


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main() -> None:
    """Write every icon to the folder of icons."""
    for name, data in drawn().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
