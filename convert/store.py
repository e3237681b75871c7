"""SpikingNet to one file and back: tensors ``layer<i>/weight``, ``/bias`` and ``/v_init``, the rest JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.atomic import write_atomic
from spikeport.models.errors import TensorFileError
from spikeport.models.tensorfile import pack, unpack

from .errors import InvalidNetError, NetFileError
from .geometry import Pair, Shape3
from .types import Edge, SpikingLayer, SpikingNet

FORMAT = 2
"""Version of the file. 2 added dilation, upsample, groups and ``v_init``; files of version 1 are read."""

_FIELDS_1 = {"name", "stride", "padding", "threshold", "v_min", "in_shape", "out_shape"}
_FIELDS_2 = {*_FIELDS_1, "dilation", "upsample", "groups"}
_PLAIN = {"dilation": [1, 1], "upsample": [1, 1], "groups": 1}
_EDGE_FIELDS = {"source", "target", "pool", "feature_shift"}


def net_bytes(net: SpikingNet, notes: Mapping[str, Any] | None = None) -> bytes:
    """Return the bytes of the file of ``net``; ``notes`` (findings, options) are kept beside it.

    Law: equal nets and notes give equal bytes.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for index, layer in enumerate(net.layers):
        parts = {"weight": layer.weight, "bias": layer.bias, "v_init": layer.v_init}
        tensors |= {f"layer{index}/{name}": part for name, part in parts.items() if part is not None}
    header = {
        "input_shape": net.input_shape,
        "layers": [{key: getattr(layer, key) for key in _FIELDS_2} for layer in net.layers],
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
        header, tensors = unpack(path, kind="net", versions=(1, FORMAT))
    except TensorFileError as cause:
        raise NetFileError(str(cause)) from cause
    try:
        entries = _list(header, "layers")
        if header["format"] == 1:
            _refuse_surplus({name for name in tensors if name.endswith("/v_init")})
            entries = [{**_PLAIN, **_fields(entry, _FIELDS_1, f"layer{i}")} for i, entry in enumerate(entries)]
        layers = tuple(_layer(index, entry, tensors) for index, entry in enumerate(entries))
        edges = tuple(_edge(entry) for entry in _list(header, "edges"))
        shape = _triple(header.get("input_shape"))
        notes = header.get("notes")
        _refuse_surplus(tensors)
        if not isinstance(notes, dict):
            raise ValueError(f"notes: expected an object, found {type(notes).__name__}")
        return SpikingNet(layers, edges, shape), notes
    except InvalidNetError as cause:
        raise NetFileError(f"{name}: {cause}") from cause
    except ValueError as cause:
        raise NetFileError(f"{name}: {cause}. Try writing the net again.") from cause


def _refuse_surplus(tensors: Collection[str]) -> None:
    if tensors:
        raise ValueError(f"tensors that belong to no layer: {', '.join(sorted(tensors))}")


def _layer(index: int, entry: object, tensors: dict[str, NDArray[Any]]) -> SpikingLayer:
    where = f"layer{index}"
    fields = _fields(entry, _FIELDS_2, where)
    weight, bias, v_init = (tensors.pop(f"{where}/{name}", None) for name in ("weight", "bias", "v_init"))
    if weight is None:
        raise ValueError(f"{where}/weight: expected a float32 tensor, found none")
    for name, tensor in (("weight", weight), ("bias", bias), ("v_init", v_init)):
        if tensor is not None and tensor.dtype != np.float32:
            raise ValueError(f"{where}/{name}: expected a float32 tensor, found {tensor.dtype}")
    if not isinstance(fields["name"], str):
        raise ValueError(f"{where}: name: expected text, found {fields['name']!r}")
    return SpikingLayer(
        name=fields["name"],
        weight=weight,
        bias=bias,
        stride=_pair(fields["stride"]),
        padding=_pair(fields["padding"]),
        threshold=_number(fields["threshold"]),
        v_min=None if fields["v_min"] is None else _number(fields["v_min"]),
        in_shape=_triple(fields["in_shape"]),
        out_shape=_triple(fields["out_shape"]),
        dilation=_pair(fields["dilation"]),
        upsample=_pair(fields["upsample"]),
        groups=_ints([fields["groups"]], 1)[0],
        v_init=v_init,
    )


def _edge(entry: object) -> Edge:
    fields = _fields(entry, _EDGE_FIELDS, "edge")
    target = None if fields["target"] is None else _ints([fields["target"]], 1)[0]
    return Edge(_ints([fields["source"]], 1)[0], target, _pair(fields["pool"]), _ints([fields["feature_shift"]], 1)[0])


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


def _pair(value: object) -> Pair:
    y, x = _ints(value, 2)
    return y, x


def _triple(value: object) -> Shape3:
    channels, height, width = _ints(value, 3)
    return channels, height, width


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"expected a number, found {value!r:.60}")
