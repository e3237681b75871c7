"""What a source emits: as single spikes, as dense maps over time, or as both."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.arrays import frozen

from .geometry import Shape3
from .layout import STEP, Floats, Int64s, Uint64s

PLACE = np.uint64((1 << STEP) - 1)
"""The bits of a spike's word that are its place."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spikes:
    """Spikes of one source, in order of their steps.

    Shapes: ``words`` and ``amounts`` are ``[n]``. The lowest 32 bits of a word are a place; ``order`` says which cell
    of a map of ``shape`` that is. The other bits are the step; recordings of a batch lie one after the other. An amount
    is how many spikes that are. ``span`` is the number of recordings, and of the steps of each.
    """

    words: Uint64s
    amounts: Floats
    order: Int64s
    shape: Shape3
    span: tuple[int, int]

    @property
    def steps(self) -> Int64s:
        """The step of each, counted through all recordings."""
        return (self.words >> np.uint64(STEP)).astype(np.int64)

    @property
    def places(self) -> Int64s:
        """The cell of each in a map of ``shape``, flat."""
        return np.asarray(self.order[self.words & PLACE])

    def at(self, steps: Int64s, span: tuple[int, int]) -> Spikes:
        """Return the spikes at other steps, which must not decrease."""
        words = steps.astype(np.uint64) << np.uint64(STEP) | self.words & PLACE
        return dataclasses.replace(self, words=words, span=span)

    def to_maps(self) -> Floats:
        """Return the spikes as dense maps ``[B, T, F, H, W]``."""
        maps = np.zeros((*self.span, *self.shape), np.float32)
        np.add.at(maps.reshape(-1), self.steps * self.order.size + self.places, self.amounts)
        return maps


def pack(
    steps: Int64s, cells: Int64s, *, shape: Shape3, span: tuple[int, int], amounts: Floats | None = None
) -> Spikes:
    """Return ``Spikes`` at the given cells of maps of ``shape``, one each where no amounts are given.

    Steps must not decrease.
    """
    words = (steps << STEP | cells).astype(np.uint64)
    given = np.ones(words.size, np.float32) if amounts is None else amounts
    return Spikes(words, given, _plain_order(int(np.prod(shape))), shape, span)


def find_spikes(maps: NDArray[Any]) -> Spikes:
    """Return what is not zero in dense maps ``[B, T, F, H, W]``."""
    shape: Shape3 = maps.shape[2:]
    index = np.flatnonzero(maps)
    steps, cells = np.divmod(index, int(np.prod(shape)))
    return pack(steps, cells, shape=shape, span=maps.shape[:2], amounts=maps.reshape(-1)[index].astype(np.float32))


@functools.lru_cache(maxsize=8)
def _plain_order(n: int) -> Int64s:
    return frozen(np.arange(n))


class Activity:
    """What a source emits in time steps; the form that it does not have is made when it is asked for.

    Shapes: maps are ``[B, T, F, H, W]``.
    """

    def __init__(self, *, maps: NDArray[Any] | None = None, spikes: Spikes | None = None) -> None:
        self._maps, self._spikes = maps, spikes

    @property
    def maps(self) -> Floats:
        """The maps as float32."""
        if self._maps is None:
            self._maps = self.spikes.to_maps()
        if self._maps.dtype != np.float32 or not self._maps.flags.c_contiguous:
            self._maps = np.ascontiguousarray(self._maps, np.float32)
        return self._maps

    @property
    def spikes(self) -> Spikes:
        """The single spikes: what is not zero."""
        if self._spikes is None:
            self._spikes = find_spikes(np.ascontiguousarray(self._maps))
        return self._spikes

    @property
    def span(self) -> tuple[int, int]:
        """Number of recordings, and of the steps of each."""
        return self.spikes.span if self._maps is None else (self._maps.shape[0], self._maps.shape[1])

    @property
    def is_dense(self) -> bool:
        """Whether there are maps already."""
        return self._maps is not None

    @property
    def n_nonzero(self) -> int:
        """Cells that are not zero, in all steps."""
        if self._spikes is not None or self._maps is None:
            return self.spikes.words.size
        return int(np.count_nonzero(self._maps))

    def totals(self) -> NDArray[np.float64]:
        """Return the sums over time, ``[B, F, H, W]``."""
        if self._maps is not None:
            return np.asarray(self._maps.sum(axis=1, dtype=np.float64))
        spikes = self.spikes
        index = spikes.steps // spikes.span[1] * spikes.order.size + spikes.places
        sums = np.bincount(index, spikes.amounts.astype(np.float64), spikes.span[0] * spikes.order.size)
        return np.asarray(sums.reshape(spikes.span[0], *spikes.shape), np.float64)
