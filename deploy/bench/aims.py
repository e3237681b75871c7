"""The aims of the benchmark of the emulator, each with the figures that it is met or missed by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .checks import Check
from .scaling import Cost
from .speed import EMULATOR, ENGINES, SpeedRow, best_sinabs

if TYPE_CHECKING:
    from .layers import NetSpeed
    from .processes import Memory, Starts
    from .scaling import Latency, Threads
    from .speed import Agreement

SPEEDUPS = {"digits": 15.0, "gesture": 25.0}
"""How many times the events per second of sinabs' faster way, one thread each."""

SYNOPS_HZ = 4e9
LIMIT_SHARE = 0.5
REAL_TIME = 20.0
BIN_SPREAD = 0.10
SIZE_SPREAD = 0.25
BATCH_GAIN, PIPELINE_GAIN = 1.8, 1.3
LATENCY_S = 1e-3
PEAK_BYTES = 2 << 30
START_S = 1.5
DIFFERING = 1e-4
"""Share of cells in which a float engine may differ from sinabs: sums of floats in another order."""

_RESOLVED_SYNOPS = 10**6


def check_speed(rows: Sequence[SpeedRow], durations_s: dict[str, float]) -> tuple[Check, ...]:
    """Return the aims for events and synops a second, and for real recordings, whose ``durations_s`` are given."""
    single = [row for row in rows if row.n_threads == 1]
    checks = []
    for workload, least in SPEEDUPS.items():
        group = [row for row in single if row.workload == workload]
        sinabs, ours = best_sinabs(group), [row for row in group if row.engine == EMULATOR]
        if sinabs is None or not ours:
            continue
        gain = ours[0].events_hz / sinabs.events_hz
        figures = (
            f"{gain:.1f} times ({ours[0].events_hz:,.0f} against {sinabs.events_hz:,.0f} events/s of {sinabs.engine})"
        )
        checks.append(
            Check(f"{workload}: events/s at least {least:g} times sinabs' faster way", gain >= least, figures)
        )
        if workload == "gesture":
            aim = f"gesture: at least {SYNOPS_HZ / 1e9:g} G synops/s, one thread"
            checks.append(Check(aim, ours[0].synops_hz >= SYNOPS_HZ, f"{ours[0].synops_hz / 1e9:.2f} G synops/s"))
    emulated = [row for row in single if row.engine == EMULATOR and row.workload in durations_s]
    if emulated:
        gains = {row.workload: durations_s[row.workload] / row.timing.median_s for row in emulated}
        slowest = min(gains, key=lambda name: gains[name])
        aim = f"every real gesture recording at least {REAL_TIME:g} times faster than real time"
        figures = f"{gains[slowest]:.0f} times, {slowest}, the slowest of {len(gains)}"
        checks.append(Check(aim, gains[slowest] >= REAL_TIME, figures))
    return tuple(checks)


def check_agreement(rows: Sequence[Agreement]) -> tuple[Check, ...]:
    """Return whether the emulator in pieces is itself, and the float engines are sinabs within float rounding."""
    checks = []
    pieced = [row for row in rows if row.engine == EMULATOR]
    if pieced:
        n_differing = sum(row.n_differing or 0 for row in pieced)
        n_compared = sum(row.n_cells or 0 for row in pieced)
        figures = f"{n_differing:,} of {n_compared:,} spikes, states and sums differ"
        checks.append(
            Check("emulator: pieces of a recording give the same bits as the whole", not n_differing, figures)
        )
    ours = [row for row in rows if row.engine in ENGINES and row.n_cells]
    if ours:
        worst = max(ours, key=_share)
        figures = f"at most {worst.n_differing:,} of {worst.n_cells:,} cells ({worst.workload}, {worst.engine})"
        aim = f"float engines: at most {DIFFERING:g} of the cells differ from sinabs"
        checks.append(Check(aim, _share(worst) <= DIFFERING, figures))
    return tuple(checks)


def _share(row: Agreement) -> float:
    return (row.n_differing or 0) / (row.n_cells or 1)


def check_limit(nets: Sequence[NetSpeed]) -> tuple[Check, ...]:
    """Return for each net whether it comes near the time of its row additions alone."""
    aim = f"at least {LIMIT_SHARE:.0%} of the row-add limit of this machine"
    return tuple(
        Check(
            f"{net.workload}: {aim}",
            net.share >= LIMIT_SHARE,
            f"{net.share:.0%} ({net.synops / net.wall_s / 1e9:.2f} of "
            f"{net.synops / (net.share * net.wall_s) / 1e9:.2f} G synops/s)",
        )
        for net in nets
    )


def check_bins(costs: Sequence[Cost]) -> tuple[Check, ...]:
    """Return for each engine whether finer bins leave its cost per synop as it is."""
    checks = []
    for engine in dict.fromkeys(cost.engine for cost in costs):
        group = [cost for cost in costs if cost.engine == engine]
        widest = max(group, key=lambda cost: cost.what)
        changes = [cost.per_synop_s / widest.per_synop_s - 1.0 for cost in group if cost is not widest]
        bins = " and ".join(f"{cost.what / 1000:g} ms" for cost in group if cost is not widest)
        aim = f"{engine}: cost per synop at {bins} at most {BIN_SPREAD:.0%} above that at {widest.what / 1000:g} ms"
        figures = f"{', '.join(f'{change:+.1%}' for change in changes)}"
        checks.append(Check(aim, all(change <= BIN_SPREAD for change in changes), figures))
    return tuple(checks)


def check_sizes(costs: Sequence[Cost]) -> Check:
    """Return whether the cost per synop is flat, beyond what every run costs, from 10^6 synops on.

    Below, that fixed cost is larger than what is to be measured. ``costs`` begins with the run of one event.
    """
    fixed, *sizes = costs
    resolved = [cost for cost in sizes if cost.synops > _RESOLVED_SYNOPS / 2] or sizes[-1:]
    per_synop = [(cost.wall_s - fixed.wall_s) / cost.synops for cost in resolved]
    changes = [one / per_synop[-1] - 1.0 for one in per_synop[:-1]]
    aim = (
        f"cost per synop from 10^6 synops on within {SIZE_SPREAD:.0%} of that of the longest run, "
        "beyond the fixed cost of a run"
    )
    figures = (
        f"{per_synop[-1] * 1e9:.3f} ns at {resolved[-1].synops:,} synops"
        + "".join(f", {change:+.0%} at {cost.synops:,}" for change, cost in zip(changes, resolved, strict=False))
        + f"; fixed cost {fixed.wall_s * 1e3:.2f} ms"
    )
    return Check(aim, all(abs(change) <= SIZE_SPREAD for change in changes), figures)


def check_threads(rows: Sequence[Threads]) -> tuple[Check, ...]:
    """Return whether two threads are faster: on a batch, and on one recording. ``rows`` are these two."""
    return tuple(
        Check(
            f"{row.what}: {row.n_threads} threads at least {least:g} times faster than one",
            row.gain >= least,
            f"{row.gain:.2f} times ({row.one_s * 1e3:.1f} ms against {row.several_s * 1e3:.1f} ms)",
        )
        for row, least in zip(rows, (BATCH_GAIN, PIPELINE_GAIN), strict=True)
    )


def check_stream(latency: Latency) -> Check:
    """Return whether pieces of a stream are done within the time that they last."""
    aim = f"stream of {latency.events_hz:,} events/s in pieces of {latency.piece_us / 1e3:g} ms: p99 under 1 ms"
    figures = (
        f"p50 {latency.p50_s * 1e3:.2f} ms, p99 {latency.p99_s * 1e3:.2f} ms, max {latency.max_s * 1e3:.2f} ms, "
        f"{latency.n_pieces:,} pieces"
    )
    return Check(aim, latency.p99_s < LATENCY_S, figures)


def check_memory(memory: Memory) -> Check:
    """Return whether a long recording stays within 2 GiB."""
    aim = f"{memory.n_events:,} events in less than {PEAK_BYTES >> 30} GiB of memory"
    figures = (
        f"peak {memory.peak_bytes / 2**20:,.0f} MiB, of which {memory.events_bytes / 2**20:,.0f} MiB are the events "
        f"and {memory.spikes_bytes / 2**20:.1f} MiB the monitored spikes; {memory.wall_s:.1f} s"
    )
    return Check(aim, memory.peak_bytes < PEAK_BYTES, figures)


def check_starts(starts: Starts) -> Check:
    """Return whether a run after the first one is quick from start to end of the process."""
    aim = f"spikeport run, start to end after the first time: under {START_S:g} s"
    figures = (
        f"median {starts.later_median_s:.2f} s of {len(starts.later_s)}, first {starts.first_s:.2f} s "
        f"({starts.compile_s:.1f} s of it to compile)"
    )
    return Check(aim, starts.later_median_s < START_S, figures)
