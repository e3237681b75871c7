"""The readout block: classes lie where it looks for them, and stay the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeport.convert.types import INPUT, Edge, SpikingNet
from spikeport.deploy.artifact import load_program, save_program
from spikeport.deploy.chips import chip
from spikeport.deploy.discretize import fitted
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DoesNotFitError, InvalidProgramError
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.plan import plan
from spikeport.deploy.readout import classes_of, classify, count_classes, n_classes, output_states, with_readout
from spikeport.deploy.types import Program, ReadoutConfig
from spikeport.models.events import Events

from .nets import digits_net, make_layer, stack
from .programs import random_events

LIMITS = chip("speck2fdevkit").limits


def two_heads(n_left: int = 3, n_right: int = 2, **options: object) -> SpikingNet:
    """Return a net whose classes come from two layers, the second one behind the first by a feature shift."""
    stem = make_layer((2, 8, 8), 4, 3, name="stem", stride=2)
    left = make_layer(stem.out_shape, n_left, 3, name="left", seed=1, bias=True)
    v_init = np.linspace(-0.5, 0.5, n_right, dtype=np.float32).reshape(-1, 1, 1)
    groups = 2 if n_right % 2 == 0 else 1
    right = make_layer(stem.out_shape, n_right, 3, name="right", seed=2, groups=groups, v_init=v_init, **options)
    edges = (Edge(INPUT, 0), Edge(0, 1), Edge(0, 2), Edge(1, None), Edge(2, None, (1, 1), n_left))
    return SpikingNet((stem, left, right), edges, (2, 8, 8))


def recordings(net: SpikingNet) -> list[Events]:
    return [random_events(np.random.default_rng(seed), net.input_shape, 150) for seed in range(12)]


@pytest.mark.parametrize("net", [digits_net(34), two_heads()], ids=["digits", "two heads"])
@pytest.mark.parametrize("is_fitted", [False, True])
def test_with_the_readout_block_every_class_stays_the_same(net: SpikingNet, is_fitted: bool) -> None:
    given = fitted(net) if is_fitted else net
    plain, widened = compile_program(given), compile_program(given, monitor="readout")
    assert widened.readout == ReadoutConfig(4)
    assert n_classes(widened) == n_classes(plain)
    winners = set()
    for events in recordings(net):
        expected, found = (Emulator(program, slow_clock_hz=300.0).run(events) for program in (plain, widened))
        assert_array_equal(count_classes(found, widened), count_classes(expected, plain))
        assert_array_equal(output_states(found, widened), output_states(expected, plain))
        assert classify(found, widened) == classify(expected, plain)
        winners.add(classify(found, widened))
    assert len(winners) > 1


def test_class_i_is_feature_4_i_and_the_features_between_never_spike() -> None:
    net = two_heads()
    program = compile_program(net, monitor="readout")
    _, left, right = program.cores
    assert (left.out_shape, right.out_shape) == ((9, 1, 1), (5, 1, 1))
    assert right.destinations[0].feature_shift == 12
    assert left.bias is not None
    assert not np.delete(left.bias, [0, 4, 8]).any()
    assert not any(core.monitor for core in program.cores)
    for events in recordings(net):
        recording = Emulator(program).run(events, "all")
        for core in (left, right):
            assert not (recording.spikes[core.core]["feature"] % 4).any()
            (end,) = core.destinations
            classes = classes_of(recording.spikes[core.core], end, program)
            assert_array_equal(np.bincount(classes, minlength=5), count_classes(recording, program) * own(core.name))


def own(name: str) -> list[int]:
    return [1, 1, 1, 0, 0] if name == "left" else [0, 0, 0, 1, 1]


def test_a_spike_between_two_classes_is_of_none() -> None:
    program = compile_program(two_heads(), monitor="readout")
    spikes = np.zeros(3, [("feature", "i2"), ("y", "i2"), ("x", "i2")])
    spikes["feature"] = [0, 1, 4]
    assert classes_of(spikes, program.cores[1].destinations[0], program).tolist() == [0, -1, 1]


def test_the_plan_shows_what_was_widened_and_the_program_keeps_it(tmp_path: object) -> None:
    planned = plan(digits_net(34), readout=True)
    note, clock = planned.warnings[:2]
    assert (note.rule, clock.rule) == ("readout erratum", "readout without slow clock")
    assert "10 output channels became 37 with zeros between" in note.message
    assert planned.cores[-1].used.features == 37
    program = compile_program(digits_net(34), monitor="readout")
    assert program.provenance["rewrites"] == [note.message]
    assert program.provenance["monitor"] == "readout"
    path = tmp_path / "program"  # type: ignore[operator]
    save_program(program, path)
    assert load_program(path).same(program)


def test_without_the_readout_block_nothing_is_widened() -> None:
    assert compile_program(digits_net(34)).readout is None
    assert plan(digits_net(34)).cores[-1].used.features == 10
    net = digits_net(34)
    same, (note,) = with_readout(net, dataclasses.replace(LIMITS, readout_step=1))
    assert same.same(net)
    assert note.rule == "readout without slow clock"


def fed_on() -> SpikingNet:
    net = two_heads()
    more = make_layer((3, 1, 1), 2, 1, name="more")
    return SpikingNet((*net.layers, more), (*net.edges, Edge(1, 3), Edge(3, None)), net.input_shape)


REFUSED = {
    "maps": (stack((2, 8, 8), [{"features": 3}]), "expected an output map of 1x1, found a map of 6x6"),
    "sizes": (
        SpikingNet(two_heads().layers, (*two_heads().edges, Edge(0, None)), (2, 8, 8)),
        "expected an output map of 1x1, found maps of several sizes",
    ),
    "classes": (two_heads(9, 8), "expected at most 15 classes, found 17"),
    "input": (
        SpikingNet(digits_net(34).layers[-1:], (Edge(INPUT, 0), Edge(0, None), Edge(INPUT, None)), (32, 1, 1)),
        "expected classes from layers only, found the input",
    ),
    "readers": (fed_on(), r"layer 'left': readout: .*, found 'more' fed by it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_readout_block_cannot_read_is_refused(case: str) -> None:
    net, text = REFUSED[case]
    assert with_readout(net, LIMITS) == (net, ())
    assert any(violation.rule == "readout" for violation in plan(net, readout=True).violations)
    with pytest.raises(DoesNotFitError, match=text):
        compile_program(net, monitor="readout")


def test_a_program_whose_classes_lie_elsewhere_is_refused() -> None:
    program: Program = compile_program(digits_net(34))
    with pytest.raises(InvalidProgramError, match=r"'layer4'.*expected 4 \* \(n - 1\) \+ 1 features for n classes"):
        dataclasses.replace(program, readout=ReadoutConfig(4))
