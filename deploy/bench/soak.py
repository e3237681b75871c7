"""A process of its own that runs one long recording and says how much memory it took: its peak resident set."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from spikeport.deploy.artifact import load_program
from spikeport.deploy.emulator import Emulator
from spikeport.models.console import show

from .workloads import uniform_events

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the largest resident set of this process so far, in bytes.

    Linux counts it for each program that a process becomes; elsewhere ``getrusage`` does, which on Linux would start
    with what the parent had.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(path: str, n_events: str) -> None:
    """Run the program in a file on evenly drawn events, 100,000 a second, and print what that took as JSON."""
    program = load_program(path)
    size = program.dvs.input_shape[1:]
    events = uniform_events(size, n=int(n_events), duration_us=10 * int(n_events), seed=2)
    before = peak_bytes()
    recording = Emulator(program).run(events)
    n_kept = sum(spikes.nbytes for spikes in recording.spikes.values())
    found = {
        "n_events": len(events),
        "synops": sum(recording.synops.values()),
        "wall_s": recording.wall_s,
        "peak_bytes": peak_bytes(),
        "before_bytes": before,
        "events_bytes": sum(np.asarray(column).nbytes for column in (events.x, events.y, events.p, events.t_us)),
        "spikes_bytes": n_kept,
    }
    show(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
