"""Where branches meet: sums before a rectifier become one convolution, sums and concatenations of spikes stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .geometry import Pair, Window
from .graph import Add, AvgPool, BatchNorm, Concat, Conv, Graph, Input, Linear, Node, Relu, SumPool
from .kernels import dense, dense_kernel

Notes = dict[str, str]


def push_up_concats(graph: Graph, notes: Notes) -> Graph:
    """Return the graph in which what is concatenated was rectified and normalized before.

    Law: the output is the same.
    """
    del notes  # the nodes keep their names and what they do
    changed = True
    while changed:
        changed = False
        for node in graph:
            if isinstance(node, (Relu, BatchNorm)) and isinstance(graph[node.inputs[0]], Concat):
                concat = graph[node.inputs[0]]
                if graph.consumers(concat.name) == (node,) and is_signed(concat.name, graph):
                    graph, changed = _pushed_up(node, concat, graph), True
                    break
    return graph


def is_signed(name: str, graph: Graph) -> bool:
    """Return whether a value may be negative: weights were applied to it, and no rectifier since."""
    node = graph[name]
    if isinstance(node, (Conv, Linear, BatchNorm)):
        return True
    return not isinstance(node, (Input, Relu)) and any(is_signed(source, graph) for source in node.inputs)


def _pushed_up(node: Relu | BatchNorm, concat: Node, graph: Graph) -> Graph:
    parts, first = [], 0
    for index, name in enumerate(concat.inputs):
        source = graph[name]
        changes: dict[str, object] = {
            "name": f"{node.name}.{index}",
            "inputs": (name,),
            "out_shape": source.out_shape,
        }
        if isinstance(node, BatchNorm) and len(node.scale) > 1:
            own = slice(first, first + source.out_shape[0])
            changes |= {"scale": node.scale[own], "shift": node.shift[own]}
        parts.append(dataclasses.replace(node, **changes))  # type: ignore[arg-type]
        first += source.out_shape[0]
    graph = graph.inserted(tuple(parts), before=node.name)
    joined = Concat(node.name, concat.label, tuple(part.name for part in parts), node.out_shape)
    nodes = tuple(other for other in graph.put(joined) if other.name != concat.name)
    return Graph(nodes, graph.output)


def merge_branches(graph: Graph, notes: Notes) -> Graph:
    """Return the graph in which every sum with unrectified operands is one convolution of all their inputs.

    Sums of spikes stay; what they add comes straight from neurons then.
    Law: the output is the same.
    """
    for name in [node.name for node in graph if isinstance(node, Add)]:
        if name in graph:
            graph = _flattened(name, graph, notes)
    for name in [node.name for node in graph]:
        node = graph[name] if name in graph else None  # noqa: SIM401  # a graph is no dict
        if isinstance(node, Add):
            if any(isinstance(graph[operand], Conv) for operand in node.inputs):
                graph = _merged(name, graph, notes)
            else:
                graph = _from_neurons(name, graph, notes)
        elif isinstance(node, Relu) and isinstance(graph[node.inputs[0]], (Add, Concat, AvgPool, SumPool, Relu)):
            graph = _bounded_spikes(node, graph)
            notes[name] = "to the neurons of a layer of its own, which passes spikes on"
    return _output_from_neurons(graph)


def _output_from_neurons(graph: Graph) -> Graph:
    """Give the input neurons of its own where it reaches the output beside layers: all must agree on a scale."""
    waiting, seen = [graph.output], set[str]()
    while waiting:
        node = graph[waiting.pop()]
        if node.name in seen or not isinstance(node, (Concat, Add, AvgPool, SumPool)):
            continue
        seen.add(node.name)
        for name in node.inputs:
            if isinstance(graph[name], Input):
                graph, relay = _relayed(name, (1, 1), graph, before=node.name)
                reads = tuple(relay if read == name else read for read in graph[node.name].inputs)
                graph = graph.replaced(node.name, inputs=reads)
        waiting += node.inputs
    return graph


def _bounded_spikes(node: Relu, graph: Graph) -> Graph:
    """Return the graph with a layer in front of a rectifier that bounds values which are never negative."""
    channels, *_ = node.out_shape
    weight = np.ones((channels, 1, 1, 1), np.float32)
    inner = f"{node.name}.weights"
    conv = Conv(inner, node.label, node.inputs, node.out_shape, weight, None, groups=channels)
    return graph.inserted((conv,), before=node.name).replaced(node.name, inputs=(inner,))


def _flattened(name: str, graph: Graph, notes: Notes) -> Graph:
    """Return the graph in which a sum lists the operands of sums that only it reads."""
    operands: list[str] = []
    for operand in graph[name].inputs:
        inner = graph[operand]
        if isinstance(inner, Add) and graph.consumers(operand) == (graph[name],):
            operands += inner.inputs
            notes[operand] = f"into '{name}'"
            graph = Graph(tuple(node for node in graph if node.name != operand), graph.output)
        else:
            operands.append(operand)
    return graph.replaced(name, inputs=tuple(operands))


@dataclasses.dataclass(frozen=True)
class _Branch:
    """One operand of a sum: a dense convolution of ``source``, or ``source`` itself as one."""

    source: str
    weight: NDArray[np.float32]
    stride: Pair
    padding: Pair


def _merged(name: str, graph: Graph, notes: Notes) -> Graph:
    add = graph[name]
    operands = [graph[operand] for operand in add.inputs]
    convs = [operand for operand in operands if isinstance(operand, Conv)]
    if any(len(graph.consumers(conv.name)) > 1 or conv.upsample != (1, 1) for conv in convs):
        return graph  # refused by the caller's last check
    if any(is_signed(operand.name, graph) and not isinstance(operand, Conv) for operand in operands):
        return graph
    features = add.out_shape[0]
    branches = [_branch(operand, features) for operand in operands]
    graph, branches = _same_stride(branches, graph, before=name)
    joined = _joined(branches, add.out_shape[1:], graph)
    if joined is None:
        return graph
    sources, weight, stride, padding = joined
    main = max(convs, key=lambda conv: conv.weight.size)
    biases = [conv.bias for conv in convs if conv.bias is not None]
    bias = np.sum(biases, axis=0).astype(np.float32) if biases else None
    read, added = _concatenated(sources, graph, f"{main.name}.inputs")
    merged = Conv(main.name, main.label, (read,), add.out_shape, weight, bias, stride, padding)
    graph = graph.inserted((*added, dataclasses.replace(merged, name=f"{main.name}.merged")), before=name)
    gone = {conv.name for conv in convs}
    nodes = (node for node in graph if node.name not in gone and node.name != name)
    renames = {name: main.name}
    graph = _renamed(Graph(tuple(nodes), graph.output), renames | {f"{main.name}.merged": main.name})
    notes |= {conv.name: f"into the weights of '{main.name}'" for conv in convs if conv is not main}
    notes[name] = f"added up by the neurons of '{main.name}'"
    return graph


def _renamed(graph: Graph, names: dict[str, str]) -> Graph:
    nodes = tuple(
        dataclasses.replace(
            node,
            name=names.get(node.name, node.name),
            inputs=tuple(names.get(read, read) for read in node.inputs),
        )
        for node in graph
    )
    return Graph(nodes, names.get(graph.output, graph.output))


def _branch(operand: Node, features: int) -> _Branch:
    if isinstance(operand, Conv):
        conv = dense(operand)
        return _Branch(conv.inputs[0], conv.weight, conv.stride, conv.padding)
    identity = np.eye(features, dtype=np.float32).reshape(features, features, 1, 1)
    return _Branch(operand.name, identity, (1, 1), (0, 0))


def _same_stride(branches: list[_Branch], graph: Graph, *, before: str) -> tuple[Graph, list[_Branch]]:
    """Give 1x1 convolutions with a stride a layer that passes on the pixels they read, where strides differ."""
    moves = {(branch.stride, graph[branch.source].out_shape[1:]) for branch in branches}
    if len(moves) == 1:
        return graph, branches
    even = []
    for branch in branches:
        if branch.stride != (1, 1) and branch.weight.shape[2:] == (1, 1) and branch.padding == (0, 0):
            graph, relay = _relayed(branch.source, branch.stride, graph, before=before)
            branch = _Branch(relay, branch.weight, (1, 1), (0, 0))
        even.append(branch)
    return graph, even


def _relayed(source: str, stride: Pair, graph: Graph, *, before: str) -> tuple[Graph, str]:
    """Return the graph with a layer that passes on every ``stride``-th pixel of ``source``, and its name."""
    name = f"{source}.relay" if stride == (1, 1) else f"{source}.relay{stride[0]}x{stride[1]}"
    neurons = f"{name}.spikes"
    if any(node.name == neurons for node in graph):
        return graph, neurons
    channels, height, width = graph[source].out_shape
    size = Window((1, 1), stride).out_size((height, width))
    weight = np.ones((channels, 1, 1, 1), np.float32)
    conv = Conv(name, "relay", (source,), (channels, *size), weight, None, stride, groups=channels)
    relu = Relu(neurons, "relay", (name,), (channels, *size))
    readers = [index for index, node in enumerate(graph) if node.name == source]
    after = graph.nodes[readers[0] + 1].name if readers[0] + 1 < len(graph) else before
    return graph.inserted((conv, relu), before=after), neurons


def _joined(
    branches: Sequence[_Branch], size: tuple[int, ...], graph: Graph
) -> tuple[list[str], NDArray[np.float32], Pair, Pair] | None:
    """Return sources, weights, stride and padding of the one convolution of all branches, or None if there is none."""
    moves = {(branch.stride, graph[branch.source].out_shape[1:]) for branch in branches}
    if len(moves) != 1:
        return None
    ((stride, in_size),) = moves
    rows, columns = (
        _common_taps([(b.padding[axis], b.weight.shape[2 + axis]) for b in branches], stride[axis], (edge, out))
        for axis, (edge, out) in enumerate(zip(in_size, size, strict=True))
    )
    if rows is None or columns is None:
        return None
    sources = list(dict.fromkeys(branch.source for branch in branches))
    blocks: dict[str, NDArray[np.float32]] = {}
    for branch in branches:
        ky, kx = branch.weight.shape[2:]
        top, left = rows[0] - branch.padding[0], columns[0] - branch.padding[1]
        block = np.pad(branch.weight, ((0, 0), (0, 0), (top, rows[1] - top - ky), (left, columns[1] - left - kx)))
        blocks[branch.source] = block if branch.source not in blocks else blocks[branch.source] + block
    weight = np.concatenate([blocks[source] for source in sources], axis=1).astype(np.float32)
    return sources, weight, stride, (rows[0], columns[0])


def _common_taps(kernels: list[tuple[int, int]], stride: int, edges: tuple[int, int]) -> tuple[int, int] | None:
    """Return padding and length of the shortest kernel that holds all of ``(padding, length)`` for one axis."""
    before = max(padding for padding, _ in kernels)
    after = max(length - 1 - padding for padding, length in kernels)
    for more in range(2 * stride + 1):  # a longer kernel moves the last place where it fits
        for first, last in ((before + more, after), (before, after + more)):
            length = first + last + 1
            if (edges[0] + 2 * first - length) // stride + 1 == edges[1]:
                return first, length
    return None


def _concatenated(sources: list[str], graph: Graph, name: str) -> tuple[str, tuple[Node, ...]]:
    if len(sources) == 1:
        return sources[0], ()
    shapes = [graph[source].out_shape for source in sources]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    return name, (Concat(name, "inputs side by side", tuple(sources), shape),)


def bank_branches(graph: Graph, notes: Notes) -> Graph:
    """Return the graph in which branches behind average pools of different areas are concatenated, no longer added.

    A sum of spikes makes its branches agree on how many spikes stand for 1, and a pool of area 4 asks for a quarter of
    them. Side by side each branch keeps its own: the convolution behind reads it by weights of its own, the same ones
    but for the area. That takes as many times the weights as there are branches, so equal pools stay added.
    Law: the output is the same.
    """
    for node in graph:
        areas = [_pool_areas(name, graph) for name in node.inputs] if isinstance(node, Add) else []
        readers = _weights_behind(node.name, graph) if any(area != areas[0] for area in areas) else None
        if readers is not None:
            graph = _side_by_side(graph[node.name], readers, graph)
            notes[node.name] = "side by side instead, because their average pools differ: each has weights of its own"
    return graph


def _pool_areas(name: str, graph: Graph) -> frozenset[int]:
    """Return the areas of the average pools between a value and the neurons or the input that it comes from."""
    node = graph[name]
    if isinstance(node, (Conv, Input)):
        return frozenset({1})
    area = node.kernel[0] * node.kernel[1] if isinstance(node, AvgPool) else 1
    return frozenset(area * behind for source in node.inputs for behind in _pool_areas(source, graph))


def _weights_behind(name: str, graph: Graph) -> list[Node] | None:
    """Return pools and convolutions that a value reaches, or None where it reaches anything else, or the output."""
    found: list[Node] = []
    waiting = [name]
    while waiting:
        reached = waiting.pop()
        readers = graph.consumers(reached)
        if reached == graph.output or not all(isinstance(node, (Conv, AvgPool, SumPool)) for node in readers):
            return None
        found += readers
        waiting += [node.name for node in readers if not isinstance(node, Conv)]
    return found


def _side_by_side(add: Node, readers: list[Node], graph: Graph) -> Graph:
    n_banks = len(add.inputs)
    wide = (n_banks * add.out_shape[0], *add.out_shape[1:])
    graph = graph.put(Concat(add.name, add.label, add.inputs, wide))
    for node in readers:
        if isinstance(node, Conv):
            weight = dense_kernel(node.weight, groups=node.groups)
            graph = graph.replaced(node.name, weight=np.concatenate([weight] * n_banks, axis=1), groups=1)
        else:
            graph = graph.replaced(node.name, out_shape=(wide[0], *node.out_shape[1:]))
    return graph


def _from_neurons(name: str, graph: Graph, notes: Notes) -> Graph:
    """Give operands of a sum of spikes neurons of their own where they come from the input or a concatenation.

    The layers that are added must agree on how many spikes stand for 1, which the input cannot.
    """
    reads = []
    for operand in graph[name].inputs:
        if _is_of_neurons(operand, graph):
            reads.append(operand)
        else:
            graph, relay = _relayed(operand, (1, 1), graph, before=name)
            reads.append(relay)
    if any(isinstance(graph[operand], (Conv, BatchNorm)) for operand in reads):
        return graph
    notes[name] = "both send their spikes to the same inputs"
    return graph.replaced(name, inputs=tuple(reads))


def _is_of_neurons(name: str, graph: Graph) -> bool:
    node = graph[name]
    if isinstance(node, (AvgPool, SumPool)):
        return _is_of_neurons(node.inputs[0], graph)
    if isinstance(node, Add):
        return all(_is_of_neurons(operand, graph) for operand in node.inputs)
    return not isinstance(node, (Input, Concat))
