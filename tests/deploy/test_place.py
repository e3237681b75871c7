"""Placement against brute force, and conflicts that are real and minimal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest

from spikeport.deploy.budget import Budget, fits
from spikeport.deploy.chips import Chip, Core, chip
from spikeport.deploy.errors import LayerOrderError, SettingError
from spikeport.deploy.place import Objective, Placement, place

CHIP = chip("speck2fdevkit")
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def random_budgets(rng: np.random.Generator, n_layers: int) -> list[Budget]:
    """Return layers that fill whole memories, so that few cores hold each."""
    budgets = []
    for index in range(n_layers):
        kernel, neuron = (int(rng.choice([1, 2, 4, 5], p=p)) for p in ((0.6, 0.2, 0.15, 0.05), (0.5, 0.2, 0.28, 0.02)))
        features = 16
        shape = {"kernel": (8, 8), "out_map": (32, 32)}
        budgets.append(
            Budget(f"layer{index}", kernel * 16, features, shape["kernel"], (neuron * 16, 64), bool(rng.random() < 0.3))
        )
    return budgets


def every_placement(budgets: Sequence[Budget], table: Chip) -> list[tuple[int, ...]]:
    options = [[core.core for core in table.cores if fits(budget, core)] for budget in budgets]
    return [cores for cores in itertools.product(*options) if len(set(cores)) == len(cores)]


def cost(
    cores: Sequence[int], budgets: Sequence[Budget], table: Chip, aim: tuple[str, Sequence[int]]
) -> tuple[Any, ...]:
    objective, loads = aim
    used = [table.core(core) for core in cores]
    unsafe = sum(budget.has_bias and not core.leak_safe for budget, core in zip(budgets, used, strict=True))
    time = sum(load / Fraction(core.throughput) for load, core in zip(loads, used, strict=True))
    unordered = sum(not core.in_order for core in used)
    size = sum(core.kernel_words + 2 * core.neuron_words for core in used)
    rest = {"reproducible": (unordered, size), "fast": (time, unordered, size), "compact": (size, unordered)}
    return unsafe, *rest[objective], tuple(cores)


def small_chip(n_cores: int) -> Chip:
    kept = CHIP.cores[:1] + CHIP.cores[2:4] + CHIP.cores[5:7] + CHIP.cores[8:]
    return Chip("small", "", "", kept[:n_cores], CHIP.limits, CHIP.numbers)


def check_conflicts(placement: Placement, budgets: Sequence[Budget], table: Chip) -> None:
    for conflict in placement.conflicts:
        members = [budgets[layer] for layer in conflict.layers]
        within = {core.core for core in table.cores if any(fits(budget, core) for budget in members)}
        assert set(conflict.cores) == within
        assert len(members) == len(conflict.cores) + 1
        for left_out in range(len(members)):
            assert place(members[:left_out] + members[left_out + 1 :], table).cores is not None


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(4))
def test_the_best_placement_is_found_whenever_there_is_one(seed: int, objective: Objective) -> None:
    rng = np.random.default_rng(seed)
    n_placed = 0
    for _ in range(40):
        table = small_chip(int(rng.integers(2, 7)))
        budgets = random_budgets(rng, int(rng.integers(1, 6)))
        loads = [int(load) for load in rng.integers(0, 1000, len(budgets))]
        found = place(budgets, table, objective=objective, loads=loads)
        possible = every_placement(budgets, table)
        if not possible:
            assert found.cores is None
            assert found.conflicts
            check_conflicts(found, budgets, table)
            continue
        n_placed += 1
        assert not found.conflicts
        assert found.cores == min(possible, key=lambda cores: cost(cores, budgets, table, (objective, loads)))
    assert 5 < n_placed < 40


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_conflicts_are_as_many_as_layers_that_have_to_go_and_removing_those_helps(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for _ in range(25):
        budgets = random_budgets(rng, int(rng.integers(4, 13)))
        found = place(budgets, CHIP)
        if found.cores is not None:
            continue
        check_conflicts(found, budgets, CHIP)
        n_gone = len(found.conflicts)
        n_kept = len(budgets) - n_gone
        subsets = (list(kept) for kept in itertools.combinations(budgets, n_kept))
        assert any(place(kept, CHIP).cores is not None for kept in subsets)
        larger = (list(kept) for kept in itertools.combinations(budgets, n_kept + 1))
        assert all(place(kept, CHIP).cores is None for kept in larger)


def test_without_any_one_layer_of_the_only_conflict_the_whole_net_is_placed() -> None:
    large = Budget("large", 2, 16, (2, 2), (64, 64), False)
    small = Budget("small", 2, 16, (2, 2), (8, 8), False)
    budgets = [large, small, large, large, small, large]
    (conflict,) = place(budgets, CHIP).conflicts
    assert conflict.layers == (0, 2, 3, 5)
    assert conflict.cores == (0, 1, 2)
    for layer in conflict.layers:
        assert place(budgets[:layer] + budgets[layer + 1 :], CHIP).cores is not None


def test_a_bias_keeps_away_from_the_cores_with_the_leak_erratum() -> None:
    biased = Budget("biased", 2, 16, (2, 2), (64, 64), True)
    plain = Budget("plain", 2, 16, (2, 2), (64, 64), False)
    assert place([plain, plain, biased], CHIP).cores == (0, 1, 2)
    assert place([biased, plain, plain], CHIP).cores == (2, 0, 1)
    assert place([biased, biased, biased], CHIP).cores == (0, 1, 2)


def test_large_cores_stay_free() -> None:
    tiny = Budget("tiny", 1, 1, (1, 1), (1, 1), False)
    assert place([tiny] * 2, CHIP).cores == (7, 8)
    assert set(place([tiny] * 6, CHIP).cores or ()) == {3, 4, 5, 6, 7, 8}


def test_the_busiest_layers_get_the_parallel_cores_where_that_is_asked_for() -> None:
    layers = [Budget(f"layer{index}", 2, 16, (2, 2), (8, 8), False) for index in range(4)]
    assert place(layers, CHIP, objective="fast", loads=[10, 40, 30, 20]).cores == (7, 0, 1, 8)
    assert place(layers, CHIP, objective="reproducible", loads=[10, 40, 30, 20]).cores == (3, 4, 7, 8)
    idle = place(layers, CHIP, objective="fast", loads=[0, 0, 0, 5]).cores or ()
    assert idle[3] == 0
    assert 1 not in idle


def test_no_objective_puts_a_bias_on_a_core_with_the_leak_erratum_without_need() -> None:
    biased = [Budget(f"layer{index}", 2, 16, (2, 2), (8, 8), True) for index in range(7)]
    for objective in OBJECTIVES:
        assert set(place(biased, CHIP, objective=objective).cores or ()) == {2, 3, 4, 5, 6, 7, 8}


def test_the_compact_placement_uses_the_least_memory_also_on_cores_out_of_order() -> None:
    swift, ordered = Core(0, 16, 16, 1, in_order=False, throughput=2.0), Core(1, 64, 64, 1)
    table = Chip("two", "", "", (swift, ordered), CHIP.limits, CHIP.numbers)
    tiny = [Budget("tiny", 1, 1, (1, 1), (1, 1), False)]
    assert {aim: place(tiny, table, objective=aim).cores for aim in OBJECTIVES} == {
        "reproducible": (1,),
        "fast": (0,),
        "compact": (0,),
    }


def test_an_objective_that_is_none_is_refused() -> None:
    with pytest.raises(SettingError, match="expected one of reproducible, fast, compact, found 'small'") as caught:
        place([], CHIP, objective="small")  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


def test_the_smallest_conflicts_come_first_and_the_last_layer_of_each_has_to_go() -> None:
    broad = [Budget(f"broad{index}", 2, 16, (2, 2), (64, 64), False) for index in range(4)]
    middle = [Budget(f"middle{index}", 2, 16, (2, 2), (32, 64), False) for index in range(3)]
    found = place([*middle, *broad], CHIP).conflicts
    assert [conflict.cores for conflict in found] == [(0, 1, 2), (0, 1, 2, 3, 4)]
    assert [conflict.layers for conflict in found] == [(3, 4, 5, 6), (0, 1, 2, 3, 4, 5)]
    kept = [budget for index, budget in enumerate([*middle, *broad]) if index not in (6, 5)]
    assert place(kept, CHIP).cores is not None


def test_a_layer_order_is_kept_and_its_misfits_are_named() -> None:
    budgets = [Budget("a", 2, 16, (2, 2), (64, 64), False), Budget("b", 2, 16, (2, 2), (8, 8), False)]
    assert place(budgets, CHIP, layer_order=[0, 8]) == Placement("speck2fdevkit", (0, 8))
    assert place(budgets, CHIP, layer_order=np.array([0, 8])).cores == (0, 8)  # type: ignore[arg-type]
    assert place(budgets, CHIP, layer_order=(7, 8)).misfits == (0,)


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("0,1", "found '0,1'"),
        ([0], "1 entries"),
        ([0, 1, 2], "3 entries"),
        ([0, 9], "no core of speck2fdevkit: 9"),
        ([-1, 0], "no core of speck2fdevkit: -1"),
        ([3, 3], "more than once: 3"),
        ([0.0, 1.0], "Try whole numbers"),
        ([True, 1], "Try whole numbers"),
        ([None, 1], "Try whole numbers"),
        (5, "found 5. Try whole numbers"),
        (None, "found None. Try whole numbers"),
        ([0], "2 distinct cores of 0..8, one per layer: a, b; found [0]"),
    ],
)
def test_a_layer_order_that_is_none_is_refused(order: Any, found: str) -> None:
    budgets = [Budget(name, 1, 1, (1, 1), (1, 1), False) for name in "ab"]
    with pytest.raises(LayerOrderError, match=r"layer order: expected .*") as caught:
        place(budgets, CHIP, layer_order=order)
    assert found in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_order_with_several_faults_names_all_of_them() -> None:
    budgets = [Budget("a", 1, 1, (1, 1), (1, 1), False)] * 2
    with pytest.raises(LayerOrderError) as caught:
        place(budgets, CHIP, layer_order=[9, 4, 4])
    assert all(fault in str(caught.value) for fault in ("3 entries", "speck2fdevkit: 9", "more than once: 4"))


def test_cores_of_a_chip_are_any_ids() -> None:
    table = Chip("odd", "", "", (Core(4, 16, 16, 1), Core(11, 64, 64, 1)), CHIP.limits, CHIP.numbers)
    assert place([Budget("a", 8, 1, (2, 2), (4, 4), False), Budget("b", 1, 1, (1, 1), (1, 1), False)], table).cores == (
        11,
        4,
    )
