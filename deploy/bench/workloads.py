"""What the benchmark of the emulator runs: nets with their weights, their 8-bit programs, and recordings of events."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.dense import currents, fire
from spikeport.convert.pipeline import convert
from spikeport.convert.types import SpikingLayer, SpikingNet
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.types import Program
from spikeport.models.data import gestures, nmnist
from spikeport.models.digits_cnn import digits_cnn, strided_digits_cnn
from spikeport.models.events import Events
from spikeport.models.gesture_cnn import gesture_cnn
from spikeport.models.weights import load_weights

from .tasks import shared_data

if TYPE_CHECKING:
    from torch import nn

CHIP = "speck2fdevkit"

DIGITS_SPIKES = (781_552, 758_647, 235_814, 14_773, 641)
"""Spikes of each layer in the run that the CNN-to-Speck tutorial prints."""

GESTURE_SPIKES = (128_480, 133_535, 99_180, 25_000, 16_092, 5_161, 1_287, 638, 56)
"""Spikes of each layer where the public weights are not there. Source: rates of our own choice, falling with depth."""

_STEP_US = 10_000
_TOLERANCE = 0.01
_N_TRIALS = 24
_GESTURE_WEIGHTS = "sinabs_dvs_gesture_params.pt"
_NMNIST_WEIGHTS = "speckdevkit_nmnist_cnn.npz"


@dataclasses.dataclass(frozen=True)
class Scope:
    """How much a run of the benchmark does.

    Synthetic recordings are ``shrink`` times shorter than they might be; ``n_digits`` and ``n_gestures`` real
    recordings are run, ``n_batch`` together on several threads, ``stream_s`` seconds in pieces of 1 ms, ``n_soak``
    events for the memory; recordings are repeated up to ``most_synops``, and ``n_starts`` processes started.
    """

    repeats: int = 5
    shrink: int = 1
    n_digits: int = 10
    n_gestures: int = 6
    n_batch: int = 8
    stream_s: float = 2.0
    n_soak: int = 10_000_000
    most_synops: int = 10**8
    n_starts: int = 5


QUICK = Scope(
    repeats=2,
    shrink=20,
    n_digits=2,
    n_gestures=1,
    n_batch=4,
    stream_s=0.1,
    n_soak=100_000,
    most_synops=10**6,
    n_starts=1,
)
"""Shows in under a minute that everything runs; its figures are of recordings too short to say anything."""


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """A net, its 8-bit program, and recordings for both; ``weights`` and ``source`` say where they come from.

    ``targets`` are the spikes of each layer that the weights were scaled for, None for weights as they are.
    ``has_all_peers``: every framework runs it, not sinabs alone.
    Units: time steps of ``dt_us``, each recording in one number of ``n_steps``.
    """

    name: str
    net: SpikingNet
    program: Program
    recordings: tuple[Events, ...]
    n_steps: tuple[int, ...]
    weights: str
    source: str
    dt_us: int = _STEP_US
    targets: tuple[int, ...] | None = None
    has_all_peers: bool = True

    @property
    def n_events(self) -> int:
        """Input events of all recordings."""
        return sum(map(len, self.recordings))

    @property
    def duration_s(self) -> float:
        """Time that all recordings last, in whole steps."""
        return sum(self.n_steps) * self.dt_us * 1e-6

    def rasters(self) -> tuple[NDArray[np.float32], ...]:
        """Return each recording in time steps, ``[T, C, H, W]``."""
        merged = self.net.input_shape[0] == 1
        return tuple(
            events.to_raster(self.dt_us, n_bins=n_steps, merge_polarity=merged)
            for events, n_steps in zip(self.recordings, self.n_steps, strict=True)
        )


def digits_workload(scope: Scope) -> Iterator[Workload]:
    """Yield the tutorial's workload: its CNN, 262,628 events in 521 steps of 10 ms, its spikes per layer."""
    n_steps = math.ceil(521 / scope.shrink)
    events = uniform_events((64, 64), n=262_628 * n_steps // 521, duration_us=n_steps * _STEP_US, seed=0)
    targets = tuple(math.ceil(target * n_steps / 521) for target in DIGITS_SPIKES)
    yield _calibrated("digits", _seeded(lambda: digits_cnn(1, size=64)), events, n_steps=n_steps, targets=targets)


def gesture_workload(scope: Scope) -> Iterator[Workload]:
    """Yield the gesture CNN on 100 steps of 1,000 events: its public weights, or else random ones, scaled."""
    n_steps = math.ceil(100 / scope.shrink)
    events = uniform_events((128, 128), n=1_000 * n_steps, duration_us=n_steps * _STEP_US, seed=0)
    module = gesture_cnn()
    file = shared_data() / "weights" / _GESTURE_WEIGHTS
    if not file.is_file():
        targets = tuple(math.ceil(target * n_steps / 100) for target in GESTURE_SPIKES)
        yield _calibrated("gesture", _seeded(gesture_cnn), events, n_steps=n_steps, targets=targets)
        return
    load_weights(module, file)
    net = convert(module, (2, *events.sensor_size)).net
    yield Workload(
        name="gesture",
        net=net,
        program=compile_program(net, CHIP),
        recordings=(events,),
        n_steps=(n_steps,),
        weights=f"public ({file.name} of sinabs)",
        source=_uniform(events, n_steps),
    )


def nmnist_workload(scope: Scope) -> Iterator[Workload]:
    """Yield the N-MNIST CNN of a public Speck project with its weights, on real N-MNIST recordings."""
    module = strided_digits_cnn()
    load_weights(module, shared_data() / "weights" / _NMNIST_WEIGHTS)
    recorded = nmnist(shared_data() / "nmnist", "test")
    net = convert(module, (2, 34, 34)).net
    recordings = tuple(events.from_zero() for events in recorded.recordings[: scope.n_digits])
    yield Workload(
        name="nmnist",
        net=net,
        program=compile_program(net, CHIP),
        recordings=recordings,
        n_steps=tuple(map(_steps, recordings)),
        weights=f"public ({_NMNIST_WEIGHTS} of wzqvip/Sinabs-Speck-Dev-kit)",
        source=f"{len(recordings)} recordings, {recorded.source}",
    )


def recordings_workload(scope: Scope) -> Iterator[Workload]:
    """Yield a workload for each real gesture recording, with the gesture CNN's public weights."""
    module = gesture_cnn()
    load_weights(module, shared_data() / "weights" / _GESTURE_WEIGHTS)
    recorded = gestures(shared_data() / "dvs128_gesture")
    net = convert(module, (2, 128, 128)).net
    program = compile_program(net, CHIP)
    for index, (events, label) in enumerate(zip(recorded.recordings, recorded.labels, strict=True)):
        if index < scope.n_gestures:
            started = events.from_zero()
            yield Workload(
                name=f"{recorded.classes[int(label)]} ({index + 1})",
                net=net,
                program=program,
                recordings=(started,),
                n_steps=(_steps(started),),
                weights=f"public ({_GESTURE_WEIGHTS} of sinabs)",
                source=recorded.source,
                has_all_peers=False,
            )


WORKLOADS: dict[str, tuple[Callable[[Scope], Iterator[Workload]], tuple[str, ...]]] = {
    "digits": (digits_workload, ()),
    "gesture": (gesture_workload, ()),
    "nmnist": (nmnist_workload, (f"weights/{_NMNIST_WEIGHTS}", "nmnist/test.zip")),
    "recordings": (recordings_workload, (f"weights/{_GESTURE_WEIGHTS}", "dvs128_gesture/labels.csv")),
}
"""For each name the workloads, and the files below the folder of real data without which they cannot be."""


def find_missing(name: str) -> str | None:
    """Return what a workload lacks to run here, as a sentence; None where it lacks nothing."""
    lacking = [file for file in WORKLOADS[name][1] if not (shared_data() / Path(file)).is_file()]
    if not lacking:
        return None
    return f"{name}: set SPIKEPORT_DATA to a folder with {' and '.join(lacking)}"


def uniform_events(sensor_size: tuple[int, int], *, n: int, duration_us: int, seed: int) -> Events:
    """Return ``n`` events drawn evenly over sensor, polarities and time.

    Law: equal arguments give equal events.
    """
    rng = np.random.default_rng(seed)
    height, width = sensor_size
    return Events(
        rng.integers(0, width, n, np.int16),
        rng.integers(0, height, n, np.int16),
        rng.integers(0, 2, n, np.int8),
        np.sort(rng.integers(0, duration_us, n)),
        sensor_size,
    )


def scale_to_spikes(
    net: SpikingNet, raster: NDArray[np.float32], targets: Sequence[int]
) -> tuple[SpikingNet, tuple[int, ...]]:
    """Return a chain with each layer's weights scaled so that it spikes as often as asked, and its spikes per layer.

    Layer after layer: the factor is doubled or halved until the target lies between two, then searched by halves of
    its logarithm.
    Shapes: ``raster`` is ``[T, C, H, W]``.
    Law: each count is within 1 % of its target (or the nearest of 24 trials).
    """
    arriving = raster[:, None]
    layers: list[SpikingLayer] = []
    found: list[int] = []
    for index, (layer, target) in enumerate(zip(net.layers, targets, strict=True)):
        (edge,) = net.incoming(index)
        arriving = _sum_pooled(arriving, edge.pool)
        factor, arriving = _search(layer, arriving, target)
        layers.append(dataclasses.replace(layer, weight=layer.weight * np.float32(factor)))
        found.append(int(arriving.sum(dtype=np.float64)))
    return dataclasses.replace(net, layers=tuple(layers)), tuple(found)


def _search(layer: SpikingLayer, arriving: NDArray[np.float32], target: int) -> tuple[float, NDArray[np.float32]]:
    """Return the factor of a layer's weights that makes it spike ``target`` times, and those spikes."""
    current = currents(layer, arriving)
    low, high = -math.inf, math.inf  # of the factor's logarithm to base 2
    now = 0.0
    best = math.inf, now, np.zeros(0, np.float32)
    for _ in range(_N_TRIALS):
        spikes = fire(layer, current * 2.0**now)
        n = float(spikes.sum(dtype=np.float64))
        if abs(n - target) < best[0]:
            best = abs(n - target), now, spikes
        if abs(n - target) <= _TOLERANCE * target:
            break
        low, high = (now, high) if n < target else (low, now)
        now = low + 1 if math.isinf(high) else high - 1 if math.isinf(low) else (low + high) / 2
    return 2.0 ** best[1], best[2]


def _sum_pooled(spikes: NDArray[Any], pool: tuple[int, int]) -> NDArray[Any]:
    """Return maps ``[T, B, F, H, W]`` summed over windows; what fills none falls off."""
    height, width = (size // by for size, by in zip(spikes.shape[3:], pool, strict=True))
    whole = spikes[..., : height * pool[0], : width * pool[1]]
    return np.asarray(whole.reshape(*spikes.shape[:3], height, pool[0], width, pool[1]).sum((4, 6)))


def _calibrated(name: str, module: nn.Module, events: Events, *, n_steps: int, targets: tuple[int, ...]) -> Workload:
    channels = 1 if name == "digits" else 2
    net = convert(module, (channels, *events.sensor_size)).net
    raster = events.to_raster(_STEP_US, n_bins=n_steps, merge_polarity=channels == 1)
    net, _ = scale_to_spikes(net, raster, targets)
    return Workload(
        name=name,
        net=net,
        program=compile_program(net, CHIP),
        recordings=(events,),
        n_steps=(n_steps,),
        weights="random, each layer scaled to a number of spikes",
        source=_uniform(events, n_steps),
        targets=targets,
    )


def _uniform(events: Events, n_steps: int) -> str:
    return f"{len(events):,} events drawn evenly over pixels, polarities and {n_steps} steps of {_STEP_US // 1000} ms"


def _steps(events: Events) -> int:
    return events.duration_us // _STEP_US + 1


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a module with the same random weights in every run."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()
