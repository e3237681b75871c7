"""A plain CNN as a predictor: events become frames, of a whole recording, of a window, or of each step."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .atomic import write_atomic
from .errors import InferenceError
from .predictor import MAIN, Confidence, Inputs, Response, RunOptions, check_raster, check_recordings
from .train import _without_last_relu
from .window import OpenSteps, count_steps, no_events

if TYPE_CHECKING:
    import torch
    from torch import nn

_TOGETHER = 256
"""Frames of one forward call."""


@dataclasses.dataclass(frozen=True, eq=False)
class CnnPredictor:
    """A torch module that takes frames ``[N, *input_shape]``; several outputs come as a mapping or a tuple.

    ``step_us`` None: all events of a recording, or of the window of a stream, are one frame. A final ReLU that makes
    the largest outputs equal is looked behind, as in ``accuracy``.
    Law: frames do not depend on each other; outputs of other batch sizes differ by float32 rounding at most.
    Raises: InferenceError where the module does not take such frames.
    """

    module: nn.Module
    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    step_us: int | None = None
    name: str = "CNN"
    outputs: Mapping[str, tuple[int, ...]] = dataclasses.field(init=False)
    layers: tuple[str, ...] = dataclasses.field(default=(), init=False)
    is_idle: bool = dataclasses.field(default=True, init=False)
    readout: str = "sum"
    confidence: Confidence = "softmax"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(map(int, self.input_shape)))
        try:
            answered, _ = self.answer(np.zeros((2, *self.input_shape), np.float32))
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as cause:
            lines = str(cause).splitlines() or [type(cause).__name__]
            raise InferenceError(
                f"{self.name}: {type(self.module).__name__} does not take frames of {list(self.input_shape)}: "
                f"{lines[0][:200]}. Try the input shape that it was made for."
            ) from cause
        object.__setattr__(self, "outputs", {key: value.shape[1:] for key, value in answered.items()})

    def start(self, options: RunOptions) -> CnnRun:
        """Return a fresh run."""
        return CnnRun(self, options)

    def fingerprint(self) -> str:
        """Return a hash of the module's text, its tensors, and the step."""
        found = hashlib.sha256(f"{self.module!r} {self.input_shape} {self.step_us}".encode())
        for key, tensor in self.module.state_dict().items():
            found.update(key.encode() + np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
        return found.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the module to a ``.pt2`` file, whole or not at all.

        Law: ``CnnPredictor(*load_exported(path))`` answers the same.
        """
        import io
        import warnings

        import torch

        example = torch.zeros(2, *self.input_shape, dtype=_dtype(self.module))
        stream = io.BytesIO()
        with _evaluating(self.module), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecated calls
            batch = torch.export.Dim("batch")
            program = torch.export.export(self.module, (example,), dynamic_shapes=({0: batch},))
            torch.export.save(program, stream)
        write_atomic(path, stream.getvalue())

    def answer(self, frames: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Return the outputs for frames ``[N, *input_shape]``, and what decides between equal ones."""
        import torch

        body = _without_last_relu(self.module)
        parts: list[dict[str, NDArray[Any]]] = []
        with torch.no_grad(), _evaluating(self.module):
            for first in range(0, len(frames), _TOGETHER):
                batch = torch.from_numpy(np.ascontiguousarray(frames[first : first + _TOGETHER], np.float32))
                parts.append(_named(body(batch.to(_dtype(self.module)))))
        values = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        if body is self.module:
            return values, {}
        return {key: np.maximum(value, 0) for key, value in values.items()}, values


class CnnRun:
    """A CNN at work; what it keeps are the events of the open frame, and the clock."""

    def __init__(self, predictor: CnnPredictor, options: RunOptions) -> None:
        self._predictor, self._options = predictor, options
        self._steps = OpenSteps(predictor.step_us or 1, who=predictor.name)
        self._frame: NDArray[np.float32] | None = None
        self._last_us: NDArray[np.int64] | None = None

    def feed(self, inputs: Inputs, until_us: int) -> Response:
        """Return the frames that ended."""
        predictor = self._predictor
        if isinstance(inputs, np.ndarray):
            raster = check_raster(inputs, predictor.input_shape, who=predictor.name)
            self._steps.skip(len(raster))
            return self._response(raster, np.zeros(raster.shape[1], np.int64), self._steps.ends_us(*raster.shape[:2]))
        check_recordings(inputs, predictor.input_shape, who=predictor.name)
        n_events = np.array([len(events) for events in inputs], np.int64)
        if predictor.step_us is None:
            self._collect(inputs)
            return self._response(np.zeros((0, len(inputs), *predictor.input_shape), np.float32), n_events)
        first = self._steps.n_done
        taken, n_steps = self._steps.take(inputs, until_us)
        channels = predictor.input_shape[0]
        raster = count_steps(taken, n_steps, first=first, step_us=predictor.step_us, channels=channels)
        return self._response(raster, n_events, self._steps.ends_us(n_steps, len(inputs)))

    def finish(self) -> Response:
        """Return the open frame; none where no event waits."""
        predictor = self._predictor
        if predictor.step_us is not None and self._steps.is_waiting:
            empty = [no_events(predictor.input_shape[1:])] * self._steps.n_waiting
            return self.feed(empty, (self._steps.n_done + 1) * predictor.step_us)
        if self._frame is None or self._last_us is None:
            return self._response(np.zeros((0, 1, *predictor.input_shape), np.float32), np.zeros(1, np.int64))
        frame, ends = self._frame, self._last_us[None] + 1
        self._frame = self._last_us = None
        return self._response(frame[None], np.zeros(len(frame), np.int64), ends)

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:  # noqa: ARG002
        """Set the clock to 0 and drop the open frame, as asked; there is no other state."""
        self._steps.reset(time=time, pending=pending)
        if pending:
            self._frame = self._last_us = None

    def state(self) -> dict[str, NDArray[Any]]:
        """Return clock and open frame."""
        kept = self._steps.state()
        if self._frame is not None and self._last_us is not None:
            kept |= {"frame": self._frame.copy(), "last_us": self._last_us.copy()}
        return kept

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned."""
        self._steps.restore(state)
        self._frame = np.array(state["frame"], np.float32) if "frame" in state else None
        self._last_us = np.array(state["last_us"], np.int64) if "last_us" in state else None

    def _collect(self, recordings: Any) -> None:
        channels = self._predictor.input_shape[0]
        frames = [
            events.from_zero().to_raster(events.duration_us + 1, n_bins=1, merge_polarity=channels == 1)[0]
            for events in recordings
        ]
        last = np.array([int(events.t_us[-1]) if len(events) else 0 for events in recordings], np.int64)
        if self._frame is None or self._last_us is None or len(self._frame) != len(frames):
            self._frame, self._last_us = np.stack(frames), last
            return
        self._frame, self._last_us = self._frame + np.stack(frames), np.maximum(self._last_us, last)

    def _response(
        self, raster: NDArray[Any], n_events: NDArray[np.int64], ends_us: NDArray[np.int64] | None = None
    ) -> Response:
        n_steps, n_samples = raster.shape[:2]
        is_one = n_steps == 1 and self._predictor.step_us is None  # of several frames none decides for all
        shapes = self._predictor.outputs
        profile: dict[str, float] = {}
        values: dict[str, NDArray[Any]] = {key: np.zeros((0, *shape), np.float32) for key, shape in shapes.items()}
        ties: dict[str, NDArray[Any]] = {}
        if n_steps:
            with _timed(self._predictor.module, profile if self._options.profile else None):
                values, ties = self._predictor.answer(raster.reshape(-1, *raster.shape[2:]))
        return Response(
            outputs={key: value.reshape(n_steps, n_samples, *shapes[key]) for key, value in values.items()},
            ends_us=np.zeros((0, n_samples), np.int64) if ends_us is None else ends_us,
            n_events=n_events,
            tie_breaks={key: value.reshape(n_samples, *shapes[key]) for key, value in ties.items() if is_one},
            profile=profile,
        )


def _named(found: Any) -> dict[str, NDArray[Any]]:
    if isinstance(found, Mapping):
        return {str(key): value.numpy() for key, value in found.items()}
    if isinstance(found, (tuple, list)):
        return {f"{MAIN}{index}": value.numpy() for index, value in enumerate(found)}
    return {MAIN: found.numpy()}


def _dtype(module: nn.Module) -> torch.dtype:
    import torch

    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@contextlib.contextmanager
def _timed(module: nn.Module, profile: dict[str, float] | None) -> Iterator[None]:
    """Add the seconds of each layer without parts to ``profile``."""
    if profile is None:
        yield
        return
    began: dict[str, float] = {}
    handles = []
    for name, layer in module.named_modules():
        if any(layer.children()):
            continue

        def before(*_: Any, name: str = name) -> None:
            began[name] = time.perf_counter()

        def after(*_: Any, name: str = name) -> None:
            profile[name] = profile.get(name, 0.0) + time.perf_counter() - began[name]

        handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
