"""The event state-space model: a slow reference, cases worked out by hand, shapes, padding, bad input."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.models.errors import InferenceError, ModelNameError
from spikeport.models.event_ssm import EventSSM, SsmConfig, config
from spikeport.models.events import Events
from spikeport.models.ssm.hippo import legs_block
from spikeport.models.ssm.scan import linear_scan
from spikeport.models.ssm.tokens import batch_of, sequence_of, tokens_of

SMALL: dict[str, Any] = {
    "vocabulary": 40,
    "classes": 3,
    "sensor_size": (4, 5),
    "d_model": 6,
    "d_ssm": 8,
    "block_size": 4,
    "n_stages": 2,
    "n_layers": 2,
    "stride": 4,
    "expansion": 2,
}


def perturbed(settings: SsmConfig, seed: int = 0) -> EventSSM:
    """Return a model of which every parameter matters."""
    module = EventSSM(settings, seed=seed).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            noise = torch.from_numpy(rng.normal(0, 0.2, tuple(value.shape)).astype(np.float32))
            value.add_(noise.abs() if name.endswith("running_var") else noise)
        for name, value in module.named_parameters():
            if name.endswith("lambda_re"):
                value.copy_(-value.abs() - 0.05)
    return module


def reference(module: EventSSM, tokens: NDArray[np.int64], intervals_ms: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logits of one sequence, event by event in float64, from the model's description alone."""
    own = {name: value.detach().double().numpy() for name, value in module.state_dict().items()}
    c = module.config
    rows = [own["embedding.weight"][token] for token in tokens]
    times = list(map(float, intervals_ms))
    for stage, layer in itertools.product(range(c.n_stages), range(c.n_layers)):
        w = {key.split(".", 3)[-1]: value for key, value in own.items() if key.startswith(f"stages.{stage}.{layer}.")}
        rows, times = layer_reference(w, c, c.stride if layer == 0 else 1, rows, times)
    width = own["head.weight"].shape[1]
    weights = [t + 1e-6 if c.head == "timepool" else 1.0 for t in times]
    if not rows:
        pooled = np.zeros(width)
    elif c.head == "last":
        pooled = rows[-1]
    else:
        pooled = sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights)
    return np.asarray(own["head.weight"] @ pooled + own["head.bias"])


def layer_reference(w: dict[str, Any], c: SsmConfig, stride: int, rows: list[Any], times: list[float]) -> Any:
    eigenvalue = (np.minimum(w["ssm.lambda_re"], -1e-4) if c.clip_eigs else w["ssm.lambda_re"]) + 1j * w[
        "ssm.lambda_im"
    ]
    tau = c.step_rescale * np.exp(w["ssm.log_step"])
    b, out_matrix = (w[f"ssm.{name}"][..., 0] + 1j * w[f"ssm.{name}"][..., 1] for name in "bc")

    def norm(x: Any) -> Any:
        if c.norm == "batch":
            return (x - w["norm.running_mean"]) / np.sqrt(w["norm.running_var"] + 1e-5) * w["norm.weight"] + w[
                "norm.bias"
            ]
        return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * w["norm.weight"] + w["norm.bias"]

    def pooled(group: list[Any], spans: list[float]) -> Any:
        if c.pooling == "last" or stride == 1:
            return group[0]
        if c.pooling == "avgpool":
            return sum(group) / stride
        return sum((d + 1e-6) * x for x, d in zip(group, spans, strict=True)) / sum(d + 1e-6 for d in spans)

    h: Any = np.zeros(len(eigenvalue), complex)
    kept, found, spans = [], [], []
    inputs = [norm(x) if c.prenorm else x for x in rows]
    for k, (u, d) in enumerate(zip(inputs, times, strict=True)):
        gain: Any = {"async": tau, "zoh": tau * d}.get(c.discretization)
        h = np.exp(eigenvalue * tau * d) * h + (1.0 if gain is None else np.expm1(eigenvalue * gain) / eigenvalue) * (
            b @ u
        )
        if k % stride == 0:
            kept.append(h)
    for group in range(len(rows) // stride):
        part = slice(group * stride, (group + 1) * stride)
        u, skip = pooled(inputs[part], times[part]), pooled(rows[part], times[part])
        through = w["ssm.d"] @ u if w["ssm.d"].ndim == 2 else w["ssm.d"] * u
        y = (2 if c.conj_sym else 1) * (out_matrix @ kept[group]).real + through
        bent = 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        gated = y / (1 + np.exp(-(w["gate.weight"] @ bent + w["gate.bias"])))
        row = gated + (w["skip.weight"] @ skip + w["skip.bias"] if "skip.weight" in w else skip)
        found.append(row if c.prenorm else norm(row))
        spans.append(sum(times[part]))
    return found, spans


VARIANTS = [
    {},
    {"discretization": "zoh", "pooling": "avgpool", "head": "pool"},
    {"discretization": "dirac", "pooling": "last", "head": "last", "clip_eigs": True},
    {"conj_sym": True, "norm": "batch", "pooling": "avgpool", "head": "pool"},
    {"prenorm": False, "expansion": 1, "step_rescale": 0.5},
    {"prenorm": False, "norm": "batch", "discretization": "zoh", "conj_sym": True},
    {"stride": 1, "n_stages": 1, "head": "timepool"},
    {"n_stages": 3, "stride": 2, "d_model": 16, "d_ssm": 16},
]


def sequences(rng: np.random.Generator, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens and intervals in microseconds, from none at all to a quarter of a second."""
    return rng.integers(0, 40, n), np.where(rng.random(n) < 0.2, 0, (250e3 * rng.random(n) ** 4).astype(np.int64))


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_training_form_and_online_engine_equal_a_slow_reference(changes: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    module = perturbed(SsmConfig(**{**SMALL, **changes}))
    tokens, intervals_us = sequences(rng, 150)
    expected = reference(module, tokens, intervals_us * 1e-3)
    scale = np.abs(expected).max()
    with torch.no_grad():
        whole = module(torch.from_numpy(tokens)[:, None], torch.from_numpy(intervals_us * 1e-3)[:, None])[0]
        exact = module.double()(torch.from_numpy(tokens)[:, None], torch.from_numpy(intervals_us * 1e-3)[:, None])[0]
    assert np.abs(exact.numpy() - expected).max() <= 1e-9 * scale
    assert np.abs(whole.numpy() - expected).max() <= 1e-4 * scale
    engine = module.float().online()
    answers = []
    for chunks in (1, 16, 256, None, len(tokens)):
        engine.reset()
        cuts = np.sort(rng.integers(0, len(tokens), 9)) if chunks is None else np.arange(chunks, len(tokens), chunks)
        for part in zip(np.split(tokens, cuts), np.split(intervals_us, cuts), strict=True):
            found = engine.feed(*part)
        answers.append(found)
        assert np.abs(found - expected).max() <= 1e-4 * scale
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def by_hand(**changes: Any) -> EventSSM:
    """Return one layer of one state that halves in a millisecond; norm, C and head leave what they get as it is."""
    small = {**SMALL, "d_model": 1, "d_ssm": 1, "block_size": 1, "n_stages": 1, "n_layers": 1, "expansion": 1}
    module = EventSSM(SsmConfig(**{**small, "classes": 1, "norm": "batch", "head": "last", **changes})).eval()
    layer = module.stages[0][0]  # type: ignore[index]
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
        module.embedding.weight[:4, 0] = torch.arange(4.0)
        layer.norm.weight.fill_(1)
        layer.norm.running_var.fill_(1 - 1e-5)
        layer.ssm.lambda_re.fill_(-math.log(2))
        layer.ssm.b[..., 0] = layer.ssm.c[..., 0] = 1
        module.head.weight.fill_(1)
    return module


def both(module: EventSSM, tokens: list[int], intervals_ms: list[int]) -> list[float]:
    """Return the answers of the training form and of the engine."""
    with torch.no_grad():
        form = module(torch.tensor(tokens)[:, None], torch.tensor(intervals_ms, dtype=torch.float32)[:, None])
    return [float(form), float(module.online().feed(tokens, 1000 * np.array(intervals_ms))[0])]


@pytest.mark.parametrize(
    ("discretization", "state"),
    [  # events of 1 and 3; in the 2 ms before the second the state falls to a quarter; the gate is a half
        ("dirac", 1 / 4 + 3),
        ("async", (1 / 4 + 3) * 0.5 / math.log(2)),  # (1/2 - 1) / -ln 2
        ("zoh", (1 / 4 * 0.5 + 3 * 0.75) / math.log(2)),  # (1/2 - 1) and (1/4 - 1) over -ln 2
    ],
)
def test_one_layer_by_hand_for_each_discretization(discretization: str, state: float) -> None:
    found = both(by_hand(discretization=discretization, stride=1), [1, 3], [1, 2])
    assert found == pytest.approx([state / 2 + 3] * 2, rel=1e-6)  # the skip adds the last input


@pytest.mark.parametrize(("pooling", "mean"), [("last", 1), ("avgpool", 2), ("timepool", (1 * 1 + 3 * 4) / 5)])
def test_one_layer_by_hand_for_each_pooling_mode(pooling: str, mean: float) -> None:
    module = by_hand(discretization="dirac", stride=2, pooling=pooling)
    with torch.no_grad():
        module.stages[0][0].ssm.d.fill_(1)  # type: ignore[index]
    # The kept state is the one behind the first event: 1. With D = 1 comes the mean, and the skip adds it once more.
    assert both(module, [1, 3], [1, 4]) == pytest.approx([(1 + mean) / 2 + mean] * 2, rel=1e-5)


def test_a_group_keeps_the_state_behind_its_first_event_and_hands_on_what_came_later() -> None:
    module = by_hand(discretization="dirac", stride=2, pooling="last")
    # Second group: 1 halved twice, 3 halved once, and 2 itself.
    assert both(module, [1, 3, 2, 3], [9, 1, 1, 1]) == pytest.approx([(1 / 4 + 3 / 2 + 2) / 2 + 2] * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "n"), [("dvs/small", 5_433_482), ("shd/tiny", 19_892), ("shd/medium", 423_956), ("ssc/medium", 598_115)]
)
def test_named_configs_have_their_parameter_counts(name: str, n: int) -> None:
    module = EventSSM(config(name, classes=10) if name == "dvs/small" else config(name))
    assert sum(parameter.numel() for parameter in module.parameters()) == n


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 70), st.integers(0, 10_000))
def test_the_scan_is_the_recurrence(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(0, 0.7, (n, 3)) + 1j * rng.normal(0, 0.7, (n, 3)) for _ in range(2))
    h, rows = np.zeros(3, complex), []
    for k in range(n):
        h = a[k] * h + b[k]
        rows.append(h)
    found = linear_scan(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose(found, np.array(rows).reshape(n, 3), rtol=1e-9, atol=1e-9)


def test_the_scan_has_the_right_gradient() -> None:
    made = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, 2, dtype=torch.complex128, generator=made, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(linear_scan, (a, b))


@pytest.mark.parametrize("size", [1, 2, 8, 16])
def test_a_hippo_block_is_its_eigenvalues_and_vectors(size: int) -> None:
    values, vectors = legs_block(size)
    assert np.allclose(values.real, -0.5)
    assert np.allclose(vectors.conj().T @ vectors, np.eye(size))
    legs = np.array(
        [
            [-math.sqrt((2 * n + 1) * (2 * k + 1)) * (n > k) - (n + 1) * (n == k) for k in range(size)]
            for n in range(size)
        ]
    )
    root = np.sqrt(np.arange(size) + 0.5)
    assert np.allclose(vectors @ np.diag(values) @ vectors.conj().T, legs + np.outer(root, root))


@pytest.mark.parametrize(
    "changes", [{}, {"head": "last"}, {"norm": "batch", "head": "pool", "prenorm": False}], ids=str
)
def test_padding_changes_no_answer(changes: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    module = perturbed(SsmConfig(**{**SMALL, **changes}))
    parts = [sequences(rng, n) for n in (16, 50, 77, 3)]
    tokens, intervals_ms, lengths = batch_of(parts)
    with torch.no_grad():
        together = module(*map(torch.from_numpy, (tokens, intervals_ms, lengths))).numpy()
    for row, (own, intervals_us) in zip(together, parts, strict=True):
        assert row == pytest.approx(reference(module, own, intervals_us * 1e-3), rel=1e-4, abs=1e-4)
    assert np.allclose(together[3], module.head.bias.detach())  # three events are less than a row


def test_batch_statistics_leave_padding_out() -> None:
    rng = np.random.default_rng(3)
    short, long = sequences(rng, 16), sequences(rng, 64)
    means = []
    for n_padded in (64, 96):
        module = EventSSM(SsmConfig(**{**SMALL, "norm": "batch"})).train()
        tokens, intervals_ms, lengths = batch_of([short, long])
        wide = np.pad(tokens, ((0, n_padded - 64), (0, 0)), constant_values=-1)
        times = np.pad(intervals_ms, ((0, n_padded - 64), (0, 0)), constant_values=7.0)
        module(torch.from_numpy(wide), torch.from_numpy(times), torch.from_numpy(lengths))
        means.append(module.stages[0][0].norm.running_mean.clone())  # type: ignore[index]
    assert torch.equal(*means)
    assert bool((means[0] != 0).all())


def test_tokens_are_those_of_published_weights_or_of_the_raster() -> None:
    events = Events(np.array([3, 2, 0]), np.array([2, 3, 0]), np.array([0, 0, 1]), np.array([5, 9, 30]), (4, 5))
    product = SsmConfig(**{**SMALL, "tokens": "product"})
    assert tokens_of(events, product).tolist() == [6, 6, 20]  # x * y: different pixels share a row
    assert tokens_of(events, SsmConfig(**SMALL)).tolist() == [13, 17, 20]
    assert tokens_of(events, SsmConfig(**{**SMALL, "tokens": "channel"})).tolist() == [3, 2, 0]
    tokens, intervals_us = sequence_of(events, product)
    assert tokens.tolist() == [6, 6]
    assert intervals_us.tolist() == [4, 21]
    with pytest.raises(InferenceError, match="expected events of a sensor of 128x128, found 4x5"):
        tokens_of(events, config("dvs/small"))


def test_an_unknown_config_or_field_is_named_with_the_nearest() -> None:
    with pytest.raises(
        ModelNameError, match=r"event SSM config 'dvs/smal': expected one of dvs/small.*Try 'dvs/small'"
    ):
        config("dvs/smal")
    with pytest.raises(ModelNameError, match=r"field 'clases': .*Try 'classes'"):
        config("dvs/small", clases=10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": 0, "pooling": "max"},
            "classes: .*found 0; pooling: expected one of last, avgpool, timepool, found",
        ),
        ({"d_ssm": 6}, "d_ssm: expected a multiple of the block size 4, found 6"),
        ({"block_size": 1, "conj_sym": True}, "block_size: expected an even one"),
        ({"dt_min": 1.0}, "expected 0 < dt_min <= dt_max"),
        ({"dropout": 1.0, "step_rescale": math.nan}, "step_rescale: .*; dropout: expected 0 to below 1"),
        ({"vocabulary": 39}, "vocabulary: expected at least 40 for its tokens, found 39"),
        ({"sensor_size": 4}, "sensor_size: expected"),
    ],
)
def test_values_that_make_no_model_are_refused_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InferenceError, match=message):
        SsmConfig(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("tokens", "intervals", "lengths", "message"),
    [
        ([[40]], [[1.0]], None, "tokens of 0 to 39, found 40 to 40"),
        ([[-1]], [[1.0]], None, "tokens of 0 to 39, found -1 to -1"),
        ([[1]], [[-1.0]], None, "finite intervals of 0 or more"),
        ([[41]], [[math.nan]], None, "tokens of .*; finite intervals"),
        ([[1]], [[1.0], [1.0]], None, re.escape("found torch.int64[1, 1] and [2, 1]")),
        ([[1.0]], [[1.0]], None, "expected whole tokens"),
        ([[1]], [[1.0]], [2], "lengths of 0 to 1, found"),
        ([[1]], [[1.0]], [1, 1], "lengths: expected 1 whole numbers"),
    ],
)
def test_sequences_that_are_none_are_refused(tokens: Any, intervals: Any, lengths: Any, message: str) -> None:
    module = EventSSM(SsmConfig(**SMALL))
    with pytest.raises(InferenceError, match=message):
        module(torch.tensor(tokens), torch.tensor(intervals), None if lengths is None else torch.tensor(lengths))


def test_only_a_config_makes_a_model() -> None:
    with pytest.raises(InferenceError, match="expected an SsmConfig, found str"):
        EventSSM("dvs/small")  # type: ignore[arg-type]
