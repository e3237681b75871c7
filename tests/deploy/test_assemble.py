"""Assembly: edges become destinations and entries, layers become cores, in the same order."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeport.convert.types import INPUT, Edge, SpikingNet
from spikeport.deploy.assemble import assemble
from spikeport.deploy.errors import InvalidProgramError, MonitorError
from spikeport.deploy.place import Placement
from spikeport.deploy.plan import plan
from spikeport.deploy.types import Destination, DvsConfig, Program

from .nets import branch_net, digits_net, gesture_net, single, stack


def assembled(net: SpikingNet, **options: Any) -> Program:
    planned = plan(net)
    return assemble(planned.net, planned.placement, **options)


@pytest.mark.parametrize("net", [digits_net(), gesture_net(), branch_net()])
def test_each_layer_is_on_its_core_and_each_edge_is_a_route(net: SpikingNet) -> None:
    planned = plan(net)
    program = assemble(planned.net, planned.placement)
    cores = planned.placement.cores or ()
    assert tuple(core.core for core in program.cores) == cores
    assert program.chip == "speck2fdevkit"
    for index, (integer, core) in enumerate(zip(planned.net.layers, program.cores, strict=True)):
        assert_array_equal(core.weight, integer.weight)
        for name in {field.name for field in dataclasses.fields(integer)} & set(vars(core)) - {"weight"}:
            assert getattr(core, name) is getattr(integer, name)
        assert core.destinations == tuple(
            Destination(None if edge.target is None else cores[edge.target], edge.pool[0], edge.feature_shift)
            for edge in net.outgoing(index)
        )
    assert program.entry == tuple(cores[edge.target] for edge in net.outgoing(INPUT) if edge.target is not None)


def test_groups_and_dilation_become_zeros() -> None:
    net = single((4, 9, 9), 2, 2, groups=2, dilation=(2, 3), threshold=1000.0, weight=np.full((2, 2, 2, 2), 127.0))
    (core,) = assembled(net).cores
    assert core.weight.shape == (2, 4, 3, 4)
    taps = [(f, c, y, x) for f in (0, 1) for c in (2 * f, 2 * f + 1) for y in (0, 2) for x in (0, 3)]
    assert [tuple(map(int, at)) for at in np.argwhere(core.weight)] == taps


def test_what_the_chip_cannot_upsample_is_refused_and_a_map_of_one_pixel_needs_no_zeros() -> None:
    planned = plan(single((2, 3, 3), 2, upsample=2))
    placement = Placement("speck2fdevkit", (3,))
    with pytest.raises(InvalidProgramError, match="layer 'conv': upsample: expected 1x1, found 2x2: the chip cannot"):
        assemble(planned.net, placement)
    pixel = single((2, 1, 1), 2, upsample=4, padding=2)
    assert plan(pixel).fits
    (core,) = assembled(pixel).cores
    assert core.out_shape == pixel.layers[0].out_shape == (2, 3, 3)


def test_pools_and_shifts_belong_to_the_routes() -> None:
    left, right, both, last = assembled(branch_net()).cores
    assert left.destinations == (Destination(both.core, 2, 0),)
    assert right.destinations == (Destination(both.core, 2, 4),)
    assert both.destinations == (Destination(last.core), Destination(None))
    assert last.destinations == (Destination(None, 2),)


def test_the_input_stage_merges_for_one_channel_and_pools_as_the_input_edge() -> None:
    assert assembled(digits_net()).dvs == DvsConfig((1, 34, 34), merge=True)
    assert assembled(branch_net()).dvs == DvsConfig((2, 32, 32), merge=False, pool=(2, 2))
    pooled = stack((2, 32, 64), [{"features": 1, "kernel": 1}], input_pool=(2, 4))
    assert assembled(pooled).dvs.pool == (2, 4)


def test_monitored_are_the_output_or_all_or_those_named() -> None:
    def monitored(monitor: Any) -> list[str]:
        return [core.name for core in assembled(branch_net(), monitor=monitor).cores if core.monitor]

    assert monitored(None) == ["both", "last"]
    assert monitored("all") == ["left", "right", "both", "last"]
    assert monitored(["right", "left"]) == ["left", "right"]
    assert monitored([]) == []


@pytest.mark.parametrize(
    ("monitor", "text"),
    [("left", r"found 'left'\. Try \['left'\]"), (["left", "middle"], r"found \['middle'\]\. Try 'all'")],
)
def test_a_monitor_of_no_layer_is_refused(monitor: Any, text: str) -> None:
    with pytest.raises(MonitorError, match=text) as caught:
        assembled(branch_net(), monitor=monitor)
    assert caught.value.exit_code == 2


def test_layers_without_a_placement_are_refused() -> None:
    with pytest.raises(InvalidProgramError, match="expected a core for each of 5 layers, found None"):
        assemble(plan(digits_net()).net, Placement("speck2fdevkit", None))


@pytest.mark.parametrize(
    ("edges", "text"),
    [
        ((Edge(INPUT, 0), Edge(0, None, (2, 1))), "layer 'layer0': pool: expected a square one"),
        ((Edge(INPUT, 0), Edge(INPUT, 0), Edge(0, None)), "input: expected edges to distinct layers"),
        ((Edge(INPUT, 0, (1, 1), 1), Edge(0, None)), "input: expected edges to distinct layers"),
        ((Edge(INPUT, 0), Edge(INPUT, None), Edge(0, None)), "input: expected edges to distinct layers"),
    ],
)
def test_edges_that_a_chip_has_no_word_for_are_refused(edges: tuple[Edge, ...], text: str) -> None:
    net = stack((2, 8, 8), [{"features": 2}])
    planned = plan(net)
    with pytest.raises(InvalidProgramError, match=text):
        assemble(dataclasses.replace(planned.net, edges=edges), planned.placement)
