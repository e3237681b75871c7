"""Recorded calls as values: one for each torch function that worked on the input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from .graph import Shape

Arguments = dict[str, Any]
"""Arguments of a call by the name that torch's documentation gives them."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor that depends on the input: the name of the call that gave it, and its shape with the batch axis.

    ``is_stale`` says that the call changed it through another tensor over the same memory: it is not the call's result.
    """

    name: str
    shape: tuple[int, ...]
    is_stale: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a torch function, or of a torch layer that is no single function (then ``parts`` are its calls).

    ``op`` is the function's plain name: ``relu`` for ``F.relu``, ``Tensor.relu_`` and ``aten.relu`` alike; ``label`` is
    what the user wrote. In ``args`` and ``kwargs`` tensors that depend on the input are ``Value``, others are torch
    tensors: parameters, buffers, constants. ``shape`` and ``dtype`` are those of the (first) result. ``where`` is the
    user's line, for calls outside torch's own layers.
    """

    op: str
    name: str
    label: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str
    where: str = ""
    parts: tuple[Call, ...] = ()

    @property
    def values(self) -> tuple[Value, ...]:
        """What the call reads that depends on the input, each once."""
        return tuple(dict.fromkeys(values_in((self.args, tuple(self.kwargs.values())))))


def values_in(item: object) -> Iterator[Value]:
    """Yield the values in arguments, however deep they are nested."""
    if isinstance(item, Value):
        yield item
    elif isinstance(item, (tuple, list)):
        for part in item:
            yield from values_in(part)
    elif isinstance(item, dict):
        yield from values_in(tuple(item.values()))


def common(call: Call) -> tuple[str, str, tuple[str, ...], Shape]:
    """Return what every node has: name, label, inputs and shape of a call's."""
    return call.name, call.label, tuple(dict.fromkeys(value.name for value in call.values)), map_shape(call.shape)


def map_shape(shape: tuple[int, ...]) -> Shape:
    """Return a shape without its batch axis; an axis of length is the width of a map of height 1."""
    if len(shape) == 3:
        return shape[1], 1, shape[2]
    return shape[1:] or (1,)
