"""The command ``plan``: does a net fit, why not, what would."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.atomic import check_target
from spikeport.models.console import emit, hint, say, show, table

from .budget import MEMORIES, Memory, available
from .errors import DoesNotFitError, SettingError
from .losses import LOSS_COLUMNS
from .options import Aim, ChipName, FitData, NetFile, Order, Rounded, parse_order

if TYPE_CHECKING:
    from .plan import CoreUse, Plan


def plan_command(
    net: NetFile,
    chip: ChipName = "speck2fdevkit",
    layer_order: Order = "auto",
    objective: Aim = "reproducible",
    readout: Annotated[bool, typer.Option("--readout", help="For the chip's readout block: widen the output.")] = False,
    rounding: Rounded = "vendor",
    data: FitData = None,
    report: Annotated[Path | None, typer.Option(help="Write the plan as a page: .html or .json.")] = None,
    apply: Annotated[
        int | None, typer.Option(help="Write the net with this suggestion, where it needs no training.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where --apply writes: fixed.safetensors.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell whether a net fits a chip, everything that stands in the way, and what would make it fit."""
    from spikeport.convert.store import load_net_with_notes

    from .fixes import choose, fix_tables, next_command, suggest, write_fix
    from .page import write_report
    from .picture import draw_text, outline
    from .pipeline import describe_misfit
    from .plan import plan
    from .report import Report
    from .trial import fit_as_asked

    if report is not None:
        check_target(report, suffixes=(".html", ".json"), inputs=[net])
    target = _fixed_target(net, apply, out)
    spiking, notes = load_net_with_notes(net)
    spiking = fit_as_asked(spiking, rounding, data)
    order_wanted = parse_order(layer_order)
    planned = plan(spiking, chip, layer_order=order_wanted, objective=objective, readout=readout)
    fixes = suggest(spiking, chip, layer_order=order_wanted, objective=objective, readout=readout, given=planned)
    if apply is not None and planned.fits:
        raise SettingError(f"--apply: expected a net that does not fit, '{net.name}' does. Try deploy.")
    fix = None if apply is None else choose(fixes, apply)
    order = [] if layer_order == "auto" else ["--layer-order", layer_order]
    order += [] if objective == "reproducible" else ["--objective", objective]
    fit = [] if rounding == "vendor" else ["--rounding", rounding, *(["--data", data] if data else [])]
    options = ["--chip", chip, *order, *fit, *(["--readout"] if readout else [])]
    if report is not None:
        command = shlex.join(["spikeport", "plan", net.name, *options])
        shown = Report(net.name, plan=planned, suggestions=fixes, command=command, warnings=planned.warnings)
        write_report(shown, report)
        say(f"Wrote {report}.")
    result = {**planned.to_dict(), "suggestions": [one.to_dict() for one in fixes]}
    if fix is not None:
        write_fix(fix, target, notes=notes)
        result |= {"applied": apply, "fixed": str(target)}
    memory, *warnings = plan_tables(planned if fix is None else fix.plan)
    is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    picture = draw_text(outline(planned if fix is None else fix.plan), is_ascii=not is_unicode)
    emit(result, [memory, picture, *warnings], as_json=as_json)
    monitor = ["--monitor", "readout"] if readout else []
    if fix is not None:
        say(f"Wrote {target}: {fix.title}")
        hint(shlex.join([*next_command(fix, target), *fit, *monitor, "--out", "program.safetensors"]))
    elif planned.fits:
        deploy = ["spikeport", "deploy", str(net), "--chip", chip, *order, *fit, *monitor]
        hint(shlex.join([*deploy, "--out", "program.safetensors"]))
    else:
        say(f"Error: {describe_misfit(planned)}")
        if not as_json:
            show(*fix_tables(fixes))
        applicable = [str(number) for number, one in enumerate(fixes, 1) if not one.needs_retraining]
        if applicable:
            again = ["spikeport", "plan", str(net), *options, "--apply", applicable[0]]
            hint(shlex.join([*again, "--out", "fixed.safetensors"]))
        raise typer.Exit(DoesNotFitError.exit_code)


def _fixed_target(net: Path, apply: int | None, out: Path | None) -> Path:
    """Return where ``--apply`` writes, checked before the work."""
    target = out or Path("fixed.safetensors")
    if apply is not None:
        check_target(target, suffixes=(".safetensors",), inputs=[net])
    elif out is not None:
        raise SettingError("--out: expected --apply with it, found none. Try --apply 1.")
    return target


def plan_tables(planned: Plan) -> list[object]:
    """Return the plan for a terminal: a row per layer, then the warnings."""
    rows = [
        (
            use.layer,
            "none" if use.core is None else str(use.core.core),
            *(_words(use, memory) for memory in MEMORIES),
            _ranges(use.candidates),
        )
        for use in planned.cores
    ]
    columns = ("Layer", "Core", "Kernel words", "Neuron words", "Bias words", "Fits")
    verdict = f"Fits {planned.chip}" if planned.fits else f"Does not fit {planned.chip}"
    verdict += " (P(n): the smallest power of two of at least n)"
    losses = planned.losses
    title = "Rounding to integers" + (": the vendor's formula / fitted" if losses.is_fitted else "")
    rounded = table(title, LOSS_COLUMNS, losses.rows())
    return [table(verdict, columns, rows), rounded, *(f"Warning: {warning.message}" for warning in planned.warnings)]


def _words(use: CoreUse, memory: Memory) -> str:
    """Return how the words of one memory are counted, how many they are of how many, and how many are useful."""
    words = use.used.words(memory)
    if not words.occupied:
        return "none"
    there = "" if use.core is None else f" of {available(use.core, memory):,}"
    return f"{words.formula.rpartition(' = ')[0]}\n= {words.occupied:,}{there}\n{words.useful:,} useful"


def _ranges(cores: Sequence[int]) -> str:
    """Return core ids as text, runs of them as ranges: ``0-2, 5``."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs) or "none"
