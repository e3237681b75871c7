"""The recurrent LIF classifier as a predictor: evaluated, streamed with carried state, kept in one file."""

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

from .atomic import write_atomic
from .errors import InferenceError, TensorFileError
from .events import Events
from .predictor import MAIN, Confidence, Inputs, Response, RunOptions, check_raster, check_recordings, joined
from .sparse import SparseSteps, sparse_events, sparse_raster
from .tensorfile import pack, unpack
from .window import OpenSteps

if TYPE_CHECKING:
    from .recurrent_lif import LifState, RecurrentLif

FORMAT = 1
"""Version of the file."""

LAYERS = "lif", "readout"

_STATE = ("v", "i", "z", "out_v", "out_i")
_CLOCK = "clock/"
_ROWS = 1 << 13
"""Steps of all samples that are worked on at once: a pause in a stream takes no more memory than that."""


@dataclasses.dataclass(frozen=True, eq=False)
class LifPredictor:
    """A ``RecurrentLif`` that takes events of a sensor, or counts, in steps of its ``dt_s``.

    ``input_shape`` is ``(channels, height, width)``; one channel merges polarities. The outputs are the potentials of
    the readout, whose maximum over time is read: its softmax are the probabilities that the module was trained for.
    Law: equal, bit for bit, whatever batches and pieces the input comes in (weights on the CPU in float32).
    Raises: InferenceError where shape, classes or step do not fit the module.
    """

    module: RecurrentLif
    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    name: str = "recurrent LIF"
    readout: str = "maximum"
    confidence: Confidence = "softmax"
    layers: tuple[str, ...] = dataclasses.field(default=LAYERS, init=False)
    is_idle: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(map(int, self.input_shape)))
        config, shape, wrong = self.module.config, self.input_shape, []
        if len(shape) != 3 or shape[0] not in (1, 2) or int(np.prod(shape)) != config.in_features:
            wrong.append(f"an input (1 or 2, height, width) of {config.in_features} features, found {shape}")
        if self.classes and len(self.classes) != config.classes:
            wrong.append(f"{config.classes} names of classes, found {len(self.classes)}")
        step_us = config.dt_s * 1e6
        if round(step_us) < 1 or abs(step_us - round(step_us)) > 1e-6 * step_us:
            wrong.append(f"a step of whole microseconds, found {step_us:g}")
        if wrong:
            raise InferenceError(f"{self.name}: expected {'; '.join(wrong)}. Try the shape it was trained for.")

    @property
    def step_us(self) -> int:
        """The module's step."""
        return round(self.module.config.dt_s * 1e6)

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """The classes."""
        return {MAIN: (self.module.config.classes,)}

    def start(self, options: RunOptions) -> LifRun:
        """Return a fresh run."""
        return LifRun(self, options)

    def fingerprint(self) -> str:
        """Return a hash of configuration, weights and shape."""
        return hashlib.sha256(self._bytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, whole or not at all.

        Law: ``load_lif(path)`` answers the same, bit for bit; equal predictors give equal bytes.
        """
        write_atomic(path, self._bytes())

    def _bytes(self) -> bytes:
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.module.state_dict().items()}
        header = {
            "config": dataclasses.asdict(self.module.config),
            "input_shape": list(self.input_shape),
            "classes": list(self.classes),
        }
        return pack(tensors, header, kind="recurrent lif", version=FORMAT)


def load_lif(path: str | Path) -> LifPredictor:
    """Return the predictor in a file that ``LifPredictor.save`` wrote.

    Raises: TensorFileError where the file is missing, damaged, foreign, of another version, or its parts do not fit
    each other.
    """
    import torch

    from .recurrent_lif import LifConfig, RecurrentLif

    name = Path(path).name
    header, tensors = unpack(path, kind="recurrent lif", versions=(FORMAT,))
    try:
        given = header.get("config")
        known = {field.name for field in dataclasses.fields(LifConfig)}
        if not isinstance(given, dict) or set(given) != known:
            raise ValueError(f"config: expected {', '.join(sorted(known))}, found {json.dumps(given)[:80]}")
        config = LifConfig(**given)
        expected = {
            "input_weight": (config.hidden, config.in_features),
            "recurrent_weight": (config.hidden, config.hidden),
            "readout_weight": (config.classes, config.hidden),
        }
        found = {key: tensor.shape for key, tensor in tensors.items()}
        if found != expected:
            raise ValueError(f"tensors: expected {expected}, found {found}")
        kinds = {str(tensor.dtype) for tensor in tensors.values()}
        if kinds not in ({"float32"}, {"float64"}) or not all(np.isfinite(one).all() for one in tensors.values()):
            raise ValueError(
                f"tensors: expected finite numbers in float32 or float64, found {', '.join(sorted(kinds))}"
            )
        with torch.random.fork_rng(devices=[]):
            module = RecurrentLif(**given)
        module.to(torch.float64 if kinds == {"float64"} else torch.float32)
        module.load_state_dict({key: torch.from_numpy(tensor) for key, tensor in tensors.items()})
        return LifPredictor(module.eval(), tuple(header.get("input_shape", ())), tuple(header.get("classes", ())))
    except (ValueError, TypeError) as cause:
        raise TensorFileError(f"{name}: {cause!s:.300}. Try writing it again.") from cause


class LifRun:
    """A recurrent LIF classifier at work on several streams; what it keeps are its state, the clock, the open step."""

    def __init__(self, predictor: LifPredictor, options: RunOptions) -> None:
        self._predictor, self._options = predictor, options
        self._steps = OpenSteps(predictor.step_us, who=predictor.name)
        self._state: LifState | None = None

    def feed(self, inputs: Inputs, until_us: int) -> Response:
        """Return the steps that ended."""
        predictor = self._predictor
        if isinstance(inputs, np.ndarray):
            raster = check_raster(inputs, predictor.input_shape, who=predictor.name)
            self._steps.skip(len(raster))
            pieces: list[tuple[SparseSteps | None, int]] = [
                (sparse_raster(raster[start:stop]), stop - start)
                for start, stop in _blocks(len(raster), raster.shape[1])
            ]
            return self._run(pieces, raster.shape[1], None)
        check_recordings(inputs, predictor.input_shape, who=predictor.name)
        n_events = np.array([len(events) for events in inputs], np.int64)
        first = self._steps.n_done
        taken, n_steps = self._steps.take(inputs, until_us)
        form = {"step_us": predictor.step_us, "channels": predictor.input_shape[0]}
        pieces = []
        for start, stop in _blocks(n_steps, len(inputs)):
            bounds = (first + start) * predictor.step_us, (first + stop) * predictor.step_us
            part = [events.window(*bounds) for events in taken]
            pieces.append((sparse_events(part, n_steps=stop - start, first=first + start, **form), stop - start))
        return self._run(pieces, len(inputs), n_events)

    def finish(self) -> Response:
        """Return the open step; none where no event waits."""
        if not self._steps.is_waiting:
            known = self._steps.n_waiting if self._state is None else len(self._state.v)
            return self._run([], max(1, known), None)
        size: Any = self._predictor.input_shape[1:]
        empty = [Events([], [], [], [], size)] * self._steps.n_waiting  # type: ignore[arg-type]
        return self.feed(empty, (self._steps.n_done + 1) * self._predictor.step_us)

    def reset(self, *, time: bool = True, state: bool = True, pending: bool = True) -> None:
        """Set the clock to 0, the neurons to rest, and drop the events that wait, as asked."""
        self._steps.reset(time=time, pending=pending)
        if state:
            self._state = None

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state of neurons and readout, the clock, and what waits."""
        kept = {} if self._state is None else {name: getattr(self._state, name).cpu().numpy() for name in _STATE}
        return {
            **{name: array.copy() for name, array in kept.items()},
            **{f"{_CLOCK}{name}": array for name, array in self._steps.state().items()},
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` returned.

        Raises: InferenceError where it is of another predictor.
        """
        import torch

        from .recurrent_lif import LifState

        config = self._predictor.module.config
        found = {name: np.shape(state[name]) for name in _STATE if name in state}
        n_samples = found["v"][0] if len(found.get("v", ())) == 2 else 0
        widths = {name: config.classes if name.startswith("out_") else config.hidden for name in _STATE}
        if found and found != {name: (n_samples, width) for name, width in widths.items()}:
            raise InferenceError(
                f"{self._predictor.name}: state: expected arrays [batch, width] of widths {widths}, found {found}. "
                "Try the state of this very predictor."
            )
        kept = {name: torch.from_numpy(np.array(state[name])) for name in found}
        self._state = LifState(**kept) if kept else None
        self._steps.restore({key.removeprefix(_CLOCK): one for key, one in state.items() if key.startswith(_CLOCK)})

    def _run(
        self, pieces: list[tuple[SparseSteps | None, int]], n_samples: int, n_events: NDArray[np.int64] | None
    ) -> Response:
        """Return the answers to blocks of steps, which end where the clock stands."""
        if not pieces:
            empty = sparse_raster(np.zeros((0, n_samples, *self._predictor.input_shape), np.float32))
            pieces = [(empty, 0)]
        n_steps = sum(n for _, n in pieces)
        none = np.zeros(n_samples, np.int64)
        answers = [
            self._answer(steps, n_samples, counts_synops=n_events is not None)
            for steps, _ in pieces
            if steps is not None
        ]
        whole = joined(answers)
        ends_us = self._steps.ends_us(n_steps, n_samples)
        return dataclasses.replace(whole, ends_us=ends_us, n_events=none if n_events is None else n_events)

    def _answer(self, steps: SparseSteps, n_samples: int, *, counts_synops: bool) -> Response:
        import torch

        predictor, config = self._predictor, self._predictor.module.config
        started = time.perf_counter()
        before = self._first(n_samples)
        with torch.no_grad():
            outcome = predictor.module.run(steps, before, record=True)
        if len(outcome.potentials):
            self._state = outcome.state
        spikes = outcome.trace.z.cpu().numpy() if outcome.trace else np.zeros((0, n_samples, config.hidden))
        per_step = spikes.sum(axis=2).astype(np.int64)
        emitted = per_step.sum(axis=0)
        synops = {}
        if counts_synops:
            waiting = 0 if before is None else before.z.cpu().numpy().sum(axis=1).astype(np.int64)
            arrived = np.diff(steps.starts).reshape(-1, n_samples).sum(axis=0) if len(per_step) else 0
            delivered = waiting + per_step[:-1].sum(axis=0) if len(per_step) else 0 * emitted
            into = arrived * config.hidden + delivered * (config.hidden - 1)
            synops = {LAYERS[0]: into, LAYERS[1]: emitted * config.classes}
        wall_s = time.perf_counter() - started
        return Response(
            outputs={MAIN: outcome.potentials.cpu().numpy()},
            ends_us=np.zeros((len(per_step), n_samples), np.int64),
            n_events=np.zeros(n_samples, np.int64),
            spikes={LAYERS[0]: emitted},
            synops=synops,
            recorded={LAYERS[0]: spikes.astype(np.int32)} if LAYERS[0] in self._options.record else {},
            profile={predictor.name: wall_s} if self._options.profile else {},
        )

    def _first(self, n_samples: int) -> LifState | None:
        """Return the state that goes on, of the first samples where there are fewer than in the piece before."""
        state = self._state
        if state is None or len(state.v) == n_samples:
            return state
        if len(state.v) < n_samples:
            raise InferenceError(
                f"{self._predictor.name}: expected at most {len(state.v)} recordings, as many as in the piece before, "
                f"found {n_samples}. Try reset() between batches."
            )
        return dataclasses.replace(state, **{name: getattr(state, name)[:n_samples] for name in _STATE})


def _blocks(n_steps: int, n_samples: int) -> list[tuple[int, int]]:
    """Return the first and last steps of blocks of bounded size."""
    if n_steps * n_samples > 1 << 24:
        raise InferenceError(
            f"steps: expected at most {1 << 24} at once, found {n_steps} steps of {n_samples} recordings. "
            "Try longer steps, smaller pieces, or events.from_zero()."
        )
    size = max(1, _ROWS // max(1, n_samples))
    return [(start, min(start + size, n_steps)) for start in range(0, n_steps, size)]
