"""torch -> ONNX -> spiking net gives the spikes of torch -> spiking net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikeport.convert import convert, simulate
from spikeport.convert.errors import ConvertError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.exchange.onnx_in import load_onnx
from spikeport.convert.pipeline import convert_graph

from . import cnn_zoo_branched, cnn_zoo_refused  # noqa: F401  # their nets are in the zoo by being imported
from .cnn_zoo import NETS
from .onnx_files import export

CONVERTING = [name for name, net in NETS.items() if net.n_spiking is not None]
FOLLOWED = ("control flow that data changes", "a number taken from the data")
FEW = ["norms before and after", "padding layer", "one axis"]


def _check(name: str, path: Path, *, is_open: bool) -> None:
    net = NETS[name]
    module = net.module()
    expected = convert(module, net.shape)
    graph = load_onnx(export(module, net.shape, path, is_open=is_open))
    x = torch.rand(3, *net.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = module(x).flatten(1)
    found = evaluate(graph, x.reshape(3, *graph.input_shape))[graph.output].flatten(1)
    torch.testing.assert_close(found, given, rtol=1e-4, atol=1e-5)
    conversion = convert_graph(graph)
    raster = (np.random.default_rng(0).random((6, *graph.input_shape)) < 0.3).astype(np.float32)
    one, other = (simulate(each.net, raster) for each in (expected, conversion))
    np.testing.assert_array_equal(one.output, other.output)
    assert len(conversion.net.layers) == len(expected.net.layers)


@pytest.mark.parametrize("name", FEW)
def test_the_spikes_are_those_of_the_module(name: str, tmp_path: Path) -> None:
    _check(name, tmp_path / "net.onnx", is_open=False)
    _check(name, tmp_path / "open.onnx", is_open=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's word on even kernels, once a process
@pytest.mark.parametrize("name", CONVERTING)
def test_every_net_of_the_zoo_gives_the_same_spikes(name: str, tmp_path: Path) -> None:
    _check(name, tmp_path / "net.onnx", is_open=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in NETS if name not in CONVERTING])
def test_what_is_refused_of_a_module_is_not_converted_behind_its_back(name: str, tmp_path: Path) -> None:
    """What depends on data is followed by the exporter as one run took it, so that the file is an ordinary net."""
    net = NETS[name]
    try:
        path = export(net.module(), net.shape, tmp_path / "net.onnx")
    except (TypeError, RuntimeError) as cause:
        pytest.skip(f"torch does not export it: {type(cause).__name__}")
    if name in FOLLOWED:
        assert load_onnx(path).output
        return
    with pytest.raises(ConvertError):
        convert_graph(load_onnx(path))


def test_scales_from_data_are_those_of_the_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    last = nn.Linear(36, 3)
    nn.init.ones_(last.bias)  # no class stays silent
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), last)
    module.eval()
    data = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    expected = convert(module, (1, 8, 8), data=data)
    found = convert_graph(load_onnx(export(module, (1, 8, 8), tmp_path / "net.onnx")), data=data)
    for one, other in zip(expected.net.layers, found.net.layers, strict=True):
        np.testing.assert_allclose(one.weight, other.weight, rtol=1e-4, atol=1e-6)
