"""A recurrent layer of leaky integrate-and-fire neurons and a leaky readout: a classifier of event recordings.

Imported only where it is used, for it imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import nn

from .errors import InferenceError
from .lif_gradient import EventProjection, LifSequence, Sequence, SuperSpike, project, run_steps
from .lif_loops import Carried, Factors, Kept
from .sparse import SparseSteps, sparse_raster

if TYPE_CHECKING:
    from .data import EventDataset
    from .train import TrainResult

Engine = Literal["auto", "events", "dense", "torch"]
"""``"events"`` adds a column of weights per event, ``"dense"`` multiplies all steps at once; both run compiled loops
on the CPU, in float32. ``"torch"`` runs anywhere, step by step. ``"auto"`` takes the fastest that fits."""

_ENGINES = ("auto", "events", "dense", "torch")

_FEW = 0.125
"""Share of values that are not 0 up to which events are faster than a dense product."""


@dataclasses.dataclass(frozen=True)
class LifConfig:
    """What a recurrent LIF classifier is, without its weights.

    Units: time constants and the step in seconds; ``v_th`` in the scale of the potential, which rests at 0; ``alpha``
    is the steepness of the surrogate gradient.
    Raises: InferenceError for values that make no such network, all of them at once.
    """

    in_features: int
    hidden: int
    classes: int
    tau_syn_s: float = 10e-3
    tau_mem_s: float = 10e-3
    v_th: float = 0.3
    alpha: float = 100.0
    dt_s: float = 1e-3
    readout_tau_syn_s: float = 5e-3
    readout_tau_mem_s: float = 10e-3

    def __post_init__(self) -> None:
        wrong = []
        for name in ("in_features", "hidden", "classes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                wrong.append(f"{name}: expected a whole number of 1 or more, found {value!r}")
        for name in ("dt_s", "v_th", "alpha"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                wrong.append(f"{name}: expected a finite number above 0, found {value!r}")
        for name in ("tau_syn_s", "tau_mem_s", "readout_tau_syn_s", "readout_tau_mem_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= self.dt_s):
                wrong.append(f"{name}: expected at least a step of {self.dt_s} s, found {value!r}")
        if wrong:
            raise InferenceError(f"recurrent LIF: {'; '.join(wrong)}. Try the time constants in seconds, such as 0.01.")

    @property
    def factors(self) -> Factors:
        """Shares of a step, rounded to float32 as the loops use them."""
        taus = self.tau_mem_s, self.tau_syn_s, self.readout_tau_mem_s, self.readout_tau_syn_s
        mem, syn, out_mem, out_syn = (np.float32(self.dt_s / tau) for tau in taus)
        return Factors(mem, syn, out_mem, out_syn, np.float32(self.v_th))


@dataclasses.dataclass(frozen=True, eq=False)
class LifState:
    """The state between two steps, without gradients.

    Shapes: potentials ``v``, synaptic currents ``i`` and last spikes ``z`` of the neurons ``[B, H]``; potentials and
    currents of the readout ``[B, C]``.
    """

    v: torch.Tensor
    i: torch.Tensor
    z: torch.Tensor
    out_v: torch.Tensor
    out_i: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class LifTrace:
    """What the neurons did in each step: potentials behind the reset, synaptic currents, spikes; all ``[T, B, H]``."""

    v: torch.Tensor
    i: torch.Tensor
    z: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class LifOutcome:
    """What a run came to: potentials of the readout ``[T, B, C]``, the last state, and the trace where asked for."""

    potentials: torch.Tensor
    state: LifState
    trace: LifTrace | None = None

    def log_probabilities(self, n_steps: ArrayLike | None = None) -> torch.Tensor:
        """Return the logarithms of the classes' probabilities ``[B, C]``: softmax of the largest potential over time.

        ``n_steps`` ``[B]`` says how many steps of each sample count: others are padding.
        Raises: InferenceError where a sample has no step, or more than were run.
        """
        potentials = self.potentials
        total, n_samples = potentials.shape[:2]
        counted = np.full(n_samples, total) if n_steps is None else np.asarray(n_steps)
        if counted.shape != (n_samples,) or counted.dtype.kind not in "iu":
            raise InferenceError(
                f"recurrent LIF: n_steps: expected {n_samples} whole numbers, found {list(counted.shape)} of "
                f"{counted.dtype}. Try one for each sample."
            )
        if total == 0 or (counted < 1).any() or (counted > total).any():
            raise InferenceError(
                f"recurrent LIF: expected samples of 1 to {total} time steps, as many as were run, found "
                f"{sorted(set(counted.tolist())) or 'none'}. Try a longer recording."
            )
        if n_steps is not None:
            is_padding = np.arange(total)[:, None, None] >= counted[None, :, None]
            potentials = potentials.masked_fill(torch.from_numpy(is_padding).to(potentials.device), -math.inf)
        return F.log_softmax(potentials.max(dim=0).values, dim=1)


class RecurrentLif(nn.Module):
    """LIF neurons with recurrence, a linear layer, a leaky-integrator readout; maximum over time and log softmax.

    In a step, with a = dt/tau_mem and b = dt/tau_syn::

        j = i + W x + R z;   v' = v + a (j - v);   i = j - b j;   z = 1 where v' > v_th;   v = v' (1 - z)

    The readout is the same with O z for input, its own time constants and no threshold. ``x`` are counts. R has no
    self-connection, whatever stands on its diagonal. The gradient of z is 1 / (alpha |v' - v_th| + 1)^2; the z in the
    reset is a constant to it. Norse 1.1.0, the newest release, has the same step but leaves out alpha: its gradient is
    this one with alpha of 1.
    Shapes: ``input_weight`` W ``[hidden, in_features]``, ``recurrent_weight`` R ``[to, from]``, ``readout_weight`` O
    ``[classes, hidden]``. Inputs are ``[T, B, ...]``, ``in_features`` in the last axes, or ``SparseSteps``.
    Law: engines agree to float32 rounding, as long as no potential is that near to the threshold. With the engine
    "events" a sample gives the same bits alone, in any batch, and in pieces with the state carried.
    Source: data and measured accuracy in ``examples/07_poker_dvs.py``.
    """

    not_convertible = (
        "its neurons have a leak, synaptic currents and recurrence, while those of the chip integrate without any "
        "of these. Try it as it is: spikeport.models.LifPredictor(module, input_shape)"
    )
    """Why ``spikeport.convert`` refuses this module."""

    def __init__(
        self,
        in_features: int,
        hidden: int,
        classes: int,
        tau_syn_s: float = 10e-3,
        tau_mem_s: float = 10e-3,
        v_th: float = 0.3,
        alpha: float = 100.0,
        dt_s: float = 1e-3,
        *,
        readout_tau_syn_s: float = 5e-3,
        readout_tau_mem_s: float = 10e-3,
    ) -> None:
        super().__init__()
        readout_taus = readout_tau_syn_s, readout_tau_mem_s
        self.config = LifConfig(in_features, hidden, classes, tau_syn_s, tau_mem_s, v_th, alpha, dt_s, *readout_taus)
        scale = math.sqrt(2 / hidden)
        # What one event adds lies side by side in memory; the shape is that of any linear layer.
        self.input_weight = nn.Parameter(torch.randn(in_features, hidden).mul_(scale).t())
        self.recurrent_weight = nn.Parameter(torch.randn(hidden, hidden).mul_(scale).fill_diagonal_(0.0))
        self.readout_weight = nn.Parameter(torch.empty(classes, hidden).uniform_(-1, 1) / math.sqrt(hidden))

    def extra_repr(self) -> str:
        """Return the configuration."""
        return ", ".join(f"{field.name}={getattr(self.config, field.name)}" for field in dataclasses.fields(LifConfig))

    def forward(self, inputs: torch.Tensor | SparseSteps, n_steps: ArrayLike | None = None) -> torch.Tensor:
        """Return the logarithms of the classes' probabilities, ``[B, classes]``; see ``LifOutcome``."""
        return self.run(inputs).log_probabilities(n_steps)

    def run(
        self,
        inputs: torch.Tensor | SparseSteps,
        state: LifState | None = None,
        *,
        engine: Engine = "auto",
        record: bool = False,
    ) -> LifOutcome:
        """Return what comes of all steps, from ``state`` on; ``record`` keeps potentials, currents and spikes.

        Raises: InferenceError for input or a state of another shape, values that are not finite, or an engine that
        does not fit.
        """
        if engine not in _ENGINES:
            raise InferenceError(
                f"recurrent LIF: expected an engine of {', '.join(_ENGINES)}, found {engine!r}. Try auto."
            )
        self._check_shape(inputs)
        weight = self.input_weight
        is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        if engine == "torch" or not is_plain:
            if engine in ("events", "dense"):
                raise InferenceError(
                    f"recurrent LIF: engine {engine}: expected weights on the CPU in float32, found {weight.dtype} on "
                    f"{weight.device}. Try engine='auto'."
                )
            return self._run_torch(self._dense(inputs), self._first(inputs, state), record)
        return self._run_compiled(self._currents(inputs, engine), self._first(inputs, state), record)

    def train_on(self, dataset: EventDataset, *, epochs: int | None = None) -> TrainResult:
        """Train in place and return how it went: what ``spikeport.models.train`` calls; see ``train_lif``."""
        from .lif_training import LifTrainSettings, train_lif

        settings = LifTrainSettings() if epochs is None else LifTrainSettings(epochs=epochs)
        return train_lif(self, dataset, settings=settings)

    def _currents(self, inputs: torch.Tensor | SparseSteps, engine: Engine) -> torch.Tensor:
        """Return the weighted input of all steps, ``[T, B, H]``."""
        weight = self.input_weight
        steps = inputs if isinstance(inputs, SparseSteps) else None
        if steps is None and engine != "dense" and not (isinstance(inputs, torch.Tensor) and inputs.requires_grad):
            steps = sparse_raster(self._dense(inputs).numpy(), most=1.0 if engine == "events" else _FEW)
        if steps is None or engine == "dense":
            return F.linear(self._dense(inputs), weight)
        if torch.is_grad_enabled() and weight.requires_grad:
            return EventProjection.apply(weight, steps)  # type: ignore[no-any-return, no-untyped-call]
        return torch.from_numpy(project(weight, steps))

    def _run_compiled(self, currents: torch.Tensor, first: LifState, record: bool) -> LifOutcome:
        _check_finite(currents)
        state = {field.name: getattr(first, field.name).clone() for field in dataclasses.fields(LifState)}
        recurrent = self.recurrent_weight * (1 - torch.eye(self.config.hidden))
        weights = recurrent, self.readout_weight
        learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (currents, *weights))
        n_steps, n_samples, width = currents.shape
        kept = Kept(*np.empty((3, n_steps if learns or record else 1, n_samples, width), np.float32))
        carried = Carried(**{name: tensor.numpy() for name, tensor in state.items()})
        sequence = Sequence(self.config.factors, np.float32(self.config.alpha), carried, kept)
        if learns:
            potentials = LifSequence.apply(currents, *weights, sequence)  # type: ignore[no-untyped-call]
        else:
            potentials = torch.from_numpy(run_steps(currents, *weights, sequence))
        trace = None
        if record:
            v, i, z = map(torch.from_numpy, kept)
            trace = LifTrace(v * (1 - z), i.clone(), z.clone())
        return LifOutcome(potentials, LifState(**state), trace)

    def _run_torch(self, inputs: torch.Tensor, first: LifState, record: bool) -> LifOutcome:
        config = self.config
        currents = F.linear(inputs, self.input_weight)
        _check_finite(currents)
        mem, syn, out_mem, out_syn = (float(share) for share in config.factors[:4])
        eye = torch.eye(config.hidden, dtype=currents.dtype, device=currents.device)
        recurrent = self.recurrent_weight * (1 - eye)
        v, i, z, out_v, out_i = first.v, first.i, first.z, first.out_v, first.out_i
        potentials, traced = [], []
        for current in currents:
            jump = i + current + F.linear(z, recurrent)
            before = v + mem * (jump - v)
            i = jump - syn * jump
            z = SuperSpike.apply(before - config.v_th, config.alpha)  # type: ignore[no-untyped-call]
            v = before * (1 - z.detach())
            into = out_i + F.linear(z, self.readout_weight)
            out_v = out_v + out_mem * (into - out_v)
            out_i = into - out_syn * into
            potentials.append(out_v)
            if record:
                traced.append((v.detach(), i.detach(), z.detach()))
        none = currents.new_zeros(0, *currents.shape[1:])
        found = torch.stack(potentials) if potentials else currents.new_zeros(0, currents.shape[1], config.classes)
        trace = LifTrace(*(map(torch.stack, zip(*traced, strict=True)) if traced else (none,) * 3)) if record else None
        return LifOutcome(found, LifState(*(tensor.detach() for tensor in (v, i, z, out_v, out_i))), trace)

    def _dense(self, inputs: torch.Tensor | SparseSteps) -> torch.Tensor:
        """Return input as ``[T, B, in_features]`` where the weights are, in their type."""
        given = torch.from_numpy(inputs.to_raster()) if isinstance(inputs, SparseSteps) else inputs
        flat = given.reshape(*given.shape[:2], self.config.in_features)
        return flat.to(self.input_weight.device, self.input_weight.dtype)

    def _first(self, inputs: torch.Tensor | SparseSteps, state: LifState | None) -> LifState:
        """Return the state to begin with, checked."""
        n_samples = int(inputs.shape[1])
        widths = {name: self.config.classes if name.startswith("out_") else self.config.hidden for name in _STATE}
        weight = self.input_weight
        if state is None:
            zeros = {name: weight.new_zeros(n_samples, width).detach() for name, width in widths.items()}
            return LifState(**zeros)
        given: dict[str, torch.Tensor] = {}
        for name, width in widths.items():
            tensor = torch.as_tensor(getattr(state, name)).detach()
            if tuple(tensor.shape) != (n_samples, width) or not bool(torch.isfinite(tensor).all()):
                raise InferenceError(
                    f"recurrent LIF: state {name}: expected finite numbers of shape [{n_samples}, {width}], found "
                    f"{list(tensor.shape)}. Try the state of the piece before, of as many samples."
                )
            given[name] = tensor.to(weight.device, weight.dtype)
        return LifState(**given)

    def _check_shape(self, inputs: Any) -> None:
        shape = tuple(inputs.shape) if isinstance(inputs, (torch.Tensor, SparseSteps)) else ()
        if len(shape) < 3 or math.prod(shape[2:]) != self.config.in_features:
            found = f"shape {list(shape)}" if shape else type(inputs).__name__
            raise InferenceError(
                f"recurrent LIF: expected a tensor [time, batch, ...] with {self.config.in_features} features in the "
                f"last axes, or SparseSteps, found {found}. Try torch.from_numpy(events.to_raster(1000))[:, None]."
            )


_STATE = tuple(field.name for field in dataclasses.fields(LifState))


def _check_finite(currents: torch.Tensor) -> None:
    if not bool(torch.isfinite(currents).all()):
        raise InferenceError(
            "recurrent LIF: expected finite input and weights, found NaN or infinity in the weighted input. "
            "Try torch.nan_to_num, or a lower learning rate."
        )
