"""The layer and the cause of every injected fault are named, at every layer of several nets; none on intact ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from spikeport.convert import Conversion, Scaling, convert
from spikeport.convert.diagnosis.causes import FACTOR_OFF
from spikeport.convert.diagnosis.diagnose import diagnose

from .faults import (
    SHAPE,
    Weights,
    converted,
    cut,
    low_ceiling,
    moving_raster,
    negative,
    overdriven,
    scaled_by,
    small_cnn,
    unscaled,
    with_layer,
    with_outlier,
    wrapped,
)

N_STEPS = 8
INDICES = range(3)
FEW, MANY = range(1), range(1, 12)

Raster = NDArray[np.float32]


def first_bad(conversion: Conversion, raster: Raster) -> tuple[str, str] | None:
    bad = diagnose(conversion, raster).first_bad
    return None if bad is None else (bad.layer, bad.cause)


def intact(seed: int, **options: Any) -> tuple[Conversion, Raster]:
    raster = moving_raster(seed, n_steps=N_STEPS)
    return converted(small_cnn(seed, bias=options.pop("bias", False)), raster, **options), raster


# Six injected faults, at every layer, and none.


def check_intact(seed: int) -> None:
    for bias in (False, True):
        for v_min in (None, -4.0):
            assert first_bad(*intact(seed, bias=bias, v_min=v_min)) is None
    raster = moving_raster(seed, n_steps=32, n_patterns=4)
    assert first_bad(converted(small_cnn(seed, inhibited=True), raster), raster) is None


def check_weights(seed: int, changes: tuple[Callable[[Weights], Weights], ...], cause: str) -> None:
    for bias in (False, True):
        conversion, raster = intact(seed, bias=bias)
        for index in INDICES:
            layer = conversion.net.layers[index]
            for change in changes:
                broken = with_layer(conversion, index, weight=change(layer.weight))
                assert first_bad(broken, raster) == (layer.name, cause), change


def check_scale(seed: int) -> None:
    n_checked = 0
    for bias in (False, True):
        conversion, raster = intact(seed, bias=bias)
        for index in INDICES:
            layer, broken = conversion.net.layers[index], unscaled(conversion, index, N_STEPS)
            factor = float((broken.net.layers[index].weight / layer.weight).mean())
            if abs(factor - 1) > 3 * FACTOR_OFF:  # else the scale that is missing happens to be 1
                n_checked += 1
                assert first_bad(broken, raster) == (layer.name, "scale missing")
    assert n_checked >= 4


def check_dead(seed: int) -> None:
    check_weights(seed, (negative, scaled_by(0), scaled_by(1e-6)), "dead layer")
    conversion, raster = intact(seed)
    for index in INDICES:
        broken = with_layer(conversion, index, threshold=1e6)
        assert first_bad(broken, raster) == (conversion.net.layers[index].name, "dead layer")


def check_bound(seed: int) -> None:
    raster = moving_raster(seed, n_steps=32, n_patterns=4)
    conversion = converted(small_cnn(seed, inhibited=True), raster)
    for index in INDICES:
        broken = with_layer(conversion, index, v_min=-0.01)
        assert first_bad(broken, raster) == (conversion.net.layers[index].name, "lower bound too tight")


def check_clipping(seed: int) -> None:
    conversion, raster = intact(seed)
    for index in INDICES:
        name = conversion.net.layers[index].name
        assert first_bad(overdriven(conversion, index, raster), raster) == (name, "clipping")
        bound = low_ceiling(small_cnn(seed), index, raster)
        bounded = converted(small_cnn(seed, ceilings={index: bound}), raster)
        assert first_bad(bounded, raster) == (bounded.net.layers[index].name, "clipping")


FAULTS: dict[str, Callable[[int], None]] = {
    "intact": check_intact,
    "scale missing": check_scale,
    "dead layer": check_dead,
    "lower bound too tight": check_bound,
    "clipping": check_clipping,
    "wrong pool factor": lambda seed: check_weights(seed, (scaled_by(4), scaled_by(1 / 4)), "wrong pool factor"),
    "int8 overflow": lambda seed: check_weights(seed, (cut, wrapped, with_outlier), "int8 overflow"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", FEW)
def test_the_layer_and_the_cause_of_an_injected_fault_are_named(fault: str, seed: int) -> None:
    FAULTS[fault](seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", MANY)
def test_the_layer_and_the_cause_of_an_injected_fault_are_named_for_many_nets(fault: str, seed: int) -> None:
    FAULTS[fault](seed)


# Other causes.


def test_without_a_pool_in_front_a_factor_of_four_is_a_missing_scale() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    raster = moving_raster(0)
    conversion = converted(module, raster)
    for index, layer in enumerate(conversion.net.layers):
        for factor in (4, 1 / 4):
            broken = with_layer(conversion, index, weight=layer.weight * factor)
            assert first_bad(broken, raster) == (layer.name, "scale missing")


def test_scales_missing_for_each_feature_are_no_other_weights() -> None:
    raster = moving_raster(3)
    conversion = converted(small_cnn(3), raster)
    rng = np.random.default_rng(0)
    layer = conversion.net.layers[1]
    features, channels = layer.weight.shape[:2]
    factors = np.exp(rng.normal(size=(features, 1, 1, 1))) * np.exp(rng.normal(size=(1, channels, 1, 1))) * 5
    assert first_bad(with_layer(conversion, 1, weight=layer.weight * factors), raster) == (layer.name, "scale missing")
    shuffled = with_layer(conversion, 1, weight=rng.permutation(layer.weight))
    assert first_bad(shuffled, raster) == (layer.name, "other weights")


def test_weights_as_trained_can_be_too_small_for_any_spike() -> None:
    raster = moving_raster(0)
    module = small_cnn(0)
    with torch.no_grad():
        module.get_parameter("1.weight").mul_(1e-3)
    conversion = convert(module, SHAPE, v_min=None)
    assert first_bad(conversion, raster) == (conversion.net.layers[0].name, "scale missing")
    assert "--data" in str(diagnose(conversion, raster).first_bad)


def test_few_spikes_are_told_from_faults() -> None:
    raster = moving_raster(0)
    conversion = converted(small_cnn(0), raster, spikes=1.5)
    bad = diagnose(conversion, raster).first_bad
    assert bad is not None
    assert bad.cause == "too few spikes"
    assert "--spikes" in bad.fix


def biased(seed: int) -> nn.Sequential:
    module = small_cnn(seed, bias=True)
    with torch.no_grad():
        for layer in module:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                assert layer.bias is not None
                layer.bias.add_(3.0)
    return module


def test_biases_at_another_rate_are_named_with_the_steps_to_ask_for() -> None:
    raster = moving_raster(0)
    conversion = converted(biased(0), raster)
    assert first_bad(conversion, raster) is None
    for index, layer in enumerate(conversion.net.layers):
        assert layer.bias is not None
        assert first_bad(with_layer(conversion, index, bias=None), raster) == (layer.name, "bias not applied")
    once = converted(biased(0), raster, n_steps=1)
    bad = diagnose(once, raster).first_bad
    assert bad is not None
    assert (bad.layer, bad.cause) == (once.net.layers[0].name, "bias added too often")
    assert f"--steps {N_STEPS}" in bad.fix


def test_a_bias_that_the_cnn_does_not_have_is_named() -> None:
    conversion, raster = intact(0)
    layer = conversion.net.layers[1]
    broken = with_layer(conversion, 1, bias=np.full(len(layer.weight), 0.5))
    assert first_bad(broken, raster) == (layer.name, "bias added too often")


def test_an_outlier_that_was_trained_shows_on_the_grid_only() -> None:
    module = small_cnn(0)
    with torch.no_grad():
        module.get_parameter("4.weight")[0, 0] = -40.0  # a feature that never fires, also in the CNN
    raster = moving_raster(0)
    conversion = converted(module, raster)
    (conv,) = (layer for layer in diagnose(conversion, raster).layers if layer.name == "conv4")
    assert conv.cause == "int8 overflow"
    assert conv.parts["weights"] == 0 < conv.parts["int8"]


def test_input_unlike_the_calibration_comes_first() -> None:
    conversion, raster = intact(0)
    frames = raster.sum(0)
    assert diagnose(conversion, raster, frames=frames).first_bad is None
    for factor in (0.1, 10):
        bad = diagnose(conversion, raster, frames=factor * frames).first_bad
        assert bad is not None
        assert (bad.layer, bad.cause) == ("input", "input unlike calibration")


def test_what_is_wrong_behind_the_first_bad_layer_is_said_after_it() -> None:
    conversion, raster = intact(0)
    names = [layer.name for layer in conversion.net.layers]
    broken = with_layer(conversion, 2, weight=conversion.net.layers[2].weight * 0.05)
    broken = with_layer(broken, 0, weight=conversion.net.layers[0].weight * 3)
    found = diagnose(broken, raster)
    assert [verdict.layer for verdict in found.problems] == [names[0], names[2]]
    assert names[0] in found.sentences[0]
    assert all("Try" in sentence for sentence in found.sentences)


def test_a_layer_at_which_nothing_arrives_is_not_to_blame() -> None:
    conversion, raster = intact(0)
    found = diagnose(with_layer(conversion, 0, weight=0 * conversion.net.layers[0].weight), raster)
    assert [layer.cause for layer in found.layers] == ["dead layer", "healthy", "healthy"]
    assert "nothing arrives" in found.layers[1].verdict.evidence


class Branched(nn.Module):
    """A sum of two convolutions, a sum of spikes and a concatenation."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.left = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.right, self.last = nn.Conv2d(4, 4, 1), nn.Linear(8 * 16, 5)
        self.pool = nn.AvgPool2d(4)
        for layer in (self.first, self.left, self.right, self.last):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        left, right = torch.relu(self.left(x)), torch.relu(self.right(x))
        return self.last(self.pool(torch.cat([left + x, right], 1)).flatten(1))  # type: ignore[no-any-return]


def test_nets_with_branches_are_diagnosed_layer_by_layer() -> None:
    raster = moving_raster(0)
    conversion = converted(Branched(0).eval(), raster)
    assert first_bad(conversion, raster) is None
    for index, layer in enumerate(conversion.net.layers):
        broken = with_layer(conversion, index, weight=layer.weight * 0.3)
        assert first_bad(broken, raster) == (layer.name, "scale missing")


def test_a_low_percentile_drives_the_first_layer_beyond_one_spike_per_event() -> None:
    raster = moving_raster(0)
    conversion = convert(small_cnn(0), SHAPE, data=raster.sum(0), scaling=Scaling(10.0, 400.0, N_STEPS), v_min=None)
    assert first_bad(conversion, raster) == (conversion.net.layers[0].name, "clipping")
