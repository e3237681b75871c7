"""The captured CNN as a value: a few kinds of nodes with plain numpy weights, in topological order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import ArrayRecord, frozen

from .geometry import Pair, Shape3, Window

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Node(ArrayRecord):
    """One operation; ``inputs`` are names of earlier nodes, ``out_shape`` leaves out the batch axis.

    ``label`` is what the user wrote, ``Conv2d`` or ``torch.relu`` for example.
    """

    name: str
    label: str
    inputs: tuple[str, ...]
    out_shape: Shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Input(Node):
    """The input of the CNN; ``given_shape`` is what the module itself takes, ``(C, L)`` for a Conv1d net.

    Law: ``out_shape`` is ``(C, H, W)`` of the same values; an axis of length is the width of a map of height 1, a
    vector is a map of 1x1.
    """

    given_shape: Shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Conv(Node):
    """Convolution: ``weight`` ``[F, C // groups, ky, kx]``, ``bias`` ``[F]`` or None; see ``Window`` for the pairs."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    upsample: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, np.float32))
        if self.bias is not None:
            object.__setattr__(self, "bias", frozen(self.bias, np.float32))

    @property
    def window(self) -> Window:
        """How the kernel moves over its input."""
        kernel = self.weight.shape[2], self.weight.shape[3]
        return Window(kernel, self.stride, self.padding, self.dilation, self.upsample)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Linear(Node):
    """Matrix product over the last axis: ``weight`` ``[F, N]``, ``bias`` ``[F]`` or None."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, np.float32))
        if self.bias is not None:
            object.__setattr__(self, "bias", frozen(self.bias, np.float32))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(Node):
    """Batch normalization in evaluation, epsilon included, or another ``y = scale * x + shift`` per channel."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", frozen(self.scale, np.float64))
        object.__setattr__(self, "shift", frozen(self.shift, np.float64))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Relu(Node):
    """Rectifier: becomes the integrate-and-fire neurons of the weight layer before it.

    ``ceiling`` is its upper bound, 6 for ReLU6, one number or one for each feature; spiking neurons have none of their
    own.
    """

    ceiling: float | tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AvgPool(Node):
    """Average pooling; padded zeros count as pixels, windows that are not full are left out."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SumPool(Node):
    """Sum pooling; stride equals the kernel, no padding."""

    kernel: Pair


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Add(Node):
    """The sum of several maps of one shape."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Concat(Node):
    """Several maps behind one another along the channels."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pad(Node):
    """Zeros around a map: ``sides`` is ``(top, bottom, left, right)``."""

    sides: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Flatten(Node):
    """All axes but the batch become one."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Skip(Node):
    """Something that does nothing in evaluation: Dropout, Identity."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Unknown(Node):
    """An operation without spiking counterpart here; ``reason`` and ``fix`` go into its finding.

    ``substitute`` is what may stand in its place where the user asks for it: the name of the replacement, as
    ``--replace`` takes it (``maxpool=avgpool``), and the node.
    """

    reason: str
    fix: str
    substitute: tuple[str, Node] | None = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Graph(ArrayRecord):
    """A CNN in topological order; the first node is the input, ``output`` names the node whose value it returns."""

    nodes: tuple[Node, ...]
    output: str

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, name: object) -> bool:
        return any(node.name == name for node in self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def input_shape(self) -> Shape3:
        """``(channels, height, width)`` of the input."""
        channels, height, width = self.nodes[0].out_shape
        return channels, height, width

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that read ``name``."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def replaced(self, name: str, **changes: Any) -> Graph:
        """Return the graph with fields of one node changed."""
        nodes = (dataclasses.replace(node, **changes) if node.name == name else node for node in self.nodes)
        return dataclasses.replace(self, nodes=tuple(nodes))

    def put(self, node: Node) -> Graph:
        """Return the graph with ``node`` in the place of the node of its name."""
        nodes = tuple(node if other.name == node.name else other for other in self.nodes)
        return dataclasses.replace(self, nodes=nodes)

    def inserted(self, nodes: tuple[Node, ...], *, before: str) -> Graph:
        """Return the graph with new nodes right before the node named ``before``; nobody reads them yet."""
        place = next(index for index, node in enumerate(self.nodes) if node.name == before)
        return dataclasses.replace(self, nodes=(*self.nodes[:place], *nodes, *self.nodes[place:]))

    def without(self, name: str) -> Graph:
        """Return the graph without a one-input node; its readers read what it read."""
        (source,) = self[name].inputs
        nodes = tuple(
            dataclasses.replace(node, inputs=tuple(source if read == name else read for read in node.inputs))
            for node in self.nodes
            if node.name != name
        )
        return Graph(nodes, source if self.output == name else self.output)


Status = Literal["converted", "folded", "passed through", "replaced", "refused"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of one node of the CNN: exactly one per graph node."""

    node: str
    op: str
    status: Status
    detail: str

    def __str__(self) -> str:
        return f"{self.node} ({self.op}): {self.status}: {self.detail}"
