"""SpikingNet on sinabs layers, in fixed time steps; the only file that imports sinabs."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeport.models.events import Events

from .errors import InputError, InvalidNetError
from .geometry import Pair
from .types import INPUT, SpikingLayer, SpikingNet, Trace

if TYPE_CHECKING:
    import torch
    from torch import nn

STEP_US = 10_000
"""Time step of a simulation where none is given: 10 ms, as in sinabs' examples."""

_CELLS = 4_000_000
"""Neuron steps held at once; larger batches are simulated in parts.

Source: measured 2026-11-22, tutorial's CNN, 8 steps, 256 recordings, one core: 0.39 s; in one part 1.3 s, with a
sixteenth of it 1.0 s.
"""

_MAX_CELLS = 500_000_000
"""Neuron steps of one recording: 2 GB for each copy of a layer's spikes."""

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


def simulate(
    net: SpikingNet, raster: ArrayLike, *, dt_us: int = STEP_US, record: Literal["all"] | None = None
) -> Trace:
    """Return what ``net`` does with a raster, in fixed time steps.

    In each step a layer adds the weighted spikes and its bias to the potential, emits as many spikes as whole
    thresholds fit, and keeps the rest, not below ``v_min``; each recording starts at ``v_init``. The chip works event
    by event; see the emulator for that.
    Shapes: ``raster`` is ``[T, C, H, W]`` or ``[T, B, C, H, W]``; ``record="all"`` keeps all layers' spikes over time.
    Units: ``dt_us`` is the length of a step; it only labels the trace.
    Raises: InputError where the raster does not match the net's input.
    """
    import torch

    batch = _checked_raster(net, raster)
    n_steps, n_samples = batch.shape[:2]
    cells = n_steps * max(int(np.prod(layer.out_shape)) for layer in net.layers)
    if cells > _MAX_CELLS:
        raise InputError(
            f"raster: expected at most {_MAX_CELLS:,} neuron steps in the largest layer, found {cells:,} "
            f"({n_steps:,} steps). Try longer steps, or a shorter recording."
        )
    part = max(1, _CELLS // cells)
    with torch.no_grad():
        traces = [
            _simulate_part(net, batch[:, first : first + part], dt_us, record == "all")
            for first in range(0, n_samples, part)
        ]
    return traces[0] if len(traces) == 1 else _joined(traces)


def simulate_events(net: SpikingNet, events: Events, *, dt_us: int = STEP_US) -> Trace:
    """Return what ``net`` does with one recording, binned in steps of ``dt_us`` from its first event on.

    A 1-channel net merges polarities.
    Raises: InputError where the sensor is not the net's input, or the recording is empty.
    """
    if events.sensor_size != net.input_shape[1:]:
        raise InputError(
            f"recording: expected a sensor of {_size(net.input_shape[1:])} as the net's input, "
            f"found {_size(events.sensor_size)}. Try a net for this sensor, or crop the recording."
        )
    if not len(events):
        raise InputError("recording: expected at least one event, found none. Try another recording.")
    return simulate(net, events.from_zero().to_raster(dt_us, merge_polarity=net.input_shape[0] == 1), dt_us=dt_us)


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
    Law: equal to those of ``simulate``.
    """
    import sinabs.layers as sl
    import torch

    neurons = sl.IAF(**_iaf_settings(layer))
    _start(neurons, layer, len(current))
    with torch.no_grad():
        return np.asarray(neurons(current).transpose(0, 1).round().numpy())


def _checked_raster(net: SpikingNet, raster: ArrayLike) -> NDArray[Any]:
    array = np.asarray(raster)
    batch = array[:, None] if array.ndim == 4 else array
    if batch.ndim != 5 or batch.shape[2:] != net.input_shape or 0 in batch.shape:
        raise InputError(
            f"raster: expected shape [T, {', '.join(map(str, net.input_shape))}], or the same with a batch axis "
            f"behind T, found {list(array.shape)}. Try Events.to_raster(dt_us)."
        )
    if not np.isfinite(batch).all():
        raise InputError("raster: expected finite numbers, found NaN or infinity.")
    return batch


def _simulate_part(net: SpikingNet, batch: NDArray[Any], dt_us: int, keep_spikes: bool) -> Trace:
    import sinabs.layers as sl
    import torch

    given = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).transpose(0, 1)
    last_reader = {
        edge.source: max(other.target or 0 for other in net.edges if other.source == edge.source) for edge in net.edges
    }
    live: dict[int, torch.Tensor] = {INPUT: given}
    output = torch.zeros(*given.shape[:2], *(net.output_shape or (0, 0, 0)))
    counts, states, kept = [], [], []
    _add_output(net, INPUT, given, output)
    for index, layer in enumerate(net.layers):
        current = _convolved(layer, _arriving(net, index, live))
        neurons = sl.IAF(**_iaf_settings(layer))
        _start(neurons, layer, len(given))
        spikes = neurons(current)
        live[index] = spikes
        counts.append(_own(spikes.sum(1).round().long().numpy()))
        states.append(_own(neurons.v_mem.numpy().copy()))
        if keep_spikes:
            kept.append(_own(spikes.transpose(0, 1).round().to(torch.int32).contiguous().numpy()))
        _add_output(net, index, spikes, output)
        live = {source: value for source, value in live.items() if last_reader.get(source, -1) > index}
    return Trace(
        input_counts=batch.sum(axis=0, dtype=np.float64),
        counts=tuple(counts),
        output=output.transpose(0, 1).flatten(2).round().long().numpy(),
        output_states=_output_states(net, states),
        states=tuple(states),
        spikes=tuple(kept) if keep_spikes else None,
        dt_us=dt_us,
    )


def _add_output(net: SpikingNet, source: int, spikes: torch.Tensor, output: torch.Tensor) -> None:
    """Add to ``output`` ``[B, T, *output_shape]`` what of the spikes of ``source`` leaves the net."""
    for edge in net.outgoing(source):
        if edge.target is None and net.output_shape:
            leaving = _sum_pooled(spikes, edge.pool)
            output[:, :, edge.feature_shift : edge.feature_shift + leaving.shape[2]] += leaving


def _output_states(net: SpikingNet, states: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the last potential behind each class ``[B, classes]``, summed over the pool of its output edge."""
    import torch

    total = torch.zeros(len(states[0]), *(net.output_shape or (0, 0, 0)))
    for edge in net.edges if net.output_shape else ():
        if edge.target is None and edge.source != INPUT:
            state = _sum_pooled(torch.from_numpy(states[edge.source].copy())[:, None], edge.pool)[:, 0]
            total[:, edge.feature_shift : edge.feature_shift + state.shape[1]] += state
    return np.asarray(total.flatten(1).numpy())


def _arriving(net: SpikingNet, index: int, live: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return the input of a layer ``[B, T, C, H, W]``: the sum of its edges, pooled and moved to their features."""
    import torch

    layer = net.layers[index]
    total: torch.Tensor | None = None
    for edge in net.incoming(index):
        spikes = _sum_pooled(live[edge.source], edge.pool)
        if edge.feature_shift or spikes.shape[2] != layer.in_shape[0]:
            wide = torch.zeros(*spikes.shape[:2], *layer.in_shape)
            wide[:, :, edge.feature_shift : edge.feature_shift + spikes.shape[2]] = spikes
            spikes = wide
        total = spikes if total is None else total + spikes
    if total is None:
        raise InvalidNetError(f"layer '{layer.name}': no edge leads to it.")
    return total


def _sum_pooled(spikes: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    if pool == (1, 1):
        return spikes
    import torch.nn.functional as F

    summed = F.avg_pool2d(spikes.flatten(0, 1), pool, divisor_override=1)
    return summed.reshape(*spikes.shape[:2], *summed.shape[1:])


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


def _joined(traces: list[Trace]) -> Trace:
    layers = range(len(traces[0].counts))
    spikes = None
    if traces[0].spikes is not None:
        spikes = tuple(_own(np.concatenate([t.spikes[i] for t in traces if t.spikes], axis=1)) for i in layers)
    return Trace(
        input_counts=np.concatenate([trace.input_counts for trace in traces]),
        counts=tuple(_own(np.concatenate([trace.counts[i] for trace in traces])) for i in layers),
        output=np.concatenate([trace.output for trace in traces], axis=1),
        output_states=np.concatenate([trace.output_states for trace in traces]),
        states=tuple(_own(np.concatenate([trace.states[i] for trace in traces])) for i in layers),
        spikes=spikes,
        dt_us=traces[0].dt_us,
    )


def _own(array: NDArray[Any]) -> NDArray[Any]:
    """Return a fresh array read-only, so that a record keeps it instead of a copy."""
    array.flags.writeable = False
    return array


def _is_chain(net: SpikingNet) -> bool:
    ends = (*range(len(net.layers)), None)
    plain = tuple((index - 1, target, 0) for index, target in enumerate(ends))
    return tuple((edge.source, edge.target, edge.feature_shift) for edge in net.edges) == plain


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
