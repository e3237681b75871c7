"""The networks and samples of the conversion benchmark."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikeport.deploy.bench.tasks import (
    QUICK,
    STEP_US,
    TASKS,
    Effort,
    Samples,
    animals_cnn,
    in_counts,
    make_task,
    missing,
    train_on_images,
)
from spikeport.models.events import Events

TINY = dataclasses.replace(QUICK, n_train=40, n_test=8, n_chip=4, epochs=1, event_epochs=1)


def stills(n: int = 4) -> Samples:
    frames = np.random.default_rng(0).random((n, 1, 5, 5), dtype=np.float32)
    return Samples(frames, np.arange(n) % 2)


def recorded() -> Samples:
    events = tuple(
        Events(np.arange(9) % 5, np.arange(9) % 4, np.arange(9) % 2, 7 + 100 * np.arange(9), (5, 5)) for _ in range(2)
    )
    frames = np.stack([one.from_zero().to_raster(1 << 20, n_bins=1)[0] for one in events])
    return Samples(frames, np.zeros(2, np.int64), events)


@pytest.mark.parametrize("n_steps", [1, 3, 8])
def test_what_a_raster_sums_to_is_the_frame_times_the_gain(n_steps: int) -> None:
    for samples in (stills(), recorded()):
        whole = samples.raster(n_steps).sum(axis=0, dtype=np.float64)
        assert np.abs(whole - samples.frames * samples.gain(n_steps)).max() <= 0.5


def test_a_chip_sees_the_events_of_the_raster_in_its_steps() -> None:
    raster = stills().raster(3)
    for index, events in enumerate(stills().events(3)):
        back = events.to_raster(STEP_US, n_bins=4, merge_polarity=True)
        assert np.array_equal(back[1:], raster[:, index])


def test_a_chip_sees_a_recording_as_it_is() -> None:
    samples = recorded()
    assert all(
        one.same(given.from_zero()) for one, given in zip(samples.events(4), samples.recordings or (), strict=True)
    )


def test_the_first_samples_keep_their_recordings() -> None:
    assert len(recorded().first(1)) == len(recorded().first(1).recordings or ()) == 1


def test_a_cnn_in_counts_reads_multiples_of_frames() -> None:
    torch.manual_seed(0)
    module = animals_cnn().eval()
    frames = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(in_counts(module, 8.0)(8 * frames), module(frames), atol=1e-5)


def test_training_on_images_learns_and_repeats() -> None:
    bright = np.arange(64) % 2
    light = np.where(bright, 1.0, 0.25).reshape(-1, 1, 1, 1)
    frames = (np.random.default_rng(0).random((64, 1, 6, 6)) * light).astype(np.float32)
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2), nn.ReLU())
        train_on_images(module, Samples(frames, bright), epochs=25, seed=0)
        weights.append(module.state_dict()["0.weight"].numpy())
        with torch.no_grad():
            answers = module[:-1](torch.from_numpy(frames)).argmax(1).numpy()
        assert (answers == bright).mean() > 0.9
    assert np.array_equal(weights[0], weights[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_once_and_is_kept(name: str, tmp_path: Path) -> None:
    pytest.importorskip("mlxtend")
    if missing(name):
        pytest.skip(str(missing(name)))
    if name in ("animals", "silhouettes") and find_spec("animal_shape_mnist") is None:
        pytest.skip("animal-shape-mnist is not installed")
    made = make_task(name, 1, effort=TINY, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    again = make_task(name, 1, effort=TINY, cache=tmp_path)
    assert file.read_bytes() == written
    assert made.accuracy() == again.accuracy()
    assert np.array_equal(made.test.frames, again.test.frames)
    assert len(made.test) == TINY.n_test
    assert len(made.train) == TINY.n_train
    assert not np.array_equal(made.test.frames, make_task(name, 2, effort=TINY).test.frames)


def test_missing_recordings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEPORT_DATA", str(tmp_path))
    assert "SPIKEPORT_DATA" in str(missing("nmnist"))
    assert all(missing(name) is None for name in set(TASKS) - {"nmnist"})
    assert Effort().steps == (1, 2, 4, 8, 16, 32)
