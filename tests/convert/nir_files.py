"""NIR files written entry by entry, so that they may say anything."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Node = Mapping[str, Any]


def write(path: Path, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]] | None = None) -> Path:
    """Write a file of nodes, by default one behind the other."""
    with h5py.File(path, "w") as file:
        file["version"] = "1.0.4"
        _graph(file.create_group("node"), nodes, edges)
    return path


def graph(nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]] | None = None) -> Node:
    """Return a subgraph as a node."""
    return {"type": "NIRGraph", "nodes": nodes, "edges": edges}


def _graph(group: Any, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]] | None) -> None:
    group["type"] = "NIRGraph"
    names = list(nodes)
    pairs = list(itertools.pairwise(names)) if edges is None else list(edges)
    group["edges"] = np.array(pairs, dtype=h5py.string_dtype()).reshape(-1, 2)
    inner = group.create_group("nodes")
    for name, node in nodes.items():
        if node["type"] == "NIRGraph":
            _graph(inner.create_group(name), node["nodes"], node["edges"])
        else:
            _fill(inner.create_group(name), node)


def _fill(group: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        if isinstance(value, dict):
            _fill(group.create_group(key), value)
        else:
            group[key] = value


def given(*shape: int) -> Node:
    return {"type": "Input", "shape": np.array(shape)}


def output(*shape: int) -> Node:
    return {"type": "Output", "shape": np.array(shape)}


def fires(threshold: Any = 1.0, r: Any = 1.0, **more: Any) -> Node:
    return {"type": "IF", "r": np.asarray(r), "v_threshold": np.asarray(threshold), **more}


def leaks(tau: Any, r: Any = 1.0, **more: Any) -> Node:
    return {
        "type": "LIF",
        "tau": np.asarray(tau),
        "r": np.asarray(r),
        "v_leak": np.zeros(()),
        "v_threshold": np.ones(()),
        **more,
    }


def conv(weight: Any, **more: Any) -> Node:
    array = np.asarray(weight, np.float32)
    pair = np.array([1, 1])
    usual = {"stride": pair, "padding": 0 * pair, "dilation": pair, "groups": 1, "bias": np.zeros(len(array))}
    return {"type": "Conv2d", "weight": array, **usual, **more}


def linear(weight: Any) -> Node:
    return {"type": "Linear", "weight": np.asarray(weight, np.float32)}


def pool(kind: str, size: int, **more: Any) -> Node:
    pair = np.array([size, size])
    return {"type": kind, "kernel_size": pair, "stride": pair, "padding": 0 * pair, **more}
