"""Other converters on the benchmark's networks: sinabs and SpikingJelly, each run by its own layers."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Shape3
from spikeport.convert.pipeline import convert
from spikeport.convert.types import SpikingNet, Trace

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .tasks import Task

INSTALL_SPIKINGJELLY = "pip install --no-deps spikingjelly tqdm loguru requests urllib3 certifi idna charset-normalizer"
"""How SpikingJelly comes beside a torch that is there: its own list of packages brings torchvision and torchaudio."""

_PART = 64

_SILENT = 1e-4

_N_PASSES = 20
"""Passes over the calibration frames for SpikingJelly's balancing, whose thresholds grow a little with each batch."""


@dataclasses.dataclass(frozen=True, eq=False)
class PeerNet:
    """A network as another converter leaves it, with a way to run it.

    ``net`` is the same network as a record of ours: for exact synops, and to put it on the chip. ``run`` takes a batch
    ``[T, B, C, H, W]`` as the converter expects it and returns the spikes of each layer, summed over time, and the last
    potentials behind the output. ``reads_values``: it expects in each step the values of a frame, not event counts.
    """

    net: SpikingNet
    run: Callable[[torch.Tensor], tuple[list[NDArray[np.int64]], NDArray[np.float32]]]
    reads_values: bool


def sinabs_default(task: Task, n_steps: int) -> PeerNet:
    """Return sinabs' ``from_model`` with its defaults: threshold 1, lower bound -1, weights as they are.

    Batch normalization is folded by torch before.
    """
    return _sinabs(fused(task.module), task.input_shape, n_steps)


def sinabs_normalized(task: Task, n_steps: int) -> PeerNet:
    """Return the same after sinabs' ``normalize_weights`` on the mean input of a step, at its default percentile."""
    mean_step = task.calibration.frames * np.float32(task.calibration.gain(n_steps) / n_steps)
    return _sinabs(normalized(task.module, mean_step), task.input_shape, n_steps)


def normalized(module: nn.Module, frames: NDArray[np.float32]) -> nn.Module:
    """Return a chain as sinabs' ``normalize_weights`` rescales it on ``frames``, at its default percentile."""
    import torch
    from sinabs.utils import normalize_weights
    from torch import nn

    chain = fused(module)
    layers = dict(chain.named_children())
    weighted = [name for name, layer in layers.items() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    rectified = [name for name, layer in layers.items() if isinstance(layer, nn.ReLU)]
    normalize_weights(chain, torch.from_numpy(frames), rectified, weighted)
    return chain


def fused(module: nn.Module) -> nn.Sequential:
    """Return a chain without batch normalization, folded into the convolutions before it by torch itself."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    kept: list[tuple[str, nn.Module]] = []
    for name, layer in copy.deepcopy(module).eval().named_children():
        if isinstance(layer, nn.BatchNorm2d):
            last, convolution = kept[-1]
            kept[-1] = last, fuse_conv_bn_eval(convolution, layer)  # type: ignore[type-var]
        else:
            kept.append((f"layer{name}" if name.isdigit() else name, layer))
    chain = nn.Sequential()
    for name, layer in kept:
        chain.add_module(name, layer)
    return chain.eval()


def _sinabs(module: nn.Module, input_shape: Shape3, n_steps: int) -> PeerNet:
    import sinabs.layers as sl
    import torch
    from sinabs import reset_states
    from sinabs.from_torch import from_model

    network = from_model(module, num_timesteps=n_steps).spiking_model
    neurons = [layer for layer in network.modules() if isinstance(layer, sl.IAFSqueeze)]

    def run(raster: torch.Tensor) -> tuple[list[NDArray[np.int64]], NDArray[np.float32]]:
        reset_states(network)
        batch = raster.transpose(0, 1)
        with torch.no_grad(), recorded(neurons) as outputs:
            network(batch.flatten(0, 1))
        counts = [whole[0].reshape(*batch.shape[:2], *whole[0].shape[1:]).sum(1) for whole in outputs]
        return [_maps(count) for count in counts], neurons[-1].v_mem.flatten(1).numpy().copy()

    return PeerNet(convert(module, input_shape).net, run, reads_values=False)


def spikingjelly_max(task: Task, n_steps: int) -> PeerNet:
    """Return SpikingJelly's rate coding scaled by each layer's maximum."""
    return _rate_coding(task, n_steps, "Max")


def spikingjelly_robust(task: Task, n_steps: int) -> PeerNet:
    """Return SpikingJelly's rate coding scaled by each layer's 99.9th percentile."""
    return _rate_coding(task, n_steps, "99.9%")


def spikingjelly_balanced(task: Task, n_steps: int) -> PeerNet:
    """Return SpikingJelly's local threshold balancing: a threshold per channel, potentials that start at half of it."""
    batches = _batches(task.calibration.frames) * _N_PASSES
    return _spikingjelly(task, n_steps, _ann2snn().LocalThresholdBalancingRecipe(batches))


def _rate_coding(task: Task, n_steps: int, mode: str) -> PeerNet:
    return _spikingjelly(task, n_steps, _ann2snn().RateCodingRecipe(_batches(task.calibration.frames), mode=mode))


def _ann2snn() -> Any:
    with quiet():
        from spikingjelly.activation_based import ann2snn
    return ann2snn


def _batches(frames: NDArray[np.float32]) -> list[torch.Tensor]:
    import torch

    return [torch.from_numpy(frames[first : first + _PART]) for first in range(0, len(frames), _PART)]


def _spikingjelly(task: Task, n_steps: int, recipe: Any) -> PeerNet:
    import torch
    from spikingjelly.activation_based.functional import reset_net
    from spikingjelly.activation_based.neuron import HalfThresholdIFNode
    from spikingjelly.activation_based.neuron.base_node import BaseNode

    module = fused(task.module)
    with quiet():
        network = _ann2snn().FXConverter(recipe).convert(copy.deepcopy(module)).eval()
    neurons = [layer for layer in network.modules() if isinstance(layer, BaseNode)]
    after = [layer.scale for name, layer in network.named_modules() if name.endswith("scaler1")]
    gain = task.calibration.gain(n_steps) / n_steps

    def run(steps: torch.Tensor) -> tuple[list[NDArray[np.int64]], NDArray[np.float32]]:
        reset_net(network)
        with torch.no_grad(), quiet(), recorded(neurons) as outputs:
            for step in steps:
                network(step)
        counts = [torch.stack(one).sum(0) for one in outputs]
        return [_maps(count) for count in counts], neurons[-1].v.flatten(1).numpy().copy()

    scales = [np.asarray(scale, np.float64).reshape(-1) for scale in after]
    start = 0.5 if isinstance(neurons[0], HalfThresholdIFNode) else 0.0
    net = rescaled(convert(module, task.input_shape).net, scales, first=gain, start=start)
    return PeerNet(net, run, reads_values=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep SpikingJelly's progress bars, and what torch logs about packages that are not there, off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def rescaled(net: SpikingNet, scales: Sequence[NDArray[np.float64]], *, first: float, start: float) -> SpikingNet:
    """Return a chain whose thresholds of 1 stand for ``scales``, one or one per channel, of each layer's activation.

    ``first`` is the number of events of a step that a 1 in a frame becomes, ``start`` the potential at rest. A channel
    of almost no scale was silent in calibration: it stays so, for its weights would take all of the 8 bits.
    """
    layers = []
    before = np.full(1, 1.0 / first)
    for layer, given in zip(net.layers, scales, strict=True):
        scale = np.where(given > _SILENT * given.max(), given, np.inf)
        gain = np.where(np.isfinite(before), before, 0.0)[None, :, None, None] / scale[:, None, None, None]
        layers.append(
            dataclasses.replace(
                layer,
                weight=layer.weight * gain,
                bias=None if layer.bias is None else layer.bias / scale,
                v_min=None,
                v_init=np.full(layer.out_shape, start) if start else None,
            )
        )
        before = scale
    return dataclasses.replace(net, layers=tuple(layers))


@contextlib.contextmanager
def recorded(layers: Sequence[nn.Module]) -> Iterator[list[list[torch.Tensor]]]:
    """Yield a list for each layer, to which it appends what it puts out."""
    outputs: list[list[torch.Tensor]] = [[] for _ in layers]
    handles = [
        layer.register_forward_hook(lambda _layer, _given, made, into=into: into.append(made))
        for layer, into in zip(layers, outputs, strict=True)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _maps(count: torch.Tensor) -> NDArray[np.int64]:
    """Return spike counts of a batch as maps ``[B, F, H, W]``."""
    shape = tuple(count.shape) if count.ndim == 4 else (*count.shape, 1, 1)
    return np.asarray(count.round().long().numpy().reshape(shape))


def trace_of(peer: PeerNet, steps: NDArray[np.float32], counts: NDArray[np.integer[Any]], dt_us: int) -> Trace:
    """Return what a peer's network does, as a trace of ``peer.net``: the ground for predictions and exact synops.

    Shapes: ``steps`` is what it reads, ``[T, B, C, H, W]``; ``counts`` the events behind it, summed over time
    ``[B, C, H, W]``.
    """
    import torch

    parts = [peer.run(torch.tensor(steps[:, first : first + _PART])) for first in range(0, steps.shape[1], _PART)]
    maps = tuple(np.concatenate([part[0][layer] for part in parts]) for layer in range(len(peer.net.layers)))
    potentials = np.concatenate([part[1] for part in parts])
    output = maps[-1].reshape(1, len(potentials), -1)
    return Trace(np.asarray(counts, np.float64), maps, output, potentials, (), None, dt_us)


Peer = Callable[["Task", int], PeerNet]
"""From a task and a number of steps to the network as another converter leaves it."""

SINABS: dict[str, Peer] = {
    "sinabs from_model": sinabs_default,
    "sinabs normalize_weights": sinabs_normalized,
}

SPIKINGJELLY: dict[str, Peer] = {
    "SpikingJelly Max": spikingjelly_max,
    "SpikingJelly 99.9%": spikingjelly_robust,
    "SpikingJelly balanced": spikingjelly_balanced,
}

PEERS = {**SINABS, **SPIKINGJELLY}


def has_spikingjelly() -> bool:
    """Return whether SpikingJelly can be imported here."""
    return all(find_spec(name) for name in ("spikingjelly", "tqdm", "loguru", "requests"))
