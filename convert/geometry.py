"""Sizes of convolution maps and the number of targets that one event reaches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape3 = tuple[int, int, int]
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Window:
    """How a kernel moves over a map; every pair is ``(y, x)``.

    ``dilation`` is the distance between taps, ``upsample`` the distance between the pixels of the input after zeros
    were put between them: a transposed convolution is an ordinary one over such a map.
    Law: input position ``q`` reaches output ``o`` by tap ``i`` where ``q * upsample + padding = o * stride +
    i * dilation``, along each axis.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    upsample: Pair = (1, 1)

    def out_size(self, size: Pair) -> Pair:
        """Return ``(height, width)`` of the output map; below 1 where the kernel is larger than the padded input."""
        height, width = (
            ((edge - 1) * up + 2 * padding - dilation * (kernel - 1)) // stride + 1
            for edge, up, padding, dilation, kernel, stride in zip(
                size, self.upsample, self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return height, width

    def reach(self, size: Pair) -> NDArray[np.int64]:
        """Return how many places of the output map an event at each input pixel reaches.

        Shapes: ``[H, W]`` of the input map.
        """
        rows, columns = (self._reach_along(axis, size[axis], self.out_size(size)[axis]) for axis in (0, 1))
        return rows[:, None] * columns[None, :]

    def _reach_along(self, axis: int, size: int, out_size: int) -> NDArray[np.int64]:
        taps = np.arange(self.kernel[axis])[None, :] * self.dilation[axis]
        position = np.arange(size)[:, None] * self.upsample[axis] + self.padding[axis] - taps
        target = position // self.stride[axis]
        hits = (position % self.stride[axis] == 0) & (target >= 0) & (target < out_size)
        return np.asarray(hits.sum(axis=1), np.int64)


def out_edge(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the edge of the output map: ``floor((size + 2 * padding - kernel) / stride) + 1``."""
    return (size + 2 * padding - kernel) // stride + 1


def out_shape(in_shape: Shape3, weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> Shape3:
    """Return ``(F, H, W)`` of a convolution of ``(C, H, W)`` with weights ``[F, C, ky, kx]``."""
    kernel = weight_shape[2], weight_shape[3]
    return weight_shape[0], *Window(kernel, stride, padding).out_size(in_shape[1:])


def pooled(shape: Shape3, pool: Pair) -> Shape3:
    """Return the shape after sum pooling; rows and columns that fill no window are left out, as torch does."""
    return shape[0], shape[1] // pool[0], shape[2] // pool[1]


def sum_pooled(maps: NDArray[Any], pool: Pair) -> NDArray[Any]:
    """Return the sums over the windows of a pool; rows and columns that fill none are left out.

    Shapes: ``[..., H, W]`` becomes ``[..., H // pool, W // pool]``.
    """
    if pool == (1, 1):
        return maps
    rows, columns = maps.shape[-2] // pool[0], maps.shape[-1] // pool[1]
    inside = maps[..., : rows * pool[0], : columns * pool[1]]
    return np.asarray(inside.reshape(*maps.shape[:-2], rows, pool[0], columns, pool[1]).sum(axis=(-3, -1)))


def fan_out(in_shape: Shape3, weight_shape: tuple[int, ...], window: Window, *, groups: int = 1) -> NDArray[np.int64]:
    """Return the number of neurons that one event at each input pixel updates.

    Shapes: ``[H, W]`` of the input map; every input channel reaches the same number, the features of its own group.
    Law: ``(counts * fan_out).sum()`` is the number of visits of an event loop over the same events.
    """
    return weight_shape[0] // groups * window.reach(in_shape[1:])
