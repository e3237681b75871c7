"""Capture by running: changes in place, shared memory, and Python that is no list of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from spikeport.convert import convert
from spikeport.convert.capture import capture
from spikeport.convert.errors import CaptureError
from spikeport.convert.graph import Add, Unknown

from .cnn_zoo import Wired, conv
from .test_capture import difference


def _two(forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> nn.Module:
    return Wired(forward, a=conv(2, 2), b=conv(2, 2))


def test_sums_in_place_read_the_values_of_their_time() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        kept = y.clone()
        y += net.b(x)
        total = torch.zeros_like(y)
        total += y
        out: torch.Tensor = total + kept
        return out

    module = _two(forward)
    graph = capture(module, (2, 6, 6))
    assert sum(isinstance(node, Add) for node in graph) == 2
    assert difference(module, graph, (2, 6, 6)) < 1e-6


class Clamped(torch.autograd.Function):
    """A rectifier as an autograd function of one's own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0)


class Passed(torch.autograd.Function):
    """An autograd function that returns what it is given: torch wraps it anew."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x


def _through_data(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.a(x)
    y.data.relu_()
    out: torch.Tensor = net.b(y)
    return out


def _into_another(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.empty(x.shape, dtype=x.dtype)
    torch.add(net.a(x), 1, out=y)
    out: torch.Tensor = net.b(y)
    return out


def _often(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.a(x)
    for _ in range(64):
        y += 0.01
        y.data.mul_(0.99)
    out: torch.Tensor = net.b(y)
    return out


def _on_the_input(net: Any, x: torch.Tensor) -> torch.Tensor:
    x /= 255
    x.relu_()
    out: torch.Tensor = net.a(x) + x
    return out


def _to_one_pixel(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.a(x).mean((2, 3)).view(-1, 2, 1, 1)
    out: torch.Tensor = net.b(y)
    return out


FORWARDS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "checkpoint": lambda net, x: checkpoint(lambda y: net.b(F.relu(net.a(y))), x, use_reentrant=False),
    "reentrant checkpoint": lambda net, x: checkpoint(lambda y: net.b(F.relu(net.a(y))), x, use_reentrant=True),
    "autograd function": lambda net, x: net.b(Passed.apply(Clamped.apply(net.a(x)))),  # type: ignore[no-untyped-call]
    "inference mode": torch.inference_mode()(lambda net, x: net.b(F.relu(net.a(x)).add_(1))),
    "gradients": torch.enable_grad()(lambda net, x: net.b(F.relu(net.a(x)))),
    "a forward called by name": lambda net, x: net.b(F.relu(net.a.forward(x))),
    "data in place": _through_data,
    "often in place": _often,
    "out": _into_another,
    "the input in place": _on_the_input,
    "one pixel": _to_one_pixel,
}


@pytest.mark.filterwarnings("ignore:.*requires_grad=True:UserWarning")
@pytest.mark.parametrize("name", FORWARDS)
def test_whatever_python_does_the_tensors_are_followed(name: str) -> None:
    module = _two(FORWARDS[name])
    graph = capture(module, (2, 6, 6))
    assert not any(isinstance(node, Unknown) for node in graph)
    assert difference(module, graph, (2, 6, 6)) < 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of what torch.compile imports
@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, torch.nn.utils.parametrizations.spectral_norm],
    ids=["parallel", "compiled", "norm"],
)
def test_wrapped_modules_are_looked_into(wrap: Callable[[nn.Module], nn.Module]) -> None:
    inner = conv(2, 2)
    module = nn.Sequential(wrap(inner), nn.ReLU())
    graph = capture(module, (2, 6, 6))
    assert [type(node).__name__ for node in graph] == ["Input", "Conv", "Relu"]
    assert graph.nodes[1].label == "Conv2d"


def test_one_number_for_each_sample_is_a_vector() -> None:
    module = Wired(lambda net, x: F.relu(net.a(x)).squeeze(1), a=nn.Linear(6, 1))
    graph = capture(module, (6,))
    assert graph[graph.output].out_shape == (1,)
    assert difference(module, graph, (6,)) < 1e-6
    assert convert(module, (6,)).gates[-1].max_error < 1e-6


def test_a_counter_in_a_buffer_is_a_constant_of_its_time() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        net.n += 1
        out: torch.Tensor = F.relu(net.a(x)) * net.n.clamp(max=1)
        return out

    count = torch.zeros(1)
    module = Wired(forward, a=conv(2, 2), n=count)
    graph = capture(module, (2, 6, 6))
    assert int(count) == 0
    assert difference(module, graph, (2, 6, 6)) < 1e-6


def test_a_branch_that_data_changes_breaks_the_gate() -> None:
    module = Wired(lambda net, x: F.relu(net.a(x) if x.max() > 1 else net.a(-x)), a=conv(1, 2))
    with pytest.raises(CaptureError, match="is not the function that was given"):
        convert(module, (1, 8, 8))
