"""The benchmarks of models and of event files: measured, printed, written as a section of a page."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from spikeport.models.console import emit, table

from .checks import Check
from .setting import describe_setting

Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]

_QUICK_EVENTS = 100_000
_N_EVENTS = 2_000_000
_QUICK_TOKENS, _N_TOKENS = 1 << 13, 1 << 18


def bench_models(repeats: int, *, quick: bool, as_json: bool) -> str:
    """Measure the models that eat events next to their peers, print it, and return the section of the page."""
    from .lif import measure_lif
    from .ssm import measure_ssm

    lif = measure_lif(1 if quick else repeats)
    ssm = measure_ssm(_QUICK_TOKENS if quick else _N_TOKENS, 1 if quick else repeats)
    setting = _setting("models", quick, repeats, ("spikeport", "torch", "norse", "numpy", "numba"))
    tables = [lif.table(), ssm.table(), ssm.latency_table()]
    checks, absent = (*lif.checks, *ssm.checks), (*lif.absent, *ssm.absent)
    emit(
        {"setting": setting, "recurrent_lif": dataclasses.asdict(lif), "event_ssm": dataclasses.asdict(ssm)},
        [*(table(*one) for one in tables), *map(str, checks), *absent],
        as_json=as_json,
    )
    return _section("Models", setting, tables, checks, absent)


def bench_readers(repeats: int, *, quick: bool, as_json: bool) -> str:
    """Measure how fast event files are read and written, print it, and return the section of the page."""
    from .readers import AIM_EVENTS_HZ, measure_readers

    rows = measure_readers(_QUICK_EVENTS if quick else _N_EVENTS, 1 if quick else repeats)
    shown: list[tuple[object, ...]] = [
        (
            row.format,
            f"{row.bytes_per_event:.1f}",
            f"{row.read_events_hz / 1e6:.1f}",
            f"{row.write_events_hz / 1e6:.1f}",
            "ours" if row.is_own else "h5py",
        )
        for row in rows
    ]
    columns = ("Format", "Bytes an event", "Read, M events/s", "Written, M events/s", "Decoder")
    speeds: Table = (f"Event files, {rows[0].n_events:,} events", columns, shown)
    slowest = min((row for row in rows if row.is_own), key=lambda row: row.read_events_hz)
    check = Check(
        f"decoders of ours: at least {AIM_EVENTS_HZ / 1e6:g} M events/s",
        slowest.read_events_hz >= AIM_EVENTS_HZ,
        f"{slowest.read_events_hz / 1e6:.1f} M events/s, {slowest.format}, the slowest",
    )
    setting = _setting("readers", quick, repeats, ("spikeport", "numpy", "numba", "h5py"))
    emit(
        {"setting": setting, "rows": list(map(dataclasses.asdict, rows)), "checks": [dataclasses.asdict(check)]},
        [table(*speeds), str(check)],
        as_json=as_json,
    )
    return _section("Event files", setting, [speeds], [check], ())


def _setting(what: str, quick: bool, repeats: int, packages: Sequence[str]) -> dict[str, Any]:
    command = ["spikeport", "bench", what, *(["--quick"] if quick else ["--repeats", str(repeats)])]
    return {"command": shlex.join(command), **describe_setting(*packages)}


def _section(
    title: str, setting: dict[str, Any], tables: Sequence[Table], checks: Sequence[Check], absent: Sequence[str]
) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in setting["versions"].items() if number)
    lines = [
        f"# {title}",
        "",
        f"Written by `{setting['command']}` on {setting['date']}: {setting['machine']}; {versions}. One thread, in",
        "alternation, a first round that does not count.",
        "",
        *(f"- {check}" for check in checks),
        *(f"- not part of this run: {reason}" for reason in absent),
        "",
    ]
    for name, columns, rows in tables:
        lines += [f"## {name}", "", f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
        lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
        lines.append("")
    return "\n".join(lines)
