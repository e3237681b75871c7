"""An illegal spiking net cannot exist."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from spikeport.convert.errors import InvalidNetError
from spikeport.convert.types import Edge, SpikingLayer, SpikingNet


def _layer(**changes: object) -> SpikingLayer:
    fields: dict[str, object] = {
        "name": "conv",
        "weight": np.ones((2, 1, 3, 3)),
        "bias": None,
        "stride": (1, 1),
        "padding": (0, 0),
        "threshold": 1.0,
        "v_min": -1.0,
        "in_shape": (1, 6, 6),
        "out_shape": (2, 4, 4),
    }
    return SpikingLayer(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": np.ones((2, 3, 3))}, "weight: expected shape"),
        ({"weight": np.full((2, 1, 3, 3), np.nan)}, "found NaN or infinity"),
        ({"bias": np.ones(3)}, "bias: expected 2 finite numbers"),
        ({"stride": (0, 1)}, "stride of 1 or more"),
        ({"threshold": 0.0}, "threshold: expected a positive number"),
        ({"threshold": float("inf")}, "threshold: expected a positive number"),
        ({"v_min": 0.5}, "v_min: expected 0, a negative number or None"),
        ({"in_shape": (2, 6, 6)}, "expected 1 channels a group"),
        ({"dilation": (1, 0)}, "dilation and upsample of 1 or more"),
        ({"upsample": (0, 1)}, "dilation and upsample of 1 or more"),
        ({"groups": 0}, "groups: expected a divisor"),
        ({"groups": 2}, "groups: expected a divisor of 1 channels and 2 features, found 2"),
        ({"in_shape": (2, 6, 6), "weight": np.ones((3, 1, 3, 3)), "groups": 2}, "groups: expected a divisor"),
        ({"dilation": (2, 2)}, r"out_shape: expected \(2, 2, 2\)"),
        ({"upsample": (2, 1)}, r"out_shape: expected \(2, 9, 4\)"),
        ({"v_init": np.zeros((2, 6, 6))}, "v_init: expected finite numbers of shape"),
        ({"v_init": np.full((2, 4, 4), np.nan)}, "v_init: expected finite numbers"),
        ({"out_shape": (2, 5, 5)}, r"expected \(2, 4, 4\)"),
    ],
)
def test_layers_check_their_fields(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidNetError, match=words):
        _layer(**changes)


def test_layers_may_be_grouped_dilated_upsampled_and_started_anywhere() -> None:
    layer = _layer(
        weight=np.ones((4, 1, 3, 3)),
        in_shape=(2, 6, 6),
        groups=2,
        dilation=(2, 1),
        upsample=(1, 3),
        out_shape=(4, 2, 14),
        v_init=np.full((4, 2, 14), -7),
    )
    assert layer.v_init is not None
    assert layer.v_init.dtype == np.float32
    assert not layer.v_init.flags.writeable
    assert not layer.same(dataclasses.replace(layer, v_init=None))
    assert not layer.same(dataclasses.replace(layer, v_init=layer.v_init + 1))


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ((), "no edge leads to it"),
        ((Edge(-1, 0),), "no edge leaves it"),
        ((Edge(-1, 0), Edge(0, 0)), "expected an earlier layer"),
        ((Edge(-1, 0), Edge(0, 5)), "expected an earlier layer"),
        ((Edge(-1, 0, (2, 2)), Edge(0, None)), "expected an input of"),
        ((Edge(-1, 0, (1, 1), 1), Edge(0, None)), "shifted by 1"),
        ((Edge(-1, 0, (0, 1)), Edge(0, None)), "pool of 1 or more"),
    ],
)
def test_nets_check_their_edges(edges: tuple[Edge, ...], words: str) -> None:
    with pytest.raises(InvalidNetError, match=words):
        SpikingNet((_layer(),), edges, (1, 6, 6))


def test_nets_need_layers_with_distinct_names() -> None:
    with pytest.raises(InvalidNetError, match="at least one layer"):
        SpikingNet((), (), (1, 6, 6))
    second = _layer(weight=np.ones((2, 2, 1, 1)), in_shape=(2, 4, 4))
    with pytest.raises(InvalidNetError, match="distinct"):
        SpikingNet((_layer(), second), (Edge(-1, 0), Edge(0, 1), Edge(1, None)), (1, 6, 6))


def test_arrays_of_records_are_read_only_copies() -> None:
    weight = np.ones((2, 1, 3, 3), np.float32)
    layer = _layer(weight=weight)
    weight[:] = 7
    assert float(layer.weight.max()) == 1.0
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0] = 2
    assert layer.same(_layer())
    assert not layer.same(dataclasses.replace(layer, threshold=2.0))
