"""The command ``convert``."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer

from spikeport.models.atomic import check_target
from spikeport.models.console import emit, end_dry_run, hint, say

from .errors import CalibrationError, InputError
from .inputs import Calibration, Source, is_file, open_source, parse_bound, parse_shape, read_calibration
from .normalize import Scaling
from .pipeline import convert_graph
from .store import net_bytes, net_hash, save_net
from .tables import conversion_tables, findings_table, search_tables
from .types import Conversion, SpikingNet

if TYPE_CHECKING:
    from .calibrate import Search
    from .diagnosis.diagnose import Diagnosis
    from .exchange.nir_in import NirImport
    from .judging import Judge

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")]

_V_MIN = "auto"
_RULES = ("percentile", "max", "mse", "balance", "auto")


def convert_command(
    context: typer.Context,
    network: Annotated[
        str,
        typer.Argument(
            help="A name (digits, gesture, ...), my_net.py:function, package.module:function, .pt2, .onnx, .nir."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Its weights: .safetensors, .npz or .pt (weights only).")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The spiking net to write.")] = Path("net.safetensors"),
    input_shape: Annotated[str | None, typer.Option(help="channels,height,width; known for names and files.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Calibration: digits, nmnist:FOLDER, gestures:FOLDER, a recording, or an .npz with 'frames'."
        ),
    ] = None,
    scale: Annotated[
        str, typer.Option(help=f"How scales are found: {', '.join(_RULES)}; auto searches, on labelled data.")
    ] = "percentile",
    percentile: Annotated[float, typer.Option(help="Percentile of the activations that is scaled.")] = 99.9,
    spikes: Annotated[float, typer.Option(help="Spikes that this percentile becomes, per frame.")] = 20.0,
    steps: Annotated[int, typer.Option(help="Time steps (leak ticks) a frame lasts; biases are spread over them.")] = 1,
    v_min: Annotated[
        str, typer.Option(help="Lower bound of the potential in thresholds, none, or auto: see below.")
    ] = _V_MIN,
    replace: Annotated[
        str, typer.Option(help="Stand-ins for layers that cannot spike: maxpool=avgpool, or several with commas.")
    ] = "",
    budget: Annotated[float | None, typer.Option(help="With --scale auto: most synops a recording may cost.")] = None,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Say where the spiking net leaves the CNN, why, and what to turn.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="A page (.html) with the findings and the diagnosis.")] = None,
    objective: Annotated[str, typer.Option(hidden=True, help="What auto judges: net, or chip (emulated).")] = "net",
    per_channel: Annotated[bool, typer.Option("--per-channel", hidden=True, help="A scale for each feature.")] = False,
    equalize: Annotated[bool, typer.Option("--equalize", hidden=True, help="Spread weights over the 8 bits.")] = False,
    over: Annotated[
        str, typer.Option(hidden=True, help="Activations of the percentile: positive or all.")
    ] = "positive",
    start: Annotated[
        str, typer.Option(hidden=True, help="Potential at the start: auto, zero, half or calibrated.")
    ] = "auto",
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Convert a CNN to a spiking net, with one finding per layer and a check after each rewrite.

    There are rarer options too, here and in a TOML file: objective (net, chip), per-channel, equalize, over (positive,
    all), start (auto, zero, half, calibrated). Potentials start at zero and end at -1 threshold below it, but where a
    CNN with biases is calibrated: there they start where calibration finds best, without a lower bound (auto).
    """
    inputs = [Path(one) for one in (weights, Path(network.rpartition(":")[0] or network), data and Path(data)) if one]
    check_target(out, suffixes=(".safetensors",), inputs=inputs)
    if report is not None:
        check_target(report, suffixes=(".html",), inputs=[*inputs, out])
    if is_file(network, ".nir"):
        ignored = [weights, data, budget, report, diagnose or None]
        if any(ignored):
            say("A .nir file holds a spiking net: only --input-shape, --v-min and --replace have an effect.")
        lower = None if v_min == _V_MIN else parse_bound(v_min)
        found = _read_nir(network, input_shape, v_min=lower, replace=_names(replace))
        result = _written(out, found.net, {"network": Path(network).name, "findings": _dicts(found.findings)}, dry_run)
        emit(result, [findings_table(found.findings)], as_json=as_json)
        _end(context, out, dry_run=dry_run)
        return
    if scale not in _RULES:
        raise InputError(f"--scale: expected one of {', '.join(_RULES)}, found '{scale}'. Try auto.")
    rule: Any = scale if scale in ("mse", "balance") else "percentile"
    options: Any = {"over": over, "per_channel": per_channel, "equalize": equalize, "start": start}
    scaling = Scaling(100.0 if scale == "max" else percentile, spikes, steps, rule, **options)
    bound: float | Literal["auto"] | None = "auto" if v_min == _V_MIN else parse_bound(v_min)
    if data is None:
        _check_needs_no_data(scale, diagnose=diagnose, is_scaled=scaling != Scaling(), report=report)
    if scale != "auto" and budget is not None:
        raise InputError("--budget: expected --scale auto, which looks for scales within it. Try both.")
    with contextlib.redirect_stdout(sys.stderr):  # what the user's own file prints is no part of the result
        source = open_source(network, weights=weights, input_shape=input_shape)
        samples = None if data is None else read_calibration(data, source.graph.input_shape)
        search = None
        if scale == "auto" and samples is not None:
            search = _search(context, source, samples, _Wish(objective, budget, bound, _names(replace)))
            conversion = search.conversion
        else:
            conversion = convert_graph(
                source.graph,
                data=None if samples is None else samples.frames,
                scaling=scaling,
                v_min=bound,
                replace=_names(replace),
                given=source.given,
            )
        diagnosis = None
        if samples is not None and (diagnose or report is not None):
            from .diagnosis.diagnose import run_diagnosis

            recordings, labels = samples.recordings, samples.labels
            diagnosis = run_diagnosis(conversion, frames=samples.frames, recordings=recordings, labels=labels)
    notes: dict[str, Any] = {
        "network": Path(network.partition(":")[0]).name,
        "data": None if data is None else data.partition(":")[0],
        "scaling": None if data is None else dataclasses.asdict(search.best.setting.scaling if search else scaling),
        "findings": _dicts(conversion.findings),
        "gate": dataclasses.asdict(conversion.gate),
        "gates": _dicts(conversion.gates),
        "replacement": dataclasses.asdict(conversion.replacement) if conversion.replacement else None,
        "classes": list(source.classes),
    }
    result = _written(out, conversion.net, notes, dry_run)
    shown = conversion_tables(conversion, is_untrained=source.is_untrained)
    if search:
        result["search"] = search.to_dict()
        shown += search_tables(search)
    if diagnosis:
        from .diagnosis.diagnose import diagnosis_tables

        result["diagnosis"] = diagnosis.to_dict()
        shown += diagnosis_tables(diagnosis)
    if report is not None and not dry_run:
        _chip_side(context).write_conversion(report, conversion, diagnosis)
        result["report"] = str(report)
    emit(result, shown, as_json=as_json)
    if report is not None and not dry_run:
        say(f"Wrote {report}.")
    _end(context, out, dry_run=dry_run)


def _written(out: Path, net: SpikingNet, notes: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Write the net, unless it is a dry run, and return what is said of it as JSON."""
    net_bytes(net, notes)
    if not dry_run:
        save_net(net, out, notes=notes)
    kept = ("gate", "gates", "findings", "replacement")
    return {
        "net": None if dry_run else str(out),
        "sha256": net_hash(net),
        "n_layers": len(net.layers),
        "input_shape": list(net.input_shape),
        **{name: notes[name] for name in kept if name in notes},
    }


def _end(context: typer.Context, out: Path, *, dry_run: bool) -> None:
    if dry_run:
        end_dry_run(context)
        return
    say(f"Wrote {out}.")
    hint(shlex.join(["spikeport", "plan", str(out)]))


def _names(replace: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in replace.split(",") if name.strip())


def _dicts(records: Sequence[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(record) for record in records]


def _read_nir(network: str, input_shape: str | None, *, v_min: float | None, replace: tuple[str, ...]) -> NirImport:
    from .exchange.nir_in import read_nir

    shape = None if input_shape is None else parse_shape(input_shape)
    if shape is not None and len(shape) != 3:
        raise InputError(f"--input-shape: expected channels,height,width, found '{input_shape}'. Try 2,34,34.")
    wanted = None if shape is None else (shape[0], shape[1], shape[2])
    return read_nir(network, input_shape=wanted, v_min=v_min, replace=replace)


def _check_needs_no_data(scale: str, *, diagnose: bool, is_scaled: bool, report: Path | None) -> None:
    if scale == "auto" or diagnose or report is not None:
        what = "--scale auto" if scale == "auto" else "--diagnose" if diagnose else "--report"
        raise CalibrationError(f"{what}: expected calibration data, found none. Try --data digits, or recordings.")
    if is_scaled:
        say("Without --data nothing is scaled: --scale, --percentile, --spikes and --steps have no effect.")


@dataclasses.dataclass(frozen=True)
class _Wish:
    """What a search is asked for."""

    objective: str
    budget: float | None
    v_min: float | Literal["auto"] | None
    replace: tuple[str, ...]


def _search(context: typer.Context, source: Source, samples: Calibration, wish: _Wish) -> Search:
    from .calibrate import search_graph
    from .choice import SearchSettings
    from .judging import judge_spiking, label_recordings

    if samples.labels is None:
        raise CalibrationError(
            "--scale auto: expected recordings whose classes are known, found none. "
            "Try --data digits, nmnist:FOLDER or gestures:FOLDER, or --scale mse."
        )
    if wish.objective not in ("net", "chip"):
        raise InputError(f"--objective: expected net or chip, found '{wish.objective}'. Try net.")
    usual = SearchSettings().v_mins
    bounds = usual if wish.v_min == "auto" else tuple(dict.fromkeys((wish.v_min, *usual)))
    merge = source.graph.input_shape[0] == 1
    return search_graph(
        source.graph,
        label_recordings(samples.recordings, samples.labels, merge_polarity=merge),
        objective=judge_spiking if wish.objective == "net" else _chip_side(context).judge(),
        budget=wish.budget,
        settings=SearchSettings(v_mins=bounds, replace=wish.replace),
        given=source.given,
    )


class ChipSide(Protocol):
    """What the chip's package adds to ``convert``, which does not know it: handed in as ``context.obj``."""

    def judge(self) -> Judge:
        """Return the judge that runs a net in the chip's integers."""

    def write_conversion(self, path: Path, conversion: Conversion, diagnosis: Diagnosis | None) -> None:
        """Write the page of a conversion."""


def _chip_side(context: typer.Context) -> ChipSide:
    side: ChipSide = context.find_root().obj
    return side
