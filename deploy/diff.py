"""What differs between two programs: by layer, and in what stands around the layers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .artifact import program_bytes
from .plan import count
from .types import CoreProgram, Golden, Program

_EFFECTLESS = {"provenance", "golden", "name", "scale"}
"""Fields that no core is loaded with."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that differs: ``before`` and ``after`` as plain JSON values, None where it is in one program only.

    ``layer`` is None for what belongs to the program. For tensors of equal shape ``n_changed`` of ``n_values`` differ,
    the ``largest`` difference by that much.
    """

    layer: str | None
    what: str
    before: Any
    after: Any
    n_changed: int | None = None
    n_values: int | None = None
    largest: int | None = None

    @property
    def text(self) -> str:
        """The change in a few words."""
        if self.n_changed is not None:
            return f"{self.n_changed:,} of {self.n_values:,} changed, by up to {self.largest}"
        return f"{_said(self.before)} -> {_said(self.after)}"


@dataclasses.dataclass(frozen=True)
class ProgramDiff:
    """What differs between two programs, layer by layer in the order of the first one.

    ``is_identical``: the files of both have the same bytes. ``acts_alike``: the chip is loaded with the same.
    """

    changes: tuple[Change, ...]
    is_identical: bool

    @property
    def acts_alike(self) -> bool:
        """Whether nothing differs but names, scales, provenance and golden vectors, which no chip is loaded with."""
        return all(change.what in _EFFECTLESS for change in self.changes)

    @property
    def verdict(self) -> str:
        """What is to be said of both in one sentence."""
        if self.is_identical:
            return "The programs are the same: their files have identical bytes."
        if not self.changes:
            return "The programs are the same, but the bytes of their files are not."
        if self.acts_alike:
            kinds = sorted({change.what for change in self.changes})
            return (
                f"The chip is loaded with the same; only {' and '.join(kinds)} differ{'s' if len(kinds) == 1 else ''}."
            )
        layers = {change.layer for change in self.changes if change.layer is not None}
        where = f" in {count(sorted(layers), 'layer')}" if layers else ""
        return f"The programs differ; {count(self.changes, 'change')}{where}."

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as plain JSON values."""
        return {
            "equal": not self.changes and self.is_identical,
            "identical_bytes": self.is_identical,
            "acts_alike": self.acts_alike,
            "verdict": self.verdict,
            "changes": [dataclasses.asdict(change) for change in self.changes],
        }


def diff_programs(a: Program, b: Program) -> ProgramDiff:
    """Return what differs between two programs.

    Layers are matched by name, several of one name in their order, and what is left of both by the core, under the name
    in ``a``. Routes and entries are told by layer, so that a layer on another core or of another name is one change of
    its own, ``core`` or ``name``, and not one of everything that leads to it.
    Law: no changes where ``program_bytes`` are equal; a change for every tensor, threshold, route or setting that
    differs.
    """
    if program_bytes(a) == program_bytes(b):
        return ProgramDiff((), is_identical=True)
    names_a, names_b = _matched_names(a, b)
    cores_a, cores_b = ({name: core for core, name in names.items()} for names in (names_a, names_b))
    changes: list[Change] = []
    for name in [*cores_a, *(name for name in cores_b if name not in cores_a)]:
        if name not in cores_a or name not in cores_b:
            there = [None if name not in cores else f"core {cores[name]}" for cores in (cores_a, cores_b)]
            changes.append(_between(name, "layer", there))
            continue
        both = a.core(cores_a[name]), b.core(cores_b[name])
        changes += _layer_changes(name, both, (names_a, names_b))
    around = (_around(a, names_a), _around(b, names_b))
    for what in dict.fromkeys([*around[0], *around[1]]):
        before, after = (one.get(what) for one in around)
        if _differ(before, after):
            changes.append(_between(None, what, _only_changed(before, after)))
    changes += _golden_changes(a, b)
    orders = [[name for name in names.values() if name in cores_a and name in cores_b] for names in (names_a, names_b)]
    if orders[0] != orders[1]:
        changes.append(_between(None, "layer order", orders))
    return ProgramDiff(tuple(changes), is_identical=False)


def _matched_names(a: Program, b: Program) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of both, those of ``b`` that ``a`` does not have replaced by what ``a`` calls that core."""
    names_a, names_b = _names(a), _names(b)
    left = {core: name for core, name in names_a.items() if name not in names_b.values()}
    return names_a, {
        core: left[core] if core in left and name not in names_a.values() else name for core, name in names_b.items()
    }


def _names(program: Program) -> dict[int, str]:
    """Return a name per core that no other core has."""
    names: dict[int, str] = {}
    for core in program.cores:
        name, n = core.name, 1
        while name in names.values():
            n += 1
            name = f"{core.name} ({n})"
        names[core.core] = name
    return names


def _layer_changes(
    layer: str, cores: tuple[CoreProgram, CoreProgram], names: tuple[Mapping[int, str], Mapping[int, str]]
) -> Iterator[Change]:
    for field in dataclasses.fields(CoreProgram):
        values = tuple(getattr(core, field.name) for core in cores)
        if field.name == "destinations":
            routes = [_routes(core, known) for core, known in zip(cores, names, strict=True)]
            if routes[0] != routes[1]:
                yield _between(layer, "routes", routes)
        elif any(isinstance(value, np.ndarray) for value in values):
            yield from _tensor_change(layer, field.name, *values)
        else:
            plain = [_plain(value) for value in values]
            if _differ(*plain):
                yield _between(layer, field.name, plain)


def _tensor_change(layer: str, what: str, a: NDArray[Any] | None, b: NDArray[Any] | None) -> Iterator[Change]:
    shapes = [None if tensor is None else f"{tensor.dtype} {list(tensor.shape)}" for tensor in (a, b)]
    if a is None or b is None or shapes[0] != shapes[1]:
        yield _between(layer, what, shapes)
        return
    difference = np.abs(a.astype(np.int64) - b.astype(np.int64))
    n_changed = int(np.count_nonzero(difference))
    if n_changed:
        yield dataclasses.replace(
            _between(layer, what, shapes), n_changed=n_changed, n_values=int(a.size), largest=int(difference.max())
        )


def _routes(core: CoreProgram, names: Mapping[int, str]) -> list[str]:
    routes = []
    for route in core.destinations:
        where = "out" if route.core is None else names[route.core]
        pool = f" pool {route.pool}" if route.pool > 1 else ""
        shift = f" shift {route.feature_shift}" if route.feature_shift else ""
        routes.append(f"{where}{pool}{shift}")
    return routes


def _around(program: Program, names: Mapping[int, str]) -> dict[str, Any]:
    """Return what is no core, as plain JSON values."""
    plain = {
        field.name: _plain(getattr(program, field.name))
        for field in dataclasses.fields(Program)
        if field.name not in ("cores", "entry", "golden")
    }
    return {**plain, "entry": [names[core] for core in program.entry]}


def _only_changed(before: Any, after: Any) -> tuple[Any, Any]:
    """Return two values; of two objects, such as provenances, the entries that differ."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return before, after
    keys = [
        key
        for key in {**before, **after}
        if (key in before) != (key in after) or _differ(before.get(key), after.get(key))
    ]
    return tuple({key: one[key] for key in keys if key in one} for one in (before, after))  # type: ignore[return-value]


def _golden_changes(a: Program, b: Program) -> Iterator[Change]:
    ours, theirs = ({golden.name: golden for golden in program.golden} for program in (a, b))
    changed = [name for name in dict.fromkeys([*ours, *theirs]) if not _alike(ours.get(name), theirs.get(name))]
    if changed:
        words = [[_golden_words(one[name]) for name in changed if name in one] for one in (ours, theirs)]
        yield _between(None, "golden", words)


def _between(layer: str | None, what: str, both: Sequence[Any]) -> Change:
    before, after = both
    return Change(layer, what, before, after)


def _alike(a: Golden | None, b: Golden | None) -> bool:
    return a is not None and b is not None and a.same(b)


def _golden_words(golden: Golden) -> str:
    n_spikes = sum(len(spikes) for spikes in golden.spikes.values())
    return f"{golden.name}: {len(golden.events)} events, {n_spikes} spikes"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value


def _differ(a: Any, b: Any) -> bool:
    """Return whether two values of ``_plain`` differ in a file, where 1, 1.0 and true are three of them."""
    one, other = (json.dumps(value, sort_keys=True) for value in (a, b))
    return one != other


def _said(value: Any) -> str:
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{key} {_said(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_said, value)) + "]"
    return str(value)
