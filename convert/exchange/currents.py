"""What flows between the neurons of a network: spikes of some layers, or weighted sums of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair, Shape3, Window
from spikeport.convert.geometry import pooled as pooled_shape
from spikeport.convert.kernels import dense_kernel

Floats = NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """Weights ``[F, C // groups, ky, kx]`` and how they move over a map."""

    weight: Floats
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def window(self) -> Window:
        """How the kernel moves over its input."""
        return Window((self.weight.shape[2], self.weight.shape[3]), self.stride, self.padding, self.dilation)


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """Spikes of ``source`` (-1: the input), sum pooled, times ``gain`` for each channel, then weighted if at all.

    Shapes: ``size`` is ``(height, width)`` of the map behind the pool.
    """

    source: int
    size: Pair
    pool: Pair = (1, 1)
    gain: NDArray[np.float64] | None = None
    kernel: Kernel | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Current:
    """The sum of terms, and of a bias for each feature where weights were applied.

    ``is_flat`` says that the map of ``shape`` is meant as a vector, by channel, row, column.
    """

    shape: Shape3
    terms: tuple[Term, ...]
    bias: Floats | None = None
    is_flat: bool = False

    @property
    def is_weighted(self) -> bool:
        """Whether this is a weighted sum and no longer spikes."""
        return any(term.kernel is not None for term in self.terms)


@dataclasses.dataclass(frozen=True, eq=False)
class Arrival:
    """Spikes of ``source`` after pooling, at features from ``shift`` on."""

    source: int
    pool: Pair
    shift: int


def convolved(current: Current, kernel: Kernel, bias: Floats | None) -> Current:
    """Return spikes weighted by a kernel: factors of the spikes go into the weights."""
    shared: dict[bytes, Kernel] = {}
    terms = []
    for term in current.terms:
        key = b"" if term.gain is None else term.gain.tobytes()
        if key not in shared:
            weight = kernel.weight if term.gain is None else kernel.weight * _per_weight(term.gain, kernel)
            shared[key] = replace(kernel, weight=weight)
        terms.append(replace(term, gain=None, kernel=shared[key]))
    size = kernel.window.out_size(current.shape[1:])
    return Current((kernel.weight.shape[0], *size), tuple(terms), bias)


def _per_weight(gain: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    """Return the factor of the channel behind each weight ``[F, C // groups, 1, 1]``."""
    features, per_group = kernel.weight.shape[:2]
    group = np.arange(features) // (features // kernel.groups)
    own = group[:, None] * per_group + np.arange(per_group)[None, :]  # the channel behind weight [f, c]
    return np.asarray(gain[own][:, :, None, None])


def weighted(current: Current) -> Current:
    """Return the current with weights of 1 where it has none."""
    if all(term.kernel is not None for term in current.terms):
        return current
    channels = current.shape[0]
    one = Kernel(np.ones((channels, 1, 1, 1), np.float32), groups=channels)
    bare = tuple(term for term in current.terms if term.kernel is None)
    spikes = iter(convolved(Current(current.shape, bare), one, None).terms)
    terms = tuple(next(spikes) if term.kernel is None else term for term in current.terms)
    return replace(current, terms=terms)


def pooled(current: Current, pool: Pair) -> Current:
    """Return spikes after sum pooling."""
    shape = pooled_shape(current.shape, pool)
    terms = tuple(
        replace(term, size=shape[1:], pool=(term.pool[0] * pool[0], term.pool[1] * pool[1])) for term in current.terms
    )
    return replace(current, shape=shape, terms=terms)


def scaled(current: Current, factor: NDArray[np.float64]) -> Current:
    """Return the current times a factor for each channel."""
    done: dict[int, Kernel] = {}
    terms = []
    for term in current.terms:
        if term.kernel is None:
            terms.append(replace(term, gain=factor if term.gain is None else term.gain * factor))
            continue
        if id(term.kernel) not in done:
            weight = term.kernel.weight * factor[:, None, None, None]
            done[id(term.kernel)] = replace(term.kernel, weight=weight)
        terms.append(replace(term, kernel=done[id(term.kernel)]))
    bias = None if current.bias is None else current.bias * factor
    return replace(current, terms=tuple(terms), bias=bias)


def added(currents: Sequence[Current]) -> Current:
    """Return the sum of currents of one shape."""
    if len(currents) == 1:
        return currents[0]
    if any(current.is_weighted for current in currents):
        currents = [weighted(current) for current in currents]
    biases = [current.bias for current in currents if current.bias is not None]
    bias = np.asarray(np.sum(biases, axis=0)) if biases else None
    terms = tuple(term for current in currents for term in current.terms)
    return Current(currents[0].shape, terms, bias, any(current.is_flat for current in currents))


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """One kernel on a map of ``in_shape``, and where the spikes of which sources arrive there."""

    kernel: Kernel
    arrivals: tuple[Arrival, ...]
    in_shape: Shape3


def joined(current: Current) -> Joined | None:
    """Return the one kernel that stands for all terms.

    Spikes that the same weights take arrive at the same features; other weights take features behind those.
    Law: the kernel's sums over the arrivals are the current, less its bias. None where the terms have no common window.
    """
    slots: dict[int, tuple[Kernel, list[Term]]] = {}
    for term in weighted(current).terms:
        if term.kernel is not None:
            slots.setdefault(id(term.kernel), (term.kernel, []))[1].append(term)
    sizes = {term.size for term in current.terms}
    kernels = [kernel for kernel, _ in slots.values()]
    widths = [kernel.weight.shape[1] * kernel.groups for kernel in kernels]
    kernel = kernels[0] if len(kernels) == 1 else _side_by_side(kernels)
    if kernel is None or len(sizes) > 1:
        return None
    arrivals = [
        Arrival(term.source, term.pool, sum(widths[:index]))
        for index, (_, terms) in enumerate(slots.values())
        for term in terms
    ]
    return Joined(kernel, tuple(arrivals), (sum(widths), *sizes.pop()))


def _side_by_side(kernels: list[Kernel]) -> Kernel | None:
    """Return the kernel over all channels one behind the other, in the window of the one that reaches furthest."""
    kernels = [
        replace(kernel, weight=dense_kernel(kernel.weight, groups=kernel.groups), groups=1) for kernel in kernels
    ]
    if len({kernel.window for kernel in kernels}) > 1:
        kernels = [
            replace(kernel, weight=dense_kernel(kernel.weight, dilation=kernel.dilation), dilation=(1, 1))
            for kernel in kernels
        ]
    main = max(kernels, key=lambda kernel: (kernel.padding, kernel.weight.shape[2:]))
    blocks = []
    for kernel in kernels:
        gaps = []
        for axis in (0, 1):
            before = main.padding[axis] - kernel.padding[axis]
            after = main.weight.shape[2 + axis] - kernel.weight.shape[2 + axis] - before
            gaps.append((before, after))
        if kernel.stride != main.stride or min(min(gap) for gap in gaps) < 0:
            return None
        blocks.append(np.pad(kernel.weight, ((0, 0), (0, 0), *gaps)))
    return replace(main, weight=np.concatenate(blocks, axis=1))


def regrouped(kernel: Kernel, groups: int) -> Kernel:
    """Return a dense kernel as one of ``groups``, or as it is where weights between groups are not zero."""
    features, channels = kernel.weight.shape[:2]
    if groups < 2 or kernel.groups != 1 or features % groups or channels % groups:
        return kernel
    rows, columns = features // groups, channels // groups
    blocks = [
        kernel.weight[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns]
        for group in range(groups)
    ]
    weight = np.concatenate(blocks)
    is_whole = np.array_equal(dense_kernel(weight.astype(np.float32), groups=groups), kernel.weight)
    return replace(kernel, weight=weight, groups=groups) if is_whole else kernel
