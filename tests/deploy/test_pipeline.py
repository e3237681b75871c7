"""From a net to a program that runs: the same bytes anywhere, and every reason at once where it does not fit."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from spikeport.convert import simulate
from spikeport.convert.store import save_net
from spikeport.deploy.artifact import load_program, program_hash, save_program
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import ChipNameError, DeviceError, DoesNotFitError, LayerOrderError, MonitorError
from spikeport.deploy.pipeline import compile_program, run
from spikeport.deploy.plan import plan
from spikeport.models.events import Events

from .nets import branch_net, digits_net, gesture_net, single, stack


def events_of(edge: int, n_events: int = 300) -> Events:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, edge, (2, n_events))
    return Events(x, y, rng.integers(0, 2, n_events), np.arange(n_events) * 10, (edge, edge))


def test_a_program_is_what_the_plan_says() -> None:
    net = gesture_net()
    order = [0, 1, 2, 7, 4, 5, 6, 3, 8]
    program = compile_program(net, "speck2edevkit", layer_order=order, monitor="all")
    assert program.chip == "speck2edevkit"
    assert [core.core for core in program.cores] == order
    assert all(core.monitor for core in program.cores)
    for core, integer in zip(program.cores, plan(net).net.layers, strict=True):
        assert np.array_equal(core.weight, integer.weight)


def test_provenance_says_version_net_and_options_and_keeps_what_it_is_given() -> None:
    net = digits_net()
    origin = compile_program(net, monitor=["layer0"], provenance={"seed": 7}).provenance
    assert origin["spikeport"] == version("spikeport")
    assert (origin["seed"], origin["layer_order"], origin["monitor"]) == (7, "auto", ["layer0"])
    assert compile_program(net, layer_order=(3, 4, 5, 7, 8)).provenance["layer_order"] == [3, 4, 5, 7, 8]
    assert origin["net_sha256"] == compile_program(digits_net()).provenance["net_sha256"]
    assert origin["net_sha256"] != compile_program(branch_net()).provenance["net_sha256"]


def test_all_reasons_stand_in_the_error() -> None:
    net = stack((2, 130, 130), [{"features": 20, "kernel": 17, "stride": 3, "padding": 8, "pool": 3}])
    with pytest.raises(DoesNotFitError) as caught:
        compile_program(net)
    first, *rest = str(caught.value).splitlines()
    messages = [violation.message for violation in plan(net).violations]
    assert first == f"{messages[0]} {len(messages) - 1} further problems below."
    assert rest == messages[1:]
    assert caught.value.exit_code == 4


def test_a_single_reason_stands_alone() -> None:
    net = stack((2, 20, 20), [{"features": 4, "pool": 3}])
    with pytest.raises(DoesNotFitError) as caught:
        compile_program(net)
    assert str(caught.value) == plan(net).violations[0].message


def test_a_net_that_needs_upsampling_is_simulated_and_does_not_fit() -> None:
    net = single((2, 6, 6), 4, upsample=2, padding=2)
    assert simulate(net, np.ones((5, 2, 6, 6))).counts[0].sum() > 0
    with pytest.raises(DoesNotFitError, match=r"the chip cannot upsample, found 2x2\. Try a Conv2d in place") as caught:
        compile_program(net)
    assert caught.value.exit_code == 4


def test_what_is_no_question_of_size_keeps_its_own_error() -> None:
    with pytest.raises(ChipNameError):
        compile_program(digits_net(), "speck9")
    with pytest.raises(LayerOrderError):
        compile_program(digits_net(), layer_order=[0, 0, 1, 2, 3])
    with pytest.raises(MonitorError):
        compile_program(digits_net(), monitor=["conv99"])


BUILD = """
import sys
from spikeport.convert.store import load_net
from spikeport.deploy.artifact import save_program
from spikeport.deploy.pipeline import compile_program
save_program(compile_program(load_net("net.spikeport"), monitor="all"), "program.spikeport")
"""


def test_two_builds_in_different_folders_and_processes_have_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "deep"
    folder.mkdir(parents=True)
    save_net(branch_net(), folder / "net.spikeport")
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True)
    there, here = folder / "program.spikeport", tmp_path / "program.spikeport"
    save_program(compile_program(branch_net(), monitor="all"), here)
    assert here.read_bytes() == there.read_bytes()
    assert program_hash(load_program(there)) == program_hash(load_program(here))
    assert str(tmp_path).encode() not in here.read_bytes()


@pytest.mark.parametrize("net", [digits_net(), branch_net()])
def test_running_is_loading_a_device_and_feeding_it(net: object) -> None:
    program = compile_program(net)  # type: ignore[arg-type]
    events = events_of(net.input_shape[1])  # type: ignore[attr-defined]
    found = run(program, events, "emulator", record="all")
    assert found.same(Emulator(program).run(events, "all"))
    assert sum(found.n_spikes.values()) > 0


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceError):
        run(compile_program(digits_net()), events_of(34), device="speck99")
