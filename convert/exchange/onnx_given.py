"""An ONNX operation with its operands, on the way to the torch calls that do the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from spikeport.convert.calls import Call, Value

from .onnx_file import Operation

Operand = Any
"""A ``Value``, a torch tensor, or None for an operand that is left out."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why an operation cannot be read, and what to try; without words, what is known of the torch function ``op``."""

    op: str
    reason: str = ""
    fix: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """An operation with its operands, and the call that it becomes, which has no operands yet."""

    operation: Operation
    operands: tuple[Operand, ...]
    call: Call

    def operand(self, index: int) -> Operand:
        """Return an operand, None where it is left out."""
        return self.operands[index] if index < len(self.operands) else None

    def attribute(self, name: str, missing: Any) -> Any:
        """Return an attribute, or ``missing`` where it is left out."""
        value = self.operation.attributes.get(name)
        return missing if value is None else value

    def numbers(self, name: str, index: int | None = None) -> list[float] | None:
        """Return an attribute, or the operand that newer files have in its place, as a list; None for neither."""
        value = self.operation.attributes.get(name)
        if value is None and index is not None:
            value = self.operand(index)
        return None if value is None or isinstance(value, Value) else np.ravel(np.asarray(value)).tolist()

    def becomes(self, op: str, **named: Operand) -> tuple[Call]:
        """Return the call of one torch function."""
        return (dataclasses.replace(self.call, op=op, kwargs=named),)


Calls = tuple[Call, ...]
Translation = Calls | Problem
Translator = Callable[[Given], Translation]
