"""The records of conversion. ``SpikingNet`` is the waist: before it code knows torch, after it only numpy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import ArrayRecord, frozen

from .errors import InputError, InvalidNetError
from .evaluate import EquivalenceGate, Replacement
from .geometry import Pair, Shape3, Window, pooled
from .graph import Finding, Graph

INPUT = -1
"""The ``source`` of an edge that leaves the input."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SpikingLayer(ArrayRecord):
    """A convolution followed by integrate-and-fire neurons.

    Shapes: ``weight`` is ``[F, C // groups, ky, kx]`` float32, ``bias`` is ``[F]`` float32 or None, ``in_shape`` and
    ``out_shape`` are ``(channels, height, width)``, the latter before any pooling; ``v_init`` is ``out_shape`` float32
    or None: the potentials before the first event, None for zeros. ``stride``, ``padding``, ``dilation`` and
    ``upsample`` are ``(y, x)``, see ``Window``.
    Units: weights, ``threshold``, ``v_min`` and ``v_init`` share one unit; the bias is added once per time step or
    leak tick.
    Law: a neuron emits ``floor(v / threshold)`` spikes where ``v >= threshold``, keeps the rest, and never falls
    below ``v_min`` (None: no bound).
    """

    name: str
    weight: NDArray[np.floating[Any]]
    bias: NDArray[np.floating[Any]] | None
    stride: Pair
    padding: Pair
    threshold: float
    v_min: float | None
    in_shape: Shape3
    out_shape: Shape3
    dilation: Pair = (1, 1)
    upsample: Pair = (1, 1)
    groups: int = 1
    v_init: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, np.float32))
        for name in ("bias", "v_init"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, frozen(getattr(self, name), np.float32))
        for name in ("stride", "padding", "in_shape", "out_shape", "dilation", "upsample"):
            object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
        problem = self._problem()
        if problem:
            raise InvalidNetError(f"layer '{self.name}': {problem}")

    def _problem(self) -> str | None:
        if self.weight.ndim != 4 or 0 in self.weight.shape:
            return f"weight: expected shape [F, C, ky, kx], found {list(self.weight.shape)}."
        if not np.isfinite(self.weight).all():
            return "weight: expected finite numbers, found NaN or infinity. Try training again with a lower rate."
        if self.bias is not None and (self.bias.shape != self.weight.shape[:1] or not np.isfinite(self.bias).all()):
            return f"bias: expected {self.weight.shape[0]} finite numbers, found shape {list(self.bias.shape)}."
        if min(self.stride) < 1 or min(self.padding) < 0:
            return f"expected stride of 1 or more and padding of 0 or more, found {self.stride} and {self.padding}."
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            return f"threshold: expected a positive number, found {self.threshold}."
        if self.v_min is not None and not (math.isfinite(self.v_min) and self.v_min <= 0):
            return f"v_min: expected 0, a negative number or None, found {self.v_min}."
        if min(self.dilation) < 1 or min(self.upsample) < 1:
            return f"expected dilation and upsample of 1 or more, found {self.dilation} and {self.upsample}."
        if self.groups < 1 or self.weight.shape[0] % self.groups or self.in_shape[0] % self.groups:
            return (
                f"groups: expected a divisor of {self.in_shape[0]} channels and {self.weight.shape[0]} features, "
                f"found {self.groups}."
            )
        per_group = self.in_shape[0] // self.groups
        if per_group != self.weight.shape[1]:
            return f"in_shape: expected {self.weight.shape[1]} channels a group as in the weights, found {per_group}."
        expected = (self.weight.shape[0], *self.window.out_size(self.in_shape[1:]))
        if self.out_shape != expected or min(expected) < 1:
            return f"out_shape: expected {expected} from the input shape {self.in_shape}, found {self.out_shape}."
        if self.v_init is not None and (self.v_init.shape != self.out_shape or not np.isfinite(self.v_init).all()):
            return f"v_init: expected finite numbers of shape {self.out_shape}, found shape {self.v_init.shape}."
        return None

    @property
    def window(self) -> Window:
        """How the kernel moves over its input."""
        kernel = self.weight.shape[2], self.weight.shape[3]
        return Window(kernel, self.stride, self.padding, self.dilation, self.upsample)


@dataclasses.dataclass(frozen=True)
class Edge:
    """Spikes of layer ``source`` (-1: the input) go to layer ``target`` (None: the output).

    Shapes: ``pool`` is ``(y, x)``: spikes of one pooling window share one address; ``feature_shift`` is added to the
    feature.
    """

    source: int
    target: int | None
    pool: Pair = (1, 1)
    feature_shift: int = 0


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SpikingNet(ArrayRecord):
    """A chip-neutral spiking network: layers in topological order, joined by edges.

    Shapes: ``input_shape`` is ``(channels, height, width)`` of the event raster, before the pooling of an input edge.
    Law: each edge goes from an earlier layer (or the input) to a later one; the source's map after pooling has the
    height and width of the target's ``in_shape``, its features after the shift lie within the target's channels.
    Raises: InvalidNetError otherwise.
    """

    layers: tuple[SpikingLayer, ...]
    edges: tuple[Edge, ...]
    input_shape: Shape3

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InvalidNetError(" ".join(problems))

    def _problems(self) -> list[str]:
        if not self.layers:
            return ["a spiking net needs at least one layer, found none. Try a CNN with a Conv2d or Linear layer."]
        names = [layer.name for layer in self.layers]
        problems = []
        if len(set(names)) < len(names):
            problems.append(f"layer names: expected distinct ones, found {names}. Try numbering them.")
        for edge in self.edges:
            problems += self._edge_problems(edge)
        for index, layer in enumerate(self.layers):
            if not self.incoming(index):
                problems.append(f"layer '{layer.name}': no edge leads to it. Try an edge from the layer before it.")
            if not self.outgoing(index):
                problems.append(f"layer '{layer.name}': no edge leaves it. Try an edge to the output (target None).")
        return problems

    def _edge_problems(self, edge: Edge) -> list[str]:
        last = len(self.layers) - 1
        if not INPUT <= edge.source <= last or (edge.target is not None and not edge.source < edge.target <= last):
            rule = f"expected an earlier layer before a later one of 0..{last}"
            return [f"edge {edge.source} -> {edge.target}: {rule}. Try layers in topological order."]
        if min(edge.pool) < 1 or edge.feature_shift < 0:
            rule = f"expected a pool of 1 or more and a shift of 0 or more, found {edge.pool} and {edge.feature_shift}"
            return [f"edge {edge.source} -> {edge.target}: {rule}. Try Edge({edge.source}, {edge.target})."]
        arriving = pooled(self.source_shape(edge), edge.pool)
        if min(arriving[1:]) < 1:
            rule = f"expected a pool that fits the map, found {edge.pool} on {self.source_shape(edge)}"
            return [f"edge {edge.source} -> {edge.target}: {rule}. Try a smaller pool."]
        if edge.target is None:
            return []
        wanted = self.layers[edge.target].in_shape
        if arriving[1:] != wanted[1:] or arriving[0] + edge.feature_shift > wanted[0]:
            where = f"edge {edge.source} -> '{self.layers[edge.target].name}'"
            found = f"found {arriving} shifted by {edge.feature_shift}"
            return [f"{where}: expected an input of {wanted}, {found}. Try a pool and a shift that lead there."]
        return []

    def source_shape(self, edge: Edge) -> Shape3:
        """Return the shape of what leaves the edge's source, before the edge pools it."""
        return self.input_shape if edge.source == INPUT else self.layers[edge.source].out_shape

    def incoming(self, index: int) -> tuple[Edge, ...]:
        """Return the edges that lead to layer ``index``, in the order of ``edges``."""
        return tuple(edge for edge in self.edges if edge.target == index)

    def outgoing(self, index: int) -> tuple[Edge, ...]:
        """Return the edges that leave layer ``index``, in the order of ``edges``."""
        return tuple(edge for edge in self.edges if edge.source == index)

    @property
    def output_shape(self) -> Shape3 | None:
        """``(features, height, width)`` of the output: behind the pools and shifts of the edges that lead there.

        None where maps of different sizes do: then there are no classes.
        """
        ends = [(edge, pooled(self.source_shape(edge), edge.pool)) for edge in self.edges if edge.target is None]
        maps = {(height, width) for _, (_, height, width) in ends}
        if len(maps) != 1:
            return None
        return (max(edge.feature_shift + features for edge, (features, _, _) in ends), *maps.pop())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Conversion(ArrayRecord):
    """The result of ``convert``: the captured graph, the spiking net, and one finding per graph node.

    ``scaled`` is the rewritten CNN whose activations count spikes: convolutions, rectifiers, sum pools and where
    branches meet; ``gates`` say after each rewrite how far it is from the CNN that was given, on the calibration data
    (or a random batch). ``replacement`` says what ``replace`` did to the function, None where nothing was replaced:
    the gates then compare with the CNN after it.
    Law: the neurons of ``net.layers[i]`` stand for the node of ``scaled`` with the same name.
    """

    graph: Graph
    scaled: Graph
    net: SpikingNet
    findings: tuple[Finding, ...]
    gates: tuple[EquivalenceGate, ...]
    replacement: Replacement | None = None

    @property
    def gate(self) -> EquivalenceGate:
        """The last gate: of all rewrites together."""
        return self.gates[-1]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trace(ArrayRecord):
    """What a spiking net did with a batch of rasters, in steps of ``dt_us``.

    Shapes: ``input_counts`` ``[B, C, H, W]`` and ``counts[layer]`` ``[B, F, H, W]`` are sums over time,
    ``output`` is ``[T, B, classes]``, ``states[layer]`` ``[B, F, H, W]`` the membrane potential after the last step,
    ``output_states`` ``[B, classes]`` the same behind the classes, ``spikes[layer]`` ``[T, B, F, H, W]`` if recorded.
    A class is a place of ``SpikingNet.output_shape``, flattened as torch does.
    """

    input_counts: NDArray[np.float64]
    counts: tuple[NDArray[np.int64], ...]
    output: NDArray[np.int64]
    output_states: NDArray[np.float32]
    states: tuple[NDArray[np.float32], ...]
    spikes: tuple[NDArray[np.int32], ...] | None
    dt_us: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_counts", frozen(self.input_counts, np.float64))
        object.__setattr__(self, "output", frozen(self.output, np.int64))
        object.__setattr__(self, "output_states", frozen(self.output_states, np.float32))
        object.__setattr__(self, "counts", tuple(frozen(count, np.int64) for count in self.counts))
        object.__setattr__(self, "states", tuple(frozen(state, np.float32) for state in self.states))
        if self.spikes is not None:
            object.__setattr__(self, "spikes", tuple(frozen(spikes, np.int32) for spikes in self.spikes))

    @property
    def n_steps(self) -> int:
        """Number of time steps."""
        return int(self.output.shape[0])

    @property
    def n_samples(self) -> int:
        """Number of recordings in the batch."""
        return int(self.input_counts.shape[0])

    @property
    def window_s(self) -> float:
        """Simulated time of one recording, in seconds."""
        return self.n_steps * self.dt_us * 1e-6

    def predictions(self) -> NDArray[np.int64]:
        """Return the class of each recording: most output spikes, then the higher last state, then the lower index.

        Shapes: ``[B]``.
        Raises: InputError where the net has no ``output_shape``.
        """
        if not self.output.shape[2]:
            raise InputError("trace: expected outputs of one map size, found several: no classes. Try counts.")
        spikes = self.output.sum(axis=0)
        best = spikes == spikes.max(axis=1, keepdims=True)
        return np.asarray(np.where(best, self.output_states, -np.inf).argmax(axis=1), np.int64)


def chain(layers: tuple[SpikingLayer, ...], pools: tuple[Pair, ...], input_shape: Shape3) -> SpikingNet:
    """Return the net in which each layer feeds the next.

    Shapes: ``pools[0]`` stands in front of layer 0, ``pools[i + 1]`` behind layer ``i``.
    """
    ends = (*range(len(layers)), None)
    edges = tuple(Edge(index - 1, target, pool) for index, (target, pool) in enumerate(zip(ends, pools, strict=True)))
    return SpikingNet(layers, edges, input_shape)
