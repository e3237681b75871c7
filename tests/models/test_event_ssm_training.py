"""Training of the event state-space model: augmentations, recipes, the toy task, several processes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.models.data import EventDataset
from spikeport.models.errors import ModelNameError, TrainingError
from spikeport.models.event_ssm import (
    CONFIGS,
    RECIPES,
    TOY,
    Augmentation,
    EventSSM,
    SsmPredictor,
    SsmRecipe,
    config,
    moving_dots,
    recipe,
    share_right,
    train_ssm,
)
from spikeport.models.infer import evaluate
from spikeport.models.ssm.augment import augmented, cut_mixed, sliced
from spikeport.models.ssm.training import _optimizer, _share

SMALL = dataclasses.replace(TOY, d_model=8, d_ssm=8)
QUICK = SsmRecipe(epochs=2, batch_size=8, base_rate=1e-3, rate_factor=2, validation_share=0.25)

STRONG = Augmentation(
    cut_mix=1.0,
    event_drop=0.3,
    chunk_drop=0.3,
    chunk_share=1.0,
    time_skew=1.3,
    time_jitter_us=50.0,
    jitter_px=1.0,
    noise_events=20,
    roll_px=4,
    rotation_deg=30.0,
    scale=1.5,
    spatial_share=1.0,
)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_augmented_recordings_are_recordings_and_the_same_for_a_seed(seed: int) -> None:
    (events,) = moving_dots(1, seed=seed).recordings
    changed = augmented(events, STRONG, np.random.default_rng(seed))  # Events checks order and range
    assert changed.same(augmented(events, STRONG, np.random.default_rng(seed)))
    assert changed.t_us[0] == 0
    assert 2 <= len(changed) <= len(events) + 20


def test_no_augmentation_leaves_a_recording_as_it_is_but_for_its_start() -> None:
    (events,) = moving_dots(1).recordings
    assert augmented(events, Augmentation(), np.random.default_rng(0)).same(events.from_zero())


def test_single_augmentations_do_what_they_say() -> None:
    (events,) = moving_dots(1).recordings

    def change(**how: Any) -> Any:
        return augmented(events, Augmentation(spatial_share=1.0, chunk_share=1.0, **how), np.random.default_rng(3))

    stretched = change(time_skew=1.5)
    assert 1 / 1.5 <= stretched.duration_us / events.duration_us <= 1.5
    assert stretched.duration_us != events.duration_us
    rolled = change(roll_px=5)
    shifts = (
        {(int(a) - int(b)) for a, b in zip(rolled.x, events.x[-len(rolled) :], strict=True)}
        if len(rolled) == len(events)
        else {0}
    )
    assert len(shifts) == 1
    dropped = change(chunk_drop=0.5)
    assert len(events) / 2 <= len(dropped) < len(events)
    assert len(change(noise_events=50)) > len(events)
    assert len(change(scale=3.0)) <= len(events)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_cut_mix_mixes_labels_by_events(seed: int, n: int) -> None:
    dataset = moving_dots(n, seed=seed)
    mixed, targets = cut_mixed(dataset.recordings, np.eye(4)[dataset.labels], np.random.default_rng(seed))
    assert len(mixed) == n
    assert np.allclose(targets.sum(1), 1)
    assert ((targets > 0).sum(1) <= 2).all()
    assert all(len(events) for events in mixed)


def test_slices_overlap_by_half_and_keep_their_labels() -> None:
    dataset = moving_dots(3)
    cut = sliced(dataset, 100)
    assert {len(events) for events in cut.recordings} == {100}
    first = [events for events, label in zip(cut.recordings, cut.labels, strict=True) if label == 0]
    assert first[0].part(50, 100).same(first[1].part(0, 50))
    assert len(sliced(dataset, 1000)) == 3


def test_recipes_are_those_of_the_models_and_rates_warm_up_and_fall() -> None:
    assert set(RECIPES) == {"dvs-gesture", "shd", "ssc", "toy"}
    with pytest.raises(ModelNameError, match="event SSM recipe 'dvs': expected one of dvs-gesture"):
        recipe("dvs")
    shares = [_share(step, 10, 100) for step in range(101)]
    assert shares[:10] == sorted(shares[:10])
    assert shares[10] == pytest.approx(1)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[100] == pytest.approx(0)


def test_eigenvalues_and_inputs_learn_at_the_base_rate_without_decay() -> None:
    module = EventSSM(SMALL)
    slow, rest = _optimizer(module, recipe("dvs-gesture"), 64).param_groups
    assert slow["lr"] == pytest.approx(1.2e-5 * 64)
    assert rest["lr"] == pytest.approx(6 * 1.2e-5 * 64)
    assert (slow["weight_decay"], rest["weight_decay"]) == (0.0, 0.02)
    n_layers = SMALL.n_stages * SMALL.n_layers
    assert len(slow["params"]) == 3 * n_layers  # not log_step, C and D, not the biases, which also end in b
    assert len(slow["params"]) + len(rest["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize("changes", [{"dropout": 0.2}, {"norm": "batch"}], ids=str)
def test_equal_seeds_train_equal_weights_with_every_augmentation(changes: dict[str, Any]) -> None:
    how = dataclasses.replace(QUICK, accumulation=2, slice_events=120, augmentation=STRONG, weight_decay=0.01)
    found = []
    for _ in range(2):
        module = EventSSM(dataclasses.replace(SMALL, **changes))
        before = torch.random.get_rng_state()
        result = train_ssm(module, moving_dots(24), how)
        assert torch.equal(before, torch.random.get_rng_state())
        found.append((result.history, module.state_dict()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(value, found[1][1][name]) for name, value in found[0][1].items())
    assert result.n_validation == 18  # a quarter of 72 slices


def test_accumulated_batches_are_one_large_batch() -> None:
    modules = [EventSSM(SMALL) for _ in range(2)]
    for module, size, n in zip(modules, (4, 16), (4, 1), strict=True):
        train_ssm(
            module, moving_dots(16), dataclasses.replace(QUICK, batch_size=size, accumulation=n, validation_share=0.0)
        )
    one, two = (module.state_dict() for module in modules)
    assert all(torch.allclose(value, two[name], atol=1e-4) for name, value in one.items())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_toy_task_is_really_learned() -> None:
    found = []
    for _ in range(2):
        module = EventSSM(TOY)
        result = train_ssm(module, moving_dots(512), recipe("toy"))
        found.append((result.history, module.head.weight.detach().clone()))
    fresh = moving_dots(200, seed=1)
    assert result.history[-1][0] < 0.1 * result.history[0][0]
    assert share_right(module, fresh) >= 0.95
    assert evaluate(SsmPredictor(module, fresh.classes), fresh)["accuracy"] >= 0.95
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


_RANK = """
import dataclasses, sys, torch
from spikeport.models.distributed import join_world, leave_world
from spikeport.models.event_ssm import EventSSM, moving_dots, train_ssm
from spikeport.models.ssm.configs import SsmConfig
from spikeport.models.ssm.training import SsmRecipe
torch.set_num_threads(1)
config = SsmConfig(**eval_config)
module = EventSSM(config, seed=join_world().rank)  # the first one's weights count
how = SsmRecipe(epochs=2, batch_size=4, base_rate=1e-3, rate_factor=2, validation_share=0.0)
train_ssm(module, moving_dots(16), how)
torch.save(module.state_dict(), f"{sys.argv[1]}/{join_world().rank}.pt")
leave_world()
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_processes_train_as_one_with_batches_twice_as_large(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(_RANK.replace("eval_config", repr(dataclasses.asdict(SMALL))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = EventSSM(SMALL)
    train_ssm(alone, moving_dots(16), dataclasses.replace(QUICK, validation_share=0.0))
    for name, value in alone.state_dict().items():
        assert torch.equal(one[name], two[name])
        assert torch.allclose(one[name], value, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: dataclasses.replace(data, labels=data.labels - 1), "labels of 0 to 3, found .-1"),
        (
            lambda data: dataclasses.replace(data, recordings=tuple(one.part(0, 40) for one in data.recordings)),
            "more than 64 events",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(change: Any, message: str) -> None:
    dataset: EventDataset = change(moving_dots(4))
    with pytest.raises(TrainingError, match=message):
        train_ssm(EventSSM(SMALL), dataset, QUICK)


def test_settings_out_of_range_and_another_sensor_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"epochs: 0 is outside its range; base_rate: 2 is outside"):
        SsmRecipe(epochs=0, batch_size=1, base_rate=2, rate_factor=1)
    with pytest.raises(TrainingError, match=r"event_drop: 2 .*; scale: 0.5"):
        Augmentation(event_drop=2, scale=0.5)
    with pytest.raises(TrainingError, match="expected 1 recording or more"):
        moving_dots(0)
    with pytest.raises(TrainingError, match=r"events of a sensor of \(1, 700\), found \[\(16, 16\)\]"):
        train_ssm(EventSSM(config("shd/tiny")), moving_dots(4), QUICK)
    assert set(CONFIGS) == {"dvs/small", "shd/tiny", "shd/medium", "ssc/medium"}


def test_a_loss_that_diverges_is_named() -> None:
    module = EventSSM(SMALL)
    with torch.no_grad():
        module.head.bias[0] = torch.inf
    with pytest.raises(
        TrainingError, match=r"expected a finite loss, found NaN or infinity in epoch 1. Try a base_rate"
    ):
        train_ssm(module, moving_dots(8), QUICK)
