"""The objective of a search that looks at the chip: the int8 program on the emulator, event by event."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spikeport.convert.judging import Judge, LabelledSamples, Verdict, class_scores, judge_scores
from spikeport.convert.types import SpikingNet
from spikeport.models.events import Events
from spikeport.models.images import step_events

from .assemble import assemble
from .chips import chip as chip_named
from .discretize import discretize, fitted_like
from .emulator import Emulator
from .place import Placement
from .readout import classify, count_classes, output_states
from .relay import with_relays
from .types import Program


def judge_chip(chip: str = "speck2fdevkit", *, slow_clock_hz: float | None = None) -> Judge:
    """Return the judge that runs a net in the chip's integers on the emulator, with the synops that it counts.

    The layers need not fit the cores: integers and the order of events are the same wherever a layer is placed, so
    memory is left to ``plan``. Samples with recordings run as those, others as the events of their raster, those of a
    step together at its end.
    Units: ``slow_clock_hz`` is the rate at which biases are added; None: once per step of the samples.
    Raises: ChipNameError. The judge raises InvalidProgramError for what the chip has no word for (upsampling, a pool
    that is not square), RecordingError for a sample without events.
    """
    name = chip_named(chip).name

    def judge(net: SpikingNet, samples: LabelledSamples) -> Verdict:
        program = _unplaced(net, name)
        emulator = Emulator(program, slow_clock_hz=1e6 / samples.dt_us if slow_clock_hz is None else slow_clock_hz)
        scores, classes, n_synops = [], [], 0
        for events in _events(samples):
            outcome = emulator.run(events)
            scores.append(class_scores(count_classes(outcome, program), output_states(outcome, program)))
            classes.append(classify(outcome, program))
            n_synops += sum(outcome.synops.values())
        return judge_scores(np.stack(scores), np.asarray(classes), samples.labels, n_synops=n_synops)

    return judge


def _unplaced(net: SpikingNet, chip: str) -> Program:
    """Return the program with one core for each layer and relay, however many and large they are."""
    net = fitted_like(with_relays(net, chip_named(chip).limits)[0], net)
    cores = tuple(range(len(net.layers)))
    return assemble(discretize(net), Placement(chip, cores))


def _events(samples: LabelledSamples) -> Iterator[Events]:
    if samples.recordings is not None:
        yield from (recording.from_zero() for recording in samples.recordings)
        return
    for index in range(len(samples)):
        yield step_events(samples.raster[:, index], samples.dt_us)
