"""Layers without spiking counterpart, replaced where the user asks for it."""

from __future__ import annotations

import dataclasses

from .errors import InputError
from .graph import Graph, Unknown


def replace(graph: Graph, names: tuple[str, ...]) -> tuple[Graph, dict[str, str]]:
    """Return the graph with the substitutes called ``names`` in place, and the name of the substitute of each node.

    This changes the function of the CNN; ``Conversion.replacement`` says how much.
    Raises: InputError for a name that no layer of the graph has a substitute for.
    """
    replaced: dict[str, str] = {}
    offered = {node.substitute[0] for node in graph if isinstance(node, Unknown) and node.substitute}
    unknown = [name for name in names if name not in offered]
    if unknown:
        here = f"here {', '.join(sorted(offered))} would change something" if offered else "no layer here needs one"
        raise InputError(f"replace: expected replacements of layers of this CNN, found {', '.join(unknown)}; {here}.")
    for node in graph:
        if isinstance(node, Unknown) and node.substitute and node.substitute[0] in names:
            name, stand_in = node.substitute
            replaced[node.name] = name
            graph = graph.put(dataclasses.replace(stand_in, name=node.name, inputs=node.inputs))
    return graph, replaced
