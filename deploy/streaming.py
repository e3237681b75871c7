"""The command ``stream``: online inference on a file, a pipe or a port."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.atomic import check_target
from spikeport.models.console import emit, say, table
from spikeport.models.errors import InferenceError, StreamError

from .inference import InputShape, ReadoutName, StepUs, Weights, What, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spikeport.models.stream import Decision, StreamReport

INTERRUPTED = 130
_REFRESH_S = 0.1


def stream_command(
    what: What,
    source: Annotated[
        str, typer.Option("--input", "-i", help="A recording, - for stdin, or udp://127.0.0.1:PORT[?idle=SECONDS].")
    ],
    every: Annotated[
        str, typer.Option(help="A decision every 10ms of the events' time, or every 500 events.")
    ] = "10ms",
    pace: Annotated[
        float | None, typer.Option(help="Speed of a recording: 1 is real time; as fast as possible without.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Most events that wait.")] = 1 << 17,
    overflow: Annotated[
        Literal["block", "drop"] | None,
        typer.Option(help="More events than that: the source waits, or they are dropped and counted. [udp: drop]"),
    ] = None,
    readout: ReadoutName = None,
    window: Annotated[
        bool, typer.Option("--window", help="Decide by each window alone, not by the stream so far.")
    ] = False,
    weights: Weights = None,
    input_shape: InputShape = None,
    step_us: StepUs = None,
    sensor: Annotated[
        str | None, typer.Option(help="Height and width of the sensor, where nothing says: 34x34.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Leave out events that are none, counted, in place of an error.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(dir_okay=False, help="A line of JSON for each decision; rolls over at 64 MB.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Confidence of each class over time: .svg or .png.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a program, a spiking net or a CNN on events as they come, and decide again and again."""
    from spikeport.models.sinks import ConfidenceTrace, DecisionLog
    from spikeport.models.sources import open_source
    from spikeport.models.stream import StreamSettings, stream

    every_us, every_events = parse_every(every)
    is_udp = source.startswith("udp:")
    settings = StreamSettings(
        every_us=every_us,
        every_events=every_events,
        pace=pace,
        queue_events=queue,
        overflow=overflow or ("drop" if is_udp else "block"),
        readout=readout,
        per_window=window,
    )
    inputs = [] if "://" in source or source == "-" else [Path(source)]
    if log is not None:
        check_target(log, suffixes=(".jsonl", ".json", ".log"), inputs=inputs)
    if plot is not None:
        check_target(plot, suffixes=(".svg", ".png"), inputs=inputs)
    with contextlib.ExitStack() as stack:
        predictor = stack.enter_context(opened(what, (weights, input_shape, step_us, None), None))
        events = open_source(source, sensor_size=_parse_sensor(sensor), repairs=repair)
        if is_udp:
            address = getattr(events, "address", ("", 0))
            say(f"Listening at udp://{address[0]}:{address[1]}; Ctrl-C ends the stream.")
        trace = ConfidenceTrace()
        sinks: list[Callable[[Decision], None]] = [trace.add]
        if log is not None:
            sinks.append(stack.enter_context(DecisionLog(log, classes=predictor.classes)).add)
        sinks.append(stack.enter_context(_status_line(predictor.classes)))

        def decided(decision: Decision) -> None:
            for sink in sinks:
                sink(decision)

        found = stream(predictor, events, settings=settings, on_decision=decided)
    if plot is not None and len(trace):
        trace.draw(plot, classes=predictor.classes, title=f"{Path(what).name} on {Path(source).name}")
    result = {"what": what, "input": source, "predictor": predictor.name, **found.to_dict()}
    emit(result, _report_tables(found, f"{Path(what).name} on {source}"), as_json=as_json)
    for wrote in (log, plot if len(trace) else None):
        if wrote is not None:
            say(f"Wrote {wrote}.")
    if found.is_interrupted:
        raise typer.Exit(INTERRUPTED)


def parse_every(text: str) -> tuple[int | None, int | None]:
    """Return microseconds, or a number of events, of a text such as ``10ms``, ``500us``, ``1s`` or ``500``.

    Raises: InferenceError for anything else.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(us|ms|s)?", text.strip())
    number, unit = (float(match[1]), match[2]) if match else (0.0, None)
    whole = round(number * {"us": 1, "ms": 1000, "s": 1_000_000}.get(unit or "us", 1))
    if not match or whole < 1 or (unit is None and "." in text):
        raise InferenceError(
            f"--every: expected a time such as 10ms, 500us or 1s, or a number of events, found '{text[:40]}'. Try 10ms."
        )
    return (None, whole) if unit is None else (whole, None)


def _parse_sensor(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip())
    if not match:
        raise StreamError(f"--sensor: expected height and width such as 34x34, found '{text[:40]}'. Try 128x128.")
    return int(match[1]), int(match[2])


@contextlib.contextmanager
def _status_line(classes: Sequence[str]) -> Any:
    """Yield what shows the last decision on stderr, ten times a second at most, and only on a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    shown = {"at": 0.0, "events": 0.0, "since": time.perf_counter()}
    with Live(Text("waiting for events"), console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(decision: Decision) -> None:
            shown["events"] += decision.n_events
            now = time.perf_counter()
            if now - shown["at"] < _REFRESH_S:
                return
            shown["at"] = now
            name = classes[decision.winner] if decision.winner < len(classes) else str(decision.winner)
            share = float(decision.confidence[decision.winner])
            bar = "#" * round(20 * share)
            rate = shown["events"] / max(now - shown["since"], 1e-9)
            text = f"{decision.t_us / 1e6:9.3f} s  {name:12.12} {share:4.0%} {bar:20} {rate:12,.0f} events/s"
            live.update(Text(f"{text}  {decision.latency_s * 1e3:.2f} ms"), refresh=True)

        yield show


def _report_tables(found: StreamReport, title: str) -> list[object]:
    rows: list[tuple[object, ...]] = [
        ("events from the source", found.n_in),
        ("events worked on", found.n_events),
        ("events dropped by the queue", found.n_dropped),
        *((f"events left out: {kind}", n) for kind, n in found.left_out.items()),
        ("decisions", found.n_decisions),
        ("windows without events", found.n_silent),
        ("events' own time in s", found.duration_us * 1e-6),
        ("wall time in s", found.wall_s),
        ("events per second", found.events_per_s),
        *((f"latency {name} in ms", value) for name, value in found.latency_ms.items()),
        ("most events that waited", found.queue_peak),
    ]
    return [table(title, ("Stream", ""), rows)]
