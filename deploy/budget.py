"""The memory that a layer needs in a core: the formula, the only copy of it."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from spikeport.convert.geometry import Pair
from spikeport.convert.types import SpikingLayer

from .chips import Core
from .types import CoreProgram, IntegerLayer

Layer = SpikingLayer | IntegerLayer | CoreProgram
Memory = Literal["kernel", "neuron", "bias"]
MEMORIES: tuple[Memory, ...] = get_args(Memory)


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """What a layer needs of one memory: words occupied, how many of them hold a value, and how they are counted."""

    occupied: int
    useful: int
    formula: str


@dataclasses.dataclass(frozen=True)
class Budget:
    """The words of memory that one layer occupies.

    Addresses are made of bit fields, so each field but the outermost occupies a power of two, ``P(n)``, of words;
    ``useful_*`` counts the parameters and neurons that are really there. A kernel lies dense in memory, with zeros
    between dilated taps and across groups.

    Shapes: ``kernel`` (dense) and ``out_map`` (before pooling) are ``(y, x)``.
    Law: ``n * 2**a <= 2**b`` exactly when ``P(n) * 2**a <= 2**b``, so the outermost field may be counted plain:
    memories are powers of two, and the answer to "does it fit" is the same.
    Source: ``c * P(ky * kx) * P(f)`` and ``f * P(fy) * P(fx)``: sinabs 3.1.3, Speck Dev Kit datasheet.
    """

    layer: str
    in_features: int
    features: int
    kernel: Pair
    out_map: Pair
    has_bias: bool
    groups: int = 1
    dilation: Pair = (1, 1)

    @property
    def kernel_words(self) -> int:
        """Kernel memory occupied, in words of 8 bits."""
        return self.in_features * power_of_two(self.kernel[0] * self.kernel[1]) * power_of_two(self.features)

    @property
    def neuron_words(self) -> int:
        """Neuron memory occupied, in words of 16 bits."""
        return self.features * power_of_two(self.out_map[0]) * power_of_two(self.out_map[1])

    @property
    def bias_words(self) -> int:
        """Bias memory occupied, in words of 16 bits; as many as are useful."""
        return self.features if self.has_bias else 0

    @property
    def dense_kernel_words(self) -> int:
        """Number of weights with the zeros between taps and across groups."""
        return self.in_features * self.kernel[0] * self.kernel[1] * self.features

    @property
    def useful_kernel_words(self) -> int:
        """Number of weights."""
        taps_y, taps_x = ((edge - 1) // step + 1 for edge, step in zip(self.kernel, self.dilation, strict=True))
        return self.in_features // self.groups * taps_y * taps_x * self.features

    @property
    def useful_neuron_words(self) -> int:
        """Number of neurons."""
        return self.features * self.out_map[0] * self.out_map[1]

    @property
    def useful_bias_words(self) -> int:
        """Number of biases."""
        return self.bias_words

    @property
    def kernel_formula(self) -> str:
        """The kernel memory as a formula with numbers put in."""
        (ky, kx), f = self.kernel, self.features
        return f"{self.in_features} x P({ky} x {kx}) x P({f}) = {self.kernel_words}"

    @property
    def neuron_formula(self) -> str:
        """The neuron memory as a formula with numbers put in."""
        fy, fx = self.out_map
        return f"{self.features} x P({fy}) x P({fx}) = {self.neuron_words}"

    @property
    def bias_formula(self) -> str:
        """The bias memory as a formula with numbers put in."""
        return f"{self.features} x 1 = {self.bias_words}" if self.has_bias else "no bias = 0"

    def words(self, memory: Memory) -> MemoryUse:
        """Return what the layer needs of one memory."""
        return MemoryUse(
            getattr(self, f"{memory}_words"),
            getattr(self, f"useful_{memory}_words"),
            getattr(self, f"{memory}_formula"),
        )


def count_words(layer: Layer) -> Budget:
    """Return the memory that a layer needs."""
    features, fy, fx = layer.out_shape
    window = layer.window
    ky, kx = ((edge - 1) * step + 1 for edge, step in zip(window.kernel, window.dilation, strict=True))
    return Budget(
        layer=layer.name,
        in_features=layer.in_shape[0],
        features=features,
        kernel=(ky, kx),
        out_map=(fy, fx),
        has_bias=layer.bias is not None,
        groups=1 if isinstance(layer, CoreProgram) else layer.groups,
        dilation=window.dilation,
    )


def fits(budget: Budget, core: Core) -> bool:
    """Return whether the core has the kernel, neuron and bias words that the budget asks for."""
    return (
        budget.kernel_words <= core.kernel_words
        and budget.neuron_words <= core.neuron_words
        and budget.bias_words <= core.bias_words
    )


def too_small(budget: Budget, core: Core) -> tuple[Memory, ...]:
    """Return the memories of the core that are too small for the budget; none where it fits."""
    return tuple(memory for memory in MEMORIES if budget.words(memory).occupied > available(core, memory))


def available(core: Core, memory: Memory) -> int:
    """Return the words that a core has of one memory."""
    words: int = getattr(core, f"{memory}_words")
    return words


def power_of_two(n: int) -> int:
    """Return ``P(n)``: the smallest power of two that is at least ``n``, for ``n`` of 1 or more."""
    return 1 << (n - 1).bit_length()
