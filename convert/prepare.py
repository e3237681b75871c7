"""Fine-tuning before conversion: a CNN that counts whole spikes with the chip's weights, in any training loop."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from .capture import capture
from .errors import CalibrationError, CaptureError
from .fold import fold, refuse
from .gains import agreed_gains
from .graph import Conv, Graph, Input, Linear, Relu, Skip
from .normalize import Scaling, calibration_batch, gains_of
from .pipeline import convert_graph
from .replace import replace as replace_nodes
from .thresholds import observe
from .types import Conversion

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .quantized import Dropout, QuantizedGraph


@dataclasses.dataclass(frozen=True)
class FinetuneQuantization:
    """What is rounded in fine-tuning before conversion, as the chip will round it.

    With ``quantized-relu`` a layer emits whole spikes, as many as come; with ``clip-floor-shift`` at most as many as
    ``scaling`` gives its scale. Neurons have no such bound: the spiking net departs from the CNN in what it clipped.
    ``scaling`` sets the scales that training starts with, the spikes that stand for them, the number of steps that a
    frame lasts, and the potential before the first event. Zero rounds counts down, half a threshold to the nearest:
    the better start where the events of a frame come together, and the worse one on the chip, where neurons fire
    before inhibition arrives, which zero makes up for. ``int8`` rounds weights and biases to the grid of the chip;
    ``v_min`` is the lower bound of the potential in thresholds (None: no bound), for the conversion.
    Source: clip-floor-shift: Bu et al., ICLR 2022; quantized-relu: Sorbaro et al., Frontiers in Neuroscience 14:662
    (2020).
    """

    activation: Literal["clip-floor-shift", "quantized-relu"] = "quantized-relu"
    scaling: Scaling = dataclasses.field(default_factory=lambda: Scaling(spikes=8.0))
    int8: bool = True
    v_min: float | None = None

    def __post_init__(self) -> None:
        if self.activation not in ("clip-floor-shift", "quantized-relu"):
            raise CalibrationError(
                f"activation: expected clip-floor-shift or quantized-relu, found '{self.activation}'. "
                "Try quantized-relu."
            )


def prepare_finetune(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    data: ArrayLike,
    settings: FinetuneQuantization | None = None,
    replace: Sequence[str] = (),
) -> nn.Sequential:
    """Return a CNN to train that starts as ``module`` and computes as its spiking net will.

    It holds the layers that conversion makes of ``module``, norms and branches in their weights, as parameters; each
    activation is a whole number of spikes, each weight on the chip's grid, and gradients pass both as if they were not
    there. The scales of layers are parameters too. Any training loop does: ``retrain`` for frames, ``train`` of
    ``spikeport.models`` for recordings, your own. In training the output is the values before a last ReLU, else after
    it; ``nn.Dropout`` layers act on the input of the weights behind them. ``module`` itself stays as it is. What
    folding merges trains as one layer, zeros of its kernels included.
    Shapes: ``input_shape`` and ``data`` as in ``convert``: takes and returns what ``module`` does.
    Law: with one step per frame, spikes of the converted net are those that this CNN counts (``quantized-relu``).
    Raises: as ``convert``; CalibrationError for a layer silent on all of ``data``.
    """
    from torch import nn

    from .quantized import OutputShape, OutputSpikes, QuantizedGraph, Rounding

    settings = settings or FinetuneQuantization()
    plain, _ = replace_nodes(capture(module, input_shape), tuple(replace))
    refuse(plain)
    entry = plain.nodes[0]
    if not isinstance(entry, Input):
        raise CaptureError(f"expected a graph that starts with its input, found '{entry.name}' ({entry.label}).")
    frames = calibration_batch(data, entry)
    graph = fold(plain).graph
    if not any(isinstance(node, Conv) for node in graph):
        raise CaptureError(f"{type(module).__name__}: expected a layer with weights, found none. Try a CNN.")
    scaling = settings.scaling
    found = observe(graph, frames)
    gains = agreed_gains(graph, gains_of(graph, found, scaling))
    whole = gains_of(graph, found, dataclasses.replace(scaling, share="equal", equalize=False))
    levels = {name: np.maximum(1.0, np.rint(scaling.spikes * gain / whole[name])) for name, gain in gains.items()}
    body = QuantizedGraph(
        graph,
        gains,
        levels,
        rounding=Rounding(
            start="zero" if scaling.start == "auto" else scaling.start,
            is_clipped=settings.activation == "clip-floor-shift",
            is_int8=settings.int8,
            n_steps=scaling.n_steps,
            v_min=settings.v_min,
        ),
        dropouts=_dropouts(module, plain, graph),
    )
    ends = [OutputSpikes(body)] if isinstance(graph[graph.output], Relu) else []
    return nn.Sequential(body, OutputShape(plain[plain.output].out_shape), *ends)


def _dropouts(module: nn.Module, plain: Graph, folded: Graph) -> dict[str, Dropout]:
    """Return the dropout in front of each layer of the folded graph: that of the modules which capture left out."""
    from torch import nn

    from .quantized import Dropout

    modules = dict(module.named_modules())
    found: dict[str, Dropout] = {}
    for node in plain:
        path = node.name if node.name in modules else node.name.lstrip(string.ascii_lowercase)  # dropout3 is child 3
        layer = modules.get(path)
        if isinstance(node, Skip) and isinstance(layer, (nn.Dropout, nn.Dropout1d, nn.Dropout2d)) and layer.p < 1:
            dropout = Dropout(layer.p, whole_maps=not isinstance(layer, nn.Dropout))
            found |= {name: dropout for name in _weights_behind(node.name, plain) if name in folded}
    return found


def _weights_behind(name: str, graph: Graph) -> Iterator[str]:
    """Yield the weight layers that read a value with no others between."""
    for node in graph.consumers(name):
        if isinstance(node, (Conv, Linear)):
            yield node.name
        else:
            yield from _weights_behind(node.name, graph)


def finish_finetune(prepared: nn.Module, *, data: ArrayLike | None = None) -> Conversion:
    """Return the conversion of a fine-tuned CNN, with the weights that it counted spikes with.

    ``data`` are frames for the gates, and for potentials that are to be calibrated.
    Law: the net holds weights on the chip's grid: its integers are those of the last forward.
    Raises: CaptureError where ``prepared`` is not from ``prepare_finetune``; the rest as ``convert``.
    """
    body = _body(prepared)
    rounding = body.rounding
    scaling = Scaling(rule="trained", spikes=1.0, n_steps=rounding.n_steps, start=rounding.start)
    return convert_graph(_counting(body), data=data, scaling=scaling, v_min=rounding.v_min)


def expected_synops(prepared: nn.Module) -> torch.Tensor:
    """Return the synops per sample of the last forward, with a gradient to weights and scales.

    Law: with one step per frame they are those that ``count_synops`` counts of the converted net, of events that are
    the frames.
    Raises: CaptureError where there was no forward.
    """
    import torch

    synops = list(_body(prepared).synops.values())
    if not synops:
        raise CaptureError("synops: expected a forward before, found none. Try prepared(frames) first.")
    return torch.stack(synops).sum()


def synop_penalty(prepared: nn.Module, target: float) -> torch.Tensor:
    """Return what to add to the loss, times a weight, so that training comes to ``target`` synops per sample.

    It is the square of the share by which the last forward is above the target, and zero below.
    Raises: CalibrationError for a target that is not positive; as ``expected_synops``.
    Source: Sorbaro et al., Frontiers in Neuroscience 14:662 (2020), there also below the target.
    """
    if not target > 0:
        raise CalibrationError(f"target: expected synops per sample, more than 0, found {target}. Try 1e6.")
    return (expected_synops(prepared) / target - 1).clamp(min=0).square()


def _counting(body: QuantizedGraph) -> Graph:
    """Return the graph of a fine-tuned CNN in which a spike stands for 1."""
    graph = body.scaled_graph()
    if body.rounding.is_int8:
        for name, layer in body.grid_layers(graph).items():
            graph = graph.replaced(name, weight=layer.weight, bias=layer.bias)
    for node in graph:
        if isinstance(node, Relu):
            levels = body.layer(node.inputs[0]).levels.tolist()
            ceiling = tuple(map(float, levels)) if body.rounding.is_clipped else None
            graph = graph.replaced(node.name, ceiling=ceiling)
    return graph


def _body(prepared: nn.Module) -> QuantizedGraph:
    from .quantized import QuantizedGraph

    body = next((part for part in prepared.modules() if isinstance(part, QuantizedGraph)), None)
    if body is None:
        raise CaptureError(
            f"{type(prepared).__name__}: expected a module of prepare_finetune, found another. "
            "Try prepare_finetune(module, input_shape, data=frames) first."
        )
    return body
