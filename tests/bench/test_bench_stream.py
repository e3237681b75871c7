"""The benchmark of streams and the model of many workers."""

from __future__ import annotations

from typing import Any

import pytest

from spikeport.deploy.bench.stragglers import Fleet, fleet_markdown, simulate_fleet
from spikeport.deploy.bench.stream import StreamScope, run_stream_benchmark, stream_markdown
from spikeport.models.errors import InferenceError


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_predictor_has_a_row_and_no_event_is_lost_count_of() -> None:
    scope = StreamScope(repeats=1, n_flat=2000, rate_hz=20_000.0, duration_s=0.1)
    found = run_stream_benchmark(scope, command=["stream"])
    assert len(found.rows) == 3
    for row in found.rows:
        assert row.n_events + row.n_dropped == 2000
        assert row.flat_events_per_s > 0
        assert row.p50_ms is not None
        assert row.p50_ms <= (row.p99_ms or 0)
    page = stream_markdown(found)
    assert all(row.predictor in page for row in found.rows)
    assert found.to_dict()["setting"]["command"] == "spikeport bench stream"


def small(**changed: float) -> Fleet:
    fields: Any = {"n_workers": 20, "n_samples": 20_000, **changed}
    return Fleet(**fields)


def test_a_fleet_of_equal_workers_without_overhead_is_ideal() -> None:
    fleet = small(spread=0.0, slow_share=0.0, shard_s=0.0, hours_to_failure=1e9)
    for how in ("dynamic", "fixed"):
        assert simulate_fleet(fleet, 100, how=how).efficiency == pytest.approx(1.0)


def test_taking_shards_as_they_come_bounds_the_wait_for_the_slowest() -> None:
    fleet = small(slow_share=0.2, hours_to_failure=1e9)
    for size in (10, 100, 500):
        dynamic, fixed = (simulate_fleet(fleet, size, how=how, seed=3) for how in ("dynamic", "fixed"))
        overhead = dynamic.n_shards * fleet.shard_s / fleet.n_workers
        longest = fleet.shard_s + size * fleet.sample_s * fleet.slow_factor * 1.5
        assert dynamic.ideal_s <= dynamic.wall_s <= fixed.wall_s
        assert dynamic.wall_s <= dynamic.ideal_s + 1.2 * overhead + longest


def test_failures_cost_at_most_their_shards() -> None:
    fleet = small(hours_to_failure=0.005, restart_s=1.0)
    found = simulate_fleet(fleet, 10)
    assert found.n_failures > 0
    assert found.lost_s <= found.n_failures * (fleet.shard_s + 10 * fleet.sample_s * fleet.slow_factor * 1.5)
    assert found == simulate_fleet(fleet, 10)


def test_the_table_has_a_row_for_each_size_and_way() -> None:
    assert len(fleet_markdown(small()).splitlines()) == 2 + 8
    with pytest.raises(InferenceError, match="shard size"):
        simulate_fleet(small(), 0)
    with pytest.raises(InferenceError, match="expected workers"):
        small(n_workers=0)
