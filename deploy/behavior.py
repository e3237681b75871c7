"""How a chip does what no public text decides, and the file that keeps what a board was found to do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikeport.models.atomic import write_atomic

from .errors import BehaviorFileError

FORMAT = 1
"""Version of the file, raised with every change that an older reader would not understand."""

ALL_CORES = "0,1,2,3,4,5,6,7,8"
AXES = ("y", "x", "feature")

MAX_BYTES = 1 << 20
"""Size above which a file is refused unread."""


@dataclasses.dataclass(frozen=True)
class Behavior:
    """The variant of each open question; the defaults are those of the integer specification, None is undecided.

    - ``overflow``: a sum beyond int16 ``saturates``; is compared and reduced by the threshold ``wide``, then narrowed;
      or ``wraps``.
    - ``zero_weight``: a weight of 0 ``visits`` its neuron, so that a surplus fires, or is ``skipped``.
    - ``tick``: a leak tick that lifts a state to the threshold is ``silent`` or ``fires``.
    - ``visit_order``: axes from the slowest to the fastest, a minus before one that falls.
    - ``bank_order``: of two destinations of a core that are one core, the ``first`` register goes first, or the
      ``last``, the ``low`` feature shift or the ``high``.
    - ``merged_polarity``: feature of an event whose polarity the input stage has merged, ``0`` or ``1``.
    - ``pool_edge``: a spike of an odd map's last row is ``dropped`` behind a pool or ``reaches`` padded neurons.
    - ``leak_cores``: the cores on which every neuron leaks as it should, with large maps.
    - ``last_spike``: behind cores 0 and 1 the last spike ``leaves`` at once or ``stays`` until a later event.
    """

    overflow: str | None = "saturates"
    zero_weight: str | None = "visits"
    tick: str | None = "silent"
    visit_order: str | None = "y x feature"
    bank_order: str | None = "first"
    merged_polarity: str | None = "0"
    pool_edge: str | None = "dropped"
    leak_cores: str | None = ALL_CORES
    last_spike: str | None = "leaves"

    def differences(self) -> dict[str, tuple[str, str | None]]:
        """Return, for each question whose variant is not the specification's, that one and the one here."""
        pairs = ((field.name, str(field.default), getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: (specified, found) for name, specified, found in pairs if found != specified}


VARIANTS: Mapping[str, frozenset[str] | None] = {
    "overflow": frozenset({"saturates", "wide", "wraps"}),
    "zero_weight": frozenset({"visits", "skipped"}),
    "tick": frozenset({"silent", "fires"}),
    "visit_order": None,
    "bank_order": frozenset({"first", "last", "low", "high"}),
    "merged_polarity": frozenset({"0", "1"}),
    "pool_edge": frozenset({"dropped", "reaches"}),
    "leak_cores": None,
    "last_spike": frozenset({"leaves", "stays"}),
}
"""The variants of each question; None where they are lists, which ``read_behavior`` checks one by one."""


def write_behavior(behavior: Behavior, path: str | Path, *, source: Mapping[str, Any] | None = None) -> None:
    """Write a behavior file: JSON, with what it was found on and how in ``source``.

    Law: ``read_behavior`` gives the behavior back.
    """
    content = {"kind": "behavior", "format": FORMAT, "behavior": dataclasses.asdict(behavior), "source": source or {}}
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def read_behavior(path: str | Path) -> Behavior:
    """Return the behavior in a file that ``write_behavior`` or ``spikeport selfcheck`` wrote.

    Raises: BehaviorFileError where it is none, of another version, or has variants that do not exist.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BehaviorFileError(f"{file.name}: expected at most {MAX_BYTES} bytes, found more. Try another file.")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as cause:
        raise BehaviorFileError(
            f"{file.name}: expected a behavior file, which is JSON, found other text. Try one of `spikeport selfcheck`."
        ) from cause
    if not isinstance(content, dict) or content.get("kind") != "behavior" or content.get("format") != FORMAT:
        found = {key: content.get(key) for key in ("kind", "format")} if isinstance(content, dict) else "no table"
        raise BehaviorFileError(
            f"{file.name}: expected kind 'behavior' of format {FORMAT}, found {found!r:.100}. "
            "Try one of `spikeport selfcheck` of this version."
        )
    told = content.get("behavior")
    names = [field.name for field in dataclasses.fields(Behavior)]
    if not isinstance(told, dict) or set(told) != set(names):
        keys = ", ".join(sorted(map(str, told))) if isinstance(told, dict) else repr(told)
        raise BehaviorFileError(
            f"{file.name}: behavior: expected {', '.join(names)}, found {keys[:200] or 'nothing'}. "
            "Try `spikeport selfcheck` again."
        )
    problems = [problem for name in names if (problem := _find_wrong(name, told[name])) is not None]
    if problems:
        raise BehaviorFileError(f"{file.name}: {' '.join(problems)} Try `spikeport selfcheck` again.")
    return Behavior(**told)


def _find_wrong(name: str, value: object) -> str | None:
    """Return what is wrong with a variant, as a sentence."""
    known = VARIANTS[name]
    if value is None or (known is not None and value in known):
        return None
    if name == "visit_order":
        expected = f"the axes {', '.join(AXES)} in any order, with or without a minus"
        is_right = isinstance(value, str) and sorted(axis.lstrip("-") for axis in value.split()) == sorted(AXES)
    elif name == "leak_cores":
        expected = "core numbers in order, with commas between"
        cores = value.split(",") if isinstance(value, str) and value else []
        is_right = isinstance(value, str) and cores == [core for core in ALL_CORES.split(",") if core in cores]
    else:
        expected, is_right = f"one of {', '.join(sorted(known or ()))}, or null", False
    return None if is_right else f"{name}: expected {expected}, found {value!r:.60}."
