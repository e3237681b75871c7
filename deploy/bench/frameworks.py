"""A net of ours on other frameworks, in time steps: sinabs, SpikingJelly, snnTorch, Norse, by their own neurons."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from spikeport.convert.dense import to_sinabs

from .peers import INSTALL_SPIKINGJELLY, quiet, recorded

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from spikeport.convert.types import SpikingNet

Stage = tuple["nn.Module", "nn.Module", "nn.Module"]
"""What a layer is: convolution, neurons, sum pool."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stepper:
    """A net in the layers of one framework.

    ``run`` takes one recording ``[T, 1, C, H, W]`` from rest and returns the output spikes; ``neurons`` are its modules
    that spike, in the order of the layers.
    """

    run: Callable[[torch.Tensor], torch.Tensor]
    neurons: tuple[nn.Module, ...]

    def spikes(self, raster: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the spikes of each layer, ``[T, F, H, W]``, for a recording ``[T, C, H, W]``."""
        import torch

        with torch.no_grad(), recorded(self.neurons) as outputs, _silent():
            self.run(torch.from_numpy(raster)[:, None])
        found = []
        for made in outputs:
            parts = [one[0] if isinstance(one, tuple) else one for one in made]
            found.append(torch.cat([part.reshape(-1, *part.shape[-3:]) for part in parts]).numpy())
        return found


@dataclasses.dataclass(frozen=True)
class Framework:
    """A way to run a net in time steps: what it must have installed, and in which way it is not sinabs' rule."""

    package: str
    install: str
    build: Callable[[SpikingNet], Stepper]
    differs: str | None


def sinabs_whole(net: SpikingNet) -> Stepper:
    """Return the net in sinabs' layers, which take all steps in one call."""
    module = to_sinabs(net)

    def run(raster: torch.Tensor) -> torch.Tensor:
        _reset_sinabs(module)
        return module(raster[:, 0])  # type: ignore[no-any-return]

    return Stepper(run, _spiking(module))


def sinabs_steps(net: SpikingNet) -> Stepper:
    """Return the net in sinabs' layers, called once for each step."""
    import torch

    module = to_sinabs(net)

    def run(raster: torch.Tensor) -> torch.Tensor:
        _reset_sinabs(module)
        return torch.cat([module(step) for step in raster])

    return Stepper(run, _spiking(module))


def spikingjelly_whole(net: SpikingNet) -> Stepper:
    """Return the net with SpikingJelly's neurons, all steps of a layer in one call (torch back-end)."""
    stages = _spikingjelly(net, "m")

    def run(raster: torch.Tensor) -> torch.Tensor:
        x = raster
        for conv, neurons, pool in stages:
            neurons.reset()  # type: ignore[operator]
            x = neurons(conv(x.flatten(0, 1))[:, None])
            x = pool(x.flatten(0, 1))[:, None]
        return x

    return Stepper(run, tuple(neurons for _, neurons, _ in stages))


def spikingjelly_steps(net: SpikingNet) -> Stepper:
    """Return the net with SpikingJelly's neurons, called once for each step."""
    stages = _spikingjelly(net, "s")

    def start() -> None:
        for _, neurons, _ in stages:
            neurons.reset()  # type: ignore[operator]

    return _stepwise(stages, lambda neurons, x, _: (neurons(x), None), start)


def snntorch_steps(net: SpikingNet) -> Stepper:
    """Return the net with snnTorch's Leaky neurons without a leak, reset by subtraction, called once for each step."""
    with _silent():
        import snntorch

    stages = _stages(net, lambda threshold: snntorch.Leaky(beta=1.0, threshold=threshold, reset_mechanism="subtract"))

    def fire(neurons: nn.Module, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        spikes, state = neurons(x, neurons.init_leaky() if state is None else state)  # type: ignore[operator]
        return spikes, state

    return _stepwise(stages, fire)


def norse_steps(net: SpikingNet) -> Stepper:
    """Return the net with Norse's integrate-and-fire cells, called once for each step."""
    import torch

    with _silent():
        import norse.torch as norse

    stages = _stages(net, lambda threshold: norse.IAFCell(norse.IAFParameters(v_th=torch.tensor(threshold))))
    return _stepwise(stages, lambda neurons, x, state: neurons(x, state))


_ONCE = "one spike a step at most, no lower bound"

FRAMEWORKS: dict[str, Framework] = {
    "sinabs, one call": Framework("sinabs", "pip install sinabs", sinabs_whole, None),
    "sinabs, step by step": Framework("sinabs", "pip install sinabs", sinabs_steps, None),
    "SpikingJelly, multi-step": Framework(
        "spikingjelly.activation_based.neuron", INSTALL_SPIKINGJELLY, spikingjelly_whole, _ONCE
    ),
    "SpikingJelly, single-step": Framework(
        "spikingjelly.activation_based.neuron", INSTALL_SPIKINGJELLY, spikingjelly_steps, _ONCE
    ),
    "snnTorch": Framework(
        "snntorch", "pip install --no-deps snntorch", snntorch_steps, f"{_ONCE}, spikes above the threshold only"
    ),
    "Norse": Framework(
        "norse.torch", "pip install --no-deps norse", norse_steps, f"{_ONCE}, a spike sets the potential to 0"
    ),
}

SINABS = tuple(name for name, framework in FRAMEWORKS.items() if framework.package == "sinabs")


def find_frameworks() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of those that can be imported here, and for each other package how to install it."""
    there: list[str] = []
    absent: dict[str, str] = {}
    for name, framework in FRAMEWORKS.items():
        try:
            with _silent():
                import_module(framework.package)
        except ImportError:
            absent[framework.package] = f"{name.partition(',')[0]}: {framework.install}"
        else:
            there.append(name)
    return tuple(there), tuple(absent.values())


def _stages(net: SpikingNet, neurons: Callable[[float], Any]) -> list[Stage]:
    """Return the layers of a chain: sinabs' convolutions, other neurons, and a plain sum pool."""
    from torch import nn

    convs = [module for module in to_sinabs(net).children() if isinstance(module, nn.Conv2d)]
    stages: list[Stage] = []
    for index, (conv, layer) in enumerate(zip(convs, net.layers, strict=True)):
        (after,) = net.outgoing(index)
        pool = nn.Identity() if after.pool == (1, 1) else nn.AvgPool2d(after.pool, divisor_override=1)
        stages.append((conv, neurons(layer.threshold), pool))
    return stages


def _stepwise(
    stages: Sequence[Stage],
    fire: Callable[[nn.Module, torch.Tensor, Any], tuple[torch.Tensor, Any]],
    start: Callable[[], None] = lambda: None,
) -> Stepper:
    """Return a stepper that takes each step through all layers; ``fire`` gets and gives the state of the neurons."""
    import torch

    def run(raster: torch.Tensor) -> torch.Tensor:
        start()
        states: list[Any] = [None] * len(stages)
        out = []
        for x in raster:
            for index, (conv, neurons, pool) in enumerate(stages):
                x, states[index] = fire(neurons, conv(x), states[index])
                x = pool(x)
            out.append(x)
        return torch.cat(out)

    return Stepper(run, tuple(neurons for _, neurons, _ in stages))


def _spikingjelly(net: SpikingNet, step_mode: str) -> list[Stage]:
    import torch

    with _silent(), torch.no_grad():
        from spikingjelly.activation_based.neuron import IFNode

        stages = _stages(net, lambda threshold: IFNode(v_threshold=threshold, v_reset=None, step_mode=step_mode))
        stages[0][1](torch.zeros(1, 1, *net.layers[0].out_shape))  # its first call says what it does not find
    return stages


def _spiking(module: nn.Sequential) -> tuple[nn.Module, ...]:
    return tuple(layer for layer in module if hasattr(layer, "reset_states"))


def _reset_sinabs(module: nn.Sequential) -> None:
    for layer in _spiking(module):
        layer.reset_states()  # type: ignore[operator]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what frameworks print, log and warn of at their import off the screen."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(None), quiet():
        warnings.simplefilter("ignore")
        yield
