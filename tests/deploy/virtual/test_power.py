"""The power monitor: rails at rest, what synops add, rates, time stamps."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from spikeport.convert.power import find_profile

from .bench import Bench
from .writer import configured, one_neuron, program_of_one

RAILS = [rail.rest.mid for rail in find_profile("speck2f").rails]


def monitored(samna: types.ModuleType) -> tuple[Bench, Any, Any]:
    bench = Bench(samna)
    bench.apply(
        configured(program_of_one(one_neuron(weight=np.ones((512, 1, 1, 1), np.int8), **_wide())), with_input=False)
    )
    power = bench.board.get_power_monitor()
    graph = samna.graph.EventFilterGraph()
    _, sink = graph.sequential([power.get_source_node(), samna.BasicSinkNode_unifirm_modules_events_measurement()])
    graph.start()
    bench.board.kept = graph
    return bench, power, sink


def _wide() -> dict[str, Any]:
    return {"out_shape": (512, 1, 1), "initial_state": np.zeros((512, 1, 1), np.int16), "core": 3}


def test_at_rest_five_rails_draw_what_the_model_says(samna: types.ModuleType) -> None:
    _, power, sink = monitored(samna)
    power.single_shot_power_measurement()
    found = sink.get_n_events(5, 5000)
    assert [one.channel for one in found] == [0, 1, 2, 3, 4]
    assert [one.value for one in found] == RAILS
    assert {one.timestamp for one in found} == {0}
    assert "virtual" in repr(found[0])


def test_synops_cost_power_on_the_rails_of_memory_and_logic(samna: types.ModuleType) -> None:
    bench, power, sink = monitored(samna)
    bench.ask(*[bench.events.Spike(3, 0, 0, 0)] * 2000)
    bench.board.get_stop_watch().start()
    power.single_shot_power_measurement()
    above = [one.value - rest for one, rest in zip(sink.get_n_events(5, 5000), RAILS, strict=True)]
    assert above[1] == pytest.approx(above[2]) != 0
    assert (above[0], above[3], above[4]) == (0, 0, 0)
    assert bench.board.engine.n_synops() == 2000 * 512
    power.single_shot_power_measurement()
    assert [one.value for one in sink.get_n_events(5, 5000)] == RAILS


def test_sampling_goes_on_at_a_rate_of_at_most_100_hertz(samna: types.ModuleType) -> None:
    bench, power, sink = monitored(samna)
    bench.board.get_stop_watch().start()
    assert power.start_auto_power_measurement(1000) == 100.0
    found = sink.get_n_events(25, 5000)
    power.stop_auto_power_measurement()
    assert [one.channel for one in found] == [0, 1, 2, 3, 4] * 5
    stamps = [one.timestamp for one in found[::5]]
    assert stamps == sorted(stamps)
    assert stamps[-1] > 0
    assert power.start_auto_power_monitor(50) == 50.0
    assert len(sink.get_n_events(5, 5000)) == 5
    power.stop_auto_power_monitor()
    for wrong in ("fast", 0, -1):
        with pytest.raises(TypeError, match="expected a rate above 0"):
            power.start_auto_power_measurement(wrong)
