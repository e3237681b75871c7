"""The command ``spikeport run-script``: a user's script, unchanged, with virtual boards in place of real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from spikeport.models.console import say

from .chips import chip
from .errors import DeviceError, SettingError

_SIGNALED = 128  # what a shell adds to the number of the signal that ended a process

PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": True}
"""Settings of the command: what follows the script belongs to the script."""


def run_script_command(
    script: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A script that imports samna or sinabs.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="What the script is given.")
    ] = None,
    virtual: Annotated[
        str, typer.Option(help="Boards that it finds, with commas between: speck2fdevkit,speck2fdevkit.")
    ] = "speck2fdevkit",
) -> None:
    """Run a Python script for the vendor's boards on virtual ones, with the emulator as the chip."""
    from .preflight import find_installed

    devices = [name.strip() for name in virtual.split(",")]
    if not all(devices):
        raise SettingError(f"--virtual: expected names of chips with commas between, found '{virtual}'.")
    for name in devices:
        chip(name)
    if find_installed().state == "real":
        raise DeviceError(
            "run-script: the real samna is installed, and is not replaced. "
            f"Try `python {script}` with a board, or an environment without samna."
        )
    say(f"Virtual boards: {', '.join(devices)}. Nothing is sent to a real one.")
    command = [sys.executable, "-m", "spikeport.deploy.virtual", ",".join(devices), str(script), *(arguments or ())]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - the script is the user's own
    raise typer.Exit(code if code >= 0 else _SIGNALED - code)
