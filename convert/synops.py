"""Exact counts of synaptic operations: every visit of a neuron by a spike, borders, strides and pools included."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.events import Events

from .errors import InputError
from .geometry import Pair, Shape3, Window, fan_out, sum_pooled
from .types import INPUT, Edge, SpikingNet, Trace

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class LayerSynops:
    """The traffic of one layer, summed over all recordings of a report.

    Units: ``n_emitted`` spikes were routed to the layer, ``n_input_spikes`` of them reached its input map (the others
    fell off the edge of a pool), ``synops`` neuron updates they caused, ``n_output_spikes`` spikes of the layer itself.
    ``n_macs`` are the multiply-accumulates of the same layer in the CNN for one frame, ``average_fan_out`` the synops
    per spike of the usual formula, which knows no borders; None where they were not computed.
    """

    name: str
    n_emitted: int
    n_input_spikes: int
    synops: int
    n_output_spikes: int
    n_neurons: int
    n_leaking: int = 0
    n_macs: int | None = None
    average_fan_out: float | None = None

    @property
    def mean_fan_out(self) -> float:
        """Synops per input spike."""
        return self.synops / self.n_input_spikes if self.n_input_spikes else 0.0

    @property
    def average_synops(self) -> float | None:
        """Synops by the usual formula: ``average_fan_out`` for every input spike."""
        return None if self.average_fan_out is None else self.n_input_spikes * self.average_fan_out

    @property
    def average_error_percent(self) -> float | None:
        """How far the usual formula is from the exact count; None where there is nothing to compare."""
        average = self.average_synops
        return None if average is None or not self.synops else 100.0 * (average / self.synops - 1.0)


@dataclasses.dataclass(frozen=True)
class EdgeTraffic:
    """The events on one edge: what a router carries, also for pools, and what became of it.

    ``source`` None is the input, ``target`` None the output.
    Units: ``n_routed`` events left the source, ``n_arrived`` of them fell into the target's map (or the pooled map that
    leaves the chip), and caused ``synops``; 0 on an edge to the output.
    """

    source: str | None
    target: str | None
    pool: Pair
    feature_shift: int
    n_routed: int
    n_arrived: int
    synops: int


@dataclasses.dataclass(frozen=True)
class SynopReport:
    """Synaptic operations per layer over ``n_samples`` recordings of ``window_s`` seconds each.

    ``edges`` and ``n_input_events`` (events of the recordings, each counted once) are empty and None where only layers
    were counted.
    Law: ``total`` is the sum over the layers, an exact integer, equal to the visits of an event loop over the spikes;
    the synops of a layer are the sum over the edges that lead to it.
    """

    layers: tuple[LayerSynops, ...]
    n_samples: int
    window_s: float
    edges: tuple[EdgeTraffic, ...] = ()
    n_input_events: int | None = None

    @property
    def total(self) -> int:
        """Synops of all layers and recordings."""
        return sum(layer.synops for layer in self.layers)

    @property
    def synops_per_s(self) -> float:
        """Synops per second of recorded time; 0 for a window of no length."""
        return self._per_s(self.total)

    @property
    def n_routed(self) -> int | None:
        """Spikes that layers send out, once per edge; input events are not among them."""
        return sum(edge.n_routed for edge in self.edges if edge.source is not None) if self.edges else None

    @property
    def routed_per_s(self) -> float | None:
        """Routed spikes per second of recorded time."""
        return None if self.n_routed is None else self._per_s(self.n_routed)

    @property
    def input_events_per_s(self) -> float | None:
        """Input events per second of recorded time."""
        return None if self.n_input_events is None else self._per_s(self.n_input_events)

    @property
    def n_macs(self) -> int | None:
        """Multiply-accumulates of one frame through the CNN; None where a layer's are not known."""
        known = [layer.n_macs for layer in self.layers if layer.n_macs is not None]
        return sum(known) if known and len(known) == len(self.layers) else None

    @property
    def synops_per_mac(self) -> float | None:
        """Synops of a recording over the multiply-accumulates of one frame through the CNN."""
        return self._per_mac(self.total, self.n_macs)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, ready for JSON."""
        return {
            "layers": [self._row(layer) for layer in self.layers],
            "edges": [{**dataclasses.asdict(edge), "pool": list(edge.pool)} for edge in self.edges],
            "total": self.total,
            "n_samples": self.n_samples,
            "window_s": self.window_s,
            "synops_per_s": self.synops_per_s,
            "n_routed": self.n_routed,
            "routed_per_s": self.routed_per_s,
            "n_input_events": self.n_input_events,
            "input_events_per_s": self.input_events_per_s,
            "n_macs": self.n_macs,
            "synops_per_mac": self.synops_per_mac,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the layers as a pandas table, one row each.

        Raises: ModuleNotFoundError where pandas is not installed (it comes with ``spikeport[digits]``).
        """
        import pandas as pd

        return pd.DataFrame(self.to_dict()["layers"])

    def _row(self, layer: LayerSynops) -> dict[str, Any]:
        return {
            **dataclasses.asdict(layer),
            "mean_fan_out": layer.mean_fan_out,
            "average_synops": layer.average_synops,
            "average_error_percent": layer.average_error_percent,
            "synops_per_mac": self._per_mac(layer.synops, layer.n_macs),
        }

    def _per_s(self, n: int) -> float:
        seconds = self.window_s * self.n_samples
        return n / seconds if seconds else 0.0

    def _per_mac(self, synops: int, n_macs: int | None) -> float | None:
        return synops / (n_macs * self.n_samples) if n_macs and self.n_samples else None


def count_synops(net: SpikingNet, activity: Trace | Events) -> SynopReport:
    """Return the exact synops that the spikes of ``activity`` cause in ``net``.

    A recording of events is simulated first, in steps of 10 ms; simulate yourself for another step.
    Law: equals the visits of a brute-force event loop, integer for integer.
    Raises: InputError where the trace does not belong to the net, or its maps are not whole event counts.
    """
    if isinstance(activity, Events):
        from .simulate import simulate_events

        activity = simulate_events(net, activity)
    check_trace(net, activity)
    maps = [
        counts.sum(axis=(0, 1), dtype=np.int64) for counts in (activity.input_counts.astype(np.int64), *activity.counts)
    ]
    edges = tuple(_traffic(net, edge, maps[edge.source + 1]) for edge in net.edges)
    layers = []
    for index, layer in enumerate(net.layers):
        arriving = [traffic for traffic, edge in zip(edges, net.edges, strict=True) if edge.target == index]
        layers.append(
            LayerSynops(
                name=layer.name,
                n_emitted=sum(edge.n_routed for edge in arriving),
                n_input_spikes=sum(edge.n_arrived for edge in arriving),
                synops=sum(edge.synops for edge in arriving),
                n_output_spikes=int(maps[index + 1].sum()),
                n_neurons=int(np.prod(layer.out_shape)),
                n_leaking=int(np.prod(layer.out_shape[1:]) * np.count_nonzero(layer.bias))
                if layer.bias is not None
                else 0,
                n_macs=count_macs(layer.in_shape, layer.weight.shape, layer.window, groups=layer.groups),
                average_fan_out=average_fan_out(layer.weight.shape, layer.window),
            )
        )
    return SynopReport(tuple(layers), activity.n_samples, activity.window_s, edges, int(maps[0].sum()))


def count_macs(in_shape: Shape3, weight_shape: tuple[int, ...], window: Window, *, groups: int = 1) -> int:
    """Return the multiply-accumulates of a convolution for one frame, padded zeros left out.

    Law: the synops that one spike at every place of the input map causes.
    """
    return in_shape[0] * int(fan_out(in_shape, weight_shape, window, groups=groups).sum())


def average_fan_out(weight_shape: tuple[int, ...], window: Window) -> float:
    """Return the synops per spike of the usual formula, ``F * ky * kx / (sy * sx)``: no borders, dilation or groups.

    Source: sinabs documentation, tips for training for the chip.
    """
    return weight_shape[0] * window.kernel[0] * window.kernel[1] / (window.stride[0] * window.stride[1])


def edge_reach(net: SpikingNet, edge: Edge) -> NDArray[np.int64] | None:
    """Return the synops of one event at each place of the edge's pooled map; None for an edge to the output.

    Shapes: ``[H, W]``; every feature reaches the same number.
    """
    if edge.target is None:
        return None
    layer = net.layers[edge.target]
    return fan_out(layer.in_shape, layer.weight.shape, layer.window, groups=layer.groups)


def _traffic(net: SpikingNet, edge: Edge, counts: NDArray[np.int64]) -> EdgeTraffic:
    """Return the traffic of an edge whose source emitted ``counts`` ``[H, W]``, summed over its features."""
    arrived, reach = sum_pooled(counts, edge.pool), edge_reach(net, edge)
    return EdgeTraffic(
        source=None if edge.source == INPUT else net.layers[edge.source].name,
        target=None if edge.target is None else net.layers[edge.target].name,
        pool=edge.pool,
        feature_shift=edge.feature_shift,
        n_routed=int(counts.sum()),
        n_arrived=int(arrived.sum()),
        synops=0 if reach is None else int((arrived * reach).sum()),
    )


def check_trace(net: SpikingNet, trace: Trace) -> None:
    """Check that a trace has the maps of ``net``, and whole counts in all of them.

    Raises: InputError otherwise.
    """
    shapes = tuple(tuple(count.shape[1:]) for count in trace.counts)
    expected = tuple(layer.out_shape for layer in net.layers)
    if shapes != expected or tuple(trace.input_counts.shape[1:]) != net.input_shape:
        raise InputError(
            f"trace: expected maps {expected} for an input of {net.input_shape}, found {shapes} for "
            f"{tuple(trace.input_counts.shape[1:])}. Try simulate() with this very net."
        )
    if np.any(trace.input_counts != np.rint(trace.input_counts)) or np.any(trace.input_counts < 0):
        raise InputError(
            "trace: expected an input of whole event counts, found others: a current is no spike and has no synops. "
            f"Layer '{net.layers[0].name}' multiplies it instead. Try an event raster, or rate-code the frames first."
        )
    negative = [layer.name for layer, counts in zip(net.layers, trace.counts, strict=True) if np.any(counts < 0)]
    if negative:
        raise InputError(
            f"trace: expected spike counts of 0 or more, found negative ones of {', '.join(negative)}. "
            "Try simulate() with this very net."
        )
