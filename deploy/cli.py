"""The command ``spikeport``: one Typer app, with the commands of ``models`` and ``convert`` added."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer
from typer.exceptions import TyperException

from spikeport.convert.cli import convert_command
from spikeport.convert.errors import ConvertError
from spikeport.convert.estimate import estimate_command
from spikeport.convert.export import export_command
from spikeport.convert.finetune_cli import finetune_command
from spikeport.models.cli import train_command
from spikeport.models.console import emit, say, show, silence
from spikeport.models.errors import ModelsError, TargetError
from spikeport.models.files_cli import import_command, info_command

from .bench.command import bench_command
from .boards import devices_command, selfcheck_command
from .checking import diff_command, verify_command
from .commands import deploy_command, run_command
from .demo import demo_command
from .errors import DeployError
from .inference import evaluate_command, predict_command
from .planning import plan_command
from .scripting import PASS_ON, run_script_command
from .streaming import stream_command
from .viewing import view_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spikeport.convert.diagnosis.diagnose import Diagnosis
    from spikeport.convert.judging import Judge
    from spikeport.convert.types import Conversion

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
app.command("info")(info_command)
app.command("import")(import_command)
app.command("convert")(convert_command)
app.command("finetune")(finetune_command)
app.command("estimate")(estimate_command)
app.command("export")(export_command)
app.command("plan")(plan_command)
app.command("deploy")(deploy_command)
app.command("run")(run_command)
app.command("evaluate")(evaluate_command)
app.command("predict")(predict_command)
app.command("stream")(stream_command)
app.command("view")(view_command)
app.command("verify")(verify_command)
app.command("diff")(diff_command)
app.command("devices")(devices_command)
app.command("selfcheck")(selfcheck_command)
app.command("run-script", context_settings=PASS_ON)(run_script_command)
app.command("bench")(bench_command)


@dataclasses.dataclass
class Call:
    """One call of the command: its arguments, and whether its answer on stdout is JSON, as its options turn out."""

    arguments: tuple[str, ...]
    as_json: bool

    def judge(self) -> Judge:
        """Return the judge of ``convert --objective chip``."""
        from .judge import judge_chip

        return judge_chip()

    def write_conversion(self, path: Path, conversion: Conversion, diagnosis: Diagnosis | None) -> None:
        """Write the page of ``convert --report``."""
        from .page import write_report
        from .report import Report

        report = Report("Conversion to a spiking net", conversion=conversion, diagnosis=diagnosis)
        write_report(report, path)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        show(f"spikeport {version('spikeport')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="TOML file: a table per command, the options' names as keys.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001
    show_version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    if config is not None:
        context.default_map = _read_config(config)
        context.obj.as_json |= bool(context.default_map.get(str(context.invoked_subcommand), {}).get("as_json"))


def _read_config(path: Path) -> dict[str, dict[str, Any]]:
    """Return the defaults of each command, by the names of its parameters."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise typer.BadParameter(f"{path}: expected a TOML file, found none that can be read: {cause}") from cause
    group: Any = typer.main.get_command(app)
    commands = {name: _options_of(command) for name, command in group.commands.items()}
    defaults: dict[str, dict[str, Any]] = {}
    for name, options in tables.items():
        if name not in commands or not isinstance(options, dict):
            raise typer.BadParameter(f"{path}: [{name}]: expected a table of {', '.join(commands)}.")
        unknown = sorted(set(options) - set(commands[name]))
        if unknown:
            known = ", ".join(sorted(commands[name]))
            raise typer.BadParameter(f"{path}: [{name}] {unknown[0]}: expected one of {known}.")
        defaults[name] = {}
        for key, value in options.items():
            parameter, kind = commands[name][key]
            defaults[name][parameter] = _checked(value, kind, f"{path}: [{name}] {key}")
    return defaults


def _options_of(command: Any) -> dict[str, tuple[str, Any]]:
    """Return the parameter and the type of each option of a command, by the option's long name without dashes."""
    kinds = get_type_hints(command.callback.__wrapped__)
    options = [option for option in command.params if option.param_type_name == "option" and option.name in kinds]
    return {option.opts[0].removeprefix("--"): (option.name, kinds[option.name]) for option in options}


def _checked(value: object, kind: Any, where: str) -> object:
    """Return a value of a TOML file as the command line would have it."""
    kinds = set(get_args(kind)) - {type(None)} or {kind}
    if isinstance(value, list) and value and str in kinds and all(type(one) in (int, str) for one in value):
        value = ",".join(map(str, value))
    allowed: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), Path: (str,)}
    fits = any(type(value) in allowed.get(one, (str, int, float)) for one in kinds)
    if not fits or (isinstance(value, str) and (not value or "\0" in value)):
        wanted = " or ".join(_KINDS.get(one, "a text or a list") for one in kinds)
        raise typer.BadParameter(f"{where}: expected {wanted}, found {value!r:.60}.")
    return value if bool in kinds else str(value)


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Errors become one sentence on stderr; with ``--json`` also an object on stdout.
    """
    own, passed = _split_passed(arguments)
    debug = "--debug" in own
    own = [argument for argument in own if argument != "--debug"]  # it may stand behind the command too
    arguments = [*own, *passed]
    call = Call(tuple(arguments), "--json" in own)
    if any(not argument or argument.endswith("=") for argument in own):
        return _failed(
            "an argument is empty: expected a name, a path or a number. Try --help.", "UsageError", USAGE, call
        )
    try:
        result = app(arguments or ["--help"], prog_name="spikeport", standalone_mode=False, obj=call)
    except typer.Exit as stop:
        result = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        result = INTERRUPTED
    except TyperException as error:
        context = getattr(error, "ctx", None)
        usage = f"\n{context.get_usage()}" if context is not None else ""
        return _failed(error.format_message() + usage, "UsageError", USAGE, call)
    except (ModelsError, ConvertError, DeployError) as error:
        if debug:
            raise
        refused = [dataclasses.asdict(finding) for finding in getattr(error, "findings", ())]
        return _failed(str(error), type(error).__name__, error.exit_code, call, refused)
    except SystemExit as stop:  # how Typer ends where the reader of its help has gone
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return OK
    except OSError as error:
        if debug:
            raise
        what = f"{Path(str(error.filename)).name}: {error.strerror}" if error.filename else error.strerror or str(error)
        return _failed(f"{what}. Try another path.", type(error).__name__, USAGE, call)
    except Exception as error:
        if debug:
            raise
        text = f"internal error: {type(error).__name__}: {error}. This is a bug: try --debug and report the traceback."
        return _failed(text, type(error).__name__, INTERNAL, call)
    if result == INTERRUPTED:
        say("Interrupted.")
    return result if isinstance(result, int) else OK


def _split_passed(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the command's own arguments, and those that `run-script` hands on to a script as they are."""
    first = next((place for place, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    if first == len(arguments) or arguments[first] != "run-script":
        return arguments, ()
    return arguments[: first + 1], arguments[first + 1 :]


def _failed(message: str, kind: str, code: int, call: Call, findings: Sequence[dict[str, Any]] | None = None) -> int:
    say(f"Error: {message}")
    if call.as_json:
        error = {"code": code, "kind": kind, "message": message, **({"findings": findings} if findings else {})}
        with contextlib.suppress(TargetError):  # stderr has said it
            emit({"error": error}, (), as_json=True)
    return code


def main() -> None:
    """Run the command line of this process and exit with its code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: else the next file would be opened in its place
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    code = run_cli(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            silence(stream)
    sys.exit(code)
