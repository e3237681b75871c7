"""Loops compiled by numba: the decorator, and the word to the user when that takes a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from spikeport.models.console import say

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return the function as machine code, compiled at its first call and kept on disk for the next process.

    It runs without the interpreter's lock; division by zero gives infinity, as in numpy. Where numba finds no folder
    that it may write to, every process compiles anew.
    """
    loop: Any
    try:
        loop = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba's word for "no folder to write to"
        loop = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Function, loop)


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
