"""Streams that are closed, full or read by nobody: no command ends with a traceback, and its work is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeport.convert import convert, save_net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("user")
    torch.manual_seed(0)
    save_net(convert(nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU()), (2, 8, 8)).net, home / "net.safetensors")
    return home


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (">&- 2>&-", 0),
        (">/dev/full", 2),
        pytest.param("2>/dev/full", 0, marks=pytest.mark.slow),
        ("| true", 0),
        pytest.param(">&-", 0, marks=pytest.mark.slow),
        pytest.param("2>&-", 0, marks=pytest.mark.slow),
        pytest.param("--json >/dev/full", 2, marks=pytest.mark.slow),
        pytest.param("2>&1 >/dev/null | true", 0, marks=pytest.mark.slow),
    ],
)
def test_streams_that_nobody_reads_end_no_command_with_a_traceback(ending: str, code: int, folder: Path) -> None:
    script = f"set -o pipefail; {sys.executable} -m spikeport.deploy plan net.safetensors {ending}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
