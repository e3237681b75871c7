"""The command ``spikeport``: one Typer app, with the commands of ``models`` and ``convert`` added."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from spikeport.convert.cli import convert_command, estimate_command
from spikeport.convert.errors import ConvertError
from spikeport.models.cli import train_command
from spikeport.models.console import say
from spikeport.models.errors import ModelsError

from .commands import deploy_command, plan_command, run_command
from .demo import demo_command
from .errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, INTERNAL, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="spikeport",
    help="Port a plain CNN to a spiking chip: convert, plan, deploy, run, report. Start with: spikeport demo",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 ok, 1 internal error, 2 usage, 3 unsupported layer, 4 does not fit, 5 verification mismatch, "
    "6 corrupt or untrusted file, 7 device absent or lost, 130 interrupted.",
)
app.command("demo")(demo_command)
app.command("train")(train_command)
app.command("convert")(convert_command)
app.command("estimate")(estimate_command)
app.command("plan")(plan_command)
app.command("deploy")(deploy_command)
app.command("run")(run_command)


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="TOML file: a table per command, the options' names as keys.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if show_version:
        print(f"spikeport {version('spikeport')}")
        raise typer.Exit
    if config is not None:
        context.default_map = _read_config(config)


def _read_config(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise typer.BadParameter(f"{path}: expected a TOML file, found none that can be read: {cause}") from cause
    commands = _options_of_commands()
    for name, options in tables.items():
        if name not in commands or not isinstance(options, dict):
            raise typer.BadParameter(f"{path}: [{name}]: expected a table of {', '.join(map(str, commands))}.")
        unknown = sorted(key for key in options if key.replace("-", "_") not in commands[name])
        if unknown:
            raise typer.BadParameter(f"{path}: [{name}] {unknown[0]}: no such option of `spikeport {name}`.")
    return {name: {key.replace("-", "_"): value for key, value in options.items()} for name, options in tables.items()}


def _options_of_commands() -> dict[str, set[str]]:
    """Return the parameters of each command, by the names that its function has for them."""
    return {
        str(command.name): set(inspect.signature(command.callback).parameters)
        for command in app.registered_commands
        if command.callback is not None
    }


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Errors become one sentence on stderr; with ``--json`` also an object on stdout.
    """
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]  # it may stand behind the command too
    as_json = "--json" in arguments
    try:
        result = app(arguments or ["--help"], prog_name="spikeport", standalone_mode=False)
    except typer.Exit as stop:
        result = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        result = INTERRUPTED
    except TyperException as error:
        context = getattr(error, "ctx", None)
        usage = f"\n{context.get_usage()}" if context is not None else ""
        return _failed(error.format_message() + usage, "UsageError", USAGE, as_json)
    except (ModelsError, ConvertError, DeployError) as error:
        if debug:
            raise
        refused = [dataclasses.asdict(finding) for finding in getattr(error, "findings", ())]
        return _failed(str(error), type(error).__name__, error.exit_code, as_json, refused)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        if debug:
            raise
        what = f"{Path(str(error.filename)).name}: {error.strerror}" if error.filename else str(error)
        return _failed(f"{what}. Try another path.", type(error).__name__, USAGE, as_json)
    except Exception as error:
        if debug:
            raise
        text = f"internal error: {type(error).__name__}: {error}. This is a bug: try --debug and report the traceback."
        return _failed(text, type(error).__name__, INTERNAL, as_json)
    if result == INTERRUPTED:
        say("Interrupted.")
    return result if isinstance(result, int) else OK


def _failed(message: str, kind: str, code: int, as_json: bool, findings: Sequence[dict[str, Any]] | None = None) -> int:
    print(f"Error: {message}", file=sys.stderr)
    if as_json:
        error = {"code": code, "kind": kind, "message": message, **({"findings": findings} if findings else {})}
        print(json.dumps({"error": error}, ensure_ascii=False))
    return code


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run_cli(sys.argv[1:]))
