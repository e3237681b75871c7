"""Layers with weights, pools and paddings: the captured node computes what torch computes, for every parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from spikeport.convert.capture import capture
from spikeport.convert.evaluate import evaluate
from spikeport.convert.graph import AvgPool, BatchNorm, Conv, Flatten, Graph, Node, Pad, Skip, SumPool, Unknown

QUIET = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def captured(layer: nn.Module, shape: tuple[int, ...]) -> list[Node]:
    """Return the nodes of a layer, behind checking that they compute what it does."""
    graph = capture(layer, shape)
    if not any(isinstance(node, Unknown) for node in graph):
        batch = torch.randn(2, *shape, dtype=torch.float64)
        with torch.no_grad():
            expected = layer.double().eval()(batch)
        found = evaluate(graph, batch.reshape(2, *graph.input_shape))[graph.output]
        torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)
        _check_shapes(graph, batch)
    return list(graph)[1:]


def _check_shapes(graph: Graph, batch: torch.Tensor) -> None:
    for name, value in evaluate(graph, batch.reshape(2, *graph.input_shape)).items():
        assert tuple(value.shape[1:]) == graph[name].out_shape


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_transposed_convolutions_are_convolutions_of_spread_maps(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2]))
    kernel, stride, dilation = data.draw(pairs), data.draw(pairs), data.draw(pairs)
    padding = tuple(data.draw(st.integers(0, gap * (size - 1))) for gap, size in zip(dilation, kernel, strict=True))
    extra = tuple(data.draw(st.integers(0, max(move, gap) - 1)) for move, gap in zip(stride, dilation, strict=True))
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation}
    layer = nn.ConvTranspose2d(2, 4, kernel, bias=data.draw(st.booleans()), groups=groups, **options)
    edges = zip(size, stride, padding, dilation, kernel, extra, strict=True)
    assume(all((n - 1) * s - 2 * p + d * (k - 1) + e >= 0 for n, s, p, d, k, e in edges))
    (node,) = captured(layer, (2, *size))
    assert isinstance(node, Conv)
    assert node.upsample == stride


def test_a_transposed_convolution_that_cuts_off_more_than_it_reaches_is_refused() -> None:
    (node,) = captured(nn.ConvTranspose2d(1, 1, 2, stride=2, padding=2), (1, 5, 5))
    assert isinstance(node, Unknown)
    assert "padding=(2, 2) cuts off more" in node.reason


@settings(max_examples=40, deadline=None)
@given(st.data())
@QUIET
def test_same_padding_is_exact_for_even_kernels_too(data: st.DataObject) -> None:
    kernel, dilation = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), data.draw(pairs)
    size = data.draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))
    groups = data.draw(st.sampled_from([1, 2]))
    (node,) = captured(nn.Conv2d(2, 4, kernel, padding="same", dilation=dilation, groups=groups), (2, *size))
    assert isinstance(node, Conv)
    assert node.out_shape == (4, *size)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolutions_keep_stride_padding_dilation_and_groups(data: st.DataObject) -> None:
    kernel, stride, dilation = data.draw(pairs), data.draw(pairs), data.draw(pairs)
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    size = tuple(
        gap * (edge - 1) + 1 + data.draw(st.integers(0, 4)) for gap, edge in zip(dilation, kernel, strict=True)
    )
    groups = data.draw(st.sampled_from([1, 2, 4]))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    (node,) = captured(nn.Conv2d(4, 8, kernel, bias=data.draw(st.booleans()), **options), (4, *size))
    assert isinstance(node, Conv)
    assert (node.stride, node.padding, node.dilation, node.groups) == (stride, padding, dilation, groups)


ONE_AXIS: dict[str, nn.Module] = {
    "convolution": nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
    "same": nn.Conv1d(4, 6, 4, padding="same"),
    "transposed": nn.ConvTranspose1d(4, 6, 3, stride=3, padding=1, output_padding=2, groups=2),
    "average": nn.AvgPool1d(3, 2, 1),
    "adaptive": nn.AdaptiveAvgPool1d(3),
    "norm": nn.BatchNorm1d(4),
    "zeros": nn.ConstantPad1d((1, 2), 0.0),
    "sum": nn.LPPool1d(1, 2),
    "flat": nn.Flatten(),
}


@QUIET
@pytest.mark.parametrize("name", ONE_AXIS)
def test_one_axis_is_a_map_of_height_1(name: str) -> None:
    (node,) = captured(ONE_AXIS[name], (4, 12))
    assert isinstance(node, Flatten) or node.out_shape[1] == 1
    assert not isinstance(node, Unknown)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_average_pools_overlap_and_pad(data: st.DataObject) -> None:
    kernel, stride = data.draw(pairs), data.draw(pairs)
    padding = data.draw(st.integers(0, kernel[0] // 2)), data.draw(st.integers(0, kernel[1] // 2))
    size = data.draw(st.tuples(st.integers(3, 8), st.integers(3, 8)))
    divisor = data.draw(st.sampled_from([None, None, 3]))
    nodes = captured(nn.AvgPool2d(kernel, stride, padding, divisor_override=divisor), (2, *size))
    assert isinstance(nodes[0], (AvgPool, Skip))
    assert len(nodes) == 1 or isinstance(nodes[1], BatchNorm)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.AvgPool2d(2, ceil_mode=True), AvgPool),  # of an even map: nothing is added
        (nn.AvgPool2d(3, 1, 1, count_include_pad=True), AvgPool),
        (nn.AvgPool2d(1), Skip),
        (nn.AdaptiveAvgPool2d((2, None)), AvgPool),
        (nn.AdaptiveAvgPool2d(8), Skip),
        (nn.LPPool2d(1, 2), SumPool),
        (nn.ZeroPad2d((1, 0, 2, 3)), Pad),
        (nn.Flatten(), Flatten),
        (nn.Flatten(2), Unknown),
        (nn.AdaptiveAvgPool2d(3), Unknown),
        (nn.AvgPool2d(3, ceil_mode=True), Unknown),
        (nn.LPPool2d(2, 2), Unknown),
        (nn.LPPool2d(1, 2, stride=1), Unknown),
        (nn.ReflectionPad2d(1), Unknown),
        (nn.ConstantPad2d(1, 2.0), Unknown),
    ],
)
def test_pools_and_paddings(layer: nn.Module, kind: type[Node]) -> None:
    (node,) = captured(layer, (2, 8, 8))
    assert isinstance(node, kind)


@pytest.mark.parametrize("variance", [1.0, 1e-3, 1e-6])
def test_norms_hold_their_epsilon(variance: float) -> None:
    norm = nn.BatchNorm2d(3)
    assert norm.running_var is not None
    norm.running_var.fill_(variance)
    (node,) = captured(norm, (3, 4, 4))
    assert isinstance(node, BatchNorm)
    torch.testing.assert_close(torch.tensor(node.scale), torch.full((3,), (variance + 1e-5) ** -0.5).double())
    (bare,) = captured(nn.BatchNorm2d(3, affine=False), (3, 4, 4))
    assert isinstance(bare, BatchNorm)
