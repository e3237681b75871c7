"""The laws of predictors for a model of its own kind and for plain CNNs; those of nets and programs are beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.models.batches import InferenceSettings
from spikeport.models.cnn import CnnPredictor
from spikeport.models.errors import InferenceError
from spikeport.models.exported import load_exported
from spikeport.models.infer import evaluate, predict
from spikeport.models.predictor import RunOptions, check_predictor

from ..laws import check_all, random_recordings  # noqa: TID252
from .leaky import LeakyPredictor

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole_cnn(seed: int, *, relu: bool = True) -> nn.Sequential:
    """Return a CNN whose weights are small whole numbers: its sums are exact in float32, whatever the batch."""
    rng = np.random.default_rng(seed)
    module = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4, bias=False))
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.from_numpy(rng.integers(-2, 3, tuple(weight.shape)).astype(np.float32)))
    return nn.Sequential(*module, nn.ReLU()) if relu else module


@FEW
@given(st.integers(0, 10**6), st.sampled_from([700, 1000, 7000]))
def test_a_model_with_values_in_every_step_keeps_all_laws(
    tmp_path_factory: pytest.TempPathFactory, seed: int, step_us: int
) -> None:
    predictor = LeakyPredictor(step_us=step_us, seed=seed)
    check_all(predictor, np.random.default_rng(seed), tmp_path_factory.mktemp("laws"))


@FEW
@given(st.integers(0, 10**6), st.sampled_from([None, 5000]))
def test_a_cnn_keeps_all_laws(tmp_path_factory: pytest.TempPathFactory, seed: int, step_us: int | None) -> None:
    predictor = CnnPredictor(whole_cnn(seed, relu=seed % 2 == 0), (2, 6, 5), step_us=step_us)
    check_all(predictor, np.random.default_rng(seed), tmp_path_factory.mktemp("laws"))


def test_a_saved_cnn_answers_as_the_one_that_was_saved(tmp_path: Path) -> None:
    predictor = CnnPredictor(whole_cnn(3), (2, 6, 5))
    predictor.save(tmp_path / "net.pt2")
    loaded = CnnPredictor(*load_exported(tmp_path / "net.pt2"))
    recordings = random_recordings(np.random.default_rng(0), (6, 5), 5)
    assert predict(loaded, recordings).same(predict(predictor, recordings))


def test_a_cnn_decides_as_accuracy_does_and_stays_in_its_mode() -> None:
    from spikeport.models.data import frames_of
    from spikeport.models.train import classify_frames

    module = whole_cnn(1).train()
    recordings = random_recordings(np.random.default_rng(1), (6, 5), 20)
    found = predict(CnnPredictor(module, (2, 6, 5)), recordings)
    assert module.training
    np.testing.assert_array_equal(found.classes["output"], classify_frames(module, frames_of(recordings)))


def test_a_cnn_with_several_outputs_and_a_profile() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = whole_cnn(0)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.body(x)
            return {"class": y, "sum": y.sum(1)}

    predictor = CnnPredictor(Two(), (2, 6, 5))
    assert predictor.outputs == {"class": (4,), "sum": ()}
    recordings = random_recordings(np.random.default_rng(1), (6, 5), 4)
    labels = {"class": np.array([0, 1, 2, 3]), "sum": np.zeros(4)}
    found = evaluate(
        predictor,
        (recordings, labels),
        metrics={"class": ["accuracy", "top_2"], "sum": "mean_square_error"},
        settings=InferenceSettings(profile=True, batch_size=3),
    )
    assert set(found.results) == {"class", "sum"}
    assert set(found.profile) == {"body.0", "body.1", "body.2", "body.3", "body.4"}
    values = predict(predictor, recordings).outputs["sum"]
    assert values.shape == (4,)
    assert found.results["sum"]["mean_square_error"] == pytest.approx(float(np.mean(values**2)))


def test_a_cnn_says_what_it_does_not_take() -> None:
    with pytest.raises(InferenceError, match=r"does not take frames of \[3, 6, 5\]"):
        CnnPredictor(whole_cnn(0), (3, 6, 5))
    run = CnnPredictor(whole_cnn(0), (2, 6, 5)).start(RunOptions())
    with pytest.raises(InferenceError, match=r"expected a raster of shape \[time, batch, 2, 6, 5\]"):
        run.feed(np.zeros((1, 1, 2, 5, 6), np.float32), 1)
    with pytest.raises(InferenceError, match="finite"):
        run.feed(np.full((1, 1, 2, 6, 5), np.nan, np.float32), 1)


def test_what_is_no_predictor_is_told_how_to_become_one() -> None:
    with pytest.raises(InferenceError, match=r"CnnPredictor\(module, input_shape\)"):
        check_predictor(whole_cnn(0))
    with pytest.raises(InferenceError, match="open_predictor"):
        check_predictor(3)


def test_events_in_a_step_that_is_over_are_refused() -> None:
    run = LeakyPredictor().start(RunOptions())
    (recording,) = random_recordings(np.random.default_rng(0), (5, 6), 1)
    run.feed((recording,), 10**6)
    with pytest.raises(InferenceError, match="where the last step ended"):
        run.feed((recording,), 2 * 10**6)
