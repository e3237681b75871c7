"""Damaged event files without end: every reader must refuse them in one sentence, or return a recording.

Not collected by pytest; run it at night: ``python tests/fuzz_readers.py --seconds 3600``. Each file is a whole one of
ours, or a real one where the shared recordings are there, with bytes changed, cut, repeated or put in. A failure is
printed with the seed that repeats it, and its file is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import sys
import tempfile
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events
from spikeport.models.files import iterate_events, write_events
from spikeport.models.formats import FORMATS
from spikeport.models.formats.source import MAX_MEMORY, ReadOptions
from spikeport.models.survey import survey_events

SHARED = Path(os.environ.get("SPIKEPORT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CAP_BYTES = 2 * MAX_MEMORY
MAX_SAMPLE = 20_000
SENSOR = (240, 304)


def sample_events(n: int = 60, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n) for limit in (34, 34, 2))
    return Events(x, y, p, np.cumsum(rng.integers(0, 900, n)), (34, 34))


def written_samples(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Return the suffix and the bytes of a whole file of each format, by its name."""
    samples = {}
    for form in FORMATS:
        path = folder / f"{form.name}{form.suffixes[0]}"
        write_events(sample_events(), path, format=form.name)
        samples[form.name] = path.suffix, path.read_bytes()
    return samples


def real_samples() -> dict[str, tuple[str, bytes]]:
    """Return beginnings of real recordings, where they are on this machine."""
    samples = {}
    for path in sorted((SHARED / "formats").glob("*")) if SHARED.is_dir() else ():
        if path.suffix != ".npy":
            samples[path.name] = path.suffix, path.read_bytes()[:MAX_SAMPLE]
    for name in ("pips_aedat2.zip", "pips_dat.zip"):
        if (SHARED / "poker_dvs" / name).is_file():
            with zipfile.ZipFile(SHARED / "poker_dvs" / name) as archive:
                entry = next(entry for entry in archive.namelist() if not entry.endswith("/"))
                samples[name] = Path(entry).suffix, archive.read(entry)[:MAX_SAMPLE]
    return samples


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with a few of them changed, and perhaps a piece cut out, repeated or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(changed))
        if rng.random() < 0.3:  # headers are at the beginning, and decide the most
            at = rng.randrange(min(len(changed), 128))
        width = rng.choice([1, 1, 2, 4, 8])
        value = rng.choice([0, (1 << 8 * width) - 1, 1 << (8 * width - 1), rng.randrange(1 << 8 * width)])
        changed[at : at + width] = value.to_bytes(width, "little")[: max(0, len(changed) - at)]
    first, stop = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
    kind = rng.random()
    if kind < 0.15:
        return bytes(changed[:stop])
    if kind < 0.25:
        return bytes(changed[:first] + changed[stop:])
    if kind < 0.35:
        return bytes(changed[:stop] + changed[first:])
    if kind < 0.4:
        return bytes(changed[:first] + rng.randbytes(rng.randrange(40)) + changed[first:])
    return bytes(changed)


def outcome(path: Path, options: ReadOptions | None = None) -> int | str:
    """Return how many events a file holds, read in chunks, or the sentence with which it is refused.

    Raises: AssertionError where the sentence is no such, or more than ``CAP_BYTES`` are taken.
    """
    with contextlib.suppress(EventFileError):
        survey = survey_events(path, options=options)
        assert survey.n_events or not survey.picture
    tracemalloc.start()
    try:
        n_events = sum(map(len, iterate_events(path, chunk=1000, sensor_size=SENSOR, options=options)))
        found: int | str = n_events
    except EventFileError as error:
        found = str(error)
        assert found.startswith(f"{path.name}: "), found
        assert "\n" not in found, found
        assert "Try" in found, found
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < CAP_BYTES, f"{peak} bytes"
    return found


def main() -> int:
    """Fuzz for so long and return 1 where anything but the documented errors came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", help="formats or names of real files, separated by commas")
    arguments = parser.parse_args()
    faulthandler.enable()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        samples = {**written_samples(Path(folder)), **real_samples()}
        if arguments.only:
            samples = {name: samples[name] for name in arguments.only.split(",")}
        ends = time.monotonic() + arguments.seconds
        while time.monotonic() < ends:
            rng = random.Random(seed)
            name = rng.choice(sorted(samples))
            suffix, data = samples[name]
            path = Path(folder) / f"damaged{suffix}"
            path.write_bytes(mutated(data, rng))
            repairs = ReadOptions(sort=True, crop=True, polarity="drop", cut=True)
            try:
                found = outcome(path, repairs if rng.random() < 0.3 else None)
            except Exception as cause:  # noqa: BLE001 - anything else is what is looked for
                kept = Path(tempfile.gettempdir()) / f"fuzz-{seed}{suffix}"
                kept.write_bytes(path.read_bytes())
                print(f"seed {seed}, {name}: {type(cause).__name__}: {cause}; kept as {kept}", file=sys.stderr)
                counted["failures"] += 1
                if counted["failures"] > 20:
                    break
            else:
                counted["refused" if isinstance(found, str) else "read"] += 1
            seed += 1
    print(", ".join(f"{word}: {n}" for word, n in sorted(counted.items())), f"; next seed {seed}")
    return int(counted["failures"] > 0)


if __name__ == "__main__":
    sys.exit(main())
