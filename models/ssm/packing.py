"""From the module to what the compiled loops read: packed matrices, a row for each token, tables of decays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import memory
from .configs import SsmConfig
from .tokens import LONGEST_US
from .vectors import PANEL

if TYPE_CHECKING:
    import torch

    from spikeport.models.event_ssm import EventSSM

    from .layers import EventSsmLayer

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

_LINE = 64  # bytes
_TOKENS_AT_ONCE = 4096


class _Numbers:
    """Arrays one behind the other, each on lines of the cache of its own."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []
        self.size = 0

    def add(self, values: NDArray[np.floating]) -> int:
        """Return where the values begin."""
        flat = np.ravel(values).astype(np.float32)
        start, filled = self.size, -len(flat) % memory.RUN
        self._parts.append(np.concatenate([flat, np.zeros(filled, np.float32)]))
        self.size += len(flat) + filled
        return start

    def whole(self) -> Floats:
        """Return them all."""
        found = aligned(self.size)
        np.concatenate(self._parts, out=found)
        return found


def aligned(n: int) -> Floats:
    """Return ``n`` zeros of float32 that begin a line of the cache."""
    raw = np.zeros(n * 4 + _LINE, np.uint8)
    first = -raw.ctypes.data % _LINE
    return raw[first : first + n * 4].view(np.float32)


def pack(module: EventSSM) -> tuple[memory.Packed, memory.Carried]:
    """Return a module as the compiled loops read it, and the state before the first event.

    Weights are worked out in float64 and rounded once.
    """
    config = module.config
    weights, decays, rates = _Numbers(), _Numbers(), []
    layers = [layer for stage in module.stages for layer in stage]  # type: ignore[attr-defined]
    plan = np.full((len(layers), memory.N_FIELDS), -1, np.int64)
    widest = max(max(_filled(layer.shape.n_in), _filled(layer.shape.n_out)) for layer in layers)
    states = max(2 * _complexes(layer.shape.n_states) for layer in layers)
    zero = weights.add(np.zeros(max(widest, states)))
    n_states = n_rates = 0
    for own, layer in zip(plan, layers, strict=True):
        own[memory.ZERO], own[memory.STATE], own[memory.RATE] = zero, n_states, n_rates
        rates.append(_plan_layer(own, layer, config, weights, decays))
        n_rates += len(rates[-1])
        n_states += int(4 * own[memory.STATES] + 2 * own[memory.IN] + memory.RUN)
    pools = {"last": memory.LAST, "avgpool": memory.MEAN, "timepool": memory.BY_TIME}
    heads = {"last": memory.LAST, "pool": memory.MEAN, "timepool": memory.BY_TIME}
    norm = memory.LAYER_NORM if config.norm == "layer" else memory.AFFINE
    modes = [pools[config.pooling], heads[config.head], norm, int(config.prenorm)]
    whole = _Numbers()
    rows = {"x": widest, "u": widest, "bu": states, "kept": states + widest, "skip": widest, "y": widest, "z": widest}
    room = [np.zeros(memory.N_ROWS * width, np.float32) for width in (*rows.values(), 2)]
    bounds = [whole.add(part) for part in (weights.whole(), decays.whole(), *room)]
    limits = [config.vocabulary, LONGEST_US, len(layers)]
    gaps, last = [0] * memory.N_ROWS, [-1] * len(layers)
    ints = np.array([*bounds, whole.size, *modes, *limits, *plan.ravel(), *gaps, *last], np.int64)
    packed = memory.Packed(_table(module, layers[0]), whole.whole(), ints, np.concatenate(rates))
    width = int(plan[-1, memory.OUT])
    return packed, memory.Carried(aligned(n_states), np.zeros((len(layers) + 1, 2), np.int64), np.zeros(width + 1))


def _plan_layer(
    own: NDArray[np.int64], layer: EventSsmLayer, config: SsmConfig, weights: _Numbers, decays: _Numbers
) -> Doubles:
    """Fill a layer's row of the plan, and return its rates."""
    shape, ssm = layer.shape, layer.ssm
    n_in, n_out, n = _filled(shape.n_in), _filled(shape.n_out), _complexes(shape.n_states)
    own[[memory.IN, memory.IN_TRUE, memory.OUT, memory.OUT_TRUE]] = n_in, shape.n_in, n_out, shape.n_out
    own[[memory.STATES, memory.STRIDE]] = n, shape.stride
    rate, gain = _rates(layer, config), _gain(layer, config)
    into = complex_rows(ssm.b) * (1.0 if gain is None else gain[:, None])
    own[memory.B] = weights.add(_packed(_split(into, n).T, n_in))
    c = complex_rows(ssm.c) * (2 if config.conj_sym else 1)
    through = doubles(ssm.d)
    back = _split(c.T.conj(), n)  # Re(C h) is Re(C) Re(h) - Im(C) Im(h)
    if through.ndim == 2:
        below = np.zeros((n_in, shape.n_out))
        below[: shape.n_in] = through.T
        back = np.concatenate([back, below])
    else:
        own[memory.D] = weights.add(_wide(through, n_in))
    own[memory.C] = weights.add(_packed(back, len(back), n_out))
    own[memory.GATE] = weights.add(_packed(doubles(layer.gate.weight).T, n_out, n_out))
    own[memory.GATE_BIAS] = weights.add(_wide(doubles(layer.gate.bias), n_out))
    if layer.skip is not None:
        own[memory.SKIP] = weights.add(_packed(doubles(layer.skip.weight).T, n_in, n_out))
        own[memory.SKIP_BIAS] = weights.add(_wide(doubles(layer.skip.bias), n_out))
    scale, bias = norm_of(layer)
    ones, zeros = np.ones(shape.n_in), np.zeros(shape.n_in)
    own[memory.SCALE] = weights.add(_wide(scale if config.prenorm else ones, n_in))
    # Behind the bias of the inputs: scale and bias of a norm that comes last.
    behind = [] if config.prenorm else [_wide(scale, n_out), _wide(bias, n_out)]
    own[memory.BIAS] = weights.add(np.concatenate([_wide(bias if config.prenorm else zeros, n_in), *behind]))
    if config.discretization == "zoh":
        own[memory.GAIN] = weights.add(_split((1.0 / _eigenvalues(layer, config))[:, None], n))
    own[memory.DECAY] = decays.add(_decays(rate, n))
    filled = np.zeros((2, n))
    filled[:, : len(rate)] = rate.real, rate.imag
    return filled.ravel()


def _table(module: EventSSM, layer: EventSsmLayer) -> Floats:
    """Return a row for each token: what it adds to the first layer's states, its embedding, mean, 1 / deviation."""
    config = module.config
    embedding = doubles(module.embedding.weight)
    n_in, n = _filled(layer.shape.n_in), _complexes(layer.shape.n_states)
    width = 2 * n + n_in + memory.RUN
    rows = aligned(len(embedding) * width)
    table = rows.reshape(-1, width)
    table[:, 2 * n : 2 * n + config.d_model] = embedding
    gain = _gain(layer, config)
    into = _split(complex_rows(layer.ssm.b) * (1.0 if gain is None else gain[:, None]), n).T
    scale, bias = norm_of(layer)
    for first in range(0, len(embedding), _TOKENS_AT_ONCE):
        part = slice(first, first + _TOKENS_AT_ONCE)
        x = embedding[part]
        mean, inverse = np.zeros(len(x)), np.ones(len(x))
        if config.prenorm and config.norm == "layer":
            mean = x.mean(1)
            inverse = 1.0 / np.sqrt(x.var(1) + float(memory.NORM_EPS))
        if config.prenorm:
            x = (x - mean[:, None]) * inverse[:, None] * scale + bias
        table[part, : 2 * n] = x @ into
        table[part, 2 * n + n_in], table[part, 2 * n + n_in + 1] = mean, inverse
    return rows


def norm_of(layer: EventSsmLayer) -> tuple[Doubles, Doubles]:
    """Return scale and bias of a layer's norm; those of batch normalization hold its running statistics."""
    norm: Any = layer.norm
    scale, bias = doubles(norm.weight), doubles(norm.bias)
    if hasattr(norm, "running_var"):
        scale = scale / np.sqrt(doubles(norm.running_var) + float(norm.eps))
        bias = bias - doubles(norm.running_mean) * scale
    return scale, bias


def _eigenvalues(layer: EventSsmLayer, config: SsmConfig) -> NDArray[np.complex128]:
    real = doubles(layer.ssm.lambda_re)
    return (np.minimum(real, -1e-4) if config.clip_eigs else real) + 1j * doubles(layer.ssm.lambda_im)


def _rates(layer: EventSsmLayer, config: SsmConfig) -> NDArray[np.complex128]:
    """Return what each state decays by in a millisecond, as an exponent."""
    steps = config.step_rescale * np.exp(doubles(layer.ssm.log_step))
    return np.asarray(_eigenvalues(layer, config) * steps, np.complex128)


def _gain(layer: EventSsmLayer, config: SsmConfig) -> NDArray[np.complex128] | None:
    """Return the gain of each state's input, where it does not depend on the interval."""
    if config.discretization != "async":
        return None
    return np.asarray(np.expm1(_rates(layer, config)) / _eigenvalues(layer, config), np.complex128)


def _decays(rate: NDArray[np.complex128], n: int) -> Floats:
    """Return ``exp(rate d) - 1`` for each value of each byte of ``d``, and two rows to work in."""
    units_ms = 1e-3 * 256.0 ** np.arange(memory.N_BYTES)
    intervals_ms = np.outer(units_ms, np.arange(256)).ravel()
    found = np.zeros((memory.TABLE_ROWS + 2, 2 * n), np.float32)
    small = np.expm1(np.multiply.outer(intervals_ms, rate))
    found[:-2, : len(rate)], found[:-2, n : n + len(rate)] = small.real, small.imag
    return found


def _packed(matrix: Doubles, n_rows: int, n_columns: int | None = None) -> Doubles:
    """Return a matrix as ``[panel][row][column of the panel]``, filled up with zeros."""
    filled = np.zeros((n_rows, matrix.shape[1] if n_columns is None else n_columns))
    filled[: matrix.shape[0], : matrix.shape[1]] = matrix
    return filled.reshape(n_rows, -1, PANEL).transpose(1, 0, 2)


def _split(matrix: NDArray[np.complex128], n: int) -> Doubles:
    """Return complex rows as real ones before imaginary ones, each filled up to ``n``."""
    filled = np.zeros((2, n, matrix.shape[1]))
    filled[:, : len(matrix)] = matrix.real, matrix.imag
    return filled.reshape(2 * n, -1)


def _wide(vector: Doubles, n: int) -> Doubles:
    return np.concatenate([vector, np.zeros(n - len(vector))])


def _filled(n: int) -> int:
    return -(-n // PANEL) * PANEL


def _complexes(n: int) -> int:
    return -(-n // memory.RUN) * memory.RUN


def complex_rows(pairs: torch.Tensor) -> NDArray[np.complex128]:
    """Return real and imaginary parts along the last axis as complex numbers."""
    parts = doubles(pairs)
    return np.asarray(parts[..., 0] + 1j * parts[..., 1], np.complex128)


def doubles(tensor: torch.Tensor) -> Doubles:
    """Return a tensor's values in float64."""
    return np.asarray(tensor.detach().cpu().numpy(), np.float64)
