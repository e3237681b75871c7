"""Other frameworks on a net of ours, step by step and whole, against our own engines."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spikeport.convert import simulate
from spikeport.convert.types import SpikingNet
from spikeport.deploy import compile_program
from spikeport.deploy.bench.frameworks import FRAMEWORKS, SINABS, find_frameworks
from spikeport.deploy.bench.speed import EMULATOR, ENGINES, check_pieces, compare_spikes, time_workload
from spikeport.deploy.bench.workloads import Workload, uniform_events
from spikeport.deploy.session import Session
from spikeport.models.events import Events

from ..deploy.nets import stack  # noqa: TID252

THERE = find_frameworks()[0]
SOFT = [name for name in THERE if name.startswith(("SpikingJelly", "snnTorch"))]


def exact_net(*, lowest: int, highest: int, thresholds: tuple[float, ...] = (1.0, 1.0, 1.0)) -> SpikingNet:
    """Return a net whose weights are multiples of 1/64, so that sums are exact in any order."""
    rng = np.random.default_rng(1)
    net = stack((2, 12, 12), [{"features": 4, "pool": 2}, {"features": 6}, {"features": 3, "kernel": 0}])
    layers = tuple(
        dataclasses.replace(
            layer,
            weight=rng.integers(lowest, highest + 1, layer.weight.shape).astype(np.float32) / 64,
            threshold=threshold,
        )
        for layer, threshold in zip(net.layers, thresholds, strict=True)
    )
    return dataclasses.replace(net, layers=layers)


def layer_spikes(net: SpikingNet, raster: NDArray[np.float32]) -> list[NDArray[np.int32]]:
    spikes = simulate(net, raster, record="all").spikes
    assert spikes is not None
    return [layer[:, 0] for layer in spikes]


def poisson_raster() -> NDArray[np.float32]:
    return np.random.default_rng(0).poisson(0.3, (15, 2, 12, 12)).astype(np.float32)


@pytest.mark.parametrize("name", SINABS)
def test_sinabs_in_one_call_and_step_by_step_spikes_as_our_engines_do(name: str) -> None:
    net, raster = exact_net(lowest=-24, highest=32), poisson_raster()
    stepper = FRAMEWORKS[name].build(net)
    expected = layer_spikes(net, raster)
    assert all(map(np.array_equal, stepper.spikes(raster), expected))
    assert all(map(np.array_equal, stepper.spikes(raster), expected))  # it starts from rest again
    assert all(layer.max() > 1 for layer in expected[:2])


@pytest.mark.skipif(not SOFT, reason="neither SpikingJelly nor snnTorch is installed")
@pytest.mark.parametrize("name", SOFT)
def test_frameworks_of_one_spike_a_step_agree_where_no_neuron_has_more_to_spike(name: str) -> None:
    # One event a step, small weights that are not negative: no second spike, no bound, and no sum is a threshold.
    net = exact_net(lowest=0, highest=1, thresholds=tuple((n + 1 / 128) / 64 for n in (2, 37, 64)))
    raster = np.zeros((400, 2, 12, 12), np.float32)
    places = np.random.default_rng(2).integers(0, raster[0].size, len(raster))
    raster.reshape(len(raster), -1)[np.arange(len(raster)), places] = 1
    expected = layer_spikes(net, raster)
    assert max(int(layer.max()) for layer in expected) == 1
    found = FRAMEWORKS[name].build(net).spikes(raster)
    assert all(map(np.array_equal, found, expected))
    assert all(layer.any() for layer in expected)


@pytest.mark.skipif("Norse" not in THERE, reason="Norse is not installed")
def test_a_reset_to_zero_loses_what_is_above_the_threshold() -> None:
    net, raster = exact_net(lowest=0, highest=16), poisson_raster()
    found = FRAMEWORKS["Norse"].build(net).spikes(raster)
    assert [layer.shape for layer in found] == [layer.shape for layer in layer_spikes(net, raster)]
    assert 0 < found[0].sum() < layer_spikes(net, raster)[0].sum()
    assert max(layer.max() for layer in found) == 1


@pytest.fixture(scope="module")
def workload() -> Workload:
    net = exact_net(lowest=-24, highest=32)
    recordings = tuple(uniform_events((12, 12), n=1_500, duration_us=100_000, seed=seed) for seed in (0, 1))
    return Workload("made", net, compile_program(net), recordings, (10, 10), "exact", "drawn")


def test_spikes_are_compared_cell_by_cell_where_the_rule_is_the_same(workload: Workload) -> None:
    found = {one.engine: one for one in compare_spikes(workload, THERE)}
    assert set(found) == {*THERE, *ENGINES, EMULATOR}
    n_cells = 2 * 10 * sum(int(np.prod(layer.out_shape)) for layer in workload.net.layers)
    for name in (*ENGINES, *SINABS):
        assert (found[name].n_differing, found[name].n_cells) == (0, n_cells)
        assert found[name].spikes == found[SINABS[0]].spikes
    for name in set(THERE) - set(SINABS):
        assert found[name].n_cells is None
        assert found[name].note != found[SINABS[0]].note
        assert found[name].spikes[0] < found[SINABS[0]].spikes[0]
    assert found[EMULATOR].n_differing == 0


def test_pieces_that_differ_are_counted(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, n_fed = Session.feed, 0

    def lossy(session: Session, events: Events, **options: int) -> dict[int, NDArray[Any]]:
        nonlocal n_fed
        n_fed += 1
        spikes = feed(session, events, **options)
        return {core: part[:-1] if n_fed == 3 else part for core, part in spikes.items()}

    monkeypatch.setattr(Session, "feed", lossy)
    assert (check_pieces(workload).n_differing or 0) > 0


def test_every_engine_is_timed_as_often_as_asked_and_counts_what_it_did(workload: Workload) -> None:
    before = torch.get_num_threads()
    rows = {row.engine: row for row in time_workload(workload, THERE, repeats=2)}
    assert set(rows) == {*THERE, *ENGINES, EMULATOR}
    assert {len(row.timing.walls_s) for row in rows.values()} == {2}
    assert {row.n_events for row in rows.values()} == {3_000}
    assert rows[EMULATOR].n_steps is None
    assert {row.n_steps for row in rows.values() if row.engine != EMULATOR} == {20}
    assert len({row.synops for row in rows.values() if row.engine != EMULATOR}) == 1
    several = time_workload(workload, SINABS, repeats=1, n_threads=2)
    assert {row.engine for row in several} == {*SINABS, EMULATOR}
    assert torch.get_num_threads() == before
