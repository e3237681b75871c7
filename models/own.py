"""Functions of the user's own, by file or module and name: running one runs its code, as Python would."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import ModelNameError


@dataclasses.dataclass(frozen=True)
class OwnFunction:
    """A function with its name, and how a message calls it."""

    function: Callable[..., Any]
    name: str
    spec: str


@contextlib.contextmanager
def own_function(spec: str, *, kind: str) -> Iterator[OwnFunction]:
    """Yield the function of ``file.py:function`` or ``package.module:function``.

    Inside, imports find the neighbors of a file, or of the working directory, and whatever the code raises becomes a
    ModelNameError. ``kind`` is the word for it in messages.
    Raises: ModelNameError where there is no such file, module or function.
    """
    home, name, shown = _parts(spec, kind)
    folder, what = (home.parent, "the file") if isinstance(home, Path) else (Path(), "its code")
    with _search_path(folder), _users_code(shown, what, kind):
        namespace = _run_file(home, kind) if isinstance(home, Path) else _imported(home, shown, kind)
        function = getattr(namespace, name, None)
        if not callable(function):
            raise ModelNameError(f"{kind} '{shown}': the file has no function '{name}'. Try a name it defines.")
        yield OwnFunction(function, name, shown)


def _parts(spec: str, kind: str) -> tuple[Path | str, str, str]:
    """Return where the function is (a file, or the name of a module), its name, and both for messages."""
    home, _, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if ".py" not in spec:
        if not home or not all(part.isidentifier() for part in home.split(".")):
            raise ModelNameError(
                f"{kind} '{spec}': expected package.module:function, found '{home}' for a module. "
                "Try a dotted name such as my_package.nets:build."
            )
        return home, name, spec
    path = Path(home)
    if not name:
        raise ModelNameError(
            f"{kind} '{path.name}': expected file.py:function, found no function. Try {path.name}:build."
        )
    if not path.is_file():
        raise ModelNameError(
            f"{kind} '{path.name}:{name}': expected a Python file, found nothing there. Try its full path."
        )
    return path, name, f"{path.name}:{name}"


def _imported(home: str, spec: str, kind: str) -> object:
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as cause:
        if cause.name is None or not f"{home}.".startswith(f"{cause.name}."):
            raise  # the module is there, and one that it imports is not
        raise ModelNameError(
            f"{kind} '{spec}': expected a module '{home}' that Python can import, found none. "
            "Try the environment it is installed in, or my_net.py:function."
        ) from cause


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
def _users_code(spec: str, what: str, kind: str) -> Iterator[None]:
    try:
        yield
    except ModelNameError:
        raise
    except (Exception, SystemExit) as cause:  # the user's code may raise anything
        raise ModelNameError(
            f"{kind} '{spec}': {what} raised {type(cause).__name__}: {cause}. Try running it with Python."
        ) from cause


def _run_file(path: Path, kind: str) -> object:
    found = importlib.util.spec_from_file_location(f"spikeport_user_{path.stem}", path)
    if found is None or found.loader is None:
        raise ModelNameError(
            f"{kind} '{path.name}': expected a Python file that can be imported. Try a name that ends in .py."
        )
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickle look a class's module up there
    found.loader.exec_module(module)
    return module
