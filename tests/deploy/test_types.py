"""Records of deployment: what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spikeport.deploy.errors import InvalidProgramError
from spikeport.deploy.types import CoreProgram, Destination, DvsConfig, Program, ReadoutConfig, is_rate

from .programs import make_core


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"weight": np.full((1, 1, 1, 1), 130)},
            r"weight: expected whole numbers of -128..127, found int64 of 130",
        ),
        ({"weight": np.zeros((1, 1, 1, 1))}, "weight: expected whole numbers of -128..127, found float64"),
        ({"bias": np.array([40_000])}, "bias: expected whole numbers of -32768..32767, found int64 of 40000..40000"),
        ({"name": "conv\n1"}, "name: expected text that a terminal can show"),
        ({"destinations": (Destination(1, 1, 1 << 14),)}, "shifts of 0..16383"),
    ],
)
def test_a_core_holds_no_other_value_than_it_was_given(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidProgramError, match=text):
        make_core(**fields)


def test_a_core_that_a_program_lacks_is_named() -> None:
    core = make_core(3, destinations=(Destination(None),))
    program = Program("speck2fdevkit", (core,), (3,), _dvs(core))
    assert program.core(3) is core
    with pytest.raises(InvalidProgramError, match=r"core 99: expected one of \[3\]"):
        program.core(99)


def test_the_readout_block_reads_outputs_at_its_steps() -> None:
    core = make_core(3, destinations=(Destination(None, 1, 2),))
    with pytest.raises(InvalidProgramError, match="expected an output at a multiple of 4 features, found one at 2"):
        Program("speck2fdevkit", (core,), (3,), _dvs(core), readout=ReadoutConfig(4))


def test_any_kind_of_number_is_a_rate_if_it_is_one() -> None:
    assert is_rate(np.int64(1000))
    assert is_rate(np.float32(0.5))
    assert not any(map(is_rate, (True, "1000", 0, -1.0, float("nan"), np.inf, 10**400, None)))


def _dvs(core: CoreProgram) -> DvsConfig:
    return DvsConfig(core.in_shape)
