"""Exact counts of synaptic operations: every visit of a neuron by a spike, borders, strides and pools included."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.events import Events

from .errors import InputError
from .geometry import fan_out, pooled
from .types import Edge, SpikingNet, Trace

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class LayerSynops:
    """The traffic of one layer, summed over all recordings of a report.

    Units: ``n_emitted`` spikes left the sources, ``n_input_spikes`` of them reached the layer's input map (the others
    fell off the edge of a pool), ``synops`` neuron updates they caused, ``n_output_spikes`` spikes of the layer itself.
    """

    name: str
    n_emitted: int
    n_input_spikes: int
    synops: int
    n_output_spikes: int
    n_neurons: int
    n_leaking: int = 0

    @property
    def mean_fan_out(self) -> float:
        """Synops per input spike."""
        return self.synops / self.n_input_spikes if self.n_input_spikes else 0.0


@dataclasses.dataclass(frozen=True)
class SynopReport:
    """Synaptic operations per layer over ``n_samples`` recordings of ``window_s`` seconds each.

    Law: ``total`` is the sum over the layers, an exact integer, equal to the visits of an event loop over the spikes.
    """

    layers: tuple[LayerSynops, ...]
    n_samples: int
    window_s: float

    @property
    def total(self) -> int:
        """Synops of all layers and recordings."""
        return sum(layer.synops for layer in self.layers)

    @property
    def synops_per_s(self) -> float:
        """Synops per second of recorded time; 0 for a window of no length."""
        seconds = self.window_s * self.n_samples
        return self.total / seconds if seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, ready for JSON."""
        return {
            "layers": [{**dataclasses.asdict(layer), "mean_fan_out": layer.mean_fan_out} for layer in self.layers],
            "total": self.total,
            "n_samples": self.n_samples,
            "window_s": self.window_s,
            "synops_per_s": self.synops_per_s,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the layers as a pandas table, one row each.

        Raises: ModuleNotFoundError where pandas is not installed (it comes with ``spikeport[digits]``).
        """
        import pandas as pd

        return pd.DataFrame(self.to_dict()["layers"])


def count_synops(net: SpikingNet, activity: Trace | Events) -> SynopReport:
    """Return the exact synops that the spikes of ``activity`` cause in ``net``.

    A recording of events is simulated first, in steps of 10 ms; simulate yourself for another step.
    Law: equals the visits of a brute-force event loop, integer for integer.
    Raises: InputError where the trace does not belong to the net, or its input is not whole event counts.
    """
    if isinstance(activity, Events):
        from .simulate import simulate_events

        activity = simulate_events(net, activity)
    _check(net, activity)
    maps = (activity.input_counts, *activity.counts)
    layers = []
    for index, layer in enumerate(net.layers):
        edges = net.incoming(index)
        reach = fan_out(layer.in_shape, layer.weight.shape, layer.stride, layer.padding)
        arriving = [_pooled_counts(maps[edge.source + 1], edge) for edge in edges]
        layers.append(
            LayerSynops(
                name=layer.name,
                n_emitted=sum(_total(maps[edge.source + 1]) for edge in edges),
                n_input_spikes=sum(_total(counts) for counts in arriving),
                synops=sum(int((counts.sum(axis=(0, 1), dtype=np.int64) * reach).sum()) for counts in arriving),
                n_output_spikes=_total(activity.counts[index]),
                n_neurons=int(np.prod(layer.out_shape)),
                n_leaking=int(np.prod(layer.out_shape[1:]) * np.count_nonzero(layer.bias))
                if layer.bias is not None
                else 0,
            )
        )
    return SynopReport(tuple(layers), activity.n_samples, activity.window_s)


def _pooled_counts(counts: NDArray[Any], edge: Edge) -> NDArray[np.int64]:
    batch, channels, height, width = counts.shape
    _, rows, columns = pooled((channels, height, width), edge.pool)
    inside = counts[:, :, : rows * edge.pool[0], : columns * edge.pool[1]].astype(np.int64)
    blocks = inside.reshape(batch, channels, rows, edge.pool[0], columns, edge.pool[1])
    return np.asarray(blocks.sum(axis=(3, 5)), np.int64)


def _total(counts: NDArray[Any]) -> int:
    return int(counts.sum(dtype=np.int64)) if np.issubdtype(counts.dtype, np.integer) else int(counts.sum())


def _check(net: SpikingNet, trace: Trace) -> None:
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
