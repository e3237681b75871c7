"""The laws of predictors, checked on any of them: batches, pieces, resets, saved states, shards."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.batches import InferenceSettings
from spikeport.models.callbacks import Checkpoint
from spikeport.models.events import Events
from spikeport.models.infer import evaluate, predict
from spikeport.models.predictor import Predictor, Response, Run, RunOptions, joined, length_us
from spikeport.models.serializers import load_state, save_state


def random_recordings(
    rng: np.random.Generator, size: tuple[int, int], n: int, *, duration_us: int = 40_000
) -> list[Events]:
    """Return recordings of 1 to 60 events each, from time 0, of several lengths."""
    found = []
    for _ in range(n):
        n_events = int(rng.integers(1, 60))
        times = np.sort(rng.integers(0, int(rng.integers(1, duration_us)), n_events))
        x, y, p = (rng.integers(0, edge, n_events) for edge in (size[1], size[0], 2))
        found.append(Events(x, y, p, times, size).from_zero())
    return found


def assert_same(a: Response, b: Response) -> None:
    """Compare everything that an answer holds, bit for bit."""
    assert a.same(b), (a, b)


def run_whole(run: Run, predictor: Predictor, recordings: Sequence[Events]) -> Response:
    """Return the answer to recordings given at once."""
    end = max(length_us(predictor, events.duration_us) for events in recordings)
    return joined([run.feed(tuple(recordings), end), *_finished(run, predictor)])


def run_pieces(run: Run, predictor: Predictor, recordings: Sequence[Events], cuts_us: Sequence[int]) -> Response:
    """Return the answer to recordings given in pieces that end at ``cuts_us``."""
    end = max(length_us(predictor, events.duration_us) for events in recordings)
    bounds = [0, *sorted({cut for cut in cuts_us if 0 < cut < end}), end]
    pieces = [
        run.feed(tuple(events.window(start, stop) for events in recordings), stop)
        for start, stop in itertools.pairwise(bounds)
    ]
    return joined([*pieces, *_finished(run, predictor)])


def _finished(run: Run, predictor: Predictor) -> list[Response]:
    return [run.finish()] if predictor.step_us is None else []


def check_pieces(predictor: Predictor, recordings: Sequence[Events], cuts_us: Sequence[int]) -> None:
    """Check that pieces equal the whole, that a reset run equals a fresh one, and a saved state goes on."""
    whole = run_whole(predictor.start(RunOptions()), predictor, recordings)
    run = predictor.start(RunOptions())
    assert_same(run_pieces(run, predictor, recordings, cuts_us), whole)
    run.reset()
    assert_same(run_whole(run, predictor, recordings), whole)
    run.reset()
    run.feed(tuple(recordings[:1]), cuts_us[0])  # leaves a state and waiting events behind
    run.reset()
    assert_same(run_pieces(run, predictor, recordings, cuts_us), whole)


def check_state(predictor: Predictor, recordings: Sequence[Events], cut_us: int, folder: Path) -> None:
    """Check that a state, saved to a file and restored in a fresh run, goes on bit for bit."""
    end = max(length_us(predictor, events.duration_us) for events in recordings)
    cut = min(cut_us, end - 1)
    first = tuple(events.window(0, cut) for events in recordings)
    rest = tuple(events.window(cut, end) for events in recordings)
    run = predictor.start(RunOptions())
    run.feed(first, cut)
    for suffix in (".npz", ".h5"):
        save_state(run.state(), folder / f"state{suffix}")
        other = predictor.start(RunOptions())
        other.restore(load_state(folder / f"state{suffix}"))
        again = predictor.start(RunOptions())
        again.feed(first, cut)
        expected = joined([again.feed(rest, end), *_finished(again, predictor)])
        assert_same(joined([other.feed(rest, end), *_finished(other, predictor)]), expected)


def check_batches(predictor: Predictor, recordings: Sequence[Events], batch_size: int) -> None:
    """Check that answers do not depend on the batch."""
    single = predict(predictor, list(recordings), settings=InferenceSettings(batch_size=1))
    several = predict(predictor, list(recordings), settings=InferenceSettings(batch_size=batch_size))
    assert several.same(single)


def check_shards(
    predictor: Predictor, recordings: Sequence[Events], labels: NDArray[Any], folder: Path, shard_size: int
) -> None:
    """Check that shards, finished now or before, give the metrics of the whole, and that a lost one is run again."""
    metrics = {next(iter(predictor.outputs)): ["accuracy", "top_2", "confusion_matrix", "latency"]}
    data = (list(recordings), labels)
    whole = evaluate(predictor, data, metrics=metrics)
    checkpoint = Checkpoint(folder, shard_size)
    first = evaluate(predictor, data, metrics=metrics, callbacks=[checkpoint])
    files = sorted(folder.glob("shard-*.json"))
    files[len(files) // 2].unlink()
    again = evaluate(predictor, data, metrics=metrics, callbacks=[checkpoint])
    assert first.results == whole.results == again.results
    assert (first.n_steps, first.n_events) == (whole.n_steps, whole.n_events) == (again.n_steps, again.n_events)
    lost = min(shard_size, len(recordings) - shard_size * (len(files) // 2))
    assert again.n_resumed == len(recordings) - lost


def check_all(predictor: Predictor, rng: np.random.Generator, folder: Path) -> None:
    """Check all laws on random recordings."""
    recordings = random_recordings(rng, (predictor.input_shape[1], predictor.input_shape[2]), int(rng.integers(2, 7)))
    labels = rng.integers(0, int(np.prod(next(iter(predictor.outputs.values())))), len(recordings))
    cuts = [int(cut) for cut in rng.integers(1, 40_000, int(rng.integers(1, 8)))]
    check_pieces(predictor, recordings, cuts)
    check_state(predictor, recordings, cuts[0], folder)
    check_batches(predictor, recordings, int(rng.integers(2, 8)))
    check_shards(predictor, recordings, labels, folder / "shards", int(rng.integers(1, 4)))
