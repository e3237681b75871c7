"""One safetensors file with one JSON header: how every artifact of ours is written, and read with suspicion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import TensorFileError

_KEY = "spikeport"
"""The single metadata key. safetensors keeps metadata in a hash map: several keys would come in no fixed order."""

MAX_BYTES = 1 << 30


def pack(tensors: Mapping[str, NDArray[Any]], header: Mapping[str, Any], *, kind: str, version: int) -> bytes:
    """Return the bytes of an artifact.

    Law: equal tensors and headers give equal bytes; ``unpack`` gives both back.
    """
    from safetensors.numpy import save

    text = json.dumps({**header, "kind": kind, "format": version}, sort_keys=True, allow_nan=False)
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    return save(ordered, metadata={_KEY: text})


def unpack(path: str | Path, *, kind: str, versions: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the tensors of the artifact at ``path``.

    Raises: TensorFileError, in one sentence that names the file and the damage.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    _check_file(file, kind)
    try:
        with safe_open(file, framework="numpy") as opened:
            text = (opened.metadata() or {}).get(_KEY)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise TensorFileError(
            f"{file.name}: expected a spikeport {kind}, found a damaged or foreign file ({reason}). "
            "Try writing it again."
        ) from cause
    header = _header(file, text, kind)
    if header["format"] not in versions:
        known = ", ".join(map(str, versions))
        raise TensorFileError(
            f"{file.name}: {kind} format version {header['format']!r}, this spikeport knows {known}. "
            "Try the spikeport that wrote it, or write it again with this one."
        )
    return header, tensors


def _check_file(file: Path, kind: str) -> None:
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise TensorFileError(f"{file.name}: expected a spikeport {kind} there, found {found}. Try another path.")
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise TensorFileError(f"{file.name}: expected at most {MAX_BYTES} bytes, found {size}. Try another file.")


def _header(file: Path, text: str | None, kind: str) -> dict[str, Any]:
    try:
        header = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or "kind" not in header or "format" not in header:
        raise TensorFileError(
            f"{file.name}: expected a spikeport {kind}, found a safetensors file without its header. "
            f"Try the file that spikeport wrote."
        )
    if header["kind"] != kind:
        command = {"net": "spikeport convert", "program": "spikeport deploy"}.get(kind, "spikeport")
        raise TensorFileError(
            f"{file.name}: expected a spikeport {kind}, found a {header['kind']!s:.40}. Try a file from `{command}`."
        )
    return header
