"""The readout block: spikes of 15 classes, counted over the last ticks of the slow clock.

What is published and what is assumed: the window is 1, 16 or 32 ticks, and the word has bit 20 valid, bits 19..16 the
class of the maximum, bits 15..0 a payload that ``output_mode_sel`` selects (SAM, DS in ``chips.py``). By an erratum,
feature 4 i is class i + 1, for the address mode 1x1x16f; the classes of the other modes are assumed to be numbered
from 1 with features outermost and columns innermost, and without that erratum. The average is assumed to be the number
of spikes in the window, which is what the threshold is compared with. Of equal maxima the lowest class is reported.
"""

from __future__ import annotations

import dataclasses
from collections import deque

from .configuration import ReadoutConfig

_STEP = 4
_MODES = {0: (2, 2, 4), 1: (4, 2, 2), 2: (4, 4, 1)}  # rows, columns, features; the reference of SAM has 1 and 2 so
_N_CLASSES = 15


@dataclasses.dataclass(frozen=True)
class Word:
    """What the block says at one tick: its word, whether it is valid, and its class (0: none spiked)."""

    value: int
    is_valid: bool
    index: int


class Readout:
    """The block at work: ``add`` spikes, then ``tick``. ``n_dropped`` spikes were of no class."""

    def __init__(self, configuration: ReadoutConfig) -> None:
        self._configuration = configuration
        length = 32 if configuration.low_pass_filter32_not16 else 16
        self._windows: deque[list[int]] = deque(maxlen=1 if configuration.low_pass_filter_disable else length)
        self._now = [0] * (_N_CLASSES + 1)
        self.n_dropped = 0

    def add(self, feature: int, y: int, x: int) -> None:
        """Count a spike."""
        index = self._class_of(feature, y, x)
        if 1 <= index <= _N_CLASSES:
            self._now[index] += 1
        else:
            self.n_dropped += 1

    def tick(self) -> Word:
        """Return the word at the next tick of the slow clock."""
        self._windows.append(self._now)
        self._now = [0] * (_N_CLASSES + 1)
        counts = [sum(column) for column in zip(*self._windows, strict=True)]
        threshold, mode = self._configuration.threshold, self._configuration.output_mode_sel
        index = max(range(1, _N_CLASSES + 1), key=lambda one: (counts[one], -one))
        above = counts[index] > threshold
        is_valid = above or self._configuration.override_threshold_max
        payload = 0
        if mode == 1:
            payload = sum(1 << one for one in range(1, _N_CLASSES + 1) if counts[one] > threshold)
        elif mode == 2:
            payload = counts[self._configuration.output_neuron_num]
        elif mode == 3:
            payload = counts[index]
        index = index if counts[index] else 0
        first = above if mode == 3 else is_valid
        return Word(int(first) << 20 | index << 16 | min(payload, 0xFFFF), is_valid, index)

    def _class_of(self, feature: int, y: int, x: int) -> int:
        mode = self._configuration.readout_configuration_sel
        if mode not in _MODES:
            return feature // _STEP + 1 if feature % _STEP == 0 and not (y or x) else 0
        rows, columns, features = _MODES[mode]
        if y >= rows or x >= columns or feature >= features:
            return 0
        return (feature * rows + y) * columns + x + 1
