"""SpikingNet to a NIR file that other frameworks read, with what NIR has no field for in its metadata."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.errors import UnsupportedLayerError
from spikeport.convert.geometry import Shape3, pooled
from spikeport.convert.graph import Finding
from spikeport.convert.kernels import dense_kernel
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet
from spikeport.models.atomic import write_atomic

if TYPE_CHECKING:
    import nir

FORMAT = 1


def save_nir(net: SpikingNet, path: str | Path, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write ``net`` to one NIR file, whole or not at all; see ``nir_bytes``.

    Law: ``load_nir(path).same(net)`` where the edges to each layer fill its channels without overlap.
    """
    write_atomic(path, nir_bytes(net, notes))


def nir_bytes(net: SpikingNet, notes: Mapping[str, Any] | None = None) -> bytes:
    """Return the NIR file of ``net``: a Conv2d and an IF for each layer, a SumPool2d for each pool.

    Maps that stand behind one another become a Conv2d each, whose sums the IF adds up; spikes that share features are
    two edges to one node. Biases are per step. The metadata of an IF node hold what NIR does not say: ``layer`` (its
    name), ``index``, ``reset`` (``subtract``), ``v_min`` in the unit of the weights or ``none``, ``v_init``,
    ``has_bias`` and ``groups``; those of the graph hold ``spikeport_edges``, ``spikeport_outputs`` (at which feature
    each Output starts) and ``spikeport_notes``, as JSON. They lie there because nir 1.0.4 has none for Conv2d and
    Output.
    Law: equal nets and notes give equal bytes.
    Raises: UnsupportedLayerError for a transposed convolution, which NIR has not.
    """
    import nir

    _refuse(net)
    names = _names(net)
    spikes = {INPUT: "input"} | {index: f"{name}_if" for index, name in enumerate(names)}
    wiring = _Wiring(spikes, {"input": nir.Input({"input": np.array(net.input_shape)})})
    for index, layer in enumerate(net.layers):
        wiring.nodes[spikes[index]] = nir.IF(
            r=np.ones(layer.out_shape),
            v_threshold=np.full(layer.out_shape, layer.threshold),
            metadata=_metadata(layer, index),
        )
        for part, (shift, incoming) in enumerate(_parts(net, index)):
            name = names[index] if not part else f"{names[index]}_{part}"
            width = pooled(net.source_shape(incoming[0]), incoming[0].pool)[0]
            wiring.nodes[name] = _conv(layer, slice(shift, shift + width), with_bias=not part)
            for edge in incoming:
                wiring.connect(edge, name)
            wiring.edges.append((name, spikes[index]))
    outputs = _add_outputs(net, wiring)
    metadata = {
        "spikeport_format": FORMAT,
        "spikeport_edges": json.dumps([[e.source, e.target, e.pool, e.feature_shift] for e in net.edges]),
        "spikeport_outputs": json.dumps(outputs),
        "spikeport_notes": json.dumps(dict(notes or {}), sort_keys=True, allow_nan=False),
    }
    stream = io.BytesIO()
    nir.write(stream, nir.NIRGraph(wiring.nodes, wiring.edges, metadata=metadata))
    return stream.getvalue()


def _refuse(net: SpikingNet) -> None:
    found = [
        Finding(layer.name, "SpikingLayer", "refused", "NIR has no transposed convolution. Try save_net.")
        for layer in net.layers
        if layer.upsample != (1, 1)
    ]
    if found:
        text = "\n".join(f"layer '{finding.node}': {finding.detail}" for finding in found)
        raise UnsupportedLayerError(text, tuple(found))


def _names(net: SpikingNet) -> list[str]:
    """Return a node name for each layer: HDF5 takes no slash, torch modules no point."""
    names: list[str] = []
    for layer in net.layers:
        name = re.sub(r"\W", "_", layer.name, flags=re.ASCII) or "layer"
        while any(_clash(name, other) for other in ["input", "output", *names]):
            name += "x"
        names.append(name)
    return names


def _clash(name: str, other: str) -> bool:
    """Return whether names derived from one may be names derived from the other."""
    long, short = sorted((name, other), key=len, reverse=True)
    return long == short or re.fullmatch(rf"{re.escape(short)}_(if|\d+|pool.*|if_pool.*)", long) is not None


def _metadata(layer: SpikingLayer, index: int) -> dict[str, Any]:
    metadata = {
        "layer": layer.name,
        "index": index,
        "reset": "subtract",
        "v_min": "none" if layer.v_min is None else float(layer.v_min),
        "has_bias": int(layer.bias is not None),
        "groups": layer.groups,
    }
    return metadata if layer.v_init is None else metadata | {"v_init": np.array(layer.v_init)}


def _parts(net: SpikingNet, index: int) -> Iterable[tuple[int, list[Edge]]]:
    """Return the edges to a layer by the features at which they arrive: those that share them in one part."""
    parts: dict[tuple[int, int], list[Edge]] = {}
    for edge in net.incoming(index):
        width = pooled(net.source_shape(edge), edge.pool)[0]
        parts.setdefault((edge.feature_shift, width), []).append(edge)
    return [(shift, parts[shift, width]) for shift, width in sorted(parts)]


def _conv(layer: SpikingLayer, channels: slice, *, with_bias: bool) -> nir.Conv2d:
    """Return the part of a layer's weights that reads some of its channels."""
    import nir

    weight: NDArray[np.float32] = np.array(layer.weight)
    groups = layer.groups
    if (channels.start, channels.stop) != (0, layer.in_shape[0]):
        weight, groups = dense_kernel(weight, groups=groups)[:, channels], 1
    bias = np.zeros(len(weight), np.float32) if layer.bias is None or not with_bias else np.array(layer.bias)
    return nir.Conv2d(
        input_shape=layer.in_shape[1:],
        weight=weight,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=groups,
        bias=bias,
    )


@dataclasses.dataclass
class _Wiring:
    """The graph as far as it is written: nodes, edges, and which node sends the spikes of which layer."""

    spikes: Mapping[int, str]
    nodes: dict[str, nir.NIRNode]
    edges: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def connect(self, edge: Edge, target: str) -> None:
        """Add an edge, with a pool where it pools; NIR's edges are a set, so the same edge again has its own pool."""
        import nir

        source = self.spikes[edge.source]
        name, number = source, 0
        while (name, target) in self.edges or (name == source and edge.pool != (1, 1)):
            name = f"{source}_pool{edge.pool[0]}x{edge.pool[1]}" + (f"_{number}" if number else "")
            number += 1
        if name not in self.nodes:
            self.nodes[name] = nir.SumPool2d(np.array(edge.pool), np.array(edge.pool), np.array((0, 0)))
            self.edges.append((source, name))
        self.edges.append((name, target))


def _add_outputs(net: SpikingNet, wiring: _Wiring) -> dict[str, int]:
    """Add an Output node for each map that leaves the net; return the features at which they start."""
    import nir

    outputs: dict[tuple[int, Shape3], str] = {}
    for edge in net.edges:
        if edge.target is None:
            key = edge.feature_shift, pooled(net.source_shape(edge), edge.pool)
            if key not in outputs:
                outputs[key] = f"output_{len(outputs)}" if outputs else "output"
                wiring.nodes[outputs[key]] = nir.Output({"output": np.array(key[1])})
            wiring.connect(edge, outputs[key])
    return {name: shift for (shift, _), name in outputs.items()}
