"""The nets of the zoo whose branches meet: sums and concatenations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .cnn_zoo import Wired, conv, converts


def _residual(shortcut: nn.Module, stride: int) -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.stem(x))
        y = net.norm2(net.b(F.relu(net.norm1(net.a(x)))))
        y += net.shortcut(x)
        return F.relu(net.out(F.relu(y).mean((2, 3))))

    layers = {"a": conv(4, 4, stride=stride), "b": conv(4, 4), "norm1": nn.BatchNorm2d(4), "norm2": nn.BatchNorm2d(4)}
    return Wired(forward, stem=conv(2, 4), shortcut=shortcut, out=nn.Linear(4, 3), **layers)


@converts("residual", (2, 8, 8), n_spiking=4)
def _() -> nn.Module:
    return _residual(nn.Identity(), 1)


@converts("residual, projected", (2, 8, 8), n_spiking=4)
def _() -> nn.Module:
    return _residual(nn.Sequential(conv(4, 4, 1), nn.BatchNorm2d(4)), 1)


@converts("residual, strided", (2, 8, 8), n_spiking=5)
def _() -> nn.Module:
    return _residual(conv(4, 4, 1, stride=2, bias=False), 2)


@converts("residual, added after", (2, 8, 8), n_spiking=3)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.a(x))
        return F.relu(net.c(torch.add(x, F.relu(net.b(x)))))

    return Wired(forward, a=conv(2, 4), b=conv(4, 4), c=conv(4, 3))


@converts("pre-activation", (2, 8, 8), n_spiking=5)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.stem(x))
        x = x + F.relu(net.b(F.relu(net.norm2(net.a(F.relu(net.norm1(x)))))))
        return F.relu(net.out(x.flatten(1)))

    norms = {"norm1": nn.BatchNorm2d(4), "norm2": nn.BatchNorm2d(4)}
    return Wired(forward, stem=conv(2, 4), a=conv(4, 4), b=conv(4, 4), out=nn.Linear(256, 3), **norms)


@converts("inception", (2, 8, 8), n_spiking=5)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.stem(x))
        parts = [F.relu(net.a(x)), F.relu(net.b(x)), F.relu(net.c(x))]
        return F.relu(net.out(torch.cat(parts, dim=1)))

    return Wired(forward, stem=conv(2, 4), a=conv(4, 2, 1), b=conv(4, 3), c=conv(4, 2, 5), out=conv(7, 3))


@converts("dense block", (2, 8, 8), n_spiking=4)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        features = [F.relu(net.stem(x))]
        for layer in net.layers:
            features.append(F.relu(layer(torch.cat(features, 1))))
        return F.relu(net.out(torch.cat(features, 1)))

    return Wired(forward, stem=conv(2, 4), layers=nn.ModuleList([conv(4, 2), conv(6, 2)]), out=conv(8, 3))


@converts("squeeze and expand", (2, 8, 8), n_spiking=5)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.squeeze(F.relu(net.stem(x))), inplace=True)
        x = torch.cat([F.relu(net.one(x)), F.relu(net.three(x))], 1)
        return F.relu(net.out(x)).mean([2, 3])

    return Wired(
        forward, stem=conv(2, 6), squeeze=conv(6, 2, 1), one=conv(2, 4, 1), three=conv(2, 4), out=conv(8, 3, 1)
    )


@converts("mobile, inverted residual", (2, 8, 8), n_spiking=5)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.stem(x))
        return F.relu(net.out(F.relu6(x + net.block(x))))

    wide = [conv(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), conv(8, 8, groups=8, bias=False)]
    block = nn.Sequential(*wide, nn.BatchNorm2d(8), nn.ReLU6(), conv(8, 4, 1, bias=False), nn.BatchNorm2d(4))
    return Wired(forward, stem=conv(2, 4), block=block, out=conv(4, 3))


@converts("one layer twice", (2, 8, 8), n_spiking=3)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.act(net.a(x))
        return F.relu(net.b(net.act(net.a(x))))

    return Wired(forward, a=conv(2, 2), act=nn.ReLU(), b=conv(2, 3))
