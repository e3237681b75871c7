"""A NIR file to SpikingNet: each IF node with the weights in front of it becomes a layer."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spikeport.convert.errors import InputError, InvalidNetError, NetFileError, UnsupportedLayerError
from spikeport.convert.geometry import Shape3
from spikeport.convert.graph import Finding, Status
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet

from .currents import Arrival, Current, Term, added, joined, regrouped, scaled
from .nir_file import NirFile, NirNode, read_nir_file
from .nir_neurons import NEURONS, Neurons, Reading, RefusedError, neurons
from .nir_nodes import WEIGHTS, input_shape_of, passed_on, whole

_PASSED: Status = "passed through"

_Kept = TypeVar("_Kept", list[Any], dict[str, Any])


@dataclasses.dataclass(frozen=True)
class NirImport:
    """A spiking net read from a NIR file, and what became of each node of the file."""

    net: SpikingNet
    findings: tuple[Finding, ...]


def load_nir(
    path: str | Path,
    *,
    input_shape: Shape3 | None = None,
    dt_s: float | None = None,
    v_min: float | None = None,
    replace: Sequence[str] = (),
) -> SpikingNet:
    """Return the spiking net in a NIR file; see ``read_nir`` for the options and the conventions of other writers.

    Law: ``load_nir`` gives back what ``save_nir`` wrote.
    """
    return read_nir(path, input_shape=input_shape, dt_s=dt_s, v_min=v_min, replace=replace).net


def read_nir(
    path: str | Path,
    *,
    input_shape: Shape3 | None = None,
    dt_s: float | None = None,
    v_min: float | None = None,
    replace: Sequence[str] = (),
) -> NirImport:
    """Return the spiking net in a NIR file, with one finding per node of the file.

    NIR leaves open how time becomes steps, so writers differ; what is read as what:
    - A spike is an impulse that adds its weight times ``r`` (sinabs, Norse: ``r`` is 1), and a bias is added once per
      step. SpikingJelly and snnTorch take it as a current over a step of ``dt``, with ``r`` one over ``dt`` of 0.1 ms:
      an ``r`` of 10000 is 1. Any other step needs ``dt_s``; ``r`` is then multiplied by it.
    - An IF node keeps what is left over its threshold, as NIR up to 1.0.5 says and sinabs and snnTorch do. NIR from
      1.0.6 on sets the potential to ``v_reset``, as Norse and SpikingJelly do; a ``v_reset`` of 0 is read all the same,
      said in the finding, because snnTorch writes it too. Any other is refused.
    - In one step neurons here fire as often as whole thresholds fit, those of snnTorch, Norse and SpikingJelly once.
    - Norse and snnTorch fire above the threshold, sinabs, SpikingJelly and this package at it.
    - snnTorch writes ``Leaky`` neurons as LIF. With a beta of 1 (tau endless) or a tau of 1000 s and more they are IF
      neurons; others need ``replace=("lif=if",)``.
    Shapes: ``input_shape`` is ``(C, H, W)``; needed where neither the Input node nor a Conv2d says it.
    Units: ``dt_s`` in seconds; ``v_min``, for files without one, in thresholds (None: no bound).
    Raises: NetFileError, UnsupportedLayerError, WeightValueError; InputError for an option.
    """
    reading = Reading(dt_s, v_min, tuple(replace))
    if input_shape is not None and (len(input_shape) != 3 or min(input_shape) < 1):
        raise InputError(f"input_shape: expected (channels, height, width), found {tuple(input_shape)}.")
    file = read_nir_file(path)
    try:
        with np.errstate(all="ignore"):  # weights that overflow are refused by the records
            return _assembled(file, reading, input_shape)
    except InvalidNetError as cause:
        raise NetFileError(f"{file.name}: {cause}") from cause


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer, what arrives at it, and its place in the net as our own writer kept it (-1: not kept)."""

    record: SpikingLayer
    arrivals: tuple[Arrival, ...]
    rank: int = -1


@dataclasses.dataclass
class _Assembly:
    """What was read so far: the value behind each node, None where it is refused, and the layers."""

    file: NirFile
    reading: Reading
    values: dict[str, Current | None] = dataclasses.field(default_factory=dict)
    layers: list[_Layer] = dataclasses.field(default_factory=list)
    ends: list[tuple[Current, int]] = dataclasses.field(default_factory=list)

    def add(self, layer: _Layer, *, is_flat: bool) -> Current:
        """Take a layer in and return its spikes."""
        self.layers.append(layer)
        shape = layer.record.out_shape
        return Current(shape, (Term(len(self.layers) - 1, shape[1:]),), is_flat=is_flat)


def _assembled(file: NirFile, reading: Reading, input_shape: Shape3 | None) -> NirImport:
    so_far = _Assembly(file, reading)
    used = _used(file)
    found: list[Finding] = []
    for node in file.nodes:
        sources = file.inputs.get(node.name, ())
        currents = [current for current in map(so_far.values.get, sources) if current is not None]
        current, status, note = None, _PASSED, "reads a node that is refused"
        if node.name not in used:
            note = "left out: no output depends on it"
        elif len(currents) == len(sources):
            try:
                given = _input(node, file, input_shape) if node.kind == "Input" else _sum(currents)
                current, status, note = _read(node, given, so_far)
            except RefusedError as refusal:
                status, note = "refused", str(refusal)
        so_far.values[node.name] = current
        found.append(Finding(node.name, node.kind, status, note))
    _raise_refused(file, found)
    return NirImport(_net(so_far), tuple(found))


def _used(file: NirFile) -> set[str]:
    """Return the nodes that an output depends on, and the inputs."""
    waiting = [node.name for node in file.nodes if node.kind == "Output"]
    if not waiting:
        raise NetFileError(f"{file.name}: expected an Output node, found none. Try writing the file again.")
    used = {node.name for node in file.nodes if node.kind == "Input"}
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += file.inputs.get(name, ())
    return used


def _input(node: NirNode, file: NirFile, input_shape: Shape3 | None) -> Current:
    n_inputs = sum(other.kind == "Input" for other in file.nodes)
    if n_inputs > 1:
        raise RefusedError(f"it is one of {n_inputs} inputs", "Try a net with one input.")
    shape = input_shape_of(node, file, input_shape)
    return Current(shape, (Term(INPUT, shape[1:]),))


def _sum(currents: Sequence[Current]) -> Current:
    if not currents:
        raise RefusedError("nothing feeds it", "Try an edge that leads to it.")
    shapes = sorted({current.shape for current in currents})
    if len(shapes) > 1:
        raise RefusedError(f"it adds up maps of {' and '.join(map(str, shapes))}", "Try maps of one size.")
    return added(currents)


def _read(node: NirNode, given: Current, so_far: _Assembly) -> tuple[Current, Status, str]:
    """Return what leaves a node that is given ``given``, and what to say of it."""
    if node.kind == "Input":
        return given, _PASSED, f"events on {'x'.join(map(str, given.shape))}"
    if node.kind == "Output":
        shifts = _json(so_far.file.metadata, "spikeport_outputs", {})
        shift = whole(shifts, node.name, 0)
        if so_far.ends and node.name not in shifts:
            raise RefusedError("it is one of several outputs", "Try one output.")
        if not given.is_weighted:
            so_far.ends.append((given, shift))
            return given, _PASSED, _end_note(given)
        cells = Neurons(1.0, so_far.reading.v_min, None, None, ())
        spikes = so_far.add(_layer(node, given, cells, so_far), is_flat=given.is_flat)
        so_far.ends.append((spikes, shift))
        return spikes, _PASSED, "no neurons in front of it: a spiking output layer of threshold 1 was added"
    if node.kind not in NEURONS:
        return passed_on(node, given)
    cells = neurons(node, given.shape, so_far.reading)
    spikes = so_far.add(_layer(node, given, cells, so_far), is_flat=given.is_flat)
    text = f"to {math.prod(given.shape)} integrate-and-fire neurons {'x'.join(map(str, given.shape))}"
    return spikes, "converted", "; ".join((text, *cells.notes))


def _end_note(given: Current) -> str:
    factors = [term.gain for term in given.terms if term.gain is not None]
    if any((factor != factors[0][0]).any() for factor in factors) or len(factors) not in (0, len(given.terms)):
        raise RefusedError(
            "what it reads is scaled, for some features otherwise", "Try a Scale in front of the last layer."
        )
    return "the spikes of the net" + (" without the factor behind them" if factors else "")


def _layer(node: NirNode, current: Current, cells: Neurons, so_far: _Assembly) -> _Layer:
    if cells.factor is not None:
        current = scaled(current, cells.factor)
    found = joined(current)
    if found is None:
        raise RefusedError(
            "it adds up what kernels of different reach give", "Try kernels of one stride with one center."
        )
    kernel = regrouped(found.kernel, whole(node.metadata, "groups", 1))
    has_bias = current.bias is not None and (np.any(current.bias) or whole(node.metadata, "has_bias", 0) == 1)
    record = SpikingLayer(
        name=_name(node, so_far),
        weight=kernel.weight,
        bias=current.bias if has_bias else None,
        stride=kernel.stride,
        padding=kernel.padding,
        threshold=cells.threshold,
        v_min=cells.v_min,
        in_shape=found.in_shape,
        out_shape=current.shape,
        dilation=kernel.dilation,
        groups=kernel.groups,
        v_init=cells.v_init,
    )
    return _Layer(record, found.arrivals, whole(node.metadata, "index", -1))


def _name(node: NirNode, so_far: _Assembly) -> str:
    """Return our own writer's name of a layer, or that of the weights that only it reads, or its own."""
    kept = node.metadata.get("layer")
    taken = {layer.record.name for layer in so_far.layers}
    if isinstance(kept, str) and kept and kept not in taken:
        return kept
    sources = so_far.file.inputs[node.name]
    before = next((other for other in so_far.file.nodes if other.name == sources[0]), node)
    owner = before if len(sources) == 1 and before.kind in WEIGHTS and before.name not in taken else node
    kind = owner.kind.lower().removesuffix("2d").removesuffix("1d")
    name = f"{kind}{owner.name}" if owner.name.isdecimal() else owner.name
    return name if name not in taken else f"{name}@{len(taken) + 1}"


def _net(so_far: _Assembly) -> SpikingNet:
    layers = so_far.layers
    order = list(range(len(layers)))
    if sorted(layer.rank for layer in layers) == order:
        order = [int(index) for index in np.argsort([layer.rank for layer in layers])]
    place = {old: new for new, old in enumerate(order)} | {INPUT: INPUT}
    edges = [
        Edge(place[arrival.source], place[index], arrival.pool, arrival.shift)
        for index in order
        for arrival in layers[index].arrivals
    ]
    edges += [
        Edge(place[term.source], None, term.pool, shift) for current, shift in so_far.ends for term in current.terms
    ]
    records = tuple(layers[index].record for index in order)
    return SpikingNet(records, _in_kept_order(edges, so_far.file.metadata), _input_shape(so_far))


def _input_shape(so_far: _Assembly) -> Shape3:
    given = next(node for node in so_far.file.nodes if node.kind == "Input")
    current = so_far.values[given.name]
    if current is None:  # refused before
        raise NetFileError(f"{so_far.file.name}: expected an Input node, found none. Try writing the file again.")
    return current.shape


def _in_kept_order(edges: list[Edge], metadata: Mapping[str, Any]) -> tuple[Edge, ...]:
    """Return the edges in the order that our own writer kept, where they are the same ones."""
    kept = _json(metadata, "spikeport_edges", [])
    found = [[edge.source, edge.target, list(edge.pool), edge.feature_shift] for edge in edges]
    if len(kept) != len(found) or any(entry not in kept for entry in found):
        return tuple(edges)
    return tuple(edges[index] for index in sorted(range(len(edges)), key=lambda index: kept.index(found[index])))


def _json(metadata: Mapping[str, Any], key: str, missing: _Kept) -> _Kept:
    """Return what our own writer kept as JSON, or ``missing`` for anything else."""
    try:
        kept = json.loads(metadata[key]) if isinstance(metadata.get(key), str) else missing
    except (ValueError, RecursionError):
        return missing
    return kept if type(kept) is type(missing) else missing


def _raise_refused(file: NirFile, found: Sequence[Finding]) -> None:
    refused = tuple(finding for finding in found if finding.status == "refused")
    if refused:
        lines = [f"{file.name}: node '{finding.node}' ({finding.op}): {finding.detail}" for finding in refused]
        more = f"\n{len(lines)} nodes refused in all." if len(lines) > 1 else ""
        raise UnsupportedLayerError("\n".join(lines) + more, refused)
