"""The emulator equals the plain-Python reference; the readout; what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeport.convert.geometry import fan_out
from spikeport.deploy import core as core_module
from spikeport.deploy import layout as layout_module
from spikeport.deploy import pipeline
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import InvalidProgramError, RecordingError, SettingError
from spikeport.deploy.readout import classify, count_classes
from spikeport.deploy.types import CoreProgram, Destination, DvsConfig, Program, Recording
from spikeport.models.events import Events

from .programs import Case, make_core, random_case, wide_case
from .reference import ReferenceCore, run_reference

SEEDS = range(240)


def one_core(**fields: Any) -> Program:
    core = make_core(**fields)
    return Program("speck2fdevkit", (core,), (core.core,), DvsConfig(core.in_shape))


def at_origin(t_us: list[int], p: list[int] | None = None, sensor: tuple[int, int] = (1, 1)) -> Events:
    zeros = np.zeros(len(t_us), np.int16)
    return Events(zeros, zeros, zeros if p is None else np.array(p), np.array(t_us), sensor)


@functools.cache
def reference_of(make: Callable[[int], Case], seed: int) -> tuple[Case, dict[int, ReferenceCore]]:
    """Return a random case and what its cores do by the reference, which is slow."""
    case = make(seed)
    return case, run_reference(case.program, case.events, case.slow_clock_hz)


def run(case: Case) -> Recording:
    return Emulator(case.program, slow_clock_hz=case.slow_clock_hz).run(case.events, "all")


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_the_reference(seed: int) -> None:
    check_against_the_reference(*reference_of(random_case, seed))


@pytest.mark.parametrize("seed", [*range(40), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(40, 60))])
def test_runs_of_any_length_equal_the_reference(seed: int) -> None:
    check_against_the_reference(*reference_of(wide_case, seed))


def check_against_the_reference(case: Case, cores: dict[int, ReferenceCore]) -> None:
    recording = run(case)
    for core_id, core in cores.items():
        assert recording.spikes[core_id].tolist() == core.spikes
        assert recording.states[core_id].tolist() == core.state
        assert recording.synops[core_id] == core.synops
        assert recording.n_events[core_id] == core.n_events
        assert recording.n_dropped[core_id] == core.n_dropped
        assert recording.n_spikes[core_id] == len(core.spikes)
        counted = Counter((f, v, u) for _, _, f, v, u in core.spikes)
        assert counted == {at: n for at, n in np.ndenumerate(recording.counts[core_id]) if n}


def test_the_random_programs_reach_every_rule() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        case, cores = reference_of(random_case, seed)
        program = case.program
        arriving = Counter(target.core for core in program.cores for target in core.destinations)
        arriving.update(program.entry)
        period_us = math.inf if case.slow_clock_hz is None else 1e6 / case.slow_clock_hz
        seen["merge"] += program.dvs.merge or program.dvs.input_shape[0] == 1
        seen["input pool"] += max(program.dvs.pool) > 1
        for core in program.cores:
            result = cores[core.core]
            targets = [target.core for target in core.destinations]
            is_busy = len(result.spikes) > 0
            seen["spikes"] += is_busy
            seen["dropped"] += result.n_dropped > 0
            seen["saturated"] += result.n_saturated > 0
            seen["several sources"] += arriving[core.core] > 1
            seen["several destinations"] += is_busy and len(targets) > 1
            seen["one target twice"] += is_busy and len(set(targets)) < len(targets)
            seen["feature shift"] += is_busy and any(target.feature_shift for target in core.destinations)
            seen["leak"] += core.bias is not None and period_us < case.events.t_us[-1]
            seen["silent"] += result.n_events == 0
            seen["threshold below weight"] += is_busy and core.threshold_high < core.weight.max()
            for axis in (0, 1):
                seen[f"stride {core.stride[axis]}"] += is_busy
                seen[f"kernel {core.weight.shape[2 + axis]}"] += is_busy
            for target in core.destinations:
                seen[f"pool {target.pool}"] += is_busy
            seen[f"reset {core.reset}"] += is_busy
    wanted = [
        *(f"stride {n}" for n in (1, 2, 3, 4)),
        *(f"kernel {n}" for n in range(1, 6)),
        "pool 1",
        "pool 2",
        "pool 4",
    ]
    assert {name: seen[name] for name in [*wanted, "reset zero", "reset subtract"] if seen[name] < 10} == {}
    assert {name: n for name, n in seen.items() if n < 10} == {}


def test_synops_are_events_times_fan_out() -> None:
    for seed in SEEDS:
        case = random_case(seed)
        core = case.program.cores[0]
        alone = dataclasses.replace(core, destinations=(Destination(None),))
        recording = run(dataclasses.replace(case, program=Program("x", (alone,), (core.core,), case.program.dvs)))
        reach = fan_out(core.in_shape, core.weight.shape, core.window)
        y = case.events.y // case.program.dvs.pool[0]
        x = case.events.x // case.program.dvs.pool[1]
        is_merged = case.program.dvs.merge or case.program.dvs.input_shape[0] == 1
        feature = np.where(is_merged, 0, case.events.p)
        inside = (feature < core.in_shape[0]) & (y < core.in_shape[1]) & (x < core.in_shape[2])
        assert recording.synops[core.core] == reach[y[inside], x[inside]].sum()


def test_runs_are_independent_and_repeatable() -> None:
    case, other = random_case(7), random_case(8)
    emulator = Emulator(case.program, slow_clock_hz=case.slow_clock_hz)
    first = emulator.run(case.events, "all")
    run(other)
    assert emulator.run(case.events, "all").same(first)
    with ThreadPoolExecutor(2) as pool:
        assert all(again.same(first) for again in pool.map(lambda _: emulator.run(case.events, "all"), range(8)))


def test_a_buffer_that_overflows_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [random_case(seed) for seed in range(40)]
    whole = [run(case) for case in busy]
    monkeypatch.setattr(core_module, "_SPIKES", 1)
    monkeypatch.setattr(layout_module, "_MASKS", 1)
    assert all(run(case).same(recording) for case, recording in zip(busy, whole, strict=True))
    assert max(max(recording.n_spikes.values()) for recording in whole) > 100


def test_the_loop_is_compiled_once() -> None:
    from spikeport.deploy.kernels import integrate

    for seed in range(10):
        run(random_case(seed))
    assert len(integrate.signatures) == 1  # type: ignore[attr-defined]


@pytest.mark.slow
def test_runs_where_nothing_can_be_cached() -> None:
    source = """
from spikeport.deploy.kernels import leak, np
state = np.array([5], np.int16)
leak(state, np.array([2], np.int16), -1, 3)
print(state[0], type(leak._cache).__name__)
"""
    # A locator for notebooks only: numba finds no place for the cache of a plain file.
    environment = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
    printed = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["11", "NullCache"]


def test_records_monitored_cores_or_all() -> None:
    case = next(case for case in map(random_case, SEEDS) if len({core.monitor for core in case.program.cores}) == 2)
    every = run(case)
    monitored = Emulator(case.program, slow_clock_hz=case.slow_clock_hz).run(case.events)
    assert set(every.spikes) == {core.core for core in case.program.cores}
    assert set(monitored.spikes) == {core.core for core in case.program.cores if core.monitor}
    assert all(np.array_equal(spikes, every.spikes[core]) for core, spikes in monitored.spikes.items())
    assert not any(
        array.flags.writeable for array in [*every.spikes.values(), *every.states.values(), *every.counts.values()]
    )


def states_after(events: Events, program: Program, slow_clock_hz: float | None = None) -> tuple[int, int]:
    """Return the number of spikes and the state of the program's first neuron."""
    recording = Emulator(program, slow_clock_hz=slow_clock_hz).run(events)
    core = program.cores[0].core
    return recording.n_spikes[core], int(recording.states[core].reshape(-1)[0])


def test_weight_at_threshold_fires_once_and_leaves_nothing() -> None:
    assert states_after(at_origin([0]), one_core()) == (1, 0)


def test_one_event_fires_once_and_the_surplus_stays() -> None:
    assert states_after(at_origin([0]), one_core(threshold_high=40)) == (1, 87)


def test_a_weight_of_zero_lets_the_surplus_fire() -> None:
    program = one_core(weight=np.array([[[[127]], [[0]]]]), threshold_high=40)
    assert states_after(at_origin([0, 1], [0, 1]), program) == (2, 47)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_leak_series(reset: str) -> None:
    program = one_core(
        weight=[[[[0]]]], bias=np.array([-13]), initial_state=np.array([[[127]]]), threshold_high=1000, reset=reset
    )
    found = [states_after(at_origin([k * 1000]), program, 1000.0)[1] for k in range(23)]
    assert found == [max(127 - 13 * k, -127) for k in range(23)]
    assert found[:4] == [127, 114, 101, 88]
    assert found[19:] == [-120, -127, -127, -127]


def test_order_of_excitation_and_inhibition_matters() -> None:
    program = one_core(weight=np.array([[[[60]], [[-60]]]]), threshold_high=50, threshold_low=-50)
    assert states_after(at_origin([0, 1], [0, 1]), program) == (1, -50)
    assert states_after(at_origin([0, 1], [1, 0]), program) == (0, 10)


def test_a_tick_fires_nothing_and_comes_before_events_of_its_time() -> None:
    program = one_core(weight=[[[[0]]]], bias=np.array([200]), threshold_high=127)
    assert states_after(at_origin([999]), program, 1000.0) == (0, 0)
    assert states_after(at_origin([1000]), program, 1000.0) == (1, 73)
    assert states_after(at_origin([1000]), program) == (0, 0)


@pytest.mark.parametrize("start", [-32_768, -200, 0, 32_767])
@pytest.mark.parametrize("bias", [-32_768, -1, 0, 1, 32_767])
@pytest.mark.parametrize("n_ticks", [0, 1, 2, 7, 70_000, 2**40])
def test_many_ticks_at_once_equal_single_ones(start: int, bias: int, n_ticks: int) -> None:
    expected = start
    for _ in range(min(n_ticks, 70_000)):
        before = expected
        expected = max(min(max(before + bias, -32_768), 32_767), -150)
        if expected == before:
            break
    from spikeport.deploy.kernels import leak

    state = np.array([start], np.int16)
    leak(state, np.array([bias], np.int16), -150, n_ticks)
    assert int(state[0]) == expected


def test_a_silent_core_gets_the_ticks_of_the_whole_recording() -> None:
    deaf = make_core(4, weight=[[[[1]]]], bias=np.array([5]))
    source = make_core(2, weight=[[[[0]]]], destinations=(Destination(4),))
    program = Program("speck2fdevkit", (source, deaf), (2,), DvsConfig((1, 1, 1)))
    recording = Emulator(program, slow_clock_hz=1000.0).run(at_origin([0, 10_500]))
    assert recording.n_events[4] == 0
    assert int(recording.states[4][0, 0, 0]) == 50


def test_a_program_whose_kernel_reaches_no_target() -> None:
    program = one_core(weight=np.ones((2, 1, 2, 2), np.int8), in_shape=(1, 1, 1), stride=(8, 8), padding=(3, 3))
    recording = Emulator(program).run(at_origin([0]))
    assert (recording.n_events[0], recording.synops[0], recording.n_spikes[0]) == (1, 0, 0)


def test_refuses_another_sensor() -> None:
    with pytest.raises(RecordingError, match=r"sensor of 1x1 \(height x width\).*found 2x3") as caught:
        Emulator(one_core()).run(at_origin([0], sensor=(2, 3)))
    assert caught.value.exit_code == 2


def test_refuses_an_empty_recording() -> None:
    with pytest.raises(RecordingError, match="expected at least one, found no events"):
        Emulator(one_core()).run(at_origin([]))


def test_names_both_problems_of_a_recording() -> None:
    with pytest.raises(RecordingError, match=r"found 2x3.*found no events"):
        Emulator(one_core()).run(at_origin([], sensor=(2, 3)))


@pytest.mark.parametrize("hz", [-1.0, math.nan, math.inf, 1e-300])
def test_refuses_a_slow_clock_that_is_no_rate(hz: float) -> None:
    with pytest.raises(
        SettingError, match=f"slow_clock_hz: expected a positive number of ticks per second, found {hz}"
    ):
        Emulator(one_core(), slow_clock_hz=hz)


def test_the_slow_clock_is_the_programs_unless_a_run_says_otherwise() -> None:
    leaking = dataclasses.replace(one_core(bias=np.array([-5])), slow_clock_hz=1000.0)
    still = dataclasses.replace(leaking, slow_clock_hz=None)
    events = at_origin([0, 10_500])
    assert Emulator(leaking).run(events).same(Emulator(still, slow_clock_hz=1000.0).run(events))
    for quiet in (Emulator(leaking, slow_clock_hz=0), Emulator(still), Emulator(still, slow_clock_hz=0)):
        assert quiet.rate_hz is None
        assert not quiet.run(events).same(Emulator(leaking).run(events))
    assert Emulator(leaking, slow_clock_hz=20.0).rate_hz == 20.0
    assert pipeline.run(leaking, events).same(Emulator(leaking).run(events))
    assert pipeline.run(leaking, events, slow_clock_hz=0).same(Emulator(still).run(events))


def test_refuses_an_unknown_record() -> None:
    with pytest.raises(SettingError, match=r"record: expected None .* found 'some'"):
        Emulator(one_core()).run(at_origin([0]), "some")  # type: ignore[arg-type]


def outputs(*cores: CoreProgram) -> Program:
    return Program("speck2fdevkit", cores, tuple(core.core for core in cores), DvsConfig((2, 1, 1)))


def three_classes(weights: list[list[int]], **fields: Any) -> CoreProgram:
    return make_core(weight=np.array(weights)[:, :, None, None], threshold_high=100, threshold_low=-100, **fields)


def test_the_class_with_most_spikes_wins() -> None:
    program = outputs(three_classes([[100, 0], [100, 100], [0, 0]]))
    recording = Emulator(program).run(at_origin([0, 1], [0, 1]))
    assert_array_equal(count_classes(recording, program), [1, 2, 0])
    assert classify(recording, program) == 1


def test_equal_counts_go_to_the_higher_state_then_to_the_lower_class() -> None:
    higher = outputs(three_classes([[0, 0], [10, 0], [20, 0]]))
    assert classify(Emulator(higher).run(at_origin([0])), higher) == 2
    equal = outputs(three_classes([[0, 0], [20, 0], [20, 0]]))
    assert classify(Emulator(equal).run(at_origin([0])), equal) == 1


def test_classes_of_two_cores_lie_side_by_side() -> None:
    shifted = (Destination(None, feature_shift=3),)
    second = dataclasses.replace(three_classes([[0, 0], [100, 100]], destinations=shifted), core=5)
    program = outputs(three_classes([[100, 0], [0, 0], [0, 0]]), second)
    recording = Emulator(program).run(at_origin([0, 1], [0, 1]))
    assert_array_equal(count_classes(recording, program), [1, 0, 0, 0, 2])
    assert classify(recording, program) == 4


def test_readout_refuses_a_program_without_output_and_a_foreign_recording() -> None:
    program = one_core()
    recording = Emulator(program).run(at_origin([0]))
    with pytest.raises(InvalidProgramError, match="found none or several sizes: there is no class to read"):
        classify(recording, one_core(destinations=()))
    with pytest.raises(RecordingError, match="found none of core 3"):
        classify(recording, one_core(core=3))
