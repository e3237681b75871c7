"""A layer driven by events: the spikes that arrive in, the spikes that leave out, in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from .dense import step_through
from .layout import (
    BLOCK,
    LANES,
    STEP,
    Floats,
    Int64s,
    Uint64s,
    aligned,
    cells_behind,
    lay_out,
    order_cells,
    order_of,
    to_maps,
    to_neurons,
)
from .rasters import arriving
from .spikes import PLACE, Activity, Spikes
from .synops import count_macs
from .types import INPUT, Edge, SpikingLayer, SpikingNet

_SPIKES = 1 << 17
"""Room for the spikes of one call of a compiled loop."""

Engine = Literal["auto", "dense", "event"]

WORTH_MACS = 1_000_000_000
"""Multiply-accumulates of a dense simulation from which on ``auto`` looks at the events.

Source: measured 2026-11-22: loading the compiled loops takes 0.8 s once in a process. sinabs, once loaded, does two
thousand million of them in that time; but who simulates once mostly simulates again.
"""

BREAK_EVEN = 0.6
"""Share of a layer's input cells that are not zero from which on dense maps may be faster than events.

Source: measured 2026-11-22 on the layers of the digits and the gesture CNN, one thread. With 8 steps of many recordings
both engines take equally long at shares of 0.4 to 1, with 60 to 100 steps of one recording at 0.55 and more: in ten of
thirteen layers events were faster with all cells full.
"""

FEW_CELLS = 30_000
"""Cells of one step of all recordings below which sinabs is slower at any share: it takes its time per step.

Source: measured 2026-11-22 as ``BREAK_EVEN``: in layers of fewer, with all cells full, events were 1.1 to 15 times as
fast.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What a layer made of a batch.

    Shapes: ``counts`` (int64) and ``states``, the last potentials, are ``[B, F, H, W]``.
    """

    emitted: Activity
    counts: Int64s
    states: Floats


class Layers:
    """The layers of a net, and by which engine each runs, for recordings in batches of any size.

    ``span`` is the number of all recordings, and of the steps of each. ``auto`` runs no layer with more than
    ``max_cells`` neuron steps in one recording on dense maps.
    """

    def __init__(self, net: SpikingNet, engine: Engine, span: tuple[int, int], *, max_cells: int) -> None:
        self._net, self._known = net, dict[int, EventLayer]()
        macs = sum(count_macs(one.in_shape, one.weight.shape, one.window, groups=one.groups) for one in net.layers)
        is_small = engine == "auto" and span[0] * span[1] * macs < WORTH_MACS
        self._engine: Engine = "dense" if is_small else engine
        self._max_cells = max_cells // span[1]

    @property
    def is_dense(self) -> bool:
        """Whether all of them run on dense maps."""
        return self._engine == "dense"

    def run(self, given: Activity) -> Iterator[Outcome]:
        """Yield what the layers make of what the input emits in time steps, in their order."""
        emitted = {INPUT: given}
        for index, layer in enumerate(self._net.layers):
            edges = self._net.incoming(index)
            if self._is_event([emitted[edge.source] for edge in edges], layer):
                outcome = self._event_layer(index).run([(edge, emitted[edge.source].spikes) for edge in edges])
            else:
                maps = {edge.source: emitted[edge.source].maps for edge in edges}
                spikes, states = step_through(layer, arriving(self._net, index, maps))
                counts = np.rint(spikes.sum(axis=1, dtype=np.float64)).astype(np.int64)
                outcome = Outcome(Activity(maps=spikes), counts, states)
            emitted[index] = outcome.emitted
            yield outcome
            self._forget(emitted, index)

    def run_singly(self, given: Spikes) -> Iterator[Outcome]:
        """Yield what the layers make of single events, each finished before the next, in their order."""
        emitted = {INPUT: Activity(spikes=given)}
        for index in range(len(self._net.layers)):
            edges = self._net.incoming(index)
            outcome = self._event_layer(index).run_singly([(edge, emitted[edge.source].spikes) for edge in edges])
            emitted[index] = outcome.emitted
            yield outcome
            self._forget(emitted, index)

    def _forget(self, emitted: dict[int, Activity], index: int) -> None:
        """Drop what no layer behind ``index`` reads: maps of a long recording are gigabytes."""
        for source in list(emitted):
            if all((edge.target or 0) <= index for edge in self._net.outgoing(source)):
                del emitted[source]

    def _event_layer(self, index: int) -> EventLayer:
        if index not in self._known:
            self._known[index] = EventLayer(self._net.layers[index])
        return self._known[index]

    def _is_event(self, sources: Sequence[Activity], layer: SpikingLayer) -> bool:
        """Return whether a layer that reads ``sources`` runs by its events."""
        if self._engine != "auto":
            return self._engine == "event"
        n_in, n_out = (int(np.prod(shape)) for shape in (layer.in_shape, layer.out_shape))
        n_samples, n_steps = sources[0].span
        n_arriving = sum(source.n_nonzero for source in sources)
        is_sparse = n_arriving < BREAK_EVEN * n_samples * n_steps * n_in
        return is_sparse or n_samples * max(n_in, n_out) < FEW_CELLS or max(n_in, n_out) > self._max_cells


class EventLayer:
    """A layer laid out for events, once for any number of batches.

    Law: whole or in batches, with fresh or used memory, equal spikes give equal ones.
    """

    def __init__(self, layer: SpikingLayer) -> None:
        self._layer, self._layout, self._order = layer, lay_out(layer), order_of(layer)
        self._cells: dict[Edge, tuple[Int64s, Uint64s]] = {}
        v = self._start(1)[: self._layout.size].reshape(-1, BLOCK)
        bits = np.zeros((v.shape[0] // 64 + 1) * 64, np.uint8)
        bits[: v.shape[0]] = ((v >= self._layout.threshold) | (v < self._layout.low)).any(axis=1)
        self._unasked = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)

    def run(self, arriving: Sequence[tuple[Edge, Spikes]]) -> Outcome:
        """Return what the layer makes of spikes in time steps, as ``simulate`` says."""
        from . import loops  # compiled code

        layout, (n_samples, n_steps) = self._layout, arriving[0][1].span
        n_channels, n_units = layout.n_channels, layout.units.size
        cells = loops.Cells(
            amounts=np.zeros(n_units * n_channels + LANES, np.float32),
            touched=_no_bits(n_units),
            runs=np.zeros(n_channels, np.uint64),
            factors=np.zeros(n_channels, np.float32),
        )
        neurons = self._neurons(n_samples, loops)
        progress = np.array([0, 0, 0, n_steps, n_steps * n_samples], np.uint64)
        stream = loops.Arriving(*self._merged(arriving))
        room = self._room(layout.size, loops)
        parts: list[tuple[Uint64s, Floats]] = []
        while progress[loops.DONE] < progress[loops.N_ALL]:
            loops.integrate(layout, stream, cells, neurons, room, progress)
            n = int(progress[loops.N_SPIKES])
            parts.append((room.words[:n].copy(), room.amounts[:n].copy()))
        return self._outcome(parts, neurons, (n_samples, n_steps))

    def run_singly(self, arriving: Sequence[tuple[Edge, Spikes]]) -> Outcome:
        """Return what the layer makes of single spikes, one after the other; their steps say which go together.

        Each adds its weights, bounds what it reaches from below, and lets it spike once where the threshold is reached.
        """
        from . import loops  # compiled code

        layout = self._layout
        words, _, reached = self._merged(arriving)
        neurons = self._neurons(1, loops)
        progress = np.zeros(5, np.uint64)
        most = int(layout.rows[:, 0].max() * -(-int(layout.columns[:, 2].max()) // LANES)) * LANES
        room = self._room(most, loops)
        parts: list[tuple[Uint64s, Floats]] = []
        while progress[loops.NEXT] < words.size:
            loops.visit(layout, words, reached, neurons, room, progress)
            n = int(progress[loops.N_SPIKES])
            parts.append((room.words[:n].copy(), np.ones(n, np.float32)))
        return self._outcome(parts, neurons, arriving[0][1].span)

    def _outcome(self, parts: list[tuple[Uint64s, Floats]], neurons: Any, span: tuple[int, int]) -> Outcome:
        n_recordings = neurons.totals.size // self._layout.size
        words, amounts = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else _NOTHING
        counts, states = (
            to_maps(values[: neurons.totals.size].reshape(n_recordings, -1), self._layer)
            for values in (neurons.totals, neurons.state)
        )
        spikes = Spikes(words, amounts, self._order, self._layer.out_shape, span)
        return Outcome(Activity(spikes=spikes), counts, states)

    def _start(self, n_samples: int) -> Floats:
        """Return the potentials of all recordings before the first event."""
        v_init = self._layer.v_init
        start = np.zeros(self._layer.out_shape, np.float32) if v_init is None else v_init
        one = to_neurons(start[None], self._layer)
        return aligned(np.broadcast_to(one, (n_samples, one.shape[1])), BLOCK)

    def _neurons(self, n_samples: int, loops: Any) -> Any:
        size = self._layout.size
        masks, blocks = (np.zeros(size // BLOCK + 1, np.uint64) for _ in range(2))
        totals = np.zeros(n_samples * size, np.int64)
        return loops.Neurons(self._start(n_samples), totals, _no_bits(size // BLOCK), self._unasked, masks, blocks)

    def _room(self, n_most: int, loops: Any) -> Any:
        n = max(_SPIKES, 2 * n_most)
        return loops.Emitted(np.empty(n, np.uint64), np.empty(n, np.float32))

    def _merged(self, arriving: Sequence[tuple[Edge, Spikes]]) -> tuple[Uint64s, Floats, Uint64s]:
        """Return words and amounts of all that arrives, in order of the steps, and the cell of each place in a word.

        Within a step sources come in the order of the net, and a spike takes all edges of its source before the next.
        """
        if len(arriving) == 1:
            edge, spikes = arriving[0]
            return spikes.words, spikes.amounts, self._cells_of(edge, spikes)
        words, amounts = [], []
        for source in sorted({edge.source for edge, _ in arriving}):
            same = [(edge, spikes) for edge, spikes in arriving if edge.source == source]
            spikes = same[0][1]
            places = np.stack([self._cells_of(edge, one)[one.words & PLACE] for edge, one in same], axis=1)
            words.append((places | (spikes.words & ~PLACE)[:, None]).reshape(-1))
            amounts.append(np.repeat(spikes.amounts, len(same)))
        joined, heights = np.concatenate(words), np.concatenate(amounts)
        order = np.argsort(joined >> np.uint64(STEP), kind="stable")
        n_cells = self._layout.units.size * self._layout.n_channels
        return joined[order], heights[order], np.arange(n_cells + 1, dtype=np.uint64)

    def _cells_of(self, edge: Edge, spikes: Spikes) -> Uint64s:
        """Return the cell that each place in a word leads to; it is the same for all batches of a source."""
        known = self._cells.get(edge)
        if known is None or known[0] is not spikes.order:
            cells = cells_behind(edge, spikes.shape, self._layer.in_shape)[spikes.order]
            known = self._cells[edge] = spikes.order, order_cells(self._layer.in_shape)[cells].astype(np.uint64)
        return known[1]


_NOTHING = np.zeros(0, np.uint64), np.zeros(0, np.float32)


def _no_bits(n: int) -> Uint64s:
    return np.zeros(n // 64 + 1, np.uint64)
