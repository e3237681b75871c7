"""One batch after the other through a predictor: assembled, run in pieces, read out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .callbacks import Callbacks, View
from .encoders import DirectCurrent, Encoder, Hold, sample_rng
from .errors import InferenceError
from .events import Events
from .predictor import Predictor, Response, Run, RunOptions, check_recordings, decide, joined, length_us
from .readouts import Reading, Readout
from .samples import Sample
from .seen import Seen

_MAX_STEPS = 10_000_000
"""A recording of more is taken for a slip of units."""


@dataclasses.dataclass(frozen=True)
class InferenceSettings:
    """How a predictor is run over data.

    ``n_steps`` steps for each sample: longer ones are cut, shorter ones go on without input; None is as long as a
    recording is. ``batch_size`` samples run side by side, which changes no answer. ``seed`` is for random encoders;
    0 is a seed like any other. ``encoder`` makes steps of still frames (None: the frame in each of ``n_steps``), and
    ``readout`` one value of the steps, for all outputs or each (None: what suits the predictor). ``profile`` takes the
    time of each layer or kernel.

    Between batches ``reset_time`` sets the clock to 0 (else the next batch goes on where this one ended),
    ``reset_state`` the states to their start, and ``reset_input`` drops input that waits for the end of its step: with
    False the last step of a recording stays open, and its input joins the next batch. All three are on: no sample
    leaves a trace in another. ``is_shown`` None shows progress on a terminal.
    Units: ``dt_us`` is the length of a step in microseconds; None is the predictor's own.
    """

    dt_us: int | None = None
    n_steps: int | None = None
    batch_size: int = 16
    seed: int = 0
    readout: str | Readout | Mapping[str, str | Readout] | None = None
    encoder: Encoder | None = None
    profile: bool = False
    reset_time: bool = True
    reset_state: bool = True
    reset_input: bool = True
    is_shown: bool | None = None

    def __post_init__(self) -> None:
        wrong = [
            f"{name}: expected {low} or more, found {value}"
            for name, low in (("dt_us", 1), ("n_steps", 1), ("batch_size", 1), ("seed", 0))
            if (value := getattr(self, name)) is not None and (not isinstance(value, (int, np.integer)) or value < low)
        ]
        if wrong:
            raise InferenceError(f"inference settings: {'; '.join(wrong)}. Try InferenceSettings().")

    @property
    def is_independent(self) -> bool:
        """Whether no batch depends on the one before."""
        return self.reset_time and self.reset_state and self.reset_input


@dataclasses.dataclass(frozen=True, eq=False)
class Assembled:
    """A batch as a run takes it; ``lengths_us`` ``[B]`` is where the last step of each sample ends."""

    recordings: tuple[Events, ...] | None
    raster: NDArray[Any] | None
    lengths_us: NDArray[np.int64]


class BatchRunner:
    """A predictor at work on batches of samples, one after the other."""

    def __init__(
        self,
        predictor: Predictor,
        settings: InferenceSettings,
        *,
        readouts: Mapping[str, Readout],
        callbacks: Callbacks,
        needs_decisions: bool,
    ) -> None:
        self._predictor, self._settings, self._readouts, self._callbacks = predictor, settings, readouts, callbacks
        self._needs_decisions = needs_decisions
        unknown_layers = [name for name in callbacks.record if name not in predictor.layers]
        if unknown_layers:
            raise InferenceError(
                f"callbacks: expected layers of {predictor.name} ({', '.join(predictor.layers) or 'none'}), found "
                f"'{unknown_layers[0]}'. Try one of them."
            )
        self._run: Run = predictor.start(RunOptions(record=callbacks.record, profile=settings.profile))
        self._clock_us = 0

    def run(self, samples: Iterable[Sample]) -> Iterator[tuple[dict[str, Seen], Response]]:
        """Yield what became of each batch."""
        for group in self._groups(samples):
            yield self._run_batch(group)

    def _groups(self, samples: Iterable[Sample]) -> Iterator[list[tuple[Sample, int]]]:
        """Yield batches; of samples of one length each, where silence at the end of a shorter one would tell."""
        for batch in _chunks(samples, self._settings.batch_size):
            with_lengths = [(sample, self._length_us(sample)) for sample in batch]
            lengths = list(dict.fromkeys(length for _, length in with_lengths))
            if self._predictor.is_idle or len(lengths) == 1:
                yield with_lengths
                continue
            if not self._settings.is_independent:
                raise InferenceError(
                    f"{self._predictor.name}: expected recordings of one length, as states go from batch to batch, "
                    f"found {len(lengths)} lengths in a batch. Try n_steps, or batch_size=1."
                )
            for length in lengths:
                yield [one for one in with_lengths if one[1] == length]

    def _run_batch(self, group: Sequence[tuple[Sample, int]]) -> tuple[dict[str, Seen], Response]:
        settings, predictor, run = self._settings, self._predictor, self._run
        samples = [sample for sample, _ in group]
        indices = tuple(sample.index for sample in samples)
        run.reset(time=settings.reset_time, state=settings.reset_state, pending=settings.reset_input)
        clock_us = self._clock_us = 0 if settings.reset_time else self._clock_us
        self._callbacks.before_batch(run, indices)
        batch = self._assemble(group)
        lengths = batch.lengths_us
        readings = {
            name: Reading(self._readouts[name], (len(samples), *shape), length_us=lengths)
            for name, shape in predictor.outputs.items()
        }
        decisions: dict[str, list[NDArray[np.int64]]] = {name: [] for name in predictor.outputs}
        done = np.zeros(len(samples), np.bool_)
        pieces: list[Response] = []
        lives: list[NDArray[np.bool_]] = []

        def take(piece: Response) -> None:
            live = (piece.ends_us - clock_us <= lengths) & ~done
            pieces.append(piece)
            lives.append(live)
            for name, reading in readings.items():
                steps = piece.outputs[name], piece.ends_us - clock_us, live
                if self._needs_decisions:
                    decisions[name] += reading.trace(*steps, _decision)
                else:
                    reading.add(*steps)

        for number, (inputs, until_us) in enumerate(self._pieces(batch, done), 1):
            take(run.feed(inputs, until_us + clock_us))
            view = View(
                run=run,
                predictor=predictor,
                indices=indices,
                time_us=until_us,
                values={name: reading.value() for name, reading in readings.items()},
                done=done.copy(),
            )
            done |= self._callbacks.after_chunk(view, number)
            if done.all():
                break
        if predictor.step_us is None and not done.all() and (last := run.finish()).n_steps:
            take(last)
        self._clock_us = clock_us + int(lengths.max())
        response = joined(pieces)
        live = np.concatenate(lives)
        seen = {
            name: Seen(
                output=name,
                indices=indices,
                targets=_targets(samples, name, predictor),
                values=readings[name].value(),
                tie_breaks=response.tie_breaks.get(name) if not done.any() else None,
                curve=response.outputs[name],
                live=live,
                lengths_us=lengths,
                decided_us=_decided_us(decisions[name], response.ends_us - clock_us) if self._needs_decisions else None,
                response=response,
                predictor=predictor,
            )
            for name in predictor.outputs
        }
        self._callbacks.after_batch(seen, response)
        return seen, response

    def _length_us(self, sample: Sample) -> int:
        settings, predictor = self._settings, self._predictor
        step_us = predictor.step_us or 1
        if isinstance(sample.input, Events):
            check_recordings([sample.input], predictor.input_shape, who=f"sample {sample.index}")
            if not len(sample.input):
                raise InferenceError(
                    f"sample {sample.index}: expected a recording with events, found none. Try leaving it out."
                )
            own_us = length_us(predictor, sample.input.duration_us)
            self._check_length(sample.index, own_us)
        else:
            own_us = self._n_steps(sample) * step_us
        is_fixed = settings.n_steps is not None and predictor.step_us is not None
        return (settings.n_steps or 1) * step_us if is_fixed else own_us

    def _check_length(self, index: int, own_us: int) -> None:
        step_us = self._predictor.step_us
        if step_us is not None and self._settings.n_steps is None and own_us // step_us > _MAX_STEPS:
            raise InferenceError(
                f"sample {index}: expected at most {_MAX_STEPS} steps, found {own_us // step_us}: {own_us / 3.6e9:.1f} "
                f"hours in steps of {step_us} us. Try times in microseconds, n_steps, or longer steps."
            )

    def _n_steps(self, sample: Sample) -> int:
        """Return the steps of an array: its own, or those of the encoder."""
        array: Any = sample.input
        shape, own = self._predictor.input_shape, np.shape(array)
        encoder = self._settings.encoder
        if own == tuple(shape):
            if self._predictor.step_us is None:
                return 1
            if encoder is None and self._settings.n_steps is None:
                raise InferenceError(
                    f"sample {sample.index}: expected n_steps or an encoder, as a still frame has no steps, found "
                    "neither. Try InferenceSettings(n_steps=16)."
                )
            return int(getattr(encoder, "n_steps", self._settings.n_steps or 1))
        if own[1:] == tuple(shape) and own[0]:
            return encoder.n_steps if isinstance(encoder, Hold) else int(own[0])
        raise InferenceError(
            f"sample {sample.index}: {self._predictor.name}: expected a frame of shape {list(shape)}, or one for each "
            f"step [time, {', '.join(map(str, shape))}], found {list(own)}. Try a predictor for this input."
        )

    def _assemble(self, group: Sequence[tuple[Sample, int]]) -> Assembled:
        lengths = np.array([length for _, length in group], np.int64)
        kinds = {isinstance(sample.input, Events) for sample, _ in group}
        if len(kinds) > 1:
            raise InferenceError("data: expected recordings or arrays, found both in one batch. Try them one by one.")
        if kinds == {True}:
            recordings = [self._recording(sample, length) for sample, length in group]
            return Assembled(tuple(recordings), None, lengths)
        steps = [self._steps(sample) for sample, _ in group]
        n_steps = int(lengths.max()) // (self._predictor.step_us or 1)
        raster = np.zeros((n_steps, len(group), *self._predictor.input_shape), np.float32)
        for column, one in enumerate(steps):
            raster[: len(one), column] = one[:n_steps]
        return Assembled(None, raster, lengths)

    def _recording(self, sample: Sample, length: int) -> Events:
        events = sample.input
        if not isinstance(events, Events):
            raise InferenceError(f"sample {sample.index}: expected a recording, found an array. Try one kind of input.")
        check_recordings([events], self._predictor.input_shape, who=f"sample {sample.index}")
        started = events.from_zero()
        return started if started.duration_us < length else started.window(0, length)

    def _steps(self, sample: Sample) -> NDArray[Any]:
        array = np.asarray(sample.input)
        is_still = array.ndim == len(self._predictor.input_shape)
        encoder = self._settings.encoder
        if is_still and self._predictor.step_us is None:
            return array[None]
        if is_still:
            made = encoder or DirectCurrent(self._settings.n_steps or 1)
            return made.encode(array, sample_rng(self._settings.seed, sample.index))
        if isinstance(encoder, Hold):
            return encoder.encode(array, sample_rng(self._settings.seed, sample.index))
        return array

    def _pieces(
        self, batch: Assembled, done: NDArray[np.bool_]
    ) -> Iterator[tuple[tuple[Events, ...] | NDArray[Any], int]]:
        """Yield the input of a batch in pieces, each with the time that it reaches; ``done`` samples get no more."""
        settings, step_us = self._settings, self._predictor.step_us or 1
        end = int(batch.lengths_us.max())
        every = self._callbacks.chunk_steps
        stride = end if every is None or self._predictor.step_us is None else every * step_us
        bounds = [*range(0, end, stride), end]
        last_us = max((int(one.t_us[-1]) for one in batch.recordings or () if len(one)), default=end)
        for start, stop in itertools.pairwise(bounds):
            if batch.raster is not None:
                part = batch.raster[start // step_us : stop // step_us]
                yield np.where(done.reshape(1, -1, *(1,) * (part.ndim - 2)), 0, part) if done.any() else part, stop
                continue
            recordings = [
                _shifted(one.window(start, start if ended else stop), self._clock_us)
                for one, ended in zip(batch.recordings or (), done, strict=True)
            ]
            yield tuple(recordings), min(stop, last_us) if not settings.reset_input else stop


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _shifted(events: Events, by_us: int) -> Events:
    return dataclasses.replace(events, t_us=events.t_us + by_us) if by_us else events


def _targets(samples: Sequence[Sample], output: str, predictor: Predictor) -> Any:
    """Return the targets of one output: an array where they have one shape, else a list; None where one is unknown."""
    given = [sample.target for sample in samples]
    if any(isinstance(one, Mapping) for one in given):
        strange = sorted({key for one in given if isinstance(one, Mapping) for key in one} - set(predictor.outputs))
        if strange:
            raise InferenceError(
                f"data: expected targets of the outputs {', '.join(predictor.outputs)}, found '{strange[0]}'. "
                "Try the names of the predictor's outputs."
            )
        given = [one.get(output) if isinstance(one, Mapping) else None for one in given]
    if any(one is None for one in given):
        return None
    shapes = {np.shape(one) for one in given}
    return np.asarray(given) if len(shapes) == 1 else given


def _decision(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class of each sample, -1 where all values are alike."""
    flat = values.reshape(len(values), -1)
    is_open = (flat == flat[:, :1]).all(axis=1) & (flat.shape[1] > 1)
    return np.where(is_open, -1, decide(values))


def _decided_us(decisions: list[NDArray[np.int64]], ends_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the end of the step from which on each decision stayed what it is at the end, -1 without one."""
    n_samples = ends_us.shape[1]
    if not decisions:
        return np.full(n_samples, -1, np.int64)
    classes = np.stack(decisions)
    final = classes[-1]
    stays = np.logical_and.accumulate((classes == final)[::-1])[::-1]
    first = stays.argmax(axis=0)
    return np.where(final < 0, -1, ends_us[first, np.arange(n_samples)])
