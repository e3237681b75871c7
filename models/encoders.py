"""Still frames as input over time: latency, Poisson, rate and direct current."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InferenceError
from .nearest import unknown

Raster = NDArray[np.float32]

_MAX_CELLS = 1 << 28


class Encoder(Protocol):
    """How a frame becomes input over time."""

    def encode(self, frame: ArrayLike, rng: np.random.Generator) -> Raster:
        """Return the frame as ``[n_steps, *frame shape]``; ``rng`` belongs to this sample alone."""
        ...


@dataclasses.dataclass(frozen=True)
class DirectCurrent:
    """The frame, times ``gain``, in every step: a current, no spikes."""

    n_steps: int = 16
    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_steps(self.n_steps)

    def encode(self, frame: ArrayLike, rng: np.random.Generator) -> Raster:  # noqa: ARG002
        """Return equal steps."""
        given = _checked(frame, self.n_steps)
        return np.repeat((given * self.gain).astype(np.float32)[None], self.n_steps, axis=0)


@dataclasses.dataclass(frozen=True)
class Rate:
    """``round(value * n_max)`` spikes for each pixel of 0..1, evenly spread over the steps.

    Law: the steps sum to that number.
    """

    n_steps: int = 16
    n_max: int = 16

    def __post_init__(self) -> None:
        _check_steps(self.n_steps)

    def encode(self, frame: ArrayLike, rng: np.random.Generator) -> Raster:  # noqa: ARG002
        """Return whole numbers of spikes."""
        counts = np.rint(_unit(frame, self.n_steps) * self.n_max)
        steps = np.arange(self.n_steps + 1).reshape(-1, *(1,) * counts.ndim)
        # Half a spike ahead: a single one falls into the middle, not to the end with all others.
        return np.asarray(np.diff(np.floor(counts * steps / self.n_steps + 0.5), axis=0), np.float32)


@dataclasses.dataclass(frozen=True)
class Poisson:
    """A spike in a step with probability ``1 - exp(-|value| * rate)``; with ``signed`` that of a negative pixel is -1.

    Law: equal generators give equal spikes.
    """

    n_steps: int = 16
    rate: float = 1.0
    signed: bool = False

    def __post_init__(self) -> None:
        _check_steps(self.n_steps)
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InferenceError(f"encoder poisson: expected a positive rate, found {self.rate}. Try 1.0.")

    def encode(self, frame: ArrayLike, rng: np.random.Generator) -> Raster:
        """Return random spikes."""
        given = _checked(frame, self.n_steps)
        chance = -np.expm1(-np.abs(given) * self.rate)
        spikes = rng.random((self.n_steps, *given.shape)) < chance
        sign = np.sign(given) if self.signed else given > 0
        return np.asarray(spikes * sign, np.float32)


@dataclasses.dataclass(frozen=True)
class Hold:
    """Frames over time, each in ``steps_per_frame`` steps; the last one stays to the end."""

    n_steps: int = 16
    steps_per_frame: int = 1

    def __post_init__(self) -> None:
        _check_steps(self.n_steps)
        _check_steps(self.steps_per_frame)

    def encode(self, frame: ArrayLike, rng: np.random.Generator) -> Raster:  # noqa: ARG002
        """Return the steps of ``[frames, *shape]``."""
        given = _checked(frame, 1)
        index = np.minimum(np.arange(self.n_steps) // self.steps_per_frame, len(given) - 1)
        return given[index].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class LinearLatency:
    """One spike for each pixel above ``threshold``, the earlier the brighter: linear in the value.

    A pixel of 1 spikes in step ``first``, one of 0 would in the last step.
    Units: pixels are 0..1, or 0..255 for whole numbers.
    """

    n_steps: int = 16
    first: int = 0
    threshold: float = 1 / 255

    def __post_init__(self) -> None:
        _check_steps(self.n_steps)
        if not 0 <= self.first < self.n_steps:
            raise InferenceError(
                f"encoder linear_latency: first: expected 0..{self.n_steps - 1}, found {self.first}. Try 0."
            )

    def encode(self, frame: ArrayLike, rng: np.random.Generator) -> Raster:  # noqa: ARG002
        """Return at most one spike for each pixel."""
        given = _unit(frame, self.n_steps)
        step = self.first + np.floor((1.0 - given) * (self.n_steps - 1 - self.first) + 0.5)
        return _one_spike(step, given > self.threshold, self.n_steps)


@dataclasses.dataclass(frozen=True)
class LogLatency:
    """One spike for each pixel above ``threshold``, at ``tau_steps * log(x / (x - threshold))``.

    That is when a leaky integrator fed with the pixel's value would reach the threshold; what comes behind the last
    step is left out.
    """

    n_steps: int = 16
    tau_steps: float = 8.0
    threshold: float = 0.2

    def __post_init__(self) -> None:
        _check_steps(self.n_steps)
        if not (self.tau_steps > 0 and 0 < self.threshold < 1):
            raise InferenceError(
                f"encoder log_latency: expected tau_steps above 0 and a threshold within 0..1, found {self.tau_steps} "
                f"and {self.threshold}. Try LogLatency()."
            )

    def encode(self, frame: ArrayLike, rng: np.random.Generator) -> Raster:  # noqa: ARG002
        """Return at most one spike for each pixel."""
        given = _unit(frame, self.n_steps)
        spikes = given > self.threshold
        value = np.where(spikes, given, 1.0)
        step = np.floor(self.tau_steps * np.log(value / (value - self.threshold)))
        return _one_spike(step, spikes & (step < self.n_steps), self.n_steps)


ENCODERS: Mapping[str, Callable[[int], Encoder]] = MappingProxyType(
    {
        "direct_current": lambda n: DirectCurrent(n),
        "rate": lambda n: Rate(n, n),
        "poisson": lambda n: Poisson(n),
        "linear_latency": lambda n: LinearLatency(n),
        "log_latency": lambda n: LogLatency(n, tau_steps=n / 2),
    }
)
"""Encoders by name, for a number of steps."""


def find_encoder(encoder: str | Encoder, n_steps: int) -> Encoder:
    """Return the encoder of that name with ``n_steps``, or the one that is given.

    Raises: InferenceError for an unknown name, with the nearest one.
    """
    if not isinstance(encoder, str):
        return encoder
    if encoder not in ENCODERS:
        raise InferenceError(unknown("encoder", encoder, ENCODERS))
    return ENCODERS[encoder](n_steps)


def sample_rng(seed: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample: the same in any batch, shard or order. 0 is a seed like any other."""
    return np.random.default_rng([seed, index])


def _one_spike(step: NDArray[np.float64], spikes: NDArray[np.bool_], n_steps: int) -> Raster:
    steps = np.arange(n_steps).reshape(-1, *(1,) * step.ndim)
    return np.asarray((steps == step) & spikes, np.float32)


def _unit(frame: ArrayLike, n_steps: int) -> NDArray[np.float64]:
    """Return pixels of 0..1; whole numbers are of 0..255."""
    given = _checked(frame, n_steps)
    if np.asarray(frame).dtype.kind in "iu":
        given = given / 255.0
    if given.size and (given.min() < 0 or given.max() > 1):
        raise InferenceError(
            f"encoder: expected pixels of 0..1 (or 0..255 as whole numbers), found {given.min():g}..{given.max():g}. "
            "Try frame / frame.max()."
        )
    return given


def _checked(frame: ArrayLike, n_steps: int) -> NDArray[np.float64]:
    given = np.asarray(frame)
    if given.dtype.kind not in "biuf" or not np.isfinite(given).all():
        raise InferenceError(f"encoder: expected finite numbers, found {given.dtype} with others. Try float32.")
    if given.size * n_steps > _MAX_CELLS:
        raise InferenceError(
            f"encoder: expected at most {_MAX_CELLS} cells, found {n_steps} steps of {given.size}. Try fewer steps."
        )
    return given.astype(np.float64)


def _check_steps(n_steps: int) -> None:
    if n_steps < 1:
        raise InferenceError(f"encoder: n_steps: expected 1 or more, found {n_steps}. Try 16.")
