"""What became of each node of the CNN: one finding each."""

from __future__ import annotations

from collections.abc import Mapping

from .graph import AvgPool, Concat, Conv, Finding, Graph, Input, Linear, Node, Relu, Status, SumPool


def findings(
    graph: Graph, scaled: Graph, *, notes: Mapping[str, str], replaced: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Return what became of each node of the captured graph, in its order.

    ``scaled`` is the graph after all rewrites, ``notes`` are those of folding; ``replaced`` gives the replacement of
    nodes that the user had replaced.
    """
    found = []
    for node in graph:
        finding = _finding(node, graph, scaled, notes.get(node.name, ""))
        if node.name in replaced:
            name = replaced[node.name]
            finding = Finding(node.name, node.label, "replaced", f"{name}: {finding.detail}")
        found.append(finding)
    return tuple(found)


def _finding(node: Node, graph: Graph, scaled: Graph, note: str) -> Finding:
    rewritten = scaled[node.name] if node.name in scaled else None  # noqa: SIM401  # a graph is no dict
    status, text = _status(rewritten or node, graph, scaled, note)
    return Finding(node.name, node.label, status, text)


def _status(node: Node, graph: Graph, scaled: Graph, note: str) -> tuple[Status, str]:
    match node:
        case Input():
            return "passed through", f"events on {'x'.join(map(str, node.out_shape))}"
        case Conv() if node.name in scaled:
            return "converted", _layer_note(node, note, scaled)
        case Relu() if note:
            return ("passed through" if note.startswith("does nothing") else "converted"), note
        case Relu():
            return "converted", f"to the neurons of {_weights_before(node, graph)}{_bound_note(graph[node.name])}"
        case SumPool():
            return _pool_status(graph[node.name], scaled)
        case Concat():
            return "passed through", note or "features side by side"
    if note.startswith(("into", "added")):
        return "folded", note
    return "passed through", note or "has no neurons"


def _bound_note(node: Node) -> str:
    ceiling = node.ceiling if isinstance(node, Relu) else None
    if ceiling is None:
        return ""
    bound = f"{ceiling:g}" if isinstance(ceiling, float) else "for each feature"
    return f"; its upper bound {bound} is not kept: neurons have none"


def _pool_status(node: Node, scaled: Graph) -> tuple[Status, str]:
    if not isinstance(node, AvgPool):
        return "passed through", "sum pool between two layers"
    area = node.kernel[0] * node.kernel[1]
    if any(isinstance(reader, Conv) for reader in _readers(node.name, scaled)):
        return "folded", f"to a sum pool; 1/{area} into the weights behind it"
    return "folded", f"to a sum pool at the output, {area} times the average"


def _readers(name: str, scaled: Graph) -> list[Node]:
    """Return the nodes that read a value, looking through pools, sums and concatenations."""
    found: list[Node] = []
    for reader in scaled.consumers(name):
        found += [reader] if isinstance(reader, Conv) else _readers(reader.name, scaled)
    return found


def _layer_note(node: Conv, note: str, scaled: Graph) -> str:
    features, height, width = node.out_shape
    text = f"to {features * height * width} integrate-and-fire neurons {features}x{height}x{width}"
    text += f" {note}" if note else ""
    text += "; its bias is added once per time step or leak tick" if node.bias is not None else ""
    if any(isinstance(reader, Relu) for reader in scaled.consumers(node.name)):
        return text
    return f"{text}; the CNN ends here without a ReLU: a spiking output layer was added"


def _weights_before(node: Node, graph: Graph) -> str:
    """Return the names of the weight layers whose sums a rectifier reads."""
    names, waiting = [], list(node.inputs)
    while waiting:
        source = graph[waiting.pop(0)]
        if isinstance(source, (Conv, Linear)):
            names.append(f"'{source.name}'")
        elif not isinstance(source, Relu):
            waiting += source.inputs
    return " and ".join(dict.fromkeys(names)) or "a layer of its own"
