"""Kernels in other forms that compute the same: dense, wider, moved."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .geometry import Pair
from .graph import Conv

Scalar = TypeVar("Scalar", bound=np.generic)


def dense_kernel(weight: NDArray[Scalar], *, dilation: Pair = (1, 1), groups: int = 1) -> NDArray[Scalar]:
    """Return a kernel with zeros where a dilated or grouped one has no weights.

    Shapes: ``[F, C // groups, ky, kx]`` to ``[F, C, dilation[0] * (ky - 1) + 1, dilation[1] * (kx - 1) + 1]``.
    Law: a convolution with the result, dilation 1 and one group, is the same function.
    """
    features, per_group, ky, kx = weight.shape
    rows, columns = dilation[0] * (ky - 1) + 1, dilation[1] * (kx - 1) + 1
    dense = np.zeros((features, per_group * groups, rows, columns), weight.dtype)
    per_feature = features // groups
    for group in range(groups):
        own = slice(group * per_feature, (group + 1) * per_feature)
        channels = slice(group * per_group, (group + 1) * per_group)
        dense[own, channels, :: dilation[0], :: dilation[1]] = weight[own]
    return dense


def dense(conv: Conv) -> Conv:
    """Return the convolution with a dense kernel: dilation 1, one group."""
    weight = dense_kernel(conv.weight, dilation=conv.dilation, groups=conv.groups)
    return dataclasses.replace(conv, weight=weight, dilation=(1, 1), groups=1)


def widened(conv: Conv, sides: tuple[int, int, int, int]) -> Conv:
    """Return the convolution that pads its own input by ``sides``: ``(top, bottom, left, right)`` of zeros.

    Where two opposite sides differ, the kernel grows by zeros on one of them, so that one padding serves both.
    Law: equal to the convolution of the padded input.
    """
    top, bottom, left, right = (side * conv.upsample[index // 2] for index, side in enumerate(sides))
    if top == bottom and left == right:
        return dataclasses.replace(conv, padding=(conv.padding[0] + top, conv.padding[1] + left))
    conv = dataclasses.replace(
        conv, weight=dense_kernel(conv.weight, dilation=conv.dilation), dilation=(1, 1)
    )  # so that zeros can be put on one side
    grow = ((0, 0), (0, 0), (max(bottom - top, 0), max(top - bottom, 0)), (max(right - left, 0), max(left - right, 0)))
    padding = conv.padding[0] + max(top, bottom), conv.padding[1] + max(left, right)
    return dataclasses.replace(conv, weight=np.pad(conv.weight, grow), padding=padding)
