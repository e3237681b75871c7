"""A network exported with torch.export is captured as the module itself is."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeport.convert import convert
from spikeport.convert.capture import capture
from spikeport.convert.errors import UnsupportedLayerError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.graph import Skip
from spikeport.models.zoo import load_network

from . import cnn_zoo_branched, cnn_zoo_refused  # noqa: F401 - their nets register themselves
from .cnn_zoo import NETS

QUICK = ("plain", "changes in place", "one axis", "residual, strided", "transposed", "standardized input")
# torch.export itself cannot: it does not follow control flow on values, and refuses *args
NOT_EXPORTED = ("control flow on values", "star arguments")
OTHERS = [name for name, net in NETS.items() if net.n_spiking is not None and name not in (*QUICK, *NOT_EXPORTED)]


def export(module: nn.Module, path: Path, *, n_batch: int, is_dynamic: bool = False, is_core: bool = False) -> Path:
    """Write a network as ``torch.export`` does, for one batch size or any, in all operators or the core ones."""
    shape: tuple[int, ...] = module.shape  # type: ignore[assignment]
    example = torch.rand(n_batch, *shape)
    sizes = ({0: torch.export.Dim.DYNAMIC},) if is_dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own use of what it deprecates
        program = torch.export.export(module, (example,), dynamic_shapes=sizes)
        torch.export.save(program.run_decompositions() if is_core else program, path)
    return path


def net_of(name: str) -> nn.Module:
    module = NETS[name].module()
    module.shape = NETS[name].shape  # type: ignore[assignment]
    return module


def check(name: str, path: Path) -> None:
    module = net_of(name)
    network = load_network(str(path))
    shape = NETS[name].shape
    assert network.input_shape == shape
    batch = torch.rand(5, *shape)
    with torch.no_grad():
        expected = module(batch)
        torch.testing.assert_close(network.module(batch), expected, rtol=1e-4, atol=1e-5)
    graph = capture(network.module, shape)
    found = evaluate(graph, batch.reshape(5, *graph.input_shape))[graph.output]
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_an_exported_net_is_captured_as_the_net(name: str, tmp_path: Path) -> None:
    path = export(net_of(name), tmp_path / "net.pt2", n_batch=1)
    check(name, path)
    ours = [node for node in capture(net_of(name), NETS[name].shape) if not isinstance(node, Skip)]
    theirs = [node for node in capture(load_network(str(path)).module, NETS[name].shape) if not isinstance(node, Skip)]
    assert [(node.name, type(node), node.out_shape) for node in theirs] == [
        (node.name, type(node), node.out_shape) for node in ours
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", OTHERS)
def test_all_of_the_zoo_can_be_exported(name: str, tmp_path: Path) -> None:
    is_core = name != "rectifier layers"  # in core operators a threshold is a comparison and a choice
    check(name, export(net_of(name), tmp_path / "net.pt2", n_batch=2, is_core=is_core))


@pytest.mark.parametrize(("n_batch", "is_dynamic", "is_core"), [(3, False, False), (2, True, False), (2, True, True)])
def test_any_batch_size_and_set_of_operators_is_read(
    n_batch: int, is_dynamic: bool, is_core: bool, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt2"
    check("vgg", export(net_of("vgg"), path, n_batch=n_batch, is_dynamic=is_dynamic, is_core=is_core))


def test_an_exported_net_converts_with_its_gates(tmp_path: Path) -> None:
    network = load_network(str(export(net_of("plain"), tmp_path / "net.pt2", n_batch=1)))
    found = convert(network.module, network.input_shape or ())
    assert len(found.net.layers) == NETS["plain"].n_spiking
    assert all(gate.argmax_agreement == 1.0 for gate in found.gates)


@pytest.mark.parametrize("name", ["max pool", "recurrent", "group norm"])
def test_an_exported_net_is_refused_by_the_same_names(name: str, tmp_path: Path) -> None:
    network = load_network(str(export(net_of(name), tmp_path / "net.pt2", n_batch=2)))
    with pytest.raises(UnsupportedLayerError) as caught:
        convert(network.module, NETS[name].shape)
    assert all(word in str(caught.value) for word in NETS[name].refused)
