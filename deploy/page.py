"""A report on disk: one self-contained HTML page with its pictures, or the same numbers as JSON."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.atomic import write_atomic

from . import plots, scatter
from .errors import ReportError
from .picture import outline
from .readout import classes_of, classify, n_classes
from .report import Report, report_dict, to_json
from .types import Program, Recording
from .wiring import draw_svg

_OPTIONAL = (
    "command",
    "chip",
    "device",
    "accuracies",
    "input",
    "activity",
    "synops",
    "power",
    "gate",
    "findings",
    "diagnosis",
    "core_diagnosis",
    "plan",
    "suggestions",
    "cores",
    "warnings",
    "provenance",
)
_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_SPACE = "\N{NO-BREAK SPACE}"


def write_report(report: Report, path: str | Path) -> Path:
    """Write the report and return its path: JSON where the path ends in ``.json``, one HTML page for ``.html``.

    Law: the file is there whole or not at all.
    Raises: ReportError for another suffix.
    """
    path = Path(path)
    if path.suffix not in (".json", ".html"):
        raise ReportError(f"report '{path.name}': expected a name that ends in .html or .json. Try report.html.")
    text = to_json(report) if path.suffix == ".json" else render_html(report)
    write_atomic(path, text.encode("utf-8"))
    return path


def render_html(report: Report) -> str:
    """Return the report as one HTML page: styles, pictures and numbers inside, no script, no request.

    Law: equal reports give equal pages; the element ``report`` holds ``report_dict(report)`` as JSON.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    numbers = report_dict(report)
    loader = FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8"))
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {
        "count": count,
        "fixed": fixed,
        "percent": percent,
        "plain": plain,
        "si": si,
        "sig": sig,
        "width": width,
    }
    return page.get_template("report.html").render(
        n={name: numbers.get(name) for name in _OPTIONAL} | numbers,
        tiles=_tiles(numbers),
        axis=Axis.around([row["low"] for row in numbers.get("accuracies", ())]),
        most=_most(numbers),
        sources=_sources(numbers),
        n_rows=plots.N_ROWS,
        color=plots.layer_color,
        on_color=plots.ON,
        off_color=plots.OFF,
        live=_live_picture(),
        version=version("spikeport"),
        json=_embedded(numbers),
        **_pictures(report),
    )


def _live_picture() -> str:
    """Return a picture of the live view, as a URI."""
    picture = files(__package__).joinpath("view", "screenshot.png").read_bytes()
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


@dataclasses.dataclass(frozen=True)
class Axis:
    """A scale of shares from ``start`` to ``stop``."""

    start: float
    stop: float = 1.0

    @classmethod
    def around(cls, shares: list[float]) -> Axis:
        """Return the scale that starts at the full ten percent below the smallest of ``shares``, at most at 90 %."""
        return cls(min(0.9, math.floor(min(shares, default=0.0) * 10) / 10))

    def of(self, share: float) -> float:
        """Return where ``share`` lies on the scale, from 0 to 1."""
        return (share - self.start) / (self.stop - self.start)


def count(n: int) -> str:
    """Return a count with its thousands apart."""
    return f"{n:,}"


def fixed(value: float, n_digits: int) -> str:
    """Return a number with ``n_digits`` digits after the point."""
    return f"{value:,.{n_digits}f}"


def sig(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def percent(share: float, n_digits: int = 1) -> str:
    """Return a share in percent."""
    return f"{100 * share:.{n_digits}f}{_SPACE}%"


def width(share: float) -> str:
    """Return a share as a length of CSS."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def si(value: float, unit: str) -> str:
    """Return a quantity with three significant digits and a prefix of its unit; a unit that is a word stands apart."""
    if not value:
        return f"0{_SPACE}{unit}"
    gap = _SPACE if len(unit) > 2 else ""
    # Rounded first: 999.9 k is 1.00 M.
    rounded = float(f"{value:.2e}")
    power = min(max(3 * math.floor(math.log10(abs(rounded)) / 3), -12), 12)
    scaled = rounded / 10.0**power
    n_digits = max(0, 2 - math.floor(math.log10(abs(scaled)))) if abs(scaled) >= 1 else 2
    return f"{scaled:.{n_digits}f}{_SPACE}{_PREFIXES[power]}{gap if _PREFIXES[power] else ''}{unit}"


def plain(value: Any) -> str:
    """Return a value of the provenance as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(entry)}" for name, entry in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, (list, tuple)) else str(value)


def _tiles(numbers: dict[str, Any]) -> list[dict[str, str]]:
    def tile(label: str, value: str, detail: str) -> dict[str, str]:
        return {"label": label, "value": value, "detail": detail}

    tiles = []
    if "accuracies" in numbers:
        first, last = numbers["accuracies"][0], numbers["accuracies"][-1]
        detail = f"{count(last['n_right'])} of {count(last['n'])} right"
        if first is not last:
            detail = f"{first['name']}: {percent(first['share'])}"
        tiles.append(tile(f"Accuracy, {last['name']}", percent(last["share"]), detail))
    elif "output" in numbers:
        tiles.append(tile("Read out as", numbers["output"]["prediction"] or "none", "class of this recording"))
    if "synops" in numbers:
        synops = numbers["synops"]
        mean = synops["total"] / max(1, synops["n_samples"])
        tiles.append(tile("Synops per recording", si(mean, "").strip(), si(synops["synops_per_s"], "synops/s")))
    if "power" in numbers:
        power = numbers["power"]
        band = f"{si(power['low_w'], 'W')} to {si(power['high_w'], 'W')}, estimated"
        tiles.append(tile("Power", si(power["mid_w"], "W"), band))
    if "diagnosis" in numbers:
        bad = numbers["diagnosis"]["first_bad"]
        detail = f"first bad layer: {bad['layer']}" if bad else "no bad layer"
        tiles.append(tile("Diagnosis", bad["cause"] if bad else "healthy", detail))
    if "plan" in numbers:
        problems = len(numbers["plan"]["violations"])
        tiles.append(tile("Does it fit", "no" if problems else "yes", numbers["chip"]))
    if "cores" in numbers:
        used = [core for core in numbers["cores"] if core["layer"] is not None]
        tiles.append(tile("Cores", f"{len(used)} of {len(numbers['cores'])}", numbers["chip"]))
    return tiles


def _most(numbers: dict[str, Any]) -> dict[str, float]:
    """Return the largest value of each column that is drawn as bars; 1 where all are 0."""
    activity = [row["n_spikes"] for row in numbers.get("activity", ())]
    synops = [row["synops"] for row in numbers.get("synops", {"layers": ()})["layers"]]
    rails = [row["high_w"] for row in numbers.get("power", {"rails": ()})["rails"]]
    columns = {"n_spikes": activity, "synops": synops, "rail_w": rails}
    return {name: max(values, default=0) or 1 for name, values in columns.items()}


def _sources(numbers: dict[str, Any]) -> list[str]:
    """Return each source of the power estimate once, in the order of its first coefficient."""
    coefficients = numbers.get("power", {"coefficients": ()})["coefficients"]
    return list(dict.fromkeys(row["source"] for row in coefficients))


def _pictures(report: Report) -> dict[str, Any]:
    pictures: dict[str, Any] = {"slices": (), "event_rate": "", "maps": (), "class_spikes": ""}
    pictures |= {"scatters": (), "curves": ""}
    program, events, recording = report.program, report.events, report.recording
    subject = program or report.plan
    pictures["chip"] = "" if subject is None else draw_svg(outline(subject))
    if report.diagnosis is not None:
        layers = enumerate(report.diagnosis.layers)
        pictures["scatters"] = [scatter.layer_scatter(layer, plots.layer_color(index)) for index, layer in layers]
        pictures["curves"] = scatter.accuracy_curves(report.diagnosis) if report.diagnosis.curve else ""
    if events is not None and events.duration_us > 0:
        pictures |= {"slices": plots.event_slices(events), "event_rate": plots.event_rate(events)}
    if program is None or recording is None:
        return pictures
    pictures["maps"] = [
        plots.spike_map(recording.counts[core.core], plots.layer_color(position))
        for position, core in enumerate(program.cores)
    ]
    if events is not None and n_classes(program) and set(program.outputs) & recording.spikes.keys():
        t_us, classes = _output_spikes(program, recording)
        span_us = int(events.t_us[0]), int(events.t_us[-1])
        winner = classify(recording, program)
        pictures["class_spikes"] = plots.class_spikes(t_us, classes, names=report.names, winner=winner, span_us=span_us)
    return pictures


def _output_spikes(program: Program, recording: Recording) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return times and classes of the recorded spikes that leave the chip."""
    times, classes = [], []
    for core in program.cores:
        for target in core.destinations:
            if target.core is None and core.core in recording.spikes:
                spikes = recording.spikes[core.core]
                found = classes_of(spikes, target, program)
                times.append(spikes["t_us"][found >= 0])
                classes.append(found[found >= 0])
    return np.concatenate(times), np.concatenate(classes)


def _embedded(numbers: dict[str, Any]) -> str:
    """Return JSON that cannot end the element it stands in."""
    text = json.dumps(numbers, ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
