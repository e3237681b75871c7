"""Data of every kind as numbered samples: data sets, arrays, recordings, torch data sets and loaders, iterators."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import EventDataset
from .errors import InferenceError
from .events import Events

_KINDS = (
    "an EventDataset or ImageDataset, arrays, (inputs, targets), recordings, pairs of input and label, or a torch "
    "data set or loader"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """One input with its target: ``input`` is a recording or an array, ``target`` None where it is not known."""

    index: int
    input: Events | NDArray[Any]
    target: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """An iterable whose items are batches ``(inputs, targets)``, with the batch axis first, of any sizes."""

    batches: Iterable[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Numbered samples; ``n`` is None where only the end will tell.

    ``at`` gives any sample, ``walk`` one after another; exactly one of the two is there.
    ``mark`` says what the samples are, for resuming.
    """

    n: int | None
    at: Callable[[int], Sample] | None
    walk: Callable[[], Iterator[Sample]] | None
    mark: str

    def between(self, start: int, stop: int | None) -> Iterator[Sample]:
        """Return the samples with indices from ``start`` to below ``stop`` (None: to the end)."""
        if self.at is not None and self.n is not None:
            return map(self.at, range(start, self.n if stop is None else min(stop, self.n)))
        return itertools.islice(self.walk(), start, stop) if self.walk is not None else iter(())


def open_samples(data: Any) -> Samples:
    """Return ``data`` as numbered samples.

    Raises: InferenceError for data of no kind that is known, for none at all, or not one target each.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, EventDataset):
        labels = None if (data.labels < 0).all() else data.labels
        return _indexed(data.recordings, labels, f"{data.name} {data.source}")
    if hasattr(data, "frames") and hasattr(data, "labels") and hasattr(data, "images"):
        return _indexed(data.frames(), data.labels, f"{data.name} {data.source}")
    if isinstance(data, Batches):
        return _walked(_flat(data.batches), "batches")
    if hasattr(data, "dataset") and hasattr(data, "batch_size") and hasattr(data, "collate_fn"):
        return _walked(_flat(data) if data.batch_size is not None else data, "loader")
    if _is_array(data):
        return _indexed(_array(data), None, "array")
    if isinstance(data, Mapping):
        raise InferenceError(
            "data: expected one input, found a mapping of several. Try (inputs, targets); targets may be a mapping of "
            "outputs."
        )
    if isinstance(data, tuple) and len(data) == 2 and _is_many(data[0]):
        inputs, targets = data
        if _is_array(inputs):
            return _indexed(_array(inputs), targets, "arrays")
        return _indexed(inputs, targets, "recordings") if isinstance(inputs, Sequence) else _zipped(inputs, targets)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _listed(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a data set of torch
        return _listed(data)
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return _walked(data, "iterator")
    raise InferenceError(f"data: expected {_KINDS}, found {type(data).__name__}. Try open_dataset('digits', ...).")


def _indexed(inputs: Any, targets: Any, mark: str) -> Samples:
    n = len(inputs)
    if not n:
        raise InferenceError("data: expected at least one sample, found none. Try another data set.")
    columns = {"": targets} if not isinstance(targets, Mapping) else targets
    for name, column in columns.items():
        if column is not None and len(column) != n:
            where = f" of output '{name}'" if name else ""
            raise InferenceError(
                f"data: expected one target{where} for each of {n} samples, found {len(column)}. "
                "Try inputs and targets of the same data."
            )
    plain = {name: None if column is None else _array(column) for name, column in columns.items()}
    digest = hashlib.sha256(f"{mark} {n} ".encode())
    for name, column in plain.items():
        if isinstance(column, np.ndarray) and column.dtype != object:
            digest.update(f"{name} {column.dtype} {column.shape}".encode() + np.ascontiguousarray(column).tobytes())
    digest.update(" ".join(str(len(one)) for one in inputs[: 1 << 16]).encode() if mark != "array" else b"")

    def at(index: int) -> Sample:
        picked = {name: None if column is None else column[index] for name, column in plain.items()}
        return Sample(index, _input(inputs[index], index), picked[""] if list(picked) == [""] else picked)

    return Samples(n, at, None, digest.hexdigest())


def _listed(data: Any) -> Samples:
    n = len(data)
    if not n:
        raise InferenceError("data: expected at least one sample, found none. Try another data set.")
    return Samples(n, lambda index: _item(data[index], index), None, f"{type(data).__name__} {n}")


def _walked(items: Iterable[Any], mark: str) -> Samples:
    return Samples(None, None, lambda: (_item(item, index) for index, item in enumerate(items)), mark)


def _zipped(inputs: Iterable[Any], targets: Any) -> Samples:
    if isinstance(targets, Mapping):
        raise InferenceError("data: expected a list of inputs beside targets by output, found an iterator. Try list().")
    none = itertools.repeat(None) if targets is None else targets
    return _walked(zip(inputs, none, strict=targets is not None), "iterators")


def _flat(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of batches ``(inputs, targets)``, of inputs alone, or of lists of pairs."""
    for batch in batches:
        if isinstance(batch, (tuple, list)) and len(batch) == 2 and _is_many(batch[0]):
            inputs, targets = batch
            if isinstance(targets, Mapping):
                keys = list(targets)
                rows: Iterable[Any] = (
                    dict(zip(keys, row, strict=True)) for row in zip(*map(_array, targets.values()), strict=True)
                )
            else:
                rows = itertools.repeat(None) if targets is None else _array(targets)
                if targets is not None and len(targets) != len(inputs):
                    raise InferenceError(
                        f"data: expected one target for each of {len(inputs)} samples of a batch, found "
                        f"{len(targets)}. Try batches of equal lengths."
                    )
            yield from zip(_array(inputs) if _is_array(inputs) else inputs, rows, strict=False)
        else:
            yield from (_array(batch) if _is_array(batch) else batch)


def _item(item: Any, index: int) -> Sample:
    if isinstance(item, Sample):
        return dataclasses.replace(item, index=index)
    if isinstance(item, (tuple, list)) and len(item) == 2 and not isinstance(item[1], Events):
        target = item[1] if isinstance(item[1], Mapping) or item[1] is None else _array(item[1])
        return Sample(index, _input(item[0], index), target)
    return Sample(index, _input(item, index), None)


def _input(found: Any, index: int) -> Events | NDArray[Any]:
    if isinstance(found, Events):
        return found
    if _is_array(found):
        array: NDArray[Any] = _array(found)
        return array
    raise InferenceError(
        f"data: sample {index}: expected a recording (Events) or an array, found {type(found).__name__}. "
        "Try Events(x, y, p, t_us, sensor_size)."
    )


def _is_many(found: Any) -> bool:
    """Return whether ``found`` is many inputs, not one of them."""
    if isinstance(found, Events):
        return False
    if _is_array(found):
        return bool(_array(found).ndim > 1)
    if isinstance(found, (list, tuple)):
        return all(isinstance(one, Events) or _is_array(one) for one in found)
    return isinstance(found, Iterable) and not isinstance(found, (str, bytes, Mapping))


def _is_array(found: Any) -> bool:
    return isinstance(found, np.ndarray) or (hasattr(found, "detach") and hasattr(found, "numpy"))


def _array(found: Any) -> Any:
    """Return an array of numpy, torch or plain numbers; what is none of these stays as it is."""
    if isinstance(found, np.ndarray):
        return found
    if hasattr(found, "detach"):
        return found.detach().cpu().numpy()
    if isinstance(found, (list, tuple)) and any(isinstance(one, (list, tuple, np.ndarray)) for one in found):
        return [np.asarray(one) for one in found]
    return np.asarray(found)
