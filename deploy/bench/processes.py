"""What only a process of its own can show: the memory of a long recording, and how long a first run takes."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from spikeport.deploy.artifact import save_program
from spikeport.deploy.errors import RecordingError
from spikeport.deploy.types import Program
from spikeport.models.events import Events
from spikeport.models.files import write_events


@dataclasses.dataclass(frozen=True)
class Memory:
    """Peak resident memory of a process that ran one long recording and kept the monitored spikes.

    Units: bytes; ``before_bytes`` is the peak before the run, ``events_bytes`` and ``spikes_bytes`` are the arrays of
    the recording and of its result.
    """

    n_events: int
    synops: int
    wall_s: float
    peak_bytes: int
    before_bytes: int
    events_bytes: int
    spikes_bytes: int


@dataclasses.dataclass(frozen=True)
class Starts:
    """Wall times of whole processes ``spikeport run`` on a recording of ``n_events`` events, in seconds.

    The first one found no compiled loops on disk, the later ones did.
    """

    n_events: int
    first_s: float
    later_s: tuple[float, ...]

    @property
    def later_median_s(self) -> float:
        """The middle one of the later runs."""
        return statistics.median(self.later_s)

    @property
    def compile_s(self) -> float:
        """How much longer the first run took."""
        return self.first_s - self.later_median_s


def measure_memory(program: Program, n_events: int) -> Memory:
    """Return the memory that a process of its own takes for ``n_events`` evenly drawn events.

    Raises: RecordingError where that process fails, as without enough memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.safetensors"
        save_program(program, path)
        module = ["-m", "spikeport.deploy.bench.soak"]
        return Memory(**json.loads(_called([*module, str(path), str(n_events)], os.environ)))


def measure_starts(program: Program, events: Events, n_later: int) -> Starts:
    """Return how long ``spikeport run`` takes from start to end, the first time after installation and later.

    The loops are compiled into a temporary folder, so that what is compiled already does not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, recording = Path(folder) / "program.safetensors", Path(folder) / "recording.npz"
        save_program(program, path)
        write_events(events, recording)
        environment = dict(os.environ) | {"NUMBA_CACHE_DIR": str(Path(folder) / "cache")}
        command = ["-m", "spikeport.deploy", "run", str(path), "--input", str(recording)]
        walls = []
        for _ in range(n_later + 1):
            started = time.perf_counter()
            _called(command, environment)
            walls.append(time.perf_counter() - started)
    return Starts(len(events), walls[0], tuple(walls[1:]))


def _called(arguments: Sequence[str], environment: os._Environ[str] | dict[str, str]) -> str:
    """Return what a Python process of its own prints."""
    done = subprocess.run(  # noqa: S603  # our own modules, in this interpreter
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
        raise RecordingError(
            f"benchmark: expected process '{' '.join(arguments[:3])}' to end well, found exit code {done.returncode}: "
            f"{last[0]}. Try --quick, which needs less memory."
        )
    return done.stdout
