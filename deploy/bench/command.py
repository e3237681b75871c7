"""The command ``bench``: the benchmark of conversion whole, and the way to that of the emulator."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.atomic import check_target
from spikeport.models.console import emit, say, table
from spikeport.models.errors import DataError, TargetError

from .section import write_section
from .setting import describe_setting
from .smaller import bench_models, bench_readers
from .tasks import TASKS

if TYPE_CHECKING:
    from .checks import Check, Summary
    from .parity import Parity
    from .run import Part, Row
    from .tasks import Effort

_DEFAULT_TASKS = "digits,nmnist,animals"
WORKLOAD_NAMES = ("digits", "gesture", "nmnist", "recordings")
"""Of the benchmark of the emulator."""

_DEFAULT_STEPS = "1,2,4,8,16,32"

_PACKAGES = ("spikeport", "torch", "sinabs", "spikingjelly", "numpy", "numba", "mlxtend", "animal-shape-mnist")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Everything that one run of the benchmark found; ``absent`` says what could not be part of it, and why."""

    setting: dict[str, Any]
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    parity: tuple[Parity, ...]
    checks: tuple[Check, ...]
    absent: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain numbers, ready for JSON."""
        return dataclasses.asdict(self)


def bench_command(
    what: Annotated[
        Literal["convert", "emulator", "stream", "models", "readers", "view"], typer.Argument(help="What to measure.")
    ] = "convert",
    quick: Annotated[bool, typer.Option("--quick", help="A minute's run that only shows that all works.")] = False,
    tasks: Annotated[
        str | None,
        typer.Option(help=f"convert: sets to run on, with commas, of {', '.join(TASKS)}. [{_DEFAULT_TASKS}]"),
    ] = None,
    steps: Annotated[str | None, typer.Option(help=f"convert: time steps, with commas. [{_DEFAULT_STEPS}]")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="convert: folder that keeps trained weights for the next run.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="convert: processes, each with one thread and its own networks. [1]")
    ] = None,
    workloads: Annotated[
        str | None, typer.Option(help=f"emulator: what to run, with commas. [{','.join(WORKLOAD_NAMES)}]")
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="All but convert and view: rounds that count. [5]")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the tables as Markdown, too: its section of a page.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure: convert compares converters on the same networks, emulator and models their speed with other frameworks.

    stream measures online inference, readers the decoders of event files, view the live view in a headless browser.
    """
    options: dict[str, dict[str, object]] = {
        "convert": {"--tasks": tasks, "--steps": steps, "--cache": cache, "--jobs": jobs},
        "emulator": {"--workloads": workloads},
    }
    if what in ("convert", "view"):
        options["emulator"]["--repeats"] = repeats
    for other, given in options.items():
        foreign = [name for name, value in given.items() if value is not None and other != what]
        if foreign:
            raise DataError(f"bench {what}: expected no {foreign[0]}, which is an option of bench {other}. Try --help.")
    if out is not None:
        check_target(out, suffixes=(".md",))
    if what == "emulator":
        page = _bench_emulator(workloads, repeats, quick=quick, as_json=as_json)
    elif what == "stream":
        page = _bench_stream(repeats, quick=quick, as_json=as_json)
    elif what == "models":
        page = bench_models(repeats or 5, quick=quick, as_json=as_json)
    elif what == "view":
        page = _bench_view(quick=quick, as_json=as_json)
    elif what == "readers":
        page = bench_readers(repeats or 5, quick=quick, as_json=as_json)
    else:
        page = _bench_convert(tasks, steps, cache, jobs=jobs or 1, quick=quick, as_json=as_json)
    if out is not None:
        write_section(out, what, page)
        say(f"Wrote {out}.")


def _bench_emulator(workloads: str | None, repeats: int | None, *, quick: bool, as_json: bool) -> str:
    """Run the benchmark of the emulator and print it; return its section of the page."""
    from .emulator import run_emulator_benchmark
    from .figures import emulator_markdown, emulator_tables
    from .workloads import QUICK, Scope

    names = _names("--workloads", workloads, WORKLOAD_NAMES) if workloads else WORKLOAD_NAMES
    scope = QUICK if quick else Scope()
    command = ["emulator", *(["--quick"] if quick else []), *(["--workloads", ",".join(names)] if workloads else [])]
    if repeats is not None:
        scope = dataclasses.replace(scope, repeats=repeats)
        command += ["--repeats", str(repeats)]
    found = run_emulator_benchmark(scope, names, command=command)
    shown = [table(title, columns, rows) for title, columns, rows in emulator_tables(found)]
    emit(found.to_dict(), [*shown, *map(str, found.checks), *found.absent], as_json=as_json)
    return emulator_markdown(found)


def _bench_stream(repeats: int | None, *, quick: bool, as_json: bool) -> str:
    """Run the benchmark of online inference and print it; return its section of the page."""
    from .stream import QUICK, StreamScope, run_stream_benchmark, stream_markdown, stream_tables

    scope = QUICK if quick else StreamScope()
    scope = scope if repeats is None else dataclasses.replace(scope, repeats=repeats)
    found = run_stream_benchmark(scope, command=["stream", *(["--quick"] if quick else [])])
    emit(found.to_dict(), [table(*one) for one in stream_tables(found)], as_json=as_json)
    return stream_markdown(found)


def _bench_view(*, quick: bool, as_json: bool) -> str:
    """Run the benchmark of the live view and print it; return its section of the page."""
    from .view import QUICK, ViewScope, run_view_benchmark
    from .viewpage import view_markdown, view_tables

    found = run_view_benchmark(QUICK if quick else ViewScope(), command=["view", *(["--quick"] if quick else [])])
    emit(
        found.to_dict(),
        [*(table(*one) for one in view_tables(found)), *map(str, found.checks), *found.absent],
        as_json=as_json,
    )
    return view_markdown(found)


def _bench_convert(
    tasks: str | None, steps: str | None, cache: Path | None, *, jobs: int, quick: bool, as_json: bool
) -> str:
    """Run the benchmark of conversion and print it; return its section of the page."""
    from .tasks import QUICK, Effort

    names = _names("--tasks", tasks or _DEFAULT_TASKS, TASKS)
    if cache is not None:
        _make_folder(cache)
    chosen = [] if tasks in (None, _DEFAULT_TASKS) else ["--tasks", ",".join(names)]
    effort = QUICK if quick else Effort()
    if steps not in (None, _DEFAULT_STEPS):
        effort = dataclasses.replace(effort, steps=_steps(str(steps)))
        chosen += ["--steps", ",".join(map(str, effort.steps))]
    arguments = ["--quick", *chosen] if quick else chosen
    found = run_benchmark(effort, names, cache=cache, jobs=jobs, command=["convert", *arguments])
    shown = [table(title, columns, rows) for title, columns, rows in tables(found)]
    emit(found.to_dict(), [*shown, *map(str, found.checks), *found.absent], as_json=as_json)
    return markdown(found)


def _names(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(names) <= set(known):
        raise DataError(f"{option}: expected some of {', '.join(known)}, found '{text}'. Try {known[0]}.")
    return names


def _steps(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise DataError(f"--steps: expected numbers of 1 to 1024 with commas, found '{text}'. Try 1,4,16.")
    return tuple(dict.fromkeys(map(int, parts)))


def _make_folder(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise TargetError(f"--cache {cache}: expected a folder, found a file in its place. Try another name.") from None


def run_benchmark(
    effort: Effort, tasks: Sequence[str], *, cache: Path | None, jobs: int = 1, command: Sequence[str]
) -> Benchmark:
    """Return what the benchmark finds, one thread for each of ``jobs`` processes; progress goes to stderr.

    Law: equal for any number of processes, but for the times.
    Raises: DataError where none of the sets is there.
    """
    import torch

    from .checks import check_finetuned, check_parity, check_rows, summarize
    from .parity import compare_rewrites
    from .peers import INSTALL_SPIKINGJELLY, SINABS, SPIKINGJELLY, has_spikingjelly
    from .run import OURS, measure_part
    from .tasks import missing

    torch.set_num_threads(1)
    started = time.perf_counter()
    absent = [reason for name in tasks if (reason := missing(name))]
    there = [name for name in tasks if not missing(name)]
    if not there:
        raise DataError(f"bench: expected at least one set, found none. {' '.join(absent)}. Try --tasks digits.")
    peers = [*SINABS, *(SPIKINGJELLY if has_spikingjelly() else ())]
    if not has_spikingjelly():
        absent.append(f"SpikingJelly: {INSTALL_SPIKINGJELLY}")
    wanted = [(name, seed, effort, cache, (*OURS, *peers)) for name in there for seed in effort.seeds]
    rows: list[Row] = []
    parity = list(compare_rewrites())
    with contextlib.ExitStack() as stack:
        run: Callable[..., Iterable[Part]] = map
        if jobs > 1:
            run = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))).map
        for part in run(measure_part, wanted):
            say(part.said)
            rows += part.rows
            parity += part.parity
    summaries = summarize(rows)
    checks = [check_parity(parity)]
    if len(effort.seeds) > 1:  # a quick run's networks are hardly trained: it says nothing about converters
        checks += check_rows(summaries, subject=list(OURS)[-1], peers=peers)
        checks += check_finetuned(rows, "spikeport fine-tuned")
    setting = {
        "command": shlex.join(["spikeport", "bench", *command]),
        **describe_setting(*_PACKAGES),
        "effort": dataclasses.asdict(effort),
        "jobs": jobs,
        "wall_s": time.perf_counter() - started,
        "cpu_s": sum(map(sum, (os.times()[:2], os.times()[2:4]))),
    }
    return Benchmark(setting, tuple(rows), summaries, tuple(parity), tuple(checks), tuple(absent))


Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]


def tables(found: Benchmark) -> list[Table]:
    """Return title, columns and rows of all tables of a run."""
    made: list[Table] = []
    for task in dict.fromkeys(row.task for row in found.summaries):
        group = [row for row in found.summaries if row.task == task]
        cnns = {(row.task, row.seed): row.cnn for row in found.rows if row.task == task}
        heading = f"{task}, CNN {sum(cnns.values()) / len(cnns):.1%}"
        made += [
            _by_steps(f"{heading}: accuracy of the spiking net in %", group, _spiking_cell),
            _by_steps(f"{heading}: accuracy of the 8-bit program on the emulated chip in %", group, _chip_cell),
            _by_steps(f"{heading}: synops per sample, thousands", group, lambda row: f"{row.synops / 1e3:,.0f}"),
        ]
    parity: list[tuple[object, ...]] = [
        (
            row.case,
            f"{row.our_error:.1e}",
            f"{row.our_agreement:.1%}",
            row.other,
            "" if row.other_error is None else f"{row.other_error:.1e}",
            f"{row.other_agreement:.1%}",
        )
        for row in found.parity
    ]
    columns = ("Rewrites", "Our error", "Our argmax", "Compared with", "Its error", "Its argmax")
    return [*made, ("Rewrites that must keep the function", columns, parity)]


def _by_steps(title: str, group: Sequence[Summary], cell: Callable[[Summary], str]) -> Table:
    steps = sorted({row.n_steps for row in group})
    cells = {(row.method, row.n_steps): cell(row) for row in group}
    methods = dict.fromkeys(row.method for row in group)
    columns = ("Method", *(f"{n} steps" if n > 1 else "1 step" for n in steps))
    rows: list[tuple[object, ...]] = [(method, *(cells.get((method, n), "") for n in steps)) for method in methods]
    if all(row.n_events for row in group):
        events = {row.n_steps: row.n_events for row in group}
        rows.append(("input events", *(f"{events[n]:,.0f}" for n in steps)))
    return title, columns, rows


def _spiking_cell(row: Summary) -> str:
    return _points(row.spiking, row.spiking_spread, row.n_seeds)


def _chip_cell(row: Summary) -> str:
    if row.chip is None or row.chip_spread is None:
        return "does not fit"
    return _points(row.chip, row.chip_spread, row.n_seeds)


def _points(share: float, spread: float, n_seeds: int) -> str:
    return f"{100 * share:.1f} ± {100 * spread:.1f}" if n_seeds > 1 else f"{100 * share:.1f}"


def markdown(found: Benchmark) -> str:
    """Return a run as a page of Markdown: how it was made, the aims, the tables."""
    from .page import NOTES

    setting, effort = found.setting, found.setting["effort"]
    versions = ", ".join(f"{name} {number}" for name, number in setting["versions"].items() if number)
    lines = [
        "# Conversion benchmark",
        "",
        f"Written by `{setting['command']}` on {setting['date']}: {setting['machine']}; {versions}.",
        f"It took {setting['wall_s'] / 60:.0f} minutes in {setting['jobs']} processes of one thread each, "
        f"{setting['cpu_s'] / 60:.0f} minutes of processor time.",
        "",
        NOTES.format(
            n_seeds=len(effort["seeds"]),
            n_train=effort["n_train"],
            n_test=effort["n_test"],
            n_chip=effort["n_chip"],
            n_searched=effort["n_searched"],
        ),
        "## Aims",
        "",
        *(f"- {check}" for check in found.checks),
        *(f"- not part of this run: {reason}" for reason in found.absent),
        "",
    ]
    for title, columns, rows in tables(found):
        lines += [f"## {title}", "", _line(columns), _line(["---", *("---:" for _ in columns[1:])])]
        lines += [*map(_line, rows), ""]
    return "\n".join(lines)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
