"""What can be evaluated and streamed: the protocol of predictors, and what a run of one answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayRecord, frozen
from .errors import InferenceError
from .events import Events

Inputs = Sequence[Events] | NDArray[Any]
"""A batch: recordings side by side, or a raster ``[T, B, *input_shape]``."""

Confidence = Literal["share", "softmax"]

NEVER_US = 1 << 62
"""End of a step that a sample of a batch does not have, where others have more."""

MAIN = "output"
"""Name of the output of a predictor that has one."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run keeps beside its outputs: ``record`` names layers whose spikes are kept, ``profile`` takes times."""

    record: tuple[str, ...] = ()
    profile: bool = False


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Response(ArrayRecord):
    """What a run answered to a piece of input, in time steps.

    Shapes: ``outputs[name]`` is ``[T, B, *shape]``, ``ends_us`` ``[T, B]`` the time at which each step ends,
    ``NEVER_US`` for one that a sample does not have; ``tie_breaks[name]`` ``[B, *shape]`` decides between equal
    outputs, by the last step. ``spikes[layer]`` and ``synops[layer]`` are ``[B]``, of the whole piece, empty where the
    predictor counts none; ``n_events`` ``[B]`` are the input events of the piece. ``recorded[layer]`` is
    ``[T, B, *layer shape]``, where it was asked for.
    Units: times in microseconds on the clock of the run; ``profile`` in seconds, by layer or kernel.
    """

    outputs: Mapping[str, NDArray[Any]]
    ends_us: NDArray[np.int64]
    n_events: NDArray[np.int64]
    tie_breaks: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    spikes: Mapping[str, NDArray[np.int64]] = dataclasses.field(default_factory=dict)
    synops: Mapping[str, NDArray[np.int64]] = dataclasses.field(default_factory=dict)
    recorded: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    profile: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends_us", frozen(self.ends_us, np.int64))
        object.__setattr__(self, "n_events", frozen(self.n_events, np.int64))
        for name in ("outputs", "tie_breaks", "spikes", "synops", "recorded"):
            arrays = {key: frozen(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(arrays))

    @property
    def n_steps(self) -> int:
        """Number of time steps."""
        return int(self.ends_us.shape[0])

    @property
    def n_samples(self) -> int:
        """Number of recordings side by side."""
        return int(self.n_events.shape[0])


class Run(Protocol):
    """A predictor at work on a batch of streams, each with a clock that starts at 0.

    Law: whatever pieces the input comes in, the steps of all answers together are those of the whole input; after
    ``reset()`` a run answers as a fresh one.
    """

    def feed(self, inputs: Inputs, until_us: int) -> Response:
        """Return the steps that end at or before ``until_us``; later input waits for the end of its step.

        A raster comes in whole steps, and ``until_us`` is where its last one ends.
        Raises: InferenceError or another error of the package where the input does not fit the predictor.
        """
        ...

    def finish(self) -> Response:
        """Return the step that is open, where input waits for its end; no step where none does."""
        ...

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:
        """Set the clock to 0, the states to their start, and drop the input that waits, as asked."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that the next answer depends on, as arrays."""
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned.

        Law: the run then answers, bit for bit, as the one that the state was taken from.
        """
        ...


@runtime_checkable
class Predictor(Protocol):
    """A network with everything that its answers depend on: settings of the run are not among them.

    ``input_shape`` is ``(channels, height, width)`` for events; ``outputs`` maps names to shapes; ``layers`` may be
    recorded. ``step_us`` None: a whole recording, or the window of a stream, is one step. ``is_idle`` says that steps
    without input change nothing. ``readout`` is the name of the one that suits the outputs, ``confidence`` how shares
    of classes come of them.
    """

    @property
    def name(self) -> str:
        """What errors and tables call it."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one step of input."""
        ...

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the outputs."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that may be recorded."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where they are known."""
        ...

    @property
    def step_us(self) -> int | None:
        """Length of a time step."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether steps without input change nothing."""
        ...

    @property
    def readout(self) -> str:
        """Name of the readout that suits the outputs."""
        ...

    @property
    def confidence(self) -> Confidence:
        """How shares of classes come of the outputs."""
        ...

    def start(self, options: RunOptions) -> Run:
        """Return a fresh run."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of everything that answers depend on."""
        ...


def check_predictor(found: object) -> Predictor:
    """Return ``found`` where it is a predictor, a torch module as one.

    Raises: InferenceError for anything else, with the call that makes a predictor of it.
    """
    if isinstance(found, Predictor):
        return found
    kind = type(found).__name__
    wrap = {
        "SpikingNet": "spikeport.convert.NetPredictor(net)",
        "Conversion": "spikeport.convert.NetPredictor(conversion.net)",
        "Program": "spikeport.deploy.ProgramPredictor(program)",
        "Emulator": "spikeport.deploy.ProgramPredictor(emulator.program)",
    }
    if hasattr(found, "forward") and hasattr(found, "state_dict"):
        wrap[kind] = "spikeport.models.CnnPredictor(module, input_shape)"
    raise InferenceError(
        f"predictor: expected an object that can start a run, found {kind}. "
        f"Try {wrap.get(kind, 'spikeport.deploy.open_predictor(path)')}."
    )


def length_us(predictor: Predictor, last_us: int) -> int:
    """Return where the step ends that an event at ``last_us`` falls into: the length of a recording from time 0."""
    return last_us + 1 if predictor.step_us is None else (last_us // predictor.step_us + 1) * predictor.step_us


def check_recordings(recordings: Sequence[Events], input_shape: tuple[int, ...], *, who: str) -> None:
    """Check that recordings come from the sensor of an input.

    Raises: InferenceError otherwise.
    """
    for events in recordings:
        if len(input_shape) != 3 or events.sensor_size != input_shape[1:]:
            raise InferenceError(
                f"{who}: expected an input of {_times(input_shape)}, found events of a sensor of "
                f"{_times(events.sensor_size)}. Try cropping or scaling the recording, or a predictor for its sensor."
            )


def check_raster(raster: NDArray[Any], input_shape: tuple[int, ...], *, who: str) -> NDArray[Any]:
    """Return a raster ``[T, B, *input_shape]`` of finite numbers.

    Raises: InferenceError otherwise.
    """
    if raster.ndim != 2 + len(input_shape) or tuple(raster.shape[2:]) != tuple(input_shape):
        raise InferenceError(
            f"{who}: expected a raster of shape [time, batch, {', '.join(map(str, input_shape))}], found "
            f"{list(raster.shape)}. Try a predictor for this input, or another axis order."
        )
    if raster.dtype.kind not in "biuf" or not np.isfinite(raster).all():
        raise InferenceError(f"{who}: expected finite numbers, found {raster.dtype} with others. Try numpy.nan_to_num.")
    return raster


def joined(pieces: Sequence[Response]) -> Response:
    """Return the answers to pieces of one input, one after the other, as one."""
    if len(pieces) == 1:
        return pieces[0]

    def behind(name: str) -> dict[str, NDArray[Any]]:
        return {key: np.concatenate([getattr(one, name)[key] for one in pieces]) for key in getattr(pieces[0], name)}

    def total(name: str) -> dict[str, NDArray[Any]]:
        return {key: sum(getattr(one, name)[key] for one in pieces) for key in getattr(pieces[0], name)}

    profile: dict[str, float] = {}
    for one in pieces:
        for key, seconds in one.profile.items():
            profile[key] = profile.get(key, 0.0) + seconds
    return Response(
        outputs=behind("outputs"),
        ends_us=np.concatenate([one.ends_us for one in pieces]),
        n_events=np.sum([one.n_events for one in pieces], axis=0),
        tie_breaks=next((one for one in reversed(pieces) if one.n_steps), pieces[-1]).tie_breaks,
        spikes=total("spikes"),
        synops=total("synops"),
        recorded=behind("recorded"),
        profile=profile,
    )


def decide(values: NDArray[Any], tie_breaks: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Return the class of each sample: the largest value, then the larger tie-break, then the lower index.

    Shapes: ``values`` and ``tie_breaks`` are ``[B, *shape]``, the result ``[B]``.
    """
    flat = values.reshape(len(values), -1)
    if tie_breaks is None:
        return np.asarray(flat.argmax(axis=1), np.int64)
    best = flat == flat.max(axis=1, keepdims=True)
    ties = tie_breaks.reshape(len(values), -1).astype(np.float64)
    return np.asarray(np.where(best, ties, -np.inf).argmax(axis=1), np.int64)


def shares(values: NDArray[Any], how: Confidence) -> NDArray[np.float64]:
    """Return the confidence in each class, which sum to 1.

    ``"share"`` of counts is ``(n + 1 / K) / (sum + 1)``: all alike before the first spike; ``"softmax"`` is that of
    values.
    Shapes: ``[..., K]``.
    """
    given = np.asarray(values, np.float64)
    if how == "share":
        counts = np.maximum(given, 0.0)
        k = counts.shape[-1]
        return np.asarray((counts + 1.0 / k) / (counts.sum(axis=-1, keepdims=True) + 1.0))
    shifted = np.exp(given - given.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
