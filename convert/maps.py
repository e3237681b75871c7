"""Every value becomes a map of ``(C, H, W)``: linear layers become convolutions, flattens vanish."""

from __future__ import annotations

import dataclasses

from .errors import UnsupportedLayerError
from .geometry import Shape3
from .graph import Concat, Conv, Flatten, Graph, Linear, Node, Shape


def lay_out_maps(graph: Graph, notes: dict[str, str]) -> Graph:
    """Return the graph without flattens and linear layers, each value a map.

    A linear layer becomes a convolution that covers the whole map it reads; its weights keep their order, because
    torch flattens by channel, row, column.
    Law: the flat output is the same.
    Raises: UnsupportedLayerError where vectors from maps of different sizes are joined.
    """
    nodes: dict[str, Node] = {}
    alias: dict[str, str] = {}
    for node in graph:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        if isinstance(node, Flatten):
            alias[node.name] = inputs[0]
            notes[node.name] = "keeps every value; the next layer reads them by channel, row, column"
            continue
        shapes = tuple(_map(nodes[name].out_shape) for name in inputs)
        if isinstance(node, Linear):
            channels, height, width = shapes[0]
            features = node.weight.shape[0]
            weight = node.weight.reshape(features, channels, height, width)
            nodes[node.name] = Conv(node.name, node.label, inputs, (features, 1, 1), weight, node.bias)
            notes[node.name] = f"as a {height}x{width} convolution that covers its whole input"
        else:
            nodes[node.name] = dataclasses.replace(node, inputs=inputs, out_shape=_shape(node, shapes))
    return Graph(tuple(nodes.values()), alias.get(graph.output, graph.output))


def _shape(node: Node, shapes: tuple[Shape3, ...]) -> Shape:
    if not shapes or len(node.out_shape) == 3:
        return node.out_shape
    sizes = sorted({shape[1:] for shape in shapes})
    if len(sizes) > 1:
        found = " and ".join(f"{height}x{width}" for height, width in sizes)
        raise UnsupportedLayerError(
            f"layer '{node.name}' ({node.label}): joins vectors of maps of {found}. Try pooling them to one size first."
        )
    channels = sum(shape[0] for shape in shapes) if isinstance(node, Concat) else shapes[0][0]
    return (channels, *shapes[0][1:])


def _map(shape: Shape) -> Shape3:
    """Return a shape as a map; a vector is a map of 1x1."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)
