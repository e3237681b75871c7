"""The benchmarks of models, streams and event files, the way a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..invoke import spikeport  # noqa: TID252


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["models", "stream", "readers"])
def test_a_quick_run_prints_its_rows_and_writes_its_section(what: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = spikeport("bench", what, "--quick", "--json", "--out", page, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    n_rows = len(found["rows"] if "rows" in found else found["recurrent_lif"]["rows"])
    assert n_rows > 2
    text = page.read_text()
    assert text.startswith(f"<!-- begin of bench {what} -->")
    assert f"`spikeport bench {what} --quick`" in text
    assert text.count("\n| ") > n_rows


def test_options_of_other_benchmarks_are_refused(tmp_path: Path) -> None:
    done = spikeport("bench", "readers", "--tasks", "digits", cwd=tmp_path)
    assert done.returncode == 2
    assert "bench readers: expected no --tasks, which is an option of bench convert" in done.stderr
    done = spikeport("bench", "convert", "--repeats", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert "bench convert: expected no --repeats" in done.stderr
