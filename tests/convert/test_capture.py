"""A captured graph is the module it was captured from, or it says what it is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn

from spikeport.convert.capture import capture
from spikeport.convert.errors import CaptureError, UnsupportedLayerError, WeightValueError
from spikeport.convert.evaluate import compare, evaluate
from spikeport.convert.fold import refuse
from spikeport.convert.graph import Relu, Unknown

from .networks import Case, plain_cnns


@settings(max_examples=40, deadline=None)
@given(plain_cnns())
def test_a_captured_graph_gives_the_outputs_of_the_module(case: Case) -> None:
    graph = capture(case.module, case.input_shape)
    batch = torch.rand(4, *case.input_shape, dtype=torch.float64)
    with torch.no_grad():
        expected = case.module.double()(batch)
    found = evaluate(graph, batch)[graph.output]
    # what is left is that the module's own division by a root of float32 numbers is not ours in float64
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_capture_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Dropout()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    capture(module, (1, 8, 8))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Functional(nn.Module):
    """Every way to write a rectifier and a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.features[0](x))
        x = torch.relu(self.features[1](x))
        x = self.features[2](x).relu()
        x = F.relu_(self.features[3](x))
        x = F.dropout(x, training=self.training)
        out: torch.Tensor = self.head(x.view(x.size(0), -1))
        return out


def test_functional_rectifiers_are_converted_like_layers() -> None:
    module = Functional()
    graph = capture(module, (1, 6, 6))
    assert sum(isinstance(node, Relu) for node in graph) == 4
    assert compare(module, graph, batch=torch.rand(4, 1, 6, 6)).argmax_agreement == 1.0


def test_a_module_used_twice_becomes_two_nodes_with_distinct_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.conv(F.relu(self.conv(x)))
            return out

    names = [node.name for node in capture(Twice(), (1, 8, 8))]
    assert len(set(names)) == len(names)
    assert {"conv", "conv@2"} <= set(names)


def _chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), *layers)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # what the refusal is about
@pytest.mark.parametrize(
    ("module", "words"),
    [
        (_chain(nn.MaxPool2d(2)), ("maxpool2", "MaxPool2d", "AvgPool2d")),
        (_chain(nn.Conv2d(4, 4, 3, groups=2)), ("conv2", "groups=2", "groups=1")),
        (_chain(nn.Conv2d(4, 4, 3, dilation=2)), ("conv2", "dilation=(2, 2)", "dilation=1")),
        (_chain(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")), ("conv2", "circular", "zeros")),
        (_chain(nn.Conv2d(4, 4, 2, padding="same")), ("conv2", "same", "odd kernel")),
        (_chain(nn.AvgPool2d(3, stride=2)), ("avgpool2", "stride (2, 2)", "nn.AvgPool2d((3, 3))")),
        (_chain(nn.AdaptiveAvgPool2d(1)), ("AdaptiveAvgPool2d", "window")),
        (_chain(nn.LeakyReLU()), ("LeakyReLU", "nn.ReLU")),
        (_chain(nn.ReLU6()), ("ReLU6", "nn.ReLU")),
        (_chain(nn.Softmax(1)), ("Softmax", "leave it out")),
        (_chain(nn.GELU()), ("GELU", "no spiking counterpart")),
        (_chain(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)), ("conv3", "conv2", "nn.ReLU()")),
        (_chain(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2)), ("avgpool3", "before a ReLU")),
        (_chain(nn.BatchNorm2d(4)), ("batchnorm2", "right behind a Conv2d")),
        (_chain(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), ("running statistics",)),
        (_chain(nn.Linear(10, 3)), ("Linear", "nn.Flatten()")),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(2, 4, 3)), ("relu0", "behind the input")),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name_with_a_fix(module: nn.Module, words: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedLayerError) as caught:
        refuse(capture(module, (2, 12, 12)))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "Try" in str(caught.value)


def test_all_refusals_come_at_once() -> None:
    module = _chain(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, groups=2), nn.Softmax(1))
    with pytest.raises(UnsupportedLayerError, match="3 layers refused in all") as caught:
        refuse(capture(module, (2, 12, 12)))
    assert [line.split("'")[1] for line in str(caught.value).splitlines()[:-1]] == ["maxpool2", "conv3", "softmax4"]
    assert [(found.node, found.status) for found in caught.value.findings] == [
        *(("maxpool2", "refused"), ("conv3", "refused"), ("softmax4", "refused")),
    ]


class Residual(nn.Module):
    """Two branches that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.conv(x))


class AlwaysDrops(nn.Module):
    """Dropout that does not know about evaluation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x)


@pytest.mark.parametrize(
    ("module", "reason"), [(Residual(), "branches that meet"), (AlwaysDrops(), "drops in evaluation")]
)
def test_operations_without_a_layer_are_refused_too(module: nn.Module, reason: str) -> None:
    graph = capture(module, (2, 8, 8))
    assert any(isinstance(node, Unknown) and reason in node.reason for node in graph)


def test_control_flow_on_values_cannot_be_traced() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CaptureError, match=r"cannot trace Branching: .* Try"):
        capture(Branching(), (1, 4, 4))


class OneAtATime(nn.Module):
    """A forward that only takes a batch of one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x.view(1, -1)[:, :64])


class Picky(nn.Module):
    """A forward that raises what it likes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 7
        return x


class TwoInputs(nn.Module):
    """A forward with a second input."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return F.relu(x if mask is None else x * mask)


@pytest.mark.parametrize("module", [Picky(), TwoInputs()])
def test_whatever_a_users_forward_does_ends_in_one_error(module: nn.Module) -> None:
    with pytest.raises(CaptureError, match="Try"):
        capture(module, (1, 8, 8))


def test_flattens_that_keep_no_batch_are_refused() -> None:
    graph = capture(OneAtATime(), (1, 8, 8))
    assert any(isinstance(node, Unknown) for node in graph)


def test_a_wrong_input_shape_is_said_with_the_reason() -> None:
    with pytest.raises(CaptureError, match=r"does not run on an input of \(1, 8, 8\) .*: .*Try the \("):
        capture(_chain(), (1, 8, 8))
    with pytest.raises(CaptureError, match=r"expected \(channels, height, width\), found \(8, 8\)"):
        capture(_chain(), (8, 8))  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match=r"expected a torch.nn.Module, found dict"):
        capture({}, (2, 8, 8))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    module = _chain()
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = value  # type: ignore[operator]
    with pytest.raises(WeightValueError, match=r"layer 'conv0': .* found 1 NaN or infinite of 72"):
        capture(module, (2, 8, 8))


def test_a_subclass_with_a_forward_of_its_own_breaks_the_gate() -> None:
    class Doubling(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
            return 2 * super().forward(input)

    module = nn.Sequential(Doubling(1, 2, 3), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(0.1)  # type: ignore[operator]
    with pytest.raises(CaptureError, match="is not the function of Sequential"):
        compare(module, capture(module, (1, 8, 8)), batch=torch.rand(2, 1, 8, 8))
