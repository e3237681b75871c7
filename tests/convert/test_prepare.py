"""Fine-tuning before conversion: what is prepared counts the spikes, and holds the integers, of the net it becomes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert.errors import CalibrationError, CaptureError, UnsupportedLayerError, WeightValueError
from spikeport.convert.evaluate import evaluate, spread
from spikeport.convert.geometry import Window, fan_out
from spikeport.convert.graph import Relu
from spikeport.convert.normalize import Scaling
from spikeport.convert.pipeline import convert
from spikeport.convert.prepare import (
    FinetuneQuantization,
    expected_synops,
    finish_finetune,
    prepare_finetune,
    synop_penalty,
)
from spikeport.convert.quantized import QuantizedGraph
from spikeport.convert.simulate import simulate
from spikeport.convert.spiking import to_spiking
from spikeport.convert.synops import count_synops
from spikeport.convert.types import INPUT
from spikeport.deploy.discretize import discretize
from spikeport.deploy.types import IntegerLayer, IntegerNet

from .branched import branched_cnns
from .networks import plain_cnns


def counts(shape: tuple[int, ...], n: int = 8, *, seed: int = 0) -> np.ndarray:
    """Return frames of event counts."""
    return np.random.default_rng(seed).poisson(2.0, (n, *shape)).astype(np.float32)


def body_of(prepared: nn.Module) -> QuantizedGraph:
    return next(part for part in prepared.modules() if isinstance(part, QuantizedGraph))


def small_cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout2d(0.5),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(6 * 3 * 3, 5),
        nn.ReLU(),
    ).eval()


SHAPE = (1, 12, 12)


def prepared_or_none(
    module: nn.Module, shape: tuple[int, int, int], quantization: FinetuneQuantization
) -> nn.Sequential:
    """Prepare a random CNN; one with a layer that stays silent is no case."""
    try:
        return prepare_finetune(module, shape, data=counts(shape), settings=quantization)
    except CalibrationError as silent:
        assume("silent" not in str(silent))
        raise


def moved(prepared: nn.Sequential, seed: int) -> nn.Sequential:
    """Move weights and scales as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
    return prepared.eval()


CNNS = st.one_of(
    plain_cnns().map(lambda case: (case.module, case.input_shape)),
    branched_cnns(),
)
QUANTIZATIONS = st.builds(
    FinetuneQuantization,
    scaling=st.builds(
        Scaling,
        spikes=st.sampled_from([4.0, 16.0]),
        n_steps=st.sampled_from([1, 8]),
        start=st.sampled_from(["zero", "half"]),
        per_channel=st.booleans(),
        share=st.sampled_from(["equal", "cost"]),
    ),
    v_min=st.sampled_from([None, -1.0]),
)


@settings(max_examples=30, deadline=None)
@given(CNNS, QUANTIZATIONS, st.integers(0, 100))
def test_integers_on_the_chip_are_those_that_training_used(
    case: tuple[nn.Module, tuple[int, int, int]], quantization: FinetuneQuantization, seed: int
) -> None:
    prepared = moved(prepared_or_none(*case, quantization), seed)
    body = body_of(prepared)
    net = finish_finetune(prepared).net
    unrounded = to_spiking(body.scaled_graph(), v_min=quantization.v_min, n_steps=quantization.scaling.n_steps)
    used = body.grid_layers()
    assert [layer.name for layer in net.layers] == list(used)
    for layer, before in zip(discretize(net).layers, discretize(unrounded).layers, strict=True):
        assume(before.threshold_high > 0)  # no chip can hold a layer whose weights are that much above its threshold
        np.testing.assert_array_equal(layer.weight, before.weight)
        assert layer.threshold_high == before.threshold_high
        np.testing.assert_allclose(used[layer.name].weight * layer.threshold_high, layer.weight, atol=1e-3)
        assert (layer.bias is None) == (before.bias is None)
        if layer.bias is not None:
            np.testing.assert_array_equal(layer.bias, before.bias)


def integer_counts(net: IntegerNet, frames: np.ndarray, n_steps: int) -> list[np.ndarray]:
    """Return the spikes of each layer when all events of a frame come together, in integers."""
    return [
        (v // layer.threshold_high).clip(min=0) for v, layer in zip(sums(net, frames, n_steps), net.layers, strict=True)
    ]


def reached(net: IntegerNet, frames: np.ndarray, n_steps: int) -> np.ndarray:
    """Return which sums of the last layer are whole thresholds, no less and no more."""
    return np.asarray(sums(net, frames, n_steps)[-1] % net.layers[-1].threshold_high == 0)


def sums(net: IntegerNet, frames: np.ndarray, n_steps: int) -> list[np.ndarray]:
    """Return what each neuron has added up before it fires."""
    values = {INPUT: torch.from_numpy(frames).double()}
    found = []
    for index, layer in enumerate(net.layers):
        arriving = torch.zeros(len(frames), *layer.in_shape, dtype=torch.float64)
        for edge in (edge for edge in net.edges if edge.target == index):
            area = edge.pool[0] * edge.pool[1]
            spikes = (F.avg_pool2d(values[edge.source], edge.pool) * area).round()
            arriving[:, edge.feature_shift : edge.feature_shift + spikes.shape[1]] += spikes
        weight = torch.from_numpy(layer.weight.astype(np.float64))
        bias = None if layer.bias is None else torch.from_numpy(layer.bias.astype(np.float64)) * n_steps
        wide = spread(arriving, layer.upsample)
        v = F.conv2d(wide, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        v = v + torch.from_numpy(layer.initial_state.astype(np.float64))
        values[index] = (v / layer.threshold_high).floor().clamp(min=0)
        found.append(v.numpy())
    return found


# The same cases each time: in one of about a hundred a hidden sum of exactly whole thresholds is a rounding of float32
# short of the last one, and all that follows differs.
@settings(max_examples=30, deadline=None, derandomize=True)
@given(CNNS, QUANTIZATIONS, st.integers(0, 100))
def test_the_spikes_counted_in_training_are_those_of_the_integers(
    case: tuple[nn.Module, tuple[int, int, int]], quantization: FinetuneQuantization, seed: int
) -> None:
    module, shape = case
    prepared = moved(prepared_or_none(module, shape, quantization), seed)
    body, frames = body_of(prepared), counts(shape, seed=1)
    net = discretize(finish_finetune(prepared).net)
    assume(all(2 <= layer.threshold_high < 5000 for layer in net.layers))
    assume(quantization.scaling.start == "zero" or all(layer.threshold_high % 2 == 0 for layer in net.layers))
    counted = integer_counts(net, frames, quantization.scaling.n_steps)
    with torch.no_grad():
        found = prepared(torch.from_numpy(frames))
    assert found.shape == module(torch.from_numpy(frames)).shape
    last = body.graph[body.graph.output]
    if isinstance(last, Relu):
        unit = body.units()[body.end].detach().numpy().reshape(-1, 1, 1)
        spikes = found.numpy().reshape(counted[-1].shape) / unit
        wanted = counted[-1]
        # A sum that is exactly whole thresholds may be a rounding of float32 short of the last one: of many always, of
        # few seldom. A count that was always short there would be a fault.
        whole = reached(net, frames, quantization.scaling.n_steps)
        is_short = whole & (np.abs(spikes - wanted + 1) < 1e-3 * max(1.0, wanted.max()))
        few = whole & (wanted > 0) & (wanted <= 64)
        assert (is_short & few).sum() <= max(2, few.sum() // 10)
        wanted = np.where(is_short, wanted - 1, wanted)
        np.testing.assert_allclose(spikes, wanted, atol=1e-3 * max(1.0, wanted.max()))
    visits = [counts_into(net, counted, frames, index) for index in range(len(net.layers))]
    np.testing.assert_allclose([float(value) for value in body.synops.values()], visits, rtol=1e-4)


def counts_into(net: IntegerNet, counted: list[np.ndarray], frames: np.ndarray, index: int) -> float:
    """Return the synops per sample that the spikes of all sources cause in a layer."""
    layer, total = net.layers[index], 0.0
    reached = fan_out(layer.in_shape, layer.weight.shape, window_of(layer), groups=layer.groups)
    for edge in (edge for edge in net.edges if edge.target == index):
        spikes = torch.from_numpy(frames if edge.source == INPUT else counted[edge.source]).double()
        pooled = F.avg_pool2d(spikes, edge.pool) * (edge.pool[0] * edge.pool[1])
        total += float((pooled.sum((0, 1)).numpy() * reached).sum()) / len(frames)
    return total


def window_of(layer: IntegerLayer) -> Window:
    kernel = layer.weight.shape[2], layer.weight.shape[3]
    return Window(kernel, layer.stride, layer.padding, layer.dilation, layer.upsample)


def test_expected_synops_are_those_of_the_spiking_net_in_one_step() -> None:
    frames = counts(SHAPE, 32)
    prepared = prepare_finetune(small_cnn(), SHAPE, data=frames).eval()
    prepared(torch.from_numpy(frames))
    net = finish_finetune(prepared).net
    total = count_synops(net, simulate(net, frames[None])).total / len(frames)
    assert float(expected_synops(prepared).detach()) == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("activation", ["clip-floor-shift", "quantized-relu"])
@pytest.mark.parametrize("start", ["zero", "half"])
def test_what_is_prepared_comes_close_to_the_cnn_with_many_levels_and_float_weights(
    activation: str, start: str
) -> None:
    module, frames = small_cnn(), counts(SHAPE, 64)
    scaling = Scaling(spikes=4096.0, percentile=100.0, start=start)  # type: ignore[arg-type]
    quantization = FinetuneQuantization(activation, scaling, int8=False)  # type: ignore[arg-type]
    prepared = prepare_finetune(module, SHAPE, data=frames, settings=quantization).eval()
    wanted = module(torch.from_numpy(frames)).detach()
    found = prepared(torch.from_numpy(frames)).detach()
    assert float((found - wanted).abs().max()) < 2e-3 * float(wanted.max())


def test_activations_are_clipped_at_the_scale_and_neurons_are_not() -> None:
    module, frames = small_cnn(), counts(SHAPE, 64)
    quantization = FinetuneQuantization("clip-floor-shift", Scaling(spikes=4.0, percentile=80.0, start="half"))
    prepared = prepare_finetune(module, SHAPE, data=frames, settings=quantization).eval()
    conversion = finish_finetune(prepared, data=frames)
    ceilings = {node.ceiling for node in conversion.scaled if isinstance(node, Relu)}
    assert {level for ceiling in ceilings if isinstance(ceiling, tuple) for level in ceiling} == {4.0}
    assert all(float(evaluate(conversion.scaled, torch.from_numpy(frames))[node.name].max()) <= 4.0 + 1e-6
               for node in conversion.scaled if isinstance(node, Relu))  # fmt: skip
    assert max(int(counted.max()) for counted in simulate(conversion.net, frames[None]).counts) > 4
    assert any("upper bound" in finding.detail for finding in conversion.findings)


def test_the_forward_rounds_and_the_gradient_does_not() -> None:
    frames = torch.from_numpy(counts(SHAPE, 16))
    prepared = prepare_finetune(small_cnn(), SHAPE, data=frames).train()
    body = body_of(prepared)
    body.dropouts.clear()
    (prepared(frames) ** 2).sum().backward()
    hidden = [body.layer(name) for name in body.names[:-1]]
    assert all(float(parameter.grad.abs().max()) > 0 for layer in hidden for parameter in layer.parameters()
               if parameter.grad is not None)  # fmt: skip
    assert all(parameter.grad is not None for layer in hidden for parameter in layer.parameters())
    on_grid = body.grid_layers()
    for name, layer in on_grid.items():
        steps = layer.weight * discretize_threshold(prepared, name)
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    x = torch.tensor([-1.0, 0.2, 0.7, 1.4]).view(1, 1, 1, 4).requires_grad_()
    found = body.rectified(body.names[0], x, torch.ones(1))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert found.flatten().tolist() == [0.0, 0.0, 0.0, 1.0]
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.0, 1.0, 1.0, 1.0]


def discretize_threshold(prepared: nn.Module, name: str) -> int:
    (layer,) = (layer for layer in discretize(finish_finetune(prepared).net).layers if layer.name == name)
    return layer.threshold_high


def test_dropout_acts_on_the_weights_behind_it_while_training_alone() -> None:
    frames = torch.from_numpy(counts(SHAPE, 16))
    prepared = prepare_finetune(small_cnn(), SHAPE, data=frames)
    dropouts = body_of(prepared).dropouts
    assert {name: (one.share, one.whole_maps) for name, one in dropouts.items()} == {
        "conv4": (0.5, True),
        "linear8": (0.3, False),
    }
    prepared.train()
    assert not torch.equal(prepared(frames), prepared(frames))
    prepared.eval()
    assert torch.equal(prepared(frames), prepared(frames))


def test_preparing_leaves_the_module_alone_and_copies_share_nothing() -> None:
    module, frames = small_cnn(), counts(SHAPE)
    before = copy.deepcopy(module.state_dict())
    prepared = prepare_finetune(module, SHAPE, data=frames)
    prepared(torch.from_numpy(frames))
    twin = copy.deepcopy(prepared)
    moved(prepared, 0)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    fresh = prepare_finetune(module, SHAPE, data=frames)
    assert finish_finetune(twin).net.same(finish_finetune(fresh).net)
    assert not finish_finetune(prepared).net.same(finish_finetune(fresh).net)


def test_the_penalty_is_zero_below_the_target_and_lowers_synops_above_it() -> None:
    frames = torch.from_numpy(counts(SHAPE, 32))
    prepared = prepare_finetune(small_cnn(), SHAPE, data=frames).train()
    prepared(frames)
    first = float(expected_synops(prepared).detach())
    assert float(synop_penalty(prepared, 2 * first).detach()) == 0.0
    assert float(synop_penalty(prepared, first / 2).detach()) == pytest.approx(1.0, rel=1e-4)
    optimizer = torch.optim.Adam(prepared.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        prepared(frames)
        synop_penalty(prepared, 0.7 * first).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    prepared.eval()(frames)
    assert float(expected_synops(prepared).detach()) < 0.85 * first
    net = finish_finetune(prepared).net
    trace = simulate(net, frames.numpy()[None])
    assert count_synops(net, trace).total / len(frames) < 0.85 * first


# bad input


@pytest.mark.parametrize("data", [np.ones((4, 2, 12, 12)), np.zeros((4, *SHAPE)), np.ones((0, *SHAPE))])
def test_data_that_calibrates_nothing_is_refused(data: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="calibration data"):
        prepare_finetune(small_cnn(), SHAPE, data=data)


def test_what_convert_refuses_is_refused_with_the_same_error() -> None:
    with pytest.raises(WeightValueError, match="NaN"):
        prepare_finetune(small_cnn(), SHAPE, data=np.full((2, *SHAPE), np.nan))
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(50, 3))
    with pytest.raises(UnsupportedLayerError) as refused:
        prepare_finetune(pooled, SHAPE, data=counts(SHAPE))
    with pytest.raises(UnsupportedLayerError) as by_convert:
        convert(pooled, SHAPE, data=counts(SHAPE))
    assert str(refused.value) == str(by_convert.value)
    assert prepare_finetune(pooled, SHAPE, data=counts(SHAPE), replace=["maxpool=avgpool"])
    with pytest.raises(CaptureError, match="does not run"):
        prepare_finetune(small_cnn(), (3, 12, 12), data=counts(SHAPE))
    with pytest.raises(CaptureError, match="layer with weights"):
        prepare_finetune(nn.Flatten(), SHAPE, data=counts(SHAPE))
    dead = small_cnn()
    nn.init.constant_(dead[0].weight, -1.0)  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="silent"):
        prepare_finetune(dead, SHAPE, data=counts(SHAPE))


def test_misuse_is_named() -> None:
    prepared = prepare_finetune(small_cnn(), SHAPE, data=counts(SHAPE))
    with pytest.raises(CaptureError, match="prepare_finetune"):
        finish_finetune(small_cnn())
    with pytest.raises(CaptureError, match="forward before"):
        expected_synops(prepared)
    with pytest.raises(CaptureError, match=r"expected frames \[N, 1, 12, 12\]"):
        prepared(torch.zeros(2, 1, 9, 9))
    with pytest.raises(CalibrationError, match="target"):
        synop_penalty(prepared, 0.0)
    with pytest.raises(CalibrationError, match="activation"):
        FinetuneQuantization("relu")  # type: ignore[arg-type]
