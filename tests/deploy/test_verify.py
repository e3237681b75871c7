"""Golden vectors on a device: what is right passes, and one flipped bit is found where slow traces say it shows."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pytest
import typer

from spikeport.deploy.artifact import load_program, save_program
from spikeport.deploy.checking import verify_command
from spikeport.deploy.device import Device, open_device
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import DeviceError, GoldenError
from spikeport.deploy.golden import add_golden
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.types import Program, ReadoutConfig, Recording
from spikeport.deploy.verify import verify
from spikeport.models.events import Events

from ..invoke import spikeport  # noqa: TID252
from .mutations import KINDS, busy_events, expected_difference, mutated, trace_emulator, trace_reference
from .nets import branch_net, digits_net, random_chain, stack


def small() -> Program:
    rows = [{"features": 3, "bias": True, "pool": 2}, {"features": 4, "kernel": 2}, {"features": 2, "kernel": 0}]
    return compile_program(stack((2, 6, 6), rows), monitor="all")


@pytest.fixture(scope="module")
def program() -> Program:
    return small()


def moved(program: Program, **fields: Any) -> Program:
    """Return the program with other fields of its first core."""
    return dataclasses.replace(program, cores=(dataclasses.replace(program.cores[0], **fields), *program.cores[1:]))


# what is right


def test_a_program_as_it_was_compiled_has_no_divergence(program: Program, tmp_path: Path) -> None:
    save_program(program, tmp_path / "program.safetensors")
    for one in (program, load_program(tmp_path / "program.safetensors")):
        found = verify(one)
        assert found.ok
        assert found.divergence is None
        assert found.cores == found.state_cores == tuple(core.core for core in program.cores)
        assert found.n_events == sum(len(golden.events) for golden in program.golden)
        assert found.n_spikes > 100
        assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_names_monitors_and_provenance_are_not_what_is_verified(program: Program) -> None:
    changed = dataclasses.replace(moved(program, name="other", monitor=False, scale=2.0), provenance={"seed": 3})
    assert verify(changed).ok


def test_an_open_device_stays_open(program: Program) -> None:
    with open_device("emulator") as device:
        assert verify(program, device).ok
        assert device.run(program.golden[0].events).n_spikes


# what is not


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_where_the_slow_reference_has_it(kind: str, program: Program) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    known = [trace_reference(program, golden) for golden in program.golden]
    n_shown = 0
    for _ in range(4):
        changed = mutated(program, kind, rng)
        place = expected_difference(program, changed, trace_reference, known)
        found = verify(changed).divergence
        assert found is not None
        if place is not None:
            assert (found.event, found.core) == place
            n_shown += 1
    assert n_shown >= 2


def test_the_message_of_a_spike_names_core_neuron_event_and_both_counts(program: Program) -> None:
    found = verify(moved(program, threshold_high=1)).divergence
    assert found is not None
    assert found.kind == "spikes"
    assert (found.expected, found.found) == (0, 1)
    feature, y, x = found.neuron or (-1, -1, -1)
    assert found.t_us == int(program.golden[0].events.t_us[found.event or 0])
    assert found.message == (
        f"core {program.cores[0].core} ('layer0'), feature {feature}, y {y}, x {x}: expected no spike at event "
        f"{found.event} ({found.t_us} us) of '{found.vector}', found a spike."
    )


def test_a_state_that_no_spike_shows_is_found_after_the_last_event(program: Program) -> None:
    last = program.cores[-1]
    state = last.initial_state.copy()
    state[1, 0, 0] -= 1
    changed = dataclasses.replace(
        program, cores=(*program.cores[:-1], dataclasses.replace(last, initial_state=state, threshold_high=32_767))
    )
    kept = dataclasses.replace(program, cores=(*program.cores[:-1], dataclasses.replace(last, threshold_high=32_767)))
    found = verify(dataclasses.replace(changed, golden=add_golden(kept).golden)).divergence
    assert found is not None
    assert (found.kind, found.core, found.neuron, found.event) == ("state", last.core, (1, 0, 0), None)
    assert isinstance(found.expected, int)
    assert found.found == found.expected - 1
    assert "after the last event of 'probe'" in found.message


def test_a_weight_that_no_golden_event_meets_is_found_by_its_hash(program: Program) -> None:
    silent = add_golden(moved(program, threshold_high=32_767, initial_state=np.zeros((3, 4, 4), np.int16)))
    last = silent.cores[-1]
    changed = dataclasses.replace(last, weight=last.weight ^ 1)
    found = verify(dataclasses.replace(silent, cores=(*silent.cores[:-1], changed)))
    assert found.n_untouched[last.core] == last.weight.size
    assert found.divergence is not None
    assert (found.divergence.kind, found.divergence.core, found.divergence.neuron) == ("content", last.core, None)
    assert "which no golden event shows" in found.divergence.message


def test_another_readout_is_found_and_another_slow_clock_is_not(program: Program) -> None:
    last = program.cores[-1]
    assert last.out_shape[0] == 2
    read = add_golden(dataclasses.replace(program, readout=ReadoutConfig(1)))
    assert verify(read).ok
    found = verify(dataclasses.replace(read, readout=None)).divergence
    assert found is not None
    assert (found.kind, found.core) == ("content", last.core)
    assert "routes or readout" in found.message
    assert not verify(dataclasses.replace(program, readout=ReadoutConfig(1))).ok
    assert verify(dataclasses.replace(read, slow_clock_hz=1.0)).ok


# devices that give less


class Board:
    """A device that gives what a board gives: spikes of monitored cores, in any order within one event, no states."""

    def __init__(self, *, gives_states: bool = False) -> None:
        self.name, self._gives_states = "board", gives_states
        self._emulator: Emulator | None = None

    def load(self, program: Program, *, slow_clock_hz: float | None = None) -> None:
        self._emulator = Emulator(program, slow_clock_hz=slow_clock_hz)

    def run(self, events: Events, record: Literal["all"] | None = None) -> Recording:
        assert self._emulator is not None
        found = self._emulator.run(events)
        rng = np.random.default_rng(0)
        shuffled = {}
        for core, spikes in found.spikes.items():
            mixed = spikes[rng.permutation(len(spikes))]
            shuffled[core] = mixed[np.argsort(mixed["event"], kind="stable")]
        return dataclasses.replace(found, spikes=shuffled, states=found.states if self._gives_states else {})

    def close(self) -> None:
        self._emulator = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_a_board_is_verified_by_the_spikes_of_its_monitored_cores(program: Program) -> None:
    board: Device = Board()
    watched = moved(program, monitor=False)
    found = verify(watched, board)
    assert found.ok
    assert found.state_cores == ()
    assert found.cores == tuple(core.core for core in program.cores[1:])
    # What the first core does otherwise shows one core later.
    silenced = verify(moved(watched, threshold_high=32_767), board).divergence
    assert silenced is not None
    assert (silenced.kind, silenced.core) == ("spikes", program.cores[1].core)
    assert verify(moved(program, threshold_high=32_767), board).divergence != silenced


def test_a_board_that_reads_states_is_verified_by_these_alone(program: Program) -> None:
    silent = dataclasses.replace(
        program, cores=tuple(dataclasses.replace(core, monitor=False) for core in program.cores)
    )
    assert verify(silent, Board(gives_states=True)).state_cores == tuple(core.core for core in program.cores)
    with pytest.raises(GoldenError, match="device 'board': expected spikes or states of at least one core"):
        verify(silent, Board())


def test_what_cannot_be_verified_is_refused(program: Program) -> None:
    with pytest.raises(GoldenError, match=r"expected golden vectors, found none\. Try `spikeport deploy`") as caught:
        verify(dataclasses.replace(program, golden=()))
    assert caught.value.exit_code == 2
    with pytest.raises(GoldenError, match="golden vector 'probe': expected events of a sensor of"):
        verify(dataclasses.replace(compile_program(branch_net()), golden=program.golden))
    with pytest.raises(DeviceError):
        verify(program, "speck99")


# the command


def test_the_command_says_what_was_compared_and_ends_with_5_on_a_mismatch(program: Program, tmp_path: Path) -> None:
    save_program(program, tmp_path / "good.safetensors")
    save_program(moved(program, threshold_high=1), tmp_path / "bad.safetensors")
    done = spikeport("verify", "good.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "as expected" in done.stdout
    assert "Next: spikeport run good.safetensors" in done.stderr
    done = spikeport("verify", "bad.safetensors", "--device", "emulator", "--json", cwd=tmp_path)
    assert done.returncode == 5
    result = json.loads(done.stdout)
    assert result["ok"] is False
    assert result["divergence"]["core"] == program.cores[0].core
    assert result["divergence"]["message"] in done.stderr
    assert "\n" not in done.stderr.strip()
    assert spikeport("verify", "good.safetensors", "--device", "speck9", cwd=tmp_path).returncode == 7


def test_the_command_says_the_divergence_once(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_program(moved(program, threshold_high=1), tmp_path / "bad.safetensors")
    with pytest.raises(typer.Exit):
        verify_command(tmp_path / "bad.safetensors", "emulator")
    out, err = capsys.readouterr()
    assert "not as expected" in out
    assert "expected no spike at event" not in " ".join(out.split())
    assert " ".join(err.split()).count("expected no spike at event") == 1


# many


def subjects() -> Iterator[tuple[str, Program]]:
    yield "small", small()
    yield "branch", compile_program(branch_net())
    yield "digits", compile_program(digits_net())
    for seed in (1, 4):
        yield f"chain {seed}", compile_program(random_chain(np.random.default_rng(seed)))


PER_KIND = 32


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_500_flipped_bits_that_change_any_output_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    tally: collections.Counter[str] = collections.Counter()
    for name, program in subjects():
        known = [trace_emulator(program, golden) for golden in program.golden]
        # Judged on recordings that have nothing to do with the golden ones.
        recordings = [busy_events(rng, program.dvs.input_shape[1:], 300) for _ in range(8)]
        outputs = [Emulator(program).run(events, "all").spikes for events in recordings]
        for kind in KINDS:
            for _ in range(PER_KIND):
                changed = mutated(program, kind, rng)
                emulator = Emulator(changed)
                matters = any(
                    not np.array_equal(was[core], now[core])
                    for events, was in zip(recordings, outputs, strict=True)
                    for now in [emulator.run(events, "all").spikes]
                    for core in was
                )
                place = expected_difference(program, changed, trace_emulator, known)
                found = verify(changed).divergence
                assert found is not None, (name, kind)
                tally["flipped"] += 1
                tally["change an output"] += matters
                if place is not None:
                    assert (found.event, found.core) == place, (name, kind, found)
                    tally["shown by golden events"] += 1
                    continue
                wrong = [now.core for was, now in zip(program.cores, changed.cores, strict=True) if not was.same(now)]
                assert (found.kind, [found.core]) == ("content", wrong)
                tally["found by hash alone"] += 1
                tally["found by hash alone, change an output"] += matters
    with capsys.disabled():
        print(f"\n{dict(tally)}")
    assert tally["change an output"] >= 500
    assert tally["found by hash alone, change an output"] <= 0.02 * tally["change an output"]
