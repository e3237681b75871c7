"""Weights of a network to a file and back, without ever running what a file holds."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import write_atomic
from .errors import WeightsFileError

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_BYTES = 1 << 30

_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write the weights of ``module`` to one safetensors file, whole or not at all.

    Law: ``load_weights`` gives them back; equal weights give equal bytes.
    """
    from safetensors.torch import save

    write_atomic(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in _state(module).items()}))


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load the weights at ``path`` into ``module``, on the CPU: ``.safetensors``, ``.npz``, or ``.pt``/``.pth``.

    A ``.pt`` file goes through torch's weights-only loader, with no other way in; a dictionary under ``state_dict`` is
    taken too. Where no name fits but the shapes are the module's, in its order, the tensors are taken in that order.
    Raises: WeightsFileError where the file is missing, damaged, holds code, or not the module's tensors; the module
    is then left as it was.
    """
    import torch

    file = Path(path)
    found = _read(file)
    state = _state(module)
    if not set(found) & set(state) and [t.shape for t in found.values()] == [t.shape for t in state.values()]:
        found = dict(zip(state, found.values(), strict=True))
    problems = [f"'{name}' is missing" for name in state if name not in found]
    problems += [f"'{name}' belongs to no layer" for name in found if name not in state]
    for name in state.keys() & found.keys():
        if found[name].shape != state[name].shape:
            shapes = f"expected {list(state[name].shape)}, found {list(found[name].shape)}"
            problems.append(f"'{name}': {shapes}")
        elif not torch.isfinite(found[name].double()).all():
            problems.append(f"'{name}' holds NaN or infinity")
    if problems:
        raise WeightsFileError(
            f"{file.name}: not the weights of this network: {'; '.join(sorted(problems))}. "
            "Try the network it was trained as, or another checkpoint."
        )
    module.load_state_dict({name: found[name].to(tensor.dtype) for name, tensor in state.items()}, strict=False)


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return what a file must hold: all tensors but the counters of batch normalization, which nothing reads."""
    return {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}


def _read(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "nothing"
        raise WeightsFileError(f"{file.name}: expected a file of weights, found {kind} there. Try another path.")
    if file.stat().st_size > MAX_BYTES:
        raise WeightsFileError(f"{file.name}: expected at most {MAX_BYTES} bytes, found {file.stat().st_size}.")
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".pt": _read_torch, ".pth": _read_torch}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise WeightsFileError(
            f"{file.name}: expected a file that ends in {', '.join(_SUFFIXES)}, found '{file.suffix}'. "
            "Try spikeport.models.save_weights."
        )
    return {name: value for name, value in reader(file).items() if not name.endswith("num_batches_tracked")}


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as cause:
        raise _damaged(file, "a safetensors file", cause) from cause


def _read_npz(file: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise WeightsFileError(f"{file.name}: unpacks to {size} bytes, expected at most {MAX_BYTES}.")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in arrays.files}
    except (zipfile.BadZipFile, OSError, ValueError, TypeError, KeyError, EOFError) as cause:
        if isinstance(cause, WeightsFileError):
            raise
        raise _damaged(file, "an .npz file of plain arrays", cause) from cause


def _read_torch(file: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise WeightsFileError(
            f"{file.name}: holds more than weights: loading it would run code, so it is refused. "
            "Try saving its state dict: torch.save(model.state_dict(), path)."
        ) from cause
    except (RuntimeError, OSError, ValueError, EOFError, KeyError, AttributeError, TypeError) as cause:
        raise _damaged(file, "a torch file", cause) from cause
    nested = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(nested, Mapping) or not all(isinstance(value, torch.Tensor) for value in nested.values()):
        raise WeightsFileError(
            f"{file.name}: expected a state dict of tensors, found {type(content).__name__}. "
            "Try torch.save(model.state_dict(), path)."
        )
    return {str(name): value for name, value in nested.items()}


def _damaged(file: Path, kind: str, cause: BaseException) -> WeightsFileError:
    reason: Any = str(cause).strip().splitlines() or [type(cause).__name__]
    return WeightsFileError(f"{file.name}: expected {kind}, found a damaged or foreign file ({reason[0]}). Try another.")
