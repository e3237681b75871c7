"""The event state-space model online: chunks, state, bad input, as a predictor, its file, flax checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.convert.capture import capture
from spikeport.convert.errors import UnsupportedLayerError
from spikeport.models.data import EventDataset
from spikeport.models.errors import InferenceError, TensorFileError, WeightsFileError
from spikeport.models.event_ssm import EventSSM, SsmConfig, config
from spikeport.models.events import Events
from spikeport.models.infer import evaluate, predict
from spikeport.models.predictor import RunOptions
from spikeport.models.sources import Pieces
from spikeport.models.ssm.checkpoint import load_flax_checkpoint
from spikeport.models.ssm.engine import OnlineEngine
from spikeport.models.ssm.predictor import SsmPredictor, load_ssm
from spikeport.models.ssm.tokens import sequence_of
from spikeport.models.stream import Decision, StreamSettings, stream
from spikeport.models.tensorfile import pack, unpack
from spikeport.models.window import no_events

SETTINGS = SsmConfig(
    vocabulary=40, classes=3, sensor_size=(4, 5), d_model=6, d_ssm=8, block_size=4, n_layers=2, stride=4, expansion=2
)


def recording(n: int, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    t_us = np.cumsum((200e3 * rng.random(n) ** 6).astype(np.int64))
    return Events(rng.integers(0, 5, n), rng.integers(0, 4, n), rng.integers(0, 2, n), t_us, (4, 5))


@pytest.fixture(scope="module")
def engine() -> OnlineEngine:
    return EventSSM(SETTINGS).online()


def chunks(engine: OnlineEngine, tokens: NDArray[Any], intervals_us: NDArray[Any], size: int) -> list[NDArray[Any]]:
    engine.reset()
    return [engine.feed(tokens[k : k + size], intervals_us[k : k + size]) for k in range(0, len(tokens), size)]


def test_gaps_of_any_length_decay_as_they_should(engine: OnlineEngine) -> None:
    tokens = np.arange(32) % 40
    for gap_us in (0, 1, 255, 256, 65_535, 65_536, 16_777_215, 16_777_216, 1 << 35):
        intervals_us = np.where(np.arange(32) == 20, gap_us, 100)
        with torch.no_grad():
            exact = EventSSM(SETTINGS).double()(
                torch.from_numpy(tokens)[:, None], torch.from_numpy(intervals_us * 1e-3)[:, None]
            )
        assert chunks(engine, tokens, intervals_us, 32)[-1] == pytest.approx(exact[0].numpy(), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=8), st.integers(0, 1000))
def test_chunks_do_not_show_and_a_state_goes_on_bit_for_bit(sizes: list[int], seed: int) -> None:
    one = EventSSM(SETTINGS).online()
    tokens, intervals_us = sequence_of(recording(sum(sizes) + 1, seed), SETTINGS)
    whole = one.feed(tokens, intervals_us).copy()
    n_rows = one.n_rows
    other = one.fresh()
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        found = other.feed(tokens[part], intervals_us[part])
        kept = other.state()
        other = one.fresh()
        other.restore(kept)
        start += size
    assert np.array_equal(found, whole)
    assert other.n_rows == n_rows == len(tokens) // SETTINGS.downsampling


def test_reset_makes_each_chunk_a_recording_of_its_own(engine: OnlineEngine) -> None:
    tokens, intervals_us = sequence_of(recording(97), SETTINGS)
    alone = EventSSM(SETTINGS).online("reset")
    found = chunks(alone, tokens, intervals_us, 32)
    carried = chunks(engine, tokens, intervals_us, 32)
    fresh = [engine.fresh().feed(tokens[k : k + 32], intervals_us[k : k + 32]) for k in range(0, 96, 32)]
    assert np.array_equal(found, fresh)
    assert np.array_equal(found[0], carried[0])
    assert not np.allclose(found[2], carried[2])
    with pytest.raises(InferenceError, match="mode: expected 'carried' or 'reset', found 'fresh'"):
        EventSSM(SETTINGS).online("fresh")  # type: ignore[arg-type]


def test_an_empty_chunk_changes_nothing_and_less_than_a_row_answers_the_bias(engine: OnlineEngine) -> None:
    engine.reset()
    bias = EventSSM(SETTINGS).head.bias.detach().numpy()
    assert np.array_equal(engine.feed([], []), bias)
    assert np.array_equal(engine.feed([3] * 15, [1] * 15), bias)
    assert not np.array_equal(engine.feed([3], [1]), bias)


@pytest.mark.parametrize(
    ("tokens", "intervals_us", "message"),
    [
        ([1, 40], [0, 0], r"tokens\[1\] is 40, expected 0 to 39"),
        (np.array([1, 40]), np.array([0, 0]), r"tokens\[1\] is 40, expected 0 to 39"),
        ([-1], [0], r"tokens\[0\] is -1"),
        ([1.0], [0], "tokens: expected whole numbers"),
        ([[1]], [[0]], "tokens: expected whole numbers"),
        (np.array([1, 1]), np.array([5, -1]), r"intervals_us\[1\] is -1, expected 0 .*does not go backwards"),
        ([1, 1], [5, float("nan")], r"intervals_us\[1\] is nan"),
        ([1], [0.5], "expected whole microseconds, found fractions"),
        ([1], [2.0**50], r"intervals_us\[0\] is 112589990684"),
        ([1, 2], [1], r"expected 2 numbers, one for each token, found int64\[1\]"),
        ([1], ["1"], "expected 1 numbers"),
    ],
)
def test_bad_chunks_are_named_and_change_nothing(
    engine: OnlineEngine, tokens: Any, intervals_us: Any, message: str
) -> None:
    engine.reset()
    engine.feed(np.arange(20), np.arange(20))
    before = engine.state()
    with pytest.raises(InferenceError, match=message):
        engine.feed(tokens, intervals_us)
    assert all(np.array_equal(array, before[name]) for name, array in engine.state().items())


def test_a_state_of_another_model_is_refused_whole(engine: OnlineEngine) -> None:
    own = engine.state()
    other = EventSSM(config("shd/tiny")).online().state()
    for wrong, message in (
        (other, r"'states' float32\[\d+\], found float32\[\d+\]; expected 'counters'"),
        ({}, "'states' .*, found nothing"),
        (own | {"states": own["states"] * np.nan}, "'states' of finite numbers"),
        (own | {"head": own["head"].astype(np.float32)}, "'head' float64"),
        (own | {"counters": own["counters"] + 4}, "open groups of up to"),
    ):
        with pytest.raises(InferenceError, match=message):
            engine.restore(wrong)
    assert all(np.array_equal(array, own[name]) for name, array in engine.state().items())


def test_weights_that_are_not_finite_are_refused() -> None:
    module = EventSSM(SETTINGS)
    with torch.no_grad():
        module.head.bias[0] = torch.nan
    with pytest.raises(InferenceError, match="expected finite weights"):
        module.online()


# as a predictor


@pytest.fixture(scope="module")
def predictor() -> SsmPredictor:
    return SsmPredictor(EventSSM(SETTINGS, seed=4).eval(), ("a", "b", "c"))


def test_evaluate_and_predict_give_the_model_s_answers(predictor: SsmPredictor) -> None:
    recordings = tuple(recording(n, n) for n in (40, 77, 200, 65))
    exact = [predictor.engine.fresh().feed(*sequence_of(one, SETTINGS)) for one in recordings]
    found = predict(predictor, recordings)
    assert np.array_equal(found.outputs["output"], np.array(exact, np.float64))
    labels = np.argmax(exact, axis=1)
    data = EventDataset(recordings, labels, ("a", "b", "c"), "random", "drawn")
    assert evaluate(predictor, data)["accuracy"] == 1.0


def test_a_stream_decides_by_all_so_far_or_by_each_window(predictor: SsmPredictor) -> None:
    events = recording(400, 5)
    pieces = [events.part(0, 33), events.part(33, 34), events.part(34, 400)]
    for mode in ("carried", "reset"):
        decisions: list[Decision] = []
        chosen = dataclasses.replace(predictor, mode=mode)
        found = stream(
            chosen,
            Pieces(pieces),
            settings=StreamSettings(every_us=None, every_events=100),
            on_decision=decisions.append,
        )
        assert found.n_decisions == len(decisions) == 4
        # The event at the end of a window has no interval yet.
        starts = [0] * 4 if mode == "carried" else [0, 100, 200, 300]
        for start, stop, decision in zip(starts, (100, 200, 300, 400), decisions, strict=True):
            logits = predictor.engine.fresh().feed(*sequence_of(events.part(start, stop), SETTINGS)).astype(np.float64)
            assert decision.confidence == pytest.approx(np.exp(logits) / np.exp(logits).sum(), rel=1e-6)


def test_a_run_goes_on_from_its_state_and_starts_over(predictor: SsmPredictor) -> None:
    events = (recording(90, 1), recording(70, 2))
    run = predictor.start(RunOptions())
    run.feed([one.part(0, 41) for one in events], 0)
    kept = run.state()
    last = [one.part(41, 90) for one in events]
    answer = run.feed(last, 0), run.finish()
    other = predictor.start(RunOptions(profile=True))
    other.restore(kept)
    again = other.feed(last, 0), other.finish()
    assert [one.same(two) for one, two in zip(answer, again, strict=True)] == [True, True]
    assert answer[0].n_steps == 0
    assert answer[1].outputs["output"].shape == (1, 2, 3)
    assert again[0].profile["event SSM"] > 0
    assert run.finish().n_steps == 0
    with pytest.raises(InferenceError, match="expected events from"):
        run.feed([one.part(0, 1) for one in events], 0)
    with pytest.raises(InferenceError, match="expected at most 2 recordings"):
        run.feed([*last, last[0]], 0)
    run.reset(time=True, state=False, pending=False)
    run.feed([recording(10)] * 2, 0)
    run.reset()
    fresh = predictor.start(RunOptions())
    assert all(
        one.same(two)
        for one, two in zip((run.feed(events, 0), run.finish()), (fresh.feed(events, 0), fresh.finish()), strict=True)
    )


def test_a_predictor_refuses_what_it_cannot_read(predictor: SsmPredictor) -> None:
    run = predictor.start(RunOptions())
    with pytest.raises(InferenceError, match="expected events, each with a time of its own, found a raster"):
        run.feed(np.zeros((3, 1, 2, 4, 5)), 3)
    with pytest.raises(InferenceError, match="expected an input of 2x4x5"):
        run.feed([no_events((9, 9))], 0)
    with pytest.raises(InferenceError, match="expected 3 names of classes, found 1"):
        SsmPredictor(predictor.module, ("a",))
    for waiting, message in (
        (np.zeros((1, 2), np.int64), "'waiting' int64"),
        (np.array([[99, 0, 0]]), "tokens below 40"),
    ):
        with pytest.raises(InferenceError, match=message):
            run.restore({"waiting": waiting})
    with pytest.raises(UnsupportedLayerError, match="EventSSM has no spiking counterpart on the chip: its states"):
        capture(predictor.module, (2, 4, 5))


def test_a_file_holds_everything(predictor: SsmPredictor, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    predictor.save(path)
    found = load_ssm(path)
    assert found.fingerprint() == predictor.fingerprint()
    assert found.module.config == SETTINGS
    assert found.classes == predictor.classes
    events = sequence_of(recording(50), SETTINGS)
    assert np.array_equal(found.engine.fresh().feed(*events), predictor.engine.fresh().feed(*events))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, _: header["config"].pop("stride"), "config: expected"),
        (lambda header, _: header["config"].update(classes=4), "'head.weight': expected float32"),
        (lambda header, _: header["config"].update(pooling="max"), "pooling: expected one of"),
        (lambda header, _: header["config"].update(vocabulary=1 << 40), "expected sizes of a model"),
        (lambda header, _: header.update(mode="other"), "mode: expected"),
        (lambda _, tensors: tensors.pop("head.bias"), "'head.bias' is missing"),
        (lambda _, tensors: tensors.update(more=np.zeros(1)), "'more' belongs to no layer"),
        (lambda _, tensors: tensors.update({"head.bias": np.full(3, np.nan, np.float32)}), "'head.bias' holds NaN"),
        (lambda _, tensors: tensors.update({"head.bias": np.zeros(3)}), "found float64"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(
    predictor: SsmPredictor, tmp_path: Path, change: Any, message: str
) -> None:
    path = tmp_path / "model.safetensors"
    predictor.save(path)
    header, tensors = unpack(path, kind="event ssm", versions=(1,))
    change(header, tensors)
    path.write_bytes(pack(tensors, header, kind="event ssm", version=1))
    with pytest.raises(TensorFileError, match=message):
        load_ssm(path)


# checkpoints of the original


def flax_tree(module: EventSSM) -> dict[str, Any]:
    """Return a module's tensors as the original's training state names them."""
    w = {name: value.numpy() for name, value in module.state_dict().items()}
    encoder: dict[str, Any] = {"encoder": {"embedding": w["embedding.weight"]}}
    stats: dict[str, Any] = {}
    norm = "BatchNorm_0" if module.config.norm == "batch" else "LayerNorm_0"
    for stage, shapes in enumerate(module.config.shapes):
        layers: dict[str, Any] = {}
        for index, shape in enumerate(shapes):
            at = f"stages.{stage}.{index}"
            names = {"Lambda_re": "lambda_re", "Lambda_im": "lambda_im", "B": "b", "C": "c", "D": "d"}
            ssm = {there: w[f"{at}.ssm.{here}"] for there, here in names.items()}
            ssm["log_step"] = w[f"{at}.ssm.log_step"][:, None]
            layer = {norm: {"scale": w[f"{at}.norm.weight"], "bias": w[f"{at}.norm.bias"]}, "S5SSM_0": ssm}
            layer["Dense_0"] = {"kernel": w[f"{at}.gate.weight"].T, "bias": w[f"{at}.gate.bias"]}
            if shape.n_in != shape.n_out:
                layer["Dense_1"] = {"kernel": w[f"{at}.skip.weight"].T, "bias": w[f"{at}.skip.bias"]}
            layers[f"SequenceLayer_{index}"] = layer
            if norm == "BatchNorm_0":
                own = {"mean": w[f"{at}.norm.running_mean"], "var": w[f"{at}.norm.running_var"]}
                stats.setdefault("encoder", {}).setdefault(f"stages_{stage}", {})[f"SequenceLayer_{index}"] = {
                    norm: own
                }
        encoder[f"stages_{stage}"] = layers
    params = {"encoder": encoder, "decoder": {"kernel": w["head.weight"].T, "bias": w["head.bias"]}}
    key, moments = np.zeros(2, np.uint32), {"0": {"count": np.int32(3)}}
    return {"step": 3, "params": params, "opt_state": moments, "key": key, "model_state": {"batch_stats": stats}}


def write_flax(tree: dict[str, Any], path: Path) -> None:
    """Write a tree as flax does: each array an extension of type 1 that holds shape, dtype and bytes."""
    msgpack = pytest.importorskip("msgpack")

    def extension(value: Any) -> Any:
        array = np.asarray(value)
        content = msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
        return msgpack.ExtType(1 if isinstance(value, np.ndarray) else 3, content)

    path.write_bytes(msgpack.packb(tree, default=extension, strict_types=True))


@pytest.mark.parametrize("changes", [{}, {"norm": "batch", "conj_sym": True}], ids=str)
def test_a_checkpoint_of_the_original_gives_its_weights(changes: dict[str, Any], tmp_path: Path) -> None:
    trained = EventSSM(dataclasses.replace(SETTINGS, **changes), seed=7)
    with torch.no_grad():
        for value in trained.state_dict().values():
            value.mul_(1.25)
    write_flax(flax_tree(EventSSM(trained.config)), tmp_path / "checkpoint_5")
    write_flax(flax_tree(trained), tmp_path / "checkpoint_12")
    module = EventSSM(trained.config)
    load_flax_checkpoint(module, tmp_path)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in module.state_dict().items())


def test_checkpoints_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path) -> None:
    module = EventSSM(SETTINGS)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    path = tmp_path / "checkpoint_1"

    def refused(change: Any, message: str) -> None:
        tree = flax_tree(EventSSM(SETTINGS))
        replaced = change(tree)
        write_flax(tree if replaced is None else replaced, path)
        with pytest.raises(WeightsFileError, match=message):
            load_flax_checkpoint(module, path)

    def set_bias(value: Any) -> Any:
        return lambda tree: tree["params"]["decoder"].update(bias=value)

    refused(set_bias(np.zeros(4, np.float32)), r"'head.bias': expected float32\[3\], found float32\[4\]")
    refused(set_bias(np.zeros(3)), "'decoder/bias': expected float32, found float64")
    refused(set_bias(5), "'decoder/bias': expected float32, found int")
    refused(set_bias(np.full(3, np.inf, np.float32)), "'head.bias' holds NaN or infinity")
    refused(
        lambda tree: tree["params"].pop("decoder") and None, "'decoder/kernel' is missing; 'decoder/bias' is missing"
    )
    refused(lambda tree: tree["params"].update(more=np.zeros(1)), "'more' belongs to no layer")
    refused(lambda tree: {"step": tree["step"]}, "expected a flax checkpoint with 'params', found step")
    refused(lambda tree: flax_tree(EventSSM(dataclasses.replace(SETTINGS, norm="batch"))), "LayerNorm_0.*20 further")
    whole = path.read_bytes()
    for content, message in (
        (whole[:100], "damaged or foreign"),
        (b"\x93\x01\x02\x03", "found a message of list"),
        (b"\xc7\x03\x01\xff\xff\xff", "damaged or foreign"),
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsFileError, match=message):
            load_flax_checkpoint(module, path)
    with pytest.raises(WeightsFileError, match="found nothing there"):
        load_flax_checkpoint(module, tmp_path / "nowhere")
    path.unlink()
    (tmp_path / "checkpoint_3").mkdir()
    with pytest.raises(WeightsFileError, match="found Orbax's folders"):
        load_flax_checkpoint(module, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_without_msgpack_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    with pytest.raises(WeightsFileError, match=r"pip install 'spikeport\[flax\]'"):
        load_flax_checkpoint(EventSSM(SETTINGS), tmp_path / "checkpoint_1")
