"""Loops compiled by numba: the decorator, and the word to the user when that takes a while."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from .console import say

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return the function as machine code, compiled at its first call and kept on disk for the next process.

    It runs without the interpreter's lock; division by zero gives infinity, as in numpy. Where numba finds no folder
    that it may write to, every process compiles anew. What is on disk counts for as long as neither the function's file
    nor one that it imports from this project changes: machine code holds the constants of both.
    """
    loop: Any
    try:
        loop = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
        index: Any = getattr(loop._cache, "_cache_file", None)
        if hasattr(index, "_source_stamp"):  # numba's own, of the function's file only; not a documented name
            index._source_stamp = index._source_stamp, _stamp(function.__code__.co_filename)
    except RuntimeError:  # numba's word for "no folder to write to"
        loop = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Function, loop)


@functools.cache
def _stamp(file: str) -> str:
    """Return a hash of the modules of this project that a module imports from."""
    path = Path(file)
    top = path.parent
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    digest = hashlib.sha256()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        package, *names = node.module.split(".")
        if node.level:
            source = path.parents[node.level - 1].joinpath(package, *names)
        elif package == "spikeport":
            source = top.parent.joinpath(*names)
        else:
            continue
        if (module := source.with_suffix(".py")).is_file():
            digest.update(module.read_bytes())
    return digest.hexdigest()


class _Notice(event.Listener):
    """Says once in a process that loops of ours are being compiled; those that come from disk make no such event."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not self._said and module.startswith("spikeport."):
            self._said = True
            say("Compiling the event loops for this processor; once after each installation, some seconds ...")

    def on_end(self, event: Any) -> None:
        pass


cast(Any, event).register("numba:compile", _Notice())
