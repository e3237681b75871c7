"""The memory formula against the addresses that a core really forms, and against a table worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert.geometry import Shape3
from spikeport.convert.kernels import dense_kernel
from spikeport.deploy.budget import Budget, count_words, fits, power_of_two
from spikeport.deploy.chips import chip
from spikeport.deploy.discretize import discretize
from spikeport.deploy.pipeline import compile_program

from .nets import gesture_net, make_layer, random_graph

CHIP = chip("speck2fdevkit")
EDGES = st.integers(1, 64)


def bits(n: int) -> int:
    return math.ceil(math.log2(n))


@settings(deadline=None)
@given(st.integers(1, 1 << 20))
def test_power_of_two_is_the_smallest_that_is_large_enough(n: int) -> None:
    found = power_of_two(n)
    assert found & (found - 1) == 0
    assert found >= n > found // 2


@settings(deadline=None)
@given(st.integers(1, 1024), st.integers(1, 1024), st.integers(1, 16), EDGES, EDGES)
def test_the_answer_is_that_of_the_highest_address_used(c: int, f: int, k: int, fy: int, fx: int) -> None:
    budget = Budget("conv", c, f, (k, k), (fy, fx), has_bias=True)
    # Kernel address: [place in the kernel | out feature | in feature]; neuron address: [y | x | feature].
    kernel = ((k * k - 1) << (bits(f) + bits(c))) | ((f - 1) << bits(c)) | (c - 1)
    neuron = ((fy - 1) << (bits(fx) + bits(f))) | ((fx - 1) << bits(f)) | (f - 1)
    for core in CHIP.cores:
        by_address = kernel < core.kernel_words and neuron < core.neuron_words and f - 1 < core.bias_words
        assert fits(budget, core) == by_address


@settings(deadline=None)
@given(st.integers(1, 2048), st.integers(1, 2048), st.integers(1, 20), EDGES, EDGES)
def test_padding_the_outermost_field_too_gives_the_same_answer(c: int, f: int, k: int, fy: int, fx: int) -> None:
    budget = Budget("conv", c, f, (k, k), (fy, fx), has_bias=False)
    kernel = power_of_two(c) * power_of_two(k * k) * power_of_two(f)
    neuron = power_of_two(f) * power_of_two(fy) * power_of_two(fx)
    for core in CHIP.cores:
        assert fits(budget, core) == (kernel <= core.kernel_words and neuron <= core.neuron_words)


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_useful_words_are_parameters_and_neurons_and_never_more_than_occupied(
    c: int, f: int, ky: int, kx: int, has_bias: bool
) -> None:
    budget = Budget("conv", c, f, (ky, kx), (5, 7), has_bias)
    assert budget.useful_kernel_words == c * f * ky * kx <= budget.kernel_words
    assert budget.useful_neuron_words == f * 35 <= budget.neuron_words
    assert budget.bias_words == f * has_bias


@pytest.mark.parametrize(
    ("in_shape", "features", "kernel", "steps", "words", "cores"),
    [
        ((2, 128, 128), 16, 3, (2, 1), (512, 65_536), [0, 1, 2]),
        ((2, 128, 128), 17, 3, (2, 1), (1_024, 69_632), []),
        ((32, 32, 32), 32, 3, (1, 1), (16_384, 32_768), [0, 1, 2, 3, 4]),
        ((16, 4, 4), 10, 4, (1, 0), (4_096, 10), list(range(9))),
        ((8, 8, 8), 4, 1, (1, 0), (32, 256), list(range(9))),
    ],
)
def test_known_layers(
    in_shape: Shape3, features: int, kernel: int, steps: tuple[int, int], words: tuple[int, int], cores: list[int]
) -> None:
    budget = count_words(make_layer(in_shape, features, kernel, stride=steps[0], padding=steps[1]))
    assert (budget.kernel_words, budget.neuron_words) == words
    assert [core.core for core in CHIP.cores if fits(budget, core)] == cores


def test_formulas_show_the_numbers_that_they_come_to() -> None:
    budget = count_words(make_layer((2, 128, 128), 20, 5, stride=4))
    assert budget.kernel_formula == f"2 x P(5 x 5) x P(20) = {budget.kernel_words}" == "2 x P(5 x 5) x P(20) = 2048"
    assert budget.neuron_formula == f"20 x P(31) x P(31) = {budget.neuron_words}" == "20 x P(31) x P(31) = 20480"


@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 1), (1, 3), (4, (2, 1))])
def test_a_kernel_counts_with_the_zeros_that_are_stored(groups: int, dilation: int | tuple[int, int]) -> None:
    layer = make_layer((4, 20, 20), 8, (3, 2), groups=groups, dilation=dilation, threshold=100.0)
    budget = count_words(layer)
    weight = dense_kernel(layer.weight, dilation=layer.dilation, groups=groups)
    assert (budget.features, budget.in_features, *budget.kernel) == weight.shape
    assert budget.dense_kernel_words == weight.size
    assert budget.useful_kernel_words == layer.weight.size == np.count_nonzero(weight)


def test_floats_integers_and_cores_of_a_net_need_the_same_words() -> None:
    for seed in range(10):
        net = random_graph(np.random.default_rng(seed))
        cores = compile_program(net).cores
        for layer, integer, core in zip(net.layers, discretize(net).layers, cores, strict=True):
            assert count_words(layer) == count_words(integer)
            assert count_words(core).kernel_words == count_words(layer).kernel_words
            assert count_words(core).useful_kernel_words == count_words(layer).dense_kernel_words
    net = gesture_net()
    assert list(map(count_words, net.layers)) == list(map(count_words, discretize(net).layers))
