"""Golden vectors: what is recorded is what the emulator does, the same everywhere, and it reaches what it says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.convert.store import save_net
from spikeport.deploy.artifact import load_program, save_program
from spikeport.deploy.dvs import enter
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import InvalidProgramError, RecordingError
from spikeport.deploy.golden import MAX_EVENTS, add_golden, content_hash, count_untouched
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.stimuli import STEP_US, Bench, search_events
from spikeport.deploy.types import CoreProgram, Destination, DvsConfig, Program, ReadoutConfig
from spikeport.deploy.vectors import MAX_GOLDEN_SPIKES
from spikeport.deploy.verify import verify
from spikeport.models.events import Events
from spikeport.models.files import write_events

from ..invoke import spikeport  # noqa: TID252
from .nets import branch_net, stack
from .programs import make_core, random_case, random_events


def biased() -> Program:
    rows = [{"features": 3, "bias": True, "pool": 2}, {"features": 2, "kernel": 2, "bias": True}]
    return compile_program(stack((2, 6, 6), rows))


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_program(branch_net())


def test_vectors_are_what_the_emulator_does(program: Program) -> None:
    assert [golden.name for golden in program.golden][:2] == ["probe", "search 1"]
    for golden in program.golden:
        found = Emulator(program, slow_clock_hz=golden.slow_clock_hz).run(golden.events, "all")
        for core in program.cores:
            assert np.array_equal(golden.spikes[core.core], found.spikes[core.core])
            assert np.array_equal(golden.states[core.core], found.states[core.core])
        assert len(golden.events) <= MAX_EVENTS
        assert sum(map(len, golden.spikes.values())) <= MAX_GOLDEN_SPIKES
        assert np.all(np.diff(golden.events.t_us) == STEP_US)


def test_they_excite_every_core_both_polarities_and_every_weight(program: Program) -> None:
    for core in program.cores:
        assert any(len(golden.spikes[core.core]) for golden in program.golden)
    assert set(np.concatenate([golden.events.p for golden in program.golden])) == {0, 1}
    assert count_untouched(program) == {core.core: 0 for core in program.cores}


def test_they_are_made_when_first_looked_at_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any, **options: Any) -> object:
        calls.append(arguments)
        return search_events(*arguments, **options)

    monkeypatch.setattr("spikeport.deploy.golden.search_events", counted)
    program = biased()
    changed = dataclasses.replace(program, provenance={"seed": 1})
    assert calls == []
    assert len(program.golden) >= 2
    n_calls = len(calls)
    assert changed.golden[0].same(program.golden[0])
    assert len(changed.golden[1:]) == len(program.golden) - 1
    assert len(calls) == n_calls > 0


def test_a_changed_program_keeps_the_vectors_of_the_one_that_was_compiled() -> None:
    program = biased()
    core = dataclasses.replace(program.cores[0], threshold_high=program.cores[0].threshold_high + 1)
    changed = dataclasses.replace(program, cores=(core, *program.cores[1:]))
    assert all(one.same(other) for one, other in zip(changed.golden, biased().golden, strict=True))


def test_biases_are_excited_by_a_slow_clock_and_the_probe_has_none(program: Program) -> None:
    rates = [golden.slow_clock_hz for golden in biased().golden]
    assert rates[0] == 0
    assert set(rates[1:]) == {100.0}
    assert {golden.slow_clock_hz for golden in program.golden} == {0}
    clocked = add_golden(dataclasses.replace(program, slow_clock_hz=500.0))
    assert {golden.slow_clock_hz for golden in clocked.golden[1:]} == {500.0}
    slow = add_golden(dataclasses.replace(program, slow_clock_hz=4.0))
    assert {golden.slow_clock_hz for golden in slow.golden[1:]} == {4.0}


@pytest.mark.parametrize("hz", [1.0, 4.0, 10.0])
def test_a_changed_bias_shows_however_slow_the_clock_of_the_program_is(hz: float) -> None:
    clocked = add_golden(dataclasses.replace(biased(), slow_clock_hz=hz))
    for position, core in enumerate(clocked.cores):
        assert core.bias is not None
        changed = dataclasses.replace(core, bias=np.where(core.bias > 0, core.bias - 1, core.bias + 1))
        cores = (*clocked.cores[:position], changed, *clocked.cores[position + 1 :])
        found = verify(dataclasses.replace(clocked, cores=cores)).divergence
        assert found is not None
        assert found.kind in ("spikes", "state")


def test_a_recording_of_the_user_joins_from_its_start(program: Program) -> None:
    rng = np.random.default_rng(0)
    recording = random_events(rng, program.dvs.input_shape, 3000)
    *_, last = add_golden(program, recording).golden
    assert last.name == "recording"
    assert len(last.events) == MAX_EVENTS
    assert np.array_equal(last.events.x, recording.x[:MAX_EVENTS])
    assert last.events.t_us[0] == 0
    short = add_golden(program, recording.window(0, int(recording.t_us[50])))
    assert short.golden[-1].events.same(recording.window(0, int(recording.t_us[50])).from_zero())
    with pytest.raises(RecordingError, match=r"expected events of a sensor of 32x32 .* found 3 events of 8x8"):
        add_golden(program, random_events(rng, (2, 8, 8), 3))
    with pytest.raises(RecordingError, match="found 0 events of 32x32"):
        add_golden(program, recording.window(0, 0))


@pytest.mark.parametrize("seed", range(12))
def test_pieces_one_after_the_other_leave_the_states_of_the_emulator(seed: int) -> None:
    case = random_case(seed)
    bench = Bench.of(case.program)
    for start in range(0, len(case.events), 7):
        after = bench.advance(case.events.part(start, start + 7), case.slow_clock_hz)
        assert after is not None
        bench = after
    found = Emulator(case.program, slow_clock_hz=case.slow_clock_hz or 0).run(case.events)
    for core in bench.cores:
        assert np.array_equal(core.maps()[0], found.states[core.program.core])
    assert bench.n_spikes == sum(found.n_spikes.values())


@pytest.mark.parametrize("seed", range(6))
def test_untouched_weights_are_those_that_change_nothing(seed: int) -> None:
    """Replace each weight in turn by another: where no state and no spike of a golden vector changes, none was met."""
    rng = np.random.default_rng(seed)
    net = stack((2, 5, 5), [{"features": 2, "stride": 2, "padding": 1}, {"features": 2, "kernel": 2}])
    compiled = compile_program(net)
    few = random_events(rng, compiled.dvs.input_shape, 4)
    program = add_golden(compiled, few)
    program = dataclasses.replace(program, golden=program.golden[-1:])
    counted = count_untouched(program)
    for position, core in enumerate(program.cores):
        n_silent = 0
        for at in range(core.weight.size):
            weight = core.weight.copy()
            weight.flat[at] = 127 if weight.flat[at] < 0 else -128
            cores = list(program.cores)
            cores[position] = dataclasses.replace(core, weight=weight, threshold_low=-32_768, threshold_high=32_767)
            base = dataclasses.replace(cores[position], weight=core.weight)
            outcomes = [
                Emulator(dataclasses.replace(program, cores=(*cores[:position], one, *cores[position + 1 :]))).run(few)
                for one in (base, cores[position])
            ]
            was, now = (outcome.states[core.core] for outcome in outcomes)
            n_silent += np.array_equal(was, now)
        assert counted[core.core] == n_silent


def test_a_program_that_answers_one_event_with_a_flood_is_let_alone() -> None:
    flood = {"weight": np.full((16, 16, 1, 1), 127), "threshold_high": 1, "in_shape": (16, 64, 64)}
    wide = make_core(0, weight=np.full((16, 2, 16, 16), 127), threshold_high=1, in_shape=(2, 79, 79))
    cores = [dataclasses.replace(wide, destinations=(Destination(1),))]
    cores += [
        dataclasses.replace(make_core(core, **flood), destinations=(Destination(core + 1),)) for core in range(1, 5)
    ]
    cores.append(make_core(5, **flood))
    program = Program("speck2fdevkit", tuple(cores), (0,), DvsConfig((2, 79, 79)))
    assert len(add_golden(program).golden) == 0


def one_core(**fields: Any) -> Program:
    core = make_core(0, **fields)
    return Program("speck2fdevkit", (core,), (0,), DvsConfig(core.in_shape))


def test_a_recording_that_answers_128_events_with_a_flood_joins_as_far_as_it_goes() -> None:
    """300 events of 144 spikes each, of which 128 are more than is kept of one core at once."""
    program = one_core(weight=np.full((16, 2, 3, 3), 127), in_shape=(2, 34, 34))
    rng = np.random.default_rng(0)
    y, x, p = rng.integers(4, 30, 300), rng.integers(4, 30, 300), rng.integers(0, 2, 300)
    recording = Events(x, y, p, np.arange(300) * 100, (34, 34))
    last = add_golden(program, recording).golden[-1]
    assert last.name == "recording"
    assert len(last.events) == 300
    assert len(last.spikes[0]) == 300 * 144
    x, y, p, t_us = (np.repeat(one, 2) for one in (x, y, p, recording.t_us))
    twice = Events(x, y, p, t_us, (34, 34))
    last = add_golden(program, twice).golden[-1]
    assert len(last.events) == MAX_GOLDEN_SPIKES // 144


@pytest.mark.parametrize("features", [40, 64])
def test_a_program_that_answers_one_event_with_thousands_of_spikes_has_vectors(features: int) -> None:
    weight = np.full((features, 2, 16, 16), 127)
    program = one_core(weight=weight, threshold_high=100, in_shape=(2, 40, 40))
    golden = add_golden(program).golden
    assert [one.name for one in golden][:2] == ["probe", "search 1"]
    for one in golden:
        assert 0 < sum(map(len, one.spikes.values())) <= MAX_GOLDEN_SPIKES
    assert verify(dataclasses.replace(program, golden=golden)).ok


def test_a_search_keeps_no_piece_of_few_events_behind_a_larger_one() -> None:
    """128 events cause nothing, every later one 2048 spikes: pieces of 8 are too many, and of 2 too small to try."""
    weight = np.ones((8, 2, 16, 16), np.int8)
    state = np.full((8, 16, 16), -128)
    geometry: dict[str, Any] = {"in_shape": (2, 1, 1), "padding": (15, 15), "initial_state": state}
    program = one_core(weight=weight, threshold_high=1, threshold_low=-200, **geometry)
    events, after = search_events(Bench.of(program), None, n_events=2048, n_spikes=MAX_GOLDEN_SPIKES)
    assert len(events) == 128
    assert after.n_spikes == 0


def test_a_search_has_nothing_to_find_where_all_is_reached() -> None:
    core = make_core(0, weight=[[[[127]], [[-127]]]], in_shape=(2, 3, 3))
    after = Bench.of(Program("speck2fdevkit", (core,), (0,), DvsConfig((2, 3, 3))))
    for _ in range(4):
        events, after = search_events(after.restarted(anew=False), None, n_events=2048, n_spikes=4000)
    assert after.is_complete
    assert len(events) == 0
    assert not after.restarted(anew=True).is_complete


def test_events_are_looked_for_where_the_input_stage_lets_them_through(program: Program) -> None:
    dvs = DvsConfig((2, 128, 128), crop=((40, 72), (90, 122)), mirror=(True, False))
    cropped = add_golden(dataclasses.replace(program, dvs=dvs, golden=()))
    events = cropped.golden[1].events
    assert enter(events, dvs).size > len(events) / 2
    assert sum(count_untouched(cropped).values()) == 0
    assert verify(cropped).ok


def test_hashes_tell_what_a_core_does_and_nothing_else(program: Program) -> None:
    first = program.cores[0].core
    was = content_hash(program, first)

    def hashed(**fields: object) -> str:
        core = dataclasses.replace(program.cores[0], **fields)  # type: ignore[arg-type]
        return content_hash(dataclasses.replace(program, cores=(core, *program.cores[1:])), first)

    assert hashed(name="other", scale=3.0, monitor=True) == was
    others = [
        hashed(threshold_high=program.cores[0].threshold_high + 1),
        hashed(threshold_low=program.cores[0].threshold_low + 1),
        hashed(weight=program.cores[0].weight ^ 1),
        hashed(initial_state=program.cores[0].initial_state ^ 1),
        hashed(reset="zero"),
        hashed(bias=np.zeros(4, np.int16)),
        hashed(destinations=program.cores[0].destinations[:-1]),
        content_hash(dataclasses.replace(program, dvs=dataclasses.replace(program.dvs, merge=True)), first),
    ]
    assert len({was, *others}) == 1 + len(others)


def test_hashes_of_output_cores_tell_the_readout_and_numbers_of_numpy_are_plain_ones(program: Program) -> None:
    core = make_core(
        0, weight=np.full((5, 2, 1, 1), 9), in_shape=(2, 1, 1), destinations=(Destination(1), Destination(None))
    )
    inner = dataclasses.replace(core, destinations=(Destination(1),))
    last = make_core(1, weight=np.full((5, 5, 1, 1), 9))

    def hashes(spacing: int | None, first: CoreProgram = inner) -> list[str]:
        readout = None if spacing is None else ReadoutConfig(spacing)
        made = Program("speck2fdevkit", (first, last), (0,), DvsConfig((2, 1, 1)), readout=readout)
        return [content_hash(made, one) for one in (0, 1)]

    assert len({hashes(spacing)[0] for spacing in (None, 1, 2, 4)}) == 1
    assert len({hashes(spacing)[1] for spacing in (None, 1, 2, 4)}) == 4
    assert len({hashes(spacing, core)[0] for spacing in (None, 1, 2, 4)}) == 4
    of_numpy = dataclasses.replace(inner, threshold_high=np.int64(127), threshold_low=np.int16(-127))  # type: ignore[arg-type]
    of_numpy = dataclasses.replace(of_numpy, destinations=(Destination(np.int64(1)),))  # type: ignore[arg-type]
    assert hashes(None, of_numpy) == hashes(None)


def test_vectors_of_another_program_are_not_saved(program: Program, tmp_path: Path) -> None:
    other = dataclasses.replace(biased(), golden=program.golden)
    with pytest.raises(InvalidProgramError, match=r"golden vector 'probe': .* Try add_golden\(program\)"):
        save_program(other, tmp_path / "program")


def test_deploy_tells_the_vectors_takes_a_recording_and_writes_nothing_on_a_dry_run(tmp_path: Path) -> None:
    save_net(branch_net(), tmp_path / "net.safetensors")
    write_events(random_events(np.random.default_rng(1), (2, 32, 32), 500), tmp_path / "mine.npz")
    before = sorted(tmp_path.iterdir())
    arguments = ("deploy", "net.safetensors", "--golden", "mine.npz", "--json")
    dry = spikeport(*arguments, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert sorted(tmp_path.iterdir()) == before
    done = spikeport(*arguments, cwd=tmp_path)
    results = [json.loads(one.stdout) for one in (dry, done)]
    assert results[0].pop("program") is None
    assert results[1].pop("program") == "program.safetensors"
    assert results[0] == results[1]
    told = results[1]["golden"]
    assert told["vectors"][-1] == "recording"
    assert told["silent"] == []
    assert set(told["n_untouched"].values()) == {0}
    assert verify(load_program(tmp_path / "program.safetensors")).ok
    wrong = spikeport("deploy", "net.safetensors", "--golden", "net.safetensors", "--dry-run", cwd=tmp_path)
    assert wrong.returncode == 6
    assert "net.safetensors: expected a file that ends in" in wrong.stderr


def test_a_dry_run_refuses_what_could_not_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeport.deploy.artifact.MAX_BYTES", 1000)
    save_net(branch_net(), tmp_path / "net.safetensors")
    done = spikeport("deploy", "net.safetensors", "--dry-run", cwd=tmp_path)
    assert done.returncode == 6
    assert "expected a file of at most 1000 bytes" in done.stderr
