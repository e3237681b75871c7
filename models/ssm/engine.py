"""The online engine: an event state-space model one event after the other, its state carried from chunk to chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.models.errors import InferenceError

from .tokens import check_intervals, check_tokens

if TYPE_CHECKING:
    from spikeport.models.event_ssm import EventSSM

    from .configs import SsmConfig

Mode = Literal["carried", "reset"]
"""``"carried"``: states and the head's mean go on from chunk to chunk, as a stream needs it. ``"reset"``: each chunk
is a recording of its own, as the tutorial of the original has it. These are different functions."""

_PARTS = ("states", "counters", "head")


class OnlineEngine:
    """A model at work on a stream of events, in float32 on one core.

    Law: ``"carried"`` logits are equal, bit for bit, whatever chunks the events came in; ``restore(state())`` goes on
    bit for bit. Engines of one ``fresh()`` family share their room: use them from one thread.
    """

    _feed: Callable[..., int]

    def __init__(self, module: EventSSM, *, mode: Mode = "carried") -> None:
        check_mode(mode)
        self.config: SsmConfig = module.config
        self.mode: Mode = mode
        values = [*module.parameters(), *module.buffers()]
        if not all(bool(value.isfinite().all()) for value in values):
            raise InferenceError(
                "event SSM: expected finite weights, found NaN or infinity. Try an earlier checkpoint."
            )
        # The compiled loops import numba: only where an engine is made.
        from .loops import feed
        from .packing import doubles, pack

        self._feed = feed
        self._packed, self._carried = pack(module)
        self._head = doubles(module.head.weight), doubles(module.head.bias)
        self._strides = [shape.stride for stage in module.config.shapes for shape in stage]
        self._seen = -1
        self._logits = self.logits()

    def fresh(self) -> OnlineEngine:
        """Return an engine with the same weights before its first event, in little time and memory."""
        other = object.__new__(OnlineEngine)
        other.__dict__.update(self.__dict__)
        own = self._carried
        other._carried = own._replace(**{name: np.zeros_like(getattr(own, name)) for name in _PARTS})
        return other

    def feed(self, tokens: ArrayLike, intervals_us: ArrayLike) -> NDArray[np.float32]:
        """Take in a chunk of events, and return the logits behind it.

        Shapes: ``tokens`` and ``intervals_us`` ``[n]``, n of 0 or more; the logits ``[classes]``.
        Units: whole microseconds; states decay for an event's interval before the event is added.
        Raises: InferenceError where tokens or intervals are out of range, and takes in nothing.
        """
        if self.mode == "reset":
            self.reset()
        given: Any = (tokens, intervals_us)
        if not (_is_plain(tokens) and _is_plain(intervals_us) and np.shape(tokens) == np.shape(intervals_us)):
            given = self._checked(tokens, intervals_us)
        if self._feed(*given, self._packed, self._carried) >= 0:
            self._checked(*given)
        return self.logits()

    def _checked(self, tokens: ArrayLike, intervals_us: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        checked = check_tokens(tokens, self.config.vocabulary)
        return checked, check_intervals(intervals_us, len(checked))

    def logits(self) -> NDArray[np.float32]:
        """Return the logits of the events so far; those of the head's bias alone before the first row of output."""
        n_rows = self.n_rows
        if n_rows != self._seen:
            weight, bias = self._head
            total = self._carried.head[-1]
            pooled = self._carried.head[: weight.shape[1]] / (total if total > 0 else 1.0)
            self._logits = (weight @ pooled + bias).astype(np.float32)
            self._logits.flags.writeable = False
            self._seen = n_rows
        return self._logits

    @property
    def n_rows(self) -> int:
        """Rows of output so far: one for each ``config.downsampling`` events."""
        return int(self._carried.counters[-1, 0])

    def reset(self) -> None:
        """Go back to before the first event."""
        self._seen = -1
        for part in self._carried:
            part[...] = 0

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that the next answer depends on, as arrays."""
        return {name: getattr(self._carried, name).copy() for name in _PARTS}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned.

        Raises: InferenceError where it is of another model, and changes nothing.
        """
        wrong = []
        for name in _PARTS:
            own = getattr(self._carried, name)
            found = np.asarray(state[name]) if name in state else None
            if found is None or found.shape != own.shape or found.dtype != own.dtype:
                kind = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
                wrong.append(f"'{name}' {own.dtype}{list(own.shape)}, found {kind}")
            elif not np.isfinite(found).all():
                wrong.append(f"'{name}' of finite numbers, found others")
        if not wrong:
            counters = np.asarray(state["counters"])
            if (counters < 0).any() or (counters[:-1, 0] >= self._strides).any():
                wrong.append(f"'counters' of open groups of up to {self._strides} events, found {counters[:-1, 0]}")
        if wrong:
            raise InferenceError(
                f"event SSM: state: expected {'; expected '.join(wrong)}. "
                "Try the state of a model with this very config."
            )
        self._seen = -1
        for name in _PARTS:
            getattr(self._carried, name)[...] = state[name]


def _is_plain(values: ArrayLike) -> bool:
    """Return whether these are what the compiled loops read."""
    return isinstance(values, np.ndarray) and values.dtype == np.int64 and values.ndim == 1 and values.flags.carray


def check_mode(mode: object) -> None:
    """Check that this is a mode.

    Raises: InferenceError otherwise.
    """
    if mode not in ("carried", "reset"):
        raise InferenceError(f"event SSM: mode: expected 'carried' or 'reset', found {mode!r}. Try 'carried'.")
