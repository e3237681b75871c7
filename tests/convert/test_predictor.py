"""Spiking nets as predictors: the laws, equality with ``simulate``, counts, energy, carried potentials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeport.convert import NetPredictor, count_synops, estimate_power, simulate
from spikeport.convert.errors import InputError
from spikeport.convert.rasters import stack_rasters
from spikeport.models.batches import InferenceSettings
from spikeport.models.callbacks import EarlyExit, SpikeRecorder, StateRecorder
from spikeport.models.errors import InferenceError
from spikeport.models.infer import evaluate, predict
from spikeport.models.predictor import RunOptions

from ..deploy.nets import stack  # noqa: TID252
from ..laws import check_all, random_recordings, run_whole  # noqa: TID252
from .nets import random_chain, random_graph

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random_net(seed: int):  # type: ignore[no-untyped-def]
    """Return a random net that events of a camera can be fed to, and that has classes."""
    rng = np.random.default_rng(seed)
    while True:
        net = random_chain(rng) if rng.random() < 0.5 else random_graph(rng)
        if net.input_shape[0] <= 2 and net.output_shape is not None:
            return net


@FEW
@given(st.integers(0, 10**6))
def test_nets_keep_all_laws(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    predictor = NetPredictor(random_net(seed), step_us=3000)
    check_all(predictor, np.random.default_rng(seed), tmp_path_factory.mktemp("laws"))


@FEW
@given(st.integers(0, 10**6))
def test_a_net_answers_as_simulate_does(seed: int) -> None:
    net = random_net(seed)
    (recording,) = random_recordings(np.random.default_rng(seed), net.input_shape[1:], 1)
    raster = stack_rasters([recording], 3000, merge_polarity=net.input_shape[0] == 1)
    trace = simulate(net, raster, dt_us=3000, record="all")
    predictor = NetPredictor(net, step_us=3000)
    run = predictor.start(RunOptions(record=predictor.layers))
    found = run_whole(run, predictor, [recording])
    np.testing.assert_array_equal(found.outputs["output"], trace.output)
    np.testing.assert_array_equal(found.tie_breaks["output"], trace.output_states)
    for name, spikes in zip(predictor.layers, trace.spikes or (), strict=True):
        np.testing.assert_array_equal(found.recorded[name], spikes)
    report = count_synops(net, trace)
    assert {layer.name: layer.synops for layer in report.layers} == {k: int(v[0]) for k, v in found.synops.items()}
    assert predict(predictor, [recording]).classes["output"].tolist() == trace.predictions().tolist()
    again = predictor.start(RunOptions()).feed(raster.astype(np.float32), len(raster) * 3000)
    np.testing.assert_array_equal(again.outputs["output"], found.outputs["output"])


def test_energy_is_the_estimate_of_the_counts() -> None:
    net = stack((2, 16, 16), [{"features": 4, "kernel": 3, "pool": 2}, {"features": 5, "kernel": 0}])
    recordings = random_recordings(np.random.default_rng(0), (16, 16), 3)
    predictor = NetPredictor(net)
    found = evaluate(predictor, (recordings, np.zeros(3, np.int64)), metrics="energy")["energy"]
    expected = []
    for recording in recordings:
        trace = simulate(net, stack_rasters([recording], 10_000, merge_polarity=False), dt_us=10_000, engine="event")
        power = estimate_power(count_synops(net, trace))
        expected.append([watts * trace.window_s for watts in (power.low_w, power.mid_w, power.high_w)])
    np.testing.assert_allclose([found["low_j"], found["mid_j"], found["high_j"]], np.mean(expected, axis=0), rtol=1e-9)


def small() -> NetPredictor:
    return NetPredictor(stack((2, 8, 8), [{"features": 3, "kernel": 3}, {"features": 4, "kernel": 0}]), step_us=2000)


def test_recorders_and_early_exit_look_into_a_net() -> None:
    recordings = random_recordings(np.random.default_rng(2), (8, 8), 6)
    watched = [
        SpikeRecorder("layer0", samples=[1, 3], neurons=(0, slice(None), slice(None))),
        SpikeRecorder("layer0", counts=True, key="counts"),
        StateRecorder("layer1", samples=lambda index: index == 3),
    ]
    found = predict(small(), recordings, callbacks=watched, settings=InferenceSettings(batch_size=4))
    assert set(found.data["spikes layer0"]) == {1, 3}
    times = found.data["spikes layer0"][3]
    assert times["n"].sum() == found.data["counts"][3][0].sum()
    assert len(found.data["counts"]) == 6  # no slot of a short last batch
    assert found.data["state layer1"][3].shape[1:] == (4, 1, 1)
    steps = recordings[3].duration_us // 2000 + 1
    assert len(found.data["state layer1"][3]) >= steps
    with pytest.raises(InferenceError, match="Try 'layer0'"):
        predict(small(), recordings, callbacks=[SpikeRecorder("layer00")])
    with pytest.raises(InferenceError, match="neurons"):
        predict(small(), recordings, callbacks=[SpikeRecorder("layer0", neurons=(9, 0, 0))])
    early = predict(small(), recordings, callbacks=[EarlyExit(1)], settings=InferenceSettings(batch_size=4))
    single = predict(small(), recordings, callbacks=[EarlyExit(1)], settings=InferenceSettings(batch_size=1))
    assert early.data["early_exit_us"] == single.data["early_exit_us"]
    np.testing.assert_array_equal(early.output, single.output)


def test_each_reset_switch_does_what_it_says() -> None:
    one, two = random_recordings(np.random.default_rng(5), (8, 8), 2)
    predictor = small()

    def second(**switches: Any) -> list[float]:
        settings = InferenceSettings(batch_size=1, **switches)
        answered: list[float] = predict(predictor, [one, two], settings=settings).output[1].tolist()
        return answered

    fresh = predict(predictor, [two]).output[0].tolist()
    assert second() == fresh
    run = predictor.start(RunOptions())
    length = (one.duration_us // 2000 + 1) * 2000
    run.feed((one,), length)
    end = length + (two.duration_us // 2000 + 1) * 2000
    moved = type(two)(two.x, two.y, two.p, two.t_us + length, two.sensor_size)
    carried = run.feed((moved,), end).outputs["output"].sum(axis=0)[0].tolist()
    assert second(reset_time=False, reset_state=False) == carried
    assert second(reset_state=False) == carried  # nothing of a net but its events depends on the clock
    pending = second(reset_input=False)
    run.reset()
    run.feed((one,), int(one.t_us[-1]))
    run.reset(pending=False)
    again = run.feed((two,), int(two.t_us[-1])).outputs["output"]
    assert pending == (again.sum(axis=0)[0].tolist() if len(again) else [0.0] * 4)


def test_more_recordings_than_states_are_refused() -> None:
    recordings = random_recordings(np.random.default_rng(1), (8, 8), 3)
    run = small().start(RunOptions())
    run.feed(tuple(recordings[:1]), 2000)
    with pytest.raises(InputError, match="expected at most 1 recordings"):
        run.feed((recordings[0].window(2000, 10**6),) * 2, 10**6)
    with pytest.raises(InputError, match="state: layer 'layer0'"):
        run.restore({"layer0": np.zeros((1, 2, 2, 2), np.float32), **small().start(RunOptions()).state()})


def test_what_has_no_step_or_another_input_is_refused() -> None:
    with pytest.raises(InputError, match="step_us"):
        NetPredictor(small().net, step_us=0)
    with pytest.raises(InferenceError, match="expected a frame of shape"):
        predict(small(), np.zeros((3, 2, 8, 9), np.float32))
    with pytest.raises(InferenceError, match="input of 2x8x8"):
        predict(small(), random_recordings(np.random.default_rng(0), (9, 8), 1))
