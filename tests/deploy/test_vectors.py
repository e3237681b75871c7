"""Golden vectors in the file: whatever is saved comes back as it was, and what would not is refused before."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.deploy.artifact import load_program, save_program
from spikeport.deploy.errors import GoldenError, InvalidProgramError
from spikeport.deploy.types import SPIKE, DvsConfig, Golden, Program
from spikeport.deploy.vectors import MAX_GOLDEN_EVENTS, MAX_GOLDEN_SPIKES
from spikeport.deploy.verify import verify
from spikeport.models.events import Events

from .programs import make_core


def spikes_of(rows: list[tuple[int, ...]]) -> np.ndarray[Any, Any]:
    """Return spikes ``(event, t_us, feature, y, x)``."""
    return np.array(rows, SPIKE)


def zero_events(n: int) -> Events:
    zeros = np.zeros(n, np.int64)
    return Events(zeros, zeros, zeros, zeros, (3, 3))


HASH = "0" * 16

GOOD = Golden(
    "mine",
    Events(np.arange(2), np.arange(2), np.arange(2), np.array([0, 100]), (3, 3)),
    0.0,
    {0: spikes_of([(0, 0, 0, 0, 0), (1, 100, 0, 2, 2), (1, 100, 0, 1, 2)])},
    {0: np.zeros((1, 3, 3), np.int16)},
    {0: HASH},
)


def with_vectors(*golden: Golden) -> Program:
    core = make_core(0, weight=np.full((1, 2, 1, 1), 9), in_shape=(2, 3, 3))
    return Program("speck2fdevkit", (core,), (0,), DvsConfig((2, 3, 3)), golden=golden)


def test_vectors_that_save_come_back_as_they_were(tmp_path: Path) -> None:
    most = dataclasses.replace(
        GOOD,
        events=zero_events(MAX_GOLDEN_EVENTS),
        spikes={0: np.zeros(MAX_GOLDEN_SPIKES, SPIKE)},
        slow_clock_hz=np.float32(0.5),  # type: ignore[arg-type]
    )
    program = with_vectors(*[GOOD] * 7, most)
    save_program(program, tmp_path / "program")
    found = load_program(tmp_path / "program").golden
    assert [one.same(GOOD) for one in found] == [True] * 7 + [False]
    assert found[-1].same(dataclasses.replace(most, slow_clock_hz=0.5))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "a\nb"}, r"golden vector 'a\\nb': expected a name of one line"),
        ({"name": 3}, "golden vector 3: expected a name of one line"),
        ({"slow_clock_hz": -3.0}, "slow_clock_hz: expected 0 or a positive number, found -3.0"),
        ({"slow_clock_hz": float("nan")}, "slow_clock_hz: expected 0 or a positive number, found nan"),
        ({"contents": {}}, r"contents: expected a hash for each of the cores \[0\], found {}"),
        ({"contents": {0: HASH, 1: HASH}}, "contents: expected a hash for each"),
        ({"contents": {0: "none"}}, "contents: expected a hash for each"),
        ({"events": zero_events(0)}, "expected 1 to 65536 events, found 0"),
        ({"events": zero_events(MAX_GOLDEN_EVENTS + 1)}, "expected 1 to 65536 events, found 65537"),
        ({"spikes": {0: np.zeros(MAX_GOLDEN_SPIKES + 1, SPIKE)}}, "at most 65536 spikes over all cores, found 65537"),
        ({"spikes": {0: spikes_of([(0, 0, 0, 0, 0), (7, 0, 0, 0, 0)])}}, r"event\[1\]: expected 0..1, found 7"),
        ({"spikes": {0: spikes_of([(-1, 0, 0, 0, 0)])}}, r"event\[0\]: expected 0..1, found -1"),
        ({"spikes": {0: spikes_of([(0, 0, 9, 0, 0)])}}, r"core 0: feature\[0\]: expected 0..0, found 9"),
        ({"spikes": {0: spikes_of([(0, 0, 0, 3, 0)])}}, r"core 0: y\[0\]: expected 0..2, found 3"),
        ({"spikes": {0: spikes_of([(0, 0, 0, 0, -1)])}}, r"core 0: x\[0\]: expected 0..2, found -1"),
        ({"spikes": {0: spikes_of([(1, 100, 0, 0, 0), (0, 0, 0, 0, 0)])}}, "in the order of their events"),
        ({"spikes": {0: spikes_of([(1, 99, 0, 0, 0)])}}, "with their times"),
        ({"spikes": {0: np.zeros(1, np.int64)}}, "expected spikes of .* found int64, int16"),
        ({"states": {0: np.zeros((1, 3, 3), np.int64)}}, "states of int16, found .* int64"),
        ({"spikes": {}}, "expected events of a sensor"),
        ({"states": {0: np.zeros((1, 3, 2), np.int16)}}, "expected events of a sensor"),
    ],
)
def test_vectors_that_would_not_load_are_neither_saved_nor_verified(
    fields: dict[str, Any], text: str, tmp_path: Path
) -> None:
    program = with_vectors(GOOD, dataclasses.replace(GOOD, **fields))
    with pytest.raises(InvalidProgramError, match=text) as refused:
        save_program(program, tmp_path / "program")
    assert list(tmp_path.iterdir()) == []
    assert "Try " in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(GoldenError, match=text):
        verify(program)


def test_more_vectors_than_a_file_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidProgramError, match="golden: expected at most 8 vectors, found 9"):
        save_program(with_vectors(*[GOOD] * 9), tmp_path / "program")
