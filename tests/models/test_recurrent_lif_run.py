"""The recurrent LIF classifier as a user has it: trained, evaluated, streamed, kept in a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.models.data import EventDataset
from spikeport.models.errors import DataError, InferenceError, TensorFileError, TrainingError
from spikeport.models.events import Events
from spikeport.models.infer import evaluate
from spikeport.models.lif_predictor import LifPredictor, load_lif
from spikeport.models.lif_training import LifTrainSettings, classify_recordings, train_lif
from spikeport.models.poker import POKER_SIZE, SUITS, poker
from spikeport.models.predictor import Predictor, Response, RunOptions
from spikeport.models.recurrent_lif import RecurrentLif
from spikeport.models.sources import Pieces
from spikeport.models.splits import split_by_class
from spikeport.models.stream import Decision, StreamSettings, stream
from spikeport.models.symbols import symbols
from spikeport.models.tensorfile import pack
from spikeport.models.train import TrainSettings, train

from ..shared import SHARED, needs  # noqa: TID252

SIZE = (3, 4)
TWO = LifTrainSettings(epochs=2)


def make(seed: int = 0, channels: int = 2) -> LifPredictor:
    torch.manual_seed(seed)
    return LifPredictor(RecurrentLif(channels * SIZE[0] * SIZE[1], 9, 3, v_th=0.1), (channels, *SIZE))


def single(t_us: int, size: tuple[int, int] = SIZE) -> Events:
    at = np.zeros(1, np.int64)
    return Events(at, at, at, at + t_us, size)


def recording(seed: int, n: int = 80, length_us: int = 20_000) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        rng.integers(0, SIZE[1], n),
        rng.integers(0, SIZE[0], n),
        rng.integers(0, 2, n),
        np.sort(rng.integers(0, length_us, n)),
        SIZE,
    )


def fed(predictor: LifPredictor, recordings: list[Events], bounds: list[int]) -> list[Response]:
    """Feed recordings in pieces that end at ``bounds``, half of the time through a saved state into a fresh run."""
    run, start, found = predictor.start(RunOptions(record=("lif",))), 0, []
    for index, stop in enumerate(bounds):
        found.append(run.feed([events.window(start, stop) for events in recordings], stop))
        start = stop
        if index % 2:
            state = run.state()
            run = predictor.start(RunOptions(record=("lif",)))
            run.restore(state)
    return [*found, run.finish()]


def whole(found: list[Response], name: str) -> NDArray[Any]:
    return np.concatenate([one.outputs["output"] if name == "outputs" else one.recorded["lif"] for one in found])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 21_000), max_size=8), st.integers(0, 99), st.sampled_from([1, 2]))
def test_any_pieces_and_a_restored_state_give_the_same_bits(bounds: list[int], seed: int, channels: int) -> None:
    predictor, recordings = make(seed, channels), [recording(seed + k) for k in range(3)]
    once = fed(predictor, recordings, [21_000])
    pieces = fed(predictor, recordings, [*sorted(bounds), 21_000])
    assert len(whole(once, "outputs")) == 21
    for name in ("outputs", "recorded"):
        np.testing.assert_array_equal(whole(once, name), whole(pieces, name))
    for layer in ("lif", "readout"):
        total = [sum(one.synops[layer] for one in found if one.synops) for found in (once, pieces)]
        np.testing.assert_array_equal(total[0], total[1])
    spikes = whole(once, "recorded").sum(axis=(0, 2))
    np.testing.assert_array_equal(sum(one.spikes["lif"] for one in pieces), spikes)
    np.testing.assert_array_equal(sum(one.synops["readout"] for one in pieces if one.synops), spikes * 3)


def test_a_raster_is_run_as_its_events_are() -> None:
    predictor, events = make(), recording(1)
    run = predictor.start(RunOptions())
    raster = events.to_raster(1000, n_bins=20)[:, None]
    found = np.concatenate(
        [run.feed(raster[:7], 7000).outputs["output"], run.feed(raster[7:], 20_000).outputs["output"]]
    )
    np.testing.assert_allclose(found, whole(fed(predictor, [events], [20_000]), "outputs"), atol=1e-5)


def test_finishing_without_an_open_step_changes_nothing() -> None:
    predictor = make()
    raster = np.stack([recording(k).to_raster(1000, n_bins=20) for k in range(3)], axis=1)
    found = []
    for finishes in (False, True):
        run = predictor.start(RunOptions())
        if finishes:
            assert run.finish().n_steps == 0
        run.feed(raster[:9], 9000)
        if finishes:
            assert run.finish().outputs["output"].shape == (0, 3, 3)
        found.append(run.feed(raster[9:], 20_000).outputs["output"])
    np.testing.assert_array_equal(found[0], found[1])


def test_synops_are_the_events_and_spikes_times_their_targets() -> None:
    predictor, events = make(), recording(1)
    response = predictor.start(RunOptions(record=("lif",))).feed([events], 20_000)
    spikes = response.recorded["lif"].sum(axis=(1, 2))
    assert response.synops["lif"][0] == len(events) * 9 + spikes[:-1].sum() * 8
    assert spikes.sum() > 0


def test_a_pause_takes_no_memory_of_its_own() -> None:
    predictor = make()
    late = single(30_000_000)
    found = predictor.start(RunOptions()).feed([late], 30_001_000)
    assert found.n_steps == 30_001
    with pytest.raises(InferenceError, match=r"at most 16777216 at once.*Try"):
        predictor.start(RunOptions()).feed([late], 30_000_000_000_000)


def test_reset_and_smaller_batches() -> None:
    predictor, events = make(), recording(1)
    run = predictor.start(RunOptions(profile=True))
    first = run.feed([events, events], 20_000)
    assert first.profile
    run.reset()
    np.testing.assert_array_equal(run.feed([events, events], 20_000).outputs["output"], first.outputs["output"])
    run.reset(state=False)
    run.feed([events], 20_000)
    run.reset(state=False)
    with pytest.raises(InferenceError, match="at most 1 recordings"):
        run.feed([events, events], 20_000)
    late = predictor.start(RunOptions())
    late.feed([events], 20_000)
    with pytest.raises(InferenceError, match="where the last step ended"):
        late.feed([events], 40_000)


def test_it_is_evaluated_and_streamed_like_any_predictor() -> None:
    predictor = make()
    assert isinstance(predictor, Predictor)
    recordings = tuple(recording(k, length_us=5_000 * (1 + k % 3)) for k in range(9))
    truth = classify_recordings(
        predictor.module, EventDataset(recordings, np.zeros(9, np.int64), ("a", "b", "c"), "n", "s")
    )
    data = EventDataset(recordings, truth, ("a", "b", "c"), "nine", "random")
    assert evaluate(predictor, data, metrics=["accuracy", "spikes", "synops"])["accuracy"] == 1.0
    decisions: list[Decision] = []
    parts = [recordings[2].window(start, start + 700) for start in range(0, 15_400, 700)]
    stream(
        predictor,
        Pieces(parts),
        settings=StreamSettings(every_us=5_000, readout="maximum"),
        on_decision=decisions.append,
    )
    assert len(decisions) == 3
    moved = recordings[2].from_zero().to_raster(1000)  # the clock of a stream starts with its first event
    for decision, n_steps in zip(decisions, (5, 10, len(moved)), strict=True):
        with torch.no_grad():
            expected = predictor.module(torch.from_numpy(moved[:n_steps])[:, None].float()).exp()
        np.testing.assert_allclose(decision.confidence, expected[0], atol=1e-5)


def test_a_file_gives_the_same_predictor_back(tmp_path: Path) -> None:
    predictor = dataclasses.replace(make(), classes=("a", "b", "c"))
    path, events = tmp_path / "lif.safetensors", [recording(1)]
    predictor.save(path)
    state = torch.random.get_rng_state()
    loaded = load_lif(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (loaded.classes, loaded.input_shape) == (predictor.classes, predictor.input_shape)
    assert loaded.fingerprint() == predictor.fingerprint() != make(1).fingerprint()
    np.testing.assert_array_equal(
        whole(fed(loaded, events, [20_000]), "outputs"), whole(fed(predictor, events, [20_000]), "outputs")
    )


@pytest.mark.parametrize("damage", ["shape", "dtype", "nan", "config", "tau", "classes", "missing", "kind", "cut"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    predictor = make()
    tensors = {name: tensor.numpy().copy() for name, tensor in predictor.module.state_dict().items()}
    header: dict[str, Any] = {"config": dataclasses.asdict(predictor.module.config), "input_shape": [2, *SIZE]}
    if damage == "shape":
        tensors["input_weight"] = tensors["input_weight"][:, :-1]
    elif damage == "dtype":
        tensors["input_weight"] = tensors["input_weight"].astype(np.int64)
    elif damage == "nan":
        tensors["readout_weight"][0, 0] = np.nan
    elif damage == "config":
        del header["config"]["alpha"]
    elif damage == "tau":
        header["config"]["tau_mem_s"] = "slow"
    elif damage == "classes":
        header["classes"] = ["only one"]
    elif damage == "missing":
        del tensors["readout_weight"]
    data = pack(tensors, header, kind="net" if damage == "kind" else "recurrent lif", version=1)
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data[:-9] if damage == "cut" else data)
    with pytest.raises(TensorFileError, match=r"bad.safetensors.*Try"):
        load_lif(path)


def test_a_state_of_another_predictor_is_refused() -> None:
    run = make().start(RunOptions())
    run.feed([recording(1)], 20_000)
    state = run.state()
    with pytest.raises(InferenceError, match="widths"):
        make().start(RunOptions()).restore({**state, "v": state["v"][:, :-1]})
    with pytest.raises(InferenceError, match="widths"):
        make().start(RunOptions()).restore({key: value for key, value in state.items() if key != "out_i"})


def test_a_predictor_that_does_not_fit_its_module_is_refused() -> None:
    module = make().module
    for change in ({"input_shape": (2, 3, 3)}, {"input_shape": (24,)}, {"classes": ("a",)}):
        with pytest.raises(InferenceError, match="Try the shape it was trained for"):
            dataclasses.replace(make(), **change)
    with pytest.raises(InferenceError, match="whole microseconds"):
        LifPredictor(RecurrentLif(24, 3, 3, dt_s=1.5e-6), (2, *SIZE))
    with pytest.raises(InferenceError, match="sensor"):
        LifPredictor(module, (2, *SIZE)).start(RunOptions()).feed([single(0, (9, 9))], 1000)


# training


def test_it_learns_the_symbols_and_the_same_way_each_time() -> None:
    dataset = symbols(32)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        module = RecurrentLif(2 * POKER_SIZE[0] * POKER_SIZE[1], 40, len(SUITS))
        result = train_lif(module, dataset, settings=LifTrainSettings(epochs=12, batch_size=8))
        found.append((result.history, module.state_dict()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])
    losses = [loss for loss, _ in result.history]
    assert losses[-1] < 0.3 * losses[0]
    assert (classify_recordings(module, dataset) == dataset.labels).mean() >= 0.9


def test_the_one_training_loop_trains_it_too() -> None:
    dataset, found = symbols(8), []
    for is_own in (True, False):
        torch.manual_seed(0)
        module = RecurrentLif(2450, 8, 4)
        result = train_lif(module, dataset, settings=TWO) if is_own else train(module, dataset, epochs=2)
        found.append(result.history)
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_validation_chooses_the_best_epoch() -> None:
    dataset = symbols(12)
    module = RecurrentLif(2450, 8, 4)
    result = train_lif(module, dataset, settings=LifTrainSettings(epochs=3, validation_share=0.25))
    assert (result.n_train, result.n_validation) == (9, 3)
    assert result.best_accuracy == max(right for _, right in result.history)


def test_training_refuses_what_it_cannot_learn_from() -> None:
    dataset, module = symbols(4), RecurrentLif(2450, 4, 4)
    unlabeled = dataclasses.replace(dataset, labels=np.full(4, -1))
    silent = symbols(1).recordings[0].window(0, 0)
    empty = dataclasses.replace(dataset, recordings=(*dataset.recordings[:3], silent))
    for data, net in ((unlabeled, module), (empty, module), (dataset, RecurrentLif(9, 4, 4))):
        with pytest.raises(TrainingError, match="Try symbols"):
            train(net, data)
    with pytest.raises(TrainingError, match="at most 2 classes"):
        train(RecurrentLif(2450, 4, 2), dataset)
    with pytest.raises(TrainingError, match="expected none for a model of time steps"):
        train(module, dataset, settings=TrainSettings())
    with pytest.raises(TrainingError, match=r"epochs: 0.*learning_rate"):
        LifTrainSettings(epochs=0, learning_rate=2.0)


# data


def test_symbols_do_not_depend_on_how_many_there_are() -> None:
    few, more = symbols(3, seed=2), symbols(5, seed=2)
    assert all(one.same(other) for one, other in zip(few.recordings, more.recordings, strict=False))
    assert not few.recordings[0].same(symbols(1, seed=3).recordings[0])
    with pytest.raises(DataError, match="Try"):
        symbols(0)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.data())
def test_a_split_keeps_each_recording_and_the_share_of_each_class(n: int, data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    n_test = data.draw(st.integers(1, n - 1))
    marks = tuple(single(index) for index in range(n))
    parts = split_by_class(EventDataset(marks, labels, SUITS, "n", "s"), n_test)
    assert len(parts[1]) == n_test
    assert sorted(int(one.t_us[0]) for part in parts for one in part.recordings) == list(range(n))
    for label in range(4):
        assert abs((parts[1].labels == label).sum() - (labels == label).sum() * n_test / n) < 1
    with pytest.raises(DataError, match="Try"):
        split_by_class(parts[0], len(parts[0]))


@pytest.mark.slow
@pytest.mark.timeout(300)
@needs("poker_dvs")
def test_three_of_five_seeds_know_at_least_96_percent_of_held_out_cards() -> None:
    train_set, test_set = split_by_class(poker(SHARED / "poker_dvs" / "pips_dat.zip"), 29)
    found = {}
    for seed in range(5):
        torch.manual_seed(seed)
        module = RecurrentLif(2450, 100, len(SUITS))
        train(module, train_set, epochs=20)
        found[seed] = evaluate(LifPredictor(module, (2, *POKER_SIZE)), test_set)["accuracy"]
    print(json.dumps(found))
    assert sum(share >= 0.96 for share in found.values()) >= 3
