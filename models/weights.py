"""Weights of a network to a file and back, without ever running what a file holds."""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atomic import write_atomic
from .errors import WeightsFileError
from .npz import npz_arrays

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_BYTES = 1 << 30

_TORCH_DAMAGE = (
    RuntimeError,
    OSError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
)
_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write the weights of ``module`` to one safetensors file, whole or not at all.

    Law: ``load_weights`` gives them back; equal weights give equal bytes.
    """
    from safetensors.torch import save

    # Each a clone: safetensors refuses tensors that share their memory, as tied layers do.
    write_atomic(
        path, save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in _state(module).items()})
    )


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load the weights at ``path`` into ``module``, on the CPU: ``.safetensors``, ``.npz``, or ``.pt``/``.pth``.

    A ``.pt`` file goes through torch's weights-only loader, with no other way in; a dictionary under ``state_dict`` is
    taken too. Where no name fits but the shapes are the module's, in its order, the tensors of an ``.npz`` or ``.pt``
    are taken in that order.
    Raises: WeightsFileError where the file is missing, damaged, holds code, or not the module's tensors; the module
    is then left as it was.
    """
    import torch

    file = Path(path)
    found = _read(file)
    state = _state(module)
    keeps_order = file.suffix.lower() != ".safetensors"  # that format sorts its tensors by name
    if (
        keeps_order
        and not set(found) & set(state)
        and [t.shape for t in found.values()] == [t.shape for t in state.values()]
    ):
        found = dict(zip(state, found.values(), strict=True))
    problems = [f"'{name}' is missing" for name in state if name not in found]
    problems += [f"'{name}' belongs to no layer" for name in found if name not in state]
    for name in (name for name in state if name in found):
        if found[name].shape != state[name].shape:
            shapes = f"expected {list(state[name].shape)}, found {list(found[name].shape)}"
            problems.append(f"'{name}': {shapes}")
        elif not torch.isfinite(found[name].to(state[name].dtype)).all():
            problems.append(f"'{name}' holds NaN or infinity")
    if problems:
        raise WeightsFileError(
            f"{file.name}: not the weights of this network: {'; '.join(problems)}. "
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
        raise WeightsFileError(
            f"{file.name}: expected at most {MAX_BYTES} bytes, found {file.stat().st_size}. Try another."
        )
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

    arrays = npz_arrays(file.read_bytes(), file.name, error=WeightsFileError)
    unreadable = [
        f"{name!r:.60} ({array.dtype!s:.40})" for name, array in arrays.items() if array.dtype.kind not in "biuf"
    ]
    if unreadable:
        raise WeightsFileError(f"{file.name}: expected numbers, found {', '.join(unreadable)}. Try arrays of float32.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
        return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def _read_torch(file: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    _check_unpacked(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, of which the loader refuses what it does not know
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        if "GLOBAL" not in str(cause):  # torch's own text advises to load the file with code and all
            raise _damaged(file, "a torch file", ValueError("no pickle of plain tensors")) from cause
        raise WeightsFileError(
            f"{file.name}: holds more than weights: loading it would run code, so it is refused. "
            "Try saving its state dict: torch.save(model.state_dict(), path)."
        ) from cause
    except _TORCH_DAMAGE as cause:
        raise _damaged(file, "a torch file", cause) from cause
    nested = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(nested, Mapping) or not all(isinstance(value, torch.Tensor) for value in nested.values()):
        raise WeightsFileError(
            f"{file.name}: expected a state dict of tensors, found {type(content).__name__}. "
            "Try torch.save(model.state_dict(), path)."
        )
    odd = [repr(name) for name, value in nested.items() if not _is_plain(value)]
    if odd:
        raise WeightsFileError(
            f"{file.name}: expected dense tensors of real numbers, found others under {', '.join(odd)}. "
            "Try tensor.dequantize() or tensor.to_dense() before saving."
        )
    return {str(name): value for name, value in nested.items()}


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch

    is_dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return is_dense and not tensor.is_quantized and not tensor.is_complex()


def _check_unpacked(file: Path) -> None:
    """Refuse a torch file whose zip archive unpacks to more than a network holds."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, struct.error):
        return  # torch's older format, or damage that its loader names
    if size > MAX_BYTES:
        raise WeightsFileError(
            f"{file.name}: expected at most {MAX_BYTES} bytes, found {size} when unpacked. Try another."
        )


def _damaged(file: Path, kind: str, cause: BaseException) -> WeightsFileError:
    lines = str(cause).strip().splitlines() if not isinstance(cause, (LookupError, OSError)) else []
    reason = lines[0][:100] if lines else type(cause).__name__
    return WeightsFileError(f"{file.name}: expected {kind}, found a damaged or foreign file ({reason}). Try another.")
