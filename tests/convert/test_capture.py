"""A captured graph is the module it was captured from, or it says what it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn

from spikeport.convert.capture import capture
from spikeport.convert.errors import CaptureError, UnsupportedLayerError, WeightValueError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.fold import refuse
from spikeport.convert.graph import BatchNorm, Conv, Graph, Input, Linear, Relu, Skip, Unknown

from .cnn_zoo import Wired, conv
from .networks import Case, plain_cnns


def difference(module: nn.Module, graph: Graph, shape: tuple[int, ...]) -> float:
    """Return how far a graph is from a module, as a share of its largest output, in double precision."""
    batch = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = module.double().eval()(batch.clone()).reshape(3, -1)
    found = evaluate(graph, batch.reshape(3, *graph.input_shape))[graph.output].reshape(3, -1)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-9))


@settings(max_examples=40, deadline=None)
@given(plain_cnns())
def test_a_captured_graph_gives_the_outputs_of_the_module(case: Case) -> None:
    graph = capture(case.module, case.input_shape)
    # what is left is that the module's own division by a root of float32 numbers is not ours in float64
    assert difference(case.module, graph, case.input_shape) < 1e-6


def test_capture_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    capture(module, (1, 8, 8))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


def test_nodes_are_named_after_the_users_attributes_and_calls() -> None:
    def inner(net: Any, x: torch.Tensor) -> torch.Tensor:
        return F.relu(net.conv(x) + x)

    def outer(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.block(F.relu(net.body(net.block(x))))  # type: ignore[no-any-return]

    module = Wired(outer, block=Wired(inner, conv=conv(2, 2)), body=nn.Sequential(conv(2, 2), nn.ReLU()))
    graph = capture(module, (2, 6, 6))
    first = ["input", "block.conv", "block.add", "block.relu", "body.0", "body.1", "relu"]
    assert [node.name for node in graph] == [*first, "block.conv@2", "block.add@2", "block.relu@2"]
    labels = ["input", "Conv2d", "Tensor.add", "F.relu", "Conv2d", "ReLU", "F.relu", "Conv2d", "Tensor.add", "F.relu"]
    assert [node.label for node in graph] == labels
    sequence = capture(nn.Sequential(conv(2, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Identity()), (2, 6, 6))
    assert [node.name for node in sequence] == ["input", "conv0", "relu1", "avgpool2", "identity3"]
    assert [node.name for node in capture(conv(2, 2), (2, 6, 6))] == ["input", "conv"]
    taken = Wired(lambda net, x: net.input(x), input=conv(2, 2))
    assert [node.name for node in capture(taken, (2, 6, 6))] == ["input", "input@2"]


@pytest.mark.parametrize(
    ("module", "shape", "given_shape"),
    [
        (nn.Sequential(nn.Conv2d(2, 3, 3)), (2, 1, 5), (2, 3, 5)),
        (nn.Sequential(nn.Conv1d(2, 3, 3)), (2, 1, 5), (2, 5)),
        (nn.Sequential(nn.Linear(5, 3)), (5, 1, 1), (5,)),
    ],
)
def test_the_input_is_a_map_and_knows_what_was_given(
    module: nn.Module, shape: tuple[int, ...], given_shape: tuple[int, ...]
) -> None:
    graph = capture(module, given_shape)
    first = graph.nodes[0]
    assert isinstance(first, Input)
    assert (len(first.out_shape), first.given_shape) == (3, given_shape)
    assert first.out_shape == (shape if len(given_shape) < 3 else given_shape)


# functions


def _two(forward: Any) -> nn.Module:
    return Wired(forward, a=conv(2, 2), b=conv(2, 2))


CONSTANTS: dict[str, tuple[Any, type]] = {
    "sum": (lambda x: x + 0.5, BatchNorm),
    "sum, reversed": (lambda x: 2 + x, BatchNorm),
    "sum with a factor": (lambda x: torch.add(x, torch.tensor([[[1.0]], [[2.0]]]), alpha=3), BatchNorm),
    "sum in place": (lambda x: x.add_(0.5), BatchNorm),
    "nothing": (lambda x: x + 0, Skip),
    "twice": (lambda x: x + x, BatchNorm),
    "difference": (lambda x: x - torch.tensor([1.0, 2.0]).view(2, 1, 1), BatchNorm),
    "difference, reversed": (lambda x: 1 - x, BatchNorm),
    "rsub": (lambda x: torch.rsub(x, 3.0), BatchNorm),
    "negative": (lambda x: -x, BatchNorm),
    "product": (lambda x: 0.5 * x, BatchNorm),
    "product for each channel": (lambda x: x * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), BatchNorm),
    "quotient": (lambda x: x / 255, BatchNorm),
    "quotient for each channel": (lambda x: torch.div(x, torch.tensor([1.0, 2.0]).view(2, 1, 1)), BatchNorm),
    "product of ones": (lambda x: x * torch.ones_like(x), Skip),
    "norm": (lambda x: F.batch_norm(x, x.new_ones(2), x.new_full((2,), 1e-6)), BatchNorm),
    "torch's norm": (
        lambda x: torch.batch_norm(x, None, None, x.new_ones(2), x.new_full((2,), 0.3), False, 0.1, 1e-5, False),
        BatchNorm,
    ),
    "relu": (torch.relu, Relu),
    "relu6": (F.relu6, Relu),
    "clamp": (lambda x: x.clamp(min=0), Relu),
    "clamp with a tensor": (lambda x: torch.clamp(x, torch.zeros(1)), Relu),
    "clamp, bounded": (lambda x: torch.clamp(x, 0, 0.25), Relu),
    "clip in place": (lambda x: x.clip_(0, 0.25), Relu),
    "threshold": (lambda x: F.threshold(x, 0.0, 0.0), Relu),
    "leaky by nothing": (lambda x: F.leaky_relu(x, 0.0), Relu),
    "maximum": (lambda x: torch.maximum(torch.zeros(()), x), Relu),
    "max": (lambda x: torch.max(x, torch.zeros_like(x)), Relu),
    "clone": (lambda x: x.clone(), Skip),
    "whole slice": (lambda x: x[:, :], Skip),
    "same shape": (lambda x: x.reshape(-1, 2, 6, 6), Skip),
    "no padding": (lambda x: F.pad(x, (0, 0, 0, 0)), Skip),
    "double": (lambda x: x.double().to(x.dtype), Skip),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_arithmetic_with_constants_and_rectifiers_are_read(name: str) -> None:
    function, kind = CONSTANTS[name]
    module = _two(lambda net, x: net.b(function(net.a(x))))
    graph = capture(module, (2, 6, 6))
    assert any(type(node) is kind for node in graph)
    assert not any(isinstance(node, Unknown) for node in graph)
    assert difference(module, graph, (2, 6, 6)) < 1e-6


REFUSED: dict[str, tuple[Any, str]] = {
    "lower bound": (lambda x: x.clamp(min=0.5), "lower bound"),
    "upper bound only": (lambda x: x.clamp(max=0.5), "lower bound"),
    "bound for each pixel": (lambda x: torch.clamp(x, torch.zeros_like(x)), "lower bound"),
    "threshold": (lambda x: F.threshold(x, 0.1, 0.0), "threshold"),
    "maximum of maps": (lambda x: torch.maximum(x, -x), "maximum"),
    "maximum along an axis": (lambda x: torch.max(x, 1).values, "maximum"),
    "product of maps": (lambda x: x * x, "product"),
    "gate": (lambda x: x * (x > 0), "product"),
    "difference of maps": (lambda x: x - x.relu(), "difference"),
    "sum of shapes": (lambda x: x + x.mean((2, 3), keepdim=True), "different shapes"),
    "weighted sum": (lambda x: torch.add(x, x.relu(), alpha=2), "different shapes"),
    "quotient": (lambda x: 1 / (x + 9), "no spiking counterpart"),
    "rounded quotient": (lambda x: torch.div(x, 2, rounding_mode="floor"), "quotient"),
    "spread": (lambda x: x.mean((2, 3), keepdim=True) * torch.ones(1, 2, 6, 6), "spreads"),
    "half": (lambda x: x.half().float(), "rounds to torch.float16"),
    "noise": (lambda x: x + torch.randn_like(x), "no spiking counterpart"),
    "mean of channels": (lambda x: x.mean(1, keepdim=True), "axes [1]"),
    "mean of everything": (lambda x: x * x.mean(), "not the batch: ()"),
    "reshape": (lambda x: x.view(-1, 1, 12, 6), "reshapes (2, 6, 6) to (1, 12, 6)"),
    "rows to the batch": (lambda x: x.reshape(-1, 12).reshape(-1, 2, 6, 6), "not the batch"),
    "joined rows": (lambda x: torch.cat([x, x], 2), "axis 2"),
    "joined with constants": (lambda x: torch.cat([x, torch.zeros_like(x)], 1), "constants"),
    "ones around": (lambda x: F.pad(x, (1, 1), value=1.0), "pads with 1"),
    "cropped": (lambda x: F.pad(x, (-1, 1)), "pads by [-1, 1]"),
    "channels around": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)), "pads by"),
    "weights of the input": (lambda x: F.conv2d(x, x[..., :3]), "weights depend on the input"),
    "three bounds": (lambda x: x.sigmoid(), "no spiking counterpart"),
    "training norm": (lambda x: F.batch_norm(x, None, None, training=True), "running statistics"),
    "window that differs": (lambda x: F.adaptive_avg_pool2d(x, 4), "windows differ"),
    "full windows": (lambda x: F.avg_pool2d(x, 4, ceil_mode=True), "ceil_mode"),
    "padding that does not count": (lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), "do not count"),
    "norm of 2": (lambda x: F.lp_pool2d(x, 2.0, 2), "norm_type=2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_functions_are_refused_with_the_line_they_stand_in(name: str) -> None:
    function, words = REFUSED[name]
    module = Wired(lambda net, x: F.relu(function(net.a(x))), a=conv(2, 2))
    refusals = [node for node in capture(module, (2, 6, 6)) if isinstance(node, Unknown)]
    assert refusals
    assert any(words in node.reason for node in refusals), refusals
    assert all("test_capture.py, line" in node.reason and node.fix.startswith("Try ") for node in refusals)


def test_matrix_products_with_parameters_are_linear_layers() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = torch.addmm(net.b, torch.matmul(x, net.w.t()), net.v)
        return F.linear(x, net.v, None)

    module = Wired(forward, w=torch.randn(4, 6), v=torch.randn(4, 3), b=torch.randn(3))
    graph = capture(module, (6,))
    assert [type(node) for node in graph] == [Input, Linear, Linear, Linear]
    assert difference(module, graph, (6,)) < 1e-6


def test_layers_of_ones_own_are_looked_into_and_hooks_are_not_missed() -> None:
    class Doubling(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
            return 2 * super().forward(input)

    module = nn.Sequential(Doubling(1, 2, 3), nn.ReLU())
    graph = capture(module, (1, 8, 8))
    assert [type(node) for node in graph] == [Input, Conv, BatchNorm, Relu]
    assert difference(module, graph, (1, 8, 8)) < 1e-6
    hooked = nn.Sequential(conv(1, 2), nn.ReLU())
    hooked[0].register_forward_hook(lambda _module, _given, result: result.square())
    assert any(isinstance(node, Unknown) for node in capture(hooked, (1, 8, 8)))


def test_all_refusals_come_at_once() -> None:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4), nn.Softmax(1))
    with pytest.raises(UnsupportedLayerError, match="3 layers refused in all") as caught:
        refuse(capture(module, (2, 12, 12)))
    assert [(found.node, found.status) for found in caught.value.findings] == [
        *(("maxpool2", "refused"), ("groupnorm3", "refused"), ("softmax4", "refused")),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = value  # type: ignore[operator]
    with pytest.raises(WeightValueError, match=r"layer 'conv0': .* found 1 NaN or infinite of 72"):
        capture(module, (2, 8, 8))


# what is no module that can be captured


class Picky(nn.Module):
    """A forward that raises what it likes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 7
        return x


def test_a_wrong_module_or_shape_is_said_with_the_reason() -> None:
    chain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    with pytest.raises(CaptureError, match=r"does not run on an input of \(1, 8, 8\) .*: .*Try the \("):
        capture(chain, (1, 8, 8))
    with pytest.raises(CaptureError, match="Picky does not run on an input of"):
        capture(Picky(), (1, 8, 8))
    for shape in ((), (1, 2, 3, 4), (2, 0, 8)):
        with pytest.raises(CaptureError, match=r"expected \(channels, height, width\), .* found \("):
            capture(chain, shape)
    with pytest.raises(CaptureError, match=r"expected a torch\.nn\.Module, found dict"):
        capture({}, (2, 8, 8))  # type: ignore[arg-type]


def test_torchscript_is_refused_by_name() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.trace(conv(2, 2), torch.zeros(1, 2, 8, 8))  # type: ignore[no-untyped-call]
    with pytest.raises(CaptureError, match="holds TorchScript"):
        capture(nn.Sequential(scripted, nn.ReLU()), (2, 8, 8))


class NoInput(nn.Module):
    """A forward without input."""

    def forward(self) -> torch.Tensor:
        return torch.zeros(1)


class Mask(nn.Module):
    """A forward whose second input has a default, or must be named."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return F.relu(x if mask is None else x * mask)


class NamedMask(nn.Module):
    """A forward whose second input must be named."""

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> torch.Tensor:
        return x * mask


def test_a_module_needs_one_input_and_one_output() -> None:
    assert len(capture(Mask(), (1, 4, 4))) == 2
    with pytest.raises(CaptureError, match="NoInput: expected a module with one input, found none"):
        capture(NoInput(), (1, 4, 4))
    with pytest.raises(CaptureError, match="found 2: x, mask"):
        capture(NamedMask(), (1, 4, 4))
    with pytest.raises(CaptureError, match=r"for each of 2 samples, found one of \[1, 32\]"):
        capture(Wired(lambda net, x: net.a(x).view(1, -1), a=conv(1, 1)), (1, 4, 4))
    with pytest.raises(CaptureError, match="no recorded operation gave"):
        capture(Wired(lambda net, x: torch.zeros(x.shape)), (1, 4, 4))


def test_what_the_output_does_not_depend_on_is_left_out() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        net.b(x).sigmoid().mean()
        assert x.max() < 1e6
        return F.relu(net.a(x))

    assert [node.name for node in capture(_two(forward), (2, 4, 4))] == ["input", "a", "relu"]
