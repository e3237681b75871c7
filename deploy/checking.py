"""The commands that check programs: ``verify`` and ``diff``."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.console import emit, hint, say, table

from .options import DeviceOption

if TYPE_CHECKING:
    from .diff import ProgramDiff
    from .types import Program
    from .verify import Verification

MISMATCH = 5
"""Exit code where a device leaves the golden vectors, or two programs differ."""


def verify_command(
    program: Annotated[Path, typer.Argument(dir_okay=False, help="A chip program from `spikeport deploy`.")],
    device: DeviceOption = "emulator",
    as_json: JsonFlag = False,
) -> None:
    """Replay a program's golden vectors on a device and name the first difference: core, neuron, event."""
    from .artifact import load_program
    from .verify import verify

    loaded = load_program(program)
    found = verify(loaded, device)
    emit({"program": str(program), **found.to_dict()}, _verification_tables(loaded, found), as_json=as_json)
    if found.divergence is not None:
        say(f"Error: {program.name} on {found.device}: {found.divergence.message} Try `spikeport deploy` again.")
        raise typer.Exit(MISMATCH)
    hint(shlex.join(["spikeport", "run", str(program), "--input", "RECORDING", "--device", device]))


def diff_command(
    a: Annotated[Path, typer.Argument(metavar="A", dir_okay=False, help="A chip program from `spikeport deploy`.")],
    b: Annotated[Path, typer.Argument(metavar="B", dir_okay=False, help="Another one.")],
    as_json: JsonFlag = False,
) -> None:
    """Tell what changed between two programs, by layer; exit code 5 where they differ."""
    from .artifact import load_program
    from .diff import diff_programs

    found = diff_programs(load_program(a), load_program(b))
    found = dataclasses.replace(found, is_identical=a.read_bytes() == b.read_bytes())
    emit({"a": str(a), "b": str(b), **found.to_dict()}, _diff_tables(found), as_json=as_json)
    if found.changes or not found.is_identical:
        raise typer.Exit(MISMATCH)


def describe_golden(program: Program) -> dict[str, Any]:
    """Return the sizes of a program's golden vectors, and the weights that they leave out, as plain JSON values."""
    from .golden import count_untouched

    untouched = count_untouched(program)
    return {
        "vectors": [golden.name for golden in program.golden],
        "n_events": sum(len(golden.events) for golden in program.golden),
        "n_spikes": sum(len(spikes) for golden in program.golden for spikes in golden.spikes.values()),
        "silent": [core.name for core in program.cores if not any(len(g.spikes[core.core]) for g in program.golden)],
        "n_untouched": {core.name: untouched[core.core] for core in program.cores},
    }


def golden_line(program: Program, told: Mapping[str, Any]) -> str:
    """Return what ``describe_golden`` told of a program, in a sentence."""
    n_weights, n_untouched = sum(core.weight.size for core in program.cores), sum(told["n_untouched"].values())
    silent = f" No spike of {', '.join(told['silent'])}." if told["silent"] else ""
    return (
        f"{len(told['vectors'])} golden vectors with {told['n_events']:,} events and {told['n_spikes']:,} spikes; "
        f"{n_untouched:,} of {n_weights:,} weights are met by none of them.{silent}"
    )


def _verification_tables(program: Program, found: Verification) -> list[object]:
    rows = [
        (
            core.name,
            core.core,
            sum(len(golden.spikes[core.core]) for golden in program.golden) if core.core in found.cores else None,
            core.core in found.state_cores,
            found.n_untouched[core.core],
        )
        for core in program.cores
    ]
    columns = ("Layer", "Core", "Spikes compared", "States compared", "Weights never met")
    verdict = "as expected" if found.ok else "not as expected"
    return [table(f"Golden vectors on {found.device}: {verdict}", columns, rows)]


def _diff_tables(found: ProgramDiff) -> list[object]:
    if not found.changes:
        return [found.verdict]
    rows = [(change.layer or "program", change.what, change.text) for change in found.changes]
    return [table("Changes", ("Layer", "What", "Change"), rows), found.verdict]
