"""Folding and scaling keep the function; every node has one finding; simulation is sinabs'."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert import Scaling, convert, simulate, to_sinabs
from spikeport.convert.capture import capture
from spikeport.convert.errors import CalibrationError, InputError, InvalidNetError, WeightValueError
from spikeport.convert.evaluate import TOLERANCE, evaluate
from spikeport.convert.fold import fold
from spikeport.convert.graph import AvgPool, Conv, Input, Relu, SumPool
from spikeport.convert.types import Edge, SpikingLayer, SpikingNet
from spikeport.models.events import Events

from .networks import Case, plain_cnns


def _frames(shape: tuple[int, int, int], n: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(1.0, (n, *shape)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(plain_cnns())
def test_folding_keeps_the_outputs(case: Case) -> None:
    folded = fold(capture(case.module, case.input_shape))
    assert all(isinstance(node, (Input, Conv, Relu, AvgPool, SumPool)) for node in folded.graph)
    batch = torch.rand(4, *case.input_shape, dtype=torch.float64)
    with torch.no_grad():
        expected = case.module.double()(batch)
    found = evaluate(folded.graph, batch)[folded.graph.output].flatten(1)
    torch.testing.assert_close(found, expected.flatten(1), rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@settings(max_examples=40, deadline=None)
@given(plain_cnns(bias=True), st.sampled_from([50.0, 99.0, 99.9, 100.0]), st.sampled_from([1.0, 20.0, 300.0]))
def test_scaling_keeps_every_argmax_also_with_biases(case: Case, percentile: float, spikes: float) -> None:
    frames = _frames(case.input_shape, 16)
    try:
        conversion = convert(case.module, case.input_shape, data=frames, scaling=Scaling(percentile, spikes))
    except CalibrationError:
        return  # a random CNN may have a layer that stays silent
    assert conversion.gate.argmax_agreement == 1.0
    assert conversion.gate.max_error < TOLERANCE


@settings(max_examples=20, deadline=None)
@given(plain_cnns())
def test_each_node_has_exactly_one_finding(case: Case) -> None:
    conversion = convert(case.module, case.input_shape)
    assert [found.node for found in conversion.findings] == [node.name for node in conversion.graph]
    assert all(found.detail for found in conversion.findings)
    ends_in_weights = isinstance(list(case.module)[-1], (nn.Linear, nn.BatchNorm1d))
    assert ends_in_weights == any("spiking output layer was added" in found.detail for found in conversion.findings)


def test_without_data_weights_threshold_and_bound_stay_as_sinabs_from_model_has_them() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    net = convert(module, (1, 8, 8)).net
    assert [layer.threshold for layer in net.layers] == [1.0, 1.0]
    assert [layer.v_min for layer in net.layers] == [-1.0, -1.0]
    np.testing.assert_array_equal(net.layers[0].weight, module[0].weight.detach().numpy())  # type: ignore[operator]
    np.testing.assert_array_equal(net.layers[1].weight.reshape(3, -1), module[3].weight.detach().numpy())  # type: ignore[operator]


def test_the_percentile_activation_becomes_the_wanted_number_of_spikes() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False), nn.ReLU())
    frames = _frames((1, 10, 10), 8)
    net = convert(module, (1, 10, 10), data=frames, scaling=Scaling(100.0, 40.0), v_min=None).net
    trace = simulate(net, np.repeat(frames[None] / 50, 50, axis=0))
    for counts in trace.counts[:1]:  # the first layer sees the frames evenly, so it counts its activations
        assert abs(int(counts.max()) - 40) <= 1


@settings(max_examples=20, deadline=None)
@given(plain_cnns(), st.integers(0, 100))
def test_to_sinabs_gives_the_spikes_of_simulate(case: Case, seed: int) -> None:
    net = convert(case.module, case.input_shape).net
    raster = np.random.default_rng(seed).poisson(0.3, (6, 3, *case.input_shape)).astype(np.float32)
    trace = simulate(net, raster)
    with torch.no_grad():
        batch_first = torch.from_numpy(raster).transpose(0, 1).flatten(0, 1)
        found = to_sinabs(net, batch_size=3)(batch_first).reshape(3, 6, -1).transpose(0, 1).numpy()
    np.testing.assert_array_equal(found, trace.output)


@settings(max_examples=25, deadline=None)
@given(plain_cnns(bias=False, batchnorm=False))
def test_classes_of_the_spiking_net_are_the_flattened_outputs_of_the_cnn(case: Case) -> None:
    frame = _frames(case.input_shape, 1)
    with torch.no_grad():
        outputs = case.module(torch.from_numpy(frame)).flatten(1).clamp(min=0).numpy()[0]
    net = convert(case.module, case.input_shape, v_min=None).net
    assert net.output_shape is not None
    assert int(np.prod(net.output_shape)) == outputs.size
    # Spikes that come evenly follow the activations, so what the CNN puts far ahead the spiking net puts first too.
    spikes = simulate(net, np.repeat(frame * 4, 100, axis=0)).output.sum(axis=(0, 1))
    order = np.argsort(outputs)
    if len(order) > 1 and outputs[order[-1]] > 2 * outputs[order[-2]] + 1:
        assert int(spikes.argmax()) == int(order[-1])


def test_edges_may_come_in_any_order() -> None:
    def layer(name: str, channels: int) -> SpikingLayer:
        weight = np.full((1, channels, 1, 1), 0.6)
        return SpikingLayer(name, weight, None, (1, 1), (0, 0), 1.0, -1.0, (channels, 2, 2), (1, 2, 2))

    layers = (layer("a", 1), layer("b", 1), layer("c", 2))
    edges = (Edge(-1, 0), Edge(0, 2), Edge(0, 1), Edge(1, 2, (1, 1), 1), Edge(2, None))
    raster = np.random.default_rng(0).poisson(1.0, (8, 1, 2, 2))
    expected = simulate(SpikingNet(layers, edges, (1, 2, 2)), raster)
    assert expected.output.sum() > 0
    for shuffled in itertools.permutations(edges):
        assert simulate(SpikingNet(layers, shuffled, (1, 2, 2)), raster).same(expected)


def test_outputs_that_share_a_class_add_up_and_shifts_keep_them_apart() -> None:
    layer = SpikingLayer("a", np.ones((1, 1, 1, 1)), None, (1, 1), (0, 0), 1.0, -1.0, (1, 1, 1), (1, 1, 1))
    raster = np.ones((5, 1, 1, 1))
    shared = SpikingNet((layer,), (Edge(-1, 0), Edge(0, None), Edge(0, None)), (1, 1, 1))
    apart = SpikingNet((layer,), (Edge(-1, 0), Edge(0, None), Edge(0, None, (1, 1), 1)), (1, 1, 1))
    assert simulate(shared, raster).output.sum(axis=0).tolist() == [[10]]
    assert simulate(apart, raster).output.sum(axis=0).tolist() == [[5, 5]]


def test_outputs_of_several_map_sizes_have_no_classes() -> None:
    layer = SpikingLayer("a", np.ones((1, 1, 1, 1)), None, (1, 1), (0, 0), 1.0, -1.0, (1, 4, 4), (1, 4, 4))
    net = SpikingNet((layer,), (Edge(-1, 0), Edge(0, None), Edge(0, None, (2, 2))), (1, 4, 4))
    assert net.output_shape is None
    trace = simulate(net, np.ones((3, 1, 4, 4)))
    assert trace.counts[0].sum() == 48
    with pytest.raises(InputError, match="no classes"):
        trace.predictions()


def test_the_time_of_the_first_event_changes_nothing() -> None:
    from spikeport.convert.simulate import simulate_events

    net = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8)).net
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, (2, 50))
    times = np.sort(rng.integers(0, 90_000, 50))
    early, late = (Events(x, y, x % 2, times - times[0] + start, (8, 8)) for start in (0, 10_000_000))
    assert simulate_events(net, early).same(simulate_events(net, late))


def test_modules_in_training_and_in_other_precisions_convert_alike() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    expected = convert(module.eval(), (1, 8, 8)).net
    assert convert(module.train(), (1, 8, 8)).net.same(expected)
    assert convert(module.double(), (1, 8, 8)).net.same(expected)


def test_calibration_takes_tensors_also_those_that_want_a_gradient() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    frames = _frames((1, 8, 8))
    wanted = torch.from_numpy(frames).requires_grad_()
    assert convert(module, (1, 8, 8), data=wanted).net.same(convert(module, (1, 8, 8), data=frames).net)


def test_a_gate_that_saw_only_zeros_says_so() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with torch.no_grad():
        module[0].weight.zero_()  # type: ignore[operator]
        module[0].bias.fill_(-1.0)  # type: ignore[operator]
    assert convert(module, (1, 8, 8)).gate.n_samples == 0


def test_simulations_too_large_to_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8)).net
    monkeypatch.setattr(sys.modules["spikeport.convert.simulate"], "_MAX_CELLS", 700)
    with pytest.raises(InputError, match=r"at most 700 neuron steps .* found 720 \(10 steps\)"):
        simulate(net, np.ones((10, 1, 8, 8)))


def test_a_batch_gives_what_its_samples_give_alone() -> None:
    torch.manual_seed(2)
    net = convert(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AvgPool2d(2)), (2, 9, 9)).net
    raster = np.random.default_rng(0).poisson(0.5, (5, 4, 2, 9, 9))
    together = simulate(net, raster, record="all")
    for index in range(4):
        alone = simulate(net, raster[:, index], record="all")
        assert together.spikes is not None
        assert alone.spikes is not None
        np.testing.assert_array_equal(together.spikes[0][:, index], alone.spikes[0][:, 0])
        np.testing.assert_array_equal(together.states[0][index], alone.states[0][0])


def test_large_batches_are_simulated_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    net = convert(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), (2, 9, 9)).net
    raster = np.random.default_rng(0).poisson(0.5, (5, 7, 2, 9, 9))
    whole = simulate(net, raster, record="all")
    monkeypatch.setattr(sys.modules["spikeport.convert.simulate"], "_CELLS", 5 * 3 * 49 * 2)
    assert simulate(net, raster, record="all").same(whole)


def test_branches_are_simulated_by_shifting_and_adding() -> None:
    torch.manual_seed(3)
    first = convert(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU()), (1, 8, 8)).net.layers[0]
    last = convert(nn.Sequential(nn.Conv2d(4, 2, 3, bias=False), nn.ReLU()), (4, 3, 3)).net.layers[0]
    edges = (Edge(-1, 0), Edge(0, 1, (2, 2)), Edge(0, 1, (2, 2), 2), Edge(1, None))
    branched = SpikingNet((first, _renamed(last)), edges, (1, 8, 8))
    raster = np.random.default_rng(0).poisson(0.4, (10, 1, 8, 8))
    doubled = last.weight.copy()
    doubled[:, :2] += doubled[:, 2:]
    merged = _renamed(last, weight=doubled[:, :2], in_shape=(2, 3, 3))
    plain = SpikingNet((first, merged), (Edge(-1, 0), Edge(0, 1, (2, 2)), Edge(1, None)), (1, 8, 8))
    np.testing.assert_array_equal(simulate(branched, raster).counts[1], simulate(plain, raster).counts[1])
    with pytest.raises(InvalidNetError, match="plain chain"):
        to_sinabs(branched)


def _renamed(layer: SpikingLayer, **changes: Any) -> SpikingLayer:
    import dataclasses

    return dataclasses.replace(layer, name="last", **changes)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (np.zeros((2, 1, 8, 8)), CalibrationError, "every frame is zero"),
        (np.ones((2, 8, 8)), CalibrationError, r"expected frames \[N, 1, 8, 8\], found \[2, 8, 8\]"),
        (np.ones((0, 1, 8, 8)), CalibrationError, r"found \[0, 1, 8, 8\]"),
        (np.full((2, 1, 8, 8), np.nan), WeightValueError, "found NaN"),
        (-np.ones((2, 1, 8, 8)), CalibrationError, "stay silent on all 2 calibration frames: conv0"),
    ],
)
def test_calibration_data_that_cannot_set_scales_is_refused(data: np.ndarray, error: type, words: str) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(0.5)  # type: ignore[operator]
    with pytest.raises(error, match=words):
        convert(module, (1, 8, 8), data=data)


@pytest.mark.parametrize(
    "scaling", [(0.0, 20.0, 1), (101.0, 20.0, 1), (99.0, 0.0, 1), (99.0, float("nan"), 1), (99.0, 20.0, 0)]
)
def test_scaling_refuses_values_outside_its_range(scaling: tuple[float, float, int]) -> None:
    with pytest.raises(CalibrationError, match="expected"):
        Scaling(*scaling)


def test_rasters_and_recordings_that_do_not_match_are_refused() -> None:
    net = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8)).net
    for raster in (np.ones((4, 2, 8, 8)), np.ones((1, 8, 8)), np.ones((0, 1, 8, 8))):
        with pytest.raises(InputError, match=r"raster: expected shape \[T, 1, 8, 8\]"):
            simulate(net, raster)
    with pytest.raises(InputError, match="NaN"):
        simulate(net, np.full((1, 1, 8, 8), np.nan))
    from spikeport.convert.simulate import simulate_events

    with pytest.raises(InputError, match=r"expected a sensor of 8x8 .* found 9x9"):
        simulate_events(net, Events(np.array([1]), np.array([1]), np.array([1]), np.array([5]), (9, 9)))
    with pytest.raises(InputError, match="at least one event"):
        simulate_events(net, Events(*(np.zeros(0, int),) * 4, (8, 8)))
