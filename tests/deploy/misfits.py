"""Nets that do not fit a Speck, as code, each with everything that has to be named: the layer and the rule.

A layer of None is the net as a whole. The expectations were worked out from the limits of the chip by hand;
``oracle`` counts the words again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spikeport.convert.geometry import Pair, Shape3
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet

from .nets import make_layer, single, stack

Named = frozenset[tuple[str | None, str]]
FEW = {"features": 4, "kernel": 3, "padding": 1}
BROAD = {"features": 16, "kernel": 3, "padding": 1}  # 64 Ki neurons on a map of 64 x 64
HALVES = {"features": 16, "kernel": 2, "stride": 2}


@dataclasses.dataclass(frozen=True)
class Misfit:
    """A net that does not fit: how it is built, and what ``plan`` has to name.

    ``crowd`` holds all layers that fit one by one but not together.
    """

    name: str
    build: Callable[[], SpikingNet]
    named: Named
    crowd: frozenset[str] = frozenset()


def _misfit(
    name: str,
    build: Callable[[], SpikingNet],
    *named: tuple[str | None, str],
    crowd: Sequence[int] = (),
) -> Misfit:
    return Misfit(name, build, frozenset(named), frozenset(f"layer{index}" for index in crowd))


def _wired(layers: Sequence[SpikingLayer], edges: Sequence[Edge], input_shape: Shape3) -> SpikingNet:
    """Return the net of ``edges``, with an output behind each layer that feeds no other."""
    ends = [i for i in range(len(layers)) if all(edge.source != i for edge in edges)]
    return SpikingNet(tuple(layers), (*edges, *(Edge(index, None) for index in ends)), input_shape)


def _from_input(*edges: tuple[int | None, Pair, int]) -> SpikingNet:
    """Return a net whose input of 128 x 128, too large for a relay, goes to (layer, pool, shift) each."""
    layers: list[SpikingLayer] = []
    for target, (y, x), _ in edges:
        if target == len(layers):
            channels = 2 + max(shift for other, _, shift in edges if other == target)
            name = f"layer{target}"
            layers.append(make_layer((channels, 128 // y, 128 // x), 4, stride=4, padding=1, name=name, seed=target))
    return _wired(layers, [Edge(INPUT, target, pool, shift) for target, pool, shift in edges], (2, 128, 128))


def _star(n_branches: int, pool: Pair = (1, 1)) -> SpikingNet:
    """Return a layer that feeds so many others."""
    stem = make_layer((2, 32, 32), 8, padding=1, name="stem")
    branches = [
        make_layer((8, 32 // pool[0], 32 // pool[1]), 4, 1, name=f"branch{index}", seed=index)
        for index in range(n_branches)
    ]
    edges = [Edge(INPUT, 0), *(Edge(0, index + 1, pool) for index in range(n_branches))]
    return _wired([stem, *branches], edges, (2, 32, 32))


def _three_banks() -> SpikingNet:
    """Return a layer that feeds the same other layer three times, one bank behind the other."""
    layers = [make_layer((2, 32, 32), 8, padding=1, name="stem"), make_layer((24, 32, 32), 4, name="banks")]
    return _wired(layers, [Edge(INPUT, 0), *(Edge(0, 1, feature_shift=shift) for shift in (0, 8, 16))], (2, 32, 32))


def _lenet_on_a_camera() -> SpikingNet:
    """Return LeNet's layers on 128 x 128 pixels: kernels of 5, pools of 2, then three Linear layers."""
    convolutions = [{"features": 6, "kernel": 5, "pool": 2}, {"features": 16, "kernel": 5, "pool": 2}]
    return stack((2, 128, 128), [*convolutions, *({"features": f, "kernel": 0} for f in (120, 84, 10))])


def _vgg() -> SpikingNet:
    """Return VGG-11's convolutions on 64 x 64 pixels, a quarter as wide, and its three Linear layers."""
    widths = ((16, 2), (32, 2), (64, 1), (64, 2), (128, 1), (128, 2), (128, 1), (128, 2))
    convolutions: list[dict[str, Any]] = [
        {"features": features, "kernel": 3, "padding": 1, "pool": pool} for features, pool in widths
    ]
    return stack((2, 64, 64), [*convolutions, *({"features": f, "kernel": 0} for f in (256, 256, 10))])


def _autoencoder() -> SpikingNet:
    down: list[dict[str, Any]] = [{"features": f, "kernel": 3, "padding": 1, "stride": 2} for f in (8, 16)]
    up = [{"features": f, "kernel": 3, "padding": 1, "upsample": (2, 2)} for f in (8, 2)]
    return stack((2, 64, 64), [*down, *up])


def _mobile() -> SpikingNet:
    """Return a stem and two separable convolutions: 3 x 3 by channel, then 1 x 1 across channels."""
    stem: dict[str, Any] = {"features": 32, "kernel": 3, "padding": 1, "stride": 2}
    first = [{**stem, "groups": 32, "stride": 1, "features": 32}, {"features": 64, "kernel": 1}]
    second = [{**stem, "groups": 64, "features": 64}, {"features": 128, "kernel": 1}]
    return stack((2, 64, 64), [stem, *first, *second, {"features": 10, "kernel": 0}])


def _everything() -> SpikingNet:
    first = {"features": 20, "kernel": 17, "stride": 3, "padding": 8, "pool": 3}
    return stack((2, 130, 130), [first, {"features": 2000, "kernel": (3, 1), "threshold": 1e-9}])


def _huge(n_layers: int) -> SpikingNet:
    return stack((2, 128, 128), [HALVES, *[BROAD] * (n_layers - 1)])


def _wide(n_wide: int, features: int, *, first: int = 64) -> SpikingNet:
    """Return 1 x 1 convolutions of so many features on a map of 8 x 8, behind a narrow one."""
    rows = [{"features": features, "kernel": 1}] * n_wide
    return stack((2, 8, 8), [{"features": first, "kernel": 1}, *rows])


def _middling(n_layers: int) -> SpikingNet:
    """Return layers of 32 Ki kernel and 32 Ki neuron words, which only cores 3 and 4 have together."""
    rows = [{"features": 32, "kernel": 5, "padding": 2}] * n_layers
    return stack((32, 32, 32), rows)


def _tower() -> SpikingNet:
    """Return three layers for cores 0 to 2 and three for cores 0 to 4: six on five."""
    broad = [HALVES, BROAD, {**BROAD, "pool": 2}]
    return stack((2, 128, 128), [*broad, *[{"features": 32, "kernel": 3, "padding": 1}] * 3])


def _two_crowds() -> SpikingNet:
    """Return three layers for cores 3 and 4, and behind them one for cores 3 to 6 and three for cores 5 and 6."""
    middling = [{"features": 32, "kernel": 5, "padding": 2}] * 3
    narrow = {"features": 512, "kernel": 1, "stride": 8}
    wide = [{"features": 64, "kernel": 1}, {"features": 1024, "kernel": 1}] * 2
    return stack((32, 32, 32), [*middling, narrow, *wide])


MISFITS: tuple[Misfit, ...] = (
    # Kernels.
    _misfit("a kernel that is not square", lambda: single((2, 32, 32), 4, (3, 5)), ("conv", "kernel")),
    _misfit("a kernel of 17", lambda: single((2, 32, 32), 4, 17), ("conv", "kernel size")),
    _misfit(
        "a Linear layer on a map of 20",
        lambda: stack((2, 20, 20), [FEW, {"features": 10, "kernel": 0}]),
        ("layer1", "kernel size"),
    ),
    _misfit(
        "a Linear layer on a map that is not square",
        lambda: stack((2, 12, 16), [FEW, {"features": 10, "kernel": 0}]),
        ("layer1", "kernel"),
    ),
    _misfit("a dilation that reaches 17", lambda: single((2, 32, 32), 4, dilation=8), ("conv", "kernel size")),
    _misfit("a dilation along one axis", lambda: single((2, 32, 32), 4, dilation=(1, 2)), ("conv", "kernel")),
    _misfit(
        "a dilated kernel that is large when dense",
        lambda: stack(
            (2, 32, 32),
            [{"features": 32, "kernel": 1, "pool": 2}, {"features": 64, "kernel": 3, "dilation": 3, "padding": 3}],
        ),
        ("layer1", "memory"),
    ),
    _misfit(
        "a depthwise convolution of 256 channels",
        lambda: single((256, 8, 8), 256, groups=256, padding=1),
        ("conv", "memory"),
    ),
    # Steps.
    _misfit("a stride of 3", lambda: single((2, 32, 32), 4, stride=3), ("conv", "stride")),
    _misfit("a stride of 1 x 16", lambda: single((2, 32, 32), 4, stride=(1, 16)), ("conv", "stride")),
    _misfit("a padding of 8", lambda: single((2, 32, 32), 4, 16, padding=8), ("conv", "padding")),
    _misfit("a transposed convolution", _autoencoder, ("layer2", "upsample"), ("layer3", "upsample")),
    # Pools.
    _misfit("a pool of 3", lambda: stack((2, 36, 36), [{**FEW, "pool": 3}, FEW]), ("layer0", "pool")),
    _misfit("two pools that make 8", lambda: stack((2, 32, 32), [{**FEW, "pool": 8}, FEW]), ("layer0", "pool")),
    _misfit("a pool of 2 x 4", lambda: stack((2, 32, 32), [{**FEW, "pool": (2, 4)}, FEW]), ("layer0", "pool")),
    # Maps and channels.
    _misfit("a map of 65", lambda: single((2, 67, 67), 2), ("conv", "output map")),
    _misfit(
        "a first layer at full resolution",
        lambda: single((2, 128, 128), 16, padding=1),
        ("conv", "output map"),
        ("conv", "memory"),
    ),
    _misfit(
        "a map of 140 between layers",
        lambda: stack(
            (1, 128, 128), [{"features": 1, "kernel": 1, "padding": 6}, {"features": 1, "kernel": 4, "stride": 4}]
        ),
        ("layer0", "output map"),
        ("layer1", "input map"),
    ),
    _misfit("1,025 output channels", lambda: single((2, 4, 4), 1025), ("conv", "output channels")),
    _misfit(
        "1,025 output channels with biases",
        lambda: single((2, 4, 4), 1025, bias=True),
        ("conv", "output channels"),
        ("conv", "memory"),
    ),
    _misfit("1,025 input channels", lambda: single((1025, 1, 1), 4, 1), ("conv", "input channels")),
    # Numbers.
    _misfit(
        "weights so large that the threshold is 0",
        lambda: single((2, 9, 9), 4, weight=np.full((4, 2, 3, 3), 9e5)),
        ("conv", "threshold"),
    ),
    _misfit("a threshold that nothing reaches", lambda: single((2, 9, 9), 4, threshold=1e300), ("conv", "threshold")),
    # The input.
    _misfit("a sensor of 260 x 346", lambda: stack((2, 260, 346), [{**FEW, "stride": 8}]), (None, "input map")),
    _misfit("an input pool of 8", lambda: _from_input((0, (8, 8), 0)), (None, "input pool")),
    _misfit("three first layers", lambda: _from_input(*((index, (1, 1), 0) for index in range(3))), (None, "entry")),
    _misfit(
        "two first layers with pools of their own",
        lambda: _from_input((0, (1, 1), 0), (1, (1, 2), 0)),
        (None, "input pools"),
    ),
    _misfit("a first layer that is fed twice", lambda: _from_input(*[(0, (1, 1), 0)] * 2), (None, "entry")),
    _misfit(
        "a first layer with the input in two banks",
        lambda: _from_input((0, (1, 1), 0), (0, (1, 1), 2)),
        (None, "entry"),
        (None, "feature shift"),
    ),
    _misfit("an input that is an output", lambda: _from_input((0, (1, 1), 0), (None, (1, 1), 0)), (None, "output")),
    # Routes. A layer that feeds more than two others gets relays, where these help and have room.
    _misfit("three banks of one layer", _three_banks, ("stem", "destinations")),
    _misfit("three branches behind a pool of 3", lambda: _star(3, (3, 3)), ("stem", "destinations"), ("stem", "pool")),
    _misfit("four branches behind one of 16", lambda: _star(4, (16, 16)), ("stem", "destinations"), ("stem", "pool")),
    _misfit("six branches and their relays", lambda: _star(6), (None, "layers")),
    # Memory of one layer.
    _misfit(
        "a Linear layer of 2,048 by 256",
        lambda: stack((2, 8, 8), [{**FEW, "features": 32}, {"features": 256, "kernel": 0}]),
        ("layer1", "memory"),
    ),
    _misfit("a kernel of 25 taps that occupies 32", lambda: single((64, 8, 8), 40, 5, padding=2), ("conv", "memory")),
    _misfit("a map of 33 that occupies 64", lambda: single((2, 33, 33), 20, padding=1), ("conv", "memory")),
    _misfit("kernel and neurons that no core has together", lambda: single((600, 20, 20), 64, 1), ("conv", "memory")),
    _misfit("both memories too large", lambda: single((128, 32, 32), 128, padding=1), ("conv", "memory")),
    # Cores.
    _misfit("ten layers", lambda: stack((1, 4, 4), [{"features": 1, "kernel": 1}] * 10), (None, "layers")),
    _misfit(
        "four layers for cores 0 to 2",
        lambda: _huge(4),
        (None, "memory"),
        crowd=range(4),
    ),
    _misfit(
        "five layers for cores 0 to 2",
        lambda: _huge(5),
        (None, "memory"),
        crowd=range(5),
    ),
    _misfit(
        "three layers for cores 3 and 4",
        lambda: _middling(3),
        (None, "memory"),
        crowd=range(3),
    ),
    _misfit(
        "three layers for cores 5 and 6",
        lambda: _wide(3, 256, first=256),
        (None, "memory"),
        crowd=(1, 2, 3),
    ),
    _misfit("six layers for cores 0 to 4", _tower, (None, "memory"), crowd=range(6)),
    _misfit(
        "two crowds",
        _two_crowds,
        (None, "memory"),
        crowd=(0, 1, 2, 4, 5, 6, 7),
    ),
    # Nets that people have.
    _misfit(
        "LeNet on a camera",
        _lenet_on_a_camera,
        ("layer0", "output map"),
        ("layer0", "memory"),
        ("layer2", "kernel size"),
        ("layer2", "memory"),
    ),
    _misfit("VGG-11", _vgg, (None, "layers"), *((f"layer{index}", "memory") for index in (4, 5, 6, 7, 8))),
    _misfit("separable convolutions", _mobile, ("layer5", "memory")),
    _misfit(
        "everything at once",
        _everything,
        (None, "input map"),
        ("layer0", "kernel size"),
        ("layer0", "stride"),
        ("layer0", "padding"),
        ("layer0", "pool"),
        ("layer0", "memory"),
        ("layer1", "kernel"),
        ("layer1", "output channels"),
        ("layer1", "threshold"),
        ("layer1", "memory"),
    ),
)
