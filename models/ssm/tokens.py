"""Events as tokens and intervals: what an event state-space model reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.models.errors import InferenceError
from spikeport.models.events import Events

from .configs import SsmConfig

Int64s = NDArray[np.int64]

LONGEST_US = 1 << 40
"""Longest interval, some 12 days. More are a slip of units, and every state has long decayed."""


def tokens_of(events: Events, config: SsmConfig) -> Int64s:
    """Return the token of each event.

    Raises: InferenceError where the events are of another sensor.
    """
    if events.sensor_size != config.sensor_size:
        raise InferenceError(
            f"event SSM: expected events of a sensor of {config.sensor_size[0]}x{config.sensor_size[1]}, found "
            f"{events.sensor_size[0]}x{events.sensor_size[1]}. Try a config with this sensor_size, or cropping."
        )
    height, width = config.sensor_size
    x, y, p = (np.asarray(column, np.int64) for column in (events.x, events.y, events.p))
    if config.tokens == "channel":
        return x
    if config.tokens == "product":
        return x * y + height * width * p
    return (p * height + y) * width + x


def sequence_of(events: Events, config: SsmConfig) -> tuple[Int64s, Int64s]:
    """Return tokens and intervals in microseconds of a recording, without its last event.

    The interval of an event is the time to the one after it, as the original has it: the last event has none.
    """
    t_us: Int64s = np.asarray(events.t_us, np.int64)
    return tokens_of(events, config)[:-1], t_us[1:] - t_us[:-1]


def batch_of(sequences: list[tuple[Int64s, Int64s]]) -> tuple[Int64s, NDArray[np.float32], Int64s]:
    """Return sequences side by side: tokens and intervals in milliseconds ``[L, B]``, and lengths ``[B]``.

    Shorter ones are padded with token -1 and an interval of 0.
    """
    longest = max((len(tokens) for tokens, _ in sequences), default=0)
    tokens = np.full((longest, len(sequences)), -1, np.int64)
    intervals_ms = np.zeros((longest, len(sequences)), np.float32)
    for column, (own, intervals_us) in enumerate(sequences):
        tokens[: len(own), column] = own
        intervals_ms[: len(own), column] = intervals_us * 1e-3
    return tokens, intervals_ms, np.array([len(own) for own, _ in sequences], np.int64)


def check_tokens(tokens: ArrayLike, n_tokens: int) -> Int64s:
    """Return tokens as int64 ``[L]``, an array of its own.

    Raises: InferenceError where they are not whole, or not in 0 to below ``n_tokens``.
    """
    found: NDArray[Any] = np.asarray(tokens)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise InferenceError(
            f"event SSM: tokens: expected whole numbers [L], found {found.dtype}{list(found.shape)}. Try tokens_of."
        )
    checked = np.array(found, np.int64)
    if checked.size and (int(checked.min()) < 0 or int(checked.max()) >= n_tokens):
        first = int(np.argmax((checked < 0) | (checked >= n_tokens)))
        raise InferenceError(
            f"event SSM: tokens[{first}] is {int(checked[first])}, expected 0 to {n_tokens - 1}, the rows of the "
            "embedding. Try tokens_of(events, config), and no padding in a stream."
        )
    return checked


def check_intervals(intervals_us: ArrayLike, n: int) -> Int64s:
    """Return ``n`` intervals as int64, an array of its own.

    Raises: InferenceError where they are others in number, NaN, negative, not whole microseconds, or too long.
    """
    found: NDArray[Any] = np.asarray(intervals_us)
    if found.shape != (n,) or (found.size and found.dtype.kind not in "iuf"):
        raise InferenceError(
            f"event SSM: intervals_us: expected {n} numbers, one for each token, found {found.dtype}"
            f"{list(found.shape)}. Try numpy.diff(t_us) and tokens[:-1]."
        )
    if not n:
        return np.zeros(0, np.int64)
    # A NaN fails each comparison.
    if not (found.min() >= 0 and found.max() <= LONGEST_US):
        first = int(np.argmin((found >= 0) & (found <= LONGEST_US)))
        raise InferenceError(
            f"event SSM: intervals_us[{first}] is {found[first]}, expected 0 to {LONGEST_US} microseconds: time does "
            "not go backwards. Try sorting the events by time."
        )
    whole = np.array(found, np.int64)
    if found.dtype.kind == "f" and not np.array_equal(whole, found):
        raise InferenceError(
            "event SSM: intervals_us: expected whole microseconds, found fractions. "
            "Try numpy.rint(1000 * intervals_ms)."
        )
    return whole
