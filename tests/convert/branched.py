"""Random CNNs with branches for the laws of conversion: residual sums, concatenations, groups, odd pools."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn


class Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``, or ``relu(body(x)) + shortcut(x)`` where ``late``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, *, late: bool) -> None:
        super().__init__()
        self.body, self.shortcut, self.late = body, shortcut, late

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        body, shortcut = self.body(x), self.shortcut(x)
        added: torch.Tensor = F.relu(body) + shortcut if self.late else torch.relu(body + shortcut)
        return added


class Parallel(nn.Module):
    """Branches side by side, rectified before or after they are joined."""

    def __init__(self, branches: list[nn.Module], *, late: bool) -> None:
        super().__init__()
        self.branches, self.late = nn.ModuleList(branches), late

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.late:
            return F.relu(torch.cat([branch(x) for branch in self.branches], 1))
        return torch.cat([F.relu(branch(x)) for branch in self.branches], 1)


class PreActivation(nn.Module):
    """Norm and rectifier in front of the weights, as in pre-activation residual nets and dense blocks."""

    def __init__(self, channels: int, features: int, *, joined: bool) -> None:
        super().__init__()
        self.norm, self.conv, self.joined = trained_norm(channels), nn.Conv2d(channels, features, 3, padding=1), joined

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = F.relu(self.conv(F.relu(self.norm(x))))
        return torch.cat([x, found], 1) if self.joined else found


def trained_norm(channels: int) -> nn.BatchNorm2d:
    """Return a norm in evaluation with statistics as after training, variances down to 1e-6."""
    norm = nn.BatchNorm2d(channels)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.copy_(10 ** torch.empty_like(norm.running_var).uniform_(-6, 0))
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.2)
    return norm.eval()


@dataclasses.dataclass(frozen=True)
class Block:
    """A block with the features and the edge of its output map."""

    module: nn.Module
    features: int
    edge: int


@st.composite
def blocks(draw: st.DrawFn, channels: int, edge: int) -> Block:
    """Draw a block that reads ``channels`` maps of ``edge`` by ``edge`` which are never negative."""
    features = draw(st.integers(1, 3)) * 2
    bias = draw(st.booleans())

    def conv(given: int, *, stride: int = 1, kernel: int = 3) -> nn.Module:
        one = nn.Conv2d(given, features, kernel, stride, kernel // 2, bias=bias)
        return nn.Sequential(one, trained_norm(features)) if draw(st.booleans()) else one

    kind = draw(st.sampled_from(["residual", "projection", "parallel", "dense", "pool", "special", "transposed"]))
    if kind == "residual":
        body = nn.Sequential(conv(channels), nn.ReLU(), nn.Conv2d(features, channels, 3, padding=1, bias=bias))
        shortcut: nn.Module = nn.Identity()
        return Block(Residual(body, shortcut, late=draw(st.booleans())), channels, edge)
    if kind == "projection":
        stride = draw(st.integers(1, 2))
        body = nn.Sequential(conv(channels, stride=stride), nn.ReLU(), conv(features))
        shortcut = conv(channels, stride=stride, kernel=draw(st.sampled_from([1, 3])) if stride == 1 else 1)
        return Block(Residual(body, shortcut, late=False), features, (edge - 1) // stride + 1)
    if kind == "parallel":
        wide = Parallel([conv(channels), conv(channels, kernel=1)], late=draw(st.booleans()))
        return Block(wide, 2 * features, edge)
    if kind == "dense":
        joined = draw(st.booleans())
        block = PreActivation(channels, features, joined=joined)
        return Block(block, features + channels * joined, edge)
    if kind == "pool":
        pool = draw(st.sampled_from([nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(2, 1)]))
        out = pool(torch.zeros(1, 1, edge, edge)).shape[-1]
        return Block(pool, channels, int(out))
    if kind == "transposed":
        up = nn.ConvTranspose2d(channels, features, 2, 2, bias=bias)
        return Block(nn.Sequential(up, nn.ReLU()), features, 2 * edge)
    special = draw(st.sampled_from(["groups", "dilation", "pad", "relu6"]))
    if special == "groups":
        one: nn.Module = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels, bias=bias)
        return Block(nn.Sequential(one, nn.ReLU()), 2 * channels, edge)
    if special == "dilation":
        one = nn.Conv2d(channels, features, 3, padding=2, dilation=2, bias=bias)
    elif special == "pad":
        one = nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(channels, features, (4, 2), bias=bias))
    else:
        return Block(nn.Sequential(conv(channels), nn.ReLU6()), features, edge)
    return Block(nn.Sequential(one, nn.ReLU()), features, edge)


@st.composite
def branched_cnns(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, int, int]]:
    """Draw a CNN of one to three blocks behind a stem, with a classifier or none."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels, edge = draw(st.integers(1, 2)), draw(st.integers(5, 8))
    shape = (channels, edge, edge)
    layers: list[nn.Module] = []
    if draw(st.booleans()):
        layers += [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU()]
        channels = 4
    for _ in range(draw(st.integers(1, 3))):
        block = draw(blocks(channels, edge))
        layers.append(block.module)
        channels, edge = block.features, block.edge
        if edge < 2 or edge > 16:
            break
    has_weights = any(isinstance(module, nn.Conv2d) for layer in layers for module in layer.modules())
    if not has_weights or draw(st.booleans()):
        if draw(st.booleans()):
            layers.append(nn.AdaptiveAvgPool2d(1))
            edge = 1
        layers += [nn.Flatten(), nn.Linear(channels * edge * edge, 3)]
    return nn.Sequential(*layers).eval(), shape
