"""The numbers of a diagnosis: laws, forms, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from spikeport.convert import Conversion, convert, simulate
from spikeport.convert.diagnosis.causes import error_parts
from spikeport.convert.diagnosis.diagnose import N_POINTS, Diagnosis, diagnose, diagnosis_tables, run_diagnosis
from spikeport.convert.diagnosis.measure import measure_layers
from spikeport.convert.errors import InputError
from spikeport.convert.rasters import spread
from spikeport.convert.simulate import STEP_US
from spikeport.models.console import show
from spikeport.models.events import Events

from .faults import (
    SHAPE,
    converted,
    moving_raster,
    small_cnn,
    with_layer,
)

N_STEPS = 8
FEW = range(2)


def intact(seed: int, **options: Any) -> tuple[Conversion, NDArray[np.float32]]:
    raster = moving_raster(seed, n_steps=N_STEPS)
    return converted(small_cnn(seed, bias=options.pop("bias", False)), raster, **options), raster


# Laws of the numbers.


@pytest.mark.parametrize("seed", FEW)
def test_numbers_agree_with_the_trace_and_with_plain_least_squares(seed: int) -> None:
    conversion, raster = intact(seed, v_min=-1.0)
    found = diagnose(conversion, raster)
    trace = simulate(conversion.net, raster)
    assert sum(layer.error_share for layer in found.layers) == pytest.approx(1)
    assert found.layers[0].error == pytest.approx(found.layers[0].own_error)
    assert found.layers[0].parts["inherited"] == 0
    for layer, counts, measured in zip(found.layers, trace.counts, measure_layers(conversion, raster), strict=True):
        assert np.array_equal(measured.spikes, counts)
        slope, intercept = np.polyfit(measured.activations.ravel(), counts.ravel(), 1)
        assert (layer.slope_free, layer.intercept) == pytest.approx((slope, intercept), abs=1e-4)
        assert layer.r2 <= layer.r2_free <= 1
        assert layer.mean_spikes == pytest.approx(counts.mean())
        assert len(layer.activations) == len(layer.spikes) <= N_POINTS
        assert np.all((layer.activations > 0) | (layer.spikes > 0))
        shares = (layer.bound_share, layer.saturated_share, layer.uneven_share, layer.dead_share, layer.silent_share)
        assert all(0 <= share <= 1 for share in shares)
        assert measured.hit.any() or layer.parts["lower bound"] == 0
    last = found.curve[-1]
    assert last.n_steps == N_STEPS
    assert last.spikes == pytest.approx(sum(counts.sum() for counts in trace.counts) / trace.n_samples)
    assert [point.n_steps for point in found.curve] == [1, 2, 4, 8]


def test_parts_do_not_depend_on_how_many_recordings_are_measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    conversion, raster = intact(0, bias=True, v_min=-1.0)
    whole = diagnose(conversion, raster)
    monkeypatch.setattr("spikeport.convert.diagnosis.measure._CELLS", 1)
    parts = diagnose(conversion, raster)
    assert parts.curve == whole.curve
    for layer, same in zip(parts.layers, whole.layers, strict=True):
        assert np.array_equal(layer.spikes, same.spikes)
        assert dict(layer.parts) == pytest.approx(dict(same.parts), abs=1e-6)


def test_the_parts_of_the_error_lead_from_the_cnn_to_the_spikes() -> None:
    conversion, raster = intact(1, v_min=-1.0)
    for counts in measure_layers(with_layer(conversion, 1, weight=2 * conversion.net.layers[1].weight), raster):
        steps = (counts.activations, counts.asked, counts.rounded, counts.intended, counts.unbounded, counts.spikes)
        between = [float(np.abs(b - a).max()) for a, b in itertools.pairwise(steps)]
        assert (np.array(between) > 0).any()
        assert (error_parts(counts)["weights"] > 0) == (counts.layer.name == conversion.net.layers[1].name)


def test_labels_add_accuracies() -> None:
    conversion, raster = intact(0)
    answers = simulate(conversion.net, raster).predictions()
    found = diagnose(conversion, raster, labels=answers)
    assert found.curve[-1].accuracy == 1
    assert found.cnn_accuracy == found.curve[-1].agreement
    assert diagnose(conversion, raster).cnn_accuracy is None


def test_a_single_recording_needs_no_batch_axis() -> None:
    conversion, raster = intact(0)
    assert diagnose(conversion, raster[:, 0]).same(diagnose(conversion, raster[:, :1]))


@given(st.integers(1, 12), st.integers(0, 2**16))
def test_frames_are_spread_into_rasters_that_sum_to_them(n_steps: int, seed: int) -> None:
    frames = np.random.default_rng(seed).poisson(3, (2, 1, 3, 3)).astype(np.float32)
    raster = spread(frames, n_steps)
    assert np.array_equal(raster.sum(0), frames)
    assert np.array_equal(raster, np.rint(raster))
    assert raster.max() - raster.min() <= np.ceil(frames.max() / n_steps)
    assert np.allclose(spread(frames / 2 + 0.1, n_steps).sum(0), frames / 2 + 0.1)


@pytest.mark.parametrize("bias", [False, True])
def test_frames_last_as_long_as_the_biases_are_spread(bias: bool) -> None:
    conversion, raster = intact(0, bias=bias)
    found = run_diagnosis(conversion, frames=raster.sum(0))
    assert found.n_steps == (N_STEPS if bias else 16)
    assert found.first_bad is None
    assert run_diagnosis(conversion, frames=raster.sum(0), n_steps=4).n_steps == 4


def test_images_that_are_no_event_counts_are_a_constant_input() -> None:
    torch.manual_seed(0)
    frames = torch.rand(6, *SHAPE).numpy()
    conversion = convert(small_cnn(0), SHAPE, data=frames, v_min=None)
    found = run_diagnosis(conversion, frames=frames)
    assert found.first_bad is None
    assert all(point.synops is None for point in found.curve)


def test_recordings_are_taken_in_steps_and_compared_with_the_calibration() -> None:
    conversion, raster = intact(0)
    recordings = [Events.from_raster(raster[:, i].astype(np.uint16), STEP_US) for i in range(3)]
    found = run_diagnosis(conversion, recordings=recordings, frames=raster.sum(0), labels=[0, 1, 2])
    assert (found.n_samples, found.n_steps, found.input) == (3, N_STEPS, None)
    assert found.cnn_accuracy is not None
    few = run_diagnosis(conversion, recordings=recordings, frames=10 * raster.sum(0)).first_bad
    assert few is not None
    assert few.cause == "input unlike calibration"


def test_the_diagnosis_is_plain_json_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    conversion, raster = intact(0)
    broken = with_layer(conversion, 1, weight=0 * conversion.net.layers[1].weight)
    for found in (diagnose(conversion, raster), diagnose(broken, raster, labels=np.zeros(6))):
        plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert [row["layer"] for row in plain["layers"]] == [layer.name for layer in conversion.net.layers]
        assert (plain["first_bad"] is None) == (found.first_bad is None)
        show(*diagnosis_tables(found))
        printed = " ".join(capsys.readouterr().out.split())
        assert all(" ".join(sentence.split()) in printed for sentence in found.sentences)
        assert all(name in printed for name in ("Own slope", "Lower bound %", "Synops"))


def test_a_net_without_classes_has_no_curve() -> None:
    raster = moving_raster(0)
    first = small_cnn(0)[1]

    class TwoMaps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.conv(x))

    conversion = converted(TwoMaps().eval(), raster)
    edges = (*conversion.net.edges, dataclasses.replace(conversion.net.edges[-1], pool=(2, 2)))
    found = diagnose(dataclasses.replace(conversion, net=dataclasses.replace(conversion.net, edges=edges)), raster)
    assert found.curve == ()
    assert isinstance(found, Diagnosis)


# Bad input.


@pytest.mark.parametrize("shape", [(8, 2, 16), (8, 2, 15, 16), (0, 2, 16, 16), (8, 0, 2, 16, 16)])
def test_a_raster_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    conversion, _ = intact(0)
    with pytest.raises(InputError, match=r"raster: expected shape .*Try"):
        diagnose(conversion, np.zeros(shape))


def test_labels_steps_and_nets_that_do_not_match_are_refused() -> None:
    conversion, raster = intact(0)
    with pytest.raises(InputError, match="labels: expected 6"):
        diagnose(conversion, raster, labels=[1, 2])
    with pytest.raises(InputError, match="n_steps: expected at least 1"):
        run_diagnosis(conversion, frames=raster.sum(0), n_steps=0)
    with pytest.raises(InputError, match="frames: expected"):
        run_diagnosis(conversion, frames=raster.sum(0)[:, :1])
    with pytest.raises(InputError, match="found neither"):
        run_diagnosis(conversion)
    other = with_layer(with_layer(conversion, 0, name="elsewhere"), 1, name="nowhere")
    with pytest.raises(InputError, match=r"elsewhere.*nowhere.*Try"):
        diagnose(other, raster)


def test_a_rerun_gives_the_same_bits() -> None:
    conversion, raster = intact(1)
    assert diagnose(conversion, raster).same(diagnose(conversion, raster))
