"""CNN, spiking net and emulated chip side by side on labelled recordings, and the chip's exact traffic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import fan_out, sum_pooled
from spikeport.convert.rasters import stack_rasters
from spikeport.convert.simulate import STEP_US, simulate
from spikeport.convert.synops import EdgeTraffic, LayerSynops, SynopReport
from spikeport.convert.types import SpikingNet
from spikeport.models.events import Events
from spikeport.models.train import classify_frames

from .emulator import Emulator
from .errors import RecordingError
from .readout import classify
from .report import Accuracy
from .types import CoreProgram, Program, Recording

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
    Events of the input are counted behind the input stage, those of each edge as in ``count_synops``.
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
    sent = [_sent(program, core, recordings) for core in program.cores]
    between = [edge for edges in sent for edge in edges]
    by_id = {core.core: layer for core, layer in zip(program.cores, layers, strict=True)}
    read = [_read(program.core(core), by_id[core], between) for core in program.entry]
    return SynopReport(
        tuple(layers),
        len(recordings),
        window_s,
        edges=(*read, *between),
        n_input_events=max((edge.n_routed for edge in read), default=None),
    )


def _sent(program: Program, core: CoreProgram, recordings: Sequence[Recording]) -> list[EdgeTraffic]:
    """Return what a core sent to each of its destinations, over all recordings."""
    counts = np.zeros(core.out_shape, np.int64)
    for recording in recordings:
        counts += recording.counts[core.core]
    edges = []
    for end in core.destinations:
        pool = end.pool, end.pool
        if end.core is None:
            name, arrived, synops = None, int(sum_pooled(counts, pool).sum()), 0
        else:
            target = program.core(end.core)
            name, (channels, height, width) = target.name, target.in_shape
            whole = np.pad(counts, ((0, 0), *((0, -edge % end.pool) for edge in counts.shape[1:])))  # addresses divide
            kept = sum_pooled(whole[: max(0, channels - end.feature_shift)], pool)[:, :height, :width].sum(axis=0)
            reach = fan_out(target.in_shape, target.weight.shape, target.window)[: kept.shape[0], : kept.shape[1]]
            arrived, synops = int(kept.sum()), int((kept * reach).sum())
        edges.append(EdgeTraffic(core.name, name, pool, end.feature_shift, int(counts.sum()), arrived, synops))
    return edges


def _read(core: CoreProgram, layer: LayerSynops, sent: Sequence[EdgeTraffic]) -> EdgeTraffic:
    """Return what an entry core read from the input: all that came, less what other cores sent."""
    others = [edge for edge in sent if edge.target == core.name]
    return EdgeTraffic(
        source=None,
        target=core.name,
        pool=(1, 1),
        feature_shift=0,
        n_routed=layer.n_emitted - sum(edge.n_routed for edge in others),
        n_arrived=layer.n_input_spikes - sum(edge.n_arrived for edge in others),
        synops=layer.synops - sum(edge.synops for edge in others),
    )
