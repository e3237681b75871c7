"""A NIR file as plain nodes and edges, read with suspicion: nothing here knows what the nodes mean."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spikeport.convert.errors import NetFileError, UnsupportedLayerError
from spikeport.convert.graph import Finding

MAX_BYTES = 1 << 30
"""Of the file, and of its arrays together once they are unpacked."""

_MAX_ITEMS = 100_000
_MAX_DEPTH = 24
_HEAP = b"GCOL\x01\x00\x00\x00"
"""What a global heap of HDF5 begins with: signature, version 1, three zeros."""

Fields = dict[str, Any]
Sides = Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class NirNode:
    """One node of a NIR file; ``fields`` holds its arrays and texts by name, ``metadata`` what its writer added."""

    name: str
    kind: str
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class NirFile:
    """The nodes of a NIR file in topological order, subgraphs laid open.

    ``inputs`` and ``outputs`` give the nodes that a node reads and those that read it, in the order of the file.
    """

    name: str
    nodes: tuple[NirNode, ...]
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, Any]


def read_nir_file(path: str | Path) -> NirFile:
    """Return the nodes and edges of the NIR file at ``path``.

    The file is read here and not by the ``nir`` package, which follows links out of the file, checks with ``assert``,
    and refuses what other versions of itself wrote.
    Raises: NetFileError where the file is missing, foreign or damaged; UnsupportedLayerError for a cycle.
    """
    file = Path(path)
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise NetFileError(f"{file.name}: expected a NIR file there, found {found}. Try another path.")
    if file.stat().st_size > MAX_BYTES:
        size = file.stat().st_size
        raise NetFileError(f"{file.name}: expected at most {MAX_BYTES} bytes, found {size}. Try a smaller net.")
    try:
        check_heaps(file.read_bytes())
        tree = _tree(file)
        nodes, edges = _laid_open(_graph_of(tree, "the graph"), "", 0)
        names = {node.name for node in nodes}
        if len(names) < len(nodes):
            raise ValueError("two nodes have the same name")
        for source, target in edges:
            if source not in names or target not in names:
                missing = source if source not in names else target
                raise ValueError(f"edge '{source}' -> '{target}': expected two nodes of the file, '{missing}' is none")
    except ValueError as cause:
        raise NetFileError(f"{file.name}: {_sentence(cause)}. Try writing the file again.") from cause
    inputs, outputs = _sides(edges)
    by_name = {node.name: node for node in nodes}
    order = _order(tuple(by_name), inputs, outputs)
    if len(order) < len(nodes):
        raise _recurrent(file.name, by_name, _cycle(set(by_name) - set(order), inputs))
    metadata = _mapping(tree.get("metadata"))
    return NirFile(file.name, tuple(by_name[name] for name in order), inputs, outputs, metadata)


def check_heaps(content: bytes) -> None:
    """Check that the objects of each global heap, where HDF5 keeps texts, follow one another up to its end.

    The library walks them without looking, and never comes to an end where one has no size.
    Raises: ValueError where they do not.
    Source: HDF5 file format specification 3.0, III.E; measured 2026-11-22 with HDF5 2.0: a size of 0 runs on for ever.
    """
    start = content.find(_HEAP)
    while start >= 0:
        end = start + int.from_bytes(content[start + 8 : start + 16], "little")
        place = start + 16
        while place + 16 <= min(end, len(content)):
            index, size = (int.from_bytes(content[place + i : place + i + n], "little") for i, n in ((0, 2), (8, 8)))
            step = 16 + (size + 7) // 8 * 8 if index else size
            if step < 16 or place + step > end:
                raise ValueError("expected a NIR file, found a damaged heap of texts in it")
            place += step
        start = content.find(_HEAP, start + 4)


def _tree(file: Path) -> Fields:
    """Return the HDF5 file below ``node`` as nested dictionaries of arrays and texts."""
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            root = opened.get("node", getlink=True)
            if not isinstance(root, h5py.HardLink) or not isinstance(opened["node"], h5py.Group):
                raise ValueError("expected a NIR file, found an HDF5 file without a group 'node'")
            budget = {"items": _MAX_ITEMS, "bytes": MAX_BYTES}
            return _group(opened["node"], budget, _MAX_DEPTH)
    except ValueError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, AttributeError, MemoryError, RecursionError) as cause:
        raise ValueError(f"expected a NIR file, found a damaged or foreign one ({_sentence(cause)})") from cause


def _sentence(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0].rstrip(".")[:120]


def _group(group: Any, budget: dict[str, int], depth: int) -> Fields:
    import h5py

    if depth == 0:
        raise ValueError(f"expected subgraphs nested less than {_MAX_DEPTH // 2} deep, found more")
    found: Fields = {}
    for key in group:
        budget["items"] -= 1
        if budget["items"] < 0:
            raise ValueError(f"expected at most {_MAX_ITEMS} entries, found more")
        if not key.isprintable():
            raise ValueError(f"expected names of plain text, found {key!r:.60}")
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ValueError(f"'{key}' is a link to elsewhere, which is not followed")
        item = group[key]
        if isinstance(item, h5py.Group):
            found[key] = _group(item, budget, depth - 1)
        elif isinstance(item, h5py.Dataset):
            found[key] = _dataset(key, item, budget)
        else:
            raise ValueError(f"'{key}': expected a group or an array, found {type(item).__name__}")
    return found


def _dataset(key: str, dataset: Any, budget: dict[str, int]) -> Any:
    import h5py

    if dataset.external or dataset.is_virtual:
        raise ValueError(f"'{key}' lies in another file, which is not read")
    if dataset.shape is None:
        raise ValueError(f"'{key}' is empty")
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    if not is_text and dataset.dtype.kind not in "biuf":
        raise ValueError(f"'{key}': expected numbers or text, found {dataset.dtype}")
    budget["bytes"] -= int(np.prod(dataset.shape, dtype=np.float64)) * dataset.dtype.itemsize
    if budget["bytes"] < 0:
        raise ValueError(f"expected at most {MAX_BYTES} bytes of arrays, found more")
    value = dataset[()]
    if not is_text:
        return np.asarray(value)
    texts = np.vectorize(_text, otypes=[object])(np.asarray(value, object))
    return texts.item() if texts.ndim == 0 else texts


def _text(value: object) -> str:
    return value.decode("utf8", "replace") if isinstance(value, bytes) else str(value)


def _graph_of(tree: Fields, where: str) -> Fields:
    if tree.get("type") != "NIRGraph" or not isinstance(tree.get("nodes"), dict) or "edges" not in tree:
        raise ValueError(f"{where}: expected a NIRGraph with nodes and edges, found {tree.get('type')!r:.40}")
    return tree


def _laid_open(tree: Fields, prefix: str, depth: int) -> tuple[list[NirNode], list[tuple[str, str]]]:
    """Return the nodes and edges of a graph; a subgraph's input and output become nodes that do nothing."""
    nodes: list[NirNode] = []
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, str]] = {}
    for name, entry in tree["nodes"].items():
        full = prefix + name
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise ValueError(f"node '{full}': expected a type, found none")
        kind = entry["type"]
        if kind == "NIRGraph":
            inner, between = _laid_open(_graph_of(entry, f"node '{full}'"), f"{full}.", depth + 1)
            ends[name] = (_only(inner, f"{full}.", "Input", full), _only(inner, f"{full}.", "Output", full))
            nodes += [_passing(node, full) for node in inner]
            edges += between
            continue
        fields = {key: value for key, value in entry.items() if key not in ("type", "metadata")}
        nodes.append(NirNode(full, kind, fields, _mapping(entry.get("metadata"))))
    own = set(tree["nodes"])
    for source, target in _pairs(tree["edges"], prefix):
        first = ends[source][1] if source in ends else prefix + source if source in own else source
        last = ends[target][0] if target in ends else prefix + target if target in own else target
        edges.append((first, last))
    return nodes, edges


def _only(nodes: list[NirNode], prefix: str, kind: str, where: str) -> str:
    found = [node.name for node in nodes if node.kind == kind and "." not in node.name.removeprefix(prefix)]
    if len(found) != 1:
        raise ValueError(f"subgraph '{where}': expected one {kind}, found {len(found)}")
    return found[0]


def _passing(node: NirNode, subgraph: str) -> NirNode:
    """Return an end of a subgraph as a node that does nothing."""
    is_end = node.kind in ("Input", "Output") and "." not in node.name.removeprefix(f"{subgraph}.")
    return dataclasses.replace(node, kind="Identity") if is_end else node


def _pairs(edges: object, prefix: str) -> Iterator[tuple[str, str]]:
    array = np.asarray(edges, object)
    if array.size == 0:
        return
    if array.ndim != 2 or array.shape[1] != 2 or not all(isinstance(name, str) for name in array.ravel()):
        raise ValueError(f"edges{f' of {prefix[:-1]}' if prefix else ''}: expected pairs of names, found {array.shape}")
    yield from ((str(source), str(target)) for source, target in array)


def _mapping(metadata: object) -> Fields:
    return dict(metadata) if isinstance(metadata, dict) else {}


def _sides(edges: list[tuple[str, str]]) -> tuple[Sides, Sides]:
    """Return what each node reads and what reads it; NIR's edges are a set, so that repeated ones count once."""
    inputs, outputs = collections.defaultdict(list), collections.defaultdict(list)
    for source, target in dict.fromkeys(edges):
        inputs[target].append(source)
        outputs[source].append(target)
    return _closed(inputs), _closed(outputs)


def _closed(sides: Mapping[str, list[str]]) -> Sides:
    return {name: tuple(others) for name, others in sides.items()}


def _order(names: tuple[str, ...], inputs: Sides, outputs: Sides) -> list[str]:
    """Return the names so that each stands behind what it reads, without those in or behind a cycle.

    HDF5 keeps names in no order that means anything: 2 comes before 10 here.
    """
    waiting = {name: len(inputs.get(name, ())) for name in names}
    ready = [(_natural(name), name) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    done: list[str] = []
    while ready:
        _, name = heapq.heappop(ready)
        done.append(name)
        for reader in outputs.get(name, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, (_natural(reader), reader))
    return done


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]


def _cycle(within: set[str], inputs: Sides) -> list[str]:
    """Return the nodes of one cycle; each of ``within`` reads another one of them."""
    trail: list[str] = []
    name = min(within)
    while name not in trail:
        trail.append(name)
        name = next(source for source in inputs[name] if source in within)
    return trail[trail.index(name) :][::-1]


def _recurrent(file: str, nodes: Mapping[str, NirNode], cycle: list[str]) -> UnsupportedLayerError:
    path = " -> ".join(f"'{name}'" for name in (*cycle, cycle[0]))
    first = nodes[cycle[0]]
    detail = f"recurrent: {path}; nets here are feed-forward. Try a net without recurrence."
    finding = Finding(first.name, first.kind, "refused", detail)
    return UnsupportedLayerError(f"{file}: node '{first.name}' ({first.kind}): {detail}", (finding,))
