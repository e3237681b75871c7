"""Sizes of convolution maps and the number of targets that one event reaches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shape3 = tuple[int, int, int]
Pair = tuple[int, int]


def out_edge(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the edge of the output map: ``floor((size + 2 * padding - kernel) / stride) + 1``."""
    return (size + 2 * padding - kernel) // stride + 1


def out_shape(in_shape: Shape3, weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> Shape3:
    """Return ``(F, H, W)`` of a convolution of ``(C, H, W)`` with weights ``[F, C, ky, kx]``."""
    features, _, ky, kx = weight_shape
    _, height, width = in_shape
    return features, out_edge(height, ky, stride[0], padding[0]), out_edge(width, kx, stride[1], padding[1])


def pooled(shape: Shape3, pool: Pair) -> Shape3:
    """Return the shape after sum pooling; rows and columns that fill no window are left out, as torch does."""
    return shape[0], shape[1] // pool[0], shape[2] // pool[1]


def reach(size: int, out_size: int, kernel: int, stride: int, padding: int) -> NDArray[np.int64]:
    """Return, for each input row (or column), how many output rows it reaches.

    Shapes: ``[size]``.
    Source: position ``q`` reaches output ``o`` by kernel tap ``i`` where ``q + padding = o * stride + i``.
    """
    position = np.arange(size)[:, None] + padding - np.arange(kernel)[None, :]
    target = position // stride
    hits = (position % stride == 0) & (target >= 0) & (target < out_size)
    return np.asarray(hits.sum(axis=1), np.int64)


def fan_out(in_shape: Shape3, weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> NDArray[np.int64]:
    """Return the number of neurons that one event at each input pixel updates.

    Shapes: ``[H, W]`` of the input map; every input channel reaches the same number.
    Law: ``(counts * fan_out).sum()`` is the number of visits of an event loop over the same events.
    """
    features, _, ky, kx = weight_shape
    _, out_h, out_w = out_shape(in_shape, weight_shape, stride, padding)
    rows = reach(in_shape[1], out_h, ky, stride[0], padding[0])
    columns = reach(in_shape[2], out_w, kx, stride[1], padding[1])
    return features * rows[:, None] * columns[None, :]
