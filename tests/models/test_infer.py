"""Evaluate and predict: the rows of mlGeNN's interface in the order of docs/runtime.md, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from spikeport.models.batches import InferenceSettings
from spikeport.models.callbacks import Callback, Checkpoint, EarlyExit, SpikeRecorder, StateRecorder
from spikeport.models.data import EventDataset
from spikeport.models.encoders import Hold
from spikeport.models.errors import InferenceError, ShardError
from spikeport.models.events import Events
from spikeport.models.images import ImageDataset
from spikeport.models.infer import evaluate, predict
from spikeport.models.metrics import TopK
from spikeport.models.predictor import RunOptions
from spikeport.models.readouts import Last, Maximum
from spikeport.models.samples import Batches

from ..laws import random_recordings  # noqa: TID252
from .given import LOGITS, PREDICTOR, labels, rasters, recordings
from .leaky import LeakyPredictor

# 1.1 the parameters of the compiler


def test_evaluate_timesteps_is_n_steps_and_cuts_or_goes_on() -> None:
    data = recordings()
    for n_steps in (1, 3, 100):
        found = evaluate(PREDICTOR, (data, labels()), metrics=LOGITS, settings=InferenceSettings(n_steps=n_steps))
        assert found.n_steps == 7 * n_steps
        cut = [events.window(0, n_steps * 1000) for events in data]
        expected = predict(PREDICTOR, data, settings=InferenceSettings(n_steps=n_steps))
        assert expected.same(predict(PREDICTOR, cut, settings=InferenceSettings(n_steps=n_steps)))


def test_dt_is_the_predictors_step_and_can_be_set() -> None:
    data = recordings()
    slow = predict(PREDICTOR, data, settings=InferenceSettings(dt_us=5000))
    assert slow.same(predict(LeakyPredictor(step_us=5000), data))
    assert not slow.same(predict(PREDICTOR, data))


def test_a_step_that_cannot_be_changed_is_refused() -> None:
    class Fixed:
        def __getattr__(self, name: str) -> Any:
            return getattr(PREDICTOR, name)

        name, input_shape, outputs = "fixed", PREDICTOR.input_shape, PREDICTOR.outputs
        layers, classes, step_us, is_idle = (), (), 1000, False
        readout, confidence = "last", "softmax"

        def start(self, options: RunOptions) -> Any:
            return PREDICTOR.start(options)

        def fingerprint(self) -> str:
            return "fixed"

    with pytest.raises(InferenceError, match="predictor's own step of 1000"):
        predict(Fixed(), recordings(), settings=InferenceSettings(dt_us=10))  # type: ignore[arg-type]


def test_batch_size_is_any_number_and_profiling_names_layers() -> None:
    data = (recordings(), labels())
    found = [
        evaluate(PREDICTOR, data, metrics=LOGITS, settings=InferenceSettings(batch_size=size, profile=True))
        for size in (1, 3, 50)
    ]
    assert found[0].results == found[1].results == found[2].results
    assert found[0].profile["hidden"] > 0


@pytest.mark.parametrize("switch", ["reset_time", "reset_state", "reset_input"])
def test_each_of_three_resets_can_be_switched_off(switch: str) -> None:
    data = recordings(2)
    off: Any = {switch: False}
    together = predict(PREDICTOR, data, settings=InferenceSettings(batch_size=1))
    kept = predict(PREDICTOR, data, settings=InferenceSettings(batch_size=1, **off))
    np.testing.assert_array_equal(together.outputs["logits"][1], predict(PREDICTOR, data[1:]).outputs["logits"][0])
    is_equal = bool(np.array_equal(kept.outputs["logits"][1], together.outputs["logits"][1]))
    assert is_equal == (switch == "reset_time")  # time alone leaves no trace in a model without a clock
    with pytest.raises(InferenceError, match="one length"):
        predict(PREDICTOR, data, settings=InferenceSettings(batch_size=2, **off))


def test_settings_outside_their_range_are_named_together() -> None:
    with pytest.raises(InferenceError, match=r"n_steps: expected 1 or more, found 0; batch_size: .* found 0; seed"):
        InferenceSettings(n_steps=0, batch_size=0, seed=-1)


# 1.2 the methods


def test_evaluate_takes_every_kind_of_data() -> None:
    inputs, truth = rasters(), labels()
    expected = evaluate(PREDICTOR, (inputs, truth), metrics=LOGITS).results

    class Pairs(Dataset[Any]):
        def __len__(self) -> int:
            return len(inputs)

        def __getitem__(self, index: int) -> Any:
            return torch.from_numpy(inputs[index]), int(truth[index])

    tensors = torch.from_numpy(inputs), torch.from_numpy(truth)
    kinds: list[Any] = [
        tensors,
        TensorDataset(*tensors),
        Pairs(),
        DataLoader(Pairs(), batch_size=3),
        DataLoader(Pairs(), batch_size=None),
        DataLoader(Pairs(), batch_size=3, collate_fn=list),
        Batches([(inputs[:4], truth[:4]), (inputs[4:], truth[4:])]),
        Batches(iter([(inputs[:4], truth[:4]), (inputs[4:], truth[4:])])),
        list(zip(inputs, truth, strict=True)),
        zip(inputs, truth, strict=True),
        (list(inputs), truth.tolist()),
    ]
    for data in kinds:
        assert evaluate(PREDICTOR, data, metrics=LOGITS).results == expected, data


def test_evaluate_takes_recordings_in_every_form() -> None:
    data, truth = recordings(), labels()
    expected = evaluate(PREDICTOR, (data, truth), metrics=LOGITS).results
    set_ = EventDataset(tuple(data), truth, tuple("abcd"), "name", "source")
    for one in (set_, (iter(data), iter(truth)), list(zip(data, truth, strict=True)), zip(data, truth, strict=True)):
        assert evaluate(PREDICTOR, one, metrics=LOGITS).results == expected
    pairs: Any = list(zip(data, truth, strict=True))
    loader: Any = DataLoader(pairs, batch_size=2, collate_fn=list)
    assert evaluate(PREDICTOR, loader, metrics=LOGITS).results == expected


def test_still_images_need_steps_and_get_an_encoder() -> None:
    frames = np.random.default_rng(0).random((4, 2, 5, 6)).astype(np.float32)
    with pytest.raises(InferenceError, match="expected n_steps or an encoder"):
        predict(PREDICTOR, frames)
    settings = InferenceSettings(n_steps=6, readout=Last())
    current = predict(PREDICTOR, np.repeat(frames[:, None], 6, axis=1), settings=InferenceSettings(readout=Last()))
    assert predict(PREDICTOR, frames, settings=settings).same(current)
    held = InferenceSettings(encoder=Hold(6, steps_per_frame=2), readout="last")
    two = np.stack([frames, 2 * frames], axis=1)
    steps = two[:, [0, 0, 1, 1, 1, 1]]
    assert predict(PREDICTOR, two, settings=held).same(
        predict(PREDICTOR, steps, settings=InferenceSettings(readout="last"))
    )


def test_images_of_a_data_set_are_samples_with_labels() -> None:
    images = ImageDataset(np.zeros((3, 5, 6), np.uint8), np.array([0, 1, 1]), ("a", "b"), "name", "source")
    found = evaluate(_OneChannel(), images, metrics="accuracy", settings=InferenceSettings(n_steps=2))
    assert found.n_samples == 3


class _OneChannel(LeakyPredictor):
    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, *self.size)

    @property
    def weight(self) -> Any:
        return np.ones((30, self.n_classes))

    @property
    def outputs(self) -> Any:
        return {"logits": (self.n_classes,)}

    def start(self, options: RunOptions) -> Any:
        run = super().start(options)
        feed = run.feed

        def only_logits(inputs: Any, until_us: int) -> Any:
            import dataclasses

            found = feed(inputs, until_us)
            return dataclasses.replace(found, outputs={"logits": found.outputs["logits"]})

        run.feed = only_logits  # type: ignore[method-assign]
        return run


def test_a_real_reset_and_a_loop_of_ones_own() -> None:
    (one,) = recordings(1)
    run = PREDICTOR.start(RunOptions())
    first = run.feed((one,), 50_000)
    run.reset()
    assert run.feed((one,), 50_000).same(first)


# 1.4 callbacks


def test_callbacks_of_ones_own_see_everything_and_are_the_object_that_was_given() -> None:
    class Watch:  # no base class: found by its methods
        chunk_steps = 2

        def __init__(self) -> None:
            self.seen: list[Any] = []

        def begin(self, predictor: Any, n_samples: int | None) -> None:
            self.seen.append(("begin", n_samples))

        def before_batch(self, run: Any, indices: tuple[int, ...]) -> None:
            self.seen.append(("before", indices))

        def after_chunk(self, view: Any) -> None:
            self.seen.append(("chunk", view.time_us))

        def after_batch(self, seen: Any, response: Any) -> None:
            self.seen.append(("after", seen["logits"].indices))

        def end(self) -> None:
            self.seen.append(("end",))

        def data(self) -> Any:
            return "watched", len(self.seen)

    watch = Watch()
    found = evaluate(
        PREDICTOR, (rasters(3), labels(3)), metrics=LOGITS, callbacks=[watch], settings=InferenceSettings(batch_size=2)
    )
    chunks = [("chunk", 2000), ("chunk", 4000), ("chunk", 5000)]
    first, second = [("before", (0, 1)), *chunks, ("after", (0, 1))], [("before", (2,)), *chunks, ("after", (2,))]
    assert watch.seen == [("begin", 3), *first, *second, ("end",)]
    assert found.data == {"watched": len(watch.seen)}


def test_a_callback_may_change_the_run_before_a_batch() -> None:
    class Warm(Callback):
        def before_batch(self, run: Any, indices: tuple[int, ...]) -> None:
            run.restore({**run.state(), "hidden": np.full((1, 4), 8.0)})

    one = rasters(1)
    plain, warmed = predict(PREDICTOR, one), predict(PREDICTOR, one, callbacks=[Warm()])
    assert not warmed.same(plain)


def test_recorders_filter_samples_and_neurons_by_every_kind_of_filter() -> None:
    kinds: list[Any] = [None, [1, 3], [False, True, False, True], lambda index: index in (1, 3), range(1, 4, 2)]
    kept = []
    for kind in kinds:
        recorder = SpikeRecorder("hidden", samples=kind, neurons=([0, 2],))
        kept.append(predict(PREDICTOR, rasters(), callbacks=[recorder]).data["spikes hidden"])
    assert set(kept[0]) == set(range(7))
    for one in kept[1:]:
        assert set(one) == {1, 3}
        np.testing.assert_array_equal(one[3]["times_us"], kept[0][3]["times_us"])
        assert one[3]["neurons"].max(initial=0) < 2


def test_early_exit_ends_each_sample_at_its_own_margin() -> None:
    inputs = rasters(20, 10)
    settings = InferenceSettings(readout={"logits": Maximum()})
    found = predict(PREDICTOR, inputs, callbacks=[EarlyExit(6.0, output="logits")], settings=settings)
    ends = found.data["early_exit_us"]
    assert ends
    for index in range(20):
        steps = ends.get(index, 10_000) // 1000
        cut = predict(PREDICTOR, inputs[index : index + 1, :steps], settings=settings)
        np.testing.assert_array_equal(found.outputs["logits"][index], cut.outputs["logits"][0])
        top = np.sort(cut.outputs["logits"][0])
        assert (top[-1] - top[-2] >= 6.0) == (index in ends)


def test_objects_are_found_by_name_and_unknown_names_get_the_nearest() -> None:
    data = rasters(), labels()
    with pytest.raises(InferenceError, match=r"metric 'acuracy'.*Try 'accuracy'"):
        evaluate(PREDICTOR, data, metrics="acuracy")
    with pytest.raises(InferenceError, match=r"readout 'spikecount'.*Try 'spike_count'"):
        evaluate(PREDICTOR, data, settings=InferenceSettings(readout="spikecount"))
    with pytest.raises(InferenceError, match=r"callback 'early'.*Try 'early_exit'"):
        evaluate(PREDICTOR, data, callbacks=["early"])
    with pytest.raises(InferenceError, match=r"output of leaky 'logit'.*Try 'logits'"):
        evaluate(PREDICTOR, data, metrics={"logit": "accuracy"})
    with pytest.raises(InferenceError, match=r"output of leaky 'logit'.*Try 'logits'"):
        evaluate(PREDICTOR, data, settings=InferenceSettings(readout={"logit": "last"}))
    with pytest.raises(InferenceError, match=r"state of leaky 'hiden'.*Try 'hidden'"):
        predict(PREDICTOR, data[0], callbacks=[StateRecorder("hiden")])
    with pytest.raises(InferenceError, match="name of its own"):
        evaluate(PREDICTOR, data, metrics=["accuracy", "accuracy"])
    with pytest.raises(InferenceError, match="expected an object with some of"):
        evaluate(PREDICTOR, data, callbacks=[3])
    with pytest.raises(InferenceError, match="found 'spikes hidden' twice"):
        predict(PREDICTOR, data[0], callbacks=[SpikeRecorder("hidden"), SpikeRecorder("hidden")])


def test_checkpoints_belong_to_one_evaluation_and_survive_damage_with_a_message(tmp_path: Path) -> None:
    data, checkpoint = (recordings(), labels()), Checkpoint(tmp_path, 2)
    evaluate(PREDICTOR, data, metrics=LOGITS, callbacks=[checkpoint])
    others: list[Any] = [
        (LeakyPredictor(seed=5), data, LOGITS, InferenceSettings()),
        (PREDICTOR, (data[0], (data[1] + 1) % 4), LOGITS, InferenceSettings()),
        (PREDICTOR, data, {"logits": "top_2"}, InferenceSettings()),
        (PREDICTOR, data, LOGITS, InferenceSettings(n_steps=3)),
    ]
    for predictor, samples, metrics, settings in others:
        with pytest.raises(ShardError, match="of other data, settings, metrics or"):
            evaluate(predictor, samples, metrics=metrics, callbacks=[checkpoint], settings=settings)
    same = InferenceSettings(batch_size=3, profile=True)
    assert evaluate(PREDICTOR, data, metrics=LOGITS, callbacks=[checkpoint], settings=same).n_resumed == 7
    file = tmp_path / "shard-00000001.json"
    for text in ("", "{}", file.read_text().replace('"n_samples": 2', '"n_samples": 9')):
        file.write_text(text)
        with pytest.raises(ShardError, match="Try deleting it"):
            evaluate(PREDICTOR, data, metrics=LOGITS, callbacks=[checkpoint])
    with pytest.raises(InferenceError, match="no trace"):
        evaluate(PREDICTOR, data, callbacks=[checkpoint], settings=InferenceSettings(reset_state=False))


def test_a_folder_of_shards_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="found a file"):
        evaluate(PREDICTOR, (recordings(), labels()), metrics=LOGITS, callbacks=[Checkpoint(tmp_path / "file", 2)])


# results and bad input


def test_results_are_named_and_plain() -> None:
    found = evaluate(PREDICTOR, (rasters(), labels()), metrics={"logits": ["accuracy", TopK(2), TopK(3, name="top_3")]})
    assert found["top_k"] <= found["top_3"]
    assert json.loads(json.dumps(found.to_dict()))["results"]["logits"]["accuracy"] == found["accuracy"]
    with pytest.raises(InferenceError, match="Try 'accuracy'"):
        found["acuracy"]
    both = evaluate(PREDICTOR, rasters(), metrics="latency")
    with pytest.raises(InferenceError, match=r"results\['logits'\]\['latency'\]"):
        both["latency"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (([], []), "at least one sample"),
        ([], "at least one sample"),
        (iter(()), "at least one sample"),
        (np.zeros((0, 3, 2, 5, 6)), "at least one sample"),
        ((rasters(3), labels(4)), "one target for each of 3 samples, found 4"),
        ((rasters(3), {"logits": labels(2)}), "of output 'logits'"),
        ((rasters(3), {"classes": labels(3)}), "outputs logits, total, found 'classes'"),
        ((rasters(3), np.array([0, 1, 4])), r"label of 0\.\.3 for 4 outputs, found 4"),
        ((rasters(3), np.array([0, -1, 2])), r"sample 1: expected a label of 0\.\.3 .* found -1"),
        ((rasters(3), np.array([0.0, 1.0, 2.0])), "one whole number per sample"),
        ((rasters(3), None), "expected a label for each sample"),
        ((np.zeros((3, 5, 2, 6, 5)), labels(3)), "expected a frame of shape"),
        ((random_recordings(np.random.default_rng(0), (6, 5), 2), labels(2)), "input of 2x5x6, found events of .* 6x5"),
        (([Events([], [], [], [], (5, 6))], labels(1)), "recording with events"),  # type: ignore[arg-type]
        ({"input": rasters()}, "a mapping of several"),
        ("digits", "found str"),
        (3, "found int"),
        ([(3, 1)], "sample 0: expected a recording"),
        ([(recordings(1)[0], 0), (rasters(1)[0], 0)], "found both in one batch"),
        (Batches([(rasters(3), labels(2))]), "3 samples of a batch, found 2"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_what_was_expected(data: Any, match: str) -> None:
    with pytest.raises(InferenceError, match=match):
        evaluate(PREDICTOR, data, metrics=LOGITS, settings=InferenceSettings(n_steps=60))


def test_events_that_are_none_never_get_that_far() -> None:
    for bad in ({"p": [2]}, {"x": [6]}, {"t_us": [-1]}):
        columns: Any = {"x": [0], "y": [0], "p": [0], "t_us": [0], **bad}
        with pytest.raises(ValueError, match="Try"):
            Events(**columns, sensor_size=(5, 6))


def test_times_in_other_units_are_not_run_for_hours() -> None:
    (one,) = recordings(1)
    slow = Events(one.x, one.y, one.p, one.t_us * 10**9, one.sensor_size)
    with pytest.raises(InferenceError, match=r"hours in steps of 1000 us. Try times in microseconds"):
        predict(PREDICTOR, [slow])
    assert len(predict(PREDICTOR, [slow], settings=InferenceSettings(n_steps=3)).outputs["total"]) == 1
