"""A page of several benchmarks: each command writes its own section and leaves the others as they are."""

from __future__ import annotations

from pathlib import Path

from spikeport.models.atomic import write_atomic
from spikeport.models.errors import TargetError


def write_section(path: Path, name: str, text: str) -> None:
    """Write the section of benchmark ``name`` to a page of Markdown.

    Where the page holds sections of benchmarks, between comments that name them, only this one is replaced, or put
    behind the others; any other file becomes this section alone.
    Raises: TargetError where the page begins a section that it does not end.
    """
    page = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
    write_atomic(path, _replaced(page, name, text, path.name).encode(errors="surrogateescape"))


def _replaced(page: str, name: str, text: str, where: str) -> str:
    opening, closing = (f"<!-- {edge} of bench {name} -->" for edge in ("begin", "end"))
    section = f"{opening}\n{text.strip()}\n{closing}\n"
    if "<!-- begin of bench " not in page:
        return section
    if opening not in page:
        return f"{page.rstrip()}\n\n{section}"
    before, _, rest = page.partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise TargetError(f"{where}: expected a line '{closing}' behind '{opening}', found none. Try another file.")
    return f"{before}{section}{after.removeprefix(chr(10))}"
