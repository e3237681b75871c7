"""The chip tables: what they add up to, and how they are asked for."""

from __future__ import annotations

import dataclasses

import pytest

from spikeport.deploy.chips import CHIPS, chip
from spikeport.deploy.errors import ChipNameError


@pytest.mark.parametrize("name", ["speck2e", "speck2edevkit", "speck2fmodule", "speck2fdevkit"])
def test_every_chip_has_the_memory_that_its_datasheet_sums_up_to(name: str) -> None:
    cores = chip(name).cores
    assert [core.core for core in cores] == list(range(9))
    assert sum(core.kernel_words for core in cores) == 278_528
    assert sum(core.neuron_words for core in cores) == 327_680
    assert sum(core.bias_words for core in cores) == 9_216


def test_memories_are_powers_of_two_which_the_budget_relies_on() -> None:
    for entry in CHIPS:
        for core in entry.cores:
            for words in (core.kernel_words, core.neuron_words, core.bias_words):
                assert words & (words - 1) == 0


def test_large_kernel_memory_comes_with_small_neuron_memory() -> None:
    for core in chip("speck2fdevkit").cores:
        assert core.kernel_words + core.neuron_words <= 81_920


def test_tables_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        chip("speck2e").cores[0].kernel_words = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("speck2f", "speck2e"), ("Speck2fDevKit", "speck2fdevkit"), ("speck2edevkitt", "speck2edevkit")],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(ChipNameError, match=rf"found '{name}'.* Try '{nearest}'") as caught:
        chip(name)
    assert caught.value.exit_code == 2
    assert "speck2e, speck2edevkit, speck2fmodule, speck2fdevkit" in str(caught.value)
