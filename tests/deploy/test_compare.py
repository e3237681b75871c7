"""CNN, spiking net and chip side by side; the chip's traffic is exact."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from spikeport.convert import Trace, convert, count_synops
from spikeport.convert.rasters import stack_rasters
from spikeport.deploy import Emulator, classify, compare, compile_program
from spikeport.deploy.compare import count_traffic
from spikeport.deploy.errors import RecordingError
from spikeport.models import Events


def _recordings(n: int = 6, size: int = 14) -> list[Events]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(n):
        count = 200 + 50 * index
        x, y = rng.integers(0, size, (2, count))
        made.append(Events(x, y, rng.integers(0, 2, count), np.sort(rng.integers(0, 60_000, count)), (size, size)))
    return made


@pytest.fixture(scope="module")
def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 8, 2, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32, 5, bias=False), nn.ReLU()),
    )


def test_accuracies_are_those_of_each_stage_by_itself(cnn: nn.Sequential) -> None:
    recordings = _recordings()
    frames = np.stack([events.to_raster(60_000, n_bins=1)[0] for events in recordings])
    net = convert(cnn, (2, 14, 14), data=frames).net
    program = compile_program(net)
    emulator = Emulator(program)
    answers = np.array([classify(emulator.run(events), program) for events in recordings])
    with torch.no_grad():
        cnn_answers = cnn(torch.from_numpy(frames)).argmax(1).numpy()
    found = compare(cnn, net, program=program, recordings=recordings, labels=answers)
    assert (found.chip.n_right, found.chip.n) == (6, 6)
    assert found.cnn.n_right == int((cnn_answers == answers).sum())
    assert [one.name for one in found.accuracies] == ["CNN", "spiking net", "emulated chip"]


def test_synops_of_spike_counts_equal_the_visits_of_the_emulator(cnn: nn.Sequential) -> None:
    recordings = _recordings()
    frames = np.stack([events.to_raster(60_000, n_bins=1)[0] for events in recordings])
    net = convert(cnn, (2, 14, 14), data=frames).net
    program = compile_program(net)
    for events, frame in zip(recordings, frames, strict=True):
        outcome = Emulator(program).run(events)
        ids = [core.core for core in program.cores]
        trace = Trace(
            input_counts=frame[None],
            counts=tuple(outcome.counts[core][None] for core in ids),
            output=np.zeros((1, 1, 5), np.int64),
            output_states=np.zeros((1, 5), np.float32),
            states=tuple(outcome.states[core][None].astype(np.float32) for core in ids),
            spikes=None,
            dt_us=60_000,
        )
        exact = count_synops(net, trace)
        visited = count_traffic(program, [outcome], window_s=trace.window_s)
        assert [layer.synops for layer in exact.layers] == [outcome.synops[core] for core in ids]
        traffic = [dataclasses.replace(layer, n_macs=None, average_fan_out=None) for layer in exact.layers]
        assert traffic == list(visited.layers)  # a program does not know the CNN's multiply-accumulates
        assert exact.total == visited.total == sum(outcome.synops.values()) > 0


def test_rasters_side_by_side_hold_every_event() -> None:
    recordings = _recordings()
    raster = stack_rasters(recordings, 10_000, merge_polarity=False)
    assert raster.shape[1:] == (6, 2, 14, 14)
    assert raster.sum(axis=(0, 2, 3, 4)).tolist() == [len(events) for events in recordings]


def test_labels_must_match_the_recordings(cnn: nn.Sequential) -> None:
    net = convert(cnn, (2, 14, 14)).net
    for recordings, labels in (([], np.zeros(0, int)), (_recordings(2), np.zeros(3, int))):
        with pytest.raises(RecordingError, match="one label each"):
            compare(cnn, net, program=compile_program(net), recordings=recordings, labels=labels)
