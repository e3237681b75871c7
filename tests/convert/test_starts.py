"""The laws of start potentials: half a threshold, and what calibration finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from spikeport.convert import rasters, starts
from spikeport.convert.dense import currents, fire
from spikeport.convert.errors import CalibrationError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.normalize import Scaling
from spikeport.convert.pipeline import convert
from spikeport.convert.rasters import spread
from spikeport.convert.simulate import simulate
from spikeport.convert.starts import calibrated_start
from spikeport.convert.types import Conversion, SpikingNet

from .branched import Parallel, Residual
from .networks import Case, plain_cnns


def frames_of(shape: tuple[int, ...], n: int = 12, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).poisson(3.0, (n, *shape)).astype(np.float32)


def errors(conversion: Conversion, net: SpikingNet, raster: np.ndarray) -> list[float]:
    """Return the mean absolute difference of spike counts from the CNN's activations, layer by layer."""
    activations = evaluate(conversion.scaled, torch.from_numpy(raster.sum(axis=0)))
    counts = simulate(net, raster).counts
    wanted = (activations[layer.name].clamp(min=0).numpy() for layer in net.layers)
    return [float(np.abs(w - count).mean()) for w, count in zip(wanted, counts, strict=True)]


def with_start(net: SpikingNet, share: float) -> SpikingNet:
    layers = (
        dataclasses.replace(layer, v_init=np.full(layer.out_shape, share * layer.threshold, np.float32))
        for layer in net.layers
    )
    return dataclasses.replace(net, layers=tuple(layers))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(1, 9), st.booleans())
def test_frames_spread_keep_their_sum_and_whole_counts_stay_whole(seed: int, n_steps: int, whole: bool) -> None:
    frames = frames_of((1, 4, 4), seed=seed)
    if not whole:
        frames = (frames / 3).astype(np.float32)
    raster = spread(frames, n_steps)
    assert raster.shape == (n_steps, *frames.shape)
    np.testing.assert_allclose(raster.sum(axis=0), frames, rtol=1e-5)
    if whole:
        np.testing.assert_array_equal(raster, np.rint(raster))
        ideal = frames[None] * np.arange(1, n_steps + 1).reshape(-1, 1, 1, 1, 1) / n_steps
        assert np.abs(np.cumsum(raster, axis=0) - ideal).max() <= 0.5 + 1e-5


def test_half_starts_every_neuron_at_half_its_threshold_and_zero_nowhere() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    frames = frames_of((1, 8, 8))
    half = convert(module, (1, 8, 8), data=frames, scaling=Scaling(start="half")).net
    zero = convert(module, (1, 8, 8), data=frames, scaling=Scaling(start="zero")).net
    assert all(layer.v_init is not None and np.all(layer.v_init == 0.5 * layer.threshold) for layer in half.layers)
    assert all(layer.v_init is None for layer in zero.layers)


@settings(max_examples=12, deadline=None)
@given(plain_cnns(), st.integers(1, 5), st.sampled_from([2.0, 10.0]), st.sampled_from([-1.0, None]))
def test_a_calibrated_first_layer_is_never_further_from_the_cnn_than_zero_or_half(
    case: Case, n_steps: int, spikes: float, v_min: float | None
) -> None:
    frames = frames_of(case.input_shape)
    scaling = Scaling(spikes=spikes, n_steps=n_steps)
    try:
        conversion = convert(case.module, case.input_shape, data=frames, scaling=scaling, v_min=v_min)
    except CalibrationError:
        return  # a random CNN may have a layer that stays silent
    raster = spread(frames, n_steps)
    found = errors(conversion, calibrated_start(conversion.net, conversion.scaled, raster=raster), raster)
    for share in (0.0, 0.5):
        assert found[0] <= errors(conversion, with_start(conversion.net, share), raster)[0] + 1e-6


def test_on_average_every_layer_comes_closer_to_the_cnn() -> None:
    n_steps, gained = 4, []
    for seed in range(6):
        torch.manual_seed(seed)
        module = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)),
        )
        frames = frames_of((1, 8, 8), 24, seed)
        conversion = convert(module, (1, 8, 8), data=frames, scaling=Scaling(spikes=5.0, n_steps=n_steps), v_min=None)
        raster = spread(frames, n_steps)
        net = calibrated_start(conversion.net, conversion.scaled, raster=raster)
        plain = [errors(conversion, with_start(conversion.net, share), raster) for share in (0.0, 0.5)]
        gained.append(np.asarray(errors(conversion, net, raster)) / np.min(plain, axis=0))
    assert np.all(np.mean(gained, axis=0) < 1.0)


def test_a_neuron_that_loses_a_third_by_rounding_down_gets_it_at_the_start() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(0.3)  # type: ignore[operator]
    frames = np.full((5, 1, 2, 2), 6.0, np.float32)  # 1.8 thresholds: one spike is too few
    conversion = convert(module, (1, 2, 2), data=frames, scaling=Scaling(rule="trained", spikes=1.0, n_steps=2))
    raster = spread(frames, 2)
    assert errors(conversion, conversion.net, raster) == [pytest.approx(0.8)]
    calibrated = calibrated_start(conversion.net, conversion.scaled, raster=raster)
    assert errors(conversion, calibrated, raster) == [pytest.approx(0.2)]


def test_starts_stay_between_the_lower_bound_and_the_threshold() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    frames = frames_of((1, 10, 10))
    for v_min, lowest in ((-0.25, -0.25), (0.0, 0.0), (None, -1.0)):
        scaling = Scaling(spikes=3.0, n_steps=4, start="calibrated")
        for layer in convert(module, (1, 10, 10), data=frames, scaling=scaling, v_min=v_min).net.layers:
            assert layer.v_init is not None
            assert lowest <= layer.v_init.min() <= layer.v_init.max() < layer.threshold


def test_branches_are_calibrated_by_the_spikes_that_really_arrive() -> None:
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    module = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), Residual(body, nn.Identity(), late=True)),
        Parallel([nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 3, padding=1)], late=False),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(80, 3)),
    ).eval()
    frames = frames_of((1, 8, 8))
    conversion = convert(
        module, (1, 8, 8), data=frames, scaling=Scaling(spikes=6.0, n_steps=3, start="zero"), v_min=None
    )
    raster = spread(frames, 3)
    live: dict[int, np.ndarray] = {-1: raster}
    trace = simulate(conversion.net, raster, record="all")
    assert trace.spikes is not None
    live |= {index: spikes.astype(np.float32) for index, spikes in enumerate(trace.spikes)}
    for index, layer in enumerate(conversion.net.layers):
        again = fire(layer, currents(layer, rasters.arriving(conversion.net, index, live)))
        np.testing.assert_array_equal(again, live[index])
    net = calibrated_start(conversion.net, conversion.scaled, raster=raster)
    assert sum(errors(conversion, net, raster)) < sum(errors(conversion, conversion.net, raster))


def test_calibration_takes_fewer_frames_where_steps_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    frames = frames_of((1, 8, 8), 30)
    seen = []

    def counting(chosen: np.ndarray, n_steps: int) -> np.ndarray:
        seen.append(len(chosen))
        return spread(chosen, n_steps)

    monkeypatch.setattr(starts, "spread", counting)
    for cells in (10**9, 2 * 36 * 4 * 7, 1):
        monkeypatch.setattr(starts, "_CELLS", cells)
        convert(module, (1, 8, 8), data=frames, scaling=Scaling(n_steps=4, start="calibrated"))
    assert seen == [30, 7, 1]


@pytest.mark.parametrize("has_bias", [False, True])
def test_biases_decide_start_and_bound_unless_they_are_given(has_bias: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3, bias=has_bias), nn.ReLU(), nn.Conv2d(2, 2, 3, bias=has_bias), nn.ReLU())
    frames = frames_of((1, 8, 8))
    usual = convert(module, (1, 8, 8), data=frames).net
    meant = Scaling(start="calibrated" if has_bias else "zero")
    assert usual.same(convert(module, (1, 8, 8), data=frames, scaling=meant, v_min=None if has_bias else -1.0).net)
    assert all(layer.v_min == -1.0 for layer in convert(module, (1, 8, 8)).net.layers)
    given = convert(module, (1, 8, 8), data=frames, scaling=Scaling(start="half"), v_min=-2.0).net
    for layer in given.layers:
        assert layer.v_min == -2.0
        assert layer.v_init is not None
        np.testing.assert_array_equal(layer.v_init, np.full(layer.out_shape, 0.5, np.float32))
