"""The nets of the zoo that have no spiking counterpart: each is refused by the names of its layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .cnn_zoo import Wired, conv, head, refused


@refused("max pool", (2, 8, 8), "layer 'maxpool2' (MaxPool2d)", "nn.AvgPool2d")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 3), nn.ReLU())


@refused("functional max pool", (2, 8, 8), "layer 'max_pool2d' (F.max_pool2d)", "cnn_zoo_refused.py, line")
def _() -> nn.Module:
    return Wired(lambda net, x: F.relu(net.b(F.max_pool2d(F.relu(net.a(x)), 2))), a=conv(2, 4), b=conv(4, 3))


@refused("softmax", (2, 8, 8), "layer 'softmax4' (Softmax)", "leave it out")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3), nn.Softmax(1))


@refused("leaky relu", (2, 8, 8), "layer 'leakyrelu1' (LeakyReLU)", "negative outputs")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.LeakyReLU(0.1), conv(4, 3), nn.ReLU())


@refused("prelu", (2, 8, 8), "layer 'prelu1' (PReLU)", "nn.ReLU")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.PReLU(), conv(4, 3), nn.ReLU())


@refused("sigmoid and tanh", (2, 8, 8), "layer 'sigmoid1' (Sigmoid)", "layer 'tanh3' (Tanh)", "2 layers refused")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.Sigmoid(), conv(4, 3), nn.Tanh())


@refused("hardswish", (2, 8, 8), "layer 'hardswish1' (Hardswish)")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.Hardswish(), conv(4, 3), nn.ReLU())


@refused("gelu and silu", (2, 8, 8), "layer 'gelu' (F.gelu)", "layer 'silu' (F.silu)")
def _() -> nn.Module:
    return Wired(lambda net, x: F.silu(net.b(F.gelu(net.a(x)))), a=conv(2, 4), b=conv(4, 3))


@refused("hardtanh around zero", (2, 8, 8), "layer 'hardtanh1' (Hardtanh)", "lower bound is not 0")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.Hardtanh(), conv(4, 3), nn.ReLU())


@refused("rectifier with a forward of its own", (2, 8, 8), "layer '1.where' (torch.where)")
def _() -> nn.Module:
    class Leaky(nn.ReLU):
        """A rectifier by name only."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
            return torch.where(input > 0, input, 0.1 * input)

    return nn.Sequential(conv(2, 4), Leaky(), conv(4, 3), nn.ReLU())


@refused("group norm", (2, 8, 8), "layer 'groupnorm1' (GroupNorm)", "nn.BatchNorm2d")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.GroupNorm(2, 4), nn.ReLU(), *head(256))


@refused("instance norm", (2, 8, 8), "layer 'instancenorm1' (InstanceNorm2d)", "nn.BatchNorm2d")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.InstanceNorm2d(4), nn.ReLU(), *head(256))


@refused("layer norm", (12,), "layer 'layernorm1' (LayerNorm)")
def _() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


@refused("norm without statistics", (2, 8, 8), "layer 'batchnorm1' (BatchNorm2d)", "running statistics")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), *head(256))


@refused("reflecting borders", (2, 8, 8), "layer 'conv0' (Conv2d)", "padding_mode='reflect'", "zeros")
def _() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU(), *head(256))


@refused("upsampling", (2, 8, 8), "layer 'upsample2' (Upsample)", "nn.ConvTranspose2d")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.ReLU(), nn.Upsample(scale_factor=2), conv(4, 3), nn.ReLU())


@refused("pixel shuffle", (2, 8, 8), "layer 'pixelshuffle2' (PixelShuffle)", "nn.ConvTranspose2d")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.ReLU(), nn.PixelShuffle(2), conv(1, 3), nn.ReLU())


@refused("recurrent", (6, 4), "layer 'rnn' (LSTM)", "state of its own")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        out, _ = net.rnn(x)
        return F.relu(net.out(out[:, -1]))

    return Wired(forward, rnn=nn.LSTM(4, 5, batch_first=True), out=nn.Linear(5, 3))


@refused("attention", (6, 4), "layer 'attention' (MultiheadAttention)", "both depend on the input")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return F.relu(net.out(net.attention(x, x, x)[0].flatten(1)))

    return Wired(forward, attention=nn.MultiheadAttention(4, 2, batch_first=True), out=nn.Linear(24, 3))


@refused("attention by hand", (6, 4), "layer 'transpose' (Tensor.transpose)", "layer 'softmax' (F.softmax)")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return F.relu(net.out((F.softmax(x @ x.transpose(1, 2), -1) @ x).flatten(1)))

    return Wired(forward, out=nn.Linear(24, 3))


@refused("squeeze and excite", (4, 8, 8), "layer 'sigmoid' (torch.sigmoid)", "layer 'mul' (Tensor.mul)", "product")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(net.b(F.relu(net.a(x.mean((2, 3)))))).view(-1, 4, 1, 1)
        return F.relu(net.out(x * gate))

    return Wired(forward, a=nn.Linear(4, 2), b=nn.Linear(2, 4), out=conv(4, 3))


@refused("embedding", (6,), "layer 'words' (Embedding)", "layer 'long' (Tensor.long)")
def _() -> nn.Module:
    return Wired(
        lambda net, x: F.relu(net.out(net.words(x.long()).flatten(1))), words=nn.Embedding(9, 4), out=nn.Linear(24, 3)
    )


@refused("channel parts", (4, 8, 8), "layer 'chunk' (Tensor.chunk)", "takes a part")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        one, other = net.a(x).chunk(2, 1)
        return torch.cat([F.relu(one), F.relu(net.b(other))], 1)

    return Wired(forward, a=conv(4, 4), b=conv(2, 2))


@refused("slices", (4, 8, 8), "layer 'getitem' (Tensor.__getitem__)", "takes a part")
def _() -> nn.Module:
    return Wired(lambda net, x: F.relu(net.a(x[:, :2])), a=conv(2, 4))


@refused("channels last", (2, 8, 8), "layer 'permute' (Tensor.permute)", "order of axes")
def _() -> nn.Module:
    return Wired(lambda net, x: F.relu(net.a(x).permute(0, 2, 3, 1)), a=conv(2, 4))


@refused("stacked maps", (2, 8, 8), "layer 'stack' (torch.stack)")
def _() -> nn.Module:
    return Wired(lambda net, x: F.relu(torch.stack([net.a(x), net.b(x)], 1)).flatten(1), a=conv(2, 4), b=conv(2, 4))


@refused("dropout that never rests", (2, 8, 8), "layer 'dropout' (F.dropout)", "drops in evaluation too")
def _() -> nn.Module:
    return Wired(lambda net, x: F.relu(net.a(F.dropout(x))), a=conv(2, 4))


@refused("changed through a view", (2, 4, 4), "layer 'a@2' (Conv2d)", "changed in place")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        y.view(y.shape[0], -1).relu_()
        return F.relu(net.a(y))

    return Wired(forward, a=conv(2, 2))


@refused("written into", (2, 8, 8), "layer 'setitem' (Tensor.__setitem__)", "writes into a part")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(x.shape[0], 4, 8, 8, dtype=x.dtype)
        y[:, 1:3] = net.a(x)
        return F.relu(y)

    return Wired(forward, a=conv(2, 2))


@refused("constant for each pixel", (2, 8, 8), "layer 'add' (Tensor.add)", "a constant for each pixel")
def _() -> nn.Module:
    return Wired(lambda net, x: F.relu(net.a(x) + net.place), a=conv(2, 4), place=torch.rand(1, 4, 8, 8))


@refused("no rectifier between", (2, 8, 8), "layer 'conv1' (Conv2d)", "without a ReLU between them")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), conv(4, 3), nn.ReLU())


@refused("residual without rectifiers", (2, 8, 8), "layer 'add' (Tensor.add)", "before a ReLU")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        x = x + net.b(F.relu(net.a(F.relu(net.norm(x)))))
        return F.relu(net.out(F.relu(x).flatten(1)))

    layers = {"stem": conv(2, 4), "norm": nn.BatchNorm2d(4), "a": conv(4, 4), "b": conv(4, 4)}
    return Wired(forward, out=nn.Linear(256, 3), **layers)


@refused("pool before the rectifier", (2, 8, 8), "layer 'avgpool1' (AvgPool2d)", "before a ReLU")
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.AvgPool2d(2), nn.ReLU())


@refused("two inputs", (2, 8, 8), "expected a module with one input, found 2: x, y")
def _() -> nn.Module:
    class Two(nn.Module):
        """A forward with two inputs."""

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.relu(x + y)

    return Two()


@refused("two outputs", (2, 8, 8), "expected a module that returns one tensor, found a tuple of 2")
def _() -> nn.Module:
    return Wired(lambda net, x: (F.relu(net.a(x)), F.relu(net.b(x))), a=conv(2, 4), b=conv(2, 4))


@refused("outputs by name", (2, 8, 8), "found a dict of out, aux")
def _() -> nn.Module:
    return Wired(lambda net, x: {"out": F.relu(net.a(x)), "aux": x}, a=conv(2, 4))


@refused("no output", (2, 8, 8), "returns one tensor, found nothing")
def _() -> nn.Module:
    return Wired(lambda net, x: None, a=conv(2, 4))


@refused("through numpy", (2, 4, 4), "expected an output that torch computes from the input")
def _() -> nn.Module:
    return Wired(lambda net, x: torch.from_numpy(net.a(x).numpy().clip(0)), a=conv(2, 4))


@refused("control flow that data changes", (2, 8, 8), "is not the function that was given")
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.a(x) if float(x.max()) > 1 else net.b(x)
        return F.relu(x)

    return Wired(forward, a=conv(2, 4), b=conv(2, 4))


@refused("a number taken from the data", (2, 8, 8), "is not the function that was given")
def _() -> nn.Module:
    return Wired(lambda net, x: F.relu(net.a(x * float(1 + x.mean()))), a=conv(2, 4))
