"""CNN, spiking net and emulated chip side by side on labelled recordings, and the chip's exact traffic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.rasters import stack_rasters
from spikeport.convert.simulate import STEP_US, simulate
from spikeport.convert.synops import LayerSynops, SynopReport
from spikeport.convert.types import SpikingNet
from spikeport.models.events import Events
from spikeport.models.train import classify_frames

from .emulator import Emulator
from .errors import RecordingError
from .readout import classify
from .report import Accuracy
from .types import Program, Recording

if TYPE_CHECKING:
    from torch import nn

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How many of the same recordings each stage classified right, and what the chip's cores did in all of them."""

    cnn: Accuracy
    spiking: Accuracy
    chip: Accuracy
    synops: SynopReport

    @property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """The three accuracies in the order of the path."""
        return self.cnn, self.spiking, self.chip


def compare(
    module: nn.Module,
    net: SpikingNet,
    *,
    program: Program,
    recordings: Sequence[Events],
    labels: NDArray[np.integer[Any]],
    slow_clock_hz: float | None = None,
) -> Comparison:
    """Return the accuracies of the CNN on whole-recording sums, of the net in steps of 10 ms, and of the emulated chip.

    All three break ties alike: by the values behind the last ReLU, the last potentials, the last states. For a net with
    biases, ``slow_clock_hz`` of 100 adds them on the chip as often as the steps of the simulation do.
    Raises: RecordingError where there are no recordings, or not one label each.
    """
    if not recordings or len(recordings) != len(labels):
        raise RecordingError(
            f"compare: expected recordings with one label each, found {len(recordings)} and {len(labels)} labels. "
            "Try a data set's recordings with its labels."
        )
    emulator = Emulator(program, slow_clock_hz=slow_clock_hz)
    n_cnn, n_spiking, n_chip = 0, 0, 0
    outcomes: list[Recording] = []
    for first in range(0, len(recordings), _BATCH):
        part, truth = recordings[first : first + _BATCH], labels[first : first + _BATCH]
        raster = stack_rasters(part, STEP_US, merge_polarity=net.input_shape[0] == 1)
        n_cnn += int((classify_frames(module, raster.sum(axis=0, dtype=np.float32)) == truth).sum())
        n_spiking += int((simulate(net, raster).predictions() == truth).sum())
        for events, label in zip(part, truth, strict=True):
            outcome = dataclasses.replace(emulator.run(events.from_zero()), spikes={})
            n_chip += classify(outcome, program) == int(label)
            outcomes.append(outcome)
    n = len(recordings)
    seconds = sum(recording.duration_us for recording in recordings) * 1e-6
    return Comparison(
        Accuracy("CNN", n_cnn, n),
        Accuracy("spiking net", n_spiking, n),
        Accuracy("emulated chip", n_chip, n),
        count_traffic(program, outcomes, window_s=seconds / n),
    )


def count_traffic(program: Program, recordings: Sequence[Recording], *, window_s: float) -> SynopReport:
    """Return the exact synops of a program's cores over recordings of ``window_s`` seconds on average.

    Law: equal to the visits that the emulator counted, core by core, and to ``count_synops`` of the same spikes where
    no layer is grouped or dilated. The chip visits the zeros that such a layer is stored with, so there it is more.
    """
    layers = []
    for core in program.cores:
        n_events = sum(recording.n_events[core.core] for recording in recordings)
        n_dropped = sum(recording.n_dropped[core.core] for recording in recordings)
        per_feature = int(np.prod(core.out_shape[1:]))
        layers.append(
            LayerSynops(
                name=core.name,
                n_emitted=n_events + n_dropped,
                n_input_spikes=n_events,
                synops=sum(recording.synops[core.core] for recording in recordings),
                n_output_spikes=sum(recording.n_spikes[core.core] for recording in recordings),
                n_neurons=int(np.prod(core.out_shape)),
                n_leaking=0 if core.bias is None else int(np.count_nonzero(core.bias)) * per_feature,
            )
        )
    return SynopReport(tuple(layers), len(recordings), window_s)
