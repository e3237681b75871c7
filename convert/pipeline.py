"""convert(): the visible list of calls from a torch CNN to a spiking net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .capture import capture
from .evaluate import compare
from .fold import Folded, fold
from .geometry import Shape3
from .graph import AvgPool, BatchNorm, Conv, Finding, Flatten, Graph, Input, Linear, Node, Relu
from .normalize import Scaling, calibration_batch, normalize
from .spiking import to_spiking
from .types import Conversion, SpikingNet

if TYPE_CHECKING:
    from torch import nn

_MAGNITUDES = (1.0, 10.0, 100.0)
"""Of random frames: a bias may keep a layer silent on small ones."""


def convert(
    module: nn.Module,
    input_shape: Shape3,
    *,
    data: ArrayLike | None = None,
    scaling: Scaling | None = None,
    v_min: float | None = -1.0,
) -> Conversion:
    """Return the spiking net of a plain CNN, with one finding per node of the CNN.

    Without ``data`` the weights keep their scale: threshold 1, as sinabs' ``from_model`` does. With ``data`` the
    percentile of each layer's activations becomes ``scaling.spikes`` spikes (see ``Scaling``). A net that ends in a
    weight layer gets a spiking output layer, said in its finding.
    Shapes: ``input_shape`` is ``(C, H, W)``, ``data`` ``[N, C, H, W]``: frames such as the CNN was trained on.
    Units: ``v_min`` is the lower bound of the potential in thresholds (None: no bound).
    Law: the folded and scaled CNN is a multiple of the given one on every calibration frame (``Conversion.gate``).
    Raises: CaptureError, UnsupportedLayerError, WeightValueError, CalibrationError; InvalidNetError for a ``v_min``
    above 0 or a CNN without weight layers.
    """
    scaling = scaling or Scaling()
    graph = capture(module, input_shape)
    folded = fold(graph)
    frames = _random_frames(graph) if data is None else calibration_batch(data, graph.input_shape)
    scaled, gain = (folded.graph, 1.0) if data is None else normalize(folded.graph, frames, scaling)
    gate = compare(module, scaled, batch=_tensor(frames), gain=folded.gain * gain)
    net = to_spiking(scaled, v_min=v_min, n_steps=scaling.n_steps)
    return Conversion(graph, net, findings(graph, folded, net), gate)


def findings(graph: Graph, folded: Folded, net: SpikingNet) -> tuple[Finding, ...]:
    """Return what became of each node of the captured graph, one finding each, in its order."""
    return tuple(_finding(node, graph, folded, net) for node in graph)


def _finding(node: Node, graph: Graph, folded: Folded, net: SpikingNet) -> Finding:
    note = folded.notes.get(node.name, "")
    match node:
        case Input():
            shape = "x".join(map(str, net.input_shape))
            return Finding(node.name, node.label, "passed through", f"events on {shape}")
        case Conv() | Linear():
            return Finding(node.name, node.label, "converted", _layer_note(node, note, graph, net))
        case Relu() if not note:
            return Finding(node.name, node.label, "converted", f"to the neurons of '{_weights_before(node, graph)}'")
        case BatchNorm() | AvgPool():
            return Finding(node.name, node.label, "folded", note)
        case Flatten():
            return Finding(node.name, node.label, "passed through", note)
    return Finding(node.name, node.label, "passed through", note or "sum pool between two layers")


def _layer_note(node: Node, note: str, graph: Graph, net: SpikingNet) -> str:
    layer = next(layer for layer in net.layers if layer.name == node.name)
    features, height, width = layer.out_shape
    text = f"to {features * height * width} integrate-and-fire neurons {features}x{height}x{width}"
    text += f" {note}" if note else ""
    text += "; its bias is added once per time step or leak tick" if layer.bias is not None else ""
    readers = graph.consumers(node.name)
    while readers and not isinstance(readers[0], Relu):
        readers = graph.consumers(readers[0].name)
    return text if readers else f"{text}; the CNN ends here without a ReLU: a spiking output layer was added"


def _weights_before(node: Node, graph: Graph) -> str:
    source = graph[node.inputs[0]]
    while not isinstance(source, (Conv, Linear)):
        source = graph[source.inputs[0]]
    return source.name


def _random_frames(graph: Graph) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return np.concatenate([high * rng.random((8, *graph.input_shape), dtype=np.float32) for high in _MAGNITUDES])


def _tensor(frames: NDArray[np.float32]):  # type: ignore[no-untyped-def]  # torch stays out of the signature
    import torch

    return torch.from_numpy(frames.copy())
