"""The event-driven simulator of the driver: convolution, integrate-and-fire and sum-pooling layers as graph nodes.

What is published of it (sinabs 3.1.3 and its tests): one event after the other, layer by layer, float weights, no
bias, a spike at or above the threshold, the time stamp of the event that caused it. The rest follows the chip: at most
one spike per neuron and event, the threshold is subtracted and a surplus stays, targets in the order rows, columns,
features. Numbers are 32-bit floats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import VirtualBoardError
from .events import Event
from .fields import Integer, Real
from .graph import Node

_U32 = (0, 2**32 - 1)
Pair = tuple[int, int]
Floats = NDArray[np.float32]


class Spike(Event):
    """A spike."""

    __slots__ = ()
    _kind = "specksim::events::Spike"
    feature = Integer(0, *_U32)
    y = Integer(0, *_U32)
    x = Integer(0, *_U32)
    timestamp = Integer(0, *_U32)


class WeightedEvent(Event):
    """A weight on its way to one neuron."""

    __slots__ = ()
    _kind = "specksim::events::WeightedEvent"
    feature = Integer(0, *_U32)
    y = Integer(0, *_U32)
    x = Integer(0, *_U32)
    timestamp = Integer(0, *_U32)
    weight = Real(0.0)


@dataclasses.dataclass(frozen=True)
class Volley:
    """The weights that one spike sends to distinct neurons, which is many events at once."""

    feature: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    weight: Floats
    timestamp: int

    def events(self) -> Iterator[WeightedEvent]:
        """Yield them one by one."""
        columns = (self.feature.tolist(), self.y.tolist(), self.x.tolist(), self.weight.tolist())
        for feature, y, x, weight in zip(*columns, strict=True):
            yield WeightedEvent(feature, y, x, self.timestamp, weight)


def _pair(value: Sequence[int], what: str, *, least: int = 1) -> Pair:
    pair = tuple(int(one) for one in value)
    if len(pair) != 2 or min(pair) < least:
        raise VirtualBoardError(
            f"virtual specksim: {what}: expected two numbers of {least} or more, found {value!r:.40}."
        )
    return pair[0], pair[1]


class ConvolutionalLayer:
    """A convolution; pairs are ``(y, x)``, weights ``[out][in][y][x]``."""

    def __init__(self, channels: Pair, kernel: Pair, in_shape: Pair, stride: Pair, padding: Pair) -> None:
        self._channels, self._kernel, self._in_shape = channels, kernel, in_shape
        self._stride, self._padding = stride, padding
        self._out_shape: Pair = tuple(  # type: ignore[assignment]
            (size + 2 * pad - edge) // step + 1
            for size, pad, edge, step in zip(in_shape, padding, kernel, stride, strict=True)
        )
        if min(self._out_shape) < 1:
            raise VirtualBoardError(f"virtual specksim: a kernel of {kernel} does not fit an input of {in_shape}.")
        self.weights: Floats = np.zeros((channels[1], channels[0], *kernel), np.float32)

    def get_in_channels(self) -> int:
        """Return the number of input channels."""
        return self._channels[0]

    def get_out_channels(self) -> int:
        """Return the number of output channels."""
        return self._channels[1]

    def get_kernel_size(self) -> Pair:
        """Return the kernel's edges."""
        return self._kernel

    def get_in_shape(self) -> Pair:
        """Return the size of the input map."""
        return self._in_shape

    def get_output_shape(self) -> Pair:
        """Return the size of the output map."""
        return self._out_shape

    def get_stride(self) -> Pair:
        """Return the stride."""
        return self._stride

    def get_padding(self) -> Pair:
        """Return the padding."""
        return self._padding

    def targets(self, feature: int, y: int, x: int, timestamp: int) -> Volley | None:
        """Return what a spike sends on; None for a spike outside the input."""
        if feature >= self._channels[0] or y >= self._in_shape[0] or x >= self._in_shape[1]:
            return None
        rows, ky = self._reach(y, 0)
        columns, kx = self._reach(x, 1)
        features = np.arange(self._channels[1])
        v, u, f = (grid.reshape(-1) for grid in np.meshgrid(rows, columns, features, indexing="ij"))
        weight = self.weights[:, feature][:, ky[:, None], kx[None, :]].transpose(1, 2, 0).reshape(-1)
        return Volley(f, v, u, weight, timestamp)

    def _reach(self, place: int, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the output places that an input place reaches, and the kernel's place for each."""
        out = np.arange(self._out_shape[axis])
        tap = place + self._padding[axis] - out * self._stride[axis]
        inside = (tap >= 0) & (tap < self._kernel[axis])
        return out[inside], tap[inside]


class IAFLayer:
    """Integrate-and-fire neurons; states are ``[channel][y][x]``."""

    def __init__(self, n_channels: int, shape: Pair, threshold: float, min_v_mem: float) -> None:
        self._threshold, self._min_v_mem = np.float32(threshold), np.float32(min_v_mem)
        self._v: Floats = np.zeros((n_channels, *shape), np.float32)

    def get_spike_threshold(self) -> float:
        """Return the threshold."""
        return float(self._threshold)

    def get_min_v_mem(self) -> float:
        """Return the lowest state."""
        return float(self._min_v_mem)

    def get_v_mem(self) -> Any:
        """Return the states."""
        return self._v.tolist()

    def reset_states(self) -> None:
        """Set all states to 0."""
        self._v[:] = 0

    def take(self, volley: Volley) -> list[Spike]:
        """Return the spikes that weights for distinct neurons cause."""
        shape = self._v.shape
        inside = (volley.feature < shape[0]) & (volley.y < shape[1]) & (volley.x < shape[2])
        place = volley.feature[inside], volley.y[inside], volley.x[inside]
        v = np.maximum(self._v[place] + volley.weight[inside], self._min_v_mem)
        fires = v >= self._threshold
        self._v[place] = np.where(fires, v - self._threshold, v)
        columns = (column[fires].tolist() for column in place)
        return [Spike(*one, volley.timestamp) for one in zip(*columns, strict=True)]


class SumPoolingLayer:
    """Pooling of coordinates; rows and columns that fill no window are left out."""

    def __init__(self, kernel: Pair, shape: Pair) -> None:
        self._kernel, self._shape = kernel, shape

    def get_kernel_size(self) -> Pair:
        """Return the window's edges."""
        return self._kernel

    def get_shape(self) -> Pair:
        """Return the size of the input map."""
        return self._shape

    def get_output_shape(self) -> Pair:
        """Return the size of the output map."""
        return self._shape[0] // self._kernel[0], self._shape[1] // self._kernel[1]


class _LayerNode(Node):
    """A node with a layer, which ``set_parameters`` makes; ``n_dropped`` events lay outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self._layer: Any = None
        self.n_dropped = 0

    def get_layer(self) -> Any:
        """Return the layer.

        Raises: VirtualBoardError where there is none yet.
        """
        if self._layer is None:
            raise VirtualBoardError(f"virtual specksim: {type(self).__name__}: no layer yet. Try set_parameters first.")
        return self._layer


class SpecksimConvolutionalFilterNode(_LayerNode):
    """Spikes in, weighted events out."""

    takes = (Spike,)
    gives = (WeightedEvent,)

    def set_parameters(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        in_shape: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
    ) -> None:
        """Set the convolution; pairs are ``(y, x)``."""
        self._layer = ConvolutionalLayer(
            _pair((in_channels, out_channels), "channels"),
            _pair(kernel_size, "kernel_size"),
            _pair(in_shape, "in_shape"),
            _pair(stride, "stride"),
            _pair(padding, "padding", least=0),
        )

    def set_weights(self, weights: Any) -> None:
        """Set the weights ``[out][in][y][x]``.

        Raises: VirtualBoardError for another shape.
        """
        layer = self.get_layer()
        array = np.array(weights, np.float32)
        if array.shape != layer.weights.shape:
            raise VirtualBoardError(
                f"virtual specksim: set_weights: expected the shape {layer.weights.shape}, found {array.shape}."
            )
        layer.weights = array

    def get_weights(self) -> Any:
        """Return the weights ``[out][in][y][x]``."""
        return self.get_layer().weights.tolist()

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        layer = self.get_layer()
        volleys = [layer.targets(event.feature, event.y, event.x, event.timestamp) for event in events]
        self.n_dropped += volleys.count(None)
        return [volley for volley in volleys if volley is not None]

    def forward(self, events: Sequence[Any]) -> None:
        """Give volleys to neurons as they are, and to other nodes event by event."""
        for graph, target in tuple(self._edges):
            if graph.is_running and events:
                whole = isinstance(target, SpecksimIAFFilterNode)
                target.receive(events if whole else [one for volley in events for one in volley.events()])


class SpecksimIAFFilterNode(_LayerNode):
    """Weighted events in, spikes out."""

    takes = (WeightedEvent,)
    gives = (Spike,)

    def set_parameters(
        self, n_channels: int, in_shape: Sequence[int], spike_threshold: float, min_v_mem: float
    ) -> None:
        """Set the neurons; ``in_shape`` is ``(y, x)``."""
        if not spike_threshold > 0:
            raise VirtualBoardError(
                f"virtual specksim: spike_threshold: expected more than 0, found {spike_threshold}."
            )
        self._layer = IAFLayer(int(n_channels), _pair(in_shape, "in_shape"), spike_threshold, min_v_mem)

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        layer = self.get_layer()
        spikes: list[Spike] = []
        for event in events:
            spikes += layer.take(event if isinstance(event, Volley) else _volley_of(event))
        return spikes


class SpecksimSumPoolingFilterNode(_LayerNode):
    """Spikes in, spikes out."""

    takes = (Spike,)
    gives = (Spike,)

    def set_parameters(self, kernel_size: Sequence[int], in_shape: Sequence[int]) -> None:
        """Set the window and the size of the input; both are ``(y, x)``."""
        self._layer = SumPoolingLayer(_pair(kernel_size, "kernel_size"), _pair(in_shape, "in_shape"))

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        layer = self.get_layer()
        (ky, kx), (height, width) = layer.get_kernel_size(), layer.get_output_shape()
        pooled = [Spike(event.feature, event.y // ky, event.x // kx, event.timestamp) for event in events]
        kept = [spike for spike in pooled if spike.y < height and spike.x < width]
        self.n_dropped += len(pooled) - len(kept)
        return kept


def _volley_of(event: WeightedEvent) -> Volley:
    feature, y, x = (np.array([value]) for value in (event.feature, event.y, event.x))
    return Volley(feature, y, x, np.array([event.weight], np.float32), event.timestamp)
