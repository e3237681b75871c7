"""Layers without spiking counterpart, replaced where the user asks for it."""

from __future__ import annotations

import dataclasses

from .advice import REPLACEMENTS
from .errors import InputError
from .graph import Graph, Unknown


def replace(graph: Graph, names: tuple[str, ...]) -> tuple[Graph, dict[str, str]]:
    """Return the graph with the substitutes called ``names`` in place, and the name of the substitute of each node.

    ``names`` are of ``REPLACEMENTS``: ``maxpool=avgpool`` puts average pools where maximum pools were. This changes the
    function of the CNN; ``Conversion.replacement`` says how much.
    Law: every other node stays; a replaced node keeps its name, inputs and shape.
    Raises: InputError for names that are not known, or that no layer of the graph has a substitute for.
    """
    strange = [name for name in names if name not in REPLACEMENTS]
    if strange:
        raise InputError(
            f"replace: expected some of {', '.join(REPLACEMENTS)}, found {', '.join(map(repr, strange))}. "
            f"Try {REPLACEMENTS[0]}."
        )
    substitutes = {node.name: node.substitute for node in graph if isinstance(node, Unknown) and node.substitute}
    offered = {name for name, _ in substitutes.values()}
    idle = [name for name in names if name not in offered]
    if idle:
        here = " and ".join(sorted(offered - set(names)))
        raise InputError(
            f"replace: expected replacements of layers of this CNN, found {', '.join(idle)}, which changes none. "
            f"Try {here or 'without it'}."
        )
    replaced: dict[str, str] = {}
    for node, (name, stand_in) in substitutes.items():
        if name in names:
            replaced[node] = name
            graph = graph.put(dataclasses.replace(stand_in, name=node, inputs=graph[node].inputs))
    return graph, replaced
