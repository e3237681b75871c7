"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

# Read by torch at its import, here and in every process that a test starts: nets this small lose time on two threads.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector off what lives as long as the run: thousands of tests and all the modules they import.

    It would walk them again and again, during a third of the collection and in each of the tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
