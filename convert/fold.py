"""Rewrites that keep the function: what remains are convolutions, rectifiers, pools, and where branches meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .branches import bank_branches, is_signed, merge_branches, push_up_concats
from .errors import UnsupportedLayerError
from .graph import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Finding,
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Pad,
    Relu,
    Skip,
    SumPool,
    Unknown,
)
from .kernels import widened
from .maps import lay_out_maps

Notes = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Step:
    """The graph after one rewrite, and what the rewrite was."""

    name: str
    graph: Graph


@dataclasses.dataclass(frozen=True)
class Folded:
    """The steps of folding, and a note for each node that vanished or changed."""

    steps: tuple[Step, ...]
    notes: Mapping[str, str]

    @property
    def graph(self) -> Graph:
        """The graph after the last step."""
        return self.steps[-1].graph


def fold(graph: Graph) -> Folded:
    """Return the graph as input, convolutions, rectifiers, pools, sums and concatenations only.

    In the result a rectifier reads a convolution, everything else reads what is never negative: the input, a rectifier,
    a pool, a sum or a concatenation of such. A convolution that nobody rectifies is the output.
    Law: after each step the output is the output of ``graph``, for every input.
    Raises: UnsupportedLayerError that lists every node without spiking counterpart, with a fix each.
    """
    refuse(graph)
    notes: Notes = {}
    steps: list[Step] = []
    for name, rewrite in _REWRITES.items():
        rewritten = rewrite(graph, notes)
        if not steps or rewritten is not graph:
            steps.append(Step(name, rewritten))
        graph = rewritten
    _raise_refused(tuple(_misplaced(graph)))
    return Folded(tuple(steps), notes)


def refuse(graph: Graph) -> None:
    """Raise UnsupportedLayerError that lists all nodes of ``graph`` which cannot become spiking; else do nothing."""
    _raise_refused(refusals(graph))


def refusals(graph: Graph) -> tuple[Finding, ...]:
    """Return one finding for each node of a captured graph that has no spiking counterpart."""
    unknown = (node for node in graph if isinstance(node, Unknown))
    return tuple(Finding(node.name, node.label, "refused", f"{node.reason}. {_way_out(node)}") for node in unknown)


def _way_out(node: Unknown) -> str:
    if node.substitute is None:
        return node.fix
    return f"{node.fix} Or convert it as another layer: --replace {node.substitute[0]}, and see what that changes."


def _raise_refused(findings: tuple[Finding, ...]) -> None:
    if findings:
        lines = [f"layer '{found.node}' ({found.op}): {found.detail}" for found in findings]
        more = f"\n{len(lines)} layers refused in all." if len(lines) > 1 else ""
        raise UnsupportedLayerError("\n".join(lines) + more, findings)


def _drop_skips(graph: Graph, notes: Notes) -> Graph:
    for node in graph:
        if isinstance(node, Skip):
            notes[node.name] = "does nothing in evaluation"
            graph = graph.without(node.name)
    for node in graph:
        idle = isinstance(node, Relu) and node.ceiling is None and not is_signed(node.inputs[0], graph)
        if idle and not _reads_input(node, graph):
            notes[node.name] = "does nothing: what it reads is never negative"
            graph = graph.without(node.name)
    return graph


def _reads_input(node: Node, graph: Graph) -> bool:
    source = graph[node.inputs[0]]
    return isinstance(source, Input) or (isinstance(source, Flatten) and _reads_input(source, graph))


def _fold_pads(graph: Graph, notes: Notes) -> Graph:
    for node in graph:
        readers = graph.consumers(node.name)
        if isinstance(node, Pad) and readers and all(isinstance(reader, Conv) for reader in readers):
            for reader in readers:
                graph = graph.put(widened(reader, node.sides)) if isinstance(reader, Conv) else graph
            notes[node.name] = "into the padding of " + " and ".join(f"'{reader.name}'" for reader in readers)
            graph = graph.without(node.name)
    return graph


def _fold_batchnorms(graph: Graph, notes: Notes) -> Graph:
    """Put norms into the weights before them, or into those behind them."""
    for name in [node.name for node in graph]:
        node = graph[name]
        if isinstance(node, BatchNorm):
            graph = _fold_batchnorm(node, graph, notes)
    return graph


def _batchnorms_to_layers(graph: Graph, notes: Notes) -> Graph:
    """Turn norms that no weights can take up into convolutions with one weight for each channel."""
    for node in graph:
        behind_sum = isinstance(node, BatchNorm) and isinstance(graph[node.inputs[0]], Add)
        if not isinstance(node, BatchNorm) or (behind_sum and is_signed(node.inputs[0], graph)):
            continue  # the sum of convolutions becomes one, and takes it up
        channels = node.out_shape[0]
        if len(node.scale) in (1, channels):
            weight = np.broadcast_to(node.scale, channels).reshape(-1, 1, 1, 1).astype(np.float32)
            bias = np.broadcast_to(node.shift, channels)
            alone = Conv(node.name, node.label, node.inputs, node.out_shape, weight, _bias(bias), groups=channels)
            notes[node.name] = "to a 1x1 convolution, one weight for each channel"
            graph = graph.put(alone)
    return graph


def _fold_batchnorm(node: BatchNorm, graph: Graph, notes: Notes) -> Graph:
    source = graph[node.inputs[0]]
    if isinstance(source, BatchNorm) and graph.consumers(source.name) == (node,):
        scale, shift = np.broadcast_arrays(source.scale * node.scale, source.shift * node.scale + node.shift)
        notes[source.name] = f"into '{node.name}'"
        merged = dataclasses.replace(node, inputs=source.inputs, scale=scale, shift=shift)
        return _fold_batchnorm(merged, graph.without(source.name).put(merged), notes)
    if isinstance(source, (Conv, Linear)) and graph.consumers(source.name) == (node,) and _fits(source, node):
        axes = (-1,) + (1,) * (source.weight.ndim - 1)
        weight = (source.weight * node.scale.reshape(axes)).astype(np.float32)
        shift = np.broadcast_to(node.shift, len(weight))
        bias = (0.0 if source.bias is None else source.bias * node.scale) + shift
        notes[node.name] = f"into the weights and bias of '{source.name}'"
        return graph.replaced(source.name, weight=weight, bias=_bias(bias)).without(node.name)
    readers = graph.consumers(node.name)
    if readers and all(_takes_affine(reader, node) for reader in readers):
        for reader in readers:
            graph = _fold_forward(node, reader, graph)
        notes[node.name] = "into the weights and bias of " + " and ".join(f"'{reader.name}'" for reader in readers)
        return graph.without(node.name)
    return graph


def _bias(bias: NDArray[np.float64]) -> NDArray[np.float32] | None:
    return bias.astype(np.float32) if np.any(bias) else None


def _fits(source: Conv | Linear, node: BatchNorm) -> bool:
    """Return whether the norm has one factor for each feature of the weights: not so behind a flattened map."""
    return len(node.scale) in (1, source.weight.shape[0])


def _takes_affine(reader: Node, node: BatchNorm) -> bool:
    """Return whether a factor and shift for each input channel can go into the weights of ``reader``.

    A shift cannot where zeros are padded: they are not shifted.
    """
    if isinstance(reader, Linear):
        return len(node.scale) in (1, reader.weight.shape[1])
    return isinstance(reader, Conv) and (
        not node.shift.any() or (reader.padding == (0, 0) and reader.upsample == (1, 1))
    )


def _fold_forward(node: BatchNorm, reader: Node, graph: Graph) -> Graph:
    if isinstance(reader, Linear):
        weight = reader.weight.astype(np.float64)
        scale, shift = np.broadcast_to(node.scale, weight.shape[1]), np.broadcast_to(node.shift, weight.shape[1])
        added = weight @ shift
        weight = weight * scale
    elif isinstance(reader, Conv):
        features, per_group = reader.weight.shape[:2]
        channels = per_group * reader.groups
        group = np.arange(features) // (features // reader.groups)
        own = group[:, None] * per_group + np.arange(per_group)[None, :]  # the channel behind weight [f, c]
        scale, shift = np.broadcast_to(node.scale, channels)[own], np.broadcast_to(node.shift, channels)[own]
        added = (reader.weight.sum(axis=(2, 3), dtype=np.float64) * shift).sum(axis=1)
        weight = reader.weight * scale[:, :, None, None]
    else:
        return graph
    bias = added if reader.bias is None else reader.bias + added
    return graph.replaced(reader.name, weight=weight.astype(np.float32), bias=_bias(bias))


def _pools_to_layers(graph: Graph, notes: Notes) -> Graph:
    """Give average pools whose windows overlap, or are padded, neurons of their own; the others stay what they are."""
    for node in graph:
        if isinstance(node, AvgPool) and (node.stride != node.kernel or node.padding != (0, 0)):
            if is_signed(node.inputs[0], graph):
                continue  # refused below
            channels, (ky, kx) = node.out_shape[0], node.kernel
            weight = np.full((channels, 1, ky, kx), 1 / (ky * kx), np.float32)
            inner = f"{node.name}.window"
            conv = Conv(inner, node.label, node.inputs, node.out_shape, weight, None, node.stride, node.padding)
            conv = dataclasses.replace(conv, groups=channels)
            graph = graph.inserted((conv,), before=node.name)
            graph = graph.put(Relu(node.name, node.label, (inner,), node.out_shape))
            notes[node.name] = "its windows overlap or are padded: to a spiking layer of its own"
    return graph


def _misplaced(graph: Graph) -> list[Finding]:
    """Return a finding for each node of a rewritten graph that cannot stand where it stands."""
    found = []
    for node in graph:
        problem = _problem(node, graph)
        if problem:
            found.append(Finding(node.name, node.label, "refused", problem))
    return found


def _problem(node: Node, graph: Graph) -> str | None:
    if isinstance(node, Input):
        return None
    if isinstance(node, Pad):
        return "pads with zeros in front of something that is no convolution. Try padding= of the next Conv2d."
    source = graph[node.inputs[0]]
    if isinstance(node, Relu):
        if isinstance(source, Input):
            return (
                "stands behind the input, which has no neurons. Try to leave it out: event counts are never negative."
            )
        if isinstance(source, Conv) and len(graph.consumers(source.name)) > 1:
            return f"'{source.name}' is also read without it: potentials cannot leave a neuron. Try one ReLU for all."
        return None
    signed = [name for name in node.inputs if is_signed(name, graph)]
    if not signed:
        return None
    if isinstance(node, Conv):
        return f"follows '{signed[0]}' without a ReLU between them. Try nn.ReLU() between the two, and train again."
    if isinstance(node, (AvgPool, SumPool)):
        return f"pools '{signed[0]}' before a ReLU. Try the ReLU first: spikes are pooled, not potentials."
    return f"reads '{signed[0]}' before a ReLU: negative values cannot be spikes. Try a ReLU in front of it."


_REWRITES: Mapping[str, Callable[[Graph, Notes], Graph]] = {
    "leave out what does nothing": _drop_skips,
    "zeros into paddings": _fold_pads,
    "rectify and normalize before concatenating": push_up_concats,
    "norms into weights": _fold_batchnorms,
    "linear layers as convolutions": lay_out_maps,
    "norms behind pools and flattens into weights": _fold_batchnorms,
    "norms as layers": _batchnorms_to_layers,
    "overlapping pools as layers": _pools_to_layers,
    "branches into one layer": merge_branches,
    "norms behind sums into weights": _fold_batchnorms,
    "branches behind different pools side by side": bank_branches,
}
