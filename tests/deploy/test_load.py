"""How busy a layer is taken to be, against a loop over events."""

from __future__ import annotations

import numpy as np
import pytest

from spikeport.convert.synops import LayerSynops, SynopReport
from spikeport.convert.types import INPUT, SpikingNet
from spikeport.deploy.chips import chip
from spikeport.deploy.errors import SettingError
from spikeport.deploy.load import count_loads
from spikeport.deploy.plan import plan
from spikeport.deploy.relay import with_relays

from .crowded import crowded_net
from .nets import branch_net, gesture_net, random_graph, single


def visits(net: SpikingNet) -> list[int]:
    """Return the neurons that each layer visits when every pixel and every neuron before it sends one event."""
    found = []
    for index, layer in enumerate(net.layers):
        reach = [range(0, (n - 1) * step + 1) for n, step in zip(layer.weight.shape[2:], layer.dilation, strict=True)]
        total = 0
        for edge in net.incoming(index):
            channels, height, width = net.input_shape if edge.source == INPUT else net.layers[edge.source].out_shape
            for y, x in np.ndindex(height // edge.pool[0] * edge.pool[0], width // edge.pool[1] * edge.pool[1]):
                at = y // edge.pool[0] + layer.padding[0], x // edge.pool[1] + layer.padding[1]
                for v, u in np.ndindex(layer.out_shape[1:]):
                    if at[0] - v * layer.stride[0] in reach[0] and at[1] - u * layer.stride[1] in reach[1]:
                        total += channels * layer.out_shape[0]
        found.append(total)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_estimate_counts_the_visits_of_one_event_per_pixel_and_neuron(seed: int) -> None:
    net = random_graph(np.random.default_rng(seed), n_layers=3)
    assert list(count_loads(net)) == visits(net)


def test_the_estimate_heeds_strides_and_two_sources() -> None:
    for net in (branch_net(), single((2, 9, 12), 3, (3, 2), stride=(2, 1), padding=1)):
        assert list(count_loads(net)) == visits(net)


def report(**synops: int) -> SynopReport:
    return SynopReport(tuple(LayerSynops(name, 0, 0, n, 0, 1) for name, n in synops.items()), 1, 1.0)


def test_measured_synops_go_before_the_estimate() -> None:
    net = branch_net()
    assert count_loads(net, report(both=3, right=2, last=4, left=1)) == (1, 2, 3, 4)
    assert count_loads(net, {"left": 10, "right": 20, "both": 30, "last": 40}) == (10, 20, 30, 40)


def test_relays_that_traffic_does_not_know_count_as_idle() -> None:
    net = crowded_net(np.random.default_rng(0), n_layers=4)
    relayed, notes = with_relays(net, chip("speck2fdevkit").limits)
    synops = {layer.name: 1 + index for index, layer in enumerate(net.layers)}
    loads = count_loads(relayed, synops, relays=[note.layer or "" for note in notes])
    assert loads == tuple(synops.get(layer.name, 0) for layer in relayed.layers)
    assert loads.count(0) == len(notes) > 0
    with pytest.raises(SettingError, match="relay"):
        count_loads(relayed, synops)
    placed = plan(net, objective="fast", traffic=synops).placement.cores
    assert placed is None or len(placed) == len(relayed.layers)


def test_traffic_of_another_net_is_refused() -> None:
    with pytest.raises(SettingError, match=r"found none of 'layer0', .*'layer8'\. Try count_synops"):
        count_loads(gesture_net(), report(conv=1))
    with pytest.raises(SettingError, match="found none of 'last'"):
        count_loads(branch_net(), {"left": 1, "right": 1, "both": 1})
