"""Chip programs as predictors: the laws with and without a slow clock, equality with the emulator, devices, files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeport.convert import NetPredictor, save_net
from spikeport.deploy import (
    DevicePredictor,
    Emulator,
    ProgramPredictor,
    compile_program,
    count_classes,
    load_recording,
    open_device,
    open_predictor,
    save_recording,
)
from spikeport.deploy.opening import OpenOptions
from spikeport.deploy.readout import classify, n_classes
from spikeport.models.batches import InferenceSettings
from spikeport.models.errors import InferenceError, TensorFileError
from spikeport.models.infer import evaluate, predict
from spikeport.models.predictor import RunOptions
from spikeport.models.serializers import load_response, save_arrays, save_response

from ..laws import assert_same, check_all, random_recordings, run_pieces, run_whole  # noqa: TID252
from .nets import stack
from .programs import random_case

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NET = stack((2, 8, 8), [{"features": 3, "kernel": 3, "bias": True}, {"features": 4, "kernel": 0}])
PROGRAM = compile_program(NET, "speck2fdevkit")


def case_with_classes(seed: int):  # type: ignore[no-untyped-def]
    """Return a random case whose program has classes, from ``seed`` on."""
    while True:
        case = random_case(seed)
        if n_classes(case.program):
            return case
        seed += 1


@FEW
@given(st.integers(0, 10**5))
def test_programs_keep_all_laws(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    case = case_with_classes(seed)
    predictor = ProgramPredictor(case.program, slow_clock_hz=case.slow_clock_hz)
    check_all(predictor, np.random.default_rng(seed), tmp_path_factory.mktemp("laws"))


@FEW
@given(st.integers(0, 10**5))
def test_a_program_counts_as_the_emulator_does(seed: int) -> None:
    case = case_with_classes(seed)
    size = case.program.dvs.input_shape[1:]
    (events,) = random_recordings(np.random.default_rng(seed), (size[0], size[1]), 1)
    predictor = ProgramPredictor(case.program, slow_clock_hz=case.slow_clock_hz)
    expected = Emulator(case.program, slow_clock_hz=case.slow_clock_hz).run(events, "all")
    found = run_whole(predictor.start(RunOptions(record=predictor.layers)), predictor, [events])
    np.testing.assert_array_equal(found.outputs["output"].sum(axis=(0, 1)), count_classes(expected, case.program))
    for core in case.program.cores:
        assert int(found.spikes[core.name][0]) == expected.n_spikes[core.core]
        assert int(found.synops[core.name][0]) == expected.synops[core.core]
        np.testing.assert_array_equal(found.recorded[core.name].sum(axis=(0, 1)), expected.counts[core.core])
    assert predict(predictor, [events]).classes["output"][0] == classify(expected, case.program)


def test_states_go_on_where_only_the_clock_is_reset() -> None:
    one, two = random_recordings(np.random.default_rng(3), (8, 8), 2)
    predictor = ProgramPredictor(PROGRAM, slow_clock_hz=1000.0)
    run = predictor.start(RunOptions())
    run_whole(run, predictor, [one])
    states = {name: array[0] for name, array in run.state().items() if not name.startswith("clock/")}
    run.reset(state=False)
    cores = tuple(dataclasses.replace(core, initial_state=states[core.name]) for core in PROGRAM.cores)
    started = ProgramPredictor(dataclasses.replace(PROGRAM, cores=cores), slow_clock_hz=1000.0)
    assert_same(run_whole(run, predictor, [two]), run_whole(started.start(RunOptions()), started, [two]))


def test_a_device_answers_as_the_emulator_and_carries_nothing_on() -> None:
    recordings = random_recordings(np.random.default_rng(4), (8, 8), 4)
    expected = predict(ProgramPredictor(PROGRAM), recordings)
    for name in ("emulator", "virtual:speck2fdevkit"):
        with open_device(name) as device:
            predictor = DevicePredictor(device, PROGRAM)
            found = predict(predictor, recordings, settings=InferenceSettings(batch_size=3))
            np.testing.assert_array_equal(found.output, expected.output)
            if name == "emulator":
                assert found.classes["output"].tolist() == expected.classes["output"].tolist()
                whole = run_whole(predictor.start(RunOptions()), predictor, recordings)
                assert_same(run_pieces(predictor.start(RunOptions()), predictor, recordings, [7000, 20_000]), whole)
                with pytest.raises(InferenceError, match="expected a predictor that counts synops"):
                    evaluate(predictor, (recordings, np.zeros(4, np.int64)), metrics="synops")


def test_saved_predictors_answer_as_those_that_were_saved(tmp_path: Path) -> None:
    recordings = random_recordings(np.random.default_rng(5), (8, 8), 4)
    names = ("a", "b", "c", "d")
    for predictor in (
        NetPredictor(NET, step_us=3000, classes=names),
        ProgramPredictor(PROGRAM, step_us=3000, classes=names, slow_clock_hz=500.0),
    ):
        predictor.save(tmp_path / "saved.safetensors")
        loaded = open_predictor(tmp_path / "saved.safetensors")
        assert (loaded.step_us, loaded.classes) == (3000, names)
        assert predict(loaded, recordings).same(predict(predictor, recordings))


def test_recordings_and_responses_come_back_from_files(tmp_path: Path) -> None:
    (events,) = random_recordings(np.random.default_rng(6), (8, 8), 1)
    recording = Emulator(PROGRAM).run(events, "all")
    predictor = ProgramPredictor(PROGRAM)
    response = run_whole(predictor.start(RunOptions(record=predictor.layers)), predictor, [events])
    for suffix in (".npz", ".h5"):
        save_recording(recording, tmp_path / f"recording{suffix}")
        assert load_recording(tmp_path / f"recording{suffix}").same(recording)
        save_response(response, tmp_path / f"response{suffix}")
        assert load_response(tmp_path / f"response{suffix}").same(response)
        save_arrays(tmp_path / f"other{suffix}", {"x": np.zeros(3)})
        with pytest.raises(TensorFileError, match="saved recording"):
            load_recording(tmp_path / f"other{suffix}")
        with pytest.raises(TensorFileError, match="saved response"):
            load_response(tmp_path / f"other{suffix}")


def test_options_that_do_not_belong_to_what_is_opened_are_refused(tmp_path: Path) -> None:
    save_net(NET, tmp_path / "net.safetensors")
    ProgramPredictor(PROGRAM).save(tmp_path / "program.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no")
    with (
        open_device("emulator") as device,
        pytest.raises(InferenceError, match="expected a chip program with a device"),
    ):
        open_predictor(tmp_path / "net.safetensors", device=device)
    with pytest.raises(InferenceError, match="slow clock"):
        open_predictor(tmp_path / "net.safetensors", options=OpenOptions(slow_clock_hz=100.0))
    with pytest.raises(InferenceError, match="--weights"):
        open_predictor(tmp_path / "program.safetensors", options=OpenOptions(weights=tmp_path / "w"))
    for name, match in (("damaged", "damaged file"), ("absent", "found nothing")):
        with pytest.raises(TensorFileError, match=match):
            open_predictor(tmp_path / f"{name}.safetensors")
    assert open_predictor("digits").outputs == {"output": (10,)}
    with pytest.raises(InferenceError, match="expected recordings of events, which a chip takes"):
        predict(ProgramPredictor(PROGRAM), np.zeros((1, 3, 2, 8, 8), np.float32))
