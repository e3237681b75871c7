"""Training of prepared CNNs: on frames, within a bound on synops, and by the loop for recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spikeport.convert.errors import CalibrationError, WeightValueError
from spikeport.convert.prepare import expected_synops, finish_finetune, prepare_finetune
from spikeport.convert.retrain import RetrainSettings, retrain
from spikeport.convert.simulate import simulate
from spikeport.models.data import EventDataset
from spikeport.models.errors import TrainingError
from spikeport.models.events import Events
from spikeport.models.train import TrainSettings, classify_frames, train

SHAPE = (1, 12, 12)


def small_cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(6 * 3 * 3, 5),
        nn.ReLU(),
    ).eval()


def bars(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return frames with a bar in one of five rows each, under noise, and the row."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, n)
    frames = rng.poisson(0.3, (n, *SHAPE)).astype(np.float32)
    frames[np.arange(n), 0, 2 * labels + 1] += 3
    return frames, labels


def test_training_on_frames_learns_and_is_repeatable() -> None:
    frames, labels = bars(300)
    found = []
    for _ in range(2):
        prepared = prepare_finetune(small_cnn(), SHAPE, data=frames)
        state = torch.random.get_rng_state()
        result = retrain(prepared, frames, labels, settings=RetrainSettings(epochs=6, shift_px=0, learning_rate=1e-2))
        assert torch.equal(state, torch.random.get_rng_state())
        assert len(result.history) == 6
        assert not prepared.training
        found.append(finish_finetune(prepared, data=frames).net)
    assert found[0].same(found[1])
    seen, truth = bars(200, seed=1)
    assert (classify_frames(prepared, seen) == truth).mean() > 0.9
    assert (simulate(found[0], seen[None]).predictions() == truth).mean() > 0.9


def test_training_on_frames_keeps_to_a_bound_on_synops() -> None:
    frames, labels = bars(300)
    prepared = prepare_finetune(small_cnn(), SHAPE, data=frames).eval()
    prepared(torch.from_numpy(frames))
    target = 0.7 * float(expected_synops(prepared).detach())
    bound = RetrainSettings(epochs=10, shift_px=0, learning_rate=1e-2, synop_target=target, synop_weight=30.0)
    retrain(prepared, frames, labels, settings=bound)
    prepared(torch.from_numpy(frames))
    assert float(expected_synops(prepared).detach()) < 1.1 * target


def test_the_training_loop_for_recordings_takes_what_is_prepared() -> None:
    frames, labels = bars(40)
    events = []
    for frame in frames:
        y, x = np.nonzero(frame[0])
        events.append(Events(x, y, np.zeros(len(x), int), np.arange(len(x)) * 10, SHAPE[1:]))
    dataset = EventDataset(tuple(events), labels, tuple("01234"), "bars", "made here")
    prepared = prepare_finetune(small_cnn(), SHAPE, data=frames)
    before = finish_finetune(prepared).net
    result = train(prepared, dataset, settings=TrainSettings(epochs=3, batch_size=8))
    assert len(result.history) == 3
    assert not finish_finetune(prepared).net.same(before)


def test_misuse_is_named() -> None:
    frames, labels = bars(20)
    prepared = prepare_finetune(small_cnn(), SHAPE, data=frames)
    with pytest.raises(CalibrationError, match="one class index per frame"):
        retrain(prepared, frames, labels[:5])
    with pytest.raises(WeightValueError, match="NaN"):
        retrain(prepared, np.full_like(frames, np.nan), labels)
    with pytest.raises(TrainingError, match="epochs"):
        RetrainSettings(epochs=0)
    with pytest.raises(TrainingError, match="finite loss"):
        retrain(prepared, np.full_like(frames, 3e38), labels)
