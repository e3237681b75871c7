"""Other converters, run by their own layers, against records of ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spikeport.convert import count_synops, simulate
from spikeport.deploy.bench.parity import compare_biases, compare_rewrites
from spikeport.deploy.bench.peers import (
    PeerNet,
    fused,
    has_spikingjelly,
    sinabs_default,
    sinabs_normalized,
    spikingjelly_balanced,
    spikingjelly_max,
    spikingjelly_robust,
    trace_of,
)
from spikeport.deploy.bench.tasks import STEP_US, Samples, Task, animals_cnn

N_STEPS = 5

needs_spikingjelly = pytest.mark.skipif(not has_spikingjelly(), reason="SpikingJelly is not installed")


def task() -> Task:
    """Return an untrained CNN with biases and batch normalization, and random frames."""
    torch.manual_seed(0)
    module = animals_cnn()
    frames = torch.rand(12, 1, 32, 32)
    module.train()(frames)  # gives the batch normalization means and variances
    samples = Samples(frames.numpy(), np.arange(12) % 10)
    return Task("made", "random numbers", 0, module.eval(), samples, samples)


@pytest.mark.parametrize("peer", [sinabs_default, sinabs_normalized])
def test_sinabs_own_layers_and_our_record_of_them_spike_alike(peer: object) -> None:
    made = task()
    net = peer(made, N_STEPS)  # type: ignore[operator]
    raster = made.test.raster(N_STEPS)
    trace = trace_of(net, raster.astype(np.float32), raster.sum(0), STEP_US)
    ours = simulate(net.net, raster, dt_us=STEP_US)
    assert all(map(np.array_equal, trace.counts, ours.counts))
    assert np.array_equal(trace.predictions(), ours.predictions())
    assert count_synops(net.net, trace).total == count_synops(net.net, ours).total > 0


def test_a_batch_does_not_see_the_one_before() -> None:
    made = task()
    peer = sinabs_default(made, N_STEPS)
    raster = torch.from_numpy(made.test.raster(N_STEPS).astype(np.float32))
    first, again = peer.run(raster), peer.run(raster)
    assert all(map(np.array_equal, first[0], again[0]))


@needs_spikingjelly
@pytest.mark.parametrize("peer", [spikingjelly_max, spikingjelly_robust, spikingjelly_balanced])
def test_spikingjelly_spikes_at_most_once_a_step(peer: object) -> None:
    made = task()
    net: PeerNet = peer(made, N_STEPS)  # type: ignore[operator]
    steps = np.broadcast_to(made.test.frames, (N_STEPS, *made.test.frames.shape))
    trace = trace_of(net, steps, (steps != 0).sum(0), STEP_US)
    assert [count.shape[1:] for count in trace.counts] == [layer.out_shape for layer in net.net.layers]
    assert 0 < max(int(count.max()) for count in trace.counts) <= N_STEPS
    assert count_synops(net.net, trace).total > 0


@needs_spikingjelly
def test_our_record_of_spikingjelly_starts_with_its_first_layer() -> None:
    # Scaled by their maximum, currents stay below a threshold a step: there one spike is as many as there can be.
    made = task()
    peer = spikingjelly_max(made, N_STEPS)
    steps = np.broadcast_to(made.test.frames, (N_STEPS, *made.test.frames.shape))
    counts, _ = peer.run(torch.tensor(steps))
    ours = simulate(peer.net, steps, dt_us=STEP_US)
    assert np.mean(counts[0] != ours.counts[0]) < 1e-3  # a current at the very threshold may round either way
    assert counts[0].any()


def test_a_fused_chain_is_the_same_function_without_batch_normalization() -> None:
    module = task().module
    chain = fused(module)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in chain.modules())
    frames = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(chain(frames), module(frames), atol=1e-5)


def test_our_rewrites_keep_the_function_where_others_do_not() -> None:
    rows = compare_rewrites(1)
    assert all(row.our_error <= 1e-4 and row.our_agreement == 1.0 for row in rows)
    errors = [row.other_error for row in rows if row.other_error is not None]
    assert errors == sorted(errors, reverse=True)  # the smaller the variance, the more a missing epsilon matters
    assert errors[0] > 1.0
    assert rows[-1].other_agreement < 1.0


def test_without_biases_both_rewrites_keep_the_function() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5, bias=False), nn.ReLU()
    )
    frames = np.random.default_rng(0).random((64, 1, 8, 8), dtype=np.float32)
    row = compare_biases("made", module.eval(), frames)
    assert row.our_agreement == row.other_agreement == 1.0
