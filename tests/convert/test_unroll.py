"""The unrolled net is the simulated one on the chip's integers, and its gradients are those of plain autograd."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert import Edge, SpikingLayer, SpikingNet, count_synops, simulate
from spikeport.convert.errors import InputError
from spikeport.convert.geometry import Window
from spikeport.convert.unroll import from_grid, on_grid, parameters_of, sum_pooled, unroll
from spikeport.deploy.discretize import discretize


def make_layer(
    name: str, in_shape: tuple[int, int, int], features: int, *, seed: int, kernel: int = 3, **given: Any
) -> SpikingLayer:
    rng = np.random.default_rng(seed)
    groups = given.get("groups", 1)
    weight = rng.normal(0.15, 0.4, (features, in_shape[0] // groups, kernel, kernel)).astype(np.float32)
    keys = ("stride", "padding", "dilation", "upsample")
    shape = Window((kernel, kernel), **{key: given[key] for key in keys if key in given}).out_size(in_shape[1:])
    v_init = given.pop("v_init", None)
    fields: dict[str, Any] = {
        "bias": None,
        "stride": (1, 1),
        "padding": (0, 0),
        "threshold": 1.0,
        "v_min": -1.0,
        **given,
    }
    if v_init is not None:
        fields["v_init"] = rng.uniform(0, v_init, (features, *shape)).astype(np.float32)
    return SpikingLayer(name=name, weight=weight, in_shape=in_shape, out_shape=(features, *shape), **fields)


def make_net(seed: int, *, v_min: float | None = -1.0, bias: bool = False, v_init: float | None = None) -> SpikingNet:
    """Return a net with a branch of two sources, pools, a feature shift, groups, dilation, upsampling and padding."""
    rng = np.random.default_rng(seed + 1000)

    def more(features: int) -> dict[str, Any]:
        found: dict[str, Any] = {"v_min": v_min, "v_init": v_init}
        return {**found, "bias": rng.normal(0, 0.1, features).astype(np.float32)} if bias else found

    layers = (
        make_layer("a", (2, 9, 9), 4, seed=seed, padding=(1, 1), **more(4)),
        make_layer("b", (4, 4, 4), 4, seed=seed + 1, padding=(1, 1), groups=2, **more(4)),
        make_layer("c", (8, 4, 4), 3, seed=seed + 2, dilation=(2, 1), padding=(2, 1), **more(3)),
        make_layer("d", (3, 4, 4), 3, seed=seed + 3, kernel=2, upsample=(2, 2), stride=(3, 3), **more(3)),
    )
    edges = (
        Edge(-1, 0),
        Edge(0, 1, (2, 2)),
        Edge(0, 2, (2, 2)),
        Edge(1, 2, feature_shift=4),
        Edge(2, 3),
        Edge(3, None, (2, 2)),
    )
    return SpikingNet(layers, edges, (2, 9, 9))


def raster_of(net: SpikingNet, n_samples: int, seed: int, *, steps: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).poisson(0.7, (steps, n_samples, *net.input_shape)).astype(np.float32)


@given(
    seed=st.integers(0, 10_000),
    v_min=st.sampled_from([None, 0.0, -0.5, -1.0, -8.0]),
    bias=st.booleans(),
    v_init=st.sampled_from([None, 0.5]),
)
@settings(max_examples=25, deadline=None)
def test_unrolled_is_simulated_on_the_grid(seed: int, v_min: float | None, bias: bool, v_init: float | None) -> None:
    net = make_net(seed, v_min=v_min, bias=bias, v_init=v_init)
    parameters = parameters_of(net)
    raster = raster_of(net, 3, seed)
    tuned = from_grid(net, parameters)
    trace = simulate(tuned, raster)
    found = unroll(net, parameters, torch.from_numpy(raster))
    assert np.array_equal(found.counts.detach().numpy(), trace.output.sum(axis=0))
    states = trace.output_states / tuned.layers[-1].threshold
    np.testing.assert_allclose(found.potentials.detach().numpy(), states, rtol=1e-5, atol=1e-5)
    assert np.array_equal(found.predictions().numpy(), trace.predictions())
    assert float(found.synops.detach()) * 3 == pytest.approx(count_synops(tuned, trace).total, rel=1e-6)


@given(seed=st.integers(0, 10_000), v_min=st.sampled_from([None, 0.0, -1e-4, -1.0, -3000.0]), bias=st.booleans())
@settings(max_examples=25, deadline=None)
def test_deployment_finds_the_very_same_integers(seed: int, v_min: float | None, bias: bool) -> None:
    net = make_net(seed, v_min=v_min, bias=bias, v_init=0.9)
    parameters = parameters_of(net)
    before, tuned = discretize(net), from_grid(net, parameters)
    for layer, again, given_layer, weight, some_bias in zip(
        before.layers, discretize(tuned).layers, net.layers, parameters.weights, parameters.biases, strict=True
    ):
        grid = on_grid(given_layer, weight, some_bias)
        for found in (layer, again):
            assert np.array_equal(found.weight, grid.weight.detach().numpy())
            assert found.threshold_high == grid.threshold
            assert v_min is None or found.threshold_low == grid.v_min
            if grid.bias is not None:
                assert found.bias is not None
                assert np.array_equal(found.bias, np.rint(grid.bias.detach().numpy()))
            assert grid.v_init is not None
            assert np.array_equal(found.initial_state, grid.v_init.numpy())
    assert from_grid(tuned, parameters_of(tuned)).same(tuned)


@pytest.mark.parametrize("v_min", [None, -1.0])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_sinabs_layers_with_the_same_surrogate(v_min: float | None, bias: bool) -> None:
    import sinabs.layers as sl
    from sinabs.activation import MembraneSubtract, MultiSpike

    def surrogate(v: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        return torch.exp(((v - threshold) / (0.5 * threshold)).clamp(max=0)) / threshold

    layers = (
        make_layer("a", (2, 6, 6), 3, seed=1, v_min=v_min, bias=np.full(3, 0.1, np.float32) if bias else None),
        make_layer("b", (3, 2, 2), 4, seed=2, kernel=2, v_min=v_min),
    )
    net = SpikingNet(layers, (Edge(-1, 0), Edge(0, 1, (2, 2)), Edge(1, None)), (2, 6, 6))
    raster = torch.from_numpy(raster_of(net, 2, 3))
    parameters = parameters_of(net)
    aim = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    found = unroll(net, parameters, raster)
    ((found.counts + found.potentials) * aim).sum().backward()  # type: ignore[no-untyped-call]

    plain = parameters_of(net)
    grids = [on_grid(*given_layer) for given_layer in zip(layers, plain.weights, plain.biases, strict=True)]
    spikes = raster
    for grid, pool in zip(grids, (2, 1), strict=True):
        current = torch.nn.functional.conv2d(spikes.flatten(0, 1), grid.weight, grid.bias)
        current = current.reshape(5, 2, *current.shape[1:])
        neurons = sl.IAF(
            spike_threshold=torch.tensor(grid.threshold),
            spike_fn=MultiSpike,
            reset_fn=MembraneSubtract(),
            surrogate_grad_fn=surrogate,
            min_v_mem=grid.v_min,
        )
        spikes = neurons(current.transpose(0, 1)).transpose(0, 1)
        pooled = torch.nn.functional.avg_pool2d(spikes.flatten(0, 1), pool) * pool**2
        spikes = pooled.reshape(5, 2, *pooled.shape[1:])
    expected = spikes.sum(0).flatten(1) + neurons.v_mem.flatten(1) / grids[-1].threshold
    (expected * aim).sum().backward()
    for ours, theirs in zip(parameters.tensors(), plain.tensors(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
        assert float(ours.grad.abs().max()) > 0


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_sum_pools_and_their_gradients_are_torchs(rows: int, columns: int, seed: int) -> None:
    maps = torch.rand(2, 3, 7, 8, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    aim = torch.rand(2, 3, 7 // rows, 8 // columns, generator=torch.Generator().manual_seed(seed + 1))
    expected = torch.nn.functional.avg_pool2d(maps, (rows, columns)) * (rows * columns)
    found = sum_pooled(maps, (rows, columns))
    torch.testing.assert_close(found, expected)
    (wanted,) = torch.autograd.grad((expected * aim).sum(), maps)
    (ours,) = torch.autograd.grad((found * aim).sum(), maps)
    torch.testing.assert_close(ours, wanted)


def test_a_net_without_classes_is_refused() -> None:
    net = make_net(0)
    several = dataclasses.replace(net, edges=(*net.edges, Edge(0, None)))
    with pytest.raises(InputError, match="one map size"):
        unroll(several, parameters_of(several), torch.zeros(1, 1, 2, 9, 9))
