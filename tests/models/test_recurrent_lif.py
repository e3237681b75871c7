"""The recurrent LIF classifier: every engine against one written neuron by neuron, gradients, bad input."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.convert.capture import capture
from spikeport.convert.errors import UnsupportedLayerError
from spikeport.models.errors import InferenceError
from spikeport.models.lif_gradient import SuperSpike
from spikeport.models.recurrent_lif import Engine, LifConfig, LifState, RecurrentLif
from spikeport.models.sparse import sparse_raster

ENGINES: tuple[Engine, ...] = ("auto", "events", "dense", "torch")
NAMES = tuple(field.name for field in dataclasses.fields(LifState))


def make(seed: int = 0, shape: tuple[int, int, int] = (20, 12, 3), **config: Any) -> RecurrentLif:
    torch.manual_seed(seed)
    return RecurrentLif(*shape, **config)


def counts(module: RecurrentLif, n_steps: int = 14, n_samples: int = 3, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((n_steps, n_samples, module.config.in_features), 0.2), generator)


def by_hand(module: RecurrentLif, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return potentials of the readout, spikes, and how near a potential came to the threshold: plain float64 loops."""
    c = module.config
    w, r, o = (tensor.detach().double().numpy() for tensor in module.parameters())
    n_steps, n_samples = x.shape[:2]
    found, fired, margin = np.zeros((n_steps, n_samples, c.classes)), np.zeros((n_steps, n_samples, c.hidden)), np.inf
    for b in range(n_samples):
        v, i, z = np.zeros(c.hidden), np.zeros(c.hidden), np.zeros(c.hidden)
        out_v, out_i = np.zeros(c.classes), np.zeros(c.classes)
        for t in range(n_steps):
            after = v.copy(), i.copy(), z.copy()
            for h in range(c.hidden):
                jump = i[h] + w[h] @ x[t, b] + sum(r[h, k] * z[k] for k in range(c.hidden) if k != h)
                before = v[h] + c.dt_s / c.tau_mem_s * (jump - v[h])
                margin = min(margin, abs(before - c.v_th))
                after[0][h] = 0.0 if before > c.v_th else before
                after[1][h] = jump - c.dt_s / c.tau_syn_s * jump
                after[2][h] = before > c.v_th
            v, i, z = after
            for k in range(c.classes):
                into = out_i[k] + o[k] @ z
                out_v[k] += c.dt_s / c.readout_tau_mem_s * (into - out_v[k])
                out_i[k] = into - c.dt_s / c.readout_tau_syn_s * into
            found[t, b], fired[t, b] = out_v, z
    return found, fired, margin


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.tuples(st.integers(1, 20), st.integers(1, 19), st.integers(1, 5)),
    st.integers(0, 9),
    st.sampled_from([{}, {"tau_syn_s": 4e-3, "v_th": 0.5}, {"tau_mem_s": 2e-3, "dt_s": 2e-3}]),
)
def test_every_engine_does_what_the_equations_say(
    seed: int, shape: tuple[int, int, int], n_steps: int, config: dict[str, float]
) -> None:
    module = make(seed, shape, **config)
    with torch.no_grad():
        module.recurrent_weight.fill_diagonal_(5.0)  # there is no self-connection, whatever stands there
    x = counts(module, n_steps, 2, seed=seed)
    expected, fired, margin = by_hand(module, x.double().numpy())
    assume(margin > 1e-5)
    for engine in ENGINES:
        with torch.no_grad():
            outcome = module.run(x, engine=engine, record=True)
        assert outcome.trace is not None
        np.testing.assert_allclose(outcome.potentials.numpy(), expected, atol=1e-5)
        np.testing.assert_array_equal(outcome.trace.z.numpy(), fired)
        if n_steps:
            for name in ("v", "i", "z"):
                np.testing.assert_array_equal(getattr(outcome.trace, name)[-1], getattr(outcome.state, name))


def test_a_neuron_by_hand() -> None:
    module = make(0, (1, 1, 1), tau_syn_s=2e-3, tau_mem_s=4e-3, v_th=1.0)
    with torch.no_grad():
        module.input_weight.fill_(2.0)
        module.readout_weight.fill_(1.0)
    outcome = module.run(torch.tensor([1.0, 0.0, 3.0, 0.0]).reshape(4, 1, 1), record=True)
    assert outcome.trace is not None
    # j: 2, 1, 0.5 + 6, 3.25; v': 0.5, 0.5 + 0.25 (1 - 0.5), 0.625 + 0.25 (6.5 - 0.625) fires, 0.25 * 3.25
    assert outcome.trace.i.flatten().tolist() == [1.0, 0.5, 3.25, 1.625]
    assert outcome.trace.v.flatten().tolist() == [0.5, 0.625, 0.0, 0.8125]
    assert outcome.trace.z.flatten().tolist() == [0.0, 0.0, 1.0, 0.0]
    # readout: j 1 in the third step and 0.8 in the fourth; v 0.1, 0.1 + 0.1 (0.8 - 0.1)
    np.testing.assert_allclose(outcome.potentials.flatten().tolist(), [0.0, 0.0, 0.1, 0.17], atol=1e-7)


def test_a_spike_needs_more_than_the_threshold() -> None:
    module = make(0, (1, 1, 1), tau_syn_s=1e-3, tau_mem_s=1e-3, v_th=1.0)
    with torch.no_grad():
        module.input_weight.fill_(1.0)
    for engine in ENGINES:
        outcome = module.run(torch.tensor([1.0, 2.0]).reshape(2, 1, 1), engine=engine, record=True)
        assert outcome.trace is not None
        assert outcome.trace.z.flatten().tolist() == [0.0, 1.0]


def test_the_surrogate_is_superspike_with_its_alpha() -> None:
    x = torch.tensor([-0.2, -1e-9, 0.0, 1e-9, 0.5], dtype=torch.float64, requires_grad=True)
    for alpha in (1.0, 10.0, 100.0):
        spikes = SuperSpike.apply(x, alpha)  # type: ignore[no-untyped-call]
        assert spikes.tolist() == [0, 0, 0, 1, 1]
        (slope,) = torch.autograd.grad(spikes.sum(), x)
        np.testing.assert_allclose(slope.numpy(), 1 / (alpha * np.abs(x.detach().numpy()) + 1) ** 2)


@pytest.mark.parametrize("engine", ["events", "dense", "auto"])
@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_the_fused_gradients_are_those_of_autograd_step_by_step(engine: Engine, alpha: float) -> None:
    module = make(3, (30, 16, 4), alpha=alpha)
    exact = copy.deepcopy(module).double()
    x, first = counts(module, 12, 5), torch.Generator().manual_seed(2)
    draws = {name: torch.rand(5, 4 if name.startswith("out_") else 16, generator=first) for name in NAMES}
    state = LifState(**{**draws, "z": (draws["z"] < 0.3).float()})
    target = torch.arange(5) % 4
    for net, how in ((module, engine), (exact, "torch")):
        outcome = net.run(x, state, engine=how)
        loss = F.nll_loss(outcome.log_probabilities(), target) + outcome.potentials.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        expected = exact.get_parameter(name).grad
        assert parameter.grad is not None
        assert expected is not None
        assert expected.abs().max() > 0
        assert (parameter.grad - expected).abs().max() <= 1e-5 * expected.abs().max(), name
    assert module.recurrent_weight.grad is not None
    assert module.recurrent_weight.grad.diagonal().abs().max() == 0


def test_the_gradient_of_the_input_is_that_of_autograd() -> None:
    module = make(4)
    found = []
    for net, x in ((module, counts(module)), (copy.deepcopy(module).double(), counts(module).double())):
        x.requires_grad_()
        net(x).sum().backward()
        assert x.grad is not None
        found.append(x.grad.double())
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 99))
def test_pieces_give_the_same_bits_as_the_whole(lengths: list[int], seed: int) -> None:
    module = make(seed)
    x = counts(module, sum(lengths), 3, seed=seed)
    state: LifState | None = None
    pieces: list[torch.Tensor] = []
    with torch.no_grad():
        whole = module.run(x, engine="events")
        for piece in torch.split(x, lengths) if lengths else ():
            outcome = module.run(piece, state, engine="events")
            state, pieces = outcome.state, [*pieces, outcome.potentials]
    if state is not None:
        assert torch.equal(torch.cat(pieces), whole.potentials)
        assert all(torch.equal(getattr(state, name), getattr(whole.state, name)) for name in NAMES)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    module = make()
    x = counts(module, 20, 6)
    with torch.no_grad():
        whole = module.run(x, engine="events").potentials
        alone = [module.run(x[:, b : b + 1], engine="events").potentials for b in range(6)]
    assert torch.equal(torch.cat(alone, dim=1), whole)


def test_padding_does_not_count() -> None:
    module = make()
    x = counts(module, 10, 2)
    x[6:, 1] = 0
    padded = module(x, torch.tensor([10, 6]))
    np.testing.assert_array_equal(padded[1].detach(), module(x[:6, 1:])[0].detach())
    assert not torch.equal(module(x, [10, 10])[0], module(x, [2, 10])[0])
    np.testing.assert_allclose(padded.exp().sum(1).detach(), 1.0, rtol=1e-6)


def test_weights_come_back_from_a_state_dict_and_stay_laid_out_for_events() -> None:
    module, other = make(0), make(1)
    other.load_state_dict(module.state_dict())
    x = counts(module)
    assert torch.equal(module(x), other(x))
    for net in (other, copy.deepcopy(other)):
        assert net.input_weight.t().is_contiguous()
    optimizer = torch.optim.Adam(other.parameters())
    other(x).sum().backward()
    optimizer.step()
    assert other.input_weight.t().is_contiguous()


def test_norse_computes_the_same() -> None:
    if not importlib.util.find_spec("norse"):
        pytest.skip("Norse is not installed")
    from spikeport.deploy.bench.lif import _norse_net

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = make(5, (40, 30, 4))
        x = counts(module)
        with torch.no_grad():
            theirs = _norse_net(module)(x)
    np.testing.assert_allclose(module.run(x).potentials.detach(), theirs, atol=1e-5)


# bad input


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": 0, "tau_syn_s": 1e-4}, "hidden.*found 0; tau_syn_s: expected at least a step"),
        ({"dt_s": -1.0}, "dt_s: expected a finite number above 0, found -1.0"),
        ({"alpha": math.nan}, "alpha.*nan"),
        ({"classes": 2.5}, "classes.*2.5"),
        ({"readout_tau_mem_s": math.inf}, "readout_tau_mem_s.*inf"),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InferenceError, match=said):
        LifConfig(**{"in_features": 4, "hidden": 4, "classes": 2, **change})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(engine: Engine, value: float) -> None:
    module = make()
    x = counts(module)
    x[3, 1, 7] = value
    with pytest.raises(InferenceError, match=r"finite.*Try"):
        module.run(x, engine=engine)


@pytest.mark.parametrize("bad", [torch.zeros(4, 20), torch.zeros(4, 1, 19), np.zeros((4, 1, 20)), None])
def test_input_of_another_shape_or_type_is_refused(bad: Any) -> None:
    with pytest.raises(InferenceError, match=r"expected a tensor \[time, batch.*20 features"):
        make().run(bad)


def test_no_steps_a_wrong_state_and_an_unknown_engine_are_refused() -> None:
    module = make()
    x = counts(module)
    assert len(module.run(x[:0]).potentials) == 0
    with pytest.raises(InferenceError, match="1 to 0 time steps"):
        module(x[:0])
    for n_steps in ([1, 2], [0, 1, 1], [1, 1, 99], [1.0, 1.0, 1.0]):
        with pytest.raises(InferenceError, match="Try"):
            module(x, n_steps)
    state = module.run(x).state
    with pytest.raises(InferenceError, match=r"state v.*\[2, 12\], found \[3, 12\]"):
        module.run(x[:, :2], state)
    with pytest.raises(InferenceError, match="finite"):
        module.run(x, dataclasses.replace(state, i=state.i * math.nan))
    with pytest.raises(InferenceError, match="engine of auto, events"):
        module.run(x, engine="fast")  # type: ignore[arg-type]
    with pytest.raises(InferenceError, match=r"engine events.*float64"):
        make().double().run(x, engine="events")


def test_sparse_steps_run_on_every_engine() -> None:
    module = make()
    x = counts(module)
    steps = sparse_raster(x.numpy())
    assert steps is not None
    expected = module.run(x, engine="torch").potentials.detach()
    for engine in ENGINES:
        np.testing.assert_allclose(module.run(steps, engine=engine).potentials.detach(), expected, atol=1e-5)


def test_convert_refuses_it_and_says_why() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"RecurrentLif.*leak, synaptic currents and recurrence.*Try"):
        capture(make(), (20,))
