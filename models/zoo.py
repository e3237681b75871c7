"""Networks by name, and networks of the user's own by file and function."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .digits_cnn import DIGITS, digits_cnn, strided_digits_cnn
from .errors import ModelNameError, NetworkFileError
from .gesture_cnn import GESTURES, gesture_cnn
from .own import own_function

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class ZooEntry:
    """A network of the zoo: how to build it, the ``(C, H, W)`` it takes, and the names of its classes."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    summary: str


ZOO: Mapping[str, ZooEntry] = MappingProxyType(
    {
        "digits": ZooEntry(lambda: digits_cnn(2), (2, 34, 34), DIGITS, "tutorial CNN, 34x34, two polarities"),
        "digits-merged": ZooEntry(lambda: digits_cnn(1), (1, 34, 34), DIGITS, "tutorial CNN, 34x34, polarities merged"),
        "digits-64": ZooEntry(lambda: digits_cnn(2, size=64), (2, 64, 64), DIGITS, "tutorial CNN, 64x64"),
        "digits-64-merged": ZooEntry(
            lambda: digits_cnn(1, size=64), (1, 64, 64), DIGITS, "tutorial CNN as it was: 64x64, polarities merged"
        ),
        "digits-strided": ZooEntry(strided_digits_cnn, (2, 34, 34), DIGITS, "public N-MNIST CNN with a strided layer"),
        "gesture": ZooEntry(gesture_cnn, (2, 128, 128), GESTURES, "DVS-gesture CNN for nine cores"),
    }
)
"""Every network that has a name."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A built network with what is known of it; a network of the user's own has no shape and no class names."""

    module: nn.Module
    input_shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()


def load_network(spec: str) -> Network:
    """Return the network of a zoo name, of a ``.pt2`` file, or of the user's own function, which is run to build it.

    The function is given as ``file.py:function`` or ``package.module:function``.
    Raises: ModelNameError where there is no such name, file or function, or the function returns no module;
    NetworkFileError for a ``.pt2`` file that cannot be read, and for ``.pt`` and ``.pth``: a module pickled in one is
    code, and is not loaded.
    """
    if spec in ZOO:
        entry = ZOO[spec]
        return Network(entry.build(), entry.input_shape, entry.classes)
    suffix = Path(spec).suffix.lower()
    if suffix == ".pt2":
        from .exported import load_exported

        return Network(*load_exported(spec))
    if suffix in (".pt", ".pth"):
        raise _pickled(Path(spec))
    if ".py" in spec or (":" in spec and suffix not in (".onnx", ".nir")):
        return Network(_own_module(spec))
    near = difflib.get_close_matches(spec, ZOO, n=1)
    raise ModelNameError(
        f"network '{spec}': expected one of {', '.join(ZOO)}, my_net.py:function, package.module:function or a .pt2 "
        f"file. Try {near[0] if near else 'digits'}."
    )


def _pickled(path: Path) -> NetworkFileError:
    if not path.is_file():
        return NetworkFileError(f"{path.name}: expected a network there, found nothing. Try its full path.")
    return NetworkFileError(
        f"{path.name}: expected a network, found a file of torch.save: weights without their network, or a pickled "
        f"module, which is refused because loading it runs code. Try my_net.py:function with --weights {path.name}, "
        "which takes torch.save(model.state_dict(), path), or a .pt2 file of torch.export.save."
    )


def _own_module(spec: str) -> nn.Module:
    """Return the module that the user's function builds."""
    import torch

    with own_function(spec, kind="network") as own:
        module = own.function()
        if not isinstance(module, torch.nn.Module):
            raise ModelNameError(
                f"network '{own.spec}': expected a torch.nn.Module from {own.name}(), found {type(module).__name__}. "
                f"Try `return` in {own.name}()."
            )
        return module
