"""What the commands of conversion print: tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spikeport.models.console import table

if TYPE_CHECKING:
    from .calibrate import Search
    from .evaluate import Replacement
    from .graph import Finding
    from .power import PowerEstimate
    from .synops import SynopReport
    from .tutorial import TutorialTable
    from .types import Conversion


def synop_tables(report: SynopReport, *, how: str = "exact") -> list[object]:
    """Return the synop table for a terminal; ``how`` says of what the counts are true."""
    rows: list[tuple[object, ...]] = [
        (layer.name, layer.n_emitted, layer.n_input_spikes, layer.mean_fan_out, layer.synops, layer.n_output_spikes)
        for layer in report.layers
    ]
    rows.append(("all", None, None, None, report.total, None))
    columns = ("Layer", "Sent to it", "Arrived", "Mean fan-out", "Synops", "Spikes out")
    over = f"{report.n_samples} recording{'s' * (report.n_samples > 1)} of {report.window_s * 1e3:.4g} ms"
    return [
        table(f"Synops, {how}, over {over}", columns, rows),
        f"{report.synops_per_s:,.0f} synops per second",
    ]


def power_tables(power: PowerEstimate) -> list[object]:
    """Return the power table for a terminal."""
    rows: list[tuple[object, ...]] = [
        (rail.name, rail.low_w * 1e3, rail.mid_w * 1e3, rail.high_w * 1e3) for rail in power.rails
    ]
    rows.append(("all", power.low_w * 1e3, power.mid_w * 1e3, power.high_w * 1e3))
    return [
        table(
            "Estimated power, mW",
            ("Rail", "Low", "Mid", "High"),
            rows,
        ),
        f"An estimate for {power.profile}, not a measurement. It rests on:",
        *(f"  {source}" for source in dict.fromkeys(coefficient.source for coefficient in power.coefficients)),
    ]


def tutorial_tables(legacy: TutorialTable) -> list[object]:
    """Return the tutorial's table for a terminal, with what differs."""
    columns = (
        "Layer",
        "Events_routed",
        "Fanout_Prev",
        "In",
        "Out",
        "SynOps",
        "SynOps/s",
        "Time_window",
        "Exact",
        "Off by %",
    )
    rows = [
        (
            *(row.layer, row.events_routed, row.fanout_prev, row.n_in, row.n_out, row.synops),
            *(round(row.synops_per_s), row.time_window, row.exact_synops, row.difference_percent),
        )
        for row in legacy.rows
    ]
    coded, written = legacy.power_mw_as_coded, legacy.power_mw_as_written
    power = f"Power by its code: {coded:.4g} mW; by its text (10 pJ a synop): {written:.4g} mW"
    return [table("The tutorial's table, by its own rules, and the exact count", columns, rows), power, *legacy.notes]


def conversion_tables(conversion: Conversion, *, is_untrained: bool) -> list[object]:
    """Return the findings, the replacements and the gates of a conversion for a terminal."""
    shown = [findings_table(conversion.findings)]
    if conversion.replacement:
        shown.append(replacement_sentence(conversion.replacement))
    gates = [(gate.step, f"{gate.max_error:.1e}", f"{gate.argmax_agreement:.1%}") for gate in conversion.gates]
    columns = ("After", "Largest difference, of the largest output", "Same class")
    shown.append(_text_table(f"Same function on {conversion.gate.n_samples} frames", columns, gates))
    if is_untrained:
        shown.append("No --weights were given: this net is untrained.")
    return shown


def findings_table(findings: Sequence[Finding]) -> object:
    """Return what became of each layer as a table for a terminal."""
    rows = [(found.node, found.op, found.status, found.detail) for found in findings]
    return _text_table("What became of each layer", ("Node", "Layer", "Became", "How"), rows)


def search_tables(search: Search) -> list[object]:
    """Return what a search tried, the chosen setting first, for a terminal."""
    others = sorted(search.trials, key=lambda trial: (-trial.n_samples, trial.loss))
    rows = [
        (
            *("chosen" if trial == search.best else "", str(trial.setting), trial.n_samples),
            *(trial.accuracy, trial.loss, round(trial.synops_per_sample)),
        )
        for trial in (search.best, *(trial for trial in others if trial != search.best))
    ]
    limit = "" if search.budget is None else f", at most {search.budget:,.0f} synops each"
    title = f"Tried: {len(rows)} settings, scales set by {search.n_calibration} of the samples{limit}"
    made = table(title, ("", "Setting", "Samples", "Accuracy", "Loss", "Synops"), rows)
    made.columns[1].justify = "left"
    return [made]


def replacement_sentence(replacement: Replacement) -> str:
    """Return what replacing layers did, as a sentence."""
    names, nodes = ", ".join(replacement.names), ", ".join(replacement.nodes)
    if replacement.argmax_agreement is None:
        return f"Replaced ({names}) at {nodes}. What was given cannot be run here, so the change is not known."
    return (
        f"Replaced ({names}) at {nodes}: the same class as before on {replacement.argmax_agreement:.1%} of "
        f"{replacement.n_samples} frames. Train the replaced CNN again where that is too few."
    )


def _text_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> object:
    made = table(title, columns, rows)
    for column in made.columns:
        column.justify = "left"
    return made
