"""A chip as a picture: its cores as boxes in network order, how full their memories are, and where spikes go."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from spikeport.convert.geometry import Pair
from spikeport.convert.types import INPUT, Edge

from .budget import MEMORIES, Budget, Memory, available, count_words
from .chips import Core, chip
from .place import place
from .plan import Plan
from .types import IntegerNet, Program

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS = 3
_BOX = 26  # three of them fit in 80 columns
_INSIDE = _BOX - 4
_CELLS = 10


@dataclasses.dataclass(frozen=True)
class Box:
    """A core and the layer that it holds; ``layer`` and ``used`` are None where it holds none."""

    core: Core
    layer: str | None = None
    used: Budget | None = None

    def share(self, memory: Memory) -> float:
        """Return the occupied part of a memory; above 1 where a layer order asks for more than there is."""
        return self.used.words(memory).occupied / available(self.core, memory) if self.used else 0.0

    @property
    def is_overfull(self) -> bool:
        """Whether a memory of the core is too small for the layer."""
        return any(self.share(memory) > 1 for memory in MEMORIES)


@dataclasses.dataclass(frozen=True)
class Route:
    """Spikes on their way from one core to another, by id; ``source`` None is the input, ``target`` None the output."""

    source: int | None
    target: int | None
    pool: Pair = (1, 1)
    feature_shift: int = 0

    @property
    def how(self) -> str:
        """What happens to the addresses on the way; nothing where they stay."""
        y, x = self.pool
        pool = "" if self.pool == (1, 1) else f"pool {y}" if y == x else f"pool {y}x{x}"
        shift = f"features +{self.feature_shift}" if self.feature_shift else ""
        return ", ".join(part for part in (pool, shift) if part)


@dataclasses.dataclass(frozen=True)
class Picture:
    """All cores of a chip, those with a layer first and in network order, and the routes between them.

    ``unplaced`` names the layers that have no core; what comes from and goes to them is left out.
    """

    chip: str
    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]
    unplaced: tuple[str, ...] = ()

    def is_entry(self, box: Box) -> bool:
        """Return whether input events reach the core."""
        return any(route.source is None and route.target == box.core.core for route in self.routes)

    def is_output(self, box: Box) -> bool:
        """Return whether spikes of the core leave the chip."""
        return any(route.target is None and route.source == box.core.core for route in self.routes)


def outline(subject: Plan | Program) -> Picture:
    """Return the picture of a plan or of a program.

    Where the layers have no placement, all but the last layer of each conflict get a core.
    Law: the program of a plan has the picture of the plan, except that it no longer tells useful weights from the zeros
    of groups and dilation.
    """
    if isinstance(subject, Program):
        return _outline_program(subject)
    table, layers = chip(subject.chip), subject.cores
    placed = dict(enumerate(subject.placement.cores or ()))
    if subject.placement.cores is None:
        left_over = {conflict.layers[-1] for conflict in subject.placement.conflicts}
        rest = [index for index in range(len(layers)) if index not in left_over]
        partial = place([layers[index].used for index in rest], table, objective=subject.objective)
        placed = dict(zip(rest, partial.cores or (), strict=True))
    routes = [Route(None, placed[edge.target], edge.pool) for edge in _from_input(subject.net) if edge.target in placed]
    for edge in sorted(subject.net.edges, key=lambda edge: edge.source):
        if edge.source in placed and (edge.target is None or edge.target in placed):
            target = None if edge.target is None else placed[edge.target]
            routes.append(Route(placed[edge.source], target, edge.pool, edge.feature_shift))
    used = {core: layers[index].used for index, core in placed.items()}
    unplaced = (use.layer for index, use in enumerate(layers) if index not in placed)
    return Picture(subject.chip, _boxes(table.cores, used), tuple(routes), tuple(unplaced))


def _outline_program(program: Program) -> Picture:
    used = {core.core: count_words(core) for core in program.cores}
    entries = (Route(None, core, program.dvs.pool) for core in program.entry)
    routes = (
        Route(core.core, target.core, (target.pool, target.pool), target.feature_shift)
        for core in program.cores
        for target in core.destinations
    )
    return Picture(program.chip, _boxes(chip(program.chip).cores, used), (*entries, *routes))


def _from_input(net: IntegerNet) -> Iterator[Edge]:
    return (edge for edge in net.edges if edge.source == INPUT)


def _boxes(cores: tuple[Core, ...], used: dict[int, Budget]) -> tuple[Box, ...]:
    by_id = {core.core: core for core in cores}
    taken = (Box(by_id[core], budget.layer, budget) for core, budget in used.items())
    return (*taken, *(Box(core) for core in cores if core.core not in used))


def draw_text(picture: Picture, *, is_ascii: bool = False) -> RenderableType:
    """Return the picture for a terminal of 80 columns; it says everything without color too.

    ``is_ascii`` draws lines and bars with characters that every terminal has.
    """
    from rich import box as lines
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid()
    shape = lines.ASCII if is_ascii else lines.ROUNDED
    for start in range(0, len(picture.boxes), COLUMNS):
        row = picture.boxes[start : start + COLUMNS]
        texts = [_lines(picture, box, is_ascii=is_ascii) for box in row]
        height = max(map(len, texts))
        grid.add_row(
            *(
                Panel(
                    Text("\n".join(text), style="" if box.layer else "dim"),
                    title=_title(picture, box),
                    title_align="left",
                    box=shape,
                    border_style=_style(box),
                    width=_BOX,
                    height=height + 2,
                )
                for box, text in zip(row, texts, strict=True)
            )
        )
    notes = ["Occupied words of each memory, in percent of what the core has."]
    if picture.unplaced:
        notes.append(f"Without a core: {', '.join(picture.unplaced)}.")
    return Group(grid, *map(Text, notes))


def _title(picture: Picture, box: Box) -> str:
    marks = [name for name, is_one in (("input", picture.is_entry(box)), ("output", picture.is_output(box))) if is_one]
    marks += ["too small"] if box.is_overfull else []
    return f"core {box.core.core}" + (f" ({', '.join(marks)})" if marks else "")


def _style(box: Box) -> str:
    if box.used is None:
        return "dim"
    return "red" if box.is_overfull else "cyan"


def _lines(picture: Picture, box: Box, *, is_ascii: bool) -> list[str]:
    """Return what a box says, line by line, none wider than it."""
    if box.layer is None:
        return ["unused", *(f"{memory:<6} {available(box.core, memory):>6} words" for memory in MEMORIES)]
    full, free = ("#", ".") if is_ascii else ("█", "░")
    text = [_cut(box.layer)]
    for memory in MEMORIES:
        share = box.share(memory)
        n_full = min(_CELLS, max(int(share * _CELLS), share > 0))
        text.append(f"{memory:<6} {full * n_full}{free * (_CELLS - n_full)} {percent(share):>4}")
    for route in picture.routes:
        if route.source == box.core.core:
            where = "output" if route.target is None else f"core {route.target}"
            text += textwrap.wrap(f"to {where}{f', {route.how}' if route.how else ''}", _INSIDE, subsequent_indent="  ")
    return text


def _cut(name: str) -> str:
    return name if len(name) <= _INSIDE else f"{name[: _INSIDE - 3]}..."


def percent(share: float) -> str:
    """Return a share in at most four characters; 100 % only where it is reached, 0 % only where nothing is used."""
    return "<1%" if 0 < share < 0.01 else f"{min(int(100 * share), 999)}%"
