"""The zoo: each net converts with every activation replaced, or is refused by name. No case is silent."""

from __future__ import annotations

import pytest
import torch

from spikeport.convert import convert
from spikeport.convert.capture import capture
from spikeport.convert.errors import CaptureError, UnsupportedLayerError
from spikeport.convert.evaluate import evaluate
from spikeport.convert.graph import Relu, Unknown

from . import cnn_zoo_branched, cnn_zoo_refused  # noqa: F401 - their nets register themselves
from .cnn_zoo import NETS

CONVERTING = [name for name, net in NETS.items() if net.n_spiking is not None]
REFUSED = [name for name, net in NETS.items() if net.n_spiking is None]

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def test_the_zoo_is_large() -> None:
    assert len(NETS) >= 40
    assert len(CONVERTING) >= 20
    assert len(REFUSED) >= 20


@pytest.mark.parametrize("name", CONVERTING)
def test_a_captured_net_is_the_net(name: str) -> None:
    net = NETS[name]
    module = net.module()
    graph = capture(module, net.shape)
    assert not [node for node in graph if isinstance(node, Unknown)]
    batch = torch.rand(5, *net.shape, dtype=torch.float64) * 3
    with torch.no_grad():
        expected = module.double()(batch).flatten(1)
    found = evaluate(graph, batch.reshape(5, *graph.input_shape))[graph.output].flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("name", CONVERTING)
def test_a_net_converts_with_every_activation_replaced(name: str) -> None:
    net = NETS[name]
    conversion = convert(net.module(), net.shape)
    assert len(conversion.net.layers) == net.n_spiking
    assert [found.node for found in conversion.findings] == [node.name for node in conversion.graph]
    assert all(found.status in ("converted", "folded", "passed through") for found in conversion.findings)
    assert all(gate.argmax_agreement == 1.0 for gate in conversion.gates)
    assert any(gate.n_samples for gate in conversion.gates)
    rectified = {node.name for node in conversion.graph if isinstance(node, Relu)}
    assert rectified <= {found.node for found in conversion.findings if found.status == "converted"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_net_without_counterpart_is_refused_by_name(name: str) -> None:
    net = NETS[name]
    with pytest.raises((UnsupportedLayerError, CaptureError)) as caught:
        convert(net.module(), net.shape)
    said = str(caught.value)
    assert all(word in said for word in net.refused), said
    assert "Try" in said
    assert caught.value.exit_code == 3
