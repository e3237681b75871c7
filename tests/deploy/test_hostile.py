"""Hostile and broken program files: each refused in one sentence, in little memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spikeport.deploy.artifact import load_program
from spikeport.deploy.errors import ProgramFileError
from spikeport.deploy.pipeline import compile_program

from .hostile import Hostile, corpus
from .nets import stack

CORPUS = list(
    corpus(compile_program(stack((2, 6, 6), [{"features": 3, "bias": True, "pool": 2}, {"features": 2, "kernel": 2}])))
)


def test_the_corpus_is_large_and_every_file_of_it_another_one() -> None:
    assert len(CORPUS) >= 40
    assert len({file.content for file in CORPUS}) == len({file.name for file in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("file", CORPUS, ids=[file.name for file in CORPUS])
def test_each_file_is_refused_in_one_sentence_that_says_why(file: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "program.safetensors"
    path.write_bytes(file.content)
    with pytest.raises(ProgramFileError) as caught:
        load_program(path)
    message = str(caught.value)
    assert caught.value.exit_code == 6
    assert message.startswith("program.safetensors: ")
    assert "Try " in message
    assert "\n" not in message
    assert len(message) < 700
    assert re.search(file.text, message), message


# One process reads them all: size, and by how much its memory grew at most meanwhile. Not ru_maxrss, which starts with
# what the process had that started this one. The last line is a control: a list of 64 MiB.
MEASURE = """
import json, sys
from pathlib import Path
from spikeport.deploy.artifact import load_program
from spikeport.deploy.errors import ProgramFileError
def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
def growth(work):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    work()
    return memory("VmHWM") - before
def refuse(path):
    try:
        load_program(path)
    except ProgramFileError:
        return
    raise SystemExit(f"{path} was read")
paths = sorted(Path(sys.argv[1]).iterdir())
refuse(paths[0])
print(json.dumps([[path.stat().st_size, growth(lambda: refuse(path))] for path in paths]))
print(growth(lambda: b"x" * (64 << 20)))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell a process its memory")
def test_no_file_takes_more_memory_than_twice_its_size_and_64_mib(tmp_path: Path) -> None:
    for index, file in enumerate(CORPUS):
        (tmp_path / f"{index:03}").write_bytes(file.content)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    grown, control = map(json.loads, done.stdout.splitlines())
    assert control > 60 << 20
    assert len(grown) == len(CORPUS)
    assert [(size, peak) for size, peak in grown if peak > 2 * size + (64 << 20)] == []
