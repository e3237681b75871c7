"""Layers on sinabs: a spiking net as plain modules, and one layer on dense maps; the only file that imports sinabs."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidNetError
from .geometry import Pair
from .types import INPUT, SpikingLayer, SpikingNet

if TYPE_CHECKING:
    import torch
    from torch import nn

_SUFFIXES = ("_upsample", "_spike", "_pool")
"""Of the modules that stand beside a layer's convolution."""


def to_sinabs(net: SpikingNet, *, batch_size: int = 1) -> nn.Sequential:
    """Return the net as plain sinabs layers, so that users stay in their ecosystem.

    Shapes: takes and returns ``[batch_size * T, C, H, W]``, as sinabs' squeezing layers do.
    Law: gives the output spikes of ``simulate``. Potentials start at ``v_init`` once: sinabs keeps them from one call
    to the next, and its ``reset_states`` sets them to zero.
    Raises: InvalidNetError for a net with branches, which is no ``nn.Sequential``.
    """
    import sinabs.layers as sl
    from torch import nn

    if not _is_chain(net):
        raise InvalidNetError("to_sinabs: expected a plain chain of layers, found branches. Try simulate() instead.")
    modules: dict[str, nn.Module] = {}
    for index, layer in enumerate(net.layers):
        (before,) = net.incoming(index)
        (after,) = net.outgoing(index)
        if before.source == INPUT and before.pool != (1, 1):
            modules["input_pool"] = sl.SumPool2d(before.pool)
        safe = layer.name.replace(".", "_")
        while modules.keys() & {f"{safe}{suffix}" for suffix in ("", *_SUFFIXES)}:
            safe = f"{safe}_{index}"
        if layer.upsample != (1, 1):
            modules[f"{safe}_upsample"] = _upsampling(layer)
        modules[safe] = _convolution(layer)
        neurons = modules[f"{safe}_spike"] = sl.IAFSqueeze(batch_size=batch_size, **_iaf_settings(layer))
        _start(neurons, layer, batch_size)
        if after.pool != (1, 1):
            modules[f"{safe}_pool"] = sl.SumPool2d(after.pool)
    return nn.Sequential(collections.OrderedDict(modules))


def currents(layer: SpikingLayer, arriving: NDArray[np.float32]) -> torch.Tensor:
    """Return what a layer adds to its potentials in each step.

    Shapes: ``arriving`` ``[T, B, C, H, W]`` to ``[B, T, F, H, W]``.
    """
    import torch

    with torch.no_grad():
        return _convolved(layer, torch.from_numpy(np.ascontiguousarray(arriving.swapaxes(0, 1))))


def fire(layer: SpikingLayer, current: torch.Tensor) -> NDArray[np.float32]:
    """Return the spikes of a layer for its ``currents``, from its ``v_init`` on.

    Shapes: ``[B, T, F, H, W]`` to ``[T, B, F, H, W]``.
    Law: equal to those of ``simulate`` with the dense engine.
    """
    return _fired(layer, current)[0].swapaxes(0, 1)


def step_through(layer: SpikingLayer, arriving: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the spikes of a layer in time steps, and its potentials after the last one.

    Shapes: ``arriving`` ``[B, T, C, H, W]`` to ``[B, T, F, H, W]`` and ``[B, F, H, W]``.
    """
    import torch

    with torch.no_grad():
        return _fired(layer, _convolved(layer, torch.from_numpy(arriving)))


def _fired(layer: SpikingLayer, current: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return spikes and last potentials for currents, recordings first."""
    import sinabs.layers as sl
    import torch

    neurons = sl.IAF(**_iaf_settings(layer))
    _start(neurons, layer, len(current))
    with torch.no_grad():
        return neurons(current).round().numpy(), neurons.v_mem.numpy()


def _convolved(layer: SpikingLayer, spikes: torch.Tensor) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    batch, steps = spikes.shape[:2]
    bias = None if layer.bias is None else torch.from_numpy(layer.bias.copy())
    weight = torch.from_numpy(layer.weight.copy())
    flat = _spread(spikes.flatten(0, 1), layer.upsample)
    current = F.conv2d(flat, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return current.reshape(batch, steps, *current.shape[1:])


def _spread(maps: torch.Tensor, upsample: Pair) -> torch.Tensor:
    """Return maps ``[N, C, H, W]`` with zeros between their pixels."""
    if upsample == (1, 1):
        return maps
    height, width = ((edge - 1) * up + 1 for edge, up in zip(maps.shape[2:], upsample, strict=True))
    wide = maps.new_zeros(*maps.shape[:2], height, width)
    wide[:, :, :: upsample[0], :: upsample[1]] = maps
    return wide


def _upsampling(layer: SpikingLayer) -> nn.ConvTranspose2d:
    """Return ``_spread`` as a plain torch layer: each pixel alone, to a place ``upsample`` away from the next."""
    import torch
    from torch import nn

    channels = layer.in_shape[0]
    spread = nn.ConvTranspose2d(channels, channels, 1, layer.upsample, groups=channels, bias=False)
    torch.nn.init.ones_(spread.weight)
    return spread.requires_grad_(False)


def _start(neurons: Any, layer: SpikingLayer, n_samples: int) -> None:
    """Set the potentials of sinabs neurons to those before the first event."""
    import torch

    if layer.v_init is not None:
        neurons.init_state_with_shape((n_samples, *layer.out_shape))
        neurons.v_mem.copy_(torch.from_numpy(layer.v_init.copy()))


def _convolution(layer: SpikingLayer) -> nn.Conv2d:
    import torch
    from torch import nn

    conv = nn.Conv2d(
        in_channels=layer.in_shape[0],
        out_channels=layer.out_shape[0],
        kernel_size=layer.window.kernel,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(layer.weight.copy()))
        if conv.bias is not None and layer.bias is not None:
            conv.bias.copy_(torch.from_numpy(layer.bias.copy()))
    return conv


def _iaf_settings(layer: SpikingLayer) -> dict[str, Any]:
    import torch
    from sinabs.activation import MembraneSubtract, MultiSpike

    return {
        "spike_threshold": torch.tensor(layer.threshold),
        "spike_fn": MultiSpike,
        "reset_fn": MembraneSubtract(),
        "min_v_mem": layer.v_min,
    }


def _is_chain(net: SpikingNet) -> bool:
    ends = (*range(len(net.layers)), None)
    plain = tuple((index - 1, target, 0) for index, target in enumerate(ends))
    return tuple((edge.source, edge.target, edge.feature_shift) for edge in net.edges) == plain
