"""The folder of a user who calls the command: networks in a file of Python, a spiking net, a recording, frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from spikeport.convert import convert, save_net
from spikeport.models.events import Events
from spikeport.models.files import write_events

SHAPE = ("--input-shape", "2,16,16")

NET_PY = """
from torch import nn
import torch
import torch.nn.functional as F
def conv(*a, **k):
    return nn.Conv2d(*a, bias=False, **k)
def build():
    torch.manual_seed(0)
    head = (nn.Flatten(), nn.Linear(196, 5, bias=False), nn.ReLU())
    return nn.Sequential(conv(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), *head)

def maxpool():
    return nn.Sequential(conv(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4, 3, groups=2), nn.Sigmoid())

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(2, 4, 3)
    def forward(self, x):
        return F.relu(self.conv(x))

def stride3():
    return nn.Sequential(conv(2, 4, 3, stride=3), nn.ReLU())

def pool5():
    return nn.Sequential(conv(2, 4, 2), nn.ReLU(), nn.AvgPool2d(5), conv(4, 4, 1), nn.ReLU())

def ten():
    return nn.Sequential(*[layer for i in range(10) for layer in (conv(2, 2, 1), nn.ReLU())])

def nan():
    net = build()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = float("nan")
    return net
"""


def fill(home: Path) -> Path:
    """Write a user's files into a folder and return it."""
    (home / "my_net.py").write_text(NET_PY)
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 100_000, 2000))
    events = Events(rng.integers(0, 16, 2000), rng.integers(0, 16, 2000), rng.integers(0, 2, 2000), times, (16, 16))
    write_events(events, home / "recording.npz")
    np.savez(home / "frames.npz", frames=rng.poisson(1.0, (16, 2, 16, 16)).astype(np.float32))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, 5))
    save_net(convert(module, (2, 16, 16)).net, home / "net.safetensors")
    return home
