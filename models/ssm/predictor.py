"""The event state-space model as a predictor: evaluated, streamed with carried state, kept in one file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.atomic import write_atomic
from spikeport.models.errors import InferenceError, TensorFileError
from spikeport.models.predictor import MAIN, Confidence, Inputs, Response, RunOptions, check_recordings
from spikeport.models.tensorfile import pack, unpack

from .configs import SsmConfig
from .engine import Mode, OnlineEngine, check_mode
from .tokens import tokens_of

if TYPE_CHECKING:
    from spikeport.models.event_ssm import EventSSM

FORMAT = 1
"""Version of the file."""

KIND = "event ssm"

_NONE = -1


@dataclasses.dataclass(frozen=True, eq=False)
class SsmPredictor:
    """An ``EventSSM`` with its weights as they are when the predictor is made, fed event by event.

    The answer to a recording, or at the end of a window of a stream, is the logits of the events so far but the last,
    whose interval only the next one ends. ``"carried"``: of the whole stream so far. ``"reset"``: of the window alone,
    from states at rest. An answer to fewer events than ``config.downsampling`` is the head's bias.
    Law: ``"carried"`` answers are equal, bit for bit, whatever batches and pieces the input comes in.
    Raises: InferenceError where the names of classes do not fit, or weights are not finite.
    """

    module: EventSSM
    classes: tuple[str, ...] = ()
    mode: Mode = "carried"
    name: str = "event SSM"
    readout: str = "last"
    confidence: Confidence = "softmax"
    step_us: int | None = dataclasses.field(default=None, init=False)
    layers: tuple[str, ...] = dataclasses.field(default=(), init=False)
    is_idle: bool = dataclasses.field(default=True, init=False)
    engine: OnlineEngine = dataclasses.field(init=False, repr=False)
    content: bytes = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        config = self.module.config
        if self.classes and len(self.classes) != config.classes:
            raise InferenceError(
                f"{self.name}: expected {config.classes} names of classes, found {len(self.classes)}. Try one for each."
            )
        check_mode(self.mode)
        object.__setattr__(self, "engine", self.module.online())
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.module.state_dict().items()}
        header = {"config": dataclasses.asdict(config), "classes": list(self.classes), "mode": self.mode}
        object.__setattr__(self, "content", pack(tensors, header, kind=KIND, version=FORMAT))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Polarities, height and width."""
        return (1 if self.module.config.tokens == "channel" else 2, *self.module.config.sensor_size)

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """The classes."""
        return {MAIN: (self.module.config.classes,)}

    def start(self, options: RunOptions) -> SsmRun:
        """Return a fresh run."""
        return SsmRun(self, options)

    def fingerprint(self) -> str:
        """Return a hash of configuration, weights and mode."""
        return hashlib.sha256(self.content).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, whole or not at all.

        Law: ``load_ssm(path)`` answers the same, bit for bit; equal predictors give equal bytes.
        """
        write_atomic(path, self.content)


def load_ssm(path: str | Path) -> SsmPredictor:
    """Return the predictor in a file that ``SsmPredictor.save`` wrote.

    Raises: TensorFileError where the file is missing, damaged, foreign, of another version, or its parts do not fit
    each other.
    """
    import torch

    from spikeport.models.event_ssm import EventSSM

    name = Path(path).name
    header, tensors = unpack(path, kind=KIND, versions=(FORMAT,))
    try:
        given = header.get("config")
        known = {field.name for field in dataclasses.fields(SsmConfig)}
        if not isinstance(given, dict) or set(given) != known:
            raise ValueError(f"config: expected {', '.join(sorted(known))}, found {json.dumps(given)[:80]}")
        sizes = {key: value for key, value in given.items() if key in ("vocabulary", "d_model", "d_ssm", "n_stages")}
        if any(isinstance(value, int) and value > 1 << 24 for value in sizes.values()):
            raise ValueError(f"config: expected sizes of a model, found {sizes}")
        module = EventSSM(SsmConfig(**given))
        check_tensors(module, tensors)
        module.load_state_dict({key: torch.from_numpy(tensor) for key, tensor in tensors.items()})
        return SsmPredictor(module.eval(), tuple(map(str, header.get("classes", ()))), header.get("mode", "carried"))
    except (ValueError, TypeError) as cause:
        raise TensorFileError(f"{name}: {cause!s:.300} Try writing it again.") from cause


def check_tensors(module: EventSSM, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Check that tensors are those of a module, in float32 and finite.

    Raises: ValueError that names all that are not.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wrong = [f"'{name}' is missing" for name in expected if name not in tensors]
    wrong += [f"'{name}' belongs to no layer" for name in tensors if name not in expected]
    for name in sorted(set(expected) & set(tensors)):
        found = tensors[name]
        if found.shape != expected[name] or found.dtype != np.float32:
            wrong.append(f"'{name}': expected float32{list(expected[name])}, found {found.dtype}{list(found.shape)}")
        elif not np.isfinite(found).all():
            wrong.append(f"'{name}' holds NaN or infinity")
    if wrong:
        more = f"; {len(wrong) - 4} further" if len(wrong) > 4 else ""
        raise ValueError(f"{'; '.join(wrong[:4])}{more}.")


@dataclasses.dataclass
class _Stream:
    """One stream: its engine, the event that waits for its interval, and the last event since the last answer."""

    engine: OnlineEngine
    token: int = _NONE
    t_us: int = 0
    is_open: bool = False


class SsmRun:
    """An event state-space model at work on several streams."""

    def __init__(self, predictor: SsmPredictor, options: RunOptions) -> None:
        self._predictor, self._options = predictor, options
        self._streams: list[_Stream] = []
        self._spent_s = 0.0

    def feed(self, inputs: Inputs, until_us: int) -> Response:  # noqa: ARG002 - there is no step that ends by itself
        """Take in events; the answer has no step: ``finish`` gives it."""
        predictor = self._predictor
        if isinstance(inputs, np.ndarray):
            raise InferenceError(
                f"{predictor.name}: expected events, each with a time of its own, found a raster {list(inputs.shape)}. "
                "Try recordings, or an encoder that makes events."
            )
        check_recordings(inputs, predictor.input_shape, who=predictor.name)
        if not self._streams:
            self._streams = [_Stream(predictor.engine.fresh()) for _ in inputs]
        if len(inputs) > len(self._streams):
            raise InferenceError(
                f"{predictor.name}: expected at most {len(self._streams)} recordings, as many as in the piece before, "
                f"found {len(inputs)}. Try reset() between batches."
            )
        del self._streams[len(inputs) :]
        started = time.perf_counter()
        for stream, events in zip(self._streams, inputs, strict=True):
            if len(events):
                self._take(stream, tokens_of(events, predictor.module.config), np.asarray(events.t_us, np.int64))
        self._spent_s += time.perf_counter() - started
        return self._response(None, np.array([len(events) for events in inputs], np.int64))

    def finish(self) -> Response:
        """Return the logits of the events so far; none where no event came since the last answer."""
        none = np.zeros(max(1, len(self._streams)), np.int64)
        if not any(stream.is_open for stream in self._streams):
            return self._response(None, none)
        logits = np.stack([stream.engine.logits() for stream in self._streams])
        answer = self._response(logits, none)
        for stream in self._streams:
            stream.is_open = False
            if self._predictor.mode == "reset":
                stream.engine.reset()
                stream.token = _NONE
        return answer

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:
        """Set the clock to 0, the states to rest, and drop the event that waits, as asked."""
        for stream in self._streams:
            if state:
                stream.engine.reset()
            if time:
                stream.t_us = 0
            if pending:
                stream.token, stream.is_open = _NONE, False
        if time and state and pending:
            self._streams = []

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the states of all streams, and the events that wait."""
        waiting = [(stream.token, stream.t_us, int(stream.is_open)) for stream in self._streams]
        kept: dict[str, NDArray[Any]] = {"waiting": np.array(waiting, np.int64).reshape(-1, 3)}
        for row, stream in enumerate(self._streams):
            kept |= {f"{row}/{name}": array for name, array in stream.engine.state().items()}
        return kept

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned.

        Raises: InferenceError where it is of another model, and changes nothing.
        """
        waiting = np.asarray(state.get("waiting", np.zeros((0, 0))))
        vocabulary = self._predictor.module.config.vocabulary
        if waiting.ndim != 2 or waiting.shape[1] != 3 or waiting.dtype != np.int64:
            raise InferenceError(
                f"{self._predictor.name}: state: expected 'waiting' int64[streams, 3], found {waiting.dtype}"
                f"{list(waiting.shape)}. Try the state of this very predictor."
            )
        if ((waiting[:, 0] < _NONE) | (waiting[:, 0] >= vocabulary) | (waiting[:, 1] < 0)).any():
            raise InferenceError(
                f"{self._predictor.name}: state: expected waiting tokens below {vocabulary} at times of 0 or more, "
                f"found others. Try the state of this very predictor."
            )
        streams = []
        for row, (token, t_us, is_open) in enumerate(waiting.tolist()):
            engine = self._predictor.engine.fresh()
            engine.restore({key.split("/")[1]: one for key, one in state.items() if key.startswith(f"{row}/")})
            streams.append(_Stream(engine, token, t_us, bool(is_open)))
        self._streams = streams

    def _take(self, stream: _Stream, tokens: NDArray[np.int64], t_us: NDArray[np.int64]) -> None:
        if int(t_us[0]) < stream.t_us:
            raise InferenceError(
                f"{self._predictor.name}: expected events from {stream.t_us} us on, where the last one was, found one "
                f"at {int(t_us[0])} us. Try pieces of one recording in their order."
            )
        if stream.token != _NONE:
            tokens, t_us = np.append(stream.token, tokens), np.append(stream.t_us, t_us)
        stream.engine.feed(tokens[:-1], np.diff(t_us))
        stream.token, stream.t_us, stream.is_open = int(tokens[-1]), int(t_us[-1]), True

    def _response(self, logits: NDArray[np.float32] | None, n_events: NDArray[np.int64]) -> Response:
        n_samples = len(n_events)
        shape = (0, n_samples, self._predictor.module.config.classes)
        ends_us = np.array([[stream.t_us + 1 for stream in self._streams]], np.int64)
        profile = {self._predictor.name: self._spent_s} if self._options.profile else {}
        self._spent_s = 0.0
        return Response(
            outputs={MAIN: np.zeros(shape, np.float32) if logits is None else logits[None]},
            ends_us=np.zeros((0, n_samples), np.int64) if logits is None else ends_us,
            n_events=n_events,
            profile=profile,
        )
