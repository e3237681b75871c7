"""Objectives from the net to the program, and what a plan tells about each core and each conflict."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from spikeport.deploy.errors import SettingError
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.place import Objective
from spikeport.deploy.plan import plan

from .misfits import MISFITS
from .nets import digits_net

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def test_the_same_net_is_placed_for_each_objective_and_the_program_follows() -> None:
    net = digits_net()
    cores = {aim: plan(net, objective=aim).placement.cores for aim in OBJECTIVES}
    assert cores["reproducible"] == cores["compact"]
    assert not {0, 1} & {*(cores["reproducible"] or ())}
    assert {0, 1} < {*(cores["fast"] or ())}
    for aim in OBJECTIVES:
        program = compile_program(net, objective=aim)
        assert tuple(core.core for core in program.cores) == cores[aim]
        assert program.provenance["objective"] == plan(net, objective=aim).to_dict()["objective"] == aim


def test_the_busiest_layers_are_those_of_the_traffic_that_is_given() -> None:
    net = digits_net()
    names = [layer.name for layer in net.layers]
    for busy in itertools.permutations(names, 2):
        found = plan(net, objective="fast", traffic={name: 1 + 100 * (name in busy) for name in names})
        on_core = {use.core.core: use.layer for use in found.cores if use.core}
        assert {on_core[0], on_core[1]} == set(busy)
    with pytest.raises(SettingError, match="traffic: expected synops of every layer, found none of 'layer1'"):
        plan(net, objective="fast", traffic={name: 1 for name in names if name != "layer1"})


def test_a_misfit_names_its_conflicts_and_the_cores_large_enough_for_each_layer() -> None:
    crowd = next(misfit for misfit in MISFITS if misfit.name == "five layers for cores 0 to 2")
    planned = plan(crowd.build())
    told = planned.to_dict()
    first = ["layer0", "layer1", "layer2"]
    assert told["conflicts"] == [{"layers": [*first, f"layer{last}"], "cores": [0, 1, 2]} for last in (3, 4)]
    assert told["cores"][0]["candidates"] == list(planned.cores[0].candidates) == [0, 1, 2]
    assert told["cores"][0]["too_small"] == {str(core): ["neuron"] for core in range(3, 9)}
    assert plan(digits_net()).to_dict()["conflicts"] == []
