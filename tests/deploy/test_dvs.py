"""The input stage: merge, pool, crop, mirror, swap, in this order, and programs behind it."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.convert.types import SpikingNet
from spikeport.deploy.artifact import FORMAT, load_program, save_program
from spikeport.deploy.dvs import apply_dvs, entering, parse_dvs, with_dvs
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import InvalidProgramError, ProgramFileError, RecordingError, SettingError
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.traffic import find_core_peaks
from spikeport.deploy.types import Box, DvsConfig, Program
from spikeport.models.events import Events
from spikeport.models.tensorfile import pack, unpack

from .nets import digits_net, stack
from .programs import random_events
from .reference import run_reference, through_dvs

MIRRORS = [(False, False), (False, True), (True, False), (True, True)]


@st.composite
def stages(draw: st.DrawFn) -> DvsConfig:
    sensor = draw(st.integers(4, 13)), draw(st.integers(4, 13))
    pool = draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from((1, 2, 4)))
    crop: Box | None = None
    if draw(st.booleans()):
        spans = []
        for edge, step in zip(sensor, pool, strict=True):
            start = draw(st.integers(0, edge // step - 1))
            spans.append((start, draw(st.integers(start + 1, edge // step))))
        crop = (spans[0], spans[1])
    mirror, swap = draw(st.sampled_from(MIRRORS)), draw(st.booleans())
    return DvsConfig((draw(st.integers(1, 2)), *sensor), draw(st.booleans()), pool, crop, mirror, swap)


@settings(max_examples=100, deadline=None)
@given(stages(), st.integers(0, 2**16))
def test_events_go_through_the_stages_one_by_one(dvs: DvsConfig, seed: int) -> None:
    events = random_events(np.random.default_rng(seed), dvs.input_shape, 40)
    found = entering(events, dvs)
    columns = zip(events.p.tolist(), events.y.tolist(), events.x.tolist(), strict=True)
    expected = [(i, address) for i, each in enumerate(columns) if (address := through_dvs(each, dvs))]
    assert list(zip(found.event, zip(found.feature, found.y, found.x, strict=True), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(stages())
def test_crop_mirror_and_swap_are_those_of_an_image(dvs: DvsConfig) -> None:
    dvs = dataclasses.replace(dvs, pool=(1, 1))
    _, height, width = dvs.input_shape
    image = np.arange(height * width).reshape(height, width)
    y, x = np.divmod(image.reshape(-1), width)
    after = apply_dvs(Events(x, y, np.zeros_like(x), image.reshape(-1), (height, width)), dvs)
    shown = image[slice(*dvs.box[0]), slice(*dvs.box[1])]
    shown = shown[:: -1 if dvs.mirror[0] else 1, :: -1 if dvs.mirror[1] else 1]
    seen = np.full(dvs.out_shape[1:], -1)
    seen[after.y, after.x] = after.t_us
    assert np.array_equal(seen, shown.T if dvs.swap else shown)


def is_divided(dvs: DvsConfig, steps: tuple[int, int]) -> bool:
    """Return whether the windows of a pool behind the stage are windows of the sensor."""
    ends = zip(dvs.box, dvs.mirror, steps, strict=True)
    return all(
        (stop if is_mirrored else start) % step == 0 == start % step for (start, stop), is_mirrored, step in ends
    )


def net_of(shape: tuple[int, int, int], pool: tuple[int, int]) -> SpikingNet:
    return stack(shape, [{"features": 3, "kernel": 2}], input_pool=pool)


@settings(max_examples=50, deadline=None)
@given(stages(), st.sampled_from((1, 2)), st.sampled_from((1, 2)), st.integers(0, 2**16))
def test_a_program_behind_the_stage_does_what_it_does_with_what_the_stage_leaves(
    dvs: DvsConfig, step_y: int, step_x: int, seed: int
) -> None:
    channels, height, width = dvs.out_shape
    if height < 2 * step_y or width < 2 * step_x:
        return
    program = compile_program(net_of((channels, height, width), (step_y, step_x)))
    if 8 in (dvs.pool[0] * (step_x if dvs.swap else step_y), dvs.pool[1] * (step_y if dvs.swap else step_x)):
        with pytest.raises(SettingError, match="pool: expected one of 1, 2, 4"):
            with_dvs(program, dvs)
        return
    if not is_divided(dvs, (step_x, step_y) if dvs.swap else (step_y, step_x)):
        crop, mirror = (
            r"crop: expected (rows|columns) in steps of 2",
            r"mirror: expected (rows|columns) that .* pool of 2",
        )
        with pytest.raises(SettingError, match=f"{crop}|{mirror}"):
            with_dvs(program, dvs)
        return
    behind = with_dvs(program, dvs)
    events = random_events(np.random.default_rng(seed), dvs.input_shape, 60)
    found = Emulator(behind).run(events, "all")
    for core_id, core in run_reference(behind, events).items():
        assert found.spikes[core_id].tolist() == core.spikes
    left = apply_dvs(events, dvs)
    if len(left):
        expected = Emulator(program).run(left, "all")
        (core_id,) = program.entry
        for name in ("feature", "y", "x", "t_us"):
            assert np.array_equal(found.spikes[core_id][name], expected.spikes[core_id][name])
        assert np.array_equal(found.states[core_id], expected.states[core_id])
        (peak,) = find_core_peaks(behind, found, events=events, window_us=100).layers
        (alone,) = find_core_peaks(program, expected, events=left, window_us=100).layers
        assert peak.synops == alone.synops


def test_a_camera_that_is_larger_than_the_net_is_cropped_to_it() -> None:
    program = with_dvs(compile_program(digits_net(34)), parse_dvs("pool=2,crop=15:49:15:49,mirror=x", 1))
    assert program.dvs == DvsConfig((2, 128, 128), True, (2, 2), ((15, 49), (15, 49)), (False, True))
    assert program.dvs.out_shape == (1, 34, 34)
    with pytest.raises(RecordingError, match=r"sensor of 128x128 .* of which 34x34 reach the net, found 34x34"):
        Emulator(program).run(random_events(np.random.default_rng(0), (2, 34, 34), 5))


@pytest.mark.parametrize(
    ("dvs", "text"),
    [
        (
            DvsConfig((2, 128, 128), True, (2, 2)),
            r"1x34x34 .* found 1x64x64 from a sensor of 128x128\. Try crop=15:49:15:49",
        ),
        (DvsConfig((2, 128, 64), True, (2, 4), swap=True), r"found 1x16x64 .* Try a smaller pool"),
        (DvsConfig((2, 34, 34)), r"found 2x34x34 .* Try merge=True"),
        (DvsConfig((2, 102, 102), True, (3, 3)), r"pool: expected one of 1, 2, 4 along each axis, found 3x3\. Try"),
        (DvsConfig((2, 136, 136), True, (4, 4)), r"sensor: expected at most 128x128, found 136x136"),
        (
            DvsConfig((2, 64, 64), True, crop=((0, 65), (0, 34))),
            r"crop: expected rows within 0:64 and columns within 0:64, .* found rows 0:65 and columns 0:34",
        ),
        (DvsConfig((2, 64, 64), True, crop=((3, 3), (0, 34))), "found rows 3:3"),
        (DvsConfig((2, 0, 64), True), "expected a pool and an input shape of 1 or more"),
    ],
)
def test_a_stage_that_does_not_fit_is_refused_with_the_sizes_on_both_sides(dvs: DvsConfig, text: str) -> None:
    with pytest.raises(SettingError, match=text) as caught:
        with_dvs(compile_program(digits_net(34)), dvs)
    assert caught.value.exit_code == 2
    assert " Try " in str(caught.value)


def test_a_crop_that_the_pool_of_the_net_does_not_divide_is_refused_with_one_that_it_does() -> None:
    program = compile_program(net_of((2, 8, 8), (2, 2)))
    with pytest.raises(SettingError, match=r"expected rows in steps of 2, .* found 3:11\. Try 2:10\."):
        with_dvs(program, DvsConfig((2, 16, 16), crop=((3, 11), (2, 10))))
    with pytest.raises(SettingError, match=r"pool: expected .* found 8x8 \(4x4, then 2x2 of the net\)"):
        with_dvs(program, DvsConfig((2, 32, 32), pool=(4, 4)))
    assert with_dvs(program, DvsConfig((2, 16, 16), crop=((4, 12), (2, 10)))).dvs.crop == ((2, 6), (1, 5))


def test_a_second_stage_is_refused() -> None:
    stage = DvsConfig((2, 34, 34), True, mirror=(True, False))
    program = with_dvs(compile_program(digits_net(34)), stage)
    with pytest.raises(SettingError, match="expected a program without an input stage"):
        with_dvs(program, stage)


def test_events_of_another_sensor_are_refused() -> None:
    with pytest.raises(SettingError, match="expected events of a sensor of 8x8, found 4x4"):
        apply_dvs(random_events(np.random.default_rng(0), (2, 4, 4), 3), DvsConfig((2, 8, 8)))


@pytest.mark.parametrize(
    ("text", "channels", "expected"),
    [
        ("pool=2", 2, DvsConfig((2, 128, 128), pool=(2, 2))),
        ("pool=2x4", 1, DvsConfig((2, 128, 128), True, (2, 4))),
        ("mirror=yx , sensor=34x40", 2, DvsConfig((2, 34, 40), mirror=(True, True))),
        ("swap,crop=0:64:1:65", 2, DvsConfig((2, 128, 128), crop=((0, 64), (1, 65)), swap=True)),
        ("mirror=y", 3, DvsConfig((3, 128, 128), mirror=(True, False))),
    ],
)
def test_a_text_is_a_stage(text: str, channels: int, expected: DvsConfig) -> None:
    assert parse_dvs(text, channels) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(
            (text, text)
            for text in ("", "pool", "pool=0.5", "crop=1:2:3", "mirror=z", "swap=1", "rotate=90", "sensor=9")
        ),
        ("pool=2,pool=2", "pool twice"),
        ("pool=0", "of 1 or more"),
        ("crop=0:200:0:3", "rows 0:200"),
    ],
)
def test_a_text_that_is_none_is_refused_with_one_that_is(text: str, found: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_dvs(text, 2)
    assert found in str(caught.value)
    assert str(caught.value).startswith("--dvs: ")
    assert 'Try "pool=2,crop=15:49:15:49,mirror=x".' in str(caught.value)


@functools.cache
def bare_program(edge: int) -> Program:
    """Return a program of one core without golden vectors."""
    return dataclasses.replace(compile_program(net_of((2, edge, edge), (1, 1))), golden=())


@settings(max_examples=40, deadline=None)
@given(stages(), st.sampled_from((None, 0.5, 1000, 12.25)))
def test_the_stage_and_the_clock_survive_the_file(dvs: DvsConfig, hz: float | None) -> None:
    program = dataclasses.replace(bare_program(8), dvs=dvs, slow_clock_hz=hz)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        save_program(program, path)
        found = load_program(path)
    assert found.same(program)
    assert type(found.slow_clock_hz) is type(hz)


def test_what_a_plain_program_does_not_use_is_not_in_its_file(tmp_path: Path) -> None:
    save_program(bare_program(8), tmp_path / "program")
    header, _ = unpack(tmp_path / "program", kind="program", versions=(FORMAT,))
    assert set(header["dvs"]) == {"input_shape", "merge", "pool"}
    assert not {"slow_clock_hz", "readout"} & set(header)


def test_files_of_the_first_version_still_load(tmp_path: Path) -> None:
    program = bare_program(8)
    save_program(program, tmp_path / "program")
    header, tensors = unpack(tmp_path / "program", kind="program", versions=(FORMAT,))
    del header["format"]
    (tmp_path / "first").write_bytes(pack(tensors, header, kind="program", version=1))
    assert load_program(tmp_path / "first").same(program)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"crop": [0, 2, 0]}, "crop: expected 4 whole numbers"),
        ({"crop": [0, 99, 0, 2]}, "crop: expected rows within 0:6"),
        ({"mirror": [1, 0]}, "mirror: expected two of true or false"),
        ({"mirror": [True]}, "mirror: expected two of true or false"),
        ({"swap": "yes"}, "swap: expected true or false"),
        ({"turn": True}, "dvs: expected the fields"),
    ],
)
def test_a_damaged_stage_in_a_file_is_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = tmp_path / "program"
    rewritten(path, lambda header: header["dvs"].update(changes))
    with pytest.raises(ProgramFileError, match=text):
        load_program(path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        *(({"slow_clock_hz": hz}, "slow_clock_hz: expected a positive") for hz in (0, -1.0, "fast", True, 10**400)),
        ({"readout": {"spacing": 0}}, "readout: expected a spacing of 1 or more"),
        ({"readout": {"spacing": 4, "more": 1}}, "readout: expected the fields"),
        ({"readout": {"spacing": 5}}, r"expected 5 \* \(n - 1\) \+ 1 features for n classes, found 3"),
    ],
)
def test_damaged_settings_in_a_file_are_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = tmp_path / "program"
    rewritten(path, lambda header: header.update(changes))
    with pytest.raises(ProgramFileError, match=text):
        load_program(path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a program whose header was changed."""
    save_program(bare_program(6), path)
    header, tensors = unpack(path, kind="program", versions=(FORMAT,))
    del header["format"]
    change(header)
    path.write_bytes(pack(tensors, header, kind="program", version=FORMAT))


def test_a_program_with_no_rate_is_refused() -> None:
    with pytest.raises(InvalidProgramError, match="slow_clock_hz: expected a positive number"):
        dataclasses.replace(compile_program(digits_net()), slow_clock_hz=float("nan"))


def test_a_crop_that_is_suggested_works_and_a_mirror_that_cannot_work_suggests_none() -> None:
    program = dataclasses.replace(compile_program(net_of((2, 34, 34), (4, 4))), golden=())
    with pytest.raises(SettingError, match="Try 12:46") as caught:
        with_dvs(program, parse_dvs("crop=13:47:12:46", 2))
    assert "13:47" in str(caught.value)
    assert with_dvs(program, parse_dvs("crop=12:46:12:46", 2)).dvs.crop is not None
    with pytest.raises(SettingError, match="mirror: expected columns that the net's own pool of 4 divides, found 34"):
        with_dvs(program, parse_dvs("crop=12:46:12:46,mirror=x", 2))
