"""The benchmark of the emulator as tables and as a section of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .speed import EMULATOR, best_sinabs

if TYPE_CHECKING:
    from .emulator import EmulatorBenchmark
    from .layers import NetSpeed
    from .speed import SpeedRow

Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]

_SPEED = (
    "Engine",
    "Wall, median",
    "Wall, best",
    "Events/s",
    "Steps/s",
    "G synops/s",
    "Times sinabs",
)


def emulator_tables(found: EmulatorBenchmark) -> list[Table]:
    """Return title, columns and rows of all tables of a run."""
    groups: dict[tuple[str, int], list[SpeedRow]] = {}
    for row in found.rows:
        groups.setdefault((row.workload, row.n_threads), []).append(row)
    real = [part.name for part in found.parts if not part.has_all_peers]
    made: list[Table] = [
        (f"{workload}, {_threads(n_threads)}", _SPEED, list(_speed_rows(group)))
        for (workload, n_threads), group in groups.items()
        if workload not in real
    ]
    if real:
        made.append(_real(found, real, groups))
    made += [_agreement(found, workload) for workload in dict.fromkeys(one.workload for one in found.agreements)]
    made += [_layers(net) for net in found.nets]
    return [*made, *_scaling(found)]


def _threads(n_threads: int) -> str:
    return "one thread" if n_threads == 1 else f"{n_threads} threads"


def _speed_rows(group: Sequence[SpeedRow]) -> Iterable[tuple[object, ...]]:
    sinabs = best_sinabs(group)
    for row in group:
        yield (
            row.engine,
            _ms(row.timing.median_s),
            _ms(row.timing.best_s),
            f"{row.events_hz:,.0f}",
            "" if row.n_steps is None else f"{row.n_steps / row.timing.median_s:,.0f}",
            f"{row.synops_hz / 1e9:.3f}",
            "" if sinabs is None else f"{row.events_hz / sinabs.events_hz:.2f}",
        )


def _real(found: EmulatorBenchmark, names: Sequence[str], groups: dict[tuple[str, int], list[SpeedRow]]) -> Table:
    durations = {part.name: part.duration_s for part in found.parts}
    rows: list[tuple[object, ...]] = []
    for name in names:
        group = groups[name, 1]
        ours = next(row for row in group if row.engine == EMULATOR)
        sinabs = best_sinabs(group)
        rows.append(
            (
                name,
                f"{durations[name]:.2f} s",
                f"{ours.n_events:,}",
                f"{ours.synops:,}",
                *(_ms(row.timing.median_s) for row in group),
                f"{durations[name] / ours.timing.median_s:.0f}",
                "" if sinabs is None else f"{ours.events_hz / sinabs.events_hz:.1f}",
            )
        )
    engines = [row.engine for row in groups[names[0], 1]]
    columns = ("Recording", "Lasts", "Events", "Synops", *engines, "Times real time", "Times sinabs")
    return "Real gesture recordings, one thread", columns, rows


def _agreement(found: EmulatorBenchmark, workload: str) -> Table:
    rows: list[tuple[object, ...]] = [
        (
            one.engine,
            " / ".join(f"{n:,}" for n in one.spikes),
            "" if one.n_cells is None else f"{one.n_differing:,} of {one.n_cells:,}",
            one.note,
        )
        for one in found.agreements
        if one.workload == workload
    ]
    return f"{workload}: spikes of each layer", ("Engine", "Spikes", "Differing", "Rule"), rows


def _layers(net: NetSpeed) -> Table:
    rows: list[tuple[object, ...]] = [
        (
            layer.name,
            layer.row_length,
            f"{layer.synops:,}",
            _ms(layer.wall_s),
            "" if layer.wall_s <= 0 else f"{layer.synops / layer.wall_s / 1e9:.2f}",
            f"{layer.limit_hz / 1e9:.2f}",
            "" if layer.wall_s <= 0 else f"{layer.limit_s / layer.wall_s:.0%}",
        )
        for layer in net.layers
    ]
    whole = f"{net.synops / (net.share * net.wall_s) / 1e9:.2f}"
    rate = f"{net.synops / net.wall_s / 1e9:.2f}"
    rows.append(("net", "", f"{net.synops:,}", _ms(net.wall_s), rate, whole, f"{net.share:.0%}"))
    columns = ("Layer", "Row", "Synops", "Wall", "G synops/s", "Row adds, G/s", "Share")
    return f"{net.workload}: the emulator's layers against adding rows alone", columns, rows


def _scaling(found: EmulatorBenchmark) -> list[Table]:
    bins: list[tuple[object, ...]] = [
        (cost.engine, f"{cost.what / 1000:g} ms", f"{cost.synops:,}", _ms(cost.wall_s), f"{cost.per_synop_s * 1e9:.3f}")
        for cost in found.bins
    ]
    fixed = found.sizes[0].wall_s
    sizes: list[tuple[object, ...]] = [
        (
            f"{cost.what:,}",
            f"{cost.synops:,}",
            _ms(cost.wall_s),
            f"{cost.per_synop_s * 1e9:.3f}",
            f"{(cost.wall_s - fixed) / max(1, cost.synops) * 1e9:.3f}" if index else "",
        )
        for index, cost in enumerate(found.sizes)
    ]
    threads: list[tuple[object, ...]] = [
        (one.what, f"{one.synops:,}", _ms(one.one_s), _ms(one.several_s), f"{one.gain:.2f}") for one in found.threads
    ]
    latency, memory, starts = found.latency, found.memory, found.starts
    several = f"{found.threads[0].n_threads} threads"
    rest: list[tuple[object, ...]] = [
        (f"stream of {found.scaled}: p50 of {latency.n_pieces:,} pieces of 1 ms", _ms(latency.p50_s)),
        ("stream: p99", _ms(latency.p99_s)),
        ("stream: max", _ms(latency.max_s)),
        (f"{memory.n_events:,} events of {found.scaled}: peak memory", f"{memory.peak_bytes / 2**20:,.0f} MiB"),
        ("the same: peak before the run", f"{memory.before_bytes / 2**20:,.0f} MiB"),
        ("the same: synops, and time", f"{memory.synops:,} in {memory.wall_s:.2f} s"),
        (f"spikeport run on {starts.n_events:,} events, first time", f"{starts.first_s:.2f} s"),
        (f"spikeport run, median of {len(starts.later_s)} later ones", f"{starts.later_median_s:.2f} s"),
        ("compiling, once after installation", f"{starts.compile_s:.2f} s"),
    ]
    per_synop = "ns a synop"
    return [
        ("The same recording in finer bins", ("Engine", "Bin", "Synops", "Wall", per_synop), bins),
        (
            f"Longer recordings ({found.sized})",
            ("Events", "Synops", "Wall", per_synop, "beyond the fixed cost"),
            sizes,
        ),
        (f"Threads ({found.scaled})", ("What", "Synops", "One thread", several, "Gain"), threads),
        ("Streaming, memory, first run", ("What", "Figure"), rest),
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms"


_NOTES = """\
## How it is measured

- One process, one thread (torch's threads set to one) unless a table says otherwise. All engines of a table run in
  turn, round after round: one round to warm up, then {repeats}; the tables show median and best.
- Same weights, same recording for all. The frameworks run the float net in steps of 10 ms, from a raster that is ready;
  "spikeport float" runs the same net from events. The emulator runs the 8-bit program event by event: it spikes at most
  once a visit, so its spikes and synops are its own, and differ from those of the float net.
- Synops are exact visits of neurons by spikes: for the emulator those of its program, for all others those of the float
  net in steps under sinabs' rule, also where a framework spikes less often by its own. "Times sinabs" compares events
  per second with the faster of sinabs' two ways.
- Frameworks differ: sinabs and our float engines spike several times a step and keep potentials above a bound;
  SpikingJelly (soft reset), snnTorch (Leaky, beta 1, subtract) and Norse (IAFCell) spike at most once a step, without a
  bound, Norse with a reset to 0. "Differing" counts cells (a neuron in a step) with another number of spikes than
  sinabs has in one call; float sums in another order round otherwise. For the emulator it counts the spikes, states and
  synops that differ when a recording comes in pieces of 997 events.
- Row adds: a compiled loop that does nothing but add int8 weight rows to int16 state rows, at the places and with the
  length of rows that events of that layer's own input ask for (up to 4,096 of them, in turn, so that all lies in the
  second cache); no spikes, no bounds, no bookkeeping. The share is the time of a layer's synops at that rate over the
  time measured. A layer's time is the best of the program up to that layer less the best up to the one before,
  {layer_repeats} rounds: differences of short times, which noise may take below 0.
- Bins: each event at the start of its bin. Sizes: the recording cut or repeated, from the states after it, so that all
  parts are as busy; a run of one event shows what every run costs.
- Threads: recordings one per thread, one recording with its layers in a pipeline; so, too, in the tables above. Stream:
  100,000 evenly drawn events a second in pieces of 1 ms, fed without pauses. Memory: the peak resident set of a process
  of its own that draws the events, runs them and keeps the monitored spikes.
- First run: whole processes `spikeport run`, the first with an empty folder for compiled loops.
"""


def emulator_markdown(found: EmulatorBenchmark) -> str:
    """Return a run as a section of Markdown: how it was made, the aims, the tables."""
    from .emulator import LAYER_REPEATS

    setting = found.setting
    is_quick = setting["scope"]["shrink"] > 1
    versions = ", ".join(f"{name} {number}" for name, number in setting["versions"].items() if number)
    lines = [
        "# Emulator benchmark",
        "",
        f"Written by `{setting['command']}` on {setting['date']}: {setting['machine']}; {versions}. "
        f"It took {setting['wall_s'] / 60:.1f} minutes.",
        "",
        *(["A quick run: its recordings are too short for its figures to say anything.", ""] if is_quick else []),
        "## Aims of the emulator",
        "",
        *(f"- {check}" for check in found.checks),
        *(f"- not part of this run: {reason}" for reason in found.absent),
        "",
        _NOTES.format(repeats=setting["scope"]["repeats"], layer_repeats=LAYER_REPEATS * setting["scope"]["repeats"]),
        "Workloads:",
        "",
    ]
    for part in found.parts:
        lines.append(f"- **{part.name}**: {part.source}; {part.n_events:,} events, weights: {part.weights}.")
        if part.targets:
            lines[-1] = f"{lines[-1][:-1]} ({' / '.join(f'{n:,}' for n in part.targets)})."
    lines.append("")
    for title, columns, rows in emulator_tables(found):
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            _line(columns),
            _line(["---", *("---:" for _ in columns[1:])]),
        ]
        lines += [*map(_line, rows), ""]
    return "\n".join(lines)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
