"""The command ``view``: a program at work, in a browser."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.atomic import check_target
from spikeport.models.console import hint, say, show, show_line, table

from .errors import SettingError
from .options import check_rate
from .view.settings import (
    DEFAULT_PLOTS,
    LOOPBACK,
    PLOTS,
    ServeSettings,
    ViewSettings,
    parse_limits,
    parse_plots,
    parse_share,
    parse_speed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .types import Program
    from .view.viewer import Viewer

INTERRUPTED = 130
SESSION_SUFFIXES = (".npz",)
_POLL_S = 0.05


def _more(kind: str) -> Any:
    """Return an option that a TOML file has, and the help leaves out: 15 are enough to read."""
    return typer.Option(hidden=True, help=kind)


def view_command(
    what: Annotated[
        str, typer.Argument(metavar="PROGRAM|SESSION", help="A chip program, or what `view --record` wrote.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", help="A recording, a folder of them, camera, udp://127.0.0.1:PORT, or - (stdin)."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where it runs: emulator, virtual:speck2fdevkit, or a board as speck2fdevkit:0.")
    ] = "emulator",
    interval_ms: Annotated[float, typer.Option(help="Spikes are counted and decided on in intervals as long.")] = 100.0,
    threshold: Annotated[int, typer.Option(help="Fewest spikes of the class that wins an interval.")] = 1,
    limits: Annotated[str, typer.Option(help="LOW:HIGH: all spikes of an interval that is decided on.")] = "0:32000",
    icons: Annotated[
        Path | None, typer.Option(help="Folder with a picture of each class: 0_background.png, 1_clap.png ...")
    ] = None,
    plots: Annotated[str, typer.Option(help=f"Rows with / between, of {', '.join(PLOTS)}.")] = " / ".join(
        map(" ".join, DEFAULT_PLOTS)
    ),
    readout: Annotated[
        str | None, typer.Option(help="A readout of your own: file.py:function of the counts of an interval.")
    ] = None,
    speed: Annotated[str, typer.Option(help="Speed of a recording: 1 is its own, or max.")] = "1",
    record: Annotated[
        Path | None, typer.Option(help="Write the session to this file (.npz), for view to play.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve at; another than this machine's own opens the page to a network.")
    ] = LOOPBACK,
    port: Annotated[int, typer.Option(help="Port to serve at; 0: any free one.")] = 0,
    open_page: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open the page in a browser. [on a terminal with a display]")
    ] = None,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    once: Annotated[bool, _more("End when all recordings were played.")] = False,
    names: Annotated[str | None, _more("Names of the classes, with commas.")] = None,
    n_classes: Annotated[int | None, _more("Number of classes, where it is not the program's.")] = None,
    default_class: Annotated[int | None, _more("Class to show where none is decided.")] = None,
    power_items: Annotated[int, _more("3 rails (io, logic, ram) or 5 (and those of the pixels).")] = 5,
    fps: Annotated[float, _more("Most frames a second.")] = 30.0,
    fade_ms: Annotated[float, _more("Time in which an event fades to a third.")] = 50.0,
    step_ms: Annotated[float, _more("Length of a single step.")] = 10.0,
    loop: Annotated[bool, _more("Begin again after the last recording.")] = False,
    decimate: Annotated[str, _more("L:M keeps L of every M events.")] = "1:1",
    history_s: Annotated[float, _more("Seconds that the lines show.")] = 10.0,
    watch: Annotated[int | None, _more("Core whose spike map is shown.")] = None,
    rescale: Annotated[bool, _more("Scale recordings of another sensor size to the program's.")] = False,
    allow_hosts: Annotated[str | None, _more("Further names that the page is reached by, with commas.")] = None,
    token: Annotated[str | None, _more("Token of the URL; random without.")] = None,
    max_viewers: Annotated[int, _more("Most pages at a time.")] = 8,
    slow_clock_hz: Annotated[float | None, _more("Rate of the slow clock, as of run.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a program at work on recordings, a camera or a stream, in a browser.

    More options in a TOML file (spikeport --config), see docs/view.md. --json prints an object a line: where the page
    is, then the totals.
    """
    from .view.viewer import Viewer

    atexit.register(gc.freeze)  # an end without a search for garbage takes half as long: a second on a busy machine
    check_rate(slow_clock_hz)
    _check_duration(duration)
    if once and loop:
        raise SettingError(
            "once: expected recordings that end, found loop, with which none is the last. Try one of them."
        )
    low, high = parse_limits(limits)
    settings = ViewSettings(
        interval_ms=interval_ms,
        threshold=threshold,
        low=low,
        high=high,
        default_class=default_class,
        names=_parts(names),
        n_classes=n_classes,
        power_items=power_items,
        plots=parse_plots(plots),
        icons=icons,
        fps=fps,
        fade_ms=fade_ms,
        step_ms=step_ms,
        speed=parse_speed(speed),
        loop=loop,
        decimate=parse_share(decimate),
        history_s=history_s,
        watch=watch,
        rescale=rescale,
    )
    waits = duration is None and not once  # a script may have nobody look
    serve = ServeSettings(host, port, token, _parts(allow_hosts), max_viewers, waits)
    if record is not None:
        inputs = [Path(what), *([] if source is None or "://" in source else [Path(source)])]
        check_target(record, suffixes=SESSION_SUFFIXES, inputs=inputs)
    function = None if readout is None else _loaded(readout)
    program = what if slow_clock_hz is None else _clocked(what, slow_clock_hz)
    with _asked_to_stop() as asked:
        viewer = Viewer(program, source, device=device, settings=settings, serve=serve, readout=function)
        with viewer:
            if record is not None:
                viewer.record_to = record
                viewer.show.record(record)
            viewer.start()
            asked.is_awaited = True
            _tell(viewer, _ending(duration, once=once), as_json=as_json)
            if open_page if open_page is not None else _has_display():
                import webbrowser

                webbrowser.open(viewer.url)
            _wait(viewer, asked.stop, duration, once=once)
            viewer.close()
            _tell_totals(viewer, record, as_json=as_json)
    fault = viewer.show.fault
    if fault is not None and not asked.stop.is_set():
        raise fault
    if fault is not None:
        say(f"Error: {fault}")
    if asked.stop.is_set():
        raise typer.Exit(INTERRUPTED)


def _clocked(path: str, rate_hz: float) -> Program:
    """Return the program of a file with another slow clock."""
    from .artifact import load_program
    from .view.tape import is_session

    if is_session(path):
        raise SettingError(
            f"--slow-clock-hz: expected a program, found '{Path(path).name}', a recorded session, which has its clock. "
            "Try without."
        )
    return dataclasses.replace(load_program(path), slow_clock_hz=rate_hz or None)


def _loaded(spec: str) -> Any:
    from spikeport.models.own import own_function

    with own_function(spec, kind="readout") as own:
        return own.function


def _parts(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(part.strip() for part in text.split(","))


def _check_duration(seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise SettingError(f"--duration: expected seconds above 0, found {seconds}. Try 60.")


def _has_display() -> bool:
    """Return whether somebody sits there: stdout is a terminal, and windows can be opened."""
    if sys.stdout is None or not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@dataclasses.dataclass
class _Asked:
    """Whether somebody asked to stop; ``is_awaited`` once the command looks at it."""

    stop: threading.Event
    is_awaited: bool = False


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[_Asked]:
    """Yield what Ctrl-C or a request to end sets; before that is awaited, and the second time, they interrupt."""
    asked = _Asked(threading.Event())
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: object) -> None:  # noqa: ARG001 - a handler's arguments
        if asked.stop.is_set() or not asked.is_awaited:
            raise KeyboardInterrupt
        asked.stop.set()

    hang_up = getattr(signal, "SIGHUP", None)  # a terminal that is closed; nohup has it ignored
    is_heard = hang_up is not None and signal.getsignal(hang_up) is signal.SIG_DFL
    numbers = (signal.SIGINT, signal.SIGTERM, *((hang_up,) if is_heard else ()))
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(viewer: Viewer, stop: threading.Event, duration_s: float | None, *, once: bool) -> None:
    """Return when asked to stop, when the time is over, or when nothing is left to play."""
    until = None if duration_s is None else time.monotonic() + duration_s
    while not stop.wait(_POLL_S):
        if until is not None and time.monotonic() >= until:
            return
        position = viewer.show.position()
        if once and not position.is_playing and (position.problem is not None or position.has_ended):
            return


def _ending(duration_s: float | None, *, once: bool) -> str:
    """Return until when the page is there, in words."""
    ends = [*(() if duration_s is None else (f"for {duration_s:g} s",)), *(("until all was played",) if once else ())]
    return ", ".join((*ends, "or until Ctrl-C")) if ends else "until Ctrl-C"


def _tell(viewer: Viewer, ending: str, *, as_json: bool) -> None:
    """Print where the page is."""
    if as_json:
        show_line(json.dumps({"url": viewer.url, "device": viewer.device, "pid": os.getpid()}))
    else:
        show_line(viewer.url)
    if not viewer.serve.is_local:
        say(f"Anybody on the network of {viewer.serve.host} who has this URL can see and steer the show.")
    begins = " The show begins when it is opened." if viewer.serve.waits_for_viewer else ""
    say(f"The page is at this URL {ending}.{begins}")


def _tell_totals(viewer: Viewer, record: Path | None, *, as_json: bool) -> None:
    totals = dataclasses.asdict(viewer.show.totals())
    if viewer.is_on_board:
        totals["synops"] = None  # which no board tells
    if as_json:
        show_line(json.dumps({"totals": totals}))
    else:
        rows = [(_WORDS[name], "not told" if value is None else value) for name, value in totals.items()]
        show(table(f"{viewer.facts['program']} on {viewer.device}", ("Show", ""), rows))
    if record is not None and viewer.show.fault is None:
        say(f"Wrote {record}.")
        hint(shlex.join(["spikeport", "view", str(record)]))


_WORDS = {
    "n_offered": "events of the recordings",
    "n_left_out": "events left out before the program",
    "n_events": "events into the program",
    "n_output_spikes": "spikes out of it",
    "n_dropped": "events dropped by cores",
    "n_late": "spikes that came late",
    "synops": "synops",
    "n_windows": "intervals",
    "n_decided": "intervals decided",
}
