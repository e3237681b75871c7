"""The commands ``deploy`` and ``run``."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeport.convert.cli import DryRun, JsonFlag
from spikeport.convert.tables import power_tables, synop_tables
from spikeport.models.atomic import check_target, write_atomic
from spikeport.models.console import emit, end_dry_run, hint, say, table

from .errors import RecordingError, SettingError
from .options import Aim, ChipName, DeviceOption, FitData, NetFile, Order, Rounded, SlowClock, check_rate, parse_order
from .planning import plan_tables
from .readout import n_classes

if TYPE_CHECKING:
    from spikeport.models.events import Events

    from .rails import RailSamples
    from .types import Program, Recording


def deploy_command(
    context: typer.Context,
    net: NetFile,
    chip: ChipName = "speck2fdevkit",
    layer_order: Order = "auto",
    objective: Aim = "reproducible",
    monitor: Annotated[
        str | None,
        typer.Option(help="Whose spikes leave the chip: 'all', names with commas, or 'readout' for its readout block."),
    ] = None,
    dvs: Annotated[
        str | None, typer.Option(help="Camera before the net: sensor=128x128,pool=2,crop=15:49:15:49,mirror=x,swap.")
    ] = None,
    slow_clock_hz: SlowClock = None,
    rounding: Rounded = "vendor",
    fit_data: FitData = None,
    golden: Annotated[
        Path | None, typer.Option(dir_okay=False, help="A recording whose start joins the golden vectors of `verify`.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The program to write.")] = Path("program.safetensors"),
    device: Annotated[
        str | None, typer.Option(help="Also load it into a device: speck2fdevkit:0 or virtual:speck2fdevkit.")
    ] = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Compile a spiking net to a chip program: 8-bit weights, one core per layer."""
    from spikeport.convert.store import load_net_with_notes
    from spikeport.models.files import read_events

    from .artifact import checked_bytes
    from .checking import describe_golden, golden_line
    from .device import open_device, parse_device
    from .dvs import parse_dvs, with_dvs
    from .golden import add_golden
    from .pipeline import build_program
    from .plan import plan
    from .trial import fit_as_asked

    check_target(out, suffixes=(".safetensors",), inputs=[net] if golden is None else [net, golden])
    target = None if device is None else parse_device(device).chip
    if target is not None and getattr(context.get_parameter_source("chip"), "name", "") == "DEFAULT":
        chip = target
    spiking, notes = load_net_with_notes(net)
    spiking = fit_as_asked(spiking, rounding, fit_data)
    order = parse_order(layer_order)
    whole = (None, "all", "readout")
    wanted = monitor if monitor in whole else tuple(name.strip() for name in str(monitor).split(","))
    rate_hz = check_rate(slow_clock_hz) or None
    kept: dict[str, Any] = {str(key): notes[key] for key in ("network", "classes") if key in notes}
    planned = plan(spiking, chip, layer_order=order, objective=objective, readout=monitor == "readout")
    program = build_program(spiking, planned, layer_order=order, monitor=wanted, provenance=kept)
    program = dataclasses.replace(program, slow_clock_hz=rate_hz)
    if dvs is not None:
        program = with_dvs(program, parse_dvs(dvs, spiking.input_shape[0]))
    program = add_golden(program, None if golden is None else read_events(golden))
    if rate_hz is not None:
        clocked = (warning for warning in planned.warnings if not warning.rule.endswith("without slow clock"))
        planned = dataclasses.replace(planned, warnings=tuple(clocked))
    content = checked_bytes(program)
    if golden is not None and all(vector.name != "recording" for vector in program.golden):
        say(f"{golden.name}: no golden vector came of it: its first event causes more spikes than one may hold.")
    if not dry_run:
        write_atomic(out, content)
    result = {
        "program": None if dry_run else str(out),
        "sha256": hashlib.sha256(content).hexdigest(),
        "n_bytes": len(content),
        "golden": (told := describe_golden(program)),
        **planned.to_dict(),
    }
    emit(result, [*plan_tables(planned), golden_line(program, told)], as_json=as_json)
    if dry_run:
        end_dry_run(context)
        return
    say(f"Wrote {out} (SHA-256 {result['sha256']}).")
    if device is not None:
        with open_device(device) as opened:
            opened.load(program)
        say(f"Loaded {device}: it took the program.")
        hint(shlex.join(["spikeport", "verify", str(out), "--device", device]))
        return
    hint(shlex.join(["spikeport", "run", str(out), "--input", "RECORDING", "--report", "report.html"]))


def run_command(
    program: Annotated[Path, typer.Argument(dir_okay=False, help="A chip program from `spikeport deploy`.")],
    recording: Annotated[Path, typer.Option("--input", "-i", help="A recording, or a folder of recordings.")],
    device: DeviceOption = "emulator",
    behavior: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Emulate the chip of this file of `spikeport selfcheck --out`.")
    ] = None,
    slow_clock_hz: SlowClock = None,
    power: Annotated[
        bool, typer.Option("--power", help="Measure the supply rails of a board, at rest and in the runs.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a report of the first recording: .html or .json.")] = None,
    label: Annotated[int | None, typer.Option(help="True class of the first recording, for the report.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a chip program on recordings of events: exactly as the integer specification says, or on a board."""
    from spikeport.convert.power import estimate_power
    from spikeport.models.files import read_events, recordings_at
    from spikeport.models.formats import SUFFIXES

    from .artifact import load_program
    from .behavior import read_behavior
    from .compare import count_traffic
    from .device import open_device
    from .devkit import Board
    from .page import write_report
    from .rails import join_rails
    from .readout import classify, count_classes
    from .report import Report

    check_rate(slow_clock_hz)
    _check_asked(device, report=report is not None, power=power)
    files = recordings_at(recording) if recording.is_dir() else (recording,)
    if not files:
        raise RecordingError(
            f"folder '{recording.name or recording}': expected recordings ({', '.join(SUFFIXES)}), found none. "
            "Try another folder."
        )
    if report is not None:
        check_target(report, suffixes=(".html", ".json"), inputs=[program, *files])
    loaded = load_program(program)
    rate_hz = loaded.slow_clock_hz if slow_clock_hz is None else slow_clock_hz
    if rate_hz is None and any(core.bias is not None and core.bias.any() for core in loaded.cores):
        say("The program has biases, which do nothing without a slow clock: --slow-clock-hz sets one.")
    names = class_names(loaded)
    rows: list[dict[str, Any]] = []
    outcomes: list[Recording] = []
    events: list[Events] = []
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(
            open_device(device, behavior=None if behavior is None else read_behavior(behavior))
        )
        opened.load(loaded, slow_clock_hz=slow_clock_hz)
        meter, idle, measured = None, None, []
        if power and isinstance(opened, Board):
            idle = opened.measure_idle()
            meter = stack.enter_context(opened.measure_power())
        for file in files:
            events.append(read_events(file).from_zero())  # ticks of the slow clock count from its start
            if meter is not None:
                meter.take()
            outcome = opened.run(events[-1])
            if meter is not None and isinstance(opened, Board):
                measured.append(meter.take(idle).within(*opened.played_us))
            spikes = count_classes(outcome, loaded)
            winner = classify(outcome, loaded) if spikes.any() else None  # silence is no answer
            rows.append(
                {
                    "recording": file.name,
                    "n_events": len(events[-1]),
                    "class": winner,
                    "class_name": _class_name(winner, names),
                    "output_spikes": spikes.tolist(),
                    "synops": sum(outcome.synops.values()) if outcome.synops else None,
                    "n_dropped": sum(outcome.n_dropped.values()) if outcome.n_dropped else None,
                    "wall_s": outcome.wall_s,
                }
            )
            outcomes.append(outcome if len(outcomes) == 0 else dataclasses.replace(outcome, spikes={}))
        rails = join_rails(measured) if measured else None
    window_s = sum(one.duration_us for one in events) * 1e-6 / len(events)
    synops = count_traffic(loaded, outcomes, window_s=window_s) if all(one.synops for one in outcomes) else None
    estimate = estimate_power(synops, slow_clock_hz=rate_hz or 0.0) if synops and window_s else None
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
                power=estimate,
            ),
            report,
        )
    result = {
        "device": device,
        "recordings": rows,
        "synops": synops.to_dict() if synops else None,
        "power": estimate.to_dict() if estimate else None,
        "rails": rails.to_dict() if rails else None,
    }
    shown = [
        _runs_table(rows),
        *(synop_tables(synops) if synops else ()),
        *(power_tables(estimate) if estimate else ()),
    ]
    emit(result, [*shown, *([_rails_table(rails, device)] if rails else ())], as_json=as_json)
    if report is not None:
        say(f"Wrote {report}.")
        hint(shlex.join(["spikeport", "view", str(program), "--input", str(recording)]))
    elif synops is not None:
        clock = [] if slow_clock_hz is None else ["--slow-clock-hz", f"{slow_clock_hz:g}"]
        again = ["spikeport", "run", str(program), "--input", str(recording), *clock]
        hint(shlex.join([*again, "--report", "report.html"]))


def _check_asked(device: str, *, report: bool, power: bool) -> None:
    """Refuse what a device cannot give, before it runs.

    Raises: SettingError; DeviceError for an unknown device.
    """
    from .device import EMULATOR, parse_device

    is_board = parse_device(device).chip is not None
    if report and is_board:
        raise SettingError(
            "--report: expected the emulator, which counts what every core does, found a board, which tells the spikes "
            f"of monitored cores. Try --device {EMULATOR} for the report."
        )
    if power and not is_board:
        raise SettingError(
            "--power: expected a board, whose rails can be measured, found the emulator, which estimates the power "
            "anyway. Try --device virtual:speck2fdevkit."
        )


def _class_name(winner: int | None, names: Sequence[str]) -> str | None:
    if winner is None:
        return None
    return names[winner] if winner < len(names) else str(winner)


def class_names(program: Program) -> tuple[str, ...]:
    """Return the class names in a program's provenance, where there is one per output; else nothing."""
    names = program.provenance.get("classes") or ()
    fit = isinstance(names, Sequence) and not isinstance(names, str) and len(names) == n_classes(program)
    return tuple(map(str, names)) if fit else ()


def _rails_table(rails: RailSamples, device: str) -> object:
    from .device import VIRTUAL

    columns = ("Rail", "At rest in mW", "In the runs in mW", "Above rest in mW", "Measurements")
    rest, means, above = rails.baseline_w or {}, rails.mean_w(), rails.above_baseline_w()
    rows = [
        (rail, *(None if w is None else w * 1e3 for w in (rest.get(rail), means[rail], above[rail])), values.size)
        for rail, values in rails.power_w.items()
    ]
    return table(f"Power of {device}" + ", by its model" * device.startswith(VIRTUAL), columns, rows)


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
