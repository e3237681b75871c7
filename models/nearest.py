"""The message about a name that is not known, with the nearest one that is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, found: object, known: Iterable[str]) -> str:
    """Return a sentence that says which names there are, and which of them is nearest to ``found``."""
    names = list(known)
    near = difflib.get_close_matches(str(found).lower(), names, n=1, cutoff=0.0)
    return f"{what} {str(found)[:60]!r}: expected one of {', '.join(names)}. Try {(near or names)[0]!r}."
