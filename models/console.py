"""What every command prints with: results on stdout, everything else on stderr, JSON where it is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


_PIPE_WIDTH = 4000


def say(text: str) -> None:
    """Print a line for people to stderr, quietly nothing where that is closed."""
    _console(stderr=True).print(text, highlight=False)


def hint(command: str) -> None:
    """Print the command to run next, to stderr."""
    say(f"[dim]Next:[/dim] [bold]{_escaped(command)}[/bold]")


def emit(result: dict[str, Any], shown: Iterable[object], *, as_json: bool) -> None:
    """Print a result to stdout: as one JSON object, or as the tables and lines made for people."""
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = _console(stderr=False)
    for item in shown:
        console.print(item, highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table for a terminal; the first column is text, the others are numbers on the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return _escaped(str(value))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _console(*, stderr: bool) -> Any:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # In a pipe nothing is folded: a column name or a sentence stays in one piece for whatever reads it.
    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, soft_wrap=stderr)
