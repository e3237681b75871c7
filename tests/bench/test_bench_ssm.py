"""The benchmark of the event state-space model: it runs, counts its work, and checks its aims."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spikeport.deploy.bench import ssm
from spikeport.deploy.bench.ssm import CARRIED, JAX_SCAN, SsmRow, check_ssm, measure_ssm, work_per_event
from spikeport.deploy.bench.timing import Timing
from spikeport.models.ssm.configs import config


def test_work_is_that_of_the_published_model() -> None:
    flops, n_bytes = work_per_event(config("dvs/small"))
    # 768 for states and sums of layer 1, 13312 further in stage 1, and stage 2, decays of states included
    assert flops == pytest.approx(2 * 21_760, rel=0.02)
    assert n_bytes == 4 * (256 + 128 + 2)


def test_aims_are_met_or_missed_by_the_scan_at_the_same_chunk() -> None:
    def row(engine: str, chunk: int, wall_s: float, error: float | None = None) -> SsmRow:
        return SsmRow(engine, chunk, 1000, Timing((wall_s,)), error)

    rows = [row(CARRIED, 256, 1.0, 1e-5), row(JAX_SCAN, 256, 4.1), row(CARRIED, 1024, 1.0), row(JAX_SCAN, 1024, 5.9)]
    assert [check.is_met for check in check_ssm(rows)] == [True, False, True]
    assert check_ssm([row(CARRIED, 256, 1.0)]) == []


def test_without_jax_it_measures_ours_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dead = tmp_path / "python"
    dead.write_text("#!/bin/sh\nexit 1\n")
    dead.chmod(0o755)
    monkeypatch.setenv(ssm.PYTHON, str(dead))
    monkeypatch.setattr(ssm, "CHUNKS", (256,))
    monkeypatch.setattr(ssm, "measure_limits", lambda: ssm.Limits(1e11, 1e10))
    found = measure_ssm(1 << 11, repeats=1)
    assert found.absent == (f"JAX: {ssm.INSTALL_JAX}",)
    assert {row.engine for row in found.rows} == {CARRIED, ssm.RESET}
    title, columns, rows = found.table()
    assert "dvs/small online" in title
    assert all(len(row) == len(columns) for row in rows)
    assert all(len(row) == 4 for row in found.latency_table()[2])


@pytest.mark.slow
def test_limits_are_measured_in_a_process_of_its_own() -> None:
    assert sys.executable
    found = ssm.measure_limits()
    assert found.sgemm_flops_hz > 1e8
    assert found.read_bytes_hz > 1e8
