"""What every command prints with: results on stdout, everything else on stderr, JSON where it is asked for."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from .errors import TargetError

if TYPE_CHECKING:
    import typer
    from rich.table import Table


_PIPE_WIDTH = 4000


def say(text: str) -> None:
    """Print a line for people to stderr; nothing where nobody can read that."""
    _print(text, to_stderr=True)


def hint(command: str) -> None:
    """Print the command to run next, to stderr."""
    from rich.text import Text

    _print(Text.assemble(("Next: ", "dim"), (command, "bold")), to_stderr=True)


def show(*items: object) -> None:
    """Print tables and lines made for people to stdout."""
    for item in items:
        _print(item, to_stderr=False)


def show_line(text: str) -> None:
    """Print a line to stdout as it is, folded nowhere, for a reader who waits for it."""
    _write(f"{text}\n", to_stderr=False)


def emit(result: dict[str, Any], shown: Iterable[object], *, as_json: bool) -> None:
    """Print a result to stdout: as one JSON object, or as the tables and lines made for people.

    Nothing where stdout is closed or its reader has gone: the work is done all the same.
    Raises: TargetError where stdout is a file on a full disk.
    """
    if as_json:
        is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        text = json.dumps(result, indent=2, ensure_ascii=not is_unicode, allow_nan=False)
        _write(f"{text}\n", to_stderr=False)
        return
    show(*shown)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table for a terminal; the first column is text, the others are numbers on the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(value)) for value in row))
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
    return str(value)


def _print(item: object, *, to_stderr: bool) -> None:
    """Print to a stream as it is now; text is taken literally, brackets and all."""
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    if stream is None:  # closed by whoever started this process
        return
    # In a pipe nothing is folded: a column name or a sentence stays in one piece for whatever reads it.
    is_terminal = stream.isatty()
    drawn = io.StringIO()  # rich itself would end the process at a broken pipe
    console = Console(file=drawn, width=None if is_terminal else _PIPE_WIDTH, force_terminal=is_terminal or None)
    console.print(item, highlight=False, markup=False, emoji=False, soft_wrap=to_stderr)
    _write(drawn.getvalue(), to_stderr=to_stderr)


def _write(text: str, *, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    try:
        # What the stream cannot show, and half a character of a file's name, becomes an escape of JSON.
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as cause:
        silence(stream)
        if not to_stderr and not isinstance(cause, BrokenPipeError):
            raise TargetError(f"stdout: {cause.strerror}: the result is not printed. Try another file.") from cause


def silence(stream: TextIO) -> None:
    """Lead a stream that nobody can read into nothing, with what it still holds."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def end_dry_run(context: typer.Context) -> None:
    """Say on stderr that nothing was written, and the same command without ``--dry-run``."""
    say("Dry run: nothing was written.")
    arguments = getattr(context.find_root().obj, "arguments", ())
    if "--dry-run" in arguments:
        hint(shlex.join(["spikeport", *(argument for argument in arguments if argument != "--dry-run")]))
