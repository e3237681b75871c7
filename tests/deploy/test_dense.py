"""Groups and dilation on a chip that has neither: what the zeros cost, and fixes that are true."""

from __future__ import annotations

import re
from typing import Any

import pytest

from spikeport.deploy.plan import plan

from .nets import single


def test_kernels_that_are_stored_with_zeros_are_told_with_their_words() -> None:
    def told(**options: Any) -> list[str]:
        planned = plan(single((32, 8, 8), 32, padding=1, **options))
        assert planned.fits
        return [warning.found for warning in planned.warnings if warning.rule == "dense kernel"]

    assert told() == []
    assert told(groups=8) == ["grouped convolution of 8 groups stored dense: 9,216 words, 1,152 useful"]
    assert told(dilation=2) == ["dilated kernel of 3x3 over 5x5 stored dense: 25,600 words, 9,216 useful"]
    assert told(dilation=2, groups=2) == [
        "grouped convolution of 2 groups with a dilated kernel of 3x3 over 5x5 stored dense: 25,600 words, 4,608 useful"
    ]
    assert "dense kernel" not in [warning.rule for warning in plan(single((4, 5, 5), 4, 1, dilation=3)).warnings]


@pytest.mark.parametrize("kernel", [2, 3, (4, 3), 16])
def test_a_dilation_that_is_said_to_fit_does_and_one_more_does_not(kernel: int | tuple[int, int]) -> None:
    net = single((2, 60, 60), 2, kernel, dilation=20 if kernel != 16 else 2, padding=7)
    (violation,) = (each for each in plan(net).violations if each.rule == "kernel size")
    (most,) = map(int, re.findall(r"dilation of at most (\d+)", violation.message))
    sizes = [
        {violation.rule for violation in plan(single((2, 60, 60), 2, kernel, dilation=dilation, padding=7)).violations}
        for dilation in (most, most + 1)
    ]
    assert ["kernel size" in size for size in sizes] == [False, True]


def test_a_dilated_kernel_counts_with_its_zeros() -> None:
    assert plan(single((64, 16, 16), 64, 3, padding=1)).fits
    (violation,) = plan(single((64, 16, 16), 64, 3, padding=4, dilation=4)).violations
    assert "kernel memory 524288 words (64 x P(9 x 9) x P(64) = 524288)" in violation.message


@pytest.mark.parametrize(("channels", "groups", "edge"), [(600, 600, 8), (512, 64, 4), (96, 3, 8)])
def test_a_number_of_groups_that_is_said_to_fit_does_and_one_more_does_not(
    channels: int, groups: int, edge: int
) -> None:
    (violation,) = plan(single((channels, edge, edge), channels, groups=groups, padding=1)).violations
    said = re.search(r"at most (\d+) groups \(now (\d+)\), with (\d+) input and (\d+) output ch", violation.message)
    if said is None:  # narrower groups are enough
        (features,) = map(int, re.findall(r"at most (\d+) output channels", violation.message))
        assert features % groups == 0
        assert plan(single((channels, edge, edge), features, groups=groups, padding=1)).fits
        assert not plan(single((channels, edge, edge), features + groups, groups=groups, padding=1)).fits
        return
    fewer, now, inputs, features = map(int, said.groups())
    assert now == groups
    assert plan(single((inputs, edge, edge), features, groups=fewer, padding=1)).fits
    more = channels // groups * (fewer + 1)
    assert not plan(single((more, edge, edge), more, groups=fewer + 1, padding=1)).fits


def test_a_map_of_one_pixel_has_no_room_for_zeros_and_is_no_upsampling() -> None:
    assert plan(single((4, 1, 1), 4, 3, padding=2, upsample=4)).fits
