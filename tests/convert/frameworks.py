"""Nets of other frameworks and the NIR files that these write: each with the spikes of the net itself.

All weights are multiples of 1/16, so that sums are exact in any order and spikes can be compared one by one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

INPUT_SHAPE = (2, 8, 8)


@dataclasses.dataclass(frozen=True)
class Exported:
    """A NIR file, a raster ``[T, C, H, W]`` and the spikes ``[T, classes]`` that the framework's own net gives."""

    path: Path
    raster: NDArray[np.float32]
    spikes: NDArray[np.int64]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let the frameworks' own warnings pass: they are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"), contextlib.redirect_stdout(None):
            yield


def peer(name: str) -> Any:
    """Return a module of another framework, or skip."""
    with quiet():
        return pytest.importorskip(name, exc_type=ImportError)


def exported(graph: Any, path: Path, raster: NDArray[np.float32], spikes: torch.Tensor) -> Exported:
    import nir

    known = _known(graph.to_dict())
    graph.to_dict = lambda: known
    nir.write(path, graph)
    return Exported(path, raster, spikes.detach().flatten(1).round().long().numpy())


def _known(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out shapes that an exporter left open: nir 1.0.4 cannot write them, and reads files without."""
    return {
        key: _known(value) if isinstance(value, dict) else value for key, value in tree.items() if value is not None
    }


def rounded(module: nn.Module, *, seed: int = 0, largest: int = 8) -> nn.Module:
    """Draw weights that are multiples of 1/16."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight.copy_(
                    torch.randint(-largest + 2, largest + 1, layer.weight.shape, generator=generator) / 16
                )
                if layer.bias is not None:
                    layer.bias.copy_(torch.randint(-1, 2, layer.bias.shape, generator=generator) / 16)
    return module


def sparse_raster(n_steps: int, share: float, *, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.random((n_steps, *INPUT_SHAPE)) < share).astype(np.float32)


def one_event_a_step(n_steps: int, *, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    raster = np.zeros((n_steps, *INPUT_SHAPE), np.float32)
    for frame in raster:
        frame.flat[rng.integers(frame.size)] = 1
    return raster


def stepwise(module: nn.Module, raster: NDArray[np.float32]) -> torch.Tensor:
    """Run a module that keeps its own state step by step."""
    with torch.no_grad():
        return torch.stack([module(torch.from_numpy(frame)[None])[0] for frame in raster])


def of_sinabs(path: Path) -> Exported:
    sinabs_nir, sl = peer("sinabs.nir"), peer("sinabs.layers")
    neurons = {"batch_size": 1, "spike_threshold": torch.tensor(0.75), "min_v_mem": None}
    module = rounded(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, stride=2),
            sl.IAFSqueeze(**neurons),
            nn.Conv2d(4, 4, 3, groups=2, padding=2, dilation=2, bias=False),
            sl.IAFSqueeze(**neurons),
            sl.SumPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 5),
            sl.IAFSqueeze(**neurons),
        )
    )
    raster = sparse_raster(40, 0.2)
    with quiet(), torch.no_grad():
        spikes = module(torch.from_numpy(raster))
        graph = sinabs_nir.to_nir(module, torch.zeros(1, *INPUT_SHAPE))
    return exported(graph, path, raster, spikes)


def of_snntorch(path: Path) -> Exported:
    snn, export = peer("snntorch"), peer("snntorch.export_nir")
    module: Any = rounded(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, bias=False),
            snn.Leaky(beta=1.0, threshold=1 - 2**-14, init_hidden=True),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(27, 5, bias=False),
            snn.Leaky(beta=1.0, threshold=1 - 2**-14, init_hidden=True),
        ),
        largest=4,
    )
    with quiet():
        graph = export.export_to_nir(module, torch.zeros(1, *INPUT_SHAPE))
        for layer in module:
            if isinstance(layer, snn.Leaky):
                layer.reset_mem()
        raster = sparse_raster(60, 0.05)
        spikes = stepwise(module, raster)
    return exported(graph, path, raster, spikes)


def of_norse(path: Path) -> Exported:
    """Norse fires above the threshold and sets the potential to 0: where each step adds 1/4 or nothing, a threshold
    just below 1 leaves nothing over to speak of.
    """
    norse, export = peer("norse.torch"), peer("norse.torch.utils.export_nir")
    parameters = norse.IAFParameters(v_th=torch.tensor(float(np.nextafter(np.float32(1), np.float32(0)))))
    first, second = nn.Conv2d(2, 1, 2, 2), nn.Conv2d(1, 5, 4)
    with torch.no_grad():
        first.weight.fill_(0.25)
        second.weight.copy_(torch.randint(-1, 2, second.weight.shape, generator=torch.Generator().manual_seed(0)) / 4)
        for layer in (first, second):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # they have one: the exporter asks for it
    cells = norse.IAFCell(parameters), norse.IAFCell(parameters)
    module = norse.SequentialState(first, cells[0], second, cells[1])
    raster = one_event_a_step(600)
    with quiet(), torch.no_grad():
        state, out = None, []
        for frame in raster:
            spikes, state = module(torch.from_numpy(frame)[None], state)
            out.append(spikes[0])
        graph = export.to_nir(module, torch.zeros(1, *INPUT_SHAPE))
    return exported(graph, path, raster, torch.stack(out))


def of_spikingjelly(path: Path, *, dt_s: float = 1e-4) -> Exported:
    """SpikingJelly sets the potential to 0: where each step adds 1/4 or nothing, nothing is left over."""
    import nir
    import nirtorch

    neuron, layer = peer("spikingjelly.activation_based.neuron"), peer("spikingjelly.activation_based.layer")
    export = peer("spikingjelly.activation_based.nir_exchange.to_nir")
    module: Any = nn.Sequential(
        layer.Conv2d(2, 1, 2, 2, bias=False), neuron.IFNode(), layer.Flatten(), layer.Linear(16, 5), neuron.IFNode()
    )
    with torch.no_grad():
        module[0].weight.fill_(0.25)
        module[3].weight.copy_(torch.randint(-1, 2, (5, 16), generator=torch.Generator().manual_seed(0)) / 4)
        module[3].bias.zero_()
    raster = one_event_a_step(600)
    spikes = stepwise(module, raster)

    @dataclasses.dataclass(eq=False)
    class IF(nir.IF):  # type: ignore[misc]  # nir has no types
        """The IF node of nir 1.0.6 and later, which SpikingJelly writes and sinabs' nir 1.0.4 lacks."""

        v_reset: Any = None

    module[1].reset()
    module[4].reset()

    def torch_to_nir(module: nn.Module, node_map: Any, type_check: bool) -> Any:
        """What nirtorch 2.6 takes; the older one that nir 1.0.4 goes with has no type check."""
        return to_nir(module, node_map)

    to_nir = nirtorch.torch_to_nir
    with quiet(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nir, "IF", IF)
        patch.setattr(nirtorch, "torch_to_nir", torch_to_nir)
        graph = export.export_to_nir(module, torch.zeros(1, *INPUT_SHAPE), dt=dt_s)
        return exported(graph, path, raster, spikes)


FRAMEWORKS = {"sinabs": of_sinabs, "snntorch": of_snntorch, "norse": of_norse, "spikingjelly": of_spikingjelly}
