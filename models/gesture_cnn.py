"""The plain CNN for DVS128 Gesture: nine weight layers for nine cores."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

GESTURES = (
    "hand clap",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other",
)
"""Classes of DVS128 Gesture in the order of its labels. Source: Amir et al., CVPR 2017."""

_FEATURES = ((16, 16), (16, 32), (32, 32), (32, 64), (64, 64))


def gesture_cnn(classes: int = 11) -> nn.Sequential:
    """Return the DVS-gesture CNN, untrained: seven convolutions, two linear layers, no biases.

    Shapes: takes ``[N, 2, 128, 128]``, returns ``[N, classes]``.
    Source: the gesture network of sinabs' visualizer example, whose public weights fit it in their order.
    """
    from torch import nn

    layers: dict[str, nn.Module] = {"conv1": nn.Conv2d(2, 16, 2, stride=2, bias=False), "relu1": nn.ReLU()}
    for number, (channels, features) in enumerate(_FEATURES, start=2):
        layers[f"conv{number}"] = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.AvgPool2d(2)
    layers |= {
        "conv7": nn.Conv2d(64, 256, 2, bias=False),
        "relu7": nn.ReLU(),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(256, 128, bias=False),
        "relu8": nn.ReLU(),
        "linear2": nn.Linear(128, classes, bias=False),
        "relu9": nn.ReLU(),
    }
    return nn.Sequential(OrderedDict(layers))
