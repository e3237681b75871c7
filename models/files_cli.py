"""The commands of event files: ``info`` and ``import``."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .atomic import check_target
from .console import emit, end_dry_run, hint, say, table
from .errors import EventFileError
from .formats import FORMATS
from .formats.source import ReadOptions, size_of

Sensor = Annotated[
    str | None, typer.Option("--sensor", help="Size of the sensor, HEIGHTxWIDTH; overrides what the file says.")
]
FormatName = Annotated[
    str | None, typer.Option("--format", help="Format to read, where the name or the content does not tell.")
]
ColumnNames = Annotated[
    str | None, typer.Option("--columns", help="Columns of a text without a line of names, such as t,x,y,p.")
]
Unit = Annotated[Literal["s", "ms", "us", "ns"], typer.Option("--time-unit", help="Unit of times that name none.")]


def info_command(
    recording: Annotated[Path, typer.Argument(help="An event file of any format.")],
    sensor: Sensor = None,
    form: FormatName = None,
    columns: ColumnNames = None,
    time_unit: Unit = "us",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show what is in an event file: format, header, sensor, events, rate, polarity, what needs repair, a picture."""
    from .survey import Survey, is_since_1970, survey_events

    _check_name("--format", form)
    options = ReadOptions(format=form, columns=columns, time_unit=time_unit)
    found: Survey = survey_events(recording, sensor_size=_size(sensor), options=options)
    size = None if found.sensor_size is None else f"{found.sensor_size[0]}x{found.sensor_size[1]}"
    rows: list[tuple[str, object]] = [
        ("format", f"{found.title} ({found.format})"),
        ("bytes", found.n_bytes),
        ("sensor (height x width)", f"{size} ({found.sensor_from})" if size else "unknown: name it with --sensor HxW"),
        ("largest x, y", f"{found.edges[0]}, {found.edges[1]}"),
        ("events", found.n_events),
        ("first time, us", f"{found.first_us:,}" + (" (since 1970)" if is_since_1970(found) else "")),
        ("duration, s", found.duration_us / 1e6),
        ("events a second", found.rate_hz),
        ("share of ON", None if found.on_share is None else f"{found.on_share:.1%}"),
    ]
    rows += [(f"header: {key}"[:60], f"{value:.100}") for key, value in list(found.header.items())[:20]]
    rows += [(what, n) for what, n in found.left_out.items()]
    rows += [(f"needs --{repair.replace('_', '-').replace('=', ' ')}", n) for repair, n in found.repairs.items()]
    shown: list[object] = [table(found.name, ("What", "Found"), rows), *found.picture]
    emit(found.to_dict(), shown, as_json=as_json)
    if found.damage is not None:
        say(f"Error: {found.damage}")
        raise typer.Exit(EventFileError.exit_code)
    if not found.n_events:
        say(f"Error: {found.name}: expected events, found none. Try another recording.")
        raise typer.Exit(EventFileError.exit_code)
    if found.repairs:
        flags = [word for repair in found.repairs for word in f"--{repair.replace('_', '-')}".split("=")]
        named = ["--sensor", sensor] if sensor else []
        hint(shlex.join(["spikeport", "import", str(recording), f"{recording.stem}-repaired.npz", *named, *flags]))


def import_command(
    context: typer.Context,
    recording: Annotated[Path, typer.Argument(help="An event file of any format.")],
    out: Annotated[Path, typer.Argument(help="File to write: .npz keeps everything; .raw, .dat, .aedat4, .csv, ...")],
    sensor: Sensor = None,
    form: FormatName = None,
    out_format: Annotated[
        str | None, typer.Option("--out-format", help="Format to write, where its suffix has several: evt2, dsec, ...")
    ] = None,
    columns: ColumnNames = None,
    time_unit: Unit = "us",
    sort: Annotated[bool, typer.Option("--sort", help="Put events in order of time.")] = False,
    crop: Annotated[bool, typer.Option("--crop", help="Leave out events outside the sensor.")] = False,
    clip: Annotated[bool, typer.Option("--clip", help="Move events outside the sensor to its edge.")] = False,
    polarity: Annotated[
        Literal["strict", "signed", "drop"], typer.Option(help="signed: -1 is OFF; drop: leave out all but 0 and 1.")
    ] = "strict",
    from_zero: Annotated[bool, typer.Option("--from-zero", help="Let time start at 0.")] = False,
    cut: Annotated[bool, typer.Option("--cut", help="Leave out what is incomplete at the end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Convert an event file to another format, repaired only where an option asks for it, each repair counted."""
    from .files import format_of, iterate_events, write_chunks

    if crop and clip:
        raise typer.BadParameter("--crop and --clip: expected one of them, found both. Try --crop.")
    _check_name("--format", form)
    _check_name("--out-format", out_format)
    target = format_of(out, out_format)
    check_target(out, suffixes=target.suffixes, inputs=[recording])
    options = ReadOptions(form, columns, time_unit, sort, crop, clip, polarity, from_zero, cut)
    counts: Counter[str] = Counter()
    chunks = iterate_events(recording, sensor_size=_size(sensor), options=options, counts=counts)
    n_events = sum(map(len, chunks)) if dry_run else write_chunks(chunks, out, format=target.name)
    summary: dict[str, Any] = {
        "recording": str(recording),
        "out": None if dry_run else str(out),
        "format": target.name,
        "n_events": n_events,
        "counts": dict(counts),
    }
    rows: list[tuple[str, object]] = [("events", n_events), *counts.items()]
    emit(summary, [table(f"{recording.name} as {target.title}", ("What", "How many"), rows)], as_json=as_json)
    if dry_run:
        end_dry_run(context)
        return
    say(f"Wrote {out}.")
    named = ["--sensor", sensor] if sensor and target.name in ("nmnist", "npy") else []
    hint(shlex.join(["spikeport", "info", str(out), *named]))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    size = size_of(text)
    if size is None:
        raise typer.BadParameter(f"--sensor '{text:.40}': expected HEIGHTxWIDTH, found something else. Try 128x128.")
    return size


def _check_name(option: str, name: str | None) -> None:
    names = [form.name for form in FORMATS]
    if name is not None and name not in names:
        raise typer.BadParameter(f"{option} '{name:.40}': expected one of {', '.join(names)}. Try {names[0]}.")
