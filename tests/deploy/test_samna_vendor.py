"""The vendor's own path to the chip and ours: the same configuration, the same spikes, the same verdict.

The vendor's library runs unchanged, in a process in which the virtual driver stands where the real one would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = '''
"""Arguments: what to compare, first seed, number of nets. Prints a JSON list, one entry per net."""
import contextlib, io, json, sys, warnings
from dataclasses import replace
import numpy as np
from spikeport.deploy import virtual
virtual.install(devices=["speck2fdevkit", "speck2fdevkit"])
import samna, torch
from sinabs.from_torch import from_model
from sinabs.backend.dynapcnn import DVSLayer, DynapcnnNetwork
from spikeport.convert import convert
from spikeport.deploy import DvsConfig, compile_program, plan, with_dvs
from spikeport.deploy.devkit import open_board
from spikeport.deploy.play import Pace
from spikeport.deploy.samna_config import configure
from spikeport.models.events import Events

warnings.simplefilter("ignore")
torch.set_num_threads(1)
GAP_US, LEAD_US = 100, 200_000


def random_cnn(seed, wide=False):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    edge, channels = int(rng.choice([32, 64, 128] if wide else [8, 11, 16])), int(rng.integers(1, 3))
    shape, layers = (channels, edge, edge), []
    for index in range(int(rng.integers(1, 6 if wide else 4))):
        features = int(rng.integers(1, 48 if wide and index else 17 if wide else 7))
        kernel = int(rng.integers(1, min(5, edge) + 1))
        padding = int(rng.integers(0, kernel))
        stride = 2 if edge > 64 else int(rng.choice([1, 1, 2])) if edge > 6 else 1
        layers += [torch.nn.Conv2d(channels, features, kernel, stride, padding, bias=bool(rng.random() < 0.4))]
        layers += [torch.nn.ReLU()]
        edge, channels = (edge + 2 * padding - kernel) // stride + 1, features
        pool = int(rng.choice([1, 1, 2, 4]))
        if pool > 1 and edge >= pool:
            layers += [torch.nn.AvgPool2d(pool)]
            edge //= pool
    if edge <= 16 and (rng.random() < 0.8 or isinstance(layers[-1], torch.nn.AvgPool2d)):
        layers += [torch.nn.Flatten(), torch.nn.Linear(channels * edge**2, int(rng.integers(2, 12)), bias=False)]
        layers += [torch.nn.ReLU()]
    if isinstance(layers[-1], torch.nn.AvgPool2d):
        layers.pop()
    with torch.no_grad():
        for layer in layers:
            if hasattr(layer, "weight"):
                lift = layer.weight.abs().mean() * 2 * float(rng.random())
                layer.weight.copy_(4 * layer.weight + lift)  # so that it spikes
    return torch.nn.Sequential(*layers), shape


def both(seed, wide=False):
    cnn, shape = random_cnn(seed, wide)
    snn = from_model(cnn, input_shape=shape, batch_size=1).spiking_model
    theirs = DynapcnnNetwork(snn, input_shape=shape, discretize=True)
    # The vendor's library traces a net by running it, and deploys the states that this leaves where there are biases.
    states = [layer.v_mem[0].detach().numpy() for layer in snn if hasattr(layer, "v_mem")]
    net = convert(cnn, shape).net
    pairs = zip(net.layers, states, strict=True)
    layers = tuple(replace(layer, v_init=state.reshape(layer.out_shape)) for layer, state in pairs)
    return theirs, replace(net, layers=layers)


def compare_configurations(seed):
    theirs, net = both(seed)
    program = compile_program(net)
    cores = {index: core.core for index, core in enumerate(program.cores)}
    found = theirs.make_config(layer2core_map=cores, device="speck2fdevkit:0")
    return {"layers": len(cores), "same": configure(program, samna.speck2f).to_json() == found.to_json()}


def compare_cameras(seed):
    rng = np.random.default_rng(seed)
    pool, merge, swap = tuple(map(int, rng.choice([1, 2, 4], 2))), bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    tall, wide = 128 // pool[0], 128 // pool[1]
    height = int(rng.integers(8, min(tall, wide) + 1))
    width = height if swap else int(rng.integers(8, wide + 1))
    top, left = int(rng.integers(0, tall - height + 1)), int(rng.integers(0, wide - width + 1))
    crop, (flip_x, flip_y) = ((top, top + height), (left, left + width)), map(bool, rng.integers(0, 2, 2))
    channels = 1 if merge else 2
    torch.manual_seed(seed)
    cnn = torch.nn.Sequential(torch.nn.Conv2d(channels, 3, 3, 2, bias=False), torch.nn.ReLU())
    snn = from_model(cnn, input_shape=(channels, height, width), batch_size=1).spiking_model
    camera = DVSLayer((128, 128), pool, crop, merge, flip_x, flip_y, swap)
    theirs = DynapcnnNetwork(torch.nn.Sequential(camera, *snn), input_shape=(channels, 128, 128), dvs_input=None)
    program = compile_program(convert(cnn, (channels, height, width)).net)
    program = with_dvs(program, DvsConfig((2, 128, 128), merge, pool, crop, (flip_y, flip_x), swap))
    cores = dict.fromkeys(theirs.dynapcnn_layers, program.cores[0].core)
    found = theirs.make_config(layer2core_map=cores, device="speck2edevkit:0")
    return {"same": configure(program, samna.speck2e).to_json() == found.to_json()}


def compare_spikes(seed, ours=[]):
    theirs, net = both(seed)
    program = compile_program(net)
    cores = {index: core.core for index, core in enumerate(program.cores)}
    theirs.to("speck2fdevkit:0", layer2core_map=cores, monitor_layers="all")
    rng = np.random.default_rng(seed)
    n, (channels, height, width) = 80, net.input_shape
    x, y, p = rng.integers(0, width, n), rng.integers(0, height, n), rng.integers(0, 2, n)
    events = Events(x, y, p, np.arange(n) * GAP_US, (height, width))
    sent = []
    for index in range(n):
        spike = samna.speck2f.event.Spike()
        spike.layer, spike.feature = program.entry[0], int(p[index]) if channels == 2 else 0
        spike.y, spike.x, spike.timestamp = int(y[index]), int(x[index]), index * GAP_US + LEAD_US
        sent.append(spike)
    got = [(int(s.layer), (int(s.timestamp) - LEAD_US) // GAP_US, int(s.feature), int(s.y), int(s.x))
           for s in theirs(sent) if isinstance(s, samna.speck2f.event.Spike)]
    if not ours:
        ours.append(open_board("speck2fdevkit:1", samna, pace=Pace(settle_s=0.0, lead_s=0.02, quiet_s=0.03)))
    ours[0].load(program)
    found = ours[0].run(events, "all").spikes
    mine = [(core, int(s["event"]), int(s["feature"]), int(s["y"]), int(s["x"])) for core in found for s in found[core]]
    return {"spikes": len(mine), "same": sorted(got) == sorted(mine)}


def compare_verdicts(seed):
    theirs, net = both(seed, wide=True)
    return {"theirs": theirs.is_compatible_with("speck2fdevkit"), "ours": plan(net).fits}


def compare_few(seed):
    found = compare_configurations(seed)
    if seed % 8 == 0:
        spikes = compare_spikes(seed)
        found |= spikes | {"same": found["same"] and spikes["same"]}
    return found


jobs = {"configure": compare_configurations, "camera": compare_cameras, "few": compare_few}
run = (jobs | {"spikes": compare_spikes, "fits": compare_verdicts})[sys.argv[1]]
first, n = map(int, sys.argv[2:])
with contextlib.redirect_stdout(io.StringIO()):
    answers = [run(seed) for seed in range(first, first + n)]
print(json.dumps(answers))
'''


def ask(what: str, first: int, n: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", SCRIPT, what, str(first), str(n)]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    assert len(answers) == n
    return list(answers)


@pytest.mark.timeout(120)
def test_both_paths_write_the_same_configuration_and_give_the_same_spikes() -> None:
    answers = ask("few", 1000, 8)
    assert all(answer["same"] for answer in answers)
    assert max(answer["layers"] for answer in answers) > 2
    assert sum(answer.get("spikes", 0) for answer in answers) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_paths_write_the_same_configuration_of_a_hundred_nets() -> None:
    answers = ask("configure", 0, 100)
    assert [seed for seed, answer in enumerate(answers) if not answer["same"]] == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_both_paths_write_the_same_input_stage() -> None:
    assert [seed for seed, answer in enumerate(ask("camera", 0, 60)) if not answer["same"]] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_paths_give_the_same_spikes_of_a_hundred_nets() -> None:
    answers = ask("spikes", 0, 100)  # the vendor's library waits 1.3 s for each
    assert [seed for seed, answer in enumerate(answers) if not answer["same"]] == []
    assert sum(answer["spikes"] > 0 for answer in answers) > 80


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_come_to_the_same_verdict_about_fifty_nets() -> None:
    answers = ask("fits", 0, 50)
    assert [seed for seed, answer in enumerate(answers) if answer["theirs"] != answer["ours"]] == []
    assert {answer["ours"] for answer in answers} == {True, False}
