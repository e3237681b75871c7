"""Programs saved by a process that is killed: what lies there afterwards is the old program, the new one or none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikeport.convert.store import save_net
from spikeport.deploy.artifact import program_bytes, save_program
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.types import Program

from .nets import branch_net, stack

N_KILLS = 200

# Forks of one process save two programs in turn, as fast as it goes, so that no interpreter is started per kill.
FORKER = """
import itertools, os, sys
from spikeport.deploy.artifact import load_program, save_program
programs = [load_program(path) for path in sys.argv[2:]]
save_program(programs[0], sys.argv[1])
for n, _ in enumerate(sys.stdin):
    child = os.fork()
    if not child:
        for program in itertools.cycle([programs[n % 2], programs[1 - n % 2]]):
            save_program(program, sys.argv[1])
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def old_and_new() -> tuple[Program, Program]:
    return compile_program(stack((2, 6, 6), [{"features": 3, "kernel": 2}])), compile_program(branch_net())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGKILL")
def test_kill_at_200_random_moments_leaves_an_old_a_new_or_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = old_and_new()
    sources = [tmp_path / name for name in ("old", "new")]
    for program, source in zip(programs, sources, strict=True):
        save_program(program, source)
    whole = [program_bytes(program) for program in programs]
    folder = tmp_path / "target"
    folder.mkdir()
    target = folder / "program.safetensors"
    draw = random.Random(0)
    n_left = {"none": 0, "old": 0, "new": 0, "temporary": 0}
    command = [sys.executable, "-c", FORKER, str(target), *map(str, sources)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as forker:
        assert forker.stdin is not None
        assert forker.stdout is not None
        for _ in range(N_KILLS):
            if draw.random() < 0.2:
                target.unlink(missing_ok=True)
            forker.stdin.write("go\n")
            child = int(forker.stdout.readline())
            time.sleep(draw.uniform(0, 0.06))
            os.kill(child, signal.SIGKILL)
            assert forker.stdout.readline() == "dead\n"
            for leftover in set(folder.iterdir()) - {target}:
                n_left["temporary"] += 1
                leftover.unlink()
            if not target.exists():
                n_left["none"] += 1
                continue
            found = target.read_bytes()
            assert found in whole
            n_left["old" if found == whole[0] else "new"] += 1
        forker.stdin.close()
    with capsys.disabled():
        print(f"\n{N_KILLS} kills left: {n_left}")
    assert min(n_left["old"], n_left["new"]) > 0
    assert n_left["temporary"] > 0  # some were killed in the middle of writing


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGKILL")
def test_a_deploy_that_is_killed_leaves_the_old_program_or_the_new_one(tmp_path: Path) -> None:
    save_net(branch_net(), tmp_path / "net.safetensors")
    command = [sys.executable, "-m", "spikeport.deploy", "deploy", "net.safetensors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0
    target = tmp_path / "program.safetensors"
    new = target.read_bytes()
    old = program_bytes(old_and_new()[0])
    draw = random.Random(1)
    for _ in range(6):
        target.write_bytes(old)
        started = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0, 6))
        started.kill()
        started.wait()
        assert target.read_bytes() in (old, new)
