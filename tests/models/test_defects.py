"""Each of the ten defects that were found in mlGeNN, and the table that answers its rows: here all is right."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.models.batches import InferenceSettings
from spikeport.models.callbacks import SpikeRecorder
from spikeport.models.encoders import Poisson
from spikeport.models.infer import evaluate, predict
from spikeport.models.predictor import RunOptions
from spikeport.models.readouts import Delayed, Maximum
from spikeport.models.samples import Batches

from .given import LOGITS, PREDICTOR, labels, rasters

# 1.13 the defects


def test_defect_1_the_documented_first_example_runs(tmp_path: Path) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text()
    code = guide.partition("```python\n")[2].partition("```")[0]
    assert "evaluate(" in code
    (tmp_path / "example.py").write_text(code)
    namespace = runpy.run_path(str(tmp_path / "example.py"))
    assert namespace["found"]["accuracy"] >= 0


def test_defect_2_iterators_with_two_outputs() -> None:
    batches = iter([(rasters(3), {"logits": labels(3), "total": np.zeros(3)})])
    found = evaluate(PREDICTOR, Batches(batches), metrics={"logits": "accuracy", "total": "mean_square_error"})
    assert set(found.results) == {"logits", "total"}
    assert found.results["total"]["mean_square_error"] > 0


def test_defect_3_mean_square_error_is_the_mean() -> None:
    inputs = rasters(8)
    values = predict(PREDICTOR, inputs).outputs["logits"]
    for size in (1, 4, 8):
        settings = InferenceSettings(batch_size=size)
        metrics = {"logits": "mean_square_error"}
        found = evaluate(PREDICTOR, (inputs, {"logits": values + 2.0}), metrics=metrics, settings=settings)
        assert found.results["logits"]["mean_square_error"] == 4.0


def test_defect_4_predict_with_a_scalar_output() -> None:
    assert predict(PREDICTOR, rasters(5)).outputs["total"].shape == (5,)


def test_defect_5_there_is_no_connectivity_flag_to_misunderstand() -> None:
    """Nets are computed from their kernels; nothing is expanded to a matrix, and no parameter asks for it."""
    import dataclasses

    assert not any("connect" in field.name for field in dataclasses.fields(InferenceSettings))


def test_defect_6_no_default_is_shared_and_progress_needs_no_callback(capsys: pytest.CaptureFixture[str]) -> None:
    import inspect

    for function in (evaluate, predict):
        defaults = [parameter.default for parameter in inspect.signature(function).parameters.values()]
        assert not any(isinstance(default, (list, dict, set)) for default in defaults)
    several: list[Any] = [[], ()]
    for callbacks in several:
        evaluate(
            PREDICTOR,
            (rasters(), labels()),
            metrics=LOGITS,
            callbacks=callbacks,
            settings=InferenceSettings(is_shown=True),
        )
        shown = capsys.readouterr().err
        assert "Evaluating" in shown
        assert "steps/s" in shown
    evaluate(PREDICTOR, (rasters(), labels()), metrics=LOGITS)
    assert capsys.readouterr().err == ""  # no terminal


def test_defect_7_recorders_keep_nothing_of_a_short_last_batch_but_its_samples() -> None:
    found = predict(
        PREDICTOR,
        rasters(7),
        callbacks=[SpikeRecorder("hidden", counts=True)],
        settings=InferenceSettings(batch_size=4),
    )
    assert set(found.data["spikes hidden"]) == set(range(7))


def test_defect_8_seed_0_is_a_seed() -> None:
    frames = np.random.default_rng(0).random((6, 2, 5, 6)).astype(np.float32)
    for seed in (0, 1):
        made = [
            predict(PREDICTOR, frames, settings=InferenceSettings(seed=seed, encoder=Poisson(8), batch_size=size))
            for size in (1, 2, 6)
        ]
        assert made[0].same(made[1])
        assert made[0].same(made[2])
    other = predict(PREDICTOR, frames, settings=InferenceSettings(seed=1, encoder=Poisson(8)))
    assert not other.same(predict(PREDICTOR, frames, settings=InferenceSettings(seed=0, encoder=Poisson(8))))


def test_defect_9_regression_compares_the_whole_curve_where_targets_have_one() -> None:
    inputs = rasters(4, 6)
    run = PREDICTOR.start(RunOptions())
    curve = run.feed(inputs.swapaxes(0, 1), 6000).outputs["logits"].swapaxes(0, 1)
    off = curve.copy()
    off[:, 0] += 3.0  # the first step alone is wrong
    metrics = {"logits": "mean_square_error"}
    settings = InferenceSettings(readout="last")
    found = evaluate(PREDICTOR, (inputs, {"logits": off}), metrics=metrics, settings=settings)
    assert found.results["logits"]["mean_square_error"] == pytest.approx(9.0 / 6)


def test_defect_10_nothing_has_to_be_opened_first() -> None:
    assert evaluate(PREDICTOR, (rasters(), labels()), metrics=LOGITS).n_samples == 7
    assert evaluate(PREDICTOR, (rasters(), labels()), metrics=LOGITS).n_samples == 7


def test_delayed_readouts_leave_out_the_beginning() -> None:
    inputs = rasters(2, 6)
    late = predict(PREDICTOR, inputs, settings=InferenceSettings(readout=Delayed(Maximum(), 2000)))
    run = PREDICTOR.start(RunOptions())
    curve = run.feed(inputs.swapaxes(0, 1), 6000).outputs["logits"]
    np.testing.assert_array_equal(late.outputs["logits"], curve[2:].max(axis=0))


def test_every_name_on_the_page_of_the_runtime_exists() -> None:
    import re

    from spikeport import convert, deploy, models
    from spikeport.models import encoders, metrics, readouts, serializers

    page = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text()
    rows = [line.split(" | ", 1)[1] for line in page.splitlines() if line.startswith("| ") and line.count(" | ") == 1]
    answers = " ".join(rows)
    told = set(re.findall(r"`([A-Z]\w+)[`(]", answers)) - {"Run", "Reading"}
    offered = {*dir(models), *dir(convert), *dir(deploy)}
    assert told <= offered, told - offered
    registries: list[Any] = [metrics.METRICS, readouts.READOUTS, encoders.ENCODERS, serializers.SERIALIZERS]
    made = [
        type(make(4) if registry is encoders.ENCODERS else make())
        for registry in registries
        for make in registry.values()
    ]
    assert {kind.__name__ for kind in made} <= told
