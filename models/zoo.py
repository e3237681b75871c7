"""Networks by name, and networks of the user's own by file and function."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .digits_cnn import DIGITS, digits_cnn, strided_digits_cnn
from .errors import ModelNameError
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
    input_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()


def load_network(spec: str) -> Network:
    """Return the network of a zoo name, or of the user's own ``file.py:function``, which is run to build it.

    Raises: ModelNameError where there is no such name, file or function, or the function returns no module.
    """
    if spec in ZOO:
        entry = ZOO[spec]
        return Network(entry.build(), entry.input_shape, entry.classes)
    if ".py" in spec:
        return Network(_user_module(spec))
    near = difflib.get_close_matches(spec, ZOO, n=1)
    raise ModelNameError(
        f"network '{spec}': expected one of {', '.join(ZOO)}, or my_net.py:function. "
        f"Try {near[0] if near else 'digits'}."
    )


def _user_module(spec: str) -> nn.Module:
    import torch

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
    search_path = list(sys.path)
    try:
        sys.path.insert(0, str(path.parent.resolve()))  # for imports of its neighbors, as when Python runs the file
        builder = getattr(_run_file(path), name, None)
        if not callable(builder):
            raise ModelNameError(
                f"network '{path.name}:{name}': the file has no function '{name}'. Try a name it defines."
            )
        module = builder()
    except ModelNameError:
        raise
    except (Exception, SystemExit) as cause:  # the user's code may raise anything
        raise ModelNameError(
            f"network '{path.name}:{name}': the file raised {type(cause).__name__}: {cause}. "
            "Try running it with Python."
        ) from cause
    finally:
        sys.path[:] = search_path
    if not isinstance(module, torch.nn.Module):
        raise ModelNameError(
            f"network '{path.name}:{name}': expected a torch.nn.Module from {name}(), found {type(module).__name__}. "
            f"Try `return` in {name}()."
        )
    return module


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
