"""Convert each network of the benchmark by each converter, and measure accuracies, synops and the emulated chip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.calibrate import search
from spikeport.convert.judging import LabelledSamples
from spikeport.convert.normalize import Scaling
from spikeport.convert.pipeline import convert
from spikeport.convert.simulate import simulate
from spikeport.convert.store import net_hash
from spikeport.convert.synops import count_synops
from spikeport.convert.types import SpikingNet, Trace
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DoesNotFitError
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.readout import classify

from .finetuned import spikeport_finetuned
from .parity import Parity, compare_biases
from .peers import PEERS, PeerNet, trace_of
from .tasks import STEP_US, Effort, Samples, Task, in_counts, make_task

CHIP = "speck2fdevkit"


@dataclasses.dataclass(frozen=True)
class Row:
    """One converted network, tested.

    Units: accuracies are shares of the test samples, synops are per sample; ``chip`` and ``chip_synops`` are of the
    8-bit program on the emulator, None where it does not fit the chip; ``on_chip_samples`` is the share of those fewer
    samples that the spiking net classifies right. ``n_events`` is the mean number of input events.
    """

    task: str
    seed: int
    method: str
    n_steps: int
    cnn: float
    spiking: float
    synops: float
    chip: float | None
    chip_synops: float | None
    n_events: float
    on_chip_samples: float


Converted = Callable[[Task, int], SpikingNet]
"""From a task and a number of steps to a spiking net that reads event counts."""


def spikeport_default(task: Task, n_steps: int) -> SpikingNet:
    """Return ``convert`` with calibration frames and every other option left as it is."""
    gain = task.calibration.gain(n_steps)
    module, frames = in_counts(task.module, gain), task.calibration.frames * np.float32(gain)
    return convert(module, task.input_shape, data=frames, scaling=Scaling(n_steps=n_steps)).net


def spikeport_auto(task: Task, n_steps: int) -> SpikingNet:
    """Return what ``search`` finds on labelled training samples, as ``convert --scale auto`` does."""
    samples = task.labelled
    module = in_counts(task.module, samples.gain(n_steps))
    labelled = LabelledSamples(samples.raster(n_steps), samples.labels, samples.recordings, STEP_US)
    return search(module, task.input_shape, labelled).conversion.net


OURS: dict[str, Converted] = {
    "spikeport default": spikeport_default,
    "spikeport fine-tuned": spikeport_finetuned,
    "spikeport auto": spikeport_auto,
}
"""The aims of the benchmark are about the last one."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What one network of the benchmark came to, and a sentence about it."""

    rows: tuple[Row, ...]
    parity: tuple[Parity, ...]
    said: str


def measure_part(wanted: tuple[str, int, Effort, Path | None, tuple[str, ...]]) -> Part:
    """Return the rows of one network on one thread.

    ``wanted`` holds its task and seed, the effort, the folder of trained weights, and the methods: one value, so that
    another process can be given it.
    """
    import torch

    torch.set_num_threads(1)
    name, seed, effort, cache, methods = wanted
    task = make_task(name, seed, effort=effort, cache=cache)
    said = f"{name}, seed {seed}: CNN {task.accuracy():.1%} of {len(task.test)} test samples"
    parity = []
    if name == "animals":
        parity.append(compare_biases(f"biases, animals CNN {seed}", task.module, task.calibration.frames))
    return Part(tuple(measure(task, effort, methods=methods)), tuple(parity), said)


def measure(task: Task, effort: Effort, *, methods: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each number of steps and method, all on the same network and the same events."""
    cnn = task.accuracy()
    chip = _Chip(task, effort.n_chip)
    for n_steps in effort.steps:
        raster = task.test.raster(n_steps)
        n_events = float(raster.sum(dtype=np.int64)) / len(task.test)
        for method in methods:
            if method == "spikeport fine-tuned" and n_steps not in effort.finetuned_steps:
                continue
            net, trace = _answer(method, task, n_steps, raster=raster)
            right, chip_synops = chip.run(net, n_steps)
            yield Row(
                task=task.name,
                seed=task.seed,
                method=method,
                n_steps=n_steps,
                cnn=cnn,
                spiking=_share(trace, task.test),
                synops=count_synops(net, trace).total / len(task.test),
                chip=right,
                chip_synops=chip_synops,
                n_events=n_events,
                on_chip_samples=_share(trace, task.test, len(chip.samples)),
            )


def _share(trace: Trace, samples: Samples, n: int | None = None) -> float:
    """Return the share of the first ``n`` samples that are classified right, of all without it."""
    return float((trace.predictions() == samples.labels)[:n].mean())


def _answer(method: str, task: Task, n_steps: int, *, raster: NDArray[Any]) -> tuple[SpikingNet, Trace]:
    """Return a converted net and what it does in time steps with the test samples."""
    if method in OURS:
        net = OURS[method](task, n_steps)
        return net, simulate(net, raster, dt_us=STEP_US)
    peer = PEERS[method](task, n_steps)
    if peer.reads_values:
        return peer.net, _better(peer, task.test, n_steps, raster=raster)
    return peer.net, trace_of(peer, raster.astype(np.float32), counts=raster.sum(0), dt_us=STEP_US)


def _better(peer: PeerNet, samples: Samples, n_steps: int, *, raster: NDArray[Any]) -> Trace:
    """Return the better of two ways to feed SpikingJelly: the raster as values of a frame, or the frame in each step.

    A frame in each step is no event: its pixels that are not 0 count as one input each, and their synops are products.
    """
    as_values = raster.astype(np.float32) * np.float32(n_steps / samples.gain(n_steps))
    by_events = trace_of(peer, as_values, counts=raster.sum(0), dt_us=STEP_US)
    repeated = np.broadcast_to(samples.frames, raster.shape)
    by_frames = trace_of(peer, repeated, counts=(repeated != 0).sum(0), dt_us=STEP_US)
    return max(by_events, by_frames, key=lambda trace: _share(trace, samples))


class _Chip:
    """The emulated chip with the first test samples of a task; a net that it has seen there is not run again."""

    def __init__(self, task: Task, n_chip: int) -> None:
        self.samples = task.test.first(n_chip)
        self.known: dict[tuple[str, int], tuple[float | None, float | None]] = {}

    def run(self, net: SpikingNet, n_steps: int) -> tuple[float | None, float | None]:
        """Return the share of samples that the 8-bit program of ``net`` classifies right, and its synops per sample."""
        key = net_hash(net), 0 if self.samples.recordings is not None else n_steps
        if key not in self.known:
            self.known[key] = self._run(net, n_steps)
        return self.known[key]

    def _run(self, net: SpikingNet, n_steps: int) -> tuple[float | None, float | None]:
        try:
            program = compile_program(net, CHIP)
        except DoesNotFitError:
            return None, None
        has_bias = any(layer.bias is not None for layer in net.layers)
        emulator = Emulator(program, slow_clock_hz=1e6 / STEP_US if has_bias else None)
        n_right, synops = 0, 0
        for events, label in zip(self.samples.events(n_steps), self.samples.labels, strict=True):
            if not len(events):
                continue  # a dark image at few steps: no event, no answer
            recording = emulator.run(events)
            n_right += classify(recording, program) == int(label)
            synops += sum(recording.synops.values())
        return n_right / len(self.samples), synops / len(self.samples)
