"""The report of one run as a value: what goes into it, and every number of it. ``page`` makes the HTML of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from spikeport.convert.diagnosis.diagnose import Diagnosis
from spikeport.convert.power import PowerEstimate
from spikeport.convert.synops import SynopReport
from spikeport.convert.types import Conversion
from spikeport.models.arrays import ArrayRecord
from spikeport.models.events import Events

from .budget import count_words
from .chips import chip
from .diagnosis import CoreDiagnosis
from .errors import ReportError
from .fixes import Fix
from .plan import Plan
from .readout import classify, count_classes, n_classes
from .types import Destination, Program, Recording, Violation

FORMAT = 1
"""Version of the JSON form."""

# The 97.5 % quantile of the normal distribution: two-sided 95 %.
_Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """How many of ``n`` labelled recordings one stage of the path classified right.

    Raises: ReportError where that is no count of right answers.
    """

    name: str
    n_right: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.n_right <= self.n or self.n < 1:
            raise ReportError(
                f"accuracy of '{self.name}': expected 0 to n right of at least 1, found {self.n_right} of {self.n}. "
                "Try leaving it out where nothing is labelled."
            )

    @property
    def share(self) -> float:
        """Share of right answers."""
        return self.n_right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval of the share.

        Source: score interval of Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.
        """
        spread = _Z95**2 / self.n
        center = (self.share + spread / 2) / (1 + spread)
        half = _Z95 / (1 + spread) * math.sqrt(self.share * (1 - self.share) / self.n + spread / (4 * self.n))
        # At 0 and n right one end is the share itself, but for the last digit.
        return max(0.0, min(center - half, self.share)), min(1.0, max(center + half, self.share))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Report(ArrayRecord):
    """What a report says; whatever was not done is None or empty, and its section is left out.

    Without a ``program`` it is the report of a conversion, or of a ``plan`` with ``suggestions``: there is no recording
    then. ``events`` is
    the recording that ``recording`` answers to, ``label`` the index of its true class; ``class_names`` has one name per
    class that the program puts out. ``synops`` and ``power`` may cover more recordings than that one. ``diagnosis`` is
    that of the spiking net, ``core_diagnosis`` that of the chip. ``provenance`` adds to that of the program.
    Raises: ReportError where the recording lacks cores of the program, or names or label do not match its output.
    """

    title: str
    program: Program | None = None
    command: str = ""
    device: str = "emulator"
    events: Events | None = None
    recording: Recording | None = None
    class_names: tuple[str, ...] = ()
    label: int | None = None
    accuracies: tuple[Accuracy, ...] = ()
    synops: SynopReport | None = None
    power: PowerEstimate | None = None
    conversion: Conversion | None = None
    diagnosis: Diagnosis | None = None
    core_diagnosis: tuple[CoreDiagnosis, ...] = ()
    warnings: tuple[Violation, ...] = ()
    plan: Plan | None = None
    suggestions: tuple[Fix, ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        problems = list(self._problems())
        if problems:
            raise ReportError(" ".join(problems))

    def _problems(self) -> Iterator[str]:
        if self.program is None:
            if self.recording is not None or self.label is not None:
                yield "report: expected the program that the recording was made with, found none. Try program=."
            return
        ids = [core.core for core in self.program.cores]
        if self.recording is not None and not set(ids) <= set(self.recording.counts):
            yield (
                f"report: expected a recording of the program's cores {ids}, found {sorted(self.recording.counts)}. "
                "Try the recording of this very program."
            )
        n = len(_classes(self.program))
        if self.class_names and len(self.class_names) != n:
            yield (
                f"report: expected {n} class names, one per class that the program puts out, "
                f"found {len(self.class_names)}. Try leaving them out."
            )
        if self.label is not None and not 0 <= self.label < n:
            yield f"report: expected a label in 0..{n - 1}, found {self.label}. Try the index of its class."

    @property
    def names(self) -> tuple[str, ...]:
        """A name per class: ``class_names``, or the indices."""
        return self.class_names or (() if self.program is None else _classes(self.program))


def report_dict(report: Report) -> dict[str, Any]:
    """Return every number of the report as plain values, ready for JSON; absent parts have no key.

    Law: the numbers that the HTML page shows come from here.
    """
    program = report.program
    parts: dict[str, Any] = {
        "spikeport.report": FORMAT,
        "title": report.title,
        "command": report.command,
        "chip": program.chip if program else report.plan.chip if report.plan else None,
        "device": report.device if program else None,
        "accuracies": [_accuracy(accuracy) for accuracy in report.accuracies],
        "input": _input(report),
        "activity": _activity(report),
        "output": _output(report),
        "wall_s": report.recording.wall_s if report.recording else None,
        "synops": report.synops.to_dict() if report.synops else None,
        "power": report.power.to_dict() if report.power else None,
        "diagnosis": report.diagnosis.to_dict() if report.diagnosis else None,
        "core_diagnosis": [row.to_dict() for row in report.core_diagnosis],
        "cores": _cores(program) if program else None,
        "plan": report.plan.to_dict() if report.plan else None,
        "suggestions": [fix.to_dict() for fix in report.suggestions],
        "gate": dataclasses.asdict(report.conversion.gate) if report.conversion else None,
        "findings": [dataclasses.asdict(row) for row in report.conversion.findings] if report.conversion else None,
        "warnings": [dataclasses.asdict(warning) for warning in report.warnings],
        "provenance": {**(program.provenance if program else {}), **report.provenance},
    }
    plain: dict[str, Any] = _plain({name: part for name, part in parts.items() if part not in (None, "", [], {})})
    return plain


def to_json(report: Report) -> str:
    """Return ``report_dict`` as indented JSON."""
    return json.dumps(report_dict(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    low, high = accuracy.interval
    return {**dataclasses.asdict(accuracy), "share": accuracy.share, "low": low, "high": high}


def _input(report: Report) -> dict[str, Any] | None:
    events = report.events
    if events is None:
        return None
    n_on = int(events.p.sum(dtype=np.int64))
    seconds = events.duration_us / 1e6
    label = {} if report.label is None else {"label": report.names[report.label]}
    return {
        "n_events": len(events),
        "n_on": n_on,
        "n_off": len(events) - n_on,
        "duration_us": events.duration_us,
        "events_per_s": len(events) / seconds if seconds else 0.0,
        "sensor_size": events.sensor_size,
        **label,
    }


def _activity(report: Report) -> list[dict[str, Any]] | None:
    program, recording, events = report.program, report.recording, report.events
    if program is None or recording is None:
        return None
    seconds = events.duration_us / 1e6 if events is not None else 0.0
    rows = []
    for core in program.cores:
        counts = recording.counts[core.core]
        per_neuron = recording.n_spikes[core.core] / counts.size
        rows.append(
            {
                "name": core.name,
                "core": core.core,
                "out_shape": core.out_shape,
                "n_neurons": counts.size,
                "n_events": recording.n_events[core.core],
                "n_dropped": recording.n_dropped[core.core],
                "n_spikes": recording.n_spikes[core.core],
                "synops": recording.synops[core.core],
                "spikes_per_neuron": per_neuron,
                "max_spikes": counts.max(),
                "silent_share": float((counts == 0).mean()),
                **({"rate_hz": per_neuron / seconds} if seconds else {}),
            }
        )
    return rows


def _output(report: Report) -> dict[str, Any] | None:
    program = report.program
    if program is None or report.recording is None or not n_classes(program):
        return None
    spikes = count_classes(report.recording, program)
    return {
        "n_spikes": dict(zip(report.names, spikes, strict=True)),
        "prediction": report.names[classify(report.recording, program)] if spikes.any() else None,
    }


def _classes(program: Program) -> tuple[str, ...]:
    """Return the indices of the classes that leave the chip, as text."""
    return tuple(map(str, range(n_classes(program))))


def _cores(program: Program) -> list[dict[str, Any]]:
    positions = {core.core: position for position, core in enumerate(program.cores)}
    rows = []
    for table in chip(program.chip).cores:
        position = positions.get(table.core)
        available = {"kernel": table.kernel_words, "neuron": table.neuron_words, "bias": table.bias_words}
        row: dict[str, Any] = {"core": table.core, "layer": None, "position": position, "destinations": []}
        occupied = useful = dict.fromkeys(available, 0)
        if position is not None:
            core = program.cores[position]
            words = count_words(core)
            row |= {"layer": core.name, "destinations": [_destination(target) for target in core.destinations]}
            occupied = {"kernel": words.kernel_words, "neuron": words.neuron_words, "bias": words.bias_words}
            useful = occupied | {"kernel": words.useful_kernel_words, "neuron": words.useful_neuron_words}
        for kind, n_words in available.items():
            row[kind] = {"useful": useful[kind], "occupied": occupied[kind], "available": n_words}
        rows.append(row)
    return rows


def _destination(target: Destination) -> str:
    where = "output" if target.core is None else f"core {target.core}"
    pool = f", pool {target.pool}" if target.pool > 1 else ""
    return where + pool + (f", features + {target.feature_shift}" if target.feature_shift else "")


def _plain(value: Any) -> Any:
    """Return ``value`` with mappings, sequences and numpy numbers as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
