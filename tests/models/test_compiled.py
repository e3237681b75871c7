"""Compiled loops: kept on disk, said once, compiled anew where anything that they were made of changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LOOP = """
from spikeport.models.compiled import compiled
from .constants import STEP


@compiled
def add(x: int) -> int:
    return x + STEP
"""

pytestmark = pytest.mark.timeout(120)


def run(folder: Path, source: str) -> tuple[str, str]:
    """Return what a new process prints, with a cache of its own in ``folder``."""
    found = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout, found.stderr


def test_a_loop_is_compiled_once_and_said_and_anew_where_a_constant_of_another_module_changed(tmp_path: Path) -> None:
    package = tmp_path / "made"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "loop.py").write_text(_LOOP)
    (package / "constants.py").write_text("STEP = 10")
    call = "import made.loop as m; print(m.add(1), sum(m.add.stats.cache_hits.values()))"
    ours = """
import numpy as np
from spikeport.deploy.kernels import leak, merge_two
words = np.zeros(1, np.int64)
leak(np.zeros(1, np.int16), np.ones(1, np.int16), -5, 1)
merge_two(words, words, np.zeros(2, np.int64))
"""
    printed, said = run(tmp_path, call + ours)
    assert printed == "11 0\n"
    assert said.startswith("Compiling the event loops for this processor")
    assert said.count("Compiling") == 1
    assert run(tmp_path, call + ours) == ("11 1\n", "")
    (package / "constants.py").write_text("STEP = 20")
    assert run(tmp_path, call) == ("21 0\n", "")  # not a loop of this project: nothing is said
