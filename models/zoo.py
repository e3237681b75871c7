"""Networks by name, and networks of the user's own by file and function."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .digits_cnn import DIGITS, digits_cnn, strided_digits_cnn
from .errors import ModelNameError, NetworkFileError
from .gesture_cnn import GESTURES, gesture_cnn

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
    if ".py" in spec:
        return Network(_user_module(spec))
    if ":" in spec and suffix not in (".onnx", ".nir"):
        return Network(_imported_module(spec))
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


def _imported_module(spec: str) -> nn.Module:
    """Return the module that ``package.module:function`` builds; the working directory is searched too."""
    home, _, name = spec.rpartition(":")
    if not all(part.isidentifier() for part in home.split(".")):
        raise ModelNameError(
            f"network '{spec}': expected package.module:function, found '{home}' for a module. "
            "Try a dotted name such as my_package.nets:build."
        )
    with _search_path(Path()), _users_code(spec, "its code"):
        try:
            namespace = importlib.import_module(home)
        except ModuleNotFoundError as cause:
            if cause.name is None or not f"{home}.".startswith(f"{cause.name}."):
                raise  # the module is there, and one that it imports is not
            raise ModelNameError(
                f"network '{spec}': expected a module '{home}' that Python can import, found none. "
                "Try the environment it is installed in, or my_net.py:function."
            ) from cause
        return _built(spec, getattr(namespace, name, None), name)


def _user_module(spec: str) -> nn.Module:
    path_text, _, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    path = Path(path_text)
    if not name:
        raise ModelNameError(
            f"network '{path.name}': expected file.py:function, found no function. Try {path.name}:build."
        )
    if not path.is_file():
        raise ModelNameError(
            f"network '{path.name}:{name}': expected a Python file, found nothing there. Try its full path."
        )
    spec = f"{path.name}:{name}"
    with _search_path(path.parent), _users_code(spec, "the file"):
        return _built(spec, getattr(_run_file(path), name, None), name)


def _built(spec: str, builder: object, name: str) -> nn.Module:
    import torch

    if not callable(builder):
        raise ModelNameError(f"network '{spec}': the file has no function '{name}'. Try a name it defines.")
    module = builder()
    if not isinstance(module, torch.nn.Module):
        raise ModelNameError(
            f"network '{spec}': expected a torch.nn.Module from {name}(), found {type(module).__name__}. "
            f"Try `return` in {name}()."
        )
    return module


@contextlib.contextmanager
def _search_path(folder: Path) -> Iterator[None]:
    """Let imports find the neighbors of a file, as when Python runs it."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _users_code(spec: str, what: str) -> Iterator[None]:
    try:
        yield
    except ModelNameError:
        raise
    except (Exception, SystemExit) as cause:  # the user's code may raise anything
        raise ModelNameError(
            f"network '{spec}': {what} raised {type(cause).__name__}: {cause}. Try running it with Python."
        ) from cause


def _run_file(path: Path) -> object:
    found = importlib.util.spec_from_file_location(f"spikeport_user_{path.stem}", path)
    if found is None or found.loader is None:
        raise ModelNameError(
            f"network '{path.name}': expected a Python file that can be imported. Try a name that ends in .py."
        )
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickle look a class's module up there
    found.loader.exec_module(module)
    return module
