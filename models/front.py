"""The front door of a package: names that are there at once, modules that are imported when one of them is used."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def open_front(package: str) -> None:
    """Make what a package's ``__init__.py`` imports under ``if TYPE_CHECKING`` available from it, each when first used.

    So type checkers and readers see plain imports, and a command loads only what it needs. Importing a module whose
    name is also that of a function that the door offers, such as ``plan``, leaves the function in its place.
    """
    door = sys.modules[package]
    offers = _read_offers(Path(str(door.__file__)))
    door.__dict__["_offers"] = offers
    door.__class__ = _Front


class _Front(ModuleType):
    _offers: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._offers:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        value = getattr(importlib.import_module(f"{self.__name__}.{self._offers[name]}"), name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in self._offers):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self._offers})


def _read_offers(file: Path) -> dict[str, str]:
    """Return the module of each name."""
    blocks = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    return {
        alias.name: statement.module
        for block in blocks
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
