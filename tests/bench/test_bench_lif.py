"""The benchmark of the recurrent LIF classifier: its rows, the agreement it measures, its checks."""

from __future__ import annotations

import dataclasses

import pytest

from spikeport.deploy.bench.lif import ERROR, GAINS, NORSE, OURS, TRAINING, LifBenchmark, check_lif, measure_lif


@pytest.fixture(scope="module")
def found() -> LifBenchmark:
    return measure_lif(repeats=1)


def test_every_task_has_a_row_for_every_engine_and_all_agree(found: LifBenchmark) -> None:
    engines = {row.engine for row in found.rows}
    assert {(row.task, row.engine) for row in found.rows} == {(task, engine) for task in GAINS for engine in engines}
    assert (NORSE in engines) == (not found.absent)
    for row in found.rows:
        assert (row.error is None) == (row.task == TRAINING)
        assert row.error is None or row.error <= ERROR
        assert row.steps_hz > 0
    title, columns, rows = found.table()
    assert "2450-100-4" in title
    assert all(len(row) == len(columns) for row in rows)


def test_checks_fail_where_aims_are_missed(found: LifBenchmark) -> None:
    wrong = [dataclasses.replace(row, error=1e-3) if row.engine == OURS else row for row in found.rows]
    assert not check_lif(wrong)[0].is_met
    norse = [row for row in found.rows if row.engine == NORSE]
    as_slow = [*norse, *(dataclasses.replace(row, engine=OURS, error=0.0) for row in norse)]
    assert all(not check.is_met for check in check_lif(as_slow)[1:])
    assert len(check_lif(as_slow)) == (4 if norse else 0)
