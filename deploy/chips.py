"""The chips as tables: every number of the hardware that the project uses stands here, with its source beside it.

Only the bits of its numbers stand in ``spikeport.convert.grid``, because training rounds to them too.
Sources: ``SIN`` the chip tables and checks of sinabs 3.1.3; ``SAM`` the documentation of samna 0.48; ``DK`` Speck Dev
Kit datasheet v1.0 (August 2023); ``DS`` Speck2e/2et/2f datasheet v1.02. Several tags: the sources agree.
"""

from __future__ import annotations

import dataclasses
import difflib

from .errors import ChipNameError

Range = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Core:
    """One convolution core.

    Units: ``kernel_words`` of 8 bits, ``neuron_words`` and ``bias_words`` of 16 bits.
    ``in_order`` is False where pipelines run in parallel: the order of spikes is not reproducible, and the last spike
    of a finite input may stay inside until a later event pushes it out; ``throughput`` is relative to a core of one
    pipeline. ``leak_safe`` is False where an erratum declares the bias (leak) unusable.
    """

    core: int
    kernel_words: int
    neuron_words: int
    bias_words: int
    in_order: bool = True
    leak_safe: bool = True
    throughput: float = 1.0


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The inclusive ranges that the threshold registers of a core can hold."""

    threshold_high: Range
    threshold_low: Range


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one core, the input stage or the readout block can be configured to; all bounds are inclusive.

    The readout block takes the features 0, ``readout_step``, 2 ``readout_step`` and so on as its classes.
    """

    kernel_edge: int
    strides: tuple[int, ...]
    padding: int
    pools: tuple[int, ...]
    out_edge: int
    in_edge: int
    features: int
    destinations: int
    entries: int
    input_pools: tuple[int, ...]
    input_channels: tuple[int, ...]
    readout_classes: int
    readout_step: int


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip on its board: ``board`` and ``driver`` are the names that the vendor's driver has for board and module."""

    name: str
    board: str
    driver: str
    cores: tuple[Core, ...]
    limits: Limits
    numbers: Numbers

    def core(self, core: int) -> Core:
        """Return the core with the id ``core``."""
        return next(entry for entry in self.cores if entry.core == core)


KI = 1024

NUMBERS = Numbers(
    threshold_high=(1, 32767),  # SAM: register 0..32767; 0 would fire at each visit of a silent neuron
    threshold_low=(-32768, -1),  # SAM, DK: 0 is not possible
)

_LIMITS = Limits(
    kernel_edge=16,  # SAM, DS, SIN: 4-bit register that holds edge - 1
    strides=(1, 2, 4, 8),  # SAM, DS: 2-bit code, each axis its own
    padding=7,  # SAM, DS: 3 bits, each axis its own, the same on both sides
    pools=(1, 2, 4),  # SAM, DK: per destination, square
    out_edge=64,  # SAM, DS: 6-bit size registers
    in_edge=128,  # SAM: the sensor's edge, 7-bit event coordinates
    features=1024,  # SAM, DS: 10 bits, in and out
    destinations=2,  # SAM, SIN: two destination registers per core
    entries=2,  # SAM, SIN: two destination registers of the input stage
    input_pools=(1, 2, 4),  # SAM: each axis its own
    input_channels=(1, 2),  # SAM, SIN: two polarities, or both merged into one
    readout_classes=15,  # DS: and idle
    readout_step=4,  # SAM, SIN: erratum of 2e and 2f: feature 0 is class 1, 4 is class 2, 8 is class 3
)

# Sizes: SIN, DK, DS. Parallel pipelines of cores 0 and 1, about 3.5 times and up to twice the throughput: SAM, DS. Leak
# erratum of cores 0 and 1: DS (a notebook and a hardware test of SIN read correct leak on core 0 with small maps, so it
# is a warning here and no refusal).
_CORES = (
    Core(0, kernel_words=16 * KI, neuron_words=64 * KI, bias_words=KI, in_order=False, leak_safe=False, throughput=3.5),
    Core(1, kernel_words=16 * KI, neuron_words=64 * KI, bias_words=KI, in_order=False, leak_safe=False, throughput=2.0),
    Core(2, kernel_words=16 * KI, neuron_words=64 * KI, bias_words=KI),
    Core(3, kernel_words=32 * KI, neuron_words=32 * KI, bias_words=KI),
    Core(4, kernel_words=32 * KI, neuron_words=32 * KI, bias_words=KI),
    Core(5, kernel_words=64 * KI, neuron_words=16 * KI, bias_words=KI),
    Core(6, kernel_words=64 * KI, neuron_words=16 * KI, bias_words=KI),
    Core(7, kernel_words=16 * KI, neuron_words=16 * KI, bias_words=KI),
    Core(8, kernel_words=16 * KI, neuron_words=16 * KI, bias_words=KI),
)

# Names of boards and modules: SIN, SAM. All four share one memory table and one set of limits: SIN.
CHIPS = tuple(
    Chip(name, board, driver, _CORES, _LIMITS, NUMBERS)
    for name, board, driver in (
        ("speck2e", "Speck2eTestBoard", "speck2e"),
        ("speck2edevkit", "Speck2eDevKit", "speck2e"),
        ("speck2fmodule", "Speck2fModuleDevKit", "speck2f"),
        ("speck2fdevkit", "Speck2fDevKit", "speck2f"),
    )
)


def chip(name: str) -> Chip:
    """Return the table of the chip called ``name``.

    Raises: ChipNameError for a name that is not in ``CHIPS``; it names the nearest one.
    """
    for entry in CHIPS:
        if entry.name == name:
            return entry
    names = [entry.name for entry in CHIPS]
    nearest = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.0)[0]
    raise ChipNameError(f"chip: expected one of {', '.join(names)}, found {name!r}. Try '{nearest}'.")
