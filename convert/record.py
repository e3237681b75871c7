"""Capture by running: every torch call that works on the input becomes one ``Call``, in the order of the run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from .calls import Call, Value, values_in

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.overrides import TorchFunctionMode


INPUT_NAME = "input"


@dataclasses.dataclass(frozen=True)
class Recording:
    """The calls of one run, and what the module returned: ``output`` names the call, None where none gave it."""

    calls: tuple[Call, ...]
    result: Any
    output: str | None


def record(module: nn.Module, probe: torch.Tensor) -> Recording:
    """Return the calls of one run of ``module`` on ``probe``; what the run raises is raised.

    Calls inside one of torch's own layers become one call with the layer's name. Control flow is recorded as this run
    took it; a change in place is a new value.
    """
    import torch

    tape = _Tape()
    tape.bind(probe, Value(tape.unique(INPUT_NAME), tuple(probe.shape)))
    paths = {id(child): path for path, child in module.named_modules()}
    handles = []
    for child in {id(child): child for child in module.modules()}.values():
        name, label = getattr(child, "captured_as", None) or (paths[id(child)], _kind(child))
        enter, leave = _hooks(tape, name, label, is_leaf=_is_leaf(child))
        handles += [child.register_forward_pre_hook(enter, prepend=True), child.register_forward_hook(leave)]
    try:
        with torch.no_grad(), _mode(tape):
            result = module(probe)
    finally:
        for handle in handles:
            handle.remove()
    output = tape.value(result) if isinstance(result, torch.Tensor) else None
    return Recording(tuple(tape.frames[0].calls), result, None if output is None or output.is_stale else output.name)


@dataclasses.dataclass
class _Frame:
    """A module that is running: where its calls go."""

    path: str
    label: str
    is_leaf: bool
    calls: list[Call] = dataclasses.field(default_factory=list)
    bound: list[torch.Tensor] = dataclasses.field(default_factory=list)


class _Tape:
    """What was recorded so far: the stack of running modules, and which tensor is which value.

    Tensors are told apart by identity. All of them are kept, so that no identity and no storage is used twice.
    """

    def __init__(self) -> None:
        self.frames = [_Frame("", "", is_leaf=False)]
        self._values: dict[int, tuple[torch.Tensor, Value]] = {}
        self._views: dict[int, list[torch.Tensor]] = {}
        self._n_uses: dict[str, int] = {}

    def value(self, tensor: torch.Tensor) -> Value | None:
        """Return what a tensor is, by identity, or by place where torch wrapped it anew; None for a constant."""
        found = self._values.get(id(tensor))
        if found is not None:
            return found[1]
        twin = next((other for other in self._views.get(_storage(tensor), ()) if _same_place(other, tensor)), None)
        return None if twin is None else self._values[id(twin)][1]

    def bind(self, tensor: torch.Tensor, value: Value) -> None:
        if id(tensor) not in self._values:
            self._views.setdefault(_storage(tensor), []).append(tensor)
        self._values[id(tensor)] = (tensor, value)
        for frame in self.frames:
            frame.bound.append(tensor)

    def bind_views(self, tensor: torch.Tensor, name: str) -> None:
        """After ``tensor`` was changed in place: other tensors over the same memory are not what they were."""
        for other in list(self._views.get(_storage(tensor), ())):
            if other is not tensor:
                self.bind(other, Value(name, tuple(other.shape), is_stale=not _same_place(other, tensor)))

    def unique(self, name: str) -> str:
        self._n_uses[name] = self._n_uses.get(name, 0) + 1
        return name if self._n_uses[name] == 1 else f"{name}@{self._n_uses[name]}"

    def symbolic(self, item: Any) -> Any:
        """Return arguments with each tensor that depends on the input as its ``Value``; constants as they are now."""
        import torch

        if isinstance(item, torch.Tensor):
            value = self.value(item)
            return value or (item if isinstance(item, torch.nn.Parameter) else item.detach().clone())
        if isinstance(item, (tuple, list)):
            return tuple(self.symbolic(part) for part in item)
        if isinstance(item, dict):
            return {key: self.symbolic(part) for key, part in item.items()}
        return item

    def leave(self, result: Any) -> None:
        """End a module: its calls go to the one around it; those of a layer of torch's become one call."""
        frame = self.frames.pop()
        if not frame.is_leaf:
            self.frames[-1].calls += frame.calls
            return
        tensors = _tensors(result)
        passed = tuple(value for value in map(self.value, tensors) if value)
        if not frame.calls and not passed:
            return  # nothing in it depends on the input
        name = self.unique(_layer_name(frame))
        if len(frame.calls) == 1:
            call = dataclasses.replace(frame.calls[0], name=name, label=frame.label, where="")
        elif not frame.calls:
            call = Call("identity", name, frame.label, passed, {}, passed[0].shape, str(tensors[0].dtype))
        else:
            call = _layer(frame, name, tensors)
        self.frames[-1].calls.append(call)
        for tensor in [*frame.bound, *(tensors if not frame.calls else ())]:
            value = self.value(tensor)
            self.bind(tensor, Value(name, tuple(tensor.shape), is_stale=value is not None and value.is_stale))

    def add(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a torch function and record it where it works on a value."""
        given, named = self.symbolic(args), self.symbolic(dict(kwargs))
        read = _tensors((args, tuple(kwargs.values())))
        before = [_version(tensor) for tensor in read]
        result = func(*args, **kwargs)
        op = plain_name(func)
        if op in _MAKES_CONSTANTS or not any(values_in((given, tuple(named.values())))):
            return result
        changed = [tensor for tensor, version in zip(read, before, strict=True) if _version(tensor) != version]
        results = [*_tensors(result), *changed]
        if not results:  # a size, a number, a comparison that decides what the forward does next
            return result
        frame = self.frames[-1]
        name = self.unique(".".join(part for part in (frame.path, op) if part))
        where = "" if any(outer.is_leaf for outer in self.frames) else _users_line()
        call = Call(op, name, _label(func), given, named, tuple(results[0].shape), str(results[0].dtype), where)
        frame.calls.append(call)
        for tensor in results:
            self.bind(tensor, Value(name, tuple(tensor.shape)))
        for tensor in changed:
            self.bind_views(tensor, name)
        return result


def _mode(tape: _Tape) -> TorchFunctionMode:
    from torch.overrides import TorchFunctionMode

    class Recorder(TorchFunctionMode):
        """Hands every call of torch to the tape; what torch calls inside is not seen."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            return tape.add(func, args, kwargs or {})

    return cast("TorchFunctionMode", Recorder())


def _hooks(tape: _Tape, path: str, label: str, *, is_leaf: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    def enter(_module: nn.Module, _given: object) -> None:
        tape.frames.append(_Frame(path, label, is_leaf))

    def leave(_module: nn.Module, _given: object, result: object) -> None:
        with _unseen():
            tape.leave(result)

    return enter, leave


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    import torch

    with torch._C.DisableTorchFunction():
        yield


def _kind(module: nn.Module) -> str:
    """Return the name of a layer's class, also where a parametrization has put one of its own in its place."""
    from torch.nn.utils import parametrize

    return str(parametrize.type_before_parametrizations(module).__name__)


def _is_leaf(module: nn.Module) -> bool:
    """Return whether what runs is one of torch's own layers: the function counts, not the class it hangs on."""
    home = getattr(type(module).forward, "__module__", "") or ""
    is_torchs = home.startswith("torch.nn.modules.") and not home.endswith(".container")
    return hasattr(module, "captured_as") or (is_torchs and "forward" not in vars(module))


def _layer_name(frame: _Frame) -> str:
    """Name a layer after the user's attribute; a bare index in an nn.Sequential gets its kind in front: conv0."""
    if frame.path.isdigit() or not frame.path:
        return frame.label.lower().removesuffix("2d").removesuffix("1d") + frame.path
    return frame.path


def _layer(frame: _Frame, name: str, results: list[torch.Tensor]) -> Call:
    """Return the one call of a layer that is no single function; it reads what its parts read from outside."""
    inside = {part.name for part in frame.calls}
    reads = dict.fromkeys(value for part in frame.calls for value in part.values if value.name not in inside)
    shape, dtype = (tuple(results[0].shape), str(results[0].dtype)) if results else ((), "")
    return Call("layer", name, frame.label, tuple(reads), {}, shape, dtype, parts=tuple(frame.calls))


_MAKES_CONSTANTS = frozenset(
    {
        *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
        *("new_tensor", "sym_size", "assert_tensor_metadata"),
    }
)
"""Functions that take no more than a shape from what they are given."""


def plain_name(func: object) -> str:
    """Return the name of a torch function without what tells its spellings apart: ``relu`` for ``Tensor.relu_``."""
    schema = getattr(func, "_schema", None)
    if schema is not None:
        return str(schema.name).rpartition("::")[2].strip("_")
    name = str(getattr(func, "__name__", type(func).__name__))
    if name == "__get__":  # of a property, x.T for example
        name = str(getattr(getattr(func, "__self__", None), "__name__", name))
    return name.strip("_")


def _label(func: Any) -> str:
    schema, home = getattr(func, "_schema", None), getattr(func, "__module__", None) or ""
    if schema is not None:
        return str(schema.name).replace("::", ".")
    name = str(getattr(func, "__name__", type(func).__name__))
    if home in ("torch.nn.functional", "torch._C._nn"):
        return f"F.{name.strip('_')}"
    if home == "torch":
        return f"torch.{name}"
    return f"Tensor.{plain_name(func) if name == '__get__' else name}"


def _users_line() -> str:
    """Return the file and line of the innermost frame that is neither torch's nor ours."""
    import torch

    inside = (str(Path(torch.__file__).parent) + os.sep, str(Path(__file__).parent) + os.sep)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((*inside, "<")):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"


def _tensors(item: object) -> list[torch.Tensor]:
    import torch

    if isinstance(item, torch.Tensor):
        return [item]
    if isinstance(item, (tuple, list)):
        return [tensor for part in item for tensor in _tensors(part)]
    if isinstance(item, dict):
        return _tensors(tuple(item.values()))
    return []


def _storage(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):  # sparse tensors and the like have none
        return 0


def _same_place(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (
        _storage(one) != 0
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.storage_offset() == other.storage_offset()
        and one.dtype == other.dtype
    )


def _version(tensor: torch.Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # tensors of torch.inference_mode have none
        return 0
