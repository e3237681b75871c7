"""The commands of deployment: ``plan``, ``deploy`` and ``run``."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spikeport.convert.cli import DryRun, JsonFlag
from spikeport.convert.tables import power_tables, synop_tables
from spikeport.models.atomic import check_target
from spikeport.models.console import emit, end_dry_run, hint, say, table

from .errors import DoesNotFitError, LayerOrderError, RecordingError, SettingError
from .readout import n_classes

if TYPE_CHECKING:
    from spikeport.models.events import Events

    from .plan import Plan
    from .types import Program, Recording

NetFile = Annotated[Path, typer.Argument(dir_okay=False, help="A spiking net from `spikeport convert`.")]
ChipName = Annotated[str, typer.Option(help="speck2fdevkit, speck2fmodule, speck2edevkit or speck2e.")]
Order = Annotated[str, typer.Option("--layer-order", help="'auto', or the core of each layer: 0,1,2,7,4,5,6,3,8.")]

MAX_SLOW_CLOCK_HZ = 1e6  # a tick per unit of recorded time


def plan_command(
    net: NetFile,
    chip: ChipName = "speck2fdevkit",
    layer_order: Order = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Tell whether a net fits a chip, and everything that stands in the way."""
    from spikeport.convert.store import load_net

    from .pipeline import describe_misfit
    from .plan import plan

    planned = plan(load_net(net), chip, layer_order=parse_order(layer_order))
    emit(planned.to_dict(), plan_tables(planned), as_json=as_json)
    if not planned.fits:
        say(f"Error: {describe_misfit(planned)}")
        raise typer.Exit(DoesNotFitError.exit_code)
    order = [] if layer_order == "auto" else ["--layer-order", layer_order]
    hint(shlex.join(["spikeport", "deploy", str(net), "--chip", chip, *order, "--out", "program.safetensors"]))


def deploy_command(
    context: typer.Context,
    net: NetFile,
    chip: ChipName = "speck2fdevkit",
    layer_order: Order = "auto",
    monitor: Annotated[
        str | None, typer.Option(help="Layers whose spikes leave the chip: 'all', or names with commas.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The program to write.")] = Path("program.safetensors"),
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Compile a spiking net to a chip program: 8-bit weights, one core per layer."""
    from spikeport.convert.store import load_net_with_notes

    from .artifact import program_bytes, program_hash, save_program
    from .pipeline import compile_program
    from .plan import plan

    check_target(out, suffixes=(".safetensors",), inputs=[net])
    spiking, notes = load_net_with_notes(net)
    order = parse_order(layer_order)
    wanted = monitor if monitor in (None, "all") else tuple(name.strip() for name in str(monitor).split(","))
    kept: dict[str, Any] = {str(key): notes[key] for key in ("network", "classes") if key in notes}
    program = compile_program(spiking, chip, layer_order=order, monitor=wanted, provenance=kept)
    planned = plan(spiking, chip, layer_order=order)
    if not dry_run:
        save_program(program, out)
    result = {
        "program": None if dry_run else str(out),
        "sha256": program_hash(program),
        "n_bytes": len(program_bytes(program)),
        **planned.to_dict(),
    }
    emit(result, plan_tables(planned), as_json=as_json)
    if dry_run:
        end_dry_run(context)
        return
    say(f"Wrote {out} (SHA-256 {result['sha256']}).")
    hint(shlex.join(["spikeport", "run", str(out), "--input", "RECORDING", "--report", "report.html"]))


def run_command(
    program: Annotated[Path, typer.Argument(dir_okay=False, help="A chip program from `spikeport deploy`.")],
    recording: Annotated[Path, typer.Option("--input", "-i", help="A recording, or a folder of recordings.")],
    device: Annotated[str, typer.Option(help="Where it runs: emulator.")] = "emulator",
    slow_clock_hz: Annotated[float | None, typer.Option(help="Rate at which biases are added.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report of the first recording: .html or .json.")] = None,
    label: Annotated[int | None, typer.Option(help="True class of the first recording, for the report.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a chip program on recordings of events, exactly as the integer specification says."""
    from spikeport.convert.power import estimate_power
    from spikeport.models.files import SUFFIXES, read_events, recordings_at

    from .artifact import load_program
    from .compare import count_traffic
    from .device import open_device
    from .page import write_report
    from .readout import classify, count_classes
    from .report import Report

    if slow_clock_hz is not None and not 0 < slow_clock_hz <= MAX_SLOW_CLOCK_HZ:
        raise SettingError(
            f"--slow-clock-hz: expected more than 0 and at most {MAX_SLOW_CLOCK_HZ:.0f} ticks per second, found "
            f"{slow_clock_hz}. Try 1000."
        )
    files = recordings_at(recording) if recording.is_dir() else (recording,)
    if not files:
        raise RecordingError(
            f"folder '{recording.name or recording}': expected recordings ({', '.join(SUFFIXES)}), found none. "
            "Try another folder."
        )
    if report is not None:
        check_target(report, suffixes=(".html", ".json"), inputs=[program, *files])
    loaded = load_program(program)
    if slow_clock_hz is None and any(core.bias is not None and core.bias.any() for core in loaded.cores):
        say("The program has biases, which do nothing without a slow clock: --slow-clock-hz sets one.")
    names = class_names(loaded)
    rows: list[dict[str, Any]] = []
    outcomes: list[Recording] = []
    events: list[Events] = []
    with open_device(device) as opened:
        opened.load(loaded, slow_clock_hz=slow_clock_hz)
        for file in files:
            events.append(read_events(file))
            outcome = opened.run(events[-1])
            spikes = count_classes(outcome, loaded)
            winner = classify(outcome, loaded) if spikes.any() else None  # silence is no answer
            rows.append(
                {
                    "recording": file.name,
                    "n_events": len(events[-1]),
                    "class": winner,
                    "class_name": _class_name(winner, names),
                    "output_spikes": spikes.tolist(),
                    "synops": sum(outcome.synops.values()),
                    "n_dropped": sum(outcome.n_dropped.values()),
                    "wall_s": outcome.wall_s,
                }
            )
            outcomes.append(outcome if len(outcomes) == 0 else dataclasses.replace(outcome, spikes={}))
    window_s = sum(one.duration_us for one in events) * 1e-6 / len(events)
    synops = count_traffic(loaded, outcomes, window_s=window_s)
    power = estimate_power(synops, slow_clock_hz=slow_clock_hz or 0.0) if window_s else None
    if report is not None:
        write_report(
            Report(
                title=f"{Path(program).name} on {files[0].name}",
                program=loaded,
                command=f"spikeport run {Path(program).name} --input {files[0].name}",
                device=device,
                events=events[0],
                recording=outcomes[0],
                class_names=names,
                label=label,
                synops=synops,
                power=power,
            ),
            report,
        )
    result = {
        "device": device,
        "recordings": rows,
        "synops": synops.to_dict(),
        "power": power.to_dict() if power else None,
    }
    emit(result, [_runs_table(rows), *synop_tables(synops), *(power_tables(power) if power else ())], as_json=as_json)
    if report is not None:
        say(f"Wrote {report}.")
    else:
        clock = [] if slow_clock_hz is None else ["--slow-clock-hz", f"{slow_clock_hz:g}"]
        again = ["spikeport", "run", str(program), "--input", str(recording), *clock]
        hint(shlex.join([*again, "--report", "report.html"]))


def _class_name(winner: int | None, names: Sequence[str]) -> str | None:
    if winner is None:
        return None
    return names[winner] if winner < len(names) else str(winner)


def parse_order(text: str) -> Literal["auto"] | tuple[int, ...]:
    """Return 'auto' or the core ids of a text such as ``0,1,2``.

    Raises: LayerOrderError for anything else.
    """
    if text.strip() == "auto":
        return "auto"
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise LayerOrderError(
            f"--layer-order: expected 'auto' or core numbers such as 0,1,2,7,4, found '{text}'. Try auto."
        ) from None


def class_names(program: Program) -> tuple[str, ...]:
    """Return the class names in a program's provenance, where there is one per output; else nothing."""
    names = program.provenance.get("classes") or ()
    fit = isinstance(names, Sequence) and not isinstance(names, str) and len(names) == n_classes(program)
    return tuple(map(str, names)) if fit else ()


def plan_tables(planned: Plan) -> list[object]:
    """Return the plan for a terminal: a row per layer, then the warnings."""
    rows = [
        (
            use.layer,
            "none" if use.core is None else str(use.core.core),
            _share(use.used.kernel_words, use.core.kernel_words if use.core else None),
            _share(use.used.neuron_words, use.core.neuron_words if use.core else None),
            _share(use.used.bias_words, use.core.bias_words if use.core else None),
        )
        for use in planned.cores
    ]
    columns = ("Layer", "Core", "Kernel words", "Neuron words", "Bias words")
    verdict = f"Fits {planned.chip}" if planned.fits else f"Does not fit {planned.chip}"
    return [table(verdict, columns, rows), *(f"Warning: {warning.message}" for warning in planned.warnings)]


def _share(used: int, there: int | None) -> str:
    return f"{used:,}" if there is None else f"{used:,} of {there:,}"


def _runs_table(rows: list[dict[str, Any]]) -> object:
    columns = ("Recording", "Events", "Class", "Output spikes", "Synops", "Run in ms")
    return table(
        "Runs",
        columns,
        [
            (
                row["recording"],
                row["n_events"],
                "none" if row["class"] is None else row["class_name"],
                max(row["output_spikes"], default=0),
                row["synops"],
                row["wall_s"] * 1e3,
            )
            for row in rows
        ],
    )
