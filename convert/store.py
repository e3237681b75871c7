"""SpikingNet to one file and back: tensors ``layer<i>/weight`` and ``layer<i>/bias``, the rest JSON in the header."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.atomic import write_atomic
from spikeport.models.errors import TensorFileError
from spikeport.models.tensorfile import pack, unpack

from .errors import InvalidNetError, NetFileError
from .types import Edge, SpikingLayer, SpikingNet

FORMAT = 1

_LAYER_FIELDS = {"name", "stride", "padding", "threshold", "v_min", "in_shape", "out_shape"}
_EDGE_FIELDS = {"source", "target", "pool", "feature_shift"}


def net_bytes(net: SpikingNet, notes: Mapping[str, Any] | None = None) -> bytes:
    """Return the bytes of the file of ``net``; ``notes`` (findings, options) are kept beside it.

    Law: equal nets and notes give equal bytes.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for index, layer in enumerate(net.layers):
        tensors[f"layer{index}/weight"] = layer.weight
        if layer.bias is not None:
            tensors[f"layer{index}/bias"] = layer.bias
    header = {
        "input_shape": net.input_shape,
        "layers": [{key: getattr(layer, key) for key in _LAYER_FIELDS} for layer in net.layers],
        "edges": [{key: getattr(edge, key) for key in _EDGE_FIELDS} for edge in net.edges],
        "notes": dict(notes or {}),
    }
    return pack(tensors, header, kind="net", version=FORMAT)


def net_hash(net: SpikingNet) -> str:
    """Return the SHA-256 of the net, without any notes."""
    return hashlib.sha256(net_bytes(net)).hexdigest()


def save_net(net: SpikingNet, path: str | Path, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write ``net`` to one file, whole or not at all.

    Law: ``load_net(path).same(net)``.
    """
    write_atomic(path, net_bytes(net, notes))


def load_net(path: str | Path) -> SpikingNet:
    """Return the net in the file at ``path``.

    Raises: NetFileError where the file is missing, foreign, damaged, of another version, or breaks the rules of a net.
    """
    return load_net_with_notes(path)[0]


def load_net_with_notes(path: str | Path) -> tuple[SpikingNet, dict[str, Any]]:
    """Return the net and the notes in the file at ``path``; raises as ``load_net``."""
    name = Path(path).name
    try:
        header, tensors = unpack(path, kind="net", versions=(FORMAT,))
    except TensorFileError as cause:
        raise NetFileError(str(cause)) from cause
    try:
        layers = tuple(_layer(index, entry, tensors) for index, entry in enumerate(_list(header, "layers")))
        edges = tuple(_edge(entry) for entry in _list(header, "edges"))
        shape = _ints(header.get("input_shape"), 3)
        notes = header.get("notes")
        if tensors:
            raise ValueError(f"tensors that belong to no layer: {', '.join(sorted(tensors))}")
        if not isinstance(notes, dict):
            raise ValueError(f"notes: expected an object, found {type(notes).__name__}")
        return SpikingNet(layers, edges, (shape[0], shape[1], shape[2])), notes
    except InvalidNetError as cause:
        raise NetFileError(f"{name}: {cause}") from cause
    except ValueError as cause:
        raise NetFileError(f"{name}: {cause}. Try writing the net again.") from cause


def _layer(index: int, entry: object, tensors: dict[str, NDArray[Any]]) -> SpikingLayer:
    where = f"layer{index}"
    fields = _fields(entry, _LAYER_FIELDS, where)
    weight = tensors.pop(f"{where}/weight", None)
    if weight is None or weight.dtype != np.float32:
        raise ValueError(
            f"{where}/weight: expected a float32 tensor, found {'none' if weight is None else weight.dtype}"
        )
    bias = tensors.pop(f"{where}/bias", None)
    if bias is not None and bias.dtype != np.float32:
        raise ValueError(f"{where}/bias: expected a float32 tensor, found {bias.dtype}")
    if not isinstance(fields["name"], str):
        raise ValueError(f"{where}: name: expected text, found {fields['name']!r}")
    in_shape, out_shape = _ints(fields["in_shape"], 3), _ints(fields["out_shape"], 3)
    stride, padding = _ints(fields["stride"], 2), _ints(fields["padding"], 2)
    return SpikingLayer(
        name=fields["name"],
        weight=weight,
        bias=bias,
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        threshold=_number(fields["threshold"]),
        v_min=None if fields["v_min"] is None else _number(fields["v_min"]),
        in_shape=(in_shape[0], in_shape[1], in_shape[2]),
        out_shape=(out_shape[0], out_shape[1], out_shape[2]),
    )


def _edge(entry: object) -> Edge:
    fields = _fields(entry, _EDGE_FIELDS, "edge")
    pool = _ints(fields["pool"], 2)
    target = None if fields["target"] is None else _ints([fields["target"]], 1)[0]
    return Edge(_ints([fields["source"]], 1)[0], target, (pool[0], pool[1]), _ints([fields["feature_shift"]], 1)[0])


def _list(header: dict[str, Any], key: str) -> list[Any]:
    value = header.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key}: expected a list, found {type(value).__name__}")
    return value


def _fields(entry: object, expected: set[str], where: str) -> dict[str, Any]:
    if not isinstance(entry, dict) or set(entry) != expected:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"{where}: expected the fields {sorted(expected)}, found {found}")
    return entry


def _ints(value: object, length: int) -> tuple[int, ...]:
    if isinstance(value, list) and len(value) == length and all(type(item) is int for item in value):
        return tuple(value)
    raise ValueError(f"expected {length} whole numbers, found {value!r:.60}")


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"expected a number, found {value!r:.60}")
