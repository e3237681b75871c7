"""The program file: a round trip that keeps everything, bytes that never vary, and damage that is always named."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from spikeport.convert.store import save_net
from spikeport.convert.types import SpikingNet
from spikeport.deploy import artifact
from spikeport.deploy.artifact import load_program, program_bytes, program_hash, save_program
from spikeport.deploy.chips import chip
from spikeport.deploy.errors import ChipNameError, InvalidProgramError, ProgramFileError
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.rules import check_program
from spikeport.deploy.types import Destination, Program
from spikeport.models.tensorfile import pack

from .nets import branch_net, digits_net, gesture_net, random_chain, single, stack
from .programs import random_case

KEY = "spikeport"


def plain(net: SpikingNet, *arguments: Any, **options: Any) -> Program:
    """Return a program without golden vectors, which cost time and are not what is tested here."""
    return dataclasses.replace(compile_program(net, *arguments, **options), golden=())


def small() -> Program:
    return plain(stack((2, 6, 6), [{"features": 3, "bias": True, "pool": 2}, {"features": 2, "kernel": 2}]))


def parts(program: Program) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the tensors of a program's file, both free to change."""
    data = program_bytes(program)
    length = int.from_bytes(data[:8], "little")
    index = json.loads(data[8 : 8 + length])
    header = json.loads(index.pop("__metadata__")[KEY])
    names = {"I8": np.int8, "I16": np.int16}
    tensors = {}
    for name, entry in index.items():
        start, stop = entry["data_offsets"]
        raw = data[8 + length + start : 8 + length + stop]
        tensors[name] = np.frombuffer(raw, names[entry["dtype"]]).reshape(entry["shape"])
    return header, tensors


def write(path: Path, header: dict[str, Any], tensors: dict[str, Any]) -> Path:
    path.write_bytes(save(tensors, metadata={KEY: json.dumps(header)}))
    return path


# round trip


@pytest.mark.parametrize(
    "program",
    [
        plain(digits_net(), monitor="all", provenance={"seed": 1, "note": "ä", "list": [1, 2.5, None, True]}),
        plain(gesture_net(), "speck2e", layer_order=[0, 1, 2, 7, 4, 5, 6, 3, 8]),
        compile_program(branch_net(), "speck2edevkit", monitor=["left"]),
        small(),
    ],
)
def test_what_is_saved_is_loaded(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.program"
    save_program(program, path)
    loaded = load_program(path)
    assert loaded.same(program)
    assert loaded.provenance == program.provenance
    assert len(loaded.golden) == len(program.golden)
    assert all(one.same(other) for one, other in zip(loaded.golden, program.golden, strict=True))
    assert program_bytes(loaded) == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["net.program"]


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_with_random_states_are_saved_and_loaded(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    compiled = plain(random_chain(rng))
    cores = tuple(
        dataclasses.replace(
            core,
            initial_state=rng.integers(-32_768, 32_768, core.out_shape, np.int16),
            reset=("subtract", "zero")[int(rng.integers(2))],
            bias=rng.integers(-32_768, 32_768, core.out_shape[0], np.int16) if rng.random() < 0.5 else None,
        )
        for core in compiled.cores
    )
    program = dataclasses.replace(compiled, cores=cores)
    save_program(program, tmp_path / "program")
    assert load_program(tmp_path / "program").same(program)


def test_programs_that_only_an_emulator_could_run_are_refused_when_saved_and_when_loaded(tmp_path: Path) -> None:
    path, n_refused = tmp_path / "program", 0
    for seed in range(20):
        program = random_case(seed).program
        if not check_program(program, chip(program.chip)):
            continue
        n_refused += 1
        with pytest.raises(InvalidProgramError, match="expected"):
            save_program(program, path)
        path.write_bytes(program_bytes(program))
        with pytest.raises(ProgramFileError, match="expected"):
            load_program(path)
    assert n_refused > 5


def test_a_hash_changes_with_what_a_program_does_and_with_nothing_else() -> None:
    program = plain(branch_net())
    assert program_hash(program) == program_hash(plain(branch_net()))
    core = dataclasses.replace(program.cores[0], threshold_high=program.cores[0].threshold_high + 1)
    assert program_hash(program) != program_hash(dataclasses.replace(program, cores=(core, *program.cores[1:])))


@pytest.mark.parametrize("value", [{1: "a"}, (1, 2), np.int64(3), float("nan"), "\ud800", {"a": object()}])
def test_a_provenance_that_json_does_not_give_back_is_refused(value: Any) -> None:
    program = dataclasses.replace(small(), provenance={"entry": value})
    with pytest.raises(InvalidProgramError, match="provenance: expected plain JSON values"):
        program_bytes(program)


def test_a_file_of_before_golden_vectors_is_read(tmp_path: Path) -> None:
    header, tensors = parts(small())
    header["format"] = 1
    assert load_program(write(tmp_path / "program", header, tensors)).same(small())


def test_a_provenance_too_long_to_be_read_again_is_refused() -> None:
    program = dataclasses.replace(small(), provenance={"notes": "x" * artifact.MAX_HEADER_BYTES})
    with pytest.raises(InvalidProgramError, match=f"header: expected at most {artifact.MAX_HEADER_BYTES} bytes"):
        program_bytes(program)


def test_a_program_that_breaks_the_rules_of_its_chip_is_not_saved(tmp_path: Path) -> None:
    program = small()
    core = dataclasses.replace(program.cores[-1], destinations=(Destination(None, 3),))
    with pytest.raises(InvalidProgramError, match="pool: expected 1, 2 or 4, found 3x3"):
        save_program(dataclasses.replace(program, cores=(*program.cores[:-1], core)), tmp_path / "p")
    with pytest.raises(ChipNameError):
        save_program(dataclasses.replace(program, chip="speck9"), tmp_path / "p")
    assert not list(tmp_path.iterdir())


# files that are none


def refusal(path: Path) -> str:
    with pytest.raises(ProgramFileError) as caught:
        load_program(path)
    assert caught.value.exit_code == 6
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    assert "found nothing" in refusal(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    assert "found a folder" in refusal(tmp_path / "folder")


FOREIGN: list[tuple[str, bytes, str]] = [
    ("empty", b"", "damaged or foreign"),
    ("text", b"hello, world", "damaged or foreign"),
    ("zip", b"PK\x03\x04" + bytes(100), "damaged or foreign"),
    ("header larger than 100 MB", (200 << 20).to_bytes(8, "little") + b"{}" * 8, "(?i)header.?too.?large"),
    ("header beyond the end", (4000).to_bytes(8, "little") + b"{}" * 8, "(?i)header"),
    ("deep header", (60_000).to_bytes(8, "little") + b"[" * 60_000, "damaged or foreign"),
    ("plain safetensors", save({"weight": np.zeros(3)}), "safetensors file without its header"),
    ("other metadata", save({"weight": np.zeros(3)}, metadata={"format": "pt"}), "safetensors file without its header"),
    ("no JSON", save({"weight": np.zeros(3)}, metadata={KEY: "[" * 100_000}), "without its header"),
    ("other kind", pack({}, {}, kind="report", version=1), "expected a spikeport program, found a report"),
]


@pytest.mark.parametrize(("content", "text"), [case[1:] for case in FOREIGN], ids=[case[0] for case in FOREIGN])
def test_foreign_content_is_named(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    message = refusal(path)
    assert re.search(text, message), message


def test_a_net_file_is_no_program(tmp_path: Path) -> None:
    save_net(digits_net(), tmp_path / "digits.net")
    assert "expected a spikeport program, found a net" in refusal(tmp_path / "digits.net")


def test_a_file_larger_than_any_program_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(artifact.MAX_BYTES + 1)
    assert f"expected at most {artifact.MAX_BYTES} bytes, found {artifact.MAX_BYTES + 1}" in refusal(path)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(keep: float, tmp_path: Path) -> None:
    data = program_bytes(small())
    path = tmp_path / "program"
    path.write_bytes(data[: int(len(data) * keep)])
    refusal(path)


# damage inside


def set_core(field: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(header: dict[str, Any], _: dict[str, Any]) -> None:
        header["cores"][0][field] = value

    return change


def set_top(field: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(header: dict[str, Any], _: dict[str, Any]) -> None:
        header[field] = value

    return change


def set_tensor(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        key = next(key for key in sorted(tensors) if key.endswith(name))
        tensors.pop(key)
        if value is not None:
            tensors[key] = value

    return change


def route(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(header: dict[str, Any], _: dict[str, Any]) -> None:
        header["cores"][0]["destinations"][0] |= changes

    return change


DAMAGE: list[tuple[Callable[[dict[str, Any], dict[str, Any]], None], str]] = [
    (set_top("format", 3), "format version 3, this spikeport knows 1, 2"),
    (set_top("format", "1"), "format version '1', this spikeport knows 1, 2"),
    (set_top("chip", "speck9"), "expected one of speck2e, .*found 'speck9'"),
    (set_top("chip", 3), "chip: expected a name, found 3"),
    (set_top("chip", ["speck2e"]), "chip: expected a name"),
    (set_top("surplus", 1), "header: expected the fields .*surplus"),
    (set_top("cores", {}), "cores, entry, provenance: expected"),
    (set_top("cores", []), "at least one core|expected those of the cores only"),
    (set_top("cores", [1, 2]), r"cores\[0\]: expected the fields .* found int"),
    (set_top("entry", ["0"]), "entry: expected a whole number, found '0'"),
    (set_top("entry", []), "entry: expected ids of the program's cores"),
    (set_top("entry", [8, 8]), "entry: expected at most 2 distinct layers|entry: expected ids"),
    (set_top("provenance", []), "expected a list, a list and an object"),
    (set_top("provenance", {"a": float("inf")}), "provenance: expected finite numbers"),
    (set_top("dvs", None), "dvs: expected the fields .* found NoneType"),
    (set_top("dvs", {"input_shape": [2, 6, 6], "merge": 0, "pool": [1, 1]}), "merge: expected true or false, found 0"),
    (set_top("dvs", {"input_shape": [2, 6], "merge": False, "pool": [1, 1]}), "input_shape: expected 3 whole numbers"),
    (set_top("dvs", {"input_shape": [2, 6, 6], "merge": False, "pool": [3, 1]}), "input pool: expected 1, 2 or 4"),
    (
        set_top("dvs", {"input_shape": [2, 600, 6], "merge": False, "pool": [1, 1]}),
        "input map: expected at most 128x128",
    ),
    (set_top("dvs", {"input_shape": [2, 0, 6], "merge": False, "pool": [1, 1]}), "dvs: expected a pool and an input"),
    (set_core("core", 12), r"core12/weight: expected a tensor, found none"),
    (set_core("core", True), "core: expected a whole number, found True"),
    (set_core("name", None), "name: expected text, found None"),
    (set_core("name", "\ud800"), "name: expected text"),
    (set_core("scale", "1"), "scale: expected a positive number, found '1'"),
    (set_core("scale", float("nan")), "scale: expected a positive number, found nan"),
    (set_core("scale", 0), "scale: expected a positive number, found 0"),
    (set_core("threshold_high", 0), "threshold_high: expected 1..32767, found 0"),
    (set_core("threshold_high", 40_000), "threshold_high: expected 1..32767, found 40000"),
    (set_core("threshold_high", 1.5), "threshold_high: expected a whole number, found 1.5"),
    (set_core("threshold_low", 0), "threshold_low: expected -32768..-1, found 0"),
    (set_core("reset", "none"), "reset: expected 'subtract' or 'zero', found 'none'"),
    (set_core("reset", ["zero"]), "reset: expected 'subtract' or 'zero'"),
    (set_core("monitor", 1), "monitor: expected true or false, found 1"),
    (set_core("has_bias", False), "expected those of the cores only, found also core./bias"),
    (set_core("has_bias", "yes"), "has_bias: expected true or false"),
    (set_core("in_shape", [2, 6, 6, 1]), "in_shape: expected 3 whole numbers"),
    (set_core("in_shape", [3, 6, 6]), "in_shape: expected 2 channels"),
    (set_core("out_shape", [3, 5, 4]), "out_shape: expected"),
    (set_core("stride", [0, 1]), "expected stride of 1 or more"),
    (set_core("stride", 1), "stride: expected a list, found 1"),
    (set_core("padding", [-1, 0]), "padding of 0 or more"),
    (set_core("destinations", None), "destinations: expected a list, found None"),
    (set_core("destinations", [{}]), "destination: expected the fields"),
    (route(core=4), "destination 4 is no later core"),
    (route(core="8"), "destination: expected a whole number, found '8'"),
    (route(pool=0), "destinations: expected pools of 1 or more"),
    (route(pool=8), "pool: expected 1, 2 or 4, found 8x8"),
    (route(feature_shift=-1), "shifts of 0..16383, found"),
    (route(feature_shift=2**63 - 2), "shifts of 0..16383, found"),
    (route(feature_shift=10**30), "shifts of 0..16383, found"),
    (route(feature_shift=1024), "shift: expected at most 1023, found 1024"),
    (set_core("scale", 10**400), "scale: expected a positive number"),
    (set_core("name", "a\x1b[31m"), "name: expected text"),
    (set_tensor("/weight", None), "core7/weight: expected a tensor, found none"),
    (set_tensor("/bias", None), "core7/bias: expected a tensor, found none"),
    (set_tensor("/weight", np.zeros((3, 2, 3, 3), np.int16)), "core7/weight: expected int8, found int16"),
    (set_tensor("/initial_state", np.zeros((3, 4, 4), np.float32)), "initial_state: expected int16, found float32"),
    (set_tensor("/weight", np.zeros((3, 2, 3), np.int8)), r"weight: expected shape \[F, C, ky, kx\]"),
    (set_tensor("/weight", np.zeros((3, 2, 5, 3), np.int8)), "out_shape: expected"),
    (set_tensor("/weight", np.zeros((0, 2, 3, 3), np.int8)), r"weight: expected shape \[F, C, ky, kx\]"),
    (set_tensor("/bias", np.zeros(4, np.int16)), "bias: expected 3 values"),
    (set_tensor("/initial_state", np.zeros((3, 4, 5), np.int16)), r"initial_state: expected shape \(3, 4, 4\)"),
    (lambda _, tensors: tensors.update(extra=np.zeros(2, np.int8)), "found also extra"),
]


@pytest.mark.parametrize(
    ("change", "text"), DAMAGE, ids=[f"{index} {case[1][:40]}" for index, case in enumerate(DAMAGE)]
)
def test_damage_is_named(change: Callable[[Any, Any], None], text: str, tmp_path: Path) -> None:
    header, tensors = parts(small())
    change(header, tensors)
    message = refusal(write(tmp_path / "program", header, tensors))
    assert re.search(text, message), message


def test_a_program_outside_the_rules_of_its_chip_is_refused(tmp_path: Path) -> None:
    for net, text in [
        (single((2, 40, 40), 2, stride=3), "stride: expected 1, 2, 4 or 8"),
        (single((2, 30, 30), 2, 17), "kernel size: expected at most 16x16"),
        (single((2, 3, 3), 2, padding=8), "padding: expected at most 7"),
        (single((2, 200, 200), 2, stride=8), "input map: expected at most 128x128"),
    ]:
        program = small()
        core = dataclasses.replace(program.cores[-1], core=5)
        layer = net.layers[0]
        core = dataclasses.replace(
            core,
            weight=np.zeros(layer.weight.shape, np.int8),
            in_shape=layer.in_shape,
            out_shape=layer.out_shape,
            stride=layer.stride,
            padding=layer.padding,
            initial_state=np.zeros(layer.out_shape, np.int16),
        )
        path = tmp_path / "program"
        path.write_bytes(program_bytes(Program(program.chip, (core,), (5,), program.dvs)))
        assert text in refusal(path)
        path.write_bytes(
            program_bytes(Program(program.chip, (dataclasses.replace(core, core=11),), (11,), program.dvs))
        )
        assert "core: expected a core of speck2fdevkit, 0..8, found 11" in refusal(path)


def test_a_layer_on_a_core_too_small_for_it_is_refused(tmp_path: Path) -> None:
    program = plain(single((2, 128, 128), 16, stride=2, padding=1))
    moved = dataclasses.replace(program.cores[0], core=8)
    path = tmp_path / "program"
    path.write_bytes(program_bytes(Program(program.chip, (moved,), (8,), program.dvs)))
    assert "memory: expected what core 8 of speck2fdevkit holds, found 512 kernel and 65536 neuron words" in refusal(
        path
    )


FUZZED = program_bytes(small())


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_or_leaves_a_valid_program(data: st.DataObject, tmp_path: Path) -> None:
    damaged = bytearray(FUZZED)
    for _ in range(data.draw(st.integers(1, 3))):
        # Half of the flips in the first bytes and the header, where the structure is.
        length = len(damaged) if data.draw(st.booleans()) else 8 + int.from_bytes(FUZZED[:8], "little")
        place = data.draw(st.integers(0, length - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    path = tmp_path / "program"
    path.write_bytes(bytes(damaged[:cut]))
    try:
        program = load_program(path)
    except ProgramFileError:
        return
    assert not check_program(program, chip(program.chip))
    assert load_program(path).same(program)
