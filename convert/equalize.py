"""Gains of features moved so that the 8 bits of the weights before and behind them are used better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidNetError
from .gains import Gains, apply_gains
from .graph import Add, Concat, Conv, Graph
from .thresholds import Activations

_MAX_FACTOR = 4.0
"""By which a feature's gain moves at most, up or down: its firing rate moves as much."""

_SWEEPS = 3


def equalized_gains(graph: Graph, gains: Gains, found: Mapping[str, Activations]) -> dict[str, NDArray[np.float64]]:
    """Return ``gains`` with those of each layer's features moved against each other.

    A feature whose weights are small beside the largest of its layer, or are read by large ones, gets a higher gain:
    both layers' weights then come closer to the largest of their layer, which sets the grid of the chip. Layers whose
    spikes are added, or leave the net, keep their gains, for features must agree there.
    Law: a layer emits as many spikes as before on the calibration frames, and the gains of two of its features move by
    at most a factor of 16 against each other.
    Source: Nagel et al., ICCV 2019, where the range of a whole layer counts as 1; here its spikes are kept too.
    """
    first = {name: np.asarray(gain, np.float64) for name, gain in gains.items()}
    moved = dict(first)
    for _ in range(_SWEEPS):
        for name in (node.name for node in graph if isinstance(node, Conv)):
            behind = readers(graph, name)
            if behind is None:
                continue
            scaled, _ = apply_gains(graph, moved)
            n = len(first[name])
            before = _relative(np.abs(_weights(scaled, name)).max(axis=(1, 2, 3)))
            after = np.max(
                [_relative(column_ranges(scaled, read))[shift : shift + n] for read, shift in behind], axis=0
            )
            is_used = before * after > 0
            wanted = moved[name] * np.sqrt(np.divide(after, before, out=np.ones(n), where=is_used))
            factor = np.clip(wanted / first[name], 1 / _MAX_FACTOR, _MAX_FACTOR)
            emitted = first[name] * found[name].values.mean(axis=1)
            moved[name] = first[name] * factor * (emitted.sum() / (factor * emitted).sum())
    return moved


def readers(graph: Graph, name: str) -> tuple[tuple[str, int], ...] | None:
    """Return the convolutions that read the spikes of a layer, with the shift of its features there.

    None where the spikes are added to others or leave the net.
    """
    found: list[tuple[str, int]] = []
    for reader, shift in _read_by(graph, name, 0):
        if reader is None:
            return None
        found.append((reader, shift))
    return tuple(found)


def _read_by(graph: Graph, name: str, shift: int) -> Iterator[tuple[str | None, int]]:
    if name == graph.output:
        yield None, shift
    for node in graph.consumers(name):
        if isinstance(node, Conv):
            yield node.name, shift
        elif isinstance(node, Add):
            yield None, shift
        elif isinstance(node, Concat):
            first = 0
            for given in node.inputs:
                if given == name:
                    yield from _read_by(graph, node.name, shift + first)
                first += graph[given].out_shape[0]
        else:
            yield from _read_by(graph, node.name, shift)


def column_ranges(graph: Graph, name: str) -> NDArray[np.float64]:
    """Return the largest absolute weight with which a convolution reads each of its channels.

    Shapes: ``[C]``, all groups one behind another.
    """
    node = graph[name]
    groups = node.groups if isinstance(node, Conv) else 1
    weight = np.abs(_weights(graph, name)).max(axis=(2, 3))
    return np.asarray(weight.reshape(groups, -1, weight.shape[1]).max(axis=1).reshape(-1), np.float64)


def _weights(graph: Graph, name: str) -> NDArray[np.float32]:
    node = graph[name]
    if not isinstance(node, Conv):
        raise InvalidNetError(f"node '{name}' ({node.label}): expected a convolution. Try fold() first.")
    return node.weight


def _relative(ranges: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(ranges / (ranges.max() or 1.0), np.float64)
