"""Power profiles: the coefficients of the energy model, each with band, source and date, as records and as files."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

from spikeport.models.atomic import write_atomic

from .errors import InputError, PowerFileError

Group = Literal["processor", "sensor", "io"]
Kind = Literal["synops", "routed", "input", "leak"]

KINDS: dict[Kind, str] = {
    "synops": "a synop",
    "routed": "a routed spike",
    "input": "an input event",
    "leak": "a leak update",
}
"""What the model charges for, as it stands in the names of coefficients."""

FORMAT = 1
"""Version of the JSON form."""

_FORMAT_KEY = "spikeport.power_profile"
_LARGEST = 1e300


@dataclasses.dataclass(frozen=True)
class Coefficient:
    """A number of the energy model with its band, its source, and the date of that source.

    Law: ``0 <= low <= mid <= high``, all finite; ``source`` is never empty.
    Raises: InputError otherwise.
    """

    name: str
    low: float
    mid: float
    high: float
    unit: str
    source: str
    date: str

    def __post_init__(self) -> None:
        band = self.low, self.mid, self.high
        if not (all(map(math.isfinite, band)) and 0 <= self.low <= self.mid <= self.high):
            raise InputError(
                f"coefficient '{self.name}': expected 0 <= low <= mid <= high, found {self.low}, {self.mid}, "
                f"{self.high}. Try a band around the middle value."
            )
        if not self.source.strip():
            raise InputError(f"coefficient '{self.name}': expected a source, found none. Try saying where it is from.")


@dataclasses.dataclass(frozen=True)
class Rail:
    """A supply rail, the part of the chip it feeds, and the power it draws at rest."""

    name: str
    group: Group
    rest: Coefficient


@dataclasses.dataclass(frozen=True)
class Share:
    """The share of a term that is drawn from ``rail``; its band says how sure that is, not how much is drawn."""

    rail: str
    share: Coefficient


@dataclasses.dataclass(frozen=True)
class Term:
    """The energy of one event of ``kind``, and the rails that it is drawn from.

    Units: ``energy`` in joules per event.
    """

    kind: Kind
    energy: Coefficient
    shares: tuple[Share, ...]


@dataclasses.dataclass(frozen=True)
class RateLimit:
    """Synops per second that one core can do, with its source; None: not known."""

    synops_per_s: float | None
    source: str

    def __post_init__(self) -> None:
        limit = self.synops_per_s
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise InputError(f"rate limit: expected more than 0 synops per second or None, found {limit}. Try None.")
        if not self.source.strip():
            raise InputError("rate limit: expected a source, found none. Try saying where it is from.")


UNKNOWN_LIMIT = RateLimit(
    None, "no figure of synops or events per second of a core is published; ask the vendor, or measure on a board"
)


@dataclasses.dataclass(frozen=True)
class PowerProfile:
    """The energy model of one chip: the power of each rail at rest, and the energy of each kind of event.

    ``description`` says in a sentence what the profile rests on.
    Law: each kind of ``KINDS`` has a term; the shares of a term name rails, and their middle values add to 1.
    Raises: InputError otherwise.
    """

    name: str
    description: str
    rails: tuple[Rail, ...]
    terms: tuple[Term, ...]
    core_limit: RateLimit = UNKNOWN_LIMIT

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError(f"power profile '{self.name}': {' '.join(problems)} Try mending the profile.")

    def _problems(self) -> typing.Iterator[str]:
        names = [rail.name for rail in self.rails]
        if not names or len(set(names)) < len(names):
            yield f"expected rails with distinct names, found {names}."
        missing = [kind for kind in KINDS if kind not in {term.kind for term in self.terms}]
        if missing:
            yield f"expected a term for every kind of event, none for {', '.join(missing)}."
        for term in self.terms:
            foreign = [share.rail for share in term.shares if share.rail not in names]
            if foreign:
                yield f"term '{term.energy.name}': expected shares of the rails {names}, found {foreign}."
            total = sum(share.share.mid for share in term.shares)
            if not math.isclose(total, 1.0, rel_tol=1e-9):
                yield f"term '{term.energy.name}': expected shares that add to 1, found {total:g}."


def unknown_term(kind: Kind, rail: str, *, source: str, date: str) -> Term:
    """Return a term of 0 joules for a kind of event whose energy is not known apart from others."""
    energy = Coefficient(f"energy of {KINDS[kind]}", 0.0, 0.0, 0.0, "J", source, date)
    return Term(kind, energy, (whole_share(rail, date=date),))


def whole_share(rail: str, *, date: str) -> Share:
    """Return the share of a term that is drawn from one rail alone."""
    return Share(rail, Coefficient(f"share of rail {rail}", 1.0, 1.0, 1.0, "1", "given per rail", date))


def profile_dict(profile: PowerProfile) -> dict[str, Any]:
    """Return the profile as plain values, ready for JSON."""
    return {_FORMAT_KEY: FORMAT, **dataclasses.asdict(profile)}


def save_profile(profile: PowerProfile, path: str | Path) -> None:
    """Write the profile to ``path`` as JSON.

    Law: ``load_profile`` gives it back; the same profile gives the same bytes.
    Raises: OSError where it cannot be written.
    """
    text = json.dumps(profile_dict(profile), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())


def load_profile(path: str | Path) -> PowerProfile:
    """Return the profile in the JSON file at ``path``.

    Raises: PowerFileError where the file is missing, no such file, of another version, or breaks the rules of a
    profile: every field that does is named.
    """
    name = Path(path).name
    entry = _parsed(Path(path), name)
    if not isinstance(entry, dict) or _FORMAT_KEY not in entry:
        raise PowerFileError(f"{name}: expected a power profile of spikeport, found none. Try one from save_profile.")
    version = entry.pop(_FORMAT_KEY)
    if version != FORMAT:
        raise PowerFileError(f"{name}: expected version {FORMAT}, found {version!r:.40}. Try a newer spikeport.")
    problems: list[str] = []
    try:
        profile = _record(PowerProfile, entry, "profile", problems)
    except InputError as cause:
        raise PowerFileError(f"{name}: {cause}") from cause
    if problems:
        shown = "; ".join(problems[:5]) + (f"; {len(problems) - 5} further" if len(problems) > 5 else "")
        raise PowerFileError(f"{name}: {shown}. Try writing the profile again.")
    return typing.cast(PowerProfile, profile)


def _parsed(path: Path, name: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else str(cause)
        raise PowerFileError(f"{name}: expected a power profile in JSON, found: {reason}. Try another file.") from cause


def _record(kind: type, entry: object, where: str, problems: list[str]) -> Any:
    """Return a record of ``kind``, or None with what is wrong added to ``problems``."""
    hints = typing.get_type_hints(kind)
    if not isinstance(entry, dict) or set(entry) != set(hints):
        found = sorted(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        problems.append(f"{where}: expected the fields {sorted(hints)}, found {found}")
        return None
    n_before = len(problems)
    values = {field: _value(hints[field], entry[field], f"{where}.{field}", problems) for field in hints}
    return kind(**values) if len(problems) == n_before else None


def _value(hint: Any, value: object, where: str, problems: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # the only one here: a number or None
        return None if value is None else _value(arguments[0], value, where, problems)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, f"{where}[{index}]", problems) for index, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(type, hint), value, where, problems)
    if hint is float and isinstance(value, (int, float)) and type(value) is not bool and abs(value) < _LARGEST:
        return float(value)
    if (hint is str and isinstance(value, str)) or (origin is Literal and value in arguments):
        return value
    wanted = {float: "a number", str: "text"}.get(hint, f"one of {arguments}" if origin is Literal else "a list")
    problems.append(f"{where}: expected {wanted}, found {value!r:.40}")
    return None
