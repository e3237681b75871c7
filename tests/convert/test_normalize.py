"""The laws of scales: which activation becomes how many spikes, shared and equalized how."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert.capture import capture
from spikeport.convert.equalize import column_ranges, readers
from spikeport.convert.errors import CalibrationError
from spikeport.convert.evaluate import TOLERANCE
from spikeport.convert.fold import fold
from spikeport.convert.gains import apply_gains
from spikeport.convert.graph import Conv, Graph
from spikeport.convert.grid import WEIGHT_BITS, layer_scale, to_integers
from spikeport.convert.normalize import Scaling, find_gains
from spikeport.convert.pipeline import convert
from spikeport.convert.shares import cost_shares
from spikeport.convert.thresholds import observe

from .networks import Case, plain_cnns

CHOICES: list[dict[str, Any]] = [
    {"rule": "percentile", "over": "all"},
    {"rule": "mse"},
    {"rule": "mse", "start": "half"},
    {"rule": "balance"},
    {"rule": "trained"},
    {"per_channel": True},
    {"rule": "mse", "per_channel": True},
    {"equalize": True},
    {"share": "cost"},
    {"per_channel": True, "equalize": True, "share": "cost", "rule": "balance"},
]


def frames_of(shape: tuple[int, ...], n: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(1.0, (n, *shape)).astype(np.float32)


def uneven_net(seed: int = 0, *, spread: float = 1.5) -> nn.Sequential:
    """Return a net whose features have weights of very different sizes."""
    torch.manual_seed(seed)
    first, second = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.Conv2d(6, 8, 3, bias=False)
    with torch.no_grad():
        for layer in (first, second):
            layer.weight.mul_(10 ** torch.empty(len(layer.weight), 1, 1, 1).uniform_(-spread / 2, spread / 2))
    return nn.Sequential(
        *(first, nn.ReLU(), nn.AvgPool2d(2), second, nn.ReLU(), nn.Flatten(), nn.Linear(72, 5, bias=False))
    )


def folded(module: nn.Module, shape: tuple[int, ...]) -> Graph:
    return fold(capture(module, shape)).graph


def branched_net() -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.side, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(7 * 16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = torch.relu(self.first(x))
            b = torch.relu(self.second(a))
            pooled = nn.functional.avg_pool2d(torch.cat([a + b, torch.relu(self.side(x))], 1), 2)
            found: torch.Tensor = self.last(pooled.flatten(1))
            return found

    return Residual().eval()


@settings(max_examples=20, deadline=None)
@given(plain_cnns(), st.sampled_from(CHOICES), st.sampled_from([1.0, 20.0]))
def test_no_choice_of_scales_changes_the_function(case: Case, choice: dict[str, Any], spikes: float) -> None:
    scaling = Scaling(spikes=spikes, **choice)
    try:
        conversion = convert(case.module, case.input_shape, data=frames_of(case.input_shape), scaling=scaling)
    except CalibrationError as error:
        assert "silent" in str(error)  # noqa: PT017  # a random CNN may have a layer that stays silent
        return
    assert conversion.gate.max_error < TOLERANCE


@pytest.mark.parametrize("choice", CHOICES)
def test_no_choice_of_scales_changes_a_net_with_branches(choice: dict[str, Any]) -> None:
    conversion = convert(branched_net(), (1, 8, 8), data=frames_of((1, 8, 8)), scaling=Scaling(**choice))
    assert conversion.gate.max_error < TOLERANCE


@pytest.mark.parametrize("choice", CHOICES)
def test_doubling_the_spikes_doubles_weights_that_read_the_input_and_biases_and_nothing_else(
    choice: dict[str, Any],
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    if choice.get("rule") in ("mse", "balance"):
        return  # these clip less where there are more spikes
    nets = [
        convert(module, (1, 8, 8), data=frames_of((1, 8, 8)), scaling=Scaling(spikes=spikes, **choice)).net
        for spikes in (10.0, 20.0)
    ]
    for index, (once, twice) in enumerate(zip(nets[0].layers, nets[1].layers, strict=True)):
        np.testing.assert_allclose(twice.weight, once.weight * (1 if index else 2), rtol=1e-5)
        assert once.bias is not None
        assert twice.bias is not None
        np.testing.assert_allclose(twice.bias, once.bias * 2, rtol=1e-5)


def test_a_scale_becomes_the_wanted_number_of_spikes_in_the_layer_or_in_each_of_its_features() -> None:
    graph, frames = folded(uneven_net(), (2, 10, 10)), frames_of((2, 10, 10), 30)
    found = observe(graph, frames)["conv0"]
    whole = find_gains(graph, frames, Scaling(100.0, 40.0))["conv0"]
    np.testing.assert_allclose(whole, 40 / found.highest.max())
    own = find_gains(graph, frames, Scaling(100.0, 40.0, per_channel=True))["conv0"]
    bounded = np.maximum(found.highest, found.highest.max() / 16)
    np.testing.assert_allclose(own, 40 / bounded, rtol=1e-6)


def test_features_that_stay_silent_take_the_scale_of_their_layer_and_silent_layers_are_named() -> None:
    module = uneven_net()
    first = module[0]
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight[2] = -1.0
    graph, frames = folded(module, (2, 10, 10)), frames_of((2, 10, 10))
    rules: list[dict[str, Any]] = [{"rule": "percentile"}, {"rule": "mse"}, {"rule": "balance"}]
    for rule in rules:
        whole = find_gains(graph, frames, Scaling(**rule))["conv0"]
        own = find_gains(graph, frames, Scaling(**rule, per_channel=True))["conv0"]
        moved = find_gains(graph, frames, Scaling(**rule, equalize=True))["conv0"]
        assert np.isfinite(own).all()
        assert own[2] == whole[2] != own[3]
        assert np.isfinite(moved).all()
    with torch.no_grad():
        first.weight[:] = -1.0
    with pytest.raises(CalibrationError, match="silent on all 12 calibration frames: conv0"):
        find_gains(folded(module, (2, 10, 10)), frames, Scaling(per_channel=True))


def test_a_percentile_over_all_activations_that_is_zero_falls_back_to_the_positive_ones() -> None:
    graph, frames = (
        folded(uneven_net(), (2, 10, 10)),
        frames_of((2, 10, 10)) * (np.arange(12) == 0)[:, None, None, None],
    )
    over_all = find_gains(graph, frames, Scaling(50.0, over="all"))
    positive = find_gains(graph, frames, Scaling(50.0))
    np.testing.assert_array_equal(over_all["conv0"], positive["conv0"])


def rounding_error(graph: Graph) -> float:
    """Return the mean over layers of the squared error of int8 weights, as a share of the squared weights."""
    shares = []
    for node in graph:
        if isinstance(node, Conv):
            scale = layer_scale(node.weight, None, threshold=1.0, v_min=None)
            error = to_integers(node.weight, scale, WEIGHT_BITS) / scale - node.weight
            per_feature = np.square(error).sum(axis=(1, 2, 3)) / np.square(node.weight).sum(axis=(1, 2, 3))
            shares.append(per_feature.mean())
    return float(np.mean(shares))


def test_equalized_weights_lose_less_to_int8_on_average_and_layers_emit_as_many_spikes() -> None:
    before, after = [], []
    for seed in range(12):
        graph, frames = folded(uneven_net(seed), (2, 10, 10)), frames_of((2, 10, 10), seed=seed)
        found = observe(graph, frames)
        plain = find_gains(graph, frames, Scaling())
        moved = find_gains(graph, frames, Scaling(equalize=True))
        before.append(rounding_error(apply_gains(graph, plain)[0]))
        after.append(rounding_error(apply_gains(graph, moved)[0]))
        for name, activations in found.items():
            emitted = activations.values.mean(axis=1)
            assert (moved[name] * emitted).sum() == pytest.approx((plain[name] * emitted).sum(), rel=1e-6)
            factors = moved[name] / plain[name]
            assert factors.max() <= 16 * factors.min() * (1 + 1e-9)
        np.testing.assert_array_equal(moved["linear6"], plain["linear6"])  # it leaves the net
    assert np.mean(after) < 0.8 * np.mean(before)


def test_layers_whose_spikes_are_added_or_leave_the_net_are_not_equalized() -> None:
    graph = folded(branched_net(), (1, 8, 8))
    assert readers(graph, "first") is None
    assert readers(graph, "second") is None
    assert readers(graph, "side") == (("last", 4),)
    assert readers(graph, "last") is None
    frames = frames_of((1, 8, 8))
    plain, moved = (find_gains(graph, frames, Scaling(equalize=equalize)) for equalize in (False, True))
    assert [name for name in plain if not np.array_equal(plain[name], moved[name])] == ["side"]


def test_column_ranges_are_those_of_the_dense_kernel() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 2, 3, 3)).astype(np.float32)
    node = Conv("a", "Conv2d", ("input",), (6, 4, 4), weight, None, groups=3)
    from spikeport.convert.kernels import dense

    graph = Graph((node,), "a")
    np.testing.assert_allclose(column_ranges(graph, "a"), np.abs(dense(node).weight).max(axis=(0, 2, 3)))


def test_layers_that_cause_few_synops_get_more_spikes_by_the_cube_root() -> None:
    graph, frames = folded(uneven_net(spread=0), (2, 10, 10)), frames_of((2, 10, 10))
    found = observe(graph, frames)
    gains = find_gains(graph, frames, Scaling())
    shares = cost_shares(graph, gains, found)
    assert min(shares.values()) == 1.0
    assert shares["linear6"] == 4.0  # its spikes leave the net
    shared = find_gains(graph, frames, Scaling(share="cost"))
    for name, gain in gains.items():
        np.testing.assert_allclose(shared[name], gain * shares[name])

    def synops(net_gains: dict[str, np.ndarray]) -> dict[str, float]:
        fan_out = {"conv0": 8 * 9 * (3 * 3) / (5 * 5), "conv3": 5.0}
        places = {"conv0": 100, "conv3": 9}
        return {n: float(net_gains[n] @ found[n].values.mean(axis=1)) * places[n] * f for n, f in fan_out.items()}

    cost = synops(gains)
    assert shares["conv3"] == pytest.approx(min(4.0, (cost["conv0"] / cost["conv3"]) ** (1 / 3)), rel=1e-6)

    def rounding(factors: tuple[float, ...]) -> float:
        return sum(1 / factor**2 for factor in factors)

    chosen = (shares["conv0"], shares["conv3"])
    total = sum(cost[name] * factor for name, factor in zip(cost, chosen, strict=True))
    for factor in (0.8, 1.25):  # as many synops, shared in another way
        other = chosen[0] * factor, (total - cost["conv0"] * chosen[0] * factor) / cost["conv3"]
        assert other[1] <= 0 or rounding(other) > rounding(chosen)


def test_two_layers_that_are_added_share_what_the_sum_costs() -> None:
    graph, frames = folded(branched_net(), (1, 8, 8)), frames_of((1, 8, 8))
    scaled, _ = apply_gains(graph, find_gains(graph, frames, Scaling(share="cost")))
    conversion = convert(branched_net(), (1, 8, 8), data=frames, scaling=Scaling(share="cost"))
    for node, layer in zip((n for n in scaled if isinstance(n, Conv)), conversion.net.layers, strict=True):
        np.testing.assert_array_equal(node.weight, layer.weight)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("percentile", 0.0, "percentile: expected more than 0 and at most 100, found 0.0. Try 99.9."),
        ("percentile", float("nan"), "found nan"),
        ("spikes", 0.0, "spikes: expected 0.001 to 1000000, found 0.0. Try 20."),
        ("n_steps", 0, "n_steps: expected at least 1, found 0. Try 1."),
        ("rule", "max", "rule: expected one of percentile, mse, balance, trained, found 'max'. Try percentile."),
        ("over", "none", "over: expected one of positive, all, found 'none'. Try positive."),
        ("start", "full", "start: expected one of auto, zero, half, calibrated, found 'full'. Try auto."),
        ("share", "fair", "share: expected one of equal, cost, found 'fair'. Try equal."),
    ],
)
def test_a_scaling_that_makes_no_sense_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message.replace(".", r"\.")):
        dataclasses.replace(Scaling(), **{field: value})  # type: ignore[arg-type]


def test_every_choice_makes_another_net() -> None:
    frames = frames_of((2, 10, 10))
    graph = folded(uneven_net(), (2, 10, 10))
    gains = [find_gains(graph, frames, Scaling(**choice)) for choice in ({}, *CHOICES)]
    for (a, one), (b, other) in itertools.combinations(enumerate(gains), 2):
        assert any(not np.array_equal(one[name], other[name]) for name in one), (a, b)
