"""Read-only arrays, and records that hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


def frozen(values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return ``values`` as a C-ordered array that cannot be written to; a copy unless it already is one."""
    source = np.asarray(values)
    is_frozen = isinstance(values, np.ndarray) and not source.flags.writeable and source.flags.c_contiguous
    if is_frozen and (dtype is None or source.dtype == np.dtype(dtype)):
        return source
    array = np.array(source, dtype=dtype, order="C", copy=True)
    array.flags.writeable = False
    return array


_FEW = 9
"""Entries of a tuple or mapping that a record's ``repr`` still spells out."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ArrayRecord:
    """A frozen record whose fields may be arrays; ``==`` is identity, ``same`` compares the contents."""

    def same(self, other: object) -> bool:
        """Return whether ``other`` is a record of the same type with equal fields, arrays by value and dtype."""
        return type(self) is type(other) and all(
            _same(getattr(self, field.name), getattr(other, field.name))
            for field in dataclasses.fields(self)
            if field.compare
        )

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={_short(getattr(self, field.name))}" for field in dataclasses.fields(self) if field.repr
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    """Return a value in a few words: a record of large arrays is read in one line."""
    if isinstance(value, np.ndarray):
        kind = f"({', '.join(value.dtype.names)})" if value.dtype.names else str(value.dtype)
        return f"{kind}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, tuple) and any(isinstance(item, (ArrayRecord, np.ndarray)) for item in value):
        return f"({len(value)} x {type(value[0]).__name__})"
    if isinstance(value, (Mapping, tuple)) and len(value) > _FEW:
        return f"<{len(value)} entries>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_short(entry)}" for key, entry in value.items()) + "}"
    return repr(value)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))
    if isinstance(a, ArrayRecord):
        return a.same(b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b
