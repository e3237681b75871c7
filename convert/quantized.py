"""A folded graph as a torch module that trains on the number grid of the chip.

The classes here need torch to be defined: import this module inside functions only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from .errors import CaptureError
from .evaluate import spread
from .gains import agreed_gains, apply_gains
from .geometry import fan_out
from .graph import Add, AvgPool, Concat, Conv, Graph, Input, Node, Relu, Shape, SumPool
from .grid import BIAS_BITS, WEIGHT_BITS, layer_scale, to_integers
from .spiking import to_spiking

_TIE = 2e-5
"""Of a threshold: sums on the grid are often equal to one, a neuron fires there, and float32 may end just below."""

_UNIT_START = math.log(math.e - 1)
"""Where softplus is 1: a layer starts with the scale that calibration found."""


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What the neurons and registers of a chip do to values.

    Units: ``v_min`` is in thresholds; a bias is added ``n_steps`` times. ``is_clipped``: activations end at the layer's
    scale; ``is_int8``: weights lie on the grid.
    """

    start: Literal["zero", "half", "calibrated"]
    is_clipped: bool
    is_int8: bool
    n_steps: int
    v_min: float | None

    @property
    def shift(self) -> float:
        """The potential before the first event, in thresholds; a calibrated one is near half."""
        return 0.0 if self.start == "zero" else 0.5


@dataclasses.dataclass(frozen=True)
class Dropout:
    """What training leaves out of a layer's input: a ``share`` of its channels, or of its pixels one by one."""

    share: float
    whole_maps: bool


@dataclasses.dataclass(frozen=True, eq=False)
class GridLayer:
    """Weights of one layer in spikes: on the grid of the chip, or as they are.

    Shapes: ``weight`` ``[F, C // groups, ky, kx]`` and ``bias`` ``[F]`` (or None) stand beside a threshold of 1; the
    bias is that of a whole frame.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


class QuantizedConv(nn.Conv2d):
    """A weight layer of the graph: ``nn.Conv2d`` of the same numbers, with a learned unit for its spikes.

    Shapes: ``unit_start`` ``[F]`` is the activation that one spike stood for at the start, ``levels`` ``[F]`` the most
    spikes of a clipped activation.
    """

    unit_start: torch.Tensor
    levels: torch.Tensor

    def __init__(self, node: Conv, unit_start: NDArray[np.float64], levels: NDArray[np.float64]) -> None:
        features, per_group, *_ = node.weight.shape
        super().__init__(
            per_group * node.groups,
            features,
            node.window.kernel,
            node.stride,
            node.padding,
            node.dilation,
            node.groups,
            bias=node.bias is not None,
        )
        with torch.no_grad():
            self.weight.copy_(torch.tensor(node.weight))
            if self.bias is not None:
                self.bias.copy_(torch.tensor(node.bias))
        self.raw_unit = nn.Parameter(torch.tensor(_UNIT_START))
        self.register_buffer("unit_start", torch.tensor(unit_start))
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32))

    def unit(self) -> torch.Tensor:
        """Return the activation that one spike stands for, positive, ``[F]`` in double precision."""
        return self.unit_start * F.softplus(self.raw_unit.double())


class OutputShape(nn.Module):
    """Maps as the CNN that was given returns its output: flat, for one."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` in that shape."""
        return x.reshape(len(x), *self.shape)


class OutputSpikes(nn.ReLU):
    """The rectifier that ends the net: what whole spikes stand for in evaluation; training sees the values before."""

    def __init__(self, body: QuantizedGraph) -> None:
        super().__init__()
        self._body = (body,)  # in a tuple: the body is no part of its rectifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` in training, else the spikes that it causes times what one stands for."""
        if self.training:
            return x
        (body,) = self._body
        maps = x.reshape(len(x), *body.graph[body.end].out_shape)
        return body.rectified(body.end, maps, body.units()[body.end]).reshape(x.shape)


class QuantizedGraph(nn.Module):
    """A folded graph whose weights and units are parameters, up to the rectifier that ends it.

    Law: in each forward, weights and biases are those that ``grid_layers`` returns, in the unit of the activations, and
    rectifiers give whole spikes; gradients pass both as if nothing were rounded.
    """

    def __init__(
        self,
        graph: Graph,
        gains: Mapping[str, NDArray[np.float64]],
        levels: Mapping[str, NDArray[np.float64]],
        *,
        rounding: Rounding,
        dropouts: Mapping[str, Dropout],
    ) -> None:
        super().__init__()
        self.graph, self.rounding, self.dropouts = graph, rounding, dict(dropouts)
        convs = [node for node in graph if isinstance(node, Conv)]
        self.names = tuple(node.name for node in convs)
        self.layers = nn.ModuleList(QuantizedConv(node, 1 / gains[node.name], levels[node.name]) for node in convs)
        self.synops: dict[str, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the last forward out of copies: its values belong to a gradient."""
        return {**self.__dict__, "synops": {}}

    def layer(self, name: str) -> QuantizedConv:
        """Return the parameters of a weight layer."""
        layer = self.layers[self.names.index(name)]
        assert isinstance(layer, QuantizedConv)  # noqa: S101  # the list holds no other kind
        return layer

    @property
    def end(self) -> str:
        """Name of the node whose value leaves here: the output, or what its rectifier reads."""
        last = self.graph[self.graph.output]
        return last.inputs[0] if isinstance(last, Relu) else last.name

    def trained_graph(self) -> Graph:
        """Return the graph with the weights as they are now, not rounded."""
        graph = self.graph
        for name in self.names:
            layer = self.layer(name)
            bias = None if layer.bias is None else _array(layer.bias)
            graph = graph.replaced(name, weight=_array(layer.weight), bias=bias)
        return graph

    def gains(self) -> dict[str, NDArray[np.float64]]:
        """Return how many spikes stand for 1 in each feature, where layers must agree what they agree on."""
        return agreed_gains(self.graph, {name: 1 / _array(self.layer(name).unit()) for name in self.names})

    def units(self) -> dict[str, torch.Tensor]:
        """Return the activation that one spike stands for, ``[F]`` of each layer.

        Where layers must agree, the coarsest decides, and it alone learns.
        """
        agreed = self.gains()
        found = {}
        for name in self.names:
            own = self.layer(name).unit()
            common = torch.as_tensor(1 / agreed[name], device=own.device)
            found[name] = torch.where(common > own * (1 + 1e-9), common, own).float()
        return found

    def scaled_graph(self) -> Graph:
        """Return the graph in which activations count spikes, weights not rounded."""
        return apply_gains(self.trained_graph(), self.gains())[0]

    def grid_layers(self, scaled: Graph | None = None) -> dict[str, GridLayer]:
        """Return the weights of each layer as the chip will hold them, divided by its integer threshold.

        Law: scaling them again gives the same integers, and the same threshold.
        """
        rounding = self.rounding
        net = to_spiking(scaled or self.scaled_graph(), v_min=rounding.v_min, n_steps=rounding.n_steps)
        found = {}
        for layer in net.layers:
            scale = layer_scale(layer.weight, layer.bias, threshold=layer.threshold, v_min=layer.v_min)
            one = max(1, int(to_integers(layer.threshold, scale)))
            weight = to_integers(layer.weight, scale, WEIGHT_BITS) / one
            bias = None
            if layer.bias is not None:
                bias = (to_integers(layer.bias, scale, BIAS_BITS) * (rounding.n_steps / one)).astype(np.float32)
            found[layer.name] = GridLayer(weight.astype(np.float32), bias)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the values before the last rectifier.

        Shapes: ``x`` is ``[N, *input_shape]``, the result ``[N, F, H, W]``.
        Raises: CaptureError for another shape.
        """
        first = self.graph.nodes[0]
        given = first.given_shape if isinstance(first, Input) else first.out_shape
        if x.shape[1:] not in (first.out_shape, given):
            raise CaptureError(
                f"fine-tuning: expected frames [N, {', '.join(map(str, given))}], found {list(x.shape)}. "
                "Try the frames the CNN was trained on, channels first."
            )
        units = self.units()
        layers = self._rounded_parameters() if self.rounding.is_int8 else {}
        values: dict[str, torch.Tensor] = {}
        behind: dict[str, torch.Tensor] = {}  # what one spike stands for in each channel of a value
        self.synops = {}
        for node in self.graph:
            given_values, given_units = [values[name] for name in node.inputs], [behind[name] for name in node.inputs]
            match node:
                case Input():
                    value, unit = x.reshape(len(x), *node.out_shape), torch.ones(node.out_shape[0], device=x.device)
                case Conv():
                    self.synops[node.name] = _synops(node, given_values[0], given_units[0])
                    layer = self.layer(node.name)
                    weight, bias = layers.get(node.name, (layer.weight, layer.bias))
                    wide = spread(self._thinned(node.name, given_values[0]), node.upsample)
                    value = F.conv2d(wide, weight, bias, node.stride, node.padding, node.dilation, node.groups)
                    unit = units[node.name]
                case Relu() if node.inputs[0] == self.end:
                    continue
                case Relu():
                    value, unit = self.rectified(node.inputs[0], given_values[0], given_units[0]), given_units[0]
                case _:
                    value, unit = _joined(node, given_values, given_units)
            values[node.name], behind[node.name] = value, unit
        return values[self.end]

    def rectified(self, layer: str, x: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        """Return the activation that a layer's whole spikes stand for; its gradient is that of a clipped rectifier."""
        per_channel = unit.to(x.dtype).view(1, -1, 1, 1)
        spikes = x / per_channel + (self.rounding.shift + _TIE)
        spikes = (spikes + (spikes.floor() - spikes).detach()).clamp(min=0)
        if self.rounding.is_clipped:
            spikes = torch.minimum(spikes, self.layer(layer).levels.to(x.dtype).view(1, -1, 1, 1))
        return spikes * per_channel

    def _thinned(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        dropout = self.dropouts.get(layer)
        if dropout is None:
            return x
        drop = F.dropout2d if dropout.whole_maps else F.dropout
        return drop(x, dropout.share, self.training)

    def _rounded_parameters(self) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
        """Return weight and bias of each layer on the grid, in the unit of the activations."""
        graph, gains = self.trained_graph(), self.gains()
        scaled, _ = apply_gains(graph, gains)
        found = {}
        for name, on_grid in self.grid_layers(scaled).items():
            layer, node, in_spikes = self.layer(name), graph[name], scaled[name]
            assert isinstance(node, Conv) and isinstance(in_spikes, Conv)  # noqa: S101, PT018  # as in the graph given
            share = np.divide(
                on_grid.weight, in_spikes.weight, out=np.zeros_like(on_grid.weight), where=in_spikes.weight != 0
            )
            weight = _straight_through(layer.weight, node.weight * share)
            bias = layer.bias
            if on_grid.bias is not None and layer.bias is not None:
                bias = _straight_through(layer.bias, on_grid.bias / gains[name])
            found[name] = weight, bias
        return found


def _joined(node: Node, values: list[torch.Tensor], units: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the value of a node without neurons, and what one of the spikes that arrive in it stands for."""
    match node:
        case AvgPool():
            pooled = F.avg_pool2d(values[0], node.kernel, node.stride, node.padding)
            return pooled, units[0] / (node.kernel[0] * node.kernel[1])
        case SumPool():
            return F.avg_pool2d(values[0], node.kernel) * (node.kernel[0] * node.kernel[1]), units[0]
        case Add():
            return torch.stack(values).sum(0), units[0]
        case Concat():
            return torch.cat(values, 1), torch.cat(units)
    raise CaptureError(f"node '{node.name}' ({node.label}) cannot be fine-tuned. Try fold() first.")


def _synops(node: Conv, value: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return the synops per sample that what arrives at a convolution causes."""
    channels, height, width = value.shape[1:]
    reached = fan_out((channels, height, width), node.weight.shape, node.window, groups=node.groups)
    arriving = (value / unit.to(value.dtype).view(1, -1, 1, 1)).sum((0, 1))
    return (arriving * torch.as_tensor(reached, dtype=value.dtype, device=value.device)).sum() / len(value)


def _straight_through(parameter: torch.Tensor, rounded: NDArray[Any]) -> torch.Tensor:
    """Return ``rounded`` with the gradient of ``parameter``."""
    target = torch.as_tensor(rounded.astype(np.float32), device=parameter.device).to(parameter.dtype)
    return parameter + (target - parameter).detach()


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
