"""Fine-tuning after conversion: repeatable, within its synops, true to its history, and refusing by name."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.convert import SpikingNet, count_synops, simulate
from spikeport.convert.errors import InputError, InvalidNetError
from spikeport.convert.finetune import Finetuned, FinetuneSettings, finetune
from spikeport.convert.rasters import stack_rasters
from spikeport.convert.samples import Augmentation, collect
from spikeport.convert.store import net_bytes
from spikeport.convert.types import Edge
from spikeport.deploy import Emulator, classify, compile_program
from spikeport.models import Events
from spikeport.models.errors import TrainingError

from .test_unroll import make_layer

STILL = Augmentation(shift=0.0, rotation_deg=0.0, stretch=0.0, event_drop=0.0)
SIZE = (8, 8)


def make_net(*, bias: bool = False, seed: int = 0) -> SpikingNet:
    some = np.full(4, 0.02, np.float32) if bias else None
    layers = (
        make_layer("a", (2, 8, 8), 4, seed=seed, v_min=-4.0, bias=some),
        make_layer("b", (4, 3, 3), 2, seed=seed + 1, v_min=-4.0),
    )
    return SpikingNet(layers, (Edge(-1, 0), Edge(0, 1, (2, 2)), Edge(1, None)), (2, 8, 8))


def make_recordings(n: int, seed: int = 0) -> tuple[list[Events], NDArray[np.int64]]:
    """Return recordings of a bar that lies (0) or stands (1), with noise."""
    rng = np.random.default_rng(seed)
    recordings, labels = [], np.arange(n) % 2
    for label in labels:
        along, across = rng.integers(0, 8, 60), rng.integers(3, 5, 60)
        y, x = (across, along) if label == 0 else (along, across)
        is_noise = rng.random(60) < 0.2
        y, x = np.where(is_noise, rng.integers(0, 8, 60), y), np.where(is_noise, rng.integers(0, 8, 60), x)
        t_us = np.sort(rng.integers(0, 100_000, 60)) + int(rng.integers(0, 1_000_000))
        recordings.append(Events(x, y, rng.integers(0, 2, 60), t_us, SIZE))
    return recordings, labels


@pytest.fixture(scope="module")
def tuned() -> Finetuned:
    recordings, labels = make_recordings(64)
    return finetune(make_net(), recordings, labels, settings=FinetuneSettings(epochs=10, dt_us=20_000))


def test_it_learns_and_the_emulated_chip_knows_it_too(tuned: Finetuned) -> None:
    recordings, labels = make_recordings(40, seed=1)
    program = compile_program(tuned.net, "speck2fdevkit")
    found = [classify(Emulator(program).run(events.from_zero()), program) for events in recordings]
    assert (np.asarray(found) == labels).mean() >= 0.9
    assert tuned.best.loss < tuned.history[0].loss


def test_equal_seeds_give_equal_bytes_and_torchs_own_state_stays(tuned: Finetuned) -> None:
    recordings, labels = make_recordings(64)
    state = torch.get_rng_state()
    again = finetune(make_net(), recordings, labels, settings=FinetuneSettings(epochs=10, dt_us=20_000))
    assert net_bytes(again.net) == net_bytes(tuned.net)
    assert again.history == tuned.history
    assert torch.equal(torch.get_rng_state(), state)
    other = finetune(make_net(), recordings, labels, settings=FinetuneSettings(epochs=10, dt_us=20_000, seed=1))
    assert net_bytes(other.net) != net_bytes(tuned.net)


def test_the_history_is_true_of_the_net_that_is_returned(tuned: Finetuned) -> None:
    recordings, labels = make_recordings(64)
    held_out = np.random.default_rng(0).permutation(64)[: tuned.n_validation]
    assert tuned.n_train + tuned.n_validation == 64
    raster = stack_rasters([recordings[index] for index in held_out], 20_000, merge_polarity=False)
    trace = simulate(tuned.net, raster)
    assert count_synops(tuned.net, trace).total / len(held_out) == pytest.approx(tuned.best.synops, rel=1e-6)
    still = FinetuneSettings(epochs=3, dt_us=20_000, augmentation=STILL)
    plain = finetune(make_net(), recordings, labels, settings=still)
    right = simulate(plain.net, raster).predictions() == labels[held_out]
    # Without changes the views differ in nothing but where in the first step they start.
    assert abs(plain.best.accuracy - right.mean()) <= 0.5
    assert plain.best_epoch > 2
    assert len(plain.history) == 3


def test_thresholds_and_bounds_keep_their_ratio(tuned: Finetuned) -> None:
    for layer in tuned.net.layers:
        assert layer.v_min is not None
        assert layer.v_min / layer.threshold == pytest.approx(-4.0, rel=0.02)
    assert tuned.net.edges == make_net().edges


LONGER = FinetuneSettings(epochs=12, batch_size=8, dt_us=20_000)


@pytest.fixture(scope="module")
def wide() -> SpikingNet:
    """A net with many synops behind its first layer."""
    layers = (
        make_layer("a", (2, 8, 8), 2, seed=1, v_min=-4.0),
        make_layer("b", (2, 3, 3), 24, seed=2, kernel=2, v_min=-4.0),
        make_layer("c", (24, 1, 1), 2, seed=3, kernel=1, v_min=-4.0),
    )
    edges = (Edge(-1, 0), Edge(0, 1, (2, 2)), Edge(1, 2, (2, 2)), Edge(2, None))
    return SpikingNet(layers, edges, (2, 8, 8))


@pytest.fixture(scope="module")
def free(wide: SpikingNet) -> Finetuned:
    return finetune(wide, *make_recordings(64), settings=LONGER)


@pytest.mark.parametrize("target", [0.5, 4000.0])
def test_the_target_bounds_the_synops(target: float, wide: SpikingNet, free: Finetuned) -> None:
    recordings, labels = make_recordings(64)
    settings = dataclasses.replace(LONGER, synop_target=target)
    found = finetune(wide, recordings, labels, settings=settings)
    assert found.synop_target is not None
    assert found.best.synops <= 1.1 * found.synop_target < free.best.synops
    if target <= 1:
        assert found.synop_target == pytest.approx(target * found.start.synops, rel=0.2)
    with pytest.raises(TrainingError, match="first layer, which no training changes"):
        finetune(wide, recordings, labels, settings=dataclasses.replace(settings, synop_target=10.0))


def test_rasters_keep_their_steps() -> None:
    net = make_net(bias=True)
    recordings, labels = make_recordings(24)
    raster = stack_rasters(recordings, 20_000, merge_polarity=False)
    found = finetune(net, raster, labels, settings=FinetuneSettings(epochs=2, augmentation=STILL))
    held_out = np.random.default_rng(0).permutation(24)[: found.n_validation]
    trace = simulate(found.net, raster[:, held_out])
    assert found.best.accuracy == (trace.predictions() == labels[held_out]).mean()
    assert found.best.synops == pytest.approx(count_synops(found.net, trace).total / len(held_out), rel=1e-6)


def test_batches_in_parts_have_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings, labels = make_recordings(24)
    settings = FinetuneSettings(epochs=1, augmentation=STILL)
    raster = stack_rasters(recordings, 20_000, merge_polarity=False)
    whole = finetune(make_net(), raster, labels, settings=settings)
    module = importlib.import_module("spikeport.convert.finetune")  # the front door has a function of this name
    monkeypatch.setattr(module, "_PART_CELLS", 5 * 4 * 36 * len(raster))
    parts = finetune(make_net(), raster, labels, settings=settings)
    assert parts.history[0].loss == pytest.approx(whole.history[0].loss, rel=1e-5)
    for one, other in zip(parts.net.layers, whole.net.layers, strict=True):
        np.testing.assert_allclose(one.weight / one.threshold, other.weight / other.threshold, atol=0.03)


# samples


@given(seed=st.integers(0, 1000), dt_us=st.sampled_from([7_000, 20_000, 1_000_000]))
@settings(max_examples=15, deadline=None)
def test_plain_draws_are_the_rasters_of_the_recordings(seed: int, dt_us: int) -> None:
    recordings, _ = make_recordings(5, seed)
    chosen = np.array([3, 0, 3])
    rng = np.random.default_rng(0)
    samples = collect(make_net(), recordings, dt_us=dt_us)
    drawn = samples.draw(chosen, rng=rng)
    expected = stack_rasters([recordings[index] for index in chosen], dt_us, merge_polarity=False)
    assert np.array_equal(drawn[: len(expected)], expected)
    assert not drawn[len(expected) :].any()
    assert samples.n_events(chosen) == drawn.sum()
    raster = stack_rasters(recordings, dt_us, merge_polarity=False)
    assert np.array_equal(collect(make_net(), raster, dt_us=1).draw(chosen, rng=rng), raster[:, chosen])


def test_changes_keep_each_recording_apart_and_lose_no_more_than_they_say() -> None:
    recordings, _ = make_recordings(6)
    samples = collect(make_net(), recordings, dt_us=20_000)
    chosen, rng = np.arange(6), np.random.default_rng(0)
    moved = samples.draw(chosen, augmentation=dataclasses.replace(STILL, event_drop=0.5), rng=rng).sum((0, 2, 3, 4))
    assert (moved <= 60).all()
    assert (moved >= 15).all()
    turned = samples.draw(chosen, augmentation=dataclasses.replace(STILL, rotation_deg=180.0), rng=rng)
    assert turned.sum() <= 6 * 60
    middle = np.full(20, 3)
    one = Events(middle, middle, np.ones(20, int), np.arange(20), SIZE)
    shifted = collect(make_net(), [one], dt_us=1000).draw(
        np.zeros(200, np.int64), augmentation=dataclasses.replace(STILL, shift=0.2), rng=rng
    )
    rows, columns = np.nonzero(shifted.sum((0, 1, 2)))
    assert rows.min() == columns.min() == 1
    assert rows.max() == columns.max() == 5
    assert shifted.sum() == 200 * 20


# refusals


def check_refused(match: str, recordings: Any, labels: Any, error: type[Exception], **fields: Any) -> None:
    net = fields.pop("net", make_net())
    with pytest.raises(error, match=match):
        finetune(net, recordings, labels, settings=FinetuneSettings(**fields))


def test_bad_recordings_and_labels_are_named() -> None:
    recordings, labels = make_recordings(12)
    none = np.zeros(0, int)
    nothing = Events(none, none, none, none, SIZE)
    nine = np.full(1, 9)
    large = Events(nine, nine, nine * 0, nine, (10, 10))
    check_refused("without. Try a labelled", recordings, np.where(labels, 1, -1), TrainingError)
    check_refused("expected 12 whole numbers", recordings, labels[:5], TrainingError)
    check_refused("expected 12 whole numbers", recordings, labels + np.nan, TrainingError)
    check_refused("classes 0 to 1 of this net, found 7", recordings, labels * 7, TrainingError)
    check_refused("at least two classes", recordings, labels * 0, TrainingError)
    check_refused("found 1 of class 1", recordings, (np.arange(12) == 3).astype(int), TrainingError)
    check_refused("at least one, found none", [], [], InputError)
    check_refused("found 10x10, 8x8", [*recordings[:-1], large], labels, InputError)
    check_refused("found none in number 11", [*recordings[:-1], nothing], labels, InputError)
    ones = np.ones(2, int)
    long = Events(ones, ones, ones, np.array([0, 10**9]), SIZE)
    check_refused("at most .* neuron steps", [*recordings[:-1], long], labels, InputError, dt_us=1)
    several = dataclasses.replace(make_net(), edges=(*make_net().edges, Edge(0, None)))
    check_refused("one map size", recordings, labels, InputError, net=several)


def test_bad_rasters_are_named() -> None:
    _, labels = make_recordings(4)
    good = np.ones((3, 4, 2, 8, 8), np.float32)
    for bad, match in (
        (good[0], "expected shape"),
        (good[:, :, :1], "expected shape"),
        (good * np.nan, "NaN"),
        (good * 0.5, "whole event counts"),
        (-good, "whole event counts"),
    ):
        check_refused(match, bad, labels, InputError)


def test_bad_settings_are_named() -> None:
    recordings, labels = make_recordings(12)
    with pytest.raises(TrainingError, match=r"epochs 0, synop_target nan, stretch 2.0. Try"):
        FinetuneSettings(epochs=0, synop_target=np.nan, augmentation=Augmentation(stretch=2.0))
    check_refused("multiple of tick_us", recordings, labels, TrainingError, net=make_net(bias=True), dt_us=25_000)
    layer = make_net().layers[0]
    tiny = dataclasses.replace(make_net(), layers=(dataclasses.replace(layer, threshold=1e-6), make_net().layers[1]))
    check_refused("layer 'a': its threshold .* rounds to 0", recordings, labels, InvalidNetError, net=tiny)


def test_a_loss_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings, labels = make_recordings(12)
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda logits, _: logits.sum() * float("nan"))
    check_refused("learning_rate below 0.03", recordings, labels, TrainingError)
