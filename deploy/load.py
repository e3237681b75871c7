"""How much work each layer of a net is for its core, as far as that is known before the chip runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from spikeport.convert.synops import SynopReport
from spikeport.convert.types import SpikingLayer, SpikingNet

from .budget import count_words
from .errors import SettingError

Traffic = SynopReport | Mapping[str, int] | None


def count_loads(net: SpikingNet, traffic: Traffic = None, *, relays: Collection[str] = ()) -> tuple[int, ...]:
    """Return the synops of each layer: those of ``traffic``, or an estimate in which every neuron spikes equally often.

    ``traffic`` is a report of ``count_synops`` or maps the name of each layer to its synops. The estimate counts the
    synapses: each pixel of the input and each neuron sends one event along each of its edges, pools and borders
    included, and a core visits the zeros of groups and dilated kernels too. Real nets spike less toward the output.
    ``relays`` are layers that ``traffic`` need not know, because they were put in; they count as 0 then.
    Law: the estimate is what an event loop over one event per pixel and neuron visits.
    Raises: SettingError where ``traffic`` lacks a layer.
    """
    if traffic is None:
        return tuple(_synapses(net, index) for index in range(len(net.layers)))
    synops = (
        {layer.name: layer.synops for layer in traffic.layers} if isinstance(traffic, SynopReport) else dict(traffic)
    )
    synops = dict.fromkeys(relays, 0) | synops
    missing = [layer.name for layer in net.layers if layer.name not in synops]
    if missing:
        raise SettingError(
            f"traffic: expected synops of every layer, found none of {', '.join(map(repr, missing))}. "
            "Try count_synops of this very net."
        )
    return tuple(int(synops[layer.name]) for layer in net.layers)


def _synapses(net: SpikingNet, index: int) -> int:
    layer = net.layers[index]
    kernel = count_words(layer).kernel  # dense, as the chip stores it
    rows, columns = (_targets(layer, axis, kernel[axis]) for axis in (0, 1))
    n_pixels = sum(net.source_shape(edge)[0] * edge.pool[0] * edge.pool[1] for edge in net.incoming(index))
    return n_pixels * layer.out_shape[0] * rows * columns


def _targets(layer: SpikingLayer, axis: int, kernel: int) -> int:
    """Return how many rows (columns) of the output map all rows (columns) of the input map reach, summed up."""
    size, out_size, stride = layer.in_shape[1 + axis], layer.out_shape[1 + axis], layer.stride[axis]
    position = np.arange(size) * layer.upsample[axis] + layer.padding[axis]
    first, last = np.maximum(0, -((kernel - 1 - position) // stride)), np.minimum(out_size - 1, position // stride)
    return int(np.maximum(0, last - first + 1).sum())
