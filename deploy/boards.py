"""The commands ``devices`` and ``selfcheck``."""

from __future__ import annotations

import dataclasses
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.atomic import check_target
from spikeport.models.console import emit, hint, say, table

from .checking import MISMATCH

if TYPE_CHECKING:
    from .inventory import Inventory
    from .selfcheck import SelfCheck


def devices_command(as_json: JsonFlag = False) -> None:
    """List the devices: emulator, virtual boards, boards that are plugged in, and what is missing for them."""
    from .inventory import list_devices

    found = list_devices()
    emit(found.to_dict(), [_device_table(found)], as_json=as_json)
    for entry in found.devices:
        for problem in entry.problems:
            say(f"{entry.name}: {problem}")
    for note in found.notes:
        say(note)
    ready = [entry.name for entry in found.devices if entry.kind == "board" and entry.is_ready]
    hint(shlex.join(["spikeport", "selfcheck", "--device", (ready or ["virtual:speck2fdevkit"])[0]]))


def selfcheck_command(
    device: Annotated[str, typer.Option(help="What to probe: emulator, speck2fdevkit:0, ...")] = "emulator",
    probe: Annotated[
        str | None, typer.Option(help="Only these probes, with commas between: overflow,tick,visit_order ...")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write what was found to a behavior file (.json).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find out with small programs what a chip does where no public text decides; exit code 5 where it differs."""
    from .behavior import write_behavior
    from .selfcheck import selfcheck

    if out is not None:
        check_target(out, suffixes=(".json",))
    names = None if probe is None else tuple(name.strip() for name in probe.split(","))
    found = selfcheck(device, probes=names)
    emit(found.to_dict(), [_answer_table(found)], as_json=as_json)
    if out is not None:
        source: dict[str, Any] = {"device": found.device, "spikeport": version("spikeport")}
        answers = [dataclasses.asdict(answer) for answer in found.answers]
        write_behavior(found.behavior, out, source=source | {"answers": answers})
        say(f"Wrote {out}.")
    if not found.ok:
        names_off = ", ".join(one.name for one in found.answers if one.variant != one.specified)
        say(f"Error: {found.device} leaves the integer specification in: {names_off}.")
        raise typer.Exit(MISMATCH)
    hint(shlex.join(["spikeport", "verify", "PROGRAM", "--device", device]))


def _device_table(found: Inventory) -> object:
    columns = ("Device", "Ready", "What", "Serial", "Firmware")
    rows = [(one.name, one.is_ready, one.what, one.serial, one.firmware) for one in found.devices]
    return table("Devices", columns, rows)


def _answer_table(found: SelfCheck) -> object:
    columns = ("Question", "Specified", "Found", "Probe")
    rows = [
        (one.question, one.specified, "undecided" if one.variant is None else one.variant, one.name)
        for one in found.answers
    ]
    return table(f"Open questions on {found.device}", columns, rows)
