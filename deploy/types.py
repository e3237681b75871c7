"""The records of deployment: integer net, placement, plan, program, recording."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair, Shape3, Window, pooled
from spikeport.convert.types import Edge
from spikeport.models.arrays import ArrayRecord, frozen
from spikeport.models.events import Events

from .errors import InvalidProgramError

Reset = Literal["subtract", "zero"]
INT16 = (-32768, 32767)

MAX_SHIFT = (1 << 14) - 1
"""Of a destination: all features of nine cores side by side lie below."""

Box = tuple[Pair, Pair]
"""``((top, bottom), (left, right))``, bottom and right outside of it."""

SPIKE = np.dtype([("event", np.int64), ("t_us", np.int64), ("feature", np.int16), ("y", np.int16), ("x", np.int16)])
"""One spike of a recording: index and time of the input event that caused it, and its address before pooling."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class IntegerLayer(ArrayRecord):
    """A layer in the chip's numbers.

    Shapes: ``weight`` int8 ``[F, C // groups, ky, kx]``, ``bias`` int16 ``[F]`` or None, ``initial_state`` int16
    ``[F, H, W]``; groups and dilation become zeros in the weights when the net is assembled.
    Units: an integer is ``scale`` times the float value that it stands for. Thresholds are plain integers here, so that
    a value outside the chip's range can be reported; the program refuses it.
    """

    name: str
    weight: NDArray[np.int8]
    bias: NDArray[np.int16] | None
    threshold_high: int
    threshold_low: int
    reset: Reset
    initial_state: NDArray[np.int16]
    in_shape: Shape3
    out_shape: Shape3
    stride: Pair
    padding: Pair
    scale: float
    dilation: Pair = (1, 1)
    upsample: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        _freeze_tensors(self)

    @property
    def window(self) -> Window:
        """How the kernel moves over its input."""
        kernel = self.weight.shape[2], self.weight.shape[3]
        return Window(kernel, self.stride, self.padding, self.dilation, self.upsample)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class IntegerNet(ArrayRecord):
    """A spiking net in the chip's numbers; ``edges`` as in ``SpikingNet``."""

    layers: tuple[IntegerLayer, ...]
    edges: tuple[Edge, ...]
    input_shape: Shape3


@dataclasses.dataclass(frozen=True)
class Destination:
    """Where spikes of a core go: to ``core`` (None: off the chip) as ``(f + feature_shift, y // pool, x // pool)``."""

    core: int | None
    pool: int = 1
    feature_shift: int = 0


@dataclasses.dataclass(frozen=True)
class DvsConfig:
    """What happens to an input event before it reaches the entry cores, stage by stage in the order of the fields.

    ``merge`` makes every polarity feature 0; coordinates are divided by ``pool``; events outside ``crop`` are dropped,
    and its first row and column become 0; ``mirror`` turns rows (y) or columns (x) around; ``swap`` makes rows columns.
    Shapes: ``input_shape`` is ``(channels, height, width)`` of the sensor, ``pool`` and ``mirror`` are ``(y, x)``,
    ``crop`` is ``((top, bottom), (left, right))`` of the map behind the pool, bottom and right outside of it. None is
    the whole map; rows and columns that fill no window of the pool then go on, except where ``mirror`` needs an edge.
    Source: merge, pooling, region, mirror, diagonal swap: Speck2e/2et/2f datasheet v1.02, and sinabs 3.1.3.
    """

    input_shape: Shape3
    merge: bool = False
    pool: Pair = (1, 1)
    crop: Box | None = None
    mirror: tuple[bool, bool] = (False, False)
    swap: bool = False

    @property
    def box(self) -> Box:
        """``((top, bottom), (left, right))`` of the map behind the pool that goes on."""
        _, height, width = pooled(self.input_shape, self.pool)
        return self.crop or ((0, height), (0, width))

    @property
    def out_shape(self) -> Shape3:
        """``(channels, height, width)`` of what reaches the entry cores."""
        height, width = (stop - start for start, stop in self.box)
        channels = 1 if self.merge else self.input_shape[0]
        return (channels, width, height) if self.swap else (channels, height, width)

    @property
    def problem(self) -> str | None:
        """What is wrong with the values in themselves, as a sentence; None where nothing is."""
        if min(self.pool) < 1 or min(self.input_shape) < 1:
            return f"dvs: expected a pool and an input shape of 1 or more, found {self}."
        _, height, width = pooled(self.input_shape, self.pool)
        if self.crop is not None:
            (top, bottom), (left, right) = self.crop
            if not (0 <= top < bottom <= height and 0 <= left < right <= width):
                return (
                    f"dvs: crop: expected rows within 0:{height} and columns within 0:{width}, the map behind a pool "
                    f"of {self.pool[0]}x{self.pool[1]}, found rows {top}:{bottom} and columns {left}:{right}."
                )
        return None


@dataclasses.dataclass(frozen=True)
class ReadoutConfig:
    """The readout block of the chip decides on a class, in place of spikes that leave the output cores.

    Law: class ``i`` is output feature ``i * spacing``; the features between never spike.
    """

    spacing: int


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CoreProgram(ArrayRecord):
    """What one core is loaded with.

    Shapes: ``weight`` int8 ``[F, C, ky, kx]``, the others as ``IntegerLayer``.
    Units: ``scale`` is integers per float unit, kept to read states back.
    Raises: InvalidProgramError where a shape or value lies outside what a core can hold.
    """

    core: int
    name: str
    weight: NDArray[np.int8]
    bias: NDArray[np.int16] | None
    threshold_high: int
    threshold_low: int
    reset: Reset
    initial_state: NDArray[np.int16]
    in_shape: Shape3
    out_shape: Shape3
    stride: Pair
    padding: Pair
    destinations: tuple[Destination, ...]
    monitor: bool
    scale: float

    def __post_init__(self) -> None:
        _freeze_tensors(self)
        problem = self._problem()
        if problem:
            raise InvalidProgramError(f"core {self.core} ('{self.name}'): {problem}")

    def _problem(self) -> str | None:
        if not self.name.isprintable():
            return "name: expected text that a terminal can show, found control characters."
        if self.weight.ndim != 4 or min(self.weight.shape) < 1:
            return f"weight: expected shape [F, C, ky, kx], found {list(self.weight.shape)}."
        if self.in_shape[0] != self.weight.shape[1]:
            return f"in_shape: expected {self.weight.shape[1]} channels as in the weights, found {self.in_shape[0]}."
        if min(self.stride) < 1 or min(self.padding) < 0:
            return f"expected stride of 1 or more and padding of 0 or more, found {self.stride} and {self.padding}."
        expected = (self.weight.shape[0], *self.window.out_size(self.in_shape[1:]))
        if self.out_shape != expected or min(expected) < 1:
            return f"out_shape: expected {expected} from the input shape {self.in_shape}, found {self.out_shape}."
        if self.initial_state.shape != self.out_shape:
            return f"initial_state: expected shape {self.out_shape}, found {self.initial_state.shape}."
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            return f"bias: expected {self.weight.shape[0]} values, found shape {list(self.bias.shape)}."
        if not 1 <= self.threshold_high <= INT16[1]:
            return f"threshold_high: expected 1..{INT16[1]}, found {self.threshold_high}."
        if not INT16[0] <= self.threshold_low <= -1:
            return f"threshold_low: expected {INT16[0]}..-1, found {self.threshold_low}."
        if self.reset not in ("subtract", "zero"):
            return f"reset: expected 'subtract' or 'zero', found {self.reset!r}."
        if not all(target.pool >= 1 and 0 <= target.feature_shift <= MAX_SHIFT for target in self.destinations):
            found = f"{self.destinations}"[:200]
            return f"destinations: expected pools of 1 or more and shifts of 0..{MAX_SHIFT}, found {found}."
        return None

    @property
    def window(self) -> Window:
        """How the kernel moves over its input."""
        return Window((self.weight.shape[2], self.weight.shape[3]), self.stride, self.padding)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Golden(ArrayRecord):
    """What a program did with ``events`` when it was made: what ``verify`` expects of it on any device.

    Shapes: ``spikes`` holds all cores (structured arrays of ``SPIKE``), ``states`` int16 ``[F, H, W]`` after the last
    event. ``contents`` are hashes of what each core was loaded with.
    Units: ``slow_clock_hz`` in hertz; 0: no slow clock.
    """

    name: str
    events: Events
    slow_clock_hz: float
    spikes: Mapping[int, NDArray[Any]]
    states: Mapping[int, NDArray[np.int16]]
    contents: Mapping[int, str]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Program(ArrayRecord):
    """Everything a chip is loaded with: cores in network order, the entry, the input stage.

    ``entry`` holds the ids of the cores that the input feeds; ``provenance`` says what the program was made from;
    ``readout`` is None where spikes are counted off the chip; ``golden`` says what it did when it was made, and stays
    as it is where ``dataclasses.replace`` changes the rest.
    Units: ``slow_clock_hz`` is the rate at which biases are added wherever the program runs, unless a run says
    otherwise; None: no slow clock. ``dataclasses.replace(program, slow_clock_hz=1000.0)`` sets it.
    Law: every destination names a later core of the program, or None.
    Raises: InvalidProgramError otherwise.
    """

    chip: str
    cores: tuple[CoreProgram, ...]
    entry: tuple[int, ...]
    dvs: DvsConfig
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    slow_clock_hz: float | None = None
    readout: ReadoutConfig | None = None
    golden: Sequence[Golden] = dataclasses.field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        problems = [*self._problems(), *self._setting_problems()]
        if problems:
            raise InvalidProgramError(" ".join(problems))

    def _problems(self) -> list[str]:
        ids = [core.core for core in self.cores]
        problems = []
        if not ids:
            return ["a program needs at least one core, found none."]
        if len(set(ids)) < len(ids):
            problems.append(f"core ids: expected distinct ones, found {ids}.")
        if not self.entry or not set(self.entry) <= set(ids):
            problems.append(f"entry: expected ids of the program's cores {ids}, found {list(self.entry)}.")
        for position, core in enumerate(self.cores):
            problems += [
                f"core {core.core}: destination {target.core} is no later core of the program."
                for target in core.destinations
                if target.core is not None and target.core not in ids[position + 1 :]
            ]
        return problems

    def _setting_problems(self) -> list[str]:
        problems = [] if self.dvs.problem is None else [self.dvs.problem]
        hz = self.slow_clock_hz
        if hz is not None and not is_rate(hz):
            problems.append(f"slow_clock_hz: expected a positive number of ticks per second, or None, found {hz!r}.")
        if self.readout is not None and self.readout.spacing < 1:
            problems.append(f"readout: expected a spacing of 1 or more, found {self.readout.spacing}.")
        elif self.readout is not None:
            step = self.readout.spacing
            problems += [
                f"readout: core {core.core} ('{core.name}'): expected {step} * (n - 1) + 1 features for n classes, "
                f"found {core.out_shape[0]}."
                for core in self.cores
                if (core.out_shape[0] - 1) % step and any(target.core is None for target in core.destinations)
            ]
            problems += [
                f"readout: core {core.core} ('{core.name}'): expected an output at a multiple of {step} features, "
                f"found one at {target.feature_shift}."
                for core in self.cores
                for target in core.destinations
                if target.core is None and target.feature_shift % step
            ]
        return problems

    def core(self, core: int) -> CoreProgram:
        """Return the program of core ``core``.

        Raises: InvalidProgramError where the program has no such core.
        """
        for program in self.cores:
            if program.core == core:
                return program
        raise InvalidProgramError(f"core {core}: expected one of {[one.core for one in self.cores]}. Try another.")

    @property
    def outputs(self) -> tuple[int, ...]:
        """Ids of the cores whose spikes leave the chip: those with a destination None."""
        return tuple(c.core for c in self.cores if any(target.core is None for target in c.destinations))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Recording(ArrayRecord):
    """What a program did with a recording of events; all mappings are keyed by core id.

    Shapes: ``spikes`` holds the recorded cores (structured arrays of ``SPIKE``), ``states`` int16 and ``counts`` int64
    (spikes of each neuron) are ``[F, H, W]``.
    Units: ``synops`` are targets visited, ``n_events`` events accepted, ``n_dropped`` events outside the core's input.
    """

    spikes: Mapping[int, NDArray[Any]]
    states: Mapping[int, NDArray[np.int16]]
    synops: Mapping[int, int]
    n_spikes: Mapping[int, int]
    n_events: Mapping[int, int]
    n_dropped: Mapping[int, int]
    counts: Mapping[int, NDArray[np.int64]]
    wall_s: float = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Violation:
    """One thing that the chip cannot do, or does differently.

    ``message`` is a whole sentence: what, where, expected, found, and one thing to try.
    """

    layer: str | None
    rule: str
    found: str
    limit: str
    message: str


def is_rate(hz: object) -> bool:
    """Return whether a value is a number of slow-clock ticks per second: positive, and not so slow that none comes."""
    number = hz.item() if isinstance(hz, np.generic) else hz
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    return 1e6 / 2**62 < number <= sys.float_info.max


def _freeze_tensors(layer: IntegerLayer | CoreProgram) -> None:
    for name, dtype in (("weight", np.int8), ("initial_state", np.int16), ("bias", np.int16)):
        values = np.asarray(getattr(layer, name))
        if getattr(layer, name) is None or values.dtype == dtype or not values.size:
            continue
        lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
        if values.dtype.kind not in "iu" or values.min() < lowest or values.max() > highest:
            raise InvalidProgramError(
                f"'{layer.name}': {name}: expected whole numbers of {lowest}..{highest}, found {values.dtype} of "
                f"{values.min()}..{values.max()}."
            )
    object.__setattr__(layer, "weight", frozen(layer.weight, np.int8))
    object.__setattr__(layer, "initial_state", frozen(layer.initial_state, np.int16))
    if layer.bias is not None:
        object.__setattr__(layer, "bias", frozen(layer.bias, np.int16))
