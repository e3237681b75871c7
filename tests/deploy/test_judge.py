"""The laws of the judge that looks at the chip: the emulated program's classes and synops, placed or not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from spikeport.convert.calibrate import search
from spikeport.convert.choice import SearchSettings
from spikeport.convert.judging import LabelledSamples, label_recordings
from spikeport.convert.normalize import Scaling
from spikeport.convert.pipeline import convert
from spikeport.convert.types import SpikingNet
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import ChipNameError, InvalidProgramError, RecordingError
from spikeport.deploy.judge import judge_chip
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.readout import classify
from spikeport.models.events import Events
from spikeport.models.images import step_events

from .crowded import fan


def samples_of(n: int = 12, *, n_steps: int = 3, shape: tuple[int, int, int] = (2, 8, 8)) -> LabelledSamples:
    rng = np.random.default_rng(0)
    return LabelledSamples(rng.poisson(0.8, (n_steps, n, *shape)), rng.integers(0, 3, n))


def net_of(*, bias: bool = True) -> SpikingNet:
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, bias=bias), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3, bias=bias)),
    )
    scaling = Scaling(spikes=8, n_steps=3, start="half")
    return convert(module, (2, 8, 8), data=samples_of().frames, scaling=scaling).net


@pytest.mark.parametrize("bias", [False, True])
def test_the_verdict_is_that_of_the_compiled_program(bias: bool) -> None:
    net, samples = net_of(bias=bias), samples_of()
    verdict = judge_chip()(net, samples)
    program = compile_program(net, "speck2fdevkit")
    emulator = Emulator(program, slow_clock_hz=1e6 / samples.dt_us)
    outcomes = [emulator.run(step_events(samples.raster[:, i], samples.dt_us)) for i in range(len(samples))]
    expected = [classify(outcome, program) == label for outcome, label in zip(outcomes, samples.labels, strict=True)]
    assert verdict.is_correct.tolist() == expected
    total = sum(sum(outcome.synops.values()) for outcome in outcomes)
    assert verdict.synops_per_sample == total / len(samples)
    assert verdict.bits.argmin(axis=1).tolist() == [classify(outcome, program) for outcome in outcomes]


def test_a_net_with_relays_is_judged_with_them() -> None:
    net, samples = fan(3), samples_of(4)
    verdict = judge_chip()(net, samples)
    emulator = Emulator(compile_program(net))
    outcomes = [emulator.run(step_events(samples.raster[:, i], samples.dt_us)) for i in range(len(samples))]
    assert verdict.synops_per_sample == sum(sum(outcome.synops.values()) for outcome in outcomes) / len(samples)


def test_a_slow_clock_of_its_own_adds_biases_at_its_rate() -> None:
    net, samples = net_of(), samples_of()
    usual, fast = (judge_chip(slow_clock_hz=hz)(net, samples) for hz in (None, 10_000.0))
    same = judge_chip(slow_clock_hz=1e6 / samples.dt_us)(net, samples)
    assert usual.same(same)
    assert not usual.same(fast)


def test_recordings_run_as_they_are_and_not_as_their_bins() -> None:
    rng = np.random.default_rng(1)
    recordings = []
    for _ in range(6):
        t, (y, x) = np.sort(rng.integers(0, 30_000, 300)), rng.integers(0, 8, (2, 300))
        recordings.append(Events(x, y, rng.integers(0, 2, 300), t, (8, 8)))
    samples = label_recordings(recordings, rng.integers(0, 3, 6))
    net = net_of(bias=False)
    emulator = Emulator(compile_program(net, "speck2e"))
    expected = sum(sum(emulator.run(events.from_zero()).synops.values()) for events in recordings)
    verdict = judge_chip("speck2e")(net, samples)
    assert verdict.synops_per_sample == expected / 6
    binned = judge_chip("speck2e")(net, dataclasses.replace(samples, recordings=None))
    assert binned.synops_per_sample != verdict.synops_per_sample


def test_a_net_of_more_layers_than_cores_is_judged_too() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before in (2, *[4] * 10):
        layers += [nn.Conv2d(before, 4, 1, bias=False), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        for layer in module:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight.abs_()
    net = convert(module, (2, 8, 8), data=samples_of().frames).net
    assert len(net.layers) == 12
    verdict = judge_chip()(net, samples_of())
    assert verdict.synops_per_sample > 0
    assert len(verdict.losses) == 12


def test_a_search_may_aim_at_the_chip() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3))
    samples, judge = samples_of(6, n_steps=1), judge_chip()
    found = search(module, (2, 8, 8), samples, objective=judge, settings=SearchSettings(n_kept=1))
    verdict = judge(found.conversion.net, samples)
    assert verdict.accuracy == found.best.accuracy
    assert verdict.synops_per_sample == pytest.approx(found.best.synops_per_sample)


def test_what_the_chip_has_no_word_for_is_refused() -> None:
    with pytest.raises(ChipNameError, match="speck2fdevkit"):
        judge_chip("speck3")
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose2d(2, 3, 2, 2), nn.ReLU(), nn.AvgPool2d(16))
    upsampling = convert(module, (2, 8, 8)).net
    with pytest.raises(InvalidProgramError, match="cannot upsample"):
        judge_chip()(upsampling, samples_of())
    raster = samples_of().raster.copy()
    raster[:, 3] = 0
    with pytest.raises(RecordingError, match="no events"):
        judge_chip()(net_of(), dataclasses.replace(samples_of(), raster=raster))
