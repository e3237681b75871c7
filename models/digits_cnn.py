"""The plain CNNs for digits under an event camera."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from .errors import ModelNameError

if TYPE_CHECKING:
    from torch import nn

DIGITS = tuple("0123456789")
"""Classes of every digits network and data set."""

SIZES = (34, 64)


def digits_cnn(in_channels: int = 2, *, size: int = 34, classes: int = 10) -> nn.Sequential:
    """Return the CNN of the CNN-to-Speck tutorial, untrained: three convolutions, two linear layers, no biases.

    Shapes: takes ``[N, in_channels, size, size]``, returns ``[N, classes]``; ``in_channels`` is 1 (polarities merged)
    or 2.
    Raises: ModelNameError for another size or number of channels.
    """
    from torch import nn

    if in_channels not in (1, 2) or size not in SIZES:
        raise ModelNameError(
            f"digits CNN: expected 1 or 2 channels and a size of 34 or 64, found {in_channels} and {size}. "
            "Try 2 and 34."
        )
    edge = size
    for _ in range(3):  # a 3x3 convolution, then a pool of 2
        edge = (edge - 2) // 2
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, 8, 3, bias=False),
        "relu1": nn.ReLU(),
        "pool1": nn.AvgPool2d(2),
        "conv2": nn.Conv2d(8, 32, 3, bias=False),
        "relu2": nn.ReLU(),
        "pool2": nn.AvgPool2d(2),
        "conv3": nn.Conv2d(32, 16, 3, bias=False),
        "relu3": nn.ReLU(),
        "pool3": nn.AvgPool2d(2),
        "dropout": nn.Dropout2d(0.5),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(16 * edge * edge, 32, bias=False),
        "relu4": nn.ReLU(),
        "linear2": nn.Linear(32, classes, bias=False),
        "relu5": nn.ReLU(),
    }
    for layer in layers.values():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            # Source: He et al., ICCV 2015. torch's own start is narrower and cost a point after training.
            nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(OrderedDict(layers))


def strided_digits_cnn() -> nn.Sequential:
    """Return the N-MNIST CNN of a public Speck project, untrained: three padded convolutions, the last with stride 2.

    Shapes: takes ``[N, 2, 34, 34]``, returns ``[N, 10]``.
    Source: wzqvip/Sinabs-Speck-Dev-kit on GitHub; its weights are third party and not shipped.
    """
    from torch import nn

    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(2, 8, 3, padding=1, bias=False),
        "relu1": nn.ReLU(),
        "pool1": nn.AvgPool2d(2),
        "conv2": nn.Conv2d(8, 16, 3, padding=1, bias=False),
        "relu2": nn.ReLU(),
        "pool2": nn.AvgPool2d(2),
        "conv3": nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
        "relu3": nn.ReLU(),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(256, 10, bias=False),
        "relu4": nn.ReLU(),
    }
    return nn.Sequential(OrderedDict(layers))
