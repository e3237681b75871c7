"""Several processes on one evaluation: exactly the metrics of one, and a lost rank ends the run with a message."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spikeport.models.distributed import ranks_of_environment
from spikeport.models.errors import RankError
from spikeport.models.infer import evaluate

from .leaky import LeakyPredictor
from .ranks import METRICS, data

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
QUIET = {"TORCHELASTIC_ERROR_FILE": "", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Return what two ranks under torchrun do."""
    command = [*TORCHRUN, "--master-port", str(free_port()), "-m", "tests.models.ranks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | QUIET, capture_output=True, text=True, timeout=120)


def expected() -> Any:
    return json.loads(
        json.dumps({k: dict(v) for k, v in evaluate(LeakyPredictor(), data(), metrics=METRICS).results.items()})
    )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_ranks_give_exactly_the_metrics_of_one_and_a_killed_one_can_be_resumed(tmp_path: Path) -> None:
    whole = torchrun("none", 0, "none")
    assert whole.returncode == 0, whole.stderr
    found = json.loads(whole.stdout)
    assert found["n_ranks"] == 2
    assert found["results"] == expected()

    started = time.monotonic()
    killed = torchrun(tmp_path / "shards", 0.1, "1")
    assert time.monotonic() - started < 30
    assert killed.returncode != 0
    assert "Error: rank 0 of 2" in killed.stderr
    assert "Try the same command again" in killed.stderr
    finished = len(list((tmp_path / "shards").glob("shard-*.json")))
    assert 0 < finished < 12

    resumed = torchrun(tmp_path / "shards", 0, "none")
    assert resumed.returncode == 0, resumed.stderr
    found = json.loads(resumed.stdout)
    assert found["results"] == expected()
    assert found["n_resumed"] == 5 * finished


def spawn_ranks(*arguments: object) -> list[subprocess.Popen[str]]:
    """Return two ranks that nobody watches over, as on two machines."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.models.ranks", *map(str, arguments)],
            cwd=ROOT,
            env=os.environ
            | QUIET
            | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("killed", ["0", "1"])
def test_ranks_on_their_own_notice_that_one_is_lost(killed: str) -> None:
    started = time.monotonic()
    ranks = spawn_ranks("none", 0.2, killed)
    outputs = [rank.communicate(timeout=90) for rank in ranks]
    assert time.monotonic() - started < 40  # patience, and what torch takes to start
    left = 1 - int(killed)
    assert ranks[left].returncode == 7, outputs
    assert "lost" in outputs[left][1]
    assert "Try the same command again" in outputs[left][1]


def test_an_environment_of_torchrun_in_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks_of_environment() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ranks_of_environment() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RankError, match="expected RANK, MASTER_ADDR, MASTER_PORT"):
        ranks_of_environment()
    for name, value in (("RANK", "1"), ("MASTER_ADDR", "host"), ("MASTER_PORT", "1234")):
        monkeypatch.setenv(name, value)
    found = ranks_of_environment()
    assert found is not None
    assert (found.rank, found.size, found.port, found.is_hosted) == (1, 2, 1234, False)
