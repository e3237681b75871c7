"""Replacements: asked for by name, told by name, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spikeport.convert import convert
from spikeport.convert.advice import REPLACEMENTS
from spikeport.convert.capture import capture
from spikeport.convert.errors import InputError, UnsupportedLayerError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.graph import AvgPool, Relu, Skip, Unknown
from spikeport.convert.replace import replace

from .cnn_zoo import conv

LAYERS: dict[str, tuple[nn.Module, type]] = {
    "maxpool=avgpool": (nn.MaxPool2d(3, 2, 1), AvgPool),
    "adaptivemaxpool=adaptiveavgpool": (nn.AdaptiveMaxPool2d(2), AvgPool),
    "softmax=identity": (nn.Softmax(1), Skip),
    "logsoftmax=identity": (nn.LogSoftmax(1), Skip),
    "leakyrelu=relu": (nn.LeakyReLU(), Relu),
    "rrelu=relu": (nn.RReLU(), Relu),
    "prelu=relu": (nn.PReLU(), Relu),
    "elu=relu": (nn.ELU(), Relu),
    "celu=relu": (nn.CELU(), Relu),
    "selu=relu": (nn.SELU(), Relu),
    "gelu=relu": (nn.GELU(), Relu),
    "silu=relu": (nn.SiLU(), Relu),
    "mish=relu": (nn.Mish(), Relu),
    "hardswish=relu": (nn.Hardswish(), Relu),
    "tanh=relu": (nn.Tanh(), Relu),
    "softsign=relu": (nn.Softsign(), Relu),
    "sigmoid=relu": (nn.Sigmoid(), Relu),
    "hardsigmoid=relu": (nn.Hardsigmoid(), Relu),
    "softplus=relu": (nn.Softplus(), Relu),
    "hardtanh=relu": (nn.Hardtanh(), Relu),
}


def test_every_replacement_is_tested() -> None:
    assert tuple(sorted(LAYERS)) == tuple(sorted(REPLACEMENTS))


@pytest.mark.parametrize("name", LAYERS)
def test_each_replacement_takes_the_place_of_its_layer(name: str) -> None:
    layer, kind = LAYERS[name]
    module = nn.Sequential(conv(2, 3), nn.ReLU(), conv(3, 3), layer)
    graph = capture(module, (2, 8, 8))
    assert isinstance(graph.nodes[-1], Unknown)
    found, replaced = replace(graph, (name,))
    assert replaced == {graph.output: name}
    assert isinstance(found[graph.output], kind)
    assert [node.name for node in found] == [node.name for node in graph]
    assert all(found[node.name] is node for node in graph if node.name not in replaced)
    value = evaluate(found, torch.rand(2, 2, 8, 8))[found.output]
    assert tuple(value.shape[1:]) == graph[graph.output].out_shape


def test_a_pool_that_has_no_counterpart_is_not_replaced() -> None:
    graph = capture(nn.Sequential(nn.MaxPool2d(2, dilation=2)), (2, 8, 8))
    with pytest.raises(InputError, match=r"found maxpool=avgpool, which changes none\. Try without it"):
        replace(graph, ("maxpool=avgpool",))


def test_names_that_are_not_known_or_change_nothing_are_said() -> None:
    graph = capture(nn.Sequential(conv(2, 2), nn.MaxPool2d(2), nn.Softmax(1)), (2, 8, 8))
    with pytest.raises(InputError, match=r"expected some of maxpool=avgpool, .*found 'maxpool', 'a=b'. Try"):
        replace(graph, ("maxpool", "a=b", "softmax=identity"))
    with pytest.raises(InputError, match=r"found tanh=relu, which changes none\. Try softmax=identity"):
        replace(graph, ("maxpool=avgpool", "tanh=relu"))
    assert replace(graph, ()) == (graph, {})


def test_conversion_with_replacements_says_what_they_changed() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(conv(2, 4), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1))
    with pytest.raises(UnsupportedLayerError, match="maxpool2"):
        convert(module, (2, 8, 8), replace=["leakyrelu=relu", "softmax=identity"])
    names = ("leakyrelu=relu", "maxpool=avgpool", "softmax=identity")
    found = convert(module, (2, 8, 8), replace=names)
    assert [(finding.node, finding.status) for finding in found.findings if finding.status == "replaced"] == [
        *(("leakyrelu1", "replaced"), ("maxpool2", "replaced"), ("softmax5", "replaced")),
    ]
    assert found.replacement is not None
    assert found.replacement.names == names
    assert found.replacement.nodes == ("leakyrelu1", "maxpool2", "softmax5")
