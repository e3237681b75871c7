"""The memories of the cores of a virtual board, word by word: what an address means, and events that read and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.deploy.budget import power_of_two
from spikeport.deploy.types import CoreProgram

from .counts import Counts
from .silicon import Silicon


def neuron_place(core: CoreProgram, address: int) -> tuple[int, ...] | None:
    """Return feature, row and column of an address of the neuron memory; None where there is no neuron.

    Source: fields ``[row | column | feature]`` from high to low, each of as many bits as its size needs: datasheet of
    Speck 2e/2et/2f v1.02.
    """
    features, height, width = core.out_shape
    bits_f, bits_x = _bits(features), _bits(width)
    feature, x, y = address & ((1 << bits_f) - 1), address >> bits_f & ((1 << bits_x) - 1), address >> (bits_f + bits_x)
    return (feature, y, x) if feature < features and x < width and y < height else None


def weight_place(core: CoreProgram, address: int) -> tuple[int, ...] | None:
    """Return feature, channel, row and column of an address of the kernel memory; None where there is no weight.

    Source: fields ``[row * edge + column | feature | channel]`` from high to low: datasheet of Speck 2e/2et/2f v1.02.
    """
    features, channels, rows, columns = core.weight.shape
    bits_c, bits_f = _bits(channels), _bits(features)
    channel, tap = address & ((1 << bits_c) - 1), address >> (bits_c + bits_f)
    feature = address >> bits_c & ((1 << bits_f) - 1)
    if channel >= channels or feature >= features or tap >= rows * columns:
        return None
    return feature, channel, tap // columns, tap % columns


def bias_place(core: CoreProgram, address: int) -> tuple[int, ...] | None:
    """Return the feature of an address of the bias memory; None where there is no bias."""
    return (address,) if core.bias is not None and address < core.out_shape[0] else None


def _bits(size: int) -> int:
    return power_of_two(size).bit_length() - 1


_KINDS: dict[str, tuple[str, str, Callable[[CoreProgram, int], tuple[int, ...] | None]]] = {
    "NeuronValue": ("initial_state", "neuron_state", neuron_place),
    "WeightValue": ("weight", "weight", weight_place),
    "BiasValue": ("bias", "bias", bias_place),
}


class Memory:
    """Reads and writes of the memories; what is written takes effect when it is taken.

    Addresses that hold nothing read as 0, and what is written there is not kept; ``counts.n_unmapped`` counts both.
    """

    def __init__(self, silicon: Silicon | None, counts: Counts) -> None:
        self._silicon, self._counts = silicon, counts
        self._written: dict[int, dict[str, NDArray[Any]]] = {}

    def access(self, event: Any) -> int | None:
        """Write the word of a write event, or return the word that a read event asks for."""
        name = type(event).__name__.removeprefix("Write").removeprefix("Read")
        verb = type(event).__name__.removesuffix(name)
        array, attribute, place_of = _KINDS[name]
        cores = () if self._silicon is None else self._silicon.program.cores
        core = next((one for one in cores if one.core == event.layer), None)
        place = None if core is None else place_of(core, event.address)
        if core is None or place is None:
            self._counts.n_unmapped += 1
            return 0 if verb == "Read" else None
        values = self._written.get(core.core, {}).get(array)
        if verb == "Read":
            return int((self._values(core, array) if values is None else values)[place])
        if values is None:
            values = self._written.setdefault(core.core, {})[array] = np.array(self._values(core, array))
        values[place] = getattr(event, attribute)
        return None

    def clear_states(self) -> None:
        """Write 0 to every neuron."""
        for core in () if self._silicon is None else self._silicon.program.cores:
            self._written.setdefault(core.core, {})["initial_state"] = np.zeros(core.out_shape, np.int16)

    def take(self) -> dict[int, dict[str, NDArray[Any]]]:
        """Return what was written and not taken yet: arrays of cores, by the names of ``CoreProgram``."""
        written, self._written = self._written, {}
        return written

    def _values(self, core: CoreProgram, array: str) -> NDArray[Any]:
        if array == "initial_state" and self._silicon is not None:
            return self._silicon.states()[core.core]
        values: NDArray[Any] = getattr(core, array)
        return values
