"""Branches behind different average pools: each has features and weights of its own, and nothing is averaged twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikeport.convert import convert, simulate
from spikeport.convert.evaluate import TOLERANCE
from spikeport.convert.graph import Add, Concat, Conv
from spikeport.convert.types import SpikingNet


class Mixed(nn.Module):
    """A fine branch behind a large pool and a coarse one behind a small pool, added or side by side."""

    def __init__(self, *, groups: int = 1, joined: bool = False, stride: int = 2) -> None:
        super().__init__()
        self.pools = 4, 4 // stride
        self.fine, self.coarse = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 2 + stride, stride, 1)
        self.last, self.joined = nn.Conv2d(8 if joined else 4, 6, 3, groups=groups, bias=False), joined

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = zip((self.fine, self.coarse), self.pools, strict=True)
        fine, coarse = (F.avg_pool2d(F.relu(layer(x)), pool) for layer, pool in branches)
        found: torch.Tensor = F.relu(self.last(torch.cat([fine, coarse], 1) if self.joined else fine + coarse))
        return found


class Twice(nn.Module):
    """Two layers whose spikes are added as they are, and again behind different pools."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 3, padding=1)
        self.near, self.far, self.last = nn.Conv2d(3, 2, 4, 4), nn.Conv2d(3, 2, 1), nn.Conv2d(4, 2, 1)
        for layer in (self.near, self.far, self.last):  # so that none stays silent
            nn.init.constant_(layer.get_parameter("bias"), 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = F.relu(self.a(x)), F.relu(self.b(x))
        far = F.relu(self.far(F.avg_pool2d(a, 3) + F.avg_pool2d(b, 4)))
        found: torch.Tensor = F.relu(self.last(torch.cat([F.relu(self.near(a + b)), far], 1)))
        return found


def spikes_of(net: SpikingNet, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return a raster of one step, and what each layer made of it: spikes, and the potential before it fired."""
    raster = np.random.default_rng(seed).integers(0, 4, (1, *net.input_shape))
    trace = simulate(net, raster)
    names = [layer.name for layer in net.layers]
    counts = dict(zip(names, (count[0] for count in trace.counts), strict=True))
    potentials = {name: trace.states[i][0] + net.layers[i].threshold * counts[name] for i, name in enumerate(names)}
    return raster, counts, potentials


def pooled(spikes: np.ndarray, pool: int) -> torch.Tensor:
    return F.avg_pool2d(torch.tensor(spikes, dtype=torch.float64), pool)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_layer_behind_mixed_pools_adds_up_the_averages_of_the_spikes(groups: int, joined: bool) -> None:
    torch.manual_seed(1)
    module = Mixed(groups=groups, joined=joined)
    net = convert(module, (1, 16, 16)).net
    (fine, coarse) = (edge for edge in net.edges if edge.target == 2)
    assert {(edge.pool, edge.feature_shift) for edge in (fine, coarse)} == {((4, 4), 0), ((2, 2), 4)}
    for seed in range(4):
        _, counts, potentials = spikes_of(net, seed)
        maps = pooled(counts["fine"], 4), pooled(counts["coarse"], 2)
        given = torch.cat(maps) if joined else maps[0] + maps[1]
        current = F.conv2d(given[None], module.last.weight.double(), groups=groups)[0].detach().numpy()
        assert counts["fine"].sum() > 0
        assert counts["coarse"].sum() > 0
        np.testing.assert_allclose(potentials["last"], np.maximum(current, -1.0), atol=1e-5)


def test_each_branch_keeps_its_scale_and_the_layer_behind_has_weights_for_each() -> None:
    torch.manual_seed(1)
    module = Mixed(groups=2)
    found = convert(module, (1, 16, 16))
    assert all(gate.max_error < TOLERANCE for gate in found.gates)
    fine, coarse, last = found.net.layers
    for layer, own in ((fine, module.fine), (coarse, module.coarse)):
        np.testing.assert_array_equal(layer.weight, own.weight.detach().numpy())
    np.testing.assert_array_equal(last.weight[:, :4] * 4, last.weight[:, 4:])
    assert not any(isinstance(node, Add) for node in found.scaled)
    by_node = {finding.node: finding.detail for finding in found.findings}
    assert any("side by side instead" in detail for detail in by_node.values())


def test_sums_of_spikes_behind_different_pools_beside_plain_ones_are_converted() -> None:
    torch.manual_seed(4)
    frames = np.random.default_rng(0).poisson(1.0, (8, 1, 8, 8)).astype(np.float32)
    found = convert(Twice(), (1, 8, 8), data=frames)
    assert all(gate.max_error < TOLERANCE for gate in found.gates)
    assert sum(isinstance(node, Add) for node in found.scaled) == 1
    assert sum(isinstance(node, Concat) for node in found.scaled) == 2
    far = next(node for node in found.scaled if node.name == "far")
    assert isinstance(far, Conv)
    assert far.weight.shape[1] == 6


def test_branches_behind_equal_pools_stay_added() -> None:
    torch.manual_seed(0)
    net = convert(Mixed(stride=1), (1, 16, 16)).net
    assert net.layers[2].in_shape == (4, 4, 4)
    assert {edge.feature_shift for edge in net.incoming(2)} == {0}
