"""What differs between two programs: every field, each said where it is, and nothing where nothing does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.deploy.artifact import save_program
from spikeport.deploy.diff import Change, diff_programs
from spikeport.deploy.golden import add_golden
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.types import CoreProgram, Destination, Program

from ..invoke import spikeport  # noqa: TID252
from .mutations import KINDS, mutated
from .nets import branch_net, digits_net, stack


def bare(net: Any, **options: Any) -> Program:
    return dataclasses.replace(compile_program(net, **options), golden=())


@pytest.fixture(scope="module")
def program() -> Program:
    return bare(branch_net())


def with_core(program: Program, position: int, **fields: Any) -> Program:
    core = dataclasses.replace(program.cores[position], **fields)
    return dataclasses.replace(program, cores=(*program.cores[:position], core, *program.cores[position + 1 :]))


def only(a: Program, b: Program) -> Change:
    found = diff_programs(a, b)
    assert not found.is_identical
    (change,) = found.changes
    return change


def test_a_program_and_itself_are_the_same(program: Program) -> None:
    found = diff_programs(program, bare(branch_net()))
    assert found.is_identical
    assert found.changes == ()
    assert "identical bytes" in found.verdict
    assert found.to_dict()["equal"] is True


def test_weights_are_counted_with_the_largest_difference(program: Program) -> None:
    weight = program.cores[2].weight.copy()
    weight[0, 0, 0, :2] = weight[0, 0, 0, :2] // 2 - 3
    was = program.cores[2].weight.astype(int)
    change = only(program, with_core(program, 2, weight=weight))
    difference = np.abs(was - weight)
    assert (change.layer, change.what) == ("both", "weight")
    assert (change.n_changed, change.n_values) == (int((difference > 0).sum()), weight.size)
    assert change.largest == difference.max()
    assert change.text == f"{change.n_changed} of {weight.size} changed, by up to {change.largest}"


@pytest.mark.parametrize(
    ("fields", "what", "text"),
    [
        ({"threshold_high": 5}, "threshold_high", "{threshold_high} -> 5"),
        ({"threshold_low": -5}, "threshold_low", "{threshold_low} -> -5"),
        ({"reset": "zero"}, "reset", "subtract -> zero"),
        ({"monitor": True}, "monitor", "False -> True"),
        ({"scale": 2.5}, "scale", "{scale} -> 2.5"),
        ({"bias": np.zeros(4, np.int16)}, "bias", "none -> int16 [4]"),
        ({"destinations": (Destination(None, 2),)}, "routes", "[both pool 2] -> [out pool 2]"),
    ],
)
def test_each_field_of_a_layer_is_told(program: Program, fields: dict[str, Any], what: str, text: str) -> None:
    change = only(program, with_core(program, 0, **fields))
    assert (change.layer, change.what) == ("left", what)
    assert change.text == text.format(**{name: getattr(program.cores[0], name) for name in fields})


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_a_change_of_one_layer(program: Program, kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        found = diff_programs(program, mutated(program, kind, rng))
        (change,) = found.changes
        assert change.layer is not None
        assert not found.acts_alike
        if change.n_changed is not None:
            assert change.n_changed == 1


def test_a_layer_on_another_core_is_one_change_of_its_own() -> None:
    a, b = (bare(digits_net(), layer_order=order) for order in ((3, 4, 5, 7, 8), (3, 4, 6, 7, 8)))
    changes = {(change.layer, change.what): change.text for change in diff_programs(a, b).changes}
    assert changes.pop(("layer2", "core")) == "5 -> 6"
    assert set(changes) == {(None, "provenance")}


def test_what_is_around_the_layers_is_told(program: Program) -> None:
    other = dataclasses.replace(
        program,
        chip="speck2e",
        dvs=dataclasses.replace(program.dvs, pool=(1, 1)),
        slow_clock_hz=100.0,
        provenance={**program.provenance, "seed": 1},
        entry=program.entry[:1],
    )
    texts = {change.what: change.text for change in diff_programs(program, other).changes}
    assert texts["chip"] == "speck2fdevkit -> speck2e"
    assert texts["dvs"] == "pool [2, 2] -> pool [1, 1]"
    assert texts["slow_clock_hz"] == "none -> 100.0"
    assert texts["provenance"] == "none -> seed 1"
    assert texts["entry"] == "[left, right] -> [left]"
    assert len(texts) == 5


def test_a_layer_of_another_name_is_one_change_that_no_chip_is_loaded_with(program: Program) -> None:
    for position, core in enumerate(program.cores):
        renamed = with_core(program, position, name="other")
        change = only(program, renamed)
        assert (change.layer, change.what, change.before, change.after) == (core.name, "name", core.name, "other")
        found = diff_programs(program, renamed)
        assert found.acts_alike
        assert found.verdict == "The chip is loaded with the same; only name differs."
    renamed = with_core(program, 0, name="other", threshold_high=5)
    changes = diff_programs(program, renamed).changes
    assert {(change.layer, change.what) for change in changes} == {("left", "name"), ("left", "threshold_high")}
    swapped = with_core(with_core(program, 0, name="right"), 1, name="left")
    assert not diff_programs(program, swapped).acts_alike


def test_a_layer_of_another_name_on_another_core_is_another_layer(program: Program) -> None:
    last = program.cores[-1]
    free = next(core for core in range(9) if core not in {one.core for one in program.cores})
    routed = tuple(
        dataclasses.replace(
            core,
            destinations=tuple(
                dataclasses.replace(to, core=free if to.core == last.core else to.core) for to in core.destinations
            ),
        )
        for core in program.cores[:-1]
    )
    moved = dataclasses.replace(program, cores=(*routed, dataclasses.replace(last, core=free, name="other")))
    changes = diff_programs(program, moved).changes
    gone = {(change.layer, change.before, change.after) for change in changes if change.what == "layer"}
    assert gone == {(last.name, f"core {last.core}", None), ("other", None, f"core {free}")}


def test_a_change_of_the_program_alone_names_no_layers(program: Program) -> None:
    found = diff_programs(program, dataclasses.replace(program, slow_clock_hz=5.0))
    assert found.verdict == "The programs differ; 1 change."
    assert diff_programs(program, with_core(program, 0, threshold_high=5)).verdict.endswith("1 change in 1 layer.")


@pytest.mark.parametrize(
    ("before", "after"),
    [({"a": 1}, {"a": True}), ({"a": 0.0}, {"a": 0}), ({"a": {"b": [1]}}, {"a": {"b": [1.0]}}), ({"a": None}, {})],
)
def test_values_that_are_equal_in_python_and_not_in_a_file_are_told(
    program: Program, before: dict[str, Any], after: dict[str, Any]
) -> None:
    change = only(*(dataclasses.replace(program, provenance=one) for one in (before, after)))
    assert (change.what, repr(change.before), repr(change.after)) == ("provenance", repr(before), repr(after))


def test_names_that_look_as_if_told_apart_already_hide_no_layer() -> None:
    a = bare(stack((2, 9, 9), [{"features": 2}] * 3))
    for position, name in enumerate(("x", "x", "x (2)")):
        a = with_core(a, position, name=name)
    for position in range(3):
        change = only(a, with_core(a, position, threshold_high=5))
        assert change.what == "threshold_high"


def test_layers_that_only_one_has_are_told_and_equal_names_are_told_apart() -> None:
    rows = [{"features": 2}] * 3
    a, b = (
        dataclasses.replace(one, cores=tuple(dataclasses.replace(core, name="same") for core in one.cores))
        for one in (bare(stack((2, 9, 9), rows)), bare(stack((2, 9, 9), rows[:2])))
    )
    changes = diff_programs(a, b).changes
    gone = [change for change in changes if change.what == "layer"]
    assert [(change.layer, change.before, change.after) for change in gone] == [
        ("same (3)", f"core {a.cores[2].core}", None)
    ]
    assert any(change.layer == "same (2)" and change.what == "routes" for change in changes)


def test_cores_that_work_in_another_order_are_told(program: Program) -> None:
    turned = dataclasses.replace(program, cores=(program.cores[1], program.cores[0], *program.cores[2:]))
    assert only(program, turned).what == "layer order"


def test_what_no_chip_is_loaded_with_is_said_to_make_no_difference(program: Program) -> None:
    other = dataclasses.replace(add_golden(program), provenance={"seed": 4})
    found = diff_programs(program, other)
    assert found.acts_alike
    assert found.verdict == "The chip is loaded with the same; only golden and provenance differ."
    golden = next(change for change in found.changes if change.what == "golden")
    assert golden.before == []
    assert golden.after[0].startswith("probe: 64 events")


def test_every_field_of_a_core_can_differ() -> None:
    """A field that is added to the record is compared too, whatever it is called."""
    a = bare(branch_net()).cores[0]
    seen = {field.name for field in dataclasses.fields(CoreProgram)}
    assert {"weight", "bias", "destinations", "initial_state"} <= seen
    b = dataclasses.replace(a, initial_state=a.initial_state + 1)
    programs = [dataclasses.replace(bare(branch_net()), cores=(one, *bare(branch_net()).cores[1:])) for one in (a, b)]
    change = only(*programs)
    assert (change.what, change.n_changed, change.largest) == ("initial_state", a.initial_state.size, 1)


def test_the_command_ends_with_0_for_equal_programs_and_5_for_others(program: Program, tmp_path: Path) -> None:
    save_program(program, tmp_path / "a.safetensors")
    save_program(program, tmp_path / "same.safetensors")
    save_program(with_core(program, 0, threshold_high=77), tmp_path / "b.safetensors")
    done = spikeport("diff", "a.safetensors", "same.safetensors", cwd=tmp_path)
    assert done.returncode == 0
    assert "identical bytes" in done.stdout
    done = spikeport("diff", "a.safetensors", "b.safetensors", cwd=tmp_path)
    assert done.returncode == 5
    assert "threshold_high" in done.stdout
    done = spikeport("diff", "a.safetensors", "b.safetensors", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert done.returncode == 5
    assert result["equal"] is False
    assert [(change["layer"], change["after"]) for change in result["changes"]] == [("left", 77)]
    assert spikeport("diff", "a.safetensors", "missing", cwd=tmp_path).returncode == 6
