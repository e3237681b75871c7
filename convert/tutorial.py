"""The synop table of the CNN-to-Speck tutorial of 2019, computed as it was there, next to our exact counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .geometry import Pair, out_shape, pooled
from .synops import SynopReport, count_synops
from .types import INPUT, SpikingLayer, SpikingNet, Trace, chain

JOULE_PER_SYNOP_TEXT = 10e-12
"""What the tutorial's text says: 10 pJ."""

MILLIJOULE_PER_SYNOP_CODE = 10e-8
"""What the tutorial's code holds: 10e-8 mJ, which is 100 pJ."""


@dataclasses.dataclass(frozen=True)
class TutorialRow:
    """One row of the tutorial's table, and what was exactly counted for the same layer.

    ``exact_synops`` is None for rows that are no weight layer.
    """

    layer: str
    events_routed: int
    fanout_prev: int
    n_in: int
    n_out: int
    synops: int
    synops_per_s: float
    time_window: int
    exact_synops: int | None

    @property
    def difference_percent(self) -> float | None:
        """How far the tutorial's count is from the exact one."""
        return 100.0 * (self.synops / self.exact_synops - 1.0) if self.exact_synops else None


@dataclasses.dataclass(frozen=True)
class TutorialTable:
    """The tutorial's table for one run, its power figure, and sentences on what differs and why."""

    rows: tuple[TutorialRow, ...]
    power_mw_as_coded: float
    power_mw_as_written: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain numbers, with the tutorial's own column names."""
        return {
            "rows": [
                {
                    "Layer": row.layer,
                    "Events_routed": row.events_routed,
                    "Fanout_Prev": row.fanout_prev,
                    "In": row.n_in,
                    "Out": row.n_out,
                    "SynOps": row.synops,
                    "SynOps/s": row.synops_per_s,
                    "Time_window": row.time_window,
                    "Exact_SynOps": row.exact_synops,
                    "Difference_percent": row.difference_percent,
                }
                for row in self.rows
            ],
            "power_mw_as_coded": self.power_mw_as_coded,
            "power_mw_as_written": self.power_mw_as_written,
            "notes": list(self.notes),
        }


def tutorial_table(net: SpikingNet, trace: Trace, *, n_input: int = 0) -> TutorialTable:
    """Return the tutorial's table for a trace of a plain chain, one recording, with the exact counts beside it.

    ``n_input`` is the number of input events that the tutorial's caller typed in; it passed 0. A kernel that covers its
    whole input counts as a Linear layer, which is what it was in the tutorial's CNN.
    Raises: InputError for a batch or a net with branches.
    Law: the columns follow sinabs 0.1: ``In`` is the row before's ``Out``, a convolution's fan-out is
    ``F * (ky / stride) * (kx / stride)`` everywhere, ``SynOps/s`` takes a bin for 1 ms.
    """
    if trace.n_samples != 1 or any(len(net.outgoing(index)) > 1 for index in range(len(net.layers))):
        raise InputError(
            f"tutorial table: expected one recording through a plain chain of layers, found {trace.n_samples} "
            "recordings, or branches. Try simulate() on one recording."
        )
    report = count_synops(net, trace)
    rows: list[TutorialRow] = []
    n_in = n_input
    for index, (layer, exact) in enumerate(zip(net.layers, report.layers, strict=True)):
        features, _, ky, kx = layer.weight.shape
        is_linear = layer.out_shape[1:] == (1, 1) and layer.in_shape[1:] == (ky, kx)
        if is_linear and layer.in_shape[1:] != (1, 1):
            rows.append(_row("flatten", 1, n_in, n_in, trace, None))
        fan_out = features if is_linear else int(features * (ky / layer.stride[0]) * (kx / layer.stride[1]))
        n_out = int(trace.counts[index].sum())
        rows.append(_row(layer.name, fan_out, n_in, n_out, trace, exact.synops))
        n_in = n_out
        for edge in net.outgoing(index):
            if edge.pool != (1, 1) and edge.target is not None:
                n_in = report.layers[edge.target].n_input_spikes
                rows.append(_row(f"pool behind {layer.name}", 1, n_out, n_in, trace, None))
    per_step = sum(row.synops for row in rows) / trace.n_steps
    per_s = per_step / (trace.dt_us * 1e-3) * 1e3
    return TutorialTable(
        rows=tuple(rows),
        power_mw_as_coded=per_s * MILLIJOULE_PER_SYNOP_CODE,
        power_mw_as_written=per_s * JOULE_PER_SYNOP_TEXT * 1e3,
        notes=_notes(net, trace, tuple(rows), report, n_input),
    )


def printed_run() -> tuple[SpikingNet, Trace]:
    """Return the tutorial's CNN and a trace with the spikes that its printed table shows, for ``tutorial_table``.

    Only the counts are known: each layer's spikes are put on the middle of its map, the weights and the spikes of the
    last layer are 0. So the table's own columns are those printed, while the exact counts are of that one place.
    Source: the tutorial's table: 521 bins of 10 ms, 791,398, 749,759, 234,082 and 14,567 spikes behind the layers.
    """
    layers: list[SpikingLayer] = []
    counts: list[NDArray[np.int64]] = []
    shape = (1, 64, 64)
    pools: list[Pair] = [(1, 1)]
    for name, features, pool, n_spikes in _PRINTED:
        kernel = shape[1:] if name.startswith("linear") else (3, 3)
        weight = np.zeros((features, shape[0], *kernel), np.float32)
        map_shape = out_shape(shape, weight.shape, (1, 1), (0, 0))
        layers.append(SpikingLayer(name, weight, None, (1, 1), (0, 0), 1.0, -1.0, shape, map_shape))
        counts.append(np.zeros((1, *map_shape), np.int64))
        counts[-1][0, 0, map_shape[1] // 2, map_shape[2] // 2] = n_spikes
        pools.append((pool, pool))
        shape = pooled(map_shape, (pool, pool))
    trace = Trace(
        input_counts=np.zeros((1, 1, 64, 64)),
        counts=tuple(counts),
        output=np.zeros((521, 1, shape[0]), np.int64),
        output_states=np.zeros((1, shape[0]), np.float32),
        states=tuple(np.zeros(count.shape, np.float32) for count in counts),
        spikes=None,
        dt_us=10_000,
    )
    return chain(tuple(layers), tuple(pools), (1, 64, 64)), trace


_PRINTED = (
    ("conv1", 8, 2, 791_398),
    ("conv2", 32, 2, 749_759),
    ("conv3", 16, 2, 234_082),
    ("linear1", 32, 1, 14_567),
    ("linear2", 10, 1, 0),
)


def _row(name: str, fan_out: int, n_in: int, n_out: int, trace: Trace, exact: int | None) -> TutorialRow:
    routed = fan_out * n_in
    synops = routed if exact is not None else 0
    return TutorialRow(name, routed, fan_out, n_in, n_out, synops, synops / trace.n_steps * 1e3, trace.n_steps, exact)


def _notes(
    net: SpikingNet, trace: Trace, rows: tuple[TutorialRow, ...], report: SynopReport, n_input: int
) -> tuple[str, ...]:
    naive, exact = sum(row.synops for row in rows), report.total
    events = int(trace.input_counts.sum())
    first = report.layers[0]
    inner = sum(row.synops for row in rows if row.exact_synops is not None and row.layer != first.name)
    inner_exact = exact - first.synops
    lost = sum(layer.n_emitted - layer.n_input_spikes for layer in report.layers)
    bin_ms = trace.dt_us / 1e3
    notes = [
        f"In all: {naive:,} synops by the tutorial's rule, {exact:,} exactly.",
        f"First layer: the tutorial takes {n_input:,} input events, as typed in by its caller; the recording has "
        f"{events:,}, which cause {first.synops:,} synops.",
        "Borders: the tutorial gives every spike the full fan-out; near the edge of a map a spike reaches fewer "
        f"neurons. Behind the first layer it counts {inner:,} where {inner_exact:,} happen"
        + (f" ({100 * (inner / inner_exact - 1):+.1f} %)." if inner_exact else "."),
        f"Pools: {lost:,} spikes fall off the edge of a map that its pool does not divide; they reach no neuron.",
        f"Time: SynOps/s takes each of the {trace.n_steps} bins for 1 ms; they last {bin_ms:g} ms, so the column is "
        f"{max(bin_ms, 1 / bin_ms):g} times too {'high' if bin_ms > 1 else 'low'}."
        if bin_ms != 1
        else "Time: bins of 1 ms, as the column SynOps/s assumes.",
        "Energy: the tutorial's text says 10 pJ a synop, its code holds 10e-8 mJ, which is 100 pJ: ten times more.",
    ]
    if any(edge.source == INPUT and edge.pool != (1, 1) for edge in net.edges):
        notes.append("The input is pooled: the tutorial's table has no row for that.")
    return tuple(notes)
