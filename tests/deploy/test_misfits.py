"""Nets that do not fit, and random nets: what ``plan`` says against counting every word and trying every assignment."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import numpy as np
import pytest

from spikeport.convert.types import SpikingNet
from spikeport.deploy.chips import chip
from spikeport.deploy.plan import Plan, plan
from spikeport.deploy.relay import with_relays

from . import oracle
from .misfits import MISFITS, Misfit
from .nets import stack

MEMORIES = ("kernel", "neuron", "bias")
MOST_LAYERS = 8  # beyond them there are too many sets to try
each_misfit = pytest.mark.parametrize("misfit", MISFITS, ids=[misfit.name for misfit in MISFITS])


@functools.cache
def planned(misfit: Misfit) -> tuple[SpikingNet, Plan]:
    """Return the net as it would be placed, relays and all, and what is said about it."""
    net = misfit.build()
    return with_relays(net, chip("speck2fdevkit").limits)[0], plan(net)


def numbers(text: str, pattern: str) -> list[int]:
    return [int(found) for found in re.findall(pattern, text)]


def test_the_zoo_is_large_and_breaks_every_rule() -> None:
    assert len(MISFITS) == len({misfit.name for misfit in MISFITS}) >= 30
    broken = {rule for misfit in MISFITS for _, rule in misfit.named}
    assert broken == {*oracle.LIMITS, "pool", "entry", "memory"}


@each_misfit
def test_every_layer_and_every_limit_that_is_in_the_way_is_named_and_nothing_else(misfit: Misfit) -> None:
    _, found = planned(misfit)
    assert not found.fits
    assert frozenset((violation.layer, violation.rule) for violation in found.violations) == misfit.named
    for violation in found.violations:
        if violation.layer is not None:
            assert f"layer '{violation.layer}'" in violation.message
        if violation.rule in oracle.LIMITS:
            assert violation.limit.startswith(oracle.LIMITS[violation.rule])
            assert f"expected {violation.limit}, found {violation.found}." in violation.message


@each_misfit
def test_words_in_a_plan_are_those_that_an_oracle_counts(misfit: Misfit) -> None:
    net, found = planned(misfit)
    check_words(net, found)


def check_words(net: SpikingNet, found: Plan) -> None:
    told: dict[str, Any] = json.loads(json.dumps(found.to_dict()))
    for layer, row in zip(net.layers, told["cores"], strict=True):
        memories = oracle.count_memories(layer)
        for name, words in zip(MEMORIES, memories, strict=True):
            assert (row[f"{name}_words"]["used"], row[f"useful_{name}_words"]) == (words.occupied, words.useful)
            assert row[f"{name}_formula"].endswith(f" = {words.occupied}")
            there = None if row["core"] is None else oracle.CORES[row["core"]][MEMORIES.index(name)]
            assert row[f"{name}_words"]["available"] == there
        assert tuple(row["candidates"]) == oracle.cores_for(layer)
        for core, sizes in oracle.CORES.items():
            small = [name for name, words, n in zip(MEMORIES, memories, sizes, strict=True) if words.occupied > n]
            assert row["too_small"].get(str(core), []) == small


@each_misfit
def test_words_in_the_messages_are_those_that_an_oracle_counts(misfit: Misfit) -> None:
    net, found = planned(misfit)
    layers = {layer.name: layer for layer in net.layers}
    for violation in found.violations:
        if violation.rule != "memory":
            continue
        if violation.layer is None:
            needs = re.findall(r"'(\w+)' (\d+) kernel and (\d+) neuron words", violation.found)
            assert needs
            for name, kernel, neuron in needs:
                memories = oracle.count_memories(layers[name])
                assert (int(kernel), int(neuron)) == (memories[0].occupied, memories[1].occupied)
            within = {core for name, _, _ in needs for core in oracle.cores_for(layers[name])}
            assert (
                violation.limit == f"core{'s' if len(within) > 1 else ''} {', '.join(map(str, sorted(within)))} of "
                "speck2fdevkit only"
            )
            continue
        memories = oracle.count_memories(layers[violation.layer])
        largest = [max(sizes[index] for sizes in oracle.CORES.values()) for index in range(3)]
        over = [index for index in range(3) if memories[index].occupied > largest[index]]
        shown = [index for index in range(3) if f"{MEMORIES[index]} memory" in violation.found]
        assert shown == (over or [0, 1])
        assert numbers(violation.found, r"memory (\d+) words") == [memories[index].occupied for index in shown]
        if over:
            assert numbers(violation.limit, r"largest core (\d+)") == [largest[index] for index in over]
        else:
            roomy = (sizes[1] for sizes in oracle.CORES.values() if sizes[0] >= memories[0].occupied)
            assert numbers(violation.limit, r"(\d+) neuron words") == [max(roomy)]


@each_misfit
def test_conflicts_are_as_small_as_can_be_and_name_every_layer_that_is_in_one(misfit: Misfit) -> None:
    net, found = planned(misfit)
    check_conflicts(net, found)
    crowd = {layer for conflict in found.placement.conflicts if conflict.cores for layer in conflict.layers}
    if (None, "layers") not in misfit.named:
        assert {net.layers[layer].name for layer in crowd} == misfit.crowd
    if (None, "memory") in misfit.named:
        text = " ".join(violation.message for violation in found.violations)
        assert all(f"'{name}'" in text for name in misfit.crowd)


def check_conflicts(net: SpikingNet, found: Plan) -> None:
    rooms = [oracle.cores_for(layer) for layer in net.layers]
    conflicts = [frozenset(conflict.layers) for conflict in found.placement.conflicts]
    if len(rooms) <= MOST_LAYERS:
        crowds = oracle.find_crowds(rooms)
        assert set(conflicts) <= crowds
        assert frozenset().union(*conflicts) == frozenset().union(*crowds)
        assert not crowds or len(conflicts[0]) == min(map(len, crowds))
    for conflict in found.placement.conflicts:
        assert not oracle.can_be_placed([rooms[layer] for layer in conflict.layers])
        for gone in conflict.layers:
            assert oracle.can_be_placed([rooms[layer] for layer in conflict.layers if layer != gone])
    left_over = {conflict.layers[-1] for conflict in found.placement.conflicts}
    assert len(left_over) == len(conflicts)
    assert oracle.can_be_placed([room for layer, room in enumerate(rooms) if layer not in left_over])


def test_a_kernel_that_is_stored_with_zeros_says_so() -> None:
    by_name = {misfit.name: misfit for misfit in MISFITS}
    _, found = planned(by_name["a depthwise convolution of 256 channels"])
    assert "has no groups: the kernel is stored with zeros, 2304 of 589824 weights are useful." in str(found)
    _, found = planned(by_name["a dilated kernel that is large when dense"])
    assert "has no dilation: the kernel is stored with zeros, 18432 of 100352 weights are useful." in str(found)
    _, found = planned(by_name["a Linear layer of 2,048 by 256"])
    assert "stored with zeros" not in str(found)


# random nets


def random_net(rng: np.random.Generator) -> SpikingNet:
    """Return a chain near the limits of the chip: about as many fit as do not, a few break a rule."""
    edge = int(rng.choice([16, 32, 64, 128]))
    channels, rows, size = 2, [], edge
    for index in range(int(rng.integers(1, 11))):
        kernel = int(rng.choice([1, 3, 5]))
        features = int(rng.choice([2, 6, 8, 12, 16, 24, 32, 33, 48, 64, 128, 256]))
        stride = 2 if size > 64 or (size > 4 and rng.random() < 0.15) else 1
        most = 40_000 if rng.random() < 0.95 else 100_000  # weights; and so many neurons
        while features > 1 and max(channels * kernel**2, (size // stride) ** 2) * features > most:
            features //= 2
        stride = 3 if size > 8 and rng.random() < 0.004 else stride
        size = (size + 2 * (kernel // 2) - kernel) // stride + 1
        pool = 2 if size >= 4 and rng.random() < 0.25 else 3 if size > 8 and rng.random() < 0.004 else 1
        row = {"features": features, "kernel": kernel, "stride": stride, "padding": kernel // 2, "pool": pool}
        rows.append({**row, "bias": bool(rng.random() < 0.3) or None, "name": f"layer{index}"})
        channels, size = features, size // pool
    return stack((2, edge, edge), rows)


def check_random_nets(first: int, n: int) -> tuple[int, int, int]:
    """Return how many of the nets fit, have conflicts, and break a rule."""
    n_fit = n_conflicts = n_illegal = 0
    for seed in range(first, first + n):
        net = random_net(np.random.default_rng(seed))
        found = plan(net)
        rooms = [oracle.cores_for(layer) for layer in net.layers]
        can_be_placed, is_legal = oracle.can_be_placed(rooms), oracle.is_legal(net)
        assert found.fits == (can_be_placed and is_legal), seed
        assert (found.placement.cores is not None) == can_be_placed, seed
        if found.placement.cores is not None:
            assert len(set(found.placement.cores)) == len(rooms)
            assert all(core in room for core, room in zip(found.placement.cores, rooms, strict=True))
        check_words(net, found)
        check_conflicts(net, found)
        n_fit += found.fits
        n_conflicts += any(conflict.cores for conflict in found.placement.conflicts)
        n_illegal += not is_legal
    return n_fit, n_conflicts, n_illegal


def test_a_hundred_random_nets_fit_exactly_where_any_assignment_does() -> None:
    n_fit, n_conflicts, n_illegal = check_random_nets(0, 100)
    assert 20 < n_fit < 80
    assert n_conflicts > 10
    assert n_illegal < 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_random_nets_fit_exactly_where_any_assignment_does() -> None:
    n_fit, n_conflicts, n_illegal = check_random_nets(100, 1000)
    assert 200 < n_fit < 800
    assert n_conflicts > 100
    assert n_illegal > 5
