"""Random plain CNNs for the laws of conversion."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import strategies as st
from torch import nn


@dataclasses.dataclass(frozen=True)
class Case:
    """A CNN with the shape it takes."""

    module: nn.Sequential
    input_shape: tuple[int, int, int]


@st.composite
def plain_cnns(draw: st.DrawFn, *, bias: bool | None = None, batchnorm: bool | None = None) -> Case:
    """Draw a chain of convolutions, norms, rectifiers, pools and linear layers that fits its input."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels = draw(st.integers(1, 3))
    height, width = draw(st.integers(6, 14)), draw(st.integers(6, 14))
    shape = (channels, height, width)
    with_bias = draw(st.booleans()) if bias is None else bias
    layers: list[nn.Module] = []
    if draw(st.booleans()) and min(height, width) >= 8:
        layers.append(nn.AvgPool2d(2))  # a pool in front of the first layer
        height, width = height // 2, width // 2
    for _ in range(draw(st.integers(1, 3))):
        ky, kx = draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width)))
        stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, 1))
        features = draw(st.integers(1, 4))
        if stride == 1 and ky % 2 and kx % 2 and draw(st.booleans()):
            layers.append(nn.Conv2d(channels, features, (ky, kx), padding="same", bias=with_bias))
        else:
            layers.append(nn.Conv2d(channels, features, (ky, kx), stride, padding, bias=with_bias))
            height, width = (height + 2 * padding - ky) // stride + 1, (width + 2 * padding - kx) // stride + 1
        if draw(st.booleans()) if batchnorm is None else batchnorm:
            layers.append(_trained_norm(nn.BatchNorm2d(features)))
        layers.append(nn.ReLU())
        for _ in range(draw(st.integers(0, 2))):  # two pools in a row, and pools that are not square
            pool = (draw(st.integers(1, min(2, height))), draw(st.integers(1, min(2, width))))
            layers.append(nn.AvgPool2d(pool))
            height, width = height // pool[0], width // pool[1]
        if draw(st.booleans()):
            layers.append(nn.Dropout2d(0.5))
        channels = features
    if draw(st.integers(0, 3)) == 0:
        return Case(nn.Sequential(*layers).eval(), shape)  # the output is a map, perhaps behind a pool
    if isinstance(layers[-1], nn.ReLU) and draw(st.booleans()):
        layers.insert(len(layers) - 1, nn.Flatten())  # a rectifier behind the Flatten is the same
    else:
        layers.append(nn.Flatten())
    layers.append(nn.Linear(channels * height * width, 5, bias=with_bias))
    if draw(st.booleans()) if batchnorm is None else batchnorm:
        layers.append(_trained_norm(nn.BatchNorm1d(5)))
    if draw(st.booleans()):
        layers += [nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 3, bias=with_bias)]
    if draw(st.booleans()):
        layers.append(nn.ReLU())
    return Case(nn.Sequential(*layers).eval(), shape)


def _trained_norm(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> nn.BatchNorm2d | nn.BatchNorm1d:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.5)
        # down to 1e-6: there the epsilon is most of the variance
        norm.running_var.copy_(10 ** torch.empty_like(norm.running_var).uniform_(-6, 0))
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.2)
    return norm
