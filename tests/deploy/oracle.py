"""What a Speck can hold, found out the slow way: every word of a memory laid out, every assignment tried.

Written from the facts about the chip alone. It shares no code with the compiler, not even the table of cores.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.types import INPUT, SpikingLayer, SpikingNet

KERNEL, NEURON, BIAS = range(3)
CORES: dict[int, tuple[int, int, int]] = {
    0: (16_384, 65_536, 1_024),
    1: (16_384, 65_536, 1_024),
    2: (16_384, 65_536, 1_024),
    3: (32_768, 32_768, 1_024),
    4: (32_768, 32_768, 1_024),
    5: (65_536, 16_384, 1_024),
    6: (65_536, 16_384, 1_024),
    7: (16_384, 16_384, 1_024),
    8: (16_384, 16_384, 1_024),
}
"""Words of kernel, neuron and bias memory. Source: Speck Dev Kit datasheet v1.0."""

LIMITS = {
    "kernel": "a square kernel",
    "kernel size": "at most 16x16",
    "stride": "1, 2, 4 or 8 in each direction",
    "padding": "at most 7",
    "upsample": "1x1",
    "output map": "at most 64x64",
    "input map": "at most 128x128",
    "output channels": "at most 1024",
    "input channels": "at most 1024",
    "threshold": "1..32767",
    "input pool": "1, 2 or 4",
    "input pools": "the same for all layers",
    "destinations": "at most 2",
    "feature shift": "0",
    "output": "layers only",
    "layers": "at most 9",
}
"""What the message of a broken rule says is allowed; a pool and an entry have two such limits each."""


@dataclasses.dataclass(frozen=True)
class Words:
    """Words that a layer occupies in one memory, and how many of them hold a value."""

    occupied: int
    useful: int


def count_memories(layer: SpikingLayer) -> tuple[Words, Words, Words]:
    """Return the words of kernel, neuron and bias memory, each counted in a picture of the memory."""
    features, channels = layer.weight.shape[0], layer.in_shape[0]
    rows = [tap * layer.dilation[0] for tap in range(layer.weight.shape[2])]
    columns = [tap * layer.dilation[1] for tap in range(layer.weight.shape[3])]
    height, width = rows[-1] + 1, columns[-1] + 1
    # One page per input feature; in it a field of places in the kernel, and in each place a field of output features.
    kernel = np.zeros((channels, _field(height * width), _field(features)), bool)
    inputs, outputs = channels // layer.groups, features // layer.groups
    for group in range(layer.groups):
        for row, column in itertools.product(rows, columns):
            place = row * width + column
            kernel[group * inputs : (group + 1) * inputs, place, group * outputs : (group + 1) * outputs] = True
    # One page per output feature; in it a field of rows, and in each row a field of columns.
    neuron = np.zeros((features, _field(layer.out_shape[1]), _field(layer.out_shape[2])), bool)
    neuron[:, : layer.out_shape[1], : layer.out_shape[2]] = True
    bias = np.zeros(0 if layer.bias is None else len(layer.bias), bool)
    bias[:] = True
    return _count(kernel), _count(neuron), _count(bias)


def _count(memory: NDArray[np.bool_]) -> Words:
    return Words(memory.size, int(np.count_nonzero(memory)))


def _field(n: int) -> int:
    """Return how many values an address field has that is wide enough for ``n``, bit by bit."""
    values = 1
    while values < n:
        values += values
    return values


def cores_for(layer: SpikingLayer) -> tuple[int, ...]:
    """Return the ids of the cores in which a layer has room."""
    needs = [words.occupied for words in count_memories(layer)]
    return tuple(core for core, sizes in CORES.items() if all(n <= size for n, size in zip(needs, sizes, strict=True)))


@functools.cache
def every_assignment(n_layers: int) -> NDArray[np.int8]:
    """Return all ways to give distinct cores to layers.

    Shapes: ``[ways, n_layers]`` core ids.
    """
    ways = list(itertools.permutations(CORES, n_layers))
    return np.array(ways, np.int8).reshape(len(ways), n_layers)


def can_be_placed(rooms: Sequence[tuple[int, ...]]) -> bool:
    """Return whether any assignment gives each layer one of the cores in which it has room."""
    return _try_all(tuple(rooms))


@functools.cache
def _try_all(rooms: tuple[tuple[int, ...], ...]) -> bool:
    if len(rooms) > len(CORES):
        return False
    ways = every_assignment(len(rooms))
    for layer in sorted(range(len(rooms)), key=lambda layer: len(rooms[layer])):
        has_room = np.zeros(len(CORES), bool)
        has_room[list(rooms[layer])] = True
        ways = ways[has_room[ways[:, layer]]]
    return len(ways) > 0


def find_crowds(rooms: Sequence[tuple[int, ...]]) -> set[frozenset[int]]:
    """Return every smallest set of layers that cannot be placed: without any one of them the others can."""
    if can_be_placed(rooms):
        return set()
    states = {(0, 0)}
    for layer, cores in enumerate(rooms):
        states |= {
            (layers | 1 << layer, taken | 1 << core)
            for layers, taken in states
            for core in cores
            if not taken >> core & 1
        }
    good = {layers for layers, _ in states}
    every = range(len(rooms))
    return {
        frozenset(index for index in every if mask >> index & 1)
        for mask in range(1 << len(rooms))
        if mask not in good and all(mask & ~(1 << index) in good for index in every if mask >> index & 1)
    }


def is_legal(net: SpikingNet) -> bool:
    """Return whether kernels, steps, pools, maps and routes of a net of ``random_net`` are what the chip has."""
    for index, layer in enumerate(net.layers):
        _, _, ky, kx = layer.weight.shape
        good = ky == kx <= 16 and {*layer.stride} <= {1, 2, 4, 8} and max(layer.padding) <= 7
        good &= max(layer.out_shape[1:]) <= 64 and max(layer.in_shape[1:]) <= 128
        good &= max(layer.in_shape[0], layer.out_shape[0]) <= 1024
        leaving = [edge for edge in net.edges if edge.source == index]
        good &= all(edge.pool in ((1, 1), (2, 2), (4, 4)) for edge in leaving)
        if not good or sum(edge.target is not None for edge in leaving) > 2:
            return False
    entering = [edge for edge in net.edges if edge.source == INPUT]
    return max(net.input_shape[1:]) <= 128 and len(entering) <= 2
