"""Small nets for the tests of the engines, and recordings that a camera could feed them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

from spikeport.convert.types import SpikingLayer, SpikingNet, chain
from spikeport.models.events import Events

from .nets import random_graph

NOTHING = (1, 1)
"""A pool, stride or upsampling that does nothing."""


def neuron(**fields: Any) -> SpikingNet:
    """Return a net of one neuron behind one input."""
    one = (1, 1, 1)
    settings = {"weight": np.ones((1, 1, 1, 1)), "bias": None, "threshold": 1.0, "v_min": None} | fields
    layer = SpikingLayer(name="one", stride=NOTHING, padding=(0, 0), in_shape=one, out_shape=one, **settings)
    return chain((layer,), (NOTHING, NOTHING), one)


def random_events(rng: Generator, net: SpikingNet, n_events: int, *, gap_us: int = 900) -> Events:
    height, width = net.input_shape[1:]
    t_us = 5_000 + np.cumsum(rng.integers(0, gap_us, n_events))
    x, y, p = rng.integers(0, width, n_events), rng.integers(0, height, n_events), rng.integers(0, 2, n_events)
    return Events(x, y, p, t_us, (height, width))


def graph_for_events(rng: Generator) -> SpikingNet:
    """Return a random net that a camera of two polarities, or of one merged, can feed."""
    net = random_graph(rng)
    while net.input_shape[0] > 2:
        net = random_graph(rng)
    return net
