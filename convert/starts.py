"""Where the potentials of a spiking net start."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from .graph import Graph
from .normalize import Scaling
from .types import SpikingNet


def with_start(net: SpikingNet, scaled: Graph, *, frames: NDArray[np.float32], scaling: Scaling) -> SpikingNet:
    """Return the net with the potentials before the first event that ``scaling.start`` asks for.

    ``half`` is half a threshold for every neuron: what a count of whole spikes loses by rounding down on average.
    Source: Deng and Gu, ICLR 2021.
    """
    del scaled, frames
    if scaling.start == "zero":
        return net
    layers = (
        dataclasses.replace(layer, v_init=np.full(layer.out_shape, layer.threshold / 2, np.float32))
        for layer in net.layers
    )
    return dataclasses.replace(net, layers=tuple(layers))
