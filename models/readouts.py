"""From outputs over time to one value: the readouts, each a fold over time steps.

A fold gives the same value, bit for bit, whatever pieces the steps come in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import InferenceError
from .nearest import unknown

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Readout(Protocol):
    """How the outputs of one step change what was read so far.

    A state is a tuple of float64 arrays ``[B, *shape]``; the pieces are pure functions of their arguments.
    """

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:
        """Return the state before the first step of samples ``[B, *shape]`` whose lengths are known, or not."""
        ...

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:
        """Return the state behind a step of ``value`` from ``start_us`` to ``end_us``, ``[B, 1, ...]``."""
        ...

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the value."""
        ...


@dataclasses.dataclass(frozen=True)
class SpikeCount:
    """The sum over the steps: spikes of a spiking output."""

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return zeros."""
        return (np.zeros(shape),)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the sum with the next value."""
        return (state[0] + value,)

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the sum."""
        return state[0]


@dataclasses.dataclass(frozen=True)
class Sum(SpikeCount):
    """The sum over the steps of any output."""


@dataclasses.dataclass(frozen=True)
class FirstSpike:
    """Minus the time at which the step of the first spike ends, in microseconds: the largest is the earliest.

    Minus infinity where there is no spike.
    """

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return minus infinity."""
        return (np.full(shape, -np.inf),)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the time of the step where it is the first with a spike."""
        return (np.where((value > 0) & np.isneginf(state[0]), -end_us, state[0]),)

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return minus the time."""
        return state[0]


@dataclasses.dataclass(frozen=True)
class Last:
    """The value of the last step."""

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return zeros."""
        return (np.zeros(shape),)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the value."""
        return (value,)

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the value."""
        return state[0]


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over the steps; 0 before the first."""

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return a sum and a number of steps."""
        return np.zeros(shape), np.zeros(shape)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return both with the next value."""
        return state[0] + value, state[1] + 1

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the mean."""
        return np.asarray(state[0] / np.maximum(state[1], 1))


@dataclasses.dataclass(frozen=True)
class Maximum:
    """The largest value of any step, negative ones too; minus infinity before the first."""

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return minus infinity."""
        return (np.full(shape, -np.inf),)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the larger one."""
        return (np.maximum(state[0], value),)

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the largest."""
        return state[0]


@dataclasses.dataclass(frozen=True)
class ExponentialMean:
    """The mean weighted by ``exp(-t / tau)``, ``t`` the start of a step: early steps weigh more.

    ``tau_us`` of None is the length of the recording, which a stream does not know.
    """

    tau_us: float | None = None

    def __post_init__(self) -> None:
        _check_time("tau_us", self.tau_us)

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:
        """Return a weighted sum, the sum of weights, and tau of each sample."""
        if self.tau_us is None and length_us is None:
            raise InferenceError(
                "readout exponential_mean: expected tau_us, as a stream has no length, found None. "
                "Try ExponentialMean(tau_us=100_000)."
            )
        taus = np.full(shape[0], self.tau_us) if self.tau_us is not None else np.asarray(length_us, np.float64)
        return np.zeros(shape), np.zeros(shape), np.broadcast_to(_column(taus, shape), shape)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the sums with the next value."""
        weight = np.exp(-start_us / state[2])
        return state[0] + weight * value, state[1] + weight, state[2]

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the weighted mean."""
        return np.asarray(state[0] / np.where(state[1] > 0, state[1], 1))


@dataclasses.dataclass(frozen=True)
class Leaky:
    """A sum that forgets: it decays by ``exp(-step / tau_us)`` before each value; what a stream decides by."""

    tau_us: float = 100_000.0

    def __post_init__(self) -> None:
        _check_time("tau_us", self.tau_us)

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return zeros."""
        return (np.zeros(shape),)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:
        """Return the decayed sum with the next value."""
        return (state[0] * np.exp((start_us - end_us) / self.tau_us) + value,)

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the sum."""
        return state[0]


@dataclasses.dataclass(frozen=True)
class Delayed:
    """Another readout that leaves out the steps that begin before ``delay_us``."""

    readout: Readout = dataclasses.field(default_factory=SpikeCount)
    delay_us: int = 0

    def __post_init__(self) -> None:
        if self.delay_us < 0:
            raise InferenceError(f"readout delayed: expected a delay of 0 or more, found {self.delay_us}. Try 0.")

    def begin(self, shape: tuple[int, ...], length_us: NDArray[np.int64] | None) -> tuple[Floats, ...]:
        """Return the state of the other readout."""
        return self.readout.begin(shape, length_us)

    def step(self, state: tuple[Floats, ...], value: Floats, start_us: Floats, end_us: Floats) -> tuple[Floats, ...]:
        """Return the state of the other readout, as it was where the step comes too early."""
        after = self.readout.step(state, value, start_us, end_us)
        return tuple(np.where(start_us >= self.delay_us, new, old) for new, old in zip(after, state, strict=True))

    def read(self, state: tuple[Floats, ...]) -> Floats:
        """Return the value of the other readout."""
        return self.readout.read(state)


READOUTS: Mapping[str, Callable[[], Readout]] = MappingProxyType(
    {
        "spike_count": SpikeCount,
        "first_spike": FirstSpike,
        "last": Last,
        "sum": Sum,
        "mean": Mean,
        "maximum": Maximum,
        "exponential_mean": ExponentialMean,
        "leaky": Leaky,
        "delayed": Delayed,
    }
)
"""Readouts by name, as they are without arguments."""


def find_readout(readout: str | Readout) -> Readout:
    """Return the readout of that name, or the one that is given.

    Raises: InferenceError for an unknown name, with the nearest one.
    """
    if not isinstance(readout, str):
        return readout
    if readout not in READOUTS:
        raise InferenceError(unknown("readout", readout, READOUTS))
    return READOUTS[readout]()


class Reading:
    """A readout at work on one output of a batch.

    Law: the value is the same whatever pieces the steps come in.
    """

    def __init__(self, readout: Readout, shape: tuple[int, ...], *, length_us: NDArray[np.int64] | None) -> None:
        self._readout, self._shape = readout, shape
        self._state = readout.begin(shape, length_us)
        self._time_us = np.zeros(shape[0])

    def add(self, values: NDArray[Any], ends_us: NDArray[np.int64], live: Bools | None = None) -> None:
        """Take in steps ``[T, B, *shape]`` that end at ``ends_us`` ``[T, B]``; only ``live`` ones count."""
        together = _together(self._readout, values, live) if len(values) > 1 else None
        if together is not None:
            is_live = None if live is None else np.asarray(live.any(axis=0))
            last_us = ends_us[-1] if live is None else np.where(live, ends_us, -1).max(axis=0)
            self._step(together, last_us.astype(np.float64), is_live)
            return
        for value, end_us, is_live in zip(values, ends_us, _lives(live, ends_us), strict=True):
            self._step(np.asarray(value, np.float64), end_us.astype(np.float64), is_live)

    def trace(
        self, values: NDArray[Any], ends_us: NDArray[np.int64], live: Bools | None, see: Callable[[Floats], Any]
    ) -> list[Any]:
        """Do the same and return what ``see`` finds in the value after each step."""
        found = []
        for value, end_us, is_live in zip(values, ends_us, _lives(live, ends_us), strict=True):
            self._step(np.asarray(value, np.float64), end_us.astype(np.float64), is_live)
            found.append(see(self.value()))
        return found

    def _step(self, value: Floats, end_us: Floats, is_live: Bools | None) -> None:
        start, end = _column(self._time_us, self._shape), _column(end_us, self._shape)
        after = self._readout.step(self._state, value, start, end)
        if is_live is None:
            self._state, self._time_us = after, end_us
            return
        kept = _column(is_live, self._shape)
        self._state = tuple(np.where(kept, new, old) for new, old in zip(after, self._state, strict=True))
        self._time_us = np.where(is_live, end_us, self._time_us)

    def value(self) -> Floats:
        """Return what is read so far, ``[B, *shape]``."""
        return self._readout.read(self._state)


def _together(readout: Readout, values: NDArray[Any], live: Bools | None) -> Floats | None:
    """Return one step that does what several do, to the last bit; None where there is none."""
    mask = None if live is None else live.reshape(*live.shape, *(1,) * (values.ndim - 2))
    kind = type(readout)
    if kind in (SpikeCount, Sum) and values.dtype.kind in "biu":  # sums of whole numbers are exact in any order
        kept = values if mask is None else np.where(mask, values, 0)
        return np.asarray(kept.sum(axis=0, dtype=np.int64), np.float64)
    if kind is Maximum:
        kept = values if mask is None else np.where(mask, values, -np.inf)
        return np.asarray(kept.max(axis=0), np.float64)
    return np.asarray(values[-1], np.float64) if kind is Last and mask is None else None


def _lives(live: Bools | None, ends_us: NDArray[np.int64]) -> Any:
    return [None] * len(ends_us) if live is None or live.all() else live


def _column(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return values.reshape(-1, *(1,) * (len(shape) - 1))


def _check_time(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InferenceError(f"readout: {name}: expected a positive number of microseconds, found {value}. Try 100000.")
