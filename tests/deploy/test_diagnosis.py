"""The diagnosis on the emulated chip, its pictures, and its part of the report."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spikeport.convert import Conversion, convert
from spikeport.deploy import Program, compile_program
from spikeport.deploy.diagnosis import CoreDiagnosis, chip_tables, diagnose_chip
from spikeport.deploy.errors import RecordingError, ReportError
from spikeport.deploy.page import render_html
from spikeport.deploy.report import Report, report_dict
from spikeport.deploy.scatter import accuracy_curves, layer_scatter
from spikeport.models.console import show
from spikeport.models.events import Events

from ..convert.faults import SHAPE, converted, moving_raster, overdriven, small_cnn  # noqa: TID252
from .diagnoses import BAD, some_diagnosis, some_layer

STEP_US = 10_000
N_STEPS = 8


def recordings(raster: NDArray[np.float32]) -> list[Events]:
    """Return the recordings of a raster, the events of a step in random order within it."""
    rng = np.random.default_rng(0)
    found = []
    for sample in range(raster.shape[1]):
        t, p, y, x = np.nonzero(raster[:, sample])
        n = raster[t, sample, p, y, x].astype(int)
        t, p, y, x = (np.repeat(column, n) for column in (t, p, y, x))
        time = t * STEP_US + rng.integers(0, STEP_US, len(t))
        order = np.argsort(time, kind="stable")
        found.append(Events(x[order], y[order], p[order], time[order], SHAPE[1:]))
    return found


def causes(rows: tuple[CoreDiagnosis, ...]) -> list[str]:
    return [row.cause for row in rows]


def program_of(conversion: Conversion) -> Program:
    return compile_program(conversion.net, "speck2fdevkit")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("bias", [False, True])
def test_an_intact_program_is_healthy_on_every_core(seed: int, bias: bool) -> None:
    raster = moving_raster(seed)
    conversion = converted(small_cnn(seed, bias=bias), raster)
    clock = 1e6 / STEP_US if bias else None
    rows = diagnose_chip(conversion, program_of(conversion), recordings(raster), slow_clock_hz=clock)
    assert causes(rows) == ["healthy"] * 3
    assert [row.name for row in rows] == [layer.name for layer in conversion.net.layers]
    assert all(0.8 < row.slope < 1.1 for row in rows)


class Branches(torch.nn.Module):
    """A layer that feeds three others, which needs a relay on the chip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 4, 3, bias=False)
        self.branches = torch.nn.ModuleList(torch.nn.Conv2d(4, 2, 1, bias=False) for _ in range(3))
        self.last = torch.nn.Conv2d(6, 3, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.stem(x))
        joined = torch.cat([torch.relu(branch(stem)) for branch in self.branches], 1)
        return torch.relu(self.last(joined))


def test_relays_are_no_layers_and_are_left_out() -> None:
    torch.manual_seed(0)
    raster = moving_raster(0)
    conversion = converted(Branches(), raster)
    program = program_of(conversion)
    assert "stem.relay" in [core.name for core in program.cores]
    rows = diagnose_chip(conversion, program, recordings(raster))
    assert [row.name for row in rows] == [layer.name for layer in conversion.net.layers]


def test_the_rate_of_the_program_counts_where_none_is_given() -> None:
    raster = moving_raster(0)
    conversion = converted(small_cnn(0, bias=True), raster)
    clocked = dataclasses.replace(program_of(conversion), slow_clock_hz=1e6 / STEP_US)
    rows = diagnose_chip(conversion, clocked, recordings(raster))
    assert rows == diagnose_chip(conversion, program_of(conversion), recordings(raster), slow_clock_hz=1e6 / STEP_US)


def test_a_layer_that_fires_more_than_its_events_allow_clips_on_the_chip() -> None:
    raster = moving_raster(0)
    conversion = overdriven(converted(small_cnn(0), raster), 0, raster)
    first, *_ = diagnose_chip(conversion, program_of(conversion), recordings(raster))
    assert first.cause == "clipping"
    assert first.stuck_share > 0.1
    assert first.slope < 0.5


def test_biases_without_a_slow_clock_are_named() -> None:
    raster = moving_raster(0)
    module = small_cnn(0, bias=True)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.add_(3.0)
    conversion = converted(module, raster)
    program, given = program_of(conversion), recordings(raster)
    assert causes(diagnose_chip(conversion, program, given)) == ["bias not applied"] * 3
    rows = diagnose_chip(conversion, program, given, slow_clock_hz=10e6 / STEP_US)
    assert rows[0].cause == "bias added too often"


@pytest.mark.parametrize("index", range(3))
def test_a_bound_that_is_too_tight_is_named_on_its_core(index: int) -> None:
    raster = moving_raster(0, n_steps=32, n_patterns=4)
    conversion = converted(small_cnn(0, inhibited=True), raster)
    program = program_of(conversion)
    cores = list(program.cores)
    cores[index] = dataclasses.replace(cores[index], threshold_low=-1)
    tight = dataclasses.replace(program, cores=tuple(cores))
    given = recordings(raster)
    assert "lower bound too tight" not in causes(diagnose_chip(conversion, program, given))
    found = causes(diagnose_chip(conversion, tight, given))
    assert [cause for cause in found if cause != "healthy"] == ["lower bound too tight"]
    assert found[index] == "lower bound too tight"


def test_an_outlier_in_the_weights_is_named_on_its_core() -> None:
    module = small_cnn(0)
    with torch.no_grad():
        module.get_parameter("4.weight")[0, 0] = -40.0  # a feature that never fires, also in the CNN
    raster = moving_raster(0)
    conversion = converted(module, raster)
    rows = diagnose_chip(conversion, program_of(conversion), recordings(raster))
    assert rows[1].cause == "int8 overflow"
    assert rows[0].cause == "healthy"


def test_the_rows_are_plain_json_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    raster = moving_raster(0)
    conversion = overdriven(converted(small_cnn(0), raster), 0, raster)
    rows = diagnose_chip(conversion, program_of(conversion), recordings(raster)[:2])
    plain = json.loads(json.dumps([row.to_dict() for row in rows], allow_nan=False))
    assert [row["cause"] for row in plain] == causes(rows)
    show(
        *chip_tables(rows),
        *chip_tables([dataclasses.replace(rows[0], verdict=dataclasses.replace(BAD, cause="healthy"))]),
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "First bad core" in printed
    assert "No bad core" in printed


def test_other_programs_and_no_recordings_are_refused() -> None:
    raster = moving_raster(0)
    conversion = converted(small_cnn(0), raster)
    program = program_of(conversion)
    with pytest.raises(RecordingError, match="found no recording"):
        diagnose_chip(conversion, program, [])
    other = convert(torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3), torch.nn.ReLU()), SHAPE)
    with pytest.raises(RecordingError, match=r"cores of other layers: .*conv4"):
        diagnose_chip(other, program, recordings(raster))


# Pictures and the report.


@pytest.mark.parametrize("labelled", [False, True])
def test_every_axis_of_the_pictures_has_a_name_and_a_unit(labelled: bool) -> None:
    text = accuracy_curves(some_diagnosis(labelled=labelled))
    for name in ("time steps of one recording", "spikes of all layers of one recording", "synops of one recording"):
        assert name in text
    assert ("right (%)" in text) == labelled
    assert ("same class as the CNN (%)" in text) != labelled
    scatter = layer_scatter(some_layer(BAD), "#14988a")
    assert "activation of the CNN (spikes)" in scatter
    assert ">spikes<" in scatter


def test_a_curve_without_synops_has_no_axis_for_them() -> None:
    found = some_diagnosis()
    curve = tuple(dataclasses.replace(point, synops=None) for point in found.curve)
    assert "synops of one recording" not in accuracy_curves(dataclasses.replace(found, curve=curve))


def test_a_silent_layer_has_a_picture_too() -> None:
    nothing = np.zeros(0, np.float32)
    silent = dataclasses.replace(some_layer(BAD), activations=nothing, spikes=nothing, slope=0.0)
    assert layer_scatter(silent, "#14988a").startswith("<svg")


def test_thousands_of_points_are_one_small_picture() -> None:
    points = np.linspace(0, 20, 2000, dtype=np.float32)
    layer = dataclasses.replace(some_layer(BAD), activations=points, spikes=np.floor(points))
    text = layer_scatter(layer, "#14988a")
    assert len(text) < 60_000
    assert len(re.findall(r'xlink:href="data:image/png', text)) == 1


@pytest.mark.parametrize("healthy", [False, True])
def test_a_conversion_has_a_report_without_a_program(healthy: bool) -> None:
    found = some_diagnosis(healthy=healthy)
    report = Report("Conversion of digits", diagnosis=found)
    numbers = report_dict(report)
    assert not {"chip", "cores", "device"} & set(numbers)
    assert numbers["diagnosis"] == json.loads(json.dumps(found.to_dict()))
    text = render_html(report)
    assert ("&lt;all&gt;" in text) != healthy
    assert ("No bad layer" in text) == healthy
    assert text.count("<svg") == 3


def test_a_recording_needs_its_program() -> None:
    with pytest.raises(ReportError, match="expected the program"):
        Report("no program", label=1)
