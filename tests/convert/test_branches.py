"""Branches keep the function: sums, concatenations, relays, gains that agree, and the edges of the spiking net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert import Scaling, convert
from spikeport.convert.errors import CalibrationError, UnsupportedLayerError
from spikeport.convert.evaluate import TOLERANCE, evaluate, spread
from spikeport.convert.gains import agreed_gains
from spikeport.convert.graph import Add, Conv
from spikeport.convert.types import INPUT, SpikingNet

from .branched import PreActivation, Residual, branched_cnns


def _as_cnn(net: SpikingNet, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the value of each layer when its neurons are rectifiers: what the edges say, and nothing else."""
    values: dict[int, torch.Tensor] = {INPUT: frames}
    for index, layer in enumerate(net.layers):
        arriving = torch.zeros(len(frames), *layer.in_shape, dtype=torch.float64)
        for edge in net.incoming(index):
            spikes = F.avg_pool2d(values[edge.source], edge.pool) * (edge.pool[0] * edge.pool[1])
            arriving[:, edge.feature_shift : edge.feature_shift + spikes.shape[1]] += spikes
        weight = torch.tensor(layer.weight, dtype=torch.float64)
        bias = None if layer.bias is None else torch.tensor(layer.bias, dtype=torch.float64)
        wide = spread(arriving, layer.upsample)
        values[index] = F.relu(F.conv2d(wide, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups))
    return {layer.name: values[index] for index, layer in enumerate(net.layers)}


@settings(max_examples=40, deadline=None)
@given(branched_cnns(), st.booleans(), st.booleans())
def test_branched_cnns_convert_and_every_rewrite_keeps_the_function(
    case: tuple[nn.Module, tuple[int, int, int]], scaled: bool, per_channel: bool
) -> None:
    module, shape = case
    frames = np.random.default_rng(0).poisson(1.0, (6, *shape)).astype(np.float32)
    try:
        found = convert(
            module, shape, data=frames if scaled else None, scaling=Scaling(99.0, 5.0, per_channel=per_channel)
        )
    except CalibrationError:
        return  # a random CNN may have a layer that stays silent
    assert [finding.node for finding in found.findings] == [node.name for node in found.graph]
    assert all(gate.max_error < TOLERANCE for gate in found.gates)
    assert not any(finding.status == "refused" for finding in found.findings)
    batch = torch.from_numpy(frames).double()
    expected = evaluate(found.scaled, batch)
    bounded = {node.inputs[0] for node in found.scaled if getattr(node, "ceiling", None) is not None}
    if not bounded:  # neurons have no upper bound
        for name, value in _as_cnn(found.net, batch).items():
            torch.testing.assert_close(value, expected[name].clamp(min=0), rtol=1e-5, atol=1e-5)


def test_a_shortcut_with_a_stride_gets_a_layer_that_passes_spikes_on() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), Residual(body, nn.Conv2d(2, 4, 1, 2), late=False))
    found = convert(module, (1, 8, 8))
    names = [layer.name for layer in found.net.layers]
    assert len(names) == 4
    (relay,) = [layer for layer in found.net.layers if layer.name.endswith("relay2x2")]
    np.testing.assert_array_equal(relay.weight, 1.0)
    assert relay.groups == 2
    assert relay.out_shape == (2, 4, 4)
    by_node = {finding.node: finding for finding in found.findings}
    assert by_node["2.shortcut"].status == "folded"
    assert "into the weights of '2.body.2'" in by_node["2.shortcut"].detail


def test_layers_whose_spikes_are_added_agree_on_what_a_spike_stands_for() -> None:
    torch.manual_seed(0)
    body = nn.Conv2d(3, 3, 3, padding=1)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), Residual(body, nn.Identity(), late=True))
    module.append(nn.AvgPool2d(2))
    module.append(nn.Conv2d(3, 2, 1))
    frames = np.random.default_rng(0).poisson(1.0, (4, 1, 6, 6)).astype(np.float32)
    found = convert(module, (1, 6, 6), data=frames, scaling=Scaling(per_channel=True))
    assert sum(isinstance(node, Add) for node in found.scaled) == 1
    assert len(found.net.incoming(2)) == 2
    assert {edge.feature_shift for edge in found.net.incoming(2)} == {0}
    gains = {node.name: np.arange(1.0, len(node.weight) + 1) for node in found.scaled if isinstance(node, Conv)}
    gains["conv0"] = gains["conv0"] * 0.5
    agreed = agreed_gains(found.scaled, gains)
    np.testing.assert_array_equal(agreed["conv0"], agreed["2.body"])
    np.testing.assert_array_equal(agreed["conv0"], gains["conv0"])
    assert np.ptp(agreed["conv4"]) == 0  # the output: one scale for all classes


def test_norm_in_front_of_padded_weights_is_refused_by_name_and_without_padding_folded() -> None:
    torch.manual_seed(0)
    norm = PreActivation(2, 2, joined=False).norm
    padded = nn.Sequential(norm, nn.Conv2d(2, 3, 3, padding=1), nn.ReLU())
    with pytest.raises(UnsupportedLayerError, match=r"conv1.*without a ReLU"):
        convert(padded, (2, 6, 6))
    plain = nn.Sequential(norm, nn.Conv2d(2, 3, 3), nn.ReLU())
    found = convert(plain, (2, 6, 6))
    assert [finding.status for finding in found.findings] == ["passed through", "folded", "converted", "converted"]


class SignedStream(nn.Module):
    """A residual sum that nobody rectifies and two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.last = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        found: torch.Tensor = self.last(F.relu(x + self.body(F.relu(x))))
        return found


def test_potentials_that_leave_a_neuron_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedLayerError, match="stem"):
        convert(SignedStream(), (1, 6, 6))
