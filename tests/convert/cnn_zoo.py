"""A zoo of small nets as people write them, each with what must become of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from spikeport.convert.graph import Shape

NETS: dict[str, Net] = {}
"""Every net of the zoo by its name."""


@dataclasses.dataclass(frozen=True)
class Net:
    """How to build a net, the shape it takes, and what must become of it.

    ``n_spiking`` is the number of spiking layers where it converts; else ``refused`` are words that the refusal must
    hold: names of layers, and what they are.
    """

    build: Callable[[], nn.Module]
    shape: Shape
    n_spiking: int | None = None
    refused: tuple[str, ...] = ()

    def module(self) -> nn.Module:
        """Return the net in evaluation mode, with statistics of its own in the norms."""
        torch.manual_seed(0)
        module = self.build().eval()
        for norm in module.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
                assert norm.running_var is not None
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.3, 2)
        return module


def converts(name: str, shape: Shape, *, n_spiking: int) -> Callable[[Callable[[], nn.Module]], None]:
    """Register a net that converts with every activation replaced."""

    def register(build: Callable[[], nn.Module]) -> None:
        NETS[name] = Net(build, shape, n_spiking=n_spiking)

    return register


def refused(name: str, shape: Shape, *words: str) -> Callable[[Callable[[], nn.Module]], None]:
    """Register a net that is refused, with these words in the refusal."""

    def register(build: Callable[[], nn.Module]) -> None:
        NETS[name] = Net(build, shape, refused=words)

    return register


class Wired(nn.Module):
    """Layers by name, and a forward that wires them: how a net of one's own is written, in fewer lines."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], Any], **layers: nn.Module | torch.Tensor) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer) if isinstance(layer, nn.Module) else self.register_buffer(name, layer)
        self.wiring = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.wiring(self, x)


def conv(c: int, f: int, k: int = 3, **options: Any) -> nn.Conv2d:
    """Return a convolution that keeps the size of its map unless told otherwise."""
    return nn.Conv2d(c, f, k, **{"padding": k // 2, **options})


def head(features: int, classes: int = 3) -> list[nn.Module]:
    """Return a flatten and a linear layer with a rectifier."""
    return [nn.Flatten(), nn.Linear(features, classes), nn.ReLU()]


# chains


@converts("plain", (2, 10, 10), n_spiking=3)
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.ReLU(), nn.AvgPool2d(2), conv(4, 6), nn.ReLU(), *head(150))


@converts("lenet", (1, 28, 28), n_spiking=5)
def _() -> nn.Module:
    maps = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(
        *maps, nn.Flatten(), nn.Linear(400, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), *head(16)[1:]
    )


@converts("vgg", (3, 16, 16), n_spiking=6)
def _() -> nn.Module:
    def block(c: int, f: int) -> list[nn.Module]:
        norms = nn.BatchNorm2d(f), nn.BatchNorm2d(f)
        return [conv(c, f), norms[0], nn.ReLU(True), conv(f, f), norms[1], nn.ReLU(True), nn.AvgPool2d(2)]

    features, classifier = (
        nn.Sequential(*block(3, 4), *block(4, 8)),
        nn.Sequential(nn.Linear(128, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)),
    )

    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = net.classifier(torch.flatten(net.features(x), 1))
        return out

    return Wired(forward, features=features, classifier=classifier)


@converts("all convolutions", (2, 12, 12), n_spiking=3)
def _() -> nn.Module:
    body = [conv(2, 4, stride=2), nn.ReLU(), conv(4, 6, stride=2), nn.ReLU(), conv(6, 3, 1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@converts("functional rectifiers", (2, 8, 8), n_spiking=5)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.a(x))
        x = torch.relu(net.b(x))
        x = net.c(x).relu()
        x = F.relu(net.d(x), inplace=True)
        return torch.maximum(net.e(x.reshape(x.shape[0], -1)), torch.zeros(1))

    return Wired(forward, a=conv(2, 3), b=conv(3, 3), c=conv(3, 3), d=conv(3, 3), e=nn.Linear(192, 3))


@converts("bounded rectifiers", (2, 8, 8), n_spiking=5)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(net.a(x))
        x = net.b(x).clamp(0, 4)
        x = torch.clamp_min(net.c(x), 0)
        x = F.hardtanh(net.d(x), 0.0, 2.0)
        return torch.clip(net.e(x.flatten(1)), min=0)

    return Wired(forward, a=conv(2, 3), b=conv(3, 3), c=conv(3, 3), d=conv(3, 3), e=nn.Linear(192, 3))


@converts("rectifier layers", (2, 8, 8), n_spiking=4)
def _() -> nn.Module:
    class Mine(nn.ReLU):
        """A rectifier of one's own that is torch's."""

    acts = Mine(), nn.ReLU6(), nn.Hardtanh(0, 3), nn.Threshold(0, 0)
    return nn.Sequential(*(part for act in acts for part in (conv(2, 2), act)))


@converts("changes in place", (2, 8, 8), n_spiking=3)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        y.relu_()
        z = net.b(y)
        F.relu_(z)
        z += y
        out: torch.Tensor = net.head(z)
        return out

    return Wired(forward, a=conv(2, 3), b=conv(3, 3), head=nn.Sequential(*head(192)))


@converts("dropout", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.drop(F.relu(net.a(x)))
        return F.relu(net.b(F.dropout(x, 0.3, net.training).flatten(1)))

    return Wired(forward, a=conv(2, 3), b=nn.Linear(192, 3), drop=nn.Dropout2d())


@converts("norms before and after", (2, 8, 8), n_spiking=3)
def _() -> nn.Module:
    first = [nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*first, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3), nn.ReLU())


@converts("standardized input", (3, 8, 8), n_spiking=2)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = (x / 255 - net.mean) / net.std
        return F.relu(net.b(F.relu(net.a(x)).flatten(1)))

    mean, std = torch.rand(3, 1, 1), torch.rand(1, 3, 1, 1) + 0.5
    return Wired(forward, a=nn.Conv2d(3, 4, 3), b=nn.Linear(144, 3), mean=mean, std=std)


@converts("constants everywhere", (2, 8, 8), n_spiking=3)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(2 * net.a(x) + 0.25)
        x = F.relu(1 - net.b(-x) / 3)
        return F.relu(sum([net.c(x), net.d(x)]) - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))

    return Wired(forward, a=conv(2, 3, bias=False), b=conv(3, 3), c=conv(3, 3), d=conv(3, 3, 1))


@converts("scaled weights", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    weight_norm = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(weight_norm(conv(2, 4)), nn.ReLU(), nn.Flatten(), weight_norm(nn.Linear(256, 3)), nn.ReLU())


@converts("standardized weights", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    class Standardized(nn.Conv2d):
        """Weights with mean 0 and deviation 1, as in big transfer nets."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
            mean, std = self.weight.mean((1, 2, 3), True), self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(input, (self.weight - mean) / (std + 1e-5), self.bias, self.stride, self.padding)

    return nn.Sequential(Standardized(2, 4, 3, padding=1), nn.ReLU(), Standardized(4, 4, 3), nn.ReLU())


@converts("bare parameters", (2, 4, 4), n_spiking=2)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.conv2d(x, net.kernel, padding=1)).flatten(1)
        return F.relu(x @ net.w.T + net.b)

    return Wired(forward, kernel=torch.randn(3, 2, 3, 3), w=torch.randn(4, 48), b=torch.randn(4))


@converts("multilayer perceptron", (12,), n_spiking=3)
def _() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@converts("one axis", (2, 32), n_spiking=3)
def _() -> nn.Module:
    maps = [nn.Conv1d(2, 4, 5, padding="same"), nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(4)]
    return nn.Sequential(*maps, nn.Conv1d(4, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), *head(6))


# convolutions of every kind


@converts("depthwise", (4, 8, 8), n_spiking=3)
def _() -> nn.Module:
    return nn.Sequential(conv(4, 4, groups=4), nn.ReLU(), conv(4, 6, 1), nn.ReLU(), *head(384))


@converts("grouped", (4, 8, 8), n_spiking=2)
def _() -> nn.Module:
    return nn.Sequential(conv(4, 8, groups=2), nn.ReLU(), conv(8, 4, groups=4), nn.ReLU())


@converts("dilated", (2, 12, 12), n_spiking=2)
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4, dilation=2, padding=2), nn.ReLU(), conv(4, 4, dilation=(1, 3)), nn.ReLU())


@converts("same padding, even kernel", (2, 9, 9), n_spiking=2)
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4, 4, padding="same"), nn.ReLU(), conv(4, 3, 2, padding="same"), nn.ReLU())


@converts("padding layer", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    return nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU())


@converts("transposed", (2, 6, 6), n_spiking=3)
def _() -> nn.Module:
    up = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(conv(2, 4), nn.ReLU(), up, nn.ReLU(), nn.ConvTranspose2d(3, 2, 2, stride=2), nn.ReLU())


# pools


@converts("overlapping pool", (2, 9, 9), n_spiking=3)
def _() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.ReLU(), nn.AvgPool2d(3, 2, 1), conv(4, 3), nn.ReLU())


@converts("global pool by mean", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return F.relu(net.b(F.relu(net.a(x)).mean(dim=(-2, -1))))

    return Wired(forward, a=conv(2, 4), b=nn.Linear(4, 3))


@converts("global pool, squeezed", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.adaptive_avg_pool2d(F.relu(net.a(x)), 1)
        return F.relu(net.b(x.squeeze(-1).squeeze(-1)))

    return Wired(forward, a=conv(2, 4), b=nn.Linear(4, 3))


# Python that is no list of layers


@converts("loop", (2, 8, 8), n_spiking=4)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        for index, layer in enumerate(net.layers):
            x = layer(x) if index % 2 else layer(x.contiguous())
            x = F.relu(x)
        return x

    return Wired(forward, layers=nn.ModuleList([conv(2, 3), conv(3, 3), conv(3, 3), conv(3, 2)]))


@converts("control flow on values", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            raise ValueError("expected counts of events")
        steps = 0
        while float(x.detach().abs().max()) > 1e30:  # not with data
            x, steps = x / 2, steps + 1
        return F.relu(net.b(F.relu(net.a(x))))

    return Wired(forward, a=conv(2, 3), b=conv(3, 3))


@converts("star arguments", (2, 8, 8), n_spiking=2)
def _() -> nn.Module:
    class Star(nn.Sequential):
        """A forward that takes whatever it is given."""

        def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
            (x,) = args
            for layer in self:
                x = layer(x, **kwargs)
            return x

    return Star(conv(2, 3), nn.ReLU(), conv(3, 3), nn.ReLU())
